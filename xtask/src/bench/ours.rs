//! Understudy itself as a contestant.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tests::program::{component, project};
use tests::server::run;

use super::home::Home;
use super::measure::Contestant;
use crate::plugins::components;
use crate::say;

/// A release build of the program, in a folder from which the server's user can run it.
pub(crate) struct Ours<'a> {
    home: &'a Home,
    program: PathBuf,
}

/// A replica that the program creates.
pub(crate) struct Job<'a> {
    /// The name in the table.
    pub(crate) name: &'a str,
    /// The name of the component that `cargo xtask plugins` built.
    pub(crate) method: &'a str,
    /// The method's options, as lines of TOML.
    pub(crate) options: String,
    /// The method's grants, as the keys of one TOML table; see [`reads`].
    pub(crate) grants: String,
    /// The data directory.
    pub(crate) target: PathBuf,
    /// Whether the method builds on old data.
    pub(crate) keep_data: bool,
    /// The directory of PostgreSQL's programs.
    pub(crate) bin_dir: &'a Path,
}

/// Returns the grant for reading a directory.
pub(crate) fn reads(directory: &Path) -> String {
    format!("read = [\"{}\"]", directory.display())
}

impl<'a> Ours<'a> {
    /// Uses the program `built_before`, or builds the program.
    pub(crate) fn new(home: &'a Home, built_before: Option<&Path>) -> Result<Self> {
        let built = match built_before {
            Some(program) => program.to_owned(),
            None => {
                say("building the program in release");
                let built = Command::new(env!("CARGO"))
                    .args(["build", "--quiet", "--release", "--package", "understudy"])
                    // The components were built before. Each measurement names the file of its component.
                    .env("UNDERSTUDY_METHODS", components())
                    .current_dir(project())
                    .status()?;
                ensure!(built.success(), "the program does not build");
                project().join("target/release/understudy")
            }
        };
        let program = home.path("understudy");
        // The copy gets its name by a rename, because the old program may be running.
        std::fs::copy(&built, program.with_extension("new"))
            .with_context(|| format!("cannot copy {}", built.display()))?;
        std::fs::rename(program.with_extension("new"), &program)?;
        Ok(Self { home, program })
    }

    /// Returns whether the component with this name was built.
    pub(crate) fn has(&self, method: &str) -> bool {
        component(method).is_ok()
    }

    /// Returns the contestant that runs `understudy create` with an empty data directory; if the job keeps data, with the data directory
    /// that `prepare` leaves. Runs `check` first, because the first run on a machine compiles the component.
    pub(crate) fn contestant(
        &self,
        job: &Job<'_>,
        prepare: impl Fn() -> Result<()> + 'a,
    ) -> Result<Contestant<'a>> {
        let plugin = self.home.path(&format!("{}.wasm", job.method));
        std::fs::copy(component(job.method)?, &plugin)?;
        self.home.user().own(&plugin)?;
        let config = self.home.path(&format!("{}.toml", job.name.replace([' ', ','], "-")));
        self.home.user().write(
            &config,
            &format!(
                "scope = \"bench\"\n\n[replica]\ndatadir = \"{datadir}\"\nbin_dir = \"{bin_dir}\"\nstate_dir = \"{state}\"\n\
                 methods = [\"{method}\"]\n\n[method.{method}]\nplugin = \"{plugin}\"\nno_leader = true\n{keep_data}\
                 grants = {{ {grants} }}\n[method.{method}.options]\n{options}\n",
                datadir = job.target.display(),
                bin_dir = job.bin_dir.display(),
                state = self.home.path("state").display(),
                method = job.method,
                plugin = plugin.display(),
                keep_data = if job.keep_data { "keep_data = true\n" } else { "" },
                grants = job.grants,
                options = job.options,
            ),
        )?;
        run(self.home.user().command(&self.program).arg("check").arg("--config").arg(&config))?;
        let program = [self.program.as_os_str(), "create".as_ref(), "--config".as_ref(), config.as_os_str()];
        let mut program: Vec<OsString> = program.into_iter().map(OsString::from).collect();
        program.extend(["--progress=none", "--log-level=error"].map(OsString::from));
        let (home, target, keeps) = (self.home, job.target.clone(), job.keep_data);
        Ok(Contestant {
            name: job.name.to_owned(),
            leaves: Some(target.join("global/pg_control")),
            prepare: Box::new(move || {
                prepare()?;
                if keeps { Ok(()) } else { home.remove(&target) }
            }),
            program,
        })
    }
}
