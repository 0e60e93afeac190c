//! The directories that the method can see.

use std::path::{Path, PathBuf};

use crate::host;

/// Returns every directory that the method can see, by its absolute path: the data directory, the mapped directories, and those that the
/// operator granted for reading.
pub fn granted_directories() -> Vec<PathBuf> {
    host::granted_directories()
}

/// Returns whether `path`, which must be absolute and without `..`, is one of those directories or below one.
pub fn is_granted(path: impl AsRef<Path>) -> bool {
    granted_directories().iter().any(|granted| path.as_ref().starts_with(granted))
}
