//! Drives a decoder step by step through a stream of one or more members, to the very end.

use std::io::{self, BufRead, Read};

use super::{Codec, damaged, goes_on, truncated};
use crate::codec::input::Input;
use crate::error::Error;

/// What one step of a decoder did.
pub(super) struct Step {
    /// How many bytes it took.
    pub(super) consumed: usize,
    /// How many it gave.
    pub(super) produced: usize,
    /// Whether a member (a gzip member, a zstd frame) ended with it, its checksum compared.
    pub(super) ended: bool,
}

/// A decoder of a library, one call at a time.
pub(super) trait Decoder: Send {
    /// Decodes some of `input` into `output`; `last` says that nothing follows `input`.
    fn step(&mut self, input: &[u8], output: &mut [u8], last: bool) -> Result<Step, Error>;

    /// Makes ready for the next member, or says by `false` that the format has only one.
    fn next_member(&mut self) -> bool;
}

/// How many steps in a row may do nothing before the stream counts as damaged. Libraries need one or two at an edge.
const MOST_IDLE_STEPS: u32 = 4;

/// The plain bytes of a stream.
pub(super) struct Stream<D> {
    codec: Codec,
    input: Input,
    decoder: D,
    /// Whether a member has begun and not ended.
    within: bool,
    /// Whether any member has ended.
    any: bool,
    /// Why it cannot go on; told again by each read.
    failed: Option<Error>,
}

impl<D: Decoder> Stream<D> {
    pub(super) fn new(codec: Codec, source: Box<dyn Read + Send>, decoder: D) -> Self {
        Self { codec, input: Input::new(source), decoder, within: false, any: false, failed: None }
    }

    fn decode(&mut self, output: &mut [u8]) -> io::Result<usize> {
        let mut idle = 0;
        loop {
            self.input.fill_buf()?;
            let (input, last) = (self.input.waiting(), self.input.ended);
            if !self.within {
                if input.is_empty() {
                    return if self.any { Ok(0) } else { Err(truncated(self.codec).into()) };
                }
                if self.any && !self.decoder.next_member() {
                    return Err(goes_on(self.codec).into());
                }
                self.within = true;
            }
            let nothing_left = input.is_empty();
            let step = self.decoder.step(input, output, last)?;
            self.input.consume(step.consumed);
            if step.ended {
                (self.within, self.any) = (false, true);
            }
            if step.produced > 0 {
                return Ok(step.produced);
            }
            if step.ended || step.consumed > 0 {
                idle = 0;
            } else if nothing_left {
                return Err(truncated(self.codec).into());
            } else {
                idle += 1;
                if idle > MOST_IDLE_STEPS {
                    return Err(damaged(self.codec, "its decoder makes no progress").into());
                }
            }
        }
    }
}

impl<D: Decoder> Read for Stream<D> {
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
