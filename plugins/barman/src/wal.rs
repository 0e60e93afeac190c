//! Finds WAL in the archive of a server: `wals/16 digits/24 digits` and `wals/TIMELINE.history` (`hash_dir` in barman/xlog.py). barman-cloud
//! adds the ending of the compression (`retrieve_wal_name` in barman/clients/cloud_walarchive.py). A Barman server does not; its
//! `xlog.db` and the first bytes of a file say how it is compressed (barman/compression.py).

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::Read;

use postgres_formats::history;
use postgres_formats::segment::{SegmentName, SegmentSize, history_name};
use restore::wal::{Archive, Backup, Found, Needed, Route, Stored, Wal};
use understudy::store::{Codec, Object, Range};
use understudy::transfer::Job;
use understudy::{AtPath, Failure, cancelled};

use crate::chain::Link;
use crate::names::{MAGIC_LENGTH, codec_of, is_encrypted, pipeline, split_codec};
use crate::place::Place;

/// The largest permitted number of objects in one folder. With the smallest segments a folder has 4096 segments, and some other objects.
pub(crate) const MOST_OBJECTS: usize = 20_000;

/// The high byte of the number with which every WAL page begins, least significant byte first (`XLOG_PAGE_MAGIC` in PostgreSQL's
/// xlog_internal.h).
const PAGE_MAGIC: u8 = 0xD1;

/// The same of PostgreSQL 11 to 13.
const OLD_PAGE_MAGIC: u8 = 0xD0;

/// The route along which the WAL for a backup is chosen.
pub(crate) type WalRoute<'a> = Route<ServerArchive<'a>>;

/// Makes the route of a backup for the option `wal`; `None` if no WAL is restored.
///
/// # Errors
/// The errors of [`Route::of`].
pub(crate) fn route<'a>(place: &'a Place, link: &Link, wal: Wal) -> Result<Option<WalRoute<'a>>, Failure> {
    let backup = &link.backup;
    let known = Backup {
        shown: link.shown.clone(),
        system_identifier: backup.system_identifier,
        needed: Some(Needed::Between { timeline: backup.timeline, start: backup.begin, stop: backup.end }),
        stop: Some(backup.end),
    };
    let archive =
        ServerArchive { place, size: backup.segment_size, listed: None, is_opened: Cell::new(false) };
    Route::of(&known, archive, wal, Ok(backup.segment_size))
}

/// The WAL of a server.
#[derive(Debug)]
pub(crate) struct ServerArchive<'a> {
    place: &'a Place,
    size: SegmentSize,
    /// The folder that was listed last, and the objects of its segments by name.
    listed: Option<(String, BTreeMap<String, Vec<Object>>)>,
    is_opened: Cell<bool>,
}

impl ServerArchive<'_> {
    fn list(&self, folder: &str) -> Result<BTreeMap<String, Vec<Object>>, Failure> {
        let (prefix, mut segments) =
            (self.place.key(&format!("wals/{folder}")), BTreeMap::<_, Vec<_>>::new());
        let too_many = || self.place.failed(&prefix, format!("holds more than {MOST_OBJECTS} objects"));
        self.place.at.each_in(&prefix, MOST_OBJECTS, &too_many, &mut |name, object| {
            if let Some(segment) = segment_of(&name) {
                segments.entry(segment.to_owned()).or_default().push(object);
            }
            Ok(())
        })?;
        if !segments.is_empty() {
            self.is_opened.set(true);
        }
        Ok(segments)
    }

    /// Finds out how a segment is stored.
    fn stored(&self, object: &Object) -> Result<Stored, Failure> {
        let key = &object.key;
        let codec = match split_codec(key).1 {
            Some(codec) => Some(codec),
            None => self.sniffed(object)?,
        };
        Ok(Stored { object: key.clone(), codec, digest: None })
    }

    /// Finds out by its first bytes how a segment without an ending is compressed.
    fn sniffed(&self, object: &Object) -> Result<Option<Codec>, Failure> {
        let key = &object.key;
        let mut beginning = Vec::new();
        let range = Range { offset: 0, length: MAGIC_LENGTH.min(object.size) };
        self.place
            .at
            .bucket
            .read(key, Some(range), None)?
            .take(MAGIC_LENGTH)
            .read_to_end(&mut beginning)
            .at(self.place.shown(key))?;
        if let Some(codec) = codec_of(&beginning) {
            return Ok(Some(codec));
        }
        if is_encrypted(&beginning) {
            return Err(self.place.failed(
                key,
                "is encrypted with gpg, which is not read: set `wal = \"none\"` where the source still has the WAL",
            ));
        }
        if !matches!(beginning.get(1), Some(&PAGE_MAGIC | &OLD_PAGE_MAGIC)) {
            return Err(self.place.failed(
                key,
                "is neither WAL nor compressed in a way that is known, such as with `compression = custom`: set \
                 `wal = \"none\"` where the source still has the WAL",
            ));
        }
        if object.size != self.size.bytes() {
            let (size, whole) = (object.size, self.size.bytes());
            return Err(self
                .place
                .failed(key, format!("has {size} bytes instead of {whole}: it was not archived whole")));
        }
        Ok(None)
    }

    /// Reads a history file, which may be compressed without an ending. `None` if there is none.
    fn history(&self, key: &str, codec: Option<Codec>) -> Result<Option<Vec<u8>>, Failure> {
        let bucket = &self.place.at.bucket;
        if bucket.find(key)?.is_none() {
            return Ok(None);
        }
        let text = bucket.get(key, pipeline(codec).as_ref(), history::LIMIT)?;
        self.is_opened.set(true);
        match (codec, codec_of(&text)) {
            (None, Some(codec)) => {
                Ok(Some(bucket.get(key, pipeline(Some(codec)).as_ref(), history::LIMIT)?))
            }
            (None, None) if is_encrypted(&text) => {
                Err(self.place.failed(key, "is encrypted with gpg, which is not read"))
            }
            _ => Ok(Some(text)),
        }
    }
}

impl Archive for ServerArchive<'_> {
    fn find(&mut self, name: &str) -> Result<Option<Found>, Failure> {
        let folder = name.get(..16).unwrap_or(name);
        if self.listed.as_ref().is_none_or(|(listed, _)| listed != folder) {
            self.listed = Some((folder.to_owned(), self.list(folder)?));
        }
        let objects = self.listed.as_ref().and_then(|(_, segments)| segments.get(name));
        match objects.map(Vec::as_slice) {
            None | Some([]) => Ok(None),
            Some([one]) => Ok(Some(Found::One(self.stored(one)?))),
            Some([one, other, ..]) => Ok(Some(Found::Two(self.stored(one)?, self.stored(other)?))),
        }
    }

    fn forget(&mut self) {
        self.listed = None;
    }

    fn shown(&self, name: &str) -> Result<String, Failure> {
        Ok(self.place.shown(&self.place.key(&format!("wals/{}/{name}", name.get(..16).unwrap_or(name)))))
    }

    fn histories(&self, timeline: u32) -> Result<Vec<Vec<u8>>, Failure> {
        let key = self.place.key(&format!("wals/{}", history_name(timeline)));
        let mut found = Vec::new();
        for (ending, codec) in crate::names::endings() {
            cancelled()?;
            found.extend(self.history(&format!("{key}{ending}"), codec)?);
        }
        Ok(found)
    }

    fn is_opened(&self) -> bool {
        self.is_opened.get()
    }

    fn shown_object(&self, key: &str) -> String {
        self.place.shown(key)
    }

    fn place(&self) -> &'static str {
        "server"
    }

    fn origin(&self, job: &mut Job, codec: Option<Codec>) -> Result<u32, Failure> {
        Ok(job.origin_of(&self.place.at.bucket, codec, || pipeline(codec))?)
    }
}

/// Returns the name of the segment that the object `name` in a folder of `wals` contains; `None` if it is not a whole segment, such as one
/// that was archived before it was full (`.partial`), or the history of a backup (`.backup`).
fn segment_of(name: &str) -> Option<&str> {
    let (segment, _) = split_codec(name);
    SegmentName::parse(segment.as_bytes()).map(|_| segment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_segments_are_found() {
        let segment = "000000010000000000000007";
        for ending in ["", ".gz", ".bz2", ".xz", ".snappy", ".zst", ".lz4"] {
            assert_eq!(segment_of(&format!("{segment}{ending}")), Some(segment), "{ending}");
        }
        for ending in [
            ".partial",
            ".partial.gz",
            ".00000028.backup",
            ".00000028.backup.gz",
            ".gpg",
            ".gz.tmp",
            ".br",
            "/x",
        ] {
            assert_eq!(segment_of(&format!("{segment}{ending}")), None, "{ending}");
        }
        for name in ["xlog.db", "00000002.history", ""] {
            assert_eq!(segment_of(name), None, "{name}");
        }
    }
}
