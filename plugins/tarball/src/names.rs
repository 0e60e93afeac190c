//! The names that the archives of a backup may contain. Some are checked by the host, in `refuse` of `unpack`, and some afterwards, in the
//! directories that were filled.

use postgres_formats::names::{
    POSTMASTER_OPTS, POSTMASTER_PID, TABLESPACE_MAP, TablespaceFolder, UNFINISHED_CONTROL_FILE,
};
use postgres_formats::segment::WalFile;

/// `PG_VERSION`. The method writes this file first, with the version from the plan, for a Patroni that starts during the run (see the
/// SDK's documentation). In an archive, `PG_VERSION` may be at any position.
pub(crate) use postgres_formats::names::PG_VERSION as VERSION;

/// Names that base.tar must not contain: files that belong in the archive of a tablespace, and files of a running server, which no
/// replica may inherit.
pub(crate) const REFUSED_IN_BASE: [&str; 4] =
    ["pg_tblspc/", POSTMASTER_PID, POSTMASTER_OPTS, UNFINISHED_CONTROL_FILE];

/// Names in base.tar that are not written, because the host creates the links itself, from the operator's map.
pub(crate) const SKIPPED_IN_BASE: &str = TABLESPACE_MAP;

/// Checks that base.tar may have a member with this name. `is_incremental` is whether the backup may have files of which only some pages
/// are stored.
pub(crate) fn belongs_in_base(name: &str, is_incremental: bool) -> Result<(), String> {
    let shown = name.escape_debug();
    if name.starts_with("pg_tblspc/") {
        return Err(format!("has a member `{shown}`, which belongs in the archive of its tablespace"));
    }
    if REFUSED_IN_BASE.contains(&name) {
        return Err(format!("has a member `{shown}`, which no base backup has"));
    }
    if is_incremental { Ok(()) } else { is_whole(name) }
}

/// Returns whether `folder` is PostgreSQL's directory in a tablespace, `PG_MAJOR_CATALOG`.
pub(crate) fn belongs_in_tablespace(folder: &str) -> bool {
    TablespaceFolder::parse(folder.as_bytes()).is_some_and(|folder| folder.version.major().is_some())
}

/// Returns whether `name` is a WAL file: a segment, a partial segment, a backup history file or a timeline history file.
pub(crate) fn is_wal(name: &str) -> bool {
    WalFile::parse(name.as_bytes()).is_some()
}

/// Returns whether `name` is the archive status of a WAL file: `NAME.done` or `NAME.ready` in `archive_status`.
pub(crate) fn is_status(name: &str) -> bool {
    name.strip_suffix(".done").or_else(|| name.strip_suffix(".ready")).is_some_and(is_wal)
}

/// Checks that a file with this name is whole, and not an increment, which only an incremental backup has.
pub(crate) fn is_whole(name: &str) -> Result<(), String> {
    let file = name.rsplit('/').next().unwrap_or(name);
    if file.starts_with("INCREMENTAL.") {
        let name = name.escape_debug();
        return Err(format!(
            "has a member `{name}`, of which only some pages are stored, but its backup_label is that of a full backup"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_wal_file_is_recognized_and_nothing_else() {
        for name in [
            "000000010000000000000002",
            "00000002.history",
            "000000020000000000000003.partial",
            "000000010000000000000002.00000028.backup",
        ] {
            assert!(is_wal(name), "{name}");
            assert!(is_status(&format!("{name}.done")) && is_status(&format!("{name}.ready")), "{name}");
        }
        for name in ["postgresql.conf", "00000002.histori", "00000001000000000000000g", "0", "..", ""] {
            assert!(!is_wal(name) && !is_status(name), "{name}");
        }
    }

    #[test]
    fn the_error_names_a_file_that_no_base_backup_has() {
        for name in
            ["pg_tblspc/16384/x", "postmaster.pid", UNFINISHED_CONTROL_FILE, "base/5/INCREMENTAL.1259"]
        {
            assert!(belongs_in_base(name, false).unwrap_err().contains(name), "{name}");
        }
        for name in ["pg_tblspc", "base/5/1259", "global/pg_control", "postmaster.pid.old"] {
            assert_eq!(belongs_in_base(name, false), Ok(()), "{name}");
        }
        assert!(belongs_in_tablespace("PG_15_202209061"));
        for name in ["PG_15_x", "PG_15", "pg_hba.conf", "PG__1"] {
            assert!(!belongs_in_tablespace(name), "{name}");
        }
    }
}
