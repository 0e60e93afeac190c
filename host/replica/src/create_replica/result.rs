//! How a run ended, from how its attempts ended. Semantics rules 12 and 15, and the exit codes of the program.

use super::CancelReason;
use super::ending::Ending;
use crate::{Outcome, RunResult};

/// The result of a run whose attempts ended like this, in order.
///
/// A replica that exists counts before the signal that came too late to stop it.
pub(super) fn of_run(endings: &[Ending], cancelled: Option<CancelReason>) -> RunResult {
    let all = |test: &dyn Fn(&Ending) -> bool| !endings.is_empty() && endings.iter().all(test);
    let last = endings.last().map(|ending| ending.outcome);
    let refused_or_without_a_backup =
        |ending: &Ending| ending.policy || ending.outcome == Outcome::NotApplicable;

    if last == Some(Outcome::Created) {
        RunResult::Created
    } else if let Some(reason) = cancelled {
        reason.result()
    } else if all(&|ending| ending.outcome == Outcome::RetryLater) {
        RunResult::RetryLater
    } else if last == Some(Outcome::CheckFailed) {
        RunResult::CheckFailed
    } else if endings.iter().any(|ending| ending.policy) && all(&refused_or_without_a_backup) {
        RunResult::Refused
    } else {
        RunResult::Failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Failure, Refusal};

    fn ended(outcome: Outcome) -> Ending {
        Ending::from(Failure::new(outcome, "why"))
    }

    fn created() -> Ending {
        Ending::created()
    }

    fn refused_by_policy() -> Ending {
        Ending::from(Refusal::new("signature", "not signed").by_policy())
    }

    #[test]
    fn rule_12_the_first_replica_is_success_whatever_failed_before() {
        assert_eq!(of_run(&[ended(Outcome::Trapped), created()], None), RunResult::Created);
        assert_eq!(of_run(&[created()], Some(CancelReason::Interrupt)), RunResult::Created);
    }

    #[test]
    fn rule_15_no_method_left_is_exit_code_1_also_where_none_ran() {
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
        let refused_otherwise = Ending::from(Refusal::new("timeline", "elsewhere"));
        assert_eq!(of_run(&[refused_otherwise, refused_by_policy()], None).exit_code(), 1);
    }

    #[test]
    fn rule_27_a_cancelled_run_ends_with_its_signal() {
        assert_eq!(of_run(&[], Some(CancelReason::Interrupt)).exit_code(), 130);
        assert_eq!(of_run(&[ended(Outcome::RetryLater)], Some(CancelReason::Terminate)).exit_code(), 143);
    }
}
