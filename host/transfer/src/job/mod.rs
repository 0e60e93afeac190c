//! Jobs: batches of items (fetches, unpacks and assemblies) for the workers, with an outcome for each item.
//!
//! No function here starts a thread, opens a file or blocks in the kernel, so a restricted thread may call all of them.

mod archive_directories;
mod assemble;
mod coalesce;
mod copy;
mod fetch;
mod linked;
mod observer;
mod outcomes;
mod pool;
mod state;
mod stored;
mod unit;
mod unpack;
mod worker;
pub(crate) mod workers;

use std::sync::Arc;
use std::time::Duration;

use crate::chain::{Chain, ChainUse};
use crate::derive::Withheld;
use crate::digest::Digest;
use crate::error::{Error, Kind};
use crate::listing::Listing;
use crate::pages::PageChecks;
use crate::pipeline::Pipeline;
use crate::store::{Range, Store};
use crate::target::Target;

pub use assemble::{MOST_EXTENTS, MOST_PIECES};
pub use observer::{EndedItem, ItemKind, Observer};
pub use outcomes::{MOST_MESSAGES, MOST_OUTCOMES};
use state::{Origin, State};
use unit::{Item, Task, Ticket, Unit};
use workers::Workers;
pub use workers::{Bounds, WORKER};

/// The most items of a job that may be queued or in progress; `fetch` waits while the job has this many.
pub const QUEUE: usize = 32_768;

/// How many items are queued at once.
const ITEMS_AT_ONCE: usize = 4096;

/// The most origins that a job may have.
pub const MOST_ORIGINS: usize = 65_536;

/// The most paths that an unpack may skip, and the most that it may refuse.
pub const MOST_PATHS: usize = 65_536;

/// A file to fetch. See `fetch` in `wit/method.wit`.
#[derive(Clone, Debug)]
pub struct Fetch {
    /// An index that [`Job::add_origin`] gave.
    pub origin: u32,
    /// The object's key.
    pub object: String,
    /// The range of stored bytes; `None` for the whole object.
    pub range: Option<Range>,
    /// The path of the file, relative to the data directory, `/`-separated; checked when the file is added.
    pub path: String,
    /// The offset in the file; `None` for a new file. With an offset, the file may exist already and is not truncated, and written bytes
    /// stay if the item fails. A new file is removed if the item fails.
    pub at: Option<u64>,
    /// The exact plain size in bytes.
    pub size: u64,
    /// The expected digest of its plain bytes.
    pub digest: Option<Digest>,
    /// The permission bits; `None` for all that the target allows.
    pub mode: Option<u32>,
    /// The modification time in seconds since 1970.
    pub mtime: Option<u64>,
    /// Whether an existing file is overwritten (`unless` in the contract).
    pub overwrite: Overwrite,
}

/// An archive to unpack. See `unpack` in `wit/method.wit`.
#[derive(Clone, Debug)]
pub struct Unpack {
    /// An index that [`Job::add_origin`] gave.
    pub origin: u32,
    /// The object's key.
    pub object: String,
    /// The directory for its members, relative to the data directory; empty or `.` for the data directory itself.
    pub path: String,
    /// The most bytes that the archive may write.
    pub limit: u64,
    /// Files that are read and checked but not written, by their path in the data directory.
    pub skip: Vec<String>,
    /// Paths in the data directory that the archive must not contain; a path that ends with `/` means everything below it.
    pub refuse: Vec<String>,
}

/// A file to put together from parts of several objects. See `assembly` in `wit/method.wit`.
#[derive(Clone, Debug)]
pub struct Assembly {
    /// The path of the file, as in [`Fetch`].
    pub path: String,
    /// Its size in bytes. The extents of all pieces together give every byte once.
    pub size: u64,
    /// The expected digest of the whole file.
    pub digest: Digest,
    /// The permission bits; `None` for all that the target allows.
    pub mode: Option<u32>,
    /// The modification time in seconds since 1970.
    pub mtime: Option<u64>,
    /// Whether an existing file with this size and digest is kept. If the existing file differs and `blocks` is given, its blocks that are
    /// the same are kept.
    pub keep_same: bool,
    /// The digests of the blocks.
    pub blocks: Option<BlockDigests>,
    /// At most [`MOST_PIECES`], with at most [`MOST_EXTENTS`] extents in total.
    pub pieces: Vec<Piece>,
}

/// A part of an object whose plain bytes belong in one or several places of a file.
#[derive(Clone, Debug)]
pub struct Piece {
    /// An index that [`Job::add_origin`] gave.
    pub origin: u32,
    /// The object's key.
    pub object: String,
    /// The range of stored bytes; `None` for the whole object.
    pub range: Option<Range>,
    /// The exact plain size in bytes.
    pub size: u64,
    /// Where the plain bytes belong, by ascending `offset` and without overlaps.
    pub extents: Vec<Extent>,
}

/// Bytes of a piece, and where they belong in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The offset of the first byte in the plain bytes of the piece.
    pub offset: u64,
    /// The offset of the first byte in the file.
    pub at: u64,
    /// The number of bytes, at least 1.
    pub length: u64,
}

/// The digests of the blocks of a file: the first bytes of XXH3 with 128 bits, most significant byte first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockDigests {
    /// The size of every block but the last in bytes.
    pub size: u32,
    /// How many bytes of the digest are given for each block, from 1 to 16.
    pub length: u32,
    /// The digests of all blocks, in order.
    pub values: Vec<u8>,
}

/// Says when an existing file is overwritten. Has the same meaning as `unless` in `wit/method.wit`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overwrite {
    /// Always.
    #[default]
    Always,
    /// Unless the existing file has this size and digest.
    UnlessSameDigest,
    /// Unless the existing file has this size and modification time, in whole seconds.
    UnlessSameSizeAndTime,
    /// Unless the existing file has this size and the same bytes; both the file and the object are read and compared.
    UnlessSameContent,
}

/// What was done with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// The file was written.
    Written,
    /// The file existed already and was kept, as [`Fetch::overwrite`] says.
    Kept,
}

/// The result of one item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The number of the item, counted from 0 in the order in which they were added to the job.
    pub index: u32,
    /// What was done with the file, or why the item failed.
    pub ended: Result<Action, Error>,
}

/// The progress of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Items that are queued or in progress.
    pub queued: u32,
    /// Items that succeeded.
    pub done: u32,
    /// Items that failed.
    pub failed: u32,
    /// Plain bytes that were written so far.
    pub bytes: u64,
    /// Files that were written so far.
    pub files: u64,
    /// Whether no item is queued or in progress.
    pub idle: bool,
}

/// A batch of items for the workers. Dropping it cancels it and blocks until no worker writes for it any more.
pub struct Job {
    /// Keeps the threads running.
    workers: Arc<Workers>,
    state: Arc<State>,
}

impl Job {
    /// Makes a job; see [`DataPlane::job`](crate::plane::DataPlane::job).
    pub(crate) fn new(
        workers: Arc<Workers>,
        target: Arc<Target>,
        report_all: bool,
        withheld: Withheld,
    ) -> Self {
        let (memory, runtime) = (workers.memory.clone(), workers.runtime().clone());
        let state = State::new(memory, runtime, workers.rate.clone(), target, report_all, withheld);
        Self { workers, state: Arc::new(state) }
    }

    /// Tells `observer` how each item ends. Only the first observer of a job is used.
    pub fn observe(&self, observer: Arc<dyn Observer>) {
        self.state.set_observer(observer);
    }

    /// Adds an origin of items and returns its index, counted from 0.
    ///
    /// # Errors
    /// `Limit` if there are more than [`MOST_ORIGINS`], or too little memory is left.
    pub fn add_origin(&self, store: Store, via: Pipeline) -> Result<u32, Error> {
        self.state.add_origin(Origin::new(store, via, &self.state.memory)?)
    }

    /// Has the checksums of the pages in the files of relations checked while the files are written, except those of files that are
    /// compared with a digest. A page that an item does not have as a whole is not checked.
    ///
    /// # Errors
    /// `Invalid` for sizes that PostgreSQL does not have, or if items were added already.
    pub fn check_pages(&self, checks: PageChecks) -> Result<(), Error> {
        checks.check()?;
        self.state.check_pages(checks)
    }

    /// Adds files to fetch, all or none of them. Waits while the queue is full. Also waits while memory is short and items of the job are
    /// still in progress, because these items give memory back when they end.
    ///
    /// # Errors
    /// `Invalid`, before any item is added, for a path outside of the data directory, an unknown origin, a digest of the wrong
    /// length, or a condition for overwriting without the value that it compares; `Limit` if too many outcomes wait to be taken, or
    /// too little memory is left; `Cancelled` if the job is cancelled.
    pub async fn fetch(&self, items: Vec<Fetch>) -> Result<(), Error> {
        let items = items.into_iter().map(|item| self.item(item)).collect::<Result<Vec<_>, _>>()?;
        self.add(items).await
    }

    /// Adds files of the current backup of a chain, all or none of them. Files of older backups that are not needed are not read.
    ///
    /// # Errors
    /// The errors of [`Job::fetch`]; also `Invalid` for an item with an offset, or one that may keep an existing file.
    pub async fn fetch_link(&self, items: Vec<Fetch>, chain: Arc<Chain>) -> Result<(), Error> {
        let chain = ChainUse::of(&chain);
        let linked = |item: Fetch| {
            if item.at.is_some() || item.overwrite != Overwrite::Always {
                let path = item.path.escape_debug();
                let why = format!("`{path}`: a file of a chain is always written as a new file");
                return Err(Error::new(Kind::Invalid, why));
            }
            Ok(self.item(item)?.in_chain(chain.clone()))
        };
        let items = items.into_iter().map(linked).collect::<Result<Vec<_>, _>>()?;
        self.add(items).await
    }

    async fn add(&self, mut items: Vec<Item>) -> Result<(), Error> {
        let bytes: Vec<u64> = items.iter().map(Item::bytes).collect();
        let mut charge = self.state.charge_memory(bytes.iter().sum(), "the items to fetch").await?;
        let first = self.state.number(items.len())?;
        for ((item, index), bytes) in items.iter_mut().zip(first..).zip(bytes) {
            item.number(index, charge.split(bytes));
        }
        let mut items = items.into_iter().peekable();
        while items.peek().is_some() {
            let piece: Vec<_> = items.by_ref().take(ITEMS_AT_ONCE).collect();
            self.state.acquire_slots(piece.len()).await?;
            let piece = piece.into_iter().map(|item| item.ticketed(&self.state)).collect();
            let units = coalesce::into_units(piece);
            self.workers.pool.add(&self.state, units);
            self.withdraw_if_cancelled();
        }
        Ok(())
    }

    /// Adds an archive to unpack. Its files are compared with the listing while they are written.
    ///
    /// # Errors
    /// The errors of [`Job::fetch`].
    pub async fn unpack(&self, item: Unpack, files: Option<Arc<Listing>>) -> Result<(), Error> {
        self.unpack_in(item, files, None).await
    }

    /// Adds an archive of the current backup of a chain.
    ///
    /// # Errors
    /// The errors of [`Job::fetch`].
    pub async fn unpack_link(
        &self,
        item: Unpack,
        files: Option<Arc<Listing>>,
        chain: Arc<Chain>,
    ) -> Result<(), Error> {
        self.unpack_in(item, files, Some(ChainUse::of(&chain))).await
    }

    async fn unpack_in(
        &self,
        item: Unpack,
        files: Option<Arc<Listing>>,
        chain: Option<ChainUse>,
    ) -> Result<(), Error> {
        let origin = self.state.origin(item.origin)?;
        let unpacking = unpack::Item::new(item, origin, files, chain, self.state.target())?;
        let charge = self.state.charge_memory(unpacking.bytes(), "an archive to unpack").await?;
        let index = self.state.number(1)?;
        self.state.acquire_slots(1).await?;
        let unpacking = unpacking.ticketed(Ticket::new(Arc::clone(&self.state), index, Some(charge)));
        // The plain size of an archive is unknown, but larger than most fetches, so archives are started first.
        let unit = Unit::new(u64::MAX, index, Task::Unpack(Box::new(unpacking)));
        self.workers.pool.add(&self.state, vec![unit]);
        self.withdraw_if_cancelled();
        Ok(())
    }

    /// Adds a file to put together from parts of several objects.
    ///
    /// # Errors
    /// The errors of [`Job::fetch`]; also `Invalid` if the pieces do not give every byte of the file once, and `Limit` if there are too
    /// many.
    pub async fn assemble(&self, item: Assembly) -> Result<(), Error> {
        let shown = item.path.escape_debug().to_string();
        // The checks sort a copy of the extents.
        let extents: usize = item.pieces.iter().map(|piece| piece.extents.len()).sum();
        let copied = 2 * (extents * size_of::<Extent>()) as u64;
        let copied = self.state.charge_memory(copied, "the extents of a file to put together").await?;
        let item = assemble::Item::new(item, self.state.target(), |index| self.state.origin(index));
        let item = item.map_err(|error| match error.message.contains(&shown) {
            true => error,
            false => Error::new(error.kind, format!("`{shown}`: {}", error.message)),
        })?;
        drop(copied);
        let charge = self.state.charge_memory(item.bytes(), "a file to put together").await?;
        let index = self.state.number(1)?;
        self.state.acquire_slots(1).await?;
        let size = item.size();
        let item = item.ticketed(Ticket::new(Arc::clone(&self.state), index, Some(charge)));
        let unit = Unit::new(size, index, Task::Assemble(Box::new(item)));
        self.workers.pool.add(&self.state, vec![unit]);
        self.withdraw_if_cancelled();
        Ok(())
    }

    /// Returns the progress of the job.
    pub fn status(&self) -> Status {
        self.state.status()
    }

    /// Returns when the job is idle or cancelled, or after `at_most`.
    pub async fn wait(&self, at_most: Duration) -> Status {
        let sleep = {
            // The caller's own runtime may have no timer.
            let _runtime = self.workers.runtime().enter();
            tokio::time::sleep(at_most)
        };
        tokio::select! {
            () = self.state.until(|status, _| status.idle) => {}
            () = sleep => {}
        }
        self.status()
    }

    /// Takes up to `max` outcomes, oldest first.
    pub fn outcomes(&self, max: usize) -> Vec<Outcome> {
        self.state.take_outcomes(max)
    }

    /// Returns when there are outcomes, or the job is idle or cancelled.
    pub async fn ready(&self) {
        self.state.until(|status, outcomes| status.idle || outcomes > 0).await;
    }

    /// Returns the bytes and files that were written since the last call.
    pub fn progress(&self) -> (u64, u64) {
        self.state.progress()
    }

    /// Returns whether the job, since the last call of this function, has read existing files to compare them or ended an item.
    /// [`Job::progress`] does not count such progress. A restore over unchanged files may write nothing for hours.
    pub fn has_read(&self) -> bool {
        self.state.has_read()
    }

    /// Cancels the job. Returns when no worker writes for it any more, after about the time of one write. Items that had not ended
    /// count as failed, with the kind `Cancelled`.
    pub async fn cancel(&self) {
        drop(self.halt().await);
    }

    /// Cancels the job. The queued items are dropped and counted only when the caller drops the returned value, because that takes seconds
    /// for a long queue.
    pub async fn halt(&self) -> Withdrawn {
        self.state.cancel();
        let withdrawn = Withdrawn(self.remove_queued());
        self.state.until_workers_idle().await;
        withdrawn
    }

    /// Cancels the job without waiting for its workers.
    fn withdraw(&self) {
        self.state.cancel();
        drop(self.remove_queued());
    }

    fn remove_queued(&self) -> Vec<Unit> {
        let units = self.workers.pool.remove(&self.state);
        let items = units.iter().map(Unit::items).sum();
        if let Some(observer) = self.state.observer()
            && items > 0
        {
            observer.withdrawn(items);
        }
        units
    }

    /// Removes the items that were queued while the job was being cancelled.
    fn withdraw_if_cancelled(&self) {
        if self.state.is_cancelled() {
            self.withdraw();
        }
    }

    /// Checks one file to fetch.
    fn item(&self, fetch: Fetch) -> Result<Item, Error> {
        let origin = self.state.origin(fetch.origin)?;
        let shown = fetch.path.escape_debug().to_string();
        Item::new(fetch, origin, self.state.target()).map_err(|error| {
            Error::new(
                error.kind,
                match error.kind {
                    Kind::Invalid if !error.message.contains(&shown) => {
                        format!("`{shown}`: {}", error.message)
                    }
                    _ => error.message,
                },
            )
        })
    }
}

/// The queued items of a cancelled job.
#[must_use = "dropping it may take seconds"]
pub struct Withdrawn(#[expect(dead_code, reason = "the units are kept only to be dropped")] Vec<Unit>);

impl Drop for Job {
    fn drop(&mut self) {
        self.withdraw();
        self.state.block_until_workers_idle();
    }
}

#[cfg(test)]
mod tests;
