//! The names of backups: `base_<24 digits>[_D_<24 digits>][_<8 digits>]` (`patternPgBackupName` in WAL-G's
//! internal/databases/postgres/backup.go).

use std::fmt;

use postgres_formats::segment::SegmentName;

/// The length of the name of a segment.
const SEGMENT: usize = 24;

/// The name of a backup. The digits are the segment in which the backup began, which WAL-G computes in several ways, so that the
/// segment may be the one before the start LSN. After `_D_` is the segment of the backup from which a delta backup was made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BackupName {
    text: String,
    segment: SegmentName,
    parent: Option<SegmentName>,
}

impl BackupName {
    /// Parses a name; `None` if WAL-G does not give a backup this name.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (segment, rest) = segment_of(text.strip_prefix("base_")?)?;
        let (parent, rest) = match rest.strip_prefix("_D_") {
            None => (None, rest),
            Some(rest) => segment_of(rest).map(|(parent, rest)| (Some(parent), rest))?,
        };
        let is_offset = |digits: &str| {
            digits.len() == 8 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'))
        };
        if !rest.is_empty() && !rest.strip_prefix('_').is_some_and(is_offset) {
            return None;
        }
        Some(Self { text: text.to_owned(), segment, parent })
    }

    /// Returns the name.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the segment in the name.
    pub(crate) fn segment(&self) -> SegmentName {
        self.segment
    }

    /// Returns the segment of the backup from which this one was made; `None` in the name of a full backup.
    pub(crate) fn parent(&self) -> Option<SegmentName> {
        self.parent
    }

    /// Returns the timeline on which the backup was taken (`ParseTimelineFromBackupName` in WAL-G's timeline.go).
    pub(crate) fn timeline(&self) -> u32 {
        self.segment.timeline()
    }
}

impl fmt::Display for BackupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Splits the name of a segment from the beginning of `text`.
fn segment_of(text: &str) -> Option<(SegmentName, &str)> {
    let (segment, rest) = text.split_at_checked(SEGMENT)?;
    Some((SegmentName::parse(segment.as_bytes())?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_a_segment_and_perhaps_that_of_its_parent() {
        for (text, timeline, parent) in [
            ("base_000000010000000000000004", 1, None),
            ("base_000000010000000000000004_00000028", 1, None),
            (
                "base_0000000A0000000000000006_D_000000010000000000000004",
                10,
                Some("000000010000000000000004"),
            ),
            (
                "base_000000020000000000000006_D_000000010000000000000004_0000A028",
                2,
                Some("000000010000000000000004"),
            ),
        ] {
            let name = BackupName::parse(text).unwrap();
            assert_eq!((name.as_str(), name.timeline()), (text, timeline));
            assert_eq!(name.parent().map(|parent| parent.to_string()).as_deref(), parent);
        }
    }

    #[test]
    fn other_names_are_not_backups() {
        for text in [
            "",
            "base_",
            "LATEST",
            "base_00000001000000000000000",
            "base_0000000100000000000000044",
            "base_00000001000000000000000g",
            "base_000000000000000000000004",
            "base_00000001000000000000000a",
            "base_000000010000000000000004_D_",
            "base_000000010000000000000004_D_00000001000000000000000",
            "base_000000010000000000000004_28",
            "base_000000010000000000000004_0000002g",
            "base_000000010000000000000004_00000028_00000028",
            "base_000000010000000000000004/..",
            "../base_000000010000000000000004",
            "base_00000001000000000000000\u{e9}",
        ] {
            assert_eq!(BackupName::parse(text), None, "{text}");
        }
    }
}
