//! What a run would do, without touching anything: the first three steps of every method.

use std::sync::Arc;

use serde::Serialize;

use super::accept::Old;
use super::attempt_error::{AttemptError, blocking};
use super::installed::Installed;
use super::limit::{Limit, Timeout};
use super::look::Look;
use super::recorder::Recorder;
use super::{Cancel, CancelReason, Candidate, Job, refuse_other_cluster, result};
use crate::datadir::DataDirectory;
use crate::event::{Event, EventSink};
use crate::outcome::Finding;
use crate::{Plan, Refusal, Rule, RunResult};

/// What the first three steps of one method said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// The method's name.
    pub method: String,
    /// Why it would not be used; `None` if a run would go on and empty the data directory for it.
    #[serde(rename = "ended")]
    pub error: Option<AttemptError>,
    /// What it would restore, where it came that far.
    pub plan: Option<Plan>,
    /// What is worth telling.
    pub findings: Vec<Finding>,
}

/// How a run would end: with a replica where a method would be used, else as a run whose attempts all ended like this.
pub fn result_of_check(checked: &[Checked], cancelled: Option<CancelReason>) -> RunResult {
    if cancelled.is_none() && checked.iter().any(|checked| checked.error.is_none()) {
        return RunResult::Created;
    }
    let attempts: Vec<_> = checked.iter().filter_map(|checked| checked.error.clone()).map(Err).collect();
    result::of_run(&attempts, cancelled)
}

/// The same of a check that every method of the list must pass: how a run of those that would not be used would end.
pub fn result_of_strict_check(checked: &[Checked], cancelled: Option<CancelReason>) -> RunResult {
    let unusable: Vec<Checked> = checked.iter().filter(|checked| checked.error.is_some()).cloned().collect();
    match unusable.as_slice() {
        [] => result_of_check(checked, cancelled),
        unusable => result_of_check(unusable, cancelled),
    }
}

/// Preflight, plan and accept of every method that a run would try, each whatever the others said. Nothing is
/// locked, written or removed, and `create` is never called.
///
/// # Errors
/// Where the data directory may not be touched by a run.
pub async fn check_methods(
    job: &Job,
    candidates: &[Candidate],
    events: Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<Vec<Checked>, Refusal> {
    let (directories, state_dir, force) = (job.directories.clone(), job.state_dir.clone(), job.force);
    let seen = blocking(move || DataDirectory::inspect(&directories, &state_dir, force))
        .await
        .map_err(|panicked| Refusal::new(Rule::DataDirectory, panicked.message))??;
    refuse_other_cluster(job, seen.cluster.as_ref())?;

    let recorder = Arc::new(Recorder::new(events, job.redactor.clone()));
    let installed = Installed::in_directory(job.bin_dir.clone());
    let timeout = job.timeout.map(Timeout::starting_now);
    let mut checked = Vec::new();
    for candidate in candidates {
        if cancel.reason().is_some() {
            break;
        }
        if job.source.is_none() && !candidate.can_work_without_source() {
            continue;
        }
        let method = candidate.method.name().to_owned();
        recorder.emit(Event::AttemptStarted { method: method.clone() });
        let limit = Limit::new(cancel, candidate.timeout, timeout);
        let mut look =
            Look::new(job, candidate, Old::Seen(seen.clone()), &installed, recorder.clone(), &limit);
        let error = limit.enforce(look.steps()).await.err().map(|error| {
            let error = limit.why(error);
            let message = recorder.redacted(error.message);
            AttemptError { message, remedy: error.remedy.map(|remedy| recorder.redacted(remedy)), ..error }
        });
        let (plan, findings) = recorder.end_check();
        checked.push(Checked { method, error, plan, findings });
    }
    Ok(checked)
}
