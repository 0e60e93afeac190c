//! Tests for the WAL that is restored to `pg_wal`.

use understudy::native::Source;
use understudy::source::{Ancestor, Position};

use super::*;

/// Makes a source on timeline `current`. `timelines` has each ancestor timeline, with the segment and the offset in the segment at which
/// the timeline ended.
pub(super) fn source(timelines: &[(u32, u32, u64)], current: u32) -> Source {
    let ended_at = |segment: u32, after: u64| u64::from(segment) * SEGMENT as u64 + after;
    Source {
        server_version: 150_018,
        system_identifier: SYSTEM_IDENTIFIER,
        position: Position { timeline: current, lsn: 0x0900_0000 },
        history: timelines
            .iter()
            .map(|(timeline, segment, after)| Ancestor {
                timeline: *timeline,
                ended_at: ended_at(*segment, *after),
            })
            .collect(),
    }
}

/// Plans and restores with the latest WAL of `source`. Returns the names of the files in `pg_wal`.
fn latest(scene: &Scene, source: &Source) -> Result<Vec<String>, Failure> {
    let request = scene.request().with("wal", "latest");
    let host = || scene.host().source(source.clone());
    let plan = host().run(|| PgBackRest::plan(&request)).0?;
    let (result, record) = host().run(|| PgBackRest::create(&request, &plan));
    result?;
    assert_eq!(record.expected, (Some(record.bytes), Some(record.files)));
    let names = |folder: &str| {
        let entries = fs::read_dir(scene.path(folder)).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let mut all = names("wal");
    all.retain(|name| name != "archive_status");
    let done: Vec<_> = all.iter().map(|name| format!("{name}.done")).collect();
    assert_eq!(names("wal/archive_status"), done);
    Ok(all)
}

/// Returns the name of a 1 MiB segment.
fn segment(timeline: u32, number: u32) -> String {
    format!("{timeline:08X}00000000{number:08X}")
}

#[test]
fn without_wal_the_archive_is_not_read() {
    let scene = Scene::new();
    fs::remove_dir_all(scene.path("repo/archive")).unwrap();
    let request = scene.request().with("wal", "none");
    let (result, record) = scene.create_of(&request);
    assert_eq!(result, Ok(()));
    assert_eq!(record.expected, (Some(record.bytes), Some(record.files)));
    assert!(!scene.path("wal/000000010000000000000040").exists());
    let refusal = scene.refusal();
    assert!(refusal.contains("archive.info is missing") && refusal.contains("wal = \"none\""), "{refusal}");
}

#[test]
fn plan_names_a_missing_segment_that_the_backup_needs() {
    let scene = Scene::new();
    scene.edit_manifest(
        "backup-archive-stop=\"000000010000000000000040\"",
        "backup-archive-stop=\"000000010000000000000043\"",
    );
    let refusal = scene.refusal();
    assert!(refusal.contains("the segment 000000010000000000000042 is missing"), "{refusal}");
}

#[test]
fn a_needed_segment_that_is_archived_twice_is_an_error_that_names_it() {
    let scene = Scene::new();
    let other = scene.archive(1, 0x40, b'2');
    let refusal = scene.refusal();
    assert!(
        refusal.contains("000000010000000000000040 is archived twice") && refusal.contains(&other),
        "{refusal}"
    );
    // The older backup needs other segments of the same folder.
    assert!(scene.plan_of(&scene.request().with("backup", FULL)).0.is_ok());
    scene.remove(&other);
    let other = scene.archive(1, 0x41, b'2');
    let (result, _) = scene.create_of(&scene.request());
    assert_eq!(result, Ok(()), "no backup needs it");
    let refusal = latest(&scene, &source(&[], 1)).unwrap_err().to_string();
    assert!(
        refusal.contains("000000010000000000000041 is archived twice") && refusal.contains(&other),
        "{refusal}"
    );
}

#[test]
fn a_segment_that_is_archived_twice_with_the_same_bytes_is_one() {
    let scene = Scene::new();
    let object =
        format!("archive/main/15-1/0000000100000000/{}-{}", segment(1, 0x40), sha1(&vec![b'1'; SEGMENT]));
    // Only the names are compared: the objects are empty.
    for ending in [".zst", ".zst.pgbackrest.tmp", ".partial"] {
        scene.put(&format!("{object}{ending}"), "");
    }
    for junk in ["README", "000000010000000000000040", "000000010000000000000040-short.gz", "a folder/x"] {
        scene.put(&format!("archive/main/15-1/0000000100000000/{junk}"), "");
    }
    scene
        .put(&format!("archive/main/15-1/0000000100000000/{}.partial-{}", segment(1, 0x40), sha1(b"2")), "2");
    let (result, _) = scene.create_of(&scene.request());
    assert_eq!(result, Ok(()));
    assert_eq!(scene.read("wal/000000010000000000000040"), vec![b'1'; SEGMENT]);
}

#[test]
fn a_segment_that_is_archived_twice_during_the_restore_ends_the_route() {
    let scene = Scene::new();
    let source = source(&[], 1);
    let request = scene.request().with("wal", "latest");
    let options = Options::of(&request).unwrap();
    let (result, record) = scene.host().source(source).run(|| {
        let usable = |chosen: &choice::Chosen<files::Files>| plan::usable(chosen, false);
        let (chosen, plan::Usable { control, .. }) =
            choice::choose(&options, &mut files::Files::default, &usable)?;
        let mut route = crate::wal::route(&chosen, options.wal, control.segment_size)?.unwrap();
        let before = route.next_segments(&|_| false)?.len();
        scene.archive(1, 0x42, b'1');
        scene.archive(1, 0x43, b'1');
        scene.archive(1, 0x43, b'2');
        Ok::<_, Failure>((
            before,
            route.next_segments(&|_| false)?.len(),
            route.next_segments(&|_| false)?.len(),
        ))
    });
    assert_eq!(result, Ok((2, 1, 0)));
    let warnings = warnings(&record);
    assert!(warnings.contains("000000010000000000000043 is archived twice"), "{warnings}");
}

#[test]
fn if_two_histories_are_archived_the_history_of_the_source_is_used() {
    let scene = Scene::new();
    let cluster = format!("={{\"db-id\":{SYSTEM_IDENTIFIER},\"db-version\":\"15\"}}");
    scene.edit("archive/main/archive.info", &format!("1{cluster}"), &format!("1{cluster}\n2{cluster}"));
    scene.put("archive/main/15-1/00000002.history", "1\t0/4100010\tanother\n");
    scene.put("archive/main/15-2/00000002.history", "1\t0/4200010\tours\n");
    let names = latest(&scene, &source(&[(1, 0x42, 16)], 2)).unwrap();
    assert!(names.contains(&"00000002.history".to_owned()), "{names:?}");
    assert_eq!(scene.read("wal/00000002.history"), b"1\t0/4200010\tours\n");
    scene.remove("archive/main/15-2/00000002.history");
    let refusal = latest(&scene, &source(&[(1, 0x42, 16)], 2)).unwrap_err().to_string();
    assert!(refusal.contains("not that of the source"), "{refusal}");
}

#[test]
fn wal_in_the_backup_itself_is_not_fetched() {
    let scene = Scene::new();
    let (name, bytes) = add_wal_to_backup(&scene);
    let (result, record) = scene.create_of(&scene.request());
    assert_eq!(result, Ok(()));
    assert_eq!(scene.read(&format!("wal/{name}")), bytes);
    assert!(scene.path(&format!("wal/archive_status/{name}.done")).exists());
    assert_eq!(record.expected, (Some(record.bytes), Some(record.files)));
}

/// Adds the segment that the incremental backup needs to that backup.
fn add_wal_to_backup(scene: &Scene) -> (String, Vec<u8>) {
    let (name, bytes) = (segment(1, 0x40), vec![b'b'; SEGMENT]);
    scene.put(&format!("backup/main/{INCREMENTAL}/pg_data/pg_wal/{name}"), &bytes);
    let line = format!(
        "pg_data/pg_wal/{name}={{\"checksum\":\"{}\",\"size\":{SEGMENT},\"timestamp\":1}}\n",
        sha1(&bytes)
    );
    scene.edit_manifest("pg_data/tablespace_map=", &format!("{line}pg_data/tablespace_map="));
    (name, bytes)
}

#[test]
fn wal_in_the_backup_itself_is_marked_as_archived_and_needs_no_archive() {
    let scene = Scene::new();
    let (name, bytes) = add_wal_to_backup(&scene);
    fs::remove_dir_all(scene.path("repo/archive")).unwrap();
    for wal in ["none", "consistent"] {
        let (result, record) = scene.create_of(&scene.request().with("wal", wal).with("delta", true));
        assert_eq!(result, Ok(()), "{wal}");
        assert_eq!(scene.read(&format!("wal/{name}")), bytes);
        let done = scene.path(&format!("wal/archive_status/{name}.done"));
        assert!(done.exists(), "{wal}");
        assert_eq!(record.expected, (Some(record.bytes), Some(record.files)), "{wal}");
        fs::remove_file(done).unwrap();
    }
}

#[test]
fn the_archive_of_each_time_that_the_stanza_held_the_cluster_is_searched() {
    let scene = Scene::new();
    let cluster = format!("={{\"db-id\":{SYSTEM_IDENTIFIER},\"db-version\":\"15\"}}");
    scene.edit("archive/main/archive.info", &format!("1{cluster}"), &format!("1{cluster}\n2{cluster}"));
    // The folder of the backup comes first.
    assert!(scene.plan().is_ok());
    let object = scene.archive(1, 0x40, b'1');
    let moved = object.replace("15-1", "15-2");
    let bytes = fs::read(scene.path("repo").join(&object)).unwrap();
    scene.put(&moved, bytes);
    scene.remove(&object);
    scene.put("archive/main/15-2/00000002.history", "1\t0/4200010\tx\n");
    let names = latest(&scene, &source(&[(1, 0x42, 16)], 2)).unwrap();
    assert_eq!(names, [segment(1, 0x40), segment(1, 0x41), "00000002.history".to_owned()]);
    let other = scene.archive(1, 0x40, b'2');
    let refusal = scene.refusal();
    assert!(
        refusal.contains("archived twice") && refusal.contains(&other) && refusal.contains(&moved),
        "{refusal}"
    );
}

#[test]
fn the_next_timeline_is_used_if_the_source_forked_within_the_last_segment_of_the_backup() {
    let source = source(&[(1, 0x40, 0x200)], 2);
    for wal in ["consistent", "latest"] {
        let scene = Scene::new();
        let request = scene.request().with("wal", wal);
        let restore = || {
            let host = || scene.host().source(source.clone());
            let (plan, record) = host().run(|| PgBackRest::plan(&request));
            (host().run(|| PgBackRest::create(&request, &plan.unwrap())).0, warnings(&record))
        };
        // The segment of the new timeline is not archived yet, because an idle primary fills it late.
        let (result, warnings) = restore();
        assert_eq!(result, Ok(()), "{wal}");
        assert!(warnings.contains("left the timeline 1 at 0/4000200"), "{warnings}");
        assert!(warnings.contains("00000002.history is not archived"), "{warnings}");
        assert!(!scene.path(&format!("wal/{}", segment(1, 0x40))).exists(), "{wal}");
        scene.archive(2, 0x40, b'2');
        scene.put("archive/main/15-1/00000002.history", "1\t0/4000200\tx\n");
        let (result, warnings) = restore();
        assert_eq!((result, warnings.as_str()), (Ok(()), ""), "{wal}");
        assert_eq!(scene.read(&format!("wal/{}", segment(2, 0x40))), vec![b'2'; SEGMENT]);
        assert_eq!(scene.read("wal/00000002.history"), b"1\t0/4000200\tx\n");
        assert!(!scene.path(&format!("wal/{}", segment(1, 0x40))).exists(), "{wal}");
    }
}

#[test]
fn a_history_of_another_cluster_is_refused_for_consistent_wal_too() {
    let scene = Scene::new();
    scene.put("archive/main/15-1/00000002.history", "1\t0/4200099\tx\n");
    let (plan, _) =
        scene.host().source(source(&[(1, 0x42, 16)], 2)).run(|| PgBackRest::plan(&scene.request()));
    assert!(plan.unwrap_err().to_string().contains("not that of the source"));
}

#[test]
fn the_reason_in_a_history_may_be_in_any_encoding() {
    let scene = Scene::new();
    // The name of a restore point, in Latin 1.
    let history = b"1\t0/4200010\tat restore point \"f\xFCr\"\n";
    scene.put("archive/main/15-1/00000002.history", history);
    let names = latest(&scene, &source(&[(1, 0x42, 16)], 2)).unwrap();
    assert!(names.contains(&"00000002.history".to_owned()), "{names:?}");
    assert_eq!(scene.read("wal/00000002.history"), history);
}

#[test]
fn an_endless_history_is_read_up_to_the_limit() {
    let scene = Scene::new();
    scene.put("archive/main/15-1/00000002.history", "\n".repeat((256 << 10) + 1));
    let failure = latest(&scene, &source(&[(1, 0x42, 16)], 2)).unwrap_err().to_string();
    assert!(failure.contains("00000002.history is larger than 262144 bytes"), "{failure}");
}

#[test]
fn restoring_ends_after_a_fixed_number_of_rounds_if_wal_is_archived_faster() {
    let scene = Scene::new();
    let request = scene.request().with("wal", "latest");
    // Each lookup of a segment archives another one.
    let next = std::cell::Cell::new(0x42);
    let has = |_: &str| {
        scene.archive(1, next.get(), b'1');
        next.set(next.get() + 1);
        false
    };
    let (result, record) = scene.host().source(source(&[], 1)).run(|| {
        let options = Options::of(&request)?;
        let (chosen, found) =
            choice::choose(&options, &mut files::Files::default, &|chosen| plan::usable(chosen, true))?;
        let mut route = crate::wal::route(&chosen, Wal::Latest, found.control.segment_size)?.unwrap();
        let segments = route.next_segments(&has)?;
        let expected = (Some((segments.len() * SEGMENT) as u64), Some(2 * segments.len() as u64));
        let mut restoring = create::Restoring::new(&chosen, false)?;
        let mut fetch =
            |route: &crate::wal::WalRoute<'_>, segments: &[_]| restoring.segments(route, segments);
        restore::transfer::restore_wal(&mut route, segments, &has, expected, 2, &mut fetch)?;
        Ok::<_, Failure>(())
    });
    assert_eq!(result, Ok(()));
    assert_eq!(
        record.expected,
        (Some(record.bytes), Some(record.files)),
        "what was found last is fetched too"
    );
    let warnings = warnings(&record);
    let last = fs::read_dir(scene.path("wal"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "archive_status")
        .max()
        .unwrap();
    assert!(warnings.contains("2 times") && warnings.contains(&last), "{last} {warnings}");
}

#[test]
fn the_latest_wal_needs_a_source() {
    let scene = Scene::new();
    let refusal = scene.refusal_of(&scene.request().with("wal", "latest"));
    assert!(refusal.contains("there is no source"), "{refusal}");
}

#[test]
fn an_archive_that_does_not_know_the_cluster_is_refused() {
    let scene = Scene::new();
    scene.edit("archive/main/archive.info", "\"db-version\":\"15\"", "\"db-version\":\"14\"");
    let refusal = scene.refusal();
    assert!(refusal.contains("archive.info does not list the cluster"), "{refusal}");
}

#[test]
fn the_latest_wal_goes_up_to_the_first_gap() {
    let scene = Scene::new();
    scene.archive(1, 0x43, b'1');
    let object = scene.archive(1, 0x42, b'1');
    let partial = object.replace(&segment(1, 0x42), &format!("{}.partial", segment(1, 0x42)));
    scene.put(&partial, vec![b'1'; SEGMENT]);
    scene.remove(&object);
    assert_eq!(latest(&scene, &source(&[], 1)), Ok(vec![segment(1, 0x40), segment(1, 0x41)]));
}

#[test]
fn the_latest_wal_follows_the_timelines_of_the_source() {
    let scene = Scene::new();
    // The old primary continued after the fork, and another standby was promoted to a timeline that is not in the history.
    for (timeline, numbers) in [(1, 0x42..=0x48), (2, 0x42..=0x44), (3, 0x42..=0x49), (4, 0x44..=0x46)] {
        for number in numbers {
            scene.archive(timeline, number, b'0' + timeline as u8);
        }
    }
    scene.put("archive/main/15-1/00000002.history", "1\t0/4200010\tno recovery target specified\n");
    scene.put("archive/main/15-1/00000003.history", "1\t0/4200020\tno recovery target specified\n");
    scene.put("archive/main/15-1/00000004.history", "1\t0/4200010\tx\n2\t0/4400000\tx\n");
    let source = source(&[(1, 0x42, 16), (2, 0x44, 0)], 4);
    let names = latest(&scene, &source).unwrap();
    assert_eq!(
        names,
        [
            "00000002.history".to_owned(),
            "00000004.history".to_owned(),
            segment(1, 0x40),
            segment(1, 0x41),
            segment(2, 0x42),
            segment(2, 0x43),
            segment(4, 0x44),
            segment(4, 0x45),
            segment(4, 0x46),
        ]
        .into_iter()
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect::<Vec<_>>()
    );
    assert_eq!(scene.read(&format!("wal/{}", segment(2, 0x42))), vec![b'2'; SEGMENT]);
}

#[test]
fn a_backup_that_the_source_left_behind_is_refused_in_plan() {
    let scene = Scene::new();
    for (source, what) in [
        (
            source(&[(1, 0x20, 16)], 2),
            "ends at 0/40000F0 of the timeline 1, which the source left at 0/2000010",
        ),
        (source(&[], 2), "not in the history of the source"),
    ] {
        match latest(&scene, &source) {
            Err(Failure::Failed(why)) => assert!(why.contains(what), "{why}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_newest_backup_is_one_from_which_a_standby_can_follow() {
    let scene = Scene::new();
    let plan = |request: &Request| {
        let (plan, record) =
            scene.host().source(source(&[(1, 0x40, 16)], 2)).run(|| PgBackRest::plan(request));
        (plan.unwrap().backup, record.log.iter().any(|(_, line)| line.contains("skipped the backup")))
    };
    let request = scene.request().with("wal", "none");
    assert_eq!(
        plan(&request),
        (FULL.to_owned(), true),
        "the incremental one ended where the source never was"
    );
    assert_eq!(plan(&request.with("backup", INCREMENTAL)), (INCREMENTAL.to_owned(), false));
}

#[test]
fn a_history_of_another_cluster_is_refused_in_plan() {
    let scene = Scene::new();
    scene.put("archive/main/15-1/00000002.history", "1\t0/4200099\tno recovery target specified\n");
    match latest(&scene, &source(&[(1, 0x42, 16)], 2)) {
        Err(Failure::Failed(why)) => {
            assert!(why.contains("00000002.history is not that of the source"), "{why}")
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn with_delta_an_old_history_is_replaced() {
    let scene = Scene::new();
    scene.put("archive/main/15-1/00000002.history", "1\t0/4200010\tx\n");
    fs::write(scene.path("wal/00000002.history"), "old").unwrap();
    let request = scene.request().with("wal", "latest").with("delta", true);
    let host = || scene.host().source(source(&[(1, 0x42, 16)], 2));
    let plan = host().run(|| PgBackRest::plan(&request)).0.unwrap();
    assert_eq!(host().run(|| PgBackRest::create(&request, &plan)).0, Ok(()));
    assert_eq!(scene.read("wal/00000002.history"), b"1\t0/4200010\tx\n");
}
