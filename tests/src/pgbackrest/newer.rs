//! pgBackRest of the Debian release after this machine's, which stores blocks in its final format. Debian 12 has only release 2.45.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::program::project;
use crate::server::run;

/// The Debian release that has the package, and the release whose packages this machine uses.
const SUITES: (&str, &str) = ("trixie", "bookworm");

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
        ensure!(told.contains(VERSION), "the package of {} has {told}, not {VERSION}", SUITES.0);
        fs::rename(&unfinished, folder.join(VERSION))?;
    }
    Ok(program)
}

/// Downloads and unpacks the package. apt checks its signature with Debian's keys.
fn download(into: &Path) -> Result<()> {
    let apt = into.join("apt");
    for folder in ["lists/partial", "cache/archives/partial", "package"] {
        fs::create_dir_all(apt.join(folder))?;
    }
    let mirror = run(Command::new("apt-get").args(["indextargets", "--format", "$(CODENAME) $(REPO_URI)"]))?;
    let mirror = String::from_utf8(mirror.stdout)?;
    let mut mirrors = mirror.lines().filter_map(|line| line.split_once(' '));
    let mirror = mirrors.find(|(suite, _)| *suite == SUITES.1).map(|(_, mirror)| mirror);
    let mirror = mirror.with_context(|| format!("apt has no source for {}", SUITES.1))?;
    let sources = apt.join("sources.list");
    let keys = "/usr/share/keyrings/debian-archive-keyring.gpg";
    fs::write(&sources, format!("deb [signed-by={keys}] {mirror} {} main\n", SUITES.0))?;
    let set = |name: &str, path: &Path| format!("--option={name}={}", path.display());
    let options = [
        set("Dir::Etc::sourcelist", &sources),
        set("Dir::Etc::sourceparts", Path::new("-")),
        set("Dir::State::lists", &apt.join("lists")),
        set("Dir::Cache", &apt.join("cache")),
        "--option=Acquire::Languages=none".to_owned(),
        "--quiet=2".to_owned(),
    ];
    let apt_get = |words: &[&str]| {
        run(Command::new("apt-get").args(&options).args(words).current_dir(apt.join("package"))).map(drop)
    };
    apt_get(&["update"])?;
    apt_get(&["download", "pgbackrest"])?;
    let package = fs::read_dir(apt.join("package"))?.next().context("apt has downloaded nothing")??.path();
    run(Command::new("dpkg-deb").arg("--extract").arg(package).arg(into))?;
    fs::remove_dir_all(apt)?;
    Ok(())
}
