//! What is wrong with a configuration: every problem at once, each with its place and the nearest right name.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// Where in a file something stands. Both count from 1; a column is a character, not a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl Place {
    /// The place of the byte at `offset` of `text`; an offset past the end is the end.
    pub fn of(text: &str, offset: usize) -> Self {
        let before = &text.as_bytes()[..offset.min(text.len())];
        let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        Self {
            line: 1 + before.iter().filter(|byte| **byte == b'\n').count(),
            column: 1 + String::from_utf8_lossy(&before[start..]).chars().count(),
        }
    }
}

/// Where a problem comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(untagged)]
pub enum Origin {
    /// The configuration file.
    File {
        /// The file, as it was given.
        file: PathBuf,
        /// Where in it.
        #[serde(flatten)]
        place: Place,
    },
    /// A flag on the command line, such as `--datadir`.
    Flag {
        /// The flag.
        flag: String,
    },
}

/// One thing that is wrong, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// Where.
    #[serde(flatten)]
    pub origin: Origin,
    /// What is wrong and what to do.
    pub message: String,
}

impl Problem {
    /// A problem at a place of the configuration file.
    pub fn in_file(file: &Path, place: Place, message: impl Into<String>) -> Self {
        Self { origin: Origin::File { file: file.to_owned(), place }, message: message.into() }
    }

    /// A problem with a flag.
    pub fn with_flag(flag: impl Into<String>, message: impl Into<String>) -> Self {
        Self { origin: Origin::Flag { flag: flag.into() }, message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::File { file, place: Place { line, column } } => {
                write!(f, "{}:{line}:{column}: {}", file.display(), self.message)
            }
            Origin::Flag { flag } => write!(f, "{flag}: {}", self.message),
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the configuration file {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Others could have written it, and would decide what runs as the server's user. Says who and what to do.
    #[error("{0}")]
    NotTrusted(String),
    /// Everything that is wrong with it, in the order of the file; flags come last.
    #[error("{}", lines(.0))]
    Problems(Vec<Problem>),
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}

/// Says that a value is no absolute path. It is quoted if it looks like a path at all: what does not may be a password or a connection
/// string that stands in the wrong place.
pub(crate) fn not_absolute(value: &str) -> String {
    match value.starts_with(['/', '~', '.', '$']) {
        true => format!("must be an absolute path, not `{}`", value.escape_debug()),
        false => not_absolute_unquoted(),
    }
}

/// The same of a value that is never quoted.
pub(crate) fn not_absolute_unquoted() -> String {
    "must be an absolute path, which begins with `/`".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_counts_lines_and_characters_from_one() {
        let text = "a = 1\nä = \"ü\" x\n";
        assert_eq!(Place::of(text, 0), Place { line: 1, column: 1 });
        assert_eq!(Place::of(text, text.find('x').unwrap()), Place { line: 2, column: 9 });
        assert_eq!(Place::of(text, 1000), Place { line: 3, column: 1 });
    }
}
