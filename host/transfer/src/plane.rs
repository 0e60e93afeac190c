//! The pool: threads and a runtime, all made before any thread is restricted.
//!
//! A thread inherits Landlock's restrictions from the thread that starts it, so nothing that a restricted thread calls may start
//! one. [`DataPlane::start`] starts all of them:
//!
//! - *workers*, which write files;
//! - for each worker a *companion*, which reads and decodes the archive that the worker unpacks;
//! - [`ERRANDS`] threads for what else may block ([`DataPlane::run`]);
//! - the threads of a tokio runtime, on which stores do their input and output. Threads that the runtime adds for what blocks
//!   (name resolution) are started by these.
//!
//! Memory: everything is charged to one [`Budget`]. A worker has [`WORKER`] bytes of it from the start, for its buffer and the least
//! that a ring needs; while it unpacks, a ring of up to [`sink::RING`](crate::sink::RING) bytes, as far as there is room; and what a
//! codec needs for its window. The queue of a job takes about 700 bytes an item.

mod errands;
mod pool;
mod worker;

use std::io;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle, Runtime};

use crate::budget::{Budget, Charge};
use crate::codec::BESIDES;
use crate::error::Error;
use crate::rate::Rate;
use crate::sink::ring::FEWEST_BUFFERS;
use crate::sink::{BUFFER, directories};
use crate::store::this_thread_may_block;
use crate::units::Bytes;

use errands::Errands;
pub(crate) use errands::panicked;
pub(crate) use pool::{Batch, Pool};
pub(crate) use worker::Worker;

/// The most workers.
pub const MOST_WORKERS: usize = 64;

/// The fewest workers where nothing is said.
const FEWEST_WORKERS: usize = 2;

/// How many threads do what may block besides.
pub const ERRANDS: usize = 4;

/// How many threads the runtime has.
const RUNTIME_THREADS: usize = 2;

/// The pool. Cheap to clone; its threads end when the last clone and the last [`Job`](crate::job::Job) are gone.
#[derive(Clone)]
pub struct DataPlane {
    inner: Arc<Plane>,
}

struct Plane {
    memory: Budget,
    pool: Arc<Pool>,
    errands: Arc<Errands>,
    /// None once it is dropped.
    runtime: Option<Runtime>,
    rate: Option<Arc<Rate>>,
    workers: usize,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// For what the workers hold all the time.
    _charges: (Charge, Charge),
}

/// What is held for one run at most.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Bytes of memory.
    pub memory: Budget,
    /// Open files and connections.
    pub files: Budget,
}

impl Bounds {
    /// None that anybody would reach.
    pub fn unlimited() -> Self {
        Self { memory: Budget::unlimited(), files: Budget::files(u64::MAX) }
    }
}

/// What a worker holds, in bytes: its buffer, the fewest buffers of a ring, a decoder without its window, the names of its open
/// directories.
pub const WORKER: u64 = ((1 + FEWEST_BUFFERS) * BUFFER) as u64 + BESIDES + (256 << 10);

/// What a worker has open besides directories: what it reads, what it writes, and what it looks at.
const WORKER_FILES: u64 = 4;

impl DataPlane {
    /// Starts every thread that the data plane will ever have of its own.
    ///
    /// `workers`: none for as many as there are cores (at least 2, at most [`MOST_WORKERS`]). `rate`: bytes a second over all
    /// that is read.
    ///
    /// # Errors
    /// Where a thread cannot be started.
    pub fn start(workers: Option<NonZeroUsize>, rate: Option<Bytes>) -> io::Result<Self> {
        Self::start_within(workers, rate, &Bounds::unlimited())
    }

    /// The same within bounds: workers get half of each at most, and are fewer where that is too little for as many.
    ///
    /// # Errors
    /// Where a thread cannot be started.
    pub fn start_within(
        workers: Option<NonZeroUsize>,
        rate: Option<Bytes>,
        bounds: &Bounds,
    ) -> io::Result<Self> {
        let cores = || std::thread::available_parallelism().map_or(FEWEST_WORKERS, NonZeroUsize::get);
        let workers =
            workers.map_or_else(|| cores().max(FEWEST_WORKERS), NonZeroUsize::get).min(MOST_WORKERS);
        let fit = |half: u64, each: u64| usize::try_from(half / each).unwrap_or(usize::MAX);
        let files = bounds.files.most() / 2;
        let least = WORKER_FILES + directories::FEWEST_OPEN as u64;
        let workers = workers.min(fit(bounds.memory.most() / 2, WORKER)).min(fit(files, least)).max(1);
        let each = (files / workers as u64).saturating_sub(WORKER_FILES);
        let open = fit(each, 1).clamp(directories::FEWEST_OPEN, directories::MOST_OPEN);
        let charges = (
            bounds.memory.charge_anyway(WORKER * workers as u64),
            bounds.files.charge_anyway((WORKER_FILES + open as u64) * workers as u64),
        );
        let runtime = Builder::new_multi_thread()
            .worker_threads(RUNTIME_THREADS)
            .thread_name("transfer-io")
            .enable_all()
            .build()?;
        let plane = Plane {
            memory: bounds.memory.clone(),
            pool: Arc::default(),
            errands: Arc::default(),
            runtime: Some(runtime),
            rate: rate.map(|rate| Arc::new(Rate::new(rate))),
            workers,
            threads: Mutex::default(),
            _charges: charges,
        };
        // Where one does not start, dropping `plane` ends the others.
        for index in 0..workers {
            let (worker, companion) = worker::pair(Arc::clone(&plane.pool), open);
            plane.thread(format!("transfer-{index}"), move || worker.work())?;
            plane.thread(format!("transfer-{index}-in"), move || companion.work())?;
        }
        for index in 0..ERRANDS {
            let errands = Arc::clone(&plane.errands);
            plane.thread(format!("transfer-run-{index}"), move || errands.work())?;
        }
        Ok(Self { inner: Arc::new(plane) })
    }

    /// The runtime on which stores do their input and output.
    pub fn runtime(&self) -> &Handle {
        self.inner.runtime()
    }

    /// What bounds the bytes a second, for [`Store::with_rate`](crate::store::Store::with_rate).
    pub fn rate(&self) -> Option<Arc<Rate>> {
        self.inner.rate.clone()
    }

    /// What everything that it holds in memory is charged to.
    pub fn memory(&self) -> &Budget {
        &self.inner.memory
    }

    /// How many files are written at once.
    pub fn workers(&self) -> usize {
        self.inner.workers
    }

    /// Runs what may block (reading a small object through a pipeline, say) on one of the pool's threads, other than the
    /// workers. It runs to its end even where nobody waits for it any more.
    ///
    /// # Errors
    /// `Failed` where it panics, `Limit` where thousands wait already.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        self.inner.errands.run(work).await
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.inner.pool
    }
}

impl Plane {
    fn runtime(&self) -> &Handle {
        match &self.runtime {
            Some(runtime) => runtime.handle(),
            None => unreachable!("only `drop` takes the runtime away"),
        }
    }

    fn thread(&self, name: String, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let work = move || {
            this_thread_may_block();
            work();
        };
        let thread = std::thread::Builder::new().name(name).spawn(work)?;
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        Ok(())
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.pool.stop();
        self.errands.stop();
        let threads = self.threads.get_mut().unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            // What a thread panicked with was told where it happened.
            let _ = thread.join();
        }
        if let Some(runtime) = self.runtime.take() {
            // Allowed on a thread of a runtime too, where waiting for it would not be.
            runtime.shutdown_background();
        }
    }
}
