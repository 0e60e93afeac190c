//! Backups in the directory of a Barman server.

use std::fs;

use tests::program::fast_or_full;
use tests::releases::playground;
use tests::server::Playground;

use super::scene::{Cell, Kind, Scene};

/// The compressions of archived WAL (Barman's option `compression`).
const WAL: [&str; 7] = ["none", "gzip", "bzip2", "xz", "zstd", "lz4", "snappy"];

/// Checks every kind of backup with one compression of WAL each; with all of them in a full run. `first` is the first compression.
fn every_kind(name: &str, kinds: &[Kind], first: usize) {
    let mut scene = Scene::start(Playground::new(name).unwrap());
    let mut ran = 0;
    for step in 0..fast_or_full(1, WAL.len() as u32) as usize {
        for (at, kind) in kinds.iter().enumerate() {
            let wal = WAL[(first + at + step) % WAL.len()];
            // The others are restored with the WAL that the backup needs.
            let restored = if at % 2 == 0 { "latest" } else { "consistent" };
            scene.check(&Cell { kind: *kind, wal, restored });
            ran += 1;
        }
    }
    println!("{ran} of {} cells ran", kinds.len() * WAL.len());
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn plain_backups_of_every_kind_become_replicas() {
    every_kind("barman-plain", &[Kind::Rsync, Kind::Linked, Kind::Plain], 0);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn tar_backups_of_every_compression_become_replicas() {
    let kinds = ["none", "gzip", "lz4", "zstd"].map(Kind::Tar);
    every_kind("barman-tar", &kinds, 3);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_backup_is_chosen_by_its_name_and_the_newest_without_one() {
    let mut scene = Scene::start(Playground::new("barman-choice").unwrap());
    scene.configure("backup_method = postgres");
    let first = scene.backup(&["--name", "nightly"]);
    let second = scene.backup(&[]);
    for (options, id) in [("backup = \"nightly\"", &first), ("", &second)] {
        let ended = scene.replica(options).created_by("barman").unwrap();
        assert!(ended.output.contains(id.as_str()), "{options}: {}", ended.output);
        scene.forget();
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_chain_of_incremental_backups_becomes_a_replica() {
    let mut scene = Scene::start(playground("barman-chain", 17).unwrap());
    let formats: &[&[Kind]] = &[
        &[Kind::Plain, Kind::Plain, Kind::Plain],
        &[Kind::Plain, Kind::Tar("zstd"), Kind::Tar("gzip")],
        &[Kind::Tar("lz4"), Kind::Plain, Kind::Tar("none")],
        &[Kind::Tar("none"), Kind::Tar("lz4"), Kind::Plain],
    ];
    for chain in &formats[..fast_or_full(2, 4) as usize] {
        for (link, kind) in chain.iter().enumerate() {
            scene.configure(&kind.settings());
            let base: &[&str] = if link == 0 { &[] } else { &["--incremental", "last"] };
            let id = scene.backup(base);
            scene.same(&format!("{chain:?} {link}"), &id, "");
        }
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_damaged_page_of_a_backup_without_a_manifest_is_named() {
    let mut scene = Scene::start(Playground::new("barman-pages").unwrap());
    scene.configure(&Kind::Rsync.settings());
    // A page that a vacuum changes during the backup is not checked.
    scene.primary.server.psql("ALTER SYSTEM SET autovacuum = off").unwrap();
    scene.primary.server.psql("SELECT pg_reload_conf()").unwrap();
    let id = scene.backup(&[]);
    let file = scene.primary.server.psql("SELECT pg_relation_filepath('letters')").unwrap();
    let path = scene.primary.playground.path("barman-home/main/base").join(&id).join("data").join(&file);
    let mut bytes = fs::read(&path).unwrap();
    bytes[3 * 8192 + 5000] ^= 1;
    fs::write(&path, bytes).unwrap();
    let replica = scene.replica("wal = \"none\"");
    let attempt = replica.create(&[]).unwrap().attempt("barman").to_string();
    for word in [&file, "its block 3 has the page checksum "] {
        assert!(attempt.contains(word), "`{word}` is not in {attempt}");
    }
    assert!(!replica.is_sealed());
    scene.forget();
    scene.replica("wal = \"none\"\nverify = false").created_by("barman").unwrap();
}
