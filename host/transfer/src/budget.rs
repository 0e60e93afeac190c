//! One bound for everything that is held for one run of a component: bytes of memory, or open files.
//!
//! What takes is charged before it takes, and the [`Charge`] lies beside what was taken: dropping the one with the other gives it
//! back. Sizes are those of the heap: capacities rather than lengths, the structures around them, what the allocator adds. They
//! are charged a piece of work at a time (an item, a buffer, a block of a listing), never a byte at a time.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Kind};

/// What the allocator takes of each piece of memory for itself, in bytes, about: its own header, and rounding.
pub const PIECE: u64 = 32;

/// A bound and what is taken of it. Cheap to clone; all clones count together.
#[derive(Clone)]
pub struct Budget {
    inner: Arc<Inner>,
}

struct Inner {
    /// What is counted.
    of: Of,
    most: u64,
    held: AtomicU64,
    /// How many [passing](Budget::charge_passing) charges are held.
    passing: AtomicUsize,
    /// Held from the moment such a charge is taken until it is counted.
    begins_to_pass: Mutex<()>,
    /// How many wait for something to be given back.
    waiting: AtomicUsize,
    freed: Notify,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Memory,
    Files,
}

impl Budget {
    /// At most so many bytes of memory.
    pub fn memory(most: u64) -> Self {
        Self::new(Of::Memory, most)
    }

    /// At most so many open files.
    pub fn files(most: u64) -> Self {
        Self::new(Of::Files, most)
    }

    /// Counts memory without a bound.
    pub fn unlimited() -> Self {
        Self::memory(u64::MAX)
    }

    fn new(of: Of, most: u64) -> Self {
        let inner = Inner {
            of,
            most,
            held: AtomicU64::new(0),
            passing: AtomicUsize::new(0),
            begins_to_pass: Mutex::new(()),
            waiting: AtomicUsize::new(0),
            freed: Notify::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The bound.
    pub fn most(&self) -> u64 {
        self.inner.most
    }

    /// What is taken now.
    pub fn held(&self) -> u64 {
        self.inner.held.load(Ordering::Relaxed)
    }

    /// Takes `amount` for `what`, which the error names.
    ///
    /// # Errors
    /// `Limit` where more than the bound would be taken then.
    pub fn charge(&self, amount: u64, what: &str) -> Result<Charge, Error> {
        self.take(amount).map_err(|held| self.full(amount, held, what))?;
        Ok(Charge { budget: self.clone(), amount, passing: false })
    }

    /// Takes `amount` whatever is taken already: for what a run cannot do without, and whose size nobody outside decides.
    pub fn charge_anyway(&self, amount: u64) -> Charge {
        self.inner.held.fetch_add(amount, Ordering::Relaxed);
        Charge { budget: self.clone(), amount, passing: false }
    }

    /// As [`Budget::charge`], and where less than a quarter would stay free waits as long as `others` says that something is going
    /// to be given back without the caller's help. The quarter is for what is waited for: work in a queue needs buffers and the
    /// windows of decoders before it can end.
    ///
    /// # Errors
    /// `Limit` where nothing is, or where `amount` is more than the bound itself.
    pub async fn charge_while(
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
                return Ok(Charge { budget: self.clone(), amount, passing: false });
            }
            freed.await;
        }
    }

    /// As [`Budget::charge`], for what its holder gives back by going on alone, such as the window of a decoder whose bytes are
    /// written to a file: where there is no room it waits while others hold such charges. So whoever holds one must never wait
    /// for another.
    ///
    /// # Errors
    /// `Limit` where there is no room, and nobody holds such a charge.
    pub async fn charge_passing(&self, amount: u64, what: &str) -> Result<Charge, Error> {
        let _waiting = Waiting::count(&self.inner.waiting);
        loop {
            let mut freed = std::pin::pin!(self.inner.freed.notified());
            freed.as_mut().enable();
            if let Some(charge) = self.pass(amount, what)? {
                return Ok(charge);
            }
            freed.await;
        }
    }

    /// A passing charge; `None` where there is no room and others hold such charges.
    fn pass(&self, amount: u64, what: &str) -> Result<Option<Charge>, Error> {
        // Nobody else's begins meanwhile: one that was taken and not counted yet would look as if it stayed.
        let _begins = self.inner.begins_to_pass.lock().unwrap_or_else(PoisonError::into_inner);
        let mut charged = self.charge(amount, what);
        if charged.is_err() {
            if amount <= self.inner.most && self.inner.passing.load(Ordering::Acquire) > 0 {
                return Ok(None);
            }
            // The last of them may have given back between the two questions.
            charged = self.charge(amount, what);
        }
        let mut charge = charged?;
        self.inner.passing.fetch_add(1, Ordering::AcqRel);
        charge.passing = true;
        Ok(Some(charge))
    }

    /// # Errors
    /// What is held, where that and `amount` are more than the bound.
    fn take(&self, amount: u64) -> Result<(), u64> {
        self.take_up_to(amount, self.inner.most)
    }

    /// # Errors
    /// What is held, where that and `amount` are more than `most`.
    fn take_up_to(&self, amount: u64, most: u64) -> Result<(), u64> {
        let more = |held: u64| held.checked_add(amount).filter(|more| *more <= most);
        self.inner.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).map(drop)
    }

    fn give_back(&self, amount: u64) {
        self.inner.held.fetch_sub(amount, Ordering::Release);
        self.tell();
    }

    /// Has everybody who waits ask again.
    pub(crate) fn tell(&self) {
        // Either this sees who waits, or who waits sees what was given back: see `Waiting::count`.
        fence(Ordering::SeqCst);
        if self.inner.waiting.load(Ordering::SeqCst) > 0 {
            self.inner.freed.notify_waiters();
        }
    }

    fn full(&self, amount: u64, held: u64, what: &str) -> Error {
        let most = self.inner.most;
        let message = match self.inner.of {
            Of::Memory => format!(
                "{what} would take {amount} bytes of the host's memory for this run, of which {held} of {most} are in use: \
                 take less at once, or raise `host_memory` in the method's grants"
            ),
            Of::Files => format!(
                "{what} would open {amount} more of the {most} files that this run may have open, of which {held} are: \
                 close some, or raise the limit of open files (`ulimit -n`)"
            ),
        };
        Error::new(Kind::Limit, message)
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} ({:?})", self.held(), self.inner.most, self.inner.of)
    }
}

/// One more waits until this is dropped.
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

/// A part of a budget that is taken until this is dropped.
#[must_use = "dropping it gives back what was taken"]
pub struct Charge {
    budget: Budget,
    amount: u64,
    passing: bool,
}

impl Charge {
    /// Whether less than a quarter of its budget is free.
    pub(crate) fn leaves_too_little(&self) -> bool {
        let most = self.budget.most();
        self.budget.held() > most - most / 4
    }

    /// How much it is.
    pub fn amount(&self) -> u64 {
        self.amount
    }

    /// Takes `more` for `what`.
    ///
    /// # Errors
    /// `Limit`; it stays as it was then.
    pub fn grow(&mut self, more: u64, what: &str) -> Result<(), Error> {
        self.budget.take(more).map_err(|held| self.budget.full(more, held, what))?;
        self.amount += more;
        Ok(())
    }

    /// Makes it `amount`.
    ///
    /// # Errors
    /// `Limit` where that is more than it was and there is no room; it stays as it was then.
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

    /// Gives `amount` of it, or all where it is less, to another owner.
    pub fn split(&mut self, amount: u64) -> Self {
        let amount = amount.min(self.amount);
        self.amount -= amount;
        Self { budget: self.budget.clone(), amount, passing: false }
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
        if self.passing {
            // After what was taken is given back: who sees that nobody passes any more tries once more.
            self.budget.inner.passing.fetch_sub(1, Ordering::AcqRel);
        }
        self.budget.tell();
    }
}

/// Where a decoder takes the memory for its window from.
#[derive(Clone)]
pub struct Room {
    budget: Budget,
    /// For a thread that may block, whose work goes on by itself: where it waits, and until when.
    waits: Option<(Handle, CancellationToken)>,
}

impl Room {
    /// From this budget; where there is none left that is an error.
    pub fn of(budget: &Budget) -> Self {
        Self { budget: budget.clone(), waits: None }
    }

    /// Without a bound.
    pub fn unlimited() -> Self {
        Self::of(&Budget::unlimited())
    }

    /// From this budget, for a worker: it waits while other workers' decoders hold some.
    pub(crate) fn for_a_worker(budget: &Budget, runtime: &Handle, stop: &CancellationToken) -> Self {
        Self { budget: budget.clone(), waits: Some((runtime.clone(), stop.clone())) }
    }

    /// Takes `amount` bytes.
    ///
    /// # Errors
    /// `Limit` where there are not so many, `Cancelled` for a worker whose work is.
    pub(crate) fn take(&self, amount: u64, what: &str) -> Result<Charge, Error> {
        let Some((runtime, stop)) = &self.waits else { return self.budget.charge(amount, what) };
        runtime.block_on(async {
            tokio::select! {
                biased;
                () = stop.cancelled() => Err(Error::cancelled()),
                charged = self.budget.charge_passing(amount, what) => charged,
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
    fn what_is_taken_is_given_back_and_no_more_than_the_bound_is_taken() {
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
    fn what_a_run_cannot_do_without_is_counted_beyond_the_bound() {
        let budget = Budget::files(10);
        let needed = budget.charge_anyway(12);
        let error = budget.charge(1, "a stream").unwrap_err();
        assert!(error.message.contains("ulimit -n"), "{error}");
        drop(needed);
        let _ten = budget.charge(10, "streams").unwrap();
    }

    #[tokio::test]
    async fn who_waits_goes_on_when_there_is_room_and_not_for_ever() {
        let budget = Budget::memory(100);
        let held = budget.charge(90, "held").unwrap();
        assert_eq!(budget.charge_while(20, "x", || false).await.unwrap_err().kind, Kind::Limit);
        assert_eq!(budget.charge_while(101, "x", || true).await.unwrap_err().kind, Kind::Limit);
        let mut waits = Box::pin(budget.charge_while(20, "x", || true));
        assert!(poll!(waits.as_mut()).is_pending());
        drop(held);
        assert_eq!(waits.await.unwrap().amount(), 20);
        assert_eq!(budget.held(), 0);
        // The last quarter is left to what is waited for.
        let queued = budget.charge(60, "queued").unwrap();
        assert!(poll!(Box::pin(budget.charge_while(20, "x", || true)).as_mut()).is_pending());
        assert_eq!(budget.charge_while(20, "x", || false).await.unwrap().amount(), 20);
        drop(queued);
    }

    #[tokio::test]
    async fn passing_charges_are_waited_for_and_others_are_not() {
        let budget = Budget::memory(100);
        let standing = budget.charge(50, "a listing").unwrap();
        let passing = budget.charge_passing(40, "a window").await.unwrap();
        let mut waits = Box::pin(budget.charge_passing(20, "a window"));
        assert!(poll!(waits.as_mut()).is_pending());
        drop(passing);
        let second = waits.await.unwrap();
        drop(second);
        // Nobody is going to give back what stands.
        let refused = budget.charge_passing(60, "a window").now_or_never().unwrap();
        assert_eq!(refused.unwrap_err().kind, Kind::Limit);
        drop(standing);
    }

    #[test]
    fn passing_charges_of_many_threads_wait_for_each_other_and_are_never_refused() {
        let budget = Budget::memory(100);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let handle = runtime.handle();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..5000 {
                        drop(handle.block_on(budget.charge_passing(60, "a window")).unwrap());
                    }
                });
            }
        });
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn many_threads_never_take_more_than_the_bound_together() {
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
