//! Python virtual environments with packages from PyPI, one below `target/` for each list of requirements.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::program::project;

/// Debian's Python, not the first Python in `PATH`: packages must fit the Python that every user may run.
pub const PYTHON: &str = "/usr/bin/python3";

/// Returns the folder of the virtual environment `target/<name>`, which has the packages that the file `requirements` lists.
/// Creates the environment if it is missing or was created from another list.
///
/// # Errors
/// Fails if Python, its `venv` module or PyPI cannot be reached.
pub fn environment(name: &str, requirements: &Path) -> Result<PathBuf> {
    let wanted = fs::read_to_string(requirements)
        .with_context(|| format!("cannot read {}", requirements.display()))?;
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
    finish(
        Command::new(PYTHON).args(["-m", "venv", "--clear"]).arg(&environment),
        "Debian's packages python3 and python3-venv bring what is missing",
    )?;
    let mut install = Command::new(environment.join("bin/python"));
    install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]);
    finish(
        install.arg(requirements),
        "the packages come from PyPI: check that this machine can reach it (pip's settings apply)",
    )?;
    fs::write(&made_for, wanted)?;
    Ok(environment)
}

fn finish(command: &mut Command, hint: &str) -> Result<()> {
    let output = command.output().with_context(|| format!("{command:?} does not run; {hint}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    let output_text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{command:?}: {} {}; {hint}", output_text.trim(), errors.trim());
    Ok(())
}
