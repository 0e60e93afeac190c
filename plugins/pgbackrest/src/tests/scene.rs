//! A small plain repository for tests of the component. Restoring from real repositories is tested with the real host.

use std::fs;
use std::path::PathBuf;

use sha1::{Digest, Sha1};
use tempfile::TempDir;
use understudy::native::{Host, Record};

use crate::{Failure, Method, PgBackRest, Plan, Request};

pub(super) const FULL: &str = "20261126-043406F";
pub(super) const INCREMENTAL: &str = "20261126-043406F_20261126-043412I";
pub(super) const SYSTEM_IDENTIFIER: u64 = 7_575_000_000_000_000_001;

/// The size of a WAL segment: the smallest, because the tests write many.
pub(super) const SEGMENT: usize = 1 << 20;

pub(super) fn sha1(bytes: &[u8]) -> String {
    Sha1::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn control() -> Vec<u8> {
    let mut bytes = vec![0; 8192];
    bytes[..8].copy_from_slice(&SYSTEM_IDENTIFIER.to_le_bytes());
    bytes[8..12].copy_from_slice(&1300u32.to_le_bytes());
    bytes[16..20].copy_from_slice(&6u32.to_le_bytes());
    bytes[48..52].copy_from_slice(&1u32.to_le_bytes());
    bytes[228..232].copy_from_slice(&u32::try_from(SEGMENT).unwrap().to_le_bytes());
    bytes
}

/// Adds the checksum that pgBackRest would write to `text`.
pub(super) fn sealed(text: &str) -> String {
    let (mut json, mut section) = ("{".to_owned(), "");
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(name) = line.strip_prefix('[') {
            if !section.is_empty() {
                json.push_str("},");
            }
            section = name;
            json.push_str(&format!("\"{}\":{{", name.trim_end_matches(']')));
        } else {
            let (key, value) = line.split_once('=').unwrap();
            let comma = if json.ends_with('{') { "" } else { "," };
            json.push_str(&format!("{comma}\"{key}\":{value}"));
        }
    }
    json.push_str("}}");
    format!("{text}\n[backrest]\nbackrest-checksum=\"{}\"\n", sha1(json.as_bytes()))
}

/// A repository in the folder `repo`, with a full and an incremental backup of one cluster, and the WAL for both backups.
pub(super) struct Scene {
    pub(super) root: TempDir,
}

impl Scene {
    pub(super) fn new() -> Self {
        let scene = Self { root: tempfile::tempdir().unwrap() };
        for folder in ["data", "wal", "fast"] {
            fs::create_dir(scene.path(folder)).unwrap();
        }
        let current = |label: &str, segment: &str, lsn: u32, stopped: u32, reference: &str| {
            format!(
                "{label}={{\"backrest-format\":5,\"backup-archive-start\":\"{segment}\",\"backup-archive-stop\":\
                 \"{segment}\",\"backup-error\":false,\"backup-lsn-start\":\"0/{lsn:X}28\",\"backup-lsn-stop\":\
                 \"0/{lsn:X}F0\",{reference}\"backup-timestamp-stop\":{stopped},\"db-id\":1}}\n"
            )
        };
        let clusters = format!(
            "[db]\ndb-id=1\ndb-system-id={SYSTEM_IDENTIFIER}\ndb-version=\"15\"\n\n[db:history]\n\
             1={{\"db-system-id\":{SYSTEM_IDENTIFIER},\"db-version\":\"15\"}}\n"
        );
        scene.put(
            "backup/main/backup.info",
            sealed(&format!(
                "[backrest]\nbackrest-format=5\nbackrest-version=\"2.45\"\n\n[backup:current]\n{}{}\n{clusters}",
                current(FULL, "000000010000000000000020", 0x20000, 1_795_667_649, ""),
                current(
                    INCREMENTAL,
                    "000000010000000000000040",
                    0x40000,
                    1_795_667_654,
                    &format!("\"backup-reference\":[\"{FULL}\"],")
                ),
            )),
        );
        scene.put(
            "archive/main/archive.info",
            sealed(&format!(
                "[backrest]\nbackrest-format=5\n\n[db:history]\n1={{\"db-id\":{SYSTEM_IDENTIFIER},\"db-version\":\"15\"}}\n"
            )),
        );
        for number in 0x20..=0x41 {
            scene.archive(1, number, b'1');
        }
        scene.backup(FULL, "000000010000000000000020", 0x20000, "");
        scene.backup(INCREMENTAL, "000000010000000000000040", 0x40000, FULL);
        scene
    }

    /// Writes a backup. Unchanged files are in the backup `reference`, unless `reference` is empty.
    fn backup(&self, label: &str, segment: &str, lsn: u32, reference: &str) {
        let stored = |name: &str, bytes: &[u8], in_reference: bool| {
            let holder = if in_reference && !reference.is_empty() { reference } else { label };
            self.put(&format!("backup/main/{holder}/{name}"), bytes);
            let reference =
                if holder == label { String::new() } else { format!("\"reference\":\"{holder}\",") };
            format!(
                "{name}={{\"checksum\":\"{}\",{reference}\"size\":{},\"timestamp\":1795667644}}\n",
                sha1(bytes),
                bytes.len()
            )
        };
        let files = [
            stored("pg_data/PG_VERSION", b"15\n", true),
            stored("pg_data/backup_label", format!("of {label}\n").as_bytes(), false),
            "pg_data/base/5/16390={\"size\":0,\"timestamp\":1795667644}\n".to_owned(),
            stored("pg_data/base/5/1259", &[7; 20_000], true),
            stored("pg_data/global/pg_control", &control(), false),
            stored("pg_data/tablespace_map", b"16384 /srv/fast\n", false),
            stored("pg_tblspc/16384/PG_15_202209061/5/16385", &[9; 9000], true),
        ];
        let mut files = files.to_vec();
        files.sort();
        let folders = [
            "pg_data",
            "pg_data/base",
            "pg_data/base/5",
            "pg_data/global",
            "pg_data/pg_notify",
            "pg_data/pg_tblspc",
            "pg_data/pg_wal",
            "pg_tblspc",
            "pg_tblspc/16384",
            "pg_tblspc/16384/PG_15_202209061",
            "pg_tblspc/16384/PG_15_202209061/5",
        ];
        let folders: String = folders.iter().map(|folder| format!("{folder}={{}}\n")).collect();
        self.put(
            &format!("backup/main/{label}/backup.manifest"),
            sealed(&format!(
                "[backrest]\nbackrest-format=5\nbackrest-version=\"2.45\"\n\n[backup]\nbackup-archive-start=\"{segment}\"\n\
                 backup-archive-stop=\"{segment}\"\nbackup-label=\"{label}\"\nbackup-lsn-start=\"0/{lsn:X}28\"\n\
                 backup-lsn-stop=\"0/{lsn:X}F0\"\nbackup-type=\"full\"\n\n[backup:db]\ndb-id=1\n\
                 db-system-id={SYSTEM_IDENTIFIER}\ndb-version=\"15\"\n\n[backup:option]\noption-compress-type=\"none\"\n\n\
                 [backup:target]\npg_data={{\"path\":\"/old/data\",\"type\":\"path\"}}\n\
                 pg_tblspc/16384={{\"path\":\"/srv/fast\",\"tablespace-id\":\"16384\",\"tablespace-name\":\"fast\",\
                 \"type\":\"link\"}}\n\n[target:file]\n{}\n[target:file:default]\nmode=\"0600\"\n\n[target:path]\n{folders}\n\
                 [target:path:default]\nmode=\"0700\"\n",
                files.concat()
            )),
        );
    }

    /// Archives a segment full of `byte`, and returns its object.
    pub(super) fn archive(&self, timeline: u32, number: u32, byte: u8) -> String {
        let bytes = vec![byte; SEGMENT];
        let folder = format!("archive/main/15-1/{timeline:08X}00000000");
        let object = format!("{folder}/{timeline:08X}00000000{number:08X}-{}", sha1(&bytes));
        self.put(&object, bytes);
        object
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Writes an object of the repository.
    pub(super) fn put(&self, object: &str, contents: impl AsRef<[u8]>) {
        let path = self.path("repo").join(object);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }

    pub(super) fn remove(&self, object: &str) {
        fs::remove_file(self.path("repo").join(object)).unwrap();
    }

    /// Changes a text in the repository, and updates its checksum.
    pub(super) fn edit(&self, object: &str, from: &str, to: &str) -> &Self {
        let text = fs::read_to_string(self.path("repo").join(object)).unwrap();
        let body = text.split("\n[backrest]\nbackrest-checksum").next().unwrap();
        assert!(body.contains(from), "{object} has no {from}");
        self.put(object, sealed(&body.replacen(from, to, 1)));
        self
    }

    /// Changes the manifest of the incremental backup.
    pub(super) fn edit_manifest(&self, from: &str, to: &str) -> &Self {
        self.edit(&format!("backup/main/{INCREMENTAL}/backup.manifest"), from, to)
    }

    pub(super) fn request(&self) -> Request {
        Request::default().with("stanza", "main").for_datadir(self.path("data").to_str().unwrap())
    }

    pub(super) fn host(&self) -> Host {
        Host::new(self.path("data"))
            .store("repo", self.path("repo"))
            .wal_directory(self.path("wal"))
            .tablespace(16384, self.path("fast"))
    }

    pub(super) fn plan_of(&self, request: &Request) -> (Result<Plan, Failure>, Record) {
        self.host().run(|| PgBackRest::plan(request))
    }

    pub(super) fn plan(&self) -> Result<Plan, Failure> {
        self.plan_of(&self.request()).0
    }

    pub(super) fn create_of(&self, request: &Request) -> (Result<(), Failure>, Record) {
        match self.plan_of(request).0 {
            Ok(plan) => self.host().run(|| PgBackRest::create(request, &plan)),
            Err(failure) => (Err(failure), Record::default()),
        }
    }

    /// Returns why `plan` failed.
    pub(super) fn refusal_of(&self, request: &Request) -> String {
        match self.plan_of(request).0 {
            Err(Failure::Failed(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn refusal(&self) -> String {
        self.refusal_of(&self.request())
    }

    pub(super) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }
}
