//! What is known of a file and of the file system that it is on.

use rustix::fs::{FileType, Stat, StatVfs};

/// What a directory entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link, itself.
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

/// What is known of a file, a directory or a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// What it is.
    pub kind: Kind,
    /// Its length in bytes.
    pub length: u64,
    /// The bytes that it takes on disk.
    pub allocated: u64,
    /// Its permission bits, with set-user-id, set-group-id and the sticky bit: at most 0o7777.
    pub mode: u32,
    /// The user that it belongs to.
    pub user: u32,
    /// The group that it belongs to.
    pub group: u32,
    /// How many names it has.
    pub names: u64,
    /// The device of the file system that it is on.
    pub device: u64,
    /// Its number on that file system.
    pub inode: u64,
}

impl Metadata {
    /// Device and inode: which file it is, whatever its name.
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

/// What is free on a file system for a user without privileges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSystemSpace {
    /// Bytes.
    pub bytes: u64,
    /// Inodes; none where the file system makes them as they are needed (btrfs).
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
