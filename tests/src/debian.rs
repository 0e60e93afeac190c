//! Packages of the Debian release after this machine's. They are downloaded with apt, from the mirror that this machine uses, and not
//! installed.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::server::run;

/// The Debian release that has the packages, and the release whose packages this machine uses.
const SUITES: (&str, &str) = ("trixie", "bookworm");

/// Runs `apt-get` with these words for the newer release, for example `download` and a package, in the directory `into`, which is created.
/// apt checks the signature of the packages with Debian's keys.
///
/// # Errors
/// Fails if apt has no source for this machine's release, or cannot download.
pub fn apt_get(words: &[&str], into: &Path) -> Result<()> {
    fs::create_dir_all(into)?;
    let apt = tempfile::Builder::new().prefix("understudy-apt-").tempdir()?;
    let apt = apt.path();
    for folder in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(apt.join(folder))?;
    }
    let mirror = run(Command::new("apt-get").args(["indextargets", "--format", "$(CODENAME) $(REPO_URI)"]))?;
    let mirror = String::from_utf8(mirror.stdout)?;
    let mut mirrors = mirror.lines().filter_map(|line| line.split_once(' '));
    let mirror = mirrors.find(|(suite, _)| *suite == SUITES.1).map(|(_, mirror)| mirror);
    let mirror = mirror.with_context(|| format!("apt has no source for {}", SUITES.1))?;
    let sources = apt.join("sources.list");
    let from =
        format!("[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {mirror} {} main", SUITES.0);
    fs::write(&sources, format!("deb {from}\ndeb-src {from}\n"))?;
    let set = |name: &str, path: &Path| format!("--option={name}={}", path.display());
    let options = [
        set("Dir::Etc::sourcelist", &sources),
        set("Dir::Etc::sourceparts", Path::new("-")),
        set("Dir::State::lists", &apt.join("lists")),
        set("Dir::Cache", &apt.join("cache")),
        "--option=Acquire::Languages=none".to_owned(),
        "--quiet=2".to_owned(),
    ];
    for words in [&["update"], words] {
        run(Command::new("apt-get").args(&options).args(words).current_dir(into))?;
    }
    Ok(())
}
