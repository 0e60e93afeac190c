mod links;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use tempfile::TempDir;
use understudy::UNFINISHED_CONTROL_FILE;
use understudy::log::Level;
use understudy::native::{Host, Record};

use super::*;

const SYSTEM_IDENTIFIER: u64 = 7_575_000_000_000_000_001;
const LABEL: &str = "START WAL LOCATION: 0/9000028 (file 000000030000000000000009)\nLABEL: by hand\n\
    START TIME: 2026-11-23 08:34:17 UTC\nSTART TIMELINE: 3\n";
const SHUT_DOWN: u8 = 1;
const IN_PRODUCTION: u8 = 6;

/// A copy of a data directory that contains a tablespace, and the directories to which the copy is restored.
struct Scene {
    root: TempDir,
    request: Request,
}

impl Scene {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name).to_str().unwrap().to_owned();
        let request = Request::default().with("directory", path("copy")).for_datadir(path("data"));
        let scene = Self { root, request };
        for folder in ["data", "data-wal", "data-tablespace", "copy", "elsewhere", "outside"] {
            fs::create_dir(scene.path(folder)).unwrap();
        }
        scene.put("PG_VERSION", "15\n");
        scene.put("postgresql.conf", "# nothing\n");
        scene.put("base/5/1259", &"x".repeat(3 << 20));
        scene.put("base/5/1247", "");
        scene.put("pg_xact/0000", "xact");
        scene.put("pg_wal/000000010000000000000001", "segment");
        scene.put("pg_wal/archive_status/000000010000000000000001.done", "");
        scene.put("pg_tblspc/16384/PG_15_202209061/5/16385", "tablespace");
        scene.control(SHUT_DOWN);
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn put(&self, name: &str, contents: &str) {
        let path = self.path("copy").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }

    fn control(&self, state: u8) {
        let mut bytes = vec![0; 8192];
        bytes[..8].copy_from_slice(&SYSTEM_IDENTIFIER.to_le_bytes());
        bytes[8..12].copy_from_slice(&1300u32.to_le_bytes());
        bytes[16] = state;
        bytes[40..48].copy_from_slice(&0x0300_0028u64.to_le_bytes());
        bytes[48..52].copy_from_slice(&2u32.to_le_bytes());
        fs::create_dir_all(self.path("copy/global")).unwrap();
        fs::write(self.path("copy/global/pg_control"), bytes).unwrap();
    }

    /// Moves `from` in the copy to `to`, and replaces `from` with a link.
    fn link(&self, from: &str, to: &str) {
        fs::rename(self.path("copy").join(from), self.path(to)).unwrap();
        symlink(self.path(to), self.path("copy").join(from)).unwrap();
    }

    fn host(&self) -> Host {
        Host::new(self.path("data"))
            .wal_directory(self.path("data-wal"))
            .tablespace(16384, self.path("data-tablespace"))
            .granted(["copy", "elsewhere", "data", "data-wal", "data-tablespace"].map(|name| self.path(name)))
    }

    fn plan(&self) -> (Result<Plan, Failure>, Record) {
        self.host().run(|| Mirror::plan(&self.request))
    }

    fn create(&self) -> (Result<(), Failure>, Record) {
        match self.plan().0 {
            Ok(plan) => self.host().run(|| Mirror::create(&self.request, &plan)),
            Err(failure) => (Err(failure), Record::default()),
        }
    }

    fn refusal(&self) -> String {
        for folder in ["data", "data-wal", "data-tablespace"] {
            fs::remove_dir_all(self.path(folder)).unwrap();
            fs::create_dir(self.path(folder)).unwrap();
        }
        let (result, _) = self.create();
        assert!(!self.path("data/global/pg_control").exists());
        assert!(!self.path("data").join(UNFINISHED_CONTROL_FILE).exists());
        match result {
            Err(Failure::Failed(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    fn assert_copied(&self) {
        let (result, record) = self.create();
        assert_eq!(result, Ok(()));
        let same = |from: &str, to: &str| {
            assert_eq!(
                fs::read(self.path("copy").join(from)).unwrap(),
                fs::read(self.path(to)).unwrap(),
                "{from}"
            );
        };
        for name in ["PG_VERSION", "postgresql.conf", "base/5/1259", "base/5/1247", "pg_xact/0000"] {
            same(name, &format!("data/{name}"));
        }
        same("pg_wal/000000010000000000000001", "data-wal/000000010000000000000001");
        same(
            "pg_wal/archive_status/000000010000000000000001.done",
            "data-wal/archive_status/000000010000000000000001.done",
        );
        same("pg_tblspc/16384/PG_15_202209061/5/16385", "data-tablespace/PG_15_202209061/5/16385");
        same("global/pg_control", &format!("data/{UNFINISHED_CONTROL_FILE}"));
        assert!(!self.path("data/global/pg_control").exists());
        assert_eq!(record.expected, (Some(record.bytes), Some(record.files)));
    }
}

fn warnings(record: &Record) -> String {
    let lines = record.log.iter().filter(|(level, _)| *level == Level::Warn).map(|(_, line)| line.as_str());
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_cold_copy_is_planned_and_copied() {
    let scene = Scene::new();
    let (plan, record) = scene.plan();
    let plan = plan.unwrap();
    assert_eq!((plan.postgresql_major, plan.system_identifier), (Some(15), Some(SYSTEM_IDENTIFIER)));
    assert_eq!((plan.timeline, plan.start_lsn), (Some(2), Some(0x0300_0028)));
    assert!(plan.backup.ends_with("shut down at 0/3000028"), "{}", plan.backup);
    assert_eq!(plan.tablespaces[0].oid, 16384);
    assert_eq!(warnings(&record), "");
    scene.assert_copied();
}

#[test]
fn a_copy_that_is_missing_or_incomplete_is_not_applicable() {
    for missing in ["PG_VERSION", "global/pg_control"] {
        let scene = Scene::new();
        fs::remove_file(scene.path("copy").join(missing)).unwrap();
        assert!(matches!(scene.plan().0, Err(Failure::NotApplicable(why)) if why.contains(missing)));
    }
    let scene = Scene::new();
    fs::remove_dir_all(scene.path("copy")).unwrap();
    assert!(matches!(scene.plan().0, Err(Failure::NotApplicable(_))));
}

#[test]
fn a_directory_that_is_not_granted_is_an_error() {
    let mut scene = Scene::new();
    scene.request = Request::default().with("directory", scene.path("outside").to_str().unwrap());
    assert!(matches!(scene.plan().0, Err(Failure::Failed(why)) if why.contains("`grants.read`")));
}

#[test]
fn files_of_a_running_server_are_not_copied() {
    let scene = Scene::new();
    for name in [
        "postmaster.pid",
        "postmaster.opts",
        "pg_replslot/slot/state",
        "pg_stat_tmp/global.stat",
        "pg_dynshmem/mmap.1",
        "base/pgsql_tmp/pgsql_tmp1.0",
        "base/5/pg_internal.init",
        "backup_manifest",
        "tablespace_map.old",
    ] {
        scene.put(name, "x");
    }
    fs::create_dir(scene.path("copy/pg_notify")).unwrap();
    symlink("/nowhere", scene.path("copy/pg_serial")).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(scene.path("copy/socket")).unwrap();
    symlink("/etc/hosts", scene.path("copy/log")).unwrap();
    scene.assert_copied();
    drop(socket);
    for gone in [
        "postmaster.pid",
        "postmaster.opts",
        "base/pgsql_tmp",
        "base/5/pg_internal.init",
        "backup_manifest",
        "socket",
        "log",
    ] {
        assert!(fs::symlink_metadata(scene.path("data").join(gone)).is_err(), "{gone}");
    }
    for empty in ["pg_replslot", "pg_stat_tmp", "pg_dynshmem", "pg_notify", "pg_serial"] {
        assert_eq!(fs::read_dir(scene.path("data").join(empty)).unwrap().count(), 0, "{empty}");
    }
    assert!(scene.path("data/tablespace_map.old").exists());
    let warnings = warnings(&scene.plan().1);
    assert!(
        warnings.contains("copy/socket: it is not a file")
            && warnings.contains("copy/log: it is a link out of the copy, to /etc/hosts"),
        "{warnings}"
    );
    assert!(warnings.contains("postmaster.pid"), "{warnings}");
}

#[test]
fn a_snapshot_of_a_running_server_is_reported_as_one() {
    let scene = Scene::new();
    scene.control(IN_PRODUCTION);
    let (plan, record) = scene.plan();
    assert!(plan.unwrap().backup.ends_with("in production at 0/3000028"));
    assert!(warnings(&record).contains("`snapshot = true`"));
    scene.assert_copied();
}

#[test]
fn a_copy_with_a_backup_label_starts_at_its_lsn() {
    let scene = Scene::new();
    scene.control(IN_PRODUCTION);
    scene.put("backup_label", LABEL);
    let (plan, record) = scene.plan();
    let plan = plan.unwrap();
    assert_eq!((plan.timeline, plan.start_lsn), (Some(3), Some(0x0900_0028)));
    assert!(plan.backup.contains("by hand"));
    assert_eq!(warnings(&record), "");
    scene.assert_copied();
    assert!(scene.path("data/backup_label").exists());
    scene.put("backup_label", &format!("{LABEL}INCREMENTAL FROM LSN: 0/1\n"));
    assert!(scene.refusal().contains("incremental"));
}

#[test]
fn an_option_for_an_unknown_tablespace_is_an_error() {
    for (text, what) in
        [("16384", "not granted"), ("fast=/x", "oid=/path"), ("16384=/nowhere", "not granted")]
    {
        let mut scene = Scene::new();
        scene.request = scene.request.clone().with("tablespaces", vec![text.to_owned()]);
        let refusal = scene.refusal();
        assert!(refusal.contains(what), "{text}: {refusal}");
    }
    let mut scene = Scene::new();
    let unknown = format!("16999={}", scene.path("elsewhere").display());
    scene.request = scene.request.clone().with("tablespaces", vec![unknown]);
    assert!(scene.refusal().contains("names 16999"));
}

#[test]
fn only_the_folder_of_this_version_is_copied_from_a_tablespace() {
    let scene = Scene::new();
    scene.put("pg_tblspc/16384/PG_14_202107181/5/1", "old");
    scene.put("pg_tblspc/16384/notes.txt", "x");
    scene.assert_copied();
    assert_eq!(fs::read_dir(scene.path("data-tablespace")).unwrap().count(), 1);
    assert!(warnings(&scene.plan().1).contains("PG_14_202107181"));
    fs::remove_dir_all(scene.path("copy/pg_tblspc/16384/PG_15_202209061")).unwrap();
    assert!(scene.refusal().contains("no tablespace of PostgreSQL 15"));
}

#[test]
fn an_invalid_control_file_is_refused() {
    for (bytes, what) in
        [(vec![0; 8192], "version 0"), (vec![0; 100], "has 100 bytes"), (vec![0; 10_000], "larger than")]
    {
        let scene = Scene::new();
        fs::write(scene.path("copy/global/pg_control"), bytes).unwrap();
        let refusal = scene.refusal();
        assert!(refusal.contains(what), "{refusal}");
    }
    let scene = Scene::new();
    scene.put("PG_VERSION", "fifteen");
    assert!(scene.refusal().contains("names no version"));
}

#[test]
fn a_copy_that_changes_after_the_plan_is_refused() {
    let scene = Scene::new();
    let plan = scene.plan().0.unwrap();
    scene.control(IN_PRODUCTION);
    let (result, _) = scene.host().run(|| Mirror::create(&scene.request, &plan));
    assert!(matches!(result, Err(Failure::Failed(why)) if why.contains("changed since the plan")));
}

#[test]
fn a_checkpoint_during_the_copy_is_noticed_when_the_copying_ends() {
    let scene = Scene::new();
    let (result, record) = scene.host().run(|| {
        let layout = Layout::find(&scene.request)?;
        let plan = layout.plan()?;
        // Simulates a checkpoint after the layout was found: changes a byte of pg_control that the plan does not contain.
        let path = scene.path("copy/global/pg_control");
        let mut bytes = fs::read(&path).unwrap();
        bytes[100] = 1;
        fs::write(&path, bytes).unwrap();
        copy::all(&layout, Delta::Off, &plan, &Datadir::of(&scene.request)?)
    });
    assert!(matches!(result, Err(Failure::Failed(why)) if why.contains("changed since the plan")));
    assert!(record.files > 0 && !scene.path("data").join(UNFINISHED_CONTROL_FILE).exists());
}

#[test]
fn a_copy_stops_when_the_run_is_cancelled() {
    let scene = Scene::new();
    let plan = scene.plan().0.unwrap();
    for looks in [0, 3, 6] {
        let data = scene.path("data");
        fs::remove_dir_all(&data).unwrap();
        fs::create_dir(&data).unwrap();
        let (result, _) = scene.host().cancel_after(looks).run(|| Mirror::create(&scene.request, &plan));
        assert_eq!(result, Err(Failure::Cancelled), "{looks}");
        let there =
            fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let there: Vec<_> = there.collect();
        let begun = there.iter().any(|name| name != "PG_VERSION" && name != "backup_label");
        assert!(
            !begun || there.iter().any(|name| name == "PG_VERSION"),
            "the version comes first: {there:?}"
        );
    }
}

#[test]
fn directories_that_are_nested_too_deep_are_refused() {
    let scene = Scene::new();
    let deep = format!("log/{}x", "deep/".repeat(70));
    scene.put(&deep, "x");
    assert!(scene.refusal().contains("folders deep"));
}

#[test]
fn the_number_of_log_lines_about_skipped_entries_is_bounded() {
    let scene = Scene::new();
    for number in 0..25 {
        symlink("/nowhere", scene.path("copy").join(format!("link{number}"))).unwrap();
    }
    let warnings = warnings(&scene.plan().1);
    assert_eq!(warnings.lines().count(), 21, "{warnings}");
    assert!(warnings.contains("skipped 5 more entries"));
}

#[test]
fn too_many_tablespaces_are_refused() {
    let scene = Scene::new();
    for oid in 20_000..21_000 {
        fs::create_dir_all(scene.path("copy/pg_tblspc").join(format!("{oid}/PG_15_202209061"))).unwrap();
    }
    assert!(scene.refusal().contains("more than 1000 tablespaces"));
}

#[test]
fn files_that_are_too_large_are_refused_unread() {
    for (name, limit) in [("backup_label", 64 << 10), ("tablespace_map", 16 << 20), ("PG_VERSION", 64)] {
        let scene = Scene::new();
        scene.put(name, &"x".repeat(limit + 1));
        let refusal = scene.refusal();
        assert!(
            refusal.contains(name) && refusal.contains(&format!("larger than {limit} bytes")),
            "{refusal}"
        );
    }
}

#[test]
fn with_delta_matching_files_are_kept_and_files_missing_in_the_copy_are_removed() {
    for choice in ["size-and-time", "digest"] {
        let mut scene = Scene::new();
        scene.request = scene.request.clone().with("delta", choice);
        assert!(scene.plan().0.unwrap().builds_on_existing);
        scene.assert_copied();
        let data = scene.path("data");
        fs::remove_file(data.join(UNFINISHED_CONTROL_FILE)).unwrap();
        // Leftover files of a server that ran in this directory, and of another database.
        for extra in ["base/6/1", "base/5/9999", "postmaster.pid", "pg_notify/0000", "backup_label.old"] {
            fs::create_dir_all(data.join(extra).parent().unwrap()).unwrap();
            fs::write(data.join(extra), "x").unwrap();
        }
        fs::write(scene.path("data-wal/000000010000000000000009"), "x").unwrap();
        fs::write(scene.path("data-tablespace/PG_15_202209061/5/9"), "x").unwrap();
        // pg_upgrade leaves the tablespaces of the old cluster in the same directories as those of the new one.
        fs::create_dir_all(scene.path("data-tablespace/PG_14_202107181/5")).unwrap();
        fs::write(scene.path("data-tablespace/PG_14_202107181/5/1"), "x").unwrap();
        fs::create_dir(data.join("pg_tblspc")).ok();
        symlink(scene.path("outside"), data.join("pg_tblspc/99999")).unwrap();
        fs::write(scene.path("outside/precious"), "x").unwrap();
        symlink(scene.path("outside/precious"), data.join("base/5/link")).unwrap();
        fs::remove_file(data.join("postgresql.conf")).unwrap();
        fs::create_dir(data.join("postgresql.conf")).unwrap();
        // The file keeps its size, and gets another time, by which `size-and-time` notices the change, and other content, by which
        // `digest` does.
        fs::write(data.join("base/5/1259"), "y".repeat(3 << 20)).unwrap();
        let before = fs::metadata(data.join("pg_xact/0000")).unwrap().modified().unwrap();
        let newer = before + std::time::Duration::from_secs(9);
        fs::File::options().write(true).open(data.join("base/5/1259")).unwrap().set_modified(newer).unwrap();
        scene.assert_copied();
        for gone in
            ["base/6", "base/5/9999", "postmaster.pid", "backup_label.old", "pg_tblspc/99999", "base/5/link"]
        {
            assert!(fs::symlink_metadata(data.join(gone)).is_err(), "{choice}: {gone}");
        }
        assert!(!data.join("pg_notify/0000").exists());
        assert_eq!(fs::read(scene.path("outside/precious")).unwrap(), b"x");
        assert_eq!(fs::read_dir(scene.path("data-wal")).unwrap().count(), 2);
        assert_eq!(fs::read_dir(scene.path("data-tablespace/PG_15_202209061/5")).unwrap().count(), 1);
        assert_eq!(fs::read(scene.path("data-tablespace/PG_14_202107181/5/1")).unwrap(), b"x", "{choice}");
    }
}

#[test]
fn without_delta_the_plan_does_not_build_on_existing_files() {
    let mut scene = Scene::new();
    scene.request = scene.request.clone().with("delta", "off");
    assert!(!scene.plan().0.unwrap().builds_on_existing);
    scene.request = Scene::new().request.with("delta", "perhaps");
    assert!(matches!(scene.plan().0, Err(Failure::Failed(why)) if why.contains("perhaps")));
}

#[test]
fn a_name_that_is_not_utf_8_is_shown() {
    use std::os::unix::ffi::OsStrExt;
    for folder in ["", "base/5/"] {
        let scene = Scene::new();
        let name = [folder.as_bytes(), b"b\xFFd\n"].concat();
        fs::write(scene.path("copy").join(std::ffi::OsStr::from_bytes(&name)), "x").unwrap();
        let refusal = scene.refusal();
        assert!(refusal.contains(r"`b\xffd\n`") && refusal.contains("rename it"), "{refusal}");
    }
}
