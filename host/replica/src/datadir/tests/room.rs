//! The room on each file system.

use super::*;

#[test]
fn step_3_what_emptying_frees_is_counted_by_file_system() {
    let mut machine = Machine::with_cluster();
    let wal = machine.map_wal("wal");
    fs::create_dir_all(wal.join("archive_status")).unwrap();
    fs::write(wal.join("000000010000000000000001"), [0; 8192]).unwrap();
    symlink(&wal, machine.path("data/pg_wal")).unwrap();
    fs::write(machine.path("data/linked"), [0; 1 << 20]).unwrap();
    fs::hard_link(machine.path("data/linked"), machine.path("elsewhere")).unwrap();
    let directory = machine.acquire().unwrap();
    let room = directory.room().unwrap();
    assert_eq!(room.len(), 1);
    assert_eq!(room[0].places, [machine.path("data"), wal]);
    // base, base/1, base/1/1259, global, global/pg_control, pg_tblspc, pg_wal, PG_VERSION; archive_status, a segment.
    assert_eq!(room[0].reclaimable_files, 10);
    assert!((16384..1 << 20).contains(&room[0].reclaimable.0), "{room:?}");
    assert_eq!(directory.reclaimable().unwrap(), (room[0].reclaimable, 10));
    assert!(room[0].free.0 > 0);
    empty(&directory);
    assert_eq!(directory.reclaimable().unwrap(), (Bytes(0), 0));
}

#[test]
fn step_3_places_on_different_file_systems_are_told_apart() {
    let mut machine = Machine::with_cluster();
    let shm = tempfile::tempdir_in("/dev/shm").unwrap();
    machine.directories.wal = Some(shm.path().join("wal"));
    let other = fs::metadata(shm.path()).unwrap().dev() != fs::metadata(&machine.root).unwrap().dev();
    let room = machine.acquire().unwrap().room().unwrap();
    assert_eq!(room.len(), if other { 2 } else { 1 });
    assert!(room.iter().all(|one| one.free.0 > 0));
}
