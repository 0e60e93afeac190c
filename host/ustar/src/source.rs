//! Where an archive's bytes come from.

use std::fmt;
use std::io::{self, ErrorKind, Read};

use super::header::BLOCK;

/// The bytes of an archive.
pub trait Source: Read {
    /// Passes over `count` bytes.
    ///
    /// # Errors
    /// An unexpected end where there are fewer.
    fn pass_over(&mut self, count: u64) -> io::Result<()>;
}

impl Source for Box<dyn Source> {
    fn pass_over(&mut self, count: u64) -> io::Result<()> {
        (**self).pass_over(count)
    }
}

/// Bytes that come one after the other: what is not wanted is read all the same.
#[derive(Debug)]
pub struct Stream<R>(pub R);

impl<R: Read> Read for Stream<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.read(into)
    }
}

impl<R: Read> Source for Stream<R> {
    fn pass_over(&mut self, count: u64) -> io::Result<()> {
        let passed = io::copy(&mut self.0.by_ref().take(count), &mut io::sink())?;
        if passed == count { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) }
    }
}

/// A plain archive whose headers are looked at: only the windows that are wanted are read.
pub struct Windows<F> {
    read_at: F,
    size: u64,
    window: u64,
    at: u64,
    bytes: Vec<u8>,
    bytes_at: u64,
}

impl<F: FnMut(u64, u64) -> io::Result<Vec<u8>>> Windows<F> {
    /// An archive of `size` bytes, read in windows of `window` bytes. `read_at` gives so many bytes from an offset on.
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
    fn pass_over(&mut self, count: u64) -> io::Result<()> {
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
