//! What stops an attempt before it is done: a signal, its own timeouts, or the run's timeout.

use std::future::Future;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::attempt_error::AttemptError;
use super::{Cancel, CancelReason};
use crate::run::Activity;
use crate::{Failure, Outcome};

/// Why an attempt was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StopReason {
    /// A signal.
    Signal(CancelReason),
    /// The method's own timeout.
    MethodTimeout(Duration),
    /// The limit of the method's plan.
    PlanTimeout(Duration),
    /// The method read, wrote and finished nothing for this long while it was to fill the data directory.
    Stalled(Duration),
    /// The timeout of the whole run.
    RunTimeout(Duration),
}

impl StopReason {
    /// Returns whether the whole run ends with the attempt.
    pub(super) fn ends_the_run(self) -> bool {
        match self {
            Self::MethodTimeout(_) | Self::PlanTimeout(_) | Self::Stalled(_) => false,
            Self::Signal(_) | Self::RunTimeout(_) => true,
        }
    }

    /// Returns the failure of the attempt. `detail` is the method's own message, if it says more than that the method was cancelled.
    pub(super) fn failure(self, detail: Option<&str>) -> Failure {
        let (outcome, mut message) = match self {
            Self::Signal(reason) => (Outcome::Cancelled, format!("cancelled by {}", reason.cause())),
            Self::MethodTimeout(timeout) => {
                (Outcome::TimedOut, format!("the method's timeout of {timeout:?} passed"))
            }
            Self::PlanTimeout(timeout) => {
                (Outcome::TimedOut, format!("planning took longer than {timeout:?} (`plan_timeout`)"))
            }
            Self::Stalled(timeout) => (
                Outcome::TimedOut,
                format!("the method read, wrote and finished nothing for {timeout:?} (`stall_timeout`)"),
            ),
            Self::RunTimeout(timeout) => {
                (Outcome::TimedOut, format!("the run's timeout of {timeout:?} passed"))
            }
        };
        if let Some(detail) = detail {
            message.push_str(": ");
            message.push_str(detail);
        }
        Failure::new(outcome, message)
    }
}

/// A timeout that has begun.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeout {
    began: Instant,
    length: Duration,
}

impl Timeout {
    /// Returns a timeout that begins now.
    pub(super) fn starting_now(length: Duration) -> Self {
        Self { began: Instant::now(), length }
    }

    fn left(self) -> Duration {
        self.length.saturating_sub(self.began.elapsed())
    }

    /// Returns whether the timeout has passed.
    pub(super) fn has_passed(self) -> bool {
        self.left().is_zero()
    }
}

/// The limits of one attempt. The run's [`Cancel`] also stops the attempt; its own limits stop nothing but this attempt.
#[derive(Debug)]
pub(super) struct Limit {
    token: CancellationToken,
    cancel: Cancel,
    method: Option<Timeout>,
    run: Option<Timeout>,
    reason: OnceLock<StopReason>,
}

impl Limit {
    /// Returns the limits of an attempt that begins now.
    pub(super) fn new(cancel: &Cancel, method: Option<Duration>, run: Option<Timeout>) -> Self {
        Self {
            token: cancel.token().child_token(),
            cancel: cancel.clone(),
            method: method.map(Timeout::starting_now),
            run,
            reason: OnceLock::new(),
        }
    }

    /// Returns the token that is cancelled when the attempt must stop.
    pub(super) fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Returns the token that is cancelled only when the whole run is cancelled.
    pub(super) fn cancelled_with_the_run(&self) -> CancellationToken {
        self.cancel.token().clone()
    }

    /// Returns why the attempt was stopped; `None` if it was not.
    pub(super) fn stop_reason(&self) -> Option<StopReason> {
        self.reason.get().copied().or_else(|| self.cancel.reason().map(StopReason::Signal))
    }

    /// Returns the error to report for an attempt that ended with `error`. If a limit was reached, this is the limit, of which `error` is
    /// only the consequence.
    pub(super) fn error_to_report(&self, error: AttemptError) -> AttemptError {
        let Some(reason) = self.stop_reason() else { return error };
        let has_detail = !matches!(error.outcome, Outcome::Cancelled | Outcome::TimedOut);
        let failure = reason.failure(has_detail.then_some(error.message.as_str()));
        AttemptError { may_still_write: error.may_still_write, ..failure.into() }
    }

    /// Runs `work` to its end, and stops the attempt for `reason` if the work takes longer than `longest`. Never drops unfinished work.
    pub(super) async fn within<T>(
        &self,
        longest: Option<Duration>,
        reason: fn(Duration) -> StopReason,
        work: impl Future<Output = T>,
    ) -> T {
        let Some(longest) = longest else { return work.await };
        tokio::pin!(work);
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = tokio::time::sleep(longest) => {}
        }
        self.stop(reason(longest));
        work.await
    }

    /// Runs `work` to its end, and stops the attempt if `activity` is idle for `longest`.
    pub(super) async fn while_active<T>(
        &self,
        longest: Option<Duration>,
        activity: &Activity,
        work: impl Future<Output = T>,
    ) -> T {
        let Some(longest) = longest else { return work.await };
        activity.mark();
        tokio::pin!(work);
        loop {
            let idle = activity.idle();
            if idle >= longest {
                break;
            }
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = tokio::time::sleep(longest - idle) => {}
            }
        }
        self.stop(StopReason::Stalled(longest));
        work.await
    }

    fn stop(&self, reason: StopReason) {
        if self.cancel.reason().is_none() {
            let _first_reason_counts = self.reason.set(reason);
        }
        self.token.cancel();
    }

    /// Runs `work` to its end, and stops the attempt if a timeout passes first. Never drops unfinished work.
    pub(super) async fn enforce<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        let reason = tokio::select! {
            biased;
            done = &mut work => return done,
            () = passed(self.method) => self.method.map(|timeout| StopReason::MethodTimeout(timeout.length)),
            () = passed(self.run) => self.run.map(|timeout| StopReason::RunTimeout(timeout.length)),
        };
        match reason {
            Some(reason) => self.stop(reason),
            None => self.token.cancel(),
        }
        work.await
    }
}

/// Waits until a timeout has passed. Without a timeout, waits for ever.
async fn passed(timeout: Option<Timeout>) {
    match timeout {
        Some(timeout) => tokio::time::sleep(timeout.left()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn rule_17_a_deadline_cancels_the_work_and_waits_for_it() {
        let limit = Limit::new(&Cancel::new(), Some(Duration::from_millis(10)), None);
        let token = limit.token().clone();
        let done = limit.enforce(async move {
            token.cancelled().await;
            "returned by itself"
        });
        assert_eq!(done.await, "returned by itself");
        assert_eq!(limit.stop_reason(), Some(StopReason::MethodTimeout(Duration::from_millis(10))));
        assert!(!StopReason::MethodTimeout(Duration::ZERO).ends_the_run());
    }

    #[tokio::test]
    async fn rule_17_a_plan_that_takes_too_long_ends_the_attempt_and_not_the_run() {
        let limit = Limit::new(&Cancel::new(), None, None);
        let token = limit.token().clone();
        limit.within(Some(Duration::from_millis(10)), StopReason::PlanTimeout, token.cancelled()).await;
        let reason = limit.stop_reason().unwrap();
        assert!(!reason.ends_the_run());
        let failure = reason.failure(None);
        assert_eq!(failure.outcome, Outcome::TimedOut);
        assert!(failure.message.contains("10ms (`plan_timeout`)"), "{}", failure.message);
    }

    #[tokio::test]
    async fn rule_17_a_method_that_moves_something_now_and_then_is_not_stalled() {
        let (limit, activity) = (Limit::new(&Cancel::new(), None, None), Activity::default());
        let longest = Some(Duration::from_millis(200));
        let moves = async {
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_millis(40)).await;
                activity.mark();
            }
            "done"
        };
        assert_eq!(limit.while_active(longest, &activity, moves).await, "done");
        assert_eq!(limit.stop_reason(), None);
        limit.while_active(longest, &activity, limit.token().cancelled()).await;
        assert_eq!(limit.stop_reason(), Some(StopReason::Stalled(Duration::from_millis(200))));
    }

    #[tokio::test]
    async fn rule_17_the_timeout_of_the_run_ends_the_run() {
        let run = Timeout::starting_now(Duration::from_millis(10));
        let limit = Limit::new(&Cancel::new(), Some(Duration::from_secs(60)), Some(run));
        limit.enforce(limit.token().cancelled()).await;
        assert!(limit.stop_reason().is_some_and(StopReason::ends_the_run));
        assert!(run.has_passed());
    }

    #[tokio::test]
    async fn rule_27_a_signal_reaches_the_work_and_is_named() {
        let cancel = Cancel::new();
        let limit = Limit::new(&cancel, Some(Duration::from_secs(60)), None);
        cancel.cancel(CancelReason::Terminate);
        limit.enforce(limit.token().cancelled()).await;
        assert_eq!(limit.stop_reason(), Some(StopReason::Signal(CancelReason::Terminate)));
    }

    #[tokio::test]
    async fn work_that_is_done_in_time_is_not_stopped() {
        let limit = Limit::new(&Cancel::new(), Some(Duration::from_secs(60)), None);
        assert_eq!(limit.enforce(async { 7 }).await, 7);
        assert_eq!(limit.stop_reason(), None);
    }
}
