//! Files that are not copied: the files that pg_basebackup leaves out (`excludeDirContents` and `excludeFiles` in PostgreSQL's
//! basebackup.c), and the files that pg_basebackup writes itself.

use postgres_formats::names;

/// Why an entry is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// A server writes the entry when it starts, or must not find the entry.
    ServerMakesIt,
    /// The entry belongs to an earlier backup, and its list of files is out of date.
    EarlierBackup,
    /// The host creates the entry itself.
    HostMakesIt,
}

/// Directories that are created and left empty.
pub(crate) const EMPTIED: [&str; 7] =
    ["pg_dynshmem", "pg_notify", "pg_replslot", "pg_serial", "pg_snapshots", "pg_stat_tmp", "pg_subtrans"];

/// Returns why the entry `name`, relative to the data directory, is left out; `None` if it is copied.
pub(crate) fn left_out(name: &str) -> Option<Reason> {
    match name {
        names::POSTMASTER_PID
        | names::POSTMASTER_OPTS
        | "postgresql.auto.conf.tmp"
        | "current_logfiles.tmp"
        | "lost+found" => {
            return Some(Reason::ServerMakesIt);
        }
        names::BACKUP_MANIFEST => return Some(Reason::EarlierBackup),
        names::TABLESPACE_MAP => return Some(Reason::HostMakesIt),
        names::UNFINISHED_CONTROL_FILE => return Some(Reason::HostMakesIt),
        _ => {}
    }
    let (folder, entry) = name.rsplit_once('/').unwrap_or(("", name));
    let temporary = entry.starts_with("pgsql_tmp")
        || entry.starts_with("pg_internal.init")
        || (folder.is_empty() && entry.starts_with(".s.PGSQL."))
        || (folder == names::PG_WAL && entry.starts_with("xlogtemp."))
        || EMPTIED.contains(&folder)
        || (is_of_a_database(folder) && is_temporary_relation(entry));
    temporary.then_some(Reason::ServerMakesIt)
}

/// Returns whether `folder` is the directory of a database: `base/OID` or `pg_tblspc/OID/PG_MAJOR_CATALOG/OID`.
fn is_of_a_database(folder: &str) -> bool {
    let parts: Vec<_> = folder.split('/').collect();
    match parts.as_slice() {
        ["base", oid] => is_number(oid),
        [names::PG_TBLSPC, _, version, oid] => version.starts_with("PG_") && is_number(oid),
        _ => false,
    }
}

/// Returns whether `name` is a temporary relation: `tBACKEND_FILENODE`, then optionally a fork and a segment
/// (`parse_filename_for_nontemp_relation` and `looks_like_temp_rel_name`).
fn is_temporary_relation(name: &str) -> bool {
    let Some((backend, relation)) = name.strip_prefix('t').and_then(|rest| rest.split_once('_')) else {
        return false;
    };
    let (relation, segment) =
        relation.split_once('.').map_or((relation, None), |(relation, segment)| (relation, Some(segment)));
    let (node, fork) = relation.split_once('_').map_or((relation, None), |(node, fork)| (node, Some(fork)));
    is_number(backend)
        && is_number(node)
        && fork.is_none_or(|fork| matches!(fork, "fsm" | "vm" | "init"))
        && segment.is_none_or(is_number)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_running_server_are_left_out() {
        for name in [
            "postmaster.pid",
            "postmaster.opts",
            "pg_replslot/slot",
            "pg_notify/0000",
            "pg_stat_tmp/global.stat",
            "base/pgsql_tmp",
            "base/5/pg_internal.init",
            "global/pg_internal.init.123",
            "pg_tblspc/16384/PG_15_202209061/pgsql_tmp",
            ".s.PGSQL.5432.lock",
            "base/5/t3_16385",
            "base/5/t3_16385_fsm.1",
            "pg_tblspc/16384/PG_15_202209061/5/t3_16385.2",
            "pg_wal/xlogtemp.99",
        ] {
            assert_eq!(left_out(name), Some(Reason::ServerMakesIt), "{name}");
        }
        assert_eq!(left_out("backup_manifest"), Some(Reason::EarlierBackup));
        assert_eq!(left_out("tablespace_map"), Some(Reason::HostMakesIt));
    }

    #[test]
    fn files_of_a_cluster_are_copied() {
        for name in [
            "PG_VERSION",
            "backup_label",
            "postgresql.conf",
            "postgresql.auto.conf",
            "base/5/1259",
            "base/5/t3",
            "base/5/t3_x",
            "base/5/16385_vm",
            "base/5/16385_init",
            "pg_replslot",
            "pg_stat/pgstat.stat",
            "pg_wal/000000010000000000000001",
            "pg_wal/archive_status/000000010000000000000001.done",
            "pg_xact/0000",
            "log/postmaster.pid",
        ] {
            assert_eq!(left_out(name), None, "{name}");
        }
    }
}
