//! Lists the files and directories at the top of a data directory that are not part of the cluster: a DBA may keep backups, scripts or
//! certificates there.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use foundation::rooted::{Directory, Kind, RelativePath};
use postgres_formats::names;

use super::contents::AllowedContents;

/// The names at the top of a data directory that PostgreSQL 9 to 18 creates (`src/bin/initdb/initdb.c` and the names in [`names`]), and
/// those that Patroni creates (`patroni/postgresql/config.py`, `patroni/dcs/__init__.py`).
const KNOWN: &[&str] = &[
    "backup_label.old",
    "base",
    "current_logfiles",
    "current_logfiles.tmp",
    "fallback_promote",
    "log",
    "logrotate",
    "patroni.dynamic.json",
    "pg_clog",
    "pg_commit_ts",
    "pg_dynshmem",
    "pg_hba.conf",
    "pg_hba.conf.backup",
    "pg_ident.conf",
    "pg_ident.conf.backup",
    "pg_log",
    "pg_logical",
    "pg_multixact",
    "pg_notify",
    "pg_replslot",
    "pg_serial",
    "pg_snapshots",
    "pg_stat",
    "pg_stat_tmp",
    "pg_subtrans",
    "pg_twophase",
    "pg_upgrade_output.d",
    "pg_xact",
    "pg_xlog",
    "postgresql.auto.conf.tmp",
    "postgresql.base.conf",
    "postgresql.base.conf.backup",
    "postgresql.conf",
    "postgresql.conf.backup",
    "promote",
    "recovery.conf",
    "recovery.conf.backup",
    "recovery.done",
    "tablespace_map.old",
    names::BACKUP_LABEL,
    names::BACKUP_MANIFEST,
    names::GLOBAL,
    names::PG_TBLSPC,
    names::PG_VERSION,
    names::PG_WAL,
    names::POSTGRESQL_AUTO_CONF,
    names::POSTMASTER_OPTS,
    names::POSTMASTER_PID,
    names::RECOVERY_SIGNAL,
    names::STANDBY_SIGNAL,
    names::TABLESPACE_MAP,
];

/// The most names that are collected.
pub(super) const MOST: usize = 1000;

/// How the names of the server's sockets and of their lock files begin (`UNIXSOCK_PATH` in `src/include/libpq/pqcomm.h`).
const SOCKET: &str = ".s.PGSQL.";

/// Returns the names at the top of a data directory that neither PostgreSQL nor Patroni creates, sorted, with a `/` after the name of a
/// directory. `own` lists the parts of the cluster that lie in the data directory. Returns no names if the directory cannot be read.
pub(super) fn of(directory: &Directory, own: &[(PathBuf, AllowedContents)]) -> Vec<String> {
    let mut besides = Vec::new();
    // If the directory cannot be read, emptying it reports the error.
    let _unread = directory.names(&mut |name| {
        if !is_known(name) && !own.iter().any(|(part, _)| part.starts_with(Path::new(name))) {
            let path = RelativePath::new(name).map_err(std::io::Error::other)?;
            let slash = match directory.find(&path)? {
                Some(found) if found.kind == Kind::Directory => "/",
                Some(_) | None => "",
            };
            besides.push(format!("{}{slash}", name.display().to_string().escape_debug()));
        }
        Ok(besides.len() < MOST)
    });
    besides.sort();
    besides
}

fn is_known(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| KNOWN.contains(&name) || name.starts_with(SOCKET))
}
