//! The names of the files in `pg_wal`: segments of the write-ahead log, whole and partial, timeline history files and backup
//! history files. Source: `src/include/access/xlog_internal.h` (`XLogFileName`, `IsXLogFileName`, `IsPartialXLogFileName`,
//! `IsTLHistoryFileName`, `BackupHistoryFileName`).

use std::fmt;

use crate::Lsn;

/// The total size in bytes of all segments whose names have the same middle part.
const LOG: u64 = 1 << 32;

/// The size of a segment of the write-ahead log (`--wal-segsize` of initdb): a power of two from 1 MiB to 1 GiB
/// (`IsValidWalSegSize`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentSize(u64);

impl SegmentSize {
    /// Makes a size of `bytes` bytes; `None` if no server has segments of that size.
    pub fn new(bytes: u64) -> Option<Self> {
        (bytes.is_power_of_two() && (1 << 20..=1 << 30).contains(&bytes)).then_some(Self(bytes))
    }

    /// Returns the size in bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }

    /// Returns the number of the segment that holds `at`, counted from 0 (`XLByteToSeg`).
    pub fn number(self, at: Lsn) -> u64 {
        at.0 / self.0
    }

    /// Returns how far into its segment `at` lies, in bytes (`XLogSegmentOffset`).
    pub fn offset(self, at: Lsn) -> u64 {
        at.0 % self.0
    }

    /// Returns the name of the segment of `timeline` that holds `at`.
    pub fn name(self, timeline: u32, at: Lsn) -> String {
        self.nth(timeline, self.number(at))
    }

    /// Returns the name of the segment of `timeline` with this number (`XLogFileName`).
    pub fn nth(self, timeline: u32, number: u64) -> String {
        format!("{timeline:08X}{:08X}{:08X}", number / self.in_one_log(), number % self.in_one_log())
    }

    /// Parses the timeline and the number from the name of a segment; `None` if a cluster with segments of this size cannot have
    /// a segment with that name.
    pub fn parse(self, name: &str) -> Option<(u32, u64)> {
        let name = SegmentName::parse(name.as_bytes())?;
        Some((name.timeline, name.number(self)?))
    }

    /// Returns how many segments have names with the same middle part (`XLogSegmentsPerXLogId`).
    fn in_one_log(self) -> u64 {
        LOG / self.0
    }
}

impl fmt::Display for SegmentSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB", self.0 >> 20)
    }
}

/// The name of a segment, such as `000000010000000000000002`: 24 upper-case hexadecimal digits in three parts of eight: the timeline (from
/// 1 on), the log, and the segment in that log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    timeline: u32,
    log: u32,
    segment: u32,
}

impl SegmentName {
    /// Parses a name; `None` if it is not the name of a segment. The first timeline is 1 (`BootstrapTimeLineID` in
    /// `src/backend/access/transam/xlog.c`), so timeline 0 is invalid.
    pub fn parse(name: &[u8]) -> Option<Self> {
        let [timeline, log, segment] = parts(name)?;
        (timeline > 0).then_some(Self { timeline, log, segment })
    }

    /// Returns the timeline, from 1 on.
    pub fn timeline(self) -> u32 {
        self.timeline
    }

    /// Returns the segment's number, counted from 0; `None` if a cluster with segments of this size cannot have a segment with that name.
    pub fn number(self, size: SegmentSize) -> Option<u64> {
        (u64::from(self.segment) < size.in_one_log())
            .then(|| u64::from(self.log) * size.in_one_log() + u64::from(self.segment))
    }

    /// Returns the first position in the segment; `None` if a cluster with segments of this size cannot have a segment with that name.
    pub fn begin(self, size: SegmentSize) -> Option<Lsn> {
        self.number(size).map(|number| Lsn(number * size.bytes()))
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}{:08X}{:08X}", self.timeline, self.log, self.segment)
    }
}

/// The kind of a file in `pg_wal`, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalFile {
    /// A segment: `000000010000000000000002`.
    Segment(SegmentName),
    /// A segment that was not filled when its timeline ended: `000000010000000000000002.partial`.
    Partial(SegmentName),
    /// The history of a timeline: `00000002.history`.
    History(u32),
    /// The backup history file of the backup that began `offset` bytes into the segment:
    /// `000000010000000000000002.00000028.backup`.
    BackupHistory {
        /// The segment in which the backup began.
        segment: SegmentName,
        /// The offset in that segment, in bytes.
        offset: u32,
    },
}

impl WalFile {
    /// Parses a name; `None` if the name does not have this form.
    pub fn parse(name: &[u8]) -> Option<Self> {
        let mut parts = name.split(|byte| *byte == b'.');
        match (parts.next()?, parts.next(), parts.next(), parts.next()) {
            (segment, None, None, None) => SegmentName::parse(segment).map(Self::Segment),
            (segment, Some(b"partial"), None, None) => SegmentName::parse(segment).map(Self::Partial),
            (timeline, Some(b"history"), None, None) => {
                hexadecimal(timeline).filter(|timeline| *timeline > 0).map(Self::History)
            }
            (segment, Some(offset), Some(b"backup"), None) => Some(Self::BackupHistory {
                segment: SegmentName::parse(segment)?,
                offset: hexadecimal(offset)?,
            }),
            _ => None,
        }
    }
}

/// Returns the name of the history file of `timeline`, such as `00000002.history` (`TLHistoryFileName`).
pub fn history_name(timeline: u32) -> String {
    format!("{timeline:08X}.history")
}

fn parts(name: &[u8]) -> Option<[u32; 3]> {
    (name.len() == 24).then_some(())?;
    Some([hexadecimal(&name[..8])?, hexadecimal(&name[8..16])?, hexadecimal(&name[16..])?])
}

/// Parses eight hexadecimal digits as `%08X` writes them.
fn hexadecimal(digits: &[u8]) -> Option<u32> {
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'A'..=b'F');
    (digits.len() == 8 && digits.iter().all(is_digit)).then_some(())?;
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_segment_is_its_timeline_and_number() {
        for (size, name, timeline, number) in [
            (16 << 20, "000000010000000000000002", 1, 2),
            (16 << 20, "0000000100000000000000FF", 1, 255),
            (16 << 20, "000000020000000100000000", 2, 256),
            (16 << 20, "000000AB00000016000000B3", 0xAB, 0x16B3),
            (1 << 30, "000000010000000200000003", 1, 11),
            (1 << 20, "000000010000000100000FFF", 1, 0x1FFF),
            (1 << 20, "FFFFFFFFFFFFFFFF00000FFF", u32::MAX, u64::MAX >> 20),
        ] {
            let size = SegmentSize::new(size).unwrap();
            assert_eq!(size.parse(name), Some((timeline, number)), "{name}");
            assert_eq!(size.nth(timeline, number), name);
            assert_eq!(size.name(timeline, Lsn(number * size.bytes())), name);
            assert_eq!(size.name(timeline, Lsn(number * size.bytes() + 0x28)), name);
            let parsed = SegmentName::parse(name.as_bytes()).unwrap();
            assert_eq!((parsed.to_string().as_str(), parsed.timeline()), (name, timeline));
            assert_eq!(parsed.begin(size), Some(Lsn(number * size.bytes())));
        }
        let size = SegmentSize::new(16 << 20).unwrap();
        assert_eq!(size.name(0xAB, Lsn(0x16_B374_D848)), "000000AB00000016000000B3");
        assert_eq!(size.name(1, Lsn(0x1_0200_0028)), "000000010000000100000002");
        assert_eq!(size.offset(Lsn(0x1_0200_0028)), 0x28);
    }

    #[test]
    fn a_size_is_a_power_of_two_from_1_mib_to_1_gib() {
        for size in [0, 1, 1 << 19, 3 << 20, 1 << 31, u64::MAX] {
            assert_eq!(SegmentSize::new(size), None);
        }
        assert_eq!(SegmentSize::new(64 << 20).unwrap().to_string(), "64 MiB");
    }

    #[test]
    fn other_names_are_not_segments() {
        let size = SegmentSize::new(1 << 30).unwrap();
        for name in [
            "",
            "00000001",
            "00000001.history",
            // The numbers of timelines begin with 1, and digits are upper-case (xlog.c, xlog_internal.h).
            "000000000000000200000003",
            "00000001000000020000000a",
            "0000000a0000000100000002",
            "00000001000000000000000g",
            "+00000010000000200000003",
            "0000000100000000000000020",
            "00000001\u{e9}000000000000002",
        ] {
            assert_eq!(SegmentName::parse(name.as_bytes()), None, "{name}");
            assert_eq!(size.parse(name), None, "{name}");
        }
        // A cluster with smaller segments can have this name.
        assert_eq!(size.parse("000000010000000200000004"), None);
        assert!(SegmentName::parse(b"000000010000000200000004").is_some());
        assert_eq!(SegmentSize::new(16 << 20).unwrap().parse("000000010000000000000100"), None);
    }

    #[test]
    fn every_kind_of_wal_file_is_recognised_by_its_name() {
        let segment = SegmentName { timeline: 1, log: 0, segment: 2 };
        for (name, file) in [
            ("000000010000000000000002", WalFile::Segment(segment)),
            ("000000010000000000000002.partial", WalFile::Partial(segment)),
            ("000000AB.history", WalFile::History(0xAB)),
            ("000000010000000000000002.00000028.backup", WalFile::BackupHistory { segment, offset: 0x28 }),
        ] {
            assert_eq!(WalFile::parse(name.as_bytes()), Some(file), "{name}");
        }
        for name in [
            "",
            ".",
            "..",
            "0",
            "2.history",
            "0000000a.history",
            "+0000002.history",
            "00000000.history",
            "00000002.histori",
            "00000002.history.gz",
            "000000010000000000000002.gz",
            "000000010000000000000002.partial.gz",
            "000000010000000000000002.28.backup",
            "00000001.00000028.backup",
            "000000010000000000000002.00000028.backup.gz",
            "postgresql.conf",
        ] {
            assert_eq!(WalFile::parse(name.as_bytes()), None, "{name}");
        }
        assert_eq!(history_name(0xAB), "000000AB.history");
    }
}
