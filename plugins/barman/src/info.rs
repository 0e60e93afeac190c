//! Reads `backup.info`: lines of the form `key=value` (`FieldListFile` and `BackupInfo` in barman/infofile.py). The values of some keys are
//! Python literals; the others are plain texts. `None` means that a key has no value.

use std::collections::{BTreeMap, BTreeSet};

use postgres_formats::Lsn;
use postgres_formats::segment::{SegmentName, SegmentSize};
use understudy::Tablespace;

use crate::literal::{self, Literal};
use crate::names::is_backup_id;

/// The largest `backup.info` that is read, in bytes. Most of it are the statistics of the copy, some 100 bytes for each tablespace.
pub(crate) const LIMIT: u32 = 1 << 20;

/// The largest permitted number of tablespaces.
pub(crate) const MOST_TABLESPACES: usize = 1000;

/// How WAL is divided if `backup.info` does not say it (`DEFAULT_XLOG_SEG_SIZE` in barman/xlog.py).
const DEFAULT_SEGMENT: u64 = 16 << 20;

/// The keys whose values are literals.
const LITERALS: [&str; 5] = ["backup_label", "copy_stats", "included_files", "snapshots_info", "tablespaces"];

/// The other keys.
const TEXTS: [&str; 30] = [
    "backup_name",
    "begin_offset",
    "begin_time",
    "begin_wal",
    "begin_xlog",
    "children_backup_ids",
    "cluster_size",
    "compression",
    "config_file",
    "data_checksums",
    "deduplicated_size",
    "encryption",
    "end_offset",
    "end_time",
    "end_wal",
    "end_xlog",
    "error",
    "hba_file",
    "ident_file",
    "mode",
    "parent_backup_id",
    "pgdata",
    "server_name",
    "size",
    "status",
    "summarize_wal",
    "systemid",
    "timeline",
    "version",
    "xlog_segment_size",
];

/// How many bytes the annotations of a backup may have. Barman writes words such as `full` and `delete`.
const ANNOTATIONS: u64 = 1024;

/// Words in the names of keys that would say how the bytes of a backup are stored. A key that is not known is passed over: newer versions of
/// Barman add keys for their own reports, and a restore does not depend on the keys alone. The keys that it needs must be there; position,
/// label, names of WAL, names of files and control file must agree with them; and an incremental backup has a label of its own. But bytes
/// that are compressed, encrypted or stored elsewhere in a new way may show nowhere else, so a key with such a word must be known.
const STORED: [&str; 3] = ["compress", "encrypt", "snapshot"];

/// The longest permitted name of a key, in bytes.
const LONGEST_KEY: usize = 64;

/// How many of the keys that are not known are remembered for the log.
const MOST_REMEMBERED: usize = 10;

/// The status of a backup (`BackupInfo.STATUS_ALL`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Empty,
    Started,
    Failed,
    /// The files are complete, and WAL that makes the backup consistent is not archived yet.
    WaitingForWals,
    Done,
    Syncing,
}

impl Status {
    const ALL: [Self; 6] =
        [Self::Empty, Self::Started, Self::Failed, Self::WaitingForWals, Self::Done, Self::Syncing];

    /// Returns the status as Barman writes it.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Empty => "EMPTY",
            Self::Started => "STARTED",
            Self::Failed => "FAILED",
            Self::WaitingForWals => "WAITING_FOR_WALS",
            Self::Done => "DONE",
            Self::Syncing => "SYNCING",
        }
    }
}

/// A `backup.info` whose lines and literals are valid. Only the keys with values are kept.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    texts: BTreeMap<&'static str, String>,
    literals: BTreeMap<&'static str, Literal>,
    pub(crate) status: Status,
    /// The first of the keys that are not known.
    pub(crate) unknown: Vec<String>,
    /// The length of the `backup.info` in bytes.
    length: u64,
}

/// A backup whose files are complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Backup {
    pub(crate) id: String,
    /// The major version of the server.
    pub(crate) major: u32,
    pub(crate) system_identifier: Option<u64>,
    pub(crate) timeline: u32,
    /// Where replay begins.
    pub(crate) begin: Lsn,
    /// The first segment that the backup needs.
    pub(crate) begin_wal: SegmentName,
    /// Where the backup ended.
    pub(crate) end: Lsn,
    pub(crate) segment_size: SegmentSize,
    /// Every tablespace besides `pg_default` and `pg_global`.
    pub(crate) tablespaces: Vec<Tablespace>,
    /// The content of `backup_label`. An exclusive backup has none here.
    pub(crate) label: Option<String>,
    /// The compression of pg_basebackup's archives; `none` for plain archives, and `None` if the backup has no archives.
    pub(crate) compression: Option<String>,
    pub(crate) encryption: Option<String>,
    /// The backup on which an incremental backup of PostgreSQL 17 is based.
    pub(crate) parent: Option<String>,
    /// Whether the files are in snapshots of disks.
    pub(crate) is_snapshot: bool,
    /// The size of the cluster in bytes when the backup was taken.
    pub(crate) cluster_size: Option<u64>,
    /// How many bytes the files below the folder of the backup have at least.
    pub(crate) least_bytes: Option<u64>,
    /// Whether the pages of the cluster had checksums when the backup was taken; `None` if an older Barman did not record it.
    pub(crate) has_checksums: Option<bool>,
    /// Whether Barman copied the files by rsync, so that a manifest was added later (`barman generate-manifest`).
    pub(crate) is_by_rsync: bool,
    /// The configuration files outside the data directory that Barman surely copies as well.
    pub(crate) outside: Vec<String>,
}

impl Record {
    /// Parses a `backup.info`.
    ///
    /// # Errors
    /// The error names the line or the key, and follows the name of the file.
    pub(crate) fn parse(contents: &[u8]) -> Result<Self, String> {
        let text = std::str::from_utf8(contents).map_err(|_| "is not UTF-8".to_owned())?;
        let (mut texts, mut literals) = (BTreeMap::new(), BTreeMap::new());
        let (mut unknown, mut seen) = (Vec::new(), BTreeSet::new());
        for (index, line) in text.split('\n').enumerate() {
            let number = index + 1;
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let Some((key, value)) = line.split_once('=') else {
                return Err(format!("has a line {number} that is not of the form key=value"));
            };
            let (key, value) = (key.trim(), value.trim());
            if !is_key(key) {
                return Err(format!("has a line {number} whose key `{}` is not a name", shown(key)));
            }
            if !seen.insert(key) {
                return Err(format!("has the key `{key}` twice"));
            }
            if value == "None" {
                continue;
            }
            if let Some(known) = LITERALS.into_iter().find(|known| *known == key) {
                let value = literal::parse(value)
                    .map_err(|error| format!("has a key `{known}` whose value {error}"))?;
                literals.insert(known, value);
            } else if let Some(known) = TEXTS.into_iter().find(|known| *known == key) {
                texts.insert(known, value.to_owned());
            } else if STORED.iter().any(|word| key.contains(word)) {
                return Err(format!(
                    "has a key `{key}` that this version does not know, and that may say how the files are stored: it was \
                     written by a newer Barman, with which the backup can be restored, or is damaged"
                ));
            } else if unknown.len() < MOST_REMEMBERED {
                unknown.push(key.to_owned());
            }
        }
        let status = match texts.get("status") {
            None => return Err("has no `status`".to_owned()),
            Some(text) => Status::ALL
                .into_iter()
                .find(|status| status.text() == text)
                .ok_or_else(|| format!("has the status `{}`, which Barman does not write", shown(text)))?,
        };
        Ok(Self { texts, literals, status, unknown, length: contents.len() as u64 })
    }

    /// Returns the name that the operator gave the backup.
    pub(crate) fn name(&self) -> Option<&str> {
        self.texts.get("backup_name").map(String::as_str)
    }

    /// Describes the status for a message, with the error that Barman recorded.
    pub(crate) fn describe_status(&self) -> String {
        match self.texts.get("error") {
            Some(error) => format!("{} ({})", self.status.text(), shown(error)),
            None => self.status.text().to_owned(),
        }
    }

    /// Returns when the backup ended, as Barman wrote it.
    pub(crate) fn end_time(&self) -> Option<&str> {
        self.texts.get("end_time").map(String::as_str)
    }

    /// Returns the backup `id`, whose files are complete.
    ///
    /// # Errors
    /// The error names the key that is missing, invalid, or contradicts another one, and follows the name of the file.
    pub(crate) fn backup(&self, id: &str) -> Result<Backup, String> {
        let version: u32 = self.require("version")?;
        if version < 100_000 {
            return Err(format!("is of PostgreSQL version {version}, which is too old to be restored"));
        }
        let segment_size = self.get::<u64>("xlog_segment_size")?.unwrap_or(DEFAULT_SEGMENT);
        let segment_size = SegmentSize::new(segment_size).ok_or_else(|| {
            format!("has an `xlog_segment_size` of {segment_size} bytes, which no server has")
        })?;
        let timeline: u32 = self.require("timeline")?;
        let (begin, end): (Lsn, Lsn) = (self.require("begin_xlog")?, self.require("end_xlog")?);
        if end < begin {
            return Err(format!(
                "has a `begin_xlog` of {begin} and an `end_xlog` of {end}, which lies before"
            ));
        }
        let begin_wal = self.segment("begin_wal", timeline, &[begin], segment_size)?;
        // On the boundary of a segment PostgreSQL names the segment before or the one after it, depending on the version.
        self.segment("end_wal", timeline, &[end, Lsn(end.0.saturating_sub(1))], segment_size)?;
        if let Some(offset) = self.get::<u64>("begin_offset")?
            && offset != segment_size.offset(begin)
        {
            return Err(format!("has a `begin_offset` of {offset}, which is not that of {begin}"));
        }
        if let Some(offset) = self.get::<u64>("end_offset")?
            && ![segment_size.offset(end), segment_size.bytes()].contains(&offset)
        {
            return Err(format!("has an `end_offset` of {offset}, which is not that of {end}"));
        }
        let parent = self.texts.get("parent_backup_id").cloned();
        if let Some(parent) = parent.as_deref().filter(|parent| !is_backup_id(parent)) {
            return Err(format!("has a `parent_backup_id` of `{}`, which is not an ID", shown(parent)));
        }
        Ok(Backup {
            id: id.to_owned(),
            major: version / 10_000,
            system_identifier: self.get("systemid")?,
            timeline,
            begin,
            begin_wal,
            end,
            segment_size,
            tablespaces: self.tablespaces()?,
            label: self.label()?,
            compression: self.texts.get("compression").cloned(),
            encryption: self.texts.get("encryption").cloned(),
            parent,
            is_snapshot: self.literals.contains_key("snapshots_info")
                || self.texts.get("mode").is_some_and(|mode| mode.starts_with("snapshot")),
            cluster_size: self.get("cluster_size")?,
            least_bytes: self.least_bytes()?,
            has_checksums: match self.texts.get("data_checksums").map(String::as_str) {
                Some("on") => Some(true),
                Some("off") => Some(false),
                _ => None,
            },
            is_by_rsync: self.texts.get("mode").is_some_and(|mode| mode.contains("rsync")),
            outside: self.outside(),
        })
    }

    /// Returns how many bytes the files of the backup have at least. `size` is the sum of the sizes of all files below the folder of the
    /// backup, linked ones as well, when the copy had ended (`_set_backup_sizes` in barman/backup.py). The folder of an older Barman had
    /// `backup.info` and annotations, which a later Barman moves to `meta` (`LocalBackupInfo.save` in barman/infofile.py, and
    /// barman/annotations.py).
    fn least_bytes(&self) -> Result<Option<u64>, String> {
        let moved = self.length.saturating_add(ANNOTATIONS);
        Ok(self.get::<u64>("size")?.map(|size| size.saturating_sub(moved)))
    }

    /// Returns the configuration files outside the data directory (`get_external_config_files` in barman/infofile.py), without `ident_file`,
    /// which is copied only if it exists.
    fn outside(&self) -> Vec<String> {
        let Some(data) = self.texts.get("pgdata") else { return Vec::new() };
        let files = ["config_file", "hba_file"].into_iter().filter_map(|key| self.texts.get(key));
        files.filter(|file| !file.starts_with(data.as_str())).cloned().collect()
    }

    fn get<T: std::str::FromStr>(&self, key: &'static str) -> Result<Option<T>, String> {
        let Some(text) = self.texts.get(key) else { return Ok(None) };
        match text.parse() {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(format!("has a key `{key}` whose value `{}` cannot be read", shown(text))),
        }
    }

    fn require<T: std::str::FromStr>(&self, key: &'static str) -> Result<T, String> {
        self.get(key)?.ok_or_else(|| format!("has no `{key}`"))
    }

    /// Reads the name of a segment of `timeline` that contains one of the positions `at`.
    fn segment(
        &self,
        key: &'static str,
        timeline: u32,
        at: &[Lsn],
        size: SegmentSize,
    ) -> Result<SegmentName, String> {
        let text: String = self.require(key)?;
        let name = SegmentName::parse(text.as_bytes());
        let expected = at.iter().any(|at| size.name(timeline, *at) == text);
        name.filter(|_| expected).ok_or_else(|| {
            format!(
                "has a key `{key}` whose value `{}` is not the segment of {} on timeline {timeline}",
                shown(&text),
                at.first().map_or_else(String::new, ToString::to_string)
            )
        })
    }

    /// Reads the tablespaces: a list of tuples of name, OID and location (`output_tablespace_list`).
    fn tablespaces(&self) -> Result<Vec<Tablespace>, String> {
        let wrong = |what: &str| Err(format!("has a key `tablespaces` {what}"));
        let items = match self.literals.get("tablespaces") {
            None => return Ok(Vec::new()),
            Some(Literal::List(items)) => items,
            Some(_) => return wrong("whose value is not a list"),
        };
        if items.len() > MOST_TABLESPACES {
            return wrong(&format!("with more than {MOST_TABLESPACES} tablespaces"));
        }
        let mut tablespaces: Vec<Tablespace> = Vec::with_capacity(items.len());
        for item in items {
            let Literal::Tuple(fields) = item else { return wrong("with an item that is not a tuple") };
            let [Literal::Text(name), Literal::Integer(oid), Literal::Text(location)] = fields.as_slice()
            else {
                return wrong("with a tuple that is not of a name, an OID and a location");
            };
            let Some(oid) = u32::try_from(*oid).ok().filter(|oid| *oid > 0) else {
                return wrong(&format!("with the OID {oid}, which no tablespace has"));
            };
            if !location.starts_with('/') || location.contains('\0') {
                let location = shown(location);
                return wrong(&format!("with the location `{location}`, which is not an absolute path"));
            }
            if tablespaces.iter().any(|known| known.oid == oid) {
                return wrong(&format!("with the OID {oid} twice"));
            }
            let name = Some(name.clone()).filter(|name| !name.is_empty());
            tablespaces.push(Tablespace { oid, name, location: location.clone() });
        }
        Ok(tablespaces)
    }

    fn label(&self) -> Result<Option<String>, String> {
        match self.literals.get("backup_label") {
            None => Ok(None),
            Some(Literal::Text(text)) => Ok(Some(text.clone())),
            Some(_) => Err("has a key `backup_label` whose value is not a text".to_owned()),
        }
    }
}

/// Returns whether `text` can be the name of a key: Barman's are names of attributes in lower case.
fn is_key(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    text.len() <= LONGEST_KEY
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.bytes().all(is_part)
}

/// Returns the beginning of a text for a message.
fn shown(text: &str) -> String {
    text.chars().take(200).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests;
