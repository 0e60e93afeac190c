//! A strict reader of tar archives as `pg_basebackup -Ft` writes them: ustar, with GNU's base-256 for sizes of 8 GiB and
//! more (PostgreSQL's src/port/tar.c). What PostgreSQL does not write is refused by name, and so is every name that would
//! leave the place where the archive belongs.

mod header;

use std::fmt;
use std::io::{self, ErrorKind, Read};

use header::{BLOCK, Block};

/// How much may follow the two zero blocks that close an archive, in bytes: programs fill up their last record with zeros.
const MOST_PADDING: u64 = 1 << 20;

/// An archive, member by member.
pub struct Archive<R> {
    source: R,
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

impl<R: Read> Archive<R> {
    /// An archive whose plain bytes come from `source`.
    pub fn new(source: R) -> Self {
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
    pub fn contents(&mut self) -> Contents<'_, R> {
        Contents(self)
    }

    /// Takes some of the contents in the source's own way: `take` is told how many bytes are left and says how many it took.
    pub(crate) fn take<T>(
        &mut self,
        take: impl FnOnce(&mut R, u64) -> io::Result<(T, u64)>,
    ) -> io::Result<T> {
        let (taken, count) = take(&mut self.source, self.contents)?;
        self.contents = self.contents.saturating_sub(count);
        self.position += count;
        Ok(taken)
    }

    /// How many bytes of the contents were not read yet.
    pub(crate) fn left(&self) -> u64 {
        self.contents
    }

    /// What is left of a member, whose padding must be zeros.
    fn pass_over(&mut self) -> Result<(), TarError> {
        let left = self.contents;
        let passed = io::copy(&mut self.source.by_ref().take(left), &mut io::sink());
        let passed = passed.map_err(|error| self.error(error))?;
        self.contents -= passed;
        self.position += passed;
        if self.contents > 0 {
            return Err(self.error(ErrorKind::UnexpectedEof.into()));
        }
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

/// The contents of a member.
pub struct Contents<'a, R>(&'a mut Archive<R>);

impl<R: Read> Read for Contents<'_, R> {
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

#[cfg(test)]
pub(crate) mod tests;
