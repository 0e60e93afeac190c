//! The method `walg`, end to end: storages of WAL-G become replicas that stream. WAL-G itself cannot be installed here, so [`storage`]
//! writes them by the facts of WAL-G's source.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bad_input;
mod crypt;
mod pages;
mod scene;
mod storage;

use std::fs;

use tests::control_file::{NO_CHECKPOINT, checkpoint};
use tests::program::fast_or_full;

use crypt::{Crypt, KeyForm};
use scene::Scene;
use storage::Compression;

/// Takes a full backup and two delta backups, restores each of them, and checks that the replicas hold what the primary held.
fn restores(compression: Compression, owner: u64, crypt: Option<Crypt>) {
    let what = format!("{compression:?} {owner} {crypt:?}");
    let mut scene = Scene::new(&format!("walg-{compression:?}-{owner}").to_lowercase(), compression, owner);
    scene.crypt = crypt;
    scene.take_chain();
    for (name, wal) in [("full", "none"), ("first", "consistent"), ("second", "latest")] {
        let replica = scene.replica(name, &format!("wal = \"{wal}\""));
        let ended = replica.created_by("walg").unwrap_or_else(|error| panic!("{what} {name}: {error:#}"));
        assert!(ended.output.contains(scene.backup(name)), "{what}: {}", ended.output);
        let control_file = fs::read(replica.datadir().join("global/pg_control")).unwrap();
        assert_eq!(checkpoint(&control_file).unwrap(), NO_CHECKPOINT, "{what} {name}");
        scene.primary.streams_to(&replica).unwrap_or_else(|error| panic!("{what} {name}: {error:#}"));
        scene.same_tables(&replica).unwrap_or_else(|error| panic!("{what} {name}: {error:#}"));
        fs::remove_dir_all(replica.path("")).unwrap();
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn full_and_delta_backups_of_every_compression_become_replicas() {
    for compression in Compression::ALL.into_iter().take(fast_or_full(2, 6) as usize) {
        restores(compression, 1000, None);
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn encrypted_backups_with_every_form_of_the_key_become_replicas() {
    for form in KeyForm::ALL {
        restores(Compression::Lz4, 1000, Some(Crypt::Libsodium(form)));
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn backups_encrypted_with_openpgp_become_replicas() {
    for algorithm in ["rsa2048", "future-default"] {
        restores(Compression::Lz4, 1000, Some(Crypt::openpgp(algorithm)));
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn archives_with_extended_headers_become_replicas() {
    restores(Compression::Zstd, 1_000_680_000, None);
}
