//! Where logs are written.

use super::super::logs::{AUDIT_DIRECTORY, AUDIT_FILENAME};
use super::*;

#[test]
fn the_log_is_not_written_over_files_of_the_cluster() {
    let both = [LOG_DIRECTORY, LOG_FILENAME];
    for path in [
        "",
        ".",
        "log/..",
        "pg_wal",
        "global",
        "base/1",
        "pg_wal/archive_status",
        "/proc/self/cwd",
        "/dev/fd/3",
        "pg_logical",
        "promote",
        "fallback_promote",
        "backup_label",
        "go",
        "logs2",
        "pg_log_old",
    ] {
        assert_eq!(set(&format!("log_directory = '{path}'\n")), both, "{path}");
    }
    // `log_timezone` sets the name of the time zone: with `</>0` it is a slash.
    for name in [
        "../promote",
        "a/b",
        "%D",
        "%ED",
        "%x",
        "..%Zpromote",
        "%+",
        ".%.",
        "x%",
        "..",
        "",
        "promote",
        "backup_label",
        "standby.signal",
        "%a.signal",
    ] {
        assert_eq!(set(&format!("log_filename = '{name}'\n")), [LOG_FILENAME], "{name}");
    }
    // The server cuts a path that is longer than its buffer.
    assert_eq!(set(&format!("log_filename = '{}'\n", "x".repeat(65))), [LOG_FILENAME]);
    for path in [format!("log/{}x", "./".repeat(254)), format!("/srv/{}x", "./".repeat(254))] {
        assert_eq!(set(&format!("log_directory = '{path}'\n")), both, "{path}");
    }
    let restored = Restored::with(&[]);
    let line = format!("log_directory = '{}/../{}'\n", restored.place.path().display(), "x/..");
    assert!(judged(&[("postgresql.conf", &line)], 15, true).is_err(), "the path leads outside");
}

#[test]
fn the_log_is_written_outside_or_where_logs_belong() {
    let restored = Restored::with(&[]);
    let places = restored.places();
    for path in ["log", "logs", "pg_log", "./log", "log/promote", "logs/a/b", "/var/log/postgresql"] {
        assert!(is_place_for_logs(&places, path), "{path}");
    }
    for path in ["promote", "log/../promote", "", "Log", "log ", "/proc/self/cwd/log"] {
        assert!(!is_place_for_logs(&places, path), "{path}");
    }
}

#[test]
fn an_extensions_log_is_judged_as_the_servers() {
    for path in [".", "promote", "base/1", "log/.."] {
        let expected = [AUDIT_DIRECTORY, AUDIT_FILENAME];
        assert_eq!(set(&format!("pgaudit.log_directory = '{path}'\n")), expected, "{path}");
    }
    for name in ["promote", "../x", "%x"] {
        assert_eq!(set(&format!("pgaudit.log_filename = '{name}'\n")), [AUDIT_FILENAME], "{name}");
    }
    let harmless = "pgaudit.log_directory = ''\npgaudit.log_directory = 'log/audit'\npgaudit.log_filename = ''\n\
                    pgaudit.log_filename = 'audit-%Y%m%d.log'\n";
    let judged = judged(&[("postgresql.conf", harmless)], 15, true).unwrap();
    assert_eq!(judged.messages, Vec::<String>::new());
}

#[test]
fn a_mode_that_opens_a_log_outside_the_data_directory_is_reported() {
    let told = |mode: &str, directory: &str| {
        let lines = format!("log_file_mode = {mode}\nlog_directory = '{directory}'\n");
        let messages = judged(&[("postgresql.conf", &lines)], 15, false).unwrap().messages;
        messages.iter().any(|message| message.contains("`log_file_mode`"))
    };
    for mode in ["0640", "0604", "0666", "0x1A4"] {
        assert!(told(mode, "/var/log/x"), "{mode}");
        assert!(!told(mode, "log"), "{mode}");
    }
    assert!(!told("0600", "/var/log/x"));
}

#[test]
fn a_file_in_the_log_directory_is_not_included() {
    for files in [
        [("postgresql.conf", "include_dir 'log'\n"), ("log/x", "")],
        [("postgresql.conf", "include_if_exists './log/x.conf'\n"), ("log/x", "")],
        [("postgresql.conf", "log_directory = conf\ninclude_dir 'conf'\n"), ("conf/x", "")],
    ] {
        let Err(problem) = judged(&files, 15, false) else { panic!("{files:?}") };
        assert!(problem.message.contains("writes its log"), "{}", problem.message);
    }
}
