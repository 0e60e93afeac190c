//! The problems of a configuration, each with its place and what to write instead.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// A place in a file. Lines and columns count from 1; columns count characters, not bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl Place {
    /// Returns the place of the byte at `offset` in `text`; the end of `text` if `offset` lies past it.
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
        /// The path, as the operator gave it.
        file: PathBuf,
        /// The place in the file.
        #[serde(flatten)]
        place: Place,
    },
    /// A flag on the command line, such as `--datadir`, or an environment variable.
    Flag {
        /// The flag with its dashes, or the name of the variable.
        flag: String,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, place: Place { line, column } } => {
                write!(f, "{}:{line}:{column}", file.display())
            }
            Self::Flag { flag } => f.write_str(flag),
        }
    }
}

/// One problem of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// Where the problem comes from.
    #[serde(flatten)]
    pub origin: Origin,
    /// What is wrong and what to do.
    pub message: String,
}

impl Problem {
    /// Creates a problem with what was written at `origin`.
    pub fn new(origin: Origin, message: impl Into<String>) -> Self {
        Self { origin, message: message.into() }
    }

    /// Creates a problem at a place in the configuration file.
    pub fn in_file(file: &Path, place: Place, message: impl Into<String>) -> Self {
        Self { origin: Origin::File { file: file.to_owned(), place }, message: message.into() }
    }

    /// Creates a problem with a flag or an environment variable.
    pub fn with_flag(flag: impl Into<String>, message: impl Into<String>) -> Self {
        Self { origin: Origin::Flag { flag: flag.into() }, message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.message)
    }
}

/// Why the configuration could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The configuration file cannot be read.
    #[error("cannot read the configuration file {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Other users may change the configuration file and so decide what runs as the server's user. The message says who may, and what to
    /// do.
    #[error("{0}")]
    NotTrusted(String),
    /// Every problem of the configuration, in the order of the file; problems with flags come last.
    #[error("{}", lines(.0))]
    Problems(Vec<Problem>),
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}

/// Returns the message about a value that is not an absolute path. The message quotes the value only if the value looks like a path:
/// otherwise the value may be a password or a connection string in the wrong place.
pub(crate) fn not_absolute(value: &str) -> String {
    match value.starts_with(['/', '~', '.', '$']) {
        true => format!("must be an absolute path, not `{}`", value.escape_debug()),
        false => not_absolute_unquoted(),
    }
}

/// Returns the message of [`not_absolute`] for a value that must not be quoted.
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
