//! Reads the pages of a range of WAL, from segment to segment.

use std::io::{self, ErrorKind, Read};

use postgres_formats::Lsn;

use super::page::{Expected, Known, Page};
use super::{Piece, Segments, WalError};

/// How many bytes are read at once: a multiple of every page size.
const CHUNK: usize = 256 << 10;

/// The pages of a range of WAL, and the current position.
pub(super) struct Pages<'a> {
    known: &'a Known,
    piece: &'a Piece<'a>,
    segments: &'a mut dyn Segments,
    look: &'a mut dyn FnMut() -> io::Result<()>,
    segment: Option<Segment>,
    /// The chunk of the segment that was read last, and the LSN of its first byte.
    chunk: Vec<u8>,
    chunk_at: u64,
    /// The LSN of the current page.
    page_at: u64,
    header: usize,
    /// The offset in the current page.
    offset: usize,
}

struct Segment {
    name: String,
    /// The LSN of its first byte.
    begins: u64,
    reader: Box<dyn Read>,
}

/// What happens to a record at the next page.
pub(super) enum Next {
    /// The record continues.
    Continues,
    /// The record was abandoned.
    Abandoned,
}

impl<'a> Pages<'a> {
    pub(super) fn new(
        known: &'a Known,
        piece: &'a Piece<'a>,
        segments: &'a mut dyn Segments,
        look: &'a mut dyn FnMut() -> io::Result<()>,
    ) -> Self {
        Self {
            known,
            piece,
            segments,
            look,
            segment: None,
            chunk: Vec::new(),
            chunk_at: 0,
            page_at: u64::MAX,
            header: 0,
            offset: 0,
        }
    }

    /// Returns the LSN that is read next.
    pub(super) fn at(&self) -> u64 {
        self.page_at.saturating_add(self.offset as u64)
    }

    /// Moves to `at`, on this page or a later page. If a page begins at `at`, moves to the end of the page's header.
    pub(super) fn go_to(&mut self, at: u64) -> Result<(), WalError> {
        // The size of a page is a power of two.
        let page_at = at & !(self.known.page as u64 - 1);
        if self.page_at != page_at {
            // No record continues on this page, because the last one ended before it. For the very first page that is unknown.
            let continued = (self.page_at != u64::MAX).then_some(0);
            self.load(page_at, continued)?;
        }
        self.offset = usize::try_from(at - page_at).unwrap_or(0).max(self.header);
        Ok(())
    }

    /// Returns the rest of the page.
    pub(super) fn rest(&self) -> &[u8] {
        let begins = usize::try_from(self.page_at.saturating_sub(self.chunk_at)).unwrap_or(0);
        self.chunk.get(begins + self.offset..begins + self.known.page).unwrap_or_default()
    }

    /// Moves forward by `count` bytes within the page.
    pub(super) fn pass(&mut self, count: usize) {
        self.offset = (self.offset + count).min(self.known.page);
    }

    /// Moves to the next page, on which `left` bytes of a record continue.
    pub(super) fn next_page(&mut self, left: u64) -> Result<Next, WalError> {
        let next = self.page_at + self.known.page as u64;
        let page = self.load(next, Some(left))?;
        self.offset = self.header;
        Ok(if page.overwrites { Next::Abandoned } else { Next::Continues })
    }

    /// Checks that the rest of the segment is zero, and returns the LSN of the next segment.
    pub(super) fn rest_of_segment_is_zero(&mut self) -> Result<u64, WalError> {
        let size = self.known.segment.bytes();
        let end = (self.page_at / size + 1) * size;
        loop {
            if let Some(other) = self.rest().iter().position(|byte| *byte != 0) {
                let at = self.at() + other as u64;
                return Err(self.damaged(at, "the segment was ended early, and what follows is not zero"));
            }
            let next = self.page_at + self.known.page as u64;
            if next >= end {
                return Ok(end);
            }
            self.fetch(next)?;
            (self.page_at, self.header, self.offset) = (next, 0, 0);
        }
    }

    /// Returns the error for damage at `at`.
    pub(super) fn damaged(&self, at: u64, what: impl Into<String>) -> WalError {
        let name = self.segment.as_ref().map(|segment| segment.name.clone());
        let segment = name.unwrap_or_else(|| self.known.segment.name(self.piece.timeline, Lsn(at)));
        WalError::Damaged { segment, at: Lsn(at), what: what.into() }
    }

    /// Loads the page at `at` and checks its header.
    fn load(&mut self, at: u64, continued: Option<u64>) -> Result<Page, WalError> {
        self.fetch(at)?;
        let expected =
            Expected { at, timeline: self.piece.timeline, or_earlier: at <= self.piece.start.0, continued };
        (self.page_at, self.header, self.offset) = (at, 0, 0);
        let page = self.known.check(self.rest(), &expected).map_err(|what| self.damaged(at, what))?;
        self.header = page.header;
        Ok(page)
    }

    /// Reads chunks until the current one contains the page at `at`.
    fn fetch(&mut self, at: u64) -> Result<(), WalError> {
        let size = self.known.segment.bytes();
        let begins = at - at % size;
        if self.segment.as_ref().is_none_or(|segment| segment.begins != begins || at < self.chunk_at) {
            self.segment = Some(self.open(begins, at)?);
            self.chunk.clear();
            self.chunk_at = begins;
        }
        let page = self.known.page as u64;
        while self.chunk_at + (self.chunk.len() as u64) < at + page {
            self.chunk_at += self.chunk.len() as u64;
            self.read_chunk(begins + size)?;
        }
        Ok(())
    }

    fn open(&mut self, begins: u64, at: u64) -> Result<Segment, WalError> {
        let own = self.known.segment.name(self.piece.timeline, Lsn(begins));
        let later = self.piece.later.iter().filter(|later| **later > self.piece.timeline);
        let others = later.map(|timeline| self.known.segment.name(*timeline, Lsn(begins)));
        for name in std::iter::once(own.clone()).chain(others) {
            match self.segments.open(&name) {
                Ok(Some(reader)) => return Ok(Segment { name, begins, reader }),
                Ok(None) => {}
                Err(error) => return Err(WalError::Io { segment: name, error }),
            }
        }
        Err(WalError::Missing { segment: own, at: Lsn(at) })
    }

    /// Reads the next chunk, up to `end` at most. A segment that ends before `end` is damaged.
    fn read_chunk(&mut self, end: u64) -> Result<(), WalError> {
        let Some(segment) = &mut self.segment else { return Ok(()) };
        let left = usize::try_from(end - self.chunk_at).unwrap_or(CHUNK).min(CHUNK);
        self.chunk.resize(left, 0);
        let read = (self.look)().and_then(|()| segment.reader.read_exact(&mut self.chunk));
        match read {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                let at = self.chunk_at;
                self.chunk.clear();
                Err(self.damaged(at, "it is truncated"))
            }
            Err(error) => Err(WalError::Io { segment: segment.name.clone(), error }),
        }
    }
}
