//! The reader of `global/pg_control`. Layout: PostgreSQL's `src/include/catalog/pg_control.h`, `ControlFileData`; the CRC as
//! in `src/common/controldata_utils.c`. The numbers are in the byte order of the machine that wrote them, which must be this one's.

use crate::Lsn;

/// The length of the file in bytes (`PG_CONTROL_FILE_SIZE`); what follows the CRC is zero.
pub(super) const LENGTH: u64 = 8192;

/// Where the CRC is, by `pg_control_version`. Every other field that is read here is at the same place in all of them.
/// PostgreSQL 13 to 16 write 1300 (14 and 15 only renamed fields), 17 writes 1700 (`wal_level` in the checkpoint's padding),
/// 18 writes 1800 (`default_char_signedness` before the nonce).
const CRC_AT: [(u32, usize); 3] = [(1300, 288), (1700, 288), (1800, 292)];

/// What is known of each released major version: the version of its pg_control and of its catalogs. Both are fixed once it is released.
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
pub(super) struct Release {
    pub(super) major: u32,
    pub(super) control: u32,
    pub(super) catalog: u32,
}

impl Release {
    /// The release of this major version.
    pub(super) fn of_major(major: u32) -> Option<Self> {
        RELEASES.into_iter().find(|release| release.major == major)
    }

    /// The release whose catalogs have this version.
    pub(super) fn of_catalog(catalog: u32) -> Option<Self> {
        RELEASES.into_iter().find(|release| release.catalog == catalog)
    }
}

/// Where the latest checkpoint is said to be (`checkPoint`), and where that stands in the file in every format.
const CHECKPOINT_AT: usize = 32;

/// A place in the write-ahead log where no checkpoint can be, and that PostgreSQL takes for one of a record all the same
/// (`XRecOffIsValid`), so that it goes on to look for it; pgBackRest writes the same (`PG_CONTROL_CHECKPOINT_INVALID`).
pub(super) const NO_CHECKPOINT: Lsn = Lsn(0xDEAD);

/// The same file with a latest checkpoint that is nowhere. PostgreSQL starts from it with a backup_label, which says where the
/// checkpoint is, and never without one.
pub(super) fn without_checkpoint(bytes: &[u8]) -> Result<Vec<u8>, Unusable> {
    let crc_at = crc_at(bytes)?;
    let mut changed = bytes.to_vec();
    changed[CHECKPOINT_AT..CHECKPOINT_AT + 8].copy_from_slice(&NO_CHECKPOINT.0.to_ne_bytes());
    let crc = crc32c::crc32c(&changed[..crc_at]);
    changed[crc_at..crc_at + 4].copy_from_slice(&crc.to_ne_bytes());
    Ok(changed)
}

/// Where the checksum of these bytes is, which fits.
fn crc_at(bytes: &[u8]) -> Result<usize, Unusable> {
    if bytes.len() as u64 != LENGTH {
        return Err(Unusable::Length(bytes.len()));
    }
    let control_version = u32_at(bytes, 8);
    if control_version.is_multiple_of(65_536) && control_version != 0 {
        return Err(Unusable::ByteOrder);
    }
    let at = CRC_AT.into_iter().find(|(version, _)| *version == control_version).map(|(_, at)| at);
    let at = at.ok_or(Unusable::Version(control_version))?;
    if crc32c::crc32c(&bytes[..at]) != u32_at(bytes, at) {
        return Err(Unusable::Crc);
    }
    Ok(at)
}

/// In which state the server was that wrote the file last (`DBState`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClusterState {
    StartingUp,
    ShutDown,
    ShutDownInRecovery,
    ShuttingDown,
    InCrashRecovery,
    InArchiveRecovery,
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

    /// The words of `pg_controldata`.
    pub(super) fn words(self) -> &'static str {
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

    /// Whether the files are whole without a backup_label.
    pub(super) fn is_shut_down(self) -> bool {
        matches!(self, Self::ShutDown | Self::ShutDownInRecovery)
    }
}

/// The settings of the primary that a hot standby must not fall below; PostgreSQL's `CheckRequiredParameterValues`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RequiredSettings {
    pub(super) max_connections: u32,
    pub(super) max_worker_processes: u32,
    pub(super) max_wal_senders: u32,
    pub(super) max_prepared_transactions: u32,
    pub(super) max_locks_per_transaction: u32,
}

/// The level of detail in the write-ahead log (`WalLevel`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WalLevel {
    Minimal,
    Replica,
    Logical,
}

/// What `global/pg_control` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ControlFile {
    pub(super) system_identifier: u64,
    pub(super) control_version: u32,
    pub(super) catalog_version: u32,
    pub(super) state: ClusterState,
    /// Where the latest checkpoint's record is.
    pub(super) checkpoint: Lsn,
    /// Where replay from the latest checkpoint begins.
    pub(super) checkpoint_redo: Lsn,
    /// The timeline of the latest checkpoint.
    pub(super) checkpoint_timeline: u32,
    /// Up to where replay must go before the files are consistent, and on which timeline; zero on a primary.
    pub(super) minimum_recovery: (Lsn, u32),
    pub(super) wal_level: WalLevel,
    pub(super) required: RequiredSettings,
    /// Bytes in one file of the write-ahead log.
    pub(super) wal_segment_size: u64,
    /// Whether pages carry checksums (`data_checksum_version`).
    pub(super) data_checksums: bool,
}

/// A pg_control that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unusable {
    #[error("it has {0} bytes and not {LENGTH}")]
    Length(usize),
    #[error("it was written by a machine of the other byte order")]
    ByteOrder,
    #[error(
        "its format {0} is not one that this program knows (1300, 1700 and 1800: PostgreSQL 13 to 18); \
         a newer Understudy may"
    )]
    Version(u32),
    #[error("its checksum does not match its contents: it is damaged or was written only in part")]
    Crc,
    #[error("its field {0} holds {1}, which PostgreSQL never writes")]
    Value(&'static str, u64),
}

impl ControlFile {
    /// Reads the file's bytes.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Unusable> {
        crc_at(bytes)?;
        let state = u32_at(bytes, 16);
        let wal_level = u32_at(bytes, 172);
        let wal_segment_size = u32_at(bytes, 228);
        if !wal_segment_size.is_power_of_two() || !(1 << 20..=1 << 30).contains(&wal_segment_size) {
            return Err(Unusable::Value("xlog_seg_size", wal_segment_size.into()));
        }
        Ok(Self {
            system_identifier: u64_at(bytes, 0),
            control_version: u32_at(bytes, 8),
            catalog_version: u32_at(bytes, 12),
            state: ClusterState::from_number(state).ok_or(Unusable::Value("state", state.into()))?,
            checkpoint: Lsn(u64_at(bytes, CHECKPOINT_AT)),
            checkpoint_redo: Lsn(u64_at(bytes, 40)),
            checkpoint_timeline: u32_at(bytes, 48),
            minimum_recovery: (Lsn(u64_at(bytes, 136)), u32_at(bytes, 144)),
            wal_level: match wal_level {
                0 => WalLevel::Minimal,
                1 => WalLevel::Replica,
                2 => WalLevel::Logical,
                _ => return Err(Unusable::Value("wal_level", wal_level.into())),
            },
            required: RequiredSettings {
                max_connections: u32_at(bytes, 180),
                max_worker_processes: u32_at(bytes, 184),
                max_wal_senders: u32_at(bytes, 188),
                max_prepared_transactions: u32_at(bytes, 192),
                max_locks_per_transaction: u32_at(bytes, 196),
            },
            wal_segment_size: wal_segment_size.into(),
            data_checksums: u32_at(bytes, 252) != 0,
        })
    }
}

/// Which cluster a pg_control is of, and how far that has come: what is told of one before it is emptied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClusterIdentity {
    /// The system identifier.
    pub(crate) system_identifier: u64,
    /// In which state the server left it, in the words of `pg_controldata`.
    pub(crate) state: &'static str,
    /// Where the latest checkpoint's record is.
    pub(crate) checkpoint: Lsn,
    /// Its timeline.
    pub(crate) timeline: u32,
    /// When it was taken, in seconds since 1970 (`CheckPoint.time`).
    pub(crate) time: i64,
}

/// Reads which cluster a pg_control is of.
///
/// # Errors
/// Why it cannot be used, in words that follow the file's name.
pub(crate) fn cluster_identity(bytes: &[u8]) -> Result<ClusterIdentity, String> {
    let control = ControlFile::parse(bytes).map_err(|why| why.to_string())?;
    Ok(ClusterIdentity {
        system_identifier: control.system_identifier,
        state: control.state.words(),
        checkpoint: control.checkpoint,
        timeline: control.checkpoint_timeline,
        time: i64::from_ne_bytes(u64_at(bytes, 104).to_ne_bytes()),
    })
}

/// The four bytes at `at`, which the caller has seen to be there.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_ne_bytes(number)
}

/// The eight bytes at `at`, which the caller has seen to be there.
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_ne_bytes(number)
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::real::Cluster;
    use super::*;

    /// A pg_control of PostgreSQL 15, as its server would write it.
    pub(in crate::seal) struct Written {
        pub(in crate::seal) bytes: Vec<u8>,
    }

    impl Written {
        /// Of a cluster in production on timeline 1, with PostgreSQL's default settings.
        pub(in crate::seal) fn in_production(system_identifier: u64) -> Self {
            let mut written = Self { bytes: vec![0; LENGTH as usize] };
            written.put64(0, system_identifier).put32(8, 1300).put32(12, 202_209_061).put32(16, 6);
            written.put64(32, 0x0200_0060).put64(40, 0x0200_0028).put32(48, 1).put32(172, 1);
            for (at, value) in [(180, 100), (184, 8), (188, 10), (192, 0), (196, 64), (228, 16 << 20)] {
                written.put32(at, value);
            }
            written
        }

        pub(in crate::seal) fn put32(&mut self, at: usize, value: u32) -> &mut Self {
            self.bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
            self.seal_with_crc()
        }

        pub(in crate::seal) fn put64(&mut self, at: usize, value: u64) -> &mut Self {
            self.bytes[at..at + 8].copy_from_slice(&value.to_ne_bytes());
            self.seal_with_crc()
        }

        fn seal_with_crc(&mut self) -> &mut Self {
            let version = u32_at(&self.bytes, 8);
            let at = CRC_AT.into_iter().find(|(of, _)| *of == version).map_or(288, |(_, at)| at);
            let crc = crc32c::crc32c(&self.bytes[..at]);
            self.bytes[at..at + 4].copy_from_slice(&crc.to_ne_bytes());
            self
        }
    }

    #[test]
    fn what_was_written_is_read() {
        let control = ControlFile::parse(&Written::in_production(7).bytes).unwrap();
        assert_eq!(control.system_identifier, 7);
        assert_eq!(control.state, ClusterState::InProduction);
        assert_eq!(control.required.max_locks_per_transaction, 64);
        assert_eq!(control.wal_segment_size, 16 << 20);
    }

    #[test]
    fn rule_30_a_changed_bit_anywhere_before_the_checksum_is_noticed() {
        let whole = Written::in_production(7).bytes;
        for at in (0..292).filter(|at| !(8..12).contains(at)) {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert_eq!(ControlFile::parse(&changed), Err(Unusable::Crc), "byte {at}");
        }
    }

    #[test]
    fn rule_30_a_control_file_that_is_cut_or_of_an_unknown_format_is_refused() {
        let whole = Written::in_production(7).bytes;
        assert_eq!(ControlFile::parse(&whole[..296]), Err(Unusable::Length(296)));
        assert_eq!(ControlFile::parse(&[]), Err(Unusable::Length(0)));
        for version in [1201, 1902] {
            let mut other = Written::in_production(7);
            other.put32(8, version);
            assert_eq!(ControlFile::parse(&other.bytes), Err(Unusable::Version(version)));
        }
        let mut swapped = whole;
        swapped[8..12].copy_from_slice(&1300_u32.swap_bytes().to_ne_bytes());
        assert_eq!(ControlFile::parse(&swapped), Err(Unusable::ByteOrder));
    }

    #[test]
    fn values_that_postgresql_never_writes_are_refused() {
        for (at, value) in [(16, 7), (172, 3), (228, 0), (228, 3 << 20), (228, 512 << 10)] {
            let mut odd = Written::in_production(7);
            odd.put32(at, value);
            assert!(matches!(ControlFile::parse(&odd.bytes), Err(Unusable::Value(..))), "{value} at {at}");
        }
    }

    #[test]
    fn each_format_has_its_checksum_where_its_version_puts_it() {
        for (version, at) in CRC_AT {
            let mut written = Written::in_production(7);
            written.put32(8, version);
            assert!(ControlFile::parse(&written.bytes).is_ok(), "{version}");
            written.bytes[at - 1] ^= 1;
            assert_eq!(ControlFile::parse(&written.bytes), Err(Unusable::Crc), "{version}");
        }
    }

    #[test]
    fn only_the_checkpoint_and_the_checksum_are_changed_in_every_format() {
        for (version, crc_at) in CRC_AT {
            let mut written = Written::in_production(7);
            written.put32(8, version);
            let changed = without_checkpoint(&written.bytes).unwrap();
            let differs: Vec<usize> =
                (0..changed.len()).filter(|at| changed[*at] != written.bytes[*at]).collect();
            let allowed = |at: &usize| (32..40).contains(at) || (crc_at..crc_at + 4).contains(at);
            assert!(!differs.is_empty() && differs.iter().all(allowed), "{version}: {differs:?}");
            let before = ControlFile::parse(&written.bytes).unwrap();
            let after = ControlFile::parse(&changed).unwrap();
            assert_eq!(after, ControlFile { checkpoint: NO_CHECKPOINT, ..before });
            assert_eq!(without_checkpoint(&changed).unwrap(), changed);
        }
        let mut damaged = Written::in_production(7).bytes;
        damaged[40] ^= 1;
        assert_eq!(without_checkpoint(&damaged), Err(Unusable::Crc));
        assert_eq!(without_checkpoint(&damaged[..100]), Err(Unusable::Length(100)));
    }

    /// What pg_controldata prints for a line that begins so.
    fn printed<'a>(controldata: &'a str, key: &str) -> &'a str {
        let line = controldata.lines().find(|line| line.starts_with(key)).unwrap();
        line[key.len()..].trim_start_matches(':').trim()
    }

    #[test]
    fn a_real_control_file_is_read_as_pg_controldata_reads_it() {
        let cluster = Cluster::made_with(&["--wal-segsize=4", "--data-checksums"]);
        // A start with other settings than initdb's writes them into pg_control, each at its own place.
        let settings = [
            ("max_connections", "77"),
            ("max_worker_processes", "9"),
            ("max_wal_senders", "6"),
            ("max_prepared_transactions", "5"),
            ("max_locks_per_transaction", "63"),
            ("wal_level", "logical"),
        ];
        let settings: Vec<String> = settings.map(|(name, value)| format!("{name}={value}")).to_vec();
        let mut arguments = vec!["--single", "-D"];
        let datadir = cluster.text();
        arguments.push(&datadir);
        for setting in &settings {
            arguments.extend(["-c", setting]);
        }
        arguments.push("postgres");
        let output = cluster.run("postgres", &arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

        let output = cluster.run("pg_controldata", &["-D", &datadir]);
        let told = String::from_utf8(output.stdout).unwrap();
        let control =
            ControlFile::parse(&std::fs::read(cluster.path().join("global/pg_control")).unwrap()).unwrap();
        for (key, read) in [
            ("Database system identifier", control.system_identifier.to_string()),
            ("pg_control version number", control.control_version.to_string()),
            ("Catalog version number", control.catalog_version.to_string()),
            ("Database cluster state", control.state.words().to_owned()),
            ("Latest checkpoint location", control.checkpoint.to_string()),
            ("Latest checkpoint's REDO location", control.checkpoint_redo.to_string()),
            ("Latest checkpoint's TimeLineID", control.checkpoint_timeline.to_string()),
            ("Minimum recovery ending location", control.minimum_recovery.0.to_string()),
            ("Min recovery ending loc's timeline", control.minimum_recovery.1.to_string()),
            ("wal_level setting", format!("{:?}", control.wal_level).to_lowercase()),
            ("max_connections setting", control.required.max_connections.to_string()),
            ("max_worker_processes setting", control.required.max_worker_processes.to_string()),
            ("max_wal_senders setting", control.required.max_wal_senders.to_string()),
            ("max_prepared_xacts setting", control.required.max_prepared_transactions.to_string()),
            ("max_locks_per_xact setting", control.required.max_locks_per_transaction.to_string()),
            ("Bytes per WAL segment", control.wal_segment_size.to_string()),
            ("Data page checksum version", u32::from(control.data_checksums).to_string()),
        ] {
            assert_eq!(printed(&told, key), read, "{key}");
        }
        assert_eq!(control.required.max_connections, 77);
        assert_eq!(control.state, ClusterState::ShutDown);
    }
}
