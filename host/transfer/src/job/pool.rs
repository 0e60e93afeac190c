//! The queue of the workers.

use std::collections::{BinaryHeap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::state::State;
use super::unit::Unit;
use super::unpack::{Archive, SmallFiles};
use crate::budget::Charge;

/// A batch of small files of an archive that is being unpacked.
pub(crate) struct Batch {
    /// The archive.
    pub(crate) archive: Arc<Archive>,
    /// The files.
    pub(crate) files: SmallFiles,
    /// The memory of the batch, without the files' bytes.
    pub(crate) charge: Option<Charge>,
}

/// If a queue has had more units than this and becomes short, it gives memory back.
const LONG: usize = 1024;

/// The queue of the workers. Batches of small files come first, because they hold buffers; then the largest unit of each job, with the
/// jobs taking turns.
#[derive(Default)]
pub(crate) struct Pool {
    waiting: Mutex<Waiting>,
    added: Condvar,
}

#[derive(Default)]
struct Waiting {
    batches: VecDeque<Batch>,
    jobs: VecDeque<Queue>,
    stopping: bool,
}

/// The queued units of one job. Never empty.
struct Queue {
    job: Arc<State>,
    units: BinaryHeap<Unit>,
}

/// The next task of a worker.
pub(crate) enum NextTask {
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
        if count > 1 { self.added.notify_all() } else { self.added.notify_one() }
    }

    /// Removes and returns the queued units of a job.
    pub(crate) fn remove(&self, job: &Arc<State>) -> Vec<Unit> {
        let mut waiting = self.waiting();
        let at = waiting.jobs.iter().position(|queue| Arc::ptr_eq(&queue.job, job));
        let queue = at.and_then(|at| waiting.jobs.remove(at));
        drop(waiting);
        queue.map(|queue| queue.units.into_vec()).unwrap_or_default()
    }

    /// Adds a batch of small files for any worker.
    pub(crate) fn offer(&self, batch: Batch) {
        self.waiting().batches.push_back(batch);
        self.added.notify_one();
    }

    /// Takes back the oldest batch of `archive` that no worker has taken.
    pub(crate) fn take_back(&self, archive: &Arc<Archive>) -> Option<Batch> {
        let mut waiting = self.waiting();
        let at = waiting.batches.iter().position(|batch| Arc::ptr_eq(&batch.archive, archive))?;
        waiting.batches.remove(at)
    }

    /// Takes the next task; `None` if there is none. Calls [`State::begin`] for a unit.
    pub(super) fn try_next(&self) -> Option<NextTask> {
        Self::take(&mut self.waiting())
    }

    /// Waits for the next task and takes it; `None` if the pool has been stopped.
    pub(super) fn next(&self) -> Option<NextTask> {
        let mut waiting = self.waiting();
        loop {
            if let Some(work) = Self::take(&mut waiting) {
                return Some(work);
            }
            if waiting.stopping {
                return None;
            }
            waiting = self.added.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn take(waiting: &mut Waiting) -> Option<NextTask> {
        if let Some(batch) = waiting.batches.pop_front() {
            return Some(NextTask::Batch(batch));
        }
        let mut queue = waiting.jobs.pop_front()?;
        let unit = queue.units.pop()?;
        // The memory that the queue needed while it was long is no longer charged, so it must be freed.
        if queue.units.capacity() > LONG && queue.units.len() < queue.units.capacity() / 4 {
            queue.units.shrink_to(queue.units.capacity() / 2);
        }
        let job = Arc::clone(&queue.job);
        // Called under the lock, so that a thread that cancels the job finds the unit either in the queue or counted as in progress.
        job.begin();
        if !queue.units.is_empty() {
            waiting.jobs.push_back(queue);
        }
        Some(NextTask::Unit(job, unit))
    }

    /// Ends the workers when the queue is empty.
    pub(super) fn stop(&self) {
        self.waiting().stopping = true;
        self.added.notify_all();
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
