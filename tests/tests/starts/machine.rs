//! What a server does when it starts that `postgres -C` does not show: it listens, makes its log, reads the files of TLS, takes memory.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tests::primary::Primary;
use tests::replica_folder::ReplicaFolder;
use tests::server::{PostgresServer, free_port};

use crate::configuration::Files;
use crate::{fails, without_configure_standby};

/// A replica of a primary whose files were changed.
fn replica(primary: &Primary, name: &str) -> ReplicaFolder {
    primary.replica(name, &["basebackup"], "", "").unwrap()
}

/// What `postgres` says on this data directory, with nothing but a port of its own, until it ends by itself.
fn ends(primary: &Primary, datadir: &Path) -> String {
    let output = primary
        .playground
        .user()
        .command("/usr/bin/timeout")
        .arg("60")
        .arg(primary.playground.bin_dir().join("postgres"))
        .arg("-D")
        .arg(datadir)
        .arg("-c")
        .arg(format!("port={}", free_port().unwrap()))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && output.status.code() != Some(124), "{said}");
    said
}

/// The files of TLS that are there and no certificates.
fn no_certificates(primary: &Primary) {
    for name in ["server.crt", "server.key"] {
        let path = primary.server.datadir().join(name);
        primary.playground.user().write(&path, "no certificate\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_server_that_could_not_start_on_this_machine_is_no_replica() {
    let primary = Primary::start("machine", 100).unwrap();
    no_certificates(&primary);
    let files = Files::of(&primary);
    let there = primary.playground.directory("there").unwrap();
    let closed = primary.playground.directory("closed").unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o500)).unwrap();
    let too_long = format!("{}/{}", there.display(), "x".repeat(120));
    let cases = [
        // Documentation's own networks (RFC 5737 and 3849): no machine has an address of them.
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
    ];
    for (number, (lines, told, fatal)) in cases.into_iter().enumerate() {
        files.put(&format!("{lines}\n"), "");
        fails(&replica(&primary, &format!("refused-{number}")), "basebackup", &[told]);
        // Under Patroni, which brings settings of its own, it is told; the server on its own does not start so.
        let patronis = replica(&primary, &format!("patronis-{number}"));
        without_configure_standby(&patronis);
        let ended = patronis.created_by("basebackup").unwrap();
        assert!(ended.output.contains(told), "{told}\n{}", ended.output);
        let said = ends(&primary, &patronis.datadir());
        assert!(said.contains(fatal), "{fatal}\n{said}");
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_configuration_file_of_this_machine_sets_right_what_the_backup_brings() {
    let primary = Primary::start("machine-own", 100).unwrap();
    Files::of(&primary).put(
        "listen_addresses = '192.0.2.1'\nlog_directory = '/nonexistent/log'\nlogging_collector = on\n",
        "",
    );
    let own = primary.playground.path("own.conf");
    let line = format!("config_file = \"{}\"\n", own.display());
    let replica = primary.replica("own", &["basebackup"], &line, "").unwrap();
    let include = format!("include '{}'\n", replica.datadir().join("postgresql.conf").display());
    primary.playground.user().write(&own, &format!("{include}listen_addresses = '*'\n")).unwrap();
    fails(&replica, "basebackup", &["`log_directory` is `/nonexistent/log`", "own.conf"]);
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
fn what_a_server_starts_with_all_the_same_is_told() {
    let primary = Primary::start("machine-told", 100).unwrap();
    let files = Files::of(&primary);
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
        ("unix_socket_directories = '/run/postgresql/no-such'".to_owned(), vec!["its service creates it"]),
        ("unix_socket_directories = '@abstract, /tmp'".to_owned(), vec![]),
    ];
    for (number, (lines, told)) in cases.into_iter().enumerate() {
        files.put(&format!("{lines}\n"), "");
        let replica = replica(&primary, &format!("told-{number}"));
        let ended = replica.created_by("basebackup").unwrap();
        for text in &told {
            assert!(ended.output.contains(text), "{text}\n{}", ended.output);
        }
        if told.is_empty() {
            assert!(!ended.output.contains("`unix_socket_directories` names"), "{}", ended.output);
        }
        // A standby without connections cannot be asked whether it follows; one that ends them neither.
        if !lines.contains("hot_standby") && !lines.contains("preload") {
            primary.streams_to(&replica).unwrap();
        }
    }
    drop(taken);
}
