mod blocks;
mod bounds;
mod delta;
mod repositories;
mod scene;
mod texts;
mod wal;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use understudy::log::Level;
use understudy::native::{Host, Record, Source};
use understudy::{Tablespace, UNFINISHED_CONTROL_FILE};

use super::*;
use scene::{FULL, INCREMENTAL, SEGMENT, SYSTEM_IDENTIFIER, Scene, control, sealed, sha1};

fn warnings(record: &Record) -> String {
    let lines = record.log.iter().filter(|(level, _)| *level == Level::Warn).map(|(_, line)| line.as_str());
    lines.collect::<Vec<_>>().join("\n")
}

const MANIFEST: &str = "backup/main/20261126-043406F_20261126-043412I/backup.manifest";

#[test]
fn the_newest_backup_is_planned_from_its_manifest() {
    let plan = Scene::new().plan().unwrap();
    assert_eq!(plan.backup, INCREMENTAL);
    assert_eq!((plan.postgresql_major, plan.system_identifier), (Some(15), Some(SYSTEM_IDENTIFIER)));
    assert_eq!(
        (plan.timeline, plan.start_lsn, plan.stop_lsn),
        (Some(1), Some(0x0400_0028), Some(0x0400_00F0))
    );
    let (name, location) = (Some("fast".to_owned()), "/srv/fast".to_owned());
    assert_eq!(plan.tablespaces, [Tablespace { oid: 16384, name, location }]);
    let label = format!("of {INCREMENTAL}\n").len() as u64;
    assert_eq!(plan.bytes, Some(3 + label + 20_000 + 8192 + 9000 + SEGMENT as u64));
    // Six files, a segment, and the status file of the segment.
    assert_eq!(plan.files, Some(8));
    assert!(!plan.builds_on_existing);
}

#[test]
fn a_backup_is_restored_with_the_backups_that_it_is_built_on_and_its_wal() {
    let scene = Scene::new();
    let (result, record) = scene.create_of(&scene.request());
    assert_eq!(result, Ok(()));
    assert_eq!(scene.read("data/PG_VERSION"), b"15\n");
    assert_eq!(scene.read("data/backup_label"), format!("of {INCREMENTAL}\n").as_bytes());
    assert_eq!(scene.read("data/base/5/1259"), [7; 20_000]);
    assert_eq!(scene.read("data/base/5/16390"), b"");
    assert_eq!(scene.read("fast/PG_15_202209061/5/16385"), [9; 9000]);
    assert_eq!(scene.read(&format!("data/{UNFINISHED_CONTROL_FILE}")), control());
    assert_eq!(scene.read("wal/000000010000000000000040"), vec![b'1'; SEGMENT]);
    assert_eq!(scene.read("wal/archive_status/000000010000000000000040.done"), b"");
    assert!(scene.path("data/pg_notify").is_dir());
    for absent in [
        "data/tablespace_map",
        "data/backup.manifest",
        "data/global/pg_control",
        "wal/000000010000000000000041",
    ] {
        assert!(!scene.path(absent).exists(), "{absent}");
    }
    assert_eq!(record.expected, (Some(record.bytes), Some(record.files)));
}

#[test]
fn the_newest_backup_that_matches_the_options_is_chosen() {
    let scene = Scene::new();
    for (name, value, label) in [
        ("backup", FULL, FULL),
        ("target-time", "2026-11-26 04:34:14+00", INCREMENTAL),
        ("target-time", "2026-11-26 05:34:13.9+01", FULL),
        ("target-lsn", "0/40000F0", INCREMENTAL),
        ("target-lsn", "0/40000EF", FULL),
    ] {
        let plan = scene.plan_of(&scene.request().with(name, value)).0.unwrap();
        assert_eq!(plan.backup, label, "{name} {value}");
    }
    assert_eq!(scene.plan_of(&scene.request().with("target-timeline", 1)).0.unwrap().backup, INCREMENTAL);
    for (request, what) in [
        (scene.request().with("target-timeline", 2), "none on the timeline 2"),
        (scene.request().with("target-lsn", "0/1"), "none that ended at or before 0/1"),
        (
            scene.request().with("target-time", "2026-11-26 04:00:00Z"),
            "none that ended at or before 2026-11-26 04:00:00Z",
        ),
    ] {
        let refusal = scene.refusal_of(&request);
        assert!(refusal.contains(what), "{refusal}");
    }
}

#[test]
fn contradictory_and_invalid_options_are_refused() {
    let scene = Scene::new();
    let request = || scene.request();
    for (request, what) in [
        (request().with("backup", FULL).with("target-lsn", "0/1"), "`backup` and `target-lsn`"),
        (request().with("backup", FULL).with("target-timeline", 1), "`backup` and `target-timeline`"),
        (
            request().with("target-time", "2026-11-26 04:00:00Z").with("target-lsn", "0/1"),
            "`target-time` and `target-lsn`",
        ),
        (request().with("backup", FULL).with("older", true), "`older = true` would take another"),
        (request().with("target-time", "2026-11-26 04:00:00"), "not a time with a zone"),
        (request().with("target-lsn", "1"), "is not an LSN"),
        (request().with("target-timeline", 0), "count from 1"),
        (request().with("backup", "newest"), "not a label"),
        (request().with("backup", "../../etc"), "not a label"),
        (request().with("repositories", Vec::new()), "names 0 stores"),
        (request().with("repositories", vec!["repo".to_owned(); 257]), "names 257 stores"),
        (request().with("repositories", vec!["/var/lib/pgbackrest".to_owned()]), "is a path"),
        (request().with("repositories", vec!["other".to_owned()]), "denied"),
        (Request::default().with("stanza", "../main"), "cannot be the name of a stanza"),
        (Request::default(), "`stanza` is missing"),
    ] {
        let refusal = scene.refusal_of(&request);
        assert!(refusal.contains(what), "{request:?} {refusal}");
    }
}

#[test]
fn without_a_stanza_or_a_backup_the_method_is_not_applicable() {
    let scene = Scene::new();
    let other = Request::default().with("stanza", "other");
    assert!(
        matches!(scene.plan_of(&other).0, Err(Failure::NotApplicable(why)) if why.contains("no stanza other"))
    );
    scene.put("backup/main/backup.info", sealed("[backrest]\nbackrest-format=5\n"));
    assert!(matches!(scene.plan(), Err(Failure::NotApplicable(why)) if why.contains("lists no backup")));
}

#[test]
fn the_failure_says_why_a_label_is_not_listed() {
    let scene = Scene::new();
    let unknown = "20261126-050000F";
    let request = scene.request().with("backup", unknown);
    assert!(scene.refusal_of(&request).contains("there is no backup 20261126-050000F"));
    scene.put(&format!("backup/main/{unknown}/backup.manifest.copy"), "x");
    assert!(scene.refusal_of(&request).contains("is unfinished"));
    scene.put(&format!("backup/main/{unknown}/backup.manifest"), "x");
    assert!(scene.refusal_of(&request).contains("does not list it"));
}

#[test]
fn plan_reports_expired_backups() {
    let scene = Scene::new();
    scene.remove(&format!("backup/main/{FULL}/backup.manifest"));
    let refusal = scene.refusal();
    assert!(refusal.contains(&format!("lists files of the backup {FULL}, which is gone")), "{refusal}");
    scene.edit("backup/main/backup.info", &format!("{FULL}={{"), "20250101-000000F={");
    let refusal = scene.refusal();
    assert!(refusal.contains(&format!("{FULL}, which backup.info does not list")), "{refusal}");
    scene.remove(&format!("backup/main/{INCREMENTAL}/pg_data/global/pg_control"));
    scene.remove(MANIFEST);
    let refusal = scene.refusal();
    assert!(refusal.contains("backup.manifest is missing: it expired or was removed"), "{refusal}");
}

#[test]
fn an_invalid_manifest_is_refused_and_named() {
    let file = |name: &str, rest: &str| {
        format!("{name}={{\"checksum\":\"{}\",{rest}\"timestamp\":1}}\npg_data/backup_label=", sha1(b""))
    };
    let at = "pg_data/backup_label=";
    for (from, to, what) in [
        (at, file("pg_data/../../etc/passwd", "\"size\":1,"), "leaves the data directory"),
        (at, file("/etc/passwd", "\"size\":1,"), "leaves the data directory"),
        (at, file("pg_data/a\u{1}b", "\"size\":1,"), "is not a name"),
        (at, file("pg_data/PG_VERSION", "\"size\":1,"), "twice, or out of order"),
        (at, file("pg_data/A", "\"size\":1,"), "twice, or out of order"),
        (at, file("pg_data/a", ""), "lists `a`, which has no size"),
        (at, file("pg_data/a", "\"size\":18446744073709551615,"), "would have 18446744073709551615 bytes"),
        (at, file("pg_data/a", "\"size\":-1,"), "is not what it should be"),
        (at, file("pg_data/a", "\"size\":1,\"mode\":\"9999\","), "has an invalid mode"),
        (at, file("pg_data/a", "\"size\":1,\"reference\":\"../x\","), "is not a label"),
        (at, file("pg_data/a", "\"bni\":1,\"bno\":18446744073709551615,\"size\":1,"), "of a bundle"),
        (at, "pg_data/a={\"size\":1,\"timestamp\":1}\npg_data/backup_label=".to_owned(), "has no checksum"),
        (
            at,
            "pg_data/a={\"checksum\":\"zz\",\"size\":1,\"timestamp\":1}\npg_data/backup_label=".to_owned(),
            "not a SHA-1",
        ),
        (
            "pg_tblspc/16384/PG_15_202209061/5/16385=",
            "pg_tblspc/16385/PG_15/5/1=".to_owned(),
            "tablespace 16385",
        ),
        ("pg_tblspc/16384/PG_15_202209061/5/16385=", "pg_tblspc/x/PG_15/5/1=".to_owned(), "below no oid"),
        (
            "[target:path]\npg_data={}\n",
            "[target:path]\npg_data={}\npg_data/../x={}\n".to_owned(),
            "leaves the data directory",
        ),
        (
            "\"tablespace-id\":\"16384\"",
            "\"tablespace-id\":\"16399\"".to_owned(),
            "whose oid is not its name",
        ),
        (
            &format!("backup-label=\"{INCREMENTAL}\""),
            format!("backup-label=\"{FULL}\""),
            "belongs to the backup",
        ),
        ("option-compress-type=\"none\"", "option-compress-type=\"rar\"".to_owned(), "`rar`"),
        (
            "db-system-id=7575",
            "db-system-id=1111".to_owned(),
            "is not from the cluster that backup.info gives",
        ),
        ("pg_data/PG_VERSION=", "pg_data/PG_VERSIO=".to_owned(), "lists no PG_VERSION"),
        ("pg_data/backup_label=", "pg_data/backup_labe=".to_owned(), "lists no backup_label"),
        (at, file("pg_data/a", "\"bni\":1,\"repo-size\":0,\"size\":9,"), "has no byte of its 9 in a bundle"),
        (at, file(&format!("pg_data/{}", "a".repeat(256)), "\"size\":1,"), "longer than Linux allows"),
        (
            "backup-type=\"full\"",
            "backup-label=\"x\"\nbackup-type=\"full\"".to_owned(),
            "repeats a name of this section",
        ),
        ("[target:path]\n", "[backup]\nx=1\n[target:path]\n".to_owned(), "repeats a section"),
        (
            "pg_tblspc/16384={\"path\":\"/srv/fast\",",
            "pg_data/l={\"path\":\"\",\"type\":\"link\"}\npg_tblspc/16384={\"path\":\"/srv/fast\","
                .to_owned(),
            "an empty path",
        ),
        (
            "\"/old/data\",\"type\":\"path\"}\npg_tblspc/16384={\"path\":\"/srv",
            "\"old/data\",\"type\":\"path\"}\npg_tblspc/16384={\"path\":\"../srv".to_owned(),
            "has the relative link `pg_tblspc/16384` to `../srv/fast`",
        ),
        ("backup-lsn-stop=\"0/40000F0\"", "backup-lsn-stop=\"0/3000000\"".to_owned(), "begins at 0/4000028"),
        ("pg_data/global/pg_control=", "pg_data/global/pg_contro=".to_owned(), "lists no global/pg_control"),
        ("\"size\":8192", "\"size\":8191".to_owned(), "of 8191 bytes"),
    ] {
        let scene = Scene::new();
        let refusal = scene.edit_manifest(from, &to).refusal();
        assert!(refusal.contains(what) && refusal.contains("backup.manifest"), "{to} {refusal}");
    }
}

#[test]
fn a_control_file_that_is_not_what_the_manifest_says_is_noticed_in_plan() {
    let scene = Scene::new();
    let object = format!("backup/main/{INCREMENTAL}/pg_data/global/pg_control");
    scene.put(&object, [1; 8192]);
    assert!(scene.refusal().contains("a checksum that differs from the manifest"));
    scene.remove(&object);
    assert!(scene.refusal().contains("pg_control is missing"));
}

#[test]
fn files_are_read_from_parts_of_a_bundle() {
    let scene = Scene::new();
    let parts: [&[u8]; 3] = [b"first", b"second!", b"15\n"];
    scene.put(&format!("backup/main/{FULL}/bundle/3"), parts.concat());
    let of = |name: &str, at: &str, bytes: &[u8]| {
        format!(
            "pg_data/{name}={{\"bni\":3,{at}\"checksum\":\"{}\",\"reference\":\"{FULL}\",\"size\":{},\"timestamp\":1}}\n",
            sha1(bytes),
            bytes.len()
        )
    };
    let (a, b) = (of("a", "\"bno\":5,", b"second!"), of("b", "", b"first"));
    scene.edit_manifest("pg_data/backup_label=", &format!("{a}{b}pg_data/backup_label="));
    let (result, _) = scene.create_of(&scene.request());
    assert_eq!(result, Ok(()));
    assert_eq!((scene.read("data/a"), scene.read("data/b")), (b"second!".to_vec(), b"first".to_vec()));
}

#[test]
fn files_are_read_from_raw_bundles_if_blocks_are_enabled_but_not_used() {
    let scene = Scene::new();
    let parts: [&[u8]; 3] = [b"first", b"second!", b"15\n"];
    scene.put(&format!("backup/main/{FULL}/bundle/3"), parts.concat());
    // With a block size but without a block map, the file is stored whole.
    let line = format!(
        "pg_data/a={{\"bi\":1,\"bni\":3,\"bno\":5,\"checksum\":\"{}\",\"reference\":\"{FULL}\",\"size\":7,\"timestamp\":1}}\n",
        sha1(b"second!")
    );
    scene.edit_manifest("pg_data/backup_label=", &format!("{line}pg_data/backup_label="));
    scene.edit_manifest(
        "backup-type=\"full\"",
        "backup-block-incr=true\nbackup-bundle-raw=true\nbackup-type=\"full\"",
    );
    let (result, _) = scene.create_of(&scene.request());
    assert_eq!(result, Ok(()));
    assert_eq!(
        (scene.read("data/a"), scene.read("data/PG_VERSION")),
        (b"second!".to_vec(), b"15\n".to_vec())
    );
}

#[test]
fn the_version_and_the_label_are_written_first() {
    const FIRST: [&str; 2] = ["PG_VERSION", "backup_label"];
    for (missing, there) in [
        (format!("{FULL}/pg_data/PG_VERSION"), FIRST[1]),
        (format!("{INCREMENTAL}/pg_data/backup_label"), FIRST[0]),
    ] {
        let scene = Scene::new();
        let plan = scene.plan().unwrap();
        scene.remove(&format!("backup/main/{missing}"));
        let (result, _) = scene.host().run(|| PgBackRest::create(&scene.request(), &plan));
        assert!(result.is_err(), "{missing}");
        let entries = fs::read_dir(scene.path("data")).unwrap();
        let names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        assert!(names.iter().all(|name| FIRST.contains(&name.as_str())), "{missing}: {names:?}");
        assert!(names.iter().any(|name| name == there), "{missing}: {names:?}");
    }
}

#[test]
fn the_relative_link_of_a_tablespace_is_resolved() {
    let scene = Scene::new();
    scene.edit_manifest("\"path\":\"/srv/fast\"", "\"path\":\"../../fast\"");
    assert_eq!(scene.plan().unwrap().tablespaces[0].location, "/old/fast");
    let (result, _) = scene.create_of(&scene.request());
    assert_eq!(result, Ok(()));
    assert_eq!(scene.read("fast/PG_15_202209061/5/16385"), [9; 9000]);
}

#[test]
fn long_paths_are_restored_and_plan_reports_keys_that_a_store_cannot_have() {
    let scene = Scene::new();
    let long = vec!["d".repeat(200); 8].join("/");
    let add = |scene: &Scene, name: &str, bytes: &[u8]| {
        let line = format!(
            "pg_data/{name}={{\"checksum\":\"{}\",\"size\":{},\"timestamp\":1}}\n",
            sha1(bytes),
            bytes.len()
        );
        scene.edit_manifest("pg_data/global/pg_control=", &format!("{line}pg_data/global/pg_control="));
    };
    scene.put(&format!("backup/main/{INCREMENTAL}/pg_data/{long}/f"), b"deep");
    add(&scene, &format!("{long}/f"), b"deep");
    let (result, _) = scene.create_of(&scene.request());
    assert_eq!(result, Ok(()));
    assert_eq!(scene.read(&format!("data/{long}/f")), b"deep");
    // The object does not exist, and this directory could not hold it.
    let scene = Scene::new();
    add(&scene, &format!("{long}/f"), b"deep");
    let refusal = scene.refusal();
    assert!(refusal.contains("which is not in the repository"), "{refusal}");
    // The path with the most characters is not the one with the most bytes.
    let scene = Scene::new();
    let wide = vec!["\u{e9}".repeat(100); 8].join("/");
    let narrow = vec!["d".repeat(120); 8].join("/");
    for name in [&narrow, &wide] {
        scene.put(&format!("backup/main/{INCREMENTAL}/pg_data/{name}/f"), b"deep");
    }
    add(&scene, &format!("{narrow}/f"), b"deep");
    // A manifest is sorted by bytes, so this name comes after all names in ASCII.
    let line =
        format!("pg_data/{wide}/f={{\"checksum\":\"{}\",\"size\":4,\"timestamp\":1}}\n", sha1(b"deep"));
    scene.edit_manifest(
        "pg_tblspc/16384/PG_15_202209061/5/16385=",
        &format!("{line}pg_tblspc/16384/PG_15_202209061/5/16385="),
    );
    assert!(scene.plan().is_ok());
    for name in [&narrow, &wide] {
        let object = format!("backup/main/{INCREMENTAL}/pg_data/{name}/f");
        scene.remove(&object);
        let refusal = scene.refusal();
        assert!(refusal.contains("which is not in the repository"), "{refusal}");
        scene.put(&object, b"deep");
    }
}

#[test]
fn without_a_known_segment_size_the_failure_says_what_to_do() {
    let scene = Scene::new();
    let mut bytes = control();
    bytes[8..12].copy_from_slice(&1201u32.to_le_bytes());
    let object = format!("backup/main/{INCREMENTAL}/pg_data/global/pg_control");
    scene.put(&object, &bytes);
    scene.edit_manifest(&sha1(&control()), &sha1(&bytes));
    let refusal = scene.refusal();
    assert!(refusal.contains("version 1201") && refusal.contains("set `wal = \"none\"`"), "{refusal}");
    assert!(scene.plan_of(&scene.request().with("wal", "none")).0.is_ok());
}

#[test]
fn warnings_about_a_backup_are_logged_and_bounded() {
    let scene = Scene::new();
    let mut damaged = String::new();
    for number in 10..40 {
        let pages = if number == 10 { "" } else { "\"checksum-page-error\":[1,[3,5]]," };
        damaged.push_str(&format!(
            "pg_data/a{number}={{\"checksum-page\":false,{pages}\"size\":0,\"timestamp\":1}}\n"
        ));
    }
    scene.edit_manifest("pg_data/backup_label=", &format!("{damaged}pg_data/backup_label="));
    scene.edit_manifest(
        "pg_tblspc/16384={\"path\"",
        "pg_data/log={\"path\":\"/var/log/pg\",\"type\":\"link\"}\npg_data/postgresql.conf={\"file\":\"p.conf\",\"path\":\
         \"/etc/pg\",\"type\":\"link\"}\npg_tblspc/16384={\"path\"",
    );
    let (plan, record) = scene.plan_of(&scene.request());
    assert!(plan.is_ok(), "{plan:?}");
    let warnings = warnings(&record);
    for what in [
        "log was a link to /var/log/pg",
        "postgresql.conf was a link to /etc/pg/p.conf",
        "a10 did not consist of whole pages",
        "a11 had 4 pages with wrong checksums",
        "10 more files had pages",
    ] {
        assert!(warnings.contains(what), "{warnings}");
    }
    assert!(!warnings.contains("a30"), "{warnings}");
}

#[test]
fn a_backup_that_was_replaced_since_it_was_planned_is_not_restored() {
    let scene = Scene::new();
    let plan = scene.plan().unwrap();
    scene.edit_manifest("backup-lsn-stop=\"0/40000F0\"", "backup-lsn-stop=\"0/40000F8\"");
    let (result, _) = scene.host().run(|| PgBackRest::create(&scene.request(), &plan));
    assert!(matches!(&result, Err(Failure::RetryLater(why)) if why.contains("was replaced")), "{result:?}");
    assert_eq!(fs::read_dir(scene.path("data")).unwrap().count(), 0);
}

#[test]
fn a_cancelled_run_ends_as_cancelled() {
    let scene = Scene::new();
    let (result, _) = scene.host().cancel_after(1).run(|| PgBackRest::plan(&scene.request()));
    assert_eq!(result, Err(Failure::Cancelled));
}

#[test]
fn any_changed_byte_and_any_early_end_is_noticed() {
    let scene = Scene::new();
    let text = fs::read(scene.path("repo").join(MANIFEST)).unwrap();
    let read = |text: &[u8]| {
        let mut manifest = manifest::Manifest::new(files::Files::default());
        ini::read("manifest", text, None, &mut manifest)
    };
    scene.host().run(|| {
        assert_eq!(read(&text), Ok(()));
        for at in 0..text.len() {
            let mut changed = text.clone();
            for byte in [changed[at] ^ 1, b'=', b'"', b'\n', 0xff] {
                changed[at] = byte;
                assert!(changed == text || read(&changed).is_err(), "byte {at} to {byte:?}");
            }
            // A text without its last newline is complete.
            assert!(at + 1 == text.len() || read(&text[..at]).is_err(), "{at} bytes");
        }
    });
}
