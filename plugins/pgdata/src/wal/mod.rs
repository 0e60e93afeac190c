//! Verifies the WAL of a backup record by record with the records' checksums, as `pg_waldump` does for `pg_verifybackup` (PostgreSQL's
//! xlogreader.c, xlog_internal.h, xlogrecord.h). The layout is little-endian, and the same from version 11 to 18.
//!
//! Every byte between the start and the stop of a backup is checked: all bytes of every record, the padding after a record to the next
//! multiple of eight, which must be zero, and the rest of a segment after a record that ends the segment early, which must be zero too.

mod page;
mod pages;
mod record;

use std::io::{self, Read};

use postgres_formats::Lsn;
use postgres_formats::segment::SegmentSize;

use page::Known;
use pages::Pages;
use record::Record;

/// The alignment of a WAL record in bytes (`MAXALIGN`).
const ALIGNMENT: u64 = 8;

/// Opens segments.
pub trait Segments {
    /// Opens the segment file `name`; `None` if it does not exist.
    ///
    /// # Errors
    /// Fails if the file cannot be opened.
    fn open(&mut self, name: &str) -> io::Result<Option<Box<dyn Read>>>;
}

/// Where the verification of WAL ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// At this LSN, which the manifest names.
    At(Lsn),
    /// After the record that ends the backup that began at this LSN (`XLOG_BACKUP_END`). A primary writes this record; a backup of a
    /// standby has none.
    EndOfBackup(Lsn),
}

/// A range of WAL to verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Its timeline.
    pub timeline: u32,
    /// The LSN at which the first record begins.
    pub start: Lsn,
    /// Where the verification ends.
    pub stop: Stop,
    /// Later timelines. A segment that is missing on the range's timeline is looked for on these timelines, because the first segment of
    /// a new timeline begins with a copy of the old timeline's last segment.
    pub later: &'a [u32],
}

/// The WAL that was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The LSN at which the last record ends.
    pub end: Lsn,
    /// The number of verified records.
    pub records: u64,
}

/// Why WAL cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// A segment cannot be read.
    #[error("{segment}: {error}")]
    Io {
        /// Its name.
        segment: String,
        /// The error.
        error: io::Error,
    },
    /// A segment is missing.
    #[error("the segment {segment} is missing, which holds {at}")]
    Missing {
        /// Its name.
        segment: String,
        /// The LSN that is needed from the segment.
        at: Lsn,
    },
    /// A segment is not as a server wrote it.
    #[error("the segment {segment} is damaged at {at}: {what}")]
    Damaged {
        /// Its name.
        segment: String,
        /// The LSN of the damage.
        at: Lsn,
        /// A description of the damage.
        what: String,
    },
}

/// The properties that all WAL of one cluster shares. They are read from the first segment, and every other segment is checked against
/// them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cluster(Known);

impl Cluster {
    /// Reads the properties from the first page of the segment `name`.
    ///
    /// # Errors
    /// Fails if the page is not the first page of a segment.
    pub fn of(name: &str, mut segment: impl Read) -> Result<Self, WalError> {
        let mut header = [0; page::LONG_HEADER];
        let segment_name = || name.to_owned();
        segment.read_exact(&mut header).map_err(|error| WalError::Io { segment: segment_name(), error })?;
        match Known::learn(&header) {
            Ok(known) => Ok(Self(known)),
            Err(what) => Err(WalError::Damaged { segment: segment_name(), at: Lsn(0), what }),
        }
    }

    /// Returns the system identifier.
    pub fn system_identifier(&self) -> u64 {
        self.0.system_identifier
    }

    /// Returns the size of a segment.
    pub fn segment_size(&self) -> SegmentSize {
        self.0.segment
    }
}

/// Reads every record of `piece` and checks its checksum. Calls `look` regularly; an error of `look` ends the verification.
///
/// # Errors
/// Fails if a segment is missing or cannot be read, or if a page or a record is not as a server wrote it. The error names the segment and
/// the LSN.
pub fn verify(
    cluster: &Cluster,
    piece: &Piece<'_>,
    segments: &mut dyn Segments,
    look: &mut dyn FnMut() -> io::Result<()>,
) -> Result<Verified, WalError> {
    let mut pages = Pages::new(&cluster.0, piece, segments, look);
    let mut verified = Verified { end: piece.start, records: 0 };
    let (mut at, mut previous) = (piece.start.0, None);
    loop {
        if let Stop::At(stop) = piece.stop
            && at >= stop.0
        {
            return Ok(verified);
        }
        pages.go_to(at)?;
        let begins = pages.at();
        let Some(record) = Record::read(&mut pages, previous)? else {
            // A server that crashed while it wrote the record has continued at this page: xlogreader.c,
            // XLP_FIRST_IS_OVERWRITE_CONTRECORD.
            at = pages.at();
            continue;
        };
        at = record.end;
        previous = Some(begins);
        verified = Verified { end: Lsn(at), records: verified.records + 1 };
        if let Stop::EndOfBackup(start) = piece.stop
            && record.ends_backup_from == Some(start)
        {
            return Ok(verified);
        }
        let stops_here = matches!(piece.stop, Stop::At(stop) if at >= stop.0);
        if record.switches && !stops_here {
            at = pages.rest_of_segment_is_zero()?;
        }
    }
}

#[cfg(test)]
mod tests;
