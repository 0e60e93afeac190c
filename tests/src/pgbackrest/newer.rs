//! pgBackRest of the Debian release after this machine's, which stores blocks in its final format. Debian 12 has only release 2.45.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::debian::apt_get;
use crate::program::project;
use crate::server::run;

/// The version of the package, which is a part of the path where it is kept.
const VERSION: &str = "2.55.1";

/// Returns the path of the program. Downloads the package with apt, from the mirror that this machine uses, if it is missing, and unpacks
/// it below `target/`. The libraries that the program needs are those of Debian 12.
///
/// # Errors
/// Fails if apt cannot download the package, or has another version of it.
pub fn newer_pgbackrest() -> Result<PathBuf> {
    let folder = project().join("target/pgbackrest");
    let program = folder.join(VERSION).join("usr/bin/pgbackrest");
    fs::create_dir_all(&folder)?;
    let lock = File::create(folder.join("lock"))?;
    lock.lock().context("waiting for another test that downloads pgBackRest")?;
    if !program.exists() {
        let unfinished = folder.join("unfinished");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished)?;
        }
        download(&unfinished)
            .with_context(|| format!("installing pgBackRest {VERSION} from Debian's packages"))?;
        let told = run(Command::new(unfinished.join("usr/bin/pgbackrest")).arg("version"))?;
        let told = String::from_utf8_lossy(&told.stdout).into_owned();
        ensure!(told.contains(VERSION), "the package has {told}, not {VERSION}");
        fs::rename(&unfinished, folder.join(VERSION))?;
    }
    Ok(program)
}

/// Downloads and unpacks the package.
fn download(into: &Path) -> Result<()> {
    let downloaded = into.join("package");
    apt_get(&["download", "pgbackrest"], &downloaded)?;
    let package = fs::read_dir(&downloaded)?.next().context("apt has downloaded nothing")??.path();
    run(Command::new("dpkg-deb").arg("--extract").arg(package).arg(into))?;
    fs::remove_dir_all(downloaded)?;
    Ok(())
}
