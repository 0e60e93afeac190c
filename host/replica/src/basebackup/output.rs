//! What pg_basebackup prints, as events, log lines and the message of a failure.

use super::{PROGRAM, progress};
use crate::event::Level;
use crate::process::{Ending, Line, LineUse};
use crate::{Event, Failure, Outcome, Run};

/// How many of the program's last lines a failure repeats.
const LAST_LINES: usize = 3;

/// Turns a line of progress into an event; every other line is logged. `waits` says whether pg_basebackup still waits for the checkpoint.
/// The first byte ends the wait, and begins the phase `copying`.
pub(super) fn use_line(line: &Line, run: &Run, waits: &mut bool) -> LineUse {
    if let Some(progress) = progress::parse(&line.text) {
        // The first line of progress has 0 bytes.
        if progress.done.0 > 0 && std::mem::take(waits) {
            run.emit(Event::Phase { method: run.method().to_owned(), name: "copying".to_owned() });
        }
        run.progress(progress.done.0, progress.expected.map(|expected| expected.0), 0, None);
        return LineUse::Taken;
    }
    let is = |word: &str| line.text.contains(word);
    LineUse::Log(if is(" error: ") || is(" fatal: ") || is("FATAL: ") {
        Level::Error
    } else if is(" warning: ") || is("WARNING: ") {
        Level::Warn
    } else {
        Level::Info
    })
}

/// Returns the failure of the program, with how it ended and its last errors, or its last lines if it printed no error.
pub(super) fn failure(ending: &Ending) -> Failure {
    let errors: Vec<_> =
        ending.tail.iter().filter(|line| line.contains(" error: ") || line.contains(" fatal: ")).collect();
    let lines = if errors.is_empty() { ending.tail.iter().collect() } else { errors };
    let last: Vec<_> =
        lines[lines.len().saturating_sub(LAST_LINES)..].iter().map(|line| line.as_str()).collect();
    let said = if last.is_empty() { "it printed nothing".to_owned() } else { last.join("; ") };
    // strerror(ENOSPC) and strerror(EDQUOT) in the program's C locale.
    let full = ["No space left on device", "Disk quota exceeded"];
    let outcome = match full.iter().any(|error| said.contains(error)) {
        true => Outcome::OutOfDisk,
        false => Outcome::Failed,
    };
    Failure::new(outcome, format!("{PROGRAM} {}: {said}", ending.status))
}

#[cfg(test)]
mod tests {
    use crate::process::Status;

    use super::*;

    fn ending(status: Status, tail: &[&str]) -> Ending {
        let tail = tail.iter().map(|line| (*line).to_owned()).collect();
        Ending {
            status,
            stopped: false,
            leftover_processes: 0,
            exceeded: None,
            used: Default::default(),
            tail,
            landlock: 7,
        }
    }

    #[test]
    fn a_failure_says_the_exit_code_and_the_last_errors() {
        let tail =
            ["pg_basebackup: initiating base backup", "pg_basebackup: error: a", "pg_basebackup: removing b"];
        let failure = failure(&ending(Status::Exited(1), &tail));
        assert_eq!(failure.message, "pg_basebackup exited with code 1: pg_basebackup: error: a");
        assert_eq!(failure.outcome, Outcome::Failed);
    }

    #[test]
    fn a_failure_without_an_error_says_the_last_lines() {
        let failure = failure(&ending(Status::Signalled(9), &["a", "b", "c", "d"]));
        assert_eq!(failure.message, "pg_basebackup was ended by signal 9: b; c; d");
        assert!(super::failure(&ending(Status::Exited(2), &[])).message.ends_with("it printed nothing"));
    }

    #[test]
    fn a_full_disk_has_an_outcome_of_its_own() {
        let tail = ["pg_basebackup: error: could not write to file \"x\": No space left on device"];
        assert_eq!(failure(&ending(Status::Exited(1), &tail)).outcome, Outcome::OutOfDisk);
    }
}
