//! Decodes a sequence of Zstandard frames (RFC 8878, section 3). The library reads one frame, and its caller must compare the checksum.

use std::io::{self, BufRead, ErrorKind, Read};

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// How many bytes are decoded before they are returned.
const AHEAD: usize = 128 << 10;

/// A reader for all frames in a stream.
pub(super) struct Frames<R> {
    inner: R,
    decoder: FrameDecoder,
    within: bool,
}

impl<R: BufRead> Frames<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, decoder: FrameDecoder::new(), within: false }
    }

    /// Begins the next frame. Returns false at the end of the stream.
    fn begin(&mut self) -> io::Result<bool> {
        while !self.inner.fill_buf()?.is_empty() {
            match self.decoder.reset(&mut self.inner) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let skipped = io::copy(&mut (&mut self.inner).take(length.into()), &mut io::sink())?;
                    if skipped < length.into() {
                        return Err(ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(into_io(error)),
            }
        }
        Ok(false)
    }

    fn end(&mut self) -> io::Result<()> {
        self.within = false;
        match (self.decoder.get_checksum_from_data(), self.decoder.get_calculated_checksum()) {
            (Some(written), calculated) if Some(written) != calculated => {
                Err(io::Error::new(ErrorKind::InvalidData, "the checksum of a Zstandard frame is wrong"))
            }
            _ => Ok(()),
        }
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.within {
                if !self.begin()? {
                    return Ok(0);
                }
                self.within = true;
            }
            if self.decoder.can_collect() > 0 {
                return self.decoder.read(into);
            }
            if self.decoder.is_finished() {
                self.end()?;
                continue;
            }
            self.decoder
                .decode_blocks(&mut self.inner, BlockDecodingStrategy::UptoBytes(AHEAD))
                .map_err(into_io)?;
        }
    }
}

/// Converts an error of the decoder. Returns an error of the underlying reader unchanged.
fn into_io(error: FrameDecoderError) -> io::Error {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(inner) = cause {
        if let Some(found) = inner.downcast_ref::<io::Error>() {
            if found.kind() == ErrorKind::UnexpectedEof {
                return ErrorKind::UnexpectedEof.into();
            }
            return io::Error::new(found.kind(), error);
        }
        cause = inner.source();
    }
    io::Error::new(ErrorKind::InvalidData, error)
}
