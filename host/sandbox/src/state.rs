//! What belongs to one store: everything that a component can reach during one call.

use std::sync::Arc;

use replica::source::SourceFacts;
use replica::{Directories, SealRequests, Tablespace};
use tokio_util::sync::CancellationToken;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{
    Deterministic, HostMonotonicClock, HostWallClock, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView,
};

use crate::files::{Files, Step};
use crate::limits::MemoryBudget;
use crate::output::Output;
use crate::plane::{Ended, Plane};
use crate::reporter::Reporter;

/// Things that a component may hold of the host at once: files, streams, pollables.
const RESOURCES: usize = 1024;
/// What a component may ask of random bytes in one call.
const RANDOM_BYTES: u64 = 64 << 10;

/// Everything that one run of a component can reach.
pub(crate) struct State {
    pub(crate) wasi: WasiCtx,
    pub(crate) table: ResourceTable,
    pub(crate) memory: MemoryBudget,
    pub(crate) files: Files,
    pub(crate) reporter: Reporter,
    pub(crate) cancel: CancellationToken,
    pub(crate) job: Job,
    stdout: Output,
    stderr: Output,
}

/// What the host knows and takes down for the interfaces of the contract.
#[derive(Default)]
pub(crate) struct Job {
    /// Which call this is; none for `describe`.
    pub(crate) step: Option<Step>,
    /// The operator's directories.
    pub(crate) directories: Option<Arc<Directories>>,
    /// What the source told.
    pub(crate) source: Option<SourceFacts>,
    /// The major version of the plan, in `create-replica`.
    pub(crate) postgresql_major: Option<u32>,
    /// The tablespaces of the plan, in `create-replica`.
    pub(crate) tablespaces: Vec<Tablespace>,
    /// What the method asks the host to do at the seal.
    pub(crate) filled: SealRequests,
    /// Its stores, keys and jobs; none for `describe`, and for a component that imports none of them.
    pub(crate) plane: Option<Plane>,
}

impl State {
    /// Ends what the component left at work. Nothing of it writes any more when this returns; to drop the answer may take long.
    pub(crate) async fn end(&mut self) -> Ended {
        match &mut self.job.plane {
            Some(plane) => plane.end(&self.reporter).await,
            None => Vec::new(),
        }
    }

    /// For `plan` and `create-replica`: real clocks and random numbers.
    pub(crate) fn new(
        files: Files,
        memory: u64,
        reporter: Reporter,
        cancel: CancellationToken,
        job: Job,
    ) -> Self {
        Self::with(WasiCtxBuilder::new(), files, memory, reporter, cancel, job)
    }

    /// For `describe`: the same at every run.
    pub(crate) fn fixed(files: Files, memory: u64, reporter: Reporter) -> Self {
        let mut wasi = WasiCtxBuilder::new();
        let every_byte = || Deterministic::new((0..=u8::MAX).collect());
        wasi.wall_clock(Stopped)
            .monotonic_clock(Stopped)
            .secure_random(every_byte())
            .insecure_random(every_byte())
            .insecure_random_seed(0);
        Self::with(wasi, files, memory, reporter, CancellationToken::new(), Job::default())
    }

    fn with(
        mut wasi: WasiCtxBuilder,
        files: Files,
        memory: u64,
        reporter: Reporter,
        cancel: CancellationToken,
        job: Job,
    ) -> Self {
        let (stdout, stderr) =
            (Output::new(reporter.clone(), "stdout"), Output::new(reporter.clone(), "stderr"));
        // Nothing else is set: no arguments, no environment, no standard input, no address that may be used. The
        // thread is the run's own, so it may block.
        wasi.allow_blocking_current_thread(true)
            .max_random_size(RANDOM_BYTES)
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false)
            .stdout(stdout.clone())
            .stderr(stderr.clone());
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES);
        Self {
            wasi: wasi.build(),
            table,
            memory: MemoryBudget::new(memory),
            files,
            reporter,
            cancel,
            job,
            stdout,
            stderr,
        }
    }

    /// The last lines on standard error.
    pub(crate) fn last_lines(&self) -> Vec<String> {
        self.stderr.last_lines()
    }

    /// Tells what was held back: lines without an end, the last progress.
    pub(crate) fn flush(&self) {
        self.stdout.flush();
        self.stderr.flush();
        self.reporter.flush();
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

/// A clock that stands still.
struct Stopped;

impl HostWallClock for Stopped {
    fn resolution(&self) -> std::time::Duration {
        std::time::Duration::from_nanos(1)
    }

    fn now(&self) -> std::time::Duration {
        std::time::Duration::ZERO
    }
}

impl HostMonotonicClock for Stopped {
    fn resolution(&self) -> u64 {
        1
    }

    fn now(&self) -> u64 {
        0
    }
}
