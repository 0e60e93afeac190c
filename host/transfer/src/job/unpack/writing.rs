//! Writes the files of an archive: each small one as a part of a batch, which any worker writes, and each large one while its bytes arrive.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::budget::ALLOCATION_OVERHEAD;
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Kind};
use crate::job::linked::{LinkOf, Linked, text};
use crate::job::pool::{Batch, Pool};
use crate::job::state::State;
use crate::job::worker::Worker;
use crate::listing::{Listing, Number};
use crate::sink::file::{self, Output, Wanted};
use crate::sink::ring::Piece;
use foundation::rooted::RelativePath;

/// The most batches of an archive that may wait; if this many wait, the archive's own worker writes the next batch. Empty files hold no
/// buffer of the ring, so nothing else bounds the number of batches.
const BATCHES: usize = 16;

/// An archive that is being unpacked, shared by the workers that write its files.
pub(crate) struct Archive {
    job: Arc<State>,
    listing: Option<Arc<Listing>>,
    /// Whether it has failed, so that the rest need not be written.
    failed: AtomicBool,
    /// How many bytes of files were written.
    written: AtomicU64,
    batches: Mutex<Batches>,
    batch_done: Condvar,
}

#[derive(Default)]
struct Batches {
    /// How many batches are queued or being written.
    open: usize,
    /// The first error in writing a batch.
    error: Option<Error>,
}

/// The files of a batch.
pub(crate) type SmallFiles = Vec<SmallFile>;

/// A small file whose bytes are in buffers of the ring.
pub(crate) struct SmallFile {
    pub(super) file: MemberFile,
    pub(super) pieces: Vec<Piece>,
}

impl SmallFile {
    /// Returns the memory of the file without its bytes, which are in the ring's buffers.
    fn bytes(&self) -> u64 {
        let digest = self.file.digest.as_ref().map_or(0, |digest| digest.value.capacity());
        let link = self.file.link.as_ref().map_or(0, |link| link.file.as_os_str().len());
        let strings = self.file.path.as_os_str().len() + digest + link;
        let vectors = 2 * size_of::<Self>() + self.pieces.capacity() * size_of::<Piece>();
        (strings + vectors) as u64 + 4 * ALLOCATION_OVERHEAD
    }
}

/// A file in an archive, after its header was checked.
pub(super) struct MemberFile {
    /// The path below the data directory.
    pub(super) path: RelativePath,
    pub(super) size: u64,
    pub(super) digest: Option<Digest>,
    /// The number of the file in the listing; `None` if the file is not listed.
    pub(super) number: Option<Number>,
    /// Whether it is checked but not written.
    pub(super) skipped: bool,
    /// Its place in a chain; `None` if the archive does not belong to a chain.
    pub(super) link: Option<LinkOf>,
}

impl Archive {
    pub(super) fn new(job: Arc<State>, listing: Option<Arc<Listing>>) -> Self {
        Self {
            job,
            listing,
            failed: AtomicBool::new(false),
            written: AtomicU64::new(0),
            batches: Mutex::default(),
            batch_done: Condvar::new(),
        }
    }

    /// Keeps the files that are not written yet from being written.
    pub(super) fn fail(&self) {
        self.failed.store(true, Ordering::Relaxed);
    }

    /// Returns how many bytes of files were written.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Counts bytes of files that were written.
    pub(super) fn count_written(&self, bytes: u64) {
        self.written.fetch_add(bytes, Ordering::Relaxed);
    }

    /// # Errors
    /// `Cancelled` if the job is cancelled, or writing a file of the archive has failed.
    pub(super) fn fail_if_cancelled(&self) -> Result<(), Error> {
        if self.failed.load(Ordering::Relaxed) {
            // `close` reports the error itself.
            return Err(Error::cancelled());
        }
        self.job.fail_if_cancelled()
    }

    /// Queues a batch for any worker, or has this worker write it if too many batches wait or too little memory is left.
    pub(super) fn dispatch(self: &Arc<Self>, files: SmallFiles, worker: &mut Worker) {
        if files.is_empty() {
            return;
        }
        let bytes = files.iter().map(SmallFile::bytes).sum();
        let charge = self.job.memory.charge(bytes, "files to write").ok();
        let crowded = charge.is_none() || self.batches().open >= BATCHES;
        self.batches().open += 1;
        let batch = Batch { archive: Arc::clone(self), files, charge };
        if crowded {
            write_batch(worker, batch);
        } else {
            worker.pool.offer(batch);
        }
    }

    /// Writes the batches that still wait, and waits for those that other workers write.
    pub(super) fn close(self: &Arc<Self>, worker: &mut Worker) -> Result<(), Error> {
        let pool: Arc<Pool> = Arc::clone(&worker.pool);
        while let Some(batch) = pool.take_back(self) {
            write_batch(worker, batch);
        }
        let mut batches = self.batches();
        while batches.open > 0 {
            batches = self.batch_done.wait(batches).unwrap_or_else(PoisonError::into_inner);
        }
        match batches.error.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    fn batches(&self) -> MutexGuard<'_, Batches> {
        self.batches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes the files of a batch.
pub(crate) fn write_batch(worker: &mut Worker, batch: Batch) {
    let Batch { archive, files, charge: _charge } = batch;
    let ended = catch_unwind(AssertUnwindSafe(|| {
        for small in files {
            if archive.failed.load(Ordering::Relaxed) {
                return Ok(());
            }
            let name = text(&small.file.path);
            write_small(worker, &archive, small).map_err(|error| match error.kind {
                Kind::Cancelled => error,
                _ => error.of(format_args!("`{}`", name.escape_debug())),
            })?;
        }
        Ok(())
    }));
    let error = ended.unwrap_or_else(|panic| Err(Error::of_panic(&*panic))).err();
    if error.is_some() {
        archive.fail();
    }
    let mut batches = archive.batches();
    batches.open -= 1;
    if batches.error.is_none() {
        batches.error = error;
    }
    drop(batches);
    archive.batch_done.notify_all();
}

fn write_small(worker: &mut Worker, archive: &Archive, small: SmallFile) -> Result<(), Error> {
    let mut writing = Writing::begin(worker, archive, small.file)?;
    for piece in &small.pieces {
        writing.write(worker, piece.bytes())?;
    }
    writing.finish(archive)
}

/// A file in an archive that is being written, or only checked.
pub(super) struct Writing<'a> {
    number: Option<Number>,
    to: To<'a>,
}

enum To<'a> {
    File(Output<'a>),
    Linked(Box<Linked<'a>>),
    Discard(&'a State, Option<(Hasher, Digest)>),
}

impl<'a> Writing<'a> {
    pub(super) fn begin(worker: &mut Worker, archive: &'a Archive, file: MemberFile) -> Result<Self, Error> {
        let MemberFile { path, size, digest, number, skipped, link } = file;
        let job = &*archive.job;
        let to = if skipped {
            To::Discard(job, digest.map(|digest| (Hasher::new(digest.algorithm), digest)))
        } else if let Some(link) = link {
            To::Linked(Box::new(Linked::begin(&mut worker.directories, job, link, size, digest)?))
        } else {
            let place = job.target().file(&path)?;
            let pages = job.page_checker(&path, digest.as_ref());
            let wanted = Wanted { size, digest, pages, mode: job.target().modes.0 };
            To::File(Output::create(&job.destination, &mut worker.directories, &place, wanted)?)
        };
        Ok(Self { number, to })
    }

    pub(super) fn write(&mut self, worker: &mut Worker, bytes: &[u8]) -> Result<(), Error> {
        match &mut self.to {
            To::File(output) => output.write(bytes),
            To::Linked(linked) => linked.write(&mut worker.directories, bytes),
            To::Discard(job, hasher) => {
                if let Some((hasher, _)) = hasher {
                    hasher.update(bytes);
                }
                job.read_without_writing(bytes.len() as u64);
                job.fail_if_cancelled()
            }
        }
    }

    pub(super) fn finish(self, archive: &Archive) -> Result<(), Error> {
        match self.to {
            To::File(output) => {
                archive.count_written(output.position());
                output.finish(None)?;
            }
            To::Linked(linked) => archive.count_written(linked.finish()?),
            To::Discard(_, Some((hasher, digest))) => file::compare(hasher, &digest)?,
            To::Discard(_, None) => {}
        }
        if let (Some(listing), Some(number)) = (&archive.listing, self.number) {
            listing.mark_complete(number);
        }
        Ok(())
    }
}
