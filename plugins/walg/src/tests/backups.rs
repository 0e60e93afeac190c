//! Which backup is chosen, and which backups are refused.

use std::fs;

use postgres_formats::written::ControlFile;
use serde_json::{Value, json};
use understudy::Failure;
use understudy::log::Level;
use ustar::written::{archive, directory, file, header};

use super::scene::{
    DELTA, FULL, SECOND, SYSTEM_IDENTIFIER, Scene, control, files_metadata, label, sentinel, sentinel_of,
};

#[test]
fn the_latest_backup_is_the_one_whose_sentinel_was_written_last() {
    let scene = Scene::new();
    assert_eq!(scene.plan_of(&scene.request().with("backup", "LATEST")).0.unwrap().backup, SECOND);
    scene.written_at(FULL, 100);
    assert_eq!(scene.plan().unwrap().backup, FULL);
    // Objects with other names, such as the archives of WAL-E, are no backups.
    for name in ["base_x", "x"] {
        scene.put(&sentinel_of(name), b"{}");
        scene.written_at(name, 200);
    }
    scene.put(&format!("basebackups_005/deeper/{}", sentinel_of(SECOND).rsplit_once('/').unwrap().1), b"{}");
    let (plan, record) = scene.plan_of(&scene.request());
    assert_eq!(plan.unwrap().backup, FULL);
    assert!(record.log.iter().any(|(level, line)| *level == Level::Warn && line.contains("base_x")));
}

#[test]
fn a_backup_is_chosen_by_its_name_its_time_or_its_user_data() {
    let scene = Scene::new();
    for (option, value, name) in [
        ("backup", FULL, FULL),
        ("backup", DELTA, DELTA),
        ("target-time", "2026-11-04T04:30:00Z", DELTA),
        ("target-time", "2026-11-04 04:29:59+00", FULL),
        ("target-time", "2030-01-01 00:00:00+00", SECOND),
        ("target-user-data", "{\"day\": 4.0}", DELTA),
        ("target-lsn", "0/4000128", DELTA),
        ("target-lsn", "0/4000127", FULL),
        ("target-lsn", "FF/0", SECOND),
    ] {
        assert_eq!(scene.plan_of(&scene.request().with(option, value)).0.unwrap().backup, name, "{value}");
    }
    for (option, value, what) in [
        ("backup", "base_000000010000000000000009", "there is no backup base_000000010000000000000009"),
        ("target-time", "2026-11-01T00:00:00Z", "none that ended at or before 2026-11-01T00:00:00Z"),
        ("target-user-data", "{\"day\": 5}", "none with the user data"),
        ("target-user-data", "null", "none with the user data"),
        ("target-lsn", "0/2000127", "none that ended at or before 0/2000127"),
    ] {
        let refusal = scene.refusal_of(&scene.request().with(option, value));
        assert!(refusal.contains(what), "{refusal}");
    }
    assert_eq!(scene.plan_of(&scene.request().with("target-timeline", 1)).0.unwrap().backup, SECOND);
    let both = scene.request().with("target-timeline", 1).with("target-lsn", "0/3000000");
    assert_eq!(scene.plan_of(&both).0.unwrap().backup, FULL);
    assert!(scene.refusal_of(&scene.request().with("target-timeline", 2)).contains("none on the timeline 2"));
    scene.put_in(FULL, "metadata.json", b"{\"user_data\": {\"day\": 4}}");
    assert!(scene.refusal_of(&both).contains("none that ended at or before 0/3000000 on the timeline 1"));
    let refusal = scene.refusal_of(&scene.request().with("target-user-data", "{\"day\": 4}"));
    assert!(refusal.contains("2 backups") && refusal.contains(FULL) && refusal.contains(DELTA), "{refusal}");
    // Without a time in the metadata, the time at which the sentinel was written counts.
    scene.written_at(FULL, 1_900_000_000);
    let request = scene.request().with("target-time", "2030-12-31 00:00:00+00");
    assert_eq!(scene.plan_of(&request).0.unwrap().backup, FULL);
}

#[test]
fn damaged_metadata_of_a_backup_do_not_hide_the_other_backups() {
    for (option, value, name) in [
        ("target-time", "2030-12-31 00:00:00+00", FULL),
        ("target-user-data", "{\"day\": 2}", FULL),
        ("target-lsn", "FF/0", FULL),
    ] {
        for damaged in [b"{".to_vec(), vec![b' '; (1 << 20) + 1]] {
            let scene = Scene::new();
            for backup in [DELTA, SECOND] {
                scene.put_in(backup, "metadata.json", &damaged);
            }
            let (plan, record) = scene.plan_of(&scene.request().with(option, value));
            assert_eq!(plan.unwrap().backup, name, "{option}");
            let warned = |(level, line): &(Level, String)| {
                *level == Level::Warn && line.contains(DELTA) && line.contains("not what WAL-G writes")
            };
            assert!(record.log.iter().any(warned), "{:?}", record.log);
        }
    }
}

#[test]
fn a_message_has_only_the_beginning_of_long_user_data() {
    let scene = Scene::new();
    let long = format!("\"{}\"", "x".repeat(10_000));
    let refusal = scene.refusal_of(&scene.request().with("target-user-data", long.as_str()));
    assert!(refusal.contains("xxx...") && refusal.len() < 1000, "{refusal}");
}

#[test]
fn a_name_with_which_only_other_names_begin_is_no_backup() {
    let scene = Scene::new();
    let offset = format!("{FULL}_00000028");
    scene.put_in(&offset, "tar_partitions/part_001.tar", b"x");
    for key in [
        "files_metadata.json",
        "metadata.json",
        "tar_partitions/part_001.tar",
        "tar_partitions/pg_control.tar",
        "tar_partitions/backup_label.tar",
    ] {
        scene.remove(&format!("basebackups_005/{FULL}/{key}"));
    }
    scene.remove(&sentinel_of(FULL));
    let refusal = scene.refusal_of(&scene.request().with("backup", FULL));
    assert!(refusal.contains("there is no backup"), "{refusal}");
}

/// A push that failed leaves archives, with which a later push of the same name is mixed.
#[test]
fn an_archive_that_the_list_does_not_name_is_not_unpacked() {
    let scene = Scene::new();
    for name in [SECOND, FULL] {
        scene.put_in(name, "tar_partitions/part_007.tar", b"x");
    }
    let mut parts: Vec<Vec<String>> = Vec::new();
    let (_, record) = scene.host().run(|| {
        let place = crate::options::Options::of(&scene.request())?.place;
        let name = crate::name::BackupName::parse(SECOND).unwrap();
        let usable = crate::plan::usable(&place, &name, &mut |_| Ok(()))?;
        parts = std::iter::once(&usable.newest)
            .chain(&usable.older)
            .map(|link| link.archives.parts.iter().map(|part| part.name.clone()).collect())
            .collect();
        Ok::<_, Failure>(())
    });
    assert_eq!(parts, [["part_001.tar"]; 3].map(|names| names.map(str::to_owned).to_vec()));
    for name in [SECOND, FULL] {
        let warned = |(level, line): &(Level, String)| {
            *level == Level::Warn && line.contains(name) && line.contains("part_007.tar")
        };
        assert!(record.log.iter().any(warned), "{:?}", record.log);
    }
}

#[test]
fn the_changed_and_the_unchanged_files_of_a_delta_backup_are_wanted_from_older_ones() {
    let scene = Scene::new();
    let mut wanted = Vec::new();
    let (_, _) = scene.host().run(|| {
        let place = crate::options::Options::of(&scene.request())?.place;
        let name = crate::name::BackupName::parse(SECOND).unwrap();
        crate::plan::usable(&place, &name, &mut |path| {
            wanted.push(path);
            Ok(())
        })
        .map(drop)
    });
    assert_eq!(wanted, ["base/5/1259", "base/5/2619"]);
}

#[test]
fn a_backup_without_a_sentinel_is_not_restored() {
    let scene = Scene::new();
    scene.remove(&sentinel_of(SECOND));
    assert_eq!(scene.plan().unwrap().backup, DELTA);
    let refusal = scene.refusal_of(&scene.request().with("backup", SECOND));
    assert!(refusal.contains("has no sentinel: it was not finished"), "{refusal}");
}

#[test]
fn a_sentinel_that_is_damaged_or_of_another_tool_is_refused() {
    let change = |key: &str, value: Value| {
        let mut changed = sentinel(0x0200_0028, None);
        changed[key] = value;
        changed.to_string()
    };
    let plain = sentinel(0x0200_0028, None).to_string();
    for (text, what) in [
        (change("LSN", Value::Null), "has no LSN"),
        (change("LSN", json!(0)), "has no LSN"),
        (change("LSN", json!(-1)), "not what WAL-G writes"),
        (change("LSN", json!("0/2000028")), "not what WAL-G writes"),
        (change("LSN", json!(33_554_472.0)), "not what WAL-G writes"),
        (change("FinishLSN", Value::Null), "has no FinishLSN"),
        (change("FinishLSN", json!(0x0200_0000)), "began at 0/2000028 and ended at 0/2000000"),
        (change("PgVersion", Value::Null), "has no PgVersion"),
        (change("PgVersion", json!(90_624)), "too old"),
        (change("PgVersion", json!(1_u64 << 32)), "not what WAL-G writes"),
        (change("Version", json!(3)), "version 3"),
        (change("Version", json!(0)), "version 0"),
        (change("DeltaChkpNum", json!(7)), "OrioleDB"),
        (
            change("DeltaLSN", json!(7)).replace("\"DeltaLSN\"", "\"DeltaFullName\":\"x\",\"DeltaLSN\""),
            "only some of",
        ),
        (change("DeltaFrom", json!(FULL)), "only some of"),
        (change("Spec", json!({"tablespaces": ["x"]})), "not an oid"),
        (plain.replace("\"LSN\"", "\"LSN\":1,\"LSN\""), "LSN twice"),
        (plain.replace(&SYSTEM_IDENTIFIER.to_string(), "18446744073709551616"), "not what WAL-G writes"),
        (plain[..plain.len() - 1].to_owned(), "not what WAL-G writes"),
        (format!("{plain}x"), "not what WAL-G writes"),
        (plain.replace("\"any\"", &format!("\"{}\"", "x".repeat(1 << 17))), "text or number"),
        (String::new(), "not what WAL-G writes"),
    ] {
        let scene = Scene::new();
        scene.put(&sentinel_of(FULL), text.as_bytes());
        let refusal = scene.refusal_of(&scene.request().with("backup", FULL));
        assert!(refusal.contains(what), "{}: {refusal}", &text[..text.len().min(300)]);
        assert!(refusal.contains(FULL), "{refusal}");
    }
}

#[test]
fn large_numbers_of_a_sentinel_are_read_exactly() {
    let scene = Scene::new();
    let (start, identifier) = (0xFFFF_FFFF_0200_0029_u64, u64::MAX);
    let mut large = sentinel(start, None);
    large["SystemIdentifier"] = json!(identifier);
    scene.put_sentinel(FULL, &large);
    let control = archive(&[file("/global/pg_control", &control(identifier))]);
    scene.put_in(FULL, "tar_partitions/pg_control.tar", &control);
    let text = label("FFFFFFFF/2000029", 1).replace("FF/2000060", "FFFFFFFF/2000060");
    scene.put_in(FULL, "tar_partitions/backup_label.tar", &archive(&[file("backup_label", text.as_bytes())]));
    let plan = scene.plan_of(&scene.request().with("backup", FULL)).0.unwrap();
    assert_eq!((plan.start_lsn, plan.system_identifier), (Some(start), Some(identifier)));
}

#[test]
fn a_list_of_files_that_is_missing_is_an_error_unless_there_never_was_one() {
    let scene = Scene::new();
    let request = scene.request().with("backup", FULL);
    scene.remove(&format!("basebackups_005/{FULL}/files_metadata.json"));
    assert!(scene.refusal_of(&request).contains("files_metadata.json is missing"));
    let mut changed = sentinel(0x0200_0028, None);
    changed["FilesMetadataDisabled"] = json!(true);
    scene.put_sentinel(FULL, &changed);
    assert_eq!(scene.plan_of(&request).0.unwrap().backup, FULL);
    // A delta backup is nothing without the list of the files that it does not have.
    let mut changed = sentinel(0x0400_0028, Some((FULL, 0x0200_0028, 1)));
    changed["FilesMetadataDisabled"] = json!(true);
    scene.put_sentinel(DELTA, &changed);
    let refusal = scene.refusal_of(&scene.request().with("backup", DELTA));
    assert!(refusal.contains("delta backup whose files_metadata.json is missing"), "{refusal}");

    scene.put_sentinel(DELTA, &sentinel(0x0400_0028, Some((FULL, 0x0200_0028, 1))));
    for text in ["{}", "{\"Files\":{}}", "{\"Files\":null}", "{\"files\":{\"/a\":{\"IsSkipped\":true}}}"] {
        scene.put_in(DELTA, "files_metadata.json", text.as_bytes());
        let refusal = scene.refusal_of(&scene.request().with("backup", DELTA));
        assert!(refusal.contains("lists no file"), "{text}: {refusal}");
    }

    let mut old = sentinel(0x0200_0028, None);
    old.as_object_mut().unwrap().remove("Version");
    scene.put_sentinel(FULL, &old);
    assert_eq!(scene.plan_of(&request).0.unwrap().backup, FULL);
    // An old release wrote the list into the sentinel.
    old["Files"] = files_metadata(false)["Files"].clone();
    old["TarFileSets"] = json!({"part_001.tar": [], "part_002.tar": []});
    scene.put_sentinel(FULL, &old);
    assert!(scene.refusal_of(&request).contains("lacks `part_002.tar`"));
    old["TarFileSets"] = json!({"backup_label.tar": []});
    scene.put_sentinel(FULL, &old);
    assert!(scene.refusal_of(&request).contains("names none of its archives"));
    old["Files"]["/base/5/2619"]["IsSkipped"] = json!(true);
    old["TarFileSets"] = json!({"part_001.tar": []});
    scene.put_sentinel(FULL, &old);
    assert!(scene.refusal_of(&request).contains("come from an older one"));
    scene.put_sentinel(FULL, &sentinel(0x0200_0028, None));
    scene.put_in(FULL, "files_metadata.json", sentinel(0x0200_0028, None).to_string().as_bytes());
    assert!(scene.refusal_of(&request).contains("is a sentinel and not a list of files"));
}

#[test]
fn pages_that_were_damaged_when_the_backup_was_taken_are_reported() {
    let scene = Scene::new();
    let mut list = files_metadata(false);
    list["Files"]["/base/5/1259"]["CorruptBlocks"] =
        json!({"CorruptBlocksCount": 3, "SomeCorruptBlocks": [1, 2, 3]});
    scene.put_in(FULL, "files_metadata.json", list.to_string().as_bytes());
    let (plan, record) = scene.plan_of(&scene.request().with("backup", FULL));
    assert!(plan.is_ok());
    let warned =
        |(level, line): &(Level, String)| *level == Level::Warn && line.contains("/base/5/1259 had 3 pages");
    assert!(record.log.iter().any(warned), "{:?}", record.log);
}

#[test]
fn an_archive_that_is_missing_or_unknown_is_an_error() {
    let remove = |key: &str| {
        let scene = Scene::new();
        scene.remove(&format!("basebackups_005/{FULL}/tar_partitions/{key}"));
        scene.refusal_of(&scene.request().with("backup", FULL))
    };
    assert!(remove("part_001.tar").contains("lacks `part_001.tar`"));
    assert!(remove("backup_label.tar").contains("lacks `backup_label.tar`"));
    assert!(remove("pg_control.tar").contains("without pg_control.tar"));
    for (key, what) in [
        ("part_002.tar.lzo", "lzo, which is not read"),
        ("part_002.tar.lz4.tmp", "not an archive that WAL-G writes"),
        ("deeper/part_002.tar", "not an archive that WAL-G writes"),
        ("pg_control.tar.lz4", "there are both"),
        ("backup_label.tar.lz4", "there are both"),
    ] {
        let scene = Scene::new();
        scene.put_in(FULL, &format!("tar_partitions/{key}"), b"x");
        let refusal = scene.refusal_of(&scene.request().with("backup", FULL));
        assert!(refusal.contains(what) && refusal.contains(key), "{refusal}");
    }
    // Without a list, only the size shows that an archive is missing.
    let scene = Scene::new();
    scene.put_in(FULL, "files_metadata.json", b"{\"Files\":{}}");
    let part = format!("basebackups_005/{FULL}/tar_partitions/part_001.tar");
    let size = |key: &str| fs::metadata(scene.path("storage/pg").join(key)).unwrap().len();
    let others = ["pg_control.tar", "backup_label.tar"]
        .map(|name| size(&format!("basebackups_005/{FULL}/tar_partitions/{name}")))
        .iter()
        .sum::<u64>();
    let mut changed = sentinel(0x0200_0028, None);
    changed["CompressedSize"] = json!(others + size(&part));
    scene.put_sentinel(FULL, &changed);
    assert!(scene.plan_of(&scene.request().with("backup", FULL)).0.is_ok());
    scene.remove(&part);
    let refusal = scene.refusal_of(&scene.request().with("backup", FULL));
    assert!(refusal.contains(&format!("have {others} bytes and had")), "{refusal}");
}

#[test]
fn checksums_of_an_unknown_kind_are_refused_unless_pages_are_not_checked() {
    let scene = Scene::new();
    let mut control = ControlFile::in_production(SYSTEM_IDENTIFIER);
    // `data_checksum_version`
    control.put32(252, 2);
    let tar = archive(&[file("/global/pg_control", &control.bytes)]);
    scene.put_in(FULL, "tar_partitions/pg_control.tar", &tar);
    let request = scene.request().with("backup", FULL);
    let refusal = scene.refusal_of(&request);
    assert!(refusal.contains("data_checksum_version") && refusal.contains("`verify = false`"), "{refusal}");
    assert!(scene.plan_of(&request.with("verify", false)).0.is_ok());
}

#[test]
fn the_label_and_the_control_file_must_belong_to_the_backup() {
    let request = |scene: &Scene| scene.request().with("backup", FULL);
    for (members, what) in [
        (
            vec![file("backup_label", label("0/3000028", 1).as_bytes())],
            "of another backup: it begins at 0/3000028",
        ),
        (vec![file("backup_label", label("0/2000028", 2).as_bytes())], "on the timeline 2"),
        (
            vec![file(
                "backup_label",
                format!("{}INCREMENTAL FROM LSN: 0/1000028\n", label("0/2000028", 1)).as_bytes(),
            )],
            "incremental backup from 0/1000028",
        ),
        (vec![file("backup_label", b"x")], "backup_label that"),
        (vec![file("backup_label", &[b'x'; 65 << 10])], "larger than"),
        (vec![directory("backup_label")], "is not a file"),
        (vec![file("tablespace_map", b"")], "without backup_label"),
        (vec![file("../backup_label", b"")], "`../backup_label`"),
        (vec![header("backup_label", b'2', 0).to_vec()], "symbolic link"),
        ((0..20).map(|n| file(&n.to_string(), b"")).collect(), "without backup_label"),
    ] {
        let scene = Scene::new();
        scene.put_in(FULL, "tar_partitions/backup_label.tar", &archive(&members));
        let refusal = scene.refusal_of(&request(&scene));
        assert!(refusal.contains(what), "{refusal}");
    }
    for (members, what) in [
        (vec![file("/global/pg_control", &control(1))], "is of the cluster 1"),
        (vec![file("/global/pg_control", &[0; 100])], "no global/pg_control of 8192 bytes"),
        (vec![file("/global/pg_control", &[0; 8193])], "larger than 8192"),
        (vec![file("/global/pg_control", &[0; 8192])], "a global/pg_control that"),
        (vec![file("/global/pg_filenode.map", &[0; 512])], "no global/pg_control"),
    ] {
        let scene = Scene::new();
        scene.put_in(FULL, "tar_partitions/pg_control.tar", &archive(&members));
        let refusal = scene.refusal_of(&request(&scene));
        assert!(refusal.contains(what), "{refusal}");
    }
}

#[test]
fn a_remote_backup_has_its_label_in_the_part_with_which_the_data_directory_begins() {
    let scene = Scene::new();
    scene.remove(&format!("basebackups_005/{FULL}/tar_partitions/backup_label.tar"));
    scene.put_in(
        FULL,
        "files_metadata.json",
        b"{\"Files\":{\"base/5/1259\":{\"MTime\":\"2026-11-26T04:30:00Z\"}}}",
    );
    let request = scene.request().with("backup", FULL);
    assert!(scene.refusal_of(&request).contains("without backup_label"));
    let label = label("0/2000028", 1);
    let part = [
        file("backup_label", label.as_bytes()),
        file("tablespace_map", b""),
        directory("./pg_wal/archive_status/"),
    ];
    scene.put_in(FULL, "tar_partitions/part_002.tar", &archive(&part));
    scene.put_in(
        FULL,
        "tar_partitions/pg_control.tar",
        &archive(&[file("global/pg_control", &control(SYSTEM_IDENTIFIER))]),
    );
    assert_eq!(scene.plan_of(&request).0.unwrap().backup, FULL);
}

#[test]
fn encryption_that_the_options_do_not_name_is_named() {
    for (bytes, what) in [
        (&b"yckms\x01\x20 and more"[..], "a key of Yandex Cloud KMS, which is not read"),
        (&[0x85, 0x01, 0x0c, 0x03, 0x99], "OpenPGP: grant the secret key"),
        (&[0x99; 100], "name it with the option `key`"),
        (&[], "name it with the option `key`"),
    ] {
        let scene = Scene::new();
        scene.remove(&format!("basebackups_005/{FULL}/tar_partitions/pg_control.tar"));
        scene.put_in(FULL, "tar_partitions/pg_control.tar.lz4", bytes);
        let refusal = scene.refusal_of(&scene.request().with("backup", FULL));
        assert!(refusal.contains(what), "{refusal}");
    }
}

#[test]
fn a_full_backup_of_an_old_release_has_the_size_of_its_files() {
    let scene = Scene::new();
    let mut old = sentinel(0x0200_0028, None);
    old.as_object_mut().unwrap().remove("DataCatalogSize");
    scene.put_sentinel(FULL, &old);
    assert_eq!(scene.plan_of(&scene.request().with("backup", FULL)).0.unwrap().bytes, Some(9000));
    let mut old = sentinel(0x0400_0028, Some((FULL, 0x0200_0028, 1)));
    old.as_object_mut().unwrap().remove("DataCatalogSize");
    scene.put_sentinel(DELTA, &old);
    let plan: Result<_, Failure> = scene.plan_of(&scene.request().with("backup", DELTA)).0;
    assert_eq!(plan.unwrap().bytes, None);
}
