//! What a backup's own list says of the files that its archives must bring.
//!
//! A listing of a million files with CRC-32C sums and paths of 30 bytes takes about 60 MB, with SHA-256 about 90 MB: each file is
//! a record of 12 bytes, its path and its digest, padded to 8 bytes, and 5 to 10 bytes of the index.

mod paths;
mod records;

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::budget::{Budget, Charge};
use crate::digest::Digest;
use crate::error::{Error, Kind};
use foundation::rooted::RelativePath;

pub(crate) use paths::PathSet;
use records::{Record, Records};

/// The most files that one listing holds.
pub const MOST: usize = 10_000_000;

/// The most paths that need not be listed.
pub const MOST_TOLERATED: usize = 65_536;

/// A file as the backup's own list has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Relative to the data directory, `/`-separated.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// What it must come to.
    pub digest: Option<Digest>,
}

/// The files that archives must bring; shared by all unpacks that are compared with it.
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
    /// For what is tolerated.
    charge: Charge,
}

/// What the listing says of a file that an archive brings.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// It must come to this.
    Listed {
        /// Which it is, for [`Listing::brought`].
        number: Number,
        /// Its size in bytes.
        size: u64,
        /// Its digest.
        digest: Option<Digest>,
    },
    /// It need not be listed.
    Tolerated,
}

/// Which of a listing's files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Number(u32);

impl Listing {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty one, whose memory is charged to this budget.
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
    /// `Invalid` for a path that is there already or leaves the data directory, or a digest of the wrong length;
    /// `Limit` for more than [`MOST`], or where there is no memory for them.
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
        let there = || names.iter().copied().find(|name| inner.records.find(name).is_some());
        if let Some(name) = twice.or_else(there) {
            return Err(Error::new(Kind::Invalid, format!("`{}` is listed twice", name.escape_debug())));
        }
        if inner.records.len() + clean.len() > self.most {
            let most = self.most;
            return Err(Error::new(Kind::Limit, format!("a listing holds at most {most} files")));
        }
        inner.records.make_room(&clean)?;
        for file in &clean {
            inner.records.add(file)?;
        }
        Ok(())
    }

    /// Paths that need not be listed; one that ends with `/` stands for everything below it.
    ///
    /// # Errors
    /// `Invalid` for a path that leaves the data directory, `Limit` for more than [`MOST_TOLERATED`], or
    /// where there is no memory for them.
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

    /// Up to `max` of the listed files that no unpack has brought yet, in the order of their names.
    pub fn missing(&self, max: usize) -> Vec<String> {
        self.inner().records.missing(max)
    }

    /// What is said of `path`, which an archive is about to bring.
    ///
    /// # Errors
    /// `Corrupt` where it is not listed or comes a second time.
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
            return Err(Error::new(Kind::Corrupt, "it comes twice"));
        }
        let Record { size, digest } = inner.records.record(number);
        Ok(Expected::Listed { number: Number(number), size, digest })
    }

    /// Notes that the file came as it is listed.
    pub(crate) fn brought(&self, number: Number) {
        self.inner().records.bring(number.0);
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A path as every part of the data plane writes it.
fn relative(path: &str) -> Result<String, Error> {
    let clean = RelativePath::new(path).map_err(|why| Error::new(Kind::Invalid, why.to_string()))?;
    // It came from a text and is one.
    Ok(clean.as_os_str().to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests;
