//! Looks through directories that the host has unpacked.

use std::fs;
use std::path::Path;

use understudy::{AtPath, Failure, cancelled};

/// How deep directories may be nested. PostgreSQL's are four deep.
const DEEPEST: usize = 64;

/// Calls `check` with the path of every file below `root`, relative to `root`.
///
/// # Errors
/// The first error of `check`, and an error if the directories are nested too deeply, each as a [`Failure::Failed`] that follows the name of
/// an archive; an error if a directory cannot be read.
pub fn check_files(root: &Path, check: &dyn Fn(&str) -> Result<(), String>) -> Result<(), Failure> {
    check_below(root, "", 0, check)
}

fn check_below(
    path: &Path,
    name: &str,
    depth: usize,
    check: &dyn Fn(&str) -> Result<(), String>,
) -> Result<(), Failure> {
    if depth > DEEPEST {
        let name = name.escape_debug();
        return Err(Failure::failed(format!("has a member `{name}` more than {DEEPEST} folders deep")));
    }
    for (last, is_dir) in entries(path)? {
        cancelled()?;
        let name = if name.is_empty() { last.clone() } else { format!("{name}/{last}") };
        if is_dir {
            check_below(&path.join(&last), &name, depth + 1, check)?;
        } else {
            check(&name).map_err(Failure::failed)?;
        }
    }
    Ok(())
}

/// Returns the entries of a directory, and whether each is a directory.
///
/// # Errors
/// Fails if the directory cannot be read.
pub fn entries(path: &Path) -> Result<Vec<(String, bool)>, Failure> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).at(path)? {
        let entry = entry.at(path)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        found.push((name, entry.file_type().at(entry.path())?.is_dir()));
    }
    Ok(found)
}
