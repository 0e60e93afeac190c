//! The stored bytes of an object, for a thread that may block and yet stops when its job is cancelled.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Buf, Bytes};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::state::{Origin, State};
use crate::derive::Seen;
use crate::error::{Error, Kind};
use crate::rate::Rate;
use crate::store::{Body, Object, Range};

/// The stored bytes of an object, or of a range of it.
pub(super) struct Stored {
    body: Body,
    object: Object,
    runtime: Handle,
    stop: CancellationToken,
    rate: Option<Arc<Rate>>,
    /// What came from the network and was not taken yet.
    chunk: Bytes,
    /// Where in the object the range begins.
    start: u64,
    /// How much of the range was taken.
    position: u64,
    /// Whether the body failed; nothing more comes then.
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
            let seen = Seen::of(origin.store.name(), &object, &body)?;
            job.withheld.may_keep(&seen, &origin.via, range.is_some())?;
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

    /// The size of the whole object in bytes.
    pub(super) fn size(&self) -> u64 {
        self.object.size
    }

    /// Whether reading it failed.
    pub(super) fn has_failed(&self) -> bool {
        self.failed
    }

    /// The file that the object is, where it is a local one, and where in it the byte at `position` of the range lies.
    pub(super) fn file(&self, position: u64) -> Option<(&File, u64)> {
        self.body.file().map(|(file, _)| (file, self.start + position))
    }

    /// Whether the object is still the one that was opened, where it is a local file.
    pub(super) fn unchanged(&self) -> Result<(), Error> {
        self.body.unchanged()
    }

    /// Waits until `bytes` more may come from a local file.
    pub(super) fn pay(&self, bytes: u64) -> Result<(), Error> {
        match &self.rate {
            None => Ok(()),
            Some(rate) => unless_cancelled(&self.runtime, &self.stop, async {
                rate.take(bytes).await;
                Ok(())
            }),
        }
    }

    /// Goes forward to `position` of the range; not back.
    pub(super) fn pass_over_to(&mut self, position: u64) -> Result<(), Error> {
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

    /// The next bytes that came over the network, at most `most`; none at the end.
    pub(super) fn chunk(&mut self, most: usize) -> Result<Option<Bytes>, Error> {
        while self.chunk.is_empty() {
            let come = unless_cancelled(&self.runtime, &self.stop, self.body.chunk());
            self.failed |= come.is_err();
            match come? {
                Some(bytes) => self.chunk = bytes,
                None => return Ok(None),
            }
        }
        let bytes = self.chunk.split_to(self.chunk.len().min(most));
        self.position += bytes.len() as u64;
        Ok(Some(bytes))
    }

    /// Reads the next bytes; `left` are to come at most, as far as is known.
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

/// A part of stored bytes for a decoder.
pub(super) struct Part {
    stored: Arc<Mutex<Stored>>,
    left: u64,
}

impl Part {
    /// The next `length` bytes.
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

/// Waits for `work` on a thread that may block, unless it is cancelled.
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
