mod backups;
mod chains;
mod scene;

use postgres_formats::written::ControlFile;
use understudy::Tablespace;
use ustar::written::{archive, file};

use super::*;
use scene::{DELTA, FULL, SECOND, SYSTEM_IDENTIFIER, Scene};

#[test]
fn a_plan_is_made_from_the_sentinel_the_label_and_the_control_file() {
    let scene = Scene::new();
    let (plan, record) = scene.plan_of(&scene.request());
    let plan = plan.unwrap();
    assert_eq!(plan.backup, SECOND);
    assert_eq!((plan.postgresql_major, plan.system_identifier), (Some(15), Some(SYSTEM_IDENTIFIER)));
    assert_eq!(
        (plan.timeline, plan.start_lsn, plan.stop_lsn),
        (Some(1), Some(0x0600_0028), Some(0x0600_0128))
    );
    assert_eq!(plan.tablespaces, [Tablespace { oid: 16384, name: None, location: "/fast".to_owned() }]);
    assert_eq!((plan.bytes, plan.files, plan.builds_on_existing), (Some(50_000), None, false));
    assert!(
        record.log.iter().any(|(_, line)| line.contains(DELTA) && line.contains(FULL)),
        "{:?}",
        record.log
    );
}

#[test]
fn a_store_a_directory_and_a_prefix_lead_to_the_same_backup() {
    let scene = Scene::new();
    for request in [
        Request::default().with("store", "repo").with("wal", "none"),
        Request::default().with("directory", scene.path("storage/pg").to_str().unwrap()).with("wal", "none"),
    ] {
        assert_eq!(scene.plan_of(&request).0.unwrap().backup, SECOND, "{request:?}");
    }
}

#[test]
fn an_invalid_option_is_named() {
    let scene = Scene::new();
    let directory = scene.path("storage").to_str().unwrap().to_owned();
    let with = |name: &str, value: &str| Request::default().with("store", "repo").with(name, value);
    for (request, what) in [
        (Request::default(), "one of the options"),
        (with("directory", &directory), "one of the options"),
        (with("prefix", "../data"), "prefix"),
        (with("prefix", ""), "prefix"),
        (with("backup", "20261126-043406F"), "`backup = "),
        (with("backup", "../base_000000010000000000000004"), "`backup = "),
        (with("target-time", "2026-11-26 04:30:00"), "with a zone"),
        (with("target-user-data", "nightly"), "is not JSON"),
        (with("backup", FULL).with("target-time", "2026-11-26 04:30:00Z"), "`backup` and `target-time`"),
        (with("target-user-data", "1").with("target-time", "2026-11-26 04:30:00Z"), "set one of them"),
        (with("target-lsn", "0/3000000").with("target-time", "2026-11-26 04:30:00Z"), "set one of them"),
        (with("backup", FULL).with("target-timeline", 1), "`backup` and `target-timeline`"),
        (with("target-lsn", "3000000"), "is not an LSN"),
        (with("prefix", "pg").with("target-timeline", 0), "timelines count from 1"),
        (with("libsodium-key-transform", "rot13"), "none of none, hex, base64"),
        (with("encryption", "kms"), "none of libsodium, openpgp"),
        (with("encryption", "openpgp").with("libsodium-key-transform", "hex"), "set one of them"),
        (with("encryption", "openpgp"), "the option `key`"),
        (with("wal", "some"), "none of none, consistent, latest"),
        (with("key", "backups"), "backups"),
        (Request::default().with("directory", directory.as_str()).with("key", "k"), "set `store` instead"),
        (Request::default().with("store", directory.as_str()), "`directory`"),
        (Request::default().with("directory", "repo"), "`grants.read`"),
        (Request::default().with("store", "other"), "denied"),
    ] {
        let refusal = scene.refusal_of(&request);
        assert!(refusal.contains(what), "{request:?}: {refusal}");
    }
}

#[test]
fn without_a_finished_backup_the_method_is_not_applicable() {
    let scene = Scene::new();
    for name in [FULL, DELTA, SECOND] {
        scene.remove(&scene::sentinel_of(name));
    }
    assert!(matches!(scene.plan(), Err(Failure::NotApplicable(why)) if why.contains("no finished backup")));
    std::fs::remove_dir_all(scene.path("storage")).unwrap();
    assert!(matches!(scene.plan(), Err(Failure::NotApplicable(why)) if why.contains("no directory")));
}

#[test]
fn the_segments_from_the_start_to_the_end_come_with_the_backup() {
    let scene = Scene::new();
    let request = Request::default().with("store", "repo").with("wal", "consistent");
    let plan = scene.plan_of(&request).0.unwrap();
    assert_eq!(plan.bytes, Some(50_000 + (16 << 20)));

    let segment = "wal_005/000000010000000000000006";
    scene.remove(segment);
    let refusal = scene.refusal_of(&request);
    assert!(refusal.contains("000000010000000000000006 is missing") && refusal.contains("lz4"), "{refusal}");
    for ending in [".lz4", ".lzma", ".gz", ".zst", ".br"] {
        scene.put(&format!("{segment}{ending}"), b"x");
        assert!(scene.plan_of(&request).0.is_ok(), "{ending}");
        scene.remove(&format!("{segment}{ending}"));
    }
    for other in [".partial.lz4", ".xz", ".00000028.backup.lz4", "_delta.lz4"] {
        scene.put(&format!("{segment}{other}"), b"x");
    }
    assert!(scene.refusal_of(&request).contains("is missing"));
    scene.put(&format!("{segment}.lzo"), b"x");
    assert!(scene.refusal_of(&request).contains("lzo, which is not read"));

    let mut control = ControlFile::in_production(SYSTEM_IDENTIFIER);
    let tar = archive(&[file("/global/pg_control", &control.put32(228, 0).bytes)]);
    scene.put_in(SECOND, "tar_partitions/pg_control.tar", &tar);
    assert!(scene.refusal_of(&request).contains("set `wal = \"none\"`"), "the size of a segment is unknown");
}

#[test]
fn create_writes_the_version_and_the_label_before_it_unpacks() {
    let scene = Scene::new();
    for name in [FULL, SECOND] {
        let data = scene.path("data");
        std::fs::remove_dir_all(&data).unwrap();
        std::fs::create_dir(&data).unwrap();
        let request = scene.request().with("backup", name);
        let plan = scene.plan_of(&request).0.unwrap();
        let (created, _) = scene.host().run(|| WalG::create(&request, &plan));
        // The stand-in does not unpack.
        assert!(
            matches!(&created, Err(Failure::Failed(why)) if why.contains("cannot unpack")),
            "{created:?}"
        );
        let read = |name: &str| std::fs::read_to_string(data.join(name)).unwrap_or_default();
        assert_eq!(read("PG_VERSION"), "15\n");
        let lsn = if name == FULL { "0/2000028" } else { "0/6000028" };
        assert_eq!(read("backup_label"), scene::label(lsn, 1));
        assert!(!data.join("global").exists());
    }
}

#[test]
fn a_backup_that_was_replaced_after_the_plan_is_not_restored() {
    let scene = Scene::new();
    let request = scene.request();
    let plan = scene.plan_of(&request).0.unwrap();
    let mut sentinel = scene::sentinel(0x0600_0028, Some((DELTA, 0x0400_0028, 2)));
    sentinel["FinishLSN"] = 0x0700_0000_u64.into();
    scene.put_sentinel(SECOND, &sentinel);
    let (created, _) = scene.host().run(|| WalG::create(&request, &plan));
    assert!(matches!(created, Err(Failure::RetryLater(why)) if why.contains("run again")));
    assert!(!scene.path("data/PG_VERSION").exists());
}

#[test]
fn a_run_that_is_cancelled_ends() {
    let scene = Scene::new();
    for checks in [0, 1, 5, 10] {
        let (plan, _) = scene.host().cancel_after(checks).run(|| WalG::plan(&scene.request()));
        assert_eq!(plan, Err(Failure::Cancelled), "{checks}");
    }
}
