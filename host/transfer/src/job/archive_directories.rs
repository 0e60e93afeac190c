//! The directories that an archive has brought: none may come twice, and their number has a bound.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use foundation::rooted::RelativePath;

use crate::budget::{Budget, Charge};
use crate::error::{Error, Kind};

/// The most directories of an archive.
pub(super) const MOST_DIRECTORIES: usize = 1 << 18;

/// The directories that an archive has brought.
pub(super) struct Directories {
    hashes: HashSet<u64>,
    hasher: RandomState,
    charge: Charge,
}

/// Directories that are charged for at once, and what each takes in a table that is at least 7/16 full, the old one included
/// while it grows.
const CHARGED: usize = 1024;
const SEEN: u64 = 32;

impl Directories {
    /// None yet.
    pub(super) fn within(memory: &Budget) -> Self {
        Self { hashes: HashSet::new(), hasher: RandomState::new(), charge: memory.charge_anyway(0) }
    }

    /// # Errors
    /// `Corrupt` for one that comes twice, `Limit` for too many, or where there is no memory for it.
    pub(super) fn add(&mut self, path: &RelativePath) -> Result<(), Error> {
        if self.hashes.len().is_multiple_of(CHARGED) {
            self.charge.grow(SEEN * CHARGED as u64, "the directories of an archive")?;
        }
        if self.hashes.len() >= MOST_DIRECTORIES {
            return Err(Error::new(
                Kind::Limit,
                format!("an archive has at most {MOST_DIRECTORIES} directories"),
            ));
        }
        if !self.hashes.insert(self.hasher.hash_one(path)) {
            return Err(Error::new(Kind::Corrupt, "this directory comes twice"));
        }
        Ok(())
    }
}
