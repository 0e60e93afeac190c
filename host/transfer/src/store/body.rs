//! Reads the bytes of an object, and continues after a lost connection.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;

use super::access::Current;
use super::credential_detector::sent_back;
use super::directory::{blocking, opened_object};
use super::retry::{Failure, RetryAdvice, Tries, within};
use super::{Object, Range, Store};
use crate::error::{Error, Kind};

/// The most bytes that one call of [`Body::chunk`] returns.
pub const CHUNK: usize = 1 << 20;

/// The most bytes that one read of a file requests.
const FILE_CHUNK: usize = 256 << 10;

/// The source of a body's bytes.
pub(super) enum Source {
    /// A connection, over which the server sends only the requested range.
    Stream(BoxStream<'static, Result<Bytes, Failure>>),
    /// An open file, from which only the requested range is read.
    File(Arc<File>),
}

/// A reader for the stored bytes of an object, or for a range of these bytes. After a lost connection, the reader requests the rest and
/// compares the etag: an object that has changed is `Corrupt`. Without etags, the reader compares the modification time and size, or only
/// the size.
pub struct Body {
    store: Store,
    object: Object,
    /// `None` if the rest must be requested again.
    source: Option<Source>,
    /// Bytes that were received and not returned yet.
    spare: Bytes,
    /// The offset in the object of the next byte to receive.
    at: u64,
    /// The offset of the byte after the last one.
    end: u64,
    /// Whether the server has sent a credential back, so that no more bytes are returned.
    has_credential: bool,
}

impl Body {
    pub(super) async fn open(store: Store, key: &str, range: Option<Range>) -> Result<(Object, Self), Error> {
        let whole = store.inner.whole(key)?;
        let end = match range.map(|range| (range, range.end())) {
            None => None,
            Some((_, Some(end))) => Some(end),
            Some((range, None)) => return Err(store.inner.on(key, outside(range, None))),
        };
        let empty = range.filter(|range| range.length == 0);
        let mut tries = Tries::new(store.inner.retry);
        let (object, source) = loop {
            let Current { backend, renewals } = store.inner.access.current();
            // HTTP cannot express an empty range, so request only the metadata.
            let opened = match empty {
                Some(_) => {
                    store.request(key, &tries, backend.head(&whole)).await.map(|object| (object, None))
                }
                None => store
                    .request(key, &tries, backend.open(&whole, range, None))
                    .await
                    .map(|(object, source)| (object, Some(source))),
            };
            match opened {
                Ok(opened) => break opened,
                Err(failure) => store
                    .wait_before_retry(key, &mut tries, renewals, failure)
                    .await
                    .map_err(|error| store.inner.on(key, error))?,
            }
        };
        let object = Object { key: key.to_owned(), ..object };
        store.inner.detector.check_object(&object).map_err(|error| store.inner.on(key, error))?;
        let end = end.unwrap_or(object.size);
        if let Some(range) = range.filter(|_| end > object.size) {
            return Err(store.inner.on(key, outside(range, Some(object.size))));
        }
        let at = range.map_or(0, |range| range.offset);
        Ok((
            object.clone(),
            Self { store, object, source, spare: Bytes::new(), at, end, has_credential: false },
        ))
    }

    /// Returns how many bytes [`Body::chunk`] has not returned yet.
    pub fn remaining(&self) -> u64 {
        self.end - self.at + self.spare.len() as u64
    }

    /// Returns the next bytes, at most [`CHUNK`]; `None` at the end. Loses no bytes if the caller drops the future.
    ///
    /// # Errors
    /// `Corrupt` if the object changed or became shorter, `NotFound` if it vanished, `Transient` if the store failed for longer
    /// than [`super::Retry`] allows.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        // Bytes that may be the beginning of a credential are held until the next ones arrive.
        let mut held = self.store.inner.detector.overlap();
        while self.spare.len() <= held && self.at < self.end {
            let mut tries = Tries::new(self.store.inner.retry);
            let received;
            loop {
                let current = self.store.inner.access.current();
                match self.next(&tries, &current).await {
                    Ok(bytes) => {
                        self.at += bytes.len() as u64;
                        received = bytes.len() as u64;
                        self.store.meter.read(received);
                        self.spare = match self.spare.is_empty() {
                            true => bytes,
                            false => [&self.spare[..], &bytes[..]].concat().into(),
                        };
                        break;
                    }
                    Err(failure) => {
                        self.drop_connection();
                        let (about, used) = (&self.object.key, current.renewals);
                        let waited = self.store.wait_before_retry(about, &mut tries, used, failure).await;
                        waited.map_err(|error| self.on(error))?;
                    }
                }
            }
            if self.store.inner.detector.finds_in(&self.spare) {
                // Discards everything, so that later calls cannot return part of the credential.
                (self.spare, self.at) = (Bytes::new(), self.end);
                self.has_credential = true;
            }
            // The credentials may have been renewed in the meantime.
            held = self.store.inner.detector.overlap();
            if let Some(rate) = &self.store.rate {
                rate.take(received).await;
            }
        }
        if self.has_credential {
            return Err(self.on(sent_back()));
        }
        if self.spare.is_empty() {
            self.unchanged()?;
            return Ok(None);
        }
        let ready = if self.at == self.end { self.spare.len() } else { self.spare.len() - held };
        Ok(Some(self.spare.split_to(ready.min(CHUNK))))
    }

    /// Checks that the object is unchanged if it is a local file; succeeds for other objects. A caller that reads [`Body::file`]
    /// itself must call this at the end; [`Body::chunk`] does so.
    ///
    /// # Errors
    /// `Corrupt` if it has changed.
    pub fn unchanged(&self) -> Result<(), Error> {
        let Some(Source::File(file)) = &self.source else { return Ok(()) };
        let now = opened_object(file, self.object.key.clone()).map_err(|error| self.on(error))?;
        match now.changed_since(&self.object) {
            None => Ok(()),
            Some(change) => Err(self.on(changed(&change))),
        }
    }

    /// Returns the open file of a local object and the range that is not read yet, for copy_file_range and reflinks; `None` for other
    /// objects. The caller must obey the rate itself, and call [`Body::unchanged`] at the end.
    pub fn file(&self) -> Option<(&File, Range)> {
        match &self.source {
            Some(Source::File(file)) => Some((file, Range { offset: self.at, length: self.end - self.at })),
            Some(Source::Stream(_)) | None => None,
        }
    }

    /// Counts bytes that a caller of [`Body::file`] has read.
    pub(crate) fn count(&self, bytes: u64) {
        self.store.meter.read(bytes);
    }

    /// Receives at least one byte.
    async fn next(&mut self, tries: &Tries, current: &Current) -> Result<Bytes, Failure> {
        if self.source.is_none() {
            self.reopen(tries, current).await?;
        }
        let left = self.end - self.at;
        match &mut self.source {
            Some(Source::File(file)) => {
                let (file, at) = (Arc::clone(file), self.at);
                Ok(blocking(move || read_file(&file, at, left)).await?)
            }
            Some(Source::Stream(stream)) => loop {
                let idle = self.store.inner.retry.idle;
                let next = within(idle, async { stream.next().await.transpose() });
                match self.store.with_permit(&self.object.key, tries, next).await? {
                    Some(bytes) if bytes.is_empty() => {}
                    Some(mut bytes) => {
                        bytes.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                        return Ok(bytes);
                    }
                    None => {
                        return Err(Failure::transient(format!("the response ended {left} bytes too early")));
                    }
                }
            },
            None => Err(Failure::transient("the connection was lost")),
        }
    }

    /// Requests the rest of the same object.
    async fn reopen(&mut self, tries: &Tries, Current { backend, .. }: &Current) -> Result<(), Failure> {
        let (store, key) = (&self.store, &self.object.key);
        let range = Range { offset: self.at, length: self.end - self.at };
        let whole = store.inner.prefix.and(key);
        let (object, source) =
            match store.request(key, tries, backend.open(&whole, Some(range), Some(&self.object))).await {
                Ok((object, source)) => (object, Ok(source)),
                // The range may not exist any more: without an etag the store does not report a change.
                Err(failure) if failure.error.kind == Kind::Invalid => {
                    match store.request(key, tries, backend.head(&whole)).await {
                        Ok(object) => (object, Err(failure)),
                        Err(gone) if gone.error.kind == Kind::NotFound => return Err(gone),
                        Err(unknown) if unknown.retry == RetryAdvice::Never => return Err(failure),
                        Err(unknown) => return Err(unknown),
                    }
                }
                Err(failure) => return Err(failure),
            };
        match object.changed_since(&self.object) {
            None => self.source = Some(source?),
            Some(change) => return Err(changed(&change).into()),
        }
        Ok(())
    }

    fn drop_connection(&mut self) {
        if let Some(Source::Stream(_)) = self.source {
            self.source = None;
        }
    }

    fn on(&self, error: Error) -> Error {
        self.store.inner.on(&self.object.key, error)
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Body")
            .field("object", &self.object)
            .field("at", &self.at)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

/// Reads the next bytes of a file.
fn read_file(file: &File, at: u64, left: u64) -> Result<Bytes, Error> {
    let mut bytes = BytesMut::zeroed(usize::try_from(left).unwrap_or(usize::MAX).min(FILE_CHUNK));
    let count = read_some(file, &mut bytes, at, left)?;
    bytes.truncate(count);
    Ok(bytes.freeze())
}

/// Reads at least one byte of a file.
fn read_some(file: &File, into: &mut [u8], at: u64, left: u64) -> Result<usize, Error> {
    loop {
        match file.read_at(into, at) {
            Ok(0) => return Err(changed(&format!("it became shorter: {left} bytes are missing"))),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return Ok(read?),
        }
    }
}

/// Returns the error for an object that has changed. A retry would mix its old and new bytes.
pub(super) fn changed(change: &str) -> Error {
    Error::new(Kind::Corrupt, format!("the object changed while it was read: {change}"))
}

/// Returns the error for a range that does not lie within an object of `size` bytes; `size` is `None` if the range would not fit in any
/// object.
pub(super) fn outside(range: Range, size: Option<u64>) -> Error {
    let Range { offset, length } = range;
    let message = match size {
        Some(size) => format!("the {length} bytes from {offset} are not within its {size} bytes"),
        None => format!("the {length} bytes from {offset} end after the largest possible offset"),
    };
    Error::new(Kind::Invalid, message)
}
