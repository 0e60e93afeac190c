//! Tests with a real PostgreSQL. As root the server does not start in a scratch directory; the tests of the whole seal run as its user.

use std::fs;
use std::path::Path;

use postgres_formats::written::ControlFile as Written;

use super::super::configuration::{self, tests::Restored};
use super::*;
use crate::Level;
use crate::outcome::Finding;
use crate::seal::Standby;

const BIN_DIR: &str = "/usr/lib/postgresql/15/bin";

const HBA: &str = "local all all trust\n";

fn end(completes_directory: bool) -> EndState {
    let standby = Standby { conninfo: "host=10.0.0.1".to_owned(), passfile: None };
    EndState { configure_standby: completes_directory.then_some(standby), ..EndState::default() }
}

fn with_replica<T>(restored: &Restored, end: &EndState, ask: impl FnOnce(&Replica<'_>) -> T) -> T {
    let places = restored.places();
    let configuration = configuration::read(&places).unwrap();
    let control_file = Written::in_production(7).bytes;
    ask(&Replica {
        places: &places,
        bin_dir: Path::new(BIN_DIR),
        major: 15,
        configuration: &configuration,
        control_file: &control_file,
        end,
        slot: None,
        to_fill: None,
        cancel: &CancellationToken::new(),
    })
}

fn checked(files: &[(&str, &str)], end: &EndState) -> Result<Vec<Finding>, Problem> {
    let mut findings = Findings::default();
    with_replica(&Restored::with(files), end, |replica| check(replica, &mut findings))?;
    let mut list = findings.into_list();
    list.retain(|finding| !finding.message.contains("does not run as root"));
    Ok(list)
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_configuration_that_the_server_accepts_has_no_findings() {
    let files = [
        (
            "postgresql.conf",
            "port = 5433\nshared_buffers = '1GB'\ninclude_dir 'conf.d'\nssl = off\nmy.own = 'x'\n",
        ),
        ("conf.d/10.conf", "max_connections = 200"),
        ("postgresql.auto.conf", "work_mem = '8MB'"),
        ("pg_hba.conf", HBA),
        ("pg_ident.conf", ""),
    ];
    for completes_directory in [true, false] {
        assert_eq!(checked(&files, &end(completes_directory)).unwrap(), Vec::new());
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn rule_30_a_configuration_that_the_server_refuses_is_reported_with_file_and_line() {
    for (main, auto, template) in [
        ("\nnonsense_setting = 1\n", "", "nonsense_setting\" in file \"<top>/postgresql.conf\" line 2"),
        ("\nport = 99999999\n", "", "(postgresql.conf line 2)"),
        ("\n\nlisten_addresses = 10.0.0.1\n", "", "postgresql.conf\" line 3"),
        ("", "shared_buffers = '1 parsec'\n", "(postgresql.auto.conf line 1)"),
        ("wal_level = most\n", "", "(postgresql.conf line 1)"),
        ("lc_messages = 'tlh_QO'\n", "", "(postgresql.conf line 1)"),
        ("include '/nonexistent/x.conf'\n", "", "/nonexistent/x.conf"),
        ("include_dir '/nonexistent/conf.d'\n", "", "/nonexistent/conf.d"),
        ("timezone = 'Nowhere/Never'\n", "", "(postgresql.conf line 1)"),
        ("shared_buffers = 1kB\n", "", "(postgresql.conf line 1)"),
    ] {
        let files = [("postgresql.conf", main), ("postgresql.auto.conf", auto), ("pg_hba.conf", HBA)];
        for completes_directory in [true, false] {
            let restored = Restored::with(&files);
            let top = restored.place.path().display().to_string();
            let mut findings = Findings::default();
            let problem =
                with_replica(&restored, &end(completes_directory), |replica| check(replica, &mut findings))
                    .unwrap_err();
            assert_eq!(problem.check, Some(CHECK));
            let expected = template.replace("<top>", &top);
            assert!(problem.message.contains(&expected), "{}", problem.message);
            assert!(problem.message.contains("would not start"), "{}", problem.message);
        }
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn the_text_of_a_file_that_is_not_a_configuration_file_is_not_shown() {
    let elsewhere = tempfile::NamedTempFile::new().unwrap();
    fs::write(elsewhere.path(), "host:5432:*:replicator:hunter2 and:more\n").unwrap();
    let main = format!("include '{}'\n", elsewhere.path().display());
    let problem = checked(&[("postgresql.conf", &main), ("pg_hba.conf", HBA)], &end(true)).unwrap_err();
    assert!(
        problem.message.contains("line 1") && !problem.message.contains("hunter2"),
        "{}",
        problem.message
    );
    assert!(!problem.message.contains("near"), "{}", problem.message);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn the_checks_run_load_and_write_nothing() {
    let place = tempfile::tempdir().unwrap();
    let marker = place.path().join("marker");
    let shown = marker.display();
    let main = format!(
        "external_pid_file = '{shown}.pid'\nssl_passphrase_command = 'touch {shown}'\narchive_command = 'touch {shown}'\n\
         shared_preload_libraries = '{shown}'\nlog_directory = '{shown}.log'\nlogging_collector = on\n"
    );
    let restored = Restored::with(&[("postgresql.conf", &main), ("pg_hba.conf", HBA)]);
    let before: Vec<_> =
        fs::read_dir(restored.place.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    let mut findings = Findings::default();
    with_replica(&restored, &end(false), |replica| check(replica, &mut findings)).unwrap();
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    let after: Vec<_> =
        fs::read_dir(restored.place.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(before, after);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_cancelled_seal_ends_the_server_that_reads_an_endless_file() {
    let place = tempfile::tempdir().unwrap();
    let cancel = CancellationToken::new();
    cancel.cancel();
    let restored = Restored::with(&[("postgresql.conf", "include '/dev/zero'\n"), ("pg_hba.conf", HBA)]);
    let places = restored.places();
    let end = end(true);
    let replica = Replica {
        places: &places,
        bin_dir: Path::new(BIN_DIR),
        major: 15,
        configuration: &Configuration { has_main: true, ..Configuration::default() },
        control_file: &[],
        end: &end,
        slot: None,
        to_fill: None,
        cancel: &cancel,
    };
    let problem = check(&replica, &mut Findings::default()).unwrap_err();
    assert_eq!(problem.check, None);
    drop(place);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_file_that_may_still_be_added_fails_the_seal_only_with_configure_standby() {
    let missing_library = "shared_preload_libraries = 'auto_explain, no_such_library'\n";
    let tls = "ssl = on\nssl_cert_file = 'server.crt'\nssl_key_file = 'server.key'\n";
    for (files, expected) in [
        (vec![("postgresql.conf", "")], "pg_hba.conf` (`hba_file`)"),
        (vec![("postgresql.conf", "hba_file = '/nonexistent/pg_hba.conf'\n")], "`/nonexistent/pg_hba.conf`"),
        (vec![("pg_hba.conf", HBA)], "no `postgresql.conf` in the data directory"),
        (vec![("postgresql.conf", missing_library), ("pg_hba.conf", HBA)], "`no_such_library`"),
        (
            vec![("postgresql.conf", tls), ("pg_hba.conf", HBA), ("server.key", "")],
            "`ssl_cert_file` is `server.crt`",
        ),
        (
            vec![
                ("postgresql.conf", "max_connections = 3\nsuperuser_reserved_connections = 3\n"),
                ("pg_hba.conf", HBA),
            ],
            "`max_connections` is 3",
        ),
        (
            vec![("postgresql.conf", "wal_level = minimal\nmax_wal_senders = 10\n"), ("pg_hba.conf", HBA)],
            "`wal_level` is `minimal`",
        ),
        (
            vec![
                ("postgresql.conf", "wal_level = minimal\nmax_wal_senders = 0\narchive_mode = on\n"),
                ("pg_hba.conf", HBA),
            ],
            "`archive_mode` is on",
        ),
    ] {
        let problem = checked(&files, &end(true)).unwrap_err();
        assert!(problem.message.contains(expected), "{}", problem.message);
        let findings = checked(&files, &end(false)).unwrap();
        let is_reported =
            |finding: &Finding| finding.level == Level::Warn && finding.message.contains(expected);
        assert!(findings.iter().any(is_reported), "{expected}: {findings:?}");
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn an_installed_library_and_a_private_key_file_pass() {
    let tls = "ssl = on\nssl_cert_file = 'server.crt'\nssl_key_file = 'server.key'\n";
    let restored = Restored::with(&[
        (
            "postgresql.conf",
            &format!("shared_preload_libraries = '$libdir/auto_explain,pg_stat_statements'\n{tls}"),
        ),
        ("pg_hba.conf", HBA),
    ]);
    let key = restored.place.path().join("server.key");
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=x"])
        .args(["-keyout", "server.key", "-out", "server.crt"])
        .current_dir(restored.place.path())
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mode = |mode| {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        with_replica(&restored, &end(true), |replica| check(replica, &mut Findings::default()))
    };
    mode(0o600).unwrap();
    for open in [0o640, 0o604, 0o620] {
        let problem = mode(open).unwrap_err();
        assert!(problem.message.contains("others may read"), "{}", problem.message);
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn the_operators_configuration_file_and_debians_are_read_in_place_of_a_missing_one() {
    let restored = Restored::with(&[("postgresql.auto.conf", "work_mem = '8MB'"), ("pg_hba.conf", HBA)]);
    let elsewhere = tempfile::tempdir().unwrap();
    let datadir = restored.place.path().display().to_string();
    let cluster = |name: &str, text: &str| {
        let file = elsewhere.path().join(name).join("postgresql.conf");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
        file
    };
    cluster("broken", "nonsense");
    cluster("other", "data_directory = '/elsewhere'\n");
    // The file names both files, as Debian's does: otherwise the server does not start from a configuration file outside the data
    // directory.
    let files = format!("hba_file = '{datadir}/pg_hba.conf'\nident_file = '{datadir}/pg_ident.conf'\n");
    let ours = cluster("ours", &format!("data_directory = '{datadir}'\n{files}"));
    let found =
        with_replica(&restored, &end(true), |replica| ask::find_below_for_tests(replica, elsewhere.path()));
    assert_eq!(found.unwrap(), Some(ours.clone()));

    let with_file = |file: &Path| EndState { config_file: Some(file.to_owned()), ..end(true) };
    assert_eq!(
        with_replica(&restored, &with_file(&ours), |replica| {
            let mut findings = Findings::default();
            check(replica, &mut findings).map(|_| {
                let mut list = findings.into_list();
                list.retain(|finding| !finding.message.contains("as root"));
                list
            })
        })
        .unwrap(),
        Vec::new()
    );
    let problem = with_replica(&restored, &with_file(&cluster("bad", "port = 0\n")), |replica| {
        check(replica, &mut Findings::default())
    });
    assert!(problem.unwrap_err().message.contains("port"));
    let few = cluster("few", "max_connections = 20\n");
    let problem =
        with_replica(&restored, &with_file(&few), |replica| check(replica, &mut Findings::default()));
    assert!(problem.unwrap_err().message.contains("`max_connections` is 20"));
    let problem = with_replica(&restored, &with_file(Path::new("/nonexistent/x.conf")), |replica| {
        check(replica, &mut Findings::default())
    });
    assert!(problem.unwrap_err().message.contains("config_file = /nonexistent/x.conf"));
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_log_that_the_operators_file_puts_among_the_files_of_the_cluster_is_reported() {
    let elsewhere = tempfile::tempdir().unwrap();
    let own = elsewhere.path().join("own.conf");
    let end = EndState { config_file: Some(own.clone()), ..end(true) };
    for (directory, is_told) in
        [("promote", true), ("mine", true), (".", true), ("log", false), ("/tmp", false)]
    {
        fs::write(&own, format!("logging_collector = on\nlog_directory = '{directory}'\n")).unwrap();
        let findings = checked(&[("pg_hba.conf", HBA)], &end).unwrap();
        let told = findings.iter().any(|finding| finding.message.contains("among the files of the cluster"));
        assert_eq!(told, is_told, "{directory}: {findings:?}");
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_setting_in_postgresql_auto_conf_is_checked_even_if_the_rest_is_elsewhere() {
    let files = [("postgresql.auto.conf", "port = 99999999"), ("pg_hba.conf", HBA)];
    let problem = checked(&files, &end(false)).unwrap_err();
    assert!(problem.message.contains("(postgresql.auto.conf line 1)"), "{}", problem.message);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_file_outside_that_sets_another_data_directory_is_refused() {
    let another = tempfile::tempdir().unwrap();
    let outside = another.path().join("outside.conf");
    let line = format!("data_directory = '{}'\n", another.path().display());
    fs::write(&outside, line).unwrap();
    let include = format!("include '{}'\n", outside.display());
    let problem = checked(&[("postgresql.conf", &include), ("pg_hba.conf", HBA)], &end(false)).unwrap_err();
    assert!(problem.message.contains("data_directory"), "{}", problem.message);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn slots_and_origins_that_the_settings_do_not_allow_keep_the_server_from_starting() {
    let slot = |name: &str, database: &str| {
        (format!("pg_replslot/{name}/state"), format!("{}{database}{}", "\0".repeat(80), "\0".repeat(116)))
    };
    let (physical, logical) = (slot("physical", "\0\0\0\0"), slot("logical", "\x05\0\0\0"));
    let many: Vec<_> = (0..11).map(|number| slot(&format!("slot_{number}"), "\0\0\0\0")).collect();
    let origins = [("pg_logical/replorigin_checkpoint".to_owned(), "\0".repeat(8 + 3 * 16))];
    for (main, others, refused) in [
        ("", &many[..], Some("has 11 replication slots, and `max_replication_slots` is 10")),
        ("", std::slice::from_ref(&logical), Some("slot `logical` for logical replication, and `wal_level`")),
        (
            "wal_level = minimal\nmax_wal_senders = 0\n",
            std::slice::from_ref(&physical),
            Some("slot `physical` for physical replication, and `wal_level` is `minimal`"),
        ),
        ("wal_level = logical\n", &[logical.clone(), physical.clone()], None),
        ("max_replication_slots = 2\n", &origins, Some("3 replication origins, and `max_replication_slots`")),
        ("max_replication_slots = 3\n", &origins, None),
        ("max_replication_slots = 0\n", &origins, None),
    ] {
        let mut files = vec![("postgresql.conf", main), ("pg_hba.conf", HBA)];
        files.extend(others.iter().map(|(name, text)| (name.as_str(), text.as_str())));
        let has_slots = others.iter().any(|(name, _)| name.contains("replslot"));
        let findings = checked(&files, &end(false)).unwrap();
        let told = |what: &str| findings.iter().any(|finding| finding.message.contains(what));
        assert_eq!(told("this server keeps WAL for them"), has_slots, "{main}: {findings:?}");
        match (checked(&files, &end(true)), refused) {
            (Err(problem), Some(refused)) => {
                assert!(problem.message.contains(refused), "{}", problem.message);
                assert!(told(refused), "{refused}: {findings:?}");
            }
            (Ok(_), None) => assert_eq!(findings.len(), usize::from(has_slots), "{findings:?}"),
            (checked, _) => panic!("{main}: {checked:?}"),
        }
    }
}

/// Checks a standby with this `postgresql.conf` on a thread that may not listen at the ports below 1024, as the server's user.
fn checked_as_another_user(main: &str, completes_directory: bool) -> Result<Vec<Finding>, Problem> {
    let main = main.to_owned();
    std::thread::spawn(move || {
        listen::tests::without_low_ports();
        checked(&[("postgresql.conf", &main), ("pg_hba.conf", HBA)], &end(completes_directory))
    })
    .join()
    .unwrap()
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_port_that_needs_root_is_refused_and_one_in_use_is_reported() {
    let sockets = tempfile::tempdir().unwrap();
    let directory = format!("unix_socket_directories = '{}'\n", sockets.path().display());
    let root = format!("port = 80\nlisten_addresses = '127.0.0.1'\n{directory}");
    let problem = checked_as_another_user(&root, true).unwrap_err();
    assert!(problem.message.contains("`port` is 80 (postgresql.conf line 1)"), "{}", problem.message);
    assert!(problem.message.contains("needs root: set `port` above 1023"), "{}", problem.message);
    let under_patroni = checked_as_another_user(&root, false).unwrap();
    assert!(under_patroni.iter().any(|finding| finding.message.contains("needs root")), "{under_patroni:?}");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let in_use = format!("port = {port}\nlisten_addresses = '127.0.0.1'\n{directory}");
    let findings = checked_as_another_user(&in_use, true).unwrap();
    assert!(findings[0].message.contains("another process listens there now on `127.0.0.1`"), "{findings:?}");
    drop(taken);
    assert_eq!(checked_as_another_user(&in_use, true).unwrap(), Vec::new());
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_socket_whose_lock_file_names_a_running_process_is_reported() {
    let sockets = tempfile::tempdir().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let main = format!(
        "port = {free}\nlisten_addresses = ''\nunix_socket_directories = '{}'\n",
        sockets.path().display()
    );
    let files = [("postgresql.conf", main.as_str()), ("pg_hba.conf", HBA)];
    let lock = sockets.path().join(format!(".s.PGSQL.{free}.lock"));
    let mut another = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    // A postmaster writes its process, its data directory, and more (`CreateLockFile` in `miscinit.c`).
    fs::write(&lock, format!("{}\n/data\n1700000000\n{free}\n", another.id())).unwrap();
    let held = checked(&files, &end(true));
    another.kill().unwrap();
    another.wait().unwrap();
    let held = held.unwrap();
    assert_eq!(held.len(), 1, "{held:?}");
    assert!(
        held[0].message.contains(&format!("`{}` belongs to a running server", lock.display())),
        "{held:?}"
    );
    // The process has ended, and the server would remove the file.
    assert_eq!(checked(&files, &end(true)).unwrap(), Vec::new());
}
