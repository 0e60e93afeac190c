//! Finds the program under test and the components that it runs.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// The environment variable that makes tests try all of their cases instead of a selection.
pub const FULL: &str = "UNDERSTUDY_TEST_FULL";

/// Returns `full` if the environment variable [`FULL`] is set, otherwise `fast`.
pub fn fast_or_full(fast: u32, full: u32) -> u32 {
    if std::env::var_os(FULL).is_some() { full } else { fast }
}

/// Returns the root folder of the project.
pub fn project() -> &'static Path {
    // This crate is in the folder `tests` of the project.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/"))
}

/// Returns the path of the program `understudy`, which was built into the same target directory as this executable.
///
/// # Errors
/// Fails if the program was not built.
pub fn understudy() -> Result<PathBuf> {
    let here = std::env::current_exe()?;
    let beside =
        here.ancestors().skip(1).map(|folder| folder.join("understudy")).find(|program| program.is_file());
    beside.context("the program `understudy` is not built: run `cargo build --package understudy`")
}

/// Returns the text of a file below `examples/`, in which the first word of each pair is replaced with the second, pair after pair.
///
/// # Errors
/// Fails if the file cannot be read or no longer has one of the words.
pub fn example(file: &str, words: &[(&str, &str)]) -> Result<String> {
    let path = project().join("examples").join(file);
    let mut text =
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    for (from, to) in words {
        ensure!(text.contains(from), "{} has no `{from}` any more", path.display());
        text = text.replace(from, to);
    }
    Ok(text)
}

/// Returns the path of a component that `cargo xtask plugins` built.
///
/// # Errors
/// Fails if the component was not built.
pub fn component(name: &str) -> Result<PathBuf> {
    let path = project().join("plugins/target/components").join(format!("{name}.wasm"));
    ensure!(path.is_file(), "{} is missing: run `cargo xtask plugins`", path.display());
    Ok(path)
}
