mod elsewhere;
mod following;
mod logs;

use super::super::configuration::tests::Restored;
use super::*;
use crate::Level;
use crate::seal::Standby;

struct Judged {
    messages: Vec<String>,
    overrides: Overrides,
}

fn end(refuse_commands: bool) -> EndState {
    let standby = Standby { conninfo: "host=10.0.0.1".to_owned(), passfile: None };
    EndState { configure_standby: Some(standby), refuse_commands, ..EndState::default() }
}

fn judged(files: &[(&str, &str)], major: u32, refuse: bool) -> Result<Judged, Problem> {
    let restored = Restored::with(files);
    let mut findings = Findings::default();
    let overrides = check(&restored.places(), &restored.read()?, major, &end(refuse), &mut findings)?;
    Ok(Judged {
        messages: findings.into_list().into_iter().map(|finding| finding.message).collect(),
        overrides,
    })
}

fn messages_of(line: &str) -> Vec<String> {
    judged(&[("postgresql.conf", &format!("\n{line}\n"))], 15, false).unwrap().messages
}

fn refused(line: &str, major: u32) -> bool {
    match judged(&[("postgresql.conf", line)], major, true) {
        Err(problem) => problem.message.contains("refuse-commands"),
        Ok(_) => false,
    }
}

fn set(line: &str) -> Vec<(&'static str, &'static str)> {
    let judged = judged(&[("postgresql.conf", line)], 15, true).unwrap();
    assert_eq!(
        judged.messages.is_empty(),
        judged.overrides.values.is_empty(),
        "{line}: {:?}",
        judged.messages
    );
    judged.overrides.values.into_iter().collect()
}

#[test]
fn rule_30_what_the_server_will_run_load_or_read_elsewhere_is_listed_with_its_line() {
    for (line, expected) in [
        ("archive_command = 'wal-g wal-push %p'", "`archive_command` runs `wal-g ...`"),
        ("restore_command = 'AWS_SECRET=x wal-g wal-fetch'", "`restore_command` runs `wal-g ...`"),
        ("ssl_passphrase_command = 'P=\"a secret\" echo'", "`ssl_passphrase_command` runs `echo ...`"),
        (
            "ssl_passphrase_command = 'P=\"a secret\"'",
            "`ssl_passphrase_command` runs `(a command whose program is not clear)`",
        ),
        ("restore_command = 'env -u X P=secret wal-g'", "`restore_command` runs `env ...`"),
        ("archive_cleanup_command = 'cd /x && P=secret y'", "`archive_cleanup_command` runs `cd ...`"),
        ("recovery_end_command = '(P=secret y)'", "`recovery_end_command` runs `y ...`"),
        ("recovery_end_command = 'y;P=secret z'", "`recovery_end_command` runs `y ...`"),
        ("archive_command = 'P+=secret y'", "`archive_command` runs `y ...`"),
        (
            "archive_command = '\"P=secret y\"'",
            "`archive_command` runs `(a command whose program is not clear)`",
        ),
        ("archive_command = 'P=\"secret'", "`archive_command` runs `(a command whose program is not clear)`"),
        ("archive_command = '\u{a0}'", "`archive_command` runs `(a command of blanks)`"),
        ("archive_command = ' '", "`archive_command` runs `(a command of blanks)`"),
        (r"archive_command = '\302\240'", "`archive_command` runs `(a command of blanks)`"),
        ("archive_library = basic_archive", "`archive_library` loads `basic_archive`"),
        ("shared_preload_libraries = 'a, b'", "`shared_preload_libraries` loads `a, b`"),
        ("session_preload_libraries = '\u{a0}'", "`session_preload_libraries` loads `\\u{a0}`"),
        ("local_preload_libraries = 'a'", "`local_preload_libraries` loads `a`"),
        ("archive_library = ' '", "`archive_library` loads ` `"),
        (
            "extension_destdir = '$libdir'",
            "`extension_destdir` has libraries or extensions loaded from `$libdir`",
        ),
        ("extension_destdir = ':'", "`extension_destdir` has libraries or extensions loaded from `:`"),
        ("extension_destdir = ' '", "`extension_destdir` has libraries or extensions loaded from ` `"),
        ("jit_provider = 'evil'", "`jit_provider` loads `evil`"),
        ("jit_provider = '../../llvmjit'", "`jit_provider` loads `../../llvmjit`"),
        ("include_if_exists 'x.conf'", "`include_if_exists` includes `x.conf`"),
        ("ssl_key_file = '../key'", "`ssl_key_file` leads out of the data directory, to `../key`"),
        ("ssl_cert_file = '/etc/a,b'", "`ssl_cert_file` leads out of the data directory, to `/etc/a,b`"),
        (
            "hba_file = '/etc/pg_hba.conf'",
            "`hba_file` leads out of the data directory, to `/etc/pg_hba.conf`",
        ),
        (
            "hba_file = 'pg_hba.conf'",
            "`hba_file` is `pg_hba.conf`, which the server looks for below the directory in which it is started",
        ),
        (
            "krb_server_keyfile = 'FILE:/etc/shadow'",
            "`krb_server_keyfile` leads out of the data directory, to `/etc/shadow`",
        ),
        (
            "krb_server_keyfile = '/etc/a:b'",
            "`krb_server_keyfile` leads out of the data directory, to `/etc/a:b`",
        ),
        ("krb_server_keyfile = 'DIR:/etc'", "`krb_server_keyfile` is a key table of the kind `DIR`"),
        (
            "unix_socket_directories = 'sockets, \"/tmp\"'",
            "`unix_socket_directories` leads out of the data directory, to `/tmp`",
        ),
        ("log_directory = '/var/log/x'", "`log_directory` leads out of the data directory, to `/var/log/x`"),
        (
            "dynamic_library_path = '$libdir:/tmp/evil'",
            "`dynamic_library_path` has libraries or extensions loaded from `/tmp/evil`",
        ),
        (
            "dynamic_library_path = 'lib:$libdir'",
            "`dynamic_library_path` has libraries or extensions loaded from `lib`",
        ),
        (
            "dynamic_library_path = '$libdir/../x'",
            "`dynamic_library_path` has libraries or extensions loaded from `$libdir/../x`",
        ),
        (
            "lc_messages = '/tmp/evil'",
            "`lc_messages` leads out of the server's own installation, to `/tmp/evil`",
        ),
        ("timezone = '../../x'", "`timezone` leads out of the server's own installation, to `../../x`"),
        ("plperl.on_init = 'system 1'", "`plperl.on_init` runs code when its library is loaded"),
        (
            "basic_archive.archive_directory = '/srv'",
            "`basic_archive.archive_directory` leads out of the data directory, to `/srv`",
        ),
        ("other.place = '/srv'", "`other.place` leads out of the data directory, to `/srv`"),
        ("other.place = 'https://u:hunter2@host/x'", "`other.place` names something by a URL"),
        ("other.place = 'a=/srv/x'", "`other.place` contains a path that leads out of the data directory"),
        ("other.place = 'lib:/srv/x'", "`other.place` contains a path that leads out of the data directory"),
        (
            "other.place = 'x \"/srv/x\"'",
            "`other.place` contains a path that leads out of the data directory",
        ),
        (r"other.place = 'x \'../y\''", "`other.place` contains a path that leads out of the data directory"),
        (
            "other.key_file = 'promote'",
            "`other.key_file` may name a file, a directory, a server or options of a program",
        ),
        (
            "other.node_conninfo = 'host=x password=hunter2'",
            "`other.node_conninfo` may name a file, a directory, a server or options of a program",
        ),
        ("other.cflags = '/srv'", "`other.cflags` leads out of the data directory, to `/srv`"),
        (
            "other.most_files = 7",
            "`other.most_files` belongs to an extension that this program does not know",
        ),
        ("other.log_path = off", "`other.log_path` belongs to an extension that this program does not know"),
        (
            "unix_socket_directories = 'sockets, @name'",
            "`unix_socket_directories` names the abstract socket `@name`, to which every user of the machine can connect",
        ),
        ("other.thing = '7'", "`other.thing` belongs to an extension that this program does not know"),
        ("nonsense = '7'", "`nonsense` is not a setting that PostgreSQL 15 is known to have"),
        ("summarize_wal = on", "`summarize_wal` is not a setting that PostgreSQL 15 is known to have"),
        (
            "recovery_min_apply_delay = 20d",
            "`recovery_min_apply_delay` is `20d`: the standby applies WAL only with this delay",
        ),
        ("fsync = of", "`fsync` is `of`: this disables a protection of the data"),
        ("zero_damaged_pages = 1", "`zero_damaged_pages` is `1`: this disables a protection of the data"),
        (
            "archive_mode = always",
            "`archive_mode` is `always`: a standby archives WAL too: without a command that works it keeps all WAL, and with one it \
             writes into the archive",
        ),
        (
            "session_replication_role = 'replica'",
            "`session_replication_role` is `replica`: triggers and foreign keys do not check changes of data",
        ),
        (
            "lo_compat_privileges = on",
            "`lo_compat_privileges` is `on`: every user may read and change every large object",
        ),
        (
            "synchronous_commit = off",
            "`synchronous_commit` is `off`: a commit that was reported may be lost in a crash",
        ),
        (
            "jit_dump_bitcode = on",
            "`jit_dump_bitcode` is `on`: the server writes files for compiled queries into the data directory, and keeps them",
        ),
        ("pgaudit.log = 'none'", "`pgaudit.log` is `none`: pgaudit records nothing"),
        ("sepgsql.permissive = on", "`sepgsql.permissive` is `on`: sepgsql forbids nothing"),
        (
            "auth_delay.milliseconds = 0",
            "`auth_delay.milliseconds` is `0`: nothing slows down the guessing of passwords",
        ),
        (
            "passwordcheck.min_password_length = 2",
            "`passwordcheck.min_password_length` is `2`: shorter passwords are accepted than by default",
        ),
    ] {
        assert_eq!(messages_of(line), [format!("postgresql.conf line 2: {expected}")], "{line}");
    }
}

#[test]
fn harmless_settings_are_not_listed() {
    let harmless = "archive_command = ''\nshared_preload_libraries = ' '\njit_provider = 'llvmjit'\nlog_directory = 'log'\n\
        log_directory = 'logs/of/today'\nlog_filename = 'postgresql-%a.log'\nexternal_pid_file = ''\nfsync = ON\nfull_page_writes = t\n\
        zero_damaged_pages = false\ndynamic_library_path = '$libdir:$libdir/plugins'\nmax_connections = 100\nlisten_addresses = '*'\n\
        datestyle = 'iso, mdy'\nTimeZone = 'Europe/Berlin'\nlc_messages = 'en_US.UTF-8'\nkrb_server_keyfile = 'FILE:krb5.keytab'\n\
        unix_socket_directories = '.'\nssl_key_file = 'server.key'\nauto_explain.log_min_duration = 1\nsort_mem = 1MB\nseed = 1\n\
        recovery_min_apply_delay = 0\nrecovery_min_apply_delay = '0 min'\narchive_mode = on\nsession_replication_role = local\n\
        lo_compat_privileges = off\nsynchronous_commit = local\njit_dump_bitcode = off\npgaudit.log = 'write, ddl'\npgaudit.role = a\n\
        sepgsql.permissive = off\nauth_delay.milliseconds = 500ms\npasswordcheck.min_password_length = 12\nlog_file_mode = 0640\n\
        recovery_target_timeline = latest\nrecovery_target_action = promote\nrecovery_target = ''\n";
    let judged = judged(&[("postgresql.conf", harmless)], 15, true).unwrap();
    assert_eq!(judged.messages, Vec::<String>::new());
    assert!(judged.overrides.values.is_empty());
}

#[test]
fn settings_of_other_versions_are_judged_by_the_servers() {
    assert!(refused("extension_control_path = '$system:/srv'", 18));
    // Directories of these names in the data directory.
    assert!(refused("extension_control_path = '$libdir'", 18));
    assert!(refused("extension_control_path = '$system/x'", 18));
    assert!(refused("dynamic_library_path = '$system'", 18));
    assert!(refused("oauth_validator_libraries = 'x'", 18));
    assert!(refused("stats_temp_directory = '/run/x'", 14));
    assert!(!refused("stats_temp_directory = 'pg_stat_tmp'", 14));
    assert!(!refused("extension_control_path = '$system'", 18));
    assert!(!refused("output_plugin_libraries = 'pgoutput, test_decoding'", 17));
    assert!(refused("output_plugin_libraries = 'pgoutput, evil'", 17));
    assert!(refused("extension_destdir = 'x'", 15));
    // Before version 14 this is a directory below the data directory.
    assert!(refused("unix_socket_directories = '@x'", 14));
    assert!(!refused("unix_socket_directories = '@x'", 13));
    let told = |major| judged(&[("postgresql.conf", "event_triggers = off")], major, false).unwrap().messages;
    assert!(told(17)[0].contains("do not run"), "{:?}", told(17));
    // Before version 16 this setting promotes. From 16 on the server does not start with this setting, nor with an override.
    let judged = judged(&[("postgresql.conf", "promote_trigger_file = 'x'")], 16, false).unwrap();
    assert!(
        judged.overrides.values.is_empty() && judged.messages[0].contains("is not a setting"),
        "{:?}",
        judged.messages
    );
}

#[test]
fn a_file_that_the_server_writes_under_any_name_is_never_written() {
    let restored = Restored::with(&[]);
    let top = restored.place.path().display().to_string();
    for path in [
        "promote",
        "standby.signal",
        "global/pg_control",
        "/run/postgresql/x.pid",
        "/proc/self/cwd/promote",
        "a/../promote",
        " ",
        r"promote\000.pid",
        &top,
    ] {
        assert_eq!(set(&format!("External_PID_File = '{path}'\n")), [("external_pid_file", "")], "{path}");
    }
}

#[test]
fn only_the_empty_text_sets_neither_target_nor_trigger_file() {
    for (name, harmless) in [
        ("promote_trigger_file", ""),
        ("recovery_target", ""),
        ("recovery_target_lsn", ""),
        ("recovery_target_name", ""),
        ("recovery_target_time", ""),
        ("recovery_target_timeline", "latest"),
        ("recovery_target_xid", ""),
    ] {
        // A blank is a valid name of a file or a restore point, and a valid number of a timeline, which PostgreSQL reads as 0.
        for value in [" ", "\t", " latest"] {
            assert_eq!(set(&format!("{name} = '{value}'\n")), [(name, harmless)], "{name} = {value:?}");
        }
        let line = format!("{name} = '{harmless}'\n");
        assert!(judged(&[("postgresql.conf", &line)], 15, true).unwrap().messages.is_empty(), "{name}");
    }
}

#[test]
fn every_mention_of_a_setting_is_judged() {
    let files = [(
        "postgresql.conf",
        "external_pid_file = 'promote'\nexternal_pid_file = ''\narchive_command = 'x'\narchive_command = ''\n",
    )];
    let judged_files = judged(&files, 15, false).unwrap();
    assert_eq!(judged_files.overrides.values.len(), 1);
    // A command that PostgreSQL does not use is refused, but not reported.
    assert_eq!(judged_files.messages.len(), 1, "{:?}", judged_files.messages);
    assert!(judged(&files, 15, true).is_err());
    let files = [
        ("postgresql.conf", "archive_command = 'x'\ninclude 'more.conf'\narchive_command = 'y'\n"),
        ("more.conf", "archive_command = 'z'\n"),
        ("postgresql.auto.conf", "archive_command = 'a'\narchive_command = 'b'\n"),
    ];
    let told = judged(&files, 15, false).unwrap().messages;
    let of_commands: Vec<_> = told.iter().filter(|message| message.contains("runs")).collect();
    assert_eq!(of_commands.len(), 4, "{of_commands:?}");
    assert!(!of_commands.iter().any(|message| message.contains("`x ...`")), "{of_commands:?}");
}

#[test]
fn a_line_of_an_included_directory_counts_as_one_of_the_file() {
    let files = [
        ("postgresql.conf", "include_dir 'conf.d'\n"),
        ("conf.d/7.conf", "External_PID_File = promote\n"),
        ("conf.d/8.conf", "archive_command = x\n"),
    ];
    let judged = judged(&files, 15, false).unwrap();
    assert!(judged.overrides.values.contains_key("external_pid_file"));
    assert!(
        judged
            .messages
            .iter()
            .any(|message| message == "conf.d/8.conf line 1: `archive_command` runs `x ...`"),
        "{:?}",
        judged.messages
    );
}

#[test]
fn the_server_never_runs_on_another_directory_than_the_sealed_one() {
    let restored = Restored::with(&[]);
    let top = restored.place.path().display().to_string();
    for path in [
        format!("{top}/evil"),
        "/elsewhere".into(),
        "evil".into(),
        String::new(),
        ".".into(),
        "/proc/self/cwd".into(),
    ] {
        for file in ["postgresql.conf", "postgresql.auto.conf"] {
            std::fs::write(restored.place.path().join(file), format!("data_directory = '{path}'\n")).unwrap();
            for refuse in [false, true] {
                let problem = check(
                    &restored.places(),
                    &restored.read().unwrap(),
                    15,
                    &end(refuse),
                    &mut Findings::default(),
                )
                .unwrap_err();
                assert!(problem.message.contains("not checked"), "{}", problem.message);
            }
            std::fs::remove_file(restored.place.path().join(file)).unwrap();
        }
    }
    for path in [top.clone(), format!("{top}/"), format!("{top}/x/..")] {
        std::fs::write(restored.place.path().join("postgresql.conf"), format!("data_directory = '{path}'\n"))
            .unwrap();
        let judged =
            check(&restored.places(), &restored.read().unwrap(), 15, &end(true), &mut Findings::default());
        assert!(judged.is_ok(), "{path}");
    }
}

#[test]
fn settings_that_an_unread_file_may_set_are_overridden() {
    let judged = judged(&[("postgresql.conf", "include_if_exists '/etc/x.conf'\n")], 16, false).unwrap();
    let expected = "postgresql.conf line 1: `include_if_exists` includes `/etc/x.conf`, which was not read: it lies outside the data \
                    directory";
    assert_eq!(judged.messages[0], expected);
    assert_eq!(judged.messages.len(), 2, "{:?}", judged.messages);
    let names: Vec<_> = judged.overrides.values.into_iter().collect();
    assert!(
        [LOG_DIRECTORY, LOG_FILENAME, ("external_pid_file", ""), ("recovery_target_timeline", "latest")]
            .iter()
            .all(|setting| names.contains(setting)),
        "{names:?}"
    );
    assert!(
        !names.iter().any(|(name, _)| *name == "promote_trigger_file"),
        "PostgreSQL 16 would not start with it"
    );
}

#[test]
fn a_file_whose_name_is_not_utf_8_is_not_mistaken_for_another() {
    let files = [("postgresql.conf", r"include_if_exists 'a\377.conf'"), ("a\u{fffd}.conf", "")];
    let Err(problem) = judged(&files, 15, false) else { panic!("it was taken for the other file") };
    assert!(problem.message.contains("cannot be determined"), "{}", problem.message);
}

#[test]
fn a_line_that_is_removed_from_postgresql_auto_conf_is_not_a_hazard() {
    let judged =
        judged(&[("postgresql.auto.conf", "restore_command = 'x'\nprimary_slot_name = 'x'\n")], 15, true)
            .unwrap();
    assert!(judged.messages.is_empty());
}

#[test]
fn rule_30_refuse_commands_refuses_each_of_them() {
    for line in [
        "archive_command = 'x'",
        "archive_command = '\u{a0}'",
        "archive_library = 'x'",
        "include_if_exists 'x'",
        "include_if_exists '/etc/x'",
        "hba_file = '/etc/x'",
        "ident_file = 'x'",
        "config_file = '/etc/x'",
        "dynamic_library_path = '/srv'",
        "krb_server_keyfile = 'FILE:/etc/shadow'",
        "plperl.on_init = 'x'",
        "pltcl.start_proc = 'x'",
        "other.start_proc = 'x'",
        "lc_time = '/srv'",
        "log_directory = '/srv'",
        "pgaudit.log_directory = '/srv'",
        "other.key_file = 'x'",
        "nonsense = 1",
    ] {
        assert!(refused(line, 15), "{line}");
    }
    assert!(judged(&[("postgresql.conf", "max_connections = 100\nother.thing = 1\n")], 15, true).is_ok());
}

#[test]
fn files_that_patroni_would_use_are_judged_as_any_other() {
    for file in ["postgresql.base.conf", "postgresql.base.conf.backup", "postgresql.conf.backup"] {
        let files =
            [("postgresql.conf", ""), (file, "archive_command = 'x'\nexternal_pid_file = 'promote'\n")];
        let lax = judged(&files, 15, false).unwrap();
        assert!(
            lax.messages.iter().any(|message| message.starts_with(&format!("{file} line 1: "))),
            "{:?}",
            lax.messages
        );
        assert_eq!(lax.overrides.values.get("external_pid_file"), Some(&""), "{file}");
        let problem = judged(&files, 15, true).err().unwrap();
        assert!(problem.message.contains("refuse-commands"), "{}", problem.message);
    }
}
