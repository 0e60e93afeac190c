//! Increments: the files in archives that contain only some pages of a file.
//!
//! PostgreSQL (`src/include/backup/basebackup_incremental.h`, `src/bin/pg_combinebackup/reconstruct.c`): the magic number, the number of
//! pages, the truncation block length and the page numbers, four bytes each, zeros up to the next multiple of the page size unless there
//! is no page, and the pages. The file has as many pages as the truncation block length says, or more if a page has a higher number. Pages
//! of older backups count only below the truncation block length of the newest increment. No file has more pages than a segment: a
//! higher truncation block length, which some servers write for the first segments of a truncated relation, means the whole segment.
//!
//! WAL-G (`internal/databases/postgres/pagefile.go`): `wi1` and 0x55, the size of the file in bytes (eight bytes), the number of pages and
//! the page numbers (four bytes each), and the pages. Pages beyond the size of the file are ignored, as by `--reverse-unpack`.
//!
//! All numbers are little-endian. PostgreSQL writes them in the byte order of the server's machine; big-endian backups are not read.

use super::{IncrementFormat, PageSize};
use crate::budget::{Budget, Charge};
use crate::error::{Error, Kind};

/// PostgreSQL's magic number (`INCREMENTAL_MAGIC`).
const POSTGRESQL: [u8; 4] = 0xd3ae_1f0d_u32.to_le_bytes();

/// The beginning of WAL-G's increments.
pub(crate) const WAL_G: [u8; 4] = *b"wi1\x55";

/// The beginning of the name of PostgreSQL's increments.
const PREFIX: &str = "INCREMENTAL.";

/// What the name of a member says about its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// The whole file.
    Whole,
    /// An increment.
    Increment,
    /// An increment if it begins with [`WAL_G`], otherwise the whole file.
    Unknown,
}

/// Returns the path of the file that the member `name` belongs to, and what its content is. PostgreSQL has increments of relations, which
/// lie in `base`, `global` and `pg_tblspc`. WAL-G may have increments of any file with a number as its name.
pub(crate) fn file_of(format: IncrementFormat, name: &str) -> (String, Content) {
    let whole = || (name.to_owned(), Content::Whole);
    let (directory, file) = name.rsplit_once('/').unwrap_or(("", name));
    let top = directory.split('/').next().unwrap_or("");
    match format {
        IncrementFormat::Postgresql if !matches!(top, "base" | "global" | "pg_tblspc") => whole(),
        IncrementFormat::Postgresql => match file.strip_prefix(PREFIX) {
            Some(file) if !file.is_empty() => (format!("{directory}/{file}"), Content::Increment),
            _ => whole(),
        },
        IncrementFormat::WalG => {
            let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let (relation, segment) = file.split_once('.').unwrap_or((file, "0"));
            let content =
                if is_number(relation) && is_number(segment) { Content::Unknown } else { Content::Whole };
            (name.to_owned(), content)
        }
    }
}

/// The header of an increment.
#[derive(Debug)]
pub(crate) struct Header {
    /// How many pages the file has if this is its newest increment.
    pub(crate) count: u32,
    /// Only pages below this one are taken from older backups if this is the newest increment.
    pub(crate) end: u32,
    /// The numbers of the pages that follow the header, ascending.
    pub(crate) pages: Vec<u32>,
    /// The charge for `pages`.
    pub(crate) charge: Charge,
}

/// Collects the bytes of a header as they arrive.
pub(crate) struct HeaderReader {
    format: IncrementFormat,
    page_size: PageSize,
    /// The size of the whole increment in bytes.
    size: u64,
    bytes: Vec<u8>,
    /// How many bytes the header has; the size of its fixed part until that part is complete.
    length: usize,
    /// The charge for `bytes` and for the page numbers that are made from them.
    charge: Charge,
}

impl HeaderReader {
    /// Begins the header of an increment of `size` bytes.
    pub(crate) fn new(format: IncrementFormat, page_size: PageSize, size: u64, memory: &Budget) -> Self {
        let length = Self::fixed(format);
        Self { format, page_size, size, bytes: Vec::new(), length, charge: memory.charge_anyway(0) }
    }

    /// Returns the size of the part before the page numbers in bytes.
    const fn fixed(format: IncrementFormat) -> usize {
        match format {
            IncrementFormat::Postgresql => 12,
            IncrementFormat::WalG => 16,
        }
    }

    /// Takes the next bytes of the increment. Returns how many belong to the header, and the header if it is complete.
    ///
    /// # Errors
    /// `Corrupt` if this is no valid increment; `Limit` if too little memory is left.
    pub(crate) fn take(&mut self, input: &[u8]) -> Result<(usize, Option<Header>), Error> {
        let mut taken = 0;
        loop {
            let more = (self.length - self.bytes.len()).min(input.len() - taken);
            self.bytes.extend_from_slice(&input[taken..taken + more]);
            taken += more;
            if self.bytes.len() < self.length {
                return Ok((taken, None));
            }
            if self.length > Self::fixed(self.format) {
                return Ok((taken, Some(self.header()?)));
            }
            self.length = self.whole_length()?;
            if self.length == Self::fixed(self.format) {
                return Ok((taken, Some(self.header()?)));
            }
            let numbers = self.length as u64;
            self.charge.grow(2 * numbers, "the header of an increment")?;
            self.bytes.reserve_exact(self.length - self.bytes.len());
        }
    }

    /// Returns the length of the header, from its fixed part.
    fn whole_length(&self) -> Result<usize, Error> {
        let fixed = Self::fixed(self.format);
        let (magic, count) = match self.format {
            IncrementFormat::Postgresql => (POSTGRESQL, self.number(4)),
            IncrementFormat::WalG => (WAL_G, self.number(12)),
        };
        if !self.bytes.starts_with(&magic) {
            return Err(corrupt("does not begin as an increment does"));
        }
        let numbers = fixed as u64 + 4 * u64::from(count);
        let length = match self.format {
            IncrementFormat::Postgresql if count > 0 => numbers.next_multiple_of(self.page_size.bytes()),
            IncrementFormat::Postgresql | IncrementFormat::WalG => numbers,
        };
        let expected = length + u64::from(count) * self.page_size.bytes();
        if expected != self.size {
            return Err(corrupt(&format!(
                "has {} bytes, and an increment of {count} pages of {} bytes has {expected}",
                self.size,
                self.page_size.bytes()
            )));
        }
        usize::try_from(length).map_err(|_| corrupt("has too many pages"))
    }

    fn header(&mut self) -> Result<Header, Error> {
        let fixed = Self::fixed(self.format);
        let count = match self.format {
            IncrementFormat::Postgresql => self.number(4),
            IncrementFormat::WalG => self.number(12),
        } as usize;
        let mut pages = Vec::with_capacity(count);
        let mut before = None;
        for number in 0..count {
            let page = self.number(fixed + 4 * number);
            if before.is_some_and(|before| before >= page) {
                return Err(corrupt("has page numbers that do not ascend"));
            }
            before = Some(page);
            pages.push(page);
        }
        let (count, end) = match self.format {
            IncrementFormat::Postgresql => {
                if self.bytes[fixed + 4 * count..].iter().any(|byte| *byte != 0) {
                    return Err(corrupt("has other bytes than zeros between its header and its pages"));
                }
                let end = self.number(8).min(self.page_size.most());
                let highest = before.map_or(Some(0), |last| last.checked_add(1));
                (highest.ok_or_else(|| corrupt("has a page number that is too high"))?.max(end), end)
            }
            IncrementFormat::WalG => {
                let bytes = u64::from(self.number(4)) | u64::from(self.number(8)) << 32;
                let count = bytes / self.page_size.bytes();
                let count = u32::try_from(count).ok().filter(|_| bytes % self.page_size.bytes() == 0);
                let why = || {
                    corrupt(&format!("is of a file of {bytes} bytes, which is not a whole number of pages"))
                };
                let count = count.ok_or_else(why)?;
                (count, count)
            }
        };
        if count > self.page_size.most() {
            return Err(corrupt(&format!(
                "is of a file of {count} pages, and a segment has {}",
                self.page_size.most()
            )));
        }
        self.bytes = Vec::new();
        let mut charge = self.charge.split(u64::MAX);
        // Each number becomes an entry of eight bytes for the pages that are written.
        charge.set(12 * pages.len() as u64, "the page numbers of an increment")?;
        Ok(Header { count, end, pages, charge })
    }

    /// Returns the number in the four bytes at `at`; zero if they are missing.
    fn number(&self, at: usize) -> u32 {
        let bytes = self.bytes.get(at..at + 4).and_then(|bytes| bytes.first_chunk::<4>());
        bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }
}

fn corrupt(what: &str) -> Error {
    Error::new(Kind::Corrupt, format!("it {what}"))
}
