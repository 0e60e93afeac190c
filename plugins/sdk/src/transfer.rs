//! Bulk transfers from store to disk. The method says which object becomes which file; the host transfers many files at once.
//!
//! ```
//! use understudy::store::Bucket;
//! use understudy::transfer::{Fetch, Job, Unless};
//! use understudy::{Failure, raw};
//!
//! fn restore(bucket: &Bucket, files: &[(String, u64)]) -> Result<(), Failure> {
//!     let mut job = Job::new();
//!     let origin = job.origin(bucket, None)?;
//!     for (name, size) in files {
//!         job.fetch(Fetch {
//!             origin,
//!             object: name.clone(),
//!             range: None,
//!             path: name.clone(),
//!             at: None,
//!             size: *size,
//!             digest: None,
//!             mode: None,
//!             mtime: None,
//!             unless: Unless::Always,
//!         })?;
//!     }
//!     // Waits for all files. The failure names a file that failed.
//!     job.finish().map(drop)
//! }
//! ```

use crate::host::data;
use crate::store::{Bucket, Codec, Pipeline};
use crate::{Error, Failure, cancelled};

pub use crate::digests::{Algorithm, Digest};
pub use crate::raw::understudy::method::transfer::{
    Action, Assembly, BlockDigests, Extent, Fetch, IncrementFormat, Listed, Outcome, PageChecks, Piece,
    Status, Unless, Unpack,
};

/// How many items one call to the host may have.
const BATCH: usize = 4096;

/// How many milliseconds [`Job::finish`] waits before it checks for cancellation again.
const PAUSE: u32 = 250;

/// How many failures [`Job::finish`] names.
const NAMED: usize = 3;

/// A transfer job, which the host's workers run. Dropping the value ends the job.
pub struct Job {
    inner: data::Job,
    waiting: Vec<Fetch>,
    on_failure: Option<Failure>,
    /// The origins that [`Job::origin_of`] has added: the name of the store, the compression and the number of each.
    origins: Vec<(String, Option<Codec>, u32)>,
}

impl Job {
    /// Makes a job that reports only failures.
    pub fn new() -> Self {
        Self::with(false)
    }

    /// Makes a job that reports the outcome of every item, with [`Job::outcomes`].
    pub fn reporting_all() -> Self {
        Self::with(true)
    }

    fn with(report_all: bool) -> Self {
        Self { inner: data::Job::new(report_all), waiting: Vec::new(), on_failure: None, origins: Vec::new() }
    }

    /// Has the checksums of the pages in the files of relations checked in every file that the job writes, except in files that have a
    /// digest. Must be called before items are added.
    ///
    /// # Errors
    /// [`Error::Invalid`] for sizes that PostgreSQL does not have, or if items were added already.
    pub fn check_pages(&mut self, by: PageChecks) -> Result<(), Error> {
        Ok(self.inner.check_pages(by)?)
    }

    /// Adds an origin of items, for [`Fetch::origin`] and [`Unpack::origin`]. `bucket` and `via` may be dropped afterwards.
    ///
    /// # Errors
    /// The error of the host.
    pub fn origin(&self, bucket: &Bucket, via: Option<&Pipeline>) -> Result<u32, Error> {
        Ok(self.inner.add_origin(&bucket.inner, via.map(|via| &via.0))?)
    }

    /// Returns the origin of the objects of `bucket` that are compressed with `codec`; `None` if they are not compressed. The first call for
    /// a store and a compression adds the origin with the pipeline that `via` makes, and later calls return the same origin. In one job,
    /// objects of the same store and compression that need different keys must get their origins from [`Job::origin`].
    ///
    /// # Errors
    /// The error of the host.
    pub fn origin_of(
        &mut self,
        bucket: &Bucket,
        codec: Option<Codec>,
        via: impl FnOnce() -> Option<Pipeline>,
    ) -> Result<u32, Error> {
        let is_same = |store: &str, known: Option<Codec>| store == bucket.name() && known == codec;
        if let Some((.., origin)) = self.origins.iter().find(|(store, known, _)| is_same(store, *known)) {
            return Ok(*origin);
        }
        let origin = self.origin(bucket, via().as_ref())?;
        self.origins.push((bucket.name().to_owned(), codec, origin));
        Ok(origin)
    }

    /// Adds one file. The host gets the files in batches of 4096 and starts on each batch at once.
    ///
    /// # Errors
    /// Fails if the host refuses the batch, such as for a path that leaves the data directory or an unknown origin. The host then fetches
    /// no file of the batch. Also fails if an earlier file has failed, because the restore cannot succeed any more.
    pub fn fetch(&mut self, item: Fetch) -> Result<(), Failure> {
        self.waiting.push(item);
        if self.waiting.len() < BATCH {
            return Ok(());
        }
        self.submit()?;
        self.check_outcomes()
    }

    /// Adds one archive. The host compares its files with `listing`, if given, while it writes them.
    ///
    /// # Errors
    /// The errors of [`Job::fetch`].
    pub fn unpack(&mut self, item: &Unpack, listing: Option<&mut Listing>) -> Result<(), Failure> {
        self.submit()?;
        let listing = submitted(listing)?;
        Ok(self.inner.unpack(item, listing).map_err(Error::from)?)
    }

    /// Adds one archive of the current backup of `chain`. `listing` has the names that the archive contains, such as
    /// `base/5/INCREMENTAL.1259`.
    ///
    /// # Errors
    /// The errors of [`Job::fetch`].
    pub fn unpack_link(
        &mut self,
        item: &Unpack,
        listing: Option<&mut Listing>,
        chain: &mut Chain,
    ) -> Result<(), Failure> {
        self.submit()?;
        chain.submit()?;
        let listing = submitted(listing)?;
        Ok(self.inner.unpack_link(item, listing, &chain.inner).map_err(Error::from)?)
    }

    /// Adds files of the current backup of `chain`, as [`Job::unpack_link`] does for an archive. The path of a file is the name that the
    /// backup has, such as `base/5/INCREMENTAL.1259`. A file of an older backup that is not needed is not read. [`Fetch::at`] must be
    /// `None`, and [`Fetch::unless`] must be [`Unless::Always`].
    ///
    /// # Errors
    /// The errors of [`Job::fetch`].
    pub fn fetch_link(
        &mut self,
        items: impl IntoIterator<Item = Fetch>,
        chain: &mut Chain,
    ) -> Result<(), Failure> {
        self.submit()?;
        chain.submit()?;
        let mut items = items.into_iter();
        loop {
            let batch: Vec<_> = items.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                return Ok(());
            }
            cancelled()?;
            self.inner.fetch_link(&batch, &chain.inner).map_err(Error::from)?;
            self.check_outcomes()?;
        }
    }

    /// Adds one file that is put together from parts of several objects.
    ///
    /// # Errors
    /// The errors of [`Job::fetch`].
    pub fn assemble(&mut self, item: &Assembly) -> Result<(), Failure> {
        self.submit()?;
        self.check_outcomes()?;
        Ok(self.inner.assemble(item).map_err(Error::from)?)
    }

    /// Waits until all items that were added so far have ended. More items can be added afterwards.
    ///
    /// # Errors
    /// The errors of [`Job::finish`]. The job is not cancelled.
    pub fn wait_until_idle(&mut self) -> Result<Status, Failure> {
        self.until_idle()
    }

    /// Sends the host the files that are waiting for a full batch.
    ///
    /// # Errors
    /// The errors of [`Job::fetch`].
    pub fn submit(&mut self) -> Result<(), Failure> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        cancelled()?;
        let batch = std::mem::replace(&mut self.waiting, Vec::with_capacity(BATCH));
        Ok(self.inner.fetch(&batch).map_err(Error::from)?)
    }

    /// Waits until the job is idle, but at most `at_most_ms` milliseconds, and returns its status.
    ///
    /// # Errors
    /// The errors of [`Job::fetch`]; [`Failure::Cancelled`] if the run is cancelled.
    pub fn wait(&mut self, at_most_ms: u32) -> Result<Status, Failure> {
        self.submit()?;
        cancelled()?;
        let status = self.inner.wait(at_most_ms);
        cancelled()?;
        Ok(status)
    }

    /// Returns up to `max` outcomes that were not returned yet: only failures, unless the job is [`Job::reporting_all`].
    pub fn outcomes(&self, max: u32) -> Vec<Outcome> {
        self.inner.outcomes(max)
    }

    /// Waits until everything is done. Cancels the job at the first failure.
    ///
    /// # Errors
    /// [`Failure::RetryLater`] if every failed item may succeed later; otherwise [`Failure::Failed`]. Both contain the host's first three
    /// messages, which name the object or file. [`Failure::Cancelled`] if the run is cancelled. When this function returns, all workers
    /// have stopped.
    pub fn finish(mut self) -> Result<Status, Failure> {
        let ended = self.until_idle();
        if ended.is_err() {
            self.inner.cancel();
        }
        ended
    }

    fn until_idle(&mut self) -> Result<Status, Failure> {
        loop {
            let status = self.wait(PAUSE)?;
            self.check_outcomes()?;
            if status.idle {
                return Ok(status);
            }
        }
    }

    /// Fails if an item has already failed.
    fn check_outcomes(&mut self) -> Result<(), Failure> {
        if let Some(failure) = &self.on_failure {
            return Err(failure.clone());
        }
        loop {
            let outcomes = self.inner.outcomes(BATCH as u32);
            if outcomes.is_empty() {
                return Ok(());
            }
            let errors = outcomes.into_iter().filter_map(|outcome| outcome.ended.err()).map(Error::from);
            if let Some(failure) = together(errors) {
                self.on_failure = Some(failure.clone());
                return Err(failure);
            }
        }
    }
}

/// Combines the errors of several items into one failure; `None` if there are no errors.
fn together(errors: impl Iterator<Item = Error>) -> Option<Failure> {
    let (mut named, mut count, mut later, mut cancelled) = (Vec::new(), 0_usize, true, false);
    for error in errors {
        match error {
            Error::Cancelled => cancelled = true,
            error => {
                later &= matches!(error, Error::Transient(_));
                count += 1;
                if named.len() < NAMED {
                    named.push(error.to_string());
                }
            }
        }
    }
    if count == 0 {
        return cancelled.then_some(Failure::Cancelled);
    }
    let more = count - named.len();
    let and = if more > 0 { format!("; and {more} more failed") } else { String::new() };
    let text = format!("{}{and}", named.join("; "));
    Some(if later { Failure::RetryLater(text) } else { Failure::Failed(text) })
}

impl Default for Job {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").field("waiting", &self.waiting.len()).finish_non_exhaustive()
    }
}

/// The files that archives must contain, from the backup's own list. The unpack of an archive fails if the archive contains a file that is
/// not listed, that comes twice, or that has another size or digest.
pub struct Listing {
    inner: data::Listing,
    waiting: Vec<Listed>,
}

impl Listing {
    /// Makes an empty listing.
    pub fn new() -> Self {
        Self { inner: data::Listing::new(), waiting: Vec::new() }
    }

    /// Adds a file. The host gets the files in batches of 4096.
    ///
    /// # Errors
    /// [`Error::Invalid`] if a path of the batch is listed already or leaves the data directory.
    pub fn add(&mut self, file: Listed) -> Result<(), Error> {
        self.waiting.push(file);
        if self.waiting.len() < BATCH { Ok(()) } else { self.submit() }
    }

    /// Allows archives to contain files at these paths without being listed. A path that ends with `/` stands for everything below it.
    ///
    /// # Errors
    /// [`Error::Invalid`] if a path leaves the data directory.
    pub fn tolerate(&self, paths: &[&str]) -> Result<(), Error> {
        let paths: Vec<_> = paths.iter().map(|path| (*path).to_owned()).collect();
        Ok(self.inner.tolerate(&paths)?)
    }

    /// Returns up to `max` of the listed files that no unpacked archive has contained so far.
    ///
    /// # Errors
    /// The errors of [`Listing::add`].
    pub fn missing(&mut self, max: u32) -> Result<Vec<String>, Error> {
        self.submit()?;
        Ok(self.inner.missing(max))
    }

    fn submit(&mut self) -> Result<(), Error> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let batch = std::mem::replace(&mut self.waiting, Vec::with_capacity(BATCH));
        Ok(self.inner.add(&batch)?)
    }
}

impl Default for Listing {
    fn default() -> Self {
        Self::new()
    }
}

/// Sends the host the files that are waiting, and returns the host's listing.
fn submitted(listing: Option<&mut Listing>) -> Result<Option<&data::Listing>, Error> {
    let Some(listing) = listing else { return Ok(None) };
    listing.submit()?;
    Ok(Some(&listing.inner))
}

/// The files of a backup that depends on older backups. A method first unpacks the archives of the newest backup with
/// [`Job::unpack_link`] and waits with [`Job::wait_until_idle`]. Then, for each backup that it depends on, from newer to older, it calls
/// [`Chain::begin_older`] and unpacks the archives of that backup in the same way. The host takes each page from the newest backup that
/// has the page, and writes it once.
pub struct Chain {
    inner: data::Chain,
    waiting: Vec<String>,
}

impl Chain {
    /// Makes an empty chain. `page_size` is the size of PostgreSQL's pages in bytes.
    ///
    /// # Errors
    /// [`Error::Invalid`] if `page_size` is not a power of two from 1024 to 32768.
    pub fn new(format: IncrementFormat, page_size: u32) -> Result<Self, Error> {
        Ok(Self { inner: data::Chain::begin(format, page_size)?, waiting: Vec::new() })
    }

    /// Adds a file that the newest backup takes from an older backup, as a whole or in part. The host gets the files in
    /// batches of 4096.
    ///
    /// # Errors
    /// [`Error::Invalid`] if a path of the batch leaves the data directory.
    pub fn want(&mut self, path: String) -> Result<(), Error> {
        self.waiting.push(path);
        if self.waiting.len() < BATCH { Ok(()) } else { self.submit() }
    }

    /// Ends with one backup and begins with the next older one. The job must be idle.
    ///
    /// # Errors
    /// [`Error::Invalid`] while archives of the chain are being unpacked; [`Error::Corrupt`] if the backup that ends has no page of a file
    /// which is not complete.
    pub fn begin_older(&mut self) -> Result<(), Error> {
        self.submit()?;
        Ok(self.inner.begin_older()?)
    }

    /// Returns up to `max` files that are not complete: no unpacked archive has contained the whole file.
    ///
    /// # Errors
    /// The errors of [`Chain::want`].
    pub fn missing(&mut self, max: u32) -> Result<Vec<String>, Error> {
        self.submit()?;
        Ok(self.inner.missing(max))
    }

    fn submit(&mut self) -> Result<(), Error> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let batch = std::mem::replace(&mut self.waiting, Vec::with_capacity(BATCH));
        Ok(self.inner.want(&batch)?)
    }
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chain").field("waiting", &self.waiting.len()).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Listing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listing").field("waiting", &self.waiting.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
