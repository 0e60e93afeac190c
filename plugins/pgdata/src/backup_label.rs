//! `backup_label`, which says where replay begins (`do_pg_backup_start` in PostgreSQL's xlog.c; build_backup_content in
//! xlogbackup.c from 16).

use crate::Lsn;

/// The longest `backup_label` that is read, in bytes. A real one has some 250 and the label, at most 1024.
pub const LIMIT: u64 = 64 << 10;

/// What a `backup_label` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupLabel {
    /// Where replay begins.
    pub start_lsn: Lsn,
    /// The timeline on which the backup began.
    pub timeline: u32,
    /// When it began, as it is written there.
    pub start_time: String,
    /// What the person who took it called it.
    pub label: String,
    /// Whether it was taken from a standby, which writes no record of its end.
    pub from_standby: bool,
    /// The backup that it needs besides itself, where it is an incremental one.
    pub incremental_from: Option<Lsn>,
}

/// A `backup_label` that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BackupLabelError {
    /// A line is missing.
    #[error("has no line `{0}`")]
    Missing(&'static str),
    /// A line does not say what it should.
    #[error("has a line `{line}` that cannot be read")]
    Malformed {
        /// The line.
        line: String,
    },
}

impl BackupLabel {
    /// Reads the text of a `backup_label`.
    ///
    /// # Errors
    /// Where the start LSN or the timeline is missing or malformed, or where a line of the others is malformed.
    pub fn parse(text: &str) -> Result<Self, BackupLabelError> {
        const START_WAL_LOCATION: &str = "START WAL LOCATION";
        const START_TIMELINE: &str = "START TIMELINE";
        let (mut start, mut timeline, mut incremental_from) = (None, None, None);
        let (mut start_time, mut label) = (String::new(), String::new());
        let mut from_standby = false;
        for line in text.lines() {
            let malformed = || BackupLabelError::Malformed { line: line.chars().take(200).collect() };
            let Some((key, value)) = line.split_once(": ") else { return Err(malformed()) };
            match key {
                START_WAL_LOCATION => {
                    let (lsn, file) = value.split_once(" (file ").ok_or_else(malformed)?;
                    let file = file.strip_suffix(')').ok_or_else(malformed)?;
                    if file.len() != 24 || !file.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                        return Err(malformed());
                    }
                    let of_file = u32::from_str_radix(&file[..8], 16).map_err(|_| malformed())?;
                    start = Some((lsn.parse().map_err(|_| malformed())?, of_file));
                }
                START_TIMELINE => timeline = Some(value.parse().map_err(|_| malformed())?),
                "INCREMENTAL FROM LSN" => incremental_from = Some(value.parse().map_err(|_| malformed())?),
                "START TIME" => value.clone_into(&mut start_time),
                "LABEL" => value.clone_into(&mut label),
                "BACKUP FROM" => from_standby = value == "standby",
                // CHECKPOINT LOCATION, BACKUP METHOD, INCREMENTAL FROM TLI, and what later versions add.
                _ => {}
            }
        }
        let (start_lsn, of_file) = start.ok_or(BackupLabelError::Missing(START_WAL_LOCATION))?;
        // The line came with PostgreSQL 11; the segment's name says the same.
        let timeline = timeline.unwrap_or(of_file);
        Ok(Self { start_lsn, timeline, start_time, label, from_standby, incremental_from })
    }

    /// Names the backup for a person.
    pub fn describe(&self) -> String {
        let label = if self.label.is_empty() { "backup" } else { &self.label };
        format!("{label} of {} at {}", self.start_time, self.start_lsn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABEL: &str = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n\
        CHECKPOINT LOCATION: 0/2000060\nBACKUP METHOD: streamed\nBACKUP FROM: primary\n\
        START TIME: 2026-11-23 08:34:17 UTC\nLABEL: nightly: the big one\nSTART TIMELINE: 1\n";

    #[test]
    fn a_backup_label_says_where_replay_begins() {
        let label = BackupLabel::parse(LABEL).unwrap();
        assert_eq!((label.start_lsn, label.timeline, label.incremental_from), (Lsn(0x0200_0028), 1, None));
        assert!(!label.from_standby);
        let standby = LABEL.replace("FROM: primary", "FROM: standby");
        assert!(BackupLabel::parse(&standby).unwrap().from_standby);
        assert_eq!(label.describe(), "nightly: the big one of 2026-11-23 08:34:17 UTC at 0/2000028");
    }

    #[test]
    fn an_incremental_backup_is_recognised() {
        let text = format!("{LABEL}INCREMENTAL FROM LSN: 0/1000028\nINCREMENTAL FROM TLI: 1\n");
        assert_eq!(BackupLabel::parse(&text).unwrap().incremental_from, Some(Lsn(0x0100_0028)));
    }

    #[test]
    fn a_label_that_says_nothing_or_nonsense_is_refused() {
        for (from, to) in [
            ("START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n", ""),
            ("0/2000028", "0/x"),
            ("(file 000000010000000000000002)", ""),
            ("(file 000000010000000000000002)", "(file 00000001\u{e9}000000000000002)"),
            ("START TIMELINE: 1", "START TIMELINE: one"),
            ("START TIMELINE: 1", "garbage"),
        ] {
            assert!(BackupLabel::parse(&LABEL.replace(from, to)).is_err(), "{from} -> {to}");
        }
        assert!(BackupLabel::parse("").is_err());
    }
}
