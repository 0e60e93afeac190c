use ustar::written::{archive, file};

use super::*;
use crate::chain::IncrementFormat;
use crate::codec::Codec;
use crate::pages::tests::{CHECKS, damaged, written};

const PAGE: u64 = 8192;

/// Makes a job that checks pages.
fn checking(scene: &Scene, via: Pipeline) -> Job {
    let job = scene.job_via(via);
    job.check_pages(CHECKS).unwrap();
    job
}

fn plain(scene: &Scene) -> Job {
    checking(scene, Pipeline::default())
}

/// Checks that the error names the file and the block.
fn names(ended: Result<(), Error>, file: &str, block: u32) {
    let error = ended.unwrap_err();
    assert_eq!(error.kind, Kind::Corrupt);
    for word in [format!("`{file}`"), format!("its block {block} has the page checksum ")] {
        assert!(error.message.contains(&word), "`{word}` is not in {error}");
    }
}

/// Makes an increment of a file of three pages in the format of WAL-G.
fn increment(pages: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = b"wi1\x55".to_vec();
    bytes.extend((3 * PAGE).to_le_bytes());
    bytes.extend((pages.len() as u32).to_le_bytes());
    pages.iter().for_each(|(number, _)| bytes.extend(number.to_le_bytes()));
    pages.iter().for_each(|(_, page)| bytes.extend(page));
    bytes
}

#[test]
fn a_file_with_a_damaged_page_is_not_fetched_however_it_is_stored() {
    // Large enough for every way of copying.
    let whole: Vec<u8> = (0..40).flat_map(|number| written(number, 1, number as u8)).collect();
    let broken = [&whole[..39 * PAGE as usize], &damaged(39, 1, 1)].concat();
    for via in [None, Some(Codec::Zstd)] {
        let scene = Scene::new();
        let stored = |bytes: &[u8]| via.map_or(bytes.to_vec(), |_| zstd::bulk::compress(bytes, 1).unwrap());
        scene.object("whole", &stored(&whole));
        scene.object("broken", &stored(&broken));
        let job = checking(&scene, Pipeline { decompress: via, ..Pipeline::default() });
        let size = whole.len() as u64;
        let ended = scene.fetch(
            &job,
            vec![
                fetch("whole", "base/5/1", size),
                fetch("broken", "base/5/2", size),
                fetch("broken", "base/5/pg_filenode.map", size),
                Fetch { digest: crc(&broken), ..fetch("broken", "base/5/3", size) },
            ],
        );
        assert_eq!(ended[0], Ok(Action::Written));
        names(ended[1].clone().map(drop), "base/5/2", 39);
        assert!(!scene.path("base/5/2").exists(), "{via:?}");
        // A file without pages, and a file that has a digest.
        assert_eq!(ended[2..], [Ok(Action::Written), Ok(Action::Written)]);
        let ended = scene.fetch(
            &scene.job_via(Pipeline { decompress: via, ..Pipeline::default() }),
            vec![fetch("broken", "base/5/2", size)],
        );
        assert_eq!(ended, [Ok(Action::Written)], "without checks");
    }
}

#[test]
fn a_part_of_a_file_is_checked_at_its_place() {
    let scene = Scene::new();
    scene.object("part", &[written(3, 1, 1), damaged(4, 1, 1)].concat());
    let part = |at| Fetch { at: Some(at), ..fetch("part", "base/5/1", 2 * PAGE) };
    names(scene.fetch(&plain(&scene), vec![part(3 * PAGE)]).remove(0).map(drop), "base/5/1", 4);
    names(scene.fetch(&plain(&scene), vec![part(2 * PAGE)]).remove(0).map(drop), "base/5/1", 2);
}

#[test]
fn an_existing_file_with_a_damaged_page_is_not_kept() {
    let scene = Scene::new();
    scene.object("broken", &damaged(0, 1, 1));
    fs::create_dir_all(scene.path("base/5")).unwrap();
    fs::write(scene.path("base/5/1"), damaged(0, 1, 1)).unwrap();
    let item = Fetch { overwrite: Overwrite::UnlessSameContent, ..fetch("broken", "base/5/1", PAGE) };
    names(scene.fetch(&plain(&scene), vec![item]).remove(0).map(drop), "base/5/1", 0);
}

#[test]
fn small_and_large_files_of_archives_are_checked() {
    let large: Vec<u8> = (0..200).flat_map(|number| written(number, 1, number as u8)).collect();
    let broken = [&large[..], &damaged(200, 1, 1)].concat();
    for (name, bytes, block) in [("base/5/1", &damaged(0, 1, 1), 0), ("base/5/2_fsm", &broken, 200)] {
        let scene = Scene::new();
        let members = [file("base/5/3", &large), file("base/5/4", b"no page"), file(name, bytes)];
        scene.object("base.tar", &archive(&members));
        names(scene.unpack(&plain(&scene), unpack("base.tar"), None), name, block);
        // What is not written is not checked.
        let skipped = Unpack { skip: vec![name.to_owned()], ..unpack("base.tar") };
        let other = Scene::new();
        other.object("base.tar", &archive(&members));
        other.unpack(&plain(&other), skipped, None).unwrap();
    }
}

#[test]
fn an_archive_that_is_unpacked_below_a_folder_is_checked_by_the_whole_path() {
    let scene = Scene::new();
    scene.object("part.tar", &archive(&[file("1", &damaged(0, 1, 1))]));
    let below = |path: &str| Unpack { path: path.to_owned(), ..unpack("part.tar") };
    scene.unpack(&plain(&scene), below("pg_wal/5"), None).unwrap();
    names(scene.unpack(&plain(&scene), below("base/5"), None), "base/5/1", 0);
}

#[test]
fn the_pages_of_a_chain_are_checked_if_they_are_written() {
    let unpack_all = |archives: [Vec<u8>; 2]| {
        let scene = Scene::new();
        let chain = Chain::within(&crate::budget::Budget::unlimited(), IncrementFormat::WalG, PAGE as u32);
        let chain = Arc::new(chain.unwrap());
        let job = plain(&scene);
        for (number, bytes) in archives.iter().enumerate() {
            if number > 0 {
                chain.begin_older()?;
            }
            scene.object(&format!("{number}.tar"), bytes);
            scene.unpack_link(&job, unpack(&format!("{number}.tar")), None, &chain)?;
        }
        assert_eq!(chain.missing(9), Vec::<String>::new());
        Ok(())
    };
    let newest = |page| archive(&[file("/base/5/1", &increment(&[(1, page)]))]);
    let oldest = |first, last| archive(&[file("/base/5/1", &[first, damaged(1, 1, 1), last].concat())]);
    let good = |number| written(number, 1, 1);
    // The damaged page of the older backup is replaced by the newer backup's page.
    unpack_all([newest(good(1)), oldest(good(0), good(2))]).unwrap();
    names(unpack_all([newest(damaged(1, 1, 1)), oldest(good(0), good(2))]), "base/5/1", 1);
    names(unpack_all([newest(good(1)), oldest(good(0), damaged(2, 1, 1))]), "base/5/1", 2);
    // Replay repairs a page that changed while the newest backup was made, and no other.
    unpack_all([newest(damaged(1, 0x180, 1)), oldest(good(0), good(2))]).unwrap();
}

#[test]
fn whether_pages_are_checked_is_said_once_and_before_items_are_added() {
    let scene = Scene::new();
    scene.object("a", b"a");
    let job = plain(&scene);
    assert_eq!(job.check_pages(CHECKS).unwrap_err().kind, Kind::Invalid);
    let job = scene.job();
    scene.fetch(&job, vec![fetch("a", "a", 1)]);
    assert_eq!(job.check_pages(CHECKS).unwrap_err().kind, Kind::Invalid);
}
