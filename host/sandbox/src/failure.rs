//! How a call of a component ended, as an outcome of the attempt.

use replica::{Denial, Failure, Outcome};
use wasmtime::{Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use crate::ended::Ended;
use crate::limits::LimitExceeded;
use crate::text::printable;

/// Frames of a trap that are shown, innermost first.
const FRAMES: usize = 5;
/// Denials that are repeated in a message; the events have them all.
const DENIALS: usize = 1;

/// What is known besides the component's own word.
pub(crate) struct Circumstances {
    /// Why it could not write something, where that was for want of space.
    pub(crate) full: Option<String>,
    /// What it was denied.
    pub(crate) denials: Vec<Denial>,
    /// Whether it was asked to stop.
    pub(crate) cancelled: bool,
    /// What it said on its standard error when it ended.
    pub(crate) last_word: Option<String>,
}

/// A component that gave up.
///
/// `failed` is the component's own word for everything; the host knows more: where something could not be written for
/// want of space it is out-of-disk, else where anything was denied it is denied. A component that was not asked to
/// stop was not cancelled: it failed.
pub(crate) fn of_the_component(ended: Ended, circumstances: &Circumstances) -> Failure {
    match ended {
        Ended::NotApplicable(why) => Failure::new(Outcome::NotApplicable, why),
        Ended::RetryLater(why) => Failure::new(Outcome::RetryLater, why),
        Ended::Failed(why) => failed(why, circumstances),
        Ended::Cancelled if circumstances.cancelled => Failure::cancelled(),
        Ended::Cancelled => {
            failed("the method says that it was cancelled, but nobody asked it".to_owned(), circumstances)
        }
    }
}

fn failed(why: String, circumstances: &Circumstances) -> Failure {
    if let Some(full) = &circumstances.full {
        return Failure::new(Outcome::OutOfDisk, format!("{why}; {full}"));
    }
    if circumstances.denials.is_empty() {
        return Failure::new(Outcome::Failed, why);
    }
    Failure::new(Outcome::Denied, format!("{why}; {}", told(&circumstances.denials)))
}

/// A component that was ended: by a trap, by a limit, by itself.
///
/// Where something could not be written for want of space, a trap is most likely the answer to that: out-of-disk.
pub(crate) fn of_the_sandbox(error: &wasmtime::Error, circumstances: &Circumstances) -> Failure {
    if let Some(limit) = error.downcast_ref::<LimitExceeded>() {
        return Failure::new(Outcome::OutOfMemory, format!("the method {limit} (grants.memory)"));
    }
    if let Some(I32Exit(status)) = error.downcast_ref() {
        let exit = format!("the method ended itself with exit status {status}");
        let why = match &circumstances.last_word {
            Some(word) => format!("{word} (exit status {status})"),
            None => exit,
        };
        return failed(why, circumstances);
    }
    let what = match error.downcast_ref::<Trap>() {
        Some(trap) => trap.to_string(),
        None => printable(&error.root_cause().to_string(), 1000),
    };
    let trap = match error.downcast_ref() {
        // What an abort ends at says nothing that its message does not say.
        Some(Trap::UnreachableCodeReached) => String::new(),
        _ => format!("; it trapped: {what}"),
    };
    let what = match &circumstances.last_word {
        Some(word) => format!("{word}{trap}"),
        None => format!("the method trapped: {what}{}", frames(error)),
    };
    match (&circumstances.full, circumstances.denials.as_slice()) {
        (Some(full), _) => Failure::new(Outcome::OutOfDisk, format!("{what}; {full}")),
        (None, []) => Failure::new(Outcome::Trapped, what),
        (None, denials) => Failure::new(Outcome::Trapped, format!("{what}; {}", told(denials))),
    }
}

/// A component that could not be started or given up on.
pub(crate) fn of_the_host(what: &str, error: &(dyn std::error::Error + 'static)) -> Failure {
    let mut message = format!("{what}: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        message.push_str(": ");
        message.push_str(&error.to_string());
        cause = error.source();
    }
    Failure::new(Outcome::Failed, message)
}

/// Where a trap happened.
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

fn told(denials: &[Denial]) -> String {
    let mut told: Vec<_> = denials
        .iter()
        .take(DENIALS)
        .map(|denial| match &denial.remedy {
            None => format!("denied: {} {}", denial.capability, denial.what),
            Some(remedy) => format!("denied: {} {}, to allow it: {remedy}", denial.capability, denial.what),
        })
        .collect();
    if denials.len() > DENIALS {
        told.push(format!("and {} more denials", denials.len() - DENIALS));
    }
    told.join("; ")
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
            denials: if denied { vec![denial] } else { vec![] },
            cancelled,
            last_word: None,
        }
    }

    #[test]
    fn what_the_host_knows_makes_the_word_for_a_failure() {
        let failed = |circumstances| of_the_component(Ended::Failed("no".to_owned()), &circumstances);
        assert_eq!(failed(circumstances(None, false, false)).outcome, Outcome::Failed);
        let denied = failed(circumstances(None, true, false));
        assert_eq!(denied.outcome, Outcome::Denied);
        assert_eq!(denied.message, "no; denied: read /etc/passwd, to allow it: the line");
        assert_eq!(failed(circumstances(Some("the disk is full"), true, false)).outcome, Outcome::OutOfDisk);
    }

    #[test]
    fn a_components_own_last_word_comes_before_the_trap_and_the_denials() {
        let said = Circumstances {
            last_word: Some("the method panicked: boom".to_owned()),
            denials: (0..18)
                .map(|number| Denial {
                    capability: CapabilityKind::Read,
                    what: format!("/usr/lib/{number}"),
                    remedy: None,
                })
                .collect(),
            ..circumstances(None, false, false)
        };
        let failure = of_the_sandbox(&Trap::UnreachableCodeReached.into(), &said);
        assert_eq!(failure.outcome, Outcome::Trapped);
        assert_eq!(
            failure.message,
            "the method panicked: boom; denied: read /usr/lib/0; and 17 more denials"
        );
        let deep = of_the_sandbox(&Trap::StackOverflow.into(), &said).message;
        assert!(deep.starts_with("the method panicked: boom; it trapped: "), "{deep}");
    }

    #[test]
    fn a_component_that_has_nothing_to_restore_was_not_denied() {
        let denied = circumstances(Some("full"), true, false);
        let word = |ended| of_the_component(ended, &denied).outcome;
        assert_eq!(word(Ended::NotApplicable("no backup".to_owned())), Outcome::NotApplicable);
        assert_eq!(word(Ended::RetryLater("busy".to_owned())), Outcome::RetryLater);
    }

    #[test]
    fn only_who_was_asked_to_stop_is_cancelled() {
        let word =
            |cancelled| of_the_component(Ended::Cancelled, &circumstances(None, false, cancelled)).outcome;
        assert_eq!(word(true), Outcome::Cancelled);
        assert_eq!(word(false), Outcome::Failed);
    }

    #[test]
    fn an_end_that_the_component_did_not_choose_has_a_word_of_its_own() {
        let word =
            |error: wasmtime::Error| of_the_sandbox(&error, &circumstances(None, false, false)).outcome;
        assert_eq!(word(Trap::StackOverflow.into()), Outcome::Trapped);
        assert_eq!(word(LimitExceeded::Machine.into()), Outcome::OutOfMemory);
        assert_eq!(word(I32Exit(1).into()), Outcome::Failed);
        let full =
            of_the_sandbox(&Trap::UnreachableCodeReached.into(), &circumstances(Some("full"), false, false));
        assert_eq!(full.outcome, Outcome::OutOfDisk);
    }
}
