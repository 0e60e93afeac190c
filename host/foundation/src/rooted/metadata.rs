//! Metadata of files and of the file systems that they are on.

use std::fmt;
use std::io;

use rustix::fs::{AtFlags, FileType, Stat, StatVfs, StatxFlags};
use rustix::io::Errno;

use super::{Directory, failed};

/// The type of a directory entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A FIFO, socket or device.
    Special,
}

impl From<FileType> for Kind {
    fn from(kind: FileType) -> Self {
        match kind {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::Link,
            _ => Self::Special,
        }
    }
}

/// The metadata of a file, a directory or a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// The type.
    pub kind: Kind,
    /// The length in bytes.
    pub length: u64,
    /// The bytes that the file takes on disk.
    pub allocated: u64,
    /// The permission bits, with set-user-id, set-group-id and the sticky bit: at most 0o7777.
    pub mode: u32,
    /// The user that owns the file.
    pub user: u32,
    /// The group of the file.
    pub group: u32,
    /// The number of names (hard links) of the file.
    pub names: u64,
    /// The device of the file system that holds the file.
    pub device: u64,
    /// The inode number of the file on that device.
    pub inode: u64,
}

impl Metadata {
    /// Returns device and inode, which identify a file independently of its name.
    pub fn identity(&self) -> (u64, u64) {
        (self.device, self.inode)
    }
}

#[expect(clippy::unnecessary_cast, reason = "the fields' types differ from one architecture to the next")]
impl From<Stat> for Metadata {
    fn from(status: Stat) -> Self {
        Self {
            kind: FileType::from_raw_mode(status.st_mode).into(),
            length: u64::try_from(status.st_size).unwrap_or(0),
            allocated: u64::try_from(status.st_blocks).unwrap_or(0).saturating_mul(512),
            mode: status.st_mode & 0o7777,
            user: status.st_uid,
            group: status.st_gid,
            names: status.st_nlink as u64,
            device: status.st_dev as u64,
            inode: status.st_ino as u64,
        }
    }
}

/// The time at which a directory was created, by its file system's clock. It distinguishes the directory from a later one that got the same
/// inode number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Birth {
    seconds: i64,
    nanoseconds: u32,
}

impl fmt::Display for Birth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}", self.seconds, self.nanoseconds)
    }
}

impl Directory {
    /// Returns when the directory was created (statx(2), `STATX_BTIME`); `None` if its file system does not record that. ext4, xfs,
    /// btrfs, zfs and, since Linux 6.0, tmpfs do.
    ///
    /// # Errors
    /// Fails if the metadata cannot be read.
    pub fn birth(&self) -> io::Result<Option<Birth>> {
        let status = match rustix::fs::statx(self, c"", AtFlags::EMPTY_PATH, StatxFlags::BTIME) {
            Ok(status) => status,
            // A kernel or a container without statx.
            Err(Errno::NOSYS | Errno::PERM) => return Ok(None),
            Err(errno) => return Err(failed("look at", self.path(), errno)),
        };
        let birth = Birth { seconds: status.stx_btime.tv_sec, nanoseconds: status.stx_btime.tv_nsec };
        let is_given =
            status.stx_mask & StatxFlags::BTIME.bits() != 0 && (birth.seconds, birth.nanoseconds) != (0, 0);
        Ok(is_given.then_some(birth))
    }
}

/// The free space on a file system for an unprivileged user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSystemSpace {
    /// Bytes.
    pub bytes: u64,
    /// Inodes; `None` if the file system creates them on demand (btrfs).
    pub inodes: Option<u64>,
}

impl From<StatVfs> for FileSystemSpace {
    fn from(status: StatVfs) -> Self {
        Self {
            bytes: status.f_bavail.saturating_mul(status.f_frsize),
            inodes: (status.f_files != 0).then_some(status.f_favail),
        }
    }
}
