//! Adds WAL to a transfer job.

use std::fs;
use std::io::ErrorKind;

use understudy::store::Range;
use understudy::transfer::{Algorithm, Digest, Fetch, Job, Unless};
use understudy::{AtPath, Datadir, Failure, log, progress};

use crate::wal::{Archive, Counts, History, Route, Segment};

/// The SHA-1 of an empty file.
pub const SHA1_OF_EMPTY: [u8; 20] = [
    0xda, 0x39, 0xa3, 0xee, 0x5e, 0x6b, 0x4b, 0x0d, 0x32, 0x55, 0xbf, 0xef, 0x95, 0x60, 0x18, 0x90, 0xaf,
    0xd8, 0x07, 0x09,
];

/// The folder of the status files.
pub const STATUS_FOLDER: &str = "pg_wal/archive_status";

/// Makes the items for the files of `pg_wal` in one job.
#[derive(Debug)]
pub struct WalFiles {
    /// The item for an empty file.
    empty: Fetch,
}

impl WalFiles {
    /// Makes items for a job that has the origin `origin`. The host never reads the object `nothing`, which need not exist. `mode` are the
    /// permission bits of the files.
    pub fn new(origin: u32, nothing: String, mode: Option<u32>, unless: Unless) -> Self {
        let empty = Fetch {
            origin,
            object: nothing,
            range: Some(Range { offset: 0, length: 0 }),
            path: String::new(),
            at: None,
            size: 0,
            digest: Some(Digest { algorithm: Algorithm::Sha1, value: SHA1_OF_EMPTY.to_vec() }),
            mode,
            mtime: None,
            unless,
        };
        Self { empty }
    }

    /// Returns the item for an empty file, which the host creates without reading an object.
    pub fn empty(&self, path: &str) -> Fetch {
        Fetch { path: path.to_owned(), ..self.empty.clone() }
    }

    /// Adds a segment with its status file to `job`; nothing if the segment is in the backup itself.
    ///
    /// # Errors
    /// The error of the host.
    pub fn segment<A: Archive>(
        &self,
        job: &mut Job,
        route: &Route<A>,
        segment: &Segment,
    ) -> Result<(), Failure> {
        // A segment in the backup itself was restored with its files.
        let Some(archived) = &segment.archived else { return Ok(()) };
        let origin = route.archive.origin(job, archived.codec)?;
        job.fetch(Fetch {
            origin,
            object: archived.object.clone(),
            range: None,
            size: route.size.bytes(),
            digest: archived.digest.clone(),
            unless: match archived.digest {
                // Without a digest nothing says whether an existing segment is the same.
                None => Unless::Always,
                Some(_) => self.empty.unless,
            },
            ..self.empty(&format!("pg_wal/{}", segment.name))
        })?;
        self.mark_archived(job, &segment.name)
    }

    /// Marks the file `name` of `pg_wal` as archived. Otherwise a promoted server would archive it again.
    ///
    /// # Errors
    /// The error of the host.
    pub fn mark_archived(&self, job: &mut Job, name: &str) -> Result<(), Failure> {
        job.fetch(self.empty(&format!("{STATUS_FOLDER}/{name}.done")))
    }

    /// Writes a history file, and adds its status file to `job`.
    ///
    /// # Errors
    /// Fails if the file cannot be written; the error of the host.
    pub fn history(&self, job: &mut Job, history: &History, datadir: &Datadir) -> Result<(), Failure> {
        let name = format!("pg_wal/{}", history.name);
        // An interrupted run left this file.
        let path = datadir.place(&name)?;
        match fs::remove_file(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            removed => removed.at(&path)?,
        }
        datadir.write(&name, &mut &history.text[..])?;
        self.mark_archived(job, &history.name)
    }
}

/// How many times the archive is listed again for segments that were archived during the restore.
pub const ROUNDS: usize = 100;

/// Restores `segments` with `fetch`, which adds segments to a job and waits for the job. If the route follows the source, then restores the
/// segments that were archived since, up to `rounds` times. `has` returns whether a segment is in the backup itself. `expected` are the
/// numbers of bytes and files that were reported as expected so far.
///
/// # Errors
/// The errors of `fetch` and of [`Route::next_segments`].
pub fn restore_wal<A: Archive>(
    route: &mut Route<A>,
    mut segments: Vec<Segment>,
    has: &dyn Fn(&str) -> bool,
    mut expected: Counts,
    rounds: usize,
    fetch: &mut impl FnMut(&Route<A>, &[Segment]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    for _ in 0..rounds {
        fetch(route, &segments)?;
        if !route.follows_source() {
            return Ok(());
        }
        progress::phase("write-ahead log");
        segments = route.next_segments(has)?;
        if segments.is_empty() {
            return Ok(());
        }
        log::info!("WAL segments that were archived during the restore: {}", segments.len());
        expected = route.amount_of(&segments, &[]).added_to(expected);
        progress::expect(expected.0, expected.1);
    }
    fetch(route, &segments)?;
    log::warn!(
        "WAL was archived as fast as it was restored, {rounds} times: the replica gets the WAL after {} from the source",
        segments.last().map_or("the last", |segment| &segment.name)
    );
    Ok(())
}
