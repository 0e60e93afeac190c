//! Fuzzes the parsers of names in `pg_wal` and in a tablespace's directory: PostgreSQL would write every accepted name in the same way.

#![no_main]

use libfuzzer_sys::fuzz_target;
use postgres_formats::Lsn;
use postgres_formats::names::{TablespaceFolder, tablespace_oid};
use postgres_formats::segment::{SegmentName, SegmentSize, WalFile, history_name};
use postgres_formats::version::{major_version, version_between_spaces};

/// Returns the name that PostgreSQL gives the file.
fn written(file: WalFile) -> String {
    match file {
        WalFile::Segment(segment) => segment.to_string(),
        WalFile::Partial(segment) => format!("{segment}.partial"),
        WalFile::History(timeline) => history_name(timeline),
        WalFile::BackupHistory { segment, offset } => format!("{segment}.{offset:08X}.backup"),
    }
}

/// Checks the conversions between a segment's name, its number and its positions in the WAL, for every segment size.
fn check_segment(name: SegmentName) {
    for size in (20..=30).filter_map(|bits| SegmentSize::new(1 << bits)) {
        let (number, begin) = (name.number(size), name.begin(size));
        assert_eq!(number.is_some(), begin.is_some());
        let Some((number, begin)) = number.zip(begin) else { continue };
        assert_eq!(size.nth(name.timeline(), number), name.to_string());
        assert_eq!((size.number(begin), size.offset(begin)), (number, 0));
        let last = Lsn(begin.0 + (size.bytes() - 1));
        assert_eq!(size.name(name.timeline(), last), name.to_string());
        assert_eq!(size.parse(&name.to_string()), Some((name.timeline(), number)));
    }
}

fuzz_target!(|name: &[u8]| {
    if let Some(file) = WalFile::parse(name) {
        assert_eq!(written(file).as_bytes(), name);
        match file {
            WalFile::Segment(segment) | WalFile::Partial(segment) => check_segment(segment),
            WalFile::BackupHistory { segment, .. } => check_segment(segment),
            WalFile::History(timeline) => assert!(timeline > 0),
        }
    }
    if let Some(folder) = TablespaceFolder::parse(name) {
        assert_eq!(folder.to_string().as_bytes(), name);
    }
    if let Some(oid) = std::str::from_utf8(name).ok().and_then(tablespace_oid) {
        assert_eq!(oid.to_string().as_bytes(), name);
    }
    if let Some(major) = major_version(name) {
        assert_eq!(version_between_spaces(name).and_then(|version| version.major()), Some(major));
    }
    if let Ok(Ok(lsn)) = std::str::from_utf8(name).map(|text| text.parse::<Lsn>()) {
        assert_eq!(lsn.to_string().parse(), Ok(lsn));
    }
});
