//! The content of the state file.

use std::fmt::Write;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use foundation::rooted::Directory;
use serde::{Deserialize, Serialize};

use super::process::{self, ProcessIdentity};

/// The version of the file's format.
pub(super) const VERSION: u32 = 1;

/// The identity of a directory: it differs from that of another directory that later has the same path or the same inode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryIdentity {
    device: u64,
    inode: u64,
    born: Option<String>,
}

impl DirectoryIdentity {
    /// Returns the identity of an opened directory.
    ///
    /// # Errors
    /// Fails if the directory cannot be examined.
    pub(crate) fn of(directory: &Directory) -> io::Result<Self> {
        let (device, inode) = directory.own_metadata()?.identity();
        Ok(Self { device, inode, born: directory.birth()?.map(|birth| birth.to_string()) })
    }

    /// Returns device and inode.
    pub(crate) fn inode(&self) -> (u64, u64) {
        (self.device, self.inode)
    }

    /// Returns whether the file system records when a directory was created.
    pub(crate) fn can_be_recognised(&self) -> bool {
        self.born.is_some()
    }

    #[cfg(test)]
    pub(crate) fn for_test((device, inode): (u64, u64), born: Option<&str>) -> Self {
        Self { device, inode, born: born.map(str::to_owned) }
    }
}

/// The content of one state file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The version of the format.
    pub(super) version: u32,
    /// The data directory's real path; bytes that are not UTF-8, and `%`, are written as `%` and two hexadecimal digits.
    pub real_path: String,
    /// The device of the directory that the run works on. By now, another directory may be at that path.
    pub device: u64,
    /// Its inode.
    pub inode: u64,
    /// When it was created, by its file system's clock, because inodes are reused. `None` if the file system does not record that, and in
    /// state files of older versions; without it, unfinished work is not recognised as this program's.
    #[serde(default)]
    pub born: Option<String>,
    /// The boot during which this was written: `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// The PID namespace of the processes below; PIDs of another container mean nothing here.
    pub pid_namespace: String,
    /// The run that works on the directory; `None` between runs.
    pub host: Option<RunProcess>,
    /// The method that runs.
    pub method: Option<String>,
    /// The native processes that the run started, each the leader of its group.
    pub processes: Vec<ProcessIdentity>,
    /// Whether the content of the directory is unfinished work of this program.
    pub unfinished: bool,
    /// The mapped directories whose content is unfinished work of this program.
    pub places: Vec<PlaceIdentity>,
    /// How the last run ended, as the report has it.
    pub last_result: Option<String>,
}

/// The process of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunProcess {
    /// The process.
    #[serde(flatten)]
    pub process: ProcessIdentity,
    /// When the run took the directory.
    pub since: jiff::Timestamp,
}

/// A mapped directory, so that the next run can recognise it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceIdentity {
    /// Its real path, written as [`Record::real_path`] is.
    pub real_path: String,
    /// Its device.
    pub device: u64,
    /// Its inode.
    pub inode: u64,
    /// When it was created, as [`Record::born`].
    #[serde(default)]
    pub born: Option<String>,
}

impl PlaceIdentity {
    pub(crate) fn new(real_path: &Path, identity: &DirectoryIdentity) -> Self {
        let DirectoryIdentity { device, inode, born } = identity.clone();
        Self { real_path: written(real_path.as_os_str().as_bytes()), device, inode, born }
    }

    /// Returns whether both are certainly the same directory.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.born.is_some() && self == other
    }
}

impl Record {
    /// Returns the record of this process, which begins to work on a directory.
    pub(super) fn of_this_process(real_path: &Path, identity: &DirectoryIdentity) -> io::Result<Self> {
        let DirectoryIdentity { device, inode, born } = identity.clone();
        Ok(Self {
            version: VERSION,
            real_path: written(real_path.as_os_str().as_bytes()),
            device,
            inode,
            born,
            boot_id: process::boot_id()?,
            pid_namespace: process::pid_namespace()?,
            host: Some(RunProcess {
                process: ProcessIdentity::of_this_process()?,
                since: jiff::Timestamp::now(),
            }),
            method: None,
            processes: Vec::new(),
            unfinished: false,
            places: Vec::new(),
            last_result: None,
        })
    }

    /// Returns whether the record is about a directory with this device and inode. A newer directory may have the same inode, which
    /// [`Record::is_surely_about`] excludes.
    pub fn is_about(&self, inode: (u64, u64)) -> bool {
        (self.device, self.inode) == inode
    }

    /// Returns whether the record is certainly about this directory.
    pub fn is_surely_about(&self, identity: &DirectoryIdentity) -> bool {
        self.is_about(identity.inode()) && self.born.is_some() && self.born == identity.born
    }

    /// Makes the record describe the empty directory that has replaced the recorded directory.
    pub(crate) fn set_directory(&mut self, identity: &DirectoryIdentity) {
        let DirectoryIdentity { device, inode, born } = identity.clone();
        (self.device, self.inode, self.born) = (device, inode, born);
    }

    /// Returns whether this process wrote the record: it locked the directory before and released it without recording an end.
    pub(crate) fn is_of_this_process(&self) -> bool {
        self.host.is_some_and(|host| ProcessIdentity::of_this_process().is_ok_and(|own| own == host.process))
    }

    /// Returns whether the content of this directory is unfinished work.
    pub(crate) fn is_unfinished(&self, identity: &DirectoryIdentity) -> bool {
        self.unfinished && self.is_surely_about(identity)
    }
}

/// Returns a path's bytes as text. UTF-8 is not changed; other bytes and `%` are escaped.
pub(super) fn written(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '%' => text.push_str("%25"),
                character => text.push(character),
            }
        }
        for byte in chunk.invalid() {
            // Writing to a String does not fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}
