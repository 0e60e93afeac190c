//! The directories in an archive that is being unpacked: each may occur only once, and their number is bounded.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use foundation::rooted::RelativePath;

use crate::budget::{Budget, Charge};
use crate::error::{Error, Kind};

/// The most directories that an archive may have.
pub(super) const MOST_DIRECTORIES: usize = 1 << 18;

/// The directories that have occurred in an archive so far.
pub(super) struct ArchiveDirectories {
    hashes: HashSet<u64>,
    hasher: RandomState,
    charge: Charge,
}

/// The number of directories for which memory is charged at once.
const CHARGED_AT_ONCE: usize = 1024;

/// How many bytes a directory takes in a hash table that is at least 7/16 full, including the old table while the table grows.
const BYTES_EACH: u64 = 32;

impl ArchiveDirectories {
    /// Makes an empty set that charges `memory`.
    pub(super) fn within(memory: &Budget) -> Self {
        Self { hashes: HashSet::new(), hasher: RandomState::new(), charge: memory.charge_anyway(0) }
    }

    /// Adds a directory.
    ///
    /// # Errors
    /// `Corrupt` if the directory occurred before; `Limit` if there are too many directories, or too little memory is left.
    pub(super) fn add(&mut self, path: &RelativePath) -> Result<(), Error> {
        if self.hashes.len().is_multiple_of(CHARGED_AT_ONCE) {
            self.charge.grow(BYTES_EACH * CHARGED_AT_ONCE as u64, "the directories of an archive")?;
        }
        if self.hashes.len() >= MOST_DIRECTORIES {
            return Err(Error::new(
                Kind::Limit,
                format!("an archive has at most {MOST_DIRECTORIES} directories"),
            ));
        }
        if !self.hashes.insert(self.hasher.hash_one(path)) {
            return Err(Error::new(Kind::Corrupt, "this directory occurs twice"));
        }
        Ok(())
    }
}
