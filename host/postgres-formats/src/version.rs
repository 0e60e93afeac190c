//! `PG_VERSION`, which initdb writes (`write_version_file` in `src/bin/initdb/initdb.c`) and the server reads
//! (`ValidatePgVersion` in `src/backend/utils/init/miscinit.c`).

use std::fmt;

/// The longest `PG_VERSION` that is read, in bytes. The server reads 63 characters.
pub const LIMIT: u64 = 64;

/// The most digits of a number in a version.
const MOST_DIGITS: usize = 4;

/// A major version of PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// One number, such as 15: from PostgreSQL 10 on.
    Major(u32),
    /// Two numbers, such as 9.6: before PostgreSQL 10.
    BeforeTen(u32, u32),
}

impl Version {
    /// Parses one number, or two with a dot between them, of one to four digits each; `None` for any other text.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut numbers = text.split(|byte| *byte == b'.');
        match (numbers.next(), numbers.next(), numbers.next()) {
            (Some(major), None, None) => Some(Self::Major(number(major)?)),
            (Some(first), Some(second), None) => Some(Self::BeforeTen(number(first)?, number(second)?)),
            _ => None,
        }
    }

    /// Returns the major version; `None` for a version before 10.
    pub fn major(self) -> Option<u32> {
        match self {
            Self::Major(major) => Some(major),
            Self::BeforeTen(..) => None,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Major(major) => write!(f, "{major}"),
            Self::BeforeTen(first, second) => write!(f, "{first}.{second}"),
        }
    }
}

/// Parses the contents of a `PG_VERSION` as initdb writes them: one number, such as 15, and at most one line feed. `None` for any
/// other contents, and for versions before 10.
pub fn major_version(contents: &[u8]) -> Option<u32> {
    Version::parse(contents.strip_suffix(b"\n").unwrap_or(contents))?.major()
}

/// Parses the contents of a `PG_VERSION` as the server does, which ignores white space around the version. `None` for any other
/// contents.
pub fn version_between_spaces(contents: &[u8]) -> Option<Version> {
    Version::parse(contents.trim_ascii())
}

fn number(digits: &[u8]) -> Option<u32> {
    ((1..=MOST_DIGITS).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit)).then_some(())?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_major_version_is_one_number_on_one_line() {
        assert_eq!(major_version(b"15\n"), Some(15));
        assert_eq!(major_version(b"18"), Some(18));
        for text in ["", "\n", "9.6\n", "15\n15\n", "15\n\n", " 15\n", "fifteen", "+15", "-1", "99999999"] {
            assert_eq!(major_version(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn the_server_ignores_white_space() {
        for text in ["15", "15\n", " 15 \r\n", "15\n\n"] {
            assert_eq!(version_between_spaces(text.as_bytes()), Some(Version::Major(15)), "{text:?}");
        }
        assert_eq!(version_between_spaces(b"9.6\n"), Some(Version::BeforeTen(9, 6)));
        assert_eq!(version_between_spaces(b"1 5"), None);
    }

    #[test]
    fn a_version_is_one_or_two_numbers() {
        for (text, version) in [("15", true), ("9.6", true)] {
            assert_eq!(Version::parse(text.as_bytes()).is_some(), version, "{text}");
            assert_eq!(Version::parse(text.as_bytes()).unwrap().to_string(), text);
        }
        for text in ["", "15.", ".15", "x", "1.2.3", "12345", "15\n"] {
            assert_eq!(Version::parse(text.as_bytes()), None, "{text:?}");
        }
    }
}
