//! The program under test and the components that it runs.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// The variable that asks tests for their whole matrix rather than a fast cut of it.
pub const FULL: &str = "UNDERSTUDY_TEST_FULL";

/// So many in a fast run, so many in a full one.
pub fn fast_or_full(fast: u32, full: u32) -> u32 {
    if std::env::var_os(FULL).is_some() { full } else { fast }
}

/// The folder of the project.
pub fn project() -> &'static Path {
    // This crate is the folder `tests` of the project.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"))
}

/// The program `understudy` that was built beside this one.
///
/// # Errors
/// Where it was not built.
pub fn understudy() -> Result<PathBuf> {
    let here = std::env::current_exe()?;
    let beside =
        here.ancestors().skip(1).map(|folder| folder.join("understudy")).find(|program| program.is_file());
    beside.context("the program `understudy` is not built: run `cargo build --package understudy`")
}

/// A component that `cargo xtask plugins` built.
///
/// # Errors
/// Where it was not built.
pub fn component(name: &str) -> Result<PathBuf> {
    let path = project().join("plugins/target/components").join(format!("{name}.wasm"));
    ensure!(path.is_file(), "{} is missing: run `cargo xtask plugins`", path.display());
    Ok(path)
}
