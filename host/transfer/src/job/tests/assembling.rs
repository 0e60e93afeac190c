use twox_hash::xxhash3_128::Hasher as Xxh3;

use super::*;
use crate::meter::Meter;

/// Digests of blocks of 1000 bytes.
const BLOCK: usize = 1000;

fn piece(object: &str, range: Option<(u64, u64)>, size: u64, extents: &[(u64, u64, u64)]) -> Piece {
    let extent =
        |(offset, at, length): &(u64, u64, u64)| Extent { offset: *offset, at: *at, length: *length };
    Piece {
        origin: 0,
        object: object.to_owned(),
        range: range.map(|(offset, length)| Range { offset, length }),
        size,
        extents: extents.iter().map(extent).collect(),
    }
}

fn assembly(path: &str, bytes: &[u8], pieces: Vec<Piece>) -> Assembly {
    Assembly {
        path: path.to_owned(),
        size: bytes.len() as u64,
        digest: digest(Algorithm::Sha1, bytes),
        mode: None,
        mtime: Some(1_600_000_000),
        keep_same: false,
        blocks: None,
        pieces,
    }
}

fn blocks(bytes: &[u8]) -> Option<BlockDigests> {
    let of = |block: &[u8]| Xxh3::oneshot(block).to_be_bytes()[..6].to_vec();
    Some(BlockDigests { size: BLOCK as u32, length: 6, values: bytes.chunks(BLOCK).flat_map(of).collect() })
}

impl Scene {
    /// Makes a job whose store counts its requests.
    fn metered_job(&self) -> (Job, Meter) {
        let (job, meter) = (self.plane.job(self.target(), true, Withheld::default()), Meter::default());
        let store = Store::directory(self.store.path()).unwrap().with_meter(meter.clone());
        assert_eq!(job.add_origin(store, Pipeline::default()).unwrap(), 0);
        (job, meter)
    }

    fn assemble(&self, job: &Job, item: Assembly) -> Result<Action, Error> {
        self.wait(job.assemble(item))?;
        self.ended(job).remove(0)
    }
}

#[test]
fn a_file_is_put_together_from_pieces_in_any_order() {
    let bytes = noise(1, 700_000);
    let scene = Scene::new();
    // The first object has the blocks 2 and 0, the second the rest, each compressed on its own, with bytes that are not used.
    let two_and_zero = [&bytes[400_000..600_000], b"unused", &bytes[..200_000]].concat();
    let (first, second) = (
        zstd::bulk::compress(&two_and_zero, 1).unwrap(),
        zstd::bulk::compress(&[&bytes[200_000..400_000], &bytes[600_000..]].concat(), 1).unwrap(),
    );
    scene.object("one", &[b"before".as_slice(), &first, &[0; 70_000], &first].concat());
    scene.object("two", &second);
    let job = scene.job_via(Pipeline { decompress: Some(crate::codec::Codec::Zstd), ..Pipeline::default() });
    let pieces = vec![
        piece(
            "one",
            Some((6, first.len() as u64)),
            two_and_zero.len() as u64,
            &[(0, 400_000, 200_000), (200_006, 0, 200_000)],
        ),
        piece("two", None, 300_000, &[(0, 200_000, 200_000), (200_000, 600_000, 100_000)]),
    ];
    let ended = scene.assemble(&job, Assembly { mode: Some(0o444), ..assembly("base/1", &bytes, pieces) });
    assert_eq!(ended, Ok(Action::Written));
    assert!(scene.read("base/1") == bytes);
    let metadata = fs::metadata(scene.path("base/1")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::mtime(&metadata), 1_600_000_000);
    assert_eq!(job.progress(), (700_000, 1));
}

#[test]
fn adjacent_pieces_need_one_request() {
    let bytes = noise(2, 100_000);
    let scene = Scene::new();
    scene.object("one", &bytes);
    let (job, meter) = scene.metered_job();
    let pieces = (0..100).map(|number| {
        let at = number * 1000;
        piece("one", Some((at, 1000)), 1000, &[(0, at, 1000)])
    });
    let pieces: Vec<_> = pieces.collect();
    assert_eq!(scene.assemble(&job, assembly("one", &bytes, pieces)), Ok(Action::Written));
    assert!(scene.read("one") == bytes);
    assert_eq!(meter.requests(), 1);
}

#[test]
fn pieces_that_alternate_between_objects_need_one_request_for_each_object() {
    let bytes = noise(7, 100_000);
    let scene = Scene::new();
    let of_object =
        |first: usize| -> Vec<u8> { bytes.chunks(1000).skip(first).step_by(2).flatten().copied().collect() };
    scene.object("newer", &of_object(0));
    scene.object("older", &of_object(1));
    let pieces = (0..100_u64).map(|number| {
        let object = if number % 2 == 0 { "newer" } else { "older" };
        piece(object, Some((number / 2 * 1000, 1000)), 1000, &[(0, number * 1000, 1000)])
    });
    let (job, meter) = scene.metered_job();
    assert_eq!(scene.assemble(&job, assembly("one", &bytes, pieces.collect())), Ok(Action::Written));
    assert!(scene.read("one") == bytes);
    assert_eq!(meter.requests(), 2);
}

#[test]
fn an_empty_file_needs_no_piece() {
    let scene = Scene::new();
    assert_eq!(scene.assemble(&scene.job(), assembly("empty", b"", Vec::new())), Ok(Action::Written));
    assert!(scene.read("empty").is_empty());
}

#[test]
fn the_same_file_is_kept_and_only_differing_blocks_are_fetched() {
    let bytes = noise(3, 10_500);
    let halves =
        || vec![piece("low", None, 5000, &[(0, 0, 5000)]), piece("high", None, 5500, &[(0, 5000, 5500)])];
    let item = |bytes: &[u8]| Assembly {
        keep_same: true,
        blocks: blocks(bytes),
        ..assembly("base/1", bytes, halves())
    };
    for (what, existing, needs_low, needs_high) in [
        ("same", bytes.clone(), false, false),
        (
            "a changed byte",
            {
                let mut old = bytes.clone();
                old[1] ^= 1;
                old
            },
            true,
            false,
        ),
        (
            "a changed last block",
            {
                let mut old = bytes.clone();
                old[10_400] ^= 1;
                old
            },
            false,
            true,
        ),
        ("longer", [&bytes[..], b"more"].concat(), false, false),
        ("shorter", bytes[..7000].to_vec(), false, true),
        ("a part of a block is missing", bytes[..10_400].to_vec(), false, true),
        ("empty", Vec::new(), true, true),
    ] {
        let scene = Scene::new();
        scene.object("low", &bytes[..5000]);
        scene.object("high", &bytes[5000..]);
        fs::create_dir(scene.path("base")).unwrap();
        fs::write(scene.path("base/1"), &existing).unwrap();
        if !needs_low {
            fs::remove_file(scene.store.path().join("low")).unwrap();
        }
        if !needs_high {
            fs::remove_file(scene.store.path().join("high")).unwrap();
        }
        let action = if what == "same" { Action::Kept } else { Action::Written };
        let job = scene.job();
        let recorded = Recorded::of(&job);
        assert_eq!(scene.assemble(&job, item(&bytes)), Ok(action), "{what}");
        let moved = u64::from(needs_low) * 5000 + u64::from(needs_high) * 5500;
        assert_eq!(recorded.moved(), [(moved, moved)], "{what}");
        assert!(scene.read("base/1") == bytes, "{what}");
    }
    // A file with another name is replaced, and the other name keeps its content.
    let scene = Scene::new();
    scene.object("low", &bytes[..5000]);
    scene.object("high", &bytes[5000..]);
    fs::create_dir(scene.path("base")).unwrap();
    fs::write(scene.path("other"), b"old").unwrap();
    fs::hard_link(scene.path("other"), scene.path("base/1")).unwrap();
    assert_eq!(scene.assemble(&scene.job(), item(&bytes)), Ok(Action::Written));
    assert_eq!(scene.read("other"), b"old");
}

#[test]
fn a_file_with_wrong_bytes_is_removed_and_named() {
    let bytes = noise(4, 3000);
    for (what, size, stored) in [
        ("its checksum is", 3000, noise(5, 3000)),
        ("more than the 3000 bytes", 3000, noise(4, 3001)),
        ("has 2999 bytes", 3000, noise(4, 2999)),
    ] {
        let scene = Scene::new();
        scene.object("object", &stored);
        let pieces = vec![piece("object", None, size, &[(0, 0, 3000)])];
        let error = scene.assemble(&scene.job(), assembly("base/1", &bytes, pieces)).unwrap_err();
        assert_eq!(error.kind, Kind::Corrupt, "{error:?}");
        assert!(error.message.contains("`base/1`") && error.message.contains(what), "{error:?}");
        assert!(!scene.path("base/1").exists());
    }
    let scene = Scene::new();
    let pieces = vec![piece("nowhere", None, 3000, &[(0, 0, 3000)])];
    let error = scene.assemble(&scene.job(), assembly("base/1", &bytes, pieces)).unwrap_err();
    assert!(error.kind == Kind::NotFound && error.message.contains("nowhere"), "{error:?}");
}

#[test]
fn pieces_that_do_not_give_every_byte_once_are_invalid() {
    let bytes = noise(6, 3000);
    let whole = (0, 0, 3000);
    for (what, item) in [
        ("once", assembly("a", &bytes, Vec::new())),
        ("once", assembly("a", &bytes, vec![piece("o", None, 3000, &[(0, 0, 2999)])])),
        ("once", assembly("a", &bytes, vec![piece("o", None, 3001, &[(0, 0, 3001)])])),
        (
            "once",
            assembly("a", &bytes, vec![piece("o", None, 3000, &[whole]), piece("o", None, 1, &[(0, 0, 1)])]),
        ),
        ("once", assembly("a", &bytes, vec![piece("o", None, 3000, &[(0, 1, 2999)])])),
        ("overlap", assembly("a", &bytes, vec![piece("o", None, 2999, &[whole])])),
        ("overlap", assembly("a", &bytes, vec![piece("o", None, 3000, &[(1, 0, 2000), (0, 2000, 1000)])])),
        ("overlap", assembly("a", &bytes, vec![piece("o", None, 3000, &[(0, 0, 0), whole])])),
        ("largest", assembly("a", &bytes, vec![piece("o", None, u64::MAX, &[(u64::MAX, 0, 3000)])])),
        ("range", assembly("a", &bytes, vec![piece("o", Some((u64::MAX, 2)), 3000, &[whole])])),
        ("origin 7", assembly("a", &bytes, vec![Piece { origin: 7, ..piece("o", None, 3000, &[whole]) }])),
        ("../a", assembly("../a", &bytes, vec![piece("o", None, 3000, &[whole])])),
        (
            "digests",
            Assembly {
                blocks: blocks(&bytes[..2000]),
                ..assembly("a", &bytes, vec![piece("o", None, 3000, &[whole])])
            },
        ),
        (
            "at least",
            Assembly {
                blocks: Some(BlockDigests { size: 0, length: 6, values: Vec::new() }),
                ..assembly("a", &bytes, vec![piece("o", None, 3000, &[whole])])
            },
        ),
    ] {
        let scene = Scene::new();
        let error = scene.assemble(&scene.job(), item).unwrap_err();
        assert!(error.kind == Kind::Invalid && error.message.contains(what), "{what}: {error:?}");
    }
}

#[test]
fn a_file_has_a_bounded_number_of_pieces_and_extents() {
    let scene = Scene::new();
    let many = vec![piece("o", None, 1, &[]); MOST_PIECES + 1];
    let error = scene.assemble(&scene.job(), assembly("a", b"", many)).unwrap_err();
    assert_eq!(error.kind, Kind::Limit, "{error:?}");
    let extents: Vec<_> = (0..=MOST_EXTENTS as u64).map(|at| (at, at, 1)).collect();
    let bytes = vec![0; MOST_EXTENTS + 1];
    let pieces = vec![piece("o", None, bytes.len() as u64, &extents)];
    let error = scene.assemble(&scene.job(), assembly("a", &bytes, pieces)).unwrap_err();
    assert_eq!(error.kind, Kind::Limit, "{error:?}");
}
