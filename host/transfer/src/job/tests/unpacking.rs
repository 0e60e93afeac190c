use std::os::unix::fs::symlink;

use ustar::written::{archive, directory, file, header};

use super::*;
use crate::codec::Codec;

/// The path of a file and its bytes.
type Named = (String, Vec<u8>);

/// Makes members with files of every size around the limits, and the resulting files.
fn members() -> (Vec<Vec<u8>>, Vec<Named>) {
    let sizes =
        [0, 1, 511, 512, 513, 8192, 131_071, 262_143, 262_144, 262_145, 524_288, 1_500_000, 3_000_001];
    let (mut members, mut files) = (vec![directory("base/"), directory("base/empty/")], Vec::new());
    for round in 0..5 {
        for size in sizes {
            let (name, bytes) =
                (format!("base/{}/{size}-{round}", round % 3), noise(size as u64 + round, size));
            members.push(file(&name, &bytes));
            files.push((name, bytes));
        }
        for number in 0..300 {
            let (name, bytes) = (format!("small/{round}-{number}"), noise(number, number as usize));
            members.push(file(&name, &bytes));
            files.push((name, bytes));
        }
    }
    (members, files)
}

#[test]
fn plain_and_compressed_archives_are_unpacked_into_their_files() {
    let (members, files) = members();
    let plain = archive(&members);
    for (via, stored) in
        [(None, plain.clone()), (Some(Codec::Zstd), zstd::bulk::compress(&plain, 1).unwrap())]
    {
        for workers in [1, 2, 5] {
            let scene = Scene::with_workers(workers);
            scene.object("base.tar", &stored);
            let job = scene.job_via(Pipeline { decompress: via, ..Pipeline::default() });
            scene.unpack(&job, unpack("base.tar"), None).unwrap();
            for (path, bytes) in &files {
                assert!(scene.read(path) == *bytes, "{via:?} {path}");
            }
            assert!(scene.path("base/empty").is_dir());
            let all = files.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
            assert_eq!(job.progress(), (all, files.len() as u64));
        }
    }
}

#[test]
fn an_archive_is_unpacked_below_a_directory_and_into_mapped_directories() {
    let scene = Scene::new();
    scene.object("wal.tar", &archive(&[directory("archive_status/"), file("0001", b"wal")]));
    let below = |path: &str| Unpack { path: path.to_owned(), ..unpack("wal.tar") };
    scene.unpack(&scene.job(), below("pg_wal"), None).unwrap();
    scene.unpack(&scene.job(), below("deep/er/"), None).unwrap();
    assert_eq!(fs::read(scene.wal.path().join("0001")).unwrap(), b"wal");
    assert!(scene.wal.path().join("archive_status").is_dir());
    assert_eq!(scene.read("deep/er/0001"), b"wal");
    let error = scene.wait(scene.job().unpack(below("../x"), None)).unwrap_err();
    assert_eq!(error.kind, Kind::Invalid);
    // The archive contains the mapped directory itself, too.
    scene.object("base.tar", &archive(&[directory("pg_wal/"), directory("pg_tblspc/")]));
    scene.unpack(&scene.job(), unpack("base.tar"), None).unwrap();
}

#[test]
fn members_obey_the_same_rules_for_paths_as_items() {
    for (name, member) in [
        ("pg_control", file("pg_control", b"x")),
        ("g2/pg_control", file("g2/pg_control", b"x")),
        ("g2/PG_CONTROL", file("g2/PG_CONTROL", b"x")),
        ("pg_control", directory("pg_control/")),
        ("g2/pg_control/x", file("g2/pg_control/x", b"x")),
        ("pg_wal/pg_control", file("pg_wal/pg_control", b"x")),
        ("pg_tblspc/16384/PG_15/x", file("pg_tblspc/16384/PG_15/x", b"x")),
        ("pg_tblspc/16384", directory("pg_tblspc/16384/")),
        ("pg_tblspc/x", file("pg_tblspc/x", b"x")),
    ] {
        let scene = Scene::new();
        scene.object("base.tar", &archive(&[file("g2/1", b"x"), member]));
        let error = scene.unpack(&scene.job(), unpack("base.tar"), None).unwrap_err();
        assert_eq!(error.kind, Kind::Invalid, "{name}: {error:?}");
        assert!(error.message.contains(name), "{name}: {error:?}");
        // The result is the same if the first parts of the path are in `Unpack::path` instead of the member's name.
        let Some((below, rest)) = name.split_once('/') else { continue };
        scene.object("rest.tar", &archive(&[file(rest, b"x")]));
        let below = Unpack { path: below.to_owned(), ..unpack("rest.tar") };
        assert!(scene.unpack(&scene.job(), below, None).is_err(), "{name}");
        assert!(!scene.path(name).exists() && !scene.wal.path().join("pg_control").exists(), "{name}");
    }
}

#[test]
fn the_error_for_an_archive_that_is_damaged_or_leads_elsewhere_names_the_archive() {
    let fine = file("base/1", b"x");
    let truncated = archive(std::slice::from_ref(&fine));
    let mut padded = truncated.clone();
    padded[1000] = 1;
    let on = [&truncated[..], &fine[..]].concat();
    for (kind, what, bytes) in [
        (Kind::Corrupt, "`../x`", archive(&[fine.clone(), file("../x", b"x")])),
        (Kind::Corrupt, "`/x`", archive(&[file("/x", b"x")])),
        (Kind::Corrupt, "symbolic link", archive(&[header("base/l", b'2', 0).to_vec()])),
        (Kind::Corrupt, "hard link", archive(&[header("base/l", b'1', 0).to_vec()])),
        (Kind::Corrupt, "FIFO", archive(&[header("base/l", b'6', 0).to_vec()])),
        (Kind::Corrupt, "`base` twice", Vec::new()),
        (Kind::Corrupt, "truncated", truncated[..1600].to_vec()),
        (Kind::Corrupt, "truncated", header("base/1", b'0', 10 << 20).to_vec()),
        (Kind::Corrupt, "`base/1` and the next block", padded),
        (Kind::Corrupt, "continues", on),
        (Kind::Invalid, "`pg_wal`", archive(&[file("pg_wal", b"x")])),
        (Kind::Invalid, "`global/pg_control`", archive(&[directory("global/pg_control/")])),
        (Kind::Failed, "`base/1`: something of this name", archive(&[fine.clone(), fine.clone()])),
    ] {
        let scene = Scene::new();
        let bytes =
            if bytes.is_empty() { archive(&[directory("base/"), directory("./base")]) } else { bytes };
        let what = what.strip_suffix(" twice").map_or(what, |_| "occurs twice");
        scene.object("a.tar", &bytes);
        let error = scene.unpack(&scene.job(), unpack("a.tar"), None).unwrap_err();
        assert_eq!(error.kind, kind, "{what}: {error}");
        assert!(error.message.starts_with("`a.tar` of ") && error.message.contains(what), "{what}: {error}");
    }
}

#[test]
fn refused_paths_fail_and_skipped_files_are_not_written() {
    let scene = Scene::new();
    scene.object(
        "a.tar",
        &archive(&[directory("pg_tblspc/"), file("keep", b"1"), file("tablespace_map", b"2")]),
    );
    let refuse = |paths: &[&str]| Unpack {
        refuse: paths.iter().map(|path| (*path).to_owned()).collect(),
        ..unpack("a.tar")
    };
    for paths in [&["tablespace_map"][..], &["other", "./keep"], &["pg_tblspc"]] {
        let error = scene.unpack(&scene.job(), refuse(paths), None).unwrap_err();
        assert!(error.kind == Kind::Corrupt && error.message.contains("must not contain"), "{error}");
        for (name, bytes) in tree(scene.data.path()) {
            bytes
                .map_or_else(|| fs::remove_dir(scene.path(&name)), |_| fs::remove_file(scene.path(&name)))
                .unwrap();
        }
    }
    // Paths below the directory are refused, but not the directory itself.
    let item = Unpack { skip: vec!["tablespace_map".to_owned()], ..refuse(&["pg_tblspc/", "global/"]) };
    scene.unpack(&scene.job(), item, None).unwrap();
    assert_eq!(
        tree(scene.data.path()),
        [("keep".to_owned(), Some(b"1".to_vec())), ("pg_tblspc".to_owned(), None)]
    );
    scene.object("a.tar", &archive(&[file("pg_tblspc/1/x", b"1")]));
    assert!(scene.unpack(&scene.job(), refuse(&["pg_tblspc/"]), None).is_err());
}

#[test]
fn an_archive_writes_no_more_than_its_limit() {
    let scene = Scene::new();
    let zeros = vec![0; 8 << 20];
    let members = [file("a", &[1; 1000]), file("b", &zeros)];
    scene.object("a.tar", &zstd::bulk::compress(&archive(&members), 1).unwrap());
    let job = || scene.job_via(Pipeline { decompress: Some(Codec::Zstd), ..Pipeline::default() });
    let limit = |limit| Unpack { limit, ..unpack("a.tar") };
    let error = scene.unpack(&job(), limit(1000 + (8 << 20) - 1), None).unwrap_err();
    assert_eq!(error.kind, Kind::Limit);
    assert!(!scene.path("b").exists());
    // A skipped file is not written and does not count towards the limit.
    fs::remove_file(scene.path("a")).ok();
    scene.unpack(&job(), Unpack { skip: vec!["b".to_owned()], ..limit(1000) }, None).unwrap();
}

#[test]
fn small_files_far_apart_do_not_block_the_ring() {
    let (done, is_done) = mpsc::channel();
    // A deadlock of the threads would block this test for ever.
    std::thread::spawn(move || {
        small_files_far_apart();
        done.send(()).unwrap();
    });
    is_done.recv_timeout(LONG).unwrap();
}

fn small_files_far_apart() {
    let large = noise(1, 300 << 10);
    let between_files = |number: usize| vec![file(&format!("large/{number}"), &large)];
    let between_directories =
        |number: usize| (0..600).map(|below| directory(&format!("{number}/{below}/"))).collect();
    let patterns: [&dyn Fn(usize) -> Vec<Vec<u8>>; 2] = [&between_files, &between_directories];
    for between in patterns {
        for workers in [1, 2] {
            let scene = Scene::with_workers(workers);
            // More small files than the ring has buffers.
            let members = (0..20).flat_map(|number| {
                let mut members = vec![file(&format!("small/{number}"), b"small")];
                members.extend(between(number));
                members
            });
            scene.object("a.tar", &archive(&members.collect::<Vec<_>>()));
            scene.unpack(&scene.job(), unpack("a.tar"), None).unwrap();
            for number in 0..20 {
                assert_eq!(scene.read(&format!("small/{number}")), b"small");
            }
        }
    }
}

#[test]
fn links_in_the_way_are_not_followed() {
    let outside = tempfile::tempdir().unwrap();
    for (link, member) in [("base", "base/1"), ("base/1", "base/1")] {
        let scene = Scene::new();
        fs::create_dir_all(scene.path(link).parent().unwrap()).unwrap();
        symlink(outside.path(), scene.path(link)).unwrap();
        scene.object("a.tar", &archive(&[file(member, b"x")]));
        let error = scene.unpack(&scene.job(), unpack("a.tar"), None).unwrap_err();
        assert!(error.message.contains("`base/1`"), "{error}");
    }
    assert_eq!(tree(outside.path()), []);
}

#[test]
fn a_link_that_replaces_a_directory_while_files_are_written_is_not_followed() {
    let scene = Scene::with_workers(1);
    let outside = tempfile::tempdir().unwrap();
    let members: Vec<_> =
        (0..1000).map(|number| file(&format!("base/{number}"), &noise(number, 5000))).collect();
    scene.object("a.tar", &archive(&members));
    let job = scene.job();
    fs::create_dir(scene.path("base")).unwrap();
    let held = scene.hold();
    scene.wait(job.unpack(unpack("a.tar"), None)).unwrap();
    held.wait_until_blocked();
    // The worker is blocked before it creates its first file.
    fs::rename(scene.path("base"), scene.path("moved")).unwrap();
    symlink(outside.path(), scene.path("base")).unwrap();
    held.release();
    scene.wait(job.wait(LONG));
    assert_eq!(tree(outside.path()), []);
    assert_eq!(tree(&scene.path("moved")).len(), 1000);
}

#[test]
fn a_full_budget_stops_an_archive() {
    let scene = Scene::new();
    let members: Vec<_> =
        (0..100).map(|number| file(&format!("base/{number}"), &noise(number, 8192))).collect();
    scene.object("a.tar", &archive(&members));
    scene.budget.bytes.store(50 * 8192 + 1, Ordering::Relaxed);
    let error = scene.unpack(&scene.job(), unpack("a.tar"), None).unwrap_err();
    assert_eq!(error.kind, Kind::Limit, "{error}");
    assert!(error.message.contains("No space left on device"), "{error}");
    assert_eq!(tree(&scene.path("base")).len(), 50);
}
