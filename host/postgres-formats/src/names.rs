//! Paths, relative to the data directory, that the host and the methods must agree on, and the names of the folders in tablespace
//! directories. Sources: `src/include/access/xlog_internal.h`, `src/include/access/xlog.h`, `src/include/miscadmin.h` and
//! `src/include/common/relpath.h`.

use std::fmt;

use crate::version::Version;

/// The file with the major version of a data directory; see [`crate::version`].
pub const PG_VERSION: &str = "PG_VERSION";

/// The directory that contains [`CONTROL_FILE`] (`src/bin/initdb/initdb.c`).
pub const GLOBAL: &str = "global";

/// The last part of [`CONTROL_FILE`].
pub const PG_CONTROL: &str = "pg_control";

/// The control file, without which PostgreSQL does not start (`XLOG_CONTROL_FILE`); see [`crate::control_file`]. Only the host
/// gives a file this name, as the last step of the seal.
pub const CONTROL_FILE: &str = "global/pg_control";

/// The name under which a method writes the control file; the host renames it at the seal. PostgreSQL has no file of this name.
pub const UNFINISHED_CONTROL_FILE: &str = "global/pg_control.understudy";

/// The file that says where replay of a backup begins (`BACKUP_LABEL_FILE`); see [`crate::backup_label`].
pub const BACKUP_LABEL: &str = "backup_label";

/// The file from which the server makes the links to tablespaces (`TABLESPACE_MAP`); see [`crate::tablespace_map`].
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

/// The directory of the write-ahead log (`XLOGDIR`); see [`crate::segment`] for the files in it.
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

/// The folder in a tablespace directory that holds one cluster's files, such as `PG_15_202209061` (`TABLESPACE_VERSION_DIRECTORY`):
/// named by the major version and the nine-digit catalog version number (`CATALOG_VERSION_NO` in
/// `src/include/catalog/catversion.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TablespaceFolder {
    /// The major version.
    pub version: Version,
    /// The catalog version number.
    pub catalog: u32,
}

impl TablespaceFolder {
    /// Parses the name of a version folder; `None` for any other name.
    pub fn parse(name: &[u8]) -> Option<Self> {
        let rest = name.strip_prefix(b"PG_")?;
        let end = rest.iter().position(|byte| *byte == b'_')?;
        let (version, catalog) = (&rest[..end], &rest[end + 1..]);
        (catalog.len() == 9 && catalog.iter().all(u8::is_ascii_digit)).then_some(())?;
        let catalog = std::str::from_utf8(catalog).ok()?.parse().ok()?;
        let folder = Self { version: Version::parse(version)?, catalog };
        // Otherwise a number with leading zeros would give a folder two names.
        (folder.to_string().as_bytes() == name).then_some(folder)
    }
}

impl fmt::Display for TablespaceFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PG_{}_{:09}", self.version, self.catalog)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folders_of_a_tablespace_are_distinguished_from_others() {
        for (name, major, catalog) in [
            ("PG_15_202209061", Some(15), 202_209_061),
            ("PG_18_202506291", Some(18), 202_506_291),
            ("PG_9.6_201608131", None, 201_608_131),
        ] {
            let folder = TablespaceFolder::parse(name.as_bytes()).unwrap();
            assert_eq!((folder.version.major(), folder.catalog), (major, catalog), "{name}");
            assert_eq!(folder.to_string(), name);
        }
        for name in [
            "PG_15",
            "PG_15_",
            "PG_15_x",
            "PG__1",
            "PG_15_20220906",
            "PG_15_202209061_",
            "PG_15_+20220906",
            "PG_015_202209061",
            "PG_x_202209061",
            "pg_15_202209061",
            "pg_hba.conf",
            "16384",
        ] {
            assert_eq!(TablespaceFolder::parse(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn an_object_identifier_has_one_spelling() {
        assert_eq!(tablespace_oid("16384"), Some(16384));
        assert_eq!(tablespace_oid("4294967295"), Some(u32::MAX));
        for name in ["", "0", "007", "+7", "-7", "4294967296", "7x", "pgsql_tmp"] {
            assert_eq!(tablespace_oid(name), None, "{name}");
        }
    }
}
