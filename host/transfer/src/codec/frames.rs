//! Decoders for the formats whose libraries read from a source themselves: LZ4 frames and snappy.

use std::io::{self, BufRead, Read};

use super::input::Input;
use super::window::{self, Window};
use super::{Codec, damaged, goes_on, truncated};
use crate::error::Error;
use crate::sink::read_full;

/// The magic number of an LZ4 frame, least significant byte first (lz4_Frame_format.md).
const LZ4_MAGIC: u32 = 0x184D_2204;

/// The first magic number of skippable frames; the fifteen numbers after it are also their magic numbers.
const LZ4_SKIPPABLE: u32 = 0x184D_2A50;

/// A reader of a whole frame: the magic number and the descriptors, which were read already, followed by the rest of the input.
type Begun = io::Chain<io::Cursor<[u8; 6]>, Input>;

/// The position of an [`Lz4`] reader.
enum Place {
    /// Before a frame, or at the end.
    Between(Input),
    /// Within a frame.
    Within(lz4::Decoder<Begun>),
    /// The reader has failed; each further read returns the error again.
    Failed(Error),
}

/// A reader of LZ4 frames, possibly with skippable frames between them.
pub(super) struct Lz4 {
    place: Place,
    window: Window,
    /// Whether any frame was read.
    any: bool,
}

impl Lz4 {
    pub(super) fn new(source: Box<dyn Read + Send>, window: Window) -> Self {
        Self { place: Place::Between(Input::new(source)), window, any: false }
    }

    /// Moves to the next frame and returns its beginning; `None` at the end.
    fn next_frame(&mut self, input: &mut Input) -> io::Result<Option<[u8; 6]>> {
        loop {
            let mut magic = [0; 4];
            match read_full(input, &mut magic)? {
                0 if self.any => return Ok(None),
                0 => return Err(truncated(Codec::Lz4).into()),
                4 => {}
                _ => return Err(truncated(Codec::Lz4).into()),
            }
            let number = u32::from_le_bytes(magic);
            if number == LZ4_MAGIC {
                let mut begin = [0; 6];
                begin[..4].copy_from_slice(&magic);
                if read_full(input, &mut begin[4..])? < 2 {
                    return Err(truncated(Codec::Lz4).into());
                }
                self.window.charge_for(window::lz4(begin[5]))?;
                return Ok(Some(begin));
            }
            if number & !15 != LZ4_SKIPPABLE {
                return Err(match self.any {
                    true => goes_on(Codec::Lz4),
                    false => damaged(Codec::Lz4, "it does not begin with the number of an LZ4 frame"),
                }
                .into());
            }
            let mut length = [0; 4];
            if read_full(input, &mut length)? < 4 || !skip(input, u32::from_le_bytes(length))? {
                return Err(truncated(Codec::Lz4).into());
            }
            self.any = true;
        }
    }

    fn decode(&mut self, output: &mut [u8]) -> io::Result<usize> {
        loop {
            // An early return leaves this placeholder; `read` replaces it with the actual error.
            let placeholder = Place::Failed(truncated(Codec::Lz4));
            match std::mem::replace(&mut self.place, placeholder) {
                Place::Between(mut input) => {
                    let Some(begin) = self.next_frame(&mut input)? else {
                        self.place = Place::Between(input);
                        return Ok(0);
                    };
                    self.place = Place::Within(lz4::Decoder::new(io::Cursor::new(begin).chain(input))?);
                }
                Place::Within(mut frame) => match frame.read(output) {
                    Ok(0) => {
                        let (begun, ended) = frame.finish();
                        ended.map_err(|_| truncated(Codec::Lz4))?;
                        self.place = Place::Between(begun.into_inner().1);
                        self.any = true;
                    }
                    Ok(length) => {
                        self.place = Place::Within(frame);
                        return Ok(length);
                    }
                    Err(error) if frame.reader().get_ref().1.failed => return Err(error),
                    Err(error) => return Err(damaged(Codec::Lz4, &error.to_string()).into()),
                },
                Place::Failed(error) => return Err(error.into()),
            }
        }
    }
}

impl Read for Lz4 {
    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        if output.is_empty() {
            return Ok(0);
        }
        self.decode(output).inspect_err(|error| self.place = Place::Failed(Error::again(error)))
    }
}

/// Skips `length` bytes. Returns false if the input ends before that.
fn skip(input: &mut Input, length: u32) -> io::Result<bool> {
    let length = u64::from(length);
    Ok(io::copy(&mut input.take(length), &mut io::sink())? == length)
}

/// A reader of the snappy frame format, which has a CRC-32C for each chunk and no end marker. A stream that is truncated between
/// two chunks looks complete here; only the file's size or digest detects that.
pub(super) struct Snappy {
    frames: snap::read::FrameDecoder<Input>,
    /// Whether the stream has begun. An empty input is not a stream.
    begun: bool,
    failed: Option<Error>,
}

impl Snappy {
    pub(super) fn new(source: Box<dyn Read + Send>) -> Self {
        Self { frames: snap::read::FrameDecoder::new(Input::new(source)), begun: false, failed: None }
    }

    fn decode(&mut self, output: &mut [u8]) -> io::Result<usize> {
        if !self.begun {
            if self.frames.get_mut().fill_buf()?.is_empty() {
                return Err(truncated(Codec::Snappy).into());
            }
            self.begun = true;
        }
        self.frames.read(output).map_err(|error| match error.kind() {
            _ if self.frames.get_ref().failed => error,
            io::ErrorKind::UnexpectedEof => truncated(Codec::Snappy).into(),
            _ => damaged(Codec::Snappy, &error.to_string()).into(),
        })
    }
}

impl Read for Snappy {
    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        if let Some(error) = &self.failed {
            return Err(error.clone().into());
        }
        if output.is_empty() {
            return Ok(0);
        }
        self.decode(output).inspect_err(|error| self.failed = Some(Error::again(error)))
    }
}
