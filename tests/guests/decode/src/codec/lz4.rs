//! Decodes a sequence of LZ4 frames (lz4_Frame_format.md in the lz4 project). The library reads one frame, and treats a stream that stops
//! between two blocks as complete. So this module checks the beginning and the end of each frame.

use std::io::{self, BufRead, Chain, Cursor, ErrorKind, Read};

use lz4_flex::frame::FrameDecoder;

const MAGIC: [u8; 4] = 0x184D_2204u32.to_le_bytes();

/// The length in bytes of the part that every frame has: the magic number, two flag bytes and one more byte.
type Beginning = [u8; 7];

/// The bit in the first flag byte that is set if a checksum follows the end mark.
const CONTENT_CHECKSUM: u8 = 1 << 2;

/// A reader for all frames in a stream.
pub(super) struct Frames<R: BufRead> {
    state: State<R>,
}

enum State<R: BufRead> {
    Between(LastBytes<R>),
    Within {
        decoder: Box<FrameDecoder<Chain<Cursor<Beginning>, LastBytes<R>>>>,
        checksum: bool,
    },
    /// The state after an error, and while the state changes.
    Over,
}

impl<R: BufRead> Frames<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { state: State::Between(LastBytes { inner, last: [0; 8] }) }
    }
}

impl<R: BufRead> Read for Frames<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        loop {
            match std::mem::replace(&mut self.state, State::Over) {
                State::Over => return Ok(0),
                State::Between(mut source) => {
                    if source.inner.fill_buf()?.is_empty() {
                        return Ok(0);
                    }
                    let mut beginning = Beginning::default();
                    source.read_exact(&mut beginning)?;
                    if !beginning.starts_with(&MAGIC) {
                        return Err(io::Error::new(
                            ErrorKind::InvalidData,
                            "there is no LZ4 frame where one should be",
                        ));
                    }
                    let checksum = beginning[4] & CONTENT_CHECKSUM != 0;
                    let decoder = Box::new(FrameDecoder::new(Cursor::new(beginning).chain(source)));
                    self.state = State::Within { decoder, checksum };
                }
                State::Within { mut decoder, checksum } => match decoder.read(into)? {
                    0 => {
                        let (_, source) = decoder.into_inner().into_inner();
                        let end_mark = if checksum { &source.last[..4] } else { &source.last[4..] };
                        if end_mark != [0; 4] {
                            return Err(ErrorKind::UnexpectedEof.into());
                        }
                        self.state = State::Between(source);
                    }
                    read => {
                        self.state = State::Within { decoder, checksum };
                        return Ok(read);
                    }
                },
            }
        }
    }
}

/// A reader that remembers the last bytes that it read. After a frame, these are the bytes of the end mark.
struct LastBytes<R> {
    inner: R,
    last: [u8; 8],
}

impl<R: Read> Read for LastBytes<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(into)?;
        let new = &into[read.saturating_sub(8)..read];
        self.last.rotate_left(new.len());
        self.last[8 - new.len()..].copy_from_slice(new);
        Ok(read)
    }
}
