//! Unpacks archives.
//!
//! A companion reads, decrypts and decompresses the archive into a ring of buffers. The worker parses the members and writes the
//! large files. Small files become batches that refer to the buffers, and any idle worker writes them. So several threads write the
//! files of an archive although its bytes arrive in sequence.

mod writing;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tokio_util::sync::CancellationToken;
use ustar::{Kind as MemberKind, Member, Stream, TarError};

use super::archive_directories::ArchiveDirectories;
use super::linked::{LinkOf, text};
use super::outcomes::OUTCOME;
use super::state::{Origin, State};
use super::stored::{Part, Stored};
use super::unit::{Ticket, Unit};
use super::worker::Worker;
use super::{Action, EndedItem, ItemKind, MOST_PATHS, Unpack};
use crate::budget::ALLOCATION_OVERHEAD;
use crate::chain::{ChainUse, IncrementFormat};
use crate::error::{Error, Kind};
use crate::listing::{Expected, Listing, PathSet};
use crate::sink::BUFFER;
use crate::sink::directories::shown;
use crate::sink::ring::{Filling, Piece, Reader, Ring};
use crate::target::Target;
use foundation::rooted::RelativePath;
use writing::{MemberFile, Writing};

pub(crate) use writing::{Archive, SmallFile, SmallFiles, write_batch};

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
    /// The chain that the archive belongs to.
    chain: Option<ChainUse>,
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
        chain: Option<ChainUse>,
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
            chain,
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
                of: ItemKind::Archive,
                store: self.origin.store.name(),
                object: &self.object,
                path: &path,
                bytes_read: read,
                bytes_written: written,
                duration: began.elapsed(),
                ended: &ended,
            });
        }
        // The chain is not used any more when the job becomes idle.
        drop(self.chain);
        self.ticket.finish(ended);
    }
}

/// Unpacks an archive.
pub(crate) fn run(worker: &mut Worker, job: &Arc<State>, item: Item) {
    if let Err(cancelled) = job.fail_if_cancelled() {
        item.finish(job, Instant::now(), (0, 0), Err(cancelled));
        return;
    }
    let (began, stored_bytes) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let archive = Arc::new(Archive::new(Arc::clone(job), item.listing.clone()));
    let ring = Arc::new(Ring::within(&job.memory));
    let stop = job.cancel_token().child_token();
    // From here on the companion fills the ring. `abandon` waits until it has ended.
    worker.read_ahead(filling(&item, job, &ring, &stop, &stored_bytes));
    let ended = catch_unwind(AssertUnwindSafe(|| {
        let worker = RefCell::new(&mut *worker);
        let directories = ArchiveDirectories::within(&job.memory);
        Unpacking { item: &item, job, archive: &archive, worker: &worker, directories, written: 0 }.all(&ring)
    }));
    let ended = ended.unwrap_or_else(|panic| Err(Error::of_panic(&*panic)));
    if ended.is_err() {
        archive.fail();
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
    item.finish(job, began, (read, archive.written()), ended);
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
    job: &'a State,
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
        let stream = Stream(Reader::new(Arc::clone(ring), Box::new(write_one)));
        let mut tar = match &self.item.chain {
            Some(of) if of.chain.format() == IncrementFormat::WalG => Tar::new(stream).of_wal_g(),
            Some(_) | None => Tar::new(stream),
        };
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
                            self.dispatch(&mut batch);
                            self.large(&mut tar, file)
                        }
                        Err(error) => Err(error),
                    }
                }
            }
            .map_err(named)?;
            if tar.next_header() - begun >= BATCH {
                self.dispatch(&mut batch);
            }
        }
        self.dispatch(&mut batch);
        Ok(())
    }

    /// Queues the files of a batch, and begins another batch.
    fn dispatch(&self, batch: &mut SmallFiles) {
        self.archive.dispatch(std::mem::take(batch), &mut self.worker.borrow_mut());
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
            return Err(refused());
        }
        Ok(path)
    }

    /// Creates a directory.
    fn directory(&mut self, path: &RelativePath) -> Result<(), Error> {
        if self.item.chain.as_ref().is_some_and(|of| !of.is_newest()) {
            // Directories that the newest backup does not have are not made. Files that it needs make theirs.
            return Ok(());
        }
        // A second file with the same name fails because the first exists; a second directory would not fail.
        self.directories.add(path)?;
        match self.job.target().directory_of(path)? {
            None => Ok(()),
            Some(place) => self.worker.borrow_mut().directories.make(self.job.target(), &place),
        }
    }

    /// Checks a file's header against the limits and the listing.
    fn check_file(&mut self, path: RelativePath, size: u64) -> Result<MemberFile, Error> {
        let name = text(&path);
        let mut skipped = self.item.skip.contains(&name);
        let link = match &self.item.chain {
            None => None,
            Some(chain) => {
                let of = LinkOf::new(chain, &name)?;
                if self.item.refuse.contains(&text(&of.file)) {
                    return Err(refused());
                }
                skipped |= !of.is_needed();
                Some(of)
            }
        };
        // Nothing is written for a file of a tablespace that only an older backup has.
        match &link {
            None => drop(self.job.target().file(&path)?),
            Some(_) if skipped => {}
            Some(link) => drop(self.job.target().file(&link.file)?),
        }
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
        Ok(MemberFile { path, size, digest, number, skipped, link })
    }

    /// Writes a large file while its bytes arrive.
    fn large(&self, tar: &mut Tar<'_>, file: MemberFile) -> Result<(), Error> {
        let mut writing = Writing::begin(&mut self.worker.borrow_mut(), self.archive, file)?;
        while tar.left() > 0 {
            let piece = piece(tar).map_err(|error| broken(tar.error(error)))?;
            writing.write(&mut self.worker.borrow_mut(), piece.bytes())?;
        }
        writing.finish(self.archive)
    }
}

/// Returns the error for a member that the caller refuses.
fn refused() -> Error {
    Error::new(Kind::Corrupt, "an archive must not contain this")
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
