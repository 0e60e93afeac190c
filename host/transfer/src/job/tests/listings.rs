use ustar::written::{archive, directory, file};

use super::*;
use crate::listing::Listed;

fn listed(path: &str, bytes: &[u8]) -> Listed {
    Listed { path: path.to_owned(), size: bytes.len() as u64, digest: crc(bytes) }
}

fn listing(files: Vec<Listed>) -> Arc<Listing> {
    let listing = Listing::new();
    listing.add(files).unwrap();
    Arc::new(listing)
}

#[test]
fn an_archive_with_the_listed_files_is_unpacked_and_nothing_is_missing() {
    let scene = Scene::new();
    let (small, large) = (noise(1, 8192), noise(2, 3_000_000));
    scene.object(
        "a.tar",
        &archive(&[directory("base/"), file("base/1", &small), file("base/2", &large), file("extra/x", b"")]),
    );
    let listing = listing(vec![listed("base/1", &small), listed("base/2", &large), listed("base/3", b"")]);
    listing.tolerate(vec!["extra/".to_owned()]).unwrap();
    scene.unpack(&scene.job(), unpack("a.tar"), Some(&listing)).unwrap();
    assert_eq!(listing.missing(10), ["base/3"]);
    assert!(scene.read("base/2") == large);
}

#[test]
fn a_file_that_differs_from_the_listing_fails_with_the_names_of_archive_and_file() {
    for large in [false, true] {
        let bytes = noise(1, if large { 1_000_000 } else { 8192 });
        let mut flipped = bytes.clone();
        flipped[bytes.len() / 2] ^= 1;
        let longer = [&bytes[..], b"x"].concat();
        let fine = file("base/1", &bytes);
        for (what, members) in [
            ("checksum", vec![file("base/1", &flipped)]),
            ("is listed with", vec![file("base/1", &longer)]),
            ("is listed with", vec![file("base/1", &bytes[1..])]),
            ("occurs twice", vec![fine.clone(), fine.clone()]),
            ("not in the backup's list", vec![fine.clone(), file("base/1x", &bytes)]),
        ] {
            for skip in [false, true] {
                let scene = Scene::new();
                scene.object("dir/a.tar", &archive(&members));
                let listing = listing(vec![listed("base/1", &bytes), listed("base/other", b"")]);
                let skip = if skip { vec!["base/1".to_owned()] } else { Vec::new() };
                let error = scene
                    .unpack(&scene.job(), Unpack { skip, ..unpack("dir/a.tar") }, Some(&listing))
                    .unwrap_err();
                assert_eq!(error.kind, Kind::Corrupt, "{error}");
                for part in [what, "`dir/a.tar` of ", "`base/1"] {
                    assert!(error.message.contains(part), "{error}");
                }
                assert!(listing.missing(9).contains(&"base/other".to_owned()));
            }
        }
    }
}

#[test]
fn a_file_that_failed_its_check_counts_as_missing_and_is_removed() {
    let scene = Scene::new();
    scene.object("a.tar", &archive(&[file("base/1", b"wrong")]));
    let listing = listing(vec![listed("base/1", b"right")]);
    scene.unpack(&scene.job(), unpack("a.tar"), Some(&listing)).unwrap_err();
    assert_eq!(listing.missing(10), ["base/1"]);
    assert!(!scene.path("base/1").exists());
}

#[test]
fn several_archives_share_a_listing() {
    let scene = Scene::new();
    let files: Vec<_> = (0..400).map(|number| (format!("base/{number}"), noise(number, 3000))).collect();
    let listing = listing(files.iter().map(|(path, bytes)| listed(path, bytes)).collect());
    let job = scene.job();
    for (number, part) in files.chunks(50).enumerate() {
        let members: Vec<_> = part.iter().map(|(path, bytes)| file(path, bytes)).collect();
        scene.object(&format!("{number}.tar"), &archive(&members));
        scene.wait(job.unpack(unpack(&format!("{number}.tar")), Some(Arc::clone(&listing)))).unwrap();
    }
    assert_eq!(scene.ended(&job), vec![Ok(Action::Written); 8]);
    assert!(listing.missing(1).is_empty());
    assert!(files.iter().all(|(path, bytes)| scene.read(path) == *bytes));
}

#[test]
fn the_control_file_is_compared_under_the_name_that_it_has_in_the_backup() {
    let scene = Scene::new();
    scene.object("a.tar", &archive(&[file("global/pg_control", b"control")]));
    let listing = listing(vec![listed("global/pg_control", b"control")]);
    scene.unpack(&scene.job(), unpack("a.tar"), Some(&listing)).unwrap();
    assert!(listing.missing(1).is_empty());
    assert_eq!(scene.read("global/pg_control.understudy"), b"control");
    assert!(!scene.path("global/pg_control").exists());
}
