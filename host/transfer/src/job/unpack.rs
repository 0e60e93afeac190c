//! Unpacking archives.
//!
//! A companion reads, decrypts and decompresses the archive into a ring of buffers. The worker finds the members in it and writes
//! the large ones. Small ones become batches that point into the buffers, for whichever worker has time: the files of an
//! archive are made by several threads although its bytes come one after the other.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;
use ustar::{Kind as MemberKind, Member, Stream, TarError};

use super::brought::Directories;
use super::outcomes::OUTCOME;
use super::pool::{Batch, Pool};
use super::state::{Origin, State};
use super::stored::{Part, Stored};
use super::unit::{Ticket, Unit};
use super::worker::Worker;
use super::{Action, MOST_PATHS, Unpack};
use crate::budget::PIECE;
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Kind};
use crate::listing::{Expected, Listing, Number, PathSet};
use crate::sink::BUFFER;
use crate::sink::file::{self, Output, Wanted};
use crate::sink::ring::{Filling, Piece, Reader, Ring};
use crate::target::Target;
use foundation::rooted::RelativePath;

/// How many batches of an archive wait at most before its own worker writes one. Files without bytes hold no buffer of the ring,
/// so nothing else would stop it.
const BATCHES: usize = 16;

/// The largest file that goes into a batch, in bytes.
const SMALL: u64 = BUFFER as u64;

/// How many bytes of an archive make a batch, from the first header to whatever comes before the next. What a batch points to
/// is not filled again before it is written, so that one that is still being made must keep few buffers.
const BATCH: u64 = BUFFER as u64 / 2;

/// An archive to unpack whose every part was checked.
pub(crate) struct Item {
    ticket: Ticket,
    origin: Arc<Origin>,
    object: String,
    /// None for the data directory itself.
    below: Option<RelativePath>,
    limit: u64,
    skip: PathSet,
    refuse: PathSet,
    listing: Option<Arc<Listing>>,
}

impl Item {
    /// Checks an archive to unpack.
    ///
    /// # Errors
    /// `Invalid`, with what is wrong with it; `Limit` for too many paths.
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

    /// What it takes in memory, with its place in the queue and its outcome.
    pub(super) fn bytes(&self) -> u64 {
        let below = self.below.as_ref().map_or(0, |below| below.as_os_str().len());
        let strings = (self.object.capacity() + below) as u64 + 3 * PIECE;
        2 * (size_of::<Self>() + size_of::<Unit>()) as u64
            + strings
            + self.skip.bytes()
            + self.refuse.bytes()
            + OUTCOME
    }

    /// The item as it enters the queue.
    pub(super) fn ticketed(self, ticket: Ticket) -> Self {
        Self { ticket, ..self }
    }
}

/// An archive that is being unpacked, as everybody sees it who writes its files.
pub(crate) struct Archive {
    job: Arc<State>,
    listing: Option<Arc<Listing>>,
    /// Whether there is no more use in it.
    failed: AtomicBool,
    batches: Mutex<Batches>,
    fewer: Condvar,
}

#[derive(Default)]
struct Batches {
    /// How many wait or are at work.
    open: usize,
    /// The first error.
    error: Option<Error>,
}

/// Files that are written in one go.
pub(crate) type SmallFiles = Vec<SmallFile>;

/// A file whose bytes are in buffers.
pub(crate) struct SmallFile {
    file: Announced,
    pieces: Vec<Piece>,
}

impl SmallFile {
    /// What it takes in memory besides its bytes, which lie in the ring's buffers.
    fn bytes(&self) -> u64 {
        let digest = self.file.digest.as_ref().map_or(0, |digest| digest.value.capacity());
        let strings = self.file.path.as_os_str().len() + digest;
        let vectors = 2 * size_of::<Self>() + self.pieces.capacity() * size_of::<Piece>();
        (strings + vectors) as u64 + 3 * PIECE
    }
}

/// A file of an archive before its contents come.
struct Announced {
    /// Its path below the data directory.
    path: RelativePath,
    size: u64,
    digest: Option<Digest>,
    /// Which file of the listing it is, where it is one.
    number: Option<Number>,
    /// Whether it is read and not written.
    skipped: bool,
}

/// Unpacks an archive.
pub(crate) fn one(worker: &mut Worker, job: &Arc<State>, item: Item) {
    if let Err(cancelled) = job.go_on() {
        item.ticket.finish(Err(cancelled));
        return;
    }
    let archive = Arc::new(Archive {
        job: Arc::clone(job),
        listing: item.listing.clone(),
        failed: AtomicBool::new(false),
        batches: Mutex::default(),
        fewer: Condvar::new(),
    });
    let ring = Arc::new(Ring::within(&job.memory));
    let stop = job.cancel_token().child_token();
    // From here on somebody fills the ring and says so when he ends, which `abandon` waits for.
    worker.read_ahead(filling(&item, job, &ring, &stop));
    let ended = catch_unwind(AssertUnwindSafe(|| {
        let worker = RefCell::new(&mut *worker);
        let directories = Directories::within(&job.memory);
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
        // Reading stopped because writing failed: that is the reason to tell.
        (Err(stopped), Err(why)) if stopped.kind == Kind::Cancelled => Err(why),
        (ended, written) => ended.and(written),
    };
    let ended = match ended {
        Err(error) if error.kind == Kind::Cancelled || error.message.starts_with(&object) => Err(error),
        Err(error) => Err(error.of(object)),
        Ok(()) => Ok(Action::Written),
    };
    item.ticket.finish(ended);
}

/// What the companion does: reads, decrypts, decompresses.
fn filling(item: &Item, job: &Arc<State>, ring: &Arc<Ring>, stop: &CancellationToken) -> Filling {
    let (origin, object) = (Arc::clone(&item.origin), item.object.clone());
    let (job, stop) = (Arc::clone(job), stop.clone());
    let open = move || {
        let stored = Stored::open(&job, &stop, &origin, &object, None)?;
        let size = stored.size();
        let part = Box::new(Part::new(Arc::new(Mutex::new(stored)), size));
        let plain = origin.via.decode_to_keep(part, &job.room(&stop))?;
        Ok(job.withheld.refusing(plain))
    };
    Filling::new(Arc::clone(ring), Box::new(open))
}

/// One archive on its way through a worker.
struct Unpacking<'a> {
    item: &'a Item,
    archive: &'a Arc<Archive>,
    worker: &'a RefCell<&'a mut Worker>,
    directories: Directories,
    /// How many bytes its files have so far.
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
            self.archive.go_on()?;
            let named = |error: Error| match error.kind {
                Kind::Cancelled => error,
                _ => error.of(format_args!("`{}`", member.name.escape_debug())),
            };
            let path = self.path(&member).map_err(named)?;
            match member.kind {
                MemberKind::Directory => self.directory(&path),
                MemberKind::File => {
                    let announced = self.announce(path, member.size);
                    match announced {
                        Ok(file) if member.size <= SMALL => {
                            let pieces = pieces(&mut tar).map_err(|error| broken(tar.error(error)))?;
                            if batch.is_empty() {
                                begun = at;
                            }
                            batch.push(SmallFile { file, pieces });
                            Ok(())
                        }
                        Ok(file) => {
                            self.hand_out(std::mem::take(&mut batch));
                            self.large(&mut tar, file)
                        }
                        Err(error) => Err(error),
                    }
                }
            }
            .map_err(named)?;
            if tar.next_header() - begun >= BATCH {
                self.hand_out(std::mem::take(&mut batch));
            }
        }
        self.hand_out(batch);
        Ok(())
    }

    /// Where a member belongs, below the data directory.
    fn path(&self, member: &Member) -> Result<RelativePath, Error> {
        let own = RelativePath::new(&member.name);
        let path = match &self.item.below {
            None => own,
            Some(below) => own.and_then(|own| below.join(&own)),
        }
        .map_err(|why| Error::new(Kind::Invalid, why.to_string()))?;
        if self.item.refuse.contains(&text(&path)) {
            return Err(Error::new(Kind::Corrupt, "an archive must not bring this"));
        }
        Ok(path)
    }

    /// Makes a directory.
    fn directory(&mut self, path: &RelativePath) -> Result<(), Error> {
        // A file that comes twice finds the first one there; a directory would not.
        self.directories.add(path)?;
        match self.archive.job.target().directory_of(path)? {
            None => Ok(()),
            Some(place) => self.worker.borrow_mut().directories.make(self.archive.job.target(), &place),
        }
    }

    /// Looks at what the header and the listing say of a file.
    fn announce(&mut self, path: RelativePath, size: u64) -> Result<Announced, Error> {
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
        Ok(Announced { path, size, digest, number, skipped })
    }

    /// Writes a file that is not small, as its bytes come.
    fn large(&self, tar: &mut Tar<'_>, file: Announced) -> Result<(), Error> {
        let mut writing = Writing::begin(&mut self.worker.borrow_mut(), self.archive, file)?;
        while tar.left() > 0 {
            let piece = piece(tar).map_err(|error| broken(tar.error(error)))?;
            writing.write(piece.bytes())?;
        }
        writing.finish(self.archive)
    }

    /// Has files written by whoever has time.
    fn hand_out(&self, files: SmallFiles) {
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

/// The next bytes of a member's contents, as they lie in their buffer.
fn piece(tar: &mut Tar<'_>) -> std::io::Result<Piece> {
    tar.take(|Stream(reader), left| {
        let most = usize::try_from(left).unwrap_or(usize::MAX);
        let piece = reader.piece(most)?.ok_or(std::io::ErrorKind::UnexpectedEof)?;
        let count = piece.bytes().len() as u64;
        Ok((piece, count))
    })
}

/// All of a member's contents.
fn pieces(tar: &mut Tar<'_>) -> std::io::Result<Vec<Piece>> {
    let mut pieces = Vec::with_capacity(1);
    while tar.left() > 0 {
        pieces.push(piece(tar)?);
    }
    Ok(pieces)
}

/// What is wrong with an archive, in words that follow its name.
fn broken(error: TarError) -> Error {
    match error {
        TarError::Io(error) => Error::from(error),
        error => Error::new(Kind::Corrupt, format!("the archive {error}")),
    }
}

/// A path out of an archive, whose names are UTF-8.
fn text(path: &RelativePath) -> String {
    path.as_os_str().to_string_lossy().into_owned()
}

impl Archive {
    /// # Errors
    /// Where the job is cancelled or somebody who writes a file of the archive has failed.
    fn go_on(&self) -> Result<(), Error> {
        if self.failed.load(Ordering::Relaxed) {
            // What failed is told by whoever closes the archive.
            return Err(Error::cancelled());
        }
        self.job.go_on()
    }

    /// Waits until every batch is done, and helps.
    fn close(self: &Arc<Self>, worker: &mut Worker) -> Result<(), Error> {
        let pool: Arc<Pool> = Arc::clone(&worker.pool);
        while let Some(batch) = pool.take_back(self) {
            write_batch(worker, batch);
        }
        let mut batches = self.batches();
        while batches.open > 0 {
            batches = self.fewer.wait(batches).unwrap_or_else(PoisonError::into_inner);
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
    archive.fewer.notify_all();
}

fn write_small(worker: &mut Worker, archive: &Archive, small: SmallFile) -> Result<(), Error> {
    let mut writing = Writing::begin(worker, archive, small.file)?;
    for piece in &small.pieces {
        writing.write(piece.bytes())?;
    }
    writing.finish(archive)
}

/// A file of an archive that is being written, or only read.
struct Writing<'a> {
    number: Option<Number>,
    to: To<'a>,
}

enum To<'a> {
    File(Output<'a>),
    Nowhere(&'a State, Option<(Hasher, Digest)>),
}

impl<'a> Writing<'a> {
    fn begin(worker: &mut Worker, archive: &'a Archive, file: Announced) -> Result<Self, Error> {
        let Announced { path, size, digest, number, skipped } = file;
        let job = &*archive.job;
        let to = if skipped {
            To::Nowhere(job, digest.map(|digest| (Hasher::new(digest.algorithm), digest)))
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
            To::Nowhere(job, hasher) => {
                if let Some((hasher, _)) = hasher {
                    hasher.update(bytes);
                }
                job.read_without_writing(bytes.len() as u64);
                job.go_on()
            }
        }
    }

    fn finish(self, archive: &Archive) -> Result<(), Error> {
        match self.to {
            To::File(output) => output.finish(None)?,
            To::Nowhere(_, Some((hasher, digest))) => file::compare(hasher, &digest)?,
            To::Nowhere(_, None) => {}
        }
        if let (Some(listing), Some(number)) = (&archive.listing, self.number) {
            listing.brought(number);
        }
        Ok(())
    }
}
