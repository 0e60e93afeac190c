//! The archive of a stanza: `archive/STANZA/VERSION-NUMBER/16 digits/24 digits-SHA-1[.gz|.lz4|.zst|.bz2]`
//! (pgBackRest's src/command/archive/common.c).

use std::collections::BTreeMap;

use understudy::keys::Key;
use understudy::store::Codec;
use understudy::{Error, Failure, cancelled, log};

use crate::choice::Chosen;
use crate::info::ArchiveInfo;
use crate::label::timeline_of;
use crate::manifest::digest;
use crate::repository::Repository;

/// The most objects of one folder. With the smallest segments it holds 4096 of them.
const MOST_OBJECTS: usize = 20_000;

/// A segment in the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Archived {
    /// The object.
    pub(crate) object: String,
    pub(crate) codec: Option<Codec>,
    /// The SHA-1 of its plain bytes.
    pub(crate) digest: [u8; 20],
}

/// The WAL of one cluster in the archive of a stanza.
#[derive(Debug)]
pub(crate) struct Archive<'a> {
    repository: &'a Repository,
    folder: String,
    /// What opens it, of an encrypted repository.
    pub(crate) key: Option<Key>,
    /// The folder that was listed last, and the segments in it by their names.
    listed: Option<(String, BTreeMap<String, Archived>)>,
}

impl<'a> Archive<'a> {
    /// The archive of the cluster that was backed up.
    ///
    /// # Errors
    /// Where there is none, or it cannot be used.
    pub(crate) fn of<C>(chosen: &'a Chosen<C>) -> Result<Self, Failure> {
        let repository = &chosen.repository;
        let shown = repository.shown(&repository.archive("archive.info"));
        let otherwise = "set `wal = \"none\"` to restore without WAL";
        let info = ArchiveInfo::load(repository)?.ok_or_else(|| {
            Failure::failed(format!("{shown} is missing, so that no WAL is found: {otherwise}"))
        })?;
        let folder = match (chosen.head.system_identifier, &chosen.head.version) {
            (Some(system_identifier), Some(version)) => info.folder(system_identifier, version),
            _ => None,
        };
        let folder = folder.ok_or_else(|| {
            Failure::failed(format!(
                "{shown} does not know the cluster that the backup {} is of: {otherwise}",
                chosen.backup.label
            ))
        })?;
        Ok(Self { folder: repository.archive(&folder), repository, key: info.key, listed: None })
    }

    /// Where the segment `name` should be, for messages.
    pub(crate) fn shown(&self, name: &str) -> String {
        self.repository.shown(&format!("{}/{}/{name}", self.folder, &name[..16]))
    }

    /// The segment `name`; none where it is not archived.
    ///
    /// # Errors
    /// Where it is there twice with different contents; what the store answers.
    pub(crate) fn find(&mut self, name: &str) -> Result<Option<Archived>, Failure> {
        let below = &name[..16];
        if self.listed.as_ref().is_none_or(|(folder, _)| folder != below) {
            self.listed = Some((below.to_owned(), self.list(below)?));
        }
        Ok(self.listed.as_ref().and_then(|(_, segments)| segments.get(name).cloned()))
    }

    /// Lists anew what is asked for next.
    pub(crate) fn forget(&mut self) {
        self.listed = None;
    }

    fn list(&self, below: &str) -> Result<BTreeMap<String, Archived>, Failure> {
        let prefix = format!("{}/{below}", self.folder);
        let mut segments: BTreeMap<String, Archived> = BTreeMap::new();
        for (count, object) in self.repository.bucket.objects(&prefix).enumerate() {
            cancelled()?;
            let object = match object {
                Err(Error::NotFound(_)) if count == 0 => break,
                // A web server: the names of segments end with their checksums, and nobody can guess those.
                Err(Error::Invalid(what)) if count == 0 => {
                    let shown = self.repository.shown(&prefix);
                    return Err(Failure::failed(format!(
                        "{shown} cannot be listed, and so no WAL be found: {what}; set `wal = \"none\"` to restore without"
                    )));
                }
                object => object?,
            };
            if count == MOST_OBJECTS {
                let shown = self.repository.shown(&prefix);
                return Err(Failure::failed(format!("{shown} holds more than {MOST_OBJECTS} objects")));
            }
            let name = object.key.strip_prefix(&prefix).and_then(|rest| rest.strip_prefix('/'));
            let Some((name, codec, digest)) = name.and_then(parse) else { continue };
            let name = name.to_owned();
            let archived = Archived { object: object.key, codec, digest };
            match segments.get(&name) {
                Some(other) if other.digest != archived.digest => {
                    let (one, other) =
                        (self.repository.shown(&other.object), self.repository.shown(&archived.object));
                    return Err(Failure::failed(format!(
                        "the segment {name} is archived twice with different contents, as {one} and as {other}: more \
                         than one primary archived to this stanza; remove the one that does not belong here"
                    )));
                }
                Some(_) => {}
                None => {
                    segments.insert(name, archived);
                }
            }
        }
        Ok(segments)
    }

    /// The text of the history of `timeline`; none where it is not archived.
    ///
    /// # Errors
    /// What the store answers.
    pub(crate) fn history(&self, timeline: u32) -> Result<Option<String>, Failure> {
        let key = format!("{}/{timeline:08X}.history", self.folder);
        let pipeline = Repository::pipeline(self.key.as_ref(), None);
        match self.repository.bucket.get(&key, pipeline.as_ref(), pgdata::history::LIMIT) {
            Err(Error::NotFound(_)) => {
                log::debug!("{} is not archived", self.repository.shown(&key));
                Ok(None)
            }
            text => String::from_utf8(text?)
                .map(Some)
                .map_err(|_| Failure::failed(format!("{} is not UTF-8", self.repository.shown(&key)))),
        }
    }
}

/// The segment that an object's name tells, how it is compressed, and its digest. None of what is none, such as a segment
/// that was archived before it was full (`.partial`).
fn parse(name: &str) -> Option<(&str, Option<Codec>, [u8; 20])> {
    let (segment, rest) = name.split_once('-')?;
    timeline_of(segment)?;
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
    fn only_whole_segments_are_found() {
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
