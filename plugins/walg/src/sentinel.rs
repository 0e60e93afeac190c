//! The sentinel of a backup: `<name>_backup_stop_sentinel.json`, which WAL-G writes last (`BackupSentinelDto` in
//! internal/databases/postgres/backup_sentinel_dto.go). A backup without a sentinel is not finished. The sentinel is neither compressed nor
//! encrypted (`UploadDto` in internal/backup.go).

use std::io::Read;

use postgres_formats::Lsn;
use understudy::{Error, Failure, Tablespace};

use crate::document::{self, Contents, Fields};
use crate::name::BackupName;
use crate::place::Place;

/// The end of the name of a sentinel.
pub(crate) const SUFFIX: &str = "_backup_stop_sentinel.json";

/// The newest version of the sentinel that is read. WAL-G's `BackupSentinelDtoV2` has version 2, and older ones have none.
const NEWEST_VERSION: u64 = 2;

/// A backup and its sentinel.
#[derive(Clone, Debug)]
pub(crate) struct Backup {
    pub(crate) name: BackupName,
    pub(crate) sentinel: Sentinel,
    /// The sentinel's name in messages.
    pub(crate) shown: String,
}

/// What is read from a sentinel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sentinel {
    /// 1 if the sentinel has no version.
    pub(crate) version: u64,
    /// The LSN at which the backup began.
    pub(crate) start: Lsn,
    /// The LSN at which the backup ended.
    pub(crate) finish: Lsn,
    /// The backup from which a delta backup was made; `None` for a full backup.
    pub(crate) parent: Option<Parent>,
    /// The major version of the server.
    pub(crate) major: u32,
    pub(crate) system_identifier: Option<u64>,
    /// The size of the files in the archives, in bytes.
    pub(crate) uncompressed: Option<u64>,
    /// The size of the archives, in bytes.
    pub(crate) compressed: Option<u64>,
    /// The size of the data directory without WAL, in bytes.
    pub(crate) catalog: Option<u64>,
    pub(crate) tablespaces: Vec<Tablespace>,
    /// Whether WAL-G was told to write no list of the files.
    pub(crate) is_without_files: bool,
    /// Whether the sentinel itself has the list of the files, and the list is not empty.
    pub(crate) has_files: bool,
}

/// The backup from which a delta backup was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parent {
    pub(crate) name: BackupName,
    /// The LSN at which it began.
    pub(crate) start: Lsn,
    /// The full backup at the end of the chain.
    pub(crate) full: BackupName,
    /// How many backups precede the delta backup in the chain, or more (`WALG_DELTA_ORIGIN=LATEST_FULL`).
    pub(crate) count: u64,
}

impl Backup {
    /// Reads the sentinel of the backup `name`, and passes the list of the files to `contents`, if the sentinel has it; `None` if there is
    /// no sentinel.
    ///
    /// # Errors
    /// Fails if the sentinel cannot be read, is damaged, or describes a backup that cannot be restored.
    pub(crate) fn load(
        place: &Place,
        name: &BackupName,
        contents: &mut dyn Contents,
    ) -> Result<Option<Self>, Failure> {
        let key = place.backups(&format!("{name}{SUFFIX}"));
        let stream = match place.at.bucket.read(&key, None, None) {
            Err(Error::NotFound(_)) => return Ok(None),
            stream => stream?,
        };
        let shown = place.shown(&key);
        let sentinel = Sentinel::read(&shown, name, stream, contents)?;
        Ok(Some(Self { name: name.clone(), sentinel, shown }))
    }

    /// Returns a failure that names the sentinel.
    pub(crate) fn failed(&self, what: impl std::fmt::Display) -> Failure {
        Failure::failed(format!("{} {what}", self.shown))
    }
}

impl Sentinel {
    /// Reads the sentinel of the backup `name`. `shown` is its name in messages.
    ///
    /// # Errors
    /// Fails if the sentinel is damaged, or describes a backup that cannot be restored.
    pub(crate) fn read(
        shown: &str,
        name: &BackupName,
        from: impl Read,
        contents: &mut dyn Contents,
    ) -> Result<Self, Failure> {
        let fields = document::read(shown, from, contents)?;
        Self::of(name, fields).map_err(|what| Failure::failed(format!("{shown} {what}")))
    }

    fn of(name: &BackupName, fields: Fields) -> Result<Self, String> {
        let version = fields.version.unwrap_or(1);
        if !(1..=NEWEST_VERSION).contains(&version) {
            return Err(format!(
                "has version {version}, and versions up to {NEWEST_VERSION} are read: restore with WAL-G"
            ));
        }
        let lsn = |lsn: Option<u64>, what: &str| {
            let none = || {
                format!(
                    "has no {what}: the backup is from WAL-E or an old release of WAL-G, restore with WAL-G"
                )
            };
            lsn.filter(|lsn| *lsn > 0).map(Lsn).ok_or_else(none)
        };
        let (start, finish) = (lsn(fields.start, "LSN")?, lsn(fields.finish, "FinishLSN")?);
        if finish < start {
            return Err(format!("says that the backup began at {start} and ended at {finish}"));
        }
        let number = fields.pg_version.ok_or("has no PgVersion")?;
        if number < 100_000 {
            return Err(format!("is of PostgreSQL {number}, which is too old to be restored"));
        }
        // OrioleDB's increments have another layout (internal/databases/postgres/orioledb/incremental_page_reader.go).
        if fields.parent_checkpoint.is_some() {
            return Err("is of a delta backup with OrioleDB, which is not restored: restore with WAL-G, or take a full backup"
                .to_owned());
        }
        let bytes =
            |size: Option<i64>| size.and_then(|size| u64::try_from(size).ok()).filter(|size| *size > 0);
        let (uncompressed, compressed) = (bytes(fields.uncompressed), bytes(fields.compressed));
        let catalog = bytes(fields.catalog);
        let is_without_files = fields.is_without_files.unwrap_or(false);
        let (has_files, system_identifier) = (fields.has_files, fields.system_identifier);
        let (parent, spec) = parent_and_spec(name, fields)?;
        if parent.as_ref().is_some_and(|parent| parent.start >= start) {
            return Err(format!(
                "says that the backup began at {start}, not after the backup from which it was made"
            ));
        }
        Ok(Self {
            version,
            start,
            finish,
            parent,
            major: number / 10_000,
            system_identifier,
            uncompressed,
            compressed,
            catalog,
            tablespaces: spec,
            is_without_files,
            has_files,
        })
    }
}

/// Returns the parent and the tablespaces. A delta backup has all of the fields of a parent (`IsIncremental`).
fn parent_and_spec(name: &BackupName, fields: Fields) -> Result<(Option<Parent>, Vec<Tablespace>), String> {
    let start = fields.old_parent_start.or(fields.parent_start);
    let parent = match (fields.parent, start, fields.full, fields.count) {
        // Before `DeltaFrom`, WAL-G writes the start of an older backup without making a delta backup from it.
        (None, _, None, _) => None,
        (Some(parent), Some(start), Some(full), Some(count)) => {
            let parse = |text: &str| {
                let none = || {
                    let text: String = text.escape_debug().take(100).collect();
                    format!("names the backup `{text}`, which is not a name that WAL-G gives")
                };
                BackupName::parse(text).ok_or_else(none)
            };
            if count == 0 {
                return Err("is of a delta backup with DeltaCount 0".to_owned());
            }
            Some(Parent { name: parse(&parent)?, start: Lsn(start), full: parse(&full)?, count })
        }
        _ => {
            return Err("has only some of DeltaFrom, DeltaLSN, DeltaFullName and DeltaCount".to_owned());
        }
    };
    match (&parent, name.parent()) {
        (None, None) => {}
        (Some(parent), Some(segment)) if parent.name.segment() == segment => {}
        (None, Some(_)) => {
            return Err("has no DeltaFrom, but the backup has the name of a delta backup".to_owned());
        }
        (Some(parent), _) => {
            return Err(format!("says that the backup was made from {}, and its name does not", parent.name));
        }
    }
    let spec = fields.spec.or(fields.old_spec).unwrap_or_default().tablespaces()?;
    Ok((parent, spec))
}
