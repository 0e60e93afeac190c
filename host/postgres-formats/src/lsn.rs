//! Positions in the write-ahead log: PostgreSQL's `XLogRecPtr` (`src/include/access/xlogdefs.h`).

use std::fmt;
use std::str::FromStr;

/// How many characters of an invalid text a message repeats.
const SHOWN: usize = 64;

/// A log sequence number: a position in the write-ahead log, in bytes from its beginning. PostgreSQL writes it as two
/// hexadecimal halves of 32 bits each, `16/B374D848`.
///
/// Zero means no position (`InvalidXLogRecPtr`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

/// A text that is not a log sequence number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an LSN such as 16/B374D848")]
pub struct NotAnLsn(String);

impl Lsn {
    /// Returns the position plus `bytes`, or the highest position if the sum is too large.
    #[must_use]
    pub fn saturating_add(self, bytes: u64) -> Self {
        Self(self.0.saturating_add(bytes))
    }
}

impl FromStr for Lsn {
    type Err = NotAnLsn;

    /// Parses one to eight hexadecimal digits, a slash, and one to eight hexadecimal digits, as `pg_lsn_in_internal` does
    /// (`src/backend/utils/adt/pg_lsn.c`).
    fn from_str(text: &str) -> Result<Self, NotAnLsn> {
        let half = |digits: &str| {
            let hexadecimal =
                (1..=8).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            hexadecimal.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
        };
        text.split_once('/')
            .and_then(|(upper, lower)| Some(Self(half(upper)? << 32 | half(lower)?)))
            .ok_or_else(|| NotAnLsn(text.chars().take(SHOWN).collect()))
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for (text, value) in [
            ("0/0", 0),
            ("0/2000028", 0x0200_0028),
            ("16/B374D848", 0x16_B374_D848),
            ("FFFFFFFF/FFFFFFFF", u64::MAX),
        ] {
            assert_eq!(text.parse(), Ok(Lsn(value)));
            assert_eq!(Lsn(value).to_string(), text);
        }
        assert_eq!("a/0000000b".parse(), Ok(Lsn(0xA_0000_000B)));
    }

    #[test]
    fn refuses_other_texts() {
        for text in
            ["", "/", "0/", "/0", "0", "+1/2", "1/2/3", "0/123456789", "100000000/0", "g/0", "0/x", " 0/0"]
        {
            assert!(text.parse::<Lsn>().is_err(), "{text:?}");
        }
        let long = "x".repeat(1000).parse::<Lsn>().unwrap_err().to_string();
        assert!(long.len() < 200, "{long}");
    }

    #[test]
    fn adding_stops_at_the_highest_position() {
        assert_eq!(Lsn(1).saturating_add(2), Lsn(3));
        assert_eq!(Lsn(u64::MAX).saturating_add(1), Lsn(u64::MAX));
    }
}
