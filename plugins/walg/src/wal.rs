//! Finds WAL in the folder `wal_005`: `<segment>.lz4` and `<timeline>.history.lz4`, compressed and encrypted as the archives (`UploadFile`
//! in WAL-G's internal/uploader.go). The folder is flat and may have many objects, so it is not listed: each segment is looked up by the
//! names that it can have, as WAL-G does (`findDecompressorAndDownload` in internal/fetch_helper.go).

use std::cell::Cell;

use postgres_formats::history;
use postgres_formats::segment::{SegmentSize, history_name};
use restore::wal::{Archive, Backup as Needing, Found, Needed, Route, Stored, Wal};
use understudy::store::Codec;
use understudy::transfer::Job;
use understudy::{Error, Failure, cancelled};

use crate::codec::{ENDINGS, UNREAD};
use crate::place::Place;
use crate::sentinel::Backup;

/// The route along which the WAL for a backup is chosen.
pub(crate) type WalRoute<'a> = Route<WalFolder<'a>>;

/// Makes the route of `backup` for the option `wal`; `None` if no WAL is restored. `size` is the size of a segment, or why it is unknown.
///
/// # Errors
/// The errors of [`Route::of`].
pub(crate) fn route<'a>(
    place: &'a Place,
    backup: &Backup,
    system_identifier: u64,
    wal: Wal,
    size: Result<SegmentSize, Failure>,
) -> Result<Option<WalRoute<'a>>, Failure> {
    let (start, stop) = (backup.sentinel.start, backup.sentinel.finish);
    let needing = Needing {
        shown: backup.shown.clone(),
        system_identifier: Some(system_identifier),
        needed: Some(Needed::Between { timeline: backup.name.timeline(), start, stop }),
        stop: Some(stop),
    };
    Route::of(&needing, WalFolder::of(place), wal, size)
}

/// The WAL in a storage.
#[derive(Debug)]
pub(crate) struct WalFolder<'a> {
    place: &'a Place,
    /// The index in [`ENDINGS`] of the compression that was found last. It is tried first.
    last: Cell<usize>,
    is_opened: Cell<bool>,
}

impl<'a> WalFolder<'a> {
    /// Returns the WAL in the storage `place`.
    pub(crate) fn of(place: &'a Place) -> Self {
        Self { place, last: Cell::new(0), is_opened: Cell::new(false) }
    }

    /// Finds the object of the file `name`, by each of the names that it can have.
    fn look_up(&self, name: &str) -> Result<Option<(String, Option<Codec>)>, Failure> {
        let last = self.last.get();
        for at in std::iter::once(last).chain((0..ENDINGS.len()).filter(|at| *at != last)) {
            cancelled()?;
            let Some((ending, codec)) = ENDINGS.get(at) else { continue };
            let key = self.place.wal(&format!("{name}{ending}"));
            if self.place.at.bucket.find(&key)?.is_some() {
                self.last.set(at);
                self.is_opened.set(true);
                return Ok(Some((key, *codec)));
            }
        }
        let unread = self.place.wal(&format!("{name}{UNREAD}"));
        if self.place.at.bucket.find(&unread)?.is_some() {
            let shown = self.place.shown(&unread);
            return Err(Failure::failed(format!(
                "{shown} is compressed with lzo, which is not read: set `wal = \"none\"` to restore without WAL"
            )));
        }
        Ok(None)
    }
}

impl Archive for WalFolder<'_> {
    fn find(&mut self, name: &str) -> Result<Option<Found>, Failure> {
        let found = self.look_up(name)?;
        Ok(found.map(|(object, codec)| Found::One(Stored { object, codec, digest: None })))
    }

    fn forget(&mut self) {}

    fn shown(&self, name: &str) -> Result<String, Failure> {
        let endings: Vec<_> = ENDINGS.iter().filter_map(|(ending, _)| ending.strip_prefix('.')).collect();
        Ok(format!("{}, with or without {}", self.place.shown(&self.place.wal(name)), endings.join(", ")))
    }

    fn histories(&self, timeline: u32) -> Result<Vec<Vec<u8>>, Failure> {
        let Some((key, codec)) = self.look_up(&history_name(timeline))? else { return Ok(Vec::new()) };
        match self.place.at.bucket.get(&key, self.place.pipeline(codec).as_ref(), history::LIMIT) {
            Err(Error::NotFound(_)) => Ok(Vec::new()),
            text => Ok(vec![text?]),
        }
    }

    fn is_opened(&self) -> bool {
        self.is_opened.get()
    }

    fn shown_object(&self, key: &str) -> String {
        self.place.shown(key)
    }

    fn place(&self) -> &'static str {
        "storage"
    }

    fn origin(&self, job: &mut Job, codec: Option<Codec>) -> Result<u32, Failure> {
        Ok(job.origin_of(&self.place.at.bucket, codec, || self.place.pipeline(codec))?)
    }
}
