//! How an attempt ended, how a run ended, and the report of both.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::rule::Rule;
use crate::usage::Usage;
use crate::{Denial, Level, Plan};

/// How one attempt ended: the words of the report, the log and the manual.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The replica exists and is sealed.
    Created,
    /// The method has nothing to restore here.
    NotApplicable,
    /// The method may succeed later.
    RetryLater,
    /// The method ran and failed.
    Failed,
    /// A check refused the method before the data directory was touched.
    Rejected,
    /// The component trapped.
    Trapped,
    /// The method failed, and a call that no grant covers was denied.
    Denied,
    /// A time limit of the method or of the run passed.
    TimedOut,
    /// The component needed more memory than it was granted.
    OutOfMemory,
    /// The method filled its disk budget or the disk.
    OutOfDisk,
    /// The restored files did not pass the checks of the seal.
    CheckFailed,
    /// A signal ended the attempt.
    Cancelled,
}

impl Outcome {
    /// Returns the word for it in the report.
    pub fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::NotApplicable => "not-applicable",
            Self::RetryLater => "retry-later",
            Self::Failed => "failed",
            Self::Rejected => "rejected",
            Self::Trapped => "trapped",
            Self::Denied => "denied",
            Self::TimedOut => "timed-out",
            Self::OutOfMemory => "out-of-memory",
            Self::OutOfDisk => "out-of-disk",
            Self::CheckFailed => "check-failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// How a run ended, with the program's exit code for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Result {
    /// A replica was created: 0.
    Created,
    /// Every method failed: 1, Patroni's meaning.
    Failed,
    /// The data directory may not be touched, or every method that had something to restore was refused by policy: 3.
    Refused,
    /// The last attempt failed a check of the end state: 4.
    CheckFailed,
    /// Every failure was retry-later: 75.
    RetryLater,
    /// SIGINT: 130.
    Interrupted,
    /// SIGTERM: 143.
    Terminated,
}

impl Result {
    /// Returns the word for it in the report.
    pub fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::CheckFailed => "check-failed",
            Self::RetryLater => "retry-later",
            Self::Interrupted => "interrupted",
            Self::Terminated => "terminated",
        }
    }

    /// Returns the exit code of the program.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Created => 0,
            Self::Failed => 1,
            Self::Refused => 3,
            Self::CheckFailed => 4,
            Self::RetryLater => 75,
            Self::Interrupted => 130,
            Self::Terminated => 143,
        }
    }
}

/// The report of one attempt.
#[derive(Clone, Debug, Serialize)]
pub struct Attempt {
    /// The method's name.
    pub method: String,
    /// How it ended.
    pub outcome: Outcome,
    /// The rule that rejected it, or the check that failed.
    pub rule: Option<Rule>,
    /// Why, for a person; empty for `created`.
    pub message: String,
    /// The line of configuration that would change the answer.
    pub remedy: Option<String>,
    /// How long it took.
    #[serde(rename = "seconds", serialize_with = "seconds")]
    pub duration: Duration,
    /// Whether the data directory was emptied, or only its pg_control removed (`keep_data`), for this attempt.
    pub touched: bool,
    /// The method's plan; `None` if the attempt ended before the method returned one.
    pub plan: Option<Plan>,
    /// How many bytes the method reported to have written.
    pub bytes: u64,
    /// How many files the method reported to have written.
    pub files: u64,
    /// The resources that the attempt used, with their limits.
    pub usage: Usage,
    /// Calls that no grant covered.
    pub denials: Vec<Denial>,
    /// What the method and the programs that it ran printed or logged, newest last; bounded.
    pub output: Vec<String>,
    /// How many lines of `output` were dropped to keep within the bound.
    pub output_dropped: u64,
    /// What the checks of the host found, and what the seal changed.
    pub findings: Vec<Finding>,
}

/// Something that a check of the host found, such as in the restored files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check that found it.
    pub check: Rule,
    /// `info` for what the operator's own configuration requests, `warn` for what came with the backup or could not be checked.
    pub level: Level,
    /// What was found and what was done about it.
    pub message: String,
}

impl Finding {
    /// Returns the finding with its message passed through `change`.
    #[must_use]
    pub fn map_texts(self, change: &dyn Fn(String) -> String) -> Self {
        Self { message: change(self.message), ..self }
    }
}

/// The report of a run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// How it ended.
    pub result: Result,
    /// The data directory.
    pub datadir: String,
    /// The cluster's name.
    pub scope: String,
    /// Why the run ended before any method was tried; `None` if one was tried.
    pub message: Option<String>,
    /// When it began, RFC 3339.
    pub started: String,
    /// How long it took.
    #[serde(rename = "seconds", serialize_with = "seconds")]
    pub duration: Duration,
    /// Every attempt, in order.
    pub attempts: Vec<Attempt>,
}

fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}
