//! A body for a thread that may block.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::AbortHandle;

use super::{Body, Source, read_some};
use crate::error::{Error, Kind};

/// The most bytes that come in ahead of a reader.
pub const READAHEAD: usize = 1 << 20;

/// The largest piece that is handed over at once: several fit into [`READAHEAD`].
const PIECE: usize = READAHEAD / 4;

pub(super) fn of(body: Body) -> Box<dyn Read + Send> {
    if let Some(Source::File(file)) = &body.source {
        return Box::new(FileReader { file: Arc::clone(file), body });
    }
    let Some(runtime) = body.store.inner.runtime.clone() else { return Box::new(ChunkReader { body }) };
    let (sender, receiver) = mpsc::unbounded_channel();
    let task = runtime.spawn(bring(body, sender)).abort_handle();
    Box::new(StreamReader { receiver, task, current: None, ended: false })
}

/// A local file, read by whoever wants it.
struct FileReader {
    body: Body,
    file: Arc<File>,
}

impl Read for FileReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let body = &mut self.body;
        if !body.spare.is_empty() {
            return take(&mut body.spare, into);
        }
        if into.is_empty() {
            return Ok(0);
        }
        let left = body.end - body.at;
        if left == 0 {
            body.unchanged()?;
            return Ok(0);
        }
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(into.len()).min(super::CHUNK);
        let count =
            read_some(&self.file, &mut into[..most], body.at, left).map_err(|error| body.on(error))?;
        body.at += count as u64;
        if let Some(rate) = &body.store.rate {
            rate.take_blocking(count as u64);
        }
        Ok(count)
    }
}

/// A body that has no more to come.
struct ChunkReader {
    body: Body,
}

impl Read for ChunkReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.body.spare.is_empty() && self.body.at < self.body.end {
            return Err(self
                .body
                .on(Error::new(Kind::Failed, "its store has no runtime to read with"))
                .into());
        }
        take(&mut self.body.spare, into)
    }
}

/// What a reader is handed: bytes with their share of the readahead, an error, or that it was all.
enum Piece {
    Bytes(Bytes, OwnedSemaphorePermit),
    Failed(Error),
    End,
}

/// Brings a body's bytes to its reader, as far ahead as is allowed.
async fn bring(mut body: Body, reader: mpsc::UnboundedSender<Piece>) {
    let ahead = Arc::new(Semaphore::new(READAHEAD));
    loop {
        let last = match body.chunk().await {
            Ok(Some(mut bytes)) => {
                while !bytes.is_empty() {
                    let piece = bytes.split_to(bytes.len().min(PIECE));
                    let share = u32::try_from(piece.len()).unwrap_or(u32::MAX);
                    let Ok(permit) = Arc::clone(&ahead).acquire_many_owned(share).await else { return };
                    if reader.send(Piece::Bytes(piece, permit)).is_err() {
                        return;
                    }
                }
                continue;
            }
            Ok(None) => Piece::End,
            Err(error) => Piece::Failed(error),
        };
        // A reader that is gone wants to know nothing.
        let _ = reader.send(last);
        return;
    }
}

/// What comes over the network, read by whoever wants it.
struct StreamReader {
    receiver: mpsc::UnboundedReceiver<Piece>,
    task: AbortHandle,
    current: Option<(Bytes, OwnedSemaphorePermit)>,
    ended: bool,
}

impl Read for StreamReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() || self.ended {
            return Ok(0);
        }
        if self.current.is_none() {
            self.current = match self.receiver.blocking_recv() {
                Some(Piece::Bytes(bytes, permit)) => Some((bytes, permit)),
                Some(Piece::Failed(error)) => return Err(error.into()),
                Some(Piece::End) => {
                    self.ended = true;
                    return Ok(0);
                }
                None => {
                    return Err(
                        Error::new(Kind::Cancelled, "the runtime that reads the store has ended").into()
                    );
                }
            };
        }
        let Some((bytes, _)) = &mut self.current else { return Ok(0) };
        let count = take(bytes, into)?;
        if bytes.is_empty() {
            self.current = None;
        }
        Ok(count)
    }
}

impl Drop for StreamReader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn take(from: &mut Bytes, into: &mut [u8]) -> io::Result<usize> {
    let count = from.len().min(into.len());
    from.copy_to_slice(&mut into[..count]);
    Ok(count)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use futures_util::StreamExt;

    use super::super::super::{Object, Store};
    use super::*;

    /// A body of bytes without an end, and whether it was given up.
    fn endless() -> (tempfile::TempDir, Body, Arc<AtomicBool>) {
        struct GivenUp(Arc<AtomicBool>);
        impl Drop for GivenUp {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        let root = tempfile::tempdir().unwrap();
        let given_up = Arc::new(AtomicBool::new(false));
        let guard = GivenUp(Arc::clone(&given_up));
        let stream = futures_util::stream::repeat_with(move || {
            let _held = &guard;
            Ok(Bytes::from_static(&[7; 100_000]))
        });
        let object = Object { key: "endless".to_owned(), size: u64::MAX, modified: None, etag: None };
        let body = Body {
            store: Store::directory(root.path()).unwrap(),
            object,
            source: Some(Source::Stream(stream.boxed())),
            spare: Bytes::new(),
            at: 0,
            end: u64::MAX,
        };
        (root, body, given_up)
    }

    #[tokio::test]
    async fn no_more_comes_ahead_than_may() {
        let (_root, body, _) = endless();
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let bringing = tokio::spawn(bring(body, sender));
        for _ in 0..10_000 {
            tokio::task::yield_now().await;
        }
        let (mut held, mut ahead) = (Vec::new(), 0);
        while let Ok(Piece::Bytes(bytes, permit)) = receiver.try_recv() {
            ahead += bytes.len();
            held.push(permit);
        }
        assert!(ahead <= READAHEAD && ahead > READAHEAD / 2, "{ahead}");
        // What is read makes room.
        drop(held);
        assert!(matches!(receiver.recv().await, Some(Piece::Bytes(..))));
        bringing.abort();
    }

    #[tokio::test]
    async fn a_reader_that_is_dropped_ends_the_reading() {
        let (_root, body, given_up) = endless();
        let (sender, receiver) = mpsc::unbounded_channel();
        let task = tokio::spawn(bring(body, sender));
        tokio::task::yield_now().await;
        drop(StreamReader { receiver, task: task.abort_handle(), current: None, ended: false });
        assert!(task.await.unwrap_err().is_cancelled());
        assert!(given_up.load(Ordering::SeqCst));
    }
}
