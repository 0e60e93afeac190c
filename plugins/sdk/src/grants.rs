//! Which directories the method sees.

use std::path::{Path, PathBuf};

use crate::host;

/// Every directory that the method sees, under its absolute path: the data directory and its mapped places, and what the
/// operator granted for reading.
pub fn granted_directories() -> Vec<PathBuf> {
    host::granted_directories()
}

/// Whether `path`, absolute and without `..`, is one of those directories or below one.
pub fn is_granted(path: impl AsRef<Path>) -> bool {
    granted_directories().iter().any(|granted| path.as_ref().starts_with(granted))
}
