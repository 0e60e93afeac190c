//! The method `walg`, end to end: storages of WAL-G become replicas that stream. WAL-G itself cannot be installed here, so [`storage`]
//! writes them by the facts of WAL-G's source.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "the counts and cells are for the reader of the test's output")]

mod bad_input;
mod crypt;
mod pages;
mod scene;
mod storage;

use std::fs;

use tests::control_file::{NO_CHECKPOINT, checkpoint};
use tests::program::fast_or_full;

use crypt::{Encryption, KeyForm};
use scene::{Scene, TABLES};
use storage::Compression;

/// The backups of a chain, each with the WAL that is restored with it.
const BACKUPS: [(&str, &str); 3] = [("full", "none"), ("first", "consistent"), ("second", "latest")];

/// A cell of the matrix: a compression, an encryption and the number of a backup in [`BACKUPS`]. All backups have a tablespace.
type Cell = (Compression, Option<Encryption>, usize);

/// The cells of a fast run. They have every compression, every encryption and every backup.
const FAST: [Cell; 6] = [
    (Compression::None, None, 2),
    (Compression::Lz4, Some(Encryption::Libsodium(KeyForm::Text)), 1),
    (Compression::Gzip, Some(Encryption::Libsodium(KeyForm::Hex)), 0),
    (Compression::Zstd, Some(Encryption::Libsodium(KeyForm::Base64)), 2),
    (Compression::Brotli, Some(Encryption::OpenPgp("future-default")), 1),
    (Compression::Lzma, Some(Encryption::OpenPgp("rsa2048")), 0),
];

/// Returns the cells with one compression that are run.
fn cells(compression: Compression) -> Vec<Cell> {
    if fast_or_full(0, 1) == 0 {
        return FAST.into_iter().filter(|cell| cell.0 == compression).collect();
    }
    let encryptions = [None].into_iter().chain(Encryption::ALL.map(Some));
    encryptions
        .flat_map(|encryption| (0..BACKUPS.len()).map(move |number| (compression, encryption, number)))
        .collect()
}

/// Takes the backups of all cells with these compressions on one primary, and restores each cell.
fn matrix(name: &str, compressions: &[Compression]) {
    let mut scene = Scene::new(name, compressions[0], 1000);
    let mut ran = 0;
    for compression in compressions {
        let cells = cells(*compression);
        scene.start_over(*compression);
        scene.take_backups(1 + cells.iter().map(|cell| cell.2).max().unwrap());
        let mut served = None;
        for (_, encryption, number) in cells {
            if served != Some(encryption) {
                scene.serve(encryption);
                served = Some(encryption);
            }
            restores(&scene, &format!("{compression:?} {encryption:?}"), BACKUPS[number]);
            ran += 1;
        }
    }
    println!("{ran} of {} cells ran", compressions.len() * (1 + Encryption::ALL.len()) * BACKUPS.len());
}

/// Creates a replica from this backup, and checks that the replica streams and holds what the primary holds.
fn restores(scene: &Scene, what: &str, (name, wal): (&str, &str)) {
    println!("{what} {name}");
    let replica = scene.replica(name, &format!("wal = \"{wal}\""));
    let ended = replica.created_by("walg").unwrap_or_else(|error| panic!("{what} {name}: {error:#}"));
    assert!(ended.output.contains(scene.backup(name)), "{what}: {}", ended.output);
    let control_file = fs::read(replica.datadir().join("global/pg_control")).unwrap();
    assert_eq!(checkpoint(&control_file).unwrap(), NO_CHECKPOINT, "{what} {name}");
    scene.primary.streams_with(&replica, &TABLES).unwrap_or_else(|error| panic!("{what} {name}: {error:#}"));
    fs::remove_dir_all(replica.path("")).unwrap();
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn backups_without_compression_and_with_lz4_and_gzip_become_replicas() {
    matrix("walg-gzip", &[Compression::None, Compression::Lz4, Compression::Gzip]);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn backups_with_zstd_brotli_and_lzma_become_replicas() {
    matrix("walg-zstd", &[Compression::Zstd, Compression::Brotli, Compression::Lzma]);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn archives_with_extended_headers_become_replicas() {
    let mut scene = Scene::new("walg-headers", Compression::Zstd, 1_000_680_000);
    scene.take_chain();
    restores(&scene, "extended headers", BACKUPS[2]);
}
