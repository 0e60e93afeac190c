//! Checks the checksums of PostgreSQL's pages in the files of relations while the files are written.
//!
//! The rules are those by which the server checks the files that it sends to `pg_basebackup` (`verify_page_checksum` in
//! `src/backend/backup/basebackup.c`), with two differences, both stricter. The server cannot know where the backup will end, so it
//! passes over every page that is newer than the start. And it passes over every page whose header looks new; here such a page must
//! consist of zeros, as for a server that reads it (`PageIsVerified`).

use std::fmt;

use postgres_formats::Lsn;
use postgres_formats::page::{self, Verdict};

use crate::chain::PageSize;
use crate::error::{Error, Kind};

/// The size of the largest page in bytes.
pub(crate) const LARGEST: usize = 32 << 10;

/// How pages are checked. See `page-checks` in `wit/method.wit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageChecks {
    /// The size of a page in bytes.
    pub page_size: u32,
    /// How many pages a file of a relation has at most.
    pub segment_pages: u32,
    /// Where replay of the backup begins. Pages that changed from here on are not checked.
    pub start: Lsn,
    /// Where the backup ended. No page of the backup changed later.
    pub stop: Lsn,
}

impl PageChecks {
    /// Checks that PostgreSQL can be built with these sizes.
    ///
    /// # Errors
    /// `Invalid`, and the message says what is wrong.
    pub(crate) fn check(&self) -> Result<(), Error> {
        PageSize::new(self.page_size)?;
        if self.segment_pages == 0 {
            return Err(Error::new(Kind::Invalid, "a file of a relation cannot have 0 pages"));
        }
        if self.start > self.stop {
            let why = format!("a backup cannot start at {} and stop at {}", self.start, self.stop);
            return Err(Error::new(Kind::Invalid, why));
        }
        Ok(())
    }
}

/// Checks the pages of one file as their bytes arrive.
pub(crate) struct PageChecker {
    checks: PageChecks,
    /// The number of the file's first page in its relation.
    first: u32,
    /// The offset in the file of the next byte.
    at: u64,
    /// The bytes of the page at `at` that have arrived; empty if its first bytes have not.
    part: Vec<u8>,
    /// The first damaged page.
    damaged: Option<Damage>,
    /// How many pages are damaged.
    count: u64,
}

/// A damaged page.
struct Damage {
    /// The number of the page in its file.
    block: u64,
    verdict: Verdict,
}

impl PageChecker {
    /// Begins with the file `path`; `None` if it does not consist of pages.
    pub(crate) fn of(checks: PageChecks, path: &str) -> Option<Self> {
        let segment = page::segment_of_relation(path)?;
        // PostgreSQL numbers pages with 32 bits, so no relation has a segment for which this overflows.
        let first = segment.wrapping_mul(checks.segment_pages);
        Some(Self { checks, first, at: 0, part: Vec::new(), damaged: None, count: 0 })
    }

    /// Takes bytes that belong at the offset `at`. The bytes of a page must arrive one after the other, beginning with its first; a page
    /// of which they do not is not checked.
    pub(crate) fn update(&mut self, at: u64, mut bytes: &[u8]) {
        if at != self.at {
            self.part.clear();
            self.at = at;
        }
        let size = self.checks.page_size as usize;
        while !bytes.is_empty() {
            // Less than a page, so that it fits.
            let inside = (self.at % size as u64) as usize;
            let count = bytes.len().min(size - inside);
            let (now, later) = bytes.split_at(count);
            if count == size {
                self.judge(now);
            } else if inside == self.part.len() {
                let mut part = std::mem::take(&mut self.part);
                part.reserve_exact(size - part.len());
                part.extend_from_slice(now);
                if part.len() == size {
                    self.judge(&part);
                    part.clear();
                }
                self.part = part;
            }
            self.at += count as u64;
            bytes = later;
        }
    }

    /// Checks the page that begins in the page in which `at` lies.
    fn judge(&mut self, page: &[u8]) {
        let block = self.at / u64::from(self.checks.page_size);
        // A page changed after replay begins may have been read while it was written. Replay restores such a page as a whole.
        if (self.checks.start..=self.checks.stop).contains(&page::lsn(page)) {
            return;
        }
        // Only a file that is no relation has more pages than 32 bits can number.
        let number = self.first.wrapping_add(block as u32);
        let verdict = page::verify(page, number);
        if !matches!(verdict, Verdict::Intact | Verdict::Empty) {
            self.count += 1;
            self.damaged.get_or_insert(Damage { block, verdict });
        }
    }

    /// Ends with the file.
    ///
    /// # Errors
    /// `Corrupt` if a page is damaged. The message names the first one and says how many there are.
    pub(crate) fn finish(self) -> Result<(), Error> {
        match self.damaged {
            None => Ok(()),
            Some(first) if self.count == 1 => Err(Error::new(Kind::Corrupt, first.to_string())),
            Some(first) => {
                let why = format!("{first}; {} of its pages are damaged", self.count);
                Err(Error::new(Kind::Corrupt, why))
            }
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let block = self.block;
        match self.verdict {
            Verdict::Mismatch { stored, computed } => {
                write!(
                    f,
                    "its block {block} has the page checksum {stored:04x} and should have {computed:04x}"
                )
            }
            Verdict::NotEmpty => {
                write!(f, "its block {block} has the header of a new page, and is not empty as a new page is")
            }
            Verdict::Intact | Verdict::Empty => write!(f, "its block {block} is intact"),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
