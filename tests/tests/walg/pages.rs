//! Backups in which a page is damaged. WAL-G keeps no checksum of a file, so only the checksum of the page says it.

use std::fs;
use std::path::{Path, PathBuf};

use tests::server::run;

use super::scene::Scene;
use super::storage::Compression;

/// The size of a page, and of a block of a tar archive.
const PAGE: usize = 8192;
const BLOCK: usize = 512;

/// The page that the tests change, and the byte in it.
const NUMBER: usize = 3;
const BYTE: usize = 5000;

/// Returns the archive of the full backup that has the table `stays`, and the offset of its page [`NUMBER`].
fn page(scene: &Scene, file: &str) -> (PathBuf, usize) {
    let member = format!("/{file}");
    for part in fs::read_dir(scene.folder("full").join("tar_partitions")).unwrap() {
        let part = part.unwrap().path();
        let tar = fs::read(&part).unwrap();
        let text = |at: usize, length: usize| {
            let field = tar[at..at + length].split(|byte| *byte == 0).next().unwrap();
            String::from_utf8(field.to_vec()).unwrap()
        };
        let mut at = 0;
        while tar[at] != 0 {
            let size = usize::from_str_radix(&text(at + 124, 12), 8).unwrap();
            if text(at, 100) == member {
                assert!(size > (NUMBER + 1) * PAGE, "{file} has only {size} bytes");
                return (part, at + BLOCK + NUMBER * PAGE);
            }
            at += BLOCK + size.next_multiple_of(BLOCK);
        }
    }
    panic!("no archive has {file}");
}

/// Changes the page of `stays` in the full backup.
fn change(archive: &Path, at: usize, change: impl FnOnce(&mut [u8])) {
    let mut tar = fs::read(archive).unwrap();
    change(&mut tar[at..at + PAGE]);
    fs::write(archive, tar).unwrap();
}

/// Takes a chain of backups, and damages a page of `stays` in the full backup. Returns the file and the place of the page.
fn damaged(scene: &mut Scene) -> (String, PathBuf, usize) {
    // A vacuum would change the page between the backups.
    scene.primary.server.psql("ALTER SYSTEM SET autovacuum = off").unwrap();
    scene.primary.server.psql("SELECT pg_reload_conf()").unwrap();
    scene.take_chain();
    let file = scene.primary.server.psql("SELECT pg_relation_filepath('stays')").unwrap();
    let (archive, at) = page(scene, &file);
    change(&archive, at, |page| page[BYTE] ^= 1);
    scene.own();
    (file, archive, at)
}

/// Restores the backup `which`.
fn restores(scene: &Scene, which: &str, options: &str) {
    let replica = scene.replica(which, &format!("wal = \"none\"\n{options}"));
    replica.created_by("walg").unwrap_or_else(|error| panic!("{which} {options}: {error:#}"));
    fs::remove_dir_all(replica.path("")).unwrap();
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_damaged_page_is_named_unless_replay_restores_it() {
    let mut scene = Scene::new("walg-pages", Compression::None, 1000);
    let (file, archive, at) = damaged(&mut scene);
    // The delta backups take the page from the full backup.
    for which in ["full", "first", "second"] {
        let replica = scene.replica(which, "wal = \"none\"");
        let attempt = replica.create(&[]).unwrap().attempt("walg").to_string();
        for word in [&file, &format!("its block {NUMBER} has the page checksum ")] {
            assert!(attempt.contains(word), "{which}: `{word}` is not in {attempt}");
        }
        assert!(!replica.is_sealed(), "{which}");
        fs::remove_dir_all(replica.path("")).unwrap();
        restores(&scene, which, "verify = false");
    }
    // A page that changed during the backup may be torn.
    let sentinel = format!("basebackups_005/{}_backup_stop_sentinel.json", scene.backup("full"));
    let sentinel = fs::read(scene.settings.storage.join(sentinel)).unwrap();
    let sentinel: serde_json::Value = serde_json::from_slice(&sentinel).unwrap();
    let start = sentinel["LSN"].as_u64().unwrap();
    change(&archive, at, |page| {
        page[..4].copy_from_slice(&((start >> 32) as u32).to_ne_bytes());
        page[4..8].copy_from_slice(&(start as u32).to_ne_bytes());
    });
    restores(&scene, "full", "");
    // The delta backups do not have the page, and their replay does not restore it.
    let replica = scene.replica("second", "wal = \"none\"");
    assert!(replica.create(&[]).unwrap().attempt("walg").to_string().contains(&file));
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn pages_of_a_cluster_without_checksums_are_not_checked() {
    let mut scene = Scene::new("walg-no-checksums", Compression::None, 1000);
    scene.primary.server.stop().unwrap();
    let playground = &scene.primary.playground;
    let mut disable = playground.user().command(playground.bin_dir().join("pg_checksums"));
    run(disable.args(["--disable", "--no-sync", "--pgdata"]).arg(scene.primary.server.datadir())).unwrap();
    scene.primary = scene.primary.restarted().unwrap();
    damaged(&mut scene);
    restores(&scene, "full", "");
    restores(&scene, "second", "");
}
