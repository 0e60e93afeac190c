mod chains;
mod scene;

use std::fs;

use understudy::log::Level;
use understudy::{Tablespace, UNFINISHED_CONTROL_FILE};
use ustar::written::header;

use super::*;
use crate::backup::Search;
use scene::{LABEL, SYSTEM_IDENTIFIER, Scene, archive, control, file};

/// Returns the label of a backup that began at another LSN.
fn label_at(lsn: &str, timeline: u32) -> Vec<u8> {
    let label = LABEL.replace("0/2000028", lsn).replace("TIMELINE: 1", &format!("TIMELINE: {timeline}"));
    file("backup_label", label.as_bytes())
}

#[test]
fn a_plan_is_made_from_the_first_members_the_end_and_the_manifest() {
    let scene = Scene::new();
    let plan = scene.write("backup").manifest("backup", "base/5/1259").plan().unwrap();
    assert!(plan.backup.starts_with("nightly of 2026-11-23 08:34:17 UTC at 0/2000028 ("), "{}", plan.backup);
    assert_eq!((plan.postgresql_major, plan.system_identifier), (Some(15), Some(SYSTEM_IDENTIFIER)));
    assert_eq!(
        (plan.timeline, plan.start_lsn, plan.stop_lsn),
        (Some(1), Some(0x0200_0028), Some(0x0200_0100))
    );
    let location = "/old/fast disk".to_owned();
    assert_eq!(plan.tablespaces, [Tablespace { oid: 16384, name: None, location }]);
    assert!(plan.bytes.unwrap() >= 5000 + 1000 && plan.files == Some(2), "{plan:?}");
    assert!(!plan.builds_on_existing);
}

#[test]
fn without_a_manifest_the_sizes_of_plain_archives_bound_the_plan() {
    let scene = Scene::new();
    let plan = scene.write("backup").plan().unwrap();
    assert!(plan.bytes.unwrap() > 1 << 20);
    assert_eq!((plan.files, plan.stop_lsn), (None, None));
}

#[test]
fn the_control_file_is_found_before_records_of_zeros_too() {
    let scene = Scene::new();
    scene.write("backup");
    let mut base = fs::read(scene.path("backup/base.tar")).unwrap();
    base.resize(base.len().next_multiple_of(10240), 0);
    scene.put("backup", "base.tar", &base);
    assert_eq!(scene.plan().unwrap().system_identifier, Some(SYSTEM_IDENTIFIER));
}

#[test]
fn a_store_a_prefix_and_a_name_lead_to_the_same_backup() {
    let scene = Scene::new();
    scene.write("backup/nightly/one");
    for request in [
        Request::default().with("store", "repo").with("prefix", "backup/nightly/one/"),
        Request::default().with("store", "repo").with("prefix", "backup/nightly").with("backup", "one"),
        Request::default().with("store", "repo").with("prefix", "backup/nightly"),
        Request::default()
            .with("directory", scene.path("backup").to_str().unwrap())
            .with("backup", "nightly/one"),
    ] {
        let plan = scene.plan_of(&request).0.unwrap();
        assert_eq!(plan.start_lsn, Some(0x0200_0028), "{request:?}");
    }
}

#[test]
fn exactly_one_place_is_named_and_it_lies_below_what_is_granted() {
    let scene = Scene::new();
    scene.write("backup");
    let directory = scene.path("backup").to_str().unwrap().to_owned();
    let with =
        |name: &str, value: &str| Request::default().with("directory", directory.as_str()).with(name, value);
    for (request, what) in [
        (Request::default(), "one of the options"),
        (with("store", "repo"), "one of the options"),
        (with("prefix", "../data"), "prefix"),
        (with("backup", "/etc"), "backup"),
        (with("backup", ""), "backup"),
        (Request::default().with("store", directory.as_str()), "`directory`"),
        (Request::default().with("directory", "repo"), "`grants.read`"),
        (Request::default().with("directory", scene.path("").to_str().unwrap()), "`grants.read`"),
        (Request::default().with("store", "other"), "denied"),
    ] {
        let result = scene.plan_of(&request).0;
        assert!(matches!(&result, Err(Failure::Failed(why)) if why.contains(what)), "{request:?} {result:?}");
    }
}

#[test]
fn without_a_backup_the_method_is_not_applicable() {
    let scene = Scene::new();
    assert!(matches!(scene.plan(), Err(Failure::NotApplicable(why)) if why.contains("no base.tar")));
    scene.put("backup", "16384.tar", &archive(&[]));
    scene.put("backup", "base.tar.bz2", b"x");
    assert!(matches!(scene.plan(), Err(Failure::NotApplicable(_))));
    fs::remove_dir_all(scene.path("backup")).unwrap();
    assert!(matches!(scene.plan(), Err(Failure::NotApplicable(why)) if why.contains("no directory")));
}

#[test]
fn the_backup_that_began_last_by_timeline_and_lsn_is_used() {
    let scene = Scene::new();
    for (folder, lsn, timeline) in [("a", "0/9000028", 1), ("b", "0/3000028", 2), ("c", "1/28", 1)] {
        let other = Scene::new().with(label_at(lsn, timeline));
        scene.write(&format!("backup/{folder}"));
        scene.put(&format!("backup/{folder}"), "base.tar", &archive(&other.base));
    }
    let plan = scene.plan().unwrap();
    assert_eq!((plan.timeline, plan.start_lsn), (Some(2), Some(0x0300_0028)));
    assert!(plan.backup.starts_with("b: nightly"), "{}", plan.backup);
    let named = scene.plan_of(&scene.request().with("backup", "c")).0.unwrap();
    assert_eq!(named.start_lsn, Some(0x1_0000_0028));
}

#[test]
fn a_label_may_be_in_any_encoding() {
    // Latin 1.
    let label: Vec<u8> = LABEL.bytes().map(|byte| if byte == b'g' { 0xFC } else { byte }).collect();
    let scene = Scene::new().with(file("backup_label", &label));
    let plan = scene.write("backup").plan().unwrap();
    assert!(plan.backup.starts_with("ni\u{FFFD}htly of 2026-11-23"), "{}", plan.backup);
}

#[test]
fn a_backup_that_cannot_be_used_is_skipped_with_a_warning() {
    let scene = Scene::new();
    for folder in ["good", "no-label", "incremental", "no-tablespace", "bad-manifest"] {
        scene.write(&format!("backup/{folder}"));
    }
    let newer = |scene: Scene| archive(&scene.with(label_at("0/9000028", 1)).base);
    scene.put("backup/no-label", "base.tar", &archive(&Scene::new().without("backup_label").base));
    let incremental = format!("{LABEL}INCREMENTAL FROM LSN: 0/1000028\n");
    let incremental = Scene::new().with(file("backup_label", incremental.as_bytes()));
    scene.put("backup/incremental", "base.tar", &archive(&incremental.base));
    scene.put("backup/no-tablespace", "base.tar", &newer(Scene::new()));
    fs::remove_file(scene.path("backup/no-tablespace/16384.tar")).unwrap();
    scene.put("backup/bad-manifest", "base.tar", &newer(Scene::new()));
    scene.put("backup/bad-manifest", "backup_manifest", b"{");
    let (plan, record) = scene.plan_of(&scene.request());
    assert!(plan.unwrap().backup.starts_with("good: "));
    for folder in ["no-label", "incremental", "no-tablespace", "bad-manifest"] {
        let warned = record.log.iter().any(|(level, line)| *level == Level::Warn && line.contains(folder));
        assert!(warned, "{folder}: {:?}", record.log);
    }
    fs::remove_dir_all(scene.path("backup/good")).unwrap();
    assert!(matches!(scene.plan(), Err(Failure::Failed(_))));
}

#[test]
fn two_archives_of_one_name_are_ambiguous() {
    let scene = Scene::new();
    scene.write("backup").put("backup", "base.tar.gz", b"x");
    assert!(scene.refusal().contains("there are both"));

    // Among several backups, such a one is skipped.
    let scene = Scene::new();
    scene.write("backup/both").put("backup/both", "base.tar.gz", b"x");
    assert!(scene.refusal().contains("there are both"));
    scene.write("backup/good");
    let (plan, record) = scene.plan_of(&scene.request());
    assert!(plan.unwrap().backup.starts_with("good: "));
    let warned = |(level, line): &(Level, String)| {
        *level == Level::Warn && line.contains("backup both: there are both")
    };
    assert!(record.log.iter().any(warned), "{:?}", record.log);
}

#[test]
fn a_tablespace_without_its_archive_and_the_reverse_are_refused() {
    let scene = Scene::new();
    scene.write("backup");
    fs::remove_file(scene.path("backup/16384.tar")).unwrap();
    assert!(
        scene.refusal().contains("the tablespace 16384 at /old/fast disk, but the backup has no 16384.tar")
    );
    let scene = Scene::new();
    scene.write("backup").put("backup", "16999.tar", &archive(&[]));
    assert!(scene.refusal().contains("16999.tar belongs to no tablespace"));
}

#[test]
fn bad_members_that_plan_meets_are_refused_by_name() {
    for (name, kind, what) in [
        ("../escaped", b'0', "`../escaped`"),
        ("/tmp/escaped", b'0', "`/tmp/escaped`"),
        ("pg_hba.conf", b'2', "symbolic link"),
        ("pg_hba.conf", b'1', "hard link"),
        ("base/5/INCREMENTAL.1260", b'0', "that of a full backup"),
        ("pg_tblspc/16384/PG_15_202209061/x", b'0', "archive of its tablespace"),
        ("postmaster.pid", b'0', "no base backup has"),
        (UNFINISHED_CONTROL_FILE, b'0', "no base backup has"),
    ] {
        let mut scene = Scene::new();
        scene.base.insert(2, header(name, kind, 0).to_vec());
        scene.write("backup");
        let refusal = scene.refusal();
        assert!(refusal.contains("base.tar") && refusal.contains(what), "{name}: {refusal}");
    }
}

#[test]
fn an_invalid_manifest_and_that_of_another_backup_are_refused() {
    let scene = Scene::new();
    scene.write("backup").manifest("backup", "base/5/1259");
    let path = scene.path("backup/backup_manifest");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, &text[..text.len() / 2]).unwrap();
    assert!(scene.refusal().contains("backup_manifest is not a manifest"));
    fs::write(&path, text.replace("\"Size\": 5000", "\"Size\": 5001")).unwrap();
    assert!(scene.refusal().contains("its own checksum"));
    scene.manifest("backup", "base/5/INCREMENTAL.1259");
    assert!(scene.refusal().contains("that of a full backup"));

    let other = Scene::new().with(label_at("0/9000028", 1));
    other.write("backup").manifest("backup", "base/5/1259");
    assert!(other.refusal().contains("belongs to another backup"));
}

#[test]
fn a_manifest_that_is_too_large_is_refused_unread() {
    let scene = Scene::new();
    scene.write("backup");
    let manifest = fs::File::create(scene.path("backup/backup_manifest")).unwrap();
    manifest.set_len((1 << 30) + 1).unwrap();
    assert!(scene.refusal().contains("backup_manifest is larger than 1 GiB"));
}

#[test]
fn a_backup_that_was_replaced_after_the_plan_is_retry_later() {
    let scene = Scene::new();
    let plan = scene.write("backup").plan().unwrap();
    let restore = || scene.host().run(|| Tarball::create(&scene.request(), &plan)).0;
    let later = |result: Result<(), Failure>| match result {
        Err(Failure::RetryLater(why)) => assert!(why.contains("since the plan was made"), "{why}"),
        other => panic!("{other:?}"),
    };
    let newer = Scene::new().with(label_at("0/9000028", 1));
    scene.put("backup", "base.tar", &archive(&newer.base));
    later(restore());
    scene.put("backup", "base.tar", &archive(&scene.base));
    scene.put("backup", "pg_wal.tar", &archive(&[file("000000010000000000000002", &[7; 3000])]));
    later(restore());
    fs::remove_file(scene.path("backup/base.tar")).unwrap();
    later(restore());
}

#[test]
fn a_missing_label_and_an_invalid_control_file_are_refused() {
    let scene = Scene::new().without("backup_label");
    scene.write("backup");
    assert!(scene.refusal().contains("has no backup_label"));
    let scene = Scene::new().with(file("global/pg_control", &vec![0; control().len()]));
    scene.write("backup");
    assert!(scene.refusal().contains("control file version 0"));
    let scene = Scene::new().with(file("PG_VERSION", b"fifteen\n"));
    scene.write("backup");
    assert!(scene.refusal().contains("names no version"));
}

#[test]
fn members_that_are_too_large_are_refused_unread() {
    for (name, limit) in [("backup_label", 64 << 10), ("tablespace_map", 16 << 20), ("PG_VERSION", 64)] {
        let scene = Scene::new().with(file(name, &vec![b'x'; limit + 1]));
        scene.write("backup");
        let refusal = scene.refusal();
        assert!(
            refusal.contains(&format!("has a {name} that is not a file or is larger than {limit} bytes")),
            "{refusal}"
        );
    }
}

#[test]
fn too_many_archives_or_backups_are_refused() {
    let scene = Scene::new();
    for oid in 1..=1001 {
        scene.put("backup", &format!("{oid}.tar"), b"");
    }
    assert!(scene.refusal().contains("more than 1000 archives"));
    let scene = Scene::new();
    for number in 0..=200 {
        fs::create_dir(scene.path(&format!("backup/{number}"))).unwrap();
        scene.put(&format!("backup/{number}"), "base.tar", b"");
    }
    assert!(scene.refusal().contains("more than 200 backups"));
}

#[test]
fn plan_stops_when_the_run_is_cancelled() {
    let scene = Scene::new();
    scene.write("backup").manifest("backup", "base/5/1259");
    for looks in 0..4 {
        let (result, _) = scene.host().cancel_after(looks).run(|| Tarball::plan(&scene.request()));
        assert_eq!(result, Err(Failure::Cancelled), "{looks}");
    }
}

/// The stand-in rounds times in a listing differently than for one object, as real stores do.
#[test]
fn a_backup_is_compared_by_the_same_kind_of_request() {
    let scene = Scene::new();
    scene.write("backup").manifest("backup", "base/5/1259");
    let again = |change: &dyn Fn()| {
        let (compared, _) = scene.host().run(|| {
            let place = Place::of(&scene.request())?;
            let before = backup::find(&place, Search::Best, &mut |_, failure| Err(failure))?.remove(0);
            change();
            Ok::<_, Failure>(before.reload(&place)?.map(|now| now.mark() == before.mark()))
        });
        compared.unwrap()
    };
    assert_eq!(again(&|| {}), Some(true));
    assert_eq!(again(&|| scene.put("backup", "pg_wal.tar", b"another")), Some(false));
    assert_eq!(again(&|| fs::remove_file(scene.path("backup/16384.tar")).unwrap()), None);
}
