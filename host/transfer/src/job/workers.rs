//! The threads of the jobs, all started before any thread is restricted.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle, Runtime};

use super::pool::Pool;
use super::worker;
use crate::budget::{Budget, Charge};
use crate::codec::DECODER_OVERHEAD;
use crate::pages;
use crate::rate::Rate;
use crate::sink::ring::FEWEST_BUFFERS;
use crate::sink::{BUFFER, directories};
use crate::store::this_thread_may_block;

/// The memory of a worker in bytes: its buffer, the fewest buffers that a ring has, a decoder without its window, the names of its
/// open directories, and the pages that have arrived in part of a large file and of a small file that is written meanwhile.
pub const WORKER: u64 =
    ((1 + FEWEST_BUFFERS) * BUFFER + 2 * pages::LARGEST) as u64 + DECODER_OVERHEAD + (256 << 10);

/// How many files a worker has open in addition to directories: the files that it reads, writes and compares.
const WORKER_FILES: u64 = 4;

/// The number of threads of the runtime.
const RUNTIME_THREADS: usize = 2;

/// The limits of one run.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Bytes of memory.
    pub memory: Budget,
    /// Open files and connections.
    pub files: Budget,
}

impl Bounds {
    /// Returns limits that no run reaches.
    pub fn unlimited() -> Self {
        Self { memory: Budget::unlimited(), files: Budget::files(u64::MAX) }
    }
}

/// The workers, their companions, and the runtime on which stores do their input and output. The threads end when this is
/// dropped.
pub(crate) struct Workers {
    pub(crate) memory: Budget,
    pub(crate) pool: Arc<Pool>,
    pub(crate) rate: Option<Arc<Rate>>,
    pub(crate) count: usize,
    /// `None` only within `drop`.
    runtime: Option<Runtime>,
    threads: Threads,
    /// The charges for the permanent memory and open files of the workers.
    _charges: (Charge, Charge),
}

/// Threads. Their owner tells them to end and then joins them.
#[derive(Default)]
pub(crate) struct Threads(Mutex<Vec<JoinHandle<()>>>);

impl Workers {
    /// Starts at most `count` workers. They get at most half of each bound; if that is too little, fewer are started.
    ///
    /// # Errors
    /// Fails if a thread cannot be started.
    pub(crate) fn start(count: usize, rate: Option<Arc<Rate>>, bounds: &Bounds) -> io::Result<Self> {
        let fit = |half: u64, each: u64| usize::try_from(half / each).unwrap_or(usize::MAX);
        let files = bounds.files.most() / 2;
        let least = WORKER_FILES + directories::FEWEST_OPEN as u64;
        let count = count.min(fit(bounds.memory.most() / 2, WORKER)).min(fit(files, least)).max(1);
        let each = (files / count as u64).saturating_sub(WORKER_FILES);
        let open = fit(each, 1).clamp(directories::FEWEST_OPEN, directories::MOST_OPEN);
        let charges = (
            bounds.memory.charge_anyway(WORKER * count as u64),
            bounds.files.charge_anyway((WORKER_FILES + open as u64) * count as u64),
        );
        let runtime = Builder::new_multi_thread()
            .worker_threads(RUNTIME_THREADS)
            .thread_name("transfer-io")
            .enable_all()
            .build()?;
        let workers = Self {
            memory: bounds.memory.clone(),
            pool: Arc::default(),
            rate,
            count,
            runtime: Some(runtime),
            threads: Threads::default(),
            _charges: charges,
        };
        // If a thread does not start, dropping `workers` ends the others.
        for index in 0..count {
            let (worker, companion) = worker::pair(Arc::clone(&workers.pool), open);
            workers.threads.start(format!("transfer-{index}"), move || worker.work())?;
            workers.threads.start(format!("transfer-{index}-in"), move || companion.work())?;
        }
        Ok(workers)
    }

    /// Returns the runtime on which stores do their input and output.
    pub(crate) fn runtime(&self) -> &Handle {
        match &self.runtime {
            Some(runtime) => runtime.handle(),
            None => unreachable!("only `drop` takes the runtime away"),
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.pool.stop();
        self.threads.join();
        if let Some(runtime) = self.runtime.take() {
            // The thread that drops this may belong to a runtime; such a thread must not block until another runtime ends.
            runtime.shutdown_background();
        }
    }
}

impl Threads {
    /// Starts a thread on which stores may block.
    ///
    /// # Errors
    /// Fails if the system cannot start a thread.
    pub(crate) fn start(&self, name: String, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let work = move || {
            this_thread_may_block();
            work();
        };
        let thread = std::thread::Builder::new().name(name).spawn(work)?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        Ok(())
    }

    /// Waits until all threads have ended.
    pub(crate) fn join(&mut self) {
        let threads = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            // If the thread panicked, the panic hook has printed that already.
            let _ = thread.join();
        }
    }
}
