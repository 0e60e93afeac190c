//! Paths, relative to the data directory, that the host and the methods must agree on. Sources: `src/include/access/xlog_internal.h`,
//! `src/include/access/xlog.h` and `src/include/miscadmin.h` of PostgreSQL.

/// The file with the major version of a data directory.
pub const PG_VERSION: &str = "PG_VERSION";

/// The directory that contains [`CONTROL_FILE`] (`src/bin/initdb/initdb.c`).
pub const GLOBAL: &str = "global";

/// The last part of [`CONTROL_FILE`].
pub const PG_CONTROL: &str = "pg_control";

/// The control file, without which PostgreSQL does not start (`XLOG_CONTROL_FILE`). Only the host gives a file this name,
/// as the last step of the seal.
pub const CONTROL_FILE: &str = "global/pg_control";

/// The name under which a method writes the control file; the host renames it at the seal. PostgreSQL has no file of this name.
pub const UNFINISHED_CONTROL_FILE: &str = "global/pg_control.understudy";

/// The file that says where replay of a backup begins (`BACKUP_LABEL_FILE`).
pub const BACKUP_LABEL: &str = "backup_label";

/// The file from which the server makes the links to tablespaces (`TABLESPACE_MAP`).
pub const TABLESPACE_MAP: &str = "tablespace_map";

/// The list of the files of a backup (`src/backend/backup/backup_manifest.c`).
pub const BACKUP_MANIFEST: &str = "backup_manifest";

/// The lock file of a running server (`DIRECTORY_LOCK_FILE` in `src/backend/utils/init/miscinit.c`). No backup has one, and no
/// replica may inherit one.
pub const POSTMASTER_PID: &str = "postmaster.pid";

/// The command line of a running server (`OPTS_FILE` in `src/backend/postmaster/postmaster.c`). No backup has one.
pub const POSTMASTER_OPTS: &str = "postmaster.opts";

/// The settings that `ALTER SYSTEM` writes (`PG_AUTOCONF_FILENAME` in `src/include/utils/guc.h`).
pub const POSTGRESQL_AUTO_CONF: &str = "postgresql.auto.conf";

/// The file that makes a server a standby (`STANDBY_SIGNAL_FILE`).
pub const STANDBY_SIGNAL: &str = "standby.signal";

/// The file that makes a server recover up to a target (`RECOVERY_SIGNAL_FILE`).
pub const RECOVERY_SIGNAL: &str = "recovery.signal";

/// The directory of the write-ahead log (`XLOGDIR`).
pub const PG_WAL: &str = "pg_wal";

/// The folder in `pg_wal` with the archive status of the WAL files (`src/backend/access/transam/xlogarchive.c`).
pub const ARCHIVE_STATUS: &str = "archive_status";

/// The folder in `pg_wal` with the summaries that incremental backups are made from, since PostgreSQL 17
/// (`src/backend/backup/walsummary.c`).
pub const SUMMARIES: &str = "summaries";

/// The directory with a link for each tablespace, named by its object identifier (`PG_TBLSPC_DIR`).
pub const PG_TBLSPC: &str = "pg_tblspc";

/// Parses the name of an entry in `pg_tblspc`, or of a tablespace archive without its extension, as an object identifier: decimal, without
/// a sign or leading zeros, and at least 1, because 0 is invalid (`InvalidOid` in `src/include/postgres_ext.h`). `None` for any other name.
pub fn tablespace_oid(name: &str) -> Option<u32> {
    name.parse::<u32>().ok().filter(|oid| *oid > 0 && oid.to_string() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_identifier_has_one_spelling() {
        assert_eq!(tablespace_oid("16384"), Some(16384));
        assert_eq!(tablespace_oid("4294967295"), Some(u32::MAX));
        for name in ["", "0", "007", "+7", "-7", "4294967296", "7x", "pgsql_tmp"] {
            assert_eq!(tablespace_oid(name), None, "{name}");
        }
    }
}
