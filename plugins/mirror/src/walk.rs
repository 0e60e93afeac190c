//! Going through a copy, entry by entry.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use understudy::{AtPath, Failure, cancelled, log};

use crate::layout::Layout;
use crate::left_out::{EMPTIED, left_out};

/// How deep folders may lie in each other. PostgreSQL's own are four deep.
const DEEPEST: usize = 64;

/// How many lines tell what is passed over, before only their number is told.
const MOST_LINES: usize = 20;

/// What PostgreSQL keeps its data in: what is passed over there would be missing.
const DATA: [&str; 10] = [
    "base",
    "global",
    "pg_commit_ts",
    "pg_logical",
    "pg_multixact",
    "pg_stat",
    "pg_tblspc",
    "pg_twophase",
    "pg_wal",
    "pg_xact",
];

/// One entry of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A folder, by the name that it has in a data directory.
    Directory(String),
    /// A file.
    File {
        /// The name that it has in a data directory.
        name: String,
        /// Where it is.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// When it was changed last, in seconds since 1970.
        mtime: Option<u64>,
    },
}

/// Whether what is passed over is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tell {
    Yes,
    No,
}

/// When a file was changed last, in seconds since 1970.
pub(crate) fn mtime(metadata: &fs::Metadata) -> Option<u64> {
    metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok().map(|time| time.as_secs())
}

/// Gives `visit` everything that is to be copied but the control file, a folder before what is in it.
pub(crate) fn walk(
    layout: &Layout,
    tell: Tell,
    visit: &mut dyn FnMut(Entry) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut walk = Walk { visit, tell, passed_over: 0 };
    walk.folder(&layout.directory, "", 0)?;
    walk.entry(Entry::Directory("pg_wal".to_owned()))?;
    walk.folder(&layout.wal, "pg_wal", 0)?;
    walk.entry(Entry::Directory("pg_tblspc".to_owned()))?;
    for tablespace in &layout.tablespaces {
        for (folder, path) in &tablespace.folders {
            let name = format!("pg_tblspc/{}/{folder}", tablespace.oid);
            walk.entry(Entry::Directory(name.clone()))?;
            walk.folder(path, &name, 0)?;
        }
    }
    if tell == Tell::Yes && walk.passed_over > MOST_LINES {
        log::warn!(
            "passed over {} more entries that are neither files nor folders",
            walk.passed_over - MOST_LINES
        );
    }
    Ok(())
}

struct Walk<'a> {
    visit: &'a mut dyn FnMut(Entry) -> Result<(), Failure>,
    tell: Tell,
    passed_over: usize,
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
            let entry = entry.at(path)?;
            let Ok(last) = entry.file_name().into_string() else {
                return Err(Failure::failed(format!("{} holds a name that is not UTF-8", path.display())));
            };
            let name = if name.is_empty() { last } else { format!("{name}/{last}") };
            // The control file is last; the other two are the layout's.
            if left_out(&name).is_some()
                || matches!(name.as_str(), "global/pg_control" | "pg_wal" | "pg_tblspc")
            {
                continue;
            }
            let path = entry.path();
            let kind = entry.file_type().at(&path)?;
            if kind.is_dir() {
                self.entry(Entry::Directory(name.clone()))?;
                self.folder(&path, &name, depth + 1)?;
            } else if kind.is_file() {
                let metadata = fs::symlink_metadata(&path).at(&path)?;
                let mtime = mtime(&metadata);
                self.entry(Entry::File { name, path, size: metadata.len(), mtime })?;
            } else if EMPTIED.contains(&name.as_str()) {
                // Made and left empty, wherever it led.
                self.entry(Entry::Directory(name))?;
            } else {
                self.pass_over(&path, &name, kind.is_symlink())?;
            }
        }
        Ok(())
    }

    /// Passes over what is neither file nor folder, as pg_basebackup does, unless data would be missing.
    fn pass_over(&mut self, path: &Path, name: &str, link: bool) -> Result<(), Failure> {
        let what = if link { "a link" } else { "no file" };
        let first = name.split('/').next().unwrap_or(name);
        if link && (DATA.contains(&first) || matches!(name, "PG_VERSION" | "backup_label")) {
            return Err(Failure::failed(format!(
                "{} is a link, and what it leads to would be missing: put the files themselves in its place",
                path.display()
            )));
        }
        self.passed_over += 1;
        if self.tell == Tell::Yes && self.passed_over <= MOST_LINES {
            log::warn!("passed over {}: it is {what}", path.display());
        }
        Ok(())
    }
}
