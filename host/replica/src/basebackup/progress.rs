//! Parses the output of `pg_basebackup --progress`.

use crate::Bytes;

/// The progress of pg_basebackup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) done: Bytes,
    /// The server's estimate, which may be exceeded. `None` with `no-estimate-size`.
    pub(super) expected: Option<Bytes>,
}

/// Parses a line such as ` 1234/56789 kB (2%), 0/1 tablespace` (`progress_report` in `pg_basebackup.c`); `None` for any other line.
pub(super) fn parse(line: &str) -> Option<Progress> {
    let (numbers, rest) = line.trim_start().split_once(" kB")?;
    rest.contains(" tablespace").then_some(())?;
    let kilobytes = |digits: &str| {
        digits.bytes().all(|byte| byte.is_ascii_digit()).then_some(())?;
        digits.parse::<u64>().ok()?.checked_mul(1024).map(Bytes)
    };
    match numbers.split_once('/') {
        Some((done, expected)) => {
            Some(Progress { done: kilobytes(done)?, expected: Some(kilobytes(expected)?) })
        }
        None => Some(Progress { done: kilobytes(numbers)?, expected: None }),
    }
}

/// Returns whether the line shows that pg_basebackup has found the directories empty and has requested the backup (`BaseBackup` in
/// `pg_basebackup.c`, in the C locale): it waits for the checkpoint, or reports progress.
pub(super) fn has_begun(line: &str) -> bool {
    line.contains("waiting for checkpoint") || parse(line).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_21_each_form_of_a_progress_line_is_read() {
        let progress = |done: u64, expected: Option<u64>| Progress {
            done: Bytes(done * 1024),
            expected: expected.map(|kilobytes| Bytes(kilobytes * 1024)),
        };
        for (line, read) in [
            ("  123/45678 kB (0%), 0/1 tablespace", progress(123, Some(45678))),
            ("45679/45679 kB (100%), 2/2 tablespaces", progress(45679, Some(45679))),
            ("  123/45678 kB (0%), 0/1 tablespace (...main/base/1/1259)", progress(123, Some(45678))),
            ("  123 kB, 0/1 tablespace", progress(123, None)),
        ] {
            assert_eq!(parse(line), Some(read), "{line}");
        }
    }

    #[test]
    fn a_backup_has_begun_with_the_first_line_about_the_checkpoint_or_progress() {
        for line in [
            "waiting for checkpoint",
            "pg_basebackup: initiating base backup, waiting for checkpoint to complete",
            "      0/45678 kB (0%), 0/1 tablespace",
        ] {
            assert!(has_begun(line), "{line}");
        }
        assert!(!has_begun("pg_basebackup: error: directory \"/x\" exists but is not empty"));
    }

    #[test]
    fn other_lines_are_left_to_the_log() {
        for line in [
            "",
            "pg_basebackup: error: could not create 12 kB of tablespace",
            "waiting for checkpoint",
            "-1/2 kB (0%), 0/1 tablespace",
            "99999999999999999999/1 kB (0%), 0/1 tablespace",
            "1/2 kB of something",
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
