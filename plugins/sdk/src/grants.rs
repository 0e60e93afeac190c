//! The directories that the method can see.

use std::path::{Path, PathBuf};

use crate::host;

/// Returns the absolute path of every directory that the method can see: the data directory, the mapped directories, and the directories
/// that the operator granted for reading.
pub fn granted_directories() -> Vec<PathBuf> {
    host::granted_directories()
}

/// Returns whether `path`, which must be absolute and without `..`, is a directory that the method can see, or is below such a directory.
///
/// ```
/// use understudy::{Failure, is_granted};
///
/// fn check(directory: &str) -> Result<(), Failure> {
///     if is_granted(directory) { Ok(()) } else { Err(Failure::failed(format!("{directory} is not granted"))) }
/// }
/// # check("/mnt/backups").unwrap();
/// ```
pub fn is_granted(path: impl AsRef<Path>) -> bool {
    granted_directories().iter().any(|granted| path.as_ref().starts_with(granted))
}
