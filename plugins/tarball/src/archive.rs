//! One archive of a backup: an object and its compression.

use std::io;

use understudy::store::{Codec, Object, Pipeline, Range};
use understudy::{Failure, UntilCancelled};
use ustar::{Archive, Stream, Windows};

use crate::place::Place;

/// How many bytes of a plain archive are read at once. A read from a directory is cheap; a request to a store should fetch more.
const LOCAL_WINDOW: u64 = 4 << 10;
const REMOTE_WINDOW: u64 = 256 << 10;

/// The file name endings of pg_basebackup 15 to 18, and the compression of each.
const ENDINGS: [(&str, Option<Codec>); 4] = [
    (".tar", None),
    (".tar.gz", Some(Codec::Gzip)),
    (".tar.lz4", Some(Codec::Lz4)),
    (".tar.zst", Some(Codec::Zstd)),
];

/// One archive.
#[derive(Clone, Debug)]
pub(crate) struct ArchiveObject {
    pub(crate) object: Object,
    pub(crate) codec: Option<Codec>,
}

/// Returns the stem and the codec of the archive `name`, such as `base` and gzip for `base.tar.gz`; `None` if `name` is not an archive.
pub(crate) fn stem_of(name: &str) -> Option<(&str, Option<Codec>)> {
    ENDINGS.into_iter().find_map(|(ending, codec)| Some((name.strip_suffix(ending)?, codec)))
}

/// Returns the names that the archive `stem` can have.
pub(crate) fn names_of(stem: &str) -> impl Iterator<Item = (String, Option<Codec>)> {
    ENDINGS.into_iter().map(move |(ending, codec)| (format!("{stem}{ending}"), codec))
}

impl ArchiveObject {
    /// Returns the pipeline that decompresses the archive; `None` if the archive is plain.
    pub(crate) fn pipeline(&self) -> Option<Pipeline> {
        self.codec.map(|codec| Pipeline::new().decompress(codec))
    }

    /// Opens the archive at its first member. Only the parts that are used are read from a plain archive.
    pub(crate) fn look_at(&self, place: &Place) -> Result<Archive, Failure> {
        if self.codec.is_some() {
            let stream = place.at.bucket.read(&self.object.key, None, self.pipeline().as_ref())?;
            return Ok(Archive::boxed(Stream(UntilCancelled::new(stream))));
        }
        let window = if place.at.is_local { LOCAL_WINDOW } else { REMOTE_WINDOW };
        // The archive opens its own bucket, because the archive may outlive `place`.
        let bucket = understudy::store::Bucket::open(place.at.bucket.name())?;
        let key = self.object.key.clone();
        let read_at = move |offset: u64, length: u64| {
            understudy::cancelled()?;
            let stream = bucket.read(&key, Some(Range { offset, length }), None).map_err(Failure::from)?;
            let mut bytes = Vec::new();
            io::Read::read_to_end(&mut io::Read::take(stream, length), &mut bytes)?;
            if bytes.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(bytes) }
        };
        Ok(Archive::boxed(Windows::new(self.object.size, window, read_at)))
    }

    /// Reads the archive's last bytes, at most `most`.
    pub(crate) fn tail(&self, place: &Place, most: u64) -> Result<Vec<u8>, Failure> {
        let length = self.object.size.min(most);
        let range = Range { offset: self.object.size - length, length };
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut place.at.bucket.read(&self.object.key, Some(range), None)?, &mut bytes)?;
        Ok(bytes)
    }

    /// Returns a failure that names the archive.
    pub(crate) fn failed(&self, place: &Place, what: impl std::fmt::Display) -> Failure {
        Failure::failed(format!("{} {what}", place.shown(&self.object.key)))
    }
}
