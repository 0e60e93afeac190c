//! `understudy create`, end to end: replicas from real backups of a real primary, which then stream from it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

use tests::primary::Primary;
use tests::server::{PostgresServer, REPLICATOR_PASSWORD, run};

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_replica_from_a_tar_backup_streams_in_every_compression() {
    let primary = Primary::start("tarball", 20_000).unwrap();
    for (name, options) in [
        ("plain", &[][..]),
        ("gzip", &["--compress=client-gzip:1"]),
        ("lz4", &["--compress=server-lz4"]),
        ("zstd", &["--compress=client-zstd:1"]),
        ("fetched", &["--wal-method=fetch", "--compress=server-zstd"]),
    ] {
        let backup = primary.tar_backup(name, options).unwrap();
        let replica = primary
            .replica(&format!("from-{name}"), &["tarball", "basebackup"], "", &primary.tarball(&backup))
            .unwrap();
        let ended = replica.created_by("tarball").unwrap();
        primary.verify(&replica, &backup.join("backup_manifest")).unwrap();
        let attempt = ended.attempt("tarball");
        assert!(attempt["bytes"].as_u64().unwrap() > 20_000_000, "{name}: {attempt}");
        assert!(
            replica.wal().join("archive_status").is_dir(),
            "{name}: the WAL is not in the mapped directory"
        );
        assert!(std::fs::symlink_metadata(replica.datadir().join("pg_wal")).unwrap().is_symlink());
        primary.streams_to(&replica).unwrap();
        std::fs::remove_dir_all(backup).unwrap();
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_replica_from_pg_basebackup_streams() {
    let primary = Primary::start("basebackup", 20_000).unwrap();
    let replica = primary.replica("replica", &["basebackup"], "", "").unwrap();
    replica.created_by("basebackup").unwrap();
    primary.verify(&replica, &replica.datadir().join("backup_manifest")).unwrap();
    primary.streams_to(&replica).unwrap();
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_replica_from_a_cold_copy_streams() {
    let primary = Primary::start("mirror", 5_000).unwrap();
    let section = primary.copy_for_mirror().unwrap();
    let primary = primary.restarted().unwrap();
    let replica = primary.replica("replica", &["mirror"], "", &section).unwrap();
    replica.created_by("mirror").unwrap();
    primary.streams_to(&replica).unwrap();
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn the_newest_of_several_backups_is_restored_unless_the_options_name_one() {
    let primary = Primary::start("several", 1_000).unwrap();
    for name in ["monday", "tuesday"] {
        primary.tar_backup(&format!("nightly/{name}"), &["--compress=client-gzip:1"]).unwrap();
        primary.server.psql("SELECT pg_switch_wal()").unwrap();
    }
    let granted = primary.backups().unwrap();
    let backups = granted.join("nightly");
    // A newer backup that is incomplete: pg_basebackup has only created its archive.
    std::fs::create_dir(backups.join("wednesday")).unwrap();
    std::fs::write(backups.join("wednesday/base.tar"), "").unwrap();
    let granted = granted.display();
    let grants = format!("{{ read = [\"{granted}\"], stores.repo = {{ url = \"file://{granted}\" }} }}");
    for (name, options, restored) in [
        ("newest", format!("{{ directory = \"{}\" }}", backups.display()), "tuesday"),
        ("named", format!("{{ directory = \"{}\", backup = \"monday\" }}", backups.display()), "monday"),
        ("store", "{ store = \"repo\", prefix = \"nightly\" }".to_owned(), "tuesday"),
        (
            "store-named",
            "{ store = \"repo\", prefix = \"nightly\", backup = \"monday\" }".to_owned(),
            "monday",
        ),
    ] {
        let section = format!("[method.tarball]\noptions = {options}\ngrants = {grants}\n");
        let replica = primary.replica(name, &["tarball"], "", &section).unwrap();
        replica.created_by("tarball").unwrap();
        primary.verify(&replica, &backups.join(restored).join("backup_manifest")).unwrap();
        primary.streams_to(&replica).unwrap();
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_standby_uses_the_restore_command_of_the_operator_and_not_that_of_the_backup() {
    let primary = Primary::start("restore-command", 1_000).unwrap();
    let taken = primary.playground.path("taken");
    let conf = primary.server.datadir().join("postgresql.conf");
    let mut text = std::fs::read_to_string(&conf).unwrap();
    text.push_str(&format!("restore_command = 'touch {}; false'\n", taken.display()));
    std::fs::write(&conf, text).unwrap();
    let backup = primary.tar_backup("backup", &[]).unwrap();
    let archive = primary.playground.directory("archive").unwrap();
    let command = format!("cp {}/%f %p", archive.display());
    let setting = format!("restore_command = \"{command}\"\n");
    let replica = primary.replica("replica", &["tarball"], &setting, &primary.tarball(&backup)).unwrap();
    replica.created_by("tarball").unwrap();

    // The primary is stopped, so the standby can get the last row only from the archive.
    primary.server.psql("INSERT INTO parcels VALUES (-1, 'from the archive')").unwrap();
    primary.server.stop().unwrap();
    let wal = primary.server.datadir().join("pg_wal/.");
    run(primary.playground.user().command("/bin/cp").arg("--recursive").arg(wal).arg(&archive)).unwrap();
    let standby = PostgresServer::start(&primary.playground, &replica.datadir(), "").unwrap();
    assert_eq!(standby.psql("SHOW restore_command").unwrap(), command);
    standby.wait_for("SELECT body FROM parcels WHERE id = -1", "from the archive").unwrap();
    assert_eq!(standby.psql("SELECT pg_is_in_recovery()").unwrap(), "t");
    assert!(!taken.exists(), "the backup's own command was run");
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_mirror_with_delta_keeps_files_that_match_and_replaces_the_others() {
    let primary = Primary::start("delta", 5_000).unwrap();
    let section = primary.copy_for_mirror().unwrap();
    let primary = primary.restarted().unwrap();
    for choice in ["size-and-time", "digest"] {
        let section = section.replace("no_leader = true\n", "no_leader = true\nkeep_data = true\n");
        let section = format!("{section}delta = \"{choice}\"\n");
        let replica = primary.replica(choice, &["mirror"], "", &section).unwrap();
        replica.created_by("mirror").unwrap();
        let file = |name: &str| replica.datadir().join(name);
        let inode = |name: &str| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(file(name)).unwrap());
        let (kept, written) = (inode("base/1/1259"), std::fs::read(file("base/1/1249")).unwrap());
        // Makes changes that a server could have made.
        std::fs::write(file("base/1/1249"), vec![7; written.len()]).unwrap();
        std::fs::write(file("base/1/99999"), "left over").unwrap();
        std::fs::remove_file(file("base/1/2619")).unwrap();
        replica.created_by("mirror").unwrap();
        assert_eq!(std::fs::read(file("base/1/1249")).unwrap(), written, "{choice}");
        assert!(!file("base/1/99999").exists() && file("base/1/2619").exists(), "{choice}");
        assert_eq!(inode("base/1/1259"), kept, "{choice}: a file that matches was replaced");
        primary.streams_to(&replica).unwrap();
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn after_a_method_without_a_backup_the_next_one_is_tried_and_the_report_has_both() {
    let primary = Primary::start("order", 1_000).unwrap();
    let nothing = primary.backups().unwrap().join("nothing");
    let replica =
        primary.replica("replica", &["tarball", "basebackup"], "", &primary.tarball(&nothing)).unwrap();
    let ended = replica.created_by("basebackup").unwrap();
    assert_eq!(ended.attempts(), [("tarball", "not-applicable"), ("basebackup", "created")]);
    assert_eq!(ended.attempt("tarball")["touched"], false);
    assert_eq!(ended.report["result"], "created");
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_call_with_patronis_arguments_creates_a_replica_and_shows_no_secret() {
    let primary = Primary::start("patroni-call", 1_000).unwrap();
    let replica = primary.replica("replica", &["basebackup"], "", "").unwrap();
    let config = replica.path("understudy.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let without_passfile: String =
        text.lines().filter(|line| !line.starts_with("passfile")).map(|line| format!("{line}\n")).collect();
    std::fs::write(&config, without_passfile).unwrap();
    let datadir = replica.path("elsewhere");
    let ended = replica
        .command("create")
        .arg("--report")
        .arg(replica.path("report.json"))
        .args([
            "--scope=batman",
            "--role=replica",
            "--keep_data=True",
            "--no_leader=1",
            "--no_params=",
            "--no_master=",
        ])
        .arg(format!("--datadir={}", datadir.display()))
        .arg(format!("--connstring={}", primary.server.conninfo()))
        .env("PGPASSFILE", primary.playground.path("pgpass"))
        .output()
        .unwrap();
    let output =
        format!("{}{}", String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success(), "{output}");
    assert!(datadir.join("global/pg_control").exists() && !replica.datadir().exists());
    let report = std::fs::read_to_string(replica.path("report.json")).unwrap();
    assert!(report.contains("\"batman\""), "{report}");
    for text in [&output, &report] {
        assert!(!text.contains(REPLICATOR_PASSWORD), "{text}");
    }
    // The password is not in the state or the restored configuration, which remain after the run, either.
    let found = Command::new("grep")
        .args(["-rlF", "--exclude-dir=base", "--exclude-dir=global", REPLICATOR_PASSWORD])
        .args([replica.path("state"), datadir])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn check_shows_the_plan_and_touches_nothing() {
    let primary = Primary::start("check", 1_000).unwrap();
    let backup = primary.tar_backup("latest", &[]).unwrap();
    let replica =
        primary.replica("replica", &["tarball", "basebackup"], "", &primary.tarball(&backup)).unwrap();
    let checked = replica.command("check").arg("--json").output().unwrap();
    let output = String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success(), "{output}{}", String::from_utf8_lossy(&checked.stderr));
    let system = primary.server.psql("SELECT system_identifier FROM pg_control_system()").unwrap();
    assert!(output.contains(&system), "the system identifier {system} is not in the plan: {output}");
    assert!(!replica.datadir().exists());
    assert_eq!(std::fs::read_dir(replica.wal()).unwrap().count(), 0);
}
