//! A storage of WAL-G for tests of `plan` and of failures. Nothing in it is compressed. Unpacking is tested with the real host.

use std::fs;
use std::path::PathBuf;

use postgres_formats::written::ControlFile;
use serde_json::{Value, json};
use tempfile::TempDir;
use understudy::native::{Host, Record};
use ustar::written::{archive, directory, file};

use crate::{Failure, Method, Plan, Request, WalG};

pub(super) const SYSTEM_IDENTIFIER: u64 = 7_575_000_000_000_000_001;
pub(super) const FULL: &str = "base_000000010000000000000002";
pub(super) const DELTA: &str = "base_000000010000000000000004_D_000000010000000000000002";
pub(super) const SECOND: &str = "base_000000010000000000000006_D_000000010000000000000004";

/// Returns the `backup_label` of a backup that began at `lsn`.
pub(super) fn label(lsn: &str, timeline: u32) -> String {
    format!(
        "START WAL LOCATION: {lsn} (file {timeline:08X}0000000000000002)\nCHECKPOINT LOCATION: FF/2000060\n\
         BACKUP METHOD: streamed\nBACKUP FROM: primary\nSTART TIME: 2026-11-23 08:34:17 UTC\nLABEL: 2026\nSTART TIMELINE: {timeline}\n"
    )
}

/// Returns the control file of a cluster with segments of 16 MiB.
pub(super) fn control(system_identifier: u64) -> Vec<u8> {
    ControlFile::in_production(system_identifier).bytes
}

/// A directory with a storage.
pub(super) struct Scene {
    pub(super) root: TempDir,
}

impl Scene {
    /// Makes a storage with a full backup and two delta backups.
    pub(super) fn new() -> Self {
        let scene = Self { root: tempfile::tempdir().unwrap() };
        fs::create_dir_all(scene.path("storage/pg/wal_005")).unwrap();
        fs::create_dir(scene.path("data")).unwrap();
        scene.backup(FULL, "0/2000028", &sentinel(0x0200_0028, None));
        scene.backup(DELTA, "0/4000028", &sentinel(0x0400_0028, Some((FULL, 0x0200_0028, 1))));
        scene.backup(SECOND, "0/6000028", &sentinel(0x0600_0028, Some((DELTA, 0x0400_0028, 2))));
        for number in 1..8 {
            scene.put(&format!("wal_005/00000001000000000000000{number}"), b"x");
        }
        scene
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Writes an object of the storage.
    pub(super) fn put(&self, key: &str, bytes: &[u8]) {
        let path = self.path("storage/pg").join(key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// Writes an object of the backup `name`.
    pub(super) fn put_in(&self, name: &str, key: &str, bytes: &[u8]) {
        self.put(&format!("basebackups_005/{name}/{key}"), bytes);
    }

    pub(super) fn put_sentinel(&self, name: &str, sentinel: &Value) {
        self.put(&sentinel_of(name), sentinel.to_string().as_bytes());
    }

    pub(super) fn remove(&self, key: &str) {
        fs::remove_file(self.path("storage/pg").join(key)).unwrap();
    }

    /// Writes the objects of a backup. The later the start, the later its sentinel is written.
    pub(super) fn backup(&self, name: &str, lsn: &str, sentinel: &Value) {
        let control = file("/global/pg_control", &control(SYSTEM_IDENTIFIER));
        let files = [file("backup_label", label(lsn, 1).as_bytes()), file("tablespace_map", b"")];
        let part = [directory("/"), file("/PG_VERSION", b"15\n"), file("/base/5/1259", &[7; 8192])];
        self.put_in(name, "tar_partitions/part_001.tar", &archive(&part));
        self.put_in(name, "tar_partitions/pg_control.tar", &archive(&[control]));
        self.put_in(name, "tar_partitions/backup_label.tar", &archive(&files));
        self.put_in(name, "files_metadata.json", files_metadata(name.contains("_D_")).to_string().as_bytes());
        let day = sentinel["LSN"].as_u64().unwrap() >> 24;
        let metadata = json!({"start_time": format!("2026-11-{day:02}T04:00:00Z"), "date_fmt": "x",
            "finish_time": format!("2026-11-{day:02}T04:30:00.5Z"), "user_data": {"day": day}, "finish_lsn": sentinel["FinishLSN"]});
        self.put_in(name, "metadata.json", metadata.to_string().as_bytes());
        self.put_sentinel(name, sentinel);
        self.written_at(name, day);
    }

    /// Sets when the sentinel of `name` was written.
    pub(super) fn written_at(&self, name: &str, seconds: u64) {
        let path = self.path("storage/pg").join(sentinel_of(name));
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    }

    pub(super) fn request(&self) -> Request {
        Request::default()
            .with("directory", self.path("storage").to_str().unwrap())
            .with("prefix", "pg")
            .with("wal", "none")
            .for_datadir(self.path("data").to_str().unwrap())
    }

    pub(super) fn host(&self) -> Host {
        Host::new(self.path("data"))
            .store("repo", self.path("storage/pg"))
            .granted(["storage", "data"].map(|name| self.path(name)))
    }

    pub(super) fn plan_of(&self, request: &Request) -> (Result<Plan, Failure>, Record) {
        self.host().run(|| WalG::plan(request))
    }

    pub(super) fn plan(&self) -> Result<Plan, Failure> {
        self.plan_of(&self.request()).0
    }

    pub(super) fn refusal(&self) -> String {
        self.refusal_of(&self.request())
    }

    pub(super) fn refusal_of(&self, request: &Request) -> String {
        match self.plan_of(request).0 {
            Err(Failure::Failed(why)) => why,
            other => panic!("{other:?}"),
        }
    }
}

/// Returns the key of a sentinel.
pub(super) fn sentinel_of(name: &str) -> String {
    format!("basebackups_005/{name}_backup_stop_sentinel.json")
}

/// Returns the sentinel of a backup that began at `start`, perhaps made from a parent with a name, a start and a number in the chain.
pub(super) fn sentinel(start: u64, parent: Option<(&str, u64, u64)>) -> Value {
    let mut sentinel = json!({
        "LSN": start, "FinishLSN": start + 0x100, "PgVersion": 150_004, "SystemIdentifier": SYSTEM_IDENTIFIER,
        "UncompressedSize": 9000, "CompressedSize": 3000, "DataCatalogSize": 50_000, "ChkpNum": null,
        "Spec": {"base_prefix": "/pg", "tablespaces": ["16384"], "16384": {"loc": "/fast", "link": "pg_tblspc/16384"}},
        "UserData": {"any": ["thing"]}, "Version": 2, "StartTime": "2026-11-26T04:30:00Z", "Hostname": "a", "IsPermanent": true,
    });
    if let Some((name, start, number)) = parent {
        sentinel["DeltaFrom"] = json!(name);
        sentinel["DeltaLSN"] = json!(start);
        sentinel["DeltaFullName"] = json!(FULL);
        sentinel["DeltaCount"] = json!(number);
    }
    sentinel
}

/// Returns the list of the files of a backup.
pub(super) fn files_metadata(is_delta: bool) -> Value {
    json!({
        "Files": {
            "/PG_VERSION": {"IsIncremented": false, "IsSkipped": false, "MTime": "2026-11-26T04:30:00Z", "UpdatesCount": 0},
            "/base/5/1259": {"IsIncremented": is_delta, "IsSkipped": false, "MTime": "2026-11-26T04:30:00Z", "UpdatesCount": 0},
            "/base/5/2619": {"IsIncremented": false, "IsSkipped": is_delta, "MTime": "2026-11-26T04:30:00Z", "UpdatesCount": 0},
        },
        "TarFileSets": {"part_001.tar": ["/PG_VERSION", "/base/5/1259"], "backup_label.tar": ["tablespace_map", "backup_label"]},
        "DatabasesByNames": {},
    })
}
