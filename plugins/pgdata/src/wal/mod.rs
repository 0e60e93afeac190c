//! The write-ahead log of a backup, read record by record and believed only as far as its checksums fit: what
//! `pg_waldump` does for `pg_verifybackup` (PostgreSQL's xlogreader.c, xlog_internal.h, xlogrecord.h; the layout is the
//! same from version 11 to 18, little-endian).
//!
//! Between the start and the stop of a backup every byte of every record counts, and so do the bytes that fill up a
//! record to the next multiple of eight, which are zeros, and what follows the record that ends a segment early.

mod page;
mod pages;
mod record;

use std::io::{self, Read};

use postgres_formats::Lsn;
use postgres_formats::segment::SegmentSize;

use page::Known;
use pages::Pages;
use record::Record;

/// A WAL record is aligned to this many bytes (`MAXALIGN`).
const ALIGNMENT: u64 = 8;

/// Where the segments are.
pub trait Segments {
    /// The segment file `name`; none where there is none.
    ///
    /// # Errors
    /// Where it cannot be opened.
    fn open(&mut self, name: &str) -> io::Result<Option<Box<dyn Read>>>;
}

/// Where WAL that is verified ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// At this place, as a manifest has it.
    At(Lsn),
    /// After the record that says that the backup which began at this place ended (`XLOG_BACKUP_END`). A primary
    /// writes it; a backup of a standby has none.
    EndOfBackup(Lsn),
}

/// A piece of WAL to verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// The timeline that it is on.
    pub timeline: u32,
    /// Where its first record begins.
    pub start: Lsn,
    /// Where it ends.
    pub stop: Stop,
    /// Timelines that came later: a segment that is missing on its own timeline is looked for on theirs, which begin
    /// with a copy of it.
    pub later: &'a [u32],
}

/// What was verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Where the last record ends.
    pub end: Lsn,
    /// How many records.
    pub records: u64,
}

/// WAL that cannot be believed.
#[derive(Debug, thiserror::Error)]
pub enum WalError {
    /// A segment cannot be read.
    #[error("{segment}: {error}")]
    Io {
        /// Its name.
        segment: String,
        /// Why.
        error: io::Error,
    },
    /// A segment is missing.
    #[error("the segment {segment} is missing, which holds {at}")]
    Missing {
        /// Its name.
        segment: String,
        /// The place that is wanted from it.
        at: Lsn,
    },
    /// What is there is not what a server wrote.
    #[error("the segment {segment} is damaged at {at}: {what}")]
    Damaged {
        /// Its name.
        segment: String,
        /// The place.
        at: Lsn,
        /// What is wrong there.
        what: String,
    },
}

/// What the WAL of one cluster has in common: learned from the first segment that is read, and held against the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cluster(Known);

impl Cluster {
    /// Learns it from the beginning of the segment `name`.
    ///
    /// # Errors
    /// Where that is no beginning of a segment.
    pub fn of(name: &str, mut segment: impl Read) -> Result<Self, WalError> {
        let mut header = [0; page::LONG_HEADER];
        let segment_name = || name.to_owned();
        segment.read_exact(&mut header).map_err(|error| WalError::Io { segment: segment_name(), error })?;
        match Known::learn(&header) {
            Ok(known) => Ok(Self(known)),
            Err(what) => Err(WalError::Damaged { segment: segment_name(), at: Lsn(0), what }),
        }
    }

    /// The system identifier.
    pub fn system_identifier(&self) -> u64 {
        self.0.system_identifier
    }

    /// The size of its segments.
    pub fn segment_size(&self) -> SegmentSize {
        self.0.segment
    }
}

/// Reads every record of `piece` and compares its checksum. `look` is called now and then and can end it.
///
/// # Errors
/// Where a segment is missing or cannot be read, or where a page or a record is not as a server wrote it; names the
/// segment and the place.
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
            // A server that crashed while it wrote the record went on at the page that was reached: xlogreader.c,
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
