//! Incremental backups of PostgreSQL 17 in plain trees, in archives, and in both. Combining is tested with the real host.

use std::fs;

use understudy::log::Level;
use understudy::store::Bucket;
use understudy::transfer::{Fetch, Job};
use understudy::{Datadir, UNFINISHED_CONTROL_FILE};

use super::scene::{Info, Scene, control, control_with};
use crate::items;
use crate::options::Options;
use crate::plan;
use crate::unpack;
use crate::{Barman, Failure, Method};

const ID: &str = "20261126T043406";
const PARENT: &str = "20261125T043406";
const PARENT_BEGIN: u64 = 0x0020_0028;
const INCREMENTAL: &str = "INCREMENTAL FROM LSN: 0/200028\nINCREMENTAL FROM TLI: 1\n";

/// The files of the newest backup, and of its parent, that a manifest lists.
const OWN: [&str; 6] = [
    "PG_VERSION",
    "backup_label",
    "base/5/1259",
    "base/5/INCREMENTAL.1260",
    "global/pg_control",
    "pg_tblspc/16384/PG_17_202406281/5/INCREMENTAL.16385",
];
const OF_PARENT: [&str; 7] = [
    "PG_VERSION",
    "backup_label",
    "base/5/1260",
    "base/5/dropped",
    "global/pg_control",
    "pg_tblspc/16384/PG_17_202406281/5/16385",
    "pg_tblspc/16999/PG_17_202406281/5/1",
];

/// The `backup.info` of the newest backup.
fn child() -> Info {
    let label = format!("{}{INCREMENTAL}", Info::new(ID).label()).replace('\n', "\\n");
    Info::new(ID)
        .with(format!("backup_label='{label}'"))
        .with(format!("parent_backup_id={PARENT}"))
        .with("version=170004")
}

/// The `backup.info` of its parent. Between the two backups, the server had a minor upgrade, and a tablespace was dropped.
fn parent() -> Info {
    Info::new(PARENT)
        .at(PARENT_BEGIN, 1)
        .with("version=170002")
        .with("tablespaces=[('fast', 16384, '/old/fast'), ('gone', 16999, '/old/gone')]")
}

fn put(scene: &Scene, id: &str, files: &[&str], label: &str) {
    for name in files {
        let place = name.strip_prefix("pg_tblspc/").map_or(format!("data/{name}"), str::to_owned);
        let bytes = match *name {
            "PG_VERSION" => b"17\n".to_vec(),
            "backup_label" => label.as_bytes().to_vec(),
            "global/pg_control" => control(),
            name => name.as_bytes().to_vec(),
        };
        scene.put(&format!("base/{id}/{place}"), bytes);
    }
}

fn put_child(scene: &Scene) {
    put(scene, ID, &OWN, &format!("{}{INCREMENTAL}", Info::new(ID).label()));
    scene.info(&child());
}

fn put_parent(scene: &Scene, info: &Info) {
    put(scene, PARENT, &OF_PARENT, &info.label());
    scene.info(info);
}

fn put_archives(scene: &Scene, id: &str, names: &[&str], info: &Info) {
    for name in names {
        scene.put(&format!("base/{id}/{name}"), [7; 1000]);
    }
    scene.info(info);
}

/// A chain of two trees with their manifests.
fn trees() -> Scene {
    let scene = Scene::new();
    put_child(&scene);
    put_parent(&scene, &parent());
    scene.manifest(ID, &OWN).manifest_from(PARENT, PARENT_BEGIN, &OF_PARENT);
    scene
}

/// A chain of two backups in archives.
fn archives(parent: &Info) -> Scene {
    let scene = Scene::new();
    put_archives(&scene, ID, &["data/base.tar", "data/16384.tar"], &child().with("compression=none"));
    let names = ["data/base.tar.gz", "data/16384.tar.gz", "data/16999.tar.gz"];
    put_archives(&scene, PARENT, &names, &parent.clone().with("compression=gzip"));
    scene
}

/// Writes a file of the parent's tree.
fn put_in_parent(scene: &Scene, name: &str, bytes: impl AsRef<[u8]>) {
    scene.put(&format!("base/{PARENT}/data/{name}"), bytes);
}

fn refused(scene: &Scene) -> String {
    scene.refusal_of(&scene.request().with("backup", ID))
}

/// Returns the items of the newest tree and of its parent.
fn items_of(scene: &Scene) -> Result<[Vec<Fetch>; 2], Failure> {
    let found = scene.host().run(|| {
        let options = Options::of(&scene.request())?;
        let usable = plan::usable(&options)?;
        let place = &options.place;
        let origin = Job::new().origin(&Bucket::open(scene.path("barman").to_str().unwrap())?, None)?;
        let of = |id: &str, link| {
            let object = place.at.bucket.find(&format!("{}/data/backup_manifest", place.backup(id)))?;
            let mut items = Vec::new();
            items::of_tree(place, link, object.as_ref(), origin, &|oid| usable.restores(oid), &mut |item| {
                items.push(item);
                Ok(())
            })?;
            Ok::<_, Failure>(items)
        };
        Ok([of(ID, &usable.newest)?, of(PARENT, &usable.older[0].link)?])
    });
    found.0
}

#[test]
fn a_chain_of_trees_is_planned() {
    let scene = trees();
    let (plan, record) = scene.plan_of(&scene.request());
    let plan = plan.unwrap();
    assert_eq!((plan.backup.as_str(), plan.postgresql_major), (ID, Some(17)));
    // What the stored files hold does not say how large the restored files are. Barman recorded that.
    assert_eq!((plan.bytes, plan.files), (Some(5000), Some(2 + 4)));
    assert_eq!(plan.tablespaces.iter().map(|one| one.oid).collect::<Vec<_>>(), [16384]);
    assert!(!record.log.iter().any(|(level, _)| *level == Level::Warn), "{record:?}");
}

#[test]
fn the_items_of_a_tree_have_the_names_sizes_and_digests_of_the_stored_files() {
    for with_manifests in [true, false] {
        let scene = trees();
        if !with_manifests {
            for id in [ID, PARENT] {
                scene.remove(&format!("base/{id}/data/backup_manifest"));
            }
        }
        let [own, of_parent] = items_of(&scene).unwrap();
        let paths = |items: &[Fetch]| {
            let mut paths: Vec<_> = items.iter().map(|item| item.path.clone()).collect();
            paths.sort();
            paths
        };
        assert_eq!(paths(&own), OWN[2..]);
        // The tablespace that was dropped between the two backups has no files to restore.
        assert_eq!(paths(&of_parent), OF_PARENT[2..6]);
        for item in own.iter().chain(&of_parent) {
            let stored = fs::read(scene.path("barman").join(&item.object)).unwrap();
            assert_eq!((item.size, item.at), (stored.len() as u64, None), "{}", item.path);
            assert_eq!(item.digest.is_some(), with_manifests, "{}", item.path);
        }
        let increment = own.iter().find(|item| item.path == "base/5/INCREMENTAL.1260").unwrap();
        assert_eq!(increment.object, format!("main/base/{ID}/data/base/5/INCREMENTAL.1260"));
    }
}

#[test]
fn a_tree_of_a_chain_that_does_not_fit_its_manifest_is_refused_by_file_and_backup() {
    type Change = fn(&Scene);
    let changes: [(Change, &str); 5] = [
        (|scene| put_in_parent(scene, "base/5/1260", "cut"), "`base/5/1260` with"),
        (|scene| put_in_parent(scene, "base/5/9999", "x"), "`base/5/9999` is not in the manifest"),
        (|scene| _ = scene.remove(&format!("base/{PARENT}/data/base/5/1260")), "lists `base/5/1260`"),
        (
            |scene| _ = scene.remove(&format!("base/{PARENT}/16999/PG_17_202406281/5/1")),
            "lists `pg_tblspc/16999/",
        ),
        (|scene| _ = scene.manifest(PARENT, &OF_PARENT), "belongs to another backup"),
    ];
    for (change, what) in changes {
        let scene = trees();
        change(&scene);
        let failure = items_of(&scene).unwrap_err().to_string();
        assert!(
            failure.contains(what) && failure.contains(&format!("{PARENT}/data/backup_manifest")),
            "{what}: {failure}"
        );
    }
}

#[test]
fn the_first_files_are_written_before_a_chain_is_combined() {
    let scene = trees();
    let request = scene.request();
    let (result, _) = scene.create_of(&request);
    // The stand-in cannot combine.
    assert!(
        matches!(&result, Err(Failure::Failed(why)) if why.contains("cannot combine files")),
        "{result:?}"
    );
    assert_eq!(fs::read(scene.path("data/PG_VERSION")).unwrap(), b"17\n");
    // The label without the lines of an incremental backup, with which a server would not start.
    assert_eq!(fs::read_to_string(scene.path("data/backup_label")).unwrap(), Info::new(ID).label());
    for folder in ["pg_notify", "pg_tblspc", "pg_twophase"] {
        assert!(scene.path("data").join(folder).is_dir(), "{folder}");
    }
    assert!(scene.path("fast/PG_17_202406281").is_dir());
    assert!(!scene.path("data/global/pg_control").exists());
}

#[test]
fn a_chain_in_archives_and_a_mixed_one_are_planned() {
    let plan = archives(&parent()).plan().unwrap();
    assert_eq!((plan.backup.as_str(), plan.postgresql_major, plan.bytes), (ID, Some(17), Some(5000)));

    let scene = Scene::new();
    put_child(&scene);
    put_archives(&scene, PARENT, &["data/base.tar", "data/16384.tar", "data/16999.tar"], &parent());
    let plan = scene.plan().unwrap();
    assert_eq!((plan.backup.as_str(), plan.bytes), (ID, Some(5000)));

    let scene = Scene::new();
    put_archives(&scene, ID, &["data/base.tar.gz", "data/16384.tar.gz"], &child());
    put_parent(&scene, &parent());
    let (plan, record) = scene.plan_of(&scene.request());
    assert_eq!(plan.unwrap().bytes, Some(5000));
    for id in [ID, PARENT] {
        let warned = format!("{id} has no backup_manifest");
        assert!(
            record.log.iter().any(|(level, line)| *level == Level::Warn && line.contains(&warned)),
            "{record:?}"
        );
    }
}

#[test]
fn a_parent_that_cannot_be_used_is_refused_in_both_forms() {
    for (line, what) in [
        ("status=FAILED", "FAILED"),
        ("status=WAITING_FOR_WALS", "WAITING_FOR_WALS"),
        ("systemid=7", "cluster"),
        ("encryption=gpg", "encrypted with gpg"),
        ("mode=snapshot-concurrent", "snapshots"),
        ("version=160004", " 16"),
        ("new_encryption=yes", "`new_encryption`"),
    ] {
        let of_trees = trees();
        of_trees.info(&parent().with(line));
        for scene in [of_trees, archives(&parent().with(line))] {
            let refused = refused(&scene);
            assert!(refused.contains(what) && refused.contains(PARENT), "{line}: {refused}");
        }
    }
    let refused_by = refused(&archives(&parent().with("backup_label=None")));
    assert!(refused_by.contains("no `backup_label`") && refused_by.contains(PARENT), "{refused_by}");
    let scene = trees();
    scene.remove(&format!("meta/{PARENT}-backup.info"));
    assert!(refused(&scene).contains("its parent 20261125T043406 is missing"));
}

#[test]
fn a_tree_of_a_parent_that_is_damaged_is_refused_before_anything_is_removed() {
    for (name, bytes, what) in [
        ("PG_VERSION", b"16\n".to_vec(), "PG_VERSION is not that of version 17"),
        ("global/pg_control", b"short".to_vec(), "global/pg_control has 5 bytes"),
        ("base/5/INCREMENTAL.1", b"x".to_vec(), "base/5/INCREMENTAL.1 is of an incremental backup, although"),
        ("pg_tblspc/5/PG_17_202406281/1", b"x".to_vec(), "belongs to no tablespace"),
        ("backup_label", b"other".to_vec(), "another backup_label"),
        ("backup_manifest", b"{}".to_vec(), "backup_manifest"),
    ] {
        let scene = trees();
        put_in_parent(&scene, name, bytes);
        let refused = refused(&scene);
        assert!(refused.contains(what) && refused.contains(PARENT), "{name}: {refused}");
    }
    let scene = trees();
    let mut other = control();
    other[0] ^= 1;
    put_in_parent(&scene, "global/pg_control", other);
    assert!(refused(&scene).contains("cluster"));
    let scene = trees();
    scene.put(&format!("base/{ID}/data/global/INCREMENTAL.pg_control"), "x");
    let refused = refused(&scene);
    assert!(
        refused.contains("INCREMENTAL.pg_control is an increment of a file that is not a relation"),
        "{refused}"
    );
}

/// Increments without pages look alike for every size of pages, so only the control file says that files would be cut.
#[test]
fn a_chain_of_a_cluster_with_other_pages_or_segments_is_refused() {
    for (at, what) in [(216, "pages of 16384 bytes"), (220, "16384 pages in a segment")] {
        let scene = trees();
        scene.put(&format!("base/{ID}/data/global/pg_control"), control_with(at, 16_384));
        let refused = refused(&scene);
        assert!(refused.contains(what) && refused.contains(ID), "{refused}");
        // A full backup of such a cluster is restored as it is.
        put_in_parent(&scene, "global/pg_control", control_with(at, 16_384));
        let plan = scene.plan_of(&scene.request().with("backup", PARENT)).0;
        assert!(plan.is_ok(), "{plan:?}");
    }
}

#[test]
fn a_restored_chain_of_a_cluster_with_other_pages_is_refused() {
    let scene = archives(&parent());
    let checked = |bytes: Vec<u8>| {
        fs::create_dir_all(scene.path("data/global")).unwrap();
        fs::write(scene.path("data").join(UNFINISHED_CONTROL_FILE), bytes).unwrap();
        let (checked, _) = scene.host().run(|| {
            let options = Options::of(&scene.request())?;
            let usable = plan::usable(&options)?;
            unpack::check_restored(&usable, &options.place, &Datadir::of(&scene.request())?)
        });
        checked
    };
    let refused = checked(control_with(216, 32_768));
    assert!(
        matches!(&refused, Err(Failure::Failed(why)) if why.contains("pages of 32768 bytes") && why.contains(ID)),
        "{refused:?}"
    );
    fs::create_dir_all(scene.path("fast/PG_17_202406281")).unwrap();
    assert_eq!(checked(control()), Ok(()));
}

#[test]
fn a_tree_of_a_chain_that_lost_files_is_refused() {
    for (id, info) in [(ID, child()), (PARENT, parent())] {
        let scene = trees();
        for of in [ID, PARENT] {
            scene.remove(&format!("base/{of}/data/backup_manifest"));
        }
        let bytes = scene.bytes(id);
        let with = |more: u64| {
            let sized = info.clone().with(format!("size={}", bytes + more));
            scene.info(&sized);
            scene.plan()
        };
        assert!(with(0).is_ok(), "{id}");
        let refused = with(1 << 20).unwrap_err().to_string();
        assert!(refused.contains("removed in part") && refused.contains(id), "{refused}");
    }
}

#[test]
fn a_parent_that_barman_deletes_is_refused() {
    for mark in [format!("meta/{PARENT}-delete_this"), format!("base/{PARENT}/annotations/delete_this")] {
        let scene = trees();
        scene.put(&mark, "delete");
        let refused = refused(&scene);
        assert!(refused.contains("began to delete") && refused.contains(&mark), "{refused}");
    }
}

#[test]
fn an_incremental_backup_of_barman_cloud_is_refused() {
    let scene = Scene::new();
    put_archives(&scene, ID, &["data.tar", "16384.tar"], &child());
    assert!(refused(&scene).contains(&format!("the files of {ID} are in archives of barman-cloud")));
    let scene = Scene::new();
    put_child(&scene);
    put_archives(&scene, PARENT, &["data.tar", "16384.tar", "16999.tar"], &parent());
    assert!(refused(&scene).contains(&format!("the files of {PARENT} are in archives of barman-cloud")));
}

#[test]
fn the_parent_of_a_chain_is_not_changed_between_plan_and_restore() {
    let scene = trees();
    let request = scene.request();
    let (result, _) = scene.host().run(|| {
        let plan = Barman::plan(&request)?;
        scene.remove(&format!("meta/{PARENT}-backup.info"));
        Barman::create(&request, &plan)
    });
    assert!(matches!(&result, Err(Failure::Failed(why)) if why.contains(PARENT)), "{result:?}");
    assert!(!scene.path("data/PG_VERSION").exists());
}
