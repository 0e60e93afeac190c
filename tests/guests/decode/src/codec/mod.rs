//! Selects the decoder of an archive by the archive's name. A decoder reads a stream to its end: several gzip members, LZ4 frames or
//! Zstandard frames are one stream, and any other bytes after them are an error.

mod lz4;
mod zstd;

use std::io::{BufReader, Read};

use flate2::bufread::MultiGzDecoder;

/// How many bytes are read from a file at once.
const BUFFER: usize = 256 << 10;

/// The compression of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Codec {
    Plain,
    Gzip,
    Lz4,
    Zstd,
}

impl Codec {
    /// Returns the codec and the stem of the archive `name`, such as gzip and `base` for `base.tar.gz`; `None` if `name` is not an archive.
    pub(crate) fn of(name: &str) -> Option<(Self, &str)> {
        [(Self::Plain, ".tar"), (Self::Gzip, ".tar.gz"), (Self::Lz4, ".tar.lz4"), (Self::Zstd, ".tar.zst")]
            .into_iter()
            .find_map(|(codec, ending)| Some((codec, name.strip_suffix(ending)?)))
    }

    /// Returns a reader for the decompressed bytes of `compressed`.
    pub(crate) fn decode(self, compressed: impl Read + 'static) -> Box<dyn Read> {
        let compressed = BufReader::with_capacity(BUFFER, compressed);
        match self {
            Self::Plain => Box::new(compressed),
            Self::Gzip => Box::new(MultiGzDecoder::new(compressed)),
            Self::Lz4 => Box::new(lz4::Frames::new(compressed)),
            Self::Zstd => Box::new(zstd::Frames::new(compressed)),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
