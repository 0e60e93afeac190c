//! What the standby follows, and how closely.

use super::*;
use crate::outcome::Finding;

#[test]
fn a_password_in_primary_conninfo_is_never_shown() {
    for conninfo in ["host=a password=hunter2", "postgresql://u:hunter2@a/", "host=a pass word=hunter2"] {
        let messages = messages_of(&format!("primary_conninfo = '{conninfo}'")).join("");
        assert!(messages.contains("primary_conninfo") && !messages.contains("hunter2"), "{messages}");
    }
}

#[test]
fn settings_that_patroni_writes_itself_are_not_warnings_without_configure_standby() {
    let main = "include 'postgresql.base.conf'\nprimary_conninfo = 'host=x'\nprimary_slot_name = 's'\n\
                unix_socket_directories = '/run/x'\narchive_command = 'x'\n";
    // Patroni writes postgresql.conf anew. If it has no postgresql.base.conf, it keeps the restored file under that name, removes the override
    // of `primary_*`, and does not always write its own value.
    let base = ("postgresql.base.conf", "");
    let cases = [
        (vec![("postgresql.conf", main), base], EndState::default(), 1, 0),
        (vec![("postgresql.conf", main), base], end(false), 5, 0),
        (
            vec![("postgresql.conf", &main["include 'postgresql.base.conf'\n".len()..])],
            EndState::default(),
            4,
            2,
        ),
    ];
    for (files, end, warnings, undone) in cases {
        let restored = Restored::with(&files);
        let mut findings = Findings::default();
        let overrides =
            check(&restored.places(), &restored.read().unwrap(), 15, &end, &mut findings).unwrap();
        assert_eq!(overrides.values.get("primary_slot_name"), Some(&""));
        let list = findings.into_list();
        let warned = list.iter().filter(|finding| finding.level == Level::Warn).count();
        assert_eq!((list.len(), warned), (3 + files.len(), warnings), "{list:?}");
        let says = |finding: &&Finding| {
            finding.level == Level::Warn && finding.message.contains("removes the override")
        };
        assert_eq!(list.iter().filter(says).count(), undone, "{list:?}");
    }
}

/// Judges a connection string in postgresql.conf of a backup.
fn judged_conninfo(conninfo: &str, end: &EndState) -> Result<(Vec<Finding>, Overrides), Problem> {
    let line = format!("primary_conninfo = '{conninfo}'\n");
    let restored = Restored::with(&[("postgresql.conf", &line)]);
    let mut findings = Findings::default();
    let overrides = check(&restored.places(), &restored.read()?, 15, end, &mut findings)?;
    Ok((findings.into_list(), overrides))
}

#[test]
fn the_backup_does_not_choose_what_the_standby_follows() {
    assert_eq!(
        messages_of("primary_conninfo = 'host=x password=hunter2'"),
        [
            "postgresql.conf line 2 sets `primary_conninfo` to `host=x`, which postgresql.auto.conf now overrides: the server that the \
             standby follows is not the backup's to choose"
        ]
    );
    assert_eq!(set("primary_slot_name = 'of_another'\n"), [("primary_slot_name", "")]);
    for file in ["more.conf", "postgresql.base.conf"] {
        let files =
            [("postgresql.conf", "include_if_exists 'more.conf'\n"), (file, "primary_slot_name = s\n")];
        let overrides = judged(&files, 15, false).unwrap().overrides;
        assert!(overrides.values.contains_key("primary_slot_name"), "{file}");
    }
    // Without `configure_standby`, the seal writes no connection string of its own.
    let (findings, overrides) = judged_conninfo("host=x", &EndState::default()).unwrap();
    assert_eq!(overrides.values.get("primary_conninfo"), Some(&""));
    assert!(findings[0].message.contains("overrides with ``"), "{findings:?}");
}

#[test]
fn a_connection_string_that_names_files_or_code_is_a_hazard() {
    for (conninfo, expected) in [
        (
            "host=x sslmode=require sslcert=c.crt sslkey=/srv/evil.so:x",
            "makes libpq load an engine of OpenSSL, which is code (`sslkey`)",
        ),
        ("host=x sslkeylogfile=/srv/x", "files that the backup names (`sslkeylogfile`)"),
        ("host=x passfile=/etc/x sslcert=/etc/y", "files that the backup names (`passfile`, `sslcert`)"),
        ("host=x service=s", "files that the backup names (`service`)"),
        ("postgresql://x/?sslrootcert=%2Fetc%2Fx", "files that the backup names (`sslrootcert`)"),
        ("host=x no_such_keyword=1", "`primary_conninfo` cannot be read"),
    ] {
        let strict = judged_conninfo(conninfo, &end(true)).unwrap_err().message;
        assert!(strict.contains(expected) && strict.contains("refuse-commands"), "{conninfo}: {strict}");
        // It stays a warning under Patroni, which does not write the setting as long as there is no leader.
        for end in [end(false), EndState::default()] {
            let (findings, _) = judged_conninfo(conninfo, &end).unwrap();
            assert!(findings[0].message.contains(expected), "{conninfo}: {findings:?}");
            assert_eq!(findings[0].level, Level::Warn, "{conninfo}");
        }
    }
    let harmless = "host=x user=y sslmode=verify-full sslrootcert=system";
    assert_eq!(judged_conninfo(harmless, &end(true)).unwrap().0.len(), 1);
}

#[test]
fn the_operators_own_configuration_decides_what_the_standby_follows() {
    let with_own_file = EndState { config_file: Some("/etc/own.conf".into()), ..EndState::default() };
    let (findings, overrides) = judged_conninfo("host=x", &with_own_file).unwrap();
    assert!(findings[0].message.starts_with("postgresql.conf line 1: `primary_conninfo` is `host=x`"));
    assert!(overrides.values.is_empty());
}

#[test]
fn a_time_with_which_the_standby_stays_behind_is_reported() {
    for (line, is_told) in [
        ("wal_retrieve_retry_interval = '5min'", false),
        ("wal_retrieve_retry_interval = 300001", true),
        ("wal_retrieve_retry_interval = 24d", true),
        ("wal_receiver_timeout = 0", false),
        ("wal_receiver_timeout = '1 s'", false),
        ("wal_receiver_timeout = 0.9s", true),
        ("wal_receiver_timeout = 1", true),
        ("max_standby_streaming_delay = 30s", false),
        ("max_standby_streaming_delay = -1", true),
        ("max_standby_archive_delay = -1", true),
        ("recovery_min_apply_delay = 0x1", true),
        ("recovery_min_apply_delay = 400us", false),
        ("recovery_min_apply_delay = 1week", true),
    ] {
        assert_eq!(messages_of(line).len(), usize::from(is_told), "{line}");
    }
}
