use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Command;

use super::*;
use crate::cipher::CipherFormat;
use crate::codec::Codec;
use crate::keys::Key;
use foundation::secret::Secret;

#[test]
fn files_are_fetched_as_they_are_stored() {
    let scene = Scene::new();
    let sizes = [0usize, 1, 8192, 65_536, 262_144, 262_145, 3_000_000];
    let contents: Vec<_> = sizes.iter().map(|size| noise(*size as u64, *size)).collect();
    let mut items = Vec::new();
    for (number, bytes) in contents.iter().enumerate() {
        scene.object(&format!("a/{number}"), bytes);
        for (kind, digest) in [("plain", None), ("checked", crc(bytes))] {
            let path = format!("base/{kind}/{number}");
            items.push(Fetch { digest, ..fetch(&format!("a/{number}"), &path, bytes.len() as u64) });
        }
    }
    let count = items.len();
    let job = scene.job();
    assert_eq!(scene.fetch(&job, items), vec![Ok(Action::Written); count]);
    for (number, bytes) in contents.iter().enumerate() {
        assert!(scene.read(&format!("base/plain/{number}")) == *bytes, "{number}");
        assert!(scene.read(&format!("base/checked/{number}")) == *bytes, "{number}");
    }
    let status = job.status();
    let all = 2 * sizes.iter().sum::<usize>() as u64;
    assert_eq!(
        (status.done, status.failed, status.bytes, status.files),
        (count as u32, 0, all, count as u64)
    );
    assert_eq!(job.progress(), (all, count as u64));
    assert_eq!(job.progress(), (0, 0));
}

#[test]
fn every_file_goes_to_its_mapped_directory() {
    let scene = Scene::new();
    scene.object("x", b"bytes");
    let paths = ["base/1", "pg_wal/0001", "pg_wal/archive_status/1", "global/pg_control"];
    scene.fetch(&scene.job(), paths.iter().map(|path| fetch("x", path, 5)).collect());
    let file = |name: &str| (name.to_owned(), Some(b"bytes".to_vec()));
    let directory = |name: &str| (name.to_owned(), None);
    assert_eq!(
        tree(scene.data.path()),
        [directory("base"), file("base/1"), directory("global"), file("global/pg_control.understudy")]
    );
    assert_eq!(tree(scene.wal.path()), [file("0001"), directory("archive_status"), file("archive_status/1")]);
}

#[test]
fn a_path_that_leads_elsewhere_refuses_the_whole_call() {
    let scene = Scene::new();
    scene.object("x", b"bytes");
    let long = "a/".repeat(2048) + "a";
    let name = "n".repeat(256);
    for path in [
        "../x",
        "a/../../x",
        "/etc/x",
        "",
        ".",
        "a\0b",
        "pg_wal",
        "global/pg_control/x",
        &long,
        &name,
        &format!("{name}/x"),
    ] {
        let job = scene.job();
        let error = scene.wait(job.fetch(vec![fetch("x", "fine", 5), fetch("x", path, 5)])).unwrap_err();
        assert_eq!(error.kind, Kind::Invalid, "{path:?}: {error}");
        assert!(job.status().idle);
    }
    assert_eq!(tree(scene.data.path()), []);
}

#[test]
fn an_invalid_item_refuses_the_whole_call() {
    let scene = Scene::new();
    let short = Digest { algorithm: Algorithm::Sha256, value: vec![0; 31] };
    let range = Range { offset: u64::MAX, length: 1 };
    for wrong in [
        Fetch { origin: 1, ..fetch("x", "a", 1) },
        Fetch { digest: Some(short), ..fetch("x", "a", 1) },
        Fetch { overwrite: Overwrite::UnlessSameDigest, ..fetch("x", "a", 1) },
        Fetch { overwrite: Overwrite::UnlessSameSizeAndTime, ..fetch("x", "a", 1) },
        Fetch {
            overwrite: Overwrite::UnlessSameSizeAndTime,
            at: Some(1),
            mtime: Some(1),
            ..fetch("x", "a", 1)
        },
        Fetch { at: Some(u64::MAX), ..fetch("x", "a", 1) },
        Fetch { range: Some(range), ..fetch("x", "a", 1) },
        Fetch { mtime: Some(u64::MAX), ..fetch("x", "a", 1) },
        fetch("x", "a", u64::MAX),
    ] {
        let shown = format!("{wrong:?}");
        assert_eq!(scene.wait(scene.job().fetch(vec![wrong])).unwrap_err().kind, Kind::Invalid, "{shown}");
    }
}

#[test]
fn the_error_for_a_file_with_wrong_contents_names_the_object_and_the_file_is_removed() {
    let scene = Scene::new();
    let bytes = noise(1, 300_000);
    scene.object("dir/x", &bytes);
    let size = bytes.len() as u64;
    let items = vec![
        Fetch { digest: crc(b"other"), ..fetch("dir/x", "a", size) },
        fetch("dir/x", "b", size - 1),
        fetch("dir/x", "c", size + 1),
        fetch("dir/none", "d", size),
        fetch("dir/x", "e", size),
    ];
    let ended = scene.fetch(&scene.job(), items);
    for (ended, kind, what) in [
        (&ended[0], Kind::Corrupt, "checksum"),
        (&ended[1], Kind::Corrupt, "more than the 299999 bytes"),
        (&ended[2], Kind::Corrupt, "has 300000 bytes and should have 300001"),
        (&ended[3], Kind::NotFound, "dir/none"),
    ] {
        let error = ended.as_ref().unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.message.contains(what) && error.message.contains("`dir/"), "{error}");
    }
    assert_eq!(ended[4], Ok(Action::Written));
    assert_eq!(tree(scene.data.path()).len(), 1);
}

#[test]
fn a_decompression_bomb_stops_at_the_size_that_was_announced() {
    let scene = Scene::new();
    let zeros = vec![0; 64 << 20];
    scene.object("bomb", &zstd::bulk::compress(&zeros, 1).unwrap());
    let job = scene.job_via(Pipeline { decompress: Some(Codec::Zstd), ..Pipeline::default() });
    let error = scene.fetch(&job, vec![fetch("bomb", "x", 1000)]).remove(0).unwrap_err();
    assert_eq!(error.kind, Kind::Corrupt);
    assert!(
        error.message.contains("`bomb`") && error.message.contains("more than the 1000 bytes"),
        "{error}"
    );
    assert_eq!(job.status().bytes, 0);
    assert_eq!(tree(scene.data.path()), []);
    assert_eq!(scene.fetch(&job, vec![fetch("bomb", "x", 64 << 20)]), [Ok(Action::Written)]);
    assert!(scene.read("x") == zeros);
}

#[test]
fn ranges_of_one_object_become_files_even_with_gaps_between_them() {
    for via in [None, Some(Codec::Zstd)] {
        let scene = Scene::new();
        let (mut bundle, mut items, mut files) = (Vec::new(), Vec::new(), Vec::new());
        for number in 0..500usize {
            bundle.resize(bundle.len() + [0, 100, 70_000][number % 3], 0xee);
            let plain = noise(number as u64, number * 37 % 5000);
            let stored = match via {
                None => plain.clone(),
                Some(_) => zstd::bulk::compress(&plain, 1).unwrap(),
            };
            let range = Range { offset: bundle.len() as u64, length: stored.len() as u64 };
            bundle.extend(stored);
            let path = format!("base/{}/{number}", number % 5);
            let digest = crc(if number == 77 { b"wrong" } else { &plain });
            items.push(Fetch { range: Some(range), digest, ..fetch("bundle", &path, plain.len() as u64) });
            files.push((path, plain));
        }
        scene.object("bundle", &bundle);
        fastrand::Rng::with_seed(1).shuffle(&mut items);
        let job = scene.job_via(Pipeline { decompress: via, ..Pipeline::default() });
        let ended = scene.fetch(&job, items);
        assert_eq!(ended.iter().filter(|ended| ended.is_err()).count(), 1, "{ended:?}");
        for (number, (path, plain)) in files.into_iter().enumerate() {
            if number == 77 {
                assert!(!scene.path(&path).exists());
            } else {
                assert!(scene.read(&path) == plain, "{path}");
            }
        }
    }
}

#[test]
fn a_range_that_lies_outside_of_its_object_fails_alone() {
    let scene = Scene::new();
    scene.object("bundle", &[1; 1000]);
    let part =
        |offset, path| Fetch { range: Some(Range { offset, length: 500 }), ..fetch("bundle", path, 500) };
    let ended = scene.fetch(&scene.job(), vec![part(0, "a"), part(500, "b"), part(1000, "c")]);
    assert_eq!((&ended[0], &ended[1]), (&Ok(Action::Written), &Ok(Action::Written)));
    assert_eq!(ended[2].as_ref().unwrap_err().kind, Kind::Invalid);
    assert_eq!(tree(scene.data.path()).len(), 2);
}

#[test]
fn parts_of_a_file_are_written_at_their_offsets_and_stay_after_a_failure() {
    let scene = Scene::new();
    let bytes = noise(1, 1_000_000);
    scene.object("x", &bytes);
    let part = |at: usize, length: usize| Fetch {
        range: Some(Range { offset: at as u64, length: length as u64 }),
        at: Some(at as u64),
        digest: crc(&bytes[at..at + length]),
        ..fetch("x", "base/1", length as u64)
    };
    let parts: Vec<_> = (0..10).map(|number| part(number * 100_000, 100_000)).collect();
    assert_eq!(scene.fetch(&scene.job(), parts.clone()), vec![Ok(Action::Written); 10]);
    assert!(scene.read("base/1") == bytes);

    let mut wrong = parts[3].clone();
    wrong.digest = crc(b"wrong");
    assert!(scene.fetch(&scene.job(), vec![wrong])[0].is_err());
    assert!(scene.read("base/1") == bytes);
    let kept = |item: Fetch| Fetch { overwrite: Overwrite::UnlessSameDigest, ..item };
    assert_eq!(scene.fetch(&scene.job(), parts.into_iter().map(kept).collect()), vec![Ok(Action::Kept); 10]);
}

#[test]
fn a_file_that_is_the_same_is_kept_and_any_other_is_written_anew() {
    let scene = Scene::new();
    let bytes = noise(1, 100_000);
    scene.object("x", &bytes);
    let size = bytes.len() as u64;
    let by_digest = Fetch {
        digest: crc(&bytes),
        overwrite: Overwrite::UnlessSameDigest,
        mtime: Some(1_000_000),
        mode: Some(0o600),
        ..fetch("x", "f", size)
    };
    let by_time = Fetch { overwrite: Overwrite::UnlessSameSizeAndTime, digest: None, ..by_digest.clone() };
    let again = |item: &Fetch| {
        let job = scene.job();
        let ended = scene.fetch(&job, vec![item.clone()]).remove(0).unwrap();
        // The job has made progress, even if it has written nothing.
        assert!(job.has_read() && !job.has_read());
        assert_eq!(job.progress() == (0, 0), ended == Action::Kept);
        ended
    };
    let inode = || fs::metadata(scene.path("f")).unwrap().ino();

    assert_eq!(again(&by_digest), Action::Written);
    let first = inode();
    let metadata = fs::metadata(scene.path("f")).unwrap();
    assert_eq!((metadata.mtime(), metadata.mode() & 0o7777), (1_000_000, 0o600));
    // Only the modification time differs, and is set again.
    fs::write(scene.path("f"), &bytes).unwrap();
    assert_eq!(again(&by_digest), Action::Kept);
    assert_eq!(fs::metadata(scene.path("f")).unwrap().mtime(), 1_000_000);
    assert_eq!(again(&by_time), Action::Kept);
    let by_content = Fetch { overwrite: Overwrite::UnlessSameContent, digest: None, ..by_digest.clone() };
    assert_eq!(again(&by_content), Action::Kept);
    assert_eq!(inode(), first);

    for (different, written_by_time) in
        [(noise(2, 100_000), true), (noise(2, 100_001), true), (noise(2, 99_999), true), (Vec::new(), true)]
    {
        for item in [&by_digest, &by_time, &by_content] {
            fs::write(scene.path("f"), &different).unwrap();
            assert_eq!(again(item) == Action::Written, written_by_time);
            assert!(scene.read("f") == bytes);
        }
    }
    // Size and time are the same, so different contents are not noticed.
    fs::write(scene.path("f"), noise(2, 100_000)).unwrap();
    file_time("f", &scene);
    assert_eq!(again(&by_time), Action::Kept);
    assert_eq!(again(&by_digest), Action::Written);
    assert_eq!(again(&Fetch { overwrite: Overwrite::Always, ..by_digest }), Action::Written);
}

#[test]
fn a_text_that_holds_keys_is_not_even_compared_with_the_existing_file() {
    const TEXT: &[u8] = b"[backrest]\nbackrest-format=5\n[cipher]\ncipher-pass=\"words\"\n";
    let scene = Scene::new();
    fs::write(scene.store.path().join("plain"), TEXT).unwrap();
    let encrypted = Command::new("openssl")
        .args(["enc", "-aes-256-cbc", "-md", "sha256", "-pass", "pass:swordfish"])
        .args(["-in", "plain", "-out", "encrypted"])
        .current_dir(scene.store.path())
        .output()
        .unwrap();
    assert!(encrypted.status.success());
    let key = Key::named("repo", Secret::new("swordfish"));
    let via = Pipeline { decrypt: Some((key, CipherFormat::OpensslSha256)), ..Pipeline::default() };
    for guess in [TEXT, &[b'x'; TEXT.len()]] {
        fs::write(scene.path("f"), guess).unwrap();
        let item = fetch("encrypted", "f", TEXT.len() as u64);
        let item = Fetch { overwrite: Overwrite::UnlessSameContent, ..item };
        let error = scene.fetch(&scene.job_via(via.clone()), vec![item]).remove(0).unwrap_err();
        assert_eq!(error.kind, Kind::Denied, "{error}");
        assert!(error.message.contains("holds keys"), "{error}");
    }
}

fn file_time(name: &str, scene: &Scene) {
    let time = std::time::UNIX_EPOCH + Duration::from_secs(1_000_000);
    File::options().write(true).open(scene.path(name)).unwrap().set_modified(time).unwrap();
}

#[test]
fn a_file_with_another_name_is_not_overwritten() {
    let scene = Scene::new();
    scene.object("x", b"new");
    let outside = scene.store.path().join("outside");
    fs::write(&outside, b"old").unwrap();
    fs::hard_link(&outside, scene.path("whole")).unwrap();
    fs::hard_link(&outside, scene.path("part")).unwrap();
    let items = vec![fetch("x", "whole", 3), Fetch { at: Some(0), ..fetch("x", "part", 3) }];
    let ended = scene.fetch(&scene.job(), items);
    assert_eq!(ended[0], Ok(Action::Written));
    assert!(ended[1].as_ref().unwrap_err().message.contains("hard links"));
    assert_eq!((scene.read("whole"), fs::read(outside).unwrap()), (b"new".to_vec(), b"old".to_vec()));
}

#[test]
fn a_link_a_directory_or_a_fifo_in_the_way_fails_and_is_not_followed() {
    let scene = Scene::new();
    scene.object("x", b"bytes");
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("file"), b"kept").unwrap();
    symlink(outside.path().join("file"), scene.path("link")).unwrap();
    symlink(outside.path(), scene.path("directory")).unwrap();
    fs::create_dir(scene.path("real")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        scene.path("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    for path in ["link", "directory/new", "directory", "real", "fifo"] {
        for item in [
            fetch("x", path, 5),
            Fetch { at: Some(0), ..fetch("x", path, 5) },
            Fetch { overwrite: Overwrite::UnlessSameDigest, digest: crc(b"bytes"), ..fetch("x", path, 5) },
        ] {
            let error = scene.fetch(&scene.job(), vec![item]).remove(0).unwrap_err();
            assert!(matches!(error.kind, Kind::Failed | Kind::Denied), "{path}: {error}");
            assert!(error.message.contains(path), "{path}: {error}");
        }
    }
    assert_eq!(tree(outside.path()), [("file".to_owned(), Some(b"kept".to_vec()))]);
}

#[test]
fn permissions_stay_within_what_the_operator_allows() {
    let scene = Scene::new();
    scene.object("x", b"bytes");
    let items = [None, Some(0o777), Some(0o4755), Some(0o600)]
        .into_iter()
        .enumerate()
        .map(|(number, mode)| Fetch { mode, ..fetch("x", &format!("sub/{number}"), 5) });
    scene.fetch(&scene.job(), items.collect());
    let mode = |name: &str| fs::metadata(scene.path(name)).unwrap().permissions().mode() & 0o7777;
    let modes = ["sub/0", "sub/1", "sub/2", "sub/3", "sub"].map(mode);
    assert_eq!(modes, [0o640, 0o640, 0o640, 0o600, 0o750]);
}

#[test]
fn the_largest_files_are_fetched_first() {
    let scene = Scene::with_workers(1);
    let items = (0..100u64).map(|number| {
        let size = number * 7919 % 100;
        scene.object(&format!("x/{number}"), &vec![1; size as usize]);
        fetch(&format!("x/{number}"), &format!("f/{number}"), size)
    });
    let items: Vec<_> = items.collect();
    let job = scene.job();
    // The only worker is blocked until all items are queued.
    let held = scene.hold();
    scene.wait(job.fetch(vec![fetch("x/0", "first", 0)])).unwrap();
    held.wait_until_blocked();
    scene.wait(job.fetch(items.clone())).unwrap();
    held.release();
    scene.wait(job.wait(LONG));
    let order = job.outcomes(usize::MAX).into_iter().filter(|outcome| outcome.index > 0);
    let sizes: Vec<_> = order.map(|outcome| items[outcome.index as usize - 1].size).collect();
    assert_eq!(sizes.len(), 100);
    assert!(sizes.is_sorted_by(|one, other| one >= other), "{sizes:?}");
}

#[test]
fn adjacent_ranges_are_read_with_one_request() {
    let scene = Scene::new();
    let job = scene.job();
    let store = Store::directory(scene.store.path()).unwrap();
    assert_eq!(job.add_origin(store, Pipeline::default()).unwrap(), 1);
    let part = |origin: u32, object: &str, offset: u64, length: u64| {
        let range = Some(Range { offset, length });
        job.item(Fetch { origin, range, ..fetch(object, "f", length) }).unwrap()
    };
    let reads = |items: Vec<Item>| {
        let units = coalesce::into_units(items);
        let count = |unit: &Unit| match &unit.task {
            Task::Fetch(items) => items.len(),
            Task::Unpack(_) | Task::Assemble(_) => 0,
        };
        units.iter().map(count).collect::<Vec<_>>()
    };
    let gap = 64 << 10;
    assert_eq!(reads(vec![part(0, "a", 0, 10), part(0, "a", 10, 10), part(0, "a", 20 + gap, 10)]), [3]);
    assert_eq!(reads(vec![part(0, "a", 20, 10), part(0, "a", 0, 10), part(0, "a", 10, 10)]), [3]);
    assert_eq!(reads(vec![part(0, "a", 0, 10), part(0, "a", 11 + gap, 10)]), [1, 1]);
    // Overlapping ranges, another object, another origin and no range are not adjacent.
    assert_eq!(reads(vec![part(0, "a", 0, 10), part(0, "a", 0, 10)]), [1, 1]);
    assert_eq!(reads(vec![part(0, "a", 0, 10), part(0, "b", 10, 10), part(1, "b", 20, 10)]), [1, 1, 1]);
    assert_eq!(reads(vec![job.item(fetch("a", "f", 10)).unwrap(), part(0, "a", 10, 10)]), [1, 1]);
    // The number of files and of bytes is bounded.
    assert_eq!(reads((0..1025).map(|number| part(0, "a", number, 1)).collect()), [1024, 1]);
    assert_eq!(reads((0..5).map(|number| part(0, "a", number << 22, 1 << 22)).collect()), [4, 1]);
}
