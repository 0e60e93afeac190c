//! The first three steps of an attempt: they look and touch nothing.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use tokio_util::task::AbortOnDropHandle;

use super::accept::{self, Accepted, Old};
use super::attempt_error::{AttemptError, blocking, method_panicked};
use super::installed::Installed;
use super::limit::{Limit, Stopped};
use super::recorder::Recorder;
use super::{Candidate, Job, follow};
use crate::datadir::Extent;
use crate::event::{Event, Step};
use crate::outcome::Finding;
use crate::seal::EndState;
use crate::source::SourceError;
use crate::{Context, Failure, Level, Method, Outcome, Plan, Request, Rule, Run, Source};

/// A method with what it is asked, before the data directory is touched.
pub(super) struct Look<'a> {
    candidate: &'a Candidate,
    limit: &'a Limit,
    installed: &'a Installed,
    old: Old,
    force: bool,
    end: &'a EndState,
    pub(super) request: Request,
    pub(super) run: Run,
}

impl<'a> Look<'a> {
    pub(super) fn new(
        job: &'a Job,
        candidate: &'a Candidate,
        old: Old,
        installed: &'a Installed,
        events: Arc<Recorder>,
        limit: &'a Limit,
    ) -> Self {
        let request = Request {
            context: (!candidate.no_params).then(|| context(job)),
            keep_data: candidate.keep_data,
            directories: job.directories.clone(),
            bin_dir: job.bin_dir.clone(),
            source: job.source.clone(),
            directory: old.held(),
        };
        let run = Run::new(candidate.method.name(), limit.token().clone(), events);
        Self { candidate, limit, installed, old, force: job.force, end: &job.end, request, run }
    }

    /// Preflight, plan, accept: what would be restored and what has to be emptied for it.
    pub(super) async fn steps(&mut self) -> Result<(Plan, Extent), AttemptError> {
        self.begin(Step::Preflight)?;
        self.preflight().await?;
        self.begin(Step::Plan)?;
        self.need_the_source().await?;
        let plan = self.plan().await?;
        self.begin(Step::Accept)?;
        let extent = self.accept(&plan).await?;
        self.will_follow().await?;
        Ok((plan, extent))
    }

    /// Tells what is known by now to keep the standby from following.
    async fn will_follow(&self) -> Result<(), AttemptError> {
        let (end, source) = (self.end.clone(), self.request.source.clone());
        self.found(blocking(move || follow::password(&end, source.as_deref())).await?.into_iter().collect());
        // In a run the seal says it, of the whole configuration.
        if self.request.directory.is_none() {
            let file = self.end.config_file.clone();
            if let Some(name) = blocking(move || follow::slot_in(file.as_deref()?)).await? {
                self.look_for_slot(&name).await;
            }
        }
        Ok(())
    }

    /// Tells whether the source has the slot through which the standby will follow.
    pub(super) async fn look_for_slot(&self, name: &str) {
        // Under Patroni the slot is Patroni's to name and to make.
        let (Some(_), Some(source)) = (&self.end.configure_standby, &self.request.source) else { return };
        let answer = source.slot(&self.request.bin_dir, name, self.run.cancellation()).await;
        self.found(follow::slot(name, answer).into_iter().collect());
    }

    /// Looks at cancellation before each step (rule 5).
    pub(super) fn begin(&self, step: Step) -> Result<(), AttemptError> {
        if self.run.is_cancelled() {
            return Err(Failure::cancelled().into());
        }
        self.run.emit(Event::Step { method: self.name(), step });
        Ok(())
    }

    /// The check cannot be told to stop, and touches nothing: a cancelled attempt does not wait for it.
    async fn preflight(&self) -> Result<(), AttemptError> {
        let (method, request) = (self.candidate.method.clone(), self.request.clone());
        let check = AbortOnDropHandle::new(tokio::spawn(async move { method.preflight(&request).await }));
        tokio::select! {
            biased;
            checked = check => Ok(checked.map_err(method_panicked)??),
            () = self.run.cancelled() => Err(Failure::cancelled().into()),
        }
    }

    /// A source that is configured and could not be asked is asked once more: it may have been restarting. Where it
    /// still does not answer, a method that needs it waits for another day; one that does not goes on unchecked,
    /// which the report says.
    async fn need_the_source(&mut self) -> Result<(), AttemptError> {
        let unknown = |source: &Arc<Source>| source.facts.is_err();
        if !self.request.source.as_ref().is_some_and(unknown) {
            return Ok(());
        }
        let Err(error) = self.ask_the_source().await else { return Ok(()) };
        if self.run.is_cancelled() {
            return Err(Failure::cancelled().into());
        }
        if !self.candidate.can_work_without_source() {
            let outcome = if error.lasting { Outcome::Failed } else { Outcome::RetryLater };
            return Err(Failure::new(outcome, error.message).into());
        }
        let message = format!(
            "the backup's cluster, version and timeline are not compared with the source: \
             {error}"
        );
        self.found(vec![Finding { check: Rule::Source, level: Level::Warn, message }]);
        Ok(())
    }

    /// Asks the source what it is now; what was known stays where it does not answer.
    pub(super) async fn ask_the_source(&mut self) -> Result<(), SourceError> {
        let Some(source) = &self.request.source else { return Ok(()) };
        let facts = source.ask_again(&self.request.bin_dir, self.run.cancellation()).await?;
        let facts = Ok(facts);
        self.request.source = Some(Arc::new(Source { facts, ..Source::clone(source) }));
        Ok(())
    }

    async fn plan(&self) -> Result<Plan, AttemptError> {
        let (request, run) = (self.request.clone(), self.run.clone());
        let asked = self.ask(|method| async move { method.plan(&request, &run).await });
        let plan = self.limit.within(self.candidate.plan_timeout, Stopped::PlanTimeout, asked).await?;
        self.run.emit(Event::Planned { method: self.name(), plan: plan.clone() });
        Ok(plan)
    }

    async fn accept(&self, plan: &Plan) -> Result<Extent, AttemptError> {
        let accepted =
            accept::accept(&self.request, self.candidate, &self.old, self.force, self.installed, plan);
        let Accepted { extent, findings } = tokio::select! {
            biased;
            accepted = accepted => accepted?,
            () = self.run.cancelled() => return Err(Failure::cancelled().into()),
        };
        self.found(findings);
        Ok(extent)
    }

    /// Runs a part of the method on a task of its own, so that a panic in it is the attempt's end and not the
    /// program's, and waits until it returns, also when the attempt is cancelled.
    pub(super) async fn ask<T, F>(&self, part: impl FnOnce(Arc<dyn Method>) -> F) -> Result<T, AttemptError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Failure>> + Send + 'static,
    {
        match tokio::spawn(part(self.candidate.method.clone())).await {
            Ok(answer) => answer.map_err(|failure| self.in_a_methods_words(failure)),
            Err(error) => Err(method_panicked(error)),
        }
    }

    /// Words that are the host's alone to say are no method's.
    fn in_a_methods_words(&self, failure: Failure) -> AttemptError {
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
            error.message =
                format!("the method ended as `{}`, which is not so: {}", error.outcome, error.message);
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

/// Patroni's four parameters (rule 9).
fn context(job: &Job) -> Context {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    Context {
        scope: job.scope.clone(),
        role: "replica".to_owned(),
        datadir: text(&job.directories.datadir),
        connstring: job.source.as_ref().map(|source| source.connstring.clone()).unwrap_or_default(),
    }
}
