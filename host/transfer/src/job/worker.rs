//! A worker and its companion: the main functions of their threads.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::pool::{NextTask, Pool};
use super::unit::Task;
use super::{assemble, fetch, unpack};
use crate::sink::directories::Directories;
use crate::sink::{BUFFER, ring::Filling};

/// A thread that writes files.
pub(crate) struct Worker {
    /// The queue from which it takes tasks.
    pub(crate) pool: Arc<Pool>,
    /// The open directories.
    pub(crate) directories: Directories,
    /// The buffer for reading, [`BUFFER`] bytes.
    pub(crate) buffer: Box<[u8]>,
    companion: SyncSender<Filling>,
}

/// A thread that reads and decodes archives for its worker.
pub(super) struct Companion {
    tasks: Receiver<Filling>,
}

/// Makes a worker and its companion, which ends when the worker is dropped.
pub(super) fn pair(pool: Arc<Pool>, open: usize) -> (Worker, Companion) {
    let (companion, tasks) = sync_channel(1);
    let buffer = vec![0; BUFFER].into_boxed_slice();
    (Worker { pool, directories: Directories::with_limit(open), buffer, companion }, Companion { tasks })
}

impl Companion {
    /// Fills rings until the worker is dropped; the main function of the thread.
    pub(super) fn work(self) {
        for filling in self.tasks {
            filling.fill();
        }
    }
}

impl Worker {
    /// Runs tasks until the pool is stopped; the main function of the thread.
    pub(super) fn work(mut self) {
        while let Some(task) = self.next() {
            // A panic in an item is caught and reported elsewhere; this keeps the thread alive after any other panic.
            let _ = catch_unwind(AssertUnwindSafe(|| self.run(task)));
        }
    }

    /// Lets the companion fill a ring.
    pub(crate) fn read_ahead(&self, filling: Filling) {
        if let Err(lost) = self.companion.send(filling) {
            lost.0.fail();
        }
    }

    fn next(&mut self) -> Option<NextTask> {
        if let Some(task) = self.pool.try_next() {
            return Some(task);
        }
        // Directories that a finished job opened must not stay open.
        self.directories.close();
        self.pool.next()
    }

    fn run(&mut self, task: NextTask) {
        match task {
            NextTask::Batch(batch) => unpack::write_batch(self, batch),
            NextTask::Unit(job, unit) => {
                let ended = catch_unwind(AssertUnwindSafe(|| match unit.task {
                    Task::Fetch(items) => fetch::run(self, &job, items),
                    Task::Unpack(item) => unpack::run(self, &job, *item),
                    Task::Assemble(item) => assemble::run(self, &job, *item),
                }));
                job.end();
                drop(ended);
            }
        }
    }
}
