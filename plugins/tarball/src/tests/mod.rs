mod scene;

use std::fs;

use understudy::{Tablespace, UNFINISHED_CONTROL_FILE};

use super::*;
use crate::codec::Codec;
use crate::codec::tests::sample;
use crate::tar::tests::{archive, file, header};
use scene::{LABEL, SEGMENT, SYSTEM_IDENTIFIER, Scene, control};

#[test]
fn a_backup_is_planned_and_restored_with_every_codec() {
    for codec in [Codec::Plain, Codec::Gzip, Codec::Lz4, Codec::Zstd] {
        let scene = Scene::new();
        scene.write(codec).manifest();
        let plan = scene.plan().unwrap();
        assert_eq!(plan.backup, "nightly of 2026-11-23 08:34:17 UTC at 0/2000028");
        assert_eq!(plan.postgresql_major, Some(15), "{codec:?}");
        assert_eq!(
            (plan.timeline, plan.start_lsn, plan.stop_lsn),
            (Some(1), Some(0x0200_0028), Some(0x0200_0100))
        );
        assert_eq!(plan.system_identifier, (codec == Codec::Plain).then_some(SYSTEM_IDENTIFIER));
        let location = "/old/fast disk".to_owned();
        assert_eq!(plan.tablespaces, [Tablespace { oid: 16384, name: None, location }]);
        let (result, record) = scene.restore();
        assert_eq!(result, Ok(()), "{codec:?}");
        scene.assert_restored();
        assert_eq!(record.expected, (plan.bytes, plan.files));
        assert!(plan.bytes.unwrap() >= record.bytes && plan.files.unwrap() >= 9, "{plan:?} {record:?}");
    }
}

#[test]
fn a_plain_backup_without_a_manifest_is_counted_from_its_headers() {
    let scene = Scene::new();
    let plan = scene.write(Codec::Plain).plan().unwrap();
    let (result, record) = scene.restore();
    assert_eq!(result, Ok(()));
    scene.assert_restored();
    // The tablespace map is counted and not written.
    assert_eq!((plan.bytes, plan.files), (Some(record.bytes + 21), Some(record.files + 1)));
}

#[test]
fn a_compressed_backup_without_a_manifest_is_restored_uncounted() {
    let scene = Scene::new();
    let plan = scene.write(Codec::Gzip).plan().unwrap();
    assert_eq!((plan.bytes, plan.files, plan.stop_lsn), (None, None, None));
    assert_eq!(scene.restore().0, Ok(()));
    scene.assert_restored();
}

#[test]
fn fetched_wal_is_taken_from_base_tar() {
    let mut scene = Scene::new();
    scene.wal = None;
    let status = format!("pg_wal/archive_status/{SEGMENT}.done");
    let scene = scene.with(file(&format!("pg_wal/{SEGMENT}"), &sample())).with(file(&status, b""));
    scene.write(Codec::Plain).manifest();
    let plan = scene.plan().unwrap();
    let (result, record) = scene.restore();
    assert_eq!(result, Ok(()));
    assert_eq!((plan.bytes, plan.files), (Some(record.bytes + 21), Some(record.files + 1)));
    scene.assert_restored();

    // PostgreSQL lists the status file, though not the segment.
    let mut scene = scene;
    scene.empty();
    scene.listed.push((status, Vec::new()));
    scene.manifest();
    assert_eq!(scene.restore().0, Ok(()));
}

#[test]
fn what_pg_basebackup_itself_changes_need_not_fit_the_manifest() {
    let scene = Scene::new()
        .with(file("postgresql.auto.conf", b"primary_conninfo = ''\n"))
        .with(file("standby.signal", b""));
    scene.write(Codec::Plain).manifest();
    assert_eq!(scene.restore().0, Ok(()));
    assert!(scene.path("data/standby.signal").exists());
}

#[test]
fn where_there_is_nothing_to_restore_the_method_does_not_apply() {
    let scene = Scene::new();
    assert!(matches!(scene.plan(), Err(Failure::NotApplicable(why)) if why.contains("no base.tar")));
    scene.put("16384.tar", &archive(&scene.tablespace));
    scene.put("base.tar.bz2", b"x");
    assert!(matches!(scene.plan(), Err(Failure::NotApplicable(_))));
    fs::remove_dir_all(scene.path("backup")).unwrap();
    assert!(matches!(scene.plan(), Err(Failure::NotApplicable(why)) if why.contains("no directory")));
}

#[test]
fn a_directory_that_is_not_granted_is_a_mistake_that_is_told() {
    let scene = Scene::new();
    scene.write(Codec::Plain);
    let host = scene.host().granted([scene.path("data")]);
    let (result, _) = host.run(|| Tarball::plan(&scene.request()));
    assert!(matches!(result, Err(Failure::Failed(why)) if why.contains("`grants.read`")));
}

#[test]
fn two_archives_of_one_name_are_ambiguous() {
    let scene = Scene::new();
    scene.write(Codec::Plain).put("base.tar.gz", b"x");
    assert!(scene.refusal().contains("there are both"));
}

#[test]
fn a_tablespace_and_its_archive_come_together() {
    let scene = Scene::new();
    scene.write(Codec::Plain);
    fs::remove_file(scene.path("backup/16384.tar")).unwrap();
    assert!(scene.refusal().contains("the tablespace 16384 of /old/fast disk, and 16384.tar is missing"));
    let scene = Scene::new();
    scene.write(Codec::Plain).put("16999.tar", &archive(&scene.tablespace));
    assert!(scene.refusal().contains("16999.tar belongs to no tablespace"));
}

#[test]
fn bad_members_of_base_tar_are_refused_by_name() {
    for (name, kind, what) in [
        ("../escaped", b'0', "`../escaped`"),
        ("base/../../escaped", b'0', "`base/../../escaped`"),
        ("/tmp/escaped", b'0', "`/tmp/escaped`"),
        ("pg_tblspc/16384", b'2', "symbolic link"),
        ("base/5/1260", b'1', "hard link"),
        ("base/5/1260", b'3', "device"),
        ("base/5/1260", b'6', "FIFO"),
        ("base/5/INCREMENTAL.1260", b'0', "pg_combinebackup"),
        ("pg_tblspc/16384/PG_15_202209061/x", b'0', "archive of its tablespace"),
        ("pg_tblspc/666/x", b'5', "archive of its tablespace"),
        ("postmaster.pid", b'0', "no base backup has"),
        (UNFINISHED_CONTROL_FILE, b'0', "no base backup has"),
    ] {
        for codec in [Codec::Plain, Codec::Zstd] {
            let scene = Scene::new().with(header(name, kind, 0).to_vec());
            scene.write(codec);
            let refusal = scene.refusal();
            assert!(refusal.contains("base.tar") && refusal.contains(what), "{name}: {refusal}");
        }
    }
}

#[test]
fn bad_members_of_the_other_archives_are_refused_by_name() {
    for (name, kind, what) in [
        ("../escaped", b'0', "`../escaped`"),
        ("pg_hba.conf", b'0', "PG_MAJOR_CATALOG"),
        ("PG_15_x/1", b'0', "PG_MAJOR_CATALOG"),
        ("PG_15_202209061/5/INCREMENTAL.9", b'0', "pg_combinebackup"),
        ("PG_15_202209061/5/16385", b'0', "comes twice"),
        ("PG_15_202209061/5/", b'5', "twice"),
    ] {
        let mut scene = Scene::new();
        scene.tablespace.push(header(name, kind, 0).to_vec());
        scene.write(Codec::Plain);
        let refusal = scene.refusal();
        assert!(refusal.contains("16384.tar") && refusal.contains(what), "{name}: {refusal}");
    }
    for name in [
        "../base/5/1",
        "postgresql.conf",
        "archive_status/x.done",
        "archive_status/x/y",
        "00000002.histori",
        "0/1",
    ] {
        let mut scene = Scene::new();
        scene.wal.as_mut().unwrap().push(file(name, b""));
        scene.write(Codec::Plain);
        let refusal = scene.refusal();
        assert!(
            refusal.contains("pg_wal.tar") && refusal.contains(&format!("`{name}`")),
            "{name}: {refusal}"
        );
    }
}

#[test]
fn every_kind_of_wal_file_is_taken() {
    let mut scene = Scene::new();
    for name in
        ["00000002.history", "000000020000000000000003.partial", "000000010000000000000002.00000028.backup"]
    {
        scene.wal.as_mut().unwrap().push(file(name, b"x"));
        scene.wal.as_mut().unwrap().push(file(&format!("archive_status/{name}.ready"), b""));
    }
    scene.write(Codec::Plain);
    assert_eq!(scene.restore().0, Ok(()));
    assert!(scene.path("wal/00000002.history").exists());
}

#[test]
fn a_file_that_comes_twice_is_refused_with_and_without_a_manifest() {
    for manifest in [false, true] {
        let mut scene = Scene::new();
        scene.base.insert(9, file("base/5/1259", &sample()[..100_000]));
        scene.write(Codec::Plain);
        if manifest {
            scene.manifest();
        }
        let refusal = scene.refusal();
        assert!(refusal.contains("`base/5/1259` comes twice"), "{refusal}");
    }
}

#[test]
fn what_a_cluster_cannot_start_without_must_be_there() {
    for name in ["backup_label", "PG_VERSION", "global/pg_control"] {
        for codec in [Codec::Plain, Codec::Gzip] {
            let scene = Scene::new().without(name);
            scene.write(codec);
            let refusal = scene.refusal();
            assert!(refusal.contains(&format!("has no {name}")), "{name}: {refusal}");
        }
    }
    let scene = Scene::new().with(file("global/pg_control", &control()[..512]));
    scene.write(Codec::Plain);
    assert!(scene.refusal().contains("pg_control of 512 bytes"));
}

#[test]
fn an_incremental_backup_is_refused_before_anything_is_written() {
    let label = format!("{LABEL}INCREMENTAL FROM LSN: 0/1000028\n");
    let scene = Scene::new().with(file("backup_label", label.as_bytes()));
    scene.write(Codec::Gzip);
    assert!(
        matches!(scene.plan(), Err(Failure::Failed(why)) if why.contains("incremental backup from 0/1000028"))
    );
}

#[test]
fn a_truncated_archive_is_refused_in_whichever_codec() {
    for codec in [Codec::Plain, Codec::Gzip, Codec::Lz4, Codec::Zstd] {
        for name in ["base.tar", "16384.tar", "pg_wal.tar"] {
            let scene = Scene::new();
            scene.write(codec);
            let mut entries = fs::read_dir(scene.path("backup")).unwrap().map(|entry| entry.unwrap().path());
            let path = entries.find(|path| path.to_str().unwrap().contains(name)).unwrap();
            let bytes = fs::read(&path).unwrap();
            for length in [0, bytes.len() / 2, bytes.len() - 1025, bytes.len() - 1] {
                fs::write(&path, &bytes[..length]).unwrap();
                scene.empty();
                let refusal = scene.refusal();
                assert!(
                    refusal.contains(name) && refusal.contains("truncated"),
                    "{codec:?} {name} {length}: {refusal}"
                );
            }
        }
    }
}

#[test]
fn garbage_behind_an_archive_is_refused_in_whichever_codec() {
    for codec in [Codec::Plain, Codec::Gzip, Codec::Lz4, Codec::Zstd] {
        let scene = Scene::new();
        scene.write(codec);
        let mut entries = fs::read_dir(scene.path("backup")).unwrap().map(|entry| entry.unwrap().path());
        let path = entries.find(|path| path.to_str().unwrap().contains("base.tar")).unwrap();
        let garbage = [fs::read(&path).unwrap(), b"#!/bin/sh".to_vec()].concat();
        fs::write(&path, garbage).unwrap();
        assert!(scene.refusal().contains("base.tar"), "{codec:?}");
    }
}

#[test]
fn a_file_that_is_not_as_listed_fails_the_attempt_and_is_named() {
    let damaged = |contents: &[u8]| {
        let scene = Scene::new().with(file("base/5/1259", contents));
        scene.write(Codec::Zstd).manifest();
        scene.refusal()
    };
    let mut changed = sample()[..100_000].to_vec();
    changed[50_000] ^= 1;
    assert!(damaged(&changed).contains("`base/5/1259` does not have the SHA256 checksum"));
    assert!(damaged(&changed[..99_999]).contains("`base/5/1259` has 99999 bytes and is listed with 100000"));

    let scene = Scene::new().with(file("base/5/extra", b"x"));
    scene.write(Codec::Plain).manifest();
    assert!(scene.refusal().contains("`base/5/extra` is not in the manifest"));

    let scene = Scene::new().without("base/5/empty").without("base/5/1259");
    scene.write(Codec::Plain).manifest();
    assert!(scene.refusal().contains("`base/5/1259`, `base/5/empty` is missing"));
}

#[test]
fn a_manifest_that_is_none_or_another_backups_is_refused_in_the_plan() {
    let scene = Scene::new();
    scene.write(Codec::Plain).manifest();
    let path = scene.path("backup/backup_manifest");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, &text[..text.len() / 2]).unwrap();
    assert!(scene.plan().unwrap_err().to_string().contains("backup_manifest is no manifest"));
    fs::write(&path, text.replace("\"Size\": 3,", "\"Size\": 4,")).unwrap();
    assert!(scene.plan().unwrap_err().to_string().contains("its own checksum"));

    let other = Scene::new().with(file("backup_label", LABEL.replace("0/2000028", "0/9000028").as_bytes()));
    other.write(Codec::Plain).manifest();
    assert!(other.plan().unwrap_err().to_string().contains("belongs to another backup"));
}

#[test]
fn a_backup_that_was_replaced_after_the_plan_is_not_restored() {
    let scene = Scene::new();
    let plan = scene.write(Codec::Plain).plan().unwrap();
    let restore = |scene: &Scene| scene.host().run(|| Tarball::create(&scene.request(), &plan)).0;

    let newer = Scene::new().with(file("backup_label", LABEL.replace("0/2000028", "0/9000028").as_bytes()));
    newer.write(Codec::Plain);
    assert!(restore(&newer).unwrap_err().to_string().contains("replaced since"));

    let moved = Scene::new().with(file("tablespace_map", b"16384 /somewhere/else\n"));
    moved.write(Codec::Plain);
    assert!(restore(&moved).unwrap_err().to_string().contains("replaced since"));

    fs::remove_file(scene.path("backup/16384.tar")).unwrap();
    assert!(restore(&scene).unwrap_err().to_string().contains("replaced since"));
}

#[test]
fn what_is_not_a_plain_file_is_not_opened() {
    let scene = Scene::new();
    scene.write(Codec::Plain);
    for name in ["base.tar", "backup_manifest"] {
        let path = scene.path("backup").join(name);
        let _ = fs::remove_file(&path);
        fs::create_dir(&path).unwrap();
        assert!(scene.refusal().contains("is not a plain file"), "{name}");
        fs::remove_dir(&path).unwrap();
        scene.write(Codec::Plain);
    }
}

#[test]
fn a_restore_stops_when_it_is_told_to() {
    for codec in [Codec::Plain, Codec::Gzip, Codec::Lz4, Codec::Zstd] {
        let scene = Scene::new();
        scene.write(codec).manifest();
        let plan = scene.plan().unwrap();
        for looks in 0..8 {
            scene.empty();
            let (result, _) =
                scene.host().cancel_after(looks).run(|| Tarball::create(&scene.request(), &plan));
            assert_eq!(result, Err(Failure::Cancelled), "{codec:?} {looks}");
            assert!(!scene.path("data/global/pg_control").exists());
        }
        let (result, _) = scene.host().cancel_after(0).run(|| Tarball::plan(&scene.request()));
        assert_eq!(result, Err(Failure::Cancelled), "{codec:?}");
    }
}

#[test]
fn only_the_beginning_of_a_compressed_archive_is_read_for_the_plan() {
    // The version lies behind more than the plan is willing to read: the plan does without.
    let mut scene = Scene::new().without("PG_VERSION");
    scene.base.insert(2, file("large", &vec![0; 17 << 20]));
    scene.base.push(file("PG_VERSION", b"15\n"));
    scene.write(Codec::Gzip);
    assert_eq!(scene.plan().unwrap().postgresql_major, None);
    assert_eq!(scene.restore().0, Ok(()));
}

#[test]
fn more_archives_than_there_can_be_tablespaces_are_refused() {
    let scene = Scene::new();
    for oid in 1..=1001 {
        scene.put(&format!("{oid}.tar"), b"");
    }
    assert!(scene.refusal().contains("more than 1000 archives"));
}

#[test]
fn texts_that_are_too_long_are_refused_unread() {
    for (name, limit) in [("backup_label", 64 << 10), ("tablespace_map", 16 << 20), ("PG_VERSION", 64)] {
        for codec in [Codec::Plain, Codec::Gzip] {
            let scene = Scene::new().with(file(name, &vec![b'x'; limit + 1]));
            scene.write(codec);
            let refusal = scene.refusal();
            assert!(
                refusal.contains(&format!("has a {name} that is larger than {limit} bytes")),
                "{refusal}"
            );
        }
    }
}
