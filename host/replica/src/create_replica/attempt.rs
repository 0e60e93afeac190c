//! One attempt: the six steps, and what is done when one of them does not succeed.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::accept::Old;
use super::attempt_error::{AttemptError, blocking};
use super::installed::Installed;
use super::limit::{Limit, Stopped};
use super::look::Look;
use super::recorder::Recorder;
use super::{Candidate, Job};
use crate::datadir::{DataDirectory, Extent};
use crate::event::{Level, Step};
use crate::seal::{Sealed, seal};
use crate::{Failure, Filled, Outcome, Plan};

/// How long removing what a cancelled method left may take (rule 28); the next run removes the rest.
const BUDGET_AFTER_CANCEL: Duration = Duration::from_secs(2);

/// One attempt of one method.
pub(super) struct Attempt<'a> {
    job: &'a Job,
    keep_data: bool,
    stall_timeout: Option<Duration>,
    directory: &'a Arc<DataDirectory>,
    limit: &'a Limit,
    look: Look<'a>,
    touched: bool,
}

impl<'a> Attempt<'a> {
    pub(super) fn of(
        job: &'a Job,
        candidate: &'a Candidate,
        directory: &'a Arc<DataDirectory>,
        installed: &'a Installed,
        events: Arc<Recorder>,
        limit: &'a Limit,
    ) -> Self {
        let look = Look::new(job, candidate, Old::Held(directory.clone()), installed, events, limit);
        let Candidate { keep_data, stall_timeout, .. } = *candidate;
        Self { job, keep_data, stall_timeout, directory, limit, look, touched: false }
    }

    /// Goes through the steps and cleans up after a failure. Says too whether the data directory was touched.
    pub(super) async fn run(mut self) -> (Result<(), AttemptError>, bool) {
        let limit = self.limit;
        let Err(error) = limit.enforce(self.steps()).await else { return (Ok(()), self.touched) };
        let error = limit.why(error);
        if self.touched {
            self.clean_up(error.may_write).await;
        }
        (Err(error), self.touched)
    }

    /// "One attempt, in order."
    async fn steps(&mut self) -> Result<(), AttemptError> {
        let (plan, extent) = self.look.steps().await?;
        self.look.begin(Step::Empty)?;
        self.empty(extent).await?;
        self.look.begin(Step::Create)?;
        let filled = self.create(&plan).await?;
        self.look.begin(Step::Seal)?;
        self.seal(plan, filled).await
    }

    async fn empty(&mut self, extent: Extent) -> Result<(), AttemptError> {
        let (directory, method) = (self.directory.clone(), self.look.name());
        blocking(move || directory.state().comes_to(&method)).await?.map_err(|error| {
            Failure::caused_by(Outcome::Failed, "cannot say in the state file which method works now", error)
        })?;
        let removed = self.remove(extent, None, self.limit.token().clone()).await;
        // Emptying marks the directory before the first file goes, and looks once more before that.
        self.touched = self.directory.state().is_unfinished();
        if removed? { Ok(()) } else { Err(Failure::cancelled().into()) }
    }

    async fn create(&self, plan: &Plan) -> Result<Filled, AttemptError> {
        let (request, plan, run) = (self.look.request.clone(), plan.clone(), self.look.run.clone());
        let asked = self.look.ask(|method| async move { method.create(&request, &plan, &run).await });
        self.limit.while_active(self.stall_timeout, self.look.run.activity(), asked).await
    }

    async fn seal(&mut self, plan: Plan, filled: Filled) -> Result<(), AttemptError> {
        // By now the source may have been promoted. Where it no longer answers, what it told before counts.
        if let Err(error) = self.look.ask_the_source().await {
            self.look.run.log(
                Level::Warn,
                "host",
                format!("the source is not asked again for the seal: {error}"),
            );
        }
        if self.look.run.is_cancelled() {
            return Err(Failure::cancelled().into());
        }
        let (directory, request, end) =
            (self.directory.clone(), self.look.request.clone(), self.job.end.clone());
        let cancel = self.limit.token().clone();
        match blocking(move || seal(&directory, &request, &plan, &filled, &end, &cancel)).await? {
            Ok(Sealed { findings, primary_slot_name }) => {
                self.look.found(findings);
                if let Some(name) = primary_slot_name {
                    self.look.look_for_slot(&name).await;
                }
                Ok(())
            }
            Err(mut error) => {
                self.look.found(std::mem::take(&mut error.findings));
                Err(error.into())
            }
        }
    }

    /// Removes what the attempt left, unless `keep_data` (rules 13 and 28) or something of it may still write. Either way
    /// pg_control is gone.
    async fn clean_up(&self, may_write: bool) {
        if may_write {
            let message = "something of the method may still write, for its thread hangs in a system call: no other method is tried, and the next run empties the \
                           data directory";
            self.look.run.log(Level::Error, "host", message);
        }
        let extent = if self.keep_data || may_write { Extent::ControlFileOnly } else { Extent::Everything };
        let in_a_hurry = || self.limit.stopped().is_some_and(Stopped::ends_the_run);
        let within_the_budget = || self.remove(extent, Some(BUDGET_AFTER_CANCEL), CancellationToken::new());

        let removed = if in_a_hurry() {
            within_the_budget().await
        } else {
            match self.remove(extent, None, self.limit.cancelled_with_the_run()).await {
                Ok(false) => within_the_budget().await,
                removed => removed,
            }
        };
        let (level, message) = match removed {
            Ok(true) => return,
            Ok(false) => (
                Level::Warn,
                "not all that the attempt left is removed; the next run removes the rest".to_owned(),
            ),
            Err(error) => (Level::Error, error.message),
        };
        self.look.run.log(level, "host", message);
    }

    /// Takes pg_control away, then what `extent` says. Whether all of it is gone.
    async fn remove(
        &self,
        extent: Extent,
        budget: Option<Duration>,
        cancel: CancellationToken,
    ) -> Result<bool, AttemptError> {
        let directory = self.directory.clone();
        let emptied = blocking(move || directory.empty(extent, budget, &cancel)).await?.map_err(|error| {
            let place = self.job.directories.datadir.display();
            Failure::caused_by(Outcome::Failed, format!("cannot empty the data directory {place}"), error)
        })?;
        Ok(!emptied.unfinished)
    }
}
