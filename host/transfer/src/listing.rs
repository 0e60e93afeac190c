//! Listings: the files that a backup's own list says its archives contain, with sizes and digests.
//!
//! A listing of a million files with CRC-32C checksums and paths of 30 bytes takes about 60 MB, with SHA-256 about 90 MB: for each
//! file a record of 12 bytes, its path and its digest, padded to 8 bytes, and 5 to 10 bytes of the index.

mod paths;
mod records;

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::budget::{Budget, Charge};
use crate::digest::Digest;
use crate::error::{Error, Kind};
use foundation::rooted::RelativePath;

pub(crate) use paths::PathSet;
use records::{Record, Records};

/// The most files in a listing.
pub const MOST: usize = 10_000_000;

/// The most tolerated paths in a listing.
pub const MOST_TOLERATED: usize = 65_536;

/// A file in the backup's own list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The path of the file, relative to the data directory, `/`-separated.
    pub path: String,
    /// The size in bytes.
    pub size: u64,
    /// The expected digest.
    pub digest: Option<Digest>,
}

/// The files that archives must contain. All unpacks that are compared with a listing share it.
pub struct Listing {
    inner: Mutex<Inner>,
    /// The most files.
    most: usize,
}

impl Default for Listing {
    fn default() -> Self {
        Self::within(&Budget::unlimited())
    }
}

struct Inner {
    records: Records,
    tolerated: PathSet,
    /// The charge for the tolerated paths.
    charge: Charge,
}

/// What the listing says about a file in an archive.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// The file is listed.
    Listed {
        /// The number, for [`Listing::mark_complete`].
        number: Number,
        /// The size in bytes.
        size: u64,
        /// The digest.
        digest: Option<Digest>,
    },
    /// The file is not listed and need not be.
    Tolerated,
}

/// The number of a file in a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Number(u32);

impl Listing {
    /// Makes an empty listing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes an empty listing that charges its memory to this budget.
    pub fn within(memory: &Budget) -> Self {
        let inner = Inner {
            records: Records::within(memory),
            tolerated: PathSet::default(),
            charge: memory.charge_anyway(0),
        };
        Self { inner: Mutex::new(inner), most: MOST }
    }

    /// Adds files, all or none of them.
    ///
    /// # Errors
    /// `Invalid` if a path is listed already or leaves the data directory, or a digest has the wrong length; `Limit` if there are
    /// more than [`MOST`] files, or too little memory is left.
    pub fn add(&self, files: Vec<Listed>) -> Result<(), Error> {
        let mut clean = Vec::with_capacity(files.len());
        for file in files {
            let path = relative(&file.path)?;
            if let Some(digest) = &file.digest {
                digest.check_length().map_err(|error| error.of(format_args!("`{}` is listed", file.path)))?;
            }
            clean.push(Listed { path, ..file });
        }
        let mut names: Vec<&str> = clean.iter().map(|file| file.path.as_str()).collect();
        names.sort_unstable();
        let twice = names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0]);
        let mut inner = self.inner();
        let listed = || names.iter().copied().find(|name| inner.records.find(name).is_some());
        if let Some(name) = twice.or_else(listed) {
            return Err(Error::new(Kind::Invalid, format!("`{}` is listed twice", name.escape_debug())));
        }
        if inner.records.len() + clean.len() > self.most {
            let most = self.most;
            return Err(Error::new(Kind::Limit, format!("a listing holds at most {most} files")));
        }
        inner.records.reserve(&clean)?;
        for file in &clean {
            inner.records.add(file)?;
        }
        Ok(())
    }

    /// Adds paths that need not be listed; a path that ends with `/` means everything below it.
    ///
    /// # Errors
    /// `Invalid` if a path leaves the data directory; `Limit` if there are more than [`MOST_TOLERATED`], or too little memory is
    /// left.
    pub fn tolerate(&self, paths: Vec<String>) -> Result<(), Error> {
        let more = PathSet::new(paths)?;
        let mut inner = self.inner();
        if inner.tolerated.len() + more.len() > MOST_TOLERATED {
            return Err(Error::new(
                Kind::Limit,
                format!(
                    "a listing tolerates at most {MOST_TOLERATED} paths: name the directory that they are in"
                ),
            ));
        }
        inner.charge.grow(more.bytes(), "a path of a listing")?;
        inner.tolerated.extend(more);
        Ok(())
    }

    /// Returns up to `max` listed files that no unpack has completed yet, in the order of their names.
    pub fn missing(&self, max: usize) -> Vec<String> {
        self.inner().records.missing(max)
    }

    /// Looks up a file that begins in an archive.
    ///
    /// # Errors
    /// `Corrupt` if it is neither listed nor tolerated, or is the second file with this path.
    pub(crate) fn expect(&self, path: &str) -> Result<Expected, Error> {
        let mut inner = self.inner();
        let Some(number) = inner.records.find(path) else {
            return if inner.tolerated.contains(path) {
                Ok(Expected::Tolerated)
            } else {
                Err(Error::new(Kind::Corrupt, "it is not in the backup's list of files"))
            };
        };
        if !inner.records.claim(number) {
            return Err(Error::new(Kind::Corrupt, "it occurs twice"));
        }
        let Record { size, digest } = inner.records.record(number);
        Ok(Expected::Listed { number: Number(number), size, digest })
    }

    /// Records that an archive contained the file as listed.
    pub(crate) fn mark_complete(&self, number: Number) {
        self.inner().records.mark_complete(number.0);
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns a path in the normal form of the data plane.
fn relative(path: &str) -> Result<String, Error> {
    let clean = RelativePath::new(path).map_err(|why| Error::new(Kind::Invalid, why.to_string()))?;
    // The path was made from UTF-8, so nothing is lost.
    Ok(clean.as_os_str().to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests;
