//! What stands in the state file.

use std::fmt::Write;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use foundation::rooted::Directory;
use serde::{Deserialize, Serialize};

use super::process::{self, ProcessStamp};

/// The version of the file's form.
pub(super) const VERSION: u32 = 1;

/// Which directory it is, and no other that has its path, or was given its inode, since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryStamp {
    device: u64,
    inode: u64,
    born: Option<String>,
}

impl DirectoryStamp {
    /// The stamp of an opened directory.
    ///
    /// # Errors
    /// Where its file system cannot be asked.
    pub(crate) fn of(directory: &Directory) -> io::Result<Self> {
        let (device, inode) = directory.own_metadata()?.identity();
        Ok(Self { device, inode, born: directory.birth()?.map(|birth| birth.to_string()) })
    }

    /// Device and inode.
    pub(crate) fn identity(&self) -> (u64, u64) {
        (self.device, self.inode)
    }

    /// Whether the file system says when the directory was made.
    pub(crate) fn can_be_recognised(&self) -> bool {
        self.born.is_some()
    }

    #[cfg(test)]
    pub(crate) fn for_test((device, inode): (u64, u64), born: Option<&str>) -> Self {
        Self { device, inode, born: born.map(str::to_owned) }
    }
}

/// What one state file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The version of this form.
    pub(super) version: u32,
    /// The data directory's real path; bytes that are not UTF-8, and `%`, as `%` and two hexadecimal digits.
    pub real_path: String,
    /// The device of the directory that the run works on, whatever is at that path by now.
    pub device: u64,
    /// Its inode.
    pub inode: u64,
    /// When it was made, by its file system's clock, for an inode is given again. `None` where the file system does not say, and in
    /// files of older versions: what is unfinished there is not taken for this program's.
    #[serde(default)]
    pub born: Option<String>,
    /// The boot during which this was written: `/proc/sys/kernel/random/boot_id`.
    pub boot_id: String,
    /// The process numbering that the stamps are of; that of another container means nothing here.
    pub pid_namespace: String,
    /// The run that works; none between runs.
    pub host: Option<HostStamp>,
    /// The method at work.
    pub method: Option<String>,
    /// The native processes that the run started, each the leader of its group.
    pub processes: Vec<ProcessStamp>,
    /// What is in the directory is unfinished work of this program.
    pub unfinished: bool,
    /// The mapped directories of which the same holds.
    pub places: Vec<PlaceStamp>,
    /// How the last run ended, the word of the report.
    pub last_result: Option<String>,
}

/// The process of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostStamp {
    /// The process.
    #[serde(flatten)]
    pub process: ProcessStamp,
    /// When the run took the directory.
    pub since: jiff::Timestamp,
}

/// A mapped directory as the next run can recognise it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlaceStamp {
    /// Its real path, written as [`Record::real_path`] is.
    pub real_path: String,
    /// Its device.
    pub device: u64,
    /// Its inode.
    pub inode: u64,
    /// When it was made, as [`Record::born`].
    #[serde(default)]
    pub born: Option<String>,
}

impl PlaceStamp {
    pub(crate) fn new(real_path: &Path, stamp: &DirectoryStamp) -> Self {
        let DirectoryStamp { device, inode, born } = stamp.clone();
        Self { real_path: written(real_path.as_os_str().as_bytes()), device, inode, born }
    }

    /// Whether it is surely the directory of the other stamp.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.born.is_some() && self == other
    }
}

impl Record {
    /// A record of this process at work on a directory.
    pub(super) fn of_this_process(real_path: &Path, stamp: &DirectoryStamp) -> io::Result<Self> {
        let DirectoryStamp { device, inode, born } = stamp.clone();
        Ok(Self {
            version: VERSION,
            real_path: written(real_path.as_os_str().as_bytes()),
            device,
            inode,
            born,
            boot_id: process::boot_id()?,
            pid_namespace: process::pid_namespace()?,
            host: Some(HostStamp {
                process: ProcessStamp::of_this_process()?,
                since: jiff::Timestamp::now(),
            }),
            method: None,
            processes: Vec::new(),
            unfinished: false,
            places: Vec::new(),
            last_result: None,
        })
    }

    /// Whether it is about a directory with this device and inode, and not about another one that had its path. A later one may have
    /// been given the inode: [`Record::is_surely_about`] tells.
    pub fn is_about(&self, identity: (u64, u64)) -> bool {
        (self.device, self.inode) == identity
    }

    /// Whether it is about this very directory.
    pub fn is_surely_about(&self, stamp: &DirectoryStamp) -> bool {
        self.is_about(stamp.identity()) && self.born.is_some() && self.born == stamp.born
    }

    /// Makes it one about the empty directory that has taken the place of the one that it was about.
    pub(crate) fn is_now_about(&mut self, stamp: &DirectoryStamp) {
        let DirectoryStamp { device, inode, born } = stamp.clone();
        (self.device, self.inode, self.born) = (device, inode, born);
    }

    /// Whether this very process wrote it, having taken the directory before and let it go without a word.
    pub(crate) fn is_of_this_process(&self) -> bool {
        self.host.is_some_and(|host| ProcessStamp::of_this_process().is_ok_and(|own| own == host.process))
    }

    /// Whether the mark `unfinished` stands for this directory.
    pub(crate) fn is_unfinished(&self, stamp: &DirectoryStamp) -> bool {
        self.unfinished && self.is_surely_about(stamp)
    }
}

/// A path's bytes as text: UTF-8 as it is, other bytes and `%` escaped.
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
