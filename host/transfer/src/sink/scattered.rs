//! Writes parts of a file in any order.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::{Advice, AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::destination::Destination;
use super::directories::{Directories, create, failed, open};
use super::file::{cannot_create, cannot_open, cannot_write, remove_file, set_time, single};
use crate::error::{Error, Kind};
use crate::target::Place;

/// A file whose parts are written in any order.
pub(crate) struct Scattered<'a> {
    destination: &'a Destination,
    file: File,
    /// The directory and name of a file that is removed unless it is finished.
    created: Option<(Arc<File>, OsString)>,
}

impl<'a> Scattered<'a> {
    /// Creates a new file of `size` bytes, all of which are zeros. The file grows if more is written. It is removed unless it is kept or
    /// finished.
    ///
    /// # Errors
    /// Fails if anything with this name exists, or the file cannot be created; `Limit` if the budget does not cover its size.
    pub(crate) fn create(
        destination: &'a Destination,
        directories: &mut Directories,
        place: &Place,
        size: u64,
        mode: u32,
    ) -> Result<Self, Error> {
        let (directory, name) = directories.parent(&destination.target, place)?;
        destination.target.budget.make(&directory).map_err(cannot_create)?;
        let file = create(&directory, name, mode).map_err(|errno| cannot_create(errno.into()))?;
        let created = Self { destination, file, created: Some((directory, name.to_owned())) };
        if size > 0 {
            created.set_size(size)?;
        }
        Ok(created)
    }

    /// Creates a new file as [`Scattered::create`] does, and first removes a regular file with this name.
    ///
    /// # Errors
    /// The errors of [`Scattered::create`]; also fails if something other than a regular file has this name.
    pub(crate) fn replace(
        destination: &'a Destination,
        directories: &mut Directories,
        place: &Place,
        size: u64,
        mode: u32,
    ) -> Result<Self, Error> {
        remove_file(destination, directories, place)?;
        Self::create(destination, directories, place, size, mode)
    }

    /// Opens an existing file.
    ///
    /// # Errors
    /// Fails if there is no file, or something other than a regular file, or a file that has further names (hard links).
    pub(crate) fn open(
        destination: &'a Destination,
        directories: &mut Directories,
        place: &Place,
    ) -> Result<Self, Error> {
        let (directory, name) = directories.parent(&destination.target, place)?;
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file =
            open(&*directory, name, flags, Mode::empty()).map_err(|errno| cannot_open(errno.into()))?;
        Ok(Self { destination, file: single(file)?, created: None })
    }

    /// Opens an existing file as [`Scattered::open`] does; `None` if this user may not write to it.
    ///
    /// # Errors
    /// The other errors of [`Scattered::open`].
    pub(crate) fn open_if_permitted(
        destination: &'a Destination,
        directories: &mut Directories,
        place: &Place,
    ) -> Result<Option<Self>, Error> {
        match Self::open(destination, directories, place) {
            Err(error) if error.kind == Kind::Denied => Ok(None),
            opened => opened.map(Some),
        }
    }

    /// Changes the size of the file.
    ///
    /// # Errors
    /// `Limit` if the budget does not cover the size.
    pub(crate) fn set_size(&self, size: u64) -> Result<(), Error> {
        self.destination.target.budget.extend(&self.file, size).map_err(cannot_write)?;
        loop {
            match rustix::fs::ftruncate(&self.file, size) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(failed("set", "its size", errno.into())),
            }
        }
    }

    /// Keeps the file, more of which will be written later.
    pub(crate) fn keep(mut self) {
        self.created = None;
    }

    /// Returns the file.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Writes `bytes` at the offset `at`.
    ///
    /// # Errors
    /// `Limit` if the budget or the disk is full; `Cancelled`.
    pub(crate) fn write(&self, at: u64, bytes: &[u8]) -> Result<(), Error> {
        self.destination.fail_if_cancelled()?;
        let length = bytes.len() as u64;
        self.destination.target.budget.write(&self.file, at, length).map_err(cannot_write)?;
        self.file.write_all_at(bytes, at).map_err(|error| {
            if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
                self.destination.target.budget.disk_is_full();
            }
            failed("write", "it", error)
        })?;
        self.destination.wrote(length);
        Ok(())
    }

    /// Asks the kernel to start writing the bytes from `start` to `end` to disk, so that the final sync has little to do. A failure does
    /// not matter.
    pub(crate) fn start_writeback(&self, start: u64, end: u64) {
        if let Some(length) = NonZeroU64::new(end.saturating_sub(start)) {
            // `DontNeed` asks Linux to drop the pages from its cache, and Linux first starts to write the dirty ones to disk.
            let _ = rustix::fs::fadvise(&self.file, start, Some(length), Advice::DontNeed);
        }
    }

    /// Counts the file as written, and sets its modification time if one is given.
    ///
    /// # Errors
    /// Fails if the time cannot be set.
    pub(crate) fn finish(mut self, mtime: Option<u64>) -> Result<(), Error> {
        if let Some(mtime) = mtime {
            set_time(&self.file, mtime)?;
        }
        self.created = None;
        self.destination.wrote_file();
        Ok(())
    }
}

impl Drop for Scattered<'_> {
    fn drop(&mut self) {
        if let Some((directory, name)) = self.created.take() {
            // A failure is ignored, because the error to report is the one that made the file unfinished.
            let _ = rustix::fs::unlinkat(&directory, &name, AtFlags::empty());
        }
    }
}
