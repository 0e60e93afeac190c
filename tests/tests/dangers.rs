//! The dangers that rule 30 lists, each created on purpose in a real backup that the program restores. If the plan shows the danger,
//! old data stays unchanged.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use tests::primary::Primary;
use tests::replica_folder::{Ended, ReplicaFolder};
use tests::server::{PostgresServer, run};

/// A primary and a plain tar backup of it, which a test can change.
struct ChangedBackup {
    primary: Primary,
    backup: PathBuf,
}

impl ChangedBackup {
    fn new(name: &str) -> Self {
        let primary = Primary::start(name, 500).unwrap();
        let backup = primary.tar_backup("latest", &["--no-manifest"]).unwrap();
        Self { primary, backup }
    }

    /// Unpacks base.tar, calls `change` with the directory, and packs it again.
    fn tamper(&self, change: impl FnOnce(&Path)) {
        let tree = self.primary.playground.directory("tampered").unwrap();
        let user = self.primary.playground.user();
        let base = self.backup.join("base.tar");
        let tar = |arguments: &[&str]| {
            run(user.command("/bin/tar").args(arguments).arg("--directory").arg(&tree)).unwrap();
        };
        tar(&["--extract", "--file", base.to_str().unwrap()]);
        change(&tree);
        run(std::process::Command::new("chown").arg("-R").arg("--reference").arg(&base).arg(&tree)).unwrap();
        std::fs::remove_file(&base).unwrap();
        // pg_basebackup writes backup_label and tablespace_map first.
        let mut names: Vec<String> = ["backup_label", "tablespace_map"].map(str::to_owned).to_vec();
        names.retain(|name| tree.join(name).exists());
        let first = names.len();
        for entry in std::fs::read_dir(&tree).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if !names[..first].contains(&name) {
                names.push(name);
            }
        }
        let mut create = user.command("/bin/tar");
        create
            .args(["--create", "--format=ustar", "--file"])
            .arg(&base)
            .arg("--directory")
            .arg(&tree)
            .args(&names);
        run(&mut create).unwrap();
    }

    /// Creates a replica's folder, configured for this backup. `lines` has further lines for `[replica]`.
    fn replica(&self, lines: &str) -> ReplicaFolder {
        let section = self.primary.tarball(&self.backup);
        self.primary.replica("replica", &["tarball"], lines, &section).unwrap()
    }
}

/// Returns a replica with old data, which basebackup created. The replica is configured for the tar backup.
fn with_old_data(changed: &ChangedBackup) -> ReplicaFolder {
    let replica = changed.replica("");
    let config = replica.path("understudy.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("[\"tarball\"]", "[\"basebackup\"]")).unwrap();
    replica.created_by("basebackup").unwrap();
    std::fs::write(&config, text).unwrap();
    replica
}

fn assert_rejected_untouched(replica: &ReplicaFolder, says: &str) -> Ended {
    let ended = replica.create(&[]).unwrap();
    assert_eq!(ended.attempts(), [("tarball", "rejected")], "{}", ended.output);
    assert!(ended.report.to_string().contains(says), "{}", ended.report);
    assert_eq!(ended.attempt("tarball")["touched"], false);
    assert!(replica.is_sealed(), "the old data was touched");
    ended
}

fn assert_check_failed(replica: &ReplicaFolder, says: &str) {
    let ended = replica.create(&[]).unwrap();
    assert_eq!(ended.attempts(), [("tarball", "check-failed")], "{}", ended.output);
    assert_eq!(ended.code(), Some(4));
    assert!(ended.report.to_string().contains(says), "{}", ended.report);
    assert!(!replica.is_sealed());
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn rule_30_a_backup_of_another_cluster_is_rejected_by_its_plan_and_old_data_stays() {
    let changed = ChangedBackup::new("another-cluster");
    let replica = with_old_data(&changed);
    let other = Primary::start("the-other", 500).unwrap();
    let foreign = other.tar_backup("foreign", &["--no-manifest"]).unwrap();
    std::fs::remove_dir_all(&changed.backup).unwrap();
    std::fs::rename(foreign, &changed.backup).unwrap();
    assert_rejected_untouched(&replica, "system identifier");
    changed.primary.streams_to(&replica).unwrap();
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn rule_30_a_deleted_backup_label_fails_the_seal() {
    let changed = ChangedBackup::new("no-label");
    let replica = changed.replica("");
    changed.tamper(|tree| std::fs::remove_file(tree.join("backup_label")).unwrap());
    let ended = replica.create(&[]).unwrap();
    // Either the method or the seal may notice that the file is missing.
    assert!(
        matches!(ended.attempts()[..], [("tarball", "check-failed" | "failed")]),
        "{:?}",
        ended.attempts()
    );
    assert!(ended.report.to_string().contains("backup_label"), "{}", ended.report);
    assert!(!replica.is_sealed());
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn rule_30_a_tablespace_map_that_names_another_directory_is_rejected_by_its_plan_and_that_directory_stays() {
    let changed = ChangedBackup::new("map");
    let replica = with_old_data(&changed);
    let victim = changed.primary.playground.directory("victim").unwrap();
    std::fs::write(victim.join("precious"), "data").unwrap();
    changed.tamper(|tree| {
        let map = std::fs::read_to_string(tree.join("tablespace_map")).unwrap();
        let (oid, _) = map.split_once(' ').unwrap();
        std::fs::write(tree.join("tablespace_map"), format!("{oid} {}\n", victim.display())).unwrap();
    });
    // The operator's map must name the tablespace by its path on the primary alone, not by its object identifier.
    let config = replica.path("understudy.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let (before, by_oid) = text.split_once(", \"1").unwrap();
    let (_, after) = by_oid.split_once(" }").unwrap();
    std::fs::write(&config, format!("{before} }}{after}")).unwrap();
    assert_rejected_untouched(&replica, "victim");
    assert_eq!(std::fs::read_to_string(victim.join("precious")).unwrap(), "data");
    assert_eq!(std::fs::read_dir(&victim).unwrap().count(), 1);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn rule_30_a_recovery_target_with_promote_is_removed_and_the_replica_stays_a_standby() {
    let changed = ChangedBackup::new("promote");
    let replica = changed.replica("");
    changed.tamper(|tree| {
        let settings = "recovery_target = 'immediate'\nrecovery_target_action = 'promote'\nrestore_command = 'touch /tmp/owned'\n";
        std::fs::write(tree.join("postgresql.auto.conf"), settings).unwrap();
        std::fs::write(tree.join("recovery.signal"), "").unwrap();
    });
    let ended = replica.created_by("tarball").unwrap();
    for text in ["recovery_target_action", "restore_command", "recovery.signal"] {
        assert!(ended.report.to_string().contains(text), "{text}: {}", ended.report);
    }
    changed.primary.streams_to(&replica).unwrap();
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn rule_30_a_future_timeline_is_rejected_by_its_plan_and_old_data_stays() {
    let changed = ChangedBackup::new("timeline");
    let replica = with_old_data(&changed);
    // The promoted standby is the same cluster on a timeline that the source does not have.
    let promoted = changed.primary.replica("promoted", &["basebackup"], "", "").unwrap();
    promoted.created_by("basebackup").unwrap();
    let server = PostgresServer::start(&changed.primary.playground, &promoted.datadir(), "").unwrap();
    server.wait_for("SELECT pg_is_in_recovery()", "t").unwrap();
    server.psql("SELECT pg_promote()").unwrap();
    server.wait_for("SELECT pg_is_in_recovery()", "f").unwrap();
    server.psql("CHECKPOINT").unwrap();
    std::fs::remove_dir_all(&changed.backup).unwrap();
    run(server
        .client("pg_basebackup")
        .args(["--format=tar", "--checkpoint=fast", "--no-sync", "--no-manifest", "--pgdata"])
        .arg(&changed.backup))
    .unwrap();
    let config = replica.path("understudy.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let old = format!("\"{}\" = ", changed.primary.tablespace().display());
    let new = format!("\"{}\" = ", promoted.fast().display());
    std::fs::write(&config, text.replace(&old, &new)).unwrap();
    assert_rejected_untouched(&replica, "timeline");
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn rule_30_a_newer_major_version_is_rejected_by_its_plan_and_old_data_stays() {
    let changed = ChangedBackup::new("major");
    let replica = with_old_data(&changed);
    changed.tamper(|tree| std::fs::write(tree.join("PG_VERSION"), "16\n").unwrap());
    assert_rejected_untouched(&replica, "16");
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn rule_30_a_lower_max_connections_fails_the_seal() {
    let changed = ChangedBackup::new("max-connections");
    let replica = changed.replica("");
    changed
        .tamper(|tree| std::fs::write(tree.join("postgresql.auto.conf"), "max_connections = 20\n").unwrap());
    assert_check_failed(&replica, "max_connections");
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn rule_30_an_incremental_backup_is_refused() {
    let changed = ChangedBackup::new("incremental");
    let replica = changed.replica("");
    changed.tamper(|tree| {
        let label = std::fs::read_to_string(tree.join("backup_label")).unwrap();
        std::fs::write(tree.join("backup_label"), format!("{label}INCREMENTAL FROM LSN: 0/2000028\n"))
            .unwrap();
    });
    let ended = replica.create(&[]).unwrap();
    assert_ne!(ended.code(), Some(0));
    assert!(ended.report.to_string().to_lowercase().contains("incremental"), "{}", ended.report);
    assert!(!replica.is_sealed());
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn rule_30_commands_in_the_restored_configuration_are_reported_and_refused_with_refuse_commands() {
    let changed = ChangedBackup::new("commands");
    changed.tamper(|tree| {
        let path = tree.join("postgresql.conf");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, format!("{text}\narchive_command = 'touch /tmp/mark'\n")).unwrap();
    });
    let replica = changed.replica("");
    let ended = replica.created_by("tarball").unwrap();
    assert!(ended.report.to_string().contains("archive_command"), "{}", ended.report);
    let strict = changed
        .primary
        .replica(
            "strict",
            &["tarball"],
            "config = \"refuse-commands\"\n",
            &changed.primary.tarball(&changed.backup),
        )
        .unwrap();
    assert_check_failed(&strict, "archive_command");
}
