//! The verbs. A verb is a file.

pub mod check;
pub mod completions;
pub mod create;
pub mod inspect;
mod job;

use std::io::Write;

use replica::Refusal;

use crate::config::{ConfigError, Problem};
use crate::root::RootError;

/// The exit code for errors of usage and configuration.
pub const USAGE: u8 = 2;
/// The exit code for directories that a run may not touch.
pub const REFUSED: u8 = 3;
/// The exit code for everything else that keeps a verb from its work.
pub const FAILED: u8 = 1;

/// Why a verb did not get to its work.
#[derive(Debug)]
pub(crate) struct NotRun {
    /// The program's exit code.
    pub(crate) exit_code: u8,
    /// Why, in one line.
    pub(crate) message: String,
    /// Everything that is wrong with the configuration, where that is why.
    pub(crate) problems: Vec<Problem>,
}

impl NotRun {
    /// Something that is the operator's to change.
    pub(crate) fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self { exit_code: USAGE, message: format!("{:#}", error.into()), problems: Vec::new() }
    }

    /// Something of this machine.
    pub(crate) fn failed(error: impl Into<anyhow::Error>) -> Self {
        Self { exit_code: FAILED, message: format!("{:#}", error.into()), problems: Vec::new() }
    }

    /// Directories that no method may be tried with.
    pub(crate) fn refused(refusal: Refusal) -> Self {
        let message = match refusal.remedy {
            Some(remedy) => format!("{} ({remedy})", refusal.message),
            None => refusal.message,
        };
        Self { exit_code: REFUSED, message, problems: Vec::new() }
    }

    /// The same word as in the JSON report.
    pub(crate) fn word(&self) -> &'static str {
        match self.exit_code {
            USAGE => "usage",
            REFUSED => "refused",
            _ => "failed",
        }
    }
}

impl From<Vec<Problem>> for NotRun {
    fn from(problems: Vec<Problem>) -> Self {
        let message = match problems.len() {
            1 => "the configuration has a problem".to_owned(),
            count => format!("the configuration has {count} problems"),
        };
        Self { exit_code: USAGE, message, problems }
    }
}

impl From<ConfigError> for NotRun {
    fn from(error: ConfigError) -> Self {
        match error {
            ConfigError::Problems(problems) => problems.into(),
            unreadable => Self::usage(unreadable),
        }
    }
}

impl From<RootError> for NotRun {
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

/// Writes to standard output. A reader that has gone away, such as `head`, is no error.
pub(crate) fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _gone = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
