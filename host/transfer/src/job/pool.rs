//! What waits for a worker.

use std::collections::{BinaryHeap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::state::State;
use super::unit::Unit;
use super::unpack::{Archive, SmallFiles};
use crate::budget::Charge;

/// Small files of an archive that is being unpacked.
pub(crate) struct Batch {
    /// The archive that they are from.
    pub(crate) archive: Arc<Archive>,
    /// The files.
    pub(crate) files: SmallFiles,
    /// For them, without their bytes.
    pub(crate) charge: Option<Charge>,
}

/// Units above which a queue that has become short gives memory back.
const LONG: usize = 1024;

/// What waits for a worker: small files of archives first, for they hold buffers; then, job by job in turn, the largest.
#[derive(Default)]
pub(crate) struct Pool {
    waiting: Mutex<Waiting>,
    come: Condvar,
}

#[derive(Default)]
struct Waiting {
    batches: VecDeque<Batch>,
    jobs: VecDeque<Queue>,
    stopping: bool,
}

/// What waits of one job. Never empty.
struct Queue {
    job: Arc<State>,
    units: BinaryHeap<Unit>,
}

/// Something for a worker to do.
pub(crate) enum Work {
    Batch(Batch),
    Unit(Arc<State>, Unit),
}

impl Pool {
    /// Adds units of a job.
    pub(crate) fn add(&self, job: &Arc<State>, units: Vec<Unit>) {
        let count = units.len();
        let mut waiting = self.waiting();
        match waiting.jobs.iter_mut().find(|queue| Arc::ptr_eq(&queue.job, job)) {
            Some(queue) => queue.units.extend(units),
            None if units.is_empty() => {}
            None => waiting.jobs.push_back(Queue { job: Arc::clone(job), units: units.into() }),
        }
        drop(waiting);
        if count > 1 { self.come.notify_all() } else { self.come.notify_one() }
    }

    /// Takes away what waits of a job.
    pub(crate) fn remove(&self, job: &Arc<State>) -> Vec<Unit> {
        let mut waiting = self.waiting();
        let at = waiting.jobs.iter().position(|queue| Arc::ptr_eq(&queue.job, job));
        let queue = at.and_then(|at| waiting.jobs.remove(at));
        drop(waiting);
        queue.map(|queue| queue.units.into_vec()).unwrap_or_default()
    }

    /// Offers small files to whoever has time.
    pub(crate) fn offer(&self, batch: Batch) {
        self.waiting().batches.push_back(batch);
        self.come.notify_one();
    }

    /// Takes back the oldest batch of `archive` that nobody has begun.
    pub(crate) fn take_back(&self, archive: &Arc<Archive>) -> Option<Batch> {
        let mut waiting = self.waiting();
        let at = waiting.batches.iter().position(|batch| Arc::ptr_eq(&batch.archive, archive))?;
        waiting.batches.remove(at)
    }

    /// Something to do, without waiting. A unit counts as begun: [`State::begin`] was called.
    pub(super) fn try_next(&self) -> Option<Work> {
        Self::take(&mut self.waiting())
    }

    /// The same, waiting for it; none where the pool ends.
    pub(super) fn next(&self) -> Option<Work> {
        let mut waiting = self.waiting();
        loop {
            if let Some(work) = Self::take(&mut waiting) {
                return Some(work);
            }
            if waiting.stopping {
                return None;
            }
            waiting = self.come.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn take(waiting: &mut Waiting) -> Option<Work> {
        if let Some(batch) = waiting.batches.pop_front() {
            return Some(Work::Batch(batch));
        }
        let mut queue = waiting.jobs.pop_front()?;
        let unit = queue.units.pop()?;
        // What was a long queue is not charged any more, and must not be held for the sake of a short one.
        if queue.units.capacity() > LONG && queue.units.len() < queue.units.capacity() / 4 {
            queue.units.shrink_to(queue.units.capacity() / 2);
        }
        let job = Arc::clone(&queue.job);
        // Under the lock, so that whoever cancels and finds nothing here knows of it.
        job.begin();
        if !queue.units.is_empty() {
            waiting.jobs.push_back(queue);
        }
        Some(Work::Unit(job, unit))
    }

    /// Ends the workers once nothing waits.
    pub(super) fn stop(&self) {
        self.waiting().stopping = true;
        self.come.notify_all();
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
