//! Reads an object for the component: from the store, through the pipeline, with derived keys blanked.
//!
//! A task on the plane's runtime reads the stored bytes. If the bytes must be decoded, a blocking thread of the plane decodes them.
//! Channels connect the task, the thread and the component. Each channel holds a few chunks, which bounds the memory for a component
//! that does not read. Dropping the stream ends the task and the thread.

use std::io::{self, Read};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use replica::Redactor;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{self, Receiver, Sender, error::TryRecvError};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use transfer::budget::{Budget, Charge, MemoryAllowance};
use transfer::derive::{Blanked, ObjectIdentity, Withheld, derive_key};
use transfer::error::{Error, Kind};
use transfer::keys::Key;
use transfer::pipeline::Pipeline;
use transfer::store::{Body, Range, Store};
use wasmtime_wasi::p2::{InputStream, Pollable, StreamError, StreamResult};

use super::{STREAM, cancelled};

/// How many chunks may wait in a channel.
const WAITING: usize = 3;
/// The size of a decoded chunk.
const CHUNK: usize = 64 << 10;
/// A chunk; `None` at the end of the object. A closed channel does not mean the end.
type Chunk = Result<Option<Bytes>, Error>;

/// An object to read.
pub(crate) struct Object {
    pub(super) store: Store,
    pub(crate) key: String,
    pub(super) via: Pipeline,
    pub(super) withheld: Withheld,
    /// Cancelled when the run is cancelled.
    pub(super) run: CancellationToken,
    /// The budget to which the decoder's window is charged.
    pub(super) memory: Budget,
}

/// The charges for a stream. They are released when the last of its threads has ended.
#[derive(Clone)]
pub(super) struct Held {
    _held: Arc<(Option<OwnedSemaphorePermit>, Vec<Charge>)>,
}

impl Held {
    pub(super) fn of(slot: OwnedSemaphorePermit, file: Charge, memory: Charge) -> Self {
        Self { _held: Arc::new((Some(slot), vec![file, memory])) }
    }
}

/// An object that was opened at its store.
pub(super) struct Opened {
    key: String,
    via: Pipeline,
    blanked: Blanked,
    identity: ObjectIdentity,
    body: Body,
    run: CancellationToken,
    memory: Budget,
}

impl Object {
    pub(super) async fn open(self, range: Option<Range>) -> Result<Opened, Error> {
        let (object, body) = self.store.read(&self.key, range).await?;
        let identity = ObjectIdentity::of(self.store.name(), &object, &body)?;
        self.withheld.may_read(&identity, &self.via, range.is_some()).map_err(|error| error.of(&self.key))?;
        let blanked = self.withheld.blanked();
        Ok(Opened {
            key: self.key,
            via: self.via,
            blanked,
            identity,
            body,
            run: self.run,
            memory: self.memory,
        })
    }

    /// Reads the whole plain text, at most `limit` bytes.
    ///
    /// # Errors
    /// `Limit` if the text is longer; otherwise the error of the store or the pipeline.
    pub(crate) async fn get(self, limit: usize) -> Result<Vec<u8>, Error> {
        let key = self.key.clone();
        // Charges twice the limit, because a growing vector doubles its size.
        let charge = self.memory.charge(STREAM + 2 * limit as u64, "an object that is read whole");
        let held = Held { _held: Arc::new((None, vec![charge.map_err(|error| error.of(&key))?])) };
        let mut chunks = self.open(None).await?.chunks(held);
        let mut whole = Vec::new();
        while let Some(chunk) = chunks.next().await? {
            if chunk.len() > limit - whole.len() {
                return Err(Error::new(Kind::Limit, format!("{key} is larger than {limit} bytes")));
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(whole)
    }

    /// Derives the key from the plain text.
    ///
    /// # Errors
    /// The error of the store, the pipeline or the text.
    pub(super) async fn derive(self, section: String, name: String) -> Result<(Key, ObjectIdentity), Error> {
        let Opened { key, via, identity, body, run, memory, .. } = self.open(None).await?;
        let of = key.clone();
        let (stored, feeding) = feed(body, run);
        let found = tokio::task::spawn_blocking(move || {
            let plain = via.decode(Box::new(ChunkReader::new(stored)), &MemoryAllowance::of(&memory))?;
            derive_key(plain, &section, &name)
        });
        let found = found.await.unwrap_or_else(|fault| Err(fault_in_the_host(&fault)));
        drop(feeding);
        found.map(|key| (key, identity)).map_err(|error| error.of(of))
    }
}

fn fault_in_the_host(fault: &tokio::task::JoinError) -> Error {
    Error::new(Kind::Failed, format!("a fault in the host: {fault}"))
}

/// Reads a body into a channel, on a task of the current runtime. Dropping the second value ends the task.
fn feed(mut body: Body, run: CancellationToken) -> (Receiver<Chunk>, AbortOnDropHandle<()>) {
    let (stored, reads) = mpsc::channel(WAITING);
    let feeding = tokio::spawn(async move {
        loop {
            let chunk = tokio::select! {
                biased;
                () = run.cancelled() => Err(cancelled()),
                chunk = body.chunk() => chunk,
            };
            let last = !matches!(chunk, Ok(Some(_)));
            if stored.send(chunk).await.is_err() || last {
                return;
            }
        }
    });
    (reads, AbortOnDropHandle::new(feeding))
}

/// The plain bytes of an object, chunk by chunk.
pub(super) struct Chunks {
    plain: Receiver<Chunk>,
    key: String,
    _held: Held,
    _feeding: AbortOnDropHandle<()>,
}

impl Opened {
    /// Starts to read and to decode. Must be called on the plane's runtime.
    pub(super) fn chunks(self, held: Held) -> Chunks {
        let Self { key, via, blanked, body, run, memory, .. } = self;
        let (stored, feeding) = feed(body, run);
        if via.is_plain() && blanked.is_empty() {
            return Chunks { plain: stored, key, _held: held, _feeding: feeding };
        }
        let (decoded, plain) = mpsc::channel(WAITING);
        let (held, holds) = (held.clone(), held);
        tokio::task::spawn_blocking(move || {
            // The charges stay until the decoder has ended, which may be after the stream was dropped.
            let _held = holds;
            decode(stored, &via, &blanked, &decoded, &MemoryAllowance::of(&memory));
        });
        Chunks { plain, key, _held: held, _feeding: feeding }
    }
}

/// Decodes to the end of the object, or until the receiver is dropped. Blocks.
fn decode(
    stored: Receiver<Chunk>,
    via: &Pipeline,
    blanked: &Blanked,
    decoded: &Sender<Chunk>,
    allowance: &MemoryAllowance,
) {
    let plain = via.decode_to_read(Box::new(ChunkReader::new(stored)), allowance);
    let mut plain = match plain {
        Ok(plain) => blanked.reader(plain),
        Err(error) => return drop(decoded.blocking_send(Err(error))),
    };
    loop {
        let mut buffer = vec![0; CHUNK];
        let chunk = match plain.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Ok(0) => Ok(None),
            Ok(read) => {
                buffer.truncate(read);
                Ok(Some(Bytes::from(buffer)))
            }
            Err(error) => Err(Error::from(error)),
        };
        let last = !matches!(chunk, Ok(Some(_)));
        if decoded.blocking_send(chunk).is_err() || last {
            return;
        }
    }
}

impl Chunks {
    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        let chunk = self.plain.recv().await.unwrap_or_else(|| Err(cut_off()));
        chunk.map_err(|error| error.of(&self.key))
    }
}

/// Returns the error for a channel that was closed before the end of the object.
fn cut_off() -> Error {
    Error::new(Kind::Failed, "its reader ended before the object did")
}

/// Implements [`Read`] for the stored bytes that a channel delivers. For a thread that may block.
struct ChunkReader {
    stored: Receiver<Chunk>,
    chunk: Bytes,
    ended: bool,
}

impl ChunkReader {
    fn new(stored: Receiver<Chunk>) -> Self {
        Self { stored, chunk: Bytes::new(), ended: false }
    }
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() && !self.ended {
            match self.stored.blocking_recv().unwrap_or_else(|| Err(cut_off()))? {
                Some(chunk) => self.chunk = chunk,
                None => self.ended = true,
            }
        }
        let length = buffer.len().min(self.chunk.len());
        self.chunk.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

/// An object as a WASI input stream.
pub(crate) struct ObjectStream {
    chunks: Chunks,
    held: Bytes,
    ended: Option<StreamEnd>,
    redactors: [Redactor; 2],
}

enum StreamEnd {
    Whole,
    Failed(Error),
    Reported,
}

impl ObjectStream {
    pub(super) fn new(chunks: Chunks, redactors: [Redactor; 2]) -> Self {
        Self { chunks, held: Bytes::new(), ended: None, redactors }
    }

    fn take(&mut self, chunk: Chunk) {
        match chunk {
            Ok(Some(chunk)) => self.held = chunk,
            Ok(None) => self.ended = Some(StreamEnd::Whole),
            Err(error) => self.ended = Some(StreamEnd::Failed(error)),
        }
    }
}

#[async_trait]
impl Pollable for ObjectStream {
    async fn ready(&mut self) {
        while self.held.is_empty() && self.ended.is_none() {
            let chunk = self.chunks.next().await;
            self.take(chunk);
        }
    }
}

#[async_trait]
impl InputStream for ObjectStream {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        if size > 0 && self.held.is_empty() && self.ended.is_none() {
            match self.chunks.plain.try_recv() {
                Ok(chunk) => self.take(chunk.map_err(|error| error.of(&self.chunks.key))),
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => self.take(Err(cut_off())),
            }
        }
        if size == 0 || !self.held.is_empty() {
            return Ok(self.held.split_to(size.min(self.held.len())));
        }
        match &self.ended {
            None => Ok(Bytes::new()),
            Some(StreamEnd::Whole | StreamEnd::Reported) => Err(StreamError::Closed),
            Some(StreamEnd::Failed(error)) => {
                let said = self
                    .redactors
                    .iter()
                    .fold(error.message.clone(), |text, redactor| redactor.redact(&text).into_owned());
                let said = wasmtime::Error::msg(said);
                self.ended = Some(StreamEnd::Reported);
                Err(StreamError::LastOperationFailed(said))
            }
        }
    }
}
