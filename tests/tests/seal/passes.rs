//! Backups that pass the seal, and what the seal changes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use replica::seal::EndState;
use replica::{Plan, Rule, SealRequests, Signal, Tablespace};
use tests::server::{BIN_DIR, PostgresServer, run};

use crate::scene::{Scene, SealInput, as_server_user, has_finding, run_seal};

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn rule_30_a_recovery_target_with_promote_leaves_a_standby() {
    as_server_user("passes::rule_30_a_recovery_target_with_promote_leaves_a_standby", || {
        let scene = Scene::with_basebackup("promote");
        let marker = scene.at("owned");
        scene.append(
            "postgresql.auto.conf",
            &format!(
                "recovery_target = 'immediate'\nrecovery_target_action = 'promote'\n\
                 restore_command = 'touch {}; false'\nprimary_slot_name = 'of_another'\n",
                marker.display()
            ),
        );
        scene
            .append("postgresql.conf", "\nrecovery_target_xid = '1'\npromote_trigger_file = '/etc/passwd'\n");
        scene.write("recovery.signal", "");
        scene.write("promote", "");
        scene.write("postmaster.opts", "");
        let findings = scene.seal(|_| {}).unwrap();
        for text in [
            "recovery_target`",
            "recovery_target_action",
            "restore_command",
            "primary_slot_name",
            "recovery_target_xid",
            "promote_trigger_file",
            "recovery.signal",
            "trigger file",
            "postmaster.opts",
        ] {
            assert!(has_finding(&findings, text), "{text}: {findings:#?}");
        }
        let standby = scene.streams();
        assert_eq!(standby.psql("SHOW recovery_target_xid").unwrap(), "");
        assert_eq!(standby.psql("SELECT pg_is_in_recovery()").unwrap(), "t");
        assert!(!marker.exists());
    });
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_plain_backup_is_sealed_and_streams() {
    as_server_user("passes::a_plain_backup_is_sealed_and_streams", || {
        let scene = Scene::with_basebackup("plain");
        let findings = scene.seal(|_| {}).unwrap();
        assert!(scene.main().join("standby.signal").exists());
        let auto_conf = fs::read_to_string(scene.main().join("postgresql.auto.conf")).unwrap();
        assert!(auto_conf.contains("host=127.0.0.1") && !auto_conf.contains("password"), "{auto_conf}");
        assert!(!has_finding(&findings, "not in pg_wal"), "{findings:#?}");
        assert!(!scene.main().join("global/pg_control.understudy").exists());
        scene.streams();
    });
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn the_host_creates_the_links_of_a_tar_backup_and_it_streams() {
    as_server_user("passes::the_host_creates_the_links_of_a_tar_backup_and_it_streams", || {
        let scene = Scene::with_tar_backup("tar");
        let findings = scene.seal(|_| {}).unwrap();
        assert!(!scene.main().join("tablespace_map").exists());
        assert_eq!(
            fs::read_link(scene.main().join("pg_wal")).unwrap(),
            scene.at("wal").canonicalize().unwrap()
        );
        let links: Vec<_> = fs::read_dir(scene.main().join("pg_tblspc"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        assert_eq!(links.len(), 1);
        assert_eq!(fs::read_link(&links[0]).unwrap(), scene.at("fast").canonicalize().unwrap());
        assert!(has_finding(&findings, "`tablespace_map` was removed"), "{findings:#?}");
        scene.streams();
    });
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn the_host_creates_the_link_of_a_tablespace_of_the_plan() {
    as_server_user("passes::the_host_creates_the_link_of_a_tablespace_of_the_plan", || {
        let scene = Scene::with_tar_backup("planned");
        let map = fs::read_to_string(scene.main().join("tablespace_map")).unwrap();
        let oid = map.split_once(' ').unwrap().0.parse().unwrap();
        fs::remove_file(scene.main().join("tablespace_map")).unwrap();
        let location = scene.primary.tablespace();
        scene.seal(|given| given.plan.tablespaces = vec![Tablespace { oid, name: None, location }]).unwrap();
        scene.streams();
    });
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_non_empty_pg_wal_is_refused_if_the_wal_directory_is_mapped() {
    as_server_user("passes::a_non_empty_pg_wal_is_refused_if_the_wal_directory_is_mapped", || {
        let scene = Scene::with_tar_backup("two-logs");
        let from = fs::read_dir(scene.at("wal"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| path.is_file());
        let from = from.unwrap();
        fs::rename(&from, scene.main().join("pg_wal").join(from.file_name().unwrap())).unwrap();
        scene.fails("links", "pg_wal", |_| {});
    });
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_cold_copy_needs_no_label_but_a_copy_after_a_crash_needs_snapshot() {
    as_server_user("passes::a_cold_copy_needs_no_label_but_a_copy_after_a_crash_needs_snapshot", || {
        let scene = Scene::new("cold");
        let copy = || {
            for place in ["main", "wal", "fast"] {
                let _ = fs::remove_dir_all(scene.at(place));
            }
            let cp = |from: &Path, to: &Path| {
                run(Command::new("/bin/cp").args(["--archive", "--no-target-directory"]).arg(from).arg(to))
                    .unwrap();
            };
            cp(scene.primary.server.datadir(), &scene.main());
            cp(&scene.primary.tablespace(), &scene.at("fast"));
            fs::rename(scene.main().join("pg_wal"), scene.at("wal")).unwrap();
            let link = fs::read_dir(scene.main().join("pg_tblspc")).unwrap().next().unwrap().unwrap().path();
            let oid = link.file_name().unwrap().to_str().unwrap().parse().unwrap();
            fs::remove_file(link).unwrap();
            Tablespace { oid, name: None, location: scene.primary.tablespace() }
        };
        scene.primary.server.crash().unwrap();
        let tablespace = copy();
        let offline = |snapshot| {
            let mut given = SealInput {
                bin_dir: BIN_DIR.into(),
                source: None,
                plan: Plan::default(),
                filled: SealRequests::default(),
                end: EndState { snapshot, ..EndState::default() },
            };
            given.plan.tablespaces = vec![tablespace.clone()];
            run_seal(&scene.directories, &scene.primary.playground.path("state"), given)
        };
        let failed = offline(false).unwrap_err();
        assert_eq!(failed.check, Some(Rule::BackupLabel));
        assert!(failed.message.contains("snapshot = true"), "{failed}");
        scene.assert_does_not_start();
        offline(true).unwrap();
        let server = PostgresServer::start(&scene.primary.playground, &scene.main(), "").unwrap();
        assert_eq!(server.psql("SELECT count(*) FROM parcels").unwrap(), "100");
        server.stop().unwrap();
        drop(server);
        // The server was shut down, so its data directory is consistent without a backup_label.
        offline(false).unwrap();
    });
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn rule_30_modes_are_restricted_and_reported() {
    as_server_user("passes::rule_30_modes_are_restricted_and_reported", || {
        let scene = Scene::with_basebackup("modes");
        let open = |name: &str, mode| {
            fs::set_permissions(scene.main().join(name), fs::Permissions::from_mode(mode)).unwrap();
        };
        open("base/1/PG_VERSION", 0o666);
        open("pg_stat", 0o777);
        open("", 0o755);
        let findings = scene.seal(|_| {}).unwrap();
        assert_eq!(
            (scene.mode("base/1/PG_VERSION"), scene.mode("pg_stat"), scene.mode("")),
            (0o640, 0o750, 0o700)
        );
        assert!(has_finding(&findings, "base/1/PG_VERSION 0666 to 0640"), "{findings:#?}");
        scene.streams();
    });
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn without_configure_standby_the_seal_configures_no_standby() {
    as_server_user("passes::without_configure_standby_the_seal_configures_no_standby", || {
        let scene = Scene::with_basebackup("patroni");
        let before = fs::read(scene.main().join("postgresql.auto.conf")).unwrap();
        scene.seal(|given| given.end = EndState::default()).unwrap();
        assert_eq!(fs::read(scene.main().join("postgresql.auto.conf")).unwrap(), before);
        assert!(!scene.main().join("standby.signal").exists());
    });
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_sealed_directory_can_be_sealed_again() {
    as_server_user("passes::a_sealed_directory_can_be_sealed_again", || {
        let scene = Scene::with_tar_backup("again");
        scene.seal(|given| given.filled.signals = vec![Signal::Standby]).unwrap();
        scene.seal(|_| {}).unwrap();
        scene.streams();
    });
}
