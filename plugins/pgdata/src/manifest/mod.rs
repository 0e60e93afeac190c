//! Reads `backup_manifest`, the list of a backup's files (PostgreSQL's manual, "Backup Manifest Format"; version 1 in PostgreSQL 13 to 16,
//! version 2 since 17). The manifest is read as a stream, because a manifest with a million files has some 150 MB.

mod document;
mod hashing;
mod index;
mod window;

use std::io::{self, Read};

use postgres_formats::Lsn;

use crate::checksum::{Algorithm, Digesting};
use window::Window;

pub use index::{Entry, Index, IndexError};

/// The largest manifest that is read, in bytes: some seven million files.
pub const LIMIT: u64 = 1 << 30;

/// The longest path that is read, in bytes. PostgreSQL could not open a longer path.
const LONGEST_PATH: usize = 4096;

/// How many WAL ranges are read. A manifest has one for each timeline of the backup.
const MOST_WAL_RANGES: usize = 4096;

/// One file in a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// The path relative to the data directory. A file in a tablespace has a path below `pg_tblspc/OID/`.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// The checksum, in the byte order of the manifest; `None` if the backup was taken without checksums.
    pub checksum: Option<(Algorithm, Vec<u8>)>,
}

/// WAL that is needed to make the backup consistent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalRange {
    /// The timeline.
    pub timeline: u32,
    /// The LSN at which the range begins.
    pub start: Lsn,
    /// The LSN at which the range ends.
    pub end: Lsn,
}

/// The content of a manifest, except for its files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The system identifier of the cluster, which only version 2 has.
    pub system_identifier: Option<u64>,
    /// The number of files that the manifest lists.
    pub files: u64,
    /// The total size of these files in bytes.
    pub bytes: u64,
    /// The WAL that is needed, in order.
    pub wal_ranges: Vec<WalRange>,
}

impl Summary {
    /// Returns how many bytes of WAL the ranges need, in whole segments of `segment` bytes; `None` if there are no ranges.
    pub fn wal_bytes(&self, segment: u64) -> Option<u64> {
        let bytes = self.wal_ranges.iter().map(|range| {
            let (first, last) = (range.start.0 / segment, range.end.0.saturating_sub(1) / segment);
            (last.saturating_sub(first) + 1).saturating_mul(segment)
        });
        (!self.wal_ranges.is_empty()).then(|| bytes.fold(0, u64::saturating_add))
    }
}

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The manifest cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The manifest is larger than [`LIMIT`].
    #[error("is larger than 1 GiB")]
    TooLarge,
    /// The file is not a manifest.
    #[error("is not a manifest: {0}")]
    Malformed(String),
    /// The manifest does not match its own checksum.
    #[error("does not fit its own checksum: it was changed or damaged after it was written")]
    Checksum,
}

/// Reads a manifest and passes each file to `each`. Checks the manifest's own checksum with `sha256` at the end, so the files may be
/// trusted only if this succeeds.
///
/// # Errors
/// Fails if the manifest cannot be read, is too large, malformed or damaged. An error of `each` is returned as [`ManifestError::Io`].
pub fn read(
    reader: impl Read,
    sha256: impl Digesting,
    each: impl FnMut(File) -> io::Result<()>,
) -> Result<Summary, ManifestError> {
    read_up_to(LIMIT, reader, sha256, each)
}

fn read_up_to(
    limit: u64,
    reader: impl Read,
    sha256: impl Digesting,
    mut each: impl FnMut(File) -> io::Result<()>,
) -> Result<Summary, ManifestError> {
    let mut text = Window::new(hashing::AllButTheLastLine::new(reader.take(limit + 1), sha256));
    let content = document::read(&mut text, &mut each);
    let hashing = text.into_inner();
    if hashing.count() > limit {
        return Err(ManifestError::TooLarge);
    }
    let (summary, checksum) = content?;
    if hashing.finish().is_none_or(|sum| sum != checksum) {
        return Err(ManifestError::Checksum);
    }
    Ok(summary)
}

#[cfg(test)]
mod tests;
