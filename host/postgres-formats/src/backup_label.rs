//! `backup_label`, which says where replay of a backup begins: written by `build_backup_content`
//! (`src/backend/access/transam/xlogbackup.c`; by `do_pg_backup_start` in `xlog.c` before PostgreSQL 16) and by pg_rewind
//! (`src/bin/pg_rewind/pg_rewind.c`), read by `read_backup_label` (`src/backend/access/transam/xlogrecovery.c`).
//!
//! The server's `scanf` is lenient: it ignores lines that it does not recognise, and may then consider a backup consistent too
//! early. [`BackupLabel::parse`] accepts only what PostgreSQL writes, line by line, in its order. [`Start::parse`] is for a plan: it reads
//! only the lines with the start position and the name of a backup.
//!
//! The label and the time may be in any encoding.

use std::iter::{Enumerate, Peekable};
use std::str::{FromStr, Split};

use crate::segment::SegmentName;
use crate::{Lsn, shown};

/// The longest `backup_label` that is read, in bytes. A real file has about 250 bytes and the label of the backup, which has at most 1024.
pub const LIMIT: u64 = 64 << 10;

const START_WAL_LOCATION: &str = "START WAL LOCATION: ";
const CHECKPOINT_LOCATION: &str = "CHECKPOINT LOCATION: ";
const BACKUP_METHOD: &str = "BACKUP METHOD: ";
const BACKUP_FROM: &str = "BACKUP FROM: ";
const START_TIME: &str = "START TIME: ";
const LABEL: &str = "LABEL: ";
const START_TIMELINE: &str = "START TIMELINE: ";
const INCREMENTAL_FROM_LSN: &str = "INCREMENTAL FROM LSN: ";
const INCREMENTAL_FROM_TLI: &str = "INCREMENTAL FROM TLI: ";

/// The start position and the name of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// Where replay begins.
    pub start_lsn: Lsn,
    /// The WAL segment that contains it, according to the label.
    pub segment: SegmentName,
    /// The timeline on which the backup began: the timeline in START TIMELINE or, if there is no such line (before PostgreSQL 11, and from
    /// pg_rewind), the timeline of [`Start::segment`].
    pub timeline: u32,
    /// When the backup began, as written in the label.
    pub start_time: String,
    /// The label that the person who took the backup chose.
    pub label: String,
    /// Whether the backup was taken from a standby, which writes no WAL record of the backup's end.
    pub from_standby: bool,
    /// The start of the backup on which an incremental backup is based (PostgreSQL 17); `None` for a full backup. An incremental
    /// backup is not a data directory.
    pub incremental_from: Option<Lsn>,
    /// The timeline of [`Start::incremental_from`]; `None` if the label does not name it.
    pub incremental_from_timeline: Option<u32>,
}

/// How a backup was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// By `pg_basebackup` or between `pg_backup_start` and `pg_backup_stop`: replay must reach the backup's end.
    Streamed,
    /// By an exclusive `pg_start_backup`, which PostgreSQL 15 no longer has.
    Exclusive,
    /// Left by `pg_rewind`.
    Rewind,
}

/// What a whole `backup_label` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupLabel {
    /// The start position and the name of the backup.
    pub start: Start,
    /// The position of the checkpoint's record.
    pub checkpoint: Lsn,
    /// How the backup was taken.
    pub method: Method,
}

/// A `backup_label` that is not as PostgreSQL writes it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackupLabelError {
    /// A line is missing.
    #[error("has no line `{0}`")]
    Missing(&'static str),
    /// A line has a value that cannot be read.
    #[error("has a line `{line}` that cannot be read")]
    Malformed {
        /// The line, shortened.
        line: String,
    },
    /// A line is not the line that PostgreSQL writes at this place.
    #[error("lacks a valid `{expected}` on line {line}")]
    Line {
        /// The number of the line, counted from 1.
        line: usize,
        /// What the line should begin with.
        expected: &'static str,
    },
    /// A line is missing at the end.
    #[error("ends before `{0}`")]
    Ends(&'static str),
    /// There is a line after the last expected line.
    #[error("has a line {0} that PostgreSQL does not write")]
    Further(usize),
    /// The last line has no line feed.
    #[error("has a last line that is cut off")]
    Truncated,
    /// START TIMELINE and START WAL LOCATION name different timelines. The server does not start from such a label either.
    #[error(
        "says START TIMELINE {start_timeline}, but its START WAL LOCATION is in a file of timeline {segment_timeline}"
    )]
    Timelines {
        /// The timeline of START TIMELINE.
        start_timeline: u32,
        /// The timeline of the segment.
        segment_timeline: u32,
    },
    /// Replay would begin after the checkpoint.
    #[error("says CHECKPOINT LOCATION {checkpoint}, which lies before its START WAL LOCATION {start}")]
    Order {
        /// Where replay begins.
        start: Lsn,
        /// Where the checkpoint is.
        checkpoint: Lsn,
    },
}

impl Start {
    /// Finds the lines that say where a backup begins, in any order and among any other lines of the form `KEY: VALUE`. Does not
    /// check the other lines, nor whether lines contradict each other; [`BackupLabel::parse`] does.
    ///
    /// # Errors
    /// [`BackupLabelError::Missing`] without START WAL LOCATION, and [`BackupLabelError::Malformed`].
    pub fn parse(contents: &[u8]) -> Result<Self, BackupLabelError> {
        let text = String::from_utf8_lossy(contents);
        let (mut start, mut start_timeline) = (None, None);
        let (mut incremental_from, mut incremental_from_timeline) = (None, None);
        let (mut start_time, mut label) = (String::new(), String::new());
        let mut from_standby = false;
        for line in text.lines() {
            let malformed = || BackupLabelError::Malformed { line: shown(line.as_bytes()) };
            let (key, value) = line.find(": ").map(|at| line.split_at(at + 2)).ok_or_else(malformed)?;
            match key {
                START_WAL_LOCATION => start = Some(start_location(value).ok_or_else(malformed)?),
                START_TIMELINE => start_timeline = Some(read(value).ok_or_else(malformed)?),
                INCREMENTAL_FROM_LSN => incremental_from = Some(read(value).ok_or_else(malformed)?),
                INCREMENTAL_FROM_TLI => incremental_from_timeline = Some(read(value).ok_or_else(malformed)?),
                START_TIME => value.clone_into(&mut start_time),
                LABEL => value.clone_into(&mut label),
                BACKUP_FROM => from_standby = backup_from(value) == Some(true),
                // CHECKPOINT LOCATION, BACKUP METHOD, and what later versions add.
                _ => {}
            }
        }
        let (start_lsn, segment) = start.ok_or(BackupLabelError::Missing("START WAL LOCATION"))?;
        let timeline = start_timeline.unwrap_or(segment.timeline());
        Ok(Self {
            start_lsn,
            segment,
            timeline,
            start_time,
            label,
            from_standby,
            incremental_from,
            incremental_from_timeline,
        })
    }

    /// Describes the backup for a person.
    pub fn describe(&self) -> String {
        let label = if self.label.is_empty() { "backup" } else { &self.label };
        format!("{label} of {} at {}", self.start_time, self.start_lsn)
    }
}

impl BackupLabel {
    /// Parses a whole `backup_label`, and accepts only what PostgreSQL writes.
    ///
    /// # Errors
    /// Every [`BackupLabelError`] except [`BackupLabelError::Missing`] and [`BackupLabelError::Malformed`].
    pub fn parse(contents: &[u8]) -> Result<Self, BackupLabelError> {
        let text = String::from_utf8_lossy(contents);
        let mut lines = Lines::of(&text)?;
        let (start_lsn, segment) = lines.need(START_WAL_LOCATION, start_location)?;
        let checkpoint = lines.need(CHECKPOINT_LOCATION, read)?;
        let method = lines.need(BACKUP_METHOD, method)?;
        let from_standby = lines.need(BACKUP_FROM, backup_from)?;
        let start_time = lines.need(START_TIME, read)?;
        // pg_rewind writes none of the following lines.
        let label = lines.may(LABEL, read)?.unwrap_or_default();
        let start_timeline = lines.may(START_TIMELINE, read)?;
        let incremental_from = lines.may(INCREMENTAL_FROM_LSN, read)?;
        let incremental_from_timeline =
            if incremental_from.is_some() { lines.may(INCREMENTAL_FROM_TLI, read)? } else { None };
        lines.end()?;
        let timeline = segment.timeline();
        if let Some(start_timeline) = start_timeline
            && start_timeline != timeline
        {
            return Err(BackupLabelError::Timelines { start_timeline, segment_timeline: timeline });
        }
        if checkpoint < start_lsn {
            return Err(BackupLabelError::Order { start: start_lsn, checkpoint });
        }
        let start = Start {
            start_lsn,
            segment,
            timeline,
            start_time,
            label,
            from_standby,
            incremental_from,
            incremental_from_timeline,
        };
        Ok(Self { start, checkpoint, method })
    }
}

/// Returns the text of a label without the lines that mark an incremental backup, for a data directory that was combined from a chain of
/// backups. PostgreSQL does not start from a label with these lines.
pub fn without_increment(contents: &[u8]) -> Vec<u8> {
    let marks = [INCREMENTAL_FROM_LSN, INCREMENTAL_FROM_TLI].map(str::as_bytes);
    let lines = contents.split_inclusive(|byte| *byte == b'\n');
    lines.filter(|line| !marks.iter().any(|mark| line.starts_with(mark))).flatten().copied().collect()
}

fn read<T: FromStr>(value: &str) -> Option<T> {
    value.parse().ok()
}

/// Parses `0/2000028 (file 000000010000000000000002)`.
fn start_location(value: &str) -> Option<(Lsn, SegmentName)> {
    let (lsn, file) = value.split_once(" (file ")?;
    Some((read(lsn)?, SegmentName::parse(file.strip_suffix(')')?.as_bytes())?))
}

fn method(value: &str) -> Option<Method> {
    match value {
        "streamed" => Some(Method::Streamed),
        "pg_start_backup" => Some(Method::Exclusive),
        "pg_rewind" => Some(Method::Rewind),
        _ => None,
    }
}

/// Returns whether a standby was backed up. PostgreSQL 13 calls a primary a master.
fn backup_from(value: &str) -> Option<bool> {
    match value {
        "primary" | "master" => Some(false),
        "standby" => Some(true),
        _ => None,
    }
}

/// The lines that are left to read.
struct Lines<'a> {
    left: Peekable<Enumerate<Split<'a, char>>>,
}

impl<'a> Lines<'a> {
    fn of(text: &'a str) -> Result<Self, BackupLabelError> {
        let whole = text.strip_suffix('\n').ok_or(BackupLabelError::Truncated)?;
        Ok(Self { left: whole.split('\n').enumerate().peekable() })
    }

    fn need<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, BackupLabelError> {
        let (index, line) = self.left.next().ok_or(BackupLabelError::Ends(key))?;
        let value = line.strip_prefix(key).and_then(read);
        value.ok_or(BackupLabelError::Line { line: index + 1, expected: key })
    }

    fn may<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, BackupLabelError> {
        match self.left.peek() {
            Some((_, line)) if line.starts_with(key) => self.need(key, read).map(Some),
            _ => Ok(None),
        }
    }

    fn end(&mut self) -> Result<(), BackupLabelError> {
        match self.left.next() {
            None => Ok(()),
            Some((index, _)) => Err(BackupLabelError::Further(index + 1)),
        }
    }
}

#[cfg(test)]
mod tests;
