//! The data plane as a whole: threads and a runtime, all started before any thread is restricted.
//!
//! A thread inherits Landlock's restrictions from the thread that starts it, so nothing that a restricted thread calls may start
//! a thread. [`DataPlane::start`] starts all threads:
//!
//! - *workers*, which write files;
//! - for each worker a *companion*, which reads and decodes the archive that the worker unpacks;
//! - [`BLOCKING_THREADS`] threads for other blocking tasks ([`DataPlane::run`]);
//! - the threads of a tokio runtime, on which stores do their input and output. These start the threads that the runtime adds for
//!   blocking work (name resolution).
//!
//! Memory: everything is charged to one [`Budget`]. Each worker has [`WORKER`](crate::job::WORKER) bytes of it from the start, for
//! its buffer and the smallest ring. While it unpacks, its ring grows to at most [`sink::RING`](crate::sink::RING) bytes, if the budget
//! allows. A codec also charges its window. The queue of a job takes about 700 bytes per item.

mod blocking;

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;

use tokio::runtime::Handle;

use crate::budget::Budget;
use crate::derive::Withheld;
use crate::error::Error;
use crate::job::workers::{Threads, Workers};
use crate::job::{Bounds, Job};
use crate::rate::Rate;
use crate::target::Target;
use foundation::units::Bytes;

use blocking::BlockingTasks;

/// The most workers.
pub const MOST_WORKERS: usize = 64;

/// The fewest workers by default.
const FEWEST_WORKERS: usize = 2;

/// How many threads run other blocking tasks.
pub const BLOCKING_THREADS: usize = 4;

/// The data plane. Cheap to clone. Its threads end when the last clone and the last [`Job`] are gone.
#[derive(Clone)]
pub struct DataPlane {
    workers: Arc<Workers>,
    blocking: Arc<BlockingThreads>,
}

/// The threads for other blocking tasks.
struct BlockingThreads {
    tasks: Arc<BlockingTasks>,
    threads: Threads,
}

impl DataPlane {
    /// Starts all threads of the data plane. The data plane starts no other threads later.
    ///
    /// `workers` is the number of workers; `None` for one per core (at least 2, at most [`MOST_WORKERS`]). `rate` limits the bytes per
    /// second of all reads together.
    ///
    /// # Errors
    /// Fails if a thread cannot be started.
    pub fn start(workers: Option<NonZeroUsize>, rate: Option<Bytes>) -> io::Result<Self> {
        Self::start_within(workers, rate, &Bounds::unlimited())
    }

    /// Starts the data plane within bounds. The workers get at most half of each bound; if that is too little, fewer are started.
    ///
    /// # Errors
    /// Fails if a thread cannot be started.
    pub fn start_within(
        workers: Option<NonZeroUsize>,
        rate: Option<Bytes>,
        bounds: &Bounds,
    ) -> io::Result<Self> {
        let cores = || std::thread::available_parallelism().map_or(FEWEST_WORKERS, NonZeroUsize::get);
        let count = workers.map_or_else(|| cores().max(FEWEST_WORKERS), NonZeroUsize::get).min(MOST_WORKERS);
        let rate = rate.map(|rate| Arc::new(Rate::new(rate)));
        let workers = Workers::start(count, rate, bounds)?;
        let blocking = BlockingThreads { tasks: Arc::default(), threads: Threads::default() };
        // If a thread does not start, dropping `blocking` ends the others.
        for index in 0..BLOCKING_THREADS {
            let tasks = Arc::clone(&blocking.tasks);
            blocking.threads.start(format!("transfer-run-{index}"), move || tasks.work())?;
        }
        Ok(Self { workers: Arc::new(workers), blocking: Arc::new(blocking) })
    }

    /// Returns the runtime on which stores do their input and output.
    pub fn runtime(&self) -> &Handle {
        self.workers.runtime()
    }

    /// Returns the limit of bytes per second, for [`Store::with_rate`](crate::store::Store::with_rate).
    pub fn rate(&self) -> Option<Arc<Rate>> {
        self.workers.rate.clone()
    }

    /// Returns the budget to which all memory of the data plane is charged.
    pub fn memory(&self) -> &Budget {
        &self.workers.memory
    }

    /// Returns how many workers there are.
    pub fn workers(&self) -> usize {
        self.workers.count
    }

    /// Makes a job that writes into `target`. It refuses the keys and texts that are `withheld`. If `report_all` is false, only
    /// failures become outcomes.
    pub fn job(&self, target: Arc<Target>, report_all: bool, withheld: Withheld) -> Job {
        Job::new(Arc::clone(&self.workers), target, report_all, withheld)
    }

    /// Runs `work`, which may block, on one of the threads for blocking tasks. `work` runs to its end even if the returned future is
    /// dropped.
    ///
    /// # Errors
    /// `Failed` if `work` panics, `Limit` if too many tasks wait already.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        self.blocking.tasks.run(work).await
    }
}

impl Drop for BlockingThreads {
    fn drop(&mut self) {
        self.tasks.stop();
        self.threads.join();
    }
}
