//! Timeline history files, such as `00000003.history`, and the answer to `TIMELINE_HISTORY`, which has the contents of such a file. The
//! file is written by `writeTimeLineHistory` and read by `readTimeLineHistory` (`src/backend/access/transam/timeline.c`). Each line has the
//! number of a timeline, the position at which the next timeline began, and the reason. The names of history files are parsed by
//! [`crate::segment::WalFile`].

use crate::{Lsn, shown};

/// The longest history file that is read, in bytes. It has one line for each earlier timeline.
pub const LIMIT: u32 = 256 << 10;

/// The position at which a timeline ended and the next one began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fork {
    /// The timeline that ended.
    pub timeline: u32,
    /// The position at which the next timeline began.
    pub at: Lsn,
}

/// A history file that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// A line lacks a timeline or a position.
    #[error("has a line `{0}` that lacks a timeline or an LSN")]
    Line(String),
    /// The numbers of timelines do not ascend. Each timeline has a higher number than the timeline that it branched off from.
    #[error("has the timeline {timeline} after the timeline {before}")]
    Order {
        /// The later timeline.
        timeline: u32,
        /// The timeline before it.
        before: u32,
    },
    /// A timeline ended at a lower position than its parent timeline did.
    #[error(
        "says that the timeline {timeline} ended at {at}, before its parent timeline, which ended at {before}"
    )]
    Backwards {
        /// The later timeline.
        timeline: u32,
        /// The position at which the file says it ended.
        at: Lsn,
        /// The position at which the timeline before it ended.
        before: Lsn,
    },
}

/// Reads the forks that a history file lists, oldest first. Like PostgreSQL, does not compare their positions. The reason in a line
/// may be in any encoding.
///
/// # Errors
/// [`HistoryError::Line`] and [`HistoryError::Order`].
pub fn parse(contents: &[u8]) -> Result<Vec<Fork>, HistoryError> {
    let mut forks: Vec<Fork> = Vec::new();
    for line in contents.split(|byte| *byte == b'\n') {
        let mut fields = line.split(|byte| is_space(*byte)).filter(|field| !field.is_empty());
        let Some(first) = fields.next().filter(|first| !first.starts_with(b"#")) else { continue };
        let malformed = || HistoryError::Line(shown(line));
        let timeline = text(first).and_then(|text| text.parse().ok()).ok_or_else(malformed)?;
        let at = fields.next().and_then(text).and_then(|text| text.parse().ok()).ok_or_else(malformed)?;
        if let Some(last) = forks.last()
            && timeline <= last.timeline
        {
            return Err(HistoryError::Order { timeline, before: last.timeline });
        }
        forks.push(Fork { timeline, at });
    }
    Ok(forks)
}

/// Reads the forks as [`parse`] does, but refuses a file in which a timeline ended at a lower position than its parent timeline. No server
/// writes such a file. Callers that calculate with the positions need this check.
///
/// # Errors
/// Every [`HistoryError`].
pub fn parse_ascending(contents: &[u8]) -> Result<Vec<Fork>, HistoryError> {
    let forks = parse(contents)?;
    match forks.windows(2).find(|pair| pair[1].at < pair[0].at) {
        Some(pair) => {
            Err(HistoryError::Backwards { timeline: pair[1].timeline, at: pair[1].at, before: pair[0].at })
        }
        None => Ok(forks),
    }
}

/// Does what C's `isspace` does in the POSIX locale.
fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0B
}

fn text(field: &[u8]) -> Option<&str> {
    std::str::from_utf8(field).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forks(forks: &[(u32, u64)]) -> Vec<Fork> {
        forks.iter().map(|&(timeline, at)| Fork { timeline, at: Lsn(at) }).collect()
    }

    #[test]
    fn each_line_is_a_fork() {
        let text = "1\t0/5000028\tno recovery target specified\n\n# a comment\n  2\t1/60000A0\tbefore 2026-11-26\r\n";
        let read = forks(&[(1, 0x0500_0028), (2, 0x1_0600_00A0)]);
        assert_eq!(parse(text.as_bytes()), Ok(read.clone()));
        assert_eq!(parse_ascending(text.as_bytes()), Ok(read));
        assert_eq!(parse(b""), Ok(Vec::new()));
        assert_eq!(parse(b"1\t0/5000028"), Ok(forks(&[(1, 0x0500_0028)])));
    }

    #[test]
    fn the_reason_may_be_in_any_encoding() {
        // The name of a restore point, in Latin 1.
        let text = b"1\t0/5000028\tat restore point \"f\xFCr\"\n";
        assert_eq!(parse(text), Ok(forks(&[(1, 0x0500_0028)])));
    }

    #[test]
    fn only_ascii_white_space_separates_fields() {
        for text in ["1\u{a0}0/5000028\tx\n", "\u{a0}1\t0/5000028\tx\n"] {
            assert!(matches!(parse(text.as_bytes()), Err(HistoryError::Line(_))), "{text:?}");
        }
        assert!(parse(b"1\x0B0/5000028\n").is_ok());
    }

    #[test]
    fn timelines_ascend() {
        for second in [1, 2] {
            let text = format!("2\t0/1\tx\n{second}\t0/2\tx\n");
            let error = HistoryError::Order { timeline: second, before: 2 };
            assert_eq!(parse(text.as_bytes()), Err(error.clone()));
            assert_eq!(parse_ascending(text.as_bytes()), Err(error));
        }
    }

    #[test]
    fn only_parse_ascending_refuses_descending_positions() {
        let text = b"1\t0/4000000\tx\n2\t0/3000000\tx\n";
        assert_eq!(parse(text), Ok(forks(&[(1, 0x0400_0000), (2, 0x0300_0000)])));
        assert!(matches!(parse_ascending(text), Err(HistoryError::Backwards { timeline: 2, .. })));
        // A timeline may end at the position at which it began.
        assert!(parse_ascending(b"1\t0/4000000\tx\n2\t0/4000000\tx\n").is_ok());
    }

    #[test]
    fn a_line_without_a_timeline_and_an_lsn_is_refused() {
        for text in ["x\t0/1\n", "x\n", "1\n", "1\tx\treason\n", "-1\t0/1\n"] {
            assert!(matches!(parse(text.as_bytes()), Err(HistoryError::Line(_))), "{text:?}");
        }
    }
}
