//! The buffered input of a decoder.

use std::io::{self, BufRead, Read};

/// The first size of the buffer in bytes. Small, because most files in a cluster are small, and a cluster can have a million files.
const FIRST_BUFFER: usize = 16 << 10;

/// The size of the buffer in bytes after a read has filled the first one.
const LATER_BUFFER: usize = 256 << 10;

/// A buffered source that records whether it has ended or failed, because its decoder does not report that.
pub(super) struct Input {
    source: Box<dyn Read + Send>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Whether the source has reached its end.
    pub(super) ended: bool,
    /// Whether the source has failed, rather than its decoder.
    pub(super) failed: bool,
}

impl Input {
    pub(super) fn new(source: Box<dyn Read + Send>) -> Self {
        Self { source, buffer: vec![0; FIRST_BUFFER], start: 0, end: 0, ended: false, failed: false }
    }

    /// Returns the bytes in the buffer.
    pub(super) fn waiting(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Reads from the source if the buffer is empty.
    fn refill(&mut self) -> io::Result<()> {
        if self.start < self.end || self.ended {
            return Ok(());
        }
        if self.end == self.buffer.len() && self.buffer.len() < LATER_BUFFER {
            self.buffer = vec![0; LATER_BUFFER];
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
