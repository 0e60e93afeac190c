//! Reads the stored bytes of an object on a thread that may block, and stops when the job is cancelled.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, Bytes};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::state::{Origin, State};
use crate::derive::ObjectIdentity;
use crate::error::{Error, Kind};
use crate::rate::Rate;
use crate::store::{Body, Object, Range};

/// A reader for the stored bytes of an object, or for a range of these bytes.
pub(super) struct Stored {
    body: Body,
    object: Object,
    runtime: Handle,
    stop: CancellationToken,
    rate: Option<Arc<Rate>>,
    /// Bytes that were received and not taken yet.
    chunk: Bytes,
    /// The offset of the range in the object.
    start: u64,
    /// How many bytes in the range were taken.
    position: u64,
    /// Whether the body has failed, so that no more bytes follow.
    failed: bool,
}

impl Stored {
    /// Opens an object. Reading it stops when `stop` is cancelled.
    pub(super) fn open(
        job: &State,
        stop: &CancellationToken,
        origin: &Origin,
        object: &str,
        range: Option<Range>,
    ) -> Result<Self, Error> {
        let (object, body) = unless_cancelled(&job.runtime, stop, origin.store.read(object, range))?;
        if !job.withheld.is_empty() {
            let identity = ObjectIdentity::of(origin.store.name(), &object, &body)?;
            job.withheld.may_keep(&identity, &origin.via, range.is_some())?;
        }
        Ok(Self {
            body,
            object,
            runtime: job.runtime.clone(),
            stop: stop.clone(),
            rate: job.rate.clone(),
            chunk: Bytes::new(),
            start: range.map_or(0, |range| range.offset),
            position: 0,
            failed: false,
        })
    }

    /// Returns the size of the whole object in bytes.
    pub(super) fn size(&self) -> u64 {
        self.object.size
    }

    /// Returns whether reading has failed.
    pub(super) fn has_failed(&self) -> bool {
        self.failed
    }

    /// Returns the file of a local object, and the offset in the file that corresponds to `position` in the range; `None` for other
    /// objects.
    pub(super) fn file(&self, position: u64) -> Option<(&File, u64)> {
        self.body.file().map(|(file, _)| (file, self.start + position))
    }

    /// Fails if the object is a local file that has changed since it was opened.
    pub(super) fn unchanged(&self) -> Result<(), Error> {
        self.body.unchanged()
    }

    /// Counts `bytes` that were read from a local file, and waits until the rate allows them.
    pub(super) fn pay(&self, bytes: u64) -> Result<(), Error> {
        self.body.count(bytes);
        match &self.rate {
            None => Ok(()),
            Some(rate) => unless_cancelled(&self.runtime, &self.stop, async {
                rate.take(bytes).await;
                Ok(())
            }),
        }
    }

    /// Counts bytes that the kernel has copied from a local file.
    pub(super) fn count(&self, bytes: u64) {
        self.body.count(bytes);
    }

    /// Skips forward to `position` in the range. Does not go back.
    pub(super) fn skip_to(&mut self, position: u64) -> Result<(), Error> {
        if self.body.file().is_some() {
            self.position = position;
            return Ok(());
        }
        while self.position < position {
            let most = usize::try_from(position - self.position).unwrap_or(usize::MAX);
            if self.chunk(most)?.is_none() {
                return Err(Error::new(Kind::Corrupt, "its bytes end too early"));
            }
        }
        Ok(())
    }

    /// Returns the next bytes from the network, at most `most`; `None` at the end.
    pub(super) fn chunk(&mut self, most: usize) -> Result<Option<Bytes>, Error> {
        while self.chunk.is_empty() {
            let received = unless_cancelled(&self.runtime, &self.stop, self.body.chunk());
            self.failed |= received.is_err();
            match received? {
                Some(bytes) => self.chunk = bytes,
                None => return Ok(None),
            }
        }
        let bytes = self.chunk.split_to(self.chunk.len().min(most));
        self.position += bytes.len() as u64;
        Ok(Some(bytes))
    }

    /// Reads the next bytes, at most `left`.
    fn read(&mut self, into: &mut [u8], left: u64) -> Result<usize, Error> {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(into.len());
        if most == 0 {
            return Ok(0);
        }
        if self.stop.is_cancelled() {
            return Err(Error::cancelled());
        }
        if let Some((file, at)) = self.file(self.position) {
            let left = self.size().saturating_sub(at);
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(most);
            let count = file.read_at(&mut into[..most], at)?;
            if count == 0 {
                self.unchanged()?;
                if left > 0 {
                    return Err(Error::new(Kind::Corrupt, "its bytes end too early"));
                }
            }
            self.pay(count as u64)?;
            self.position += count as u64;
            return Ok(count);
        }
        if self.chunk.is_empty() {
            match self.chunk(usize::MAX)? {
                Some(bytes) => {
                    self.position -= bytes.len() as u64;
                    self.chunk = bytes;
                }
                None => return Ok(0),
            }
        }
        let count = most.min(self.chunk.len());
        self.chunk.copy_to_slice(&mut into[..count]);
        self.position += count as u64;
        Ok(count)
    }
}

/// A reader of a part of the stored bytes, for a decoder.
pub(super) struct Part {
    stored: Arc<Mutex<Stored>>,
    left: u64,
}

impl Part {
    /// Reads the next `length` bytes.
    pub(super) fn new(stored: Arc<Mutex<Stored>>, length: u64) -> Self {
        Self { stored, left: length }
    }
}

impl Read for Part {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        let count = stored.read(into, self.left)?;
        self.left -= count as u64;
        Ok(count)
    }
}

/// Blocks until `work` is done.
///
/// # Errors
/// `Cancelled` if `stop` is cancelled first; otherwise the error of `work`.
fn unless_cancelled<T>(
    runtime: &Handle,
    stop: &CancellationToken,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    runtime.block_on(async {
        tokio::select! {
            biased;
            () = stop.cancelled() => Err(Error::cancelled()),
            done = work => done,
        }
    })
}
