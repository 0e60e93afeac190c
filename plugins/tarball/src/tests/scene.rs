//! A backup for tests of `plan`. Unpacking is tested with the real host.

use std::fs;
use std::path::PathBuf;

use postgres_formats::written::ControlFile;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use understudy::native::{Host, Record};
pub(super) use ustar::written::{archive, directory, file};

use crate::{Failure, Method, Plan, Request, Tarball};

pub(super) const LABEL: &str = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\nCHECKPOINT LOCATION: 0/2000060\n\
    BACKUP METHOD: streamed\nBACKUP FROM: primary\nSTART TIME: 2026-11-23 08:34:17 UTC\nLABEL: nightly\nSTART TIMELINE: 1\n";
pub(super) const SYSTEM_IDENTIFIER: u64 = 7_575_000_000_000_000_001;

pub(super) fn control() -> Vec<u8> {
    ControlFile::in_production(SYSTEM_IDENTIFIER).bytes
}

/// A directory with a backup.
pub(super) struct Scene {
    pub(super) root: TempDir,
    pub(super) base: Vec<Vec<u8>>,
}

impl Scene {
    /// Makes the files of a cluster with one tablespace.
    pub(super) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("backup")).unwrap();
        fs::create_dir(root.path().join("data")).unwrap();
        let base = vec![
            file("backup_label", LABEL.as_bytes()),
            file("tablespace_map", b"16384 /old/fast disk\n"),
            directory("pg_notify/"),
            file("base/5/1259", &vec![7; 1 << 20]),
            file("PG_VERSION", b"15\n"),
            directory("pg_tblspc/"),
            file("global/1262", &vec![7; 100_000]),
            file("global/pg_control", &control()),
        ];
        Self { root, base }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Replaces the member of the same name in base.tar, or adds `member` before the control file.
    pub(super) fn with(mut self, member: Vec<u8>) -> Self {
        match self.base.iter_mut().find(|old| old[..100] == member[..100]) {
            Some(old) => *old = member,
            None => self.base.insert(self.base.len() - 1, member),
        }
        self
    }

    pub(super) fn without(mut self, name: &str) -> Self {
        self.base.retain(|member| !member.starts_with(format!("{name}\0").as_bytes()));
        self
    }

    /// Creates `folder`, and writes the backup to it.
    pub(super) fn write(&self, folder: &str) -> &Self {
        fs::create_dir_all(self.path(folder)).unwrap();
        self.put(folder, "base.tar", &archive(&self.base));
        self.put(folder, "16384.tar", &archive(&[file("PG_15_202209061/5/16385", &[7; 1000])]));
        self.put(folder, "pg_wal.tar", &archive(&[file("000000010000000000000002", &[7; 1000])]));
        self
    }

    pub(super) fn put(&self, folder: &str, name: &str, bytes: &[u8]) {
        fs::write(self.path(folder).join(name), bytes).unwrap();
    }

    pub(super) fn manifest(&self, folder: &str, file: &str) -> &Self {
        self.manifest_at(folder, file, "0/2000028")
    }

    /// Writes the manifest of a backup that began at `start`, without checksums.
    pub(super) fn manifest_at(&self, folder: &str, file: &str, start: &str) -> &Self {
        let file = format!("{{ \"Path\": \"{file}\", \"Size\": 5000 }}");
        self.put_manifest(folder, "\"PostgreSQL-Backup-Manifest-Version\": 1", &file, start)
    }

    /// Writes the manifest of a backup of PostgreSQL 17 and later of the cluster `system` that began at `start`, with checksums.
    pub(super) fn manifest_of(&self, folder: &str, system: u64, start: &str) -> &Self {
        let version = format!("\"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": {system}");
        let checksum = "\"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"00000000\"";
        let file = format!("{{ \"Path\": \"base/5/1259\", \"Size\": 5000, {checksum} }}");
        self.put_manifest(folder, &version, &file, start)
    }

    fn put_manifest(&self, folder: &str, version: &str, file: &str, start: &str) -> &Self {
        let end = format!("{}100", &start[..start.len() - 3]);
        let text = format!(
            "{{ {version},\n\"Files\": [\n{file}\n],\n\
             \"WAL-Ranges\": [\n{{ \"Timeline\": 1, \"Start-LSN\": \"{start}\", \"End-LSN\": \"{end}\" }}\n],\n"
        );
        let sum: String = Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect();
        self.put(folder, "backup_manifest", format!("{text}\"Manifest-Checksum\": \"{sum}\"}}\n").as_bytes());
        self
    }

    pub(super) fn request(&self) -> Request {
        Request::default()
            .with("directory", self.path("backup").to_str().unwrap())
            .for_datadir(self.path("data").to_str().unwrap())
    }

    pub(super) fn host(&self) -> Host {
        Host::new(self.path("data"))
            .store("repo", self.root.path())
            .granted(["backup", "data"].map(|name| self.path(name)))
    }

    pub(super) fn plan_of(&self, request: &Request) -> (Result<Plan, Failure>, Record) {
        self.host().run(|| Tarball::plan(request))
    }

    pub(super) fn plan(&self) -> Result<Plan, Failure> {
        self.plan_of(&self.request()).0
    }

    pub(super) fn refusal(&self) -> String {
        match self.plan() {
            Err(Failure::Failed(why)) => why,
            other => panic!("{other:?}"),
        }
    }
}
