//! Batches of work for the pool: fetches and unpacks, a result for each.
//!
//! Nothing in here starts a thread, opens a file or waits in the kernel: a restricted thread may call all of it.

mod brought;
mod copy;
mod fetch;
mod neighbours;
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

use crate::derive::Withheld;
use crate::digest::Digest;
use crate::error::{Error, Kind};
use crate::listing::Listing;
use crate::pipeline::Pipeline;
use crate::store::{Range, Store};
use crate::target::Target;

pub use outcomes::{MOST_MESSAGES, MOST_OUTCOMES};
use state::{Origin, State};
use unit::{Item, Task, Ticket, Unit};
use workers::Workers;
pub use workers::{Bounds, WORKER};

/// How many items of a job wait or are at work at once; `fetch` waits while there are as many.
pub const QUEUE: usize = 32_768;

/// How many items are queued in one go.
const PIECE: usize = 4096;

/// The most origins of a job.
pub const MOST_ORIGINS: usize = 65_536;

/// The most paths that an unpack skips, and the most that it refuses.
pub const MOST_PATHS: usize = 65_536;

/// One file to fetch. See `fetch` in `wit/method.wit`.
#[derive(Clone, Debug)]
pub struct Fetch {
    /// An index that [`Job::add_origin`] gave.
    pub origin: u32,
    /// The object's key.
    pub object: String,
    /// A part of its stored bytes; none for all.
    pub range: Option<Range>,
    /// Relative to the data directory, `/`-separated; checked when it is added.
    pub path: String,
    /// From this byte of the file on, which may exist and is not cut off; none for a new file. What is written at an offset
    /// stays where the item fails; a new file is removed.
    pub at: Option<u64>,
    /// The plain size in bytes. Anything else is an error.
    pub size: u64,
    /// What its plain bytes must come to.
    pub digest: Option<Digest>,
    /// Its permission bits; none for the most that the target allows.
    pub mode: Option<u32>,
    /// Its time in seconds since 1970.
    pub mtime: Option<u64>,
    /// When it is left alone.
    pub unless: Unless,
}

/// An archive to unpack. See `unpack` in `wit/method.wit`.
#[derive(Clone, Debug)]
pub struct Unpack {
    /// An index that [`Job::add_origin`] gave.
    pub origin: u32,
    /// The object's key.
    pub object: String,
    /// Below which directory, relative to the data directory; empty or `.` for the data directory itself.
    pub path: String,
    /// How many bytes it may write at most.
    pub limit: u64,
    /// Files, by their path below the data directory, that are read and checked but not written.
    pub skip: Vec<String>,
    /// Paths below the data directory that the archive must not bring; one that ends with `/` stands for everything below it.
    pub refuse: Vec<String>,
}

/// When a file that exists is left alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unless {
    /// Never: it is written in any case.
    #[default]
    Always,
    /// Where it has this size and digest.
    SameDigest,
    /// Where it has this size and time, in whole seconds.
    SameSizeAndTime,
    /// Where it has this size and these bytes: both sides are read and compared.
    SameContent,
}

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It was written.
    Written,
    /// It was there already.
    Kept,
}

/// How one item ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Counts the fetches and unpacks of the job in the order in which they were added, from 0.
    pub index: u32,
    /// What became of it.
    pub ended: Result<Action, Error>,
}

/// How far a job is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Items that wait or are at work.
    pub queued: u32,
    /// Items that ended well.
    pub done: u32,
    /// Items that failed.
    pub failed: u32,
    /// Plain bytes that were written so far.
    pub bytes: u64,
    /// Files that were written so far.
    pub files: u64,
    /// Whether nothing waits or is at work.
    pub idle: bool,
}

/// Work for the pool's workers. Dropping it is [`Job::cancel`], waited for by blocking.
pub struct Job {
    /// Keeps the threads.
    workers: Arc<Workers>,
    state: Arc<State>,
}

impl Job {
    /// See [`DataPlane::job`](crate::plane::DataPlane::job).
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

    /// A place that items come from; its index counts from 0.
    ///
    /// # Errors
    /// `Limit` for more than [`MOST_ORIGINS`], or where there is no memory for it.
    pub fn add_origin(&self, store: Store, via: Pipeline) -> Result<u32, Error> {
        self.state.add_origin(Origin::new(store, via, &self.state.memory)?)
    }

    /// Adds files to fetch, all or none of them. Waits while the queue is full, and while there is no memory for them but items
    /// of the job end, which give theirs back.
    ///
    /// # Errors
    /// `Invalid`, before any of them is added, for a path that leads elsewhere, an origin that there is none of, a digest of the wrong
    /// length, or a condition of `unless` that lacks what it compares; `Limit` where too many outcomes were not taken, or where
    /// there is no memory for them; `Cancelled` once the job is.
    pub async fn fetch(&self, items: Vec<Fetch>) -> Result<(), Error> {
        let mut items = items.into_iter().map(|item| self.item(item)).collect::<Result<Vec<_>, _>>()?;
        let bytes: Vec<u64> = items.iter().map(Item::bytes).collect();
        let mut charge = self.state.afford(bytes.iter().sum(), "what is to be fetched").await?;
        let first = self.state.number(items.len())?;
        for ((item, index), bytes) in items.iter_mut().zip(first..).zip(bytes) {
            item.number(index, charge.split(bytes));
        }
        let mut items = items.into_iter().peekable();
        while items.peek().is_some() {
            let piece: Vec<_> = items.by_ref().take(PIECE).collect();
            self.state.make_room(piece.len()).await?;
            let piece = piece.into_iter().map(|item| item.ticketed(&self.state)).collect();
            let units = neighbours::join(piece);
            self.workers.pool.add(&self.state, units);
            self.withdraw_if_cancelled();
        }
        Ok(())
    }

    /// Adds one archive, whose files are compared with a listing while they are written.
    ///
    /// # Errors
    /// As [`Job::fetch`].
    pub async fn unpack(&self, item: Unpack, files: Option<Arc<Listing>>) -> Result<(), Error> {
        let origin = self.state.origin(item.origin)?;
        let unpacking = unpack::Item::new(item, origin, files, self.state.target())?;
        let charge = self.state.afford(unpacking.bytes(), "an archive to unpack").await?;
        let index = self.state.number(1)?;
        self.state.make_room(1).await?;
        let unpacking = unpacking.ticketed(Ticket::new(Arc::clone(&self.state), index, Some(charge)));
        // How large it is nobody knows; what is one file of thousands is likely to be smaller.
        let unit = Unit::new(u64::MAX, index, Task::Unpack(Box::new(unpacking)));
        self.workers.pool.add(&self.state, vec![unit]);
        self.withdraw_if_cancelled();
        Ok(())
    }

    /// How far it is.
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

    /// Takes up to `max` outcomes away, in the order in which they came.
    pub fn outcomes(&self, max: usize) -> Vec<Outcome> {
        self.state.take_outcomes(max)
    }

    /// Ready when there are outcomes or the job is idle or cancelled.
    pub async fn ready(&self) {
        self.state.until(|status, outcomes| status.idle || outcomes > 0).await;
    }

    /// Bytes and files that were written since the last call, for the progress bar.
    pub fn progress(&self) -> (u64, u64) {
        self.state.progress()
    }

    /// Whether anything went on since the last call that [`Job::progress`] does not count: what is there was read to be compared, an
    /// item ended. A restore of what has not changed writes nothing for hours.
    pub fn has_read(&self) -> bool {
        self.state.has_read()
    }

    /// Ends the work; returns when no worker of this job writes any more, which takes about as long as one write. What was not done
    /// counts as failed, with the kind `Cancelled`.
    pub async fn cancel(&self) {
        drop(self.halt().await);
    }

    /// The same without giving back the memory of what was not done, which after a long queue takes seconds, nor counting it: both
    /// happen where the answer is dropped.
    pub async fn halt(&self) -> Withdrawn {
        self.state.cancel();
        let withdrawn = Withdrawn(self.workers.pool.remove(&self.state));
        self.state.until_quiet().await;
        withdrawn
    }

    /// Stops everything without waiting for it.
    fn withdraw(&self) {
        self.state.cancel();
        drop(self.workers.pool.remove(&self.state));
    }

    /// Takes back what was queued while somebody cancelled.
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

/// What a job was told to do and did not do.
#[must_use = "dropping it takes time"]
pub struct Withdrawn(#[expect(dead_code, reason = "it is there to be dropped")] Vec<Unit>);

impl Drop for Job {
    fn drop(&mut self) {
        self.withdraw();
        self.state.block_until_quiet();
    }
}

#[cfg(test)]
mod tests;
