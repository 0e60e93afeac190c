//! The decoders for [`Stream`](super::stream::Stream).

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};
use flate2::{Decompress, FlushDecompress, Status};
use liblzma::stream as xz;
use zstd::zstd_safe;

use super::stream::{Decoder, Step};
use super::window::{self, Window, ZSTD_HEADER, ZSTD_OVERHEAD};
use super::{Codec, damaged};
use crate::error::{Error, Kind};

/// The largest window of a zstd frame, as a power of two: 128 MiB, which is also the default limit of the program `zstd`.
const ZSTD_WINDOW_LOG: u32 = 27;

/// The most memory of an xz decoder in bytes. `xz -9` needs 65 MiB, the default `-6` needs 9 MiB.
const XZ_MEMORY: u64 = 80 << 20;

/// Returns how far a library's counter has moved within one buffer.
fn moved(before: u64, after: u64) -> usize {
    usize::try_from(after.wrapping_sub(before)).unwrap_or(usize::MAX)
}

/// The decoder for gzip, zlib and deflate.
pub(super) struct Inflate {
    codec: Codec,
    state: Decompress,
}

impl Inflate {
    /// Makes a decoder for members of RFC 1952, each with its CRC-32 and length.
    pub(super) fn gzip() -> Self {
        Self { codec: Codec::Gzip, state: Decompress::new_gzip(15) }
    }

    /// Makes a decoder for RFC 1950, with its Adler-32.
    pub(super) fn zlib() -> Self {
        Self { codec: Codec::Zlib, state: Decompress::new(true) }
    }

    /// Makes a decoder for RFC 1951.
    pub(super) fn raw() -> Self {
        Self { codec: Codec::Deflate, state: Decompress::new(false) }
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

/// The decoder for Zstandard.
pub(super) struct Zstd {
    context: zstd_safe::DCtx<'static>,
    window: Window,
    /// The beginning of a frame's header that arrived in chunks and that the library has not received yet.
    header: Vec<u8>,
    /// Whether the window of the frame is charged.
    begun: bool,
}

impl Zstd {
    pub(super) fn new(window: Window) -> Result<Self, Error> {
        let set_up = |what: &str| Error::new(Kind::Failed, format!("zstd cannot be set up: {what}"));
        let mut context = zstd_safe::DCtx::try_create().ok_or_else(|| set_up("out of memory"))?;
        context
            .set_parameter(zstd_safe::DParameter::WindowLogMax(ZSTD_WINDOW_LOG))
            .map_err(|code| set_up(zstd_safe::get_error_name(code)))?;
        Ok(Self { context, window, header: Vec::new(), begun: false })
    }
}

impl Zstd {
    /// Parses the frame's header and charges its window. While the header is incomplete, keeps its bytes and returns how many it
    /// took; returns `None` when the library may decode.
    fn begin(&mut self, input: &[u8], last: bool) -> Result<Option<usize>, Error> {
        let more = input.len().min(ZSTD_HEADER - self.header.len());
        let known = match self.header.is_empty() {
            true => window::zstd(input),
            false => window::zstd(&[&self.header, &input[..more]].concat()),
        };
        match known {
            // The library refuses a larger window; `decode` turns its error into a message.
            Some(bytes) if bytes > (1 << ZSTD_WINDOW_LOG) + ZSTD_OVERHEAD => {}
            Some(bytes) => self.window.charge_for(bytes)?,
            None if last => {}
            None => {
                self.header.extend_from_slice(&input[..more]);
                return Ok(Some(more));
            }
        }
        self.begun = true;
        Ok(None)
    }

    /// Decodes some of `input` into `output`. Returns how many bytes were consumed and produced, and whether a frame ended.
    fn decode(&mut self, input: &[u8], output: &mut [u8]) -> Result<(usize, usize, bool), Error> {
        let mut from = zstd_safe::InBuffer::around(input);
        let mut to = zstd_safe::OutBuffer::around(output);
        let missing = self.context.decompress_stream(&mut to, &mut from).map_err(|code| match code {
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
        // Zero means that all bytes of a frame were produced, and that the frame's checksum, if present, matches.
        Ok((from.pos(), to.pos(), missing == 0))
    }
}

/// `ZSTD_error_frameParameter_windowTooLarge` (zstd_errors.h), as functions return it: negated.
const WINDOW_TOO_LARGE: usize = 16_usize.wrapping_neg();

impl Decoder for Zstd {
    fn step(&mut self, input: &[u8], output: &mut [u8], last: bool) -> Result<Step, Error> {
        if !self.begun
            && let Some(consumed) = self.begin(input, last)?
        {
            return Ok(Step { consumed, produced: 0, ended: false });
        }
        while !self.header.is_empty() {
            let header = std::mem::take(&mut self.header);
            let (taken, produced, ended) = self.decode(&header, output)?;
            self.header.extend_from_slice(&header[taken..]);
            if produced > 0 || ended {
                self.begun = !ended;
                return Ok(Step { consumed: 0, produced, ended });
            }
            if taken == 0 {
                return Err(damaged(Codec::Zstd, "the decoder does not consume a frame's header"));
            }
        }
        let (consumed, produced, ended) = self.decode(input, output)?;
        self.begun = !ended;
        Ok(Step { consumed, produced, ended })
    }

    fn next_member(&mut self) -> bool {
        true
    }
}

/// The decoder for bzip2.
pub(super) struct Bzip2 {
    stream: bzip2::Decompress,
    _window: Window,
}

/// The memory of a bzip2 decoder for the largest block in bytes (bzip2(1), "Memory management").
const BZIP2: u64 = 4 << 20;

impl Bzip2 {
    pub(super) fn new(mut window: Window) -> Result<Self, Error> {
        window.charge_for(BZIP2)?;
        Ok(Self { stream: bzip2::Decompress::new(false), _window: window })
    }
}

impl Decoder for Bzip2 {
    fn step(&mut self, input: &[u8], output: &mut [u8], _last: bool) -> Result<Step, Error> {
        let (taken, given) = (self.stream.total_in(), self.stream.total_out());
        let status = self
            .stream
            .decompress(input, output)
            .map_err(|error| damaged(Codec::Bzip2, &error.to_string()))?;
        Ok(Step {
            consumed: moved(taken, self.stream.total_in()),
            produced: moved(given, self.stream.total_out()),
            ended: status == bzip2::Status::StreamEnd,
        })
    }

    fn next_member(&mut self) -> bool {
        self.stream = bzip2::Decompress::new(false);
        true
    }
}

/// The decoder for xz and lzma. With xz the library itself continues with the next stream, after the padding that the format allows
/// between streams.
pub(super) struct Xz(xz::Stream, Window, Codec);

/// The first limit of an xz decoder's memory in bytes. The library stops if a block needs more, and the limit is doubled until it
/// suffices or reaches [`XZ_MEMORY`].
const XZ_FIRST: u64 = XZ_MEMORY / 64;

impl Xz {
    pub(super) fn new(mut window: Window) -> Result<Self, Error> {
        window.charge_for(XZ_FIRST)?;
        xz::Stream::new_stream_decoder(XZ_FIRST, xz::CONCATENATED | xz::TELL_UNSUPPORTED_CHECK)
            .map(|stream| Self(stream, window, Codec::Xz))
            .map_err(|error| Error::new(Kind::Failed, format!("xz cannot be set up: {error}")))
    }

    pub(super) fn lzma(mut window: Window) -> Result<Self, Error> {
        window.charge_for(XZ_FIRST)?;
        xz::Stream::new_lzma_decoder(XZ_FIRST)
            .map(|stream| Self(stream, window, Codec::Lzma))
            .map_err(|error| Error::new(Kind::Failed, format!("lzma cannot be set up: {error}")))
    }
}

impl Decoder for Xz {
    fn step(&mut self, input: &[u8], output: &mut [u8], last: bool) -> Result<Step, Error> {
        let (taken, given) = (self.0.total_in(), self.0.total_out());
        let action = if last { xz::Action::Finish } else { xz::Action::Run };
        let mut limit = self.0.memlimit();
        let status = loop {
            let (at, given) = (moved(taken, self.0.total_in()), moved(given, self.0.total_out()));
            match self.0.process(&input[at..], &mut output[given..], action) {
                Err(xz::Error::MemLimit) if limit < XZ_MEMORY => {
                    limit = (2 * limit).min(XZ_MEMORY);
                    self.1.charge_for(limit)?;
                    // The library refuses a limit that is still too small, and keeps the old one.
                    let _ = self.0.set_memlimit(limit);
                }
                status => break status,
            }
        };
        let status = status.map_err(|error| match error {
            xz::Error::MemLimit => Error::new(
                Kind::Limit,
                format!(
                    "the {} stream needs more than {} MiB to decode; compress with at most -9",
                    self.2.name(),
                    XZ_MEMORY >> 20
                ),
            ),
            error => damaged(self.2, &error.to_string()),
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

/// The decoder for brotli. Accepts the windows of RFC 7932, at most 16 MiB, and not the larger windows of later extensions.
pub(super) struct Brotli {
    state: Box<BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>>,
    window: Window,
    /// Whether the window is charged.
    begun: bool,
}

impl Brotli {
    pub(super) fn new(window: Window) -> Self {
        let allocator = StandardAlloc::default;
        let state = Box::new(BrotliState::new_strict(allocator(), allocator(), allocator()));
        Self { state, window, begun: false }
    }
}

impl Decoder for Brotli {
    fn step(&mut self, input: &[u8], output: &mut [u8], _last: bool) -> Result<Step, Error> {
        if let Some(first) = input.first().filter(|_| !self.begun) {
            self.window.charge_for(window::brotli(*first))?;
            self.begun = true;
        }
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
            &mut self.state,
        );
        match result {
            BrotliResult::ResultFailure => {
                Err(damaged(Codec::Brotli, &format!("{:?}", self.state.error_code)))
            }
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
