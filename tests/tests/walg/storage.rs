//! Writes backups as WAL-G does, from its source of August 2026: `bundle.go`, `tar_ball_file_packer.go`, `incremental_page_reader.go` and
//! `backup_sentinel_dto.go` in internal/databases/postgres. Compresses with the programs `lz4`, `xz`, `gzip`, `zstd` and `brotli`.
//!
//! A test calls `pg_backup_start`, then [`Packed::pack`], then `pg_backup_stop`, then [`Packed::finish`], and archives the segments with
//! [`archive_wal`].

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The size of a page in bytes.
const PAGE: usize = 8192;

/// The size of a tar block in bytes.
const BLOCK: usize = 512;

/// Names that are not stored; of directories only the header is (`ExcludedFilenames`). `pg_control` has an archive of its own.
const EXCLUDED: &str = "log pg_log pg_xlog pg_wal pgsql_tmp postgresql.auto.conf.tmp postmaster.pid postmaster.opts \
    recovery.conf pg_dynshmem pg_notify pg_replslot pg_serial pg_stat_tmp pg_snapshots pg_subtrans standby.signal \
    pg_control";

/// How objects are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Lz4,
    Lzma,
    Gzip,
    Zstd,
    Brotli,
}

impl Compression {
    /// Returns the ending of names, with its dot, and the program that compresses standard input.
    fn program(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::None => ("", &["cat"]),
            Self::Lz4 => (".lz4", &["lz4", "-q", "-c"]),
            Self::Lzma => (".lzma", &["xz", "--format=lzma", "-0", "-c"]),
            Self::Gzip => (".gz", &["gzip", "-1", "-n", "-c"]),
            Self::Zstd => (".zst", &["zstd", "-q", "-c"]),
            Self::Brotli => (".br", &["brotli", "-q", "3", "-c"]),
        }
    }

    /// Compresses the file `plain` to the object `object`, to whose name the ending is added. Returns the name and the stored size.
    fn store(self, plain: &Path, object: &Path) -> io::Result<(String, u64)> {
        let (ending, program) = self.program();
        let mut name = object.file_name().unwrap().to_str().unwrap().to_owned();
        name.push_str(ending);
        let to = object.with_file_name(&name);
        let mut command = Command::new(program[0]);
        let ended =
            command.args(&program[1..]).stdin(File::open(plain)?).stdout(File::create(&to)?).status()?;
        assert!(ended.success(), "{program:?}: {ended}");
        Ok((name, fs::metadata(to)?.len()))
    }
}

/// The cluster that is backed up.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    /// The data directory.
    pub(crate) data: PathBuf,
    pub(crate) system_identifier: u64,
    /// `server_version_num`.
    pub(crate) version: u32,
    pub(crate) timeline: u32,
    /// The size of a WAL segment in bytes.
    pub(crate) segment: u64,
}

/// How backups are written.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The folder with `basebackups_005` and `wal_005`.
    pub(crate) storage: PathBuf,
    pub(crate) compression: Compression,
    /// How many bytes of files a part has before the next one begins.
    pub(crate) part: u64,
    /// The owner of the files. A number over 2,097,151 does not fit into a ustar header, so that each member gets an extended header.
    pub(crate) owner: u64,
}

/// A finished backup.
#[derive(Clone, Debug)]
pub(crate) struct Backup {
    pub(crate) name: String,
    pub(crate) start: u64,
    /// The full backup at the end of the chain.
    pub(crate) full: String,
    /// How many backups precede this one in the chain.
    pub(crate) count: u32,
    /// When each file was modified, in nanoseconds since 1970.
    times: BTreeMap<String, i128>,
}

/// A backup whose files are packed, and whose label is not known yet.
pub(crate) struct Packed<'a> {
    settings: &'a Settings,
    cluster: &'a Cluster,
    parent: Option<&'a Backup>,
    name: String,
    start: u64,
    /// The part that is being written, its number, the bytes of files in it, and their names.
    part: Vec<u8>,
    number: u32,
    in_part: u64,
    names: Vec<String>,
    /// The entries of `Files` and `TarFileSets`.
    files: Vec<String>,
    sets: Vec<String>,
    times: BTreeMap<String, i128>,
    /// The tablespaces: oid and directory.
    tablespaces: Vec<(String, String)>,
    uncompressed: u64,
    compressed: u64,
    catalog: u64,
}

impl<'a> Packed<'a> {
    /// Packs the files of a cluster on which `pg_backup_start` returned the LSN `start`: all of a full backup, or what changed since
    /// `parent`.
    pub(crate) fn pack(
        settings: &'a Settings,
        cluster: &'a Cluster,
        start: u64,
        parent: Option<&'a Backup>,
    ) -> io::Result<Self> {
        let number = start / cluster.segment;
        let in_log = (1 << 32) / cluster.segment;
        let mut name = format!("base_{:08X}{:08X}{:08X}", cluster.timeline, number / in_log, number % in_log);
        if let Some(parent) = parent {
            // Only the first segment of the parent's name.
            name += &format!("_D_{}", &parent.name[5..29]);
        }
        let mut packed = Self {
            settings,
            cluster,
            parent,
            name,
            start,
            part: Vec::new(),
            number: 0,
            in_part: 0,
            names: Vec::new(),
            files: Vec::new(),
            sets: Vec::new(),
            times: BTreeMap::new(),
            tablespaces: Vec::new(),
            uncompressed: 0,
            compressed: 0,
            catalog: 0,
        };
        fs::create_dir_all(packed.folder().join("tar_partitions"))?;
        packed.walk(&cluster.data, "/")?;
        packed.end_part()?;
        let control = fs::read(cluster.data.join("global/pg_control"))?;
        let mut tar = Vec::new();
        packed.member(&mut tar, "/global/pg_control", b'0', 0o600, &control);
        packed.store("pg_control.tar", tar)?;
        Ok(packed)
    }

    /// Writes the label that `pg_backup_stop` returned, and the texts that describe the backup; the sentinel last.
    pub(crate) fn finish(mut self, finish: u64, label: &str, tablespace_map: &str) -> io::Result<Backup> {
        let mut tar = Vec::new();
        self.member(&mut tar, "backup_label", b'0', 0o600, label.as_bytes());
        self.member(&mut tar, "tablespace_map", b'0', 0o600, tablespace_map.as_bytes());
        let name = self.store("backup_label.tar", tar)?;
        self.sets.push(format!("{}:[\"tablespace_map\",\"backup_label\"]", quoted(&name)));
        let list = format!(
            "{{\"Files\":{{{}}},\"TarFileSets\":{{{}}},\"DatabasesByNames\":{{}}}}",
            self.files.join(","),
            self.sets.join(",")
        );
        let (full, count) = match self.parent {
            None => (self.name.clone(), 0),
            Some(parent) => (parent.full.clone(), parent.count + 1),
        };
        let now = "2026-11-26T04:30:00.123456Z";
        let cluster = self.cluster;
        let metadata = format!(
            "{{\"start_time\":\"{now}\",\"finish_time\":\"{now}\",\"date_fmt\":\"%Y-%m-%dT%H:%M:%S.%fZ\",\"hostname\":\"test\",\
             \"data_dir\":{},\"pg_version\":{},\"start_lsn\":{},\"finish_lsn\":{finish},\"is_permanent\":false,\
             \"system_identifier\":{},\"uncompressed_size\":{},\"compressed_size\":{}}}",
            quoted(cluster.data.to_str().unwrap()),
            cluster.version,
            self.start,
            cluster.system_identifier,
            self.uncompressed,
            self.compressed
        );
        fs::write(self.folder().join("metadata.json"), metadata)?;
        fs::write(self.folder().join("files_metadata.json"), list)?;
        let sentinel = self.sentinel(finish, &full, count);
        fs::write(
            self.folder().with_file_name(format!("{}_backup_stop_sentinel.json", self.name)),
            sentinel,
        )?;
        Ok(Backup { name: self.name, start: self.start, full, count, times: self.times })
    }

    fn sentinel(&self, finish: u64, full: &str, count: u32) -> String {
        let cluster = self.cluster;
        let mut text = format!("{{\"LSN\":{},", self.start);
        if let Some(parent) = self.parent {
            let (start, name) = (parent.start, quoted(&parent.name));
            write!(
                text,
                "\"DeltaLSN\":{start},\"DeltaFrom\":{name},\"DeltaFullName\":{},\"DeltaCount\":{count},",
                quoted(full)
            )
            .unwrap();
        }
        write!(
            text,
            "\"PgVersion\":{},\"FinishLSN\":{finish},\"SystemIdentifier\":{},\"UncompressedSize\":{},\"CompressedSize\":{},\
             \"DataCatalogSize\":{},",
            cluster.version, cluster.system_identifier, self.uncompressed, self.compressed, self.catalog
        )
        .unwrap();
        if !self.tablespaces.is_empty() {
            let oids: Vec<_> = self.tablespaces.iter().map(|(oid, _)| quoted(oid)).collect();
            let base = quoted(cluster.data.to_str().unwrap());
            write!(text, "\"Spec\":{{\"base_prefix\":{base},\"tablespaces\":[{}]", oids.join(",")).unwrap();
            for (oid, place) in &self.tablespaces {
                write!(text, ",{}:{{\"loc\":{},\"link\":\"pg_tblspc/{oid}\"}}", quoted(oid), quoted(place))
                    .unwrap();
            }
            text.push_str("},");
        }
        text.push_str(
            "\"ChkpNum\":null,\"Version\":2,\"StartTime\":\"2026-11-26T04:30:00Z\",\"FinishTime\":\"2026-11-26T04:30:00Z\",\
             \"DateFmt\":\"\",\"Hostname\":\"test\",\"DataDir\":\"\",\"IsPermanent\":false}",
        );
        text
    }

    fn folder(&self) -> PathBuf {
        self.settings.storage.join("basebackups_005").join(&self.name)
    }

    /// Packs what is below `path`, which is called `name` in the archive (`HandleWalkedFSObject`).
    fn walk(&mut self, path: &Path, name: &str) -> io::Result<()> {
        let metadata = fs::symlink_metadata(path)?;
        let last = path.file_name().unwrap_or_default().to_str().unwrap().to_owned();
        self.catalog += metadata.len();
        let is_excluded = EXCLUDED.split_whitespace().any(|name| name == last);
        if metadata.is_dir() {
            self.directory(name, &metadata)?;
            if is_excluded {
                return Ok(());
            }
            let mut entries: Vec<_> =
                fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
            entries.sort();
            for entry in entries {
                let below = format!(
                    "{}/{}",
                    name.trim_end_matches('/'),
                    entry.file_name().unwrap().to_str().unwrap()
                );
                match self.walk(&entry, &below) {
                    // A server removes files at any time.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    walked => walked?,
                }
            }
        } else if metadata.is_symlink() && name.starts_with("/pg_tblspc/") {
            let place = fs::read_link(path)?;
            self.tablespaces.push((last, place.to_str().unwrap().to_owned()));
            let mut entries: Vec<_> =
                fs::read_dir(&place)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
            entries.sort();
            for entry in entries {
                self.walk(&entry, &format!("{name}/{}", entry.file_name().unwrap().to_str().unwrap()))?;
            }
        } else if metadata.is_file() && !is_excluded {
            self.file(path, name, &metadata)?;
        }
        Ok(())
    }

    fn directory(&mut self, name: &str, metadata: &fs::Metadata) -> io::Result<()> {
        self.describe(name, metadata, false, false);
        self.names.push(name.to_owned());
        let named = format!("{}/", name.trim_end_matches('/'));
        let mut part = std::mem::take(&mut self.part);
        self.member(&mut part, &named, b'5', 0o700, &[]);
        self.part = part;
        Ok(())
    }

    fn file(&mut self, path: &Path, name: &str, metadata: &fs::Metadata) -> io::Result<()> {
        let before = self.parent.and_then(|parent| parent.times.get(name)).copied();
        if before == Some(time_of(metadata)) {
            self.describe(name, metadata, false, true);
            return Ok(());
        }
        let bytes = fs::read(path)?;
        let increment = match self.parent {
            Some(parent) if before.is_some() && is_paged(name, bytes.len()) => {
                increment(&bytes, parent.start)
            }
            _ => None,
        };
        self.describe(name, metadata, increment.is_some(), false);
        let stored = increment.unwrap_or(bytes);
        self.names.push(name.to_owned());
        self.in_part += stored.len() as u64;
        self.uncompressed += stored.len() as u64;
        let mut part = std::mem::take(&mut self.part);
        self.member(&mut part, name, b'0', 0o600, &stored);
        self.part = part;
        if self.in_part > self.settings.part { self.end_part() } else { Ok(()) }
    }

    /// Adds an entry to the list of the files.
    fn describe(&mut self, name: &str, metadata: &fs::Metadata, is_incremented: bool, is_skipped: bool) {
        if metadata.is_file() {
            self.times.insert(name.to_owned(), time_of(metadata));
        }
        self.files.push(format!(
            "{}:{{\"IsIncremented\":{is_incremented},\"IsSkipped\":{is_skipped},\"MTime\":\"2026-11-26T04:30:00Z\",\"UpdatesCount\":0}}",
            quoted(name)
        ));
    }

    fn end_part(&mut self) -> io::Result<()> {
        if self.part.is_empty() {
            return Ok(());
        }
        self.number += 1;
        self.in_part = 0;
        let part = std::mem::take(&mut self.part);
        let name = self.store(&format!("part_{:03}.tar", self.number), part)?;
        let names: Vec<_> = std::mem::take(&mut self.names).iter().map(|name| quoted(name)).collect();
        self.sets.push(format!("{}:[{}]", quoted(&name), names.join(",")));
        Ok(())
    }

    /// Stores an archive, and returns its name.
    fn store(&mut self, name: &str, mut tar: Vec<u8>) -> io::Result<String> {
        tar.resize(tar.len() + 2 * BLOCK, 0);
        let plain = self.folder().join("plain");
        fs::write(&plain, tar)?;
        let (name, size) =
            self.settings.compression.store(&plain, &self.folder().join("tar_partitions").join(name))?;
        self.compressed += size;
        fs::remove_file(plain)?;
        Ok(name)
    }

    /// Appends a member to an archive, as Go's archive/tar writes it.
    fn member(&self, tar: &mut Vec<u8>, name: &str, kind: u8, mode: u32, contents: &[u8]) {
        let owner = self.settings.owner;
        if owner > 0o7_777_777 {
            let records = record("gid", &owner.to_string()) + &record("uid", &owner.to_string());
            tar.extend_from_slice(&header("PaxHeaders.0/member", b'x', 0, records.len(), 0));
            append(tar, records.as_bytes());
        }
        let in_header = if owner > 0o7_777_777 { 0 } else { owner };
        tar.extend_from_slice(&header(name, kind, mode, contents.len(), in_header));
        append(tar, contents);
    }
}

/// Archives a segment or a history file.
pub(crate) fn archive_wal(settings: &Settings, file: &Path) -> io::Result<()> {
    let folder = settings.storage.join("wal_005");
    fs::create_dir_all(&folder)?;
    settings.compression.store(file, &folder.join(file.file_name().unwrap())).map(drop)
}

/// Returns whether WAL-G stores only the changed pages of a file (`isPagedFile`).
fn is_paged(name: &str, size: usize) -> bool {
    let last = name.rsplit('/').next().unwrap_or_default();
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_segment = match last.split_once('.') {
        None => is_number(last),
        Some((number, segment)) => is_number(number) && is_number(segment),
    };
    is_segment
        && size > 0
        && size.is_multiple_of(PAGE)
        && (name.starts_with("/base/") || name.starts_with("/pg_tblspc/"))
}

/// Returns the increment of a file: its size, and the pages that are new or have an LSN from `since` on (`SelectNewValidPage`). `None` if
/// a page is not valid: the file is then stored as a whole.
fn increment(bytes: &[u8], since: u64) -> Option<Vec<u8>> {
    let mut changed = Vec::new();
    for (number, page) in bytes.chunks(PAGE).enumerate() {
        let short = |at: usize| u16::from_le_bytes([page[at], page[at + 1]]);
        let long = |at: usize| u32::from_le_bytes(page[at..at + 4].try_into().unwrap());
        let (flags, lower, upper, special) = (short(10), short(12), short(14), short(16));
        let (is_new, lsn) = (upper == 0, u64::from(long(0)) << 32 | u64::from(long(4)));
        let is_valid = lsn > 0
            && flags <= 7
            && lower >= 24
            && lower <= upper
            && upper <= special
            && usize::from(special) <= PAGE;
        if !is_new && !is_valid {
            return None;
        }
        if is_new || lsn >= since {
            changed.push((number as u32, page));
        }
    }
    let mut increment = b"wi1\x55".to_vec();
    increment.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    increment.extend_from_slice(&(changed.len() as u32).to_le_bytes());
    for (number, _) in &changed {
        increment.extend_from_slice(&number.to_le_bytes());
    }
    for (_, page) in &changed {
        increment.extend_from_slice(page);
    }
    Some(increment)
}

fn time_of(metadata: &fs::Metadata) -> i128 {
    i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec())
}

/// Makes the header of a member. A name of more than 100 bytes is split at a `/`.
fn header(name: &str, kind: u8, mode: u32, size: usize, owner: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let (prefix, last) = match name.len() {
        0..=100 => ("", name),
        _ => {
            let at = name[..name.len() - 1].rfind('/').unwrap();
            (&name[..at], &name[at + 1..])
        }
    };
    block[..last.len()].copy_from_slice(last.as_bytes());
    block[345..345 + prefix.len()].copy_from_slice(prefix.as_bytes());
    block[100..107].copy_from_slice(format!("{mode:07o}").as_bytes());
    block[108..115].copy_from_slice(format!("{owner:07o}").as_bytes());
    block[116..123].copy_from_slice(format!("{owner:07o}").as_bytes());
    block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    block[136..147].copy_from_slice(b"15107643210");
    block[148..156].copy_from_slice(b"        ");
    block[156] = kind;
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[265..273].copy_from_slice(b"postgres");
    block[297..305].copy_from_slice(b"postgres");
    block[329..336].copy_from_slice(b"0000000");
    block[337..344].copy_from_slice(b"0000000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// Appends contents and their padding.
fn append(tar: &mut Vec<u8>, contents: &[u8]) {
    tar.extend_from_slice(contents);
    tar.resize(tar.len().next_multiple_of(BLOCK), 0);
}

/// Makes a record of an extended header. Its length counts its own digits.
fn record(key: &str, value: &str) -> String {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len();
    while length != rest.len() + length.to_string().len() {
        length = rest.len() + length.to_string().len();
    }
    format!("{length}{rest}")
}

/// Quotes a text for JSON.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
