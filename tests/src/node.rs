//! Packages from npm's registry, one folder below `target/` for each list of packages.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::program::project;
use crate::server::run;

/// Returns the folder `target/<name>`, whose `node_modules` has the packages that the file `list` (a package.json) names. Installs the
/// packages if they are missing or were installed from another list. No script of a package runs.
///
/// # Errors
/// Fails if npm or its registry cannot be reached.
pub fn packages(name: &str, list: &Path) -> Result<PathBuf> {
    let wanted = fs::read_to_string(list).with_context(|| format!("cannot read {}", list.display()))?;
    let folder = project().join("target").join(name);
    fs::create_dir_all(&folder)?;
    let lock = File::create(folder.with_extension("lock"))?;
    lock.lock().with_context(|| format!("waiting for another process that installs {name}"))?;
    // This file is written last, so a folder without this file is incomplete.
    let made_for = folder.join("installed.json");
    if fs::read_to_string(&made_for).is_ok_and(|made_for| made_for == wanted) {
        return Ok(folder);
    }
    fs::write(folder.join("package.json"), &wanted)?;
    let mut npm = Command::new("npm");
    npm.args(["install", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]);
    run(npm.current_dir(&folder)).with_context(|| format!("installing what {} names", list.display()))?;
    fs::write(&made_for, wanted)?;
    Ok(folder)
}
