//! Bulk data from store to disk. The host moves the bytes, many files at once; the method says which go where.
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
//!     // Waits for all of it; a file that failed is named.
//!     job.finish().map(drop)
//! }
//! ```

use crate::host::data;
use crate::store::{Bucket, Pipeline};
use crate::{Error, Failure, cancelled};

pub use crate::digests::{Algorithm, Digest};
pub use crate::raw::understudy::method::transfer::{Action, Fetch, Listed, Outcome, Status, Unless, Unpack};

/// The most items of one call to the host.
const BATCH: usize = 4096;

/// How long [`Job::finish`] waits before it looks at the cancellation again, in milliseconds.
const PAUSE: u32 = 250;

/// How many failures [`Job::finish`] names.
const NAMED: usize = 3;

/// Work for the host's workers. Dropping it ends the work.
pub struct Job {
    inner: data::Job,
    waiting: Vec<Fetch>,
    on_failure: Option<Failure>,
}

impl Job {
    /// A job of which only failures are told.
    pub fn new() -> Self {
        Self::with(false)
    }

    /// A job of which every item's end is told, by [`Job::outcomes`].
    pub fn reporting_all() -> Self {
        Self::with(true)
    }

    fn with(report_all: bool) -> Self {
        Self { inner: data::Job::new(report_all), waiting: Vec::new(), on_failure: None }
    }

    /// A place that items come from, for [`Fetch::origin`] and [`Unpack::origin`]. It keeps what it needs of both.
    ///
    /// # Errors
    /// What the host answers.
    pub fn origin(&self, bucket: &Bucket, via: Option<&Pipeline>) -> Result<u32, Error> {
        Ok(self.inner.add_origin(&bucket.inner, via.map(|via| &via.0))?)
    }

    /// Adds one file. The host gets them 4096 at a time, and works on them from then on.
    ///
    /// # Errors
    /// Where the host does not take them: a path that leaves the data directory, an origin that it did not give; then
    /// none of the batch is taken. A failure of an earlier file, so that the method does not go on planning for nothing.
    pub fn fetch(&mut self, item: Fetch) -> Result<(), Failure> {
        self.waiting.push(item);
        if self.waiting.len() < BATCH {
            return Ok(());
        }
        self.submit()?;
        self.failed_so_far()
    }

    /// Adds one archive, whose files are compared with `listing` while they are written.
    ///
    /// # Errors
    /// As [`Job::fetch`].
    pub fn unpack(&mut self, item: &Unpack, listing: Option<&mut Listing>) -> Result<(), Failure> {
        self.submit()?;
        let listing = match listing {
            None => None,
            Some(listing) => {
                listing.submit()?;
                Some(&listing.inner)
            }
        };
        Ok(self.inner.unpack(item, listing).map_err(Error::from)?)
    }

    /// Gives the host what waits for a full batch.
    ///
    /// # Errors
    /// As [`Job::fetch`].
    pub fn submit(&mut self) -> Result<(), Failure> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        cancelled()?;
        let batch = std::mem::replace(&mut self.waiting, Vec::with_capacity(BATCH));
        Ok(self.inner.fetch(&batch).map_err(Error::from)?)
    }

    /// Waits until nothing is left to do or `at_most_ms` milliseconds have passed, and says how far it is.
    ///
    /// # Errors
    /// As [`Job::fetch`]; [`Failure::Cancelled`] when told to stop.
    pub fn wait(&mut self, at_most_ms: u32) -> Result<Status, Failure> {
        self.submit()?;
        cancelled()?;
        let status = self.inner.wait(at_most_ms);
        cancelled()?;
        Ok(status)
    }

    /// Up to `max` ends that were not told yet: failures, or all where the job is [`Job::reporting_all`].
    pub fn outcomes(&self, max: u32) -> Vec<Outcome> {
        self.inner.outcomes(max)
    }

    /// Waits until everything is done. At the first failure it ends the rest.
    ///
    /// # Errors
    /// [`Failure::RetryLater`] where all that failed may work later, [`Failure::Failed`] else, both with the first three
    /// in the host's words, which name the object or file; [`Failure::Cancelled`] when told to stop, when no worker
    /// writes any more.
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
            self.failed_so_far()?;
            if status.idle {
                return Ok(status);
            }
        }
    }

    /// Whether nothing failed so far.
    fn failed_so_far(&mut self) -> Result<(), Failure> {
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

/// One failure out of those of several items; none where there are none.
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

/// The files that archives must bring, as the backup's own list has them. A file that an archive brings and that is not
/// listed, that comes twice, or that has another size or digest, fails its unpack.
pub struct Listing {
    inner: data::Listing,
    waiting: Vec<Listed>,
}

impl Listing {
    /// An empty one.
    pub fn new() -> Self {
        Self { inner: data::Listing::new(), waiting: Vec::new() }
    }

    /// Adds a file; the host gets them 4096 at a time.
    ///
    /// # Errors
    /// [`Error::Invalid`] where a path of the batch is there already or leaves the data directory.
    pub fn add(&mut self, file: Listed) -> Result<(), Error> {
        self.waiting.push(file);
        if self.waiting.len() < BATCH { Ok(()) } else { self.submit() }
    }

    /// Paths that need not be listed; one that ends with `/` stands for everything below it.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a path that leaves the data directory.
    pub fn tolerate(&self, paths: &[&str]) -> Result<(), Error> {
        let paths: Vec<_> = paths.iter().map(|path| (*path).to_owned()).collect();
        Ok(self.inner.tolerate(&paths)?)
    }

    /// Up to `max` of the listed files that no unpack has brought yet.
    ///
    /// # Errors
    /// As [`Listing::add`].
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

impl std::fmt::Debug for Listing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listing").field("waiting", &self.waiting.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::UNFINISHED_CONTROL_FILE;
    use crate::native::Host;

    fn fetch(origin: u32, name: &str, size: u64) -> Fetch {
        Fetch {
            origin,
            object: name.to_owned(),
            range: None,
            path: name.to_owned(),
            at: None,
            size,
            digest: None,
            mode: None,
            mtime: None,
            unless: Unless::Always,
        }
    }

    #[test]
    fn more_files_than_one_batch_holds_all_arrive() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for number in 0..5000 {
            fs::write(from.path().join(number.to_string()), "x").unwrap();
        }
        fs::create_dir(from.path().join("global")).unwrap();
        fs::write(from.path().join("global/pg_control"), "control").unwrap();
        let (result, record) = Host::new(to.path()).run(|| {
            let bucket = Bucket::open(from.path().to_str().unwrap())?;
            let mut job = Job::new();
            let origin = job.origin(&bucket, None)?;
            for number in 0..5000 {
                job.fetch(fetch(origin, &number.to_string(), 1))?;
            }
            job.fetch(fetch(origin, "global/pg_control", 7))?;
            job.finish()
        });
        assert_eq!(result.unwrap().done, 5001);
        assert_eq!((record.bytes, record.files), (5007, 5001));
        assert_eq!(fs::read_dir(to.path()).unwrap().count(), 5001);
        assert!(to.path().join(UNFINISHED_CONTROL_FILE).exists());
    }

    #[test]
    fn the_first_failures_are_named_and_the_rest_is_counted() {
        let failed = |what: &str| Error::Corrupt(format!("{what} is damaged"));
        let later = |what: &str| Error::Transient(format!("{what} does not answer"));
        assert_eq!(together([].into_iter()), None);
        assert_eq!(together([Error::Cancelled].into_iter()), Some(Failure::Cancelled));
        assert_eq!(
            together([later("a"), Error::Cancelled].into_iter()),
            Some(Failure::RetryLater("a does not answer".to_owned()))
        );
        assert_eq!(
            together([failed("a"), later("b"), failed("c"), failed("d")].into_iter()),
            Some(Failure::Failed(
                "a is damaged; b does not answer; c is damaged; and 1 more failed".to_owned()
            ))
        );
    }

    #[test]
    fn a_file_that_is_not_there_fails_the_job_by_name() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (result, _) = Host::new(to.path()).run(|| {
            let bucket = Bucket::open(from.path().to_str().unwrap())?;
            let mut job = Job::new();
            let origin = job.origin(&bucket, None)?;
            job.fetch(fetch(origin, "base/5/1259", 1))?;
            job.finish()
        });
        assert!(matches!(result, Err(Failure::Failed(why)) if why.contains("base/5/1259")));
    }

    #[test]
    fn a_job_ends_when_it_is_told_to() {
        let to = tempfile::tempdir().unwrap();
        let (result, _) = Host::new(to.path()).cancel_after(0).run(|| Job::new().finish());
        assert!(matches!(result, Err(Failure::Cancelled)));
    }
}
