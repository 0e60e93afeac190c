//! Where the data plane writes: paths relative to the data directory, each led to the opened directory that the
//! operator mapped it to.

use std::fs::File;
use std::io;
use std::sync::Arc;

use crate::beneath::{Directory, RelativePath};

/// Who is asked before something grows. The sandbox's disk budget is one.
pub trait Budget: Send + Sync {
    /// `file` is about to be written for `length` bytes from `start`.
    ///
    /// # Errors
    /// ENOSPC where the budget does not cover it; the item then fails with the kind `Limit`.
    fn write(&self, file: &File, start: u64, length: u64) -> io::Result<()>;

    /// A file, directory or link is about to be made in the file system of `place`.
    ///
    /// # Errors
    /// As [`Budget::write`].
    fn make(&self, place: &File) -> io::Result<()>;
}

/// A directory that takes what lies below a path of the data directory: `pg_wal`, `pg_tblspc/16384`.
#[derive(Debug)]
pub struct Mapped {
    /// The path below the data directory that it stands for.
    pub path: RelativePath,
    /// The directory itself.
    pub directory: Directory,
}

/// A data directory that is open for writing.
pub struct Target {
    /// The data directory.
    pub root: Directory,
    /// What lies elsewhere; the longest path that fits decides.
    pub mapped: Vec<Mapped>,
    /// Files that are written under another name, for the host to put in place: `global/pg_control`.
    pub renamed: Vec<(RelativePath, RelativePath)>,
    /// Asked before anything grows.
    pub budget: Arc<dyn Budget>,
    /// The permission bits that a file may have at most, e.g. 0o600 or 0o640, and a directory, e.g. 0o700 or 0o750.
    pub modes: (u32, u32),
}
