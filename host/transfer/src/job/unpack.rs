//! Unpacks archives.
//!
//! A companion reads, decrypts and decompresses the archive into a ring of buffers. The worker parses the members and writes the
//! large files. Small files become batches that refer to the buffers, and any idle worker writes them. So several threads write the
//! files of an archive although its bytes arrive in sequence.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio_util::sync::CancellationToken;
use ustar::{Kind as MemberKind, Member, Stream, TarError};

use super::archive_directories::ArchiveDirectories;
use super::outcomes::OUTCOME;
use super::pool::{Batch, Pool};
use super::state::{Origin, State};
use super::stored::{Part, Stored};
use super::unit::{Ticket, Unit};
use super::worker::Worker;
use super::{Action, EndedItem, MOST_PATHS, Unpack};
use crate::budget::ALLOCATION_OVERHEAD;
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Kind};
use crate::listing::{Expected, Listing, Number, PathSet};
use crate::sink::BUFFER;
use crate::sink::directories::shown;
use crate::sink::file::{self, Output, Wanted};
use crate::sink::ring::{Filling, Piece, Reader, Ring};
use crate::target::Target;
use foundation::rooted::RelativePath;

/// The most batches of an archive that may wait; if this many wait, the archive's own worker writes the next batch. Empty files hold no
/// buffer of the ring, so nothing else bounds the number of batches.
const BATCHES: usize = 16;

/// The largest file of a batch in bytes.
const SMALL: u64 = BUFFER as u64;

/// How many bytes of an archive make a batch, from the first header in the batch to the header that follows it. The buffers of a batch
/// are not reused before the batch is written, so an unfinished batch must hold few buffers.
const BATCH: u64 = BUFFER as u64 / 2;

/// An archive to unpack, after validation.
pub(crate) struct Item {
    ticket: Ticket,
    origin: Arc<Origin>,
    object: String,
    /// The directory for the members; `None` for the data directory itself.
    below: Option<RelativePath>,
    limit: u64,
    skip: PathSet,
    refuse: PathSet,
    listing: Option<Arc<Listing>>,
}

impl Item {
    /// Validates an archive to unpack.
    ///
    /// # Errors
    /// `Invalid`, and the message says what is wrong; `Limit` if there are too many paths.
    pub(super) fn new(
        unpack: Unpack,
        origin: Arc<Origin>,
        listing: Option<Arc<Listing>>,
        target: &Target,
    ) -> Result<Self, Error> {
        for (paths, what) in [(&unpack.skip, "skips"), (&unpack.refuse, "refuses")] {
            if paths.len() > MOST_PATHS {
                return Err(Error::new(Kind::Limit, format!("an unpack {what} at most {MOST_PATHS} paths")));
            }
        }
        let below = match unpack.path.as_str() {
            "" | "." | "./" => None,
            path => {
                let path =
                    RelativePath::new(path).map_err(|why| Error::new(Kind::Invalid, why.to_string()))?;
                target.directory_of(&path)?;
                Some(path)
            }
        };
        Ok(Self {
            ticket: Ticket::none(),
            origin,
            object: unpack.object,
            below,
            limit: unpack.limit,
            skip: PathSet::new(unpack.skip)?,
            refuse: PathSet::new(unpack.refuse)?,
            listing,
        })
    }

    /// Returns the memory of the item, its slot in the queue and its outcome.
    pub(super) fn bytes(&self) -> u64 {
        let below = self.below.as_ref().map_or(0, |below| below.as_os_str().len());
        let strings = (self.object.capacity() + below) as u64 + 3 * ALLOCATION_OVERHEAD;
        2 * (size_of::<Self>() + size_of::<Unit>()) as u64
            + strings
            + self.skip.bytes()
            + self.refuse.bytes()
            + OUTCOME
    }

    /// Returns the item with this ticket.
    pub(super) fn ticketed(self, ticket: Ticket) -> Self {
        Self { ticket, ..self }
    }

    /// Reports how the item ended, and how many stored bytes were read and how many bytes were written.
    fn finish(self, job: &State, began: Instant, (read, written): (u64, u64), ended: Result<Action, Error>) {
        if let Some(observer) = job.observer() {
            let path = self.below.as_ref().map_or_else(|| ".".to_owned(), shown);
            observer.ended(&EndedItem {
                is_archive: true,
                store: self.origin.store.name(),
                object: &self.object,
                path: &path,
                bytes_read: read,
                bytes_written: written,
                duration: began.elapsed(),
                ended: &ended,
            });
        }
        self.ticket.finish(ended);
    }
}

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
    file: MemberFile,
    pieces: Vec<Piece>,
}

impl SmallFile {
    /// Returns its memory without its bytes, which are in the ring's buffers.
    fn bytes(&self) -> u64 {
        let digest = self.file.digest.as_ref().map_or(0, |digest| digest.value.capacity());
        let strings = self.file.path.as_os_str().len() + digest;
        let vectors = 2 * size_of::<Self>() + self.pieces.capacity() * size_of::<Piece>();
        (strings + vectors) as u64 + 3 * ALLOCATION_OVERHEAD
    }
}

/// A file in an archive, after its header was checked.
struct MemberFile {
    /// The path below the data directory.
    path: RelativePath,
    size: u64,
    digest: Option<Digest>,
    /// The number of the file in the listing; `None` if the file is not listed.
    number: Option<Number>,
    /// Whether it is checked but not written.
    skipped: bool,
}

/// Unpacks an archive.
pub(crate) fn run(worker: &mut Worker, job: &Arc<State>, item: Item) {
    if let Err(cancelled) = job.fail_if_cancelled() {
        item.finish(job, Instant::now(), (0, 0), Err(cancelled));
        return;
    }
    let (began, stored_bytes) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let archive = Arc::new(Archive {
        job: Arc::clone(job),
        listing: item.listing.clone(),
        failed: AtomicBool::new(false),
        written: AtomicU64::new(0),
        batches: Mutex::default(),
        batch_done: Condvar::new(),
    });
    let ring = Arc::new(Ring::within(&job.memory));
    let stop = job.cancel_token().child_token();
    // From here on the companion fills the ring. `abandon` waits until it has ended.
    worker.read_ahead(filling(&item, job, &ring, &stop, &stored_bytes));
    let ended = catch_unwind(AssertUnwindSafe(|| {
        let worker = RefCell::new(&mut *worker);
        let directories = ArchiveDirectories::within(&job.memory);
        Unpacking { item: &item, archive: &archive, worker: &worker, directories, written: 0 }.all(&ring)
    }));
    let ended = ended.unwrap_or_else(|panic| Err(Error::of_panic(&*panic)));
    if ended.is_err() {
        archive.failed.store(true, Ordering::Relaxed);
    }
    stop.cancel();
    let written = archive.close(worker);
    ring.abandon();
    let object = format!("`{}` of {}", item.object, item.origin.store.name());
    let ended = match (ended, written) {
        // Reading was stopped because writing failed, so the error of writing is the cause.
        (Err(stopped), Err(why)) if stopped.kind == Kind::Cancelled => Err(why),
        (ended, written) => ended.and(written),
    };
    let ended = match ended {
        Err(error) if error.kind == Kind::Cancelled || error.message.starts_with(&object) => Err(error),
        Err(error) => Err(error.of(object)),
        Ok(()) => Ok(Action::Written),
    };
    let read = if ended.is_ok() { stored_bytes.load(Ordering::Relaxed) } else { 0 };
    item.finish(job, began, (read, archive.written.load(Ordering::Relaxed)), ended);
}

/// Makes the companion's task: to read, decrypt and decompress the archive.
fn filling(
    item: &Item,
    job: &Arc<State>,
    ring: &Arc<Ring>,
    stop: &CancellationToken,
    stored_bytes: &Arc<AtomicU64>,
) -> Filling {
    let stored_bytes = Arc::clone(stored_bytes);
    let (origin, object) = (Arc::clone(&item.origin), item.object.clone());
    let (job, stop) = (Arc::clone(job), stop.clone());
    let open = move || {
        let stored = Stored::open(&job, &stop, &origin, &object, None)?;
        let size = stored.size();
        stored_bytes.store(size, Ordering::Relaxed);
        let part = Box::new(Part::new(Arc::new(Mutex::new(stored)), size));
        let plain = origin.via.decode_to_keep(part, &job.memory_allowance(&stop))?;
        Ok(job.withheld.refusing(plain))
    };
    Filling::new(Arc::clone(ring), Box::new(open))
}

/// The state of the worker that unpacks an archive.
struct Unpacking<'a> {
    item: &'a Item,
    archive: &'a Arc<Archive>,
    worker: &'a RefCell<&'a mut Worker>,
    directories: ArchiveDirectories,
    /// The total size of the files in the archive so far, in bytes.
    written: u64,
}

type Tar<'a> = ustar::Archive<Stream<Reader<'a>>>;

impl<'a> Unpacking<'a> {
    fn all(mut self, ring: &Arc<Ring>) -> Result<(), Error> {
        let (worker, archive) = (self.worker, self.archive);
        let write_one = move || {
            let mut worker = worker.borrow_mut();
            match worker.pool.take_back(archive) {
                None => false,
                Some(batch) => {
                    write_batch(&mut worker, batch);
                    true
                }
            }
        };
        let mut tar = Tar::new(Stream(Reader::new(Arc::clone(ring), Box::new(write_one))));
        let (mut batch, mut begun) = (Vec::new(), 0);
        loop {
            let at = tar.next_header();
            let Some(member) = tar.next().map_err(broken)? else { break };
            self.archive.fail_if_cancelled()?;
            let named = |error: Error| match error.kind {
                Kind::Cancelled => error,
                _ => error.of(format_args!("`{}`", member.name.escape_debug())),
            };
            let path = self.path(&member).map_err(named)?;
            match member.kind {
                MemberKind::Directory => self.directory(&path),
                MemberKind::File => {
                    let checked = self.check_file(path, member.size);
                    match checked {
                        Ok(file) if member.size <= SMALL => {
                            let pieces = pieces(&mut tar).map_err(|error| broken(tar.error(error)))?;
                            if batch.is_empty() {
                                begun = at;
                            }
                            batch.push(SmallFile { file, pieces });
                            Ok(())
                        }
                        Ok(file) => {
                            self.dispatch(std::mem::take(&mut batch));
                            self.large(&mut tar, file)
                        }
                        Err(error) => Err(error),
                    }
                }
            }
            .map_err(named)?;
            if tar.next_header() - begun >= BATCH {
                self.dispatch(std::mem::take(&mut batch));
            }
        }
        self.dispatch(batch);
        Ok(())
    }

    /// Returns the path of a member in the data directory.
    fn path(&self, member: &Member) -> Result<RelativePath, Error> {
        let own = RelativePath::new(&member.name);
        let path = match &self.item.below {
            None => own,
            Some(below) => own.and_then(|own| below.join(&own)),
        }
        .map_err(|why| Error::new(Kind::Invalid, why.to_string()))?;
        if self.item.refuse.contains(&text(&path)) {
            return Err(Error::new(Kind::Corrupt, "an archive must not contain this"));
        }
        Ok(path)
    }

    /// Creates a directory.
    fn directory(&mut self, path: &RelativePath) -> Result<(), Error> {
        // A second file with the same name fails because the first exists; a second directory would not fail.
        self.directories.add(path)?;
        match self.archive.job.target().directory_of(path)? {
            None => Ok(()),
            Some(place) => self.worker.borrow_mut().directories.make(self.archive.job.target(), &place),
        }
    }

    /// Checks a file's header against the limits and the listing.
    fn check_file(&mut self, path: RelativePath, size: u64) -> Result<MemberFile, Error> {
        let name = text(&path);
        let skipped = self.item.skip.contains(&name);
        self.archive.job.target().file(&path)?;
        let (digest, number) = match &self.item.listing {
            None => (None, None),
            Some(listing) => match listing.expect(&name)? {
                Expected::Tolerated => (None, None),
                Expected::Listed { size: listed, .. } if listed != size => {
                    let why = format!("it has {size} bytes and is listed with {listed}");
                    return Err(Error::new(Kind::Corrupt, why));
                }
                Expected::Listed { number, digest, .. } => (digest, Some(number)),
            },
        };
        if !skipped {
            self.written = self.written.saturating_add(size);
            if self.written > self.item.limit {
                let why = format!(
                    "with it the archive has more than the {} bytes that it may write",
                    self.item.limit
                );
                return Err(Error::new(Kind::Limit, why));
            }
        }
        Ok(MemberFile { path, size, digest, number, skipped })
    }

    /// Writes a large file while its bytes arrive.
    fn large(&self, tar: &mut Tar<'_>, file: MemberFile) -> Result<(), Error> {
        let mut writing = Writing::begin(&mut self.worker.borrow_mut(), self.archive, file)?;
        while tar.left() > 0 {
            let piece = piece(tar).map_err(|error| broken(tar.error(error)))?;
            writing.write(piece.bytes())?;
        }
        writing.finish(self.archive)
    }

    /// Queues a batch for any worker, or writes it here if too many batches wait or too little memory is left.
    fn dispatch(&self, files: SmallFiles) {
        if !files.is_empty() {
            let bytes = files.iter().map(SmallFile::bytes).sum();
            let charge = self.archive.job.memory.charge(bytes, "files to write").ok();
            let crowded = charge.is_none() || self.archive.batches().open >= BATCHES;
            self.archive.batches().open += 1;
            let batch = Batch { archive: Arc::clone(self.archive), files, charge };
            if crowded {
                write_batch(&mut self.worker.borrow_mut(), batch);
            } else {
                self.worker.borrow().pool.offer(batch);
            }
        }
    }
}

/// Returns the next bytes of a member's contents without copying them.
fn piece(tar: &mut Tar<'_>) -> std::io::Result<Piece> {
    tar.take(|Stream(reader), left| {
        let most = usize::try_from(left).unwrap_or(usize::MAX);
        let piece = reader.piece(most)?.ok_or(std::io::ErrorKind::UnexpectedEof)?;
        let count = piece.bytes().len() as u64;
        Ok((piece, count))
    })
}

/// Returns all of a member's contents.
fn pieces(tar: &mut Tar<'_>) -> std::io::Result<Vec<Piece>> {
    let mut pieces = Vec::with_capacity(1);
    while tar.left() > 0 {
        pieces.push(piece(tar)?);
    }
    Ok(pieces)
}

/// Makes an error whose message follows the name of the archive.
fn broken(error: TarError) -> Error {
    match error {
        TarError::Io(error) => Error::from(error),
        error => Error::new(Kind::Corrupt, format!("the archive {error}")),
    }
}

/// Returns the text of a path from an archive, whose names are UTF-8.
fn text(path: &RelativePath) -> String {
    path.as_os_str().to_string_lossy().into_owned()
}

impl Archive {
    /// # Errors
    /// `Cancelled` if the job is cancelled, or writing a file of the archive has failed.
    fn fail_if_cancelled(&self) -> Result<(), Error> {
        if self.failed.load(Ordering::Relaxed) {
            // `close` reports the error itself.
            return Err(Error::cancelled());
        }
        self.job.fail_if_cancelled()
    }

    /// Writes the batches that still wait, and waits for those that other workers write.
    fn close(self: &Arc<Self>, worker: &mut Worker) -> Result<(), Error> {
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
        archive.failed.store(true, Ordering::Relaxed);
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
        writing.write(piece.bytes())?;
    }
    writing.finish(archive)
}

/// A file in an archive that is being written, or only checked.
struct Writing<'a> {
    number: Option<Number>,
    to: To<'a>,
}

enum To<'a> {
    File(Output<'a>),
    Discard(&'a State, Option<(Hasher, Digest)>),
}

impl<'a> Writing<'a> {
    fn begin(worker: &mut Worker, archive: &'a Archive, file: MemberFile) -> Result<Self, Error> {
        let MemberFile { path, size, digest, number, skipped } = file;
        let job = &*archive.job;
        let to = if skipped {
            To::Discard(job, digest.map(|digest| (Hasher::new(digest.algorithm), digest)))
        } else {
            let place = job.target().file(&path)?;
            let wanted = Wanted { size, digest, mode: job.target().modes.0 };
            To::File(Output::create(&job.destination, &mut worker.directories, &place, wanted)?)
        };
        Ok(Self { number, to })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        match &mut self.to {
            To::File(output) => output.write(bytes),
            To::Discard(job, hasher) => {
                if let Some((hasher, _)) = hasher {
                    hasher.update(bytes);
                }
                job.read_without_writing(bytes.len() as u64);
                job.fail_if_cancelled()
            }
        }
    }

    fn finish(self, archive: &Archive) -> Result<(), Error> {
        match self.to {
            To::File(output) => {
                archive.written.fetch_add(output.position(), Ordering::Relaxed);
                output.finish(None)?;
            }
            To::Discard(_, Some((hasher, digest))) => file::compare(hasher, &digest)?,
            To::Discard(_, None) => {}
        }
        if let (Some(listing), Some(number)) = (&archive.listing, self.number) {
            listing.mark_complete(number);
        }
        Ok(())
    }
}
