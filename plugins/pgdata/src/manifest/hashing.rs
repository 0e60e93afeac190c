//! The checksum of a manifest: SHA-256 of all that stands before its last line.

use std::io::{self, Read};

use sha2::{Digest, Sha256};

/// How much of the end is held back. The last line has some 90 bytes.
const TAIL: usize = 4096;

/// Reads through and hashes everything but the last line.
pub(super) struct AllButTheLastLine<R> {
    inner: R,
    count: u64,
    hasher: Sha256,
    tail: Vec<u8>,
}

impl<R: Read> AllButTheLastLine<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, count: 0, hasher: Sha256::new(), tail: Vec::new() }
    }

    /// How many bytes went through.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The checksum; none where there is no line before the last one, or the last one is longer than any manifest's.
    pub(super) fn finish(mut self) -> Option<Vec<u8>> {
        let text = self.tail.strip_suffix(b"\n")?;
        let last_line = text.iter().rposition(|byte| *byte == b'\n')? + 1;
        self.hasher.update(&self.tail[..last_line]);
        Some(self.hasher.finalize().to_vec())
    }
}

impl<R: Read> Read for AllButTheLastLine<R> {
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
