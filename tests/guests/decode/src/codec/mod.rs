//! How an archive is compressed, told by its name, and how it is read. A stream is read to its very end: several gzip
//! members, lz4 frames or zstd frames one after the other are one stream, anything else behind them is an error.

mod lz4;
mod zstd;

use std::io::{BufReader, Read};

use flate2::bufread::MultiGzDecoder;

/// How much of a file is read at once, in bytes.
const BUFFER: usize = 256 << 10;

/// How an archive is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Codec {
    Plain,
    Gzip,
    Lz4,
    Zstd,
}

impl Codec {
    /// The codec and the stem of the archive `name`: `base.tar.gz` is gzip and `base`. None where it is no archive.
    pub(crate) fn of(name: &str) -> Option<(Self, &str)> {
        [(Self::Plain, ".tar"), (Self::Gzip, ".tar.gz"), (Self::Lz4, ".tar.lz4"), (Self::Zstd, ".tar.zst")]
            .into_iter()
            .find_map(|(codec, ending)| Some((codec, name.strip_suffix(ending)?)))
    }

    /// The plain bytes of `compressed`.
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
