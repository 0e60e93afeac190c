//! Walks through a copy, entry by entry.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use postgres_formats::names;
use understudy::{AtPath, Failure, cancelled, log};

use crate::layout::Layout;
use crate::left_out::{EMPTIED, left_out};
use crate::links::{self, Leads};

/// How deep directories may be nested. PostgreSQL's are four deep.
const DEEPEST: usize = 64;

/// How many skipped entries are logged by name. For the others only their number is logged.
const MOST_LINES: usize = 20;

/// The entries that contain data. If one of these is a link, that is an error, because skipping the link would lose data.
const DATA: [&str; 10] = [
    "base",
    names::GLOBAL,
    "pg_commit_ts",
    "pg_logical",
    "pg_multixact",
    "pg_stat",
    names::PG_TBLSPC,
    "pg_twophase",
    names::PG_WAL,
    "pg_xact",
];

/// One entry of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A directory, by its name in a data directory.
    Directory(String),
    /// A file.
    File {
        /// Its name in a data directory.
        name: String,
        /// Its path in the copy.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// The time of its last modification, in seconds since 1970.
        mtime: Option<u64>,
    },
}

/// Whether to log skipped entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Warn {
    Yes,
    No,
}

/// Returns the time of the last modification of a file, in seconds since 1970.
pub(crate) fn mtime(metadata: &fs::Metadata) -> Option<u64> {
    metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok().map(|time| time.as_secs())
}

/// Calls `visit` for every entry that must be copied, except for the control file. Visits a directory before its content.
pub(crate) fn walk(
    layout: &Layout,
    warn: Warn,
    visit: &mut dyn FnMut(Entry) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut walk = Walk { layout, visit, warn, skipped: 0 };
    walk.folder(&layout.directory, "", 0)?;
    walk.entry(Entry::Directory(names::PG_WAL.to_owned()))?;
    walk.folder(&layout.wal, names::PG_WAL, 0)?;
    walk.entry(Entry::Directory(names::PG_TBLSPC.to_owned()))?;
    for tablespace in &layout.tablespaces {
        for (folder, path) in &tablespace.folders {
            let name = format!("{}/{}/{folder}", names::PG_TBLSPC, tablespace.oid);
            walk.entry(Entry::Directory(name.clone()))?;
            walk.folder(path, &name, 0)?;
        }
    }
    if warn == Warn::Yes && walk.skipped > MOST_LINES {
        log::warn!("skipped {} more entries that are neither files nor folders", walk.skipped - MOST_LINES);
    }
    Ok(())
}

struct Walk<'a> {
    layout: &'a Layout,
    visit: &'a mut dyn FnMut(Entry) -> Result<(), Failure>,
    warn: Warn,
    skipped: usize,
}

impl Walk<'_> {
    fn entry(&mut self, entry: Entry) -> Result<(), Failure> {
        cancelled()?;
        (self.visit)(entry)
    }

    fn folder(&mut self, path: &Path, name: &str, depth: usize) -> Result<(), Failure> {
        if depth > DEEPEST {
            return Err(Failure::failed(format!("{} lies more than {DEEPEST} folders deep", path.display())));
        }
        for entry in fs::read_dir(path).at(path)? {
            let entry = entry.map_err(unreadable(path)).at(path)?;
            let last = entry.file_name().into_string().map_err(|name| not_text(path, &name))?;
            let name = if name.is_empty() { last } else { format!("{name}/{last}") };
            // The control file is copied last; the other two are visited by `walk`.
            if left_out(&name).is_some()
                || matches!(name.as_str(), names::CONTROL_FILE | names::PG_WAL | names::PG_TBLSPC)
            {
                continue;
            }
            let path = entry.path();
            let kind = entry.file_type().at(&path)?;
            if kind.is_dir() {
                self.entry(Entry::Directory(name.clone()))?;
                self.folder(&path, &name, depth + 1)?;
            } else if kind.is_file() {
                self.file(name, path)?;
            } else if EMPTIED.contains(&name.as_str()) {
                // The directory is created empty, even if it is a link.
                self.entry(Entry::Directory(name))?;
            } else if kind.is_symlink() {
                self.link(path, name)?;
            } else {
                self.skip(&path, "not a file");
            }
        }
        Ok(())
    }

    fn file(&mut self, name: String, path: PathBuf) -> Result<(), Failure> {
        let metadata = fs::symlink_metadata(&path).at(&path)?;
        let mtime = mtime(&metadata);
        self.entry(Entry::File { name, path, size: metadata.len(), mtime })
    }

    /// Visits the file to which a link leads, if the file is within the copy. Otherwise skips the link, or fails if data would be missing.
    fn link(&mut self, path: PathBuf, name: String) -> Result<(), Failure> {
        let first = name.split('/').next().unwrap_or(&name);
        if DATA.contains(&first) || matches!(name.as_str(), names::PG_VERSION | names::BACKUP_LABEL) {
            return Err(Failure::failed(format!(
                "{} is a link, and the replica would lack the files behind it: replace the link by these files",
                path.display()
            )));
        }
        let what = match links::follow(self.layout, &path) {
            Leads::ToFile(file) => return self.file(name, file),
            Leads::ToFolder(folder) => format!("a link to the folder {}", folder.display()),
            Leads::Nowhere => "a link that leads nowhere".to_owned(),
            Leads::Out(Some(target)) => format!("a link out of the copy, to {}", target.display()),
            Leads::Out(None) => "a link to a place that is not granted".to_owned(),
        };
        let what = match is_of_the_configuration(&name) {
            true => format!("{what}; PostgreSQL reads it when it starts: replace the link by the file"),
            false => what,
        };
        self.skip(&path, &what);
        Ok(())
    }

    /// Skips an entry that is neither a file nor a directory, as pg_basebackup does.
    fn skip(&mut self, path: &Path, what: &str) {
        self.skipped += 1;
        if self.warn == Warn::Yes && self.skipped <= MOST_LINES {
            log::warn!("skipped {}: it is {what}", path.display());
        }
    }
}

/// Returns whether an entry is part of the configuration: PostgreSQL's configuration files, and files that they may include.
fn is_of_the_configuration(name: &str) -> bool {
    name.ends_with(".conf")
        || name.split('/').next().is_some_and(|first| first.ends_with(".conf.d") || first == "conf.d")
}

fn not_text(folder: &Path, name: &OsStr) -> Failure {
    let name = name.as_encoded_bytes().escape_ascii();
    Failure::failed(format!("{} holds a name that is not UTF-8, `{name}`: rename it", folder.display()))
}

/// Explains the error for a name that is not UTF-8. In a sandbox the name itself is not available; the host logs it.
fn unreadable(folder: &Path) -> impl FnOnce(io::Error) -> io::Error {
    move |error| match error.raw_os_error() {
        Some(ILLEGAL_SEQUENCE) if cfg!(target_family = "wasm") => io::Error::other(Failure::failed(format!(
            "{} holds a name that is not UTF-8, which the host's log shows: rename it",
            folder.display()
        ))),
        _ => error,
    }
}

/// WASI's `EILSEQ`.
const ILLEGAL_SEQUENCE: i32 = 25;
