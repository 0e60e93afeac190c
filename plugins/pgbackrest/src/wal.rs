//! Finds WAL in the archive of a stanza: `archive/STANZA/VERSION-NUMBER/16 digits/24 digits-SHA-1[.gz|.lz4|.zst|.bz2]`
//! (pgBackRest's src/command/archive/common.c).

use std::cell::OnceCell;
use std::collections::BTreeMap;

use postgres_formats::history;
use postgres_formats::segment::{SegmentName, SegmentSize, history_name};
use restore::listing::{Refused, each_in};
use restore::wal::{Archive, Backup, Found, Needed, Route, Stored, Wal};
use understudy::keys::Key;
use understudy::store::Codec;
use understudy::transfer::{Algorithm, Digest, Job};
use understudy::{Error, Failure};

use crate::choice::Chosen;
use crate::info::ArchiveInfo;
use crate::manifest::digest;
use crate::repository::{Repository, Wrapping};

/// The largest permitted number of objects in one folder. With the smallest segments a folder has 4096 segments and some other objects.
const MOST_OBJECTS: usize = 20_000;

/// The route along which the WAL for a backup is chosen.
pub(crate) type WalRoute<'a> = Route<StanzaArchive<'a>>;

/// Makes the route of `chosen` for the option `wal`; `None` if no WAL is restored.
///
/// # Errors
/// The errors of [`Route::of`].
pub(crate) fn route<C>(
    chosen: &Chosen<C>,
    wal: Wal,
    size: Result<SegmentSize, Failure>,
) -> Result<Option<WalRoute<'_>>, Failure> {
    let head = &chosen.head;
    let needed = match (&head.archive_start, &head.archive_stop) {
        (Some(start), Some(stop)) => Some(Needed::Segments(start.clone(), stop.clone())),
        _ => None,
    };
    let backup = Backup {
        shown: chosen.shown.clone(),
        system_identifier: head.system_identifier,
        needed,
        stop: head.lsn_stop,
    };
    Route::of(&backup, StanzaArchive::of(chosen), wal, size)
}

/// The WAL of one cluster in the archive of a stanza. `archive.info` is read at the first lookup.
#[derive(Debug)]
pub(crate) struct StanzaArchive<'a> {
    repository: &'a Repository,
    /// The label of the backup, and its cluster: the system identifier, the version, and the number in the stanza.
    label: &'a str,
    cluster: Option<(u64, &'a str, u32)>,
    opened: OnceCell<Opened>,
    /// The folder that was listed last, and its segments by name.
    listed: Option<(String, BTreeMap<String, Found>)>,
}

#[derive(Debug)]
struct Opened {
    /// The folders of the cluster, at least one. The folder of the backup comes first.
    folders: Vec<String>,
    /// The key of the archive, if the repository is encrypted.
    key: Option<Key>,
}

impl<'a> StanzaArchive<'a> {
    /// Returns the archive of the cluster that was backed up.
    pub(crate) fn of<C>(chosen: &'a Chosen<C>) -> Self {
        let cluster = match (chosen.head.system_identifier, &chosen.head.version) {
            (Some(system_identifier), Some(version)) => {
                Some((system_identifier, version.as_str(), chosen.backup.cluster))
            }
            _ => None,
        };
        let (repository, label) = (&chosen.repository, chosen.backup.label.as_str());
        Self { repository, label, cluster, opened: OnceCell::new(), listed: None }
    }

    fn opened(&self) -> Result<&Opened, Failure> {
        if let Some(opened) = self.opened.get() {
            return Ok(opened);
        }
        let repository = self.repository;
        let shown = repository.shown(&repository.archive("archive.info"));
        let otherwise = "set `wal = \"none\"` to restore without WAL";
        let info = ArchiveInfo::load(repository)?.ok_or_else(|| {
            Failure::failed(format!("{shown} is missing, so that no WAL is found: {otherwise}"))
        })?;
        let folders = self
            .cluster
            .map(|(system_identifier, version, number)| info.folders(system_identifier, version, number));
        let folders: Vec<_> =
            folders.unwrap_or_default().iter().map(|folder| repository.archive(folder)).collect();
        if folders.is_empty() {
            return Err(Failure::failed(format!(
                "{shown} does not list the cluster of the backup {}: {otherwise}",
                self.label
            )));
        }
        Ok(self.opened.get_or_init(|| Opened { folders, key: info.key }))
    }

    fn list(&self, below: &str) -> Result<BTreeMap<String, Found>, Failure> {
        let mut segments = BTreeMap::new();
        for folder in &self.opened()?.folders {
            self.list_one(&format!("{folder}/{below}"), &mut segments)?;
        }
        Ok(segments)
    }

    fn list_one(&self, prefix: &str, segments: &mut BTreeMap<String, Found>) -> Result<(), Failure> {
        let shown = || self.repository.shown(prefix);
        let refused = |why| match why {
            // A web server cannot be listed, and the names of segments end with checksums that are unknown.
            Refused::Unlistable(what) => Failure::failed(format!(
                "{} cannot be listed, so no WAL can be found: {what}; set `wal = \"none\"` to restore without",
                shown()
            )),
            Refused::TooMany(most) => Failure::failed(format!("{} holds more than {most} objects", shown())),
        };
        each_in(&self.repository.bucket, prefix, MOST_OBJECTS, &refused, &mut |name, object| {
            let Some((name, codec, digest)) = parse(&name) else { return Ok(()) };
            let name = name.to_owned();
            let digest = Digest { algorithm: Algorithm::Sha1, value: digest.to_vec() };
            let archived = Stored { object: object.key, codec, digest: Some(digest) };
            match segments.get_mut(&name) {
                None => {
                    segments.insert(name, Found::One(archived));
                }
                Some(found) => {
                    let sum = |stored: &Stored| stored.digest.as_ref().map(|digest| digest.value.clone());
                    if let Found::One(one) = &*found
                        && sum(one) != sum(&archived)
                    {
                        *found = Found::Two(one.clone(), archived);
                    }
                }
            }
            Ok(())
        })?;
        Ok(())
    }
}

impl Archive for StanzaArchive<'_> {
    fn shown(&self, name: &str) -> Result<String, Failure> {
        let places = self.opened()?.folders.iter();
        let places =
            places.map(|folder| self.repository.shown(&format!("{folder}/{}/{name}-*", &name[..16])));
        Ok(places.collect::<Vec<_>>().join(" and no "))
    }

    fn find(&mut self, name: &str) -> Result<Option<Found>, Failure> {
        let below = &name[..16];
        if self.listed.as_ref().is_none_or(|(folder, _)| folder != below) {
            self.listed = Some((below.to_owned(), self.list(below)?));
        }
        Ok(self.listed.as_ref().and_then(|(_, segments)| segments.get(name).cloned()))
    }

    fn shown_object(&self, key: &str) -> String {
        self.repository.shown(key)
    }

    fn duplicate_message(&self, name: &str, one: &Stored, other: &Stored) -> String {
        let (one, other) = (self.shown_object(&one.object), self.shown_object(&other.object));
        format!(
            "the segment {name} is archived twice with different contents, as {one} and as {other}: more than one primary \
             archived to this stanza; remove the one that does not belong here"
        )
    }

    fn forget(&mut self) {
        self.listed = None;
    }

    fn histories(&self, timeline: u32) -> Result<Vec<Vec<u8>>, Failure> {
        let opened = self.opened()?;
        let pipeline = Repository::pipeline(opened.key.as_ref(), None, Wrapping::Whole);
        let mut found = Vec::new();
        for folder in &opened.folders {
            let key = format!("{folder}/{}", history_name(timeline));
            match self.repository.bucket.get(&key, pipeline.as_ref(), history::LIMIT) {
                Err(Error::NotFound(_)) => {}
                contents => found.push(contents?),
            }
        }
        Ok(found)
    }

    fn is_opened(&self) -> bool {
        self.opened.get().is_some()
    }

    fn place(&self) -> &'static str {
        "stanza"
    }

    fn origin(&self, job: &mut Job, codec: Option<Codec>) -> Result<u32, Failure> {
        let key = self.opened()?.key.as_ref();
        let via = || Repository::pipeline(key, codec, Wrapping::Whole);
        Ok(job.origin_of(&self.repository.bucket, codec, via)?)
    }
}

/// Splits an object's name into segment, compression and digest. `None` if it is not a complete segment, such as one that was archived
/// before it was full (`.partial`).
fn parse(name: &str) -> Option<(&str, Option<Codec>, [u8; 20])> {
    let (segment, rest) = name.split_once('-')?;
    SegmentName::parse(segment.as_bytes())?;
    let (sum, ending) = rest.split_once('.').map_or((rest, None), |(sum, ending)| (sum, Some(ending)));
    let codec = match ending {
        None => None,
        Some("gz") => Some(Codec::Gzip),
        Some("lz4") => Some(Codec::Lz4),
        Some("zst") => Some(Codec::Zstd),
        Some("bz2") => Some(Codec::Bzip2),
        Some(_) => return None,
    };
    Some((segment, codec, digest(sum)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_complete_segments_are_found() {
        let sum = "59629cc98129db559e532d38459f862b021dfe45";
        let segment = "000000010000000000000007";
        for (ending, codec) in [("", None), (".gz", Some(Codec::Gzip)), (".zst", Some(Codec::Zstd))] {
            let name = format!("{segment}-{sum}{ending}");
            let (found, known, digest) = parse(&name).unwrap();
            assert_eq!((found, known, digest[0]), (segment, codec, 0x59));
        }
        for name in [
            format!("{segment}.partial-{sum}.gz"),
            format!("{segment}.00000028.backup"),
            format!("{segment}-{sum}.xz"),
            format!("{segment}-{}", &sum[1..]),
            format!("00000001.history-{sum}"),
            segment.to_owned(),
        ] {
            assert_eq!(parse(&name), None, "{name}");
        }
    }
}
