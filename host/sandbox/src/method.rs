//! A component as a replica method.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use foundation::landlock::{ABI_OF_TCP, Allowed, Domain};
use replica::method::ComponentFacts;
use replica::usage::{Amount, ComponentUsage, SharedUsage, Time};
use replica::{
    Directories, Event, Failure, Finding, Level, Method, Outcome, Plan, Refusal, Request, Rule, Run,
    SealRequests,
};
use tokio::runtime::Handle;
use tokio::sync::OnceCell;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_util::sync::CancellationToken;
use transfer::budget::Budget;
use transfer::job::Bounds;
use wasmtime::Store;

use crate::calls::{Calls, WaitingRecords, weight};
use crate::capability::{
    CAPABILITIES, Connections, NetworkUse, ProgramCalls, ProgramRunner, Remedies, Tls, check_needs, network,
    programs, uses_http,
};
use crate::component::{Loaded, refuse_if_others_may_change};
use crate::contracts;
use crate::failure::{self, Circumstances};
use crate::files::{Access, Files, Place, Step};
use crate::guest_failure::GuestFailure;
use crate::last_error;
use crate::limits::CpuBudget;
use crate::options::{self, Setting};
use crate::plane::{self, Plane};
use crate::reporter::{Logged, Reporter};
use crate::run::{self, Left};
use crate::sandbox::Sandbox;
use crate::state::{Job, State};
use crate::thread::{self, HUNG, Lost, WritesEnded};
use crate::{Grants, MethodSettings, overlap, plan};

/// How long a component may take to end by itself after it is asked to stop. Together with a tick of the epoch this stays within the 250 ms
/// in which a cancel must be noticed.
const GRACE: Duration = Duration::from_millis(150);

/// A method that is a component. Made by [`Sandbox::method`].
pub struct ComponentMethod {
    sandbox: Sandbox,
    settings: Arc<MethodSettings>,
    remedies: Remedies,
    network: NetworkUse,
    prepared: OnceCell<Arc<Prepared>>,
}

/// A component whose options and needs were checked. Later changes of its file have no effect.
struct Prepared {
    loaded: Arc<Loaded>,
    settings: Vec<Setting>,
}

impl ComponentMethod {
    pub(crate) fn new(sandbox: Sandbox, settings: MethodSettings) -> Self {
        let remedies = Remedies::new(&settings.name, &settings.grants);
        let network = NetworkUse::new(&settings.grants, Arc::clone(&sandbox.inner.settings.resolver));
        Self { sandbox, settings: Arc::new(settings), remedies, network, prepared: OnceCell::new() }
    }

    async fn prepared(&self) -> Result<Arc<Prepared>, Refusal> {
        let prepare = || async {
            let (sandbox, settings) = (self.sandbox.clone(), Arc::clone(&self.settings));
            let remedies = self.remedies.clone();
            let cancel = CancellationToken::new();
            // If this future is dropped, nobody waits for the compiler any more, so end it.
            let _ends_with_this_call = cancel.clone().drop_guard();
            let prepared =
                tokio::task::spawn_blocking(move || prepare(&sandbox, &settings, &remedies, &cancel)).await;
            prepared.unwrap_or_else(|error| {
                Err(Refusal::new(
                    Rule::Component,
                    format!("a fault in the host while it loaded the component: {error}"),
                ))
            })
        };
        self.prepared.get_or_try_init(prepare).await.cloned()
    }

    /// Calls the component on a new thread. Until the call ends, passes the events of the call on to `run`.
    async fn call<T: Send + 'static>(
        &self,
        step: Step,
        request: &Request,
        plan: Option<&Plan>,
        run: &Run,
        call: impl AsyncFnOnce(
            &Loaded,
            &mut Store<State>,
            &[Setting],
        ) -> wasmtime::Result<Result<T, GuestFailure>>
        + Send
        + 'static,
    ) -> Result<(T, Left), Failure> {
        let prepared =
            self.prepared().await.map_err(|refusal| Failure::new(Outcome::Rejected, refusal.message))?;
        if run.is_cancelled() {
            return Err(Failure::cancelled());
        }
        // Checked again, because directories and links may have changed since the preflight.
        overlap::refuse(&request.directories, &self.settings.grants)
            .map_err(|refusal| Failure::new(Outcome::Rejected, refusal.message))?;
        let cancel = run.cancellation().child_token();
        // If this future is dropped, nobody waits for the run any more, so cancel it.
        let _ends_with_this_call = cancel.clone().drop_guard();
        let (events, received) = unbounded_channel();
        let (quiet, waiting) = (WritesEnded::default(), Arc::new(WaitingRecords::default()));
        let earlier = run.usage().get().unwrap_or_default();
        let logged = Logged { lines: earlier.log_lines.used, bytes: earlier.log_bytes.used };
        let redactor = self.sandbox.inner.settings.redactor.clone();
        let mut reporter = Reporter::new(&self.settings.name, events)
            .noting(run.activity())
            .within(self.settings.grants.log, logged)
            .redacting(redactor.clone());
        if run.takes_calls() {
            reporter = reporter.recording(Calls::new(step.of_an_attempt(), redactor, &waiting));
        }
        let directories = Arc::clone(&request.directories);
        let (calls, orders) = ProgramCalls::new(request.context.clone(), Arc::clone(&directories));
        let runner = ProgramRunner {
            step,
            directories,
            directory: request.directory.clone(),
            disk: self.settings.grants.disk,
            require_landlock: self.sandbox.inner.settings.require_landlock,
            guard: self.sandbox.inner.settings.guard.clone(),
            run: run.clone().with_cancellation(cancel.clone()),
            reporter: reporter.clone(),
        };
        let work = Work {
            sandbox: self.sandbox.clone(),
            prepared,
            places: places(step, &request.directories, &self.settings.grants),
            step,
            settings: Arc::clone(&self.settings),
            remedies: self.remedies.clone(),
            network: self.network.clone(),
            runtime: Handle::current(),
            reporter,
            usage: run.usage().clone(),
            earlier,
            cancel: cancel.clone(),
            directories: Arc::clone(&request.directories),
            job: Job {
                step: Some(step),
                directories: Some(Arc::clone(&request.directories)),
                source: request.source.as_ref().and_then(|source| source.facts.as_ref().ok()).cloned(),
                postgresql_major: plan.and_then(|plan| plan.postgresql_major),
                tablespaces: plan.map(|plan| plan.tablespaces.clone()).unwrap_or_default(),
                filled: SealRequests::default(),
                programs: Some(calls),
                plane: None,
                network: None,
                chains: Vec::new(),
            },
            quiet: quiet.clone(),
        };
        let thread =
            thread::run(&self.settings.name, &cancel, HUNG, &quiet, move || work.on_this_thread(call));
        // Ending a native program takes time, so the program may outlive the call that started it. Serve until both have ended.
        let thread_ended = CancellationToken::new();
        let thread = async {
            let ended = thread.await;
            thread_ended.cancel();
            ended
        };
        let work = async { tokio::join!(thread, runner.serve(orders, &thread_ended)).0 };
        let ended = pass_events_on_until(run, received, &waiting, work).await;
        let ended = ended.map_err(|lost| {
            let failure = Failure::new(Outcome::Failed, lost.to_string());
            match (lost, step) {
                (Lost::Hung, Step::Create) => failure.may_still_write(),
                (Lost::Hung, Step::Plan) | (Lost::Ending | Lost::Panicked(_) | Lost::NotStarted(_), _) => {
                    failure
                }
            }
        })?;
        match ended {
            // In a cancelled run the failure is the cancellation, whatever else failed. The loop knows the reason.
            Err(_) if run.is_cancelled() => Err(Failure::cancelled()),
            ended => ended,
        }
    }
}

/// Passes the events in `received` on to `run` until `ends` has ended and no event is left.
async fn pass_events_on_until<T>(
    run: &Run,
    mut received: UnboundedReceiver<Event>,
    waiting: &WaitingRecords,
    ends: impl Future<Output = T>,
) -> T {
    let pass_on = |event| {
        let record = if let Event::Called { call, .. } = &event { weight(call) } else { 0 };
        run.emit(event);
        if record > 0 {
            waiting.take(record);
        }
    };
    let mut ends = std::pin::pin!(ends);
    let ended = loop {
        tokio::select! {
            biased;
            Some(event) = received.recv() => pass_on(event),
            ended = &mut ends => break ended,
        }
    };
    while let Ok(event) = received.try_recv() {
        pass_on(event);
    }
    ended
}

fn prepare(
    sandbox: &Sandbox,
    settings: &MethodSettings,
    remedies: &Remedies,
    cancel: &CancellationToken,
) -> Result<Arc<Prepared>, Refusal> {
    refuse_if_others_may_change(&settings.component)?;
    let loaded = sandbox.load(&settings.component, cancel)?;
    let description = &loaded.inspection.description;
    let (source, version) = (&settings.component, &description.version);
    tracing::info!("method {}: {} {version}, {source}", settings.name, description.name);
    let checked = options::check(settings, &description.options)?;
    check_needs(description, &checked, &settings.grants, remedies)?;
    for capability in CAPABILITIES {
        capability.check_grant(&settings.grants, remedies, &sandbox.inner.settings.redactor)?;
    }
    Ok(Arc::new(Prepared { loaded, settings: checked }))
}

/// Returns every directory that a step may access.
fn places(step: Step, directories: &Directories, grants: &Grants) -> Vec<Place> {
    CAPABILITIES.iter().flat_map(|capability| capability.places(step, directories, grants)).collect()
}

/// Returns whether a component that imports this interface may use the data plane.
fn uses_data_plane(import: &str) -> bool {
    let uses =
        |name| CAPABILITIES.iter().any(|capability| capability.data_plane_interfaces().contains(&name));
    contracts::interface(import).is_some_and(uses)
}

/// Everything that the thread of one run needs.
struct Work {
    sandbox: Sandbox,
    prepared: Arc<Prepared>,
    places: Vec<Place>,
    step: Step,
    settings: Arc<MethodSettings>,
    remedies: Remedies,
    network: NetworkUse,
    /// The host's runtime, whose threads are not restricted.
    runtime: Handle,
    reporter: Reporter,
    /// What all calls of the attempt used so far.
    usage: SharedUsage,
    /// What the earlier calls of the attempt used.
    earlier: ComponentUsage,
    cancel: CancellationToken,
    directories: Arc<Directories>,
    job: Job,
    quiet: WritesEnded,
}

impl Work {
    fn on_this_thread<T>(
        mut self,
        call: impl AsyncFnOnce(
            &Loaded,
            &mut Store<State>,
            &[Setting],
        ) -> wasmtime::Result<Result<T, GuestFailure>>,
    ) -> Result<(T, Left), Failure> {
        let settings = Arc::clone(&self.settings);
        let grants = &settings.grants;
        let bounds = bounds(grants);
        let files = Files::open(self.step, &self.places, grants.disk, self.remedies.clone())
            .map_err(|error| failure::host_failure("cannot give the method its directories", &error))?
            .within(bounds.clone());
        let quota = files.quota.clone();
        // The data plane's threads must start before Landlock restricts this thread. They end when the plane is dropped.
        self.job.plane = self.plane(&files)?;
        self.job.network = Some(self.connections()?);
        for missing in files.missing() {
            self.reporter.host(
                Level::Debug,
                &format!("{missing} does not exist, so the method cannot read anything there"),
            );
        }
        self.reporter.host(
            Level::Debug,
            &restrict_to(&self.places, grants, self.sandbox.inner.settings.require_landlock)?,
        );
        let plane = self.job.plane.as_ref().map(|plane| (plane.workers() as u64, plane.meter().clone()));
        let (workers, meter) = plane.unwrap_or_default();
        let cpu = CpuBudget::starting_now(settings.cpu, self.earlier.cpu.used);
        let state =
            State::new(files, grants, self.reporter.clone(), self.cancel.clone(), self.job).within(cpu);
        let stop = || async {
            self.cancel.cancelled().await;
            tokio::time::sleep(GRACE).await;
        };
        let (prepared, engine) = (&self.prepared, &self.sandbox.inner.host.engine);
        let (ended, left) = run::call(engine, state, &self.quiet, stop, async |store: &mut Store<State>| {
            call(&prepared.loaded, store, &prepared.settings).await
        });
        let Logged { lines, bytes } = self.reporter.logged();
        self.usage.add(&ComponentUsage {
            cpu: Time { used: left.cpu, limit: settings.cpu },
            memory: Amount::of(left.memory, grants.memory.0),
            host_memory: Amount::of(bounds.memory.peak(), bounds.memory.most()),
            open_files: Amount::of(bounds.files.peak(), bounds.files.most()),
            workers: Amount::of(workers, grants.workers.map(|workers| workers.get() as u64)),
            log_lines: Amount::of(lines - self.earlier.log_lines.used, grants.log.lines),
            log_bytes: Amount::of(bytes - self.earlier.log_bytes.used, grants.log.bytes.0),
            written_bytes: quota.bytes(),
            written_files: quota.files(),
            read_bytes: Amount::of(meter.bytes(), None),
            requests: Amount::of(meter.requests(), None),
            network_bytes: self.network.bytes(),
            connection_bytes: self.network.connection_bytes(),
            denials: Amount::of(self.reporter.denied_calls(), None),
            programs: BTreeMap::new(),
        });
        let reached = files_reached(&bounds, grants);
        if let Some(reached) = &reached {
            self.reporter.host(Level::Warn, reached);
        }
        let circumstances = Circumstances {
            full: left.full.clone(),
            reached,
            denials: self.reporter.denials(),
            cancelled: self.cancel.is_cancelled(),
            last_error: last_error::find(&left.stderr),
        };
        match ended {
            Ok(Some(Ok(value))) => Ok((value, left)),
            Ok(Some(Err(ended))) => Err(failure::component_failure(ended.printable(), &circumstances)),
            Ok(None) => Err(Failure::cancelled()),
            Err(error) => Err(failure::sandbox_failure(&error, &circumstances)),
        }
    }
}

impl Work {
    /// Prepares the connections of this run. Reads the machine's certificate authorities if the component may use them.
    fn connections(&self) -> Result<Connections, Failure> {
        let imports = &self.prepared.loaded.inspection.imports;
        let tls = if imports.iter().any(|import| uses_http(import)) {
            Tls::of(&self.settings.grants)
                .map_err(|error| failure::host_failure("cannot prepare TLS for the method", &error))?
        } else {
            Tls::default()
        };
        let (network, remedies) = (self.network.clone(), self.remedies.clone());
        Ok(Connections::new(network, remedies, self.reporter.clone(), self.runtime.clone(), tls))
    }

    /// Starts the data plane of this run; `None` if the component cannot use one.
    fn plane(&self, files: &Files) -> Result<Option<Plane>, Failure> {
        let imports = &self.prepared.loaded.inspection.imports;
        if !imports.iter().any(|import| uses_data_plane(import)) {
            return Ok(None);
        }
        let target = match self.step {
            Step::Plan => None,
            Step::Create => {
                let target = plane::target(&self.directories, &self.job.tablespaces, &files.quota);
                Some(target.map_err(|error| failure::host_failure("cannot write for the method", &error))?)
            }
        };
        let redactor = self.sandbox.inner.settings.redactor.clone();
        let (grants, remedies) = (self.settings.grants.clone(), self.remedies.clone());
        let bounds = files.bounds.clone();
        Plane::start(&Arc::new(grants), remedies, redactor, self.cancel.clone(), target, bounds)
            .map(|plane| Some(plane.with_reporter(self.reporter.clone())))
            .map_err(|error| failure::host_failure("cannot start the threads of the data plane", &error))
    }
}

/// How many open files are reserved for the host's own work, such as the seal and the log. Reserves at most a quarter of the limit.
const RESERVED_FILES: u64 = 64;

/// Returns the bounds of one run. The number of open files stays below the program's limit (`ulimit -n`), so that the host can still open
/// other files.
fn bounds(grants: &Grants) -> Bounds {
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    let open = std::fs::read_dir("/proc/self/fd").map_or(RESERVED_FILES, |open| open.count() as u64);
    let files = most.saturating_sub(open).saturating_sub(RESERVED_FILES.min(most / 4)).min(grants.open_files);
    Bounds { memory: Budget::memory(grants.host_memory.0), files: Budget::files(files) }
}

/// Returns the message for a component that asked for more open files than it may have; `None` if it did not.
fn files_reached(bounds: &Bounds, grants: &Grants) -> Option<String> {
    let most = bounds.files.most();
    let set_by = if most < grants.open_files {
        "as the limit of open files, `ulimit -n`, allows"
    } else {
        "`open_files` in its grants"
    };
    bounds.files.was_reached().then(|| {
        format!("the method may have only {most} files open at once ({set_by}), and tried to open another")
    })
}

/// Restricts this thread with Landlock to those of `places` that exist. Returns a sentence that says what the kernel enforces.
///
/// Landlock limits the damage if a component escapes from WASI's confinement. It does not stop native code in this process, and it
/// does not cover `stat`, `chmod` and `utimensat`.
fn restrict_to(places: &[Place], grants: &Grants, require: Option<u32>) -> Result<String, Failure> {
    let ports = grants.ports();
    let mut domain = ports.iter().fold(Domain::deny_all(), |domain, port| domain.with_connections_to(*port));
    for place in places.iter().filter(|place| place.path.is_dir()) {
        domain = match place.access {
            Access::Write => domain.with(&place.path, Allowed::Change),
            Access::Read => domain.with(&place.path, Allowed::Read),
            Access::Nothing => domain,
        };
    }
    match domain.enter(require) {
        Ok(0) => {
            Ok("this kernel has no Landlock: only WASI confines the method to its directories".to_owned())
        }
        Ok(abi) if abi < ABI_OF_TCP && !ports.is_empty() => Ok(format!(
            "Landlock ABI {abi} is enforced on the method's thread, but does not restrict TCP: only WASI confines the method to the \
             granted servers"
        )),
        Ok(abi) => Ok(format!("Landlock ABI {abi} is enforced on the method's thread")),
        Err(error) => Err(failure::host_failure("cannot restrict the method's thread", &error)),
    }
}

#[async_trait]
impl Method for ComponentMethod {
    fn name(&self) -> &str {
        &self.settings.name
    }

    fn component(&self) -> Option<ComponentFacts> {
        let settings = &self.settings;
        let loaded = self.prepared.get().map(|prepared| &prepared.loaded.inspection);
        Some(ComponentFacts {
            path: settings.component.to_string(),
            name: loaded.map(|inspection| inspection.name.clone()),
            version: loaded.map(|inspection| inspection.description.version.clone()),
            digest: loaded.map(|inspection| inspection.digest.clone()),
            grants: settings.grants.for_report(),
        })
    }

    async fn preflight(&self, request: &Request) -> Result<(), Refusal> {
        overlap::refuse(&request.directories, &self.settings.grants)?;
        self.prepared().await.map(|_| ())
    }

    fn findings(&self) -> Vec<Finding> {
        let (grants, abi) = (&self.settings.grants, self.sandbox.inner.landlock);
        [programs::findings(grants, abi), network::findings(grants, abi)].concat()
    }

    async fn plan(&self, request: &Request, run: &Run) -> Result<Plan, Failure> {
        let asked = request.clone();
        let call = async move |loaded: &Loaded, store: &mut Store<State>, settings: &[Setting]| {
            loaded.exports.plan(store, &asked, settings).await
        };
        let (plan, _) = self.call(Step::Plan, request, None, run, call).await?;
        plan::check(&plan)
            .map_err(|why| Failure::new(Outcome::Rejected, format!("the method's plan is invalid: {why}")))?;
        Ok(plan)
    }

    async fn create(&self, request: &Request, plan: &Plan, run: &Run) -> Result<SealRequests, Failure> {
        let (asked, planned) = (request.clone(), plan.clone());
        let call = async move |loaded: &Loaded, store: &mut Store<State>, settings: &[Setting]| {
            let filled = loaded.exports.create_replica(store, &asked, settings, &planned).await?;
            Ok(match (filled, store.data().incomplete_chain()) {
                (Ok(()), Some(why)) => Err(GuestFailure::Failed(why)),
                (filled, _) => filled,
            })
        };
        let ((), left) = self.call(Step::Create, request, Some(plan), run, call).await?;
        Ok(left.filled)
    }
}

#[cfg(test)]
mod tests;
