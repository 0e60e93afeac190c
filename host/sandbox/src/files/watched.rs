//! A stream that records activity when it moves bytes.

use async_trait::async_trait;
use bytes::Bytes;
use replica::run::Activity;
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamResult};

/// A stream, and the record of the run's activity.
pub(crate) struct Watched<S> {
    stream: S,
    activity: Activity,
}

impl<S> Watched<S> {
    pub(crate) fn new(stream: S, activity: &Activity) -> Self {
        Self { stream, activity: activity.clone() }
    }

    fn moved<T>(&self, result: StreamResult<T>, something: impl Fn(&T) -> bool) -> StreamResult<T> {
        if result.as_ref().is_ok_and(something) {
            self.activity.mark();
        }
        result
    }
}

#[async_trait]
impl<S: Pollable> Pollable for Watched<S> {
    async fn ready(&mut self) {
        self.stream.ready().await;
    }
}

#[async_trait]
impl<S: InputStream> InputStream for Watched<S> {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        let read = self.stream.read(size);
        self.moved(read, |bytes| !bytes.is_empty())
    }
}

#[async_trait]
impl<S: OutputStream> OutputStream for Watched<S> {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let something = !bytes.is_empty();
        let written = self.stream.write(bytes);
        self.moved(written, |()| something)
    }

    fn flush(&mut self) -> StreamResult<()> {
        self.stream.flush()
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        self.stream.check_write()
    }
}
