//! The reader of `backup_label`, which says where replay of a backup begins. Written by PostgreSQL's `build_backup_content`
//! (`src/backend/access/transam/xlogbackup.c`), read by `read_backup_label` (`xlogrecovery.c`), whose `scanf` forgives
//! much: what it does not recognise it leaves out, and then takes a backup for consistent too early. Here
//! only what PostgreSQL writes passes, line by line, in its order.

use crate::Lsn;

/// The longest label that is read, in bytes. The label's own name may have 1024.
pub(super) const LONGEST: u64 = 64 << 10;

/// How the backup was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// By `pg_basebackup` or between `pg_backup_start` and `pg_backup_stop`: replay must reach the backup's end.
    Streamed,
    /// By an exclusive `pg_start_backup`, which PostgreSQL 15 no longer has.
    Exclusive,
    /// Left by `pg_rewind`.
    Rewind,
}

/// What a `backup_label` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BackupLabel {
    /// Where replay begins.
    pub(super) start: Lsn,
    /// The timeline on which it begins.
    pub(super) timeline: u32,
    /// The segment that holds the start.
    pub(super) start_segment: String,
    /// Where the checkpoint's record is.
    pub(super) checkpoint: Lsn,
    pub(super) method: Method,
    /// Whether a standby was backed up.
    pub(super) from_standby: bool,
    /// Where the backup that this one builds on starts, and its timeline: not a data directory (PostgreSQL 17).
    pub(super) incremental_from: Option<(Lsn, Option<u32>)>,
}

/// A backup_label that is not as PostgreSQL writes it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("line {line} is not `{expected}`")]
    Line { line: usize, expected: &'static str },
    #[error("it ends before `{0}`")]
    Ends(&'static str),
    #[error("line {0} is not one that PostgreSQL writes")]
    Further(usize),
    #[error("its last line is cut off")]
    Cut,
    #[error("START TIMELINE is {told} but the file of START WAL LOCATION is on timeline {of_file}")]
    Timelines { told: u32, of_file: u32 },
    #[error("CHECKPOINT LOCATION {checkpoint} lies before START WAL LOCATION {start}")]
    Order { start: Lsn, checkpoint: Lsn },
}

impl BackupLabel {
    /// Reads the file's bytes. The label itself and the time may be in any encoding.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Unreadable> {
        let text = String::from_utf8_lossy(bytes);
        let mut lines = Lines::of(&text)?;
        let (start, start_segment) = lines.need("START WAL LOCATION: ", start_location)?;
        let checkpoint = lines.need("CHECKPOINT LOCATION: ", |value| value.parse::<Lsn>().ok())?;
        let method = lines.need("BACKUP METHOD: ", method)?;
        let from_standby = lines.need("BACKUP FROM: ", |value| match value {
            "primary" | "master" => Some(false),
            "standby" => Some(true),
            _ => None,
        })?;
        lines.need("START TIME: ", |value| Some(value.len()))?;
        // pg_rewind writes none of what follows.
        lines.may("LABEL: ", |value| Some(value.len()))?;
        let told = lines.may("START TIMELINE: ", |value| value.parse::<u32>().ok())?;
        let incremental_lsn = lines.may("INCREMENTAL FROM LSN: ", |value| value.parse::<Lsn>().ok())?;
        let incremental_timeline = lines.may("INCREMENTAL FROM TLI: ", |value| value.parse::<u32>().ok())?;
        lines.end()?;
        let timeline = u32::from_str_radix(&start_segment[..8], 16).unwrap_or_default();
        if let Some(told) = told
            && told != timeline
        {
            return Err(Unreadable::Timelines { told, of_file: timeline });
        }
        if checkpoint < start {
            return Err(Unreadable::Order { start, checkpoint });
        }
        let incremental_from = match (incremental_lsn, incremental_timeline) {
            (Some(lsn), timeline) => Some((lsn, timeline)),
            (None, Some(timeline)) => Some((Lsn(0), Some(timeline))),
            (None, None) => None,
        };
        Ok(Self { start, timeline, start_segment, checkpoint, method, from_standby, incremental_from })
    }
}

/// `0/2000028 (file 000000010000000000000002)`
fn start_location(value: &str) -> Option<(Lsn, String)> {
    let (lsn, file) = value.split_once(" (file ")?;
    let file = file.strip_suffix(')')?;
    let upper_hexadecimal = |byte: u8| byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte);
    (file.len() == 24 && file.bytes().all(upper_hexadecimal)).then_some((lsn.parse().ok()?, file.to_owned()))
}

fn method(value: &str) -> Option<Method> {
    match value {
        "streamed" => Some(Method::Streamed),
        "pg_start_backup" => Some(Method::Exclusive),
        "pg_rewind" => Some(Method::Rewind),
        _ => None,
    }
}

/// The lines that are left to read.
struct Lines<'a> {
    left: std::iter::Peekable<std::iter::Enumerate<std::str::Split<'a, char>>>,
}

impl<'a> Lines<'a> {
    fn of(text: &'a str) -> Result<Self, Unreadable> {
        let whole = text.strip_suffix('\n').ok_or(Unreadable::Cut)?;
        Ok(Self { left: whole.split('\n').enumerate().peekable() })
    }

    fn need<T>(&mut self, key: &'static str, read: impl FnOnce(&str) -> Option<T>) -> Result<T, Unreadable> {
        let (index, line) = self.left.next().ok_or(Unreadable::Ends(key))?;
        line.strip_prefix(key).and_then(read).ok_or(Unreadable::Line { line: index + 1, expected: key })
    }

    fn may<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Unreadable> {
        match self.left.peek() {
            Some((_, line)) if line.starts_with(key) => self.need(key, read).map(Some),
            _ => Ok(None),
        }
    }

    fn end(&mut self) -> Result<(), Unreadable> {
        match self.left.next() {
            None => Ok(()),
            Some((index, _)) => Err(Unreadable::Further(index + 1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF_PG_BASEBACKUP: &str = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n\
        CHECKPOINT LOCATION: 0/2000060\n\
        BACKUP METHOD: streamed\n\
        BACKUP FROM: primary\n\
        START TIME: 2026-11-23 08:00:00 UTC\n\
        LABEL: pg_basebackup base backup\n\
        START TIMELINE: 1\n";

    #[test]
    fn the_label_of_pg_basebackup_is_read() {
        let label = BackupLabel::parse(OF_PG_BASEBACKUP.as_bytes()).unwrap();
        assert_eq!(label.start, Lsn(0x0200_0028));
        assert_eq!(label.checkpoint, Lsn(0x0200_0060));
        assert_eq!(label.start_segment, "000000010000000000000002");
        assert_eq!((label.timeline, label.method, label.from_standby), (1, Method::Streamed, false));
        assert_eq!(label.incremental_from, None);
    }

    #[test]
    fn the_label_of_pg_rewind_is_read() {
        let text: String = OF_PG_BASEBACKUP
            .replace("streamed", "pg_rewind")
            .replace("primary", "standby")
            .lines()
            .take(5)
            .fold(String::new(), |text, line| text + line + "\n");
        let label = BackupLabel::parse(text.as_bytes()).unwrap();
        assert_eq!((label.method, label.from_standby, label.timeline), (Method::Rewind, true, 1));
    }

    #[test]
    fn rule_30_an_incremental_backup_says_so() {
        let text = format!("{OF_PG_BASEBACKUP}INCREMENTAL FROM LSN: 0/1000028\nINCREMENTAL FROM TLI: 1\n");
        let label = BackupLabel::parse(text.as_bytes()).unwrap();
        assert_eq!(label.incremental_from, Some((Lsn(0x0100_0028), Some(1))));
    }

    #[test]
    fn a_label_in_another_encoding_is_no_error() {
        let mut bytes = OF_PG_BASEBACKUP.as_bytes().to_vec();
        let at = OF_PG_BASEBACKUP.find("base backup").unwrap();
        bytes[at] = 0xE4;
        assert!(BackupLabel::parse(&bytes).is_ok());
    }

    #[test]
    fn rule_30_a_line_left_out_or_moved_is_not_forgiven() {
        let lines: Vec<&str> = OF_PG_BASEBACKUP.lines().collect();
        for left_out in 0..5 {
            let mut fewer = lines.clone();
            fewer.remove(left_out);
            assert!(
                BackupLabel::parse((fewer.join("\n") + "\n").as_bytes()).is_err(),
                "without line {left_out}"
            );
        }
        let mut moved = lines.clone();
        moved.swap(2, 3);
        assert!(BackupLabel::parse((moved.join("\n") + "\n").as_bytes()).is_err());
        for end in 0..OF_PG_BASEBACKUP.len() {
            let cut = BackupLabel::parse(&OF_PG_BASEBACKUP.as_bytes()[..end]);
            let at_a_line_that_may_be_missing = cut.is_ok() && OF_PG_BASEBACKUP[..end].lines().count() >= 5;
            assert!(cut.is_err() || at_a_line_that_may_be_missing, "cut at {end}");
        }
    }

    #[test]
    fn rule_30_values_that_contradict_each_other_are_refused() {
        let timelines = OF_PG_BASEBACKUP.replace("START TIMELINE: 1", "START TIMELINE: 2");
        assert_eq!(
            BackupLabel::parse(timelines.as_bytes()),
            Err(Unreadable::Timelines { told: 2, of_file: 1 })
        );
        let order =
            OF_PG_BASEBACKUP.replace("CHECKPOINT LOCATION: 0/2000060", "CHECKPOINT LOCATION: 0/1000000");
        assert!(matches!(BackupLabel::parse(order.as_bytes()), Err(Unreadable::Order { .. })));
        let unknown = OF_PG_BASEBACKUP.replace("streamed", "copied");
        assert!(matches!(BackupLabel::parse(unknown.as_bytes()), Err(Unreadable::Line { line: 3, .. })));
    }
}
