//! The verbs, one module each.

pub mod check;
pub mod completions;
pub mod create;
pub mod inspect;
mod job;
pub mod man;
pub mod patroni;
pub mod report;
mod trusted;

use std::io::Write;
use std::path::Path;

use replica::Refusal;

use crate::config::{ConfigError, Problem};
use crate::root::RootError;

/// The exit code for errors of usage and configuration.
pub const USAGE: u8 = 2;
/// The exit code if a run may not touch the directories.
pub const REFUSED: u8 = 3;
/// The exit code if anything else keeps a verb from starting.
pub const FAILED: u8 = 1;

/// Why a verb ended before its run began: nothing was touched.
#[derive(Debug)]
pub(crate) struct NotStarted {
    /// The program's exit code.
    pub(crate) exit_code: u8,
    /// The reason, in one line.
    pub(crate) message: String,
    /// All problems of the configuration; empty if the reason is not the configuration.
    pub(crate) problems: Vec<Problem>,
}

impl NotStarted {
    /// Returns an error that the operator can correct: of the arguments, the configuration or a file that it names.
    pub(crate) fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self { exit_code: USAGE, message: format!("{:#}", error.into()), problems: Vec::new() }
    }

    /// Returns an error that neither the arguments nor the configuration caused.
    pub(crate) fn failed(error: impl Into<anyhow::Error>) -> Self {
        Self { exit_code: FAILED, message: format!("{:#}", error.into()), problems: Vec::new() }
    }

    /// Returns a refusal to touch the directories.
    pub(crate) fn refused(refusal: Refusal) -> Self {
        let message = match refusal.remedy {
            Some(remedy) => format!("{} ({remedy})", refusal.message),
            None => refusal.message,
        };
        Self { exit_code: REFUSED, message, problems: Vec::new() }
    }

    /// Returns the word for `result` in the JSON report.
    pub(crate) fn result_word(&self) -> &'static str {
        match self.exit_code {
            USAGE => "usage",
            REFUSED => "refused",
            _ => "failed",
        }
    }
}

impl From<Vec<Problem>> for NotStarted {
    fn from(problems: Vec<Problem>) -> Self {
        let message = match problems.len() {
            1 => "the configuration has a problem".to_owned(),
            count => format!("the configuration has {count} problems"),
        };
        Self { exit_code: USAGE, message, problems }
    }
}

impl From<ConfigError> for NotStarted {
    fn from(error: ConfigError) -> Self {
        match error {
            ConfigError::Problems(problems) => problems.into(),
            unreadable => Self::usage(unreadable),
        }
    }
}

impl From<RootError> for NotStarted {
    fn from(error: RootError) -> Self {
        match error {
            RootError::NoDefaultUser
            | RootError::NoSuchUser
            | RootError::StillRoot(_)
            | RootError::CannotBecome { .. } => Self::usage(error),
            RootError::Threads(_) | RootError::System { .. } | RootError::NotDropped(_) => {
                Self::failed(error)
            }
        }
    }
}

/// Writes to standard output. It is not an error if the reader, such as `head`, has closed the pipe.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _gone = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Returns the name of a file of the command line for messages. `-` is standard input.
pub(crate) fn input_name(file: &Path) -> String {
    if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() }
}
