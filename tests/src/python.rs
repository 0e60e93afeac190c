//! Python environments with packages from PyPI, one below `target/` for each list of requirements, and a newer Python than Debian 12's.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::debian::apt_get;
use crate::program::project;
use crate::server::run;

/// Debian's Python, not the first Python in `PATH`: packages must fit the Python that every user may run.
pub const PYTHON: &str = "/usr/bin/python3";

/// The Python that runs an environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// Debian's Python, as a virtual environment.
    Debian,
    /// A copy of the Python of [`newer_python`].
    Newer,
}

/// Returns the folder of the environment `target/<name>`, which has the packages that the file `requirements` lists. Creates the
/// environment if it is missing or was created from another list.
///
/// # Errors
/// Fails if Python, its `venv` module or PyPI cannot be reached, or as [`newer_python`] does.
pub fn environment(name: &str, base: Base, requirements: &Path) -> Result<PathBuf> {
    let mut wanted = fs::read_to_string(requirements)
        .with_context(|| format!("cannot read {}", requirements.display()))?;
    if base == Base::Newer {
        wanted += &format!("# for Python {NEWER}\n");
    }
    let environment = project().join("target").join(name);
    // This file is written last, so an environment without this file is incomplete.
    let made_for = environment.join("requirements.txt");
    let lock = environment.with_extension("lock");
    fs::create_dir_all(lock.parent().unwrap_or(project()))?;
    let lock = File::create(lock)?;
    lock.lock().with_context(|| format!("waiting for another process that installs {name}"))?;
    if fs::read_to_string(&made_for).is_ok_and(|made_for| made_for == wanted) {
        return Ok(environment);
    }
    match base {
        Base::Debian => finish(
            Command::new(PYTHON).args(["-m", "venv", "--clear"]).arg(&environment),
            "Debian's packages python3 and python3-venv bring what is missing",
        )?,
        Base::Newer => {
            if environment.exists() {
                fs::remove_dir_all(&environment)?;
            }
            run(Command::new("cp").arg("-R").arg(newer_python()?).arg(&environment))?;
        }
    }
    let mut install = Command::new(environment.join("bin/python"));
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]);
    finish(
        install.arg(requirements),
        "the packages come from PyPI: check that this machine can reach it (pip's settings apply)",
    )?;
    fs::write(&made_for, wanted)?;
    Ok(environment)
}

/// The version of the newer Python, which is a part of the path where it is kept.
const NEWER: &str = "3.13.5";

/// Returns the folder of a newer Python than Debian 12's, with `bin/python`. The folder can be copied and used elsewhere. If it is
/// missing, downloads Debian's source package of the newer Python and compiles it below `target/`, which takes some minutes.
///
/// # Errors
/// Fails if apt cannot download the package or has another version of it, or if Python cannot be compiled.
pub fn newer_python() -> Result<PathBuf> {
    let folder = project().join("target/python");
    let made = folder.join(NEWER);
    fs::create_dir_all(&folder)?;
    let lock = File::create(folder.join("lock"))?;
    lock.lock().context("waiting for another process that compiles Python")?;
    if !made.exists() {
        let unfinished = folder.join("unfinished");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished)?;
        }
        compile(&unfinished).with_context(|| format!("compiling Python {NEWER} from Debian's packages"))?;
        fs::rename(unfinished.join("python"), &made)?;
        fs::remove_dir_all(&unfinished)?;
    }
    Ok(made)
}

/// Compiles Python in this directory and puts it into the directory `python` there.
fn compile(within: &Path) -> Result<()> {
    let (downloaded, source) = (within.join("package"), within.join("source"));
    apt_get(&["source", "--download-only", "python3.13"], &downloaded)?;
    fs::create_dir_all(&source)?;
    let archive = downloaded.join(format!("python3.13_{NEWER}.orig.tar.xz"));
    run(Command::new("tar")
        .args(["--extract", "--strip-components=1", "--file"])
        .arg(archive)
        .current_dir(&source))?;
    let mut configure = Command::new("./configure");
    configure.args([
        "--quiet",
        "--disable-test-modules",
        "--without-static-libpython",
        "LDFLAGS=-s",
        "--prefix",
    ]);
    run(configure.arg(within.join("python")).current_dir(&source))?;
    let jobs = std::thread::available_parallelism()?;
    run(Command::new("make").args(["--silent", &format!("--jobs={jobs}")]).current_dir(&source))?;
    run(Command::new("make").args(["--silent", "install"]).current_dir(&source))?;
    std::os::unix::fs::symlink("python3", within.join("python/bin/python"))?;
    Ok(())
}

fn finish(command: &mut Command, hint: &str) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?} does not run; {hint}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    let output_text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{command:?}: {} {}; {hint}", output_text.trim(), errors.trim());
    Ok(())
}
