//! The result of a run, which follows from how its attempts ended. Loop rules 12 and 15, and the exit codes of the program.

use super::CancelReason;
use super::attempt_error::AttemptError;
use crate::{Outcome, RunResult};

/// Returns the result of a run whose attempts had these results, in order.
///
/// If a replica was created, a signal that came too late does not count.
pub(super) fn of_run(attempts: &[Result<(), AttemptError>], cancelled: Option<CancelReason>) -> RunResult {
    if matches!(attempts.last(), Some(Ok(()))) {
        return RunResult::Created;
    }
    if let Some(reason) = cancelled {
        return reason.result();
    }
    let errors: Vec<&AttemptError> = attempts.iter().filter_map(|attempt| attempt.as_ref().err()).collect();
    let all =
        |test: &dyn Fn(&AttemptError) -> bool| !errors.is_empty() && errors.iter().all(|error| test(error));
    let refused_or_without_a_backup =
        |error: &AttemptError| error.policy || error.outcome == Outcome::NotApplicable;

    if all(&|error| error.outcome == Outcome::RetryLater) {
        RunResult::RetryLater
    } else if errors.last().is_some_and(|error| error.outcome == Outcome::CheckFailed) {
        RunResult::CheckFailed
    } else if errors.iter().any(|error| error.policy) && all(&refused_or_without_a_backup) {
        RunResult::Refused
    } else {
        RunResult::Failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Failure, Refusal, Rule};

    type Attempt = Result<(), AttemptError>;

    fn ended(outcome: Outcome) -> Attempt {
        Err(Failure::new(outcome, "why").into())
    }

    fn created() -> Attempt {
        Ok(())
    }

    fn refused_by_policy() -> Attempt {
        Err(AttemptError::from(Refusal::new(Rule::Grant, "not signed").by_policy()))
    }

    #[test]
    fn rule_12_a_replica_is_success_even_if_earlier_methods_failed() {
        assert_eq!(of_run(&[ended(Outcome::Trapped), created()], None), RunResult::Created);
        assert_eq!(of_run(&[created()], Some(CancelReason::Interrupt)), RunResult::Created);
    }

    #[test]
    fn rule_15_no_method_left_is_exit_code_1_also_if_none_ran() {
        assert_eq!(of_run(&[], None).exit_code(), 1);
        assert_eq!(of_run(&[ended(Outcome::RetryLater), ended(Outcome::Failed)], None).exit_code(), 1);
        assert_eq!(of_run(&[ended(Outcome::CheckFailed), ended(Outcome::TimedOut)], None).exit_code(), 1);
        assert_eq!(of_run(&[ended(Outcome::NotApplicable)], None).exit_code(), 1);
    }

    #[test]
    fn every_failure_retry_later_is_exit_code_75() {
        let retry = || ended(Outcome::RetryLater);
        assert_eq!(of_run(&[retry(), retry()], None).exit_code(), 75);
        assert_eq!(of_run(&[ended(Outcome::NotApplicable), retry()], None).exit_code(), 1);
    }

    #[test]
    fn rule_30_a_failed_check_at_the_end_is_exit_code_4() {
        assert_eq!(of_run(&[ended(Outcome::Failed), ended(Outcome::CheckFailed)], None).exit_code(), 4);
    }

    #[test]
    fn a_refusal_by_policy_is_exit_code_3_unless_something_else_failed() {
        assert_eq!(of_run(&[ended(Outcome::NotApplicable), refused_by_policy()], None).exit_code(), 3);
        assert_eq!(of_run(&[ended(Outcome::Failed), refused_by_policy()], None).exit_code(), 1);
        let refused_otherwise = Err(AttemptError::from(Refusal::new(Rule::Timeline, "elsewhere")));
        assert_eq!(of_run(&[refused_otherwise, refused_by_policy()], None).exit_code(), 1);
    }

    #[test]
    fn rule_27_a_cancelled_run_ends_with_its_signal() {
        assert_eq!(of_run(&[], Some(CancelReason::Interrupt)).exit_code(), 130);
        assert_eq!(of_run(&[ended(Outcome::RetryLater)], Some(CancelReason::Terminate)).exit_code(), 143);
    }
}
