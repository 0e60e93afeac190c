//! Settings in a backup's configuration, tested on running servers: which settings the seal keeps, overrides and refuses.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use replica::seal::settings_of_postgresql;
use tests::program::fast_or_full;
use tests::releases;
use tests::replica_folder::{Ended, ReplicaFolder};
use tests::server::{Playground, PostgresServer, run};

/// A primary without tablespaces, and a cold copy of it whose configuration can be changed.
struct Scene {
    playground: Playground,
    primary: PostgresServer,
    copy: PathBuf,
    /// The original postgresql.conf of the copy.
    conf: String,
}

impl Scene {
    fn new(name: &str) -> Self {
        Self::of(Playground::new(name).unwrap())
    }

    /// Makes the scene with the PostgreSQL programs of this playground.
    fn of(playground: Playground) -> Self {
        let stopped = PostgresServer::init(&playground, "primary").unwrap();
        stopped.psql("CREATE TABLE letters (id int)").unwrap();
        stopped.stop().unwrap();
        let copy = playground.directory("backups").unwrap().join("cold");
        run(playground.user().command("/bin/cp").arg("--archive").arg(stopped.datadir()).arg(&copy)).unwrap();
        let datadir = stopped.datadir().to_owned();
        // Dropping the old value later would stop the new server, which uses the same directory.
        drop(stopped);
        let settings = "wal_level = replica\nmax_wal_senders = 10\n";
        let primary = PostgresServer::start(&playground, &datadir, settings).unwrap();
        primary.passfile(&playground.path("pgpass")).unwrap();
        let conf = std::fs::read_to_string(copy.join("postgresql.conf")).unwrap();
        Self { playground, primary, copy, conf }
    }

    /// Appends these lines to the copy's original postgresql.conf.
    fn append_to_configuration(&self, lines: &str) {
        std::fs::write(self.copy.join("postgresql.conf"), format!("{}\n{lines}\n", self.conf)).unwrap();
    }

    /// Creates a replica's folder with this method. `replica` has further lines for `[replica]`, and `options` has the method's options.
    fn replica(&self, name: &str, method: &str, replica: &str, options: &str) -> ReplicaFolder {
        let folder = ReplicaFolder::new(&self.playground, name).unwrap().with_shared_state(&self.playground);
        let passfile = self.playground.path("pgpass").display().to_string();
        folder
            .configure(
                &format!(
                    "methods = [\"{method}\"]\nconfigure_standby = true\nstandby_passfile = \"{passfile}\"\n{replica}"
                ),
                &format!(
                    "[source]\nconninfo = \"{}\"\npassfile = \"{passfile}\"\n\n[method.{method}]\n\
                     grants = {{ read = [\"{}\"] }}\n[method.{method}.options]\n{options}\n",
                    self.primary.conninfo(),
                    self.playground.path("backups").display()
                ),
            )
            .unwrap();
        folder
    }

    fn mirror(&self, name: &str, replica: &str) -> ReplicaFolder {
        self.replica(name, "mirror", replica, &format!("directory = \"{}\"", self.copy.display()))
    }

    /// Checks that the replica starts, replays new rows, and is still a standby on timeline 1 after the server has checked for trigger
    /// files.
    fn assert_stays_a_standby(&self, replica: &ReplicaFolder) -> PostgresServer {
        let standby = PostgresServer::start(&self.playground, &replica.datadir(), "").unwrap();
        // The function sends the postmaster the signal that makes it check for the file `promote` in its data directory.
        standby.psql("SELECT pg_rotate_logfile()").unwrap();
        self.primary.psql("DELETE FROM letters; INSERT INTO letters VALUES (7)").unwrap();
        standby.wait_for("SELECT id FROM letters", "7").unwrap();
        standby.psql("SELECT pg_rotate_logfile()").unwrap();
        self.primary.psql("UPDATE letters SET id = 8").unwrap();
        standby.wait_for("SELECT id FROM letters", "8").unwrap();
        assert_eq!(standby.psql("SELECT pg_is_in_recovery()").unwrap(), "t");
        assert_eq!(standby.psql("SELECT received_tli FROM pg_stat_wal_receiver").unwrap(), "1");
        assert!(!replica.datadir().join("promote").exists());
        standby
    }

    /// Checks that the lines are dangerous: if they come after the seal's lines, the same server promotes itself.
    fn assert_promotes_with(&self, replica: &ReplicaFolder, lines: &str) {
        let path = replica.datadir().join("postgresql.auto.conf");
        let sealed = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{sealed}{lines}\n")).unwrap();
        let standby = PostgresServer::start(&self.playground, &replica.datadir(), "").unwrap();
        standby.psql("SELECT pg_rotate_logfile()").unwrap();
        standby.wait_for("SELECT pg_is_in_recovery()", "f").unwrap();
    }
}

fn assert_check_failed(replica: &ReplicaFolder, method: &str, says: &str) -> Ended {
    let ended = replica.create(&[]).unwrap();
    assert_eq!(ended.attempts(), [(method, "check-failed")], "{}", ended.output);
    assert_eq!(ended.code(), Some(4));
    assert!(ended.report.to_string().contains(says), "{says}: {}", ended.report);
    assert!(!replica.is_sealed());
    ended
}

/// Returns a configuration line of each kind that runs, loads or reads something that it should not, with a part of the finding.
fn hazards(datadir: &Path) -> Vec<(String, &'static str)> {
    let lib = datadir.join("lib");
    let line = |line: &str, finding| (line.to_owned(), finding);
    vec![
        (format!("dynamic_library_path = '{}:$libdir'", lib.display()), "dynamic_library_path"),
        line("krb_server_keyfile = 'FILE:/etc/shadow'", "/etc/shadow"),
        line("plperl.on_init = 'system \"touch /tmp/understudy-owned\"'", "plperl.on_init"),
        line("archive_command = '\u{a0}'", "archive_command"),
        line(r"archive_command = '\302\240'", "archive_command"),
        line("lc_messages = '/tmp'", "lc_messages"),
        line("ident_file = 'elsewhere'", "ident_file"),
        line("log_directory = '/tmp'", "log_directory"),
        line("unix_socket_directories = '@understudy'", "the abstract socket `@understudy`"),
        line("other.key_file = 'promote'", "other.key_file"),
        line("other.place = 'x=/etc/passwd'", "other.place"),
    ]
}

/// Configuration lines that would promote the standby or overwrite its files.
const ENDS_RECOVERY: [&str; 7] = [
    "external_pid_file = 'promote'",
    "External_Pid_File='./x/../promote'",
    r"external_pid_file = 'promote\000/../../elsewhere'",
    "logging_collector = on\nlog_directory = '.'\nlog_filename = 'promote'",
    // The server would create this directory, and anything with the name `promote` promotes it.
    "logging_collector = on\nlog_directory = 'promote'",
    "logging_collector = on\nlog_directory = 'log/../promote/x'",
    "recovery_target = 'immediate'\nrecovery_target_action = 'promote'\npromote_trigger_file = 'PG_VERSION'",
];

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn no_line_of_a_restored_configuration_promotes_the_standby() {
    stays_a_standby_with_each_of(&ENDS_RECOVERY, &Scene::new("ends-recovery"));
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn no_line_of_a_restored_configuration_promotes_a_standby_of_another_release() {
    for (major, _) in releases::RELEASES {
        // PostgreSQL 16 removed `promote_trigger_file`, which only the last of the lines sets.
        let lines = &ENDS_RECOVERY[..fast_or_full(1, 6) as usize];
        let scene = Scene::of(releases::playground(&format!("ends-recovery-{major}"), major).unwrap());
        stays_a_standby_with_each_of(lines, &scene);
    }
}

/// Restores the copy with each of these lines, and checks that the standby stays a standby.
fn stays_a_standby_with_each_of(lines: &[&str], scene: &Scene) {
    for (number, &lines) in lines.iter().enumerate() {
        let policy = if number % 2 == 0 { "config = \"refuse-commands\"\n" } else { "" };
        scene.append_to_configuration(lines);
        let replica = scene.mirror(&format!("replica-{number}"), policy);
        let ended = replica.created_by("mirror").unwrap();
        let name = lines.split([' ', '=']).next().unwrap().to_lowercase();
        let setting = if name == "logging_collector" { "log_directory" } else { &name };
        assert!(ended.report.to_string().contains(setting), "{setting}: {}", ended.report);
        let standby = scene.assert_stays_a_standby(&replica);
        standby.stop().unwrap();
        // A pid file of the first start must not promote the server at the second.
        scene.assert_stays_a_standby(&replica).stop().unwrap();
        if number == 0 {
            scene.assert_promotes_with(&replica, lines);
        }
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn settings_in_a_file_that_the_seal_cannot_read_do_not_promote_the_standby() {
    let scene = Scene::new("unseen");
    let outside = scene.playground.path("outside.conf");
    let lines = "external_pid_file = 'promote'\nrecovery_target = 'immediate'\nrecovery_target_action = 'promote'\n\
                 logging_collector = on\nlog_directory = '.'\nlog_filename = 'promote'\n";
    scene.playground.user().write(&outside, lines).unwrap();
    scene.append_to_configuration(&format!("include_if_exists = '{}'", outside.display()));
    let replica = scene.mirror("replica", "");
    let ended = replica.created_by("mirror").unwrap();
    assert!(ended.report.to_string().contains("outside.conf"), "{}", ended.report);
    scene.assert_stays_a_standby(&replica).stop().unwrap();
    assert_check_failed(&scene.mirror("strict", "config = \"refuse-commands\"\n"), "mirror", "outside.conf");
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn settings_that_run_or_load_or_read_other_files_are_reported_and_refused_with_refuse_commands() {
    let scene = Scene::new("hazards");
    let lax = scene.mirror("lax", "");
    let lines = hazards(&lax.datadir());
    // A server could not start with the lines for lc_messages and ident_file.
    let startable: Vec<_> =
        lines.iter().filter(|(line, _)| !line.starts_with("lc_") && !line.starts_with("ident_")).collect();
    scene.append_to_configuration(&startable.iter().map(|(line, _)| format!("{line}\n")).collect::<String>());
    let ended = lax.created_by("mirror").unwrap();
    for (_, name) in &startable {
        assert!(ended.report.to_string().contains(name), "{name}: {}", ended.report);
    }
    scene.assert_stays_a_standby(&lax).stop().unwrap();
    assert!(!Path::new("/tmp/understudy-owned").exists());

    let strict = scene.mirror("strict", "config = \"refuse-commands\"\n");
    for (line, name) in &lines {
        scene.append_to_configuration(line);
        assert_check_failed(&strict, "mirror", name);
    }
    scene.append_to_configuration("work_mem = '8MB'");
    strict.created_by("mirror").unwrap();
    scene.assert_stays_a_standby(&strict).stop().unwrap();
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn the_backup_does_not_choose_the_primary_or_its_slot() {
    let scene = Scene::new("another-primary");
    let conninfo =
        "host=192.0.2.1 user=x password=hunter2 sslmode=require sslcert=c.crt sslkey=/nonexistent/evil.so:x";
    scene.append_to_configuration(&format!(
        "primary_conninfo = '{conninfo}'\nprimary_slot_name = 'of_another'\narchive_mode = always"
    ));
    let lax = scene.mirror("lax", "");
    let report = lax.created_by("mirror").unwrap().report.to_string();
    for finding in
        ["load an engine of OpenSSL", "`primary_slot_name` to `of_another`", "a standby archives WAL too"]
    {
        assert!(report.contains(finding), "{finding}: {report}");
    }
    assert!(!report.contains("hunter2"), "{report}");
    let standby = scene.assert_stays_a_standby(&lax);
    assert_eq!(standby.psql("SHOW primary_slot_name").unwrap(), "");
    assert!(!standby.psql("SHOW primary_conninfo").unwrap().contains("evil"));
    standby.stop().unwrap();
    let strict = scene.mirror("strict", "config = \"refuse-commands\"\n");
    assert_check_failed(&strict, "mirror", "load an engine of OpenSSL");
    // A connection string without files is only overridden.
    scene.append_to_configuration(
        "primary_conninfo = 'host=192.0.2.1 user=x'\nprimary_slot_name = 'of_another'",
    );
    strict.created_by("mirror").unwrap();
    scene.assert_stays_a_standby(&strict).stop().unwrap();
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_configuration_without_an_end_is_refused_in_time() {
    let scene = Scene::new("without-end");
    scene.playground.user().write(&scene.copy.join("again.conf"), "include 'again.conf'\n").unwrap();
    for (number, (line, says)) in [
        ("include 'again.conf'", "they include each other more than 10 deep, at `again.conf`"),
        ("include '/dev/zero'", "/dev/zero"),
    ]
    .into_iter()
    .enumerate()
    {
        scene.append_to_configuration(line);
        let replica = scene.mirror(&format!("replica-{number}"), "");
        let began = Instant::now();
        assert_check_failed(&replica, "mirror", says);
        // Reading a configuration may take at most half a minute.
        assert!(began.elapsed() < Duration::from_secs(60), "{line}: {:?}", began.elapsed());
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn configuration_files_that_patroni_would_use_are_checked_too() {
    let scene = Scene::new("of-patroni");
    let lines = "external_pid_file = 'promote'\narchive_command = 'touch /tmp/understudy-owned'\n";
    for (number, file) in
        ["postgresql.base.conf", "postgresql.base.conf.backup", "postgresql.conf.backup"].iter().enumerate()
    {
        let planted = scene.copy.join(file);
        scene.playground.user().write(&planted, lines).unwrap();
        let replica = scene.mirror(&format!("replica-{number}"), "");
        let ended = replica.created_by("mirror").unwrap();
        let report = ended.report.to_string();
        for finding in [format!("{file} line 1"), format!("{file} line 2")] {
            assert!(report.contains(&finding), "{finding}: {report}");
        }
        // Patroni makes the server read this file before the seal's lines.
        let main = replica.datadir().join("postgresql.conf");
        let before = std::fs::read_to_string(&main).unwrap();
        std::fs::write(&main, format!("{before}\ninclude '{file}'\n")).unwrap();
        scene.assert_stays_a_standby(&replica).stop().unwrap();
        let strict = scene.mirror(&format!("strict-{number}"), "config = \"refuse-commands\"\n");
        assert_check_failed(&strict, "mirror", file);
        std::fs::remove_file(planted).unwrap();
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_data_directory_setting_that_names_another_cluster_fails_the_seal() {
    let scene = Scene::new("another-inside");
    for policy in ["", "config = \"refuse-commands\"\n"] {
        let replica = scene.mirror(if policy.is_empty() { "lax" } else { "strict" }, policy);
        for path in [replica.datadir().join("evil").display().to_string(), "evil".to_owned(), String::new()] {
            scene.append_to_configuration(&format!("data_directory = '{path}'"));
            assert_check_failed(&replica, "mirror", "data_directory");
        }
        scene.append_to_configuration(&format!("data_directory = '{}/../data'", replica.datadir().display()));
        replica.created_by("mirror").unwrap();
        scene.assert_stays_a_standby(&replica).stop().unwrap();
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_method_learns_while_it_runs_which_settings_the_seal_will_accept() {
    let scene = Scene::new("asked");
    let asked = [
        ("recovery_target_timeline=latest", "taken"),
        ("recovery_min_apply_delay=1ms", "taken"),
        ("recovery_prefetch=off", "taken"),
        ("max_connections=150", "taken"),
        ("primary_slot_name=slot_of_another", "Denied"),
        ("restore_command=touch /tmp/understudy-owned", "Denied"),
        ("recovery_target_timeline=7", "Invalid"),
        ("recovery_min_apply_delay=99999999d", "Invalid"),
        ("wal_retrieve_retry_interval=24d", "Invalid"),
        ("wal_receiver_timeout=1ms", "Invalid"),
    ];
    let settings: Vec<_> = asked.iter().map(|(setting, _)| *setting).collect();
    let options = format!(
        "behave = \"restore-and-ask\"\npath = \"{}\"\nmajor = 15\nsettings = {settings:?}",
        scene.copy.display()
    );
    let replica = scene.replica("replica", "hostile", "", &options);
    let ended = replica.created_by("hostile").unwrap();
    let report = ended.report.to_string();
    for (setting, answer) in asked {
        let (name, _) = setting.split_once('=').unwrap();
        assert!(report.contains(&format!("{name}: {answer}")), "{setting}: {report}");
    }
    let delay =
        "the method requested `recovery_min_apply_delay = 1ms`: the standby applies WAL only with this delay";
    assert!(report.contains(delay), "{report}");
    let standby = scene.assert_stays_a_standby(&replica);
    for (name, value) in [
        ("recovery_target_timeline", "latest"),
        ("recovery_min_apply_delay", "1ms"),
        ("recovery_prefetch", "off"),
        ("max_connections", "150"),
        ("primary_slot_name", ""),
        ("restore_command", ""),
    ] {
        assert_eq!(standby.psql(&format!("SHOW {name}")).unwrap(), value, "{name}");
    }
}

/// Settings in the table that a server of that version may lack, because `pg_settings` does not show them, only some builds have
/// them, they are old names of other settings, or a minor release added them.
const NOT_IN_EVERY_SERVER: [&str; 24] = [
    "debug_copy_parse_plan_trees",
    "debug_deadlocks",
    "debug_raw_expression_coverage_test",
    "debug_write_read_parse_plan_trees",
    "default_with_oids",
    "extension_destdir",
    "is_superuser",
    "log_btree_build_stats",
    "optimize_bounded_sort",
    "output_plugin_libraries",
    "role",
    "seed",
    "session_authorization",
    "sort_mem",
    "ssl_ecdh_curve",
    "ssl_renegotiation_limit",
    "trace_lock_oidmin",
    "trace_lock_table",
    "trace_locks",
    "trace_lwlocks",
    "trace_syncscan",
    "trace_userlocks",
    "vacuum_mem",
    "wal_debug",
];

fn assert_table_matches(server: &PostgresServer, major: u32) {
    let version: u32 = server.psql("SHOW server_version_num").unwrap().parse().unwrap();
    assert_eq!(version / 10_000, major);
    let shown = server.psql("SELECT lower(name) FROM pg_settings WHERE name NOT LIKE '%.%'").unwrap();
    let has: BTreeSet<&str> = shown.lines().collect();
    let known: BTreeSet<&str> = settings_of_postgresql(major).collect();
    let lacking: Vec<_> = has.difference(&known).collect();
    assert!(lacking.is_empty(), "PostgreSQL {major} has settings that the table lacks: {lacking:?}");
    let beyond: Vec<_> = known.difference(&has).filter(|name| !NOT_IN_EVERY_SERVER.contains(name)).collect();
    assert!(beyond.is_empty(), "PostgreSQL {major} does not have these of the table: {beyond:?}");
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn the_table_of_settings_matches_a_server_of_postgresql_15() {
    let playground = Playground::new("settings-15").unwrap();
    assert_table_matches(&PostgresServer::init(&playground, "server").unwrap(), 15);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn the_table_of_settings_matches_servers_of_the_other_releases() {
    for (major, _) in releases::RELEASES {
        let playground = releases::playground(&format!("settings-{major}"), major).unwrap();
        assert_table_matches(&PostgresServer::init(&playground, "server").unwrap(), major);
    }
}
