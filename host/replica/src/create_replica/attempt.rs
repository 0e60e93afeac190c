//! One attempt: its six steps, and the cleanup after a step that fails.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::accept::Target;
use super::attempt_error::{AttemptError, blocking};
use super::installed::Installed;
use super::limit::{Limit, StopReason};
use super::preparation::Preparation;
use super::recorder::Recorder;
use super::{Job, ListedMethod};
use crate::datadir::{DataDirectory, EmptyScope};
use crate::event::{Level, Step};
use crate::seal::{Sealed, seal};
use crate::usage::ComponentUsage;
use crate::{Failure, Outcome, Plan, SealRequests};

/// How long a cancelled run may take to remove what its method left (rule 28). The next run removes the rest.
const BUDGET_AFTER_CANCEL: Duration = Duration::from_secs(2);

/// One attempt of one method.
pub(super) struct Attempt<'a> {
    job: &'a Job,
    keep_data: bool,
    stall_timeout: Option<Duration>,
    directory: &'a Arc<DataDirectory>,
    limit: &'a Limit,
    preparation: Preparation<'a>,
    touched: bool,
}

impl<'a> Attempt<'a> {
    pub(super) fn of(
        job: &'a Job,
        listed: &'a ListedMethod,
        directory: &'a Arc<DataDirectory>,
        installed: &'a Installed,
        events: Arc<Recorder>,
        limit: &'a Limit,
    ) -> Self {
        let preparation =
            Preparation::new(job, listed, Target::Locked(directory.clone()), installed, events, limit);
        let ListedMethod { keep_data, stall_timeout, .. } = *listed;
        Self { job, keep_data, stall_timeout, directory, limit, preparation, touched: false }
    }

    /// Runs the steps and cleans up after a failure. Also returns whether the data directory was touched, and what the component used.
    pub(super) async fn run(mut self) -> (Result<(), AttemptError>, bool, Option<ComponentUsage>) {
        let limit = self.limit;
        let ended = limit.enforce(self.steps()).await;
        let usage = self.preparation.run.usage().get();
        let Err(error) = ended else { return (Ok(()), self.touched, usage) };
        let error = limit.error_to_report(error);
        if self.touched {
            self.clean_up(error.may_still_write).await;
        }
        (Err(error), self.touched, usage)
    }

    /// Runs the six steps in their order.
    async fn steps(&mut self) -> Result<(), AttemptError> {
        let (plan, empty_scope) = self.preparation.steps().await?;
        self.preparation.begin(Step::Empty)?;
        self.empty(empty_scope).await?;
        self.preparation.begin(Step::Create)?;
        let requests = self.create(&plan).await?;
        self.preparation.begin(Step::Seal)?;
        self.seal(plan, requests).await
    }

    async fn empty(&mut self, empty_scope: EmptyScope) -> Result<(), AttemptError> {
        let (directory, method) = (self.directory.clone(), self.preparation.name());
        blocking(move || directory.state().set_method(&method)).await?.map_err(|error| {
            Failure::caused_by(
                Outcome::Failed,
                "cannot record in the state file the name of the method that runs",
                error,
            )
        })?;
        let removed = self.remove(empty_scope, None, self.limit.token().clone()).await;
        // Emptying marks the directory as unfinished before it removes the first file, and emptying may be refused before that.
        self.touched = self.directory.state().is_unfinished();
        if removed? { Ok(()) } else { Err(Failure::cancelled().into()) }
    }

    async fn create(&self, plan: &Plan) -> Result<SealRequests, AttemptError> {
        let (request, plan, run) =
            (self.preparation.request.clone(), plan.clone(), self.preparation.run.clone());
        let call = self.preparation.call(|method| async move { method.create(&request, &plan, &run).await });
        self.limit.while_active(self.stall_timeout, self.preparation.run.activity(), call).await
    }

    async fn seal(&mut self, plan: Plan, requests: SealRequests) -> Result<(), AttemptError> {
        // The source may have been promoted since the plan. If it no longer answers, its earlier answers count.
        if let Err(error) = self.preparation.ask_the_source().await {
            self.preparation.run.log(
                Level::Warn,
                "host",
                format!("the source did not answer again before the seal, so that its earlier answers are used: {error}"),
            );
        }
        if self.preparation.run.is_cancelled() {
            return Err(Failure::cancelled().into());
        }
        let (directory, request, end) =
            (self.directory.clone(), self.preparation.request.clone(), self.job.end.clone());
        let cancel = self.limit.token().clone();
        match blocking(move || seal(&directory, &request, &plan, &requests, &end, &cancel)).await? {
            Ok(Sealed { findings, primary_slot_name }) => {
                self.preparation.found(findings);
                if let Some(name) = primary_slot_name {
                    self.preparation.check_slot(&name).await;
                }
                Ok(())
            }
            Err(mut error) => {
                self.preparation.found(std::mem::take(&mut error.findings));
                Err(error.into())
            }
        }
    }

    /// Removes what the attempt left. If `keep_data` is set (rules 13 and 28), or if a part of the method may still
    /// write, removes only pg_control.
    async fn clean_up(&self, may_still_write: bool) {
        if may_still_write {
            let message = "the method may still write, because its thread hangs in a system call: no other method is tried, and the next \
                           run empties the data directory";
            self.preparation.run.log(Level::Error, "host", message);
        }
        let empty_scope = if self.keep_data || may_still_write {
            EmptyScope::ControlFileOnly
        } else {
            EmptyScope::Everything
        };
        let in_a_hurry = || self.limit.stop_reason().is_some_and(StopReason::ends_the_run);
        let within_the_budget =
            || self.remove(empty_scope, Some(BUDGET_AFTER_CANCEL), CancellationToken::new());

        let removed = if in_a_hurry() {
            within_the_budget().await
        } else {
            match self.remove(empty_scope, None, self.limit.cancelled_with_the_run()).await {
                Ok(false) => within_the_budget().await,
                removed => removed,
            }
        };
        let (level, message) = match removed {
            Ok(true) => return,
            Ok(false) => (
                Level::Warn,
                "not everything that the attempt left was removed; the next run removes the rest".to_owned(),
            ),
            Err(error) => (Level::Error, error.message),
        };
        self.preparation.run.log(level, "host", message);
    }

    /// Removes pg_control, then what `empty_scope` says. Returns whether all of it was removed.
    async fn remove(
        &self,
        empty_scope: EmptyScope,
        budget: Option<Duration>,
        cancel: CancellationToken,
    ) -> Result<bool, AttemptError> {
        let directory = self.directory.clone();
        let emptied =
            blocking(move || directory.empty(empty_scope, budget, &cancel)).await?.map_err(|error| {
                let place = self.job.directories.datadir.display();
                Failure::caused_by(Outcome::Failed, format!("cannot empty the data directory {place}"), error)
            })?;
        Ok(!emptied.unfinished)
    }
}
