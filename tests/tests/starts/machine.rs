//! Failures at the start of a server that `postgres -C` does not detect: sockets, the log directory, TLS files, memory.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tests::primary::Primary;
use tests::replica_folder::ReplicaFolder;
use tests::server::{Playground, PostgresServer, run};

use crate::configuration::ServerFiles;
use crate::{assert_fails, configure_as_under_patroni};

/// Creates a replica's folder for a primary whose files were changed.
fn replica(primary: &Primary, name: &str) -> ReplicaFolder {
    primary.replica(name, &["basebackup"], "", "").unwrap()
}

/// Starts `postgres` on this data directory with a free port, checks that it fails, and returns its messages.
fn output_of_failed_start(primary: &Primary, datadir: &Path) -> String {
    super::output_of_failed_start_with(primary, datadir, &[])
}

/// Writes TLS files that are not certificates.
fn write_invalid_certificates(primary: &Primary) {
    for name in ["server.crt", "server.key"] {
        let path = primary.server.datadir().join(name);
        primary.playground.user().write(&path, "no certificate\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_server_that_could_not_start_on_this_machine_fails_the_seal() {
    let primary = Primary::start("machine", 100).unwrap();
    write_invalid_certificates(&primary);
    let files = ServerFiles::of(&primary);
    let there = primary.playground.directory("there").unwrap();
    let closed = primary.playground.directory("closed").unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o500)).unwrap();
    let too_long = format!("{}/{}", there.display(), "x".repeat(120));
    let cases = [
        // Addresses for documentation (RFC 5737 and 3849), which no machine has.
        (
            "listen_addresses = '192.0.2.1, 2001:db8::1'".to_owned(),
            "listen_addresses",
            "could not create any TCP/IP sockets",
        ),
        ("listen_addresses = '127.0.0.1 127.0.0.1'".to_owned(), "listen_addresses", "invalid list syntax"),
        (
            "listen_addresses = ''\nunix_socket_directories = ''".to_owned(),
            "listen_addresses",
            "no socket created",
        ),
        (
            "unix_socket_directories = '/nonexistent/sockets'".to_owned(),
            "unix_socket_directories",
            "could not create lock file",
        ),
        (
            format!("unix_socket_directories = '{}, /nonexistent/sockets'", there.display()),
            "/nonexistent/sockets",
            "could not create lock file",
        ),
        (
            format!("unix_socket_directories = '{}'", closed.display()),
            "may not create files",
            "could not create lock file",
        ),
        (
            format!("unix_socket_directories = '{too_long}'"),
            "unix_socket_directories",
            "could not create any Unix-domain sockets",
        ),
        ("unix_socket_directories = '/tmp,'".to_owned(), "unix_socket_directories", "invalid list syntax"),
        (
            "unix_socket_group = 'no_such_group'".to_owned(),
            "unix_socket_group",
            "could not create any Unix-domain sockets",
        ),
        (
            "logging_collector = on\nlog_directory = '/nonexistent/log'".to_owned(),
            "log_directory",
            "could not open log file",
        ),
        (
            format!("logging_collector = on\nlog_directory = '{}/log'", closed.display()),
            "log_directory",
            "could not open log file",
        ),
        (
            "huge_pages = on\nshared_buffers = '4TB'".to_owned(),
            "huge_pages",
            "could not map anonymous shared memory",
        ),
        ("ssl = on".to_owned(), "no start line", "could not load server certificate file"),
        (
            "min_dynamic_shared_memory = '4TB'".to_owned(),
            "`min_dynamic_shared_memory` is 4194304 MB",
            "could not map anonymous shared memory",
        ),
        (
            "max_locks_per_transaction = 1000000\nmax_connections = 5000".to_owned(),
            "`max_locks_per_transaction` (1000000)",
            "could not map anonymous shared memory",
        ),
        (
            "shared_memory_type = sysv\nshared_buffers = '4TB'".to_owned(),
            "`shared_buffers` is 4194304 MB",
            "could not create shared memory segment",
        ),
        (
            "shared_memory_type = sysv\nhuge_pages = on".to_owned(),
            "`shared_memory_type` is `sysv`",
            "huge pages not supported",
        ),
        ("min_wal_size = '20MB'".to_owned(), "`min_wal_size` is 20 MB", "must be at least twice"),
        (
            "wal_consistency_checking = 'foo'".to_owned(),
            "wal_consistency_checking",
            "invalid value for parameter \"wal_consistency_checking\"",
        ),
    ];
    for (number, (lines, finding, fatal)) in cases.into_iter().enumerate() {
        files.append(&format!("{lines}\n"), "");
        assert_fails(&replica(&primary, &format!("refused-{number}")), "basebackup", &[finding]);
        // Under Patroni, which has its own settings, the problem is only reported. Without Patroni the server does not start.
        let under_patroni = replica(&primary, &format!("under_patroni-{number}"));
        configure_as_under_patroni(&under_patroni);
        let ended = under_patroni.created_by("basebackup").unwrap();
        assert!(ended.output.contains(finding), "{finding}\n{}", ended.output);
        let said = output_of_failed_start(&primary, &under_patroni.datadir());
        assert!(said.contains(fatal), "{fatal}\n{said}");
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_configuration_file_of_this_machine_can_correct_settings_of_the_backup() {
    let primary = Primary::start("machine-own", 100).unwrap();
    ServerFiles::of(&primary).append(
        "listen_addresses = '192.0.2.1'\nlog_directory = '/nonexistent/log'\nlogging_collector = on\n",
        "",
    );
    let own = primary.playground.path("own.conf");
    let line = format!("config_file = \"{}\"\n", own.display());
    let replica = primary.replica("own", &["basebackup"], &line, "").unwrap();
    let include = format!("include '{}'\n", replica.datadir().join("postgresql.conf").display());
    primary.playground.user().write(&own, &format!("{include}listen_addresses = '*'\n")).unwrap();
    assert_fails(&replica, "basebackup", &["`log_directory` is `/nonexistent/log`", "own.conf"]);
    primary
        .playground
        .user()
        .write(&own, &format!("{include}listen_addresses = '*'\nlog_directory = 'log'\n"))
        .unwrap();
    replica.created_by("basebackup").unwrap();
    let settings = format!("config_file={}\n", own.display());
    let standby = PostgresServer::start(&primary.playground, &replica.datadir(), &settings).unwrap();
    standby.wait_for("SELECT status FROM pg_stat_wal_receiver", "streaming").unwrap();
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn settings_that_fail_in_part_but_let_the_server_start_are_reported() {
    let primary = Primary::start("machine-told", 100).unwrap();
    let files = ServerFiles::of(&primary);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let cases = [
        (
            "listen_addresses = '192.0.2.1, 127.0.0.1'".to_owned(),
            vec!["`192.0.2.1` (no address of this machine)"],
        ),
        (format!("port = {port}"), vec!["`port` is", "another process listens there now"]),
        ("hot_standby = off".to_owned(), vec!["`hot_standby` is off", "postgresql.conf line"]),
        (
            "session_preload_libraries = 'no_such'".to_owned(),
            vec!["`session_preload_libraries` names `no_such`"],
        ),
        ("local_preload_libraries = 'no_such'".to_owned(), vec!["`local_preload_libraries` names `no_such`"]),
        (
            "krb_server_keyfile = '/nonexistent/keytab'".to_owned(),
            vec!["`krb_server_keyfile`", "cannot be read"],
        ),
        ("unix_socket_directories = '/run/postgresql/no-such'".to_owned(), vec!["its service creates the"]),
        (
            "unix_socket_directories = '@abstract, /tmp'".to_owned(),
            vec!["names the abstract socket `@abstract`, to which every user of the machine can connect"],
        ),
    ];
    for (number, (lines, findings)) in cases.into_iter().enumerate() {
        files.append(&format!("{lines}\n"), "");
        let replica = replica(&primary, &format!("replica-{number}"));
        let ended = replica.created_by("basebackup").unwrap();
        for text in &findings {
            assert!(ended.output.contains(text), "{text}\n{}", ended.output);
        }
        // These settings keep psql from connecting, so the test cannot check that the standby follows.
        if !lines.contains("hot_standby") && !lines.contains("preload") {
            primary.streams_to(&replica).unwrap();
        }
    }
    drop(taken);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn access_rules_are_checked_with_every_wal_segment_size() {
    let playground = Playground::new("segments").unwrap();
    let datadir = playground.path("primary");
    let mut initdb = playground.user().command(playground.bin_dir().join("initdb"));
    initdb.args(["--username=postgres", "--auth=trust", "--no-sync", "--wal-segsize=64", "--pgdata"]);
    run(initdb.arg(&datadir)).unwrap();
    let server = PostgresServer::start(&playground, &datadir, "").unwrap();
    let replica = ReplicaFolder::new(&playground, "replica").unwrap();
    let source = format!(
        "[source]\nconninfo = \"host=127.0.0.1 port={} user=postgres\"\n[method.basebackup.options]\ncheckpoint = \"fast\"\n",
        server.port()
    );
    replica.configure("methods = [\"basebackup\"]\nconfigure_standby = true\n", &source).unwrap();
    let hba = datadir.join("pg_hba.conf");
    let whole = fs::read_to_string(&hba).unwrap();
    fs::write(&hba, format!("{whole}garbage\n")).unwrap();
    assert_fails(&replica, "basebackup", &["invalid connection type"]);
    fs::write(&hba, whole).unwrap();
    let ended = replica.created_by("basebackup").unwrap();
    assert!(!ended.output.contains("could not be checked"), "{}", ended.output);
}
