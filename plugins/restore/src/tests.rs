//! Tests with a small archive: a folder of plain segments.

use std::fs;
use std::path::Path;

use postgres_formats::Lsn;
use postgres_formats::segment::SegmentSize;
use understudy::native::{Host, Record, Source};
use understudy::source::Position;
use understudy::store::{Bucket, Codec};
use understudy::transfer::{Job, Unless};
use understudy::{Datadir, Failure, Request};

use crate::transfer::{WalFiles, restore_wal};
use crate::wal::{Archive, Backup, Found, History, Needed, Route, Stored, Wal};

const MIB: u64 = 1 << 20;

/// The folder `archive` of the granted store `store`.
#[derive(Debug)]
struct Folder(Bucket);

impl Archive for Folder {
    fn find(&mut self, name: &str) -> Result<Option<Found>, Failure> {
        let found = self.0.find(&format!("archive/{name}"))?;
        Ok(found.map(|object| Found::One(Stored { object: object.key, codec: None, digest: None })))
    }

    fn forget(&mut self) {}

    fn shown(&self, name: &str) -> Result<String, Failure> {
        Ok(format!("store:archive/{name}"))
    }

    fn histories(&self, _timeline: u32) -> Result<Vec<Vec<u8>>, Failure> {
        Ok(vec![b"1\t0/99\tanother".to_vec()])
    }

    fn is_opened(&self) -> bool {
        true
    }

    fn shown_object(&self, key: &str) -> String {
        format!("store:{key}")
    }

    fn place(&self) -> &'static str {
        "folder"
    }

    fn origin(&self, job: &mut Job, codec: Option<Codec>) -> Result<u32, Failure> {
        assert_eq!(codec, None);
        Ok(job.origin_of(&self.0, codec, || None)?)
    }
}

fn between(timeline: u32, start: u64, stop: u64) -> Backup {
    Backup {
        shown: "the backup x".to_owned(),
        system_identifier: Some(1),
        needed: Some(Needed::Between { timeline, start: Lsn(start), stop: Lsn(stop) }),
        stop: Some(Lsn(stop)),
    }
}

fn size() -> Result<SegmentSize, Failure> {
    Ok(SegmentSize::new(MIB).unwrap())
}

fn segment(number: u64) -> String {
    format!("0000000100000000{number:08X}")
}

/// Runs `method` with the segments `numbers` in the archive.
fn run<T>(
    root: &Path,
    numbers: &[u64],
    source: Option<Source>,
    method: impl FnOnce(Folder) -> T,
) -> (T, Record) {
    for folder in ["store/archive", "data", "data/pg_wal"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    for number in numbers {
        let path = root.join("store/archive").join(segment(*number));
        fs::write(path, vec![*number as u8; MIB as usize]).unwrap();
    }
    let host = Host::new(root.join("data")).store("store", root.join("store"));
    let host = if let Some(source) = source { host.source(source) } else { host };
    host.run(|| method(Folder(Bucket::open("store").unwrap())))
}

fn names(route: &mut Route<Folder>) -> Result<Vec<String>, Failure> {
    Ok(route.next_segments(&|_| false)?.into_iter().map(|segment| segment.name).collect())
}

#[test]
fn the_segments_between_two_positions_are_needed() {
    let root = tempfile::tempdir().unwrap();
    for (start, stop, numbers) in [
        (3 * MIB + 40, 5 * MIB + 1, &[3, 4, 5][..]),
        // The byte at the stop is not needed.
        (3 * MIB + 40, 5 * MIB, &[3, 4]),
        (3 * MIB, 3 * MIB, &[3]),
        (3 * MIB + 40, 3 * MIB + 40, &[3]),
    ] {
        let (found, _) = run(root.path(), &[2, 3, 4, 5, 6], None, |archive| {
            let route = Route::of(&between(1, start, stop), archive, Wal::Consistent, size())?;
            names(&mut route.unwrap())
        });
        let expected: Vec<_> = numbers.iter().map(|number| segment(*number)).collect();
        assert_eq!(found, Ok(expected), "{start} {stop}");
    }
}

#[test]
fn positions_that_contradict_each_other_are_refused_with_the_name_of_the_backup() {
    let root = tempfile::tempdir().unwrap();
    for backup in [between(1, 5 * MIB, 4 * MIB), between(0, 4 * MIB, 5 * MIB)] {
        let (refused, _) = run(root.path(), &[], None, |archive| {
            Route::of(&backup, archive, Wal::Consistent, size()).map(drop)
        });
        let failure = refused.unwrap_err().to_string();
        assert!(failure.starts_with("the backup x begins with 0/"), "{failure}");
    }
}

#[test]
fn a_missing_segment_is_named_and_no_size_is_needed_without_wal() {
    let root = tempfile::tempdir().unwrap();
    let backup = between(1, 3 * MIB, 5 * MIB);
    let (found, _) = run(root.path(), &[3], None, |archive| {
        names(&mut Route::of(&backup, archive, Wal::Consistent, size())?.unwrap())
    });
    let failure = found.unwrap_err().to_string();
    assert!(failure.contains(&format!("there is no store:archive/{}", segment(4))), "{failure}");
    let unknown = || Err(Failure::failed("the size is unknown"));
    let none = |wal, backup: &Backup| {
        run(root.path(), &[], None, |archive| {
            Route::of(backup, archive, wal, unknown()).map(|it| it.is_none())
        })
        .0
    };
    assert_eq!(none(Wal::None, &backup), Ok(true));
    assert_eq!(none(Wal::Consistent, &Backup { needed: None, ..backup.clone() }), Ok(true));
    assert_eq!(none(Wal::Consistent, &backup), Err(Failure::failed("the size is unknown")));
}

#[test]
fn segments_are_restored_and_marked_as_archived_and_those_without_a_digest_are_replaced() {
    let root = tempfile::tempdir().unwrap();
    let source = Source {
        server_version: 150_018,
        system_identifier: 1,
        position: Position { timeline: 1, lsn: 9 * MIB },
        history: Vec::new(),
    };
    let old = root.path().join("data/pg_wal").join(segment(3));
    fs::create_dir_all(old.parent().unwrap()).unwrap();
    fs::write(&old, vec![0; MIB as usize]).unwrap();
    let (result, record) = run(root.path(), &[3, 4, 5], Some(source), |archive| {
        let bucket = Bucket::open("store")?;
        let mut route = Route::of(&between(1, 3 * MIB, 4 * MIB), archive, Wal::Latest, size())?.unwrap();
        let segments = route.next_segments(&|_| false)?;
        let expected = (Some(segments.len() as u64 * MIB), Some(2 * segments.len() as u64));
        let datadir =
            Datadir::of(&Request::default().for_datadir(root.path().join("data").to_string_lossy()))?;
        restore_wal(&mut route, segments, &|_| false, expected, 2, &mut |route, segments| {
            let mut job = Job::new();
            let origin = job.origin(&bucket, None)?;
            let files = WalFiles::new(origin, "nothing".to_owned(), Some(0o600), Unless::SameDigest);
            for segment in segments {
                files.segment(&mut job, route, segment)?;
            }
            let history = History { name: "00000002.history".to_owned(), text: b"1\t0/99\tx".to_vec() };
            files.history(&mut job, &history, &datadir)?;
            job.finish().map(drop)
        })
    });
    assert_eq!(result, Ok(()));
    for number in [3, 4, 5] {
        let path = root.path().join("data/pg_wal").join(segment(number));
        assert_eq!(fs::read(path).unwrap(), vec![number as u8; MIB as usize]);
        let status = format!("data/pg_wal/archive_status/{}.done", segment(number));
        assert_eq!(fs::read(root.path().join(status)).unwrap(), b"");
    }
    assert!(root.path().join("data/pg_wal/archive_status/00000002.history.done").exists());
    assert_eq!((record.bytes, record.files), (3 * MIB + 8, 8));
}

#[test]
fn the_message_about_a_history_of_another_cluster_names_what_clusters_archive_to() {
    let root = tempfile::tempdir().unwrap();
    let source = Source {
        server_version: 150_018,
        system_identifier: 1,
        position: Position { timeline: 2, lsn: 9 * MIB },
        history: vec![understudy::source::Ancestor { timeline: 1, ended_at: 8 * MIB }],
    };
    let (result, _) = run(root.path(), &[3], Some(source), |archive| {
        Route::of(&between(1, 3 * MIB, 4 * MIB), archive, Wal::Consistent, size())?.unwrap().histories()
    });
    let failure = result.unwrap_err().to_string();
    assert!(failure.contains("archived to this folder"), "{failure}");
}

#[test]
fn the_option_has_three_choices() {
    assert_eq!(Wal::of(None), Ok(Wal::Consistent));
    let choices = Wal::CHOICES.map(|name| Wal::of(Some(name)).unwrap());
    assert_eq!(choices, [Wal::None, Wal::Consistent, Wal::Latest]);
    assert!(Wal::of(Some("all")).unwrap_err().to_string().contains("none, consistent, latest"));
}

#[test]
fn the_number_of_segments_is_bounded() {
    let root = tempfile::tempdir().unwrap();
    for (segments, is_allowed) in [(100_000, true), (100_001, false)] {
        let (found, _) = run(root.path(), &[], None, |archive| {
            let backup = between(1, 0, segments * MIB);
            let mut route = Route::of(&backup, archive, Wal::Consistent, size())?.unwrap();
            // The backup itself has every segment.
            route.next_segments(&|_| true)
        });
        match found {
            Ok(found) => assert!(is_allowed && found.len() as u64 == segments),
            Err(failure) => {
                assert!(!is_allowed && failure.to_string().contains("more than 100000"), "{failure}")
            }
        }
    }
}
