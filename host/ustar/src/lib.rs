//! A strict reader of tar archives as `pg_basebackup -Ft` writes them: ustar, with GNU's base-256 for sizes of 8 GiB and
//! more (PostgreSQL's src/port/tar.c). What PostgreSQL does not write is refused by name, and so is every name that would
//! leave the place where the archive belongs.
//!
//! It is a crate of its own because the host, which unpacks archives, and the methods, which look at the first members of one
//! before anything is unpacked, must take and refuse the same archives. So it builds for `wasm32-wasip2` as well and knows
//! neither stores nor plugins nor the file system: bytes go in, members come out.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod header;
mod source;
pub mod written;

use std::fmt;
use std::io::{self, ErrorKind, Read};

use header::Block;

pub use header::BLOCK;
pub use source::{Source, Stream, Windows};

/// How much may follow the two zero blocks that close an archive, in bytes: programs fill up their last record with zeros.
const MOST_PADDING: u64 = 1 << 20;

/// An archive, member by member.
pub struct Archive<S = Box<dyn Source>> {
    source: S,
    /// Where in the archive it reads, in bytes.
    position: u64,
    /// What is left of the current member's contents, and of the zeros that fill up its last block.
    contents: u64,
    padding: u64,
    last: Option<String>,
}

/// A member of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name: relative, `/`-separated, without empty, `.` or `..` components.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// How many bytes its contents have.
    pub size: u64,
}

/// What a member is. Nothing else comes out of PostgreSQL's archives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory, which has no contents.
    Directory,
}

/// An archive that is not as PostgreSQL writes it.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// Its bytes could not be read.
    #[error(transparent)]
    Io(io::Error),
    /// It ends too early.
    #[error("is truncated: it ends {0}")]
    Truncated(Where),
    /// A header is none.
    #[error("has no valid tar header at byte {at}, {after}: {what}")]
    Header {
        /// Where in the archive, in bytes.
        at: u64,
        /// What stands before it.
        after: Where,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A member is not taken.
    #[error("has a member `{name}` {what}")]
    Member {
        /// Its name, escaped.
        name: String,
        /// What is wrong with it.
        what: String,
    },
    /// What fills up a member's last block is not zeros.
    #[error("has bytes other than zero between the end of the member `{}` and the next block", .0.escape_debug())]
    Padding(String),
    /// Something other than zeros, or too many of them, follow its end.
    #[error("goes on after the blocks that close it")]
    GoesOn,
}

/// A place in an archive, for a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Where {
    /// Before the first member.
    Start,
    /// After this one.
    After(String),
    /// Within the contents of this one.
    Within(String),
}

impl fmt::Display for Where {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start => f.write_str("before its first member"),
            Self::After(name) => write!(f, "after the member `{}`", name.escape_debug()),
            Self::Within(name) => write!(f, "within the member `{}`", name.escape_debug()),
        }
    }
}

impl Archive {
    /// An archive whose plain bytes come from `source`, for whoever reads archives of several sources.
    pub fn boxed(source: impl Source + 'static) -> Self {
        Self::new(Box::new(source))
    }
}

impl<S: Source> Archive<S> {
    /// An archive whose plain bytes come from `source`.
    pub fn new(source: S) -> Self {
        Self { source, position: 0, contents: 0, padding: 0, last: None }
    }

    /// The next member; none after the last one, when the archive was read to its very end, the checksums of its
    /// compression included. What is left of the member before is passed over.
    ///
    /// # Errors
    /// What is wrong with the archive.
    #[expect(clippy::should_implement_trait, reason = "after an error there is nothing to go on with")]
    pub fn next(&mut self) -> Result<Option<Member>, TarError> {
        self.pass_over()?;
        let at = self.position;
        let block = self.block()?;
        if block == [0; BLOCK] {
            if self.block()? != [0; BLOCK] {
                return Err(self.header(at, "a block of zeros stands alone"));
            }
            return self.end().map(|()| None);
        }
        let member = header::parse(&block).map_err(|wrong| match wrong {
            header::Wrong::Header(what) => self.header(at, what),
            header::Wrong::Member(name, what) => TarError::Member { name, what },
        })?;
        self.contents = member.size;
        self.padding = member.size.next_multiple_of(BLOCK as u64) - member.size;
        self.last = Some(member.name.clone());
        Ok(Some(member))
    }

    /// The contents of the member that [`Archive::next`] gave, as far as they were not read.
    pub fn contents(&mut self) -> Contents<'_, S> {
        Contents(self)
    }

    /// Takes some of the contents in the source's own way: `take` is told how many bytes are left, and says what it took and
    /// how many bytes that were.
    ///
    /// # Errors
    /// Those of `take`.
    pub fn take<T>(&mut self, take: impl FnOnce(&mut S, u64) -> io::Result<(T, u64)>) -> io::Result<T> {
        let (taken, count) = take(&mut self.source, self.contents)?;
        self.contents = self.contents.saturating_sub(count);
        self.position += count;
        Ok(taken)
    }

    /// How many bytes of the contents were not read yet.
    pub fn left(&self) -> u64 {
        self.contents
    }

    /// Where in the archive the next member begins, in bytes.
    pub fn next_header(&self) -> u64 {
        self.position.saturating_add(self.contents).saturating_add(self.padding)
    }

    /// What is left of a member, whose padding must be zeros.
    fn pass_over(&mut self) -> Result<(), TarError> {
        self.source.pass_over(self.contents).map_err(|error| self.error(error))?;
        self.position += self.contents;
        self.contents = 0;
        let mut padding = [0; BLOCK];
        let length = usize::try_from(self.padding).unwrap_or(0).min(BLOCK);
        self.source.read_exact(&mut padding[..length]).map_err(|error| self.error(error))?;
        self.position += length as u64;
        self.padding = 0;
        match &self.last {
            Some(name) if padding != [0; BLOCK] => Err(TarError::Padding(name.clone())),
            _ => Ok(()),
        }
    }

    /// What went wrong while reading the contents.
    pub fn error(&self, error: io::Error) -> TarError {
        if error.kind() != ErrorKind::UnexpectedEof {
            return TarError::Io(error);
        }
        TarError::Truncated(match &self.last {
            None => Where::Start,
            Some(name) if self.contents > 0 => Where::Within(name.clone()),
            Some(name) => Where::After(name.clone()),
        })
    }

    fn header(&self, at: u64, what: &'static str) -> TarError {
        TarError::Header { at, after: self.last.clone().map_or(Where::Start, Where::After), what }
    }

    fn block(&mut self) -> Result<Block, TarError> {
        let mut block = [0; BLOCK];
        self.source.read_exact(&mut block).map_err(|error| self.error(error))?;
        self.position += BLOCK as u64;
        Ok(block)
    }

    /// Nothing but zeros, and not too many of them, may follow.
    fn end(&mut self) -> Result<(), TarError> {
        let mut buffer = [0; 4096];
        let mut padding = 0;
        loop {
            match self.source.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => {
                    padding += read as u64;
                    if padding > MOST_PADDING || buffer[..read].iter().any(|byte| *byte != 0) {
                        return Err(TarError::GoesOn);
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.error(error)),
            }
        }
    }
}

impl<S> fmt::Debug for Archive<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Archive").field("position", &self.position).finish_non_exhaustive()
    }
}

/// The contents of a member.
#[derive(Debug)]
pub struct Contents<'a, S>(&'a mut Archive<S>);

impl<S: Source> Read for Contents<'_, S> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.0.contents).unwrap_or(usize::MAX).min(into.len());
        if most == 0 {
            return Ok(0);
        }
        let read = self.0.source.read(&mut into[..most])?;
        if read == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.0.contents -= read as u64;
        self.0.position += read as u64;
        Ok(read)
    }
}

/// Finds the member `name` in the last bytes of a plain archive and returns its contents; none where it is not there, or
/// where what stands there does not lead to the archive's end. For `global/pg_control`, which pg_basebackup puts last.
pub fn last_member<'a>(tail: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let begins = tail.len() % BLOCK;
    let starts = (begins..tail.len()).step_by(BLOCK).rev();
    starts.filter(|start| leads_to_end(&tail[*start..])).find_map(|start| {
        let member = parse(&tail[start..])?;
        let contents = tail.get(start + BLOCK..)?.get(..usize::try_from(member.size).ok()?)?;
        (member.name == name && member.kind == Kind::File).then_some(contents)
    })
}

/// Whether header follows header from here on, up to the zeros that close the archive.
fn leads_to_end(mut tail: &[u8]) -> bool {
    while let Some(member) = parse(tail) {
        let over = usize::try_from(member.size.next_multiple_of(BLOCK as u64)).ok();
        let Some(next) = over.and_then(|over| tail.get(BLOCK..)?.get(over..)) else { return false };
        tail = next;
    }
    tail.iter().all(|byte| *byte == 0)
}

fn parse(bytes: &[u8]) -> Option<Member> {
    header::parse(bytes.get(..BLOCK)?.try_into().ok()?).ok()
}

#[cfg(test)]
mod tests;
