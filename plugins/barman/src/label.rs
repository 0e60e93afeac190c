//! Checks the `backup_label` of a backup, and makes the one that is written.
//!
//! Barman keeps the text of the label in `backup.info` (`_concurrent_stop_backup` and `_read_backup_label` in barman/backup_executor.py).
//! Only the label of an exclusive backup is not there: it is a file of the data directory.

use postgres_formats::Lsn;
use postgres_formats::backup_label::{BackupLabel, LIMIT, Method, without_increment};

use crate::info::Backup;

/// The label of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Label {
    /// The text as it is in the backup.
    pub(crate) original: Vec<u8>,
    /// The text that is written: without the lines of an incremental backup.
    pub(crate) text: Vec<u8>,
    /// Where the backup began on which an incremental backup is based, and its timeline if the label says it.
    pub(crate) parent: Option<(Lsn, Option<u32>)>,
}

impl Label {
    /// Checks that `text` is the label of `backup`.
    ///
    /// # Errors
    /// The error follows the name of the place where the label is.
    pub(crate) fn of(backup: &Backup, text: &[u8]) -> Result<Self, String> {
        if text.len() as u64 > LIMIT {
            return Err(format!("has a backup_label of {} bytes, and at most {LIMIT} are read", text.len()));
        }
        let label = BackupLabel::parse(text).map_err(|error| format!("has a backup_label that {error}"))?;
        let start = &label.start;
        if (start.start_lsn, start.segment) != (backup.begin, backup.begin_wal) {
            return Err(format!(
                "has a backup_label that begins at {} in {}, and the backup begins at {} in {}",
                start.start_lsn, start.segment, backup.begin, backup.begin_wal
            ));
        }
        if label.method == Method::Rewind {
            return Err("has a backup_label that pg_rewind wrote".to_owned());
        }
        let parent = start.incremental_from.map(|lsn| (lsn, start.incremental_from_timeline));
        match (parent, &backup.parent) {
            (Some((lsn, _)), None) => Err(format!(
                "has a backup_label of an incremental backup from {lsn}, and no `parent_backup_id`: its parent is not known"
            )),
            (None, Some(parent)) => Err(format!(
                "has a backup_label without `INCREMENTAL FROM LSN`, although its parent is {parent}"
            )),
            _ => Ok(Self { original: text.to_vec(), text: without_increment(text), parent }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::scene::{LABEL, backup};

    const INCREMENTAL: &str = "INCREMENTAL FROM LSN: 0/2000028\nINCREMENTAL FROM TLI: 1\n";

    fn label(text: &str) -> Result<Label, String> {
        Label::of(&backup("20261126T043406"), text.as_bytes())
    }

    #[test]
    fn the_label_of_a_full_backup_is_written_as_it_is() {
        let label = label(LABEL).unwrap();
        assert_eq!((label.text, label.parent), (LABEL.as_bytes().to_vec(), None));
        assert_eq!(label.original, LABEL.as_bytes());
    }

    #[test]
    fn the_lines_of_an_incremental_backup_are_not_written() {
        let child = Backup { parent: Some("20261125T043406".to_owned()), ..backup("20261126T043406") };
        let label = Label::of(&child, format!("{LABEL}{INCREMENTAL}").as_bytes()).unwrap();
        assert_eq!(label.text, LABEL.as_bytes());
        assert_eq!(label.parent, Some((Lsn(0x0200_0028), Some(1))));
        assert!(Label::of(&child, LABEL.as_bytes()).unwrap_err().contains("20261125T043406"));
    }

    #[test]
    fn a_label_of_another_backup_or_of_none_is_refused() {
        for (text, what) in [
            (String::new(), "cut off"),
            (LABEL.replace("0/4000028", "0/4000030"), "begins at 0/4000030"),
            (LABEL.replace("000000010000000000000004", "000000020000000000000004"), "TIMELINE"),
            (LABEL.replace("streamed", "pg_rewind"), "pg_rewind"),
            (format!("{LABEL}{INCREMENTAL}"), "parent_backup_id"),
            (format!("{LABEL}FURTHER: line\n"), "does not write"),
            (LABEL.trim_end().to_owned(), "cut off"),
            (format!("{LABEL}{}", "x".repeat(1 << 16)), "at most 65536"),
        ] {
            let refused = label(&text).unwrap_err();
            assert!(refused.contains(what), "{what}: {refused}");
        }
    }
}
