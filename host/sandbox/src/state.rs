//! The state of one wasmtime store: everything that a component can reach during one call.

use std::sync::Arc;
use std::time::Duration;

use ::transfer::chain::Chain;
use replica::source::SourceFacts;
use replica::{Directories, SealRequests, Tablespace};
use tokio_util::sync::CancellationToken;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{
    Deterministic, HostMonotonicClock, HostWallClock, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView,
};

use crate::Grants;
use crate::capability::{CAPABILITIES, Connections, Http, ProgramCalls, Sockets};
use crate::files::{Files, Step};
use crate::limits::{CpuBudget, MemoryBudget};
use crate::output::Output;
use crate::plane::{Plane, WithdrawnJobs};
use crate::reporter::Reporter;

/// How many resources of the host a component may hold at once: files, streams, pollables.
const RESOURCES: usize = 1024;
/// How many random bytes a component may request in one call.
const RANDOM_BYTES: u64 = 64 << 10;

/// Everything that one run of a component can reach.
pub(crate) struct State {
    pub(crate) wasi: WasiCtx,
    pub(crate) table: ResourceTable,
    pub(crate) memory: MemoryBudget,
    pub(crate) cpu: CpuBudget,
    pub(crate) files: Files,
    pub(crate) reporter: Reporter,
    pub(crate) cancel: CancellationToken,
    pub(crate) job: Job,
    pub(crate) sockets: Sockets,
    pub(crate) http: Http,
    stdout: Output,
    stderr: Output,
}

/// The data that the host functions of the contract read and write during one call.
#[derive(Default)]
pub(crate) struct Job {
    /// The step that this call belongs to; `None` for `describe`.
    pub(crate) step: Option<Step>,
    /// The operator's directories.
    pub(crate) directories: Option<Arc<Directories>>,
    /// The facts that the host read from the source.
    pub(crate) source: Option<SourceFacts>,
    /// PostgreSQL's major version according to the plan; set only in `create-replica`.
    pub(crate) postgresql_major: Option<u32>,
    /// The tablespaces in the plan; set only in `create-replica`.
    pub(crate) tablespaces: Vec<Tablespace>,
    /// What the method requests for the seal.
    pub(crate) filled: SealRequests,
    /// Sends orders to run native programs; `None` for `describe`.
    pub(crate) programs: Option<ProgramCalls>,
    /// The stores, keys and jobs of the run; `None` for `describe`, and for a component that imports none of their interfaces.
    pub(crate) plane: Option<Plane>,
    /// The chains of backups that the component made.
    pub(crate) chains: Vec<Arc<Chain>>,
    /// The connections of the step; `None` for `describe`.
    pub(crate) network: Option<Connections>,
}

impl State {
    /// Returns what the host read from the source, and records that `function` asked for it.
    pub(crate) fn source_facts(&self, function: &'static str) -> Option<&SourceFacts> {
        self.reporter.call(None, function, String::new).ok();
        self.job.source.as_ref()
    }

    /// Ends the jobs that the component left running. When this function returns, none of these jobs writes any more. Dropping the
    /// returned jobs may take a long time.
    pub(crate) async fn end(&mut self) -> WithdrawnJobs {
        match &mut self.job.plane {
            Some(plane) => plane.end(&self.reporter).await,
            None => Vec::new(),
        }
    }

    /// Makes the state for `plan` and `create-replica`, with real clocks and random numbers, and with what was granted.
    pub(crate) fn new(
        files: Files,
        grants: &Grants,
        reporter: Reporter,
        cancel: CancellationToken,
        job: Job,
    ) -> Self {
        let mut wasi = WasiCtxBuilder::new();
        for capability in CAPABILITIES {
            capability.set_up(grants, &mut wasi);
        }
        Self::with(wasi, files, grants.memory.0, reporter, cancel, job)
    }

    /// Sets the budget of processor time.
    pub(crate) fn within(self, cpu: CpuBudget) -> Self {
        Self { cpu, ..self }
    }

    /// Makes the state for `describe`, with clocks and random numbers that are the same in every run.
    pub(crate) fn fixed(files: Files, memory: u64, reporter: Reporter) -> Self {
        let mut wasi = WasiCtxBuilder::new();
        let every_byte = || Deterministic::new((0..=u8::MAX).collect());
        wasi.wall_clock(FixedClock)
            .monotonic_clock(FixedClock)
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
        // Only the capabilities change these defaults: no arguments, no standard input, and no address to connect to. The thread may
        // block because it serves only this run.
        wasi.allow_blocking_current_thread(true)
            .max_random_size(RANDOM_BYTES)
            .allow_udp(false)
            .allow_ip_name_lookup(false)
            .stdout(stdout.clone())
            .stderr(stderr.clone());
        match &job.network {
            Some(connections) => connections.allow(&mut wasi),
            None => drop(wasi.allow_tcp(false)),
        }
        let http = Http::new(job.network.clone());
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES);
        Self {
            wasi: wasi.build(),
            table,
            memory: MemoryBudget::new(memory),
            cpu: CpuBudget::starting_now(None, Duration::ZERO),
            files,
            reporter,
            cancel,
            job,
            sockets: Sockets::default(),
            http,
            stdout,
            stderr,
        }
    }

    /// Returns the last lines that the component printed to standard error.
    pub(crate) fn last_lines(&self) -> Vec<String> {
        self.stderr.last_lines()
    }

    /// Reports lines without a line end and the latest progress.
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
struct FixedClock;

impl HostWallClock for FixedClock {
    fn resolution(&self) -> Duration {
        Duration::from_nanos(1)
    }

    fn now(&self) -> Duration {
        Duration::ZERO
    }
}

impl HostMonotonicClock for FixedClock {
    fn resolution(&self) -> u64 {
        1
    }

    fn now(&self) -> u64 {
        0
    }
}
