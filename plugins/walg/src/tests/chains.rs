//! Which backups belong to one chain.

use postgres_formats::written::ControlFile;
use serde_json::{Value, json};
use understudy::log::Level;
use understudy::native::Source;
use understudy::source::{Ancestor, Position};
use understudy::{Failure, Method};
use ustar::written::{archive, file};

use super::scene::{
    DELTA, FULL, SECOND, SYSTEM_IDENTIFIER, Scene, files_metadata, label, sentinel, sentinel_of,
};
use crate::WalG;
use crate::chain::MOST_BACKUPS;

#[test]
fn a_backup_that_does_not_belong_to_its_parent_is_refused() {
    for (key, value, what) in [
        ("DeltaLSN", json!(0x0200_0000), "0/2000000, and that backup began at 0/2000028"),
        ("DeltaLSN", json!(0x0500_0000), "not after the backup from which it was made"),
        ("DeltaFrom", json!(SECOND), "its name does not"),
        ("DeltaFrom", json!("../x"), "not a name that WAL-G gives"),
        ("DeltaFullName", json!(DELTA), "its chain begins with"),
        ("DeltaFullName", json!("x"), "not a name that WAL-G gives"),
        ("DeltaFullName", Value::Null, "only some of"),
        ("DeltaCount", json!(0), "DeltaCount 0"),
        ("DeltaCount", Value::Null, "only some of"),
        ("DeltaFrom", Value::Null, "only some of"),
        ("SystemIdentifier", json!(1), "of the cluster 1, and that backup of the cluster"),
        ("PgVersion", json!(160_001), "of PostgreSQL 16, and that backup of PostgreSQL 15"),
    ] {
        let scene = Scene::new();
        let mut changed = sentinel(0x0400_0028, Some((FULL, 0x0200_0028, 1)));
        changed[key] = value;
        scene.put_sentinel(DELTA, &changed);
        let refusal = scene.refusal_of(&scene.request().with("backup", DELTA));
        assert!(refusal.contains(what) && refusal.contains(DELTA), "{key}: {refusal}");
    }
    // The second delta backup depends on the first, whose number it must not have.
    let scene = Scene::new();
    scene.put_sentinel(SECOND, &sentinel(0x0600_0028, Some((DELTA, 0x0400_0028, 1))));
    assert!(scene.refusal().contains("number 1 of its chain, and that backup number 1"));
    // A minor release may have been installed in between, and WAL-G counts on from the latest backup.
    let mut changed = sentinel(0x0600_0028, Some((DELTA, 0x0400_0028, 7)));
    changed["PgVersion"] = json!(150_009);
    scene.put_sentinel(SECOND, &changed);
    assert_eq!(scene.plan().unwrap().backup, SECOND);
}

#[test]
fn a_parent_that_ended_after_its_child_began_is_refused() {
    let scene = Scene::new();
    let mut changed = sentinel(0x0200_0028, None);
    changed["FinishLSN"] = json!(0x0400_0029);
    scene.put_sentinel(FULL, &changed);
    assert!(
        scene.refusal_of(&scene.request().with("backup", DELTA)).contains("that backup ended at 0/4000029")
    );
}

/// Increments without pages look alike for every size of pages, so only the control file says that files would be cut.
#[test]
fn a_delta_backup_of_a_cluster_with_other_pages_or_segments_is_refused() {
    for (at, what) in [(216, "pages of 16384 bytes"), (220, "16384 pages in a segment")] {
        let scene = Scene::new();
        let mut control = ControlFile::in_production(SYSTEM_IDENTIFIER);
        let tar = archive(&[file("/global/pg_control", &control.put32(at, 16_384).bytes)]);
        scene.put_in(SECOND, "tar_partitions/pg_control.tar", &tar);
        let refusal = scene.refusal();
        assert!(refusal.contains(what) && refusal.contains(SECOND), "{refusal}");
        // A full backup of such a cluster is restored as it is.
        scene.put_in(FULL, "tar_partitions/pg_control.tar", &tar);
        let plan = scene.plan_of(&scene.request().with("backup", FULL)).0;
        assert!(plan.is_ok(), "{plan:?}");
    }
}

#[test]
fn a_parent_of_another_cluster_is_refused_also_if_its_sentinel_names_none() {
    let scene = Scene::new();
    let mut old = sentinel(0x0200_0028, None);
    old.as_object_mut().unwrap().remove("SystemIdentifier");
    scene.put_sentinel(FULL, &old);
    scene.written_at(FULL, 1);
    assert_eq!(scene.plan().unwrap().backup, SECOND);
    let tar = archive(&[file("/global/pg_control", &ControlFile::in_production(1).bytes)]);
    scene.put_in(FULL, "tar_partitions/pg_control.tar", &tar);
    let refusal = scene.refusal();
    assert!(refusal.contains("is of the cluster 1") && refusal.contains(FULL), "{refusal}");
}

#[test]
fn a_missing_parent_is_named() {
    let scene = Scene::new();
    scene.remove(&sentinel_of(FULL));
    let refusal = scene.refusal();
    assert!(
        refusal.contains(&format!("names the backup {FULL}")) && refusal.contains("it was removed"),
        "{refusal}"
    );
    let scene = Scene::new();
    scene.remove(&format!("basebackups_005/{FULL}/tar_partitions/part_001.tar"));
    assert!(scene.refusal().contains("lacks `part_001.tar`"));
    // An old release wrote the list into the sentinel.
    let scene = Scene::new();
    let mut old = sentinel(0x0200_0028, None);
    old.as_object_mut().unwrap().remove("Version");
    old["Files"] = files_metadata(false)["Files"].clone();
    old["TarFileSets"] = json!({"part_001.tar": [], "part_002.tar": []});
    scene.put_sentinel(FULL, &old);
    scene.written_at(FULL, 1);
    let refusal = scene.refusal();
    assert!(refusal.contains("lacks `part_002.tar`") && refusal.contains(FULL), "{refusal}");
}

#[test]
fn the_name_and_the_sentinel_must_both_say_what_kind_a_backup_is() {
    let scene = Scene::new();
    scene.put_sentinel(DELTA, &sentinel(0x0400_0028, None));
    let refusal = scene.refusal_of(&scene.request().with("backup", DELTA));
    assert!(refusal.contains("the name of a delta backup"), "{refusal}");
    scene.put_sentinel(FULL, &sentinel(0x0200_0028, Some((DELTA, 0x0100_0028, 1))));
    let refusal = scene.refusal_of(&scene.request().with("backup", FULL));
    assert!(refusal.contains("and its name does not"), "{refusal}");
}

#[test]
fn backups_that_depend_on_each_other_are_refused() {
    let scene = Scene::new();
    let one = "base_000000010000000000000008_D_00000001000000000000000A";
    let other = "base_00000001000000000000000A_D_000000010000000000000008";
    // The numbers of the first and the second link are right, so that only the circle is wrong.
    scene.put_sentinel(one, &sentinel(0x0800_0028, Some((other, 0x0700_0028, 5))));
    scene.put_sentinel(other, &sentinel(0x0700_0028, Some((one, 0x0600_0028, 4))));
    let refusal = scene.refusal_of(&scene.request().with("backup", one));
    assert!(refusal.contains("which depends on it itself"), "{refusal}");
}

#[test]
fn a_chain_has_a_bounded_length() {
    let chain = |length: u64| {
        let scene = Scene::new();
        let name = |number: u64| match number {
            0 => "base_000000010000000100000000".to_owned(),
            number => format!("base_0000000100000001{number:08X}_D_0000000100000001{:08X}", number - 1),
        };
        let start = |number: u64| (1 << 32) + (number << 12);
        for number in 0..length {
            let parent = number.checked_sub(1).map(|parent| (name(parent), start(parent)));
            let mut written =
                sentinel(start(number), parent.as_ref().map(|(name, start)| (name.as_str(), *start, number)));
            if number > 0 {
                written["DeltaFullName"] = json!(name(0));
            }
            scene.put_sentinel(&name(number), &written);
        }
        scene.refusal_of(&scene.request().with("backup", name(length - 1).as_str()))
    };
    let most = MOST_BACKUPS as u64;
    // The chain is whole, and the next thing that is missing is an archive.
    assert!(chain(most).contains("without pg_control.tar"));
    assert!(chain(most + 1).contains("depends on more than 1000 backups"));
}

/// Makes a delta backup on timeline 2 from the full backup on timeline 1.
fn on_timeline_2() -> (Scene, String) {
    let scene = Scene::new();
    let name = "base_000000020000000000000008_D_000000010000000000000002".to_owned();
    scene.backup(&name, "0/8000028", &sentinel(0x0800_0028, Some((FULL, 0x0200_0028, 1))));
    let text = label("0/8000028", 2);
    scene.put_in(
        &name,
        "tar_partitions/backup_label.tar",
        &archive(&[file("backup_label", text.as_bytes())]),
    );
    let mut list = files_metadata(true);
    list["TarFileSets"] = json!({});
    scene.put_in(&name, "files_metadata.json", list.to_string().as_bytes());
    (scene, name)
}

#[test]
fn a_parent_on_another_timeline_must_have_ended_before_the_fork() {
    let (scene, name) = on_timeline_2();
    let request = scene.request().with("backup", name.as_str());
    // The history is not known.
    let (plan, record) = scene.plan_of(&request);
    assert_eq!(plan.unwrap().timeline, Some(2));
    assert!(record.log.iter().any(|(level, line)| *level == Level::Warn && line.contains("is not archived")));
    for (history, what) in [
        ("1\t0/2000128\tno recovery target specified\n", None),
        ("1\t0/2000127\tno recovery target specified\n", Some("left the timeline 1 at 0/2000127")),
        ("3\t0/2000128\tno recovery target specified\n", Some("not in the history of the timeline 2")),
        ("x", Some("the archived history of the timeline 2")),
        ("", Some("not in the history of the timeline 2")),
    ] {
        scene.put("wal_005/00000002.history", history.as_bytes());
        match what {
            None => assert_eq!(scene.plan_of(&request).0.unwrap().backup, name),
            Some(what) => {
                let refusal = scene.refusal_of(&request);
                assert!(refusal.contains(what), "{history}: {refusal}");
            }
        }
    }
    scene.remove("wal_005/00000002.history");
    for (ended_at, is_refused) in [(0x0200_0128, false), (0x0200_0127, true)] {
        let source = Source {
            server_version: 150_004,
            system_identifier: SYSTEM_IDENTIFIER,
            position: Position { timeline: 2, lsn: 0x0900_0000 },
            history: vec![Ancestor { timeline: 1, ended_at }],
        };
        let (plan, _) = scene.host().source(source).run(|| WalG::plan(&request));
        assert_eq!(matches!(plan, Err(Failure::Failed(_))), is_refused, "{plan:?}");
    }
}

#[test]
fn a_child_on_an_older_timeline_than_its_parent_is_refused() {
    let scene = Scene::new();
    let parent = "base_000000020000000000000002";
    let child = "base_000000010000000000000004_D_000000020000000000000002";
    scene.put_sentinel(parent, &sentinel(0x0200_0028, None));
    let mut written = sentinel(0x0400_0028, Some((parent, 0x0200_0028, 1)));
    written["DeltaFullName"] = json!(parent);
    scene.put_sentinel(child, &written);
    let refusal = scene.refusal_of(&scene.request().with("backup", child));
    assert!(refusal.contains("it is on the timeline 1, and that backup on the timeline 2"), "{refusal}");
}
