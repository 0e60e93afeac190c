//! A Barman server's folder, and the store of barman-cloud, for tests. Unpacking and decompressing are tested with the real host.

use std::fs;
use std::path::PathBuf;

use postgres_formats::Lsn;
use postgres_formats::segment::{SegmentName, SegmentSize};
use postgres_formats::written::ControlFile;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use understudy::native::{Host, Record};

use crate::info::Backup;
use crate::{Barman, Failure, Method, Plan, Request};

pub(crate) const LABEL: &str = "START WAL LOCATION: 0/4000028 (file 000000010000000000000004)\nCHECKPOINT LOCATION: 0/4000060\n\
    BACKUP METHOD: streamed\nBACKUP FROM: primary\nSTART TIME: 2026-11-26 04:34:06 UTC\nLABEL: Barman backup main\nSTART TIMELINE: 1\n";
pub(crate) const SYSTEM_IDENTIFIER: u64 = 7_575_000_000_000_000_001;
/// The size of a WAL segment in the scene, the smallest possible.
pub(crate) const SEGMENT: u64 = 1 << 20;

/// Makes a full backup that begins in segment 4 and ends there.
pub(crate) fn backup(id: &str) -> Backup {
    Backup {
        id: id.to_owned(),
        major: 15,
        system_identifier: Some(SYSTEM_IDENTIFIER),
        timeline: 1,
        begin: Lsn(0x0400_0028),
        begin_wal: SegmentName::parse(b"000000010000000000000004").unwrap(),
        end: Lsn(0x0400_0138),
        segment_size: SegmentSize::new(16 << 20).unwrap(),
        tablespaces: Vec::new(),
        label: Some(LABEL.to_owned()),
        compression: None,
        encryption: None,
        parent: None,
        is_snapshot: false,
        cluster_size: None,
        least_bytes: None,
        has_checksums: None,
        is_by_rsync: false,
        outside: Vec::new(),
    }
}

/// The values of a `backup.info` that differ between the tests.
#[derive(Clone, Debug)]
pub(crate) struct Info {
    pub(crate) id: &'static str,
    pub(crate) begin: u64,
    pub(crate) timeline: u32,
    pub(crate) lines: Vec<String>,
}

impl Info {
    pub(crate) fn new(id: &'static str) -> Self {
        Self { id, begin: 0x0040_0028, timeline: 1, lines: Vec::new() }
    }

    /// Adds a line, which replaces the line with the same key.
    pub(crate) fn with(mut self, line: impl Into<String>) -> Self {
        let (line, key) = (line.into(), |line: &str| line.split('=').next().unwrap_or_default().to_owned());
        self.lines.retain(|other| key(other) != key(&line));
        self.lines.push(line);
        self
    }

    pub(crate) fn at(mut self, begin: u64, timeline: u32) -> Self {
        (self.begin, self.timeline) = (begin, timeline);
        self
    }

    pub(crate) fn label(&self) -> String {
        let size = SegmentSize::new(SEGMENT).unwrap();
        LABEL
            .replace("0/4000028", &Lsn(self.begin).to_string())
            .replace("0/4000060", &Lsn(self.begin + 0x38).to_string())
            .replace("000000010000000000000004", &size.name(self.timeline, Lsn(self.begin)))
            .replace("TIMELINE: 1", &format!("TIMELINE: {}", self.timeline))
    }

    fn text(&self) -> String {
        let size = SegmentSize::new(SEGMENT).unwrap();
        let (begin, end) = (Lsn(self.begin), Lsn(self.begin + 0x110));
        let label = self.label().replace('\n', "\\n");
        let lines = format!(
            "backup_label='{label}'\nbegin_offset={}\nbegin_wal={}\nbegin_xlog={begin}\ncluster_size=5000\nend_offset={}\n\
             end_time=2026-11-{} 04:34:09+00:00\nend_wal={}\nend_xlog={end}\nmode=rsync-concurrent\nstatus=DONE\n\
             systemid={SYSTEM_IDENTIFIER}\ntablespaces=[('fast', 16384, '/old/fast')]\ntimeline={}\nversion=150018\n\
             xlog_segment_size={SEGMENT}\n",
            size.offset(begin),
            size.name(self.timeline, begin),
            size.offset(end),
            &self.id[6..8],
            size.name(self.timeline, end),
            self.timeline,
        );
        let key = |line: &str| line.split('=').next().unwrap_or_default().to_owned();
        let kept = lines.lines().filter(|line| !self.lines.iter().any(|other| key(other) == key(line)));
        kept.chain(self.lines.iter().map(String::as_str)).map(|line| format!("{line}\n")).collect()
    }
}

/// A folder with a server, a data directory and a tablespace.
pub(crate) struct Scene {
    pub(crate) root: TempDir,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let scene = Self { root: tempfile::tempdir().unwrap() };
        for folder in ["barman/main", "data", "fast"] {
            fs::create_dir_all(scene.path(folder)).unwrap();
        }
        scene
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Writes a file of the server.
    pub(crate) fn put(&self, name: &str, bytes: impl AsRef<[u8]>) -> &Self {
        let path = self.path("barman/main").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
        self
    }

    pub(crate) fn remove(&self, name: &str) -> &Self {
        fs::remove_file(self.path("barman/main").join(name)).unwrap();
        self
    }

    /// Writes a `backup.info` where Barman 3.13.2 and later have it.
    pub(crate) fn info(&self, info: &Info) -> &Self {
        self.put(&format!("meta/{}-backup.info", info.id), info.text())
    }

    /// Writes a `backup.info` where older versions and barman-cloud have it.
    pub(crate) fn old_info(&self, info: &Info) -> &Self {
        self.put(&format!("base/{}/backup.info", info.id), info.text())
    }

    /// Writes the plain tree of a backup.
    pub(crate) fn tree(&self, info: &Info) -> &Self {
        let data = format!("base/{}/data", info.id);
        for (name, bytes) in [
            ("PG_VERSION", b"15\n".to_vec()),
            ("backup_label", info.label().into_bytes()),
            ("base/5/1259", vec![7; 9000]),
            ("base/5/PG_VERSION", b"15\n".to_vec()),
            ("empty", Vec::new()),
            ("global/pg_control", control()),
            ("log/old.log", b"line".to_vec()),
            ("pg_wal/00000001000000000000000F", vec![7; 100]),
            ("postgresql.conf", b"port = 5432\n".to_vec()),
        ] {
            self.put(&format!("{data}/{name}"), bytes);
        }
        self.put(&format!("base/{}/16384/PG_15_202209061/5/16385", info.id), vec![8; 500]);
        self.info(info)
    }

    /// Returns the sum of the sizes of the files of a backup.
    pub(crate) fn bytes(&self, id: &str) -> u64 {
        fn below(path: &std::path::Path) -> u64 {
            let entries = fs::read_dir(path).unwrap().map(Result::unwrap);
            entries
                .map(|entry| {
                    let metadata = entry.metadata().unwrap();
                    if metadata.is_dir() { below(&entry.path()) } else { metadata.len() }
                })
                .sum()
        }
        below(&self.path("barman/main/base").join(id))
    }

    /// Writes a segment with the first bytes of a WAL page.
    pub(crate) fn segment(&self, name: &str) -> &Self {
        self.put(&format!("wals/{}/{name}", &name[..16]), segment())
    }

    /// Writes a manifest of these files of a backup that begins where [`Info::new`] does, named as in a data directory.
    pub(crate) fn manifest(&self, id: &str, files: &[&str]) -> &Self {
        self.manifest_from(id, Info::new("").begin, files)
    }

    /// Writes a manifest of these files of a backup that begins at `begin`.
    pub(crate) fn manifest_from(&self, id: &str, begin: u64, files: &[&str]) -> &Self {
        let (begin, end) = (Lsn(begin), Lsn(begin + 0x110));
        let lines: Vec<_> = files
            .iter()
            .map(|name| {
                let place = match name.strip_prefix("pg_tblspc/") {
                    Some(rest) => rest.to_owned(),
                    None => format!("data/{name}"),
                };
                let bytes = fs::read(self.path("barman/main/base").join(id).join(place)).unwrap();
                let (size, sum) = (bytes.len(), hexadecimal(&Sha256::digest(&bytes)));
                format!("{{ \"Path\": \"{name}\", \"Size\": {size}, \"Checksum-Algorithm\": \"SHA256\", \"Checksum\": \"{sum}\" }}")
            })
            .collect();
        let text = format!(
            "{{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [\n{}\n],\n\"WAL-Ranges\": [\n\
             {{ \"Timeline\": 1, \"Start-LSN\": \"{begin}\", \"End-LSN\": \"{end}\" }}\n],\n",
            lines.join(",\n")
        );
        let sum = hexadecimal(&Sha256::digest(&text));
        self.put(
            &format!("base/{id}/data/backup_manifest"),
            format!("{text}\"Manifest-Checksum\": \"{sum}\"}}\n"),
        )
    }

    pub(crate) fn request(&self) -> Request {
        Request::default()
            .with("directory", self.path("barman").to_str().unwrap())
            .with("server", "main")
            .with("wal", "none")
            .for_datadir(self.path("data").to_str().unwrap())
    }

    /// The same place as a store.
    pub(crate) fn request_to_store(&self) -> Request {
        Request::default()
            .with("store", "repo")
            .with("prefix", "/barman/")
            .with("server", "main")
            .with("wal", "none")
            .for_datadir(self.path("data").to_str().unwrap())
    }

    pub(crate) fn host(&self) -> Host {
        Host::new(self.path("data"))
            .store("repo", self.root.path())
            .tablespace(16384, self.path("fast"))
            .granted(["barman", "data", "fast"].map(|name| self.path(name)))
    }

    pub(crate) fn plan_of(&self, request: &Request) -> (Result<Plan, Failure>, Record) {
        self.host().run(|| Barman::plan(request))
    }

    pub(crate) fn plan(&self) -> Result<Plan, Failure> {
        self.plan_of(&self.request()).0
    }

    pub(crate) fn refusal_of(&self, request: &Request) -> String {
        match self.plan_of(request).0 {
            Err(Failure::Failed(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn refusal(&self) -> String {
        self.refusal_of(&self.request())
    }

    /// Plans and creates.
    pub(crate) fn create_of(&self, request: &Request) -> (Result<(), Failure>, Record) {
        self.host().run(|| Barman::plan(request).and_then(|plan| Barman::create(request, &plan)))
    }
}

/// A control file of the cluster.
pub(crate) fn control() -> Vec<u8> {
    let mut written = ControlFile::in_production(SYSTEM_IDENTIFIER);
    written.put32(228, u32::try_from(SEGMENT).unwrap());
    written.bytes
}

/// A control file of the cluster with another number at the offset `at`.
pub(crate) fn control_with(at: usize, number: u32) -> Vec<u8> {
    ControlFile { bytes: control() }.put32(at, number).bytes.clone()
}

/// A whole segment that begins as a WAL page of PostgreSQL 15 does.
pub(crate) fn segment() -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(SEGMENT).unwrap()];
    bytes[..4].copy_from_slice(&[0x10, 0xD1, 0x07, 0x00]);
    bytes
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
