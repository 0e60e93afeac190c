//! Storages that are damaged, incomplete or hostile. Every run ends with the name of the object, leaves no data directory that PostgreSQL
//! can start from, and writes nothing outside.

use std::fs;
use std::path::Path;

use super::scene::Scene;
use super::storage::Compression;

/// Runs the method with the backup `which`. Checks that it fails with these words and that no data directory can be started.
fn fails(scene: &Scene, which: &str, says: &[&str]) {
    let replica = scene.replica(which, "wal = \"none\"");
    let ended = replica.create(&[]).unwrap();
    let attempt = ended.attempt("walg").to_string();
    assert!(matches!(ended.code(), Some(1 | 4 | 75)), "{says:?}: {:?} {attempt}", ended.status);
    for word in says {
        assert!(attempt.contains(word), "`{word}` is not in {attempt}\n{}", ended.output);
    }
    assert!(!replica.is_sealed(), "{says:?}: there is a pg_control");
    assert!(!scene.primary.playground.path("escaped").exists());
    fs::remove_dir_all(replica.path("")).unwrap();
}

/// Changes a file for the time of `work`.
fn with_changed(path: &Path, change: impl FnOnce(Vec<u8>) -> Option<Vec<u8>>, work: impl FnOnce()) {
    let before = fs::read(path).unwrap();
    match change(before.clone()) {
        Some(after) => fs::write(path, after).unwrap(),
        None => fs::remove_file(path).unwrap(),
    }
    work();
    fs::write(path, before).unwrap();
}

fn replaced(from: &str, to: &str) -> impl FnOnce(Vec<u8>) -> Option<Vec<u8>> {
    let (from, to) = (from.to_owned(), to.to_owned());
    move |bytes| {
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.contains(&from), "{text}");
        Some(text.replace(&from, &to).into_bytes())
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn what_is_wrong_with_a_storage_is_named() {
    let mut scene = Scene::new("walg-bad-input", Compression::None, 1000);
    scene.take_chain();
    let sentinel = |which: &str| {
        scene
            .settings
            .storage
            .join(format!("basebackups_005/{}_backup_stop_sentinel.json", scene.backup(which)))
    };
    let check = |which: &str, says: &[&str]| {
        scene.own();
        fails(&scene, which, says);
    };
    // A parent that is gone, that is of another cluster, or that is not the parent.
    with_changed(&sentinel("first"), |_| None, || check("second", &[scene.backup("first")]));
    let system = "\"SystemIdentifier\":";
    with_changed(&sentinel("full"), replaced(system, "\"SystemIdentifier\":1"), || {
        check("first", &[scene.backup("full"), "cluster"]);
    });
    with_changed(&sentinel("first"), replaced("\"DeltaLSN\":", "\"DeltaLSN\":1"), || {
        check("first", &[scene.backup("first")]);
    });
    with_changed(
        &scene.folder("second").join("files_metadata.json"),
        |_| None,
        || {
            check("second", &["files_metadata.json"]);
        },
    );
    // Archives: cut, missing, and with members that leave the data directory.
    let part =
        |which: &str, number: u32| scene.folder(which).join(format!("tar_partitions/part_{number:03}.tar"));
    with_changed(
        &part("full", 1),
        |bytes| Some(bytes[..bytes.len() / 2].to_vec()),
        || {
            check("first", &["part_001.tar"]);
        },
    );
    with_changed(&part("full", 2), |_| None, || check("full", &["part_002.tar"]));
    for (name, says) in
        [("../../escaped", "../../escaped"), ("/../../escaped", "escaped"), ("base/../../escaped", "escaped")]
    {
        let change = |mut bytes: Vec<u8>| {
            bytes[..100].fill(0);
            bytes[..name.len()].copy_from_slice(name.as_bytes());
            bytes[148..156].copy_from_slice(b"        ");
            let sum: u32 = bytes[..512].iter().map(|byte| u32::from(*byte)).sum();
            bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            Some(bytes)
        };
        with_changed(&part("full", 1), change, || check("full", &["part_001.tar", says]));
    }
    scene.own();
    scene.replica("second", "wal = \"none\"").created_by("walg").unwrap();
}
