use super::*;
use crate::digest::Algorithm;

fn listed(path: &str) -> Listed {
    let digest = Digest { algorithm: Algorithm::Crc32c, value: vec![1, 2, 3, 4] };
    Listed { path: path.to_owned(), size: 8192, digest: Some(digest) }
}

#[test]
fn added_files_are_found_with_their_size_and_digest() {
    let listing = Listing::new();
    let sha = Digest { algorithm: Algorithm::Sha512, value: (0..64).collect() };
    listing
        .add(vec![
            listed("base/1"),
            Listed { path: "base/2".to_owned(), size: u64::MAX, digest: Some(sha.clone()) },
            Listed { path: "./base//3".to_owned(), size: 0, digest: None },
        ])
        .unwrap();
    let expect = |path| match listing.expect(path) {
        Ok(Expected::Listed { size, digest, .. }) => (size, digest),
        other => panic!("{path}: {other:?}"),
    };
    assert_eq!(expect("base/1"), (8192, listed("").digest));
    assert_eq!(expect("base/2"), (u64::MAX, Some(sha)));
    assert_eq!(expect("base/3"), (0, None));
}

#[test]
fn a_file_that_is_not_listed_or_occurs_twice_is_refused() {
    let listing = Listing::new();
    listing.add(vec![listed("base/1")]).unwrap();
    assert_eq!(listing.expect("base/2").unwrap_err().kind, Kind::Corrupt);
    listing.expect("base/1").unwrap();
    assert_eq!(listing.expect("base/1").unwrap_err().message, "it occurs twice");
}

#[test]
fn a_tolerated_file_need_not_be_listed_but_is_compared_if_it_is() {
    let listing = Listing::new();
    listing.add(vec![listed("pg_wal/listed")]).unwrap();
    listing.tolerate(vec!["backup_label".to_owned(), "pg_wal/".to_owned()]).unwrap();
    assert_eq!(listing.expect("backup_label").unwrap(), Expected::Tolerated);
    assert_eq!(listing.expect("pg_wal/archive_status/x").unwrap(), Expected::Tolerated);
    assert!(matches!(listing.expect("pg_wal/listed"), Ok(Expected::Listed { .. })));
    for path in ["backup_label.old", "backup_label/x", "pg_wal", "pg_wal2/x", "base/pg_wal/x"] {
        assert!(listing.expect(path).is_err(), "{path}");
    }
}

#[test]
fn all_files_are_added_or_none() {
    let listing = Listing::new();
    listing.add(vec![listed("base/1")]).unwrap();
    let short = Digest { algorithm: Algorithm::Sha1, value: vec![0; 19] };
    for wrong in [
        listed("base/1"),
        listed("./base/1"),
        listed("base/2"),
        listed("../base/3"),
        listed("/base/3"),
        listed(""),
        listed("a\0b"),
        Listed { digest: Some(short), ..listed("base/3") },
    ] {
        let shown = format!("{wrong:?}");
        let error = listing.add(vec![listed("base/2"), wrong]).unwrap_err();
        assert_eq!(error.kind, Kind::Invalid, "{shown}");
        assert!(listing.expect("base/2").is_err(), "{shown}");
    }
}

#[test]
fn files_that_no_archive_contained_are_missing_in_the_order_of_their_names() {
    let listing = Listing::new();
    listing.add((0..100).rev().map(|file| listed(&format!("base/{file:03}"))).collect()).unwrap();
    let Ok(Expected::Listed { number, .. }) = listing.expect("base/001") else { panic!() };
    // The file has begun but is not complete, so it is still missing.
    listing.expect("base/000").unwrap();
    listing.mark_complete(number);
    assert_eq!(listing.missing(2), ["base/000", "base/002"]);
    assert_eq!(listing.missing(1000).len(), 99);
    assert!(listing.missing(0).is_empty());
}

#[test]
fn a_hundred_thousand_files_are_all_found() {
    let listing = Listing::new();
    let name = |file: u32| format!("base/{}/{file}", file % 7);
    for start in (0..100_000).step_by(4096) {
        listing.add((start..(start + 4096).min(100_000)).map(|file| listed(&name(file))).collect()).unwrap();
    }
    for file in 0..100_000 {
        let Ok(Expected::Listed { number, .. }) = listing.expect(&name(file)) else { panic!("{file}") };
        listing.mark_complete(number);
    }
    assert!(listing.missing(1).is_empty());
}

#[test]
fn the_number_of_files_is_bounded() {
    assert_eq!(Listing::new().most, MOST);
    // The real maximum would take more than half a gigabyte.
    let listing = Listing { most: 3, ..Listing::default() };
    listing.add(vec![listed("base/1"), listed("base/2")]).unwrap();
    let error = listing.add(vec![listed("base/3"), listed("base/4")]).unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (Kind::Limit, "a listing holds at most 3 files"));
    // Neither file was added.
    listing.add(vec![listed("base/4")]).unwrap();
    assert_eq!(listing.missing(4), ["base/1", "base/2", "base/4"]);
}

#[test]
fn the_number_of_tolerated_paths_is_bounded() {
    let listing = Listing::new();
    listing.tolerate((0..MOST_TOLERATED).map(|path| path.to_string()).collect()).unwrap();
    assert_eq!(listing.tolerate(vec!["x".to_owned()]).unwrap_err().kind, Kind::Limit);
}

#[test]
fn listed_and_tolerated_paths_are_charged_and_given_back() {
    let memory = Budget::memory(8 << 20);
    let listing = Listing::within(&memory);
    let batch = |round: usize| {
        let path = |number: usize| format!("{round}/{number:0>200}/{number:0>200}");
        (0..1000).map(|number| Listed { path: path(number), size: 1, digest: None }).collect::<Vec<_>>()
    };
    let (refused, rounds) =
        (0..100).find_map(|round| Some((listing.add(batch(round)).err()?, round))).unwrap();
    assert_eq!(refused.kind, Kind::Limit);
    assert!((10..20).contains(&rounds), "{rounds}");
    // No file from the last batch was added.
    assert_eq!(listing.inner().records.len(), 1000 * rounds);
    let path = |number: usize| format!("{number:0>3000}");
    assert_eq!(listing.tolerate((0..3000).map(path).collect()).unwrap_err().kind, Kind::Limit);
    drop(listing);
    assert_eq!(memory.held(), 0);
}
