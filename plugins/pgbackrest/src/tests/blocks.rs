//! Tests for files that are stored in blocks. The stand-in reads plain blocks only; compressed and encrypted blocks, and the checksums of
//! blocks, are tested with the real host.

use super::*;
use crate::block_map::tests::{CHECKSUM, Item, Place, encode, store};
use crate::blocks::BlockFile;

const DIFFERENTIAL: &str = "20261126-043406F_20261126-043410D";
const LABELS: [&str; 3] = [FULL, DIFFERENTIAL, INCREMENTAL];
const BLOCK: usize = 8192;

/// The file that is stored in blocks.
const FILE: &str = "pg_data/base/5/1259";

/// Returns the line of the file in the scene's manifests.
fn whole_line(label: &str) -> String {
    let reference = if label == FULL { String::new() } else { format!("\"reference\":\"{FULL}\",") };
    let sum = sha1(&[7; 20_000]);
    format!("{FILE}={{\"checksum\":\"{sum}\",{reference}\"size\":20000,\"timestamp\":1795667644}}\n")
}

/// A file in blocks, as the last backup has it.
struct Stored {
    bytes: Vec<u8>,
    items: Vec<Item>,
    /// The map and its place: the object, and the offset in the object.
    map: Vec<u8>,
    object: String,
    map_at: usize,
    /// The line of the manifest.
    line: String,
}

/// Stores the versions of a file in the backups `labels`, one after the other, in bundles or in objects of its own. Returns the last.
fn versions(scene: &Scene, labels: &[&str], versions: &[Vec<u8>], is_bundled: bool) -> Stored {
    let mut items = Vec::new();
    let mut last = None;
    for (reference, (label, bytes)) in labels.iter().zip(versions).enumerate() {
        let (bundle, offset) = if is_bundled { (7, 100) } else { (0, 0) };
        let place = Place { reference, bundle, offset: offset as u64 };
        let (now, added) = store(bytes, &items, place, (BLOCK, 3 * BLOCK), &|plain| plain.len() as u64);
        let map = encode(&now, BLOCK as u64);
        let super_blocks: Vec<u8> = added.into_iter().flat_map(|(plain, _)| plain).collect();
        let map_at = offset + super_blocks.len();
        let stored = super_blocks.len() + map.len();
        let (object, place) = if is_bundled {
            (format!("backup/main/{label}/bundle/7"), format!("\"bni\":7,\"bno\":{offset},"))
        } else {
            (format!("backup/main/{label}/{FILE}.pgbi"), String::new())
        };
        let beside = if is_bundled { vec![b'x'; offset] } else { Vec::new() };
        scene.put(&object, [&beside[..], &super_blocks, &map, &beside].concat());
        let reference =
            if *label == INCREMENTAL { String::new() } else { format!("\"reference\":\"{label}\",") };
        let line = format!(
            "{FILE}={{\"bi\":1,\"bim\":{},{place}\"checksum\":\"{}\",{reference}\"repo-size\":{stored},\"size\":{},\
             \"timestamp\":1795667644}}\n",
            map.len(),
            sha1(bytes),
            bytes.len()
        );
        items = now.clone();
        last = Some(Stored { bytes: bytes.clone(), items: now, map, object, map_at, line });
    }
    last.unwrap()
}

/// Makes a repository with three backups whose newest has the file `stored` in blocks.
fn with_blocks(scene: &Scene, stored: &Stored) {
    let info = "backup/main/backup.info";
    let differential = format!(
        "{DIFFERENTIAL}={{\"backrest-version\":\"2.46\",\"backup-timestamp-stop\":1795667650,\"db-id\":1}}\n"
    );
    scene.edit(info, &format!("{INCREMENTAL}={{"), &format!("{differential}{INCREMENTAL}={{"));
    scene.put(&format!("backup/main/{DIFFERENTIAL}/backup.manifest"), "not read");
    scene.edit_manifest(&whole_line(INCREMENTAL), &stored.line);
    scene.edit_manifest(
        "backup-type=\"full\"",
        &format!("backup-reference=\"{}\"\nbackup-type=\"full\"", LABELS.join(",")),
    );
}

/// Returns a file in three versions: blocks change twice, and the file grows.
fn grown() -> Vec<Vec<u8>> {
    let mut bytes: Vec<u8> = (0..80_000_u32).map(|at| (at / 1000) as u8).collect();
    let mut all = vec![bytes.clone()];
    for change in [&[2, 5][..], &[0, 5]] {
        for block in change {
            bytes[block * BLOCK] ^= 0xff;
        }
        bytes.extend([change.len() as u8; 5000]);
        all.push(bytes.clone());
    }
    all
}

#[test]
fn a_full_backup_in_blocks_is_restored() {
    for is_bundled in [true, false] {
        let scene = Scene::new();
        let stored = versions(&scene, &[FULL], &grown(), is_bundled);
        let manifest = format!("backup/main/{FULL}/backup.manifest");
        let line = stored.line.replace(&format!("\"reference\":\"{FULL}\","), "");
        scene.edit(&manifest, &whole_line(FULL), &line);
        scene.edit(
            &manifest,
            "backup-type=\"full\"",
            &format!("backup-reference=\"{FULL}\"\nbackup-type=\"full\""),
        );
        let (result, record) = scene.create_of(&scene.request().with("backup", FULL));
        assert_eq!(result, Ok(()), "{is_bundled}");
        assert_eq!(scene.read("data/base/5/1259"), stored.bytes);
        assert_eq!(record.expected, (Some(record.bytes), Some(record.files)));
    }
}

#[test]
fn blocks_come_from_every_backup_of_the_chain() {
    let mut shrunk = grown();
    shrunk.push(shrunk[1][..30_000].to_vec());
    shrunk.remove(1);
    for (name, versions_of_file) in [("grown", grown()), ("shrunk", shrunk)] {
        for (is_bundled, count) in [(true, 3), (false, 3), (true, 2), (false, 1)] {
            let scene = Scene::new();
            let stored = versions(&scene, &LABELS[..count], &versions_of_file, is_bundled);
            with_blocks(&scene, &stored);
            let used: std::collections::BTreeSet<_> =
                stored.items.iter().map(|item| item.reference).collect();
            assert!(used.len() > 1 || count == 1, "{used:?}");
            let (result, record) = scene.create_of(&scene.request());
            assert_eq!(result, Ok(()), "{name} {is_bundled} {count}");
            assert_eq!(scene.read("data/base/5/1259"), stored.bytes, "{name} {is_bundled} {count}");
            let mode = fs::metadata(scene.path("data/base/5/1259")).unwrap().mode();
            assert_eq!(mode & 0o7777, 0o600);
            assert_eq!(record.expected, (Some(record.bytes), Some(record.files)));
        }
    }
}

#[test]
fn with_delta_a_different_file_gets_the_blocks_and_the_same_file_is_kept() {
    let scene = Scene::new();
    let stored = versions(&scene, &LABELS, &grown(), true);
    with_blocks(&scene, &stored);
    let request = scene.request().with("delta", true);
    let plan = scene.plan_of(&request).0.unwrap();
    fs::create_dir_all(scene.path("data/base/5")).unwrap();
    fs::write(scene.path("data/base/5/1259"), &grown()[0]).unwrap();
    assert_eq!(scene.host().run(|| PgBackRest::create(&request, &plan)).0, Ok(()));
    assert_eq!(scene.read("data/base/5/1259"), stored.bytes);
    // The blocks are not needed for a file that is there already.
    scene.remove(&format!("backup/main/{FULL}/bundle/7"));
    assert_eq!(scene.host().run(|| PgBackRest::create(&request, &plan)).0, Ok(()));
    fs::write(scene.path("data/base/5/1259"), &grown()[0]).unwrap();
    let failure = scene.host().run(|| PgBackRest::create(&request, &plan)).0.unwrap_err().to_string();
    assert!(failure.contains(&format!("{FULL}/bundle/7")), "{failure}");
}

#[test]
fn the_item_has_a_piece_for_each_super_block_and_the_digests_for_delta() {
    let scene = Scene::new();
    let stored = versions(&scene, &LABELS, &grown(), true);
    with_blocks(&scene, &stored);
    let options = Options::of(&scene.request()).unwrap();
    let (result, _) = scene.host().run(|| {
        let usable = |chosen: &choice::Chosen<files::Files>| plan::usable(chosen, false);
        let (chosen, _) = choice::choose(&options, &mut files::Files::default, &usable)?;
        let file = chosen.contents.find("base/5/1259").unwrap();
        let parts = file.blocks.as_deref().unwrap();
        let digest = |value: u8| understudy::transfer::Digest {
            algorithm: understudy::transfer::Algorithm::Sha1,
            value: vec![value; 20],
        };
        let item = |is_delta: bool| {
            let opened = BlockFile::open(&chosen, file, parts)?;
            Ok::<_, Failure>(opened.assembly(4, Some(0o640), digest(1), is_delta))
        };
        Ok::<_, Failure>((item(false)?, item(true)?))
    });
    let (item, delta) = result.unwrap();
    assert_eq!((item.size, item.mode, item.keep_same), (stored.bytes.len() as u64, Some(0o640), false));
    assert!(item.blocks.is_none() && delta.keep_same);
    let digests = delta.blocks.unwrap();
    assert_eq!((digests.size, digests.length), (BLOCK as u32, CHECKSUM as u32));
    let checksums: Vec<u8> = stored.items.iter().flat_map(|item| item.checksum).collect();
    assert_eq!(digests.values, checksums);
    let mut places: Vec<_> = stored.items.iter().map(|item| (item.reference, item.offset)).collect();
    places.sort_unstable();
    places.dedup();
    assert_eq!(item.pieces.len(), places.len());
    for piece in &item.pieces {
        assert!(piece.origin == 4 && piece.object.ends_with("/bundle/7"), "{piece:?}");
        assert_eq!(piece.range.map(|range| range.length), Some(piece.size), "nothing is compressed");
        let ordered = piece.extents.is_sorted_by(|one, other| one.offset + one.length <= other.offset);
        assert!(ordered && !piece.extents.is_empty(), "{piece:?}");
    }
}

#[test]
fn plan_reports_a_backup_that_only_a_block_map_could_refer_to() {
    let scene = Scene::new();
    let stored = versions(&scene, &LABELS, &grown(), true);
    with_blocks(&scene, &stored);
    assert!(scene.plan().is_ok());
    scene.remove(&format!("backup/main/{DIFFERENTIAL}/backup.manifest"));
    let refusal = scene.refusal();
    assert!(refusal.contains(&format!("the backup {DIFFERENTIAL}, which is gone")), "{refusal}");
}

#[test]
fn plan_looks_for_the_object_of_a_file_in_blocks() {
    let scene = Scene::new();
    let stored = versions(&scene, &LABELS, &grown(), false);
    with_blocks(&scene, &stored);
    // No other object has a longer name.
    let long = format!("{FILE}_{}", "b".repeat(60));
    scene.edit_manifest(&stored.line, &format!("{}{}", stored.line, stored.line.replace(FILE, &long)));
    let refusal = scene.refusal();
    assert!(refusal.contains("which is not in the repository"), "{refusal}");
    scene.put(&format!("backup/main/{INCREMENTAL}/{long}.pgbi"), "");
    assert!(scene.plan().is_ok());
}

#[test]
fn blocks_of_the_beta_are_refused_by_name() {
    let info = "backup/main/backup.info";
    for release in ["2.45", "2.44", "2.45dev"] {
        let scene = Scene::new();
        let stored = versions(&scene, &LABELS[..2], &grown(), true);
        with_blocks(&scene, &stored);
        scene.edit(info, "\"backrest-version\":\"2.46\"", &format!("\"backrest-version\":\"{release}\""));
        let refusal = scene.refusal();
        assert!(refusal.contains(DIFFERENTIAL) && refusal.contains("the beta"), "{refusal}");
    }
    // The file is in the newest backup, and its map refers to blocks of the beta.
    let scene = Scene::new();
    let stored = versions(&scene, &LABELS, &grown(), true);
    with_blocks(&scene, &stored);
    scene.edit(info, "\"backrest-version\":\"2.46\"", "\"backrest-version\":\"2.45\"");
    let failure = scene.create_of(&scene.request()).0.unwrap_err().to_string();
    assert!(failure.contains(DIFFERENTIAL) && failure.contains("the beta"), "{failure}");
    // Bundles are raw if the full backup was taken with blocks.
    scene.edit(info, &format!("{FULL}={{"), &format!("{FULL}={{\"backrest-version\":\"2.45\","));
    scene.edit_manifest("backup-type=\"full\"", "backup-bundle-raw=true\nbackup-type=\"full\"");
    let refusal = scene.refusal();
    assert!(refusal.contains(FULL) && refusal.contains("the beta"), "{refusal}");
}

#[test]
fn the_failure_names_the_file_and_the_object_of_a_bad_map() {
    /// Changes the blocks that the map names.
    type Change = fn(&mut Vec<Item>);
    let cases: [(Change, &str); 6] = [
        (|items| items.iter_mut().for_each(|item| item.bundle = 8), "are not in the part with the file"),
        (
            |items| items.iter_mut().filter(|item| item.reference == 2).for_each(|item| item.offset -= 1),
            "points to the bytes 99 to",
        ),
        (
            |items| items.iter_mut().filter(|item| item.reference == 2).for_each(|item| item.offset += 1),
            "are not in the part with the file",
        ),
        (
            |items| items.iter_mut().for_each(|item| item.reference += 1),
            "refers to the backup 4 of the list, which has 3",
        ),
        (|items| items.iter_mut().for_each(|item| item.stored -= 1), "though nothing is compressed"),
        (
            |items| items.iter_mut().for_each(|item| item.plain = (16 << 20) + BLOCK as u64 + 1),
            "plain bytes: 1 to 16785408 are allowed",
        ),
    ];
    for (change, what) in cases {
        let scene = Scene::new();
        let stored = versions(&scene, &LABELS, &grown(), true);
        with_blocks(&scene, &stored);
        let plan = scene.plan().unwrap();
        let mut items = stored.items.clone();
        change(&mut items);
        let map = encode(&items, BLOCK as u64);
        let mut object = fs::read(scene.path("repo").join(&stored.object)).unwrap();
        object.truncate(stored.map_at);
        object.extend(&map);
        scene.put(&stored.object, object);
        let line =
            stored.line.replace(&format!("\"bim\":{}", stored.map.len()), &format!("\"bim\":{}", map.len()));
        let size = |length: usize| format!("\"repo-size\":{}", stored.map_at - 100 + length);
        let line = line.replace(&size(stored.map.len()), &size(map.len()));
        scene.edit_manifest(&stored.line, &line);
        let failure = scene.host().run(|| PgBackRest::create(&scene.request(), &plan)).0.unwrap_err();
        let failure = failure.to_string();
        for what in [what, "base/5/1259", &format!("repo:{}", stored.object), "take a new full backup"] {
            assert!(failure.contains(what), "{what}: {failure}");
        }
    }
}

#[test]
fn a_map_does_not_refer_to_a_newer_backup_than_its_own() {
    let scene = Scene::new();
    let stored = versions(&scene, &LABELS[..2], &grown(), true);
    with_blocks(&scene, &stored);
    let mut items = stored.items.clone();
    items.iter_mut().filter(|item| item.reference == 1).for_each(|item| item.reference = 2);
    let map = encode(&items, BLOCK as u64);
    assert_eq!(map.len(), stored.map.len());
    let mut object = fs::read(scene.path("repo").join(&stored.object)).unwrap();
    object.splice(stored.map_at..stored.map_at + map.len(), map);
    scene.put(&stored.object, object);
    let failure = scene.create_of(&scene.request()).0.unwrap_err().to_string();
    assert!(failure.contains(&format!("the backup {INCREMENTAL}, which is newer than the map")), "{failure}");
}

#[test]
fn plan_refuses_what_a_manifest_cannot_say_of_blocks() {
    let list = format!("backup-reference=\"{}\"", LABELS.join(","));
    for (from, to, what) in [
        ("\"bi\":1", "\"bi\":0".to_owned(), "blocks of 0 bytes"),
        ("\"bi\":1", "\"bi\":524288".to_owned(), "blocks of 4294967296 bytes"),
        ("\"bi\":1,", String::new(), "has a block map and no block size"),
        ("\"bi\":1", "\"bi\":1,\"bic\":0".to_owned(), "checksums of 0 bytes"),
        ("\"bi\":1", "\"bi\":1,\"bic\":17".to_owned(), "checksums of 17 bytes"),
        ("\"bim\":", "\"bim\":9".to_owned(), "would have a block map of"),
        ("\"repo-size\":", "\"repo-size\":1,\"x\":".to_owned(), "in 1 stored bytes"),
        (&list, format!("backup-reference=\"{FULL}\""), "which backup-reference does not list"),
        (&list, format!("backup-reference=\"{FULL},{FULL}\""), "twice"),
        (&list, "backup-reference=\"../x\"".to_owned(), "not a label"),
        (&list, "backup-reference2=\"\"".to_owned(), "and no backup-reference"),
    ] {
        let scene = Scene::new();
        let stored = versions(&scene, &LABELS, &grown(), true);
        with_blocks(&scene, &stored);
        let refusal = scene.edit_manifest(from, &to).refusal();
        assert!(refusal.contains(what) && refusal.contains("backup.manifest"), "{to} {refusal}");
    }
}

#[test]
fn a_block_map_is_as_large_as_its_file_can_need() {
    // 20,000 bytes in blocks of 8 KiB are three blocks.
    let most = 3 * (6 + 32) + 1024;
    for (length, is_allowed) in [(most, true), (most + 1, false)] {
        let scene = Scene::new();
        let stored = versions(&scene, &LABELS, &grown(), true);
        with_blocks(&scene, &stored);
        let line = format!(
            "{FILE}={{\"bi\":1,\"bim\":{length},\"bni\":7,\"checksum\":\"{}\",\"repo-size\":90000,\"size\":20000}}\n",
            sha1(b"")
        );
        scene.edit_manifest(&stored.line, &line);
        let plan = scene.plan();
        assert_eq!(plan.is_ok(), is_allowed, "{plan:?}");
    }
    let scene = Scene::new();
    let stored = versions(&scene, &LABELS, &grown(), true);
    with_blocks(&scene, &stored);
    let line = format!(
        "{FILE}={{\"bi\":1,\"bim\":16777217,\"bni\":7,\"checksum\":\"{}\",\"repo-size\":99999999,\"size\":99999999999}}\n",
        sha1(b"")
    );
    let refusal = scene.edit_manifest(&stored.line, &line).refusal();
    assert!(refusal.contains("at most 16777216 are allowed"), "{refusal}");
}

#[test]
fn a_control_file_in_blocks_is_read_in_plan() {
    let scene = Scene::new();
    let object = format!("backup/main/{INCREMENTAL}/pg_data/global/pg_control");
    scene.remove(&object);
    let place = Place { reference: 0, bundle: 0, offset: 0 };
    let (items, _) = store(&control(), &[], place, (BLOCK, BLOCK), &|plain| plain.len() as u64);
    let map = encode(&items, BLOCK as u64);
    let bytes = [&control()[..], &map].concat();
    scene.put(&format!("{object}.pgbi"), &bytes);
    let blocks = format!(
        "pg_data/global/pg_control={{\"bi\":1,\"bim\":{},\"repo-size\":{},\"checksum\":",
        map.len(),
        bytes.len()
    );
    scene.edit_manifest("pg_data/global/pg_control={\"checksum\":", &blocks);
    scene.edit_manifest(
        "backup-type=\"full\"",
        &format!("backup-reference=\"{INCREMENTAL}\"\nbackup-type=\"full\""),
    );
    let (result, _) = scene.create_of(&scene.request());
    assert_eq!(result, Ok(()));
    assert_eq!(scene.read(&format!("data/{UNFINISHED_CONTROL_FILE}")), control());
    scene.put(&format!("{object}.pgbi"), [&[1; 8192][..], &map].concat());
    assert!(scene.refusal().contains("a checksum that differs from the manifest"));
}

#[test]
fn an_empty_file_needs_no_block_map() {
    let scene = Scene::new();
    scene.edit_manifest("pg_data/base/5/16390={", "pg_data/base/5/16390={\"bi\":1,\"bim\":9,");
    let (result, _) = scene.create_of(&scene.request());
    assert_eq!(result, Ok(()));
    assert_eq!(scene.read("data/base/5/16390"), b"");
}
