//! A strict reader of tar archives as `pg_basebackup -Ft` writes them: ustar, with GNU's base-256 for sizes of 8 GiB and
//! more (PostgreSQL's src/port/tar.c), and as backup tools write them with Go's and Python's libraries: with extended headers, of which
//! the name and the size are read, and with the directory `./` itself, which is passed over. The reader refuses links and other members
//! that are neither files nor directories, and names that would leave the directory into which the archive is unpacked. The error names
//! the member.
//!
//! This is a separate crate because the host, which unpacks archives, and the methods, which read the first members for a plan,
//! must accept and refuse the same archives. So it also builds for `wasm32-wasip2`, and uses no stores, plugins or
//! file system: it reads bytes and returns the members.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod extended;
mod header;
mod source;
pub mod written;

use std::fmt;
use std::io::{self, ErrorKind, Read};

use header::Block;

pub use header::BLOCK;
pub use source::{Source, Stream, Windows};

/// How many bytes may follow the two zero blocks that end an archive: programs pad their last record with zeros.
const MOST_PADDING: u64 = 1 << 20;

/// A reader of an archive, member by member.
pub struct Archive<S = Box<dyn Source>> {
    source: S,
    /// The current offset in the archive in bytes.
    position: u64,
    /// The unread bytes of the current member's contents.
    contents: u64,
    /// The zeros that pad the last block of the contents.
    padding: u64,
    /// The name of the current member, or of the extended header before it.
    last: Option<String>,
    /// Whether the directory that was archived has occurred.
    has_root: bool,
    /// Whether names may begin with `/`.
    is_of_wal_g: bool,
}

/// A member of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The name: relative, `/`-separated, without empty, `.` or `..` components.
    pub name: String,
    /// The type.
    pub kind: Kind,
    /// The size of its contents in bytes.
    pub size: u64,
}

/// The type of a member. PostgreSQL's archives have no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory, which has no contents.
    Directory,
}

/// Why an archive is refused.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    /// The bytes of the archive cannot be read.
    #[error(transparent)]
    Io(io::Error),
    /// The archive ends too early.
    #[error("is truncated: it ends {0}")]
    Truncated(Where),
    /// A block is not a valid header.
    #[error("has no valid tar header at byte {at}, {after}: {what}")]
    Header {
        /// The offset of the header in bytes.
        at: u64,
        /// The member before it.
        after: Where,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A member is refused.
    #[error("has a member `{name}` {what}")]
    Member {
        /// The name, escaped.
        name: String,
        /// What is wrong with it.
        what: String,
    },
    /// The padding of a member's last block is not zeros.
    #[error("has bytes other than zero between the end of the member `{}` and the next block", .0.escape_debug())]
    Padding(String),
    /// Bytes other than zeros, or too many zeros, follow the end of the archive.
    #[error("continues after the blocks that end it")]
    TrailingData,
}

/// A place in an archive, for a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Where {
    /// Before the first member.
    Start,
    /// After the member with this name.
    After(String),
    /// Within the contents of the member with this name.
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
    /// Makes a reader of plain bytes from a boxed `source`, so that archives of different sources have one type.
    pub fn boxed(source: impl Source + 'static) -> Self {
        Self::new(Box::new(source))
    }
}

impl<S: Source> Archive<S> {
    /// Makes a reader of plain bytes from `source`.
    pub fn new(source: S) -> Self {
        Self { source, position: 0, contents: 0, padding: 0, last: None, has_root: false, is_of_wal_g: false }
    }

    /// Also accepts names that begin with `/`, as WAL-G writes them (`GetFileRelPath` in WAL-G's internal/bundle.go): [`Member::name`] is
    /// without it, and the directory `/` itself is passed over.
    #[must_use]
    pub fn of_wal_g(self) -> Self {
        Self { is_of_wal_g: true, ..self }
    }

    /// Returns the next member and skips the rest of the current one. Returns `None` after the last member. By then it has read the source
    /// to its end, so a decoder below it has compared its checksums.
    ///
    /// # Errors
    /// [`TarError`] says what is wrong with the archive.
    #[expect(clippy::should_implement_trait, reason = "it cannot continue after an error")]
    pub fn next(&mut self) -> Result<Option<Member>, TarError> {
        let mut extended = None;
        loop {
            self.skip()?;
            let at = self.position;
            let block = self.block()?;
            if block == [0; BLOCK] {
                if self.block()? != [0; BLOCK] {
                    return Err(self.header(at, "a block of zeros stands alone"));
                }
                if extended.is_some() {
                    return Err(self.header(at, "an extended header stands alone"));
                }
                return self.end().map(|()| None);
            }
            let wrong = |wrong| match wrong {
                header::Wrong::Header(what) => self.header(at, what),
                header::Wrong::Member(name, what) => TarError::Member { name, what },
            };
            if extended.is_none()
                && let Some(size) = extended::size(&block).map_err(wrong)?
            {
                self.hold(size);
                extended = Some(self.extended(at, &block)?);
                continue;
            }
            let member = header::parse(&block, self.is_of_wal_g, extended.take()).map_err(wrong)?;
            self.hold(member.size);
            if member.name.is_empty() {
                // The directory that was archived.
                if std::mem::replace(&mut self.has_root, true) {
                    return Err(TarError::Member {
                        name: "./".to_owned(),
                        what: "that occurs twice".to_owned(),
                    });
                }
                self.last = Some("/".to_owned());
                continue;
            }
            self.last = Some(member.name.clone());
            return Ok(Some(member));
        }
    }

    /// Begins contents of `size` bytes.
    fn hold(&mut self, size: u64) {
        self.contents = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
    }

    /// Reads the contents of an extended header, which begins at `at` with `block`.
    fn extended(&mut self, at: u64, block: &Block) -> Result<extended::Extended, TarError> {
        let before = self.last.replace(header::name_for_message(block));
        let mut bytes = Vec::new();
        let read = self.contents().read_to_end(&mut bytes);
        read.map_err(|error| self.error(error))?;
        let after = before.map_or(Where::Start, Where::After);
        extended::Extended::parse(&bytes).map_err(|what| TarError::Header { at, after, what })
    }

    /// Returns a reader of the unread contents of the current member.
    pub fn contents(&mut self) -> Contents<'_, S> {
        Contents(self)
    }

    /// Reads some of the contents directly from the source: `take` gets the source and the number of unread bytes, and returns its result
    /// and the number of bytes that it read.
    ///
    /// # Errors
    /// Fails if `take` does.
    pub fn take<T>(&mut self, take: impl FnOnce(&mut S, u64) -> io::Result<(T, u64)>) -> io::Result<T> {
        let (taken, count) = take(&mut self.source, self.contents)?;
        self.contents = self.contents.saturating_sub(count);
        self.position += count;
        Ok(taken)
    }

    /// Returns the number of unread bytes of the current member's contents.
    pub fn left(&self) -> u64 {
        self.contents
    }

    /// Returns the offset of the next header in bytes.
    pub fn next_header(&self) -> u64 {
        self.position.saturating_add(self.contents).saturating_add(self.padding)
    }

    /// Skips the rest of the current member, and checks that its padding is zeros.
    fn skip(&mut self) -> Result<(), TarError> {
        self.source.skip(self.contents).map_err(|error| self.error(error))?;
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

    /// Converts an error of reading the contents: an unexpected end becomes [`TarError::Truncated`] with its place.
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

    /// Reads to the end and checks that only zeros follow, and not too many.
    fn end(&mut self) -> Result<(), TarError> {
        let mut buffer = [0; 4096];
        let mut padding = 0;
        loop {
            match self.source.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => {
                    padding += read as u64;
                    if padding > MOST_PADDING || buffer[..read].iter().any(|byte| *byte != 0) {
                        return Err(TarError::TrailingData);
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

/// A reader of the contents of a member.
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

/// Finds the file `name` in the last bytes of a plain archive and returns its contents; `None` if it is not there, or if the headers after
/// it do not lead to the archive's end. This is for `global/pg_control`, which pg_basebackup writes last.
pub fn last_member<'a>(tail: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let begins = tail.len() % BLOCK;
    let starts = (begins..tail.len()).step_by(BLOCK).rev();
    starts.filter(|start| leads_to_end(&tail[*start..])).find_map(|start| {
        let member = parse(&tail[start..])?;
        let contents = tail.get(start + BLOCK..)?.get(..usize::try_from(member.size).ok()?)?;
        (member.name == name && member.kind == Kind::File).then_some(contents)
    })
}

/// Returns whether from here on each member is followed by another one or by the zeros that end the archive.
fn leads_to_end(mut tail: &[u8]) -> bool {
    while let Some(member) = parse(tail) {
        let over = usize::try_from(member.size.next_multiple_of(BLOCK as u64)).ok();
        let Some(next) = over.and_then(|over| tail.get(BLOCK..)?.get(over..)) else { return false };
        tail = next;
    }
    tail.iter().all(|byte| *byte == 0)
}

fn parse(bytes: &[u8]) -> Option<Member> {
    header::parse(bytes.get(..BLOCK)?.try_into().ok()?, false, None).ok()
}

#[cfg(test)]
mod tests;
