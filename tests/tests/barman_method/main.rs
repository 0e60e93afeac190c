//! The method `barman`, end to end: backups that the real Barman takes, on its own server and in a store, become replicas that stream and
//! have the same files as what Barman restores.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, reason = "the counts and cells are for the reader of the test's output")]

mod cloud;
mod scene;
mod server;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tests::replica_folder::ReplicaFolder;
use tests::tree::{differences, is_one_of};

/// The files that Understudy or Barman writes in its own way, each with the reason.
const OWN: [(&str, &str); 8] = [
    ("postgresql.auto.conf", "Understudy writes primary_conninfo, Barman disables archive_command"),
    ("postgresql.auto.conf.origin", "Barman keeps the file before its changes"),
    ("postgresql.conf.origin", "Barman keeps the file before its changes"),
    (".barman-recover.info", "Barman describes the backup"),
    ("standby.signal", "Understudy configures a standby"),
    ("pg_wal", "Understudy restores the WAL that the backup needs, Barman all WAL or none"),
    ("backup_manifest", "the data directory no longer matches it"),
    ("tablespace_map", "the links are created"),
];

/// Checks that what Understudy restored, and what Barman restored to `theirs` with the tablespace at `fast`, are equal.
fn same_files(ours: &ReplicaFolder, theirs: &Path, fast: &Path) {
    // Barman leaves these modes to the umask for some kinds of backups. Understudy gives them PostgreSQL's.
    for (path, mode) in [(theirs.join("backup_label"), 0o600), (fast.to_owned(), 0o700)] {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
    // Barman keeps the manifest of a backup also with the backup's ID in its name.
    let is_own = |path: &str| is_one_of(path, &OWN) || path.starts_with("backup_manifest.");
    let found = differences(&ours.datadir(), theirs, is_own).unwrap();
    assert!(found.is_empty(), "{found:#?}");
}
