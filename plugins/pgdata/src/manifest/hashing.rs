//! Computes the checksum of a manifest: SHA-256 of all text before the last line.

use std::io::{self, Read};

use crate::checksum::Digesting;

/// How many bytes at the end are not hashed immediately, because they may belong to the last line. That line has some 90 bytes.
const TAIL: usize = 4096;

/// A reader that hashes everything that it reads, except the last line.
pub(super) struct AllButTheLastLine<R, D> {
    inner: R,
    count: u64,
    hasher: D,
    tail: Vec<u8>,
}

impl<R: Read, D: Digesting> AllButTheLastLine<R, D> {
    pub(super) fn new(inner: R, hasher: D) -> Self {
        Self { inner, count: 0, hasher, tail: Vec::new() }
    }

    /// Returns how many bytes were read.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Returns the checksum; `None` if there is no line before the last one, or if the last line is too long.
    pub(super) fn finish(mut self) -> Option<Vec<u8>> {
        let text = self.tail.strip_suffix(b"\n")?;
        let last_line = text.iter().rposition(|byte| *byte == b'\n')? + 1;
        self.hasher.update(&self.tail[..last_line]);
        Some(self.hasher.finish())
    }
}

impl<R: Read, D: Digesting> Read for AllButTheLastLine<R, D> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(into)?;
        self.count += read as u64;
        self.tail.extend_from_slice(&into[..read]);
        if self.tail.len() > TAIL {
            let done = self.tail.len() - TAIL;
            self.hasher.update(&self.tail[..done]);
            self.tail.drain(..done);
        }
        Ok(read)
    }
}
