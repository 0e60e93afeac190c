//! Virtual environments of Python with packages from PyPI, each below `target/` and for one list of requirements.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::program::project;

/// Debian's Python, not the first one of `PATH`: what an environment has must fit the one Python that every user may run.
pub const PYTHON: &str = "/usr/bin/python3";

/// Returns the folder of the virtual environment `target/<name>`, with what the file `requirements` lists. Makes the
/// environment if it is missing or was made for another list, in some seconds; it takes no time after that.
///
/// # Errors
/// Python, its `venv` module or PyPI is out of reach.
pub fn environment(name: &str, requirements: &Path) -> Result<PathBuf> {
    let wanted = fs::read_to_string(requirements)
        .with_context(|| format!("cannot read {}", requirements.display()))?;
    let environment = project().join("target").join(name);
    // Written last: an environment without it is half made.
    let made_for = environment.join("requirements.txt");
    let lock = environment.with_extension("lock");
    fs::create_dir_all(lock.parent().unwrap_or(project()))?;
    let lock = File::create(lock)?;
    lock.lock().with_context(|| format!("waiting for another process that installs {name}"))?;
    if fs::read_to_string(&made_for).is_ok_and(|made_for| made_for == wanted) {
        return Ok(environment);
    }
    finish(
        Command::new(PYTHON).args(["-m", "venv", "--clear"]).arg(&environment),
        "Debian's packages python3 and python3-venv bring what is missing",
    )?;
    let mut install = Command::new(environment.join("bin/python"));
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]);
    finish(
        install.arg(requirements),
        "the packages come from PyPI; look whether this machine reaches it (pip's settings are honoured)",
    )?;
    fs::write(&made_for, wanted)?;
    Ok(environment)
}

fn finish(command: &mut Command, hint: &str) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?} does not run; {hint}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    let told = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{command:?}: {} {}; {hint}", told.trim(), errors.trim());
    Ok(())
}
