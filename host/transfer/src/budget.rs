//! A budget for one run of a component: bytes of memory, or open files.
//!
//! Code charges the budget before it allocates or opens something, and keeps the [`Charge`] together with it. Dropping the charge gives
//! the amount back. Sizes are those of the heap: they use capacities rather than lengths, and include the surrounding structures and the
//! allocator's overhead. One charge covers one item, buffer or block of a listing.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Kind};

/// About how many bytes the allocator adds to each allocation, for its header and for rounding.
pub const ALLOCATION_OVERHEAD: u64 = 32;

/// A limit, and how much of it is in use. Cheap to clone; clones share the same budget.
#[derive(Clone)]
pub struct Budget {
    inner: Arc<Inner>,
}

struct Inner {
    /// What the budget counts.
    resource: Resource,
    most: u64,
    held: AtomicU64,
    /// The most that was in use at once.
    peak: AtomicU64,
    /// How many charges were refused.
    refused: AtomicU64,
    /// How many [transient](Budget::charge_transient) charges exist.
    transient: AtomicUsize,
    /// Locked from the moment a transient charge is taken until it is counted.
    transient_lock: Mutex<()>,
    /// How many callers are waiting for a charge to be given back.
    waiting: AtomicUsize,
    freed: Notify,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resource {
    Memory,
    Files,
}

impl Budget {
    /// Makes a budget of `most` bytes of memory.
    pub fn memory(most: u64) -> Self {
        Self::new(Resource::Memory, most)
    }

    /// Makes a budget of `most` open files.
    pub fn files(most: u64) -> Self {
        Self::new(Resource::Files, most)
    }

    /// Makes a budget that counts memory without a limit.
    pub fn unlimited() -> Self {
        Self::memory(u64::MAX)
    }

    fn new(resource: Resource, most: u64) -> Self {
        let inner = Inner {
            resource,
            most,
            held: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            transient: AtomicUsize::new(0),
            transient_lock: Mutex::new(()),
            waiting: AtomicUsize::new(0),
            freed: Notify::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Returns the limit.
    pub fn most(&self) -> u64 {
        self.inner.most
    }

    /// Returns how much is in use.
    pub fn held(&self) -> u64 {
        self.inner.held.load(Ordering::Relaxed)
    }

    /// Returns the most that was in use at once.
    pub fn peak(&self) -> u64 {
        self.inner.peak.load(Ordering::Relaxed)
    }

    /// Returns whether the limit was reached: something was refused because too little was free.
    pub fn was_reached(&self) -> bool {
        self.inner.refused.load(Ordering::Relaxed) > 0
    }

    /// Charges `amount` for `what`, which the error names.
    ///
    /// # Errors
    /// `Limit` if that would exceed the limit.
    pub fn charge(&self, amount: u64, what: &str) -> Result<Charge, Error> {
        self.take(amount).map_err(|held| self.full(amount, held, what))?;
        Ok(Charge { budget: self.clone(), amount, transient: false })
    }

    /// Charges `amount` even if that exceeds the limit. For amounts that every run needs and that no component can influence.
    pub fn charge_anyway(&self, amount: u64) -> Charge {
        let before = self.inner.held.fetch_add(amount, Ordering::Relaxed);
        self.inner.peak.fetch_max(before.saturating_add(amount), Ordering::Relaxed);
        Charge { budget: self.clone(), amount, transient: false }
    }

    /// Charges `amount` as [`Budget::charge`] does. If less than a quarter of the limit would stay free, first waits while `others` returns
    /// true, which means that other work will give something back even if the caller waits. The quarter is kept free for that work: items
    /// in a queue need buffers and the windows of decoders before they can end.
    ///
    /// # Errors
    /// `Limit` if `others` returns false and the limit would be exceeded, or if `amount` alone exceeds the limit.
    pub async fn charge_when_free(
        &self,
        amount: u64,
        what: &str,
        others: impl Fn() -> bool,
    ) -> Result<Charge, Error> {
        let _waiting = Waiting::count(&self.inner.waiting);
        loop {
            let mut freed = std::pin::pin!(self.inner.freed.notified());
            freed.as_mut().enable();
            let most = self.inner.most;
            if amount > most || !others() {
                return self.charge(amount, what);
            }
            if self.take_up_to(amount, most - most / 4).is_ok() {
                return Ok(Charge { budget: self.clone(), amount, transient: false });
            }
            freed.await;
        }
    }

    /// Charges `amount` as [`Budget::charge`] does, for something that the holder gives back without waiting for other holders, such as the
    /// window of a decoder that writes to a file. If too little is free, waits while other transient charges exist. So the holder of a
    /// transient charge must never wait for a second one.
    ///
    /// # Errors
    /// `Limit` if too little is free and no transient charge exists.
    pub async fn charge_transient(&self, amount: u64, what: &str) -> Result<Charge, Error> {
        let _waiting = Waiting::count(&self.inner.waiting);
        loop {
            let mut freed = std::pin::pin!(self.inner.freed.notified());
            freed.as_mut().enable();
            if let Some(charge) = self.try_transient(amount, what)? {
                return Ok(charge);
            }
            freed.await;
        }
    }

    /// Makes a transient charge; `None` if too little is free and other transient charges exist.
    fn try_transient(&self, amount: u64, what: &str) -> Result<Option<Charge>, Error> {
        // Without the lock, a charge that another thread has taken but not counted yet would look permanent.
        let _lock = self.inner.transient_lock.lock().unwrap_or_else(PoisonError::into_inner);
        let mut charged = self.charge(amount, what);
        if charged.is_err() {
            if amount <= self.inner.most && self.inner.transient.load(Ordering::Acquire) > 0 {
                return Ok(None);
            }
            // The last transient charge may have been given back between the two checks.
            charged = self.charge(amount, what);
        }
        let mut charge = charged?;
        self.inner.transient.fetch_add(1, Ordering::AcqRel);
        charge.transient = true;
        Ok(Some(charge))
    }

    /// # Errors
    /// Fails with the amount in use if that and `amount` exceed the limit.
    fn take(&self, amount: u64) -> Result<(), u64> {
        self.take_up_to(amount, self.inner.most)
    }

    /// # Errors
    /// Fails with the amount in use if that and `amount` exceed `most`.
    fn take_up_to(&self, amount: u64, most: u64) -> Result<(), u64> {
        let more = |held: u64| held.checked_add(amount).filter(|more| *more <= most);
        let before = self.inner.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)?;
        self.inner.peak.fetch_max(before.saturating_add(amount), Ordering::Relaxed);
        Ok(())
    }

    fn give_back(&self, amount: u64) {
        self.inner.held.fetch_sub(amount, Ordering::Release);
        self.wake_waiters();
    }

    /// Wakes all waiting callers, which then check the budget again.
    pub(crate) fn wake_waiters(&self) {
        // Either this thread sees the waiting caller, or that caller sees the amount that was given back: see `Waiting::count`.
        fence(Ordering::SeqCst);
        if self.inner.waiting.load(Ordering::SeqCst) > 0 {
            self.inner.freed.notify_waiters();
        }
    }

    fn full(&self, amount: u64, held: u64, what: &str) -> Error {
        let most = self.inner.most;
        self.inner.refused.fetch_add(1, Ordering::Relaxed);
        let message = match self.inner.resource {
            Resource::Memory => format!(
                "{what} would take {amount} bytes of the host's memory for this run, of which {held} of {most} are in use: \
                 take less at once, or raise `host_memory` in the method's grants"
            ),
            Resource::Files => format!(
                "{what} needs {amount} of the {most} open files of this run, and {held} are in use: close some, or raise \
                 `open_files` in the method's grants, and the limit of open files (`ulimit -n`) if that is lower"
            ),
        };
        Error::new(Kind::Limit, message)
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} ({:?})", self.held(), self.inner.most, self.inner.resource)
    }
}

/// Counts one waiting caller until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn count(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A part of a budget that is in use until this is dropped.
#[must_use = "dropping it gives the amount back"]
pub struct Charge {
    budget: Budget,
    amount: u64,
    transient: bool,
}

impl Charge {
    /// Returns whether less than a quarter of the charge's budget is free.
    pub(crate) fn leaves_less_than_a_quarter(&self) -> bool {
        let most = self.budget.most();
        self.budget.held() > most - most / 4
    }

    /// Returns the amount.
    pub fn amount(&self) -> u64 {
        self.amount
    }

    /// Charges `more` for `what`.
    ///
    /// # Errors
    /// `Limit` if that would exceed the limit; the charge is unchanged then.
    pub fn grow(&mut self, more: u64, what: &str) -> Result<(), Error> {
        self.budget.take(more).map_err(|held| self.budget.full(more, held, what))?;
        self.amount += more;
        Ok(())
    }

    /// Changes the charge to `amount`.
    ///
    /// # Errors
    /// `Limit` if `amount` is larger and would exceed the limit; the charge is unchanged then.
    pub fn set(&mut self, amount: u64, what: &str) -> Result<(), Error> {
        match amount.checked_sub(self.amount) {
            Some(more) => self.grow(more, what),
            None => {
                self.budget.give_back(self.amount - amount);
                self.amount = amount;
                Ok(())
            }
        }
    }

    /// Splits off a charge of `amount`, or of all if that is less.
    pub fn split(&mut self, amount: u64) -> Self {
        let amount = amount.min(self.amount);
        self.amount -= amount;
        Self { budget: self.budget.clone(), amount, transient: false }
    }
}

impl fmt::Debug for Charge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Charge({})", self.amount)
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.inner.held.fetch_sub(self.amount, Ordering::Release);
        if self.transient {
            // This must follow giving back the amount, because a caller that finds no transient charge tries once more.
            self.budget.inner.transient.fetch_sub(1, Ordering::AcqRel);
        }
        self.budget.wake_waiters();
    }
}

/// The budget that a decoder charges for its window, and whether the decoder may wait for memory.
#[derive(Clone)]
pub struct MemoryAllowance {
    budget: Budget,
    /// The runtime on which a worker waits, and the token that ends the wait; `None` if the decoder must not wait.
    waits: Option<(Handle, CancellationToken)>,
}

impl MemoryAllowance {
    /// Makes an allowance from this budget that fails if too little is free.
    pub fn of(budget: &Budget) -> Self {
        Self { budget: budget.clone(), waits: None }
    }

    /// Makes an allowance without a limit.
    pub fn unlimited() -> Self {
        Self::of(&Budget::unlimited())
    }

    /// Makes an allowance from this budget for a worker. It waits while decoders of other workers hold memory.
    pub(crate) fn waiting(budget: &Budget, runtime: &Handle, stop: &CancellationToken) -> Self {
        Self { budget: budget.clone(), waits: Some((runtime.clone(), stop.clone())) }
    }

    /// Charges `amount` bytes for `what`.
    ///
    /// # Errors
    /// `Limit` if too little is free, `Cancelled` if the worker's job is cancelled.
    pub(crate) fn take(&self, amount: u64, what: &str) -> Result<Charge, Error> {
        let Some((runtime, stop)) = &self.waits else { return self.budget.charge(amount, what) };
        runtime.block_on(async {
            tokio::select! {
                biased;
                () = stop.cancelled() => Err(Error::cancelled()),
                charged = self.budget.charge_transient(amount, what) => charged,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use futures_util::{FutureExt, poll};

    use super::*;

    #[test]
    fn charges_are_given_back_and_never_exceed_the_limit() {
        let budget = Budget::memory(100);
        let mut one = budget.charge(60, "one").unwrap();
        let error = budget.charge(41, "two").unwrap_err();
        assert_eq!(error.kind, Kind::Limit);
        for part in ["two would take 41 bytes", "60 of 100", "`host_memory`"] {
            assert!(error.message.contains(part), "{error}");
        }
        let two = budget.charge(40, "two").unwrap();
        assert_eq!(one.grow(1, "one").unwrap_err().kind, Kind::Limit);
        assert_eq!((one.amount(), budget.held()), (60, 100));
        let part = one.split(50);
        assert_eq!((one.amount(), part.amount(), budget.held()), (10, 50, 100));
        drop(part);
        one.set(5, "one").unwrap();
        one.set(55, "one").unwrap();
        assert_eq!(one.set(61, "one").unwrap_err().kind, Kind::Limit);
        drop((one, two));
        assert_eq!(budget.held(), 0);
        assert_eq!(budget.charge(u64::MAX, "all").unwrap_err().kind, Kind::Limit);
    }

    #[test]
    fn unconditional_charges_count_beyond_the_limit() {
        let budget = Budget::files(10);
        let needed = budget.charge_anyway(12);
        let error = budget.charge(1, "a stream").unwrap_err();
        assert!(error.message.contains("ulimit -n"), "{error}");
        drop(needed);
        let _ten = budget.charge(10, "streams").unwrap();
    }

    #[tokio::test]
    async fn a_waiting_charge_succeeds_when_enough_is_free_and_never_waits_in_vain() {
        let budget = Budget::memory(100);
        let held = budget.charge(90, "held").unwrap();
        assert_eq!(budget.charge_when_free(20, "x", || false).await.unwrap_err().kind, Kind::Limit);
        assert_eq!(budget.charge_when_free(101, "x", || true).await.unwrap_err().kind, Kind::Limit);
        let mut waits = Box::pin(budget.charge_when_free(20, "x", || true));
        assert!(poll!(waits.as_mut()).is_pending());
        drop(held);
        assert_eq!(waits.await.unwrap().amount(), 20);
        assert_eq!(budget.held(), 0);
        // The last quarter is kept free for the work that the caller waits for.
        let queued = budget.charge(60, "queued").unwrap();
        assert!(poll!(Box::pin(budget.charge_when_free(20, "x", || true)).as_mut()).is_pending());
        assert_eq!(budget.charge_when_free(20, "x", || false).await.unwrap().amount(), 20);
        drop(queued);
    }

    #[tokio::test]
    async fn a_transient_charge_waits_only_for_transient_charges() {
        let budget = Budget::memory(100);
        let lasting = budget.charge(50, "a listing").unwrap();
        let transient = budget.charge_transient(40, "a window").await.unwrap();
        let mut waits = Box::pin(budget.charge_transient(20, "a window"));
        assert!(poll!(waits.as_mut()).is_pending());
        drop(transient);
        let second = waits.await.unwrap();
        drop(second);
        // The lasting charge is not given back.
        let refused = budget.charge_transient(60, "a window").now_or_never().unwrap();
        assert_eq!(refused.unwrap_err().kind, Kind::Limit);
        drop(lasting);
    }

    #[test]
    fn transient_charges_of_many_threads_wait_for_each_other_and_are_never_refused() {
        let budget = Budget::memory(100);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let handle = runtime.handle();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..5000 {
                        drop(handle.block_on(budget.charge_transient(60, "a window")).unwrap());
                    }
                });
            }
        });
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn many_threads_together_never_exceed_the_limit() {
        let budget = Budget::memory(1000);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..5000 {
                        let taken = budget.charge(300, "x");
                        assert!(budget.held() <= 1000);
                        drop(taken);
                    }
                });
            }
        });
        assert_eq!(budget.held(), 0);
    }
}
