//! The threads that do the work.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::pool::{Pool, Work};
use super::unit::Task;
use super::{fetch, unpack};
use crate::sink::directories::Directories;
use crate::sink::{BUFFER, ring::Filling};

/// A thread that writes files.
pub(crate) struct Worker {
    /// Where its work comes from.
    pub(crate) pool: Arc<Pool>,
    /// Directories that it has open.
    pub(crate) directories: Directories,
    /// Room for what it reads, [`BUFFER`] bytes.
    pub(crate) buffer: Box<[u8]>,
    companion: SyncSender<Filling>,
}

/// A thread that reads and decodes for its worker.
pub(super) struct Companion {
    work: Receiver<Filling>,
}

/// A worker and its companion, which ends with it.
pub(super) fn pair(pool: Arc<Pool>, open: usize) -> (Worker, Companion) {
    let (companion, work) = sync_channel(1);
    let buffer = vec![0; BUFFER].into_boxed_slice();
    (Worker { pool, directories: Directories::of_at_most(open), buffer, companion }, Companion { work })
}

impl Companion {
    /// The life of the thread.
    pub(super) fn work(self) {
        for filling in self.work {
            filling.fill();
        }
    }
}

impl Worker {
    /// The life of the thread.
    pub(super) fn work(mut self) {
        while let Some(work) = self.next() {
            // What can panic is caught where it belongs to an item; this keeps the pool whole whatever happens.
            let _ = catch_unwind(AssertUnwindSafe(|| self.run(work)));
        }
    }

    /// Has the companion read ahead.
    pub(crate) fn read_ahead(&self, filling: Filling) {
        if let Err(lost) = self.companion.send(filling) {
            lost.0.lost();
        }
    }

    fn next(&mut self) -> Option<Work> {
        if let Some(work) = self.pool.try_next() {
            return Some(work);
        }
        // Nothing of a job that has ended is to stay open.
        self.directories.close();
        self.pool.next()
    }

    fn run(&mut self, work: Work) {
        match work {
            Work::Batch(batch) => unpack::write_batch(self, batch),
            Work::Unit(job, unit) => {
                let ended = catch_unwind(AssertUnwindSafe(|| match unit.task {
                    Task::Fetch(items) => fetch::all(self, &job, items),
                    Task::Unpack(item) => unpack::one(self, &job, *item),
                }));
                job.end();
                drop(ended);
            }
        }
    }
}
