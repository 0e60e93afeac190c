//! Decompression, to the very end of a stream.

mod frames;
mod input;
mod members;
mod stream;
#[cfg(test)]
mod tests;
mod window;

use std::io::Read;

use crate::budget::Room;
use crate::error::{Error, Kind};

use stream::Stream;
pub use window::BESIDES;
use window::Window;

/// How stored bytes are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// RFC 1952, members joined.
    Gzip,
    /// RFC 1950.
    Zlib,
    /// The LZ4 frame format.
    Lz4,
    /// Zstandard frames.
    Zstd,
    /// bzip2 streams.
    Bzip2,
    /// The xz container.
    Xz,
    /// The snappy frame format.
    Snappy,
    /// RFC 7932.
    Brotli,
}

impl Codec {
    /// Its name, for messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zlib => "zlib",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
            Self::Bzip2 => "bzip2",
            Self::Xz => "xz",
            Self::Snappy => "snappy",
            Self::Brotli => "brotli",
        }
    }

    /// The plain bytes of `stored`, which must be a stream of this format and nothing else. Members, frames and streams
    /// that are joined (all but zlib and brotli) come out as one.
    ///
    /// A reader that came to the end (`Ok(0)`) knows that the format's own checksums were compared and that nothing was
    /// missing or left over; one that stops before knows nothing. What only a digest of the plain bytes can tell:
    /// brotli has no checksum at all, lz4, zstd and xz streams may be written without theirs, a chunk of snappy whose type
    /// changed to one that is to be passed over is passed over, and a stream that is cut exactly between two members (of
    /// snappy: chunks) is a shorter stream.
    ///
    /// Memory: at most 128 MiB for zstd, 80 MiB for xz, 16 MiB for brotli, 4 MiB for lz4 and bzip2, where a stream asks for
    /// it; what the programs write unasked needs an eighth of that or less.
    ///
    /// # Errors
    /// Where a decoder cannot be set up. What is wrong with the stream comes out of the reader as an [`Error`] within the
    /// [`std::io::Error`]: `Corrupt` for what is truncated, damaged or goes on after its end, `Limit` for a stream that
    /// asks for more memory; the source's own failures come out unchanged. A reader that failed fails again.
    pub fn decode(self, stored: Box<dyn Read + Send>) -> Result<Box<dyn Read + Send>, Error> {
        self.decode_within(stored, &Room::unlimited())
    }

    /// The same, with what a window needs taken from `room` before it is allocated; besides it takes [`BESIDES`] bytes at most.
    ///
    /// # Errors
    /// As [`Codec::decode`]; `Limit`, also out of the reader, where there is not so much room.
    pub fn decode_within(
        self,
        stored: Box<dyn Read + Send>,
        room: &Room,
    ) -> Result<Box<dyn Read + Send>, Error> {
        let window = Window::new(self, room);
        Ok(match self {
            Self::Gzip => Box::new(Stream::new(self, stored, members::Inflate::gzip())),
            Self::Zlib => Box::new(Stream::new(self, stored, members::Inflate::zlib())),
            Self::Lz4 => Box::new(frames::Lz4::new(stored, window)),
            Self::Zstd => Box::new(Stream::new(self, stored, members::Zstd::new(window)?)),
            Self::Bzip2 => Box::new(Stream::new(self, stored, members::Bzip2::new(window)?)),
            Self::Xz => Box::new(Stream::new(self, stored, members::Xz::new(window)?)),
            Self::Snappy => Box::new(frames::Snappy::new(stored)),
            Self::Brotli => Box::new(Stream::new(self, stored, members::Brotli::new(window))),
        })
    }
}

fn truncated(codec: Codec) -> Error {
    Error::new(Kind::Corrupt, format!("the {} stream is truncated", codec.name()))
}

fn goes_on(codec: Codec) -> Error {
    Error::new(Kind::Corrupt, format!("bytes that do not belong to it follow the {} stream", codec.name()))
}

fn damaged(codec: Codec, how: &str) -> Error {
    Error::new(Kind::Corrupt, format!("the {} stream is damaged: {how}", codec.name()))
}
