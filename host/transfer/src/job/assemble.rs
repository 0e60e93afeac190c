//! Puts a file together from parts of several objects.
//!
//! One worker writes the whole file. Pieces whose stored bytes are adjacent are read with one request. The digest of the file is computed
//! while the bytes are written, as long as they arrive in the order of the file; the rest of the file is read again at the end.

mod blocks;
mod check;

use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::coalesce::{self, Ranged};
use super::fetch::{Moved, guarded, named, set_mode_and_time};
use super::outcomes::OUTCOME;
use super::state::{Origin, State};
use super::stored::{Part, Stored};
use super::unit::{Ticket, Unit};
use super::worker::Worker;
use super::{Action, Assembly, BlockDigests, EndedItem, Extent, ItemKind};
use crate::budget::ALLOCATION_OVERHEAD;
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Kind};
use crate::sink::BUFFER;
use crate::sink::directories::shown;
use crate::sink::file;
use crate::sink::scattered::Scattered;
use crate::store::Range;
use crate::target::{Place, Target};
use blocks::{Existing, SameBlocks};
use foundation::rooted::RelativePath;

/// The most pieces of a file.
pub const MOST_PIECES: usize = 65_536;

/// The most extents of all pieces of a file together.
pub const MOST_EXTENTS: usize = 524_288;

/// A file to put together, after validation.
pub(crate) struct Item {
    ticket: Ticket,
    path: RelativePath,
    size: u64,
    digest: Digest,
    mode: u32,
    mtime: Option<u64>,
    keep_same: bool,
    blocks: Option<BlockDigests>,
    pieces: Vec<Piece>,
}

/// A part of an object, after validation.
pub(crate) struct Piece {
    origin: Arc<Origin>,
    object: String,
    range: Option<Range>,
    size: u64,
    extents: Vec<Extent>,
}

impl Piece {
    /// Returns a key that sorts pieces by object and offset.
    fn place(&self) -> (*const Origin, &str, u64) {
        (Arc::as_ptr(&self.origin), self.object.as_str(), self.range.map_or(0, |range| range.offset))
    }
}

impl Ranged for &Piece {
    fn range(&self) -> Option<Range> {
        self.range
    }

    fn is_of_the_same_object(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.origin, &other.origin) && self.object == other.object
    }
}

impl Item {
    /// Validates a file to put together. `origin` returns the origin for an index.
    ///
    /// # Errors
    /// `Invalid`, and the message says what is wrong; `Limit` if there are too many pieces or extents.
    pub(super) fn new(
        assembly: Assembly,
        target: &Target,
        origin: impl Fn(u32) -> Result<Arc<Origin>, Error>,
    ) -> Result<Self, Error> {
        let path =
            RelativePath::new(&assembly.path).map_err(|why| Error::new(Kind::Invalid, why.to_string()))?;
        target.file(&path)?;
        assembly.digest.check_length()?;
        check::pieces(&assembly)?;
        let pieces = assembly.pieces.into_iter().map(|piece| {
            let origin = origin(piece.origin)?;
            let super::Piece { object, range, size, extents, .. } = piece;
            Ok(Piece { origin, object, range, size, extents })
        });
        Ok(Self {
            ticket: Ticket::none(),
            path,
            size: assembly.size,
            digest: assembly.digest,
            mode: assembly.mode.unwrap_or(target.modes.0) & target.modes.0,
            mtime: assembly.mtime,
            keep_same: assembly.keep_same,
            blocks: assembly.blocks,
            pieces: pieces.collect::<Result<_, Error>>()?,
        })
    }

    /// Returns how many bytes of memory the item, its slot in the queue and its outcome need together.
    pub(super) fn bytes(&self) -> u64 {
        let of_piece = |piece: &Piece| {
            let extents = piece.extents.capacity() * size_of::<Extent>();
            (size_of::<Piece>() + piece.object.capacity() + extents) as u64 + 2 * ALLOCATION_OVERHEAD
        };
        let pieces: u64 = self.pieces.iter().map(of_piece).sum();
        let blocks = self.blocks.as_ref().map_or(0, |blocks| blocks.values.capacity() as u64);
        let strings = (self.path.as_os_str().len() + self.digest.value.capacity()) as u64;
        2 * (size_of::<Self>() + size_of::<Unit>()) as u64
            + pieces
            + blocks
            + strings
            + 4 * ALLOCATION_OVERHEAD
            + OUTCOME
    }

    /// Returns the size of the file in bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Returns the item with this ticket.
    pub(super) fn ticketed(self, ticket: Ticket) -> Self {
        Self { ticket, ..self }
    }

    fn finish(self, job: &State, began: Instant, moved: Moved, ended: Result<Action, Error>) {
        let ended = ended.map_err(|error| error.of(format!("`{}`", shown(&self.path))));
        if let Some(observer) = job.observer() {
            let first = self.pieces.first();
            observer.ended(&EndedItem {
                of: ItemKind::Assembly(self.pieces.len()),
                store: first.map_or("", |piece| piece.origin.store.name()),
                object: first.map_or("", |piece| &piece.object),
                path: &shown(&self.path),
                bytes_read: moved.read,
                bytes_written: moved.written,
                duration: began.elapsed(),
                ended: &ended,
            });
        }
        self.ticket.finish(ended);
    }
}

/// Puts a file together.
pub(crate) fn run(worker: &mut Worker, job: &Arc<State>, item: Item) {
    let (began, mut moved) = (Instant::now(), Moved::default());
    let ended = guarded(|| assemble(worker, job, &item, &mut moved));
    item.finish(job, began, moved, ended);
}

fn assemble(worker: &mut Worker, job: &Arc<State>, item: &Item, moved: &mut Moved) -> Result<Action, Error> {
    job.fail_if_cancelled()?;
    let place = job.target().file(&item.path)?;
    if item.keep_same {
        match blocks::compare(worker, job, item, &place)? {
            Existing::Same => return Ok(Action::Kept),
            Existing::Differs(same) => {
                if update(worker, job, item, &place, &same, moved)? {
                    return Ok(Action::Written);
                }
            }
            Existing::Missing => {}
        }
    }
    let directories = &mut worker.directories;
    let file = Scattered::replace(&job.destination, directories, &place, item.size, item.mode)?;
    let mut writing = Writing::new(job, item, file, moved);
    writing.all(worker, item.pieces.iter().collect())?;
    writing.finish(worker)?;
    Ok(Action::Written)
}

/// Writes each piece that is not entirely within blocks that the existing file already has. Returns false if the file must be replaced:
/// this user may not write to it, or it has another digest afterwards, for example because blocks with the same digests differed.
fn update(
    worker: &mut Worker,
    job: &Arc<State>,
    item: &Item,
    place: &Place,
    same: &SameBlocks,
    moved: &mut Moved,
) -> Result<bool, Error> {
    let Some(file) = Scattered::open_if_permitted(&job.destination, &mut worker.directories, place)? else {
        return Ok(false);
    };
    file.set_size(item.size)?;
    let differs = |piece: &&Piece| piece.extents.iter().any(|extent| !same.cover(extent));
    let mut writing = Writing::new(job, item, file, moved);
    writing.all(worker, item.pieces.iter().filter(differs).collect())?;
    match writing.finish(worker) {
        Ok(()) => Ok(true),
        Err(error) if error.kind == Kind::Corrupt => Ok(false),
        Err(error) => Err(error),
    }
}

/// Splits pieces into runs that one request reads. In the order of the file, the bytes are hashed while they are written. But in that order, a
/// file of an incremental backup may alternate between objects, so that it would need a request for each piece. Therefore the pieces are sorted
/// by object and offset if that gives less than half as many runs.
fn runs(pieces: Vec<&Piece>) -> Vec<Vec<&Piece>> {
    let mut sorted = pieces.clone();
    sorted.sort_by(|one, other| one.place().cmp(&other.place()));
    let (in_order, sorted) = (coalesce::adjacent(pieces), coalesce::adjacent(sorted));
    if 2 * sorted.len() < in_order.len() { sorted } else { in_order }
}

/// A file that is being put together.
struct Writing<'a> {
    job: &'a Arc<State>,
    item: &'a Item,
    file: Scattered<'a>,
    /// The digest of the first `hashed` bytes of the file.
    hasher: Hasher,
    hashed: u64,
    moved: &'a mut Moved,
}

impl<'a> Writing<'a> {
    fn new(job: &'a Arc<State>, item: &'a Item, file: Scattered<'a>, moved: &'a mut Moved) -> Self {
        Self { job, item, file, hasher: Hasher::new(item.digest.algorithm), hashed: 0, moved }
    }

    /// Writes these pieces.
    fn all(&mut self, worker: &mut Worker, pieces: Vec<&Piece>) -> Result<(), Error> {
        runs(pieces).iter().try_for_each(|run| self.run(worker, run))
    }

    /// Reads pieces with one request.
    fn run(&mut self, worker: &mut Worker, pieces: &[&Piece]) -> Result<(), Error> {
        let (Some(first), Some(last)) = (pieces.first(), pieces.last()) else { return Ok(()) };
        let range = coalesce::span(first, last);
        let job = self.job;
        let stored = Stored::open(job, job.cancel_token(), &first.origin, &first.object, range)?;
        let whole = stored.size();
        let stored = Arc::new(Mutex::new(stored));
        let start = range.map_or(0, |range| range.offset);
        for piece in pieces {
            let (position, length) =
                piece.range.map_or((0, whole), |range| (range.offset - start, range.length));
            stored.lock().unwrap_or_else(std::sync::PoisonError::into_inner).skip_to(position)?;
            let part = Part::new(Arc::clone(&stored), length);
            self.piece(worker, piece, part).map_err(|error| named(error, &piece.object, &piece.origin))?;
            self.moved.read += length;
        }
        Ok(())
    }

    /// Writes one piece.
    fn piece(&mut self, worker: &mut Worker, piece: &Piece, part: Part) -> Result<(), Error> {
        let job = self.job;
        let plain =
            piece.origin.via.decode_to_keep(Box::new(part), &job.memory_allowance(job.cancel_token()))?;
        let mut plain = job.withheld.refusing(plain);
        let (mut position, mut extents) = (0_u64, piece.extents.iter().copied().peekable());
        loop {
            job.fail_if_cancelled()?;
            // Reads at most one byte more than expected, so that a decompression bomb fails here.
            let most = usize::try_from((piece.size - position).saturating_add(1)).unwrap_or(usize::MAX);
            let most = most.min(worker.buffer.len());
            let count = match plain.read(&mut worker.buffer[..most]) {
                Ok(0) if position == piece.size => return Ok(()),
                Ok(0) => return Err(file::too_short(position, piece.size)),
                Ok(count) if count as u64 > piece.size - position => return Err(file::too_long(piece.size)),
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            let end = position + count as u64;
            while let Some(extent) = extents.peek().copied().filter(|extent| extent.offset < end) {
                let from = extent.offset.max(position);
                let to = end.min(extent.offset + extent.length);
                let bytes = &worker.buffer[(from - position) as usize..(to - position) as usize];
                self.write(extent.at + (from - extent.offset), bytes)?;
                if to < extent.offset + extent.length {
                    break;
                }
                extents.next();
            }
            position = end;
        }
    }

    fn write(&mut self, at: u64, bytes: &[u8]) -> Result<(), Error> {
        self.file.write(at, bytes)?;
        self.moved.written += bytes.len() as u64;
        if at == self.hashed {
            self.hasher.update(bytes);
            self.hashed += bytes.len() as u64;
            if self.hashed / file::WRITEBACK > at / file::WRITEBACK {
                self.file.start_writeback(at.saturating_sub(file::WRITEBACK), self.hashed);
            }
        }
        Ok(())
    }

    /// Reads what is not hashed yet, and compares the digest.
    fn finish(mut self, worker: &mut Worker) -> Result<(), Error> {
        while self.hashed < self.item.size {
            self.job.fail_if_cancelled()?;
            let most = usize::try_from(self.item.size - self.hashed).unwrap_or(BUFFER).min(BUFFER);
            let count = self.file.file().read_at(&mut worker.buffer[..most], self.hashed)?;
            if count == 0 {
                return Err(file::too_short(self.hashed, self.item.size));
            }
            self.hasher.update(&worker.buffer[..count]);
            self.job.read_without_writing(count as u64);
            self.hashed += count as u64;
        }
        file::compare(self.hasher, &self.item.digest)?;
        file::set_mode(self.file.file(), self.item.mode)?;
        self.file.finish(self.item.mtime)
    }
}
