//! Patroni itself, from PyPI, as the judge of what the loop decides.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Debian's Python, not the first one of `PATH`: what the environment has must fit the one Python that every user may run.
pub const PYTHON: &str = "/usr/bin/python3";

/// The Python of a virtual environment under `target/` that has Patroni; makes the environment where it is missing or
/// of other releases. Takes some seconds the first time and nothing after.
///
/// # Errors
/// Where Python, its `venv` module or PyPI is out of reach.
pub fn ensure_patroni() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let wanted = fs::read_to_string(here.join("patroni/requirements.txt"))?;
    let target = here.join("../target");
    let environment = target.join("patroni-venv");
    let python = environment.join("bin/python");
    // Written last: an environment without it is half made.
    let made_for = environment.join("requirements.txt");

    fs::create_dir_all(&target)?;
    let lock = File::create(target.join("patroni-venv.lock"))?;
    lock.lock().context("waiting for another test that installs Patroni")?;
    if fs::read_to_string(&made_for).is_ok_and(|made_for| made_for == wanted) {
        return Ok(python);
    }
    let mut venv = Command::new(PYTHON);
    venv.args(["-m", "venv", "--clear"]).arg(&environment);
    finish(&mut venv, "Debian's packages python3 and python3-venv bring what is missing")?;
    let mut install = Command::new(&python);
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]);
    install.arg(here.join("patroni/requirements.txt"));
    finish(
        &mut install,
        "Patroni comes from PyPI; look whether this machine reaches it (pip's settings are honoured)",
    )?;
    fs::write(&made_for, wanted)?;
    Ok(python)
}

fn finish(command: &mut Command, hint: &str) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?} does not run; {hint}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    let told = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{command:?}: {} {}; {hint}", told.trim(), errors.trim());
    Ok(())
}

/// `tests/patroni/drive.py`, running: one case in, what Patroni did out. Ended when the value is dropped.
#[derive(Debug)]
pub struct Driver {
    process: Child,
    cases: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Driver {
    /// Starts it on a data directory of its own below `scratch`, with PostgreSQL's programs in `bin_dir`, of which it
    /// starts only `postgres --version`.
    ///
    /// # Errors
    /// Those of [`ensure_patroni`], and where it does not start.
    pub fn start(scratch: &Path, bin_dir: &Path) -> Result<Self> {
        let mut process = Command::new(ensure_patroni()?)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("patroni/drive.py"))
            .arg(scratch.join("patroni"))
            .arg(bin_dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("patroni/drive.py does not start")?;
        let (Some(cases), Some(answers)) = (process.stdin.take(), process.stdout.take()) else {
            bail!("patroni/drive.py has no pipes")
        };
        Ok(Self { process, cases: Some(cases), answers: BufReader::new(answers) })
    }

    /// What Patroni does in this case.
    ///
    /// # Errors
    /// Where the driver fell over, which prints why on stderr.
    pub fn run<T: DeserializeOwned>(&mut self, case: &impl Serialize) -> Result<T> {
        let cases = self.cases.as_mut().context("patroni/drive.py is gone")?;
        serde_json::to_writer(&mut *cases, case)?;
        cases.write_all(b"\n")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        serde_json::from_str(&answer)
            .with_context(|| format!("patroni/drive.py answered `{}`", answer.trim()))
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // At the end of its input it ends by itself.
        drop(self.cases.take());
        let _status = self.process.wait();
    }
}
