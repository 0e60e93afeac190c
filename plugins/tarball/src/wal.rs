//! Verifies that the WAL that makes the backup consistent is complete: every record between the start and the stop of the backup.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use pgdata::manifest::{Summary, WalRange};
use pgdata::wal::{Cluster, Piece, Segments, Stop, WalError, verify};
use postgres_formats::Lsn;
use postgres_formats::backup_label::Start;
use postgres_formats::control_file::{self, Beginning};
use postgres_formats::names::CONTROL_FILE;
use postgres_formats::segment::SegmentName;
use understudy::{AtPath, Datadir, Failure, UntilCancelled, cancelled, log};

use crate::backup::Backup;
use crate::place::Place;

/// Verifies the restored WAL: all ranges of the manifest, or, without a manifest, up to the record that ended the backup.
///
/// # Errors
/// Fails if a segment is missing or a record is damaged. The failure names the segment and the LSN.
pub(crate) fn check(
    place: &Place,
    backup: &Backup,
    label: &Start,
    summary: Option<&Summary>,
    datadir: &Datadir,
) -> Result<(), Failure> {
    let archive = backup.wal.as_ref().unwrap_or(&backup.base);
    let wal = datadir.wal_directory();
    let Some(first) = first_segment(wal)? else {
        log::warn!(
            "{} has no WAL (it was taken with -X none): the replica must get all WAL from {} on from the source or an archive",
            place,
            label.start_lsn
        );
        return Ok(());
    };
    let in_archive = |error: WalError| match error {
        WalError::Io { segment, error } => match Failure::from(error) {
            Failure::Failed(why) => {
                archive.failed(place, format!("has WAL that cannot be read: {segment}: {why}"))
            }
            other => other,
        },
        error => archive.failed(place, format!("has incomplete WAL: {error}")),
    };
    let mut segments = Folder(wal);
    let beginning = File::open(wal.join(&first)).at(wal.join(&first))?;
    let cluster = Cluster::of(&first, beginning).map_err(in_archive)?;
    check_cluster(place, backup, &cluster, datadir)?;
    let ranges = summary.map(|summary| summary.wal_ranges.clone()).unwrap_or_default();
    let later: Vec<u32> = ranges.iter().map(|range| range.timeline).collect();
    for (timeline, start, stop) in pieces(label, &ranges) {
        let piece = Piece { timeline, start, stop, later: &later };
        let verified =
            verify(&cluster, &piece, &mut segments, &mut || Ok(cancelled()?)).map_err(in_archive)?;
        log::info!(
            "checked {} records of WAL from {start} to {} on timeline {timeline}",
            verified.records,
            verified.end
        );
    }
    Ok(())
}

/// Returns the ranges to verify; no range for a standby's backup without a manifest, because the end of such a backup is unknown.
fn pieces(label: &Start, ranges: &[WalRange]) -> Vec<(u32, Lsn, Stop)> {
    if !ranges.is_empty() {
        return ranges.iter().map(|range| (range.timeline, range.start, Stop::At(range.end))).collect();
    }
    if label.from_standby {
        log::warn!(
            "the backup is a standby's and has no manifest: where it ended is not known, and its WAL is not checked"
        );
        return Vec::new();
    }
    vec![(label.timeline, label.start_lsn, Stop::EndOfBackup(label.start_lsn))]
}

/// Checks that the WAL and the control file belong to the same cluster.
fn check_cluster(
    place: &Place,
    backup: &Backup,
    cluster: &Cluster,
    datadir: &Datadir,
) -> Result<(), Failure> {
    let path = datadir.place(CONTROL_FILE)?;
    let mut bytes = Vec::new();
    File::open(&path).and_then(|file| file.take(control_file::SIZE).read_to_end(&mut bytes)).at(&path)?;
    let base = &backup.base;
    let control = Beginning::parse(&bytes)
        .map_err(|error| base.failed(place, format!("has a global/pg_control that {error}")))?;
    let (wal, own) = (cluster.system_identifier(), control.system_identifier);
    if wal == own {
        return Ok(());
    }
    Err(base.failed(place, format!("is from the cluster {own}, but its WAL is from the cluster {wal}")))
}

/// Returns the name of the first segment in `wal`; `None` if there are no segments.
fn first_segment(wal: &Path) -> Result<Option<String>, Failure> {
    let mut first = None;
    for entry in fs::read_dir(wal).at(wal)? {
        let name = entry.at(wal)?.file_name().to_string_lossy().into_owned();
        let is_segment = SegmentName::parse(name.as_bytes()).is_some();
        if is_segment && first.as_ref().is_none_or(|first| name < *first) {
            first = Some(name);
        }
    }
    Ok(first)
}

struct Folder<'a>(&'a Path);

impl Segments for Folder<'_> {
    fn open(&mut self, name: &str) -> io::Result<Option<Box<dyn Read>>> {
        match File::open(self.0.join(name)) {
            Ok(file) => Ok(Some(Box::new(UntilCancelled::new(file)))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}
