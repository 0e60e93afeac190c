//! The checkpoint in pg_control of a replica that starts from its backup_label: without that it does not start at all.

use std::fs;
use std::process::Command;

use tests::control_file::{NO_CHECKPOINT, checkpoint};
use tests::primary::Primary;
use tests::releases::playground;
use tests::server::run;

use crate::refuses_to_start;

fn starts_from_its_label_alone(primary: &Primary) {
    // The checkpoint of the label is not the only one: without the label PostgreSQL would start from the last one.
    let backup = primary.tar_backup("backup", &[]).unwrap();
    for method in ["tarball", "basebackup"] {
        let replica = primary.replica(method, &[method], "", &primary.tarball(&backup)).unwrap();
        replica.created_by(method).unwrap();
        let control_file = fs::read(replica.datadir().join("global/pg_control")).unwrap();
        assert_eq!(checkpoint(&control_file).unwrap(), NO_CHECKPOINT, "{method}");

        let copy = replica.path("copy");
        run(Command::new("cp").arg("--archive").arg(replica.datadir()).arg(&copy)).unwrap();
        fs::remove_file(copy.join("backup_label")).unwrap();
        let said = refuses_to_start(primary, &copy);
        assert!(said.contains("could not locate a valid checkpoint record"), "{method}: {said}");
        // Also as a primary of its own, which it would become without standby.signal.
        fs::remove_file(copy.join("standby.signal")).unwrap();
        let said = refuses_to_start(primary, &copy);
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
fn a_replica_of_postgresql_15_starts_from_its_label_alone() {
    starts_from_its_label_alone(&Primary::start("label-15", 500).unwrap());
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_replica_of_postgresql_17_starts_from_its_label_alone() {
    starts_from_its_label_alone(&Primary::start_in(playground("label-17", 17).unwrap(), 500).unwrap());
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_replica_of_postgresql_18_starts_from_its_label_alone() {
    starts_from_its_label_alone(&Primary::start_in(playground("label-18", 18).unwrap(), 500).unwrap());
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_cold_copy_has_no_label_and_keeps_its_checkpoint() {
    let primary = Primary::start("label-none", 500).unwrap();
    let section = primary.copy_for_mirror().unwrap();
    let primary = primary.restarted().unwrap();
    let replica = primary.replica("replica", &["mirror"], "", &section).unwrap();
    replica.created_by("mirror").unwrap();
    let control_file = |path: std::path::PathBuf| fs::read(path.join("global/pg_control")).unwrap();
    let copy = primary.playground.path("backups/cold");
    assert_eq!(control_file(replica.datadir()), control_file(copy));
    primary.streams_to(&replica).unwrap();
}
