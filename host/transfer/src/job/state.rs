//! The state that a job shares with its items and the workers.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use super::outcomes::Outcomes;
use super::{Action, MOST_ORIGINS, Observer, Outcome, QUEUE, Status};
use crate::budget::{ALLOCATION_OVERHEAD, Budget, Charge, MemoryAllowance};
use crate::derive::Withheld;
use crate::digest::Digest;
use crate::error::{Error, Kind};
use crate::pages::{PageChecker, PageChecks};
use crate::pipeline::Pipeline;
use crate::rate::Rate;
use crate::sink::destination::Destination;
use crate::store::Store;
use crate::target::Target;
use foundation::rooted::RelativePath;

/// An origin of items: a store and how its objects are decoded.
pub(crate) struct Origin {
    pub(crate) store: Store,
    pub(crate) via: Pipeline,
    /// Whether a reflink from this store has failed, so that no more are tried.
    pub(crate) no_reflink: AtomicBool,
    _charge: Charge,
}

impl Origin {
    /// # Errors
    /// `Limit` if too little memory is left.
    pub(super) fn new(store: Store, via: Pipeline, memory: &Budget) -> Result<Self, Error> {
        let bytes = 2 * size_of::<Self>() as u64 + via.heap() + ALLOCATION_OVERHEAD;
        let charge = memory.charge(bytes, "another origin of the job")?;
        Ok(Self { store, via, no_reflink: AtomicBool::new(false), _charge: charge })
    }
}

/// The state that a job shares with its items and the workers.
pub(crate) struct State {
    /// The budget to which all memory of the job is charged.
    pub(crate) memory: Budget,
    /// Where the job writes.
    pub(crate) destination: Destination,
    pub(crate) runtime: Handle,
    pub(crate) rate: Option<Arc<Rate>>,
    /// The derived keys, which the job must not write.
    pub(crate) withheld: Withheld,
    /// How the pages of relations are checked; not set if they are not.
    pages: OnceLock<PageChecks>,
    origins: Mutex<Vec<Arc<Origin>>>,
    /// Free slots in the queue; closed when the job is cancelled.
    queue_slots: Semaphore,
    account: Mutex<Account>,
    /// Notified when a change of the account may let a waiting caller continue.
    changed: Notify,
    /// Notified like `changed`, for threads that block.
    idle_workers: Condvar,
    reported_bytes: AtomicU64,
    reported_files: AtomicU64,
    /// Bytes that were read but not written, plus the number of items that ended.
    read: AtomicU64,
    reported_read: AtomicU64,
    observer: OnceLock<Arc<dyn Observer>>,
}

struct Account {
    next: u32,
    queued: usize,
    done: u32,
    failed: u32,
    /// Units that workers are processing.
    in_progress: usize,
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
            pages: OnceLock::new(),
            origins: Mutex::default(),
            queue_slots: Semaphore::new(QUEUE),
            account: Mutex::new(Account { next: 0, queued: 0, done: 0, failed: 0, in_progress: 0, outcomes }),
            changed: Notify::new(),
            idle_workers: Condvar::new(),
            reported_bytes: AtomicU64::new(0),
            reported_files: AtomicU64::new(0),
            read: AtomicU64::new(0),
            reported_read: AtomicU64::new(0),
            observer: OnceLock::new(),
        }
    }

    /// Sets the observer of the job, unless the job already has one.
    pub(super) fn set_observer(&self, observer: Arc<dyn Observer>) {
        let _first_stays = self.observer.set(observer);
    }

    /// Returns the observer of the job.
    pub(super) fn observer(&self) -> Option<&dyn Observer> {
        self.observer.get().map(AsRef::as_ref)
    }

    /// Has the pages of relations checked in every file that the job writes.
    ///
    /// # Errors
    /// `Invalid` if items were added already, or the pages are checked already.
    pub(super) fn check_pages(&self, checks: PageChecks) -> Result<(), Error> {
        if self.account().next > 0 {
            return Err(Error::new(
                Kind::Invalid,
                "whether pages are checked is said before items are added",
            ));
        }
        let why = || Error::new(Kind::Invalid, "the pages of this job are checked already");
        self.pages.set(checks).map_err(|_| why())
    }

    /// Begins to check the pages of the file `path`; `None` if they are not checked, because the job does not, the file does not consist
    /// of pages, or its bytes have a digest.
    pub(super) fn page_checker(&self, path: &RelativePath, digest: Option<&Digest>) -> Option<PageChecker> {
        let checks = *self.pages.get().filter(|_| digest.is_none())?;
        PageChecker::of(checks, path.as_os_str().to_str()?)
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

    /// Assigns numbers to `count` new items and returns the first number.
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

    /// Charges memory for new items. Waits while too little is free and items of the job are queued, which give memory back when
    /// they end.
    pub(super) async fn charge_memory(&self, bytes: u64, what: &str) -> Result<Charge, Error> {
        let ends = || self.account().queued > 0;
        tokio::select! {
            biased;
            () = self.destination.cancel.cancelled() => Err(Error::cancelled()),
            charged = self.memory.charge_when_free(bytes, what, ends) => charged,
        }
    }

    /// Returns the allowance for decoders of this job's workers.
    pub(crate) fn memory_allowance(&self, stop: &CancellationToken) -> MemoryAllowance {
        MemoryAllowance::waiting(&self.memory, &self.runtime, stop)
    }

    /// Waits until `count` more items fit into the queue, and takes their slots.
    pub(super) async fn acquire_slots(&self, count: usize) -> Result<(), Error> {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.queue_slots.acquire_many(count).await.map_err(|_| Error::cancelled())?.forget();
        Ok(())
    }

    /// Counts an item that enters the queue. Its slot was taken before.
    pub(super) fn enter(&self) {
        self.account().queued += 1;
    }

    /// Records that an item has ended.
    pub(super) fn finish(&self, index: u32, ended: Result<Action, Error>, charge: Option<Charge>) {
        let mut account = self.account();
        account.queued -= 1;
        match &ended {
            Ok(_) => account.done += 1,
            Err(_) => account.failed += 1,
        }
        let before = account.outcomes.len();
        account.outcomes.add(index, ended, charge);
        let notify = account.queued == 0 || (before == 0 && account.outcomes.len() > 0);
        drop(account);
        self.read_without_writing(1);
        self.queue_slots.add_permits(1);
        if notify {
            self.changed.notify_waiters();
            // A caller that waits for memory from items of this job must stop waiting when no items are left.
            self.memory.wake_waiters();
        }
    }

    /// Records that a worker has taken a unit.
    pub(crate) fn begin(&self) {
        self.account().in_progress += 1;
    }

    /// Records that a worker has finished a unit.
    pub(crate) fn end(&self) {
        let mut account = self.account();
        account.in_progress -= 1;
        let is_last = account.in_progress == 0;
        drop(account);
        if is_last {
            self.changed.notify_waiters();
            self.idle_workers.notify_all();
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
        (since(bytes, &self.reported_bytes), since(files, &self.reported_files))
    }

    pub(super) fn has_read(&self) -> bool {
        since(self.read.load(Ordering::Relaxed), &self.reported_read) > 0
    }

    /// Counts bytes that a worker read but did not write: of an existing file that it compares, or of a file that it skips.
    pub(crate) fn read_without_writing(&self, bytes: u64) {
        self.read.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Returns the target.
    pub(crate) fn target(&self) -> &Arc<Target> {
        &self.destination.target
    }

    /// Returns the token that is set when the job is cancelled.
    pub(crate) fn cancel_token(&self) -> &CancellationToken {
        &self.destination.cancel
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.destination.cancel.is_cancelled()
    }

    /// # Errors
    /// `Cancelled` if the job is cancelled.
    pub(crate) fn fail_if_cancelled(&self) -> Result<(), Error> {
        self.destination.fail_if_cancelled()
    }

    pub(super) fn cancel(&self) {
        self.destination.cancel.cancel();
        self.queue_slots.close();
        self.changed.notify_waiters();
    }

    /// Waits until `reached` returns true for the status and the number of outcomes, or the job is cancelled.
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

    /// Waits until no worker is processing a unit of the job.
    pub(super) async fn until_workers_idle(&self) {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if self.account().in_progress == 0 {
                return;
            }
            changed.await;
        }
    }

    /// Does the same on a thread that may block.
    pub(super) fn block_until_workers_idle(&self) {
        let mut account = self.account();
        while account.in_progress > 0 {
            account = self.idle_workers.wait(account).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn account(&self) -> MutexGuard<'_, Account> {
        self.account.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns how much a counter has grown since the last call.
fn since(now: u64, reported: &AtomicU64) -> u64 {
    now.saturating_sub(reported.swap(now, Ordering::Relaxed))
}
