//! `global/pg_control`: `ControlFileData` in `src/include/catalog/pg_control.h`; the checksum as in
//! `src/common/controldata_utils.c`. The numbers are in the byte order of the machine that wrote the file, which must be the byte order of
//! this machine (for a component, that of WebAssembly: little-endian).

use crate::Lsn;
use crate::segment::SegmentSize;

/// The length of the file in bytes (`PG_CONTROL_FILE_SIZE`, since PostgreSQL 10). All bytes after the checksum are zero.
pub const SIZE: u64 = 8192;

/// How many bytes of the file [`Beginning::parse`] needs.
pub const NEEDED: usize = 52;

/// The offset of the checksum, by `pg_control_version`. Every other field that this module reads has the same offset in all these versions.
/// PostgreSQL 13 to 16 write 1300 (14 and 15 only renamed fields), 17 writes 1700 (`wal_level` in the checkpoint's padding),
/// 18 writes 1800 (`default_char_signedness` before the nonce).
const CRC_AT: [(u32, usize); 3] = [(1300, 288), (1700, 288), (1800, 292)];

const SYSTEM_IDENTIFIER: usize = 0;
const CONTROL_VERSION: usize = 8;
const CATALOG_VERSION: usize = 12;
const STATE: usize = 16;
const CHECKPOINT: usize = 32;
const CHECKPOINT_REDO: usize = 40;
const CHECKPOINT_TIMELINE: usize = 48;
const CHECKPOINT_TIME: usize = 104;
const MINIMUM_RECOVERY: usize = 136;
const MINIMUM_RECOVERY_TIMELINE: usize = 144;
const WAL_LEVEL: usize = 172;
const MAX_CONNECTIONS: usize = 180;
const MAX_WORKER_PROCESSES: usize = 184;
const MAX_WAL_SENDERS: usize = 188;
const MAX_PREPARED_TRANSACTIONS: usize = 192;
const MAX_LOCKS_PER_TRANSACTION: usize = 196;
const PAGE_SIZE: usize = 216;
const SEGMENT_PAGES: usize = 220;
const WAL_SEGMENT_SIZE: usize = 228;
const DATA_CHECKSUM_VERSION: usize = 252;

/// The released major versions. Both numbers of a version are fixed when it is released.
const RELEASES: [Release; 6] = [
    Release { major: 13, control: 1300, catalog: 202_007_201 },
    Release { major: 14, control: 1300, catalog: 202_107_181 },
    Release { major: 15, control: 1300, catalog: 202_209_061 },
    Release { major: 16, control: 1300, catalog: 202_307_071 },
    Release { major: 17, control: 1700, catalog: 202_406_281 },
    Release { major: 18, control: 1800, catalog: 202_506_291 },
];

/// A released major version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Release {
    /// The major version, such as 15.
    pub major: u32,
    /// The version of the release's control file (`PG_CONTROL_VERSION` in `src/include/catalog/pg_control.h`).
    pub control: u32,
    /// The version of the release's catalogs (`CATALOG_VERSION_NO` in `src/include/catalog/catversion.h`).
    pub catalog: u32,
}

impl Release {
    /// Finds the release of this major version; `None` if this program does not know its files.
    pub fn of_major(major: u32) -> Option<Self> {
        RELEASES.into_iter().find(|release| release.major == major)
    }

    /// Finds the release whose catalogs have this version; `None` if this program does not know it.
    pub fn of_catalog(catalog: u32) -> Option<Self> {
        RELEASES.into_iter().find(|release| release.catalog == catalog)
    }
}

/// A position at which no checkpoint can be, although PostgreSQL accepts it as the position of a record (`XRecOffIsValid`) and
/// tries to read it. pgBackRest writes the same (`PG_CONTROL_CHECKPOINT_INVALID` in its `src/postgres/interface.h`). With it
/// PostgreSQL starts only from a backup_label, which says where the checkpoint is.
pub const NO_CHECKPOINT: Lsn = Lsn(0xDEAD);

/// The state of the server that wrote the file last (`DBState`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterState {
    /// The server was starting.
    StartingUp,
    /// The server was shut down.
    ShutDown,
    /// The server was shut down while it was a standby.
    ShutDownInRecovery,
    /// The server was shutting down.
    ShuttingDown,
    /// The server was recovering from a crash.
    InCrashRecovery,
    /// The server was a standby, or was restoring from an archive.
    InArchiveRecovery,
    /// The server was running as a primary.
    InProduction,
}

impl ClusterState {
    fn from_number(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::StartingUp,
            1 => Self::ShutDown,
            2 => Self::ShutDownInRecovery,
            3 => Self::ShuttingDown,
            4 => Self::InCrashRecovery,
            5 => Self::InArchiveRecovery,
            6 => Self::InProduction,
            _ => return None,
        })
    }

    /// Returns the state in the words of `pg_controldata` (`dbState` in `src/bin/pg_controldata/pg_controldata.c`).
    pub fn describe(self) -> &'static str {
        match self {
            Self::StartingUp => "starting up",
            Self::ShutDown => "shut down",
            Self::ShutDownInRecovery => "shut down in recovery",
            Self::ShuttingDown => "shutting down",
            Self::InCrashRecovery => "in crash recovery",
            Self::InArchiveRecovery => "in archive recovery",
            Self::InProduction => "in production",
        }
    }

    /// Returns whether the server had been shut down, so that the files are consistent without a backup_label.
    pub fn is_shut_down(self) -> bool {
        matches!(self, Self::ShutDown | Self::ShutDownInRecovery)
    }
}

/// The settings of the primary, which are the minimum for a hot standby (`CheckRequiredParameterValues` in
/// `src/backend/access/transam/xlogrecovery.c`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequiredSettings {
    /// `max_connections`.
    pub max_connections: u32,
    /// `max_worker_processes`.
    pub max_worker_processes: u32,
    /// `max_wal_senders`.
    pub max_wal_senders: u32,
    /// `max_prepared_transactions`.
    pub max_prepared_transactions: u32,
    /// `max_locks_per_transaction`.
    pub max_locks_per_transaction: u32,
}

/// The level of detail in the write-ahead log (`WalLevel` in `src/include/access/xlog.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalLevel {
    /// `minimal`: no standby can follow.
    Minimal,
    /// `replica`.
    Replica,
    /// `logical`.
    Logical,
}

/// A control file that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlFileError {
    /// The file does not have the length of a control file.
    #[error("has {0} bytes instead of {SIZE}")]
    Length(usize),
    /// The file is too short for the fields that are read.
    #[error("has only {0} bytes, too few for a control file")]
    Short(usize),
    /// The file was written by a machine with the other byte order.
    #[error("was written by a machine with the other byte order")]
    ByteOrder,
    /// The layout of the file is unknown.
    #[error(
        "has the control file version {0}; this program knows 1300, 1700 and 1800 (PostgreSQL 13 to 18), a newer Understudy \
         may know more"
    )]
    Version(u32),
    /// The layout of the beginning of the file is unknown.
    #[error("has the control file version {0}; versions 1100 to 1899 (PostgreSQL 11 to 18) are read")]
    BeginningVersion(u32),
    /// The checksum does not match.
    #[error("has a checksum that does not match its contents: it is damaged or was written only in part")]
    Crc,
    /// A field has a value that PostgreSQL never writes.
    #[error("has the value {value} in the field {field}, which PostgreSQL never writes")]
    Value {
        /// The field, by its name in `ControlFileData`.
        field: &'static str,
        /// The value.
        value: u64,
    },
    /// The files of relations are not divided as PostgreSQL does by default.
    #[error(
        "is of a cluster with pages of {page_size} bytes and {segment_pages} pages in a segment; incremental backups are combined \
         only with pages of 8192 bytes and 131072 pages in a segment"
    )]
    RelationFiles {
        /// The size of a page in bytes.
        page_size: u32,
        /// How many pages a file of a relation has at most.
        segment_pages: u32,
    },
}

/// The beginning of a control file, which has the same layout from PostgreSQL 11 to 18 and suffices for a plan. The host compares
/// the checksum when it seals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// The identifier of the cluster.
    pub system_identifier: u64,
    /// The state of the server when it wrote the file.
    pub state: ClusterState,
    /// Where replay from the latest checkpoint begins.
    pub redo: Lsn,
    /// The timeline of the latest checkpoint.
    pub timeline: u32,
}

impl Beginning {
    /// Reads the first [`NEEDED`] bytes of a control file, and ignores the rest.
    ///
    /// # Errors
    /// [`ControlFileError::Short`], [`ControlFileError::ByteOrder`], [`ControlFileError::BeginningVersion`], and
    /// [`ControlFileError::Value`] for a state that does not exist.
    pub fn parse(bytes: &[u8]) -> Result<Self, ControlFileError> {
        let bytes = Fields(bytes);
        let system_identifier = bytes.u64(SYSTEM_IDENTIFIER)?;
        let version = bytes.version()?;
        if !(1100..1900).contains(&version) {
            return Err(ControlFileError::BeginningVersion(version));
        }
        Ok(Self {
            system_identifier,
            state: bytes.value("state", STATE, ClusterState::from_number)?,
            redo: Lsn(bytes.u64(CHECKPOINT_REDO)?),
            timeline: bytes.u32(CHECKPOINT_TIMELINE)?,
        })
    }
}

/// Reads the size of a WAL segment from a control file of version 1300, 1700 or 1800 (PostgreSQL 13 to 18). Does not compare the
/// checksum.
///
/// # Errors
/// [`ControlFileError::Short`], [`ControlFileError::ByteOrder`], [`ControlFileError::Version`], and [`ControlFileError::Value`] for
/// a size that no server has.
pub fn wal_segment_size(bytes: &[u8]) -> Result<SegmentSize, ControlFileError> {
    let bytes = Fields(bytes);
    bytes.crc_at()?;
    bytes.value("xlog_seg_size", WAL_SEGMENT_SIZE, |size| SegmentSize::new(size.into()))
}

/// How the files of relations are divided. Both numbers are chosen when PostgreSQL is built (`--with-blocksize` and `--with-segsize`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelationFiles {
    /// The size of a page in bytes (`blcksz`).
    pub page_size: u32,
    /// How many pages a file of a relation has at most (`relseg_size`).
    pub segment_pages: u32,
}

impl RelationFiles {
    /// What PostgreSQL is built with by default: pages of 8 KiB and segments of 1 GiB.
    pub const DEFAULT: Self = Self { page_size: 8192, segment_pages: 131_072 };

    /// Reads both numbers from a control file of version 1300, 1700 or 1800 (PostgreSQL 13 to 18). Does not compare the checksum.
    ///
    /// # Errors
    /// [`ControlFileError::Short`], [`ControlFileError::ByteOrder`] and [`ControlFileError::Version`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ControlFileError> {
        let bytes = Fields(bytes);
        bytes.crc_at()?;
        Ok(Self { page_size: bytes.u32(PAGE_SIZE)?, segment_pages: bytes.u32(SEGMENT_PAGES)? })
    }

    /// Reads both numbers if the pages of the cluster have checksums (`data_checksums`); `None` if they do not.
    ///
    /// # Errors
    /// The errors of [`RelationFiles::parse`], and [`ControlFileError::Value`] for a kind of checksums that PostgreSQL 13 to 18 do not have.
    pub fn with_checksums(bytes: &[u8]) -> Result<Option<Self>, ControlFileError> {
        let files = Self::parse(bytes)?;
        let has_checksums =
            Fields(bytes).value("data_checksum_version", DATA_CHECKSUM_VERSION, has_checksums)?;
        Ok(has_checksums.then_some(files))
    }

    /// Checks that a control file of version 1300, 1700 or 1800 has [`RelationFiles::DEFAULT`].
    ///
    /// # Errors
    /// The errors of [`RelationFiles::parse`], and [`ControlFileError::RelationFiles`].
    pub fn check_default(bytes: &[u8]) -> Result<(), ControlFileError> {
        match Self::parse(bytes)? {
            Self::DEFAULT => Ok(()),
            Self { page_size, segment_pages } => {
                Err(ControlFileError::RelationFiles { page_size, segment_pages })
            }
        }
    }
}

/// The contents of a control file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlFile {
    /// The identifier of the cluster.
    pub system_identifier: u64,
    /// The version of the file (`pg_control_version`).
    pub control_version: u32,
    /// The version of the catalogs (`catalog_version_no`).
    pub catalog_version: u32,
    /// The state of the server when it wrote the file.
    pub state: ClusterState,
    /// The position of the latest checkpoint's record.
    pub checkpoint: Lsn,
    /// Where replay from the latest checkpoint begins.
    pub checkpoint_redo: Lsn,
    /// The timeline of the latest checkpoint.
    pub checkpoint_timeline: u32,
    /// When the latest checkpoint was taken, in seconds since 1970 (`CheckPoint.time`).
    pub checkpoint_time: i64,
    /// The position and timeline that replay must reach before the files are consistent; zero on a primary.
    pub minimum_recovery: (Lsn, u32),
    /// The level of detail in the write-ahead log.
    pub wal_level: WalLevel,
    /// The settings of the primary.
    pub required: RequiredSettings,
    /// The size of a segment of the write-ahead log.
    pub wal_segment_size: SegmentSize,
    /// Whether pages carry checksums (`data_checksum_version`).
    pub data_checksums: bool,
}

impl ControlFile {
    /// Reads all of a control file of PostgreSQL 13 to 18 and compares its checksum.
    ///
    /// # Errors
    /// Every [`ControlFileError`] except [`ControlFileError::BeginningVersion`] and [`ControlFileError::RelationFiles`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ControlFileError> {
        checked_crc_at(bytes)?;
        let Beginning { system_identifier, state, redo, timeline } = Beginning::parse(bytes)?;
        let wal_segment_size = wal_segment_size(bytes)?;
        let bytes = Fields(bytes);
        let wal_level = |level| {
            Some(match level {
                0 => WalLevel::Minimal,
                1 => WalLevel::Replica,
                2 => WalLevel::Logical,
                _ => return None,
            })
        };
        Ok(Self {
            system_identifier,
            control_version: bytes.u32(CONTROL_VERSION)?,
            catalog_version: bytes.u32(CATALOG_VERSION)?,
            state,
            checkpoint: Lsn(bytes.u64(CHECKPOINT)?),
            checkpoint_redo: redo,
            checkpoint_timeline: timeline,
            checkpoint_time: bytes.i64(CHECKPOINT_TIME)?,
            minimum_recovery: (Lsn(bytes.u64(MINIMUM_RECOVERY)?), bytes.u32(MINIMUM_RECOVERY_TIMELINE)?),
            wal_level: bytes.value("wal_level", WAL_LEVEL, wal_level)?,
            required: RequiredSettings {
                max_connections: bytes.u32(MAX_CONNECTIONS)?,
                max_worker_processes: bytes.u32(MAX_WORKER_PROCESSES)?,
                max_wal_senders: bytes.u32(MAX_WAL_SENDERS)?,
                max_prepared_transactions: bytes.u32(MAX_PREPARED_TRANSACTIONS)?,
                max_locks_per_transaction: bytes.u32(MAX_LOCKS_PER_TRANSACTION)?,
            },
            wal_segment_size,
            data_checksums: bytes.u32(DATA_CHECKSUM_VERSION)? != 0,
        })
    }
}

/// Returns whether pages have checksums of this version (`PG_DATA_CHECKSUM_VERSION` in `src/include/storage/bufpage.h`); `None` if no server
/// writes it.
fn has_checksums(version: u32) -> Option<bool> {
    match version {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

/// Returns the same file with its latest checkpoint at `checkpoint` and a checksum that fits; all other bytes are unchanged.
///
/// # Errors
/// [`ControlFileError::Length`], [`ControlFileError::ByteOrder`], [`ControlFileError::Version`] and [`ControlFileError::Crc`].
pub fn with_checkpoint(bytes: &[u8], checkpoint: Lsn) -> Result<Vec<u8>, ControlFileError> {
    checked_crc_at(bytes)?;
    let mut changed = bytes.to_vec();
    changed[CHECKPOINT..CHECKPOINT + 8].copy_from_slice(&checkpoint.0.to_ne_bytes());
    with_crc(changed)
}

/// Returns the same file with a checksum that fits its contents.
///
/// # Errors
/// [`ControlFileError::Length`], [`ControlFileError::ByteOrder`] and [`ControlFileError::Version`].
pub fn with_crc(mut bytes: Vec<u8>) -> Result<Vec<u8>, ControlFileError> {
    let at = whole_crc_at(&bytes)?;
    let crc = crc32c::crc32c(&bytes[..at]);
    bytes[at..at + 4].copy_from_slice(&crc.to_ne_bytes());
    Ok(bytes)
}

/// Checks the length and returns the offset of the checksum.
fn whole_crc_at(bytes: &[u8]) -> Result<usize, ControlFileError> {
    if bytes.len() as u64 != SIZE {
        return Err(ControlFileError::Length(bytes.len()));
    }
    Fields(bytes).crc_at()
}

/// Compares the checksum and returns its offset.
fn checked_crc_at(bytes: &[u8]) -> Result<usize, ControlFileError> {
    let at = whole_crc_at(bytes)?;
    if crc32c::crc32c(&bytes[..at]) != Fields(bytes).u32(at)? {
        return Err(ControlFileError::Crc);
    }
    Ok(at)
}

/// The bytes of a control file, perhaps not all of them.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn bytes<const N: usize>(&self, at: usize) -> Result<[u8; N], ControlFileError> {
        let bytes = self.0.get(at..at + N).and_then(|bytes| bytes.try_into().ok());
        bytes.ok_or(ControlFileError::Short(self.0.len()))
    }

    fn u32(&self, at: usize) -> Result<u32, ControlFileError> {
        self.bytes(at).map(u32::from_ne_bytes)
    }

    fn u64(&self, at: usize) -> Result<u64, ControlFileError> {
        self.bytes(at).map(u64::from_ne_bytes)
    }

    fn i64(&self, at: usize) -> Result<i64, ControlFileError> {
        self.bytes(at).map(i64::from_ne_bytes)
    }

    /// Returns `pg_control_version`. Every version is below 65536, so a multiple of 65536 is a version with swapped bytes (`pg_controldata`
    /// checks the same).
    fn version(&self) -> Result<u32, ControlFileError> {
        let version = self.u32(CONTROL_VERSION)?;
        if version.is_multiple_of(65_536) && version != 0 {
            return Err(ControlFileError::ByteOrder);
        }
        Ok(version)
    }

    /// Returns the offset of the checksum.
    fn crc_at(&self) -> Result<usize, ControlFileError> {
        let version = self.version()?;
        let at = CRC_AT.into_iter().find(|(known, _)| *known == version).map(|(_, at)| at);
        at.ok_or(ControlFileError::Version(version))
    }

    /// Reads the field at `at`. `read` returns `None` for a value that the field cannot have.
    fn value<T>(
        &self,
        field: &'static str,
        at: usize,
        read: impl FnOnce(u32) -> Option<T>,
    ) -> Result<T, ControlFileError> {
        let value = self.u32(at)?;
        read(value).ok_or(ControlFileError::Value { field, value: value.into() })
    }
}

#[cfg(test)]
mod tests;
