//! Backups of PostgreSQL 16 to 18, taken with the pg_basebackup of the same release and restored for servers of the same release.

use std::fs;

use tests::primary::Primary;
use tests::program::fast_or_full;
use tests::releases::playground;
use tests::server::BIN_DIR;

use super::scene::Scene;

/// The pg_basebackup options of the backups that the tests take.
const BACKUP_OPTIONS: [&[&str]; 6] = [
    &["--compress=client-zstd:1"],
    &["--compress=server-lz4"],
    &["--compress=client-gzip:1"],
    &["--compress=server-zstd:level=1,workers=2"],
    &["--wal-method=fetch"],
    &["--manifest-checksums=SHA256"],
];

/// Restores backups of a primary with this release.
fn test_release(major: u32, manifest_version: u32) {
    let playground = playground(&format!("release-{major}"), major).unwrap();
    let scene = Scene::with_primary(Primary::start_in(playground, 2_000).unwrap());
    restores(&scene, major, manifest_version);
    is_refused_for_another_release(&scene, major);
    streams(&scene);
}

/// Restores a backup with each of [`BACKUP_OPTIONS`]. In a fast run each release has a different selection.
fn restores(scene: &Scene, major: u32, manifest_version: u32) {
    let first = (major as usize - 16) * 2;
    for step in 0..fast_or_full(2, 6) as usize {
        let options = BACKUP_OPTIONS[(first + step) % BACKUP_OPTIONS.len()];
        let what = format!("{major} {options:?}");
        let backup = scene.primary.tar_backup(&format!("backup-{step}"), options).unwrap();
        let manifest = backup.join("backup_manifest");
        let text = fs::read_to_string(&manifest).unwrap();
        let version = format!("\"PostgreSQL-Backup-Manifest-Version\": {manifest_version},");
        assert!(text.contains(&version), "{what}");
        assert_eq!(text.contains("\"System-Identifier\""), manifest_version == 2, "{what}");
        scene.creates(&what, &scene.directory_section(&backup), &manifest);
    }
}

/// Checks that a replica with programs of another release is rejected, and that its directory is not touched.
fn is_refused_for_another_release(scene: &Scene, major: u32) {
    let backup = scene.primary.backups().unwrap().join("backup-0");
    let replica = scene.replica(&scene.directory_section(&backup));
    let config = replica.path("understudy.toml");
    let text = fs::read_to_string(&config).unwrap();
    let own = format!("bin_dir = \"{}\"", scene.primary.playground.bin_dir().display());
    assert!(text.contains(&own));
    fs::write(&config, text.replace(&own, &format!("bin_dir = \"{BIN_DIR}\""))).unwrap();
    let ended = replica.create(&[]).unwrap();
    assert_ne!(ended.code(), Some(0), "{}", ended.output);
    let attempt = ended.attempt("tarball").to_string();
    let says = format!("the backup is of PostgreSQL {major}, and `bin_dir` holds PostgreSQL 15");
    assert!(attempt.contains(&says), "{attempt}");
    assert_eq!(ended.attempt("tarball")["touched"], false, "{attempt}");
    assert!(!replica.is_sealed());
}

fn streams(scene: &Scene) {
    let backup = scene.primary.backups().unwrap().join("backup-1");
    let section = scene.primary.tarball(&backup);
    let replica = scene.primary.replica("streams", &["tarball"], "", &section).unwrap();
    replica.created_by("tarball").unwrap();
    scene.primary.streams_to(&replica).unwrap();
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn backups_of_postgresql_16_become_replicas_of_its_servers() {
    test_release(16, 1);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn backups_of_postgresql_17_become_replicas_of_its_servers() {
    test_release(17, 2);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn backups_of_postgresql_18_become_replicas_of_its_servers() {
    test_release(18, 2);
}
