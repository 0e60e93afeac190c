//! Drives a decoder step by step through a stream of one or more members, to its end.

use std::io::{self, BufRead, Read};

use super::{Codec, damaged, goes_on, truncated};
use crate::codec::input::Input;
use crate::error::Error;

/// The result of one step of a decoder.
pub(super) struct Step {
    /// How many bytes the decoder consumed.
    pub(super) consumed: usize,
    /// How many bytes the decoder produced.
    pub(super) produced: usize,
    /// Whether a member (a gzip member, a zstd frame) ended, after its checksum was compared.
    pub(super) ended: bool,
}

/// A library's decoder, called step by step.
pub(super) trait Decoder: Send {
    /// Decodes some of `input` into `output`. `last` means that nothing follows `input`.
    fn step(&mut self, input: &[u8], output: &mut [u8], last: bool) -> Result<Step, Error>;

    /// Prepares for the next member. Returns false if the format has only one.
    fn next_member(&mut self) -> bool;
}

/// How many consecutive steps may do nothing before the stream counts as damaged. Libraries need one or two such steps between members.
const MOST_IDLE_STEPS: u32 = 4;

/// A reader of the plain bytes of a stream.
pub(super) struct Stream<D> {
    codec: Codec,
    input: Input,
    decoder: D,
    /// Whether a member has begun and not ended.
    within: bool,
    /// Whether any member has ended.
    any: bool,
    /// The error with which the decoder failed; each further read returns that error again.
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
