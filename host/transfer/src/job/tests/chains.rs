use ustar::written::{archive, directory, file};

use super::*;
use crate::budget::Budget as Memory;
use crate::chain::{Chain, IncrementFormat};
use crate::codec::Codec;
use crate::listing::Listed;

const PAGE: usize = 8192;

fn postgresql(end: u32, pages: &[(u32, u8)]) -> Vec<u8> {
    let mut bytes = 0xd3ae_1f0d_u32.to_le_bytes().to_vec();
    bytes.extend((pages.len() as u32).to_le_bytes());
    bytes.extend(end.to_le_bytes());
    pages.iter().for_each(|(number, _)| bytes.extend(number.to_le_bytes()));
    if !pages.is_empty() {
        bytes.resize(bytes.len().next_multiple_of(PAGE), 0);
    }
    pages.iter().for_each(|(_, byte)| bytes.extend([*byte; PAGE]));
    bytes
}

fn wal_g(size: u64, pages: &[(u32, u8)]) -> Vec<u8> {
    let mut bytes = b"wi1\x55".to_vec();
    bytes.extend(size.to_le_bytes());
    bytes.extend((pages.len() as u32).to_le_bytes());
    pages.iter().for_each(|(number, _)| bytes.extend(number.to_le_bytes()));
    pages.iter().for_each(|(_, byte)| bytes.extend([*byte; PAGE]));
    bytes
}

/// Makes a file from the bytes that fill its pages.
fn pages(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().flat_map(|byte| [*byte; PAGE]).collect()
}

fn chain(format: IncrementFormat) -> Arc<Chain> {
    Arc::new(Chain::within(&Memory::unlimited(), format, PAGE as u32).unwrap())
}

/// Unpacks the archives of a chain, the newest first, and returns the job of the last.
fn unpack_all(scene: &Scene, chain: &Arc<Chain>, archives: &[Vec<u8>]) -> Result<(), Error> {
    for (number, bytes) in archives.iter().enumerate() {
        let name = format!("{number}.tar");
        scene.object(&name, bytes);
        if number > 0 {
            chain.begin_older()?;
        }
        scene.unpack_link(&scene.job(), unpack(&name), None, chain)?;
    }
    Ok(())
}

#[test]
fn each_page_comes_from_the_newest_backup_that_has_it() {
    let scene = Scene::new();
    let chain = chain(IncrementFormat::Postgresql);
    let newest = archive(&[
        directory("base/5/"),
        file("base/5/INCREMENTAL.1", &postgresql(6, &[(1, 31), (5, 35)])),
        // Longer than the older ones, by a page that is in the increment and one that is nowhere.
        file("base/5/INCREMENTAL.2", &postgresql(2, &[(3, 33)])),
        // Shorter than the older ones.
        file("base/5/INCREMENTAL.3", &postgresql(1, &[])),
        file("base/5/INCREMENTAL.4", &postgresql(0, &[])),
        file("base/5/5", b"a whole file"),
        file("global/6", b""),
    ]);
    let middle = archive(&[
        directory("base/5/"),
        directory("base/dropped/"),
        file("base/5/INCREMENTAL.1", &postgresql(4, &[(0, 20), (1, 21)])),
        file("base/5/INCREMENTAL.2", &postgresql(4, &[(0, 20), (2, 22), (3, 23)])),
        file("base/5/3", &pages(&[23, 24])),
        file("base/5/INCREMENTAL.4", &postgresql(1, &[])),
        file("base/5/INCREMENTAL.5", &postgresql(1, &[(0, 20)])),
        file("base/dropped/INCREMENTAL.9", &postgresql(1, &[(0, 20)])),
    ]);
    let oldest = archive(&[
        file("base/5/1", &pages(&[10, 11, 12, 13])),
        file("base/5/2", &pages(&[10, 11, 12, 13, 14])),
        file("base/5/3", &pages(&[10])),
        file("base/5/4", &pages(&[10])),
        file("base/5/5", b"an older file"),
        file("pg_tblspc/99/PG_17/5/1", b"of a tablespace that was dropped"),
    ]);
    unpack_all(&scene, &chain, &[newest, middle]).unwrap();
    assert_eq!(chain.missing(10), ["base/5/1", "base/5/2", "base/5/4"]);
    scene.object("oldest.tar", &oldest);
    let job = scene.job();
    chain.begin_older().unwrap();
    scene.unpack_link(&job, unpack("oldest.tar"), None, &chain).unwrap();
    assert!(chain.missing(10).is_empty());
    assert!(scene.read("base/5/1") == pages(&[20, 31, 12, 13, 0, 35]));
    assert!(scene.read("base/5/2") == pages(&[20, 11, 0, 33]));
    assert!(scene.read("base/5/3") == pages(&[23]));
    assert!(scene.read("base/5/4").is_empty());
    assert_eq!(scene.read("base/5/5"), b"a whole file");
    assert!(!scene.path("base/dropped").exists() && !scene.path("pg_tblspc/99").exists());
    // Of the oldest backup, only the three pages that were still missing were written.
    assert_eq!(job.progress(), (3 * PAGE as u64, 3));
}

#[test]
fn increments_of_wal_g_are_known_by_their_beginning() {
    let scene = Scene::new();
    let chain = chain(IncrementFormat::WalG);
    chain.want(vec!["base/5/3".to_owned(), "base/5/4".to_owned()]).unwrap();
    let newest = archive(&[
        // WAL-G ignores pages beyond the size of the file.
        file("base/5/1", &wal_g(3 * PAGE as u64, &[(1, 31), (7, 37)])),
        file("base/5/2", &pages(&[30])),
        file("base/5/x", b"wi1\x55 is only text here"),
        file("base/5/6", b"wi1"),
    ]);
    let older = archive(&[
        file("base/5/1", &pages(&[10, 11, 12, 13])),
        file("base/5/2", &pages(&[10, 11])),
        file("base/5/3", &wal_g(2 * PAGE as u64, &[(0, 20)])),
        file("base/5/4", &pages(&[14])),
        file("base/5/9", &pages(&[19])),
    ]);
    let oldest = archive(&[file("base/5/3", &pages(&[10, 13, 13]))]);
    unpack_all(&scene, &chain, &[newest, older, oldest]).unwrap();
    assert!(chain.missing(10).is_empty());
    assert!(scene.read("base/5/1") == pages(&[10, 31, 12]));
    assert!(scene.read("base/5/2") == pages(&[30]));
    assert!(scene.read("base/5/3") == pages(&[20, 13]));
    assert!(scene.read("base/5/4") == pages(&[14]));
    assert_eq!(scene.read("base/5/x"), b"wi1\x55 is only text here");
    assert_eq!(scene.read("base/5/6"), b"wi1");
    assert!(!scene.path("base/5/9").exists());
}

#[test]
fn pages_that_a_middle_backup_of_wal_g_has_cut_off_do_not_come_back() {
    let scene = Scene::new();
    let chain = chain(IncrementFormat::WalG);
    // The file shrank to two pages and grew to four, whose last pages are zeros and therefore in no increment.
    let newest = archive(&[file("base/5/1", &wal_g(4 * PAGE as u64, &[(0, 30)]))]);
    let middle = archive(&[file("base/5/1", &wal_g(2 * PAGE as u64, &[]))]);
    let oldest = archive(&[file("base/5/1", &pages(&[10, 11, 12, 13]))]);
    unpack_all(&scene, &chain, &[newest, middle, oldest]).unwrap();
    assert!(scene.read("base/5/1") == pages(&[30, 11, 0, 0]));
}

#[test]
fn large_and_small_files_of_a_compressed_chain_are_combined() {
    // Large files are written while they arrive, small ones in batches.
    for count in [3_u32, 40, 1000] {
        let scene = Scene::with_workers(3);
        let chain = chain(IncrementFormat::Postgresql);
        let full: Vec<Vec<u8>> = (0..20).map(|seed| noise(seed, count as usize * PAGE)).collect();
        let changed = |seed: u32| (0..count).filter(move |page| (page + seed).is_multiple_of(3));
        let member = |seed: usize| {
            let pages: Vec<_> = changed(seed as u32).map(|page| (page, seed as u8)).collect();
            file(&format!("base/5/INCREMENTAL.{seed}"), &postgresql(count, &pages))
        };
        let increments: Vec<_> = (0..20).map(member).collect();
        let wholes: Vec<_> =
            full.iter().enumerate().map(|(seed, bytes)| file(&format!("base/5/{seed}"), bytes)).collect();
        for (name, members) in [("newest", &increments), ("full", &wholes)] {
            scene.object(name, &zstd::bulk::compress(&archive(members), 1).unwrap());
        }
        let job = scene.job_via(Pipeline { decompress: Some(Codec::Zstd), ..Pipeline::default() });
        scene.unpack_link(&job, unpack("newest"), None, &chain).unwrap();
        chain.begin_older().unwrap();
        scene.unpack_link(&job, unpack("full"), None, &chain).unwrap();
        for (seed, bytes) in full.iter().enumerate() {
            let mut expected = bytes.clone();
            for page in changed(seed as u32) {
                expected[page as usize * PAGE..][..PAGE].fill(seed as u8);
            }
            assert!(scene.read(&format!("base/5/{seed}")) == expected, "{count} {seed}");
        }
        assert!(chain.missing(1).is_empty());
    }
}

#[test]
fn files_of_a_plain_chain_are_combined_as_archives_are() {
    let scene = Scene::new();
    let chain = chain(IncrementFormat::Postgresql);
    let (newest, middle) = (postgresql(4, &[(1, 31)]), postgresql(3, &[(0, 20)]));
    scene.object("2/INCREMENTAL.1", &newest);
    scene.object("2/2", b"whole");
    scene.object("2/3", b"");
    scene.object("1/INCREMENTAL.1", &middle);
    scene.object("0/1", &pages(&[10, 11, 12]));
    let item = |object: &str, path: &str, bytes: &[u8]| Fetch {
        digest: crc(bytes),
        ..fetch(object, path, bytes.len() as u64)
    };
    let add = |items: Vec<Fetch>| {
        let job = scene.job();
        scene.wait(job.fetch_link(items, Arc::clone(&chain))).unwrap();
        scene.ended(&job)
    };
    let written = add(vec![
        item("2/INCREMENTAL.1", "base/5/INCREMENTAL.1", &newest),
        item("2/2", "base/5/2", b"whole"),
        Fetch { range: Some(Range { offset: 0, length: 0 }), ..item("2/3", "base/5/3", b"") },
    ]);
    chain.begin_older().unwrap();
    assert_eq!(written, [Ok(Action::Written), Ok(Action::Written), Ok(Action::Written)]);
    let ended = add(vec![
        item("1/INCREMENTAL.1", "base/5/INCREMENTAL.1", &middle),
        // A file that is not needed is not read: there is no such object.
        item("1/gone", "base/5/2", b"older"),
    ]);
    assert_eq!(ended, [Ok(Action::Written), Ok(Action::Kept)]);
    assert_eq!(chain.missing(9), ["base/5/1"]);
    chain.begin_older().unwrap();
    add(vec![item("0/1", "base/5/1", &pages(&[10, 11, 12]))]);
    assert!(chain.missing(9).is_empty());
    assert!(scene.read("base/5/1") == pages(&[20, 31, 12, 0]));
    assert!(scene.read("base/5/2") == b"whole" && scene.read("base/5/3").is_empty());
    let job = scene.job();
    for item in [
        Fetch { at: Some(0), ..item("2/2", "base/5/9", b"whole") },
        Fetch { overwrite: Overwrite::UnlessSameContent, ..item("2/2", "base/5/9", b"whole") },
    ] {
        let error = scene.wait(job.fetch_link(vec![item], Arc::clone(&chain))).unwrap_err();
        assert!(error.kind == Kind::Invalid && error.message.contains("base/5/9"), "{error:?}");
    }
    for (size, stored) in [(5, &b"longer"[..]), (5, b"cut")] {
        scene.object("bad", stored);
        let bad = Fetch { digest: None, size, ..item("bad", "base/5/bad", b"") };
        let job = scene.job();
        scene.wait(job.fetch_link(vec![bad], self::chain(IncrementFormat::WalG))).unwrap();
        let error = scene.ended(&job).remove(0).unwrap_err();
        assert_eq!(error.kind, Kind::Corrupt, "{error:?}");
        assert!(!scene.path("base/5/bad").exists());
    }
}

#[test]
fn members_are_compared_with_their_digests_whether_or_not_they_are_written() {
    let increment = postgresql(2, &[(1, 31)]);
    let whole = pages(&[10, 11]);
    for damaged in ["base/5/INCREMENTAL.1", "base/5/1", "base/5/unneeded"] {
        let scene = Scene::new();
        let chain = chain(IncrementFormat::Postgresql);
        let listing = |files: &[(&str, &[u8])]| {
            let listing = Listing::new();
            let listed = files.iter().map(|(path, bytes)| {
                let expected = if *path == damaged { crc(b"other") } else { crc(bytes) };
                Listed { path: (*path).to_owned(), size: bytes.len() as u64, digest: expected }
            });
            listing.add(listed.collect()).unwrap();
            Arc::new(listing)
        };
        scene.object("newest", &archive(&[file("base/5/INCREMENTAL.1", &increment)]));
        scene.object("older", &archive(&[file("base/5/1", &whole), file("base/5/unneeded", b"x")]));
        let newest = listing(&[("base/5/INCREMENTAL.1", &increment)]);
        let older = listing(&[("base/5/1", &whole), ("base/5/unneeded", b"x")]);
        let ended = scene
            .unpack_link(&scene.job(), unpack("newest"), Some(&newest), &chain)
            .and_then(|()| chain.begin_older())
            .and_then(|()| scene.unpack_link(&scene.job(), unpack("older"), Some(&older), &chain));
        let error = ended.unwrap_err();
        assert_eq!(error.kind, Kind::Corrupt, "{damaged}: {error:?}");
        assert!(error.message.contains(damaged), "{damaged}: {error:?}");
    }
}

#[test]
fn an_archive_that_cannot_belong_to_a_chain_fails_by_name() {
    let one = file("base/5/INCREMENTAL.1", &postgresql(2, &[(1, 31)]));
    let cut = &postgresql(2, &[(1, 31)])[..10];
    for (members, kind, why) in [
        (vec![one.clone(), one.clone()], Kind::Corrupt, "INCREMENTAL.1"),
        (vec![one.clone(), file("base/5/1", b"x")], Kind::Corrupt, "base/5/1"),
        (vec![file("base/5/INCREMENTAL.1", cut)], Kind::Corrupt, "within the header"),
        (vec![file("base/5/INCREMENTAL.1", b"no increment at all")], Kind::Corrupt, "does not begin"),
        (vec![file("base/5/INCREMENTAL...", &postgresql(0, &[]))], Kind::Invalid, "INCREMENTAL..."),
        (vec![file("base/INCREMENTAL.pg_control", &postgresql(0, &[]))], Kind::Invalid, "pg_control"),
        (vec![file("pg_tblspc/9/INCREMENTAL.1", &postgresql(0, &[]))], Kind::Invalid, "tablespace 9"),
    ] {
        let scene = Scene::new();
        let chain = chain(IncrementFormat::Postgresql);
        let ended = unpack_all(&scene, &chain, &[archive(&members)]);
        let error = ended.unwrap_err();
        // Two workers may begin with two members of the same file at the same time; then creating the second file fails.
        let is_twice = members.len() == 2;
        assert!(error.kind == kind || is_twice && error.kind == Kind::Failed, "{why}: {error:?}");
        assert!(error.message.contains(why) || is_twice && error.kind == Kind::Failed, "{why}: {error:?}");
    }
    let scene = Scene::new();
    let refused = Unpack { refuse: vec!["base/5/1".to_owned()], ..unpack("0.tar") };
    scene.object("0.tar", &archive(&[one]));
    let chain = chain(IncrementFormat::Postgresql);
    let error = scene.unpack_link(&scene.job(), refused, None, &chain).unwrap_err();
    assert!(error.message.contains("must not contain"), "{error:?}");
}

#[test]
fn the_disk_budget_covers_the_whole_size_of_a_file_with_some_pages() {
    let scene = Scene::new();
    scene.budget.bytes.store(100 * PAGE as u64, Ordering::Relaxed);
    let fits = archive(&[file("base/5/INCREMENTAL.1", &postgresql(100, &[(99, 1)]))]);
    unpack_all(&scene, &chain(IncrementFormat::Postgresql), &[fits]).unwrap();
    let exceeds = archive(&[file("base/5/INCREMENTAL.2", &postgresql(1, &[]))]);
    let error = unpack_all(&scene, &chain(IncrementFormat::Postgresql), &[exceeds]).unwrap_err();
    assert_eq!(error.kind, Kind::Limit, "{error:?}");
    assert!(!scene.path("base/5/2").exists());
}

#[test]
fn only_the_bytes_that_a_file_of_a_chain_lacked_count_as_written() {
    let scene = Scene::new();
    let chain = chain(IncrementFormat::Postgresql);
    let moved = |object: &str, path: &str, bytes: &[u8]| {
        scene.object(object, bytes);
        let job = scene.job();
        let recorded = Recorded::of(&job);
        let items = vec![fetch(object, path, bytes.len() as u64)];
        scene.wait(job.fetch_link(items, Arc::clone(&chain))).unwrap();
        assert_eq!(scene.ended(&job), [Ok(Action::Written)], "{object}");
        recorded.moved()
    };
    let increment = postgresql(3, &[(0, 30), (2, 32)]);
    let page = PAGE as u64;
    assert_eq!(moved("newest", "base/5/INCREMENTAL.1", &increment), [(increment.len() as u64, 2 * page)]);
    chain.begin_older().unwrap();
    assert_eq!(moved("full", "base/5/1", &pages(&[10, 11, 12])), [(3 * page, page)]);
    assert!(scene.read("base/5/1") == pages(&[30, 11, 32]));
}

#[test]
fn a_file_of_a_chain_whose_object_changes_while_it_is_read_is_not_complete() {
    let scene = Scene::new();
    let chain = chain(IncrementFormat::Postgresql);
    scene.object("whole", b"whole");
    let job = scene.job();
    let held = scene.hold();
    scene.wait(job.fetch_link(vec![fetch("whole", "base/5/1", 5)], Arc::clone(&chain))).unwrap();
    held.wait_until_blocked();
    // As if other bytes of the same length had been written.
    let object = File::options().write(true).open(scene.store.path().join("whole")).unwrap();
    object.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1_600_000_000)).unwrap();
    held.release();
    let error = scene.ended(&job).remove(0).unwrap_err();
    assert_eq!(error.kind, Kind::Corrupt, "{error:?}");
    assert!(error.message.contains("changed while it was read"), "{error:?}");
    assert_eq!(chain.missing(9), ["base/5/1"]);
    assert!(!scene.path("base/5/1").exists());
}
