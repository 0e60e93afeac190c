//! Chains: a backup that contains only the changed pages of some files, and the older backups that it depends on.
//!
//! The archives of the newest backup are unpacked first, then those of each older backup. A file of which the newest backup has only some
//! pages is created with its final size, and a map records which pages it has. Each older backup adds the pages that are still missing, up
//! to a backup that has the whole file. So every page is written once, and nothing but the final files is on disk.
//!
//! A map has one bit for each page: 16 KiB for a segment of 1 GiB.

pub(crate) mod increment;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::budget::{ALLOCATION_OVERHEAD, Budget, Charge};
use crate::error::{Error, Kind};
use foundation::rooted::RelativePath;

/// How the archives of a chain store a file of which they contain only some pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IncrementFormat {
    /// PostgreSQL 17 and later: the file `INCREMENTAL.NAME` in the directory of the file NAME.
    Postgresql,
    /// WAL-G: a file with a number as its name whose content begins with `wi1` and the byte 0x55. The names in the archives may begin with
    /// `/`.
    WalG,
}

/// The size of PostgreSQL's pages in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageSize(u32);

impl PageSize {
    /// # Errors
    /// `Invalid` if `bytes` is not a size that PostgreSQL can be built with.
    pub(crate) fn new(bytes: u32) -> Result<Self, Error> {
        if bytes.is_power_of_two() && (1024..=32768).contains(&bytes) {
            return Ok(Self(bytes));
        }
        Err(Error::new(
            Kind::Invalid,
            format!(
                "a page of PostgreSQL cannot have {bytes} bytes: a power of two from 1024 to 32768 is valid"
            ),
        ))
    }

    pub(crate) fn bytes(self) -> u64 {
        u64::from(self.0)
    }

    /// Returns how many pages a file has at most.
    pub(crate) fn most(self) -> u32 {
        SEGMENT / self.0
    }
}

/// The size of a segment of a relation in bytes, unless PostgreSQL was built with another (`RELSEG_SIZE`). No file with pages is larger.
const SEGMENT: u32 = 1 << 30;

/// The use of a chain by an archive or a file of its current backup.
#[derive(Clone)]
pub(crate) struct ChainUse {
    pub(crate) chain: Arc<Chain>,
    /// The number of the backup, from 0 for the newest.
    pub(crate) link: u32,
    _users: Arc<Users>,
}

/// Counts a use until it is dropped.
struct Users(Arc<Chain>);

impl Drop for Users {
    fn drop(&mut self) {
        self.0.inner().users -= 1;
    }
}

impl ChainUse {
    /// Uses the current backup of the chain.
    pub(crate) fn of(chain: &Arc<Chain>) -> Self {
        let link = {
            let mut inner = chain.inner();
            inner.users += 1;
            inner.link
        };
        Self { chain: Arc::clone(chain), link, _users: Arc::new(Users(Arc::clone(chain))) }
    }

    /// Returns whether the backup is the newest one.
    pub(crate) fn is_newest(&self) -> bool {
        self.link == 0
    }
}

/// The files of a chain that are not complete yet. All archives and files of the chain share the value.
pub struct Chain {
    format: IncrementFormat,
    page_size: PageSize,
    memory: Budget,
    inner: Mutex<Inner>,
}

struct Inner {
    files: HashMap<Box<str>, File>,
    /// The number of the current backup, from 0 for the newest.
    link: u32,
    /// How many archives and files of the current backup have not ended.
    users: usize,
    /// The charge for `files`.
    charge: Charge,
}

/// A file that is not complete.
#[derive(Debug)]
enum File {
    /// No archive has contained a page of it.
    Wanted,
    /// Some pages are written. The number is that of the oldest backup so far that has pages of it.
    Partial(Pages, u32),
    /// An archive that contains it is being unpacked.
    InProgress,
    /// Writing it has failed.
    Failed,
}

/// The pages of a file.
#[derive(Debug)]
pub(crate) struct Pages {
    /// Only pages below this one are taken from older backups. The other missing pages are zeros.
    end: u32,
    /// One bit for each page that is written; empty while no page is.
    written: Vec<u64>,
    charge: Charge,
}

impl Pages {
    /// Returns whether an older backup must provide page `number`.
    pub(crate) fn lacks(&self, number: u32) -> bool {
        let (word, bit) = (number / 64, number % 64);
        number < self.end && self.written.get(word as usize).is_none_or(|word| word >> bit & 1 == 0)
    }

    /// Makes the map, unless it exists. A file that did not change in any increment so far has none: PostgreSQL stores an increment without
    /// pages for each such file.
    ///
    /// # Errors
    /// `Limit` if too little memory is left.
    pub(crate) fn make_map(&mut self) -> Result<(), Error> {
        if self.written.is_empty() {
            let words = self.end.div_ceil(64);
            self.charge.grow(8 * u64::from(words) + ALLOCATION_OVERHEAD, "the map of a file's pages")?;
            self.written = vec![0; words as usize];
        }
        Ok(())
    }

    /// Limits the pages that are taken from older backups to those of a file of `count` pages.
    pub(crate) fn shorten(&mut self, count: u32) {
        self.end = self.end.min(count);
    }

    /// Records that page `number` is written.
    pub(crate) fn mark(&mut self, number: u32) {
        if let Some(word) = self.written.get_mut((number / 64) as usize) {
            *word |= 1 << (number % 64);
        }
    }
}

/// What a chain does with a member of an archive.
#[derive(Debug)]
pub(crate) enum Needed {
    /// The whole file is written.
    Whole,
    /// Only the pages that the file lacks are written.
    Pages(Pages),
    /// The member is checked but not written.
    Nothing,
}

impl Chain {
    /// Makes an empty chain that charges its memory to this budget. `page_size` is in bytes.
    ///
    /// # Errors
    /// `Invalid` if `page_size` is not a power of two from 1024 to 32768.
    pub fn within(memory: &Budget, format: IncrementFormat, page_size: u32) -> Result<Self, Error> {
        let inner = Inner { files: HashMap::new(), link: 0, users: 0, charge: memory.charge_anyway(0) };
        let page_size = PageSize::new(page_size)?;
        Ok(Self { format, page_size, memory: memory.clone(), inner: Mutex::new(inner) })
    }

    /// Adds files that the newest backup takes from an older backup, as a whole or in part.
    ///
    /// # Errors
    /// `Invalid` if a path leaves the data directory; `Limit` if too little memory is left.
    pub fn want(&self, paths: Vec<String>) -> Result<(), Error> {
        let mut inner = self.inner();
        for path in paths {
            let clean = RelativePath::new(&path).map_err(|why| Error::new(Kind::Invalid, why.to_string()))?;
            inner.add(&clean.as_os_str().to_string_lossy(), File::Wanted)?;
        }
        Ok(())
    }

    /// Ends the current backup and begins the next older one.
    ///
    /// # Errors
    /// `Invalid` while archives or files of the chain are being unpacked; `Corrupt` if the format is PostgreSQL's and the current backup
    /// has no page of a file which is not complete (pg_combinebackup then fails to find the file).
    pub fn begin_older(&self) -> Result<(), Error> {
        let mut inner = self.inner();
        if inner.users > 0 {
            let why = "archives or files of the chain are still being read: wait until the job is idle";
            return Err(Error::new(Kind::Invalid, why));
        }
        let link = inner.link;
        let is_untouched = |file: &File| matches!(file, File::Partial(_, touched) if *touched < link);
        if self.format == IncrementFormat::Postgresql
            && let Some((path, _)) = inner.files.iter().find(|(_, file)| is_untouched(file))
        {
            let path = path.escape_debug();
            return Err(Error::new(
                Kind::Corrupt,
                format!(
                    "newer backups of the chain have only some pages of `{path}`, and the backup before them does not contain it"
                ),
            ));
        }
        inner.link = link.checked_add(1).ok_or_else(|| Error::new(Kind::Limit, "the chain is too long"))?;
        Ok(())
    }

    /// Returns up to `max` files that are not complete, in the order of their names. Stops before the names together exceed 1 MiB, but
    /// returns at least one if any is missing.
    pub fn missing(&self, max: usize) -> Vec<String> {
        const BYTES: usize = 1 << 20;
        let inner = self.inner();
        let mut names: Vec<&str> = inner.files.keys().map(AsRef::as_ref).collect();
        names.sort_unstable();
        let mut bytes = 0;
        let fits = |name: &&str| {
            bytes += name.len();
            bytes <= BYTES || bytes == name.len()
        };
        names.into_iter().take(max).take_while(fits).map(str::to_owned).collect()
    }

    pub(crate) fn format(&self) -> IncrementFormat {
        self.format
    }

    pub(crate) fn page_size(&self) -> PageSize {
        self.page_size
    }

    pub(crate) fn memory(&self) -> &Budget {
        &self.memory
    }

    /// Returns whether a file of an older backup is needed.
    pub(crate) fn needs(&self, path: &str) -> bool {
        self.inner().files.contains_key(path)
    }

    /// Begins to write the file `path` of an archive of the backup with this number. Unless the answer is [`Needed::Nothing`], the caller
    /// must then call [`Chain::put_back`], [`Chain::complete`] or [`Chain::fail`].
    ///
    /// # Errors
    /// `Corrupt` if an archive of the newest backup contains the file twice; `Invalid` if another archive that contains the file is being
    /// unpacked, or writing the file has failed.
    pub(crate) fn begin(&self, path: &str, link: u32) -> Result<Needed, Error> {
        let invalid = |why: &str| Err(Error::new(Kind::Invalid, why));
        let mut inner = self.inner();
        match inner.files.get_mut(path) {
            Some(File::InProgress) => {
                invalid("another archive of the chain that contains it is still being unpacked")
            }
            Some(File::Failed) => {
                invalid("writing it has failed before: begin with a new chain and an empty directory")
            }
            Some(File::Partial(..)) if link == 0 => Err(Error::new(Kind::Corrupt, "it occurs twice")),
            None if link == 0 => Ok(Needed::Whole),
            None => Ok(Needed::Nothing),
            Some(file) => Ok(match std::mem::replace(file, File::InProgress) {
                File::Partial(pages, _) => Needed::Pages(pages),
                File::Wanted | File::InProgress | File::Failed => Needed::Whole,
            }),
        }
    }

    /// Returns the pages of a file of which the first archive that contains it has only some. Older backups provide pages below `end`.
    pub(crate) fn pages(&self, end: u32) -> Pages {
        Pages { end, written: Vec::new(), charge: self.memory.charge_anyway(0) }
    }

    /// Records that a file is written as far as this backup has it, and still lacks pages.
    ///
    /// # Errors
    /// `Limit` if too little memory is left.
    pub(crate) fn put_back(&self, path: &str, pages: Pages, link: u32) -> Result<(), Error> {
        self.inner().add(path, File::Partial(pages, link))
    }

    /// Records that a file could not be written. It never counts as complete, even if another member of the newest backup that writes the
    /// same file ends without an error.
    pub(crate) fn fail(&self, path: &str) {
        // If too little memory is left for the entry, the item itself fails all the same.
        let _ = self.inner().add(path, File::Failed);
    }

    /// Records that a file is complete, unless writing it has failed.
    pub(crate) fn complete(&self, path: &str) {
        let mut inner = self.inner();
        if !matches!(inner.files.get(path), Some(File::Failed)) {
            inner.files.remove(path);
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn add(&mut self, path: &str, file: File) -> Result<(), Error> {
        match self.files.get_mut(path) {
            // A failure is final.
            Some(File::Failed) => {}
            Some(known) => {
                if !matches!(file, File::Wanted) {
                    *known = file;
                }
            }
            None => {
                let entry = 3 * size_of::<(Box<str>, File)>() as u64 + ALLOCATION_OVERHEAD;
                self.charge.grow(path.len() as u64 + entry, "a file of a chain")?;
                self.files.insert(path.into(), file);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
