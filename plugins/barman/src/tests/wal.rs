//! WAL from the archive of a server. Decompressing is tested with the real host.

use std::fs;

use understudy::native::Source;
use understudy::source::{Ancestor, Position};

use super::scene::{Info, SEGMENT, SYSTEM_IDENTIFIER, Scene, segment};
use crate::wal::MOST_OBJECTS;
use crate::{Barman, Method, Request};

const ID: &str = "20261126T043406";

/// A tree of a backup that needs the segments 4 and 5.
fn scene() -> Scene {
    let scene = Scene::new();
    scene.tree(&Info::new(ID).with("end_xlog=0/500138").with("end_wal=000000010000000000000005"));
    scene.segment("000000010000000000000004").segment("000000010000000000000005");
    scene
}

fn consistent(scene: &Scene) -> Request {
    request(scene, "consistent")
}

fn request(scene: &Scene, wal: &str) -> Request {
    Request::default()
        .with("directory", scene.path("barman").to_str().unwrap())
        .with("server", "main")
        .with("wal", wal)
        .for_datadir(scene.path("data").to_str().unwrap())
}

fn source(timeline: u32, history: Vec<Ancestor>) -> Source {
    let position = Position { timeline, lsn: 0x0070_0000 };
    Source { server_version: 150_018, system_identifier: SYSTEM_IDENTIFIER, position, history }
}

#[test]
fn the_wal_that_makes_the_backup_consistent_is_restored() {
    let scene = scene();
    // Not needed, and not whole.
    scene.segment("000000010000000000000006");
    scene.put("wals/0000000100000000/000000010000000000000005.partial", "x");
    scene.put("wals/0000000100000000/000000010000000000000004.00000028.backup", "x");
    let without = scene.plan().unwrap();
    let with = scene.plan_of(&consistent(&scene)).0.unwrap();
    assert_eq!(with.bytes.unwrap() - without.bytes.unwrap(), 2 * SEGMENT);
    assert_eq!(with.files.unwrap() - without.files.unwrap(), 4);
    assert_eq!(scene.create_of(&consistent(&scene)).0, Ok(()));
    let wal = scene.path("data/pg_wal");
    for name in ["000000010000000000000004", "000000010000000000000005"] {
        assert_eq!(fs::read(wal.join(name)).unwrap(), segment(), "{name}");
        assert!(wal.join(format!("archive_status/{name}.done")).exists(), "{name}");
    }
    assert_eq!(fs::read_dir(&wal).unwrap().count(), 3);
}

#[test]
fn a_missing_segment_is_named() {
    let scene = scene();
    scene.remove("wals/0000000100000000/000000010000000000000005");
    let refused = scene.refusal_of(&consistent(&scene));
    assert!(
        refused.contains("000000010000000000000005 is missing") && refused.contains("main/wals"),
        "{refused}"
    );
    scene.put("wals/0000000100000000/000000010000000000000005.partial", segment());
    assert!(scene.refusal_of(&consistent(&scene)).contains("000000010000000000000005 is missing"));
}

#[test]
fn a_segment_without_an_ending_is_recognized_by_its_first_bytes() {
    let key = "wals/0000000100000000/000000010000000000000005";
    for (magic, says) in [
        (b"\x1f\x8b\x08\x00".as_slice(), "cannot be decoded"),
        (b"BZh9", "not bzip2"),
        (b"\xfd7zXZ\x00", "not xz"),
        (b"\x28\xb5\x2f\xfd", "cannot be decoded"),
        (b"\x04\x22\x4d\x18", "has 0 bytes instead of 1048576"),
    ] {
        let scene = scene();
        scene.put(key, magic);
        // The plan finds it. The stand-in for the host decodes some codecs, but after the first bytes there is nothing to decode.
        assert!(scene.plan_of(&consistent(&scene)).0.is_ok(), "{magic:?}");
        let failure = scene.create_of(&consistent(&scene)).0.unwrap_err().to_string();
        assert!(failure.contains(says), "{failure}");
    }
    for (bytes, what) in [
        (b"\x85\x02\x0c\x03".as_slice(), "encrypted with gpg"),
        (b"\x10\xd1\x07\x00", "4 bytes instead of 1048576"),
        (b"custom compression", "custom"),
        (b"", "custom"),
    ] {
        let scene = scene();
        scene.put(key, bytes);
        let refused = scene.refusal_of(&consistent(&scene));
        assert!(refused.contains(what) && refused.contains(key), "{what}: {refused}");
    }
}

#[test]
fn a_segment_of_barman_cloud_has_an_ending_and_two_are_refused() {
    let scene = scene();
    let key = "wals/0000000100000000/000000010000000000000005";
    scene.remove(key).put(&format!("{key}.gz"), "x");
    assert!(scene.plan_of(&consistent(&scene)).0.is_ok());
    scene.put(&format!("{key}.bz2"), "x");
    let refused = scene.refusal_of(&consistent(&scene));
    assert!(
        refused.contains("archived twice") && refused.contains(".bz2") && refused.contains(".gz"),
        "{refused}"
    );
}

#[test]
fn latest_follows_the_source_to_its_timeline() {
    let scene = scene();
    scene
        .segment("000000010000000000000006")
        .segment("000000020000000000000006")
        .segment("000000020000000000000007");
    scene.put("wals/00000002.history", "1\t0/600100\tno recovery target specified\n");
    let history = vec![Ancestor { timeline: 1, ended_at: 0x0060_0100 }];
    let request = request(&scene, "latest");
    let host = scene.host().source(source(2, history));
    let (result, _) = host.run(|| Barman::plan(&request).and_then(|plan| Barman::create(&request, &plan)));
    assert_eq!(result, Ok(()));
    let wal = scene.path("data/pg_wal");
    for name in ["000000020000000000000006", "000000020000000000000007", "00000002.history"] {
        assert!(
            wal.join(name).exists() && wal.join(format!("archive_status/{name}.done")).exists(),
            "{name}"
        );
    }
    assert!(!wal.join("000000010000000000000006").exists());
    assert!(scene.refusal_of(&request).contains("no source"));
}

#[test]
fn a_history_file_of_another_cluster_is_refused() {
    let scene = scene();
    scene.put("wals/00000002.history", "1\t0/999999\tother\n");
    let history = vec![Ancestor { timeline: 1, ended_at: 0x0060_0100 }];
    let request = request(&scene, "latest");
    let (result, _) = scene.host().source(source(2, history)).run(|| Barman::plan(&request));
    let failure = result.unwrap_err().to_string();
    assert!(failure.contains("00000002.history") && failure.contains("this server"), "{failure}");
}

#[test]
fn the_number_of_objects_in_a_folder_is_bounded() {
    let scene = scene();
    for number in 0..MOST_OBJECTS - 2 {
        scene.put(&format!("wals/0000000100000000/x{number}"), "");
    }
    assert!(scene.plan_of(&consistent(&scene)).0.is_ok());
    scene.put("wals/0000000100000000/y", "");
    assert!(scene.refusal_of(&consistent(&scene)).contains("more than 20000 objects"));
}
