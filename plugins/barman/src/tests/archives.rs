//! Plans of archives: those of a Barman server and those of barman-cloud. Unpacking is tested with the real host.

use understudy::log::Level;

use super::scene::{Info, Scene};
use crate::contents::MOST_OBJECTS;

const ID: &str = "20261126T043406";

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
fn pages_in_archives_are_checked_if_backup_info_says_that_they_have_checksums() {
    for (line, verify, checks) in [
        ("data_checksums=on", true, true),
        ("data_checksums=on", false, false),
        ("data_checksums=off", true, false),
        ("data_checksums=None", true, false),
    ] {
        let scene = scene(&Info::new(ID).with(line), &["data.tar", "16384.tar"]);
        let (plan, record) = scene.plan_of(&scene.request().with("verify", verify));
        plan.unwrap();
        let says = |what: &str| record.log.iter().any(|(_, line)| line.contains(what));
        assert_eq!(says("only the checksums of pages say"), checks, "{line} {verify}");
        assert_eq!(says("nothing says whether the bytes"), !checks, "{line} {verify}");
        // The stand-in cannot unpack, but the job was told before.
        let (_, record) = scene.create_of(&scene.request().with("verify", verify));
        let is_told = record.log.iter().any(|(_, line)| line.contains("the checksums of pages are checked"));
        assert_eq!(is_told, checks, "{line} {verify}");
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
fn configuration_files_that_barman_cloud_stores_under_one_name_are_refused() {
    let of = |hba: &str| {
        let info = Info::new(ID).with("pgdata=/srv/data").with("config_file=/etc/one/pg.conf");
        scene(&info.with(format!("hba_file={hba}")), &["data.tar", "16384.tar"])
    };
    let refused = of("/etc/two/pg.conf").refusal();
    assert!(refused.contains("/etc/one/pg.conf and /etc/two/pg.conf"), "{refused}");
    for other in ["/etc/two/pg_hba.conf", "/srv/data/pg.conf", "None"] {
        assert!(of(other).plan().is_ok(), "{other}");
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
