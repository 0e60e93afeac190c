//! A backup made on purpose, and the places that it is restored to.

use std::fs;
use std::path::PathBuf;

use sha2::{Digest, Sha256};
use tempfile::TempDir;
use understudy::UNFINISHED_CONTROL_FILE;
use understudy::native::{Host, Record};

use crate::codec::Codec;
use crate::codec::tests::{encode, sample};
use crate::tar::tests::{archive, directory, file};
use crate::{Failure, Method, Plan, Request, Tarball};

pub(super) const LABEL: &str = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\nCHECKPOINT LOCATION: 0/2000060\n\
    BACKUP METHOD: streamed\nBACKUP FROM: primary\nSTART TIME: 2026-11-23 08:34:17 UTC\nLABEL: nightly\nSTART TIMELINE: 1\n";
pub(super) const SYSTEM_IDENTIFIER: u64 = 7_575_000_000_000_000_001;
pub(super) const SEGMENT: &str = "000000010000000000000002";

pub(super) fn control() -> Vec<u8> {
    let mut bytes = vec![0; 8192];
    bytes[..8].copy_from_slice(&SYSTEM_IDENTIFIER.to_le_bytes());
    bytes[8..12].copy_from_slice(&1300u32.to_le_bytes());
    bytes[16..20].copy_from_slice(&6u32.to_le_bytes());
    bytes[48..52].copy_from_slice(&1u32.to_le_bytes());
    bytes
}

/// A backup in the making, and the places that it is restored to.
pub(super) struct Scene {
    pub(super) root: TempDir,
    pub(super) base: Vec<Vec<u8>>,
    pub(super) tablespace: Vec<Vec<u8>>,
    pub(super) wal: Option<Vec<Vec<u8>>>,
    pub(super) listed: Vec<(String, Vec<u8>)>,
}

impl Scene {
    /// A cluster with one tablespace, backed up with `-X stream`.
    pub(super) fn new() -> Self {
        let big = sample();
        let listed = [
            ("pg_tblspc/16384/PG_15_202209061/5/16385", &big[..]),
            ("backup_label", LABEL.as_bytes()),
            ("tablespace_map", b"16384 /old/fast disk\n"),
            ("PG_VERSION", b"15\n"),
            ("base/5/1259", &big[..100_000]),
            ("base/5/empty", b""),
            ("postgresql.auto.conf", b"# nothing\n"),
            ("global/pg_control", &control()),
        ]
        .map(|(name, contents)| (name.to_owned(), contents.to_vec()));
        let mut scene = Self {
            root: tempfile::tempdir().unwrap(),
            base: Vec::new(),
            tablespace: vec![
                directory("PG_15_202209061/"),
                directory("PG_15_202209061/5/"),
                file("PG_15_202209061/5/16385", &big),
            ],
            wal: Some(vec![file(SEGMENT, &sample()), file(&format!("archive_status/{SEGMENT}.done"), b"")]),
            listed: listed.to_vec(),
        };
        let of = |name: &str| file(name, &listed.iter().find(|(listed, _)| listed == name).unwrap().1);
        scene.base = vec![
            of("backup_label"),
            of("tablespace_map"),
            directory("pg_notify/"),
            of("PG_VERSION"),
            directory("pg_wal/"),
            directory("./pg_wal/archive_status/"),
            directory("base/"),
            directory("base/5/"),
            of("base/5/1259"),
            of("base/5/empty"),
            directory("pg_tblspc/"),
            of("postgresql.auto.conf"),
            directory("global/"),
            of("global/pg_control"),
        ];
        for folder in ["backup", "data", "tablespace", "wal"] {
            fs::create_dir(scene.path(folder)).unwrap();
        }
        scene
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Puts `member` in the place of that of the same name in base.tar, or adds it before the control file.
    pub(super) fn with(mut self, member: Vec<u8>) -> Self {
        let named = self.base.iter_mut().find(|old| old[..100] == member[..100]);
        match named {
            Some(old) => *old = member,
            None => self.base.insert(self.base.len() - 3, member),
        }
        self
    }

    pub(super) fn without(mut self, name: &str) -> Self {
        self.base.retain(|member| !member.starts_with(format!("{name}\0").as_bytes()));
        self
    }

    pub(super) fn write(&self, codec: Codec) -> &Self {
        let ending = match codec {
            Codec::Plain => "",
            Codec::Gzip => ".gz",
            Codec::Lz4 => ".lz4",
            Codec::Zstd => ".zst",
        };
        self.put(&format!("base.tar{ending}"), &encode(codec, &archive(&self.base)));
        self.put(&format!("16384.tar{ending}"), &encode(codec, &archive(&self.tablespace)));
        if let Some(wal) = &self.wal {
            // As with `--compress=server-lz4`, which leaves pg_wal.tar plain.
            let (codec, ending) = if codec == Codec::Lz4 { (Codec::Plain, "") } else { (codec, ending) };
            self.put(&format!("pg_wal.tar{ending}"), &encode(codec, &archive(wal)));
        }
        self
    }

    pub(super) fn put(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path("backup").join(name), bytes).unwrap();
    }

    pub(super) fn manifest(&self) -> &Self {
        let files: Vec<_> = self
            .listed
            .iter()
            .map(|(name, contents)| {
                let sum: String = Sha256::digest(contents).iter().map(|byte| format!("{byte:02x}")).collect();
                format!(
                    "{{ \"Path\": \"{name}\", \"Size\": {}, \"Checksum-Algorithm\": \"SHA256\", \"Checksum\": \"{sum}\" }}",
                    contents.len()
                )
            })
            .collect();
        let text = format!(
            "{{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [\n{}\n],\n\"WAL-Ranges\": [\n\
             {{ \"Timeline\": 1, \"Start-LSN\": \"0/2000028\", \"End-LSN\": \"0/2000100\" }}\n],\n",
            files.join(",\n")
        );
        let sum: String = Sha256::digest(&text).iter().map(|byte| format!("{byte:02x}")).collect();
        self.put("backup_manifest", format!("{text}\"Manifest-Checksum\": \"{sum}\"}}\n").as_bytes());
        self
    }

    pub(super) fn request(&self) -> Request {
        Request::default()
            .with("directory", self.path("backup").to_str().unwrap())
            .for_datadir(self.path("data").to_str().unwrap())
    }

    pub(super) fn host(&self) -> Host {
        Host::new(self.path("data"))
            .wal_directory(self.path("wal"))
            .tablespace(16384, self.path("tablespace"))
            .granted(["backup", "data", "wal", "tablespace"].map(|name| self.path(name)))
    }

    pub(super) fn plan(&self) -> Result<Plan, Failure> {
        self.host().run(|| Tarball::plan(&self.request())).0
    }

    pub(super) fn restore(&self) -> (Result<(), Failure>, Record) {
        let request = self.request();
        match self.plan() {
            Ok(plan) => self.host().run(|| Tarball::create(&request, &plan)),
            Err(failure) => (Err(failure), Record::default()),
        }
    }

    /// What plan or create say, once it is sure that nothing was written outside and no control file is in place.
    pub(super) fn refusal(&self) -> String {
        let (result, _) = self.restore();
        let why = match result {
            Err(Failure::Failed(why)) => why,
            other => panic!("{other:?}"),
        };
        assert!(!self.path("data/global/pg_control").exists());
        assert!(!self.path("data").join(UNFINISHED_CONTROL_FILE).exists(), "{why}");
        let mut outside: Vec<_> =
            fs::read_dir(self.root.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        outside.sort();
        assert_eq!(outside, ["backup", "data", "tablespace", "wal"], "{why}");
        why
    }

    pub(super) fn assert_restored(&self) {
        for (name, contents) in &self.listed {
            let place = match name.strip_prefix("pg_tblspc/16384/") {
                Some(name) => self.path("tablespace").join(name),
                None if name == "global/pg_control" => self.path("data").join(UNFINISHED_CONTROL_FILE),
                None => self.path("data").join(name),
            };
            if name == "tablespace_map" {
                assert!(!place.exists());
                continue;
            }
            assert_eq!(&fs::read(&place).unwrap(), contents, "{name}");
        }
        assert_eq!(fs::read(self.path("wal").join(SEGMENT)).unwrap(), sample());
        assert!(self.path("wal/archive_status").join(format!("{SEGMENT}.done")).exists());
        assert!(self.path("data/pg_notify").is_dir() && self.path("data/pg_tblspc").is_dir());
        assert!(!self.path("data/pg_wal").exists() && !self.path("data/global/pg_control").exists());
    }

    /// Empties the places that it is restored to.
    pub(super) fn empty(&self) {
        for folder in ["data", "tablespace", "wal"] {
            fs::remove_dir_all(self.path(folder)).unwrap();
            fs::create_dir(self.path(folder)).unwrap();
        }
    }
}
