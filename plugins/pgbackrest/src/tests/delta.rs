//! Tests for `delta`, which reuses the files in a data directory.

use super::*;

#[test]
fn with_delta_files_that_the_backup_does_not_have_are_removed() {
    let scene = Scene::new();
    for name in [
        "data/base/5/1259",
        "data/base/5/9999",
        "data/base/6/1",
        "data/stray",
        "data/pg_notify/0000",
        "data/tablespace_map",
        "data/postmaster.pid",
        "wal/000000010000000000000001",
        "wal/000000010000000000000040",
        "wal/archive_status/000000010000000000000001.done",
        "fast/PG_15_202209061/5/1",
        "fast/PG_14_202107181/5/1",
    ] {
        fs::create_dir_all(scene.path(name).parent().unwrap()).unwrap();
        fs::write(scene.path(name), "old").unwrap();
    }
    let request = scene.request().with("delta", true);
    assert!(scene.plan_of(&request).0.unwrap().builds_on_existing);
    let (result, _) = scene.create_of(&request);
    assert_eq!(result, Ok(()));
    for gone in [
        "data/base/5/9999",
        "data/base/6",
        "data/stray",
        "data/pg_notify/0000",
        "data/tablespace_map",
        "data/postmaster.pid",
        "wal/000000010000000000000001",
        "wal/archive_status/000000010000000000000001.done",
        "fast/PG_15_202209061/5/1",
    ] {
        assert!(!scene.path(gone).exists(), "{gone}");
    }
    // pg_upgrade leaves the tablespaces of the old cluster in the same directories as those of the new one.
    assert_eq!(scene.read("fast/PG_14_202107181/5/1"), b"old");
    assert_eq!(scene.read("data/base/5/1259"), [7; 20_000]);
    assert_eq!(scene.read("wal/000000010000000000000040"), vec![b'1'; SEGMENT]);
}

#[test]
fn with_delta_matching_files_are_kept_and_get_their_mode_and_time() {
    let scene = Scene::new();
    let file = scene.path("data/base/5/1259");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, [7; 20_000]).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let request = scene.request().with("delta", true);
    let plan = scene.plan_of(&request).0.unwrap();
    scene.remove(&format!("backup/main/{FULL}/pg_data/base/5/1259"));
    assert_eq!(scene.host().run(|| PgBackRest::create(&request, &plan)).0, Ok(()));
    let metadata = fs::metadata(&file).unwrap();
    assert_eq!((metadata.mode() & 0o7777, metadata.mtime()), (0o600, 1_795_667_644));
    fs::write(&file, [8; 20_000]).unwrap();
    let (result, _) = scene.host().run(|| PgBackRest::create(&request, &plan));
    assert!(result.unwrap_err().to_string().contains("1259"), "what has other bytes is fetched");
}
