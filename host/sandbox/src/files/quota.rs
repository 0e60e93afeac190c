//! Counts what one run writes against its disk budget, and records whether a disk was full.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use replica::Bytes;
use replica::usage::Amount;
use rustix::io::Errno;

use crate::DiskBudget;

/// How many bytes may be written before the free space is checked again.
const FREE_SPACE_CHECKED_EVERY: u64 = 1 << 20;
/// About how many bytes of free space a new directory entry takes: one block, of its own or of its directory.
const ENTRY: u64 = 4096;

/// The disk budget of one run, and how much of it is used. Cheap to clone.
///
/// The growth of a file is charged, including holes. Removing or truncating a file does not reduce the charge, so the budget bounds both
/// the space and the amount of work.
#[derive(Clone, Debug)]
pub(crate) struct Quota {
    budget: DiskBudget,
    used: Arc<Mutex<Used>>,
    /// How many bytes were written, including those that overwrote others.
    written: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct Used {
    bytes: u64,
    files: u64,
    /// For each file system, by device number: the bytes allowed since its free space was last checked.
    unchecked: HashMap<u64, u64>,
    full: Option<String>,
}

impl Quota {
    /// Makes a quota that nothing has used yet. Without a budget, only the size of the disk is a limit.
    pub(crate) fn new(budget: Option<DiskBudget>) -> Self {
        Self { budget: budget.unwrap_or_default(), used: Arc::default(), written: Arc::default() }
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Charges the budget for the growth of `file` to a size of `end` bytes.
    ///
    /// # Errors
    /// ENOSPC if the budget is too small for that, or the error of reading the file's metadata.
    pub(crate) fn grow(&self, file: &File, end: u64) -> io::Result<()> {
        self.charge(file, end, 0)
    }

    /// Charges the budget for `length` bytes that are written to `file` at `start`. The bytes take free space even if they fill a hole in
    /// the file.
    ///
    /// # Errors
    /// The errors of [`Quota::grow`]; EFBIG if a file cannot be that large.
    pub(crate) fn write(&self, file: &File, start: u64, length: u64) -> io::Result<()> {
        self.charge(file, start.checked_add(length).ok_or(Errno::FBIG)?, length)?;
        self.written.fetch_add(length, Ordering::Relaxed);
        Ok(())
    }

    fn charge(&self, file: &File, end: u64, written: u64) -> io::Result<()> {
        if self.budget.bytes.is_none() && self.budget.keep_free.is_none() {
            // Reading the metadata of each file costs noticeable time with 100,000 files.
            return Ok(());
        }
        let metadata = file.metadata()?;
        let more = end.saturating_sub(metadata.len());
        self.keep_free(file, metadata.dev(), more.max(written))?;
        if more == 0 {
            return Ok(());
        }
        let mut used = self.used();
        let bytes = used.bytes.saturating_add(more);
        match self.budget.bytes {
            Some(Bytes(granted)) if bytes > granted => Err(refuse(
                &mut used,
                format!("its disk budget of {} is used up (disk.bytes)", Bytes(granted)),
            )),
            _ => {
                used.bytes = bytes;
                Ok(())
            }
        }
    }

    /// Charges for a new file, directory or link in the file system of `place`.
    ///
    /// # Errors
    /// ENOSPC if the budget is too small for that.
    pub(crate) fn make(&self, place: &File) -> io::Result<()> {
        if self.budget.keep_free.is_some() {
            self.keep_free(place, place.metadata()?.dev(), ENTRY)?;
        }
        let mut used = self.used();
        match self.budget.files {
            Some(granted) if used.files >= granted => {
                Err(refuse(&mut used, format!("its disk budget of {granted} files is used up (disk.files)")))
            }
            _ => {
                used.files += 1;
                Ok(())
            }
        }
    }

    fn keep_free(&self, place: &File, file_system: u64, more: u64) -> io::Result<()> {
        let Some(Bytes(keep)) = self.budget.keep_free else { return Ok(()) };
        if more == 0 {
            return Ok(());
        }
        let mut used = self.used();
        if let Some(unchecked) = used.unchecked.get_mut(&file_system)
            && unchecked.saturating_add(more) < FREE_SPACE_CHECKED_EVERY
        {
            *unchecked += more;
            return Ok(());
        }
        let system = rustix::fs::fstatvfs(place)?;
        let free = system.f_bavail.saturating_mul(system.f_frsize);
        if free.saturating_sub(more) < keep {
            let why = format!("less than {} would stay free (disk.keep_free)", Bytes(keep));
            return Err(refuse(&mut used, why));
        }
        used.unchecked.insert(file_system, 0);
        Ok(())
    }

    /// Returns the used bytes and their limit. If the budget limits the bytes, the used bytes are the growth of files, otherwise all
    /// written bytes.
    pub(crate) fn bytes(&self) -> Amount {
        match self.budget.bytes {
            Some(Bytes(granted)) => Amount::of(self.used().bytes, granted),
            None => Amount::of(self.written.load(Ordering::Relaxed), None),
        }
    }

    /// Returns how many files, directories and links were made, and the limit.
    pub(crate) fn files(&self) -> Amount {
        Amount::of(self.used().files, self.budget.files)
    }

    /// Returns the message for a native program that wrote a file larger than the budget; `None` if the budget does not limit bytes.
    pub(crate) fn longest_file(&self) -> Option<String> {
        self.budget.bytes.map(|bytes| format!("a program wrote a file of more than {bytes} (disk.bytes)"))
    }

    /// Records why a native program was ended for lack of space.
    pub(crate) fn out_of_space(&self, why: String) {
        self.used().full.get_or_insert(why);
    }

    /// Records that the disk itself is full.
    pub(crate) fn disk_is_full(&self) {
        self.used().full.get_or_insert_with(|| "the disk is full".to_owned());
    }

    /// Returns why a write failed for lack of space; `None` if none did.
    pub(crate) fn full(&self) -> Option<String> {
        self.used().full.clone()
    }
}

fn refuse(used: &mut Used, why: String) -> io::Error {
    used.full.get_or_insert(why);
    Errno::NOSPC.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(bytes: Option<u64>, files: Option<u64>, keep_free: Option<u64>) -> Quota {
        let (bytes, keep_free) = (bytes.map(Bytes), keep_free.map(Bytes));
        Quota::new(Some(DiskBudget { bytes, files, keep_free }))
    }

    #[test]
    fn a_file_is_charged_for_its_growth_and_for_its_holes() {
        let file = tempfile::tempfile().unwrap();
        let quota = quota(Some(1000), None, None);
        quota.grow(&file, 600).unwrap();
        file.set_len(600).unwrap();
        quota.grow(&file, 600).unwrap();
        quota.grow(&file, 1000).unwrap();
        file.set_len(0).unwrap();
        assert_eq!(quota.grow(&file, 1).unwrap_err().raw_os_error(), Some(Errno::NOSPC.raw_os_error()));
        assert!(quota.full().unwrap().contains("disk.bytes"));
    }

    #[test]
    fn used_bytes_count_growth_if_they_are_limited_and_otherwise_all_written_bytes() {
        let file = tempfile::tempfile().unwrap();
        for (budget, bytes) in [
            (quota(Some(1000), Some(7), None), Amount::of(600, 1000)),
            (Quota::new(None), Amount::of(1200, None)),
        ] {
            file.set_len(0).unwrap();
            budget.write(&file, 0, 600).unwrap();
            file.set_len(600).unwrap();
            budget.write(&file, 0, 600).unwrap();
            budget.make(&file).unwrap();
            assert_eq!(budget.bytes(), bytes);
            assert_eq!(budget.files().used, 1);
        }
    }

    #[test]
    fn the_number_of_files_is_bounded() {
        let place = tempfile::tempfile().unwrap();
        let quota = quota(None, Some(2), None);
        quota.make(&place).unwrap();
        quota.make(&place).unwrap();
        assert!(quota.make(&place).is_err());
        assert!(quota.full().unwrap().contains("2 files"));
    }

    #[test]
    fn a_write_is_refused_if_too_little_space_would_stay_free() {
        let place = tempfile::tempfile().unwrap();
        let everything = quota(None, None, Some(u64::MAX));
        assert!(everything.grow(&place, 1).is_err());
        assert!(everything.make(&place).is_err());
        assert!(everything.full().unwrap().contains("disk.keep_free"));
        quota(None, None, Some(1)).grow(&place, 1 << 30).unwrap();
    }

    #[test]
    fn a_write_into_a_hole_is_refused_if_too_little_space_would_stay_free() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        let quota = quota(None, None, Some(u64::MAX));
        assert!(quota.write(&file, 0, 1).is_err());
        assert!(quota.full().unwrap().contains("disk.keep_free"));
    }

    #[test]
    fn entries_take_free_space_and_each_file_system_is_checked_by_itself() {
        let place = tempfile::tempfile().unwrap();
        let quota = quota(None, None, Some(1));
        quota.make(&place).unwrap();
        let first = quota.used().unchecked.clone();
        quota.make(&place).unwrap();
        let file_system = place.metadata().unwrap().dev();
        assert_eq!(first, HashMap::from([(file_system, 0)]));
        assert_eq!(quota.used().unchecked, HashMap::from([(file_system, ENTRY)]));
        // The free space of this file system was not checked before, so this call checks it.
        quota.keep_free(&place, file_system + 1, 1).unwrap();
        assert_eq!(quota.used().unchecked[&(file_system + 1)], 0);
    }

    #[test]
    fn without_a_budget_only_the_disk_is_a_limit() {
        let file = tempfile::tempfile().unwrap();
        let quota = Quota::new(None);
        quota.grow(&file, u64::MAX).unwrap();
        assert_eq!(quota.full(), None);
        quota.disk_is_full();
        assert_eq!(quota.full().as_deref(), Some("the disk is full"));
    }
}
