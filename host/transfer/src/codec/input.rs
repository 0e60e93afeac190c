//! The compressed bytes on their way into a decoder.

use std::io::{self, BufRead, Read};

/// The buffer's size in bytes at first: most files of a cluster are small, and there can be a million.
const FIRST: usize = 16 << 10;

/// Its size once a read has filled it.
const THEN: usize = 256 << 10;

/// A buffered source that remembers what its decoder would lose: whether it gave anything, whether it failed.
pub(super) struct Input {
    source: Box<dyn Read + Send>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Whether the source said that it is at its end.
    pub(super) ended: bool,
    /// Whether the last failure was the source's own and not its decoder's.
    pub(super) failed: bool,
}

impl Input {
    pub(super) fn new(source: Box<dyn Read + Send>) -> Self {
        Self { source, buffer: vec![0; FIRST], start: 0, end: 0, ended: false, failed: false }
    }

    /// What is in the buffer.
    pub(super) fn waiting(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Reads on where the buffer is empty.
    fn refill(&mut self) -> io::Result<()> {
        if self.start < self.end || self.ended {
            return Ok(());
        }
        if self.end == self.buffer.len() && self.buffer.len() < THEN {
            self.buffer = vec![0; THEN];
        }
        loop {
            match self.source.read(&mut self.buffer) {
                Ok(read) => {
                    (self.start, self.end, self.ended) = (0, read, read == 0);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.failed = true;
                    return Err(error);
                }
            }
        }
    }
}

impl BufRead for Input {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.refill()?;
        Ok(self.waiting())
    }

    fn consume(&mut self, amount: usize) {
        self.start = self.end.min(self.start.saturating_add(amount));
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.refill()?;
        let length = buffer.len().min(self.end - self.start);
        buffer[..length].copy_from_slice(&self.buffer[self.start..self.start + length]);
        self.start += length;
        Ok(length)
    }
}
