//! Connections whose bytes are counted, and which fail after too long a silence.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep};
use wasmtime_wasi::p2::{
    DynInputStream, DynOutputStream, InputStream, OutputStream, Pollable, StreamError, StreamResult,
};

use super::allowance::{Direction, Meter};

/// How long to wait for a connection that transfers no byte in either direction.
pub(super) const IDLE: Duration = Duration::from_secs(60);

/// A connection of the host's HTTP client.
pub(super) struct Metered<S> {
    stream: S,
    meter: Meter,
    idle: Duration,
    silence: Pin<Box<Sleep>>,
    /// Given back when the connection ends.
    _permit: OwnedSemaphorePermit,
}

impl<S> Metered<S> {
    /// Makes a connection that may be silent for `idle`.
    pub(super) fn new(stream: S, meter: Meter, idle: Duration, permit: OwnedSemaphorePermit) -> Self {
        Self { stream, meter, idle, silence: Box::pin(tokio::time::sleep(idle)), _permit: permit }
    }

    /// Counts transferred bytes. Fails if no byte was transferred for too long.
    fn moved(
        &mut self,
        cx: &mut Context<'_>,
        direction: Direction,
        moved: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match moved {
            Poll::Ready(Ok(bytes)) => {
                self.silence.as_mut().reset(Instant::now() + self.idle);
                Poll::Ready(self.meter.count(direction, bytes).map(|()| bytes))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.silence.as_mut().poll(cx).map(|()| Err(silent(self.idle))),
        }
    }
}

fn silent(idle: Duration) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("no byte came or went for {} seconds", idle.as_secs()))
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let read = read.map_ok(|()| buffer.filled().len() - before);
        self.moved(cx, Direction::In, read).map_ok(drop)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // Writes only as many bytes as the limit allows; the next write fails. So no byte beyond the limit reaches the server.
        let most = bytes.len().min(self.meter.left());
        if most == 0 && !bytes.is_empty() {
            return Poll::Ready(self.meter.count(Direction::Out, 1).map(|()| 0));
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, &bytes[..most]);
        self.moved(cx, Direction::Out, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The state that both streams of a component's socket share.
#[derive(Clone)]
pub(super) struct Shared {
    meter: Meter,
    idle: Duration,
    /// When the component began to wait without a byte in either direction; `None` if it does not wait. Time in which the component does
    /// something else does not count.
    waits_since: Arc<Mutex<Option<Instant>>>,
}

impl Shared {
    /// Makes the state of a socket that may be silent for `idle`.
    pub(super) fn new(meter: Meter, idle: Duration) -> Self {
        Self { meter, idle, waits_since: Arc::default() }
    }

    fn set(&self, since: impl FnOnce(&mut Option<Instant>)) -> Option<Instant> {
        let mut waits_since = self.waits_since.lock().unwrap_or_else(PoisonError::into_inner);
        since(&mut waits_since);
        *waits_since
    }

    /// Waits until `ready` ends, or until the silence has lasted too long.
    async fn wait(&self, ready: impl Future<Output = ()>) {
        let since = self.set(|since| *since = since.or_else(|| Some(Instant::now())));
        let until = since.unwrap_or_else(Instant::now) + self.idle;
        tokio::select! {
            biased;
            () = ready => drop(self.set(|since| *since = None)),
            () = tokio::time::sleep_until(until) => {}
        }
    }

    fn counted(&self, direction: Direction, bytes: usize) -> StreamResult<()> {
        self.set(|since| *since = None);
        self.meter.count(direction, bytes).map_err(|error| StreamError::LastOperationFailed(error.into()))
    }

    /// Fails if the silence has lasted too long.
    fn silence(&self) -> StreamResult<()> {
        match self.set(|_| ()) {
            Some(since) if since.elapsed() >= self.idle => {
                self.meter.call.fails("timeout");
                Err(StreamError::LastOperationFailed(silent(self.idle).into()))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// A stream of a component's socket. It is closed after its first error.
pub(super) struct MeteredStream<S> {
    stream: Option<S>,
    shared: Shared,
}

impl<S> MeteredStream<S> {
    /// Makes a stream whose bytes are counted.
    pub(super) fn new(stream: S, shared: Shared) -> Self {
        Self { stream: Some(stream), shared }
    }

    fn checked<T>(&mut self, result: StreamResult<T>) -> StreamResult<T> {
        if result.is_err() {
            self.stream = None;
        }
        result
    }
}

#[async_trait]
impl Pollable for MeteredStream<DynInputStream> {
    async fn ready(&mut self) {
        if let Some(stream) = &mut self.stream {
            self.shared.wait(stream.ready()).await;
        }
    }
}

#[async_trait]
impl InputStream for MeteredStream<DynInputStream> {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        let Some(stream) = &mut self.stream else { return Err(StreamError::Closed) };
        let read = stream.read(size).and_then(|bytes| {
            match bytes.len() {
                0 if size > 0 => self.shared.silence()?,
                0 => {}
                read => self.shared.counted(Direction::In, read)?,
            }
            Ok(bytes)
        });
        self.checked(read)
    }
}

#[async_trait]
impl Pollable for MeteredStream<DynOutputStream> {
    async fn ready(&mut self) {
        if let Some(stream) = &mut self.stream {
            self.shared.wait(stream.ready()).await;
        }
    }
}

#[async_trait]
impl OutputStream for MeteredStream<DynOutputStream> {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let Some(stream) = &mut self.stream else { return Err(StreamError::Closed) };
        let counted =
            if bytes.is_empty() { Ok(()) } else { self.shared.counted(Direction::Out, bytes.len()) };
        let written = counted.and_then(|()| stream.write(bytes));
        self.checked(written)
    }

    fn flush(&mut self) -> StreamResult<()> {
        let Some(stream) = &mut self.stream else { return Err(StreamError::Closed) };
        let flushed = stream.flush();
        self.checked(flushed)
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        let Some(stream) = &mut self.stream else { return Err(StreamError::Closed) };
        let permitted = stream.check_write().and_then(|permitted| {
            if permitted == 0 {
                self.shared.silence()?;
            }
            Ok(permitted)
        });
        self.checked(permitted)
    }

    /// WASI waits here for the bytes that the component has written already. A server that does not read them ends the wait after the
    /// silence that any other wait may have.
    async fn cancel(&mut self) {
        if let Some(mut stream) = self.stream.take() {
            self.shared.wait(stream.cancel()).await;
            // The component gets no answer to this. The record of the call gets one.
            drop(self.shared.silence());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use replica::event::Step;
    use replica::{Bytes as Size, CapabilityKind, Event, Redactor};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::sync::Semaphore;
    use tokio::sync::mpsc::unbounded_channel;

    use super::super::allowance::{Allowance, Limit};
    use super::*;
    use crate::calls::{Calls, Ongoing};
    use crate::reporter::Reporter;

    const SOON: Duration = Duration::from_millis(50);

    fn meter(bytes: u64) -> Meter {
        let reporter = Reporter::new("m", unbounded_channel().0);
        Meter {
            allowances: vec![Arc::new(Allowance::new(Limit::new(Size(bytes), "network_bytes".to_owned())))],
            reporter,
            call: Ongoing::default(),
        }
    }

    fn permit() -> OwnedSemaphorePermit {
        Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap()
    }

    #[tokio::test]
    async fn a_connection_that_stays_silent_ends() {
        let (own, mut other) = duplex(64);
        let mut connection = Metered::new(own, meter(1 << 20), SOON, permit());
        other.write_all(b"hello").await.unwrap();
        let mut bytes = [0; 5];
        connection.read_exact(&mut bytes).await.unwrap();
        let error = connection.read_exact(&mut bytes).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
        // A connection that accepts no bytes also times out.
        let (own, _other) = duplex(64);
        let mut connection = Metered::new(own, meter(1 << 20), SOON, permit());
        let error = connection.write_all(&[0; 65]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
    }

    #[tokio::test]
    async fn nothing_beyond_the_limit_reaches_the_server() {
        let (own, mut other) = duplex(64);
        let mut connection = Metered::new(own, meter(10), SOON, permit());
        let error = connection.write_all(b"twelve bytes").await.unwrap_err();
        assert!(error.to_string().contains("more than 10 B"), "{error}");
        drop(connection);
        let mut got = Vec::new();
        other.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"twelve byt");
    }

    #[tokio::test]
    async fn bytes_in_both_directions_count() {
        let (own, mut other) = duplex(64);
        let mut connection = Metered::new(own, meter(10), SOON, permit());
        connection.write_all(&[0; 6]).await.unwrap();
        other.write_all(&[0; 5]).await.unwrap();
        let error = connection.read_exact(&mut [0; 5]).await.unwrap_err();
        assert!(error.to_string().contains("more than 10 B"), "{error}");
    }

    /// A stream on which nothing ever happens.
    struct Silent;

    #[async_trait]
    impl Pollable for Silent {
        async fn ready(&mut self) {
            std::future::pending().await
        }
    }

    #[async_trait]
    impl InputStream for Silent {
        fn read(&mut self, _size: usize) -> StreamResult<Bytes> {
            Ok(Bytes::new())
        }
    }

    #[async_trait]
    impl OutputStream for Silent {
        fn write(&mut self, _bytes: Bytes) -> StreamResult<()> {
            Ok(())
        }

        fn flush(&mut self) -> StreamResult<()> {
            Ok(())
        }

        fn check_write(&mut self) -> StreamResult<usize> {
            Ok(0)
        }

        async fn cancel(&mut self) {
            self.ready().await;
        }
    }

    fn is_silence<T>(result: StreamResult<T>) -> bool {
        matches!(result, Err(StreamError::LastOperationFailed(error)) if error.to_string().contains("no byte came"))
    }

    #[tokio::test]
    async fn a_socket_that_stays_silent_fails_and_is_closed_then() {
        let shared = Shared::new(meter(100), SOON);
        let mut input = MeteredStream::new(Box::new(Silent) as DynInputStream, shared.clone());
        assert!(input.read(10).unwrap().is_empty(), "nobody has waited yet");
        assert!(is_silence(input.blocking_read(10).await));
        assert!(matches!(input.read(10), Err(StreamError::Closed)));

        let mut output =
            MeteredStream::new(Box::new(Silent) as DynOutputStream, Shared::new(meter(100), SOON));
        output.ready().await;
        assert!(is_silence(output.check_write()));
        assert!(matches!(output.check_write(), Err(StreamError::Closed)));
    }

    #[tokio::test]
    async fn dropping_a_socket_whose_bytes_nobody_reads_ends_with_the_silence() {
        let (events, mut told) = unbounded_channel();
        let calls = Calls::new(Step::Create, Redactor::new(), &Arc::default());
        let reporter = Reporter::new("m", events).recording(calls);
        let call = reporter.ongoing(CapabilityKind::Network, "tcp.start-connect", || "a:1".to_owned());
        call.succeeds();
        let shared = Shared::new(Meter { call, ..meter(100) }, SOON);
        let mut output = MeteredStream::new(Box::new(Silent) as DynOutputStream, shared);
        output.write(Bytes::from_static(b"x")).unwrap();
        tokio::time::timeout(100 * SOON, output.cancel()).await.unwrap();
        assert!(matches!(output.check_write(), Err(StreamError::Closed)));
        drop(output);
        let Ok(Event::Called { call, .. }) = told.try_recv() else { panic!("no record") };
        assert_eq!((call.answer, call.bytes_written), ("timeout", 1));
    }

    #[tokio::test]
    async fn several_short_waits_are_one_silence_and_a_byte_ends_it() {
        let shared = Shared::new(meter(100), SOON);
        let mut input = MeteredStream::new(Box::new(Silent) as DynInputStream, shared.clone());
        let mut output = MeteredStream::new(Box::new(Silent) as DynOutputStream, shared);
        let short_wait = async |input: &mut MeteredStream<DynInputStream>| {
            let _ = tokio::time::timeout(SOON / 2, input.ready()).await;
        };
        short_wait(&mut input).await;
        output.write(Bytes::from_static(b"x")).unwrap();
        short_wait(&mut input).await;
        assert!(input.read(10).unwrap().is_empty(), "a byte went in between");
        short_wait(&mut input).await;
        short_wait(&mut input).await;
        assert!(is_silence(input.read(10)));
    }

    #[tokio::test]
    async fn a_socket_beyond_its_bytes_fails_and_is_closed_then() {
        let mut output =
            MeteredStream::new(Box::new(Silent) as DynOutputStream, Shared::new(meter(10), SOON));
        output.write(Bytes::from_static(&[0; 10])).unwrap();
        let failed = output.write(Bytes::from_static(&[0]));
        assert!(matches!(failed, Err(StreamError::LastOperationFailed(_))));
        assert!(matches!(output.write(Bytes::from_static(&[0])), Err(StreamError::Closed)));
    }
}
