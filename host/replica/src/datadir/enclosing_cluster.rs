//! Finds the cluster that encloses a directory: no directory of a run may lie inside another cluster. Loop rules 24 and 25.

use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use postgres_formats::names::{self, TablespaceFolder};

use super::contents::AllowedContents;
use crate::mounts::{Mounts, real_path};

/// A directory that is part of a cluster and in which another path lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnclosingCluster {
    directory: PathBuf,
    why: &'static str,
    /// The path that shows that the directory is part of a cluster: one of its entries, or the directory itself.
    sign: PathBuf,
}

impl fmt::Display for EnclosingCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "inside another cluster: {} {}; it must lie apart from every cluster, and --force does not change that; if that is not a \
             cluster, rename or remove {}",
            self.directory.display(),
            self.why,
            self.sign.display()
        )
    }
}

impl EnclosingCluster {
    /// Returns the directory, with what shows that it is part of a cluster; `None` if nothing shows that.
    fn of(directory: &Path) -> Option<Self> {
        let (why, entry) = sign(directory)?;
        let sign = entry.map_or_else(|| directory.to_owned(), |entry| directory.join(entry));
        Some(Self { directory: directory.to_owned(), why, sign })
    }
}

/// Returns the cluster in which a directory lies; `None` if it lies in none. The directory itself may be the data directory of a cluster.
pub(super) fn cluster_enclosing(directory: &Path) -> Option<EnclosingCluster> {
    let named = TablespaceFolder::parse(directory.file_name()?.as_bytes());
    let own = named.map(|_| EnclosingCluster {
        directory: directory.to_owned(),
        why: OF_A_TABLESPACE,
        sign: directory.to_owned(),
    });
    above(directory, 1).or(own)
}

/// Returns the cluster in which a file or a directory lies, or to which it belongs itself; `None` if there is none.
pub fn cluster_of(path: &Path) -> Option<EnclosingCluster> {
    above(path, 0)
}

/// Returns the topmost directory among the path and its ancestors that is part of a cluster; ignores the first `skipped` of them. Looks at
/// the path as it is written, at the path without links, and at every other path that a mount gives to the same file.
fn above(path: &Path, skipped: usize) -> Option<EnclosingCluster> {
    // A `..` after a link leads to the parent of the link's target, and not to the directory before the link.
    let is_plain = !path.components().any(|component| component == Component::ParentDir);
    let written = is_plain.then(|| highest(path.ancestors().skip(skipped))).flatten();
    written.or_else(|| {
        let real = real_path(path);
        highest(real.ancestors().skip(skipped)).or_else(|| through_mounts(&real, skipped))
    })
}

fn through_mounts(real: &Path, skipped: usize) -> Option<EnclosingCluster> {
    let identity = |path: &Path| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    let (there, own) = real.ancestors().find_map(|path| Some((path, identity(path)?)))?;
    let skipped = if there == real { skipped } else { 0 };
    // If another mount hides a path, the path leads to another file.
    let paths = Mounts::of_this_process().paths(there).into_iter().filter(|path| identity(path) == Some(own));
    let mut found = paths.filter_map(|path| highest(path.ancestors().skip(skipped)));
    found.next()
}

fn highest<'a>(directories: impl Iterator<Item = &'a Path>) -> Option<EnclosingCluster> {
    directories.filter_map(EnclosingCluster::of).last()
}

const HOLDS_PG_VERSION: &str = "holds PG_VERSION";
const HOLDS_PG_CONTROL: &str = "holds global/pg_control";
const OF_A_TABLESPACE: &str = "is the folder of a cluster's tablespace";
const IS_WAL: &str = "is a WAL directory (it holds archive_status)";

/// Returns what shows that a directory is part of a cluster; `None` if nothing does. The second part is the entry of the directory that
/// shows it; `None` if the directory's own name shows it.
///
/// PG_VERSION is in the data directory and in the directory of each database. pg_control is in `global`, under its unfinished name in an
/// unfinished replica. The folder of a tablespace has a special name. `archive_status` is in every WAL directory.
fn sign(directory: &Path) -> Option<(&'static str, Option<&'static str>)> {
    let has = |name: &&str| directory.join(name).symlink_metadata().is_ok();
    let is_folder =
        || directory.file_name().is_some_and(|name| TablespaceFolder::parse(name.as_bytes()).is_some());
    if let Some(name) = Some(names::PG_VERSION).filter(has) {
        Some((HOLDS_PG_VERSION, Some(name)))
    } else if let Some(name) = [names::CONTROL_FILE, names::UNFINISHED_CONTROL_FILE].into_iter().find(has) {
        Some((HOLDS_PG_CONTROL, Some(name)))
    } else if is_folder() {
        Some((OF_A_TABLESPACE, None))
    } else {
        Some(names::ARCHIVE_STATUS).filter(has).map(|name| (IS_WAL, Some(name)))
    }
}

/// Judges an entry below a directory that is to be emptied, by the signs of [`sign`]. Returns the directory of another cluster whose sign
/// the entry is, and what the sign is; `None` if the entry is not a sign, or is a sign of the directory's own cluster. `below` is the path
/// of the entry, relative to the directory to be emptied. `allowed` says what a mapped directory may hold; `None` means a data directory.
pub(super) fn part_of_another(
    below: &Path,
    allowed: Option<AllowedContents>,
) -> Option<(&Path, &'static str)> {
    let name = below.file_name()?;
    let directory = below.parent().unwrap_or(Path::new(""));
    let parts = || directory.iter().map(OsStrExt::as_bytes).collect::<Vec<_>>();
    let is_number = |name: &[u8]| !name.is_empty() && name.iter().all(u8::is_ascii_digit);
    let is_folder = |name: &[u8]| TablespaceFolder::parse(name).is_some();
    let (is_own, found) = if name == names::PG_VERSION {
        let is_own = match (allowed, parts().as_slice()) {
            (None, []) => true,
            (None, [b"base", database]) => is_number(database),
            (Some(AllowedContents::TablespaceFolders), [folder, database]) => {
                is_folder(folder) && is_number(database)
            }
            (None | Some(_), _) => false,
        };
        (is_own, (directory, HOLDS_PG_VERSION))
    } else if below.ends_with(names::CONTROL_FILE) || below.ends_with(names::UNFINISHED_CONTROL_FILE) {
        let top = directory.parent().unwrap_or(Path::new(""));
        (allowed.is_none() && top.as_os_str().is_empty(), (top, HOLDS_PG_CONTROL))
    } else if is_folder(name.as_bytes()) {
        let is_own = allowed == Some(AllowedContents::TablespaceFolders) && directory.as_os_str().is_empty();
        (is_own, (below, OF_A_TABLESPACE))
    } else if name == names::ARCHIVE_STATUS {
        let is_own = match (allowed, parts().as_slice()) {
            // `pg_xlog` before PostgreSQL 10.
            (None, [b"pg_wal" | b"pg_xlog"]) | (Some(AllowedContents::Wal), []) => true,
            (None | Some(_), _) => false,
        };
        (is_own, (directory, IS_WAL))
    } else {
        return None;
    };
    (!is_own).then_some(found)
}
