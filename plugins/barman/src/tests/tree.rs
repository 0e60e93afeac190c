//! Plain trees: `backup_method = rsync`, and `postgres` without archives.

use std::fs;

use understudy::log::Level;
use understudy::{Tablespace, UNFINISHED_CONTROL_FILE};

use super::scene::{Info, SYSTEM_IDENTIFIER, Scene, control, control_with};
use crate::{Barman, Failure, Method};

const ID: &str = "20261126T043406";
const COVERED: [&str; 7] = [
    "PG_VERSION",
    "backup_label",
    "base/5/1259",
    "base/5/PG_VERSION",
    "empty",
    "global/pg_control",
    "postgresql.conf",
];

fn scene() -> Scene {
    let scene = Scene::new();
    scene.tree(&Info::new(ID));
    scene
}

fn restored(scene: &Scene, name: &str) -> Vec<u8> {
    fs::read(scene.path("data").join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn a_plan_says_what_backup_info_says() {
    let plan = scene().plan().unwrap();
    assert_eq!((plan.backup.as_str(), plan.postgresql_major), (ID, Some(15)));
    assert_eq!(plan.system_identifier, Some(SYSTEM_IDENTIFIER));
    assert_eq!(
        (plan.timeline, plan.start_lsn, plan.stop_lsn),
        (Some(1), Some(0x0040_0028), Some(0x0040_0138))
    );
    let (name, location) = (Some("fast".to_owned()), "/old/fast".to_owned());
    assert_eq!(plan.tablespaces, [Tablespace { oid: 16384, name, location }]);
    let label = Info::new(ID).label().len() as u64;
    assert_eq!((plan.bytes, plan.files), (Some(9000 + 3 + 8192 + 12 + 500 + label), Some(2 + 6)));
    assert!(!plan.builds_on_existing);
}

#[test]
fn a_tree_is_restored_as_barman_restores_it() {
    for is_store in [false, true] {
        let scene = scene();
        let request = if is_store { scene.request_to_store() } else { scene.request() };
        let (result, record) = scene.create_of(&request);
        assert_eq!(result, Ok(()));
        assert_eq!(restored(&scene, "PG_VERSION"), b"15\n");
        assert_eq!(restored(&scene, "backup_label"), Info::new(ID).label().as_bytes());
        assert_eq!(restored(&scene, "base/5/1259"), [7; 9000]);
        assert_eq!(restored(&scene, UNFINISHED_CONTROL_FILE), control());
        assert_eq!(restored(&scene, "empty"), b"");
        assert_eq!(fs::read(scene.path("fast/PG_15_202209061/5/16385")).unwrap(), [8; 500]);
        for folder in
            ["pg_notify", "pg_twophase", "pg_logical/snapshots", "pg_wal/archive_status", "pg_tblspc"]
        {
            assert!(scene.path("data").join(folder).is_dir(), "{folder}");
        }
        for name in ["global/pg_control", "log", "pg_wal/00000001000000000000000F", "backup_manifest"] {
            assert!(!scene.path("data").join(name).exists(), "{name}");
        }
        let warned =
            |(level, line): &(Level, String)| *level == Level::Warn && line.contains("no backup_manifest");
        assert!(record.log.iter().any(warned), "{record:?}");
    }
}

#[test]
fn pages_are_checked_if_the_control_file_says_that_they_have_checksums() {
    // `data_checksum_version`
    for (version, verify, checks) in
        [(1, None, true), (0, None, false), (1, Some(true), true), (1, Some(false), false)]
    {
        let scene = scene();
        scene.put(&format!("base/{ID}/data/global/pg_control"), control_with(252, version));
        let request = match verify {
            None => scene.request(),
            Some(verify) => scene.request().with("verify", verify),
        };
        let (result, record) = scene.create_of(&request);
        assert_eq!(result, Ok(()));
        let says = |what: &str| record.log.iter().any(|(_, line)| line.contains(what));
        assert_eq!(says("the checksums of pages are checked"), checks, "{version} {verify:?}");
        assert_eq!(says("only the checksums of pages say"), checks, "{version} {verify:?}");
        assert_eq!(says("nothing says whether the bytes"), !checks, "{version} {verify:?}");
    }
}

#[test]
fn checksums_of_an_unknown_kind_are_refused_unless_pages_are_not_checked() {
    let scene = scene();
    scene.put(&format!("base/{ID}/data/global/pg_control"), control_with(252, 2));
    let refusal = scene.refusal();
    assert!(refusal.contains("data_checksum_version") && refusal.contains("`verify = false`"), "{refusal}");
    assert_eq!(scene.create_of(&scene.request().with("verify", false)).0, Ok(()));
}

#[test]
fn an_empty_tablespace_has_its_folder() {
    let scene = scene();
    scene.remove(&format!("base/{ID}/16384/PG_15_202209061/5/16385"));
    assert_eq!(scene.create_of(&scene.request()).0, Ok(()));
    assert!(scene.path("fast/PG_15_202209061").is_dir());
}

#[test]
fn a_tablespace_that_is_not_in_the_backup_is_missed() {
    let scene = scene();
    // In a store, an empty tablespace looks like one that was removed. The size of the whole backup tells them apart.
    scene.remove(&format!("base/{ID}/16384/PG_15_202209061/5/16385"));
    let in_store = || scene.refusal_of(&scene.request_to_store());
    assert!(in_store().contains("no folder PG_15_CATALOG of the tablespace 16384"));
    scene.info(&Info::new(ID).with(format!("size={}", scene.bytes(ID))));
    assert_eq!(scene.plan_of(&scene.request_to_store()).0.map(|plan| plan.backup), Ok(ID.to_owned()));
    assert!(scene.plan().is_ok());
    for folder in ["16384/PG_15_202209061", "16384"] {
        fs::remove_dir_all(scene.path(&format!("barman/main/base/{ID}/{folder}"))).unwrap();
        let refused = scene.refusal();
        assert!(refused.contains("tablespace 16384") && refused.contains("removed in part"), "{refused}");
    }
}

#[test]
fn a_tree_that_has_less_than_backup_info_says_is_refused() {
    let scene = scene();
    scene.info(&Info::new(ID).with(format!("size={}", scene.bytes(ID))));
    for request in [scene.request(), scene.request_to_store()] {
        assert!(scene.plan_of(&request).0.is_ok());
    }
    // Files that came later, such as a manifest, do not matter.
    scene.put(&format!("base/{ID}/data/more"), [7; 5000]);
    assert!(scene.plan().is_ok());
    scene.remove(&format!("base/{ID}/data/more"));
    scene.remove(&format!("base/{ID}/data/base/5/1259"));
    for request in [scene.request(), scene.request_to_store()] {
        let refused = scene.refusal_of(&request);
        assert!(refused.contains("removed in part") && refused.contains(ID), "{refused}");
    }
}

#[test]
fn a_missing_file_is_noticed_despite_files_that_the_size_does_not_count() {
    let scene = scene();
    scene.info(&Info::new(ID).with("mode=rsync-concurrent").with(format!("size={}", scene.bytes(ID))));
    // A copy that followed the link of the tablespace, and a manifest that was made later.
    scene.put(&format!("base/{ID}/data/pg_tblspc/16384/PG_15_202209061/5/16385"), [8; 9000]);
    assert!(scene.plan().is_ok());
    scene.remove(&format!("base/{ID}/16384/PG_15_202209061/5/16385"));
    let refused = scene.refusal_of(&scene.request_to_store());
    assert!(refused.contains("data/pg_tblspc/16384 has some"), "{refused}");
    scene.put(&format!("base/{ID}/16384/PG_15_202209061/5/16385"), [8; 500]);
    scene.remove(&format!("base/{ID}/data/base/5/1259"));
    let refused = scene.refusal_of(&scene.request_to_store());
    assert!(refused.contains("of at least"), "{refused}");
}

/// The size counts a `backup.info` that an older Barman kept in the folder, and that a later one moved.
#[test]
fn a_backup_info_that_was_moved_is_not_missed() {
    let scene = scene();
    let bytes = scene.bytes(ID);
    let info = Info::new(ID).with(format!("size={bytes}"));
    scene.old_info(&info);
    let info = Info::new(ID).with(format!("size={}", scene.bytes(ID)));
    scene.remove(&format!("base/{ID}/backup.info")).info(&info);
    assert!(scene.plan().is_ok());
}

#[test]
fn a_backup_that_barman_deletes_is_not_restored() {
    for mark in [format!("meta/{ID}-delete_this"), format!("base/{ID}/annotations/delete_this")] {
        let scene = scene();
        scene.put(&mark, "delete");
        for request in [scene.request(), scene.request_to_store()] {
            let refused = scene.refusal_of(&request.with("backup", ID));
            assert!(refused.contains("began to delete") && refused.contains(&mark), "{refused}");
        }
        assert!(scene.refusal().contains("is being deleted"));
        // Another backup is chosen instead.
        scene.tree(&Info::new("20261125T043406").at(0x0020_0028, 1));
        let (plan, record) = scene.plan_of(&scene.request());
        assert_eq!(plan.unwrap().backup, "20261125T043406");
        let warned = |(level, line): &(Level, String)| *level == Level::Warn && line.contains(&mark);
        assert!(record.log.iter().any(warned), "{record:?}");
    }
}

#[test]
fn a_backup_that_loses_files_after_the_plan_is_not_restored() {
    let scene = scene();
    let request = scene.request();
    let (result, _) = scene.host().run(|| {
        let plan = Barman::plan(&request)?;
        scene.remove(&format!("base/{ID}/data/base/5/1259"));
        Barman::create(&request, &plan)
    });
    assert!(
        matches!(&result, Err(Failure::RetryLater(why)) if why.contains("when it was planned")),
        "{result:?}"
    );
}

#[test]
fn a_backup_that_is_removed_or_changed_during_the_restore_is_noticed() {
    type Change = fn(&Scene);
    let changes: [(Change, &str); 3] = [
        (|scene| _ = scene.remove(&format!("meta/{ID}-backup.info")), "was removed"),
        (|scene| _ = scene.info(&Info::new(ID).at(0x0060_0028, 1)), "was replaced"),
        (|scene| _ = scene.put(&format!("meta/{ID}-delete_this"), "delete"), "deletes"),
    ];
    let check = |change: Change| {
        let scene = scene();
        let (checked, _) = scene.host().run(|| {
            let options = crate::options::Options::of(&scene.request())?;
            let usable = crate::plan::usable(&options)?;
            change(&scene);
            crate::create::check_unchanged(&options.place, &usable.newest)
        });
        checked
    };
    for (change, what) in changes {
        let checked = check(change);
        let is_expected = match &checked {
            Err(Failure::RetryLater(why)) => what == "was replaced" && why.contains(what),
            Err(Failure::Failed(why)) => what != "was replaced" && why.contains(what),
            _ => false,
        };
        assert!(is_expected, "{checked:?}");
    }
    // What Barman may change of a backup that it keeps.
    assert_eq!(
        check(|scene| {
            let info = Info::new(ID).with("deduplicated_size=5").with("size=10");
            scene.info(&info.with("status=WAITING_FOR_WALS"));
        }),
        Ok(())
    );
}

#[test]
fn a_symbolic_link_in_place_of_a_file_or_folder_is_refused() {
    use std::os::unix::fs::symlink;
    let scene = scene();
    let tree = scene.path(&format!("barman/main/base/{ID}"));
    // Links of tablespaces, and folders whose content is not restored.
    fs::create_dir_all(tree.join("data/pg_tblspc")).unwrap();
    symlink("../../16384", tree.join("data/pg_tblspc/16384")).unwrap();
    fs::remove_dir_all(tree.join("data/pg_wal")).unwrap();
    symlink("/old/pg_wal", tree.join("data/pg_wal")).unwrap();
    fs::create_dir_all(tree.join("data/log")).unwrap();
    symlink("postgresql.log", tree.join("data/log/latest")).unwrap();
    symlink("/notes", tree.join("notes")).unwrap();
    assert!(scene.plan().is_ok());
    for name in [
        "data/base/5/2619",
        "data/pg_xact",
        "data/pg_tblspc/16385",
        "16384/PG_15_202209061/6",
        "data/base/log",
    ] {
        symlink("/somewhere", tree.join(name)).unwrap();
        let refused = scene.refusal();
        assert!(refused.contains(&format!("{name} is a symbolic link")), "{refused}");
        fs::remove_file(tree.join(name)).unwrap();
    }
    assert!(scene.plan().is_ok());
}

#[test]
fn folders_are_nested_no_deeper_than_the_limit() {
    let scene = scene();
    // `data` is the first folder below that of the backup.
    let nested = |depth: usize| format!("barman/main/base/{ID}/data{}", "/d".repeat(depth - 1));
    fs::create_dir_all(scene.path(&nested(crate::tree::DEEPEST))).unwrap();
    assert!(scene.plan().is_ok());
    fs::create_dir_all(scene.path(&nested(crate::tree::DEEPEST + 1))).unwrap();
    assert!(scene.refusal().contains("more than 64 folders deep"));
}

/// Directories that have files in every cluster are not made up, so that the host misses them.
#[test]
fn only_directories_that_may_be_empty_are_created() {
    let scene = scene();
    assert_eq!(scene.create_of(&scene.request()).0, Ok(()));
    for name in ["pg_xact", "pg_multixact", "pg_multixact/members", "pg_multixact/offsets"] {
        assert!(!scene.path("data").join(name).exists(), "{name}");
    }
}

#[test]
fn a_manifest_must_fit_every_file() {
    let covered = || COVERED.iter().copied().chain(["pg_tblspc/16384/PG_15_202209061/5/16385"]);
    let all: Vec<_> = covered().collect();
    let with_manifest = |files: &[&str]| {
        let scene = scene();
        scene.manifest(ID, files);
        scene
    };
    let scene = with_manifest(&all);
    assert_eq!(scene.create_of(&scene.request()).0, Ok(()));

    let fails = |scene: &Scene, what: &str| {
        let failure = scene.create_of(&scene.request()).0.unwrap_err().to_string();
        assert!(failure.contains(what), "{what}: {failure}");
    };
    let scene = with_manifest(&all);
    scene.put(&format!("base/{ID}/data/base/5/1259"), [7; 8999]);
    fails(&scene, "`base/5/1259` with 9000 bytes, but the file has 8999");
    let scene = with_manifest(&all);
    scene.put(&format!("base/{ID}/data/base/5/9999"), "x");
    fails(&scene, "`base/5/9999` is not in the manifest");
    let scene = with_manifest(&all);
    scene.remove(&format!("base/{ID}/data/base/5/1259"));
    fails(&scene, "lists `base/5/1259`, which the backup lacks");
    let scene = with_manifest(&all);
    scene.put(&format!("base/{ID}/data/backup_manifest"), "{}");
    fails(&scene, "backup_manifest");
    let without_label: Vec<_> = covered().filter(|name| *name != "backup_label").collect();
    fails(&with_manifest(&without_label), "backup_label");
}

#[test]
fn a_manifest_of_generate_manifest_lists_no_file_of_a_tablespace() {
    let scene = scene();
    scene.manifest(ID, &COVERED);
    let (result, record) = scene.create_of(&scene.request());
    assert_eq!(result, Ok(()));
    let warned =
        |(level, line): &(Level, String)| *level == Level::Warn && line.contains("no file of a tablespace");
    assert!(record.log.iter().any(warned), "{record:?}");
}

#[test]
fn a_backup_without_a_label_is_refused_and_an_exclusive_one_has_it_in_the_tree() {
    let scene = scene();
    scene.info(&Info::new(ID).with("backup_label=None"));
    assert_eq!(scene.create_of(&scene.request()).0, Ok(()));
    assert_eq!(restored(&scene, "backup_label"), Info::new(ID).label().as_bytes());

    scene.remove(&format!("base/{ID}/data/backup_label"));
    assert!(scene.refusal().contains("no `backup_label`"));
    scene.info(&Info::new(ID));
    assert!(scene.plan().is_ok());
    scene.put(&format!("base/{ID}/data/backup_label"), "other");
    assert!(scene.refusal().contains("another backup_label"));
}

#[test]
fn a_tree_that_is_not_that_of_its_backup_info_is_refused() {
    let put = |name: &str, bytes: &[u8]| {
        let scene = scene();
        scene.put(&format!("base/{ID}/{name}"), bytes);
        scene.refusal()
    };
    for (name, bytes, what) in [
        ("data/PG_VERSION", b"16\n".as_slice(), "version 15"),
        ("data/global/pg_control", b"short".as_slice(), "5 bytes"),
        (
            "data/base/5/INCREMENTAL.1259",
            b"x".as_slice(),
            "base/5/INCREMENTAL.1259 is of an incremental backup",
        ),
        ("16385/PG_15_202209061/5/1", b"x".as_slice(), "16385/PG_15_202209061/5/1 belongs to no tablespace"),
        ("16384/lost+found", b"x".as_slice(), "PG_15_CATALOG"),
    ] {
        let refused = put(name, bytes);
        assert!(refused.contains(what), "{name}: {refused}");
    }
    let mut other = control();
    other[0] ^= 1;
    assert!(put("data/global/pg_control", &other).contains("cluster"));
    let scene = scene();
    scene.remove(&format!("base/{ID}/data/global/pg_control"));
    assert!(scene.refusal().contains("global/pg_control is missing"));
}

#[test]
fn kinds_that_are_not_restored_are_named() {
    for (line, what) in [
        ("parent_backup_id=20261125T043406", "INCREMENTAL FROM LSN"),
        ("encryption=gpg", "encrypted with gpg"),
        ("mode=snapshot-concurrent", "snapshots"),
        ("snapshots_info={'provider': 'aws'}", "snapshots"),
        ("version=90624", "too old"),
    ] {
        let scene = scene();
        scene.info(&Info::new(ID).with(line));
        let refused = scene.refusal_of(&scene.request().with("backup", ID));
        assert!(refused.contains(what), "{line}: {refused}");
    }
}

#[test]
fn a_backup_that_changes_after_the_plan_is_not_restored() {
    let scene = scene();
    let request = scene.request();
    let (result, _) = scene.host().run(|| {
        let plan = Barman::plan(&request)?;
        scene.info(&Info::new(ID).with("tablespaces=[('fast', 16384, '/new/fast')]"));
        Barman::create(&request, &plan)
    });
    assert!(matches!(&result, Err(Failure::RetryLater(why)) if why.contains("replaced")), "{result:?}");
    assert!(!scene.path("data/PG_VERSION").exists());
}

#[test]
fn a_cancelled_restore_ends() {
    let scene = scene();
    let (plan, _) = scene.plan_of(&scene.request());
    let (result, _) = scene.host().cancel_after(3).run(|| Barman::create(&scene.request(), &plan.unwrap()));
    assert_eq!(result, Err(Failure::Cancelled));
}
