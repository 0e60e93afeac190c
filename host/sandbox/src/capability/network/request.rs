//! Observes a request: when its body has been sent, and how many bytes arrive before the response.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use wasmtime_wasi_http::{Error, WasiBody};

/// The body of a request, which signals its end.
pub(super) struct SentBody {
    body: WasiBody,
    /// Dropped at the end of the body.
    unsent: Option<watch::Sender<()>>,
}

/// The end of a request's body.
pub(super) struct Sent(watch::Receiver<()>);

impl SentBody {
    /// Makes the body, and a value that waits for its end.
    pub(super) fn new(body: WasiBody) -> (Self, Sent) {
        let (unsent, sent) = watch::channel(());
        let unsent = Some(unsent).filter(|_| !http_body::Body::is_end_stream(&body));
        (Self { body, unsent }, Sent(sent))
    }
}

impl Sent {
    /// Waits until the body has ended, and then for `patience`. While the body is being sent, only the connection's own limit for silence
    /// applies.
    pub(super) async fn and_then(mut self, patience: Duration) {
        // No value is ever sent: this ends when the sender is dropped.
        while self.0.changed().await.is_ok() {}
        tokio::time::sleep(patience).await;
    }
}

impl http_body::Body for SentBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(frame, Poll::Ready(None | Some(Err(_)))) || self.body.is_end_stream() {
            self.unsent = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// More bytes arrived before a response than allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it sends more than {} KiB before its response", BEFORE_RESPONSE >> 10)]
pub(super) struct TooMuchBefore;

/// How many bytes may come before the head of the response has been read: informational responses (1xx), the head, and the beginning of the
/// body, which arrives with it. The host's buffer has a quarter of this.
pub(super) const BEFORE_RESPONSE: usize = 256 << 10;

/// A connection on which a bounded number of bytes may come before the response.
pub(super) struct BoundedHead<S> {
    stream: S,
    read: usize,
    has_response: Arc<AtomicBool>,
}

impl<S> BoundedHead<S> {
    /// Makes the connection, and a value that lifts the bound when the response has arrived.
    pub(super) fn new(stream: S) -> (Self, Arc<AtomicBool>) {
        let has_response: Arc<AtomicBool> = Arc::default();
        (Self { stream, read: 0, has_response: Arc::clone(&has_response) }, has_response)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for BoundedHead<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if !self.has_response.load(Ordering::Relaxed) {
            self.read += buffer.filled().len() - before;
            if self.read > BEFORE_RESPONSE {
                return Poll::Ready(Err(io::Error::other(TooMuchBefore)));
            }
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for BoundedHead<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Empty};
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;

    const SOON: Duration = Duration::from_millis(20);

    /// A body that goes on until its sender is dropped.
    struct Coming(UnboundedReceiver<Bytes>);

    impl http_body::Body for Coming {
        type Data = Bytes;
        type Error = Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
            self.0.poll_recv(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
        }
    }

    #[tokio::test]
    async fn the_wait_for_a_response_begins_when_the_body_has_ended() {
        // Without a body, the wait begins at once.
        let (_body, sent) = SentBody::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
        sent.and_then(SOON).await;

        let (frames, coming) = unbounded_channel();
        let (mut body, sent) = SentBody::new(Coming(coming).boxed_unsync());
        let mut wait = tokio::spawn(sent.and_then(SOON));
        frames.send(Bytes::from_static(b"x")).unwrap();
        body.frame().await.unwrap().unwrap();
        assert!(tokio::time::timeout(5 * SOON, &mut wait).await.is_err(), "the body goes on");
        drop(frames);
        assert!(body.frame().await.is_none());
        wait.await.unwrap();

        // hyper may drop a body of a known length before it reads the end. A dropped body counts as ended.
        let (_frames, coming) = unbounded_channel();
        let (body, sent) = SentBody::new(Coming(coming).boxed_unsync());
        drop(body);
        sent.and_then(SOON).await;
    }

    #[tokio::test]
    async fn what_comes_before_a_response_is_bounded() {
        for has_response in [false, true] {
            let (own, mut other) = duplex(1 << 20);
            let (mut stream, response) = BoundedHead::new(own);
            response.store(has_response, Ordering::Relaxed);
            other.write_all(&vec![b'x'; BEFORE_RESPONSE + 1]).await.unwrap();
            let mut bytes = vec![0; BEFORE_RESPONSE];
            stream.read_exact(&mut bytes).await.unwrap();
            let last = stream.read_exact(&mut [0]).await;
            assert_eq!(last.is_ok(), has_response, "{last:?}");
        }
    }
}
