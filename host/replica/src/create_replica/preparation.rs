//! The first three steps of an attempt (preflight, plan, accept), which touch nothing.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use tokio_util::task::AbortOnDropHandle;

use super::accept::{self, Accepted, Target};
use super::attempt_error::{AttemptError, blocking, method_panicked};
use super::installed::Installed;
use super::limit::{Limit, StopReason};
use super::recorder::Recorder;
use super::{Job, ListedMethod, follow};
use crate::datadir::EmptyScope;
use crate::event::{Event, Step};
use crate::outcome::Finding;
use crate::seal::{EndState, SealError, check_configuration_file};
use crate::source::SourceError;
use crate::{Context, Failure, Level, Method, Outcome, Plan, Refusal, Request, Rule, Run, Source};

/// A method with its request and its limits, before the data directory is touched.
pub(super) struct Preparation<'a> {
    listed: &'a ListedMethod,
    limit: &'a Limit,
    installed: &'a Installed,
    target: Target,
    force: bool,
    end: &'a EndState,
    pub(super) request: Request,
    pub(super) run: Run,
}

impl<'a> Preparation<'a> {
    pub(super) fn new(
        job: &'a Job,
        listed: &'a ListedMethod,
        target: Target,
        installed: &'a Installed,
        events: Arc<Recorder>,
        limit: &'a Limit,
    ) -> Self {
        let request = Request {
            context: (!listed.no_params).then(|| context(job)),
            keep_data: listed.keep_data,
            directories: job.directories.clone(),
            bin_dir: job.bin_dir.clone(),
            source: job.source.clone(),
            directory: target.locked(),
        };
        let run = Run::new(listed.method.name(), limit.token().clone(), events);
        Self { listed, limit, installed, target, force: job.force, end: &job.end, request, run }
    }

    /// Runs preflight, plan and accept. Returns the plan, and what must be emptied for it.
    pub(super) async fn steps(&mut self) -> Result<(Plan, EmptyScope), AttemptError> {
        self.begin(Step::Preflight)?;
        self.preflight().await?;
        self.begin(Step::Plan)?;
        self.need_the_source().await?;
        let plan = self.plan().await?;
        self.begin(Step::Accept)?;
        let empty_scope = self.accept(&plan).await?;
        self.check_configuration_file().await?;
        self.report_obstacles().await?;
        Ok((plan, empty_scope))
    }

    /// Checks the operator's own configuration file before anything is emptied.
    async fn check_configuration_file(&self) -> Result<(), AttemptError> {
        if self.end.config_file.is_none() {
            return Ok(());
        }
        let major = self.installed.major().await?;
        let (request, end, cancel) =
            (self.request.clone(), self.end.clone(), self.run.cancellation().clone());
        let checked = blocking(move || check_configuration_file(&request, &end, major, &cancel)).await?;
        let SealError { check, message, findings } = match checked {
            // In a run the seal reports the same.
            Ok(_) if self.request.directory.is_some() => return Ok(()),
            Ok(findings) => {
                self.found(findings);
                return Ok(());
            }
            Err(error) => error,
        };
        self.found(findings);
        Err(match check {
            Some(rule) => Refusal::new(rule, message).into(),
            None => Failure::cancelled().into(),
        })
    }

    /// Reports what would keep the standby from following its primary.
    async fn report_obstacles(&self) -> Result<(), AttemptError> {
        let (end, source) = (self.end.clone(), self.request.source.clone());
        self.found(blocking(move || follow::password(&end, source.as_deref())).await?.into_iter().collect());
        // In a run the seal finds the slot in the whole configuration.
        if self.request.directory.is_none() {
            let file = self.end.config_file.clone();
            if let Some(name) = blocking(move || follow::slot_in(file.as_deref()?)).await? {
                self.check_slot(&name).await;
            }
        }
        Ok(())
    }

    /// Reports if the standby cannot use the slot through which it is to follow its primary.
    pub(super) async fn check_slot(&self, name: &str) {
        // Without `configure_standby` Patroni names and creates the slot.
        let (Some(_), Some(source)) = (&self.end.configure_standby, &self.request.source) else { return };
        let answer = source.slot(&self.request.bin_dir, name, self.run.cancellation()).await;
        self.found(follow::slot(name, answer).into_iter().collect());
    }

    /// Begins a step, unless the attempt is cancelled (rule 5).
    pub(super) fn begin(&self, step: Step) -> Result<(), AttemptError> {
        if self.run.is_cancelled() {
            return Err(Failure::cancelled().into());
        }
        self.run.emit(Event::Step { method: self.name(), step });
        Ok(())
    }

    /// Runs the method's preflight. A preflight cannot be cancelled and touches nothing, so a cancelled attempt does not wait for it.
    async fn preflight(&self) -> Result<(), AttemptError> {
        let (method, request) = (self.listed.method.clone(), self.request.clone());
        let check = AbortOnDropHandle::new(tokio::spawn(async move { method.preflight(&request).await }));
        tokio::select! {
            biased;
            checked = check => checked.map_err(method_panicked)??,
            () = self.run.cancelled() => return Err(Failure::cancelled().into()),
        }
        self.found(self.listed.method.findings());
        Ok(())
    }

    /// Asks the source once more if it did not answer before, because it may have been restarting. If it still does not answer, fails for a
    /// method that needs the source; for any other method, reports that its plan is not compared with the source.
    async fn need_the_source(&mut self) -> Result<(), AttemptError> {
        let unknown = |source: &Arc<Source>| source.facts.is_err();
        if !self.request.source.as_ref().is_some_and(unknown) {
            return Ok(());
        }
        let Err(error) = self.ask_the_source().await else { return Ok(()) };
        if self.run.is_cancelled() {
            return Err(Failure::cancelled().into());
        }
        if !self.listed.can_work_without_source() {
            let outcome = if error.permanent { Outcome::Failed } else { Outcome::RetryLater };
            return Err(Failure::new(outcome, error.message).into());
        }
        let message = format!(
            "the backup's cluster, version and timeline are not compared with the source: \
             {error}"
        );
        self.found(vec![Finding { check: Rule::Source, level: Level::Warn, message }]);
        Ok(())
    }

    /// Asks the source for its facts again; keeps the earlier ones if it does not answer.
    pub(super) async fn ask_the_source(&mut self) -> Result<(), SourceError> {
        let Some(source) = &self.request.source else { return Ok(()) };
        let facts = source.ask_again(&self.request.bin_dir, self.run.cancellation()).await?;
        let facts = Ok(facts);
        self.request.source = Some(Arc::new(Source { facts, ..Source::clone(source) }));
        Ok(())
    }

    async fn plan(&self) -> Result<Plan, AttemptError> {
        let (request, run) = (self.request.clone(), self.run.clone());
        let call = self.call(|method| async move { method.plan(&request, &run).await });
        let plan = self.limit.within(self.listed.plan_timeout, StopReason::PlanTimeout, call).await?;
        self.run.emit(Event::Planned { method: self.name(), plan: plan.clone() });
        Ok(plan)
    }

    async fn accept(&self, plan: &Plan) -> Result<EmptyScope, AttemptError> {
        let accepted =
            accept::accept(&self.request, self.listed, &self.target, self.force, self.installed, plan);
        let Accepted { empty_scope, findings } = tokio::select! {
            biased;
            accepted = accepted => accepted?,
            () = self.run.cancelled() => return Err(Failure::cancelled().into()),
        };
        self.found(findings);
        Ok(empty_scope)
    }

    /// Calls a function of the method in a separate task, so that a panic ends the attempt and not the program. Waits until the function
    /// returns, even if the attempt is cancelled.
    pub(super) async fn call<T, F>(&self, part: impl FnOnce(Arc<dyn Method>) -> F) -> Result<T, AttemptError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Failure>> + Send + 'static,
    {
        match tokio::spawn(part(self.listed.method.clone())).await {
            Ok(answer) => answer.map_err(|failure| self.allowed_error(failure)),
            Err(error) => Err(method_panicked(error)),
        }
    }

    /// Returns the error of a method's failure. An outcome that only the host may report becomes [`Outcome::Failed`].
    fn allowed_error(&self, failure: Failure) -> AttemptError {
        let mut error = AttemptError::from(failure);
        let allowed = match error.outcome {
            Outcome::Created | Outcome::CheckFailed => false,
            Outcome::Cancelled => self.run.is_cancelled(),
            Outcome::NotApplicable
            | Outcome::RetryLater
            | Outcome::Failed
            | Outcome::Rejected
            | Outcome::Trapped
            | Outcome::Denied
            | Outcome::TimedOut
            | Outcome::OutOfMemory
            | Outcome::OutOfDisk => true,
        };
        if !allowed {
            error.message = format!(
                "the method ended as `{}`, which only the host may report: {}",
                error.outcome, error.message
            );
            error.outcome = Outcome::Failed;
        }
        error
    }

    pub(super) fn found(&self, findings: Vec<Finding>) {
        for finding in findings {
            self.run.emit(Event::Found { method: self.name(), finding });
        }
    }

    pub(super) fn name(&self) -> String {
        self.run.method().to_owned()
    }
}

/// Returns Patroni's four parameters (rule 9).
fn context(job: &Job) -> Context {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    Context {
        scope: job.scope.clone(),
        role: "replica".to_owned(),
        datadir: text(&job.directories.datadir),
        connstring: job.source.as_ref().map(|source| source.connstring.clone()).unwrap_or_default(),
    }
}
