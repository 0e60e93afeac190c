//! Checks the restored write-ahead log. Segments in `pg_wal` are replayed before anything is streamed. So if `pg_wal` has a segment past
//! the point where the source left a timeline, the standby never follows. Headers: PostgreSQL's `access/xlog_internal.h`.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;

use foundation::rooted::{Directory, Kind, RelativePath};
use postgres_formats::control_file::ControlFile;
use postgres_formats::segment::{SegmentSize, WalFile, history_name};

use super::problem::{During, Findings, Problem};
use crate::Lsn;
use crate::Rule;
use crate::source::SourceFacts;

const CHECK: Rule = Rule::Wal;

/// Where replay begins, and whether backup_label gives that position.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    pub(super) timeline: u32,
    pub(super) lsn: Lsn,
    pub(super) by_label: bool,
}

/// Checks that the start of replay exists or can still be fetched, and that no segment leaves the source's history.
pub(super) fn check(
    log: Option<&Directory>,
    start: Start,
    control: &ControlFile,
    facts: Option<&SourceFacts>,
    findings: &mut Findings,
) -> Result<(), Problem> {
    check_start(log, start, control, facts, findings)?;
    match (log, facts) {
        (Some(log), Some(facts)) => check_history(log, start, control.wal_segment_size, facts, findings),
        _ => Ok(()),
    }
}

fn check_start(
    log: Option<&Directory>,
    start: Start,
    control: &ControlFile,
    facts: Option<&SourceFacts>,
    findings: &mut Findings,
) -> Result<(), Problem> {
    let segment = control.wal_segment_size.name(start.timeline, start.lsn);
    let path = relative(OsStr::new(&segment))?;
    let found = match log {
        Some(log) => log.find(&path).during(CHECK)?,
        None => None,
    };
    let missing = match found {
        Some(found) if found.kind == Kind::File && found.length == control.wal_segment_size.bytes() => {
            return Ok(());
        }
        Some(_) => format!("the segment {segment}, with which replay begins, is incomplete in pg_wal"),
        None => format!("the segment {segment}, with which replay begins, is not in pg_wal"),
    };
    // Without a label and without a shutdown, the server first does crash recovery, during which it streams nothing.
    if !start.by_label && !control.state.is_shut_down() {
        return Err(Problem::new(
            CHECK,
            format!("{missing}: a snapshot needs its own write-ahead log to start"),
        ));
    }
    let source = match facts {
        Some(facts) => format!(
            "the source, now at {} on timeline {}, must still have that segment",
            facts.wal_position, facts.timeline
        ),
        None => "a source or an archive must have that segment".to_owned(),
    };
    findings.add(CHECK, format!("{missing}: {source}, or the replica cannot start"));
    Ok(())
}

fn check_history(
    log: &Directory,
    start: Start,
    segment_size: SegmentSize,
    facts: &SourceFacts,
    findings: &mut Findings,
) -> Result<(), Problem> {
    let forks: BTreeMap<u32, Lsn> = facts.history.iter().map(|fork| (fork.timeline, fork.at)).collect();
    let mut problem = None;
    let mut of_other_timelines = 0_u64;
    let mut holding_a_fork = Vec::new();
    log.names(&mut |file| {
        let text = file.display();
        match WalFile::parse(file.as_bytes()) {
            Some(WalFile::History(timeline)) => {
                if timeline != facts.timeline && !forks.contains_key(&timeline) {
                    problem = Some(format!(
                        "pg_wal has `{text}`, but the source, on timeline {}, was never on timeline {timeline}: the \
                         replica would switch to that timeline and never follow",
                        facts.timeline
                    ));
                }
            }
            Some(WalFile::Segment(name)) => {
                let (timeline, Some(begin)) = (name.timeline(), name.begin(segment_size)) else { return Ok(true) };
                match forks.get(&timeline) {
                    None if timeline == facts.timeline => {}
                    None => of_other_timelines += 1,
                    Some(fork) if begin >= *fork => {
                        if holds_log(log, file, begin)? {
                            problem = Some(format!(
                                "pg_wal has `{text}`, but the source left timeline {timeline} at {fork}: the replica \
                                 would replay what the source never had and never follow; {AGAIN}"
                            ));
                        }
                    }
                    Some(fork) if begin.saturating_add(segment_size.bytes()) > *fork => {
                        holding_a_fork.push((timeline, *fork));
                    }
                    Some(_) => {}
                }
            }
            Some(WalFile::Partial(_) | WalFile::BackupHistory { .. }) | None => {}
        }
        Ok(problem.is_none())
    })
    .during(CHECK)?;
    if let Some(problem) = problem {
        return Err(Problem::new(CHECK, problem));
    }
    if of_other_timelines > 0 {
        let message = format!(
            "{of_other_timelines} segments in pg_wal belong to timelines that the source was never on"
        );
        findings.add(CHECK, message);
    }
    holding_a_fork
        .into_iter()
        // Segments before the start of replay are not read.
        .filter(|(_, fork)| segment_size.number(*fork) >= segment_size.number(start.lsn))
        .try_for_each(|fork| check_fork(log, fork, start, segment_size, facts, findings))
}

/// Checks the segment in which the source left a timeline. If several timelines of the history files in `pg_wal` have this segment, the
/// server reads the segment of the newest timeline (`XLogFileReadAnyTLI` in PostgreSQL's xlogrecovery.c).
fn check_fork(
    log: &Directory,
    (timeline, fork): (u32, Lsn),
    start: Start,
    segment_size: SegmentSize,
    facts: &SourceFacts,
    findings: &mut Findings,
) -> Result<(), Problem> {
    let Some(next) = next_timeline(facts, timeline) else { return Ok(()) };
    let has = |name: &str| Ok(log.find(&relative(OsStr::new(name))?).during(CHECK)?.is_some());
    let (old, new, history) =
        (segment_size.name(timeline, fork), segment_size.name(next, fork), history_name(next));
    let mut missing = Vec::new();
    if !has(&new)? {
        missing.push(new);
    }
    // If replay starts on the next timeline, the server knows that timeline without a history file.
    if start.timeline <= timeline && !has(&history)? {
        missing.push(history);
    }
    if missing.is_empty() {
        return Ok(());
    }
    let missing = missing.join("` and not `");
    let left = format!(
        "pg_wal has `{old}` and not `{missing}`: the source left timeline {timeline} within that segment, at {fork}"
    );
    if holds_a_record(log, OsStr::new(&old), fork, segment_size).during(CHECK)? {
        return Err(Problem::new(
            CHECK,
            format!(
                "{left}, and it holds WAL beyond that position, which the source never had: the replica would replay that WAL and never \
                 follow; {AGAIN}"
            ),
        ));
    }
    findings.add(
        CHECK,
        format!("{left}; the segment may hold WAL beyond that position, which must not be replayed"),
    );
    Ok(())
}

/// The advice if the source was promoted while its write-ahead log was being restored.
const AGAIN: &str = "run again: by now the source reports where it left the timeline";

/// Returns the timeline that the source was on after `timeline`.
fn next_timeline(facts: &SourceFacts, timeline: u32) -> Option<u32> {
    let index = facts.history.iter().position(|fork| fork.timeline == timeline)?;
    Some(facts.history.get(index + 1).map_or(facts.timeline, |next| next.timeline))
}

/// Returns whether a segment holds WAL for its own position. A recycled segment holds WAL for an earlier position under its new name, or
/// zeros, and replay ends before that segment. The header's page address is at byte 8.
fn holds_log(log: &Directory, file: &OsStr, begin: Lsn) -> io::Result<bool> {
    let path = RelativePath::new(file).map_err(io::Error::other)?;
    let mut header = [0; 16];
    match log.open_file(&path)?.read_exact(&mut header) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        Err(error) => return Err(error),
    }
    let mut address = [0; 8];
    address.copy_from_slice(&header[8..]);
    Ok(u64::from_ne_bytes(address) == begin.0)
}

/// Returns whether the segment holds a record that begins at `fork`. If the server has not written there yet, the segment has zeros, or, if
/// it was recycled, records of an earlier position. Each record has the position of its predecessor; in a record of an earlier position,
/// this is not just before the fork.
fn holds_a_record(log: &Directory, file: &OsStr, fork: Lsn, segment_size: SegmentSize) -> io::Result<bool> {
    let path = RelativePath::new(file).map_err(io::Error::other)?;
    let mut open = log.open_file(&path)?;
    open.seek(SeekFrom::Start(segment_size.offset(fork)))?;
    let mut bytes = Vec::new();
    open.take(48).read_to_end(&mut bytes)?;
    let length = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let before = |at: usize| Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    // A record begins with its length, and has the position of its predecessor at byte 8 (`XLogRecord` in xlogrecord.h). The
    // header of a page, of 24 bytes, may precede the record or lie between these two fields.
    Ok([(0, 8), (24, 32), (0, 32)].into_iter().any(|(at_length, at_before)| {
        length(at_length).is_some_and(|length| length > 0)
            && before(at_before)
                .is_some_and(|before| before < fork.0 && before.saturating_add(segment_size.bytes()) > fork.0)
    }))
}

fn relative(name: &OsStr) -> Result<RelativePath, Problem> {
    RelativePath::new(name).map_err(|error| Problem::new(CHECK, error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use postgres_formats::written::ControlFile as Written;

    use super::*;
    use crate::source::Fork;

    const SIZE: u64 = 16 << 20;

    fn name(timeline: u32, lsn: Lsn, segment_size: u64) -> String {
        SegmentSize::new(segment_size).unwrap().name(timeline, lsn)
    }

    fn promoted_at(fork: u64) -> SourceFacts {
        SourceFacts {
            server_version: 150_018,
            system_identifier: 7,
            timeline: 2,
            wal_position: Lsn(0x0900_0000),
            history: vec![Fork { timeline: 1, at: Lsn(fork) }],
            tablespaces: None,
        }
    }

    fn segment(place: &Path, timeline: u32, begin: u64, address: u64) {
        let mut bytes = vec![0; 64];
        bytes[8..16].copy_from_slice(&address.to_ne_bytes());
        fs::write(place.join(name(timeline, Lsn(begin), SIZE)), bytes).unwrap();
    }

    fn history(place: &Path, facts: &SourceFacts) -> Result<Vec<crate::outcome::Finding>, Problem> {
        history_from(Start { timeline: 1, lsn: Lsn(0x0200_0028), by_label: true }, place, facts)
    }

    fn history_from(
        start: Start,
        place: &Path,
        facts: &SourceFacts,
    ) -> Result<Vec<crate::outcome::Finding>, Problem> {
        let mut findings = Findings::default();
        let size = SegmentSize::new(SIZE).unwrap();
        check_history(&Directory::open(place).unwrap(), start, size, facts, &mut findings)
            .map(|()| findings.into_list())
    }

    /// Writes a record that begins at `lsn`, after one at `before`, into the segment of timeline 1 that holds it.
    fn record(place: &Path, lsn: u64, before: u64) {
        let path = place.join(name(1, Lsn(lsn), SIZE));
        let mut bytes = fs::read(&path).unwrap();
        let at = usize::try_from(lsn % SIZE).unwrap();
        bytes.resize(bytes.len().max(at + 48), 0);
        bytes[at..at + 4].copy_from_slice(&50_u32.to_ne_bytes());
        bytes[at + 8..at + 16].copy_from_slice(&before.to_ne_bytes());
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn rule_30_a_missing_start_segment_is_reported() {
        let place = tempfile::tempdir().unwrap();
        let log = Directory::open(place.path()).unwrap();
        let control = ControlFile::parse(&Written::in_production(7).bytes).unwrap();
        let findings = |by_label, log: Option<&Directory>| {
            let mut findings = Findings::default();
            let start = Start { timeline: 1, lsn: Lsn(0x0200_0028), by_label };
            check_start(log, start, &control, None, &mut findings).map(|()| findings.into_list().len())
        };
        assert_eq!(findings(true, Some(&log)).unwrap(), 1);
        assert_eq!(findings(true, None).unwrap(), 1);
        assert!(findings(false, Some(&log)).is_err(), "a snapshot cannot start without its own log");
        let path = place.path().join("000000010000000000000002");
        fs::write(&path, "cut").unwrap();
        assert_eq!(findings(true, Some(&log)).unwrap(), 1);
        fs::File::options().write(true).open(&path).unwrap().set_len(SIZE).unwrap();
        assert_eq!(findings(true, Some(&log)).unwrap(), 0);
        assert_eq!(findings(false, Some(&log)).unwrap(), 0);
    }

    #[test]
    fn rule_30_log_of_a_timeline_that_the_source_left_is_refused() {
        let place = tempfile::tempdir().unwrap();
        segment(place.path(), 1, 0x0200_0000, 0x0200_0000);
        assert!(history(place.path(), &promoted_at(0x0300_0000)).unwrap().is_empty());
        segment(place.path(), 1, 0x0300_0000, 0x0300_0000);
        let message = history(place.path(), &promoted_at(0x0300_0000)).unwrap_err().message;
        assert!(message.contains("000000010000000000000003"), "{message}");
    }

    #[test]
    fn a_recycled_segment_is_not_log() {
        let place = tempfile::tempdir().unwrap();
        segment(place.path(), 1, 0x0400_0000, 0x0100_0000);
        segment(place.path(), 1, 0x0500_0000, 0);
        fs::write(place.path().join("000000010000000000000006"), "").unwrap();
        assert!(history(place.path(), &promoted_at(0x0300_0000)).is_ok());
    }

    #[test]
    fn the_segment_in_which_the_source_left_is_reported_unless_that_of_the_new_timeline_exists() {
        let place = tempfile::tempdir().unwrap();
        segment(place.path(), 1, 0x0300_0000, 0x0300_0000);
        assert_eq!(history(place.path(), &promoted_at(0x0300_0100)).unwrap().len(), 1);
        segment(place.path(), 2, 0x0300_0000, 0x0300_0000);
        fs::write(place.path().join("00000002.history"), "1\t0/3000100\tx\n").unwrap();
        assert!(history(place.path(), &promoted_at(0x0300_0100)).unwrap().is_empty());
    }

    #[test]
    fn rule_30_log_beyond_where_the_source_left_within_a_segment_is_refused() {
        let facts = promoted_at(0x0300_0100);
        let place = tempfile::tempdir().unwrap();
        segment(place.path(), 1, 0x0300_0000, 0x0300_0000);
        record(place.path(), 0x0300_0100, 0x0200_00C8 - SIZE);
        assert_eq!(history(place.path(), &facts).unwrap().len(), 1, "of the segment that was recycled");
        record(place.path(), 0x0300_0100, 0x0300_00C8);
        let refusal = || history(place.path(), &facts).unwrap_err().message;
        let message = refusal();
        assert!(
            message.contains("000000010000000000000003")
                && message.contains("000000020000000000000003")
                && message.contains("run again"),
            "{message}"
        );
        // The server reads a timeline only if it has its history file.
        segment(place.path(), 2, 0x0300_0000, 0x0300_0000);
        let message = refusal();
        assert!(message.contains("not `00000002.history`"), "{message}");
        let promoted = Start { timeline: 2, lsn: Lsn(0x0300_0128), by_label: true };
        assert!(history_from(promoted, place.path(), &facts).unwrap().is_empty());
        fs::write(place.path().join("00000002.history"), "1\t0/3000100\tx\n").unwrap();
        assert!(history(place.path(), &facts).unwrap().is_empty());
    }

    #[test]
    fn a_record_is_found_where_a_page_begins_before_it_or_within_its_header() {
        for (fork, length_at, before_at) in [(0x0300_2000_u64, 24, 32), (0x0300_1FF8, 0, 32)] {
            let place = tempfile::tempdir().unwrap();
            segment(place.path(), 1, 0x0300_0000, 0x0300_0000);
            let path = place.path().join(name(1, Lsn(fork), SIZE));
            let mut bytes = fs::read(&path).unwrap();
            let at = usize::try_from(fork % SIZE).unwrap();
            bytes.resize(at + 48, 0);
            bytes[at + length_at] = 50;
            bytes[at + before_at..at + before_at + 8].copy_from_slice(&(fork - 56).to_ne_bytes());
            fs::write(path, bytes).unwrap();
            assert!(history(place.path(), &promoted_at(fork)).is_err(), "{fork:X}");
        }
    }

    #[test]
    fn a_segment_that_holds_a_fork_and_is_not_replayed_does_not_matter() {
        let place = tempfile::tempdir().unwrap();
        segment(place.path(), 1, 0x0300_0000, 0x0300_0000);
        record(place.path(), 0x0300_0100, 0x0300_00C8);
        let later = Start { timeline: 2, lsn: Lsn(0x0400_0028), by_label: true };
        assert!(history_from(later, place.path(), &promoted_at(0x0300_0100)).unwrap().is_empty());
    }

    #[test]
    fn rule_30_a_history_that_the_source_does_not_have_is_refused() {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("00000002.history"), "").unwrap();
        segment(place.path(), 3, 0x0300_0000, 0x0300_0000);
        assert_eq!(history(place.path(), &promoted_at(0x0300_0000)).unwrap().len(), 1);
        fs::write(place.path().join("00000003.history"), "").unwrap();
        assert!(history(place.path(), &promoted_at(0x0300_0000)).unwrap_err().message.contains("timeline 3"));
    }
}
