//! Access to paths below an opened directory, never through a link.
//!
//! A [`Directory`] is a descriptor. Every file below it is named by a [`RelativePath`], which the kernel resolves (`openat2` with
//! `RESOLVE_BENEATH`, `RESOLVE_NO_SYMLINKS`, `RESOLVE_NO_MAGICLINKS`). So a link that an attacker creates, before or while this
//! program runs, cannot redirect it. Linux 5.6 or later is needed.
//!
//! Errors are [`std::io::Error`]s. Their text says which action failed on which path and why; their kind is the kernel's
//! (`NotFound`, `StorageFull`, ...). Two errors are this module's own: `InvalidInput` for something other than a regular file, and
//! `FileTooLarge`.

mod metadata;
mod path;
mod remove;
mod walk;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;

pub use metadata::{Birth, FileSystemSpace, Kind, Metadata};
pub use path::{NotRelative, RelativePath};
pub use remove::{Limit, Removed};
pub use walk::{Boundary, Found};

/// The flags with which every path below a directory is resolved.
const BENEATH: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// The flags for opening a directory to read its entries.
const READ_DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// The flags for opening a directory only to name its entries.
const NAME_DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// The suffix of the new file that [`Directory::replace`] writes before it renames it.
const REPLACEMENT: &str = ".understudy-new";

/// How many times an `openat2` that lost a race against a concurrent rename (EAGAIN) is repeated.
const RACES: u32 = 128;

/// An opened directory.
#[derive(Debug)]
pub struct Directory {
    descriptor: OwnedFd,
    /// The path of the directory when it was opened; for messages only.
    path: PathBuf,
}

impl Directory {
    /// Opens the directory at `path`. Follows links in `path`, because the operator chose it.
    ///
    /// # Errors
    /// Fails if it does not exist, is not a directory or cannot be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        let descriptor = rustix::fs::openat(CWD, path, READ_DIRECTORY, Mode::empty())
            .map_err(|errno| failed("open", path, errno))?;
        Ok(Self { descriptor, path: path.to_owned() })
    }

    /// Returns the path that the directory had when it was opened. Only for messages, because the directory may have been renamed since.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns a second handle of the same opened directory. Both handles share their locks.
    ///
    /// # Errors
    /// Fails if the process has no descriptor left.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { descriptor: self.descriptor.try_clone()?, path: self.path.clone() })
    }

    /// Opens the directory at `path`.
    ///
    /// # Errors
    /// Fails if it does not exist, is not a directory or cannot be read, or if a link is part of the path.
    pub fn open_directory(&self, path: &RelativePath) -> io::Result<Self> {
        let descriptor = self
            .resolve(path.as_os_str(), READ_DIRECTORY, Mode::empty(), BENEATH)
            .map_err(|errno| self.failed("open", path.as_path(), errno))?;
        Ok(Self { descriptor, path: self.path.join(path.as_path()) })
    }

    /// Opens a regular file for reading. Never blocks on a FIFO.
    ///
    /// # Errors
    /// Fails if it does not exist, is not a regular file or cannot be read, or if a link is part of the path.
    pub fn open_file(&self, path: &RelativePath) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let descriptor = self
            .resolve(path.as_os_str(), flags, Mode::empty(), BENEATH)
            .map_err(|errno| self.failed("open", path.as_path(), errno))?;
        let status =
            rustix::fs::fstat(&descriptor).map_err(|errno| self.failed("look at", path.as_path(), errno))?;
        if Metadata::from(status).kind != Kind::File {
            let message = format!("{} is not a regular file", self.path.join(path.as_path()).display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        Ok(File::from(descriptor))
    }

    /// Creates a file for writing with these permission bits, less the umask.
    ///
    /// # Errors
    /// `AlreadyExists` if anything of that name exists, a link included.
    pub fn create_file(&self, path: &RelativePath, mode: u32) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        self.resolve(path.as_os_str(), flags, Mode::from_raw_mode(mode & 0o7777), BENEATH)
            .map(File::from)
            .map_err(|errno| self.failed("create", path.as_path(), errno))
    }

    /// Creates a directory with these permission bits, less the umask.
    ///
    /// # Errors
    /// `AlreadyExists` if anything of that name exists, a link included.
    pub fn create_directory(&self, path: &RelativePath, mode: u32) -> io::Result<()> {
        let mode = Mode::from_raw_mode(mode & 0o7777);
        self.at(path, "create the directory", |directory, name| rustix::fs::mkdirat(directory, name, mode))
    }

    /// Creates a symbolic link at `path` that points to `target`.
    ///
    /// # Errors
    /// `AlreadyExists` if anything of that name exists.
    pub fn create_link(&self, path: &RelativePath, target: &Path) -> io::Result<()> {
        self.at(path, "create the link", |directory, name| rustix::fs::symlinkat(target, directory, name))
    }

    /// Returns the target of a symbolic link.
    ///
    /// # Errors
    /// `InvalidInput` if it is not a link.
    pub fn read_link(&self, path: &RelativePath) -> io::Result<PathBuf> {
        let target = self.at(path, "read the link", |directory, name| {
            rustix::fs::readlinkat(directory, name, Vec::new())
        })?;
        Ok(PathBuf::from(OsString::from_vec(target.into_bytes())))
    }

    /// Returns the metadata of `path`. Does not follow a link, but returns its own metadata.
    ///
    /// # Errors
    /// `NotFound` if nothing is there.
    pub fn metadata(&self, path: &RelativePath) -> io::Result<Metadata> {
        self.at(path, "look at", |directory, name| {
            rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
        })
        .map(Metadata::from)
    }

    /// Returns the metadata of `path`; `None` if nothing is there.
    ///
    /// # Errors
    /// Fails if they cannot be read.
    pub fn find(&self, path: &RelativePath) -> io::Result<Option<Metadata>> {
        match self.metadata(path) {
            Ok(metadata) => Ok(Some(metadata)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the metadata of the directory itself.
    ///
    /// # Errors
    /// Fails if they cannot be read.
    pub fn own_metadata(&self) -> io::Result<Metadata> {
        rustix::fs::fstat(&self.descriptor)
            .map(Metadata::from)
            .map_err(|errno| failed("look at", &self.path, errno))
    }

    /// Returns the free space on the directory's file system.
    ///
    /// # Errors
    /// Fails if the file system does not report it.
    pub fn space(&self) -> io::Result<FileSystemSpace> {
        rustix::fs::fstatvfs(&self.descriptor)
            .map(FileSystemSpace::from)
            .map_err(|errno| failed("ask for the free space of", &self.path, errno))
    }

    /// Removes a file, a link or a special file.
    ///
    /// # Errors
    /// `NotFound` if nothing is there; `IsADirectory` for a directory.
    pub fn remove_file(&self, path: &RelativePath) -> io::Result<()> {
        self.at(path, "remove", |directory, name| rustix::fs::unlinkat(directory, name, AtFlags::empty()))
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// `DirectoryNotEmpty` if it has entries.
    pub fn remove_directory(&self, path: &RelativePath) -> io::Result<()> {
        self.at(path, "remove the directory", |directory, name| {
            rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR)
        })
    }

    /// Renames `from` to `to`. Replaces a file that has the new name.
    ///
    /// # Errors
    /// Fails if the old name does not exist or if the new name is a directory, unless that is empty and the old name is a directory too.
    pub fn rename(&self, from: &RelativePath, to: &RelativePath) -> io::Result<()> {
        self.rename_with(from, to, RenameFlags::empty())
    }

    /// Renames `from` to `to`, a name that must be free.
    ///
    /// # Errors
    /// `AlreadyExists` if something has the new name.
    pub fn rename_to_free_name(&self, from: &RelativePath, to: &RelativePath) -> io::Result<()> {
        self.rename_with(from, to, RenameFlags::NOREPLACE)
    }

    fn rename_with(&self, from: &RelativePath, to: &RelativePath, flags: RenameFlags) -> io::Result<()> {
        self.at(to, "reach", |to_directory, to_name| {
            Ok(self.at(from, "rename", |from_directory, from_name| {
                rustix::fs::renameat_with(from_directory, from_name, to_directory, to_name, flags)
            }))
        })?
    }

    /// Sets the permission bits of a file or directory.
    ///
    /// # Errors
    /// Fails if it does not exist, is a link or belongs to another user.
    pub fn set_mode(&self, path: &RelativePath, mode: u32) -> io::Result<()> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.resolve(path.as_os_str(), flags, Mode::empty(), BENEATH)
            .and_then(|descriptor| chmod_opened(descriptor.as_fd(), mode))
            .map_err(|errno| self.failed("set the mode of", path.as_path(), errno))
    }

    /// Sets the permission bits of the directory itself.
    ///
    /// # Errors
    /// Fails if it belongs to another user.
    pub fn set_own_mode(&self, mode: u32) -> io::Result<()> {
        rustix::fs::fchmod(&self.descriptor, Mode::from_raw_mode(mode & 0o7777))
            .map_err(|errno| failed("set the mode of", &self.path, errno))
    }

    /// Reads a whole file of at most `limit` bytes.
    ///
    /// # Errors
    /// `FileTooLarge` if it is longer; otherwise as [`Directory::open_file`].
    pub fn read(&self, path: &RelativePath, limit: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = self.open_file(path)?;
        file.take(limit.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|error| self.failed_io("read", path.as_path(), &error))?;
        if bytes.len() as u64 > limit {
            let message = format!(
                "{} is longer than the {limit} bytes it may have",
                self.path.join(path.as_path()).display()
            );
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
        }
        Ok(bytes)
    }

    /// Writes a file with these bytes and permission bits at `path` atomically: after a crash the path has
    /// either the old file or the new file. The new file is on disk when this returns.
    ///
    /// # Errors
    /// Fails if the new file cannot be written, in which case the old one is unchanged, or if the directory cannot be synced after
    /// the new file has replaced it.
    pub fn replace(&self, path: &RelativePath, bytes: &[u8], mode: u32) -> io::Result<()> {
        let mut name = path.as_os_str().to_owned();
        name.push(REPLACEMENT);
        let new = RelativePath::new(name).map_err(io::Error::other)?;
        match self.remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = self.create_file(&new, mode)?;
        let written = rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o7777))
            .map_err(io::Error::from)
            .and_then(|()| file.write_all(bytes))
            .and_then(|()| file.sync_all())
            .map_err(|error| self.failed_io("write", new.as_path(), &error))
            .and_then(|()| self.rename(&new, path));
        if written.is_err() {
            // The error to report is the write error, whether or not the useless new file can be removed.
            let _ = self.remove_file(&new);
        }
        written?;
        match path.parent() {
            Some(parent) => self.open_directory(&parent)?.sync(),
            None => self.sync(),
        }
    }

    /// Syncs the directory's entries to disk.
    ///
    /// # Errors
    /// Fails if the disk fails. EINVAL and EBADF, from a file system that cannot sync directories, count as success, as in
    /// PostgreSQL's `fsync_fname`.
    pub fn sync(&self) -> io::Result<()> {
        match rustix::fs::fsync(&self.descriptor) {
            Ok(()) | Err(Errno::INVAL | Errno::BADF) => Ok(()),
            Err(errno) => Err(failed("sync", &self.path, errno)),
        }
    }

    /// Syncs the directory's whole file system to disk.
    ///
    /// # Errors
    /// Fails if the disk fails.
    pub fn sync_file_system(&self) -> io::Result<()> {
        rustix::fs::syncfs(&self.descriptor)
            .map_err(|errno| failed("sync the file system of", &self.path, errno))
    }

    /// Calls `visit` with the name of each entry, except `.` and `..`, until it returns false.
    ///
    /// # Errors
    /// Fails if the directory cannot be read or `visit` fails.
    pub fn names(&self, visit: &mut dyn FnMut(&OsStr) -> io::Result<bool>) -> io::Result<()> {
        let entries = rustix::fs::Dir::read_from(&self.descriptor)
            .map_err(|errno| failed("read", &self.path, errno))?;
        for entry in entries {
            let entry = entry.map_err(|errno| failed("read", &self.path, errno))?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." && !visit(OsStr::from_bytes(name))? {
                break;
            }
        }
        Ok(())
    }

    /// Returns whether the directory has no entries, hidden files included.
    ///
    /// # Errors
    /// Fails if it cannot be read.
    pub fn is_empty(&self) -> io::Result<bool> {
        let mut empty = true;
        self.names(&mut |_| {
            empty = false;
            Ok(false)
        })?;
        Ok(empty)
    }

    /// Returns whether a file system is mounted at this entry, or at a directory on the path to it.
    ///
    /// # Errors
    /// Fails if it does not exist or cannot be opened.
    pub fn is_mount_point(&self, path: &RelativePath) -> io::Result<bool> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match self.resolve(path.as_os_str(), flags, Mode::empty(), BENEATH.union(ResolveFlags::NO_XDEV)) {
            Ok(_) => Ok(false),
            Err(Errno::XDEV) => Ok(true),
            Err(errno) => Err(self.failed("look at", path.as_path(), errno)),
        }
    }

    /// Calls `work` with the directory that contains the last component of `path`, and with that component.
    fn at<T>(
        &self,
        path: &RelativePath,
        action: &'static str,
        work: impl FnOnce(BorrowedFd<'_>, &OsStr) -> rustix::io::Result<T>,
    ) -> io::Result<T> {
        match path.parent() {
            None => work(self.descriptor.as_fd(), path.as_os_str()),
            Some(parent) => self
                .resolve(parent.as_os_str(), NAME_DIRECTORY, Mode::empty(), BENEATH)
                .and_then(|directory| work(directory.as_fd(), path.file_name())),
        }
        .map_err(|errno| self.failed(action, path.as_path(), errno))
    }

    fn resolve(
        &self,
        path: &OsStr,
        flags: OFlags,
        mode: Mode,
        resolve: ResolveFlags,
    ) -> rustix::io::Result<OwnedFd> {
        resolve_at(self.descriptor.as_fd(), path, flags, mode, resolve)
    }

    fn failed(&self, action: &'static str, path: &Path, errno: Errno) -> io::Error {
        failed(action, &self.path.join(path), errno)
    }

    fn failed_io(&self, action: &'static str, path: &Path, error: &io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("cannot {action} {}: {error}", self.path.join(path).display()))
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Resolves `path` below `directory`. Repeats the call after EINTR and EAGAIN.
fn resolve_at(
    directory: BorrowedFd<'_>,
    path: impl rustix::path::Arg + Copy,
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> rustix::io::Result<OwnedFd> {
    let mut races = 0;
    loop {
        match rustix::fs::openat2(directory, path, flags, mode, resolve) {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if races < RACES => races += 1,
            result => return result,
        }
    }
}

/// Sets the mode of the file behind an `O_PATH` descriptor, through the descriptor's path in /proc: before Linux 6.6, every other way needs
/// a name, which an attacker could replace with a link.
fn chmod_opened(descriptor: BorrowedFd<'_>, mode: u32) -> rustix::io::Result<()> {
    use std::os::fd::AsRawFd;
    if Metadata::from(rustix::fs::fstat(descriptor)?).kind == Kind::Link {
        return Err(Errno::LOOP);
    }
    let opened = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
    rustix::fs::chmodat(CWD, opened, Mode::from_raw_mode(mode & 0o7777), AtFlags::empty())
}

/// Returns an error whose text names the action, the path and the cause.
fn failed(action: &'static str, path: &Path, errno: Errno) -> io::Error {
    let path = path.display();
    let kind = io::Error::from(errno).kind();
    let message = match errno {
        Errno::NOSYS => {
            format!("cannot {action} {path}: the kernel has no openat2; Linux 5.6 or later is needed")
        }
        Errno::LOOP => {
            format!(
                "cannot {action} {path}: it is, or lies behind, a symbolic link, and links are not followed here"
            )
        }
        Errno::XDEV => format!("cannot {action} {path}: it is a mount point, or lies behind one"),
        errno => format!("cannot {action} {path}: {}", io::Error::from(errno)),
    };
    io::Error::new(kind, message)
}

#[cfg(test)]
mod tests;
