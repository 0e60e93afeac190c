//! The checkpoint in pg_control of a replica that starts from its backup_label. Without the label the replica must not start at all.

use std::fs;
use std::process::Command;

use tests::control_file::{NO_CHECKPOINT, checkpoint};
use tests::primary::Primary;
use tests::releases::playground;
use tests::server::run;

use crate::assert_refuses_to_start;

fn check_that_replica_needs_its_label(primary: &Primary) {
    // Without the label, PostgreSQL would start from the last checkpoint, which is not the label's checkpoint.
    let backup = primary.tar_backup("backup", &[]).unwrap();
    for method in ["tarball", "basebackup"] {
        let replica = primary.replica(method, &[method], "", &primary.tarball(&backup)).unwrap();
        replica.created_by(method).unwrap();
        let control_file = fs::read(replica.datadir().join("global/pg_control")).unwrap();
        assert_eq!(checkpoint(&control_file).unwrap(), NO_CHECKPOINT, "{method}");

        let copy = replica.path("copy");
        run(Command::new("cp").arg("--archive").arg(replica.datadir()).arg(&copy)).unwrap();
        fs::remove_file(copy.join("backup_label")).unwrap();
        let said = assert_refuses_to_start(primary, &copy);
        assert!(said.contains("could not locate a valid checkpoint record"), "{method}: {said}");
        // The replica does not start as a primary, without standby.signal, either.
        fs::remove_file(copy.join("standby.signal")).unwrap();
        let said = assert_refuses_to_start(primary, &copy);
        assert!(said.contains("could not locate a valid checkpoint record"), "{method}: {said}");

        let manifest = match method {
            "tarball" => backup.join("backup_manifest"),
            _ => replica.datadir().join("backup_manifest"),
        };
        primary.verify(&replica, &manifest).unwrap();
        primary.streams_to(&replica).unwrap();
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_replica_of_postgresql_15_starts_only_with_its_backup_label() {
    check_that_replica_needs_its_label(&Primary::start("label-15", 500).unwrap());
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_replica_of_postgresql_17_starts_only_with_its_backup_label() {
    check_that_replica_needs_its_label(&Primary::start_in(playground("label-17", 17).unwrap(), 500).unwrap());
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_replica_of_postgresql_18_starts_only_with_its_backup_label() {
    check_that_replica_needs_its_label(&Primary::start_in(playground("label-18", 18).unwrap(), 500).unwrap());
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_copy_keeps_its_checkpoint_only_without_a_backup_label() {
    let primary = Primary::start("label-none", 500).unwrap();
    let section = primary.copy_for_mirror().unwrap();
    let primary = primary.restarted().unwrap();
    let replica = primary.replica("replica", &["mirror"], "", &section).unwrap();
    replica.created_by("mirror").unwrap();
    let control_file = |path: std::path::PathBuf| fs::read(path.join("global/pg_control")).unwrap();
    let copy = primary.playground.path("backups/cold");
    assert_eq!(control_file(replica.datadir()), control_file(copy));
    primary.streams_to(&replica).unwrap();

    let backups = primary.backups().unwrap();
    let mapping = format!(
        "--tablespace-mapping={}={}",
        primary.tablespace().display(),
        backups.join("hot-fast").display()
    );
    let mut take = primary.server.client("pg_basebackup");
    take.args(["--format=plain", "--checkpoint=fast", "--no-sync", &mapping, "--pgdata"]);
    run(take.arg(backups.join("hot"))).unwrap();
    let section = section.replace("/cold", "/hot");
    let replica = primary.replica("hot", &["mirror"], "", &section).unwrap();
    replica.created_by("mirror").unwrap();
    assert!(replica.datadir().join("backup_label").exists());
    assert_eq!(checkpoint(&control_file(replica.datadir())).unwrap(), NO_CHECKPOINT);
    primary.streams_to(&replica).unwrap();
}
