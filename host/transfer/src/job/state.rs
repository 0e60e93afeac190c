//! What a job, its items and the workers share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use super::outcomes::Outcomes;
use super::{Action, MOST_ORIGINS, Outcome, QUEUE, Status};
use crate::budget::{Budget, Charge, PIECE, Room};
use crate::derive::Withheld;
use crate::error::{Error, Kind};
use crate::pipeline::Pipeline;
use crate::rate::Rate;
use crate::sink::destination::Destination;
use crate::store::Store;
use crate::target::Target;

/// A place that items come from.
pub(crate) struct Origin {
    pub(crate) store: Store,
    pub(crate) via: Pipeline,
    /// Whether a reflink from it was refused; it is not tried again.
    pub(crate) no_reflink: AtomicBool,
    _charge: Charge,
}

impl Origin {
    /// # Errors
    /// `Limit` where there is no memory for it.
    pub(super) fn new(store: Store, via: Pipeline, memory: &Budget) -> Result<Self, Error> {
        let bytes = 2 * size_of::<Self>() as u64 + via.heap() + PIECE;
        let charge = memory.charge(bytes, "another origin of the job")?;
        Ok(Self { store, via, no_reflink: AtomicBool::new(false), _charge: charge })
    }
}

/// What a job, its items and the workers share.
pub(crate) struct State {
    /// What everything that the job holds in memory is charged to.
    pub(crate) memory: Budget,
    /// What the files that it writes have in common.
    pub(crate) destination: Destination,
    pub(crate) runtime: Handle,
    pub(crate) rate: Option<Arc<Rate>>,
    /// What it must not write.
    pub(crate) withheld: Withheld,
    origins: Mutex<Vec<Arc<Origin>>>,
    /// Room in the queue; closed when the job is cancelled.
    room: Semaphore,
    account: Mutex<Account>,
    /// Told when something of the account changes that somebody may wait for.
    changed: Notify,
    /// The same for threads that block.
    quiet: Condvar,
    told_bytes: AtomicU64,
    told_files: AtomicU64,
    /// Bytes that were read without being written, and items that ended.
    read: AtomicU64,
    told_read: AtomicU64,
}

struct Account {
    next: u32,
    queued: usize,
    done: u32,
    failed: u32,
    /// Units that a worker is at.
    at_work: usize,
    outcomes: Outcomes,
}

impl State {
    pub(super) fn new(
        memory: Budget,
        runtime: Handle,
        rate: Option<Arc<Rate>>,
        target: Arc<Target>,
        report_all: bool,
        withheld: Withheld,
    ) -> Self {
        let outcomes = Outcomes::new(report_all);
        Self {
            memory,
            destination: Destination::new(target),
            runtime,
            rate,
            withheld,
            origins: Mutex::default(),
            room: Semaphore::new(QUEUE),
            account: Mutex::new(Account { next: 0, queued: 0, done: 0, failed: 0, at_work: 0, outcomes }),
            changed: Notify::new(),
            quiet: Condvar::new(),
            told_bytes: AtomicU64::new(0),
            told_files: AtomicU64::new(0),
            read: AtomicU64::new(0),
            told_read: AtomicU64::new(0),
        }
    }

    pub(super) fn add_origin(&self, origin: Origin) -> Result<u32, Error> {
        let mut origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
        if origins.len() >= MOST_ORIGINS {
            return Err(Error::new(Kind::Limit, format!("a job has at most {MOST_ORIGINS} origins")));
        }
        origins.push(Arc::new(origin));
        Ok((origins.len() - 1) as u32)
    }

    pub(super) fn origin(&self, index: u32) -> Result<Arc<Origin>, Error> {
        let origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
        let origin = usize::try_from(index).ok().and_then(|index| origins.get(index)).cloned();
        origin.ok_or_else(|| Error::new(Kind::Invalid, format!("the job has no origin {index}")))
    }

    /// Numbers for `count` new items: the first of them.
    pub(super) fn number(&self, count: usize) -> Result<u32, Error> {
        let mut account = self.account();
        if self.is_cancelled() {
            return Err(Error::cancelled());
        }
        if !account.outcomes.has_room(account.queued, count) {
            return Err(Outcomes::full());
        }
        let first = account.next;
        account.next = u32::try_from(count)
            .ok()
            .and_then(|count| first.checked_add(count))
            .ok_or_else(|| Error::new(Kind::Limit, format!("a job has at most {} items", u32::MAX)))?;
        Ok(first)
    }

    /// Takes memory for items that are added, all of it or none. Waits while there is none and items of the job end, which give
    /// theirs back.
    pub(super) async fn afford(&self, bytes: u64, what: &str) -> Result<Charge, Error> {
        let ends = || self.account().queued > 0;
        tokio::select! {
            biased;
            () = self.destination.cancel.cancelled() => Err(Error::cancelled()),
            charged = self.memory.charge_while(bytes, what, ends) => charged,
        }
    }

    /// Where decoders of this job's workers take their memory from.
    pub(crate) fn room(&self, stop: &CancellationToken) -> Room {
        Room::for_a_worker(&self.memory, &self.runtime, stop)
    }

    /// Waits until `count` more items fit into the queue, and takes their room.
    pub(super) async fn make_room(&self, count: usize) -> Result<(), Error> {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.room.acquire_many(count).await.map_err(|_| Error::cancelled())?.forget();
        Ok(())
    }

    /// An item whose room was taken enters the queue.
    pub(super) fn enter(&self) {
        self.account().queued += 1;
    }

    /// An item has ended.
    pub(super) fn finish(&self, index: u32, ended: Result<Action, Error>, charge: Option<Charge>) {
        let mut account = self.account();
        account.queued -= 1;
        match &ended {
            Ok(_) => account.done += 1,
            Err(_) => account.failed += 1,
        }
        let before = account.outcomes.len();
        account.outcomes.add(index, ended, charge);
        let tell = account.queued == 0 || (before == 0 && account.outcomes.len() > 0);
        drop(account);
        self.read_without_writing(1);
        self.room.add_permits(1);
        if tell {
            self.changed.notify_waiters();
            // Who waits for memory that items of this job give back waits in vain once there are none.
            self.memory.tell();
        }
    }

    /// A worker takes up a unit.
    pub(crate) fn begin(&self) {
        self.account().at_work += 1;
    }

    /// It is done with the unit.
    pub(crate) fn end(&self) {
        let mut account = self.account();
        account.at_work -= 1;
        let quiet = account.at_work == 0;
        drop(account);
        if quiet {
            self.changed.notify_waiters();
            self.quiet.notify_all();
        }
    }

    pub(super) fn status(&self) -> Status {
        let (bytes, files) = self.destination.written();
        let account = self.account();
        Status {
            queued: u32::try_from(account.queued).unwrap_or(u32::MAX),
            done: account.done,
            failed: account.failed,
            bytes,
            files,
            idle: account.queued == 0,
        }
    }

    pub(super) fn take_outcomes(&self, max: usize) -> Vec<Outcome> {
        self.account().outcomes.take(max)
    }

    pub(super) fn progress(&self) -> (u64, u64) {
        let (bytes, files) = self.destination.written();
        (since(bytes, &self.told_bytes), since(files, &self.told_files))
    }

    pub(super) fn has_read(&self) -> bool {
        since(self.read.load(Ordering::Relaxed), &self.told_read) > 0
    }

    /// Counts what a worker read and did not write: what is there, compared with what is wanted; what is passed over.
    pub(crate) fn read_without_writing(&self, bytes: u64) {
        self.read.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Where it writes.
    pub(crate) fn target(&self) -> &Arc<Target> {
        &self.destination.target
    }

    /// Set when the job is cancelled.
    pub(crate) fn cancel_token(&self) -> &CancellationToken {
        &self.destination.cancel
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.destination.cancel.is_cancelled()
    }

    /// # Errors
    /// `Cancelled` where the job is.
    pub(crate) fn go_on(&self) -> Result<(), Error> {
        self.destination.go_on()
    }

    pub(super) fn cancel(&self) {
        self.destination.cancel.cancel();
        self.room.close();
        self.changed.notify_waiters();
    }

    /// Waits until `reached` answers true of the status and the number of outcomes, or the job is cancelled.
    pub(super) async fn until(&self, reached: impl Fn(&Status, usize) -> bool) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let outcomes = self.account().outcomes.len();
            if self.is_cancelled() || reached(&self.status(), outcomes) {
                return;
            }
            changed.await;
        }
    }

    /// Waits until no worker is at anything of the job.
    pub(super) async fn until_quiet(&self) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if self.account().at_work == 0 {
                return;
            }
            changed.await;
        }
    }

    /// The same, for a thread that may block.
    pub(super) fn block_until_quiet(&self) {
        let mut account = self.account();
        while account.at_work > 0 {
            account = self.quiet.wait(account).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn account(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How much a counter went on since this was asked last.
fn since(now: u64, told: &AtomicU64) -> u64 {
    now.saturating_sub(told.swap(now, Ordering::Relaxed))
}
