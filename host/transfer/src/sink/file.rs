//! Writes a file and checks its size, its digest and the disk budget while it does.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::{Advice, AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;

use super::destination::Destination;
use super::directories::{Directories, create, failed, look, open};
use crate::digest::{Digest, Hasher};
use crate::error::{Error, Kind};
use crate::pages::PageChecker;
use crate::target::Place;

/// After each run of this many bytes, the kernel is asked to start writing them to disk, so that the final sync has little to do. That
/// reduced the sync of 1.1 GB from 0.6 s to 0.1 s, and nothing else took longer.
pub(crate) const WRITEBACK: u64 = 8 << 20;

/// How many bytes of the budget are reserved at once.
const BUDGET_STEP: u64 = 4 << 20;

/// A file that is being written. If it is dropped before [`Output::finish`] has succeeded, a file that was created for it is
/// removed again.
pub(crate) struct Output<'a> {
    destination: &'a Destination,
    file: File,
    /// The directory and name of a file that is removed unless it is finished; `None` for a part of an existing file.
    created: Option<(Arc<File>, OsString)>,
    start: u64,
    written: u64,
    /// The offset up to which the kernel was asked to start writing to disk.
    writeback_to: u64,
    size: u64,
    /// The offset up to which the budget is reserved.
    reserved_to: u64,
    hasher: Option<(Hasher, Digest)>,
    pages: Option<PageChecker>,
    finished: bool,
}

/// What a file must be, and its mode.
pub(crate) struct Wanted {
    /// The size in bytes.
    pub(crate) size: u64,
    /// The digest.
    pub(crate) digest: Option<Digest>,
    /// What checks its pages.
    pub(crate) pages: Option<PageChecker>,
    /// The permission bits.
    pub(crate) mode: u32,
}

impl<'a> Output<'a> {
    /// Creates a new file.
    ///
    /// # Errors
    /// Fails if anything with this name exists, or the file cannot be created.
    pub(crate) fn create(
        destination: &'a Destination,
        directories: &mut Directories,
        place: &Place,
        wanted: Wanted,
    ) -> Result<Self, Error> {
        let (directory, name) = directories.parent(&destination.target, place)?;
        destination.target.budget.make(&directory).map_err(cannot_create)?;
        let file = create(&directory, name, wanted.mode).map_err(|errno| cannot_create(errno.into()))?;
        Ok(Self::of(destination, file, Some((directory, name.to_owned())), 0, wanted))
    }

    /// Creates a new file, and first removes a regular file with this name. The old file is not overwritten, because it may have other
    /// names (hard links).
    ///
    /// # Errors
    /// Fails if something other than a regular file has this name, or the file cannot be created.
    pub(crate) fn replace(
        destination: &'a Destination,
        directories: &mut Directories,
        place: &Place,
        wanted: Wanted,
    ) -> Result<Self, Error> {
        let (directory, name) = directories.parent(&destination.target, place)?;
        destination.target.budget.make(&directory).map_err(cannot_create)?;
        let file = match create(&directory, name, wanted.mode) {
            Err(Errno::EXIST) => {
                remove_regular(&directory, name)?;
                create(&directory, name, wanted.mode)
            }
            created => created,
        };
        let file = file.map_err(|errno| cannot_create(errno.into()))?;
        Ok(Self::of(destination, file, Some((directory, name.to_owned())), 0, wanted))
    }

    /// Opens the file to write it from byte `start` on. Creates it if it does not exist. Keeps the file even if writing fails.
    ///
    /// # Errors
    /// Fails if the path names something other than a regular file, or a file that has further names (hard links).
    pub(crate) fn part(
        destination: &'a Destination,
        directories: &mut Directories,
        place: &Place,
        start: u64,
        wanted: Wanted,
    ) -> Result<Self, Error> {
        let (directory, name) = directories.parent(&destination.target, place)?;
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let existing = || open(&*directory, name, flags, Mode::empty());
        let file = match existing() {
            Ok(file) => single(file)?,
            Err(Errno::NOENT) => {
                destination.target.budget.make(&directory).map_err(cannot_create)?;
                match create(&directory, name, wanted.mode) {
                    Ok(file) => file,
                    // Another worker has created the file for another part.
                    Err(Errno::EXIST) => single(existing().map_err(|errno| cannot_open(errno.into()))?)?,
                    Err(errno) => return Err(cannot_create(errno.into())),
                }
            }
            Err(errno) => return Err(cannot_open(errno.into())),
        };
        Ok(Self::of(destination, file, None, start, wanted))
    }

    fn of(
        destination: &'a Destination,
        file: File,
        created: Option<(Arc<File>, OsString)>,
        start: u64,
        wanted: Wanted,
    ) -> Self {
        let hasher = wanted.digest.map(|digest| (Hasher::new(digest.algorithm), digest));
        let size = wanted.size;
        Self {
            destination,
            file,
            created,
            start,
            written: 0,
            writeback_to: 0,
            size,
            reserved_to: 0,
            hasher,
            pages: wanted.pages,
            finished: false,
        }
    }

    /// Returns the file, for copying within the kernel. The caller calls [`Output::reserve`] before and [`Output::copied`] after
    /// it.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Returns the offset in the file of the next byte.
    pub(crate) fn position(&self) -> u64 {
        self.start + self.written
    }

    /// Returns how many bytes are still missing.
    pub(crate) fn left(&self) -> u64 {
        self.size.saturating_sub(self.written)
    }

    /// Returns whether the file's bytes are checked, so that they must be given to [`Output::write`].
    pub(crate) fn is_checked(&self) -> bool {
        self.hasher.is_some() || self.pages.is_some()
    }

    /// Writes the next bytes.
    ///
    /// # Errors
    /// `Corrupt` if the file would get too long; `Limit` if the budget or the disk is full; `Cancelled`.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.destination.fail_if_cancelled()?;
        if bytes.len() as u64 > self.left() {
            return Err(too_long(self.size));
        }
        self.reserve(bytes.len() as u64)?;
        if let Some((hasher, _)) = &mut self.hasher {
            hasher.update(bytes);
        }
        let position = self.position();
        if let Some(pages) = &mut self.pages {
            pages.update(position, bytes);
        }
        self.file.write_all_at(bytes, position).map_err(|error| self.io_error("write", error))?;
        self.copied(bytes.len() as u64);
        Ok(())
    }

    /// Reserves the budget for the next `count` bytes, unless it is reserved already. Never reserves more than [`Output::left`].
    ///
    /// # Errors
    /// `Limit` if the budget does not cover them.
    pub(crate) fn reserve(&mut self, count: u64) -> Result<(), Error> {
        if self.written + count > self.reserved_to {
            let more = self.left().min(BUDGET_STEP.max(count));
            self.destination.target.budget.write(&self.file, self.position(), more).map_err(cannot_write)?;
            self.reserved_to = self.written + more;
        }
        Ok(())
    }

    /// Returns the error for a failed write or copy. Tells the budget if the disk is full.
    pub(crate) fn io_error(&self, verb: &str, error: io::Error) -> Error {
        if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            self.destination.target.budget.disk_is_full();
        }
        failed(verb, "it", error)
    }

    /// Records that the next `count` bytes were written.
    pub(crate) fn copied(&mut self, count: u64) {
        self.written += count;
        self.destination.wrote(count);
        if self.written - self.writeback_to >= WRITEBACK {
            let length = NonZeroU64::new(self.written - self.writeback_to);
            // `DontNeed` asks Linux to drop the pages from its cache, and Linux first starts to write the dirty ones to disk. Failure does
            // not matter.
            let _ = rustix::fs::fadvise(&self.file, self.start + self.writeback_to, length, Advice::DontNeed);
            self.writeback_to = self.written;
        }
    }

    /// Checks the size, the digest and the pages, and sets the modification time if one is given.
    ///
    /// # Errors
    /// `Corrupt` if the size, the digest or a page is wrong.
    pub(crate) fn finish(mut self, mtime: Option<u64>) -> Result<(), Error> {
        if self.written < self.size {
            return Err(too_short(self.written, self.size));
        }
        if let Some((hasher, digest)) = self.hasher.take() {
            compare(hasher, &digest)?;
        }
        if let Some(pages) = self.pages.take() {
            pages.finish()?;
        }
        if let Some(mtime) = mtime {
            set_time(&self.file, mtime)?;
        }
        self.finished = true;
        self.destination.wrote_file();
        Ok(())
    }
}

impl Drop for Output<'_> {
    fn drop(&mut self) {
        if let Some((directory, name)) = self.created.take()
            && !self.finished
        {
            // A failure is ignored, because the error to report is the one that made the file unfinished.
            let _ = rustix::fs::unlinkat(&directory, &name, AtFlags::empty());
        }
    }
}

/// Opens an existing regular file; `None` if nothing is there, or this user may not read it.
///
/// # Errors
/// Fails if something other than a regular file is there.
pub(crate) fn existing(
    destination: &Destination,
    directories: &mut Directories,
    place: &Place,
) -> Result<Option<(File, Stat)>, Error> {
    let (directory, name) = directories.parent(&destination.target, place)?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match open(&*directory, name, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        // The file cannot be compared, so it counts as different.
        Err(Errno::ACCESS) => return Ok(None),
        Err(errno) => return Err(cannot_open(errno.into())),
    };
    let status = rustix::fs::fstat(&file).map_err(|errno| cannot_look(errno.into()))?;
    regular(&status)?;
    Ok(Some((file, status)))
}

/// Removes a regular file, if there is one.
///
/// # Errors
/// Fails if something other than a regular file is there, or the file cannot be removed.
pub(super) fn remove_file(
    destination: &Destination,
    directories: &mut Directories,
    place: &Place,
) -> Result<(), Error> {
    let (directory, name) = directories.parent(&destination.target, place)?;
    remove_regular(&directory, name)
}

fn remove_regular(directory: &File, name: &OsStr) -> Result<(), Error> {
    match look(directory, name) {
        Err(Errno::NOENT) => return Ok(()),
        status => regular(&status.map_err(|errno| cannot_look(errno.into()))?)?,
    }
    match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(failed("remove", "the existing file", errno.into())),
    }
}

/// Sets a file's modification time in seconds since 1970.
pub(crate) fn set_time(file: &File, seconds: u64) -> Result<(), Error> {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: i64::try_from(seconds).unwrap_or(i64::MAX), tv_nsec: 0 },
    };
    rustix::fs::futimens(file, &times).map_err(|errno| failed("set", "its time", errno.into()))
}

/// Sets a file's permission bits.
pub(crate) fn set_mode(file: &File, mode: u32) -> Result<(), Error> {
    let mode = Mode::from_raw_mode(mode & 0o7777);
    rustix::fs::fchmod(file, mode).map_err(|errno| failed("set", "its permissions", errno.into()))
}

/// Compares a digest with the expected digest.
///
/// # Errors
/// `Corrupt` if they differ.
pub(crate) fn compare(hasher: Hasher, digest: &Digest) -> Result<(), Error> {
    let actual = hasher.finish();
    if actual == *digest {
        return Ok(());
    }
    Err(Error::new(Kind::Corrupt, format!("its checksum is {actual} and should be {digest}")))
}

pub(crate) fn too_long(size: u64) -> Error {
    Error::new(Kind::Corrupt, format!("it has more than the {size} bytes that it should have"))
}

pub(crate) fn too_short(actual: u64, size: u64) -> Error {
    Error::new(Kind::Corrupt, format!("it has {actual} bytes and should have {size}"))
}

/// Checks that this is a regular file.
///
/// # Errors
/// `Failed` for a directory, a link or a special file.
fn regular(status: &Stat) -> Result<(), Error> {
    match FileType::from_raw_mode(status.st_mode) {
        FileType::RegularFile => Ok(()),
        FileType::Directory => Err(in_the_way("a directory")),
        FileType::Symlink => Err(in_the_way("a symbolic link")),
        _ => Err(in_the_way("a special file")),
    }
}

/// Checks that this is a regular file that has no further names (hard links).
///
/// # Errors
/// `Failed` if the file is anything else.
pub(super) fn single(file: File) -> Result<File, Error> {
    let status = rustix::fs::fstat(&file).map_err(|errno| cannot_look(errno.into()))?;
    regular(&status)?;
    if status.st_nlink > 1 {
        return Err(in_the_way("a file with several names (hard links)"));
    }
    Ok(file)
}

fn in_the_way(what: &str) -> Error {
    Error::new(Kind::Failed, format!("{what} is in the way"))
}

pub(super) fn cannot_create(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::AlreadyExists => in_the_way("something of this name"),
        _ => failed("create", "it", error),
    }
}

fn cannot_look(error: io::Error) -> Error {
    failed("read the metadata of", "the existing file", error)
}

pub(super) fn cannot_open(error: io::Error) -> Error {
    match error.raw_os_error() {
        Some(errno) if errno == Errno::LOOP.raw_os_error() => in_the_way("a symbolic link"),
        Some(errno) if errno == Errno::NXIO.raw_os_error() => in_the_way("a special file"),
        Some(errno) if errno == Errno::ISDIR.raw_os_error() => in_the_way("a directory"),
        _ => failed("open", "it", error),
    }
}

pub(super) fn cannot_write(error: io::Error) -> Error {
    failed("write", "it", error)
}
