//! Which place and which backup are chosen.

use std::fs;

use understudy::log::Level;
use understudy::native::{Record, Source};
use understudy::source::{Ancestor, Position};

use super::scene::{Info, SYSTEM_IDENTIFIER, Scene};
use crate::catalogue::MOST_BACKUPS;
use crate::plan::MOST_OLDER;
use crate::{Barman, Failure, Method, Request};

const ONE: &str = "20261124T043406";
const TWO: &str = "20261125T043406";
const THREE: &str = "20261126T043406";

fn chosen(scene: &Scene, request: &Request) -> (String, Record) {
    let (plan, record) = scene.plan_of(request);
    (plan.unwrap().backup, record)
}

fn warns(record: &Record, what: &str) -> bool {
    record.log.iter().any(|(level, line)| *level == Level::Warn && line.contains(what))
}

/// A server with three backups.
fn three() -> Scene {
    let scene = Scene::new();
    for (number, id) in (0..).zip([ONE, TWO, THREE]) {
        scene.tree(&Info::new(id).at(0x0040_0028 + (number << 21), 1));
    }
    scene
}

#[test]
fn the_same_backup_is_found_in_a_directory_and_in_a_store_at_both_places_of_backup_info() {
    let scene = Scene::new();
    let info = Info::new(ONE);
    scene.tree(&info);
    for request in [scene.request(), scene.request_to_store()] {
        assert_eq!(chosen(&scene, &request).0, ONE);
    }
    scene.old_info(&info).remove(&format!("meta/{ONE}-backup.info"));
    for request in [scene.request(), scene.request_to_store()] {
        assert_eq!(chosen(&scene, &request).0, ONE);
    }
}

#[test]
fn latest_is_the_newest_of_status_done_by_timeline_and_lsn() {
    let scene = three();
    assert_eq!(chosen(&scene, &scene.request()).0, THREE);
    scene.info(&Info::new(THREE).at(0x0080_0028, 1).with("status=WAITING_FOR_WALS"));
    assert_eq!(chosen(&scene, &scene.request()).0, TWO);
    // An ID does not say which backup is on the newest timeline.
    scene.tree(&Info::new(ONE).at(0x0010_0028, 2));
    assert_eq!(chosen(&scene, &scene.request().with("backup", "latest")).0, ONE);
}

#[test]
fn a_named_backup_that_waits_for_wal_is_restored_with_a_warning() {
    let scene = three();
    scene.info(&Info::new(THREE).at(0x0080_0028, 1).with("status=WAITING_FOR_WALS"));
    let (id, record) = chosen(&scene, &scene.request().with("backup", THREE));
    assert_eq!(id, THREE);
    assert!(warns(&record, "WAITING_FOR_WALS"), "{record:?}");
}

#[test]
fn an_unfinished_backup_is_refused_by_its_status_and_error() {
    for status in ["EMPTY", "STARTED", "FAILED", "SYNCING"] {
        let scene = Scene::new();
        scene.info(&Info::new(ONE).with(format!("status={status}")).with("error=no space left"));
        for request in [scene.request(), scene.request().with("backup", ONE)] {
            let refused = scene.refusal_of(&request);
            assert!(
                refused.contains(&format!("{status} (no space left)")) && refused.contains(ONE),
                "{refused}"
            );
        }
    }
}

#[test]
fn a_backup_is_found_by_its_name() {
    let scene = three();
    scene.info(&Info::new(TWO).at(0x0060_0028, 1).with("backup_name=before upgrade"));
    assert_eq!(chosen(&scene, &scene.request().with("backup", "before upgrade")).0, TWO);
    assert!(scene.refusal_of(&scene.request().with("backup", "other")).contains("none of the 3 backups"));
    scene.info(&Info::new(ONE).with("backup_name=before upgrade"));
    let refused = scene.refusal_of(&scene.request().with("backup", "before upgrade"));
    assert!(refused.contains(ONE) && refused.contains(TWO), "{refused}");
}

#[test]
fn a_time_an_lsn_and_a_timeline_leave_older_backups() {
    let scene = three();
    for (name, value, id) in [
        ("target-time", "2026-11-25 05:00:00+00", TWO),
        ("target-time", "2026-11-25 04:34:09+00", TWO),
        ("target-time", "2026-11-25 04:34:08+00", ONE),
        ("target-lsn", "0/600138", TWO),
        ("target-lsn", "0/600137", ONE),
    ] {
        assert_eq!(chosen(&scene, &scene.request().with(name, value)).0, id, "{value}");
    }
    let refused = scene.refusal_of(&scene.request().with("target-time", "2026-11-24 00:00:00+00"));
    assert!(refused.contains("2026-11-24 00:00:00+00"), "{refused}");
    assert!(scene.refusal_of(&scene.request().with("target-timeline", 2)).contains("timeline 2"));
}

#[test]
fn a_backup_without_a_zone_in_its_time_is_not_compared_with_a_time() {
    let scene = three();
    scene.info(&Info::new(THREE).at(0x0080_0028, 1).with("end_time=2026-11-26 04:34:09"));
    let (id, record) = chosen(&scene, &scene.request().with("target-time", "2026-12-24 00:00:00+00"));
    assert_eq!(id, TWO);
    assert!(warns(&record, THREE), "{record:?}");
    assert_eq!(chosen(&scene, &scene.request()).0, THREE);
}

#[test]
fn a_backup_info_that_cannot_be_read_is_skipped_and_refused_if_it_is_named() {
    let scene = three();
    scene.put(&format!("meta/{THREE}-backup.info"), "status=DONE\nversion=exec('id')\n");
    let (id, record) = chosen(&scene, &scene.request());
    assert_eq!(id, TWO);
    assert!(warns(&record, THREE) && warns(&record, "`version`"), "{record:?}");
    let refused = scene.refusal_of(&scene.request().with("backup", THREE));
    assert!(
        refused.contains("meta/20261126T043406-backup.info") && refused.contains("`version`"),
        "{refused}"
    );
}

/// Removes the files of a backup, as an interrupted removal does, and leaves its `backup.info`.
fn remove_files(scene: &Scene, id: &str) {
    fs::remove_dir_all(scene.path(&format!("barman/main/base/{id}"))).unwrap();
}

#[test]
fn a_newest_backup_without_files_is_named_and_passed_over_only_if_older_ones_may_be_taken() {
    let scene = three();
    remove_files(&scene, THREE);
    for request in [scene.request(), scene.request_to_store()] {
        let refused = scene.refusal_of(&request);
        assert!(
            refused.contains(&format!("base/{THREE} has neither"))
                && refused.contains("`older = true`")
                && refused.contains(TWO),
            "{refused}"
        );
        let (id, record) = chosen(&scene, &request.with("older", true));
        assert_eq!(id, TWO);
        assert!(warns(&record, &format!("base/{THREE} has neither")), "{record:?}");
    }
    // A backup of which files are missing is passed over too, and one that Barman deletes.
    scene.tree(&Info::new(THREE).at(0x0080_0028, 1).with("size=100000000"));
    scene.put(&format!("meta/{TWO}-delete_this"), "delete");
    let (id, record) = chosen(&scene, &scene.request().with("older", true));
    assert_eq!(id, ONE);
    assert!(warns(&record, "of at least") && warns(&record, "began to delete"), "{record:?}");
    // The plan's backup is restored, and no other.
    remove_files(&scene, THREE);
    let (result, _) = scene.create_of(&scene.request().with("older", true));
    assert_eq!(result, Ok(()));
}

#[test]
fn if_no_older_backup_can_be_restored_each_is_named() {
    let scene = three();
    [ONE, TWO, THREE].iter().for_each(|id| remove_files(&scene, id));
    let refused = scene.refusal_of(&scene.request().with("older", true));
    assert!(
        [ONE, TWO, THREE].iter().all(|id| refused.contains(&format!("base/{id} has neither"))),
        "{refused}"
    );
    let refused = scene.refusal_of(&scene.request().with("older", true).with("backup", ONE));
    assert!(refused.contains("`backup`") && refused.contains("`older = true`"), "{refused}");
}

#[test]
fn the_number_of_older_backups_that_are_tried_is_bounded() {
    let scene = three();
    let ids: Vec<String> = (0..=MOST_OLDER).map(|number| format!("20261127T{number:06}")).collect();
    for (number, id) in (0..).zip(&ids) {
        scene.info(&Info::new(id.clone().leak()).at(0x0100_0028 + (number << 21), 1));
    }
    let request = scene.request().with("older", true);
    let refused = scene.refusal_of(&request);
    assert!(refused.contains(&format!("the backup {THREE} and older ones were not tried")), "{refused}");
    scene.remove(&format!("meta/{}-backup.info", ids[0]));
    assert_eq!(chosen(&scene, &request).0, THREE);
}

#[test]
fn an_error_of_the_store_is_not_taken_for_a_damaged_backup() {
    let scene = three();
    // The store cannot say what the newest backup is, because a file is in the way.
    scene.remove(&format!("meta/{THREE}-backup.info"));
    let folder = scene.path(&format!("barman/main/base/{THREE}"));
    fs::remove_dir_all(&folder).unwrap();
    fs::write(&folder, "").unwrap();
    let plan = scene.plan_of(&scene.request()).0;
    assert!(matches!(&plan, Err(Failure::Failed(why)) if why.contains(THREE)), "{plan:?}");
    // A file that is too large is damaged.
    fs::remove_file(&folder).unwrap();
    scene.put(&format!("meta/{THREE}-backup.info"), vec![b'#'; crate::info::LIMIT as usize + 1]);
    let (id, record) = chosen(&scene, &scene.request());
    assert_eq!(id, TWO);
    assert!(warns(&record, THREE), "{record:?}");
}

#[test]
fn a_backup_from_which_a_standby_could_not_follow_the_source_is_skipped() {
    let scene = three();
    let source = Source {
        server_version: 150_018,
        system_identifier: SYSTEM_IDENTIFIER,
        position: Position { timeline: 2, lsn: 0x0090_0000 },
        // The source left the timeline before the third backup ended.
        history: vec![Ancestor { timeline: 1, ended_at: 0x0070_0000 }],
    };
    let (plan, record) = scene.host().source(source.clone()).run(|| Barman::plan(&scene.request()));
    assert_eq!(plan.unwrap().backup, TWO);
    assert!(warns(&record, THREE), "{record:?}");
    // If no backup leads to the source, the host refuses the newest.
    let other = Source { system_identifier: 7, ..source };
    let (plan, _) = scene.host().source(other).run(|| Barman::plan(&scene.request()));
    assert_eq!(plan.unwrap().backup, THREE);
}

#[test]
fn without_a_backup_the_method_is_not_applicable() {
    let scene = Scene::new();
    for request in [scene.request(), scene.request_to_store(), scene.request().with("backup", "name")] {
        let plan = scene.plan_of(&request).0;
        assert!(matches!(&plan, Err(Failure::NotApplicable(why)) if why.contains("server main")), "{plan:?}");
    }
    // Folders that are not backups.
    scene
        .put("base/lost+found/backup.info", "status=DONE")
        .put(&format!("base/{ONE}/data/PG_VERSION"), "15\n");
    assert!(matches!(scene.plan(), Err(Failure::NotApplicable(_))));
    assert!(scene.refusal_of(&scene.request().with("backup", ONE)).contains("no backup 20261124T043406"));
    fs::remove_dir_all(scene.path("barman")).unwrap();
    assert!(matches!(scene.plan(), Err(Failure::NotApplicable(why)) if why.contains("no directory")));
}

#[test]
fn exactly_one_place_is_named_and_it_lies_below_what_is_granted() {
    let scene = three();
    let directory = scene.path("barman").to_str().unwrap().to_owned();
    let of = |name: &str, value: &str| Request::default().with("server", "main").with(name, value);
    for (request, what) in [
        (Request::default().with("server", "main"), "one of the options"),
        (of("store", "repo").with("directory", directory.as_str()), "one of the options"),
        (of("store", "repo").with("prefix", "../data"), "prefix"),
        (of("store", directory.as_str()), "`directory`"),
        (of("directory", scene.path("").to_str().unwrap()), "`grants.read`"),
        (of("store", "other"), "denied"),
        (Request::default().with("store", "repo"), "`server`"),
        (Request::default().with("store", "repo").with("server", "../main"), "`server"),
        (Request::default().with("store", "repo").with("server", ""), "`server"),
        (of("store", "repo").with("backup", "../x"), "not applicable"),
    ] {
        match scene.plan_of(&request).0 {
            Err(Failure::Failed(why)) => assert!(why.contains(what), "{request:?} {why}"),
            Err(Failure::NotApplicable(_)) => assert_eq!(what, "not applicable", "{request:?}"),
            other => panic!("{request:?} {other:?}"),
        }
    }
}

#[test]
fn the_number_of_backups_is_bounded() {
    let scene = Scene::new();
    for number in 0..=MOST_BACKUPS {
        scene.put(&format!("meta/20261126T{number:06}-backup.info"), "status=FAILED\n");
    }
    assert!(scene.refusal().contains("more than 2000 backups"));
    scene.remove("meta/20261126T000000-backup.info");
    assert!(scene.refusal().contains("none of the 2000 backups"));
}

#[test]
fn the_size_of_a_backup_info_is_bounded() {
    let scene = Scene::new();
    let info = Info::new(ONE);
    scene.tree(&info);
    let path = scene.path("barman/main/meta").join(format!("{ONE}-backup.info"));
    let limit = crate::info::LIMIT as usize;
    let padded = |size: usize| {
        let mut text = fs::read(&path).unwrap();
        text.push(b'#');
        text.resize(size, b'x');
        text
    };
    let (fits, long) = (padded(limit), padded(limit + 1));
    fs::write(&path, fits).unwrap();
    assert!(scene.plan().is_ok());
    fs::write(&path, long).unwrap();
    assert!(scene.refusal_of(&scene.request().with("backup", ONE)).contains("larger than 1048576"));
}
