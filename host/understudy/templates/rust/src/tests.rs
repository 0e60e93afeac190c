//! Tests that run natively, without the program `understudy`: `understudy::native::Host` plays the host, with directories as stores.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::TempDir;
use understudy::UNFINISHED_CONTROL_FILE;
use understudy::digests::Hasher;
use understudy::native::{Host, Record};

use super::*;

/// A store with backups, and an empty data directory.
struct Scene(TempDir);

impl Scene {
    fn new() -> Self {
        let scene = Self(tempfile::tempdir().unwrap());
        fs::create_dir(scene.0.path().join("data")).unwrap();
        fs::create_dir(scene.0.path().join("store")).unwrap();
        scene
    }

    /// Adds a backup with these files, and returns its index.
    fn backup(&self, name: &str, files: &[(&str, &[u8])]) -> String {
        let mut index =
            "format 1\npostgresql_major 15\nsystem_identifier 7441\ntimeline 1\n".to_owned();
        index += "directory pg_notify\n";
        for (path, bytes) in files {
            let mut compressed = GzEncoder::new(Vec::new(), Compression::fast());
            compressed.write_all(bytes).unwrap();
            self.put(&index::object(name, path), &compressed.finish().unwrap());
            index += &format!("file {} {} {path}\n", bytes.len(), sha256(bytes));
        }
        index += &format!("end {}\n", files.len());
        self.put(&format!("index/{name}"), index.as_bytes());
        index
    }

    fn put(&self, key: &str, bytes: &[u8]) {
        let path = self.0.path().join("store").join(key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    fn host(&self) -> Host {
        Host::new(self.data()).store(STORE, self.0.path().join("store"))
    }

    fn request(&self) -> Request {
        Request::default().for_datadir(self.data().to_str().unwrap())
    }

    fn plan(&self) -> Result<Plan, Failure> {
        self.host().run(|| Restore::plan(&self.request())).0
    }

    /// Plans and restores, as the host does.
    fn restore(&self, request: &Request) -> (Result<(), Failure>, Record) {
        self.host()
            .run(|| Restore::create(request, &Restore::plan(request)?))
    }
}

fn sha256(bytes: &[u8]) -> String {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    hasher.update(bytes);
    hasher
        .finish()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

const FILES: [(&str, &[u8]); 4] = [
    ("PG_VERSION", b"15\n"),
    ("backup_label", b"START WAL LOCATION: 0/2000028\n"),
    ("base/5/1259", &[7; 16384]),
    ("global/pg_control", b"control"),
];

#[test]
fn the_newest_backup_is_restored() {
    let scene = Scene::new();
    scene.backup("2026-11-26", &[("PG_VERSION", b"14\n")]);
    scene.backup("2026-11-27", &FILES);
    let plan = scene.plan().unwrap();
    assert_eq!(
        (plan.backup.as_str(), plan.postgresql_major, plan.files),
        ("2026-11-27", Some(15), Some(4))
    );
    let (result, record) = scene.restore(&scene.request());
    assert_eq!(result, Ok(()));
    assert_eq!(
        (Some(record.bytes), Some(record.files)),
        (plan.bytes, plan.files)
    );
    assert_eq!(read(&scene.data().join("PG_VERSION")), "15\n");
    assert_eq!(
        fs::read(scene.data().join("base/5/1259")).unwrap(),
        [7; 16384]
    );
    assert!(scene.data().join("pg_notify").is_dir());
    // The host gives this file its own name at the very end, so that a server cannot start from half a restore.
    assert_eq!(read(&scene.data().join(UNFINISHED_CONTROL_FILE)), "control");
}

#[test]
fn the_backup_that_the_option_names_is_restored() {
    let scene = Scene::new();
    scene.backup("2026-11-26", &[("PG_VERSION", b"14\n")]);
    scene.backup("2026-11-27", &FILES);
    let (result, record) = scene.restore(&scene.request().with(BACKUP, "2026-11-26"));
    assert_eq!((result, record.files), (Ok(()), 1));
    assert_eq!(read(&scene.data().join("PG_VERSION")), "14\n");
}

#[test]
fn an_empty_store_is_not_applicable_and_a_named_backup_that_is_missing_fails() {
    let scene = Scene::new();
    assert!(matches!(scene.plan(), Err(Failure::NotApplicable(_))));
    scene.backup("2026-11-27", &FILES);
    let (result, _) = scene.restore(&scene.request().with(BACKUP, "2026-11-28"));
    assert!(matches!(result, Err(Failure::Failed(why)) if why.contains("2026-11-28")));
}

#[test]
fn a_damaged_missing_or_replaced_object_fails_and_is_named() {
    let scene = Scene::new();
    scene.backup("2026-11-27", &FILES);
    let object = scene.0.path().join("store/files/2026-11-27/base/5/1259.gz");
    let mut bytes = fs::read(&object).unwrap();
    let other = Scene::new();
    other.backup("2026-11-27", &[("base/5/1259", &[8; 16384])]);
    let replaced = fs::read(other.0.path().join("store/files/2026-11-27/base/5/1259.gz")).unwrap();
    bytes.truncate(bytes.len() / 2);
    for wrong in [Some(bytes), Some(replaced), None] {
        match wrong {
            Some(bytes) => fs::write(&object, bytes).unwrap(),
            None => fs::remove_file(&object).unwrap(),
        }
        let failure = scene.restore(&scene.request()).0.unwrap_err();
        assert!(failure.to_string().contains("base/5/1259.gz"), "{failure}");
    }
}

#[test]
fn a_wrong_index_is_refused_while_the_old_data_exists() {
    let scene = Scene::new();
    let index = scene.backup("2026-11-27", &FILES);
    let cut = &index[..index.len() - 10];
    for (wrong, says) in [
        (String::new(), "line 1 is missing"),
        (cut.to_owned(), "line 9 is too long or cut off"),
        (index.replace("end 4\n", ""), "line 10 is missing"),
        (
            index.replace("end 4", "end 5"),
            "line 10 does not end 4 files",
        ),
        (
            index.replace("format 1\n", ""),
            "line 1 is not what an index has there",
        ),
        (
            index.replace("format 1", "format 2"),
            "line 1 is not a line of format 1",
        ),
        (
            index.replace("timeline 1", "timeline one"),
            "line 4 is not a line of format 1",
        ),
        (
            index.replace("directory", "folder"),
            "line 5 is not a line of format 1",
        ),
        (
            index.replace("file 3 ", "file three "),
            "line 6 is not a line of format 1",
        ),
        (
            index.replace("pg_notify", &"x".repeat(5000)),
            "line 5 is too long or cut off",
        ),
    ] {
        scene.put("index/2026-11-27", wrong.as_bytes());
        let failure = scene.plan().unwrap_err();
        assert!(failure.to_string().contains(says), "{failure}");
    }
}

#[test]
fn a_backup_that_was_replaced_after_the_plan_is_not_restored() {
    let scene = Scene::new();
    scene.backup("2026-11-27", &FILES);
    let plan = scene.plan().unwrap();
    scene.backup("2026-11-27", &FILES[..2]);
    let (result, _) = scene
        .host()
        .run(|| Restore::create(&scene.request(), &plan));
    assert!(matches!(result, Err(Failure::RetryLater(_))), "{result:?}");
}

#[test]
fn a_cancelled_restore_stops() {
    let scene = Scene::new();
    scene.backup("2026-11-27", &FILES);
    let plan = scene.plan().unwrap();
    let (result, _) = scene
        .host()
        .cancel_after(0)
        .run(|| Restore::create(&scene.request(), &plan));
    assert_eq!(result, Err(Failure::Cancelled));
}
