//! Walks everything below a directory. Follows no links and enters no other file system.

use std::ffi::{CStr, OsStr};
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::{BENEATH, Directory, Kind, Metadata, READ_DIRECTORY, failed, resolve_at};

/// Why the walk does not enter a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boundary {
    /// Another file system is mounted at the directory.
    MountPoint,
    /// The directory is deeper than the limit.
    TooDeep,
    /// This user may not read the directory.
    Unreadable,
}

/// An entry that the walk found.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// The path of the entry, relative to the directory that is walked.
    pub path: &'a Path,
    /// The metadata of the entry; if the entry is a link, the metadata of the link itself.
    pub metadata: Metadata,
    /// Why the walk does not enter this directory; `None` if it does, or if this is not a directory.
    pub boundary: Option<Boundary>,
}

impl Directory {
    /// Calls `visit` with every entry below the directory, a directory before its entries, until `visit` breaks. Directories down
    /// to `depth` are entered (1: directly below); each level takes one descriptor. Entries that vanish during the walk are
    /// skipped.
    ///
    /// # Errors
    /// Fails if the metadata of an entry cannot be read, or `visit` fails.
    pub fn walk(
        &self,
        depth: usize,
        visit: &mut dyn FnMut(Found<'_>) -> io::Result<ControlFlow<()>>,
    ) -> io::Result<()> {
        let read_error = |path: &Path, errno| failed("read", &self.path.join(path), errno);
        let mut path = PathBuf::new();
        let mut levels = vec![Dir::read_from(self.as_fd()).map_err(|errno| read_error(&path, errno))?];
        loop {
            let too_deep = levels.len() > depth;
            let Some(level) = levels.last_mut() else { return Ok(()) };
            let Some(entry) = level.read() else {
                levels.pop();
                path.pop();
                continue;
            };
            let entry = entry.map_err(|errno| read_error(&path, errno))?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            path.push(OsStr::from_bytes(name.to_bytes()));
            let here = level.fd().map_err(|errno| read_error(&path, errno))?;
            let metadata = match rustix::fs::statat(here, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(status) => Metadata::from(status),
                Err(Errno::NOENT) => {
                    path.pop();
                    continue;
                }
                Err(errno) => return Err(failed("look at", &self.path.join(&path), errno)),
            };
            let opened = match metadata.kind {
                Kind::Directory => enter(here, name, too_deep),
                Kind::File | Kind::Link | Kind::Special => Ok(Entered::Not(None)),
            };
            let (opened, boundary) = match opened {
                Ok(Entered::Opened(directory)) => (Some(directory), None),
                Ok(Entered::Not(boundary)) => (None, boundary),
                Err(errno) => return Err(failed("open", &self.path.join(&path), errno)),
            };
            if visit(Found { path: &path, metadata, boundary })?.is_break() {
                return Ok(());
            }
            match opened {
                Some(directory) => {
                    levels.push(Dir::new(directory).map_err(|errno| read_error(&path, errno))?)
                }
                None => {
                    path.pop();
                }
            }
        }
    }
}

enum Entered {
    Opened(OwnedFd),
    Not(Option<Boundary>),
}

fn enter(parent: BorrowedFd<'_>, name: &CStr, too_deep: bool) -> rustix::io::Result<Entered> {
    let flags = if too_deep { super::NAME_DIRECTORY } else { READ_DIRECTORY };
    match resolve_at(
        parent,
        name,
        flags | OFlags::NOFOLLOW,
        Mode::empty(),
        BENEATH.union(ResolveFlags::NO_XDEV),
    ) {
        Ok(_) if too_deep => Ok(Entered::Not(Some(Boundary::TooDeep))),
        Ok(directory) => Ok(Entered::Opened(directory)),
        Err(Errno::XDEV) => Ok(Entered::Not(Some(Boundary::MountPoint))),
        Err(Errno::ACCESS) => Ok(Entered::Not(Some(Boundary::Unreadable))),
        // The directory was removed or replaced after its metadata were read.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(Entered::Not(None)),
        Err(errno) => Err(errno),
    }
}
