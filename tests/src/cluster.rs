//! The smallest data directory that the seal accepts as a PostgreSQL 15 cluster. PostgreSQL cannot start from it.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use postgres_formats::control_file::{self, with_crc};
use postgres_formats::segment::SegmentSize;
use postgres_formats::{Lsn, names};

/// The size of a WAL segment in bytes.
const SEGMENT: u32 = 16 << 20;

/// Every directory of a fresh cluster except `global`.
const DIRECTORIES: [&str; 19] = [
    "base",
    "pg_commit_ts",
    "pg_dynshmem",
    "pg_logical",
    "pg_multixact",
    "pg_multixact/members",
    "pg_multixact/offsets",
    "pg_notify",
    "pg_replslot",
    "pg_serial",
    "pg_snapshots",
    "pg_stat",
    "pg_stat_tmp",
    "pg_subtrans",
    "pg_tblspc",
    "pg_twophase",
    "pg_wal",
    "pg_wal/archive_status",
    "pg_xact",
];

/// The states of `DBState` (src/include/catalog/pg_control.h) that a backup can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatabaseState {
    /// `DB_SHUTDOWNED`, in a cold copy.
    ShutDown = 1,
    /// `DB_IN_PRODUCTION`, in a copy that was made while the server ran.
    InProduction = 6,
}

/// A data directory that looks like a copy from a PostgreSQL 15 server.
#[derive(Clone, Debug)]
pub struct MinimalCluster {
    /// The system identifier.
    pub system_identifier: u64,
    /// The timeline of the last checkpoint.
    pub timeline: u32,
    /// The state of the server during the copy.
    pub state: DatabaseState,
    /// The redo position of the last checkpoint.
    pub redo: Lsn,
    /// The server's `max_connections`.
    pub max_connections: i32,
    /// Whether the directory has a backup_label.
    pub backup_label: bool,
}

/// Returns a copy of the cluster with this system identifier, made from a running server on timeline 1.
pub fn minimal_cluster(system_identifier: u64) -> MinimalCluster {
    MinimalCluster {
        system_identifier,
        timeline: 1,
        state: DatabaseState::InProduction,
        redo: Lsn(0x200_0028),
        max_connections: 100,
        backup_label: true,
    }
}

impl MinimalCluster {
    /// Writes the files into `directory`, which may exist, with pg_control under the name that methods use until the seal.
    ///
    /// # Errors
    /// Fails if a file cannot be written.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        self.write_with_control_file(directory, names::UNFINISHED_CONTROL_FILE)
    }

    /// Writes the files as a complete data directory with `global/pg_control`, as old data has it.
    ///
    /// # Errors
    /// Fails if a file cannot be written.
    pub fn write_complete(&self, directory: &Path) -> io::Result<()> {
        self.write_with_control_file(directory, names::CONTROL_FILE)
    }

    fn write_with_control_file(&self, directory: &Path, control_file: &str) -> io::Result<()> {
        let mut private = fs::DirBuilder::new();
        private.recursive(true).mode(0o700);
        for name in DIRECTORIES.iter().chain(&["global"]) {
            private.create(directory.join(name))?;
        }
        write(&directory.join(names::PG_VERSION), b"15\n")?;
        for name in ["postgresql.conf", "postgresql.auto.conf", "pg_ident.conf"] {
            write(&directory.join(name), b"")?;
        }
        write(&directory.join("pg_hba.conf"), b"local all all trust\n")?;
        if self.backup_label {
            write(&directory.join(names::BACKUP_LABEL), self.backup_label().as_bytes())?;
        }
        write(&directory.join(control_file), &self.control_file())
    }

    /// Returns the content of pg_control, with a valid CRC.
    pub fn control_file(&self) -> Vec<u8> {
        let mut file = vec![0; control_file::SIZE as usize];
        let mut put = |offset: usize, bytes: &[u8]| file[offset..offset + bytes.len()].copy_from_slice(bytes);
        let four = |value: u32| value.to_le_bytes();
        let checkpoint = self.redo.0 + 0x38;
        put(0, &self.system_identifier.to_le_bytes());
        put(8, &four(1300)); // pg_control_version
        put(12, &four(202_209_061)); // catalog_version_no
        put(16, &four(self.state as u32));
        put(24, &1_795_420_800_i64.to_le_bytes()); // time
        put(32, &checkpoint.to_le_bytes());
        put(40, &self.redo.0.to_le_bytes());
        put(48, &four(self.timeline));
        put(52, &four(self.timeline)); // PrevTimeLineID
        put(56, &[1]); // fullPageWrites
        put(64, &724_u64.to_le_bytes()); // nextXid
        put(72, &four(13_572)); // nextOid
        put(76, &four(1)); // nextMulti
        put(84, &four(716)); // oldestXid
        put(88, &four(1)); // oldestXidDB
        put(92, &four(1)); // oldestMulti
        put(96, &four(1)); // oldestMultiDB
        put(104, &1_795_420_800_i64.to_le_bytes()); // time of the checkpoint
        put(128, &1000_u64.to_le_bytes()); // unloggedLSN
        put(172, &four(1)); // wal_level: replica
        put(180, &self.max_connections.to_le_bytes());
        put(184, &four(8)); // max_worker_processes
        put(188, &four(10)); // max_wal_senders
        put(196, &four(64)); // max_locks_per_xact
        put(204, &four(8)); // maxAlign
        put(208, &1_234_567.0_f64.to_le_bytes()); // floatFormat
        put(216, &four(8192)); // blcksz
        put(220, &four(131_072)); // relseg_size
        put(224, &four(8192)); // xlog_blcksz
        put(228, &four(SEGMENT)); // xlog_seg_size
        put(232, &four(64)); // nameDataLen
        put(236, &four(32)); // indexMaxKeys
        put(240, &four(1996)); // toast_max_chunk_size
        put(244, &four(2048)); // loblksize
        put(248, &[1]); // float8ByVal
        with_crc(file).expect("it is of version 1300 and has the length of one")
    }

    fn backup_label(&self) -> String {
        let size = SegmentSize::new(SEGMENT.into()).expect("it is a power of two");
        format!(
            "START WAL LOCATION: {redo} (file {segment})\n\
             CHECKPOINT LOCATION: {checkpoint}\n\
             BACKUP METHOD: streamed\n\
             BACKUP FROM: primary\n\
             START TIME: 2026-11-23 08:00:00 UTC\n\
             LABEL: a minimal cluster\n\
             START TIMELINE: {timeline}\n",
            redo = self.redo,
            timeline = self.timeline,
            segment = size.name(self.timeline, self.redo),
            checkpoint = Lsn(self.redo.0 + 0x38),
        )
    }
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    io::Write::write_all(&mut file, bytes)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// PostgreSQL's own pg_controldata must accept the file.
    #[test]
    fn pg_controldata_reads_the_minimal_cluster_without_a_warning() {
        let directory = tempfile::tempdir().unwrap();
        let cluster = MinimalCluster { timeline: 3, ..minimal_cluster(7_000_000_000_000_000_001) };
        cluster.write_complete(directory.path()).unwrap();
        let output = Command::new("/usr/lib/postgresql/15/bin/pg_controldata")
            .arg(directory.path())
            .env("LC_ALL", "C")
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && errors.is_empty() && !text.contains("WARNING"), "{text}{errors}");
        for (name, value) in [
            ("pg_control version number", "1300"),
            ("Catalog version number", "202209061"),
            ("Database system identifier", "7000000000000000001"),
            ("Database cluster state", "in production"),
            ("Latest checkpoint's REDO location", "0/2000028"),
            ("Latest checkpoint's TimeLineID", "3"),
            ("wal_level setting", "replica"),
            ("max_connections setting", "100"),
            ("max_worker_processes setting", "8"),
            ("max_wal_senders setting", "10"),
            ("max_locks_per_xact setting", "64"),
            ("Bytes per WAL segment", "16777216"),
            ("Float8 argument passing", "by value"),
        ] {
            let line = text.lines().find(|line| line.starts_with(&format!("{name}:")));
            assert_eq!(line.and_then(|line| line.rsplit("  ").next()).map(str::trim), Some(value), "{text}");
        }
    }
}
