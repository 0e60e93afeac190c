//! The loop: Patroni's `Bootstrap.create_replica` (patroni/postgresql/bootstrap.py), rule by rule.

mod accept;
mod attempt;
mod attempt_error;
mod cancel;
mod check;
mod follow;
mod installed;
mod limit;
mod methods;
mod places;
mod preparation;
mod recorder;
mod result;
mod space;
mod younger_tablespaces;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foundation::redact::Redactor;

use crate::datadir::{DataDirectory, FoundCluster};
use crate::event::Event;
use crate::outcome::Report;
use crate::seal::EndState;
use crate::usage::{Time, Usage};
use crate::{Directories, EventSink, Method, Outcome, Refusal, Rule, RunResult, Source};
use attempt::Attempt;
pub use attempt_error::AttemptError;
use attempt_error::blocking;
pub use cancel::{Cancel, CancelReason};
pub use check::{Checked, check_methods, result_of_check, result_of_strict_check};
use installed::Installed;
use limit::{Limit, Timeout};
pub use methods::{BASEBACKUP, FromLeaderWithoutSource, methods_to_try};
use recorder::Recorder;

/// A method of the operator's list, with the settings that the loop needs.
#[derive(Clone)]
pub struct ListedMethod {
    /// The method itself.
    pub method: Arc<dyn Method>,
    /// Whether the data directory keeps its content before the method runs, and after the method fails.
    pub keep_data: bool,
    /// Whether it works without a source.
    pub no_leader: bool,
    /// Whether it gets none of Patroni's four parameters.
    pub no_params: bool,
    /// How long one attempt may take; `None` for no limit.
    pub timeout: Option<Duration>,
    /// How long the plan may take; `None` for no limit.
    pub plan_timeout: Option<Duration>,
    /// How long the method may go without reading, writing or finishing anything while it fills the data directory; `None` for no limit.
    pub stall_timeout: Option<Duration>,
}

/// One replica to create.
#[derive(Clone)]
pub struct Job {
    /// The name of the Patroni cluster.
    pub scope: String,
    /// The operator's directories.
    pub directories: Arc<Directories>,
    /// The directory of PostgreSQL's programs.
    pub bin_dir: PathBuf,
    /// The directory of the state file.
    pub state_dir: PathBuf,
    /// The server to copy from.
    pub source: Option<Arc<Source>>,
    /// The end state that the seal brings about.
    pub end: EndState,
    /// Whether `--force` was given: a directory that is not PostgreSQL's, or holds another cluster, may be emptied.
    pub force: bool,
    /// Whether a data directory that holds a cluster is refused, even one that a run without this setting would replace.
    pub only_empty: bool,
    /// How long the whole run may take; `None` for no limit.
    pub timeout: Option<Duration>,
    /// Knows every secret of the run, and removes them from everything that is reported.
    pub redactor: Redactor,
}

/// The state that Patroni shows while the loop runs (rule 16).
const CREATING_REPLICA: &str = "creating replica";
/// The state that Patroni shows after the loop, however the loop ended (rule 16).
const STOPPED: &str = "stopped";

/// Tries the methods in their order and stops at the first that creates a replica.
///
/// `methods` are those of [`methods_to_try`], in its order. The future must be driven to its end. To stop the run, use `cancel`: the future
/// then returns as soon as the running method has returned and the cleanup of rule 28 is done.
pub async fn create_replica(
    job: &Job,
    methods: &[ListedMethod],
    events: Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Report {
    let mut run = RunOfMethods::begin(job, events, cancel);
    run.state(CREATING_REPLICA);

    // Without a source, only methods that work without one remain.
    let methods: Vec<&ListedMethod> =
        methods.iter().filter(|listed| job.source.is_some() || listed.can_work_without_source()).collect();

    match run.acquire(&methods).await {
        Ok(directory) => {
            if let Err(refusal) = refuse_cluster(job, directory.cluster()) {
                run.end_before_any_method(NotStarted::Refused(refusal));
            }
            for listed in methods {
                if run.must_end() {
                    break;
                }
                if run.attempt(&directory, listed).await.is_ok() {
                    break;
                }
            }
            run.finish(directory).await;
        }
        Err(reason) => run.end_before_any_method(reason),
    }

    run.state(STOPPED);
    run.report()
}

/// Refuses a data directory that holds another cluster than the source, or any cluster if the job is for an empty directory. A cluster
/// counts as the source's if the source's cluster is not known.
fn refuse_cluster(job: &Job, old: Option<&FoundCluster>) -> Result<(), Refusal> {
    if let Some(old) = old.filter(|_| job.only_empty) {
        let datadir = job.directories.datadir.display();
        return Err(Refusal::new(Rule::DataDirectory, format!("{datadir} must be empty, and holds {old}"))
            .remedy("--force, if all of it may be removed; else name another directory"));
    }
    let facts = job.source.as_ref().and_then(|source| source.facts.as_ref().ok());
    match (old, facts) {
        (Some(old), Some(facts)) => old.refuse_other(facts.system_identifier, "the source", job.force),
        _ => Ok(()),
    }
}

/// Why a run ended before its first attempt.
enum NotStarted {
    /// No method of the list can be tried.
    NoMethod,
    /// The run was cancelled, or its timeout passed.
    Cancelled,
    /// The data directory may not be touched.
    Refused(Refusal),
}

/// The state of the loop between its attempts.
struct RunOfMethods<'a> {
    job: &'a Job,
    cancel: &'a Cancel,
    events: Arc<Recorder>,
    timeout: Option<Timeout>,
    installed: Installed,
    attempts: Vec<Result<(), AttemptError>>,
    message: Option<String>,
    refused: bool,
}

impl<'a> RunOfMethods<'a> {
    fn begin(job: &'a Job, events: Arc<dyn EventSink>, cancel: &'a Cancel) -> Self {
        Self {
            job,
            cancel,
            events: Arc::new(Recorder::new(events, job.redactor.clone())),
            timeout: job.timeout.map(Timeout::starting_now),
            installed: Installed::in_directory(job.bin_dir.clone()),
            attempts: Vec::new(),
            message: None,
            refused: false,
        }
    }

    fn state(&self, state: &'static str) {
        self.events.emit(Event::State { state });
    }

    /// Locks the data directory if there is a method to try.
    async fn acquire(&self, methods: &[&ListedMethod]) -> Result<Arc<DataDirectory>, NotStarted> {
        if methods.is_empty() {
            return Err(NotStarted::NoMethod);
        }
        if self.must_end() {
            return Err(NotStarted::Cancelled);
        }
        let (directories, state_dir, force) =
            (self.job.directories.clone(), self.job.state_dir.clone(), self.job.force);
        let acquired = blocking(move || DataDirectory::acquire(&directories, &state_dir, force)).await;
        match acquired {
            Ok(Ok(directory)) => Ok(Arc::new(directory)),
            Ok(Err(refusal)) => Err(NotStarted::Refused(refusal)),
            Err(panicked) => Err(NotStarted::Refused(Refusal::new(Rule::DataDirectory, panicked.message))),
        }
    }

    /// Returns whether no further method may be tried: the run is refused, cancelled or out of time (rules 5 and 17), or a method may
    /// still write.
    fn must_end(&self) -> bool {
        self.refused
            || self.cancel.reason().is_some()
            || self.timeout.is_some_and(Timeout::has_passed)
            || self
                .attempts
                .last()
                .is_some_and(|ended| ended.as_ref().is_err_and(|error| error.may_still_write))
    }

    async fn attempt(
        &mut self,
        directory: &Arc<DataDirectory>,
        listed: &ListedMethod,
    ) -> Result<(), AttemptError> {
        let began = Instant::now();
        let method = listed.method.name().to_owned();
        self.events.emit(Event::AttemptStarted { method: method.clone() });
        let limit = Limit::new(self.cancel, listed.timeout, self.timeout);
        let (ended, touched, component) =
            Attempt::of(self.job, listed, directory, &self.installed, self.events.clone(), &limit)
                .run()
                .await;
        let (error, duration) = (ended.as_ref().err(), began.elapsed());
        self.events.emit(Event::AttemptEnded {
            method,
            outcome: error.map_or(Outcome::Created, |error| error.outcome),
            message: error.map(|error| error.message.clone()).unwrap_or_default(),
            rule: error.and_then(|error| error.rule),
            remedy: error.and_then(|error| error.remedy.clone()),
            touched,
            duration,
            usage: Box::new(Usage { wall: Time { used: duration, limit: listed.timeout }, component }),
        });
        self.attempts.push(ended.clone());
        ended
    }

    /// Writes the end of the run to the state file, then releases the lock.
    async fn finish(&mut self, directory: Arc<DataDirectory>) {
        let result = self.result();
        let said = blocking(move || {
            let empty = directory.contents()? == crate::datadir::Contents::Nothing;
            if result == RunResult::Created {
                directory.keep_created_directories();
            }
            directory.state().run_ended(result, empty)
        });
        let problem = match said.await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(panicked) => panicked.message,
        };
        self.events.warn(format!("cannot record in the state file how the run ended: {problem}"));
    }

    fn end_before_any_method(&mut self, reason: NotStarted) {
        self.message = Some(match reason {
            NotStarted::NoMethod if self.job.source.is_none() => {
                "no source is configured, and no method of the list works without one: give `[source] conninfo`, \
                 or `no_leader = true` to a method that needs none"
                    .to_owned()
            }
            NotStarted::NoMethod => "the list of methods is empty".to_owned(),
            NotStarted::Cancelled => "stopped before the first method".to_owned(),
            NotStarted::Refused(refusal) => {
                self.refused = true;
                match refusal.remedy {
                    Some(remedy) => format!("{} ({remedy})", refusal.message),
                    None => refusal.message,
                }
            }
        });
    }

    fn result(&self) -> RunResult {
        if self.refused {
            return RunResult::Refused;
        }
        result::of_run(&self.attempts, self.cancel.reason())
    }

    fn report(mut self) -> Report {
        let result = self.result();
        if self.cancel.reason() == Some(CancelReason::ParentEnded) && result == RunResult::Terminated {
            self.message.get_or_insert_with(|| format!("cancelled by {}", CancelReason::ParentEnded.cause()));
        }
        self.events.emit(Event::RunEnded { result, message: self.message.clone() });
        self.events.report(self.job)
    }
}
