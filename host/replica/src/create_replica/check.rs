//! The verb `check`: the first three steps of every method, which touch nothing.

use std::sync::Arc;

use serde::Serialize;

use super::accept::Target;
use super::attempt_error::{AttemptError, blocking};
use super::installed::Installed;
use super::limit::{Limit, Timeout};
use super::preparation::Preparation;
use super::recorder::Recorder;
use super::{Cancel, CancelReason, Job, ListedMethod, refuse_cluster, result};
use crate::datadir::DataDirectory;
use crate::event::{Event, EventSink};
use crate::outcome::Finding;
use crate::{Plan, Refusal, Rule, RunResult};

/// The result of the first three steps of one method.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// The method's name.
    pub method: String,
    /// Why the method would not be used; `None` if a run would go on and empty the data directory for it.
    #[serde(rename = "ended")]
    pub error: Option<AttemptError>,
    /// What the method would restore; `None` if the check ended before the plan.
    pub plan: Option<Plan>,
    /// What the three steps found.
    pub findings: Vec<Finding>,
}

/// Returns how a run would end: with a replica if one of the methods would be used, otherwise like a run whose attempts ended with the
/// errors of the methods.
pub fn result_of_check(checked: &[Checked], cancelled: Option<CancelReason>) -> RunResult {
    if cancelled.is_none() && checked.iter().any(|checked| checked.error.is_none()) {
        return RunResult::Created;
    }
    let attempts: Vec<_> = checked.iter().filter_map(|checked| checked.error.clone()).map(Err).collect();
    result::of_run(&attempts, cancelled)
}

/// Returns the result of a check that every method of the list must pass. If some methods would not be used, this is how a run of only
/// these methods would end.
pub fn result_of_strict_check(checked: &[Checked], cancelled: Option<CancelReason>) -> RunResult {
    let unusable: Vec<Checked> = checked.iter().filter(|checked| checked.error.is_some()).cloned().collect();
    match unusable.as_slice() {
        [] => result_of_check(checked, cancelled),
        unusable => result_of_check(unusable, cancelled),
    }
}

/// Runs preflight, plan and accept of every method in the list, even after a method that would be used. Leaves out methods that need a
/// source if there is none. Locks, writes and removes nothing, and never calls `create`.
///
/// # Errors
/// Fails if a run may not touch the data directory.
pub async fn check_methods(
    job: &Job,
    methods: &[ListedMethod],
    events: Arc<dyn EventSink>,
    cancel: &Cancel,
) -> Result<Vec<Checked>, Refusal> {
    let (directories, state_dir, force) = (job.directories.clone(), job.state_dir.clone(), job.force);
    let seen = blocking(move || DataDirectory::inspect(&directories, &state_dir, force))
        .await
        .map_err(|panicked| Refusal::new(Rule::DataDirectory, panicked.message))??;
    refuse_cluster(job, seen.cluster.as_ref())?;

    let recorder = Arc::new(Recorder::new(events, job.redactor.clone()));
    let installed = Installed::in_directory(job.bin_dir.clone());
    let timeout = job.timeout.map(Timeout::starting_now);
    let mut checked = Vec::new();
    for listed in methods {
        if cancel.reason().is_some() {
            break;
        }
        if job.source.is_none() && !listed.can_work_without_source() {
            continue;
        }
        let method = listed.method.name().to_owned();
        recorder.emit(Event::AttemptStarted { method: method.clone() });
        let limit = Limit::new(cancel, listed.timeout, timeout);
        let mut preparation = Preparation::new(
            job,
            listed,
            Target::Inspected(seen.clone()),
            &installed,
            recorder.clone(),
            &limit,
        );
        let error = limit.enforce(preparation.steps()).await.err().map(|error| {
            let error = limit.error_to_report(error);
            let message = recorder.without_secrets(error.message);
            AttemptError {
                message,
                remedy: error.remedy.map(|remedy| recorder.without_secrets(remedy)),
                ..error
            }
        });
        let (plan, findings) = recorder.end_check();
        checked.push(Checked { method, error, plan, findings });
    }
    Ok(checked)
}
