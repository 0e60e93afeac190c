//! Plans of archives: those of a Barman server and those of barman-cloud. Unpacking is tested with the real host.

use understudy::log::Level;

use super::scene::{Info, Scene};
use crate::contents::MOST_OBJECTS;

const ID: &str = "20261126T043406";
const PARENT: &str = "20261125T043406";

/// A backup with these archives, each of 1000 bytes.
fn scene(info: &Info, names: &[&str]) -> Scene {
    let scene = Scene::new();
    for name in names {
        scene.put(&format!("base/{}/{name}", info.id), [7; 1000]);
    }
    scene.info(info);
    scene
}

fn refusal(names: &[&str]) -> String {
    scene(&Info::new(ID), names).refusal()
}

#[test]
fn archives_of_a_server_and_of_barman_cloud_are_recognized() {
    let plan = scene(&Info::new(ID), &["data/base.tar", "data/16384.tar"]).plan().unwrap();
    assert_eq!((plan.bytes, plan.files), (Some(2000), None));
    // The size of compressed archives is that which Barman recorded.
    for ending in [".gz", ".lz4", ".zst"] {
        let names = [format!("data/base.tar{ending}"), format!("data/16384.tar{ending}")];
        let plan = scene(&Info::new(ID), &names.each_ref().map(String::as_str)).plan().unwrap();
        assert_eq!(plan.bytes, Some(5000), "{ending}");
    }
    for ending in ["", ".gz", ".bz2", ".snappy", ".zst", ".lz4", ".xz"] {
        let names = ["data", "data_0001", "data_0002", "16384", "16384_0001"]
            .map(|name| format!("{name}.tar{ending}"));
        let scene = scene(&Info::new(ID), &names.each_ref().map(String::as_str));
        let (plan, record) = scene.plan_of(&scene.request_to_store());
        assert_eq!(plan.unwrap().bytes, Some(5000), "{ending}");
        let warned = |(level, line): &(Level, String)| *level == Level::Warn && line.contains("no checksums");
        assert!(record.log.iter().any(warned), "{record:?}");
    }
}

#[test]
fn a_missing_archive_or_part_is_named() {
    for (names, what) in [
        (
            ["data/base.tar.gz"].as_slice(),
            "no 16384.tar, plain or compressed, which holds the tablespace fast",
        ),
        (&["data.tar.gz"], "no 16384.tar"),
        (&["16384.tar"], "no data.tar"),
        (&["data/16384.tar"], "no base.tar"),
        (
            &["data.tar", "data_0002.tar", "16384.tar"],
            "no data_0001.tar, plain or compressed, but a part 0002",
        ),
        (&["data_0001.tar", "16384.tar"], "no data.tar"),
        (&["data.tar", "16384.tar", "16384_0001.tar", "16384_0003.tar"], "no 16384_0002.tar"),
        (&["data.tar", "16384.tar", "16385.tar"], "16385.tar belongs to no tablespace"),
        (&["data.tar", "data.tar.gz", "16384.tar"], "there are both"),
        (&["data.tar", "16384.tar", "data/base.tar", "data/16384.tar"], "both archives"),
        (&["data/base.tar.gz.gpg", "data/16384.tar.gz.gpg"], "encrypted with gpg"),
        (&["pgdata/PG_VERSION"], "pgdata"),
        (&["data/base/5/1259"], "neither data/PG_VERSION"),
        (&["data.tar.br", "16384.tar.br"], "neither data/PG_VERSION"),
        (&[], "neither data/PG_VERSION"),
    ] {
        let refused = refusal(names);
        assert!(refused.contains(what), "{names:?}: {refused}");
    }
}

#[test]
fn archives_without_a_label_in_backup_info_are_refused() {
    for names in [["data/base.tar", "data/16384.tar"], ["data.tar", "16384.tar"]] {
        let refused = scene(&Info::new(ID).with("backup_label=None"), &names).refusal();
        assert!(refused.contains("no `backup_label`"), "{refused}");
    }
}

#[test]
fn archives_within_archives_are_refused() {
    let refused = scene(&Info::new(ID).with("compression=gzip"), &["data.tar", "16384.tar"]).refusal();
    assert!(refused.contains("within other archives"), "{refused}");
}

#[test]
fn the_number_of_files_without_a_tree_is_bounded() {
    let scene = scene(&Info::new(ID), &[]);
    for number in 0..=MOST_OBJECTS {
        scene.put(&format!("base/{ID}/x/{number}"), "");
    }
    assert!(scene.refusal().contains("more than 20000 files"));
    scene.remove(&format!("base/{ID}/x/0"));
    assert!(scene.refusal().contains("neither data/PG_VERSION"));
}

/// A chain of two backups of PostgreSQL 17 in archives.
fn chain(parent: Info) -> Scene {
    let child = Info::new(ID);
    let label = format!("{}INCREMENTAL FROM LSN: 0/200028\nINCREMENTAL FROM TLI: 1\n", child.label())
        .replace('\n', "\\n");
    let child = child
        .with(format!("backup_label='{label}'"))
        .with(format!("parent_backup_id={PARENT}"))
        .with("version=170004")
        .with("compression=none")
        .with("tablespaces=None");
    let scene = scene(&child, &["data/base.tar"]);
    // A minor upgrade, and a tablespace that was dropped meanwhile.
    scene.info(&parent.at(0x0020_0028, 1).with("version=170005").with("compression=gzip"));
    scene.put(&format!("base/{PARENT}/data/base.tar.gz"), [7; 1000]);
    scene.put(&format!("base/{PARENT}/data/16384.tar.gz"), [7; 1000]);
    scene
}

#[test]
fn a_chain_in_archives_is_planned() {
    let plan = chain(Info::new(PARENT)).plan().unwrap();
    assert_eq!((plan.backup.as_str(), plan.postgresql_major), (ID, Some(17)));
    assert_eq!((plan.bytes, plan.tablespaces.len()), (Some(1000), 0));
}

#[test]
fn a_chain_with_a_parent_that_cannot_be_used_is_refused() {
    for (line, what) in [
        ("status=FAILED", "FAILED"),
        ("status=WAITING_FOR_WALS", "WAITING_FOR_WALS"),
        ("systemid=7", "another cluster"),
        ("encryption=gpg", "encrypted with gpg"),
        ("backup_label=None", "backup_label"),
    ] {
        let scene = chain(Info::new(PARENT).with(line));
        let refused = scene.refusal_of(&scene.request().with("backup", ID));
        assert!(refused.contains(what) && refused.contains(PARENT), "{line}: {refused}");
    }
    let scene = chain(Info::new(PARENT));
    scene.remove(&format!("meta/{PARENT}-backup.info"));
    assert!(scene.refusal().contains("its parent 20261125T043406 is missing"));
    let scene = chain(Info::new(PARENT));
    scene
        .remove(&format!("base/{PARENT}/data/base.tar.gz"))
        .put(&format!("base/{PARENT}/data/PG_VERSION"), "17\n");
    let refused = scene.refusal();
    assert!(refused.contains("pg_combinebackup") && refused.contains(PARENT), "{refused}");
}
