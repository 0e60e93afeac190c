//! Timeline history files, such as `00000003.history` (`readTimeLineHistory` in PostgreSQL's timeline.c).

use crate::Lsn;

/// The longest history file that is read, in bytes: one line for each timeline before.
pub const LIMIT: u32 = 256 << 10;

/// A timeline that another one came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ancestor {
    /// The timeline.
    pub timeline: u32,
    /// Where the next one began.
    pub ended_at: Lsn,
}

/// A line of a history file that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAHistory {
    /// It is none.
    #[error("has a line `{0}` that names no timeline and LSN")]
    Line(String),
    /// Each timeline has a higher number than the one that it came from.
    #[error("has the timeline {timeline} after the timeline {before}")]
    Order {
        /// What comes later.
        timeline: u32,
        /// What comes before.
        before: u32,
    },
}

/// The ancestors that the text of a history file lists, oldest first.
///
/// # Errors
/// Where a line is none, or timelines do not ascend.
pub fn parse(text: &str) -> Result<Vec<Ancestor>, NotAHistory> {
    let mut ancestors: Vec<Ancestor> = Vec::new();
    for line in text.lines() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut parts = line.split_whitespace();
        let timeline = parts.next().and_then(|text| text.parse().ok());
        let ended_at = parts.next().and_then(|text| text.parse().ok());
        let (Some(timeline), Some(ended_at)) = (timeline, ended_at) else {
            return Err(NotAHistory::Line(line.escape_debug().take(100).collect()));
        };
        if let Some(last) = ancestors.last()
            && timeline <= last.timeline
        {
            return Err(NotAHistory::Order { timeline, before: last.timeline });
        }
        ancestors.push(Ancestor { timeline, ended_at });
    }
    Ok(ancestors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_an_ancestor() {
        let text =
            "1\t0/5000028\tno recovery target specified\n\n# a comment\n2\t1/60000A0\tbefore 2026-11-26\n";
        let ancestors = [(1, 0x0500_0028), (2, 0x1_0600_00A0)]
            .map(|(timeline, lsn)| Ancestor { timeline, ended_at: Lsn(lsn) });
        assert_eq!(parse(text), Ok(ancestors.to_vec()));
        assert_eq!(parse(""), Ok(Vec::new()));
    }

    #[test]
    fn timelines_ascend() {
        for second in [1, 2] {
            let text = format!("2\t0/1\tx\n{second}\t0/2\tx\n");
            assert_eq!(parse(&text), Err(NotAHistory::Order { timeline: second, before: 2 }));
        }
    }

    #[test]
    fn a_line_without_a_timeline_and_an_lsn_is_refused() {
        for text in ["x\t0/1\n", "1\n", "1\tx\treason\n", "-1\t0/1\n"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
