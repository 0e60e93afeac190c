//! Sets of paths, in which a path that ends with `/` means everything below it.

use std::collections::HashSet;

use super::relative;
use crate::budget::ALLOCATION_OVERHEAD;
use crate::error::Error;

/// A set of paths, and of directories with everything below them.
#[derive(Clone, Debug, Default)]
pub(crate) struct PathSet {
    exactly: HashSet<Box<str>>,
    below: HashSet<Box<str>>,
}

impl PathSet {
    /// Parses the paths.
    ///
    /// # Errors
    /// `Invalid` if one leaves the data directory.
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

    /// Returns about how much memory the set takes: a table that doubles when it grows, and a string for each path.
    pub(crate) fn bytes(&self) -> u64 {
        let strings: usize = self.exactly.iter().chain(&self.below).map(|path| path.len()).sum();
        strings as u64 + self.len() as u64 * (ALLOCATION_OVERHEAD + 3 * size_of::<Box<str>>() as u64)
    }

    /// Returns the number of paths.
    pub(crate) fn len(&self) -> usize {
        self.exactly.len() + self.below.len()
    }

    /// Adds the paths of another set.
    pub(crate) fn extend(&mut self, more: Self) {
        self.exactly.extend(more.exactly);
        self.below.extend(more.below);
    }

    /// Returns whether the set contains `path`, or a directory above it with everything below.
    pub(crate) fn contains(&self, path: &str) -> bool {
        let above =
            || path.char_indices().filter(|(_, character)| *character == '/').map(|(at, _)| &path[..at]);
        (!self.exactly.is_empty() && self.exactly.contains(path))
            || (!self.below.is_empty() && above().any(|directory| self.below.contains(directory)))
    }
}
