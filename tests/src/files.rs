//! Lists directories.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// Returns every path below a directory, sorted. Does not follow links.
///
/// # Errors
/// Fails if a directory cannot be read.
pub fn paths_below(top: &Path) -> io::Result<Vec<PathBuf>> {
    let (mut found, mut left) = (Vec::new(), vec![top.to_owned()]);
    while let Some(path) = left.pop() {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                left.push(entry.path());
            }
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}
