//! Summarizes a run for a person: one sentence if the run created a replica, otherwise the attempts and the state of the data directory.

use replica::{Attempt, Outcome, Report, RunResult};

use super::text::{amount, printable, time};

/// The state in which a failed run leaves the data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatadirState {
    /// No attempt touched it.
    Untouched,
    /// It is empty or does not exist.
    Empty,
    /// It has incomplete content, from which PostgreSQL does not start.
    Unfinished,
}

impl DatadirState {
    /// Returns the state of the data directory after a run that created no replica.
    pub fn of(report: &Report) -> Self {
        if !report.attempts.iter().any(|attempt| attempt.touched) {
            return Self::Untouched;
        }
        match std::fs::read_dir(&report.datadir).map(|mut entries| entries.next().is_none()) {
            Ok(false) => Self::Unfinished,
            Ok(true) => Self::Empty,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Self::Empty,
            // A directory that cannot be read may have content.
            Err(_) => Self::Unfinished,
        }
    }

    fn sentence(self, datadir: &str) -> String {
        match self {
            Self::Untouched => format!("{datadir} is as it was"),
            Self::Empty => format!("{datadir} was emptied and holds nothing"),
            Self::Unfinished => format!(
                "{datadir} holds unfinished work without global/pg_control, from which PostgreSQL does not start; the next \
                 run goes on from there"
            ),
        }
    }
}

/// Returns one sentence about a run that created a replica.
pub fn created(report: &Report) -> String {
    let method = report.attempts.last();
    let name = method.map_or("", |attempt| attempt.method.as_str());
    let moved = method.map(|attempt| amount(some(attempt.bytes), some(attempt.files))).unwrap_or_default();
    let moved = if moved.is_empty() { moved } else { format!(" ({moved})") };
    let text =
        format!("created the replica in {} with {name} in {}{moved}", report.datadir, time(report.duration));
    printable(&text).into_owned()
}

fn some(count: u64) -> Option<u64> {
    (count > 0).then_some(count)
}

/// Returns the lines about a run that created no replica: the result, each attempt with its remedy, and the state of the data directory. If
/// the log has already shown the attempts, the lines have only their outcomes.
pub fn failed(report: &Report, datadir: DatadirState, attempts_logged: bool) -> Vec<String> {
    let mut lines = vec![headline(report)];
    if attempts_logged {
        let ended = |attempt: &Attempt| format!("{} {}", attempt.method, attempt.outcome);
        let ended: Vec<_> = report.attempts.iter().map(ended).collect();
        if ended.len() > 1 {
            lines.push(format!("  {}", ended.join(", ")));
        }
    } else {
        report.attempts.iter().for_each(|attempt| lines.extend(attempt_lines(attempt)));
    }
    lines.push(datadir.sentence(&report.datadir));
    lines.iter().map(|line| printable(line).into_owned()).collect()
}

fn headline(report: &Report) -> String {
    let why = match (&report.message, report.result) {
        (Some(message), _) => message.as_str(),
        (None, RunResult::Created) => "it was created",
        (None, RunResult::Failed) => "every method failed",
        (None, RunResult::Refused) => "refused by policy",
        (None, RunResult::CheckFailed) => {
            "the directory that the last method filled failed a check of the seal"
        }
        (None, RunResult::RetryLater) => "every method asked to try again later",
        (None, RunResult::Interrupted) => "cancelled by SIGINT",
        (None, RunResult::Terminated) => "cancelled by SIGTERM",
    };
    format!("no replica was created after {}: {why}", time(report.duration))
}

fn attempt_lines(attempt: &Attempt) -> Vec<String> {
    let rule = attempt.rule.as_ref().map(|rule| format!(" ({rule})")).unwrap_or_default();
    let message = if attempt.message.is_empty() { String::new() } else { format!(": {}", attempt.message) };
    let mut lines = vec![format!("  {}: {}{rule}{message}", attempt.method, attempt.outcome)];
    lines.extend(attempt.remedy.iter().map(|remedy| format!("    to change that: {remedy}")));
    for denial in attempt.denials.iter().take(DENIALS) {
        lines.push(format!("    denied: {denial}"));
        if let Some(remedy) = &denial.remedy {
            lines.push(format!("      to allow it: {remedy}"));
        }
    }
    if attempt.denials.len() > DENIALS {
        let more = match attempt.denials.len() - DENIALS {
            1 => "1 more denial".to_owned(),
            more => format!("{more} more denials"),
        };
        lines.push(format!("    and {more}, which the report has (--report)"));
    }
    if attempt.outcome != Outcome::NotApplicable {
        let shown = attempt.output.len().saturating_sub(LAST_LINES);
        lines.extend(attempt.output[shown..].iter().map(|line| format!("    | {line}")));
    }
    lines
}

/// How many lines of a failed attempt's output the summary repeats. The report has more.
const LAST_LINES: usize = 5;

/// How many denials of a failed attempt the summary repeats.
const DENIALS: usize = 3;

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use replica::Denial;
    use replica::Rule;

    use super::*;

    fn attempt(method: &str, outcome: Outcome) -> Attempt {
        Attempt {
            method: method.to_owned(),
            outcome,
            rule: None,
            message: String::new(),
            remedy: None,
            duration: Duration::from_secs(1),
            touched: false,
            plan: None,
            bytes: 0,
            files: 0,
            usage: Default::default(),
            denials: Vec::new(),
            output: Vec::new(),
            output_dropped: 0,
            findings: Vec::new(),
        }
    }

    fn report(result: RunResult, datadir: &Path, attempts: Vec<Attempt>) -> Report {
        Report {
            result,
            datadir: datadir.display().to_string(),
            scope: "batman".to_owned(),
            message: None,
            started: String::new(),
            duration: Duration::from_millis(12_300),
            attempts,
        }
    }

    #[test]
    fn success_is_one_sentence() {
        let created_by = Attempt { bytes: 3 << 29, files: 1200, ..attempt("tarball", Outcome::Created) };
        let report = report(
            RunResult::Created,
            Path::new("/data"),
            vec![attempt("s3", Outcome::NotApplicable), created_by],
        );
        assert_eq!(
            created(&report),
            "created the replica in /data with tarball in 12.3 s (1.5 GiB, 1200 files)"
        );
    }

    #[test]
    fn failure_lists_every_attempt_with_outcome_message_and_remedy() {
        let rejected = Attempt {
            rule: Some(Rule::Component),
            message: "no such file\u{1b}[2J".to_owned(),
            remedy: Some("plugin = \"/x.wasm\"".to_owned()),
            ..attempt("acme", Outcome::Rejected)
        };
        let denied = Attempt {
            message: "gave up".to_owned(),
            denials: vec![Denial {
                capability: replica::CapabilityKind::Read,
                what: "/mnt".to_owned(),
                remedy: Some("read = [\"/mnt\"]".to_owned()),
            }],
            output: (0..9).map(|i| format!("line {i}")).collect(),
            ..attempt("tarball", Outcome::Denied)
        };
        let report = report(RunResult::Failed, Path::new("/data"), vec![rejected, denied]);
        let lines = failed(&report, DatadirState::of(&report), false);
        assert_eq!(
            lines[..6],
            [
                "no replica was created after 12.3 s: every method failed",
                "  acme: rejected (component): no such file\\u{1b}[2J",
                "    to change that: plugin = \"/x.wasm\"",
                "  tarball: denied: gave up",
                "    denied: read /mnt",
                "      to allow it: read = [\"/mnt\"]",
            ]
        );
        assert_eq!(
            lines[6..11],
            ["    | line 4", "    | line 5", "    | line 6", "    | line 7", "    | line 8"]
        );
        assert_eq!(lines.last().map(String::as_str), Some("/data is as it was"));

        let short = failed(&report, DatadirState::of(&report), true);
        let expected = [
            "no replica was created after 12.3 s: every method failed",
            "  acme rejected, tarball denied",
            "/data is as it was",
        ];
        assert_eq!(short, expected);
    }

    #[test]
    fn the_denials_that_the_summary_leaves_out_are_counted() {
        let last = |denials| {
            let denial =
                Denial { capability: replica::CapabilityKind::Read, what: "/mnt".to_owned(), remedy: None };
            let denied = Attempt { denials: vec![denial; denials], ..attempt("tarball", Outcome::Denied) };
            attempt_lines(&denied).pop().unwrap()
        };
        assert_eq!(last(DENIALS), "    denied: read /mnt");
        assert_eq!(last(DENIALS + 1), "    and 1 more denial, which the report has (--report)");
        assert_eq!(last(DENIALS + 2), "    and 2 more denials, which the report has (--report)");
    }

    #[test]
    fn the_state_of_the_data_directory_is_read_from_disk() {
        let directory = tempfile::tempdir().unwrap();
        let touched = || vec![Attempt { touched: true, ..attempt("m", Outcome::Failed) }];
        assert_eq!(
            DatadirState::of(&report(RunResult::Failed, directory.path(), vec![])),
            DatadirState::Untouched
        );
        assert_eq!(
            DatadirState::of(&report(RunResult::Failed, directory.path(), touched())),
            DatadirState::Empty
        );
        std::fs::write(directory.path().join("PG_VERSION"), "15").unwrap();
        assert_eq!(
            DatadirState::of(&report(RunResult::Failed, directory.path(), touched())),
            DatadirState::Unfinished
        );
        assert_eq!(
            DatadirState::of(&report(RunResult::Failed, &directory.path().join("gone"), touched())),
            DatadirState::Empty
        );
    }
}
