//! Sets of paths, in which one that ends with `/` stands for everything below it.

use std::collections::HashSet;

use super::relative;
use crate::budget::PIECE;
use crate::error::Error;

/// Paths, and directories of which everything below is meant.
#[derive(Clone, Debug, Default)]
pub(crate) struct PathSet {
    exactly: HashSet<Box<str>>,
    below: HashSet<Box<str>>,
}

impl PathSet {
    /// Reads the paths.
    ///
    /// # Errors
    /// `Invalid` for one that leaves the data directory.
    pub(crate) fn new(paths: Vec<String>) -> Result<Self, Error> {
        let mut set = Self::default();
        for path in paths {
            let clean = relative(&path)?.into_boxed_str();
            if path.ends_with('/') {
                set.below.insert(clean);
            } else {
                set.exactly.insert(clean);
            }
        }
        Ok(set)
    }

    /// What it takes in memory, about: a table that doubles when it grows, and a string for each.
    pub(crate) fn bytes(&self) -> u64 {
        let strings: usize = self.exactly.iter().chain(&self.below).map(|path| path.len()).sum();
        strings as u64 + self.len() as u64 * (PIECE + 3 * size_of::<Box<str>>() as u64)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.exactly.len() + self.below.len()
    }

    /// Adds those of another set.
    pub(crate) fn extend(&mut self, more: Self) {
        self.exactly.extend(more.exactly);
        self.below.extend(more.below);
    }

    /// Whether `path` is meant.
    pub(crate) fn contains(&self, path: &str) -> bool {
        let above =
            || path.char_indices().filter(|(_, character)| *character == '/').map(|(at, _)| &path[..at]);
        (!self.exactly.is_empty() && self.exactly.contains(path))
            || (!self.below.is_empty() && above().any(|directory| self.below.contains(directory)))
    }
}
