//! Determines the outcome of an attempt from how the component's call ended.

use foundation::causes::with_causes;
use replica::{Denial, Failure, Outcome};
use wasmtime::{Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use crate::guest_failure::GuestFailure;
use crate::limits::LimitExceeded;
use crate::text::printable;

/// How many stack frames of a trap a message shows, innermost first.
const FRAMES: usize = 5;
/// How many denials a message repeats. The events list all of them.
const DENIALS: usize = 1;

/// What the host knows about a call in addition to the failure that the component returned.
pub(crate) struct Circumstances {
    /// Why a write failed for lack of space; `None` if none did.
    pub(crate) full: Option<String>,
    /// A limit that the component reached but that did not end the component; `None` if it reached no such limit.
    pub(crate) reached: Option<String>,
    /// What the component was denied.
    pub(crate) denials: Vec<Denial>,
    /// Whether the component was asked to stop.
    pub(crate) cancelled: bool,
    /// The error that the component printed to standard error when it ended.
    pub(crate) last_error: Option<String>,
}

impl Circumstances {
    fn and_reached(&self, why: String) -> String {
        match &self.reached {
            Some(reached) => format!("{why}; {reached}"),
            None => why,
        }
    }
}

/// Returns the failure of the attempt if the component itself returned a failure.
///
/// A component returns `failed` for most failures, and the host knows more: the outcome is `OutOfDisk` if a write failed for lack of space,
/// and otherwise `Denied` if any call was denied. A component that returns `cancelled` although nobody asked it to stop has failed.
pub(crate) fn component_failure(ended: GuestFailure, circumstances: &Circumstances) -> Failure {
    match ended {
        GuestFailure::NotApplicable(why) => Failure::new(Outcome::NotApplicable, why),
        GuestFailure::RetryLater(why) => Failure::new(Outcome::RetryLater, why),
        GuestFailure::Failed(why) => failed(why, circumstances),
        GuestFailure::Cancelled if circumstances.cancelled => Failure::cancelled(),
        GuestFailure::Cancelled => failed(
            "the method says that it was cancelled, but it was not asked to stop".to_owned(),
            circumstances,
        ),
    }
}

fn failed(why: String, circumstances: &Circumstances) -> Failure {
    if let Some(full) = &circumstances.full {
        return Failure::new(Outcome::OutOfDisk, format!("{why}; {full}"));
    }
    let why = circumstances.and_reached(why);
    if circumstances.denials.is_empty() {
        return Failure::new(Outcome::Failed, why);
    }
    Failure::new(Outcome::Denied, format!("{why}; {}", denials_text(&circumstances.denials)))
}

/// Returns the failure of the attempt if the component's call ended with a trap, at a limit or with an exit status.
///
/// If a write failed for lack of space, that most likely caused the trap, so the outcome is `OutOfDisk`.
pub(crate) fn sandbox_failure(error: &wasmtime::Error, circumstances: &Circumstances) -> Failure {
    if let Some(limit) = error.downcast_ref::<LimitExceeded>() {
        return match limit {
            LimitExceeded::Memory { .. } | LimitExceeded::Machine | LimitExceeded::Tables { .. } => {
                Failure::new(Outcome::OutOfMemory, format!("the method {limit} (grants.memory)"))
            }
            LimitExceeded::Cpu { .. } => {
                Failure::new(Outcome::TimedOut, format!("the method {limit} (`cpu`)"))
            }
        };
    }
    if let Some(I32Exit(status)) = error.downcast_ref() {
        let exit = format!("the method ended itself with exit status {status}");
        let why = match &circumstances.last_error {
            Some(error) => format!("{error} (exit status {status})"),
            None => exit,
        };
        return failed(why, circumstances);
    }
    let what = match error.downcast_ref::<Trap>() {
        Some(trap) => trap.to_string(),
        None => printable(&error.root_cause().to_string(), 1000),
    };
    let trap = match error.downcast_ref() {
        // The error that the component printed says more than this instruction, so the message does not name it.
        Some(Trap::UnreachableCodeReached) => String::new(),
        _ => format!("; it trapped: {what}"),
    };
    let what = match &circumstances.last_error {
        Some(error) => format!("{error}{trap}"),
        None => format!("the method trapped: {what}{}", frames(error)),
    };
    let what = circumstances.and_reached(what);
    match (&circumstances.full, circumstances.denials.as_slice()) {
        (Some(full), _) => Failure::new(Outcome::OutOfDisk, format!("{what}; {full}")),
        (None, []) => Failure::new(Outcome::Trapped, what),
        (None, denials) => Failure::new(Outcome::Trapped, format!("{what}; {}", denials_text(denials))),
    }
}

/// Returns the failure of an attempt that the host could not set up, with every cause of `error`.
pub(crate) fn host_failure(what: &str, error: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::new(Outcome::Failed, format!("{what}: {}", with_causes(error)))
}

/// Names the functions in which a trap happened.
fn frames(error: &wasmtime::Error) -> String {
    let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() else { return String::new() };
    let names: Vec<_> = backtrace
        .frames()
        .iter()
        .take(FRAMES)
        .map(|frame| match frame.func_name() {
            Some(name) => printable(name, 100),
            None => format!("function {}", frame.func_index()),
        })
        .collect();
    if names.is_empty() { String::new() } else { format!(" (in {})", names.join(", called by ")) }
}

fn denials_text(denials: &[Denial]) -> String {
    let mut texts: Vec<_> = denials
        .iter()
        .take(DENIALS)
        .map(|denial| match &denial.remedy {
            None => format!("denied: {} {}", denial.capability, denial.what),
            Some(remedy) => format!("denied: {} {}, to allow it: {remedy}", denial.capability, denial.what),
        })
        .collect();
    if denials.len() > DENIALS {
        texts.push(match denials.len() - DENIALS {
            1 => "and 1 more denial".to_owned(),
            more => format!("and {more} more denials"),
        });
    }
    texts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use replica::CapabilityKind;

    fn circumstances(full: Option<&str>, denied: bool, cancelled: bool) -> Circumstances {
        let denial = Denial {
            capability: CapabilityKind::Read,
            what: "/etc/passwd".to_owned(),
            remedy: Some("the line".to_owned()),
        };
        Circumstances {
            full: full.map(str::to_owned),
            reached: None,
            denials: if denied { vec![denial] } else { vec![] },
            cancelled,
            last_error: None,
        }
    }

    #[test]
    fn lack_of_space_and_denials_determine_the_outcome_of_a_failure() {
        let failed = |circumstances| component_failure(GuestFailure::Failed("no".to_owned()), &circumstances);
        assert_eq!(failed(circumstances(None, false, false)).outcome, Outcome::Failed);
        let denied = failed(circumstances(None, true, false));
        assert_eq!(denied.outcome, Outcome::Denied);
        assert_eq!(denied.message, "no; denied: read /etc/passwd, to allow it: the line");
        assert_eq!(failed(circumstances(Some("the disk is full"), true, false)).outcome, Outcome::OutOfDisk);
    }

    #[test]
    fn the_error_that_a_component_printed_comes_before_the_trap_and_the_denials() {
        let denied = |times: u32| Circumstances {
            last_error: Some("the method panicked: boom".to_owned()),
            denials: (0..times)
                .map(|number| Denial {
                    capability: CapabilityKind::Read,
                    what: format!("/usr/lib/{number}"),
                    remedy: None,
                })
                .collect(),
            ..circumstances(None, false, false)
        };
        let said = denied(18);
        let failure = sandbox_failure(&Trap::UnreachableCodeReached.into(), &said);
        assert_eq!(failure.outcome, Outcome::Trapped);
        assert_eq!(
            failure.message,
            "the method panicked: boom; denied: read /usr/lib/0; and 17 more denials"
        );
        let twice = sandbox_failure(&Trap::UnreachableCodeReached.into(), &denied(2)).message;
        assert_eq!(twice, "the method panicked: boom; denied: read /usr/lib/0; and 1 more denial");
        let deep = sandbox_failure(&Trap::StackOverflow.into(), &said).message;
        assert!(deep.starts_with("the method panicked: boom; it trapped: "), "{deep}");
    }

    #[test]
    fn not_applicable_and_retry_later_stay_the_outcome_after_a_denial() {
        let denied = circumstances(Some("full"), true, false);
        let outcome = |ended| component_failure(ended, &denied).outcome;
        assert_eq!(outcome(GuestFailure::NotApplicable("no backup".to_owned())), Outcome::NotApplicable);
        assert_eq!(outcome(GuestFailure::RetryLater("busy".to_owned())), Outcome::RetryLater);
    }

    #[test]
    fn only_a_component_that_was_asked_to_stop_is_cancelled() {
        let outcome = |cancelled| {
            component_failure(GuestFailure::Cancelled, &circumstances(None, false, cancelled)).outcome
        };
        assert_eq!(outcome(true), Outcome::Cancelled);
        assert_eq!(outcome(false), Outcome::Failed);
    }

    #[test]
    fn a_failure_names_a_limit_that_the_component_reached() {
        let reached = || Circumstances {
            reached: Some("it had 32 files open".to_owned()),
            ..circumstances(None, false, false)
        };
        let failure = component_failure(GuestFailure::Failed("cannot open x".to_owned()), &reached());
        assert_eq!(
            (failure.outcome, failure.message.as_str()),
            (Outcome::Failed, "cannot open x; it had 32 files open")
        );
        let trapped = sandbox_failure(&Trap::StackOverflow.into(), &reached());
        assert!(trapped.message.ends_with("; it had 32 files open"), "{}", trapped.message);
    }

    #[test]
    fn a_trap_a_limit_and_an_exit_status_have_their_own_outcomes() {
        let outcome =
            |error: wasmtime::Error| sandbox_failure(&error, &circumstances(None, false, false)).outcome;
        assert_eq!(outcome(Trap::StackOverflow.into()), Outcome::Trapped);
        assert_eq!(outcome(LimitExceeded::Machine.into()), Outcome::OutOfMemory);
        let granted = std::time::Duration::from_secs(10);
        assert_eq!(outcome(LimitExceeded::Cpu { granted }.into()), Outcome::TimedOut);
        assert_eq!(outcome(I32Exit(1).into()), Outcome::Failed);
        let full =
            sandbox_failure(&Trap::UnreachableCodeReached.into(), &circumstances(Some("full"), false, false));
        assert_eq!(full.outcome, Outcome::OutOfDisk);
    }
}
