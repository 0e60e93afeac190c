//! Recognizes pgBackRest's names for backups (labels), stanzas, and WAL segments in a backup.

use postgres_formats::segment::SegmentName;
use understudy::Failure;

/// Returns whether `text` is a backup label: `YYYYMMDD-HHMMSSF`, which for a differential or incremental backup is followed by
/// `_YYYYMMDD-HHMMSS` and `D` or `I` (`backupRegExp` in pgBackRest's src/command/backup/common.c).
pub(crate) fn is_label(text: &str) -> bool {
    let is_time = |text: &str| {
        text.len() == 15
            && text
                .bytes()
                .enumerate()
                .all(|(at, byte)| if at == 8 { byte == b'-' } else { byte.is_ascii_digit() })
    };
    match text.split_once('_') {
        None => text.strip_suffix('F').is_some_and(is_time),
        Some((full, other)) => {
            full.strip_suffix('F').is_some_and(is_time) && other.strip_suffix(['D', 'I']).is_some_and(is_time)
        }
    }
}

/// Checks that `text` can be the name of a stanza. A stanza has one folder below `backup` and one below `archive`.
///
/// # Errors
/// Fails if `text` cannot be the name of a stanza.
pub(crate) fn check_stanza(text: &str) -> Result<(), Failure> {
    let is_folder =
        !matches!(text, "" | "." | "..") && !text.contains(['/', '\\']) && !text.contains(char::is_control);
    if is_folder {
        return Ok(());
    }
    Err(Failure::failed(format!("`stanza = \"{}\"` cannot be the name of a stanza", text.escape_debug())))
}

/// Returns the name of the WAL segment at `path` in a data directory; `None` if `path` is not a WAL segment.
pub(crate) fn segment_of(path: &str) -> Option<&str> {
    path.strip_prefix("pg_wal/").filter(|name| SegmentName::parse(name.as_bytes()).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_has_one_or_two_timestamps_with_their_letters() {
        for label in
            ["20261126-043406F", "20261126-043406F_20261126-043412I", "20261126-043406F_20261126-043412D"]
        {
            assert!(is_label(label), "{label}");
        }
        for text in [
            "",
            "20261126-043406",
            "20261126-043406I",
            "20261126-043406F_20261126-043412F",
            "20261126-043406F/..",
            "2026112600043406F",
            "20261126-043406F_",
            "../20261126-04340F",
        ] {
            assert!(!is_label(text), "{text}");
        }
    }

    #[test]
    fn a_stanza_is_one_folder() {
        assert_eq!(check_stanza("main"), Ok(()));
        for text in ["", ".", "..", "a/b", "../x", "a\nb"] {
            assert!(check_stanza(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_segment_is_a_file_of_pg_wal() {
        let segment = "0000000A0000000100000002";
        assert_eq!(segment_of(&format!("pg_wal/{segment}")), Some(segment));
        for path in ["pg_wal/00000001.history", "pg_wal/archive_status/0000000A0000000100000002", segment] {
            assert_eq!(segment_of(path), None, "{path}");
        }
    }
}
