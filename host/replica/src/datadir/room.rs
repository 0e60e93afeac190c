//! Measures the room on the file systems of the operator's directories, now and once they are emptied.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use foundation::rooted::{Boundary, Directory, Kind};

use super::DataDirectory;
use crate::Bytes;

/// The depth to which old data is walked, in directories. PostgreSQL nests five deep. Files below this depth are not counted.
const DEPTH: usize = 48;

/// The room on one file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSystemRoom {
    /// The file system's device.
    pub device: u64,
    /// The real paths of the data directory and the mapped directories that lie on it.
    pub places: Vec<PathBuf>,
    /// The bytes that a user without privileges can still write.
    pub free: Bytes,
    /// How many files and directories can still be created; `None` if the file system creates inodes on demand.
    pub free_files: Option<u64>,
    /// The bytes that `EmptyScope::Everything` frees in addition.
    pub reclaimable: Bytes,
    /// How many files and directories `EmptyScope::Everything` removes.
    pub reclaimable_files: u64,
}

impl DataDirectory {
    /// Returns the room on each file system of the data directory and the mapped directories. Walks the old data. Blocking.
    ///
    /// Does not count files with several names (hard links), because their bytes may stay, nor directories that cannot be read.
    ///
    /// # Errors
    /// Fails if a file cannot be examined, or if another file system is mounted inside a directory that would be emptied, because
    /// emptying would stop there. The message names the mount point.
    pub fn room(&self) -> io::Result<Vec<FileSystemRoom>> {
        let mut room = Vec::new();
        add(&mut room, &self.real_path, &self.directory, &|_| true)?;
        for place in &self.mapped {
            add(&mut room, place.real_path(), place.directory(), &|name| place.emptying_removes(name))?;
        }
        Ok(room)
    }
}

fn add(
    room: &mut Vec<FileSystemRoom>,
    real_path: &Path,
    directory: &Directory,
    is_removed: &dyn Fn(&std::ffi::OsStr) -> bool,
) -> io::Result<()> {
    let device = directory.own_metadata()?.device;
    let (bytes, files) = reclaimable(directory, is_removed)?;
    match room.iter_mut().find(|one| one.device == device) {
        Some(one) => {
            one.places.push(real_path.to_owned());
            one.reclaimable.0 = one.reclaimable.0.saturating_add(bytes);
            one.reclaimable_files = one.reclaimable_files.saturating_add(files);
        }
        None => {
            let space = directory.space()?;
            room.push(FileSystemRoom {
                device,
                places: vec![real_path.to_owned()],
                free: Bytes(space.bytes),
                free_files: space.inodes,
                reclaimable: Bytes(bytes),
                reclaimable_files: files,
            });
        }
    }
    Ok(())
}

/// Walks `directory` once and counts the bytes and files below each top entry that `is_removed` accepts, as [`DataDirectory::room`] does.
pub(super) fn reclaimable(
    directory: &Directory,
    is_removed: &dyn Fn(&std::ffi::OsStr) -> bool,
) -> io::Result<(u64, u64)> {
    reclaimable_seen(directory, is_removed, &mut |_| {})
}

/// Does the same as [`reclaimable`], and calls `see` for each path that it visits.
pub(super) fn reclaimable_seen(
    directory: &Directory,
    is_removed: &dyn Fn(&std::ffi::OsStr) -> bool,
    see: &mut dyn FnMut(&Path),
) -> io::Result<(u64, u64)> {
    let (mut bytes, mut files) = (0_u64, 0_u64);
    directory.walk(DEPTH, &mut |found| {
        let top = found.path.iter().next().unwrap_or_default();
        if !is_removed(top) {
            return Ok(ControlFlow::Continue(()));
        }
        match found.boundary {
            Some(Boundary::MountPoint) => return Err(mounted(&directory.path().join(found.path))),
            Some(Boundary::TooDeep | Boundary::Unreadable) | None => {}
        }
        see(found.path);
        if found.metadata.kind == Kind::Directory || found.metadata.names == 1 {
            bytes = bytes.saturating_add(found.metadata.allocated);
            files = files.saturating_add(1);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok((bytes, files))
}

/// Returns the error about a file system that is mounted where something would be removed.
pub(super) fn mounted(path: &Path) -> io::Error {
    let message = format!(
        "another file system is mounted at {}, inside what would be emptied; unmount it, and give WAL or a \
         tablespace that belongs on it a directory outside with `wal_dir` or `tablespaces`",
        path.display()
    );
    io::Error::new(io::ErrorKind::CrossesDevices, message)
}
