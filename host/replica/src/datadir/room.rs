//! The room on the file systems of the operator's directories, now and once they are emptied.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use foundation::rooted::{Boundary, Directory, Kind};

use super::DataDirectory;
use crate::Bytes;

/// How deep old data is looked at; PostgreSQL nests five deep. What lies deeper is not counted.
const DEPTH: usize = 48;

/// The room on one file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSystemRoom {
    /// The file system's device.
    pub device: u64,
    /// Which of the data directory and the mapped places lie on it, by their real paths.
    pub places: Vec<PathBuf>,
    /// What is free now for a user without privileges.
    pub free: Bytes,
    /// How many files and directories can still be made; none where the file system makes inodes as they are needed.
    pub free_files: Option<u64>,
    /// What `Extent::Everything` frees besides.
    pub reclaimable: Bytes,
    /// How many files and directories it removes.
    pub reclaimable_files: u64,
}

impl DataDirectory {
    /// The room on each file system that the data directory and the mapped places lie on. Walks the old data. Blocking.
    ///
    /// What has a second name (a hard link) is not counted, for its bytes may stay; nor what cannot be read.
    ///
    /// # Errors
    /// Where something cannot be looked at; where another file system is mounted in what would be emptied, which the
    /// message names, for emptying would stop there.
    pub fn room(&self) -> io::Result<Vec<FileSystemRoom>> {
        let mut room = Vec::new();
        add(&mut room, &self.real_path, &self.directory, &|_| true)?;
        for place in &self.mapped {
            add(&mut room, place.real_path(), place.directory(), &|name| place.is_emptied_of(name))?;
        }
        Ok(room)
    }
}

fn add(
    room: &mut Vec<FileSystemRoom>,
    real_path: &Path,
    directory: &Directory,
    emptied_of: &dyn Fn(&std::ffi::OsStr) -> bool,
) -> io::Result<()> {
    let device = directory.own_metadata()?.device;
    let (bytes, files) = reclaimable(directory, emptied_of)?;
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

/// Bytes and files of what is in `directory` and `emptied_of` allows, by one walk; as [`DataDirectory::room`] counts them.
pub(super) fn reclaimable(
    directory: &Directory,
    emptied_of: &dyn Fn(&std::ffi::OsStr) -> bool,
) -> io::Result<(u64, u64)> {
    reclaimable_seen(directory, emptied_of, &mut |_| {})
}

/// The same, with each path that counts shown to `see`.
pub(super) fn reclaimable_seen(
    directory: &Directory,
    emptied_of: &dyn Fn(&std::ffi::OsStr) -> bool,
    see: &mut dyn FnMut(&Path),
) -> io::Result<(u64, u64)> {
    let (mut bytes, mut files) = (0_u64, 0_u64);
    directory.walk(DEPTH, &mut |found| {
        let top = found.path.iter().next().unwrap_or_default();
        if !emptied_of(top) {
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

/// The error about a file system that is mounted where something would be removed.
pub(super) fn mounted(path: &Path) -> io::Error {
    let message = format!(
        "another file system is mounted at {}, inside what would be emptied; unmount it, and give WAL or a \
         tablespace that belongs on it a directory outside with `wal_dir` or `tablespaces`",
        path.display()
    );
    io::Error::new(io::ErrorKind::CrossesDevices, message)
}
