//! The libraries behind [`Stream`](super::stream::Stream).

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use flate2::{Decompress, FlushDecompress, Status};
use liblzma::stream as xz;
use zstd::zstd_safe;

use super::stream::{Decoder, Step};
use super::{Codec, damaged};
use crate::error::{Error, Kind};

/// The largest window of a zstd frame, as a power of two: 128 MiB, which is also what the program `zstd` takes unasked.
const ZSTD_WINDOW_LOG: u32 = 27;

/// How much memory an xz decoder may take, in bytes. `xz -9` needs 65 MiB, the default `-6` needs 9 MiB.
const XZ_MEMORY: u64 = 80 << 20;

/// How far a library's counter moved; both of its ends are within one buffer.
fn moved(before: u64, after: u64) -> usize {
    usize::try_from(after.wrapping_sub(before)).unwrap_or(usize::MAX)
}

/// gzip and zlib.
pub(super) struct Inflate {
    codec: Codec,
    state: Decompress,
}

impl Inflate {
    /// Members of RFC 1952, each with its CRC-32 and length.
    pub(super) fn gzip() -> Self {
        Self { codec: Codec::Gzip, state: Decompress::new_gzip(15) }
    }

    /// RFC 1950, with its Adler-32.
    pub(super) fn zlib() -> Self {
        Self { codec: Codec::Zlib, state: Decompress::new(true) }
    }
}

impl Decoder for Inflate {
    fn step(&mut self, input: &[u8], output: &mut [u8], _last: bool) -> Result<Step, Error> {
        let (taken, given) = (self.state.total_in(), self.state.total_out());
        let status = self
            .state
            .decompress(input, output, FlushDecompress::None)
            .map_err(|error| damaged(self.codec, &error.to_string()))?;
        Ok(Step {
            consumed: moved(taken, self.state.total_in()),
            produced: moved(given, self.state.total_out()),
            ended: status == Status::StreamEnd,
        })
    }

    fn next_member(&mut self) -> bool {
        if self.codec != Codec::Gzip {
            return false;
        }
        self.state = Decompress::new_gzip(15);
        true
    }
}

/// Zstandard.
pub(super) struct Zstd(zstd_safe::DCtx<'static>);

impl Zstd {
    pub(super) fn new() -> Result<Self, Error> {
        let set_up = |what: &str| Error::new(Kind::Failed, format!("zstd cannot be set up: {what}"));
        let mut context = zstd_safe::DCtx::try_create().ok_or_else(|| set_up("out of memory"))?;
        context
            .set_parameter(zstd_safe::DParameter::WindowLogMax(ZSTD_WINDOW_LOG))
            .map_err(|code| set_up(zstd_safe::get_error_name(code)))?;
        Ok(Self(context))
    }
}

/// `ZSTD_error_frameParameter_windowTooLarge` (zstd_errors.h), as functions return it: negated.
const WINDOW_TOO_LARGE: usize = 16_usize.wrapping_neg();

impl Decoder for Zstd {
    fn step(&mut self, input: &[u8], output: &mut [u8], _last: bool) -> Result<Step, Error> {
        let mut from = zstd_safe::InBuffer::around(input);
        let mut to = zstd_safe::OutBuffer::around(output);
        let missing = self.0.decompress_stream(&mut to, &mut from).map_err(|code| match code {
            WINDOW_TOO_LARGE => Error::new(
                Kind::Limit,
                format!(
                    "the zstd stream asks for a window of more than {} MiB; compress without --long, or with at most \
                     --long={ZSTD_WINDOW_LOG}",
                    (1_u64 << ZSTD_WINDOW_LOG) >> 20
                ),
            ),
            _ => damaged(Codec::Zstd, zstd_safe::get_error_name(code)),
        })?;
        // Zero is said of a frame whose bytes were all given and whose checksum, where it has one, fits.
        Ok(Step { consumed: from.pos(), produced: to.pos(), ended: missing == 0 })
    }

    fn next_member(&mut self) -> bool {
        true
    }
}

/// bzip2.
pub(super) struct Bzip2(bzip2::Decompress);

impl Bzip2 {
    pub(super) fn new() -> Self {
        Self(bzip2::Decompress::new(false))
    }
}

impl Decoder for Bzip2 {
    fn step(&mut self, input: &[u8], output: &mut [u8], _last: bool) -> Result<Step, Error> {
        let (taken, given) = (self.0.total_in(), self.0.total_out());
        let status =
            self.0.decompress(input, output).map_err(|error| damaged(Codec::Bzip2, &error.to_string()))?;
        Ok(Step {
            consumed: moved(taken, self.0.total_in()),
            produced: moved(given, self.0.total_out()),
            ended: status == bzip2::Status::StreamEnd,
        })
    }

    fn next_member(&mut self) -> bool {
        *self = Self::new();
        true
    }
}

/// xz. The library itself goes on to the next stream, past the padding that the format allows between them.
pub(super) struct Xz(xz::Stream);

impl Xz {
    pub(super) fn new() -> Result<Self, Error> {
        xz::Stream::new_stream_decoder(XZ_MEMORY, xz::CONCATENATED | xz::TELL_UNSUPPORTED_CHECK)
            .map(Self)
            .map_err(|error| Error::new(Kind::Failed, format!("xz cannot be set up: {error}")))
    }
}

impl Decoder for Xz {
    fn step(&mut self, input: &[u8], output: &mut [u8], last: bool) -> Result<Step, Error> {
        let (taken, given) = (self.0.total_in(), self.0.total_out());
        let action = if last { xz::Action::Finish } else { xz::Action::Run };
        let status = self.0.process(input, output, action).map_err(|error| match error {
            xz::Error::MemLimit => Error::new(
                Kind::Limit,
                format!(
                    "the xz stream needs more than {} MiB to decode; compress with at most -9",
                    XZ_MEMORY >> 20
                ),
            ),
            error => damaged(Codec::Xz, &error.to_string()),
        })?;
        Ok(Step {
            consumed: moved(taken, self.0.total_in()),
            produced: moved(given, self.0.total_out()),
            ended: status == xz::Status::StreamEnd,
        })
    }

    fn next_member(&mut self) -> bool {
        false
    }
}

/// Brotli, without the large windows that RFC 7932 does not know: at most 16 MiB.
pub(super) struct Brotli(Box<BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>>);

impl Brotli {
    pub(super) fn new() -> Self {
        let allocator = StandardAlloc::default;
        Self(Box::new(BrotliState::new_strict(allocator(), allocator(), allocator())))
    }
}

impl Decoder for Brotli {
    fn step(&mut self, input: &[u8], output: &mut [u8], _last: bool) -> Result<Step, Error> {
        let (mut available, mut consumed) = (input.len(), 0);
        let (mut room, mut produced) = (output.len(), 0);
        let result = BrotliDecompressStream(
            &mut available,
            &mut consumed,
            input,
            &mut room,
            &mut produced,
            output,
            &mut 0,
            &mut self.0,
        );
        match result {
            BrotliResult::ResultFailure => Err(damaged(Codec::Brotli, &format!("{:?}", self.0.error_code))),
            BrotliResult::ResultSuccess => Ok(Step { consumed, produced, ended: true }),
            BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => {
                Ok(Step { consumed, produced, ended: false })
            }
        }
    }

    fn next_member(&mut self) -> bool {
        false
    }
}
