//! A directory in the place of PostgreSQL's lock file, so that no server starts while pg_basebackup's `global/pg_control` exists.
//!
//! If a directory is at `postmaster.pid`, PostgreSQL can neither create nor read its lock file (`CreateLockFile` in miscinit.c), so that
//! the postmaster and `postgres --single` end with "could not read lock file". `pg_ctl start` fails with "invalid data in PID file", and
//! `pg_resetwal` because the lock file exists. This is so in PostgreSQL 15 to 18. Unlike a special mode of the data directory, the
//! directory survives a `chmod` by hand, and scripts that remove a stale `postmaster.pid` with `rm -f`, or after a test for a file.

use std::io::{self, Write};

use foundation::rooted::{Directory, Kind, RelativePath};
use postgres_formats::names;

const LOCK_FILE: RelativePath = RelativePath::literal(names::POSTMASTER_PID);
const README: RelativePath = RelativePath::literal("postmaster.pid/README");

/// The README in the directory, for a person who finds it.
const TEXT: &str = "\
This is a base backup that pg_basebackup had not finished when it and understudy were killed. PostgreSQL must not start from it: it would
become a primary of its own. Create the replica again (understudy create, or patronictl reinit); that removes this directory too.
";

/// Creates the directory in the place of the lock file.
///
/// # Errors
/// Fails if something else has the name, or the directory cannot be created.
pub(crate) fn occupy(top: &Directory) -> io::Result<()> {
    let exists = |error: &io::Error| error.kind() == io::ErrorKind::AlreadyExists;
    match top.create_directory(&LOCK_FILE, 0o700) {
        Err(error) if exists(&error) && is_occupied(top)? => {}
        made => made?,
    }
    match top.create_file(&README, 0o600) {
        Ok(mut file) => file.write_all(TEXT.as_bytes())?,
        Err(error) if exists(&error) => {}
        Err(error) => return Err(error),
    }
    top.sync()
}

/// Returns whether a directory is in the place of the lock file. No server creates one.
pub(crate) fn is_occupied(top: &Directory) -> io::Result<bool> {
    Ok(top.find(&LOCK_FILE)?.is_some_and(|found| found.kind == Kind::Directory))
}

/// Removes the directory, if it exists.
///
/// # Errors
/// Fails if the directory cannot be removed, for example because something else is in it.
pub(crate) fn vacate(top: &Directory) -> io::Result<()> {
    if !is_occupied(top)? {
        return Ok(());
    }
    match top.remove_file(&README) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    top.remove_directory(&LOCK_FILE)
}
