//! Sources of an archive's bytes.

use std::fmt;
use std::io::{self, ErrorKind, Read};

use super::header::BLOCK;

/// A source of an archive's bytes.
pub trait Source: Read {
    /// Skips `count` bytes.
    ///
    /// # Errors
    /// `UnexpectedEof` if the source has fewer bytes.
    fn skip(&mut self, count: u64) -> io::Result<()>;
}

impl Source for Box<dyn Source> {
    fn skip(&mut self, count: u64) -> io::Result<()> {
        (**self).skip(count)
    }
}

/// A source that can only be read in sequence. Skipped bytes are read and dropped.
#[derive(Debug)]
pub struct Stream<R>(pub R);

impl<R: Read> Read for Stream<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl<R: Read> Source for Stream<R> {
    fn skip(&mut self, count: u64) -> io::Result<()> {
        let passed = io::copy(&mut self.0.by_ref().take(count), &mut io::sink())?;
        if passed == count { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) }
    }
}

/// A plain archive with random access. Reads only the windows that are needed, so skipped contents are not read.
pub struct Windows<F> {
    read_at: F,
    size: u64,
    window: u64,
    at: u64,
    bytes: Vec<u8>,
    bytes_at: u64,
}

impl<F: FnMut(u64, u64) -> io::Result<Vec<u8>>> Windows<F> {
    /// Makes a source of `size` bytes, read in windows of `window` bytes. `read_at` takes an offset and a length and returns the
    /// bytes.
    pub fn new(size: u64, window: u64, read_at: F) -> Self {
        Self { read_at, size, window: window.max(BLOCK as u64), at: 0, bytes: Vec::new(), bytes_at: 0 }
    }

    fn rest(&self) -> &[u8] {
        let from = self.at.checked_sub(self.bytes_at).and_then(|from| usize::try_from(from).ok());
        from.and_then(|from| self.bytes.get(from..)).unwrap_or_default()
    }
}

impl<F: FnMut(u64, u64) -> io::Result<Vec<u8>>> Read for Windows<F> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.size || into.is_empty() {
            return Ok(0);
        }
        if self.rest().is_empty() {
            let length = self.window.min(self.size - self.at);
            self.bytes = (self.read_at)(self.at, length)?;
            self.bytes_at = self.at;
        }
        let rest = self.rest();
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        self.at += count as u64;
        Ok(count)
    }
}

impl<F: FnMut(u64, u64) -> io::Result<Vec<u8>>> Source for Windows<F> {
    fn skip(&mut self, count: u64) -> io::Result<()> {
        let to = self.at.checked_add(count).filter(|to| *to <= self.size);
        self.at = to.ok_or(ErrorKind::UnexpectedEof)?;
        Ok(())
    }
}

impl<F> fmt::Debug for Windows<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Windows").field("size", &self.size).field("at", &self.at).finish_non_exhaustive()
    }
}
