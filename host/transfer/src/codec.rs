//! Decompresses streams and verifies them to their end.

mod frames;
mod input;
mod members;
mod stream;
#[cfg(test)]
mod tests;
mod window;

use std::io::Read;

use crate::budget::MemoryAllowance;
use crate::error::{Error, Kind};

use stream::Stream;
pub use window::DECODER_OVERHEAD;
use window::Window;
pub(crate) use window::Windows;

/// A compression format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// RFC 1952, with any number of members.
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
    /// The format of `.lzma` files (LZMA_Alone).
    Lzma,
    /// RFC 1951, without a checksum. Only within an OpenPGP message, which has one.
    Deflate,
}

impl Codec {
    /// Returns the name of the format for messages.
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
            Self::Lzma => "lzma",
            Self::Deflate => "deflate",
        }
    }

    /// Returns a reader of the plain bytes of `stored`, which must be a stream of this format and nothing else. Concatenated
    /// members, frames or streams (of all formats but zlib, deflate, brotli and lzma) are read as one.
    ///
    /// When the reader has reached the end (`Ok(0)`), the format's own checksums have been compared, nothing was missing, and nothing
    /// followed the end. A caller that stops earlier has no such guarantee. Only a digest of the plain bytes can detect some kinds of
    /// damage: brotli, lzma and deflate have no checksum; lz4, zstd and xz streams may be written without theirs; damage may change the type of a snappy chunk
    /// to one that readers skip; and a stream that is truncated exactly between two members (snappy: two chunks) is a valid shorter stream.
    ///
    /// Memory: at most 128 MiB for zstd, 80 MiB for xz and lzma, 16 MiB for brotli, 4 MiB for lz4 and bzip2, if a stream needs that much.
    /// The default settings of the programs need an eighth of that or less.
    ///
    /// # Errors
    /// Fails if a decoder cannot be set up. The reader fails with an [`Error`] within the [`std::io::Error`]: `Corrupt` if the
    /// stream is truncated or damaged, or bytes follow its end; `Limit` if it needs more memory. It passes errors of `stored` on
    /// unchanged. A reader that has failed returns the same error again.
    pub fn decode(self, stored: Box<dyn Read + Send>) -> Result<Box<dyn Read + Send>, Error> {
        self.decode_within(stored, &MemoryAllowance::unlimited())
    }

    /// Decodes as [`Codec::decode`] does, and charges the decoder's window to `allowance` before the window is allocated. In addition to
    /// the window, the decoder needs at most [`DECODER_OVERHEAD`] bytes.
    ///
    /// # Errors
    /// The errors of [`Codec::decode`]; also `Limit`, from this function or the reader, if `allowance` has too little memory.
    pub fn decode_within(
        self,
        stored: Box<dyn Read + Send>,
        allowance: &MemoryAllowance,
    ) -> Result<Box<dyn Read + Send>, Error> {
        self.decode_with(stored, &Windows::new(allowance))
    }

    /// Decodes as [`Codec::decode_within`] does, as one of several decoders through which an object is read.
    ///
    /// # Errors
    /// The errors of [`Codec::decode_within`].
    pub(crate) fn decode_with(
        self,
        stored: Box<dyn Read + Send>,
        windows: &Windows,
    ) -> Result<Box<dyn Read + Send>, Error> {
        let window = Window::new(self, windows);
        Ok(match self {
            Self::Gzip => Box::new(Stream::new(self, stored, members::Inflate::gzip())),
            Self::Zlib => Box::new(Stream::new(self, stored, members::Inflate::zlib())),
            Self::Deflate => Box::new(Stream::new(self, stored, members::Inflate::raw())),
            Self::Lz4 => Box::new(frames::Lz4::new(stored, window)),
            Self::Zstd => Box::new(Stream::new(self, stored, members::Zstd::new(window)?)),
            Self::Bzip2 => Box::new(Stream::new(self, stored, members::Bzip2::new(window)?)),
            Self::Xz => Box::new(Stream::new(self, stored, members::Xz::new(window)?)),
            Self::Lzma => Box::new(Stream::new(self, stored, members::Xz::lzma(window)?)),
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
