//! Reuses the content of the data directory (`keep_data`): keeps matching files, and removes files that are missing in the copy.

use std::fs;
use std::path::PathBuf;

use understudy::{Datadir, EntryKind, Failure, Request};

use crate::layout::Layout;
use crate::left_out::{EMPTIED, left_out};
use crate::links::{self, Leads};

/// When an existing file is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delta {
    /// Never. The data directory is emptied.
    Off,
    /// If the file has the same size and the same modification time in seconds.
    SizeAndTime,
    /// If the file has the same content. The host reads both files.
    Digest,
}

impl Delta {
    /// The names of the choices.
    pub(crate) const CHOICES: [&'static str; 3] = ["off", "size-and-time", "digest"];

    /// Reads the option `delta`.
    pub(crate) fn of(request: &Request) -> Result<Self, Failure> {
        match request.get::<String>("delta")?.as_deref() {
            None | Some("off") => Ok(Self::Off),
            Some("size-and-time") => Ok(Self::SizeAndTime),
            Some("digest") => Ok(Self::Digest),
            Some(other) => {
                Err(Failure::failed(format!("`delta = \"{other}\"` is none of {}", Self::CHOICES.join(", "))))
            }
        }
    }
}

/// Removes all files from the data directory, its WAL directory and its tablespaces that are missing in the copy.
pub(crate) fn remove_others(layout: &Layout, datadir: &Datadir) -> Result<(), Failure> {
    let folders: Vec<_> = layout
        .tablespaces
        .iter()
        .flat_map(|tablespace| tablespace.folders.iter().map(|(folder, _)| (tablespace.oid, folder.as_str())))
        .collect();
    datadir
        .remove_others(&folders, &mut |name, kind| left_out(name).is_none() && copy_has(layout, name, kind))
}

/// Returns whether the copy has an entry with this name and kind.
fn copy_has(layout: &Layout, name: &str, kind: EntryKind) -> bool {
    let Some(path) = source(layout, name) else { return false };
    // A directory whose content is left out is created empty, even if it is a link in the copy.
    let emptied = kind == EntryKind::Directory && EMPTIED.contains(&name);
    fs::symlink_metadata(&path).is_ok_and(|there| match kind {
        EntryKind::Directory => emptied || there.is_dir(),
        EntryKind::File if there.is_symlink() => matches!(links::follow(layout, &path), Leads::ToFile(_)),
        EntryKind::File => there.is_file(),
        EntryKind::Other => false,
    })
}

/// Returns the path that the entry `name` of a data directory has in the copy.
fn source(layout: &Layout, name: &str) -> Option<PathBuf> {
    if let Some(rest) = name.strip_prefix("pg_wal/") {
        return Some(layout.wal.join(rest));
    }
    let Some(rest) = name.strip_prefix("pg_tblspc/") else {
        return Some(layout.directory.join(name));
    };
    let mut parts = rest.splitn(3, '/');
    let oid = parts.next()?.parse::<u32>().ok()?;
    let folder = parts.next()?;
    let tablespace = layout.tablespaces.iter().find(|tablespace| tablespace.oid == oid)?;
    let (_, path) = tablespace.folders.iter().find(|(known, _)| known == folder)?;
    Some(parts.next().map_or_else(|| path.clone(), |rest| path.join(rest)))
}
