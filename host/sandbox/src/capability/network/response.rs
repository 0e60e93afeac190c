//! The response of a server. Waiting for it is bounded, and it is searched for the token that the server received.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_RANGE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, Response, StatusCode};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};
use transfer::store::{CredentialDetector, other_coding};
use wasmtime_wasi_http::Error;

use crate::text::printable;

/// How many characters of a header appear in a message.
const SHOWN: usize = 100;

/// The server sent back the token that it received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the server sends back the `token` that it received, so its response is not used: report this to the owner of the server, and \
     renew the token"
)]
pub(super) struct SentBack;

/// Why a response to a request with a token is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unsearchable {
    /// A header has the token.
    #[error(transparent)]
    SentBack(#[from] SentBack),
    /// The response has a form in which the token could not be found.
    #[error(
        "the server sends {0}, in which the host cannot search for the `token`: the host asked for a whole response \
         that is not compressed"
    )]
    Coded(Coded),
}

/// A response that is not the plain bytes of one whole resource.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Coded {
    /// A range of the resource.
    #[error("a part of a response (206)")]
    Part,
    /// A content coding, such as gzip.
    #[error("a compressed response (Content-Encoding: {0})")]
    Content(String),
    /// A transfer coding other than chunked.
    #[error("an encoded response (Transfer-Encoding: {0})")]
    Transfer(String),
}

/// Why a body ended early.
pub(super) enum Failed {
    /// The connection failed.
    Hyper(hyper::Error),
    /// The token is in the body.
    SentBack(SentBack),
    /// The next bytes did not come in time.
    Silent,
}

/// Checks that no header of a response has the token, and that the token would be found in its body.
///
/// # Errors
/// [`Unsearchable`] otherwise.
pub(super) fn check_head<B>(
    response: &Response<B>,
    detector: &CredentialDetector,
) -> Result<(), Unsearchable> {
    let headers = response.headers();
    check_headers(headers, detector)?;
    // A method could assemble the token from partial responses, none of which contains the whole token.
    if response.status() == StatusCode::PARTIAL_CONTENT || headers.contains_key(CONTENT_RANGE) {
        return Err(Unsearchable::Coded(Coded::Part));
    }
    if let Some(codings) = other_than(headers, &CONTENT_ENCODING, "identity") {
        return Err(Unsearchable::Coded(Coded::Content(codings)));
    }
    if let Some(codings) = other_than(headers, &TRANSFER_ENCODING, "chunked") {
        return Err(Unsearchable::Coded(Coded::Transfer(codings)));
    }
    Ok(())
}

/// Returns the first line of a header that names a coding other than `plain`, for a message.
fn other_than(headers: &HeaderMap, name: &HeaderName, plain: &str) -> Option<String> {
    let other = other_coding(headers, name, plain)?;
    Some(printable(&String::from_utf8_lossy(other.as_bytes()), SHOWN))
}

fn check_headers(headers: &HeaderMap, detector: &CredentialDetector) -> Result<(), SentBack> {
    let has = headers.iter().any(|(name, value)| {
        detector.finds_in(name.as_str().as_bytes()) || detector.finds_in(value.as_bytes())
    });
    if has { Err(SentBack) } else { Ok(()) }
}

/// Converts the failure of a body to the component's error, and reports the failure.
pub(super) type Report = Arc<dyn Fn(Failed) -> Error + Send + Sync>;

/// The body of a response.
pub(super) struct Body {
    incoming: Incoming,
    patience: Duration,
    silence: Pin<Box<Sleep>>,
    search: Option<Search>,
    report: Report,
    has_ended: bool,
}

/// The search for the token.
struct Search {
    detector: CredentialDetector,
    /// Bytes that may be the beginning of the token. The component gets them when the following bytes show that they are not.
    held: BytesMut,
}

impl Search {
    /// Adds bytes, and returns those that are certainly not part of the token. `is_end` says that no more bytes will follow.
    fn pass(&mut self, bytes: &[u8], is_end: bool) -> Result<Bytes, SentBack> {
        self.held.extend_from_slice(bytes);
        if self.detector.finds_in(&self.held) {
            return Err(SentBack);
        }
        let kept = if is_end { 0 } else { self.detector.overlap().min(self.held.len()) };
        Ok(self.held.split_to(self.held.len() - kept).freeze())
    }
}

impl Body {
    /// Makes the body. If there is a detector, the body is searched.
    pub(super) fn new(
        incoming: Incoming,
        patience: Duration,
        detector: Option<CredentialDetector>,
        report: Report,
    ) -> Self {
        let silence = Box::pin(tokio::time::sleep(patience));
        let search = detector.map(|detector| Search { detector, held: BytesMut::new() });
        Self { incoming, patience, silence, search, report, has_ended: false }
    }

    fn fails(&mut self, why: Failed) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        self.has_ended = true;
        Poll::Ready(Some(Err((self.report)(why))))
    }

    /// Returns the last bytes that were held back, before the trailers or the end.
    fn rest(&mut self) -> Result<Option<Bytes>, SentBack> {
        let rest = self.search.as_mut().map(|search| search.pass(&[], true)).transpose()?;
        Ok(rest.filter(|rest| !rest.is_empty()))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        loop {
            if self.has_ended {
                return Poll::Ready(None);
            }
            let frame = match Pin::new(&mut self.incoming).poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    if self.silence.as_mut().poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                    return self.fails(Failed::Silent);
                }
            };
            let until = Instant::now() + self.patience;
            self.silence.as_mut().reset(until);
            match frame {
                Some(Err(error)) => return self.fails(Failed::Hyper(error)),
                None => {
                    self.has_ended = true;
                    return match self.rest() {
                        Ok(rest) => Poll::Ready(rest.map(|rest| Ok(Frame::data(rest)))),
                        Err(error) => self.fails(Failed::SentBack(error)),
                    };
                }
                Some(Ok(frame)) => match (frame.into_data(), &mut self.search) {
                    (Ok(bytes), None) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                    (Ok(bytes), Some(search)) => match search.pass(&bytes, false) {
                        Ok(certain) if certain.is_empty() => {}
                        Ok(certain) => return Poll::Ready(Some(Ok(Frame::data(certain)))),
                        Err(error) => return self.fails(Failed::SentBack(error)),
                    },
                    // Drops trailers. No method needs them, and the held bytes would need a frame of their own before them.
                    (Err(_), _) => {}
                },
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended || (self.search.is_none() && self.incoming.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match self.search {
            None => self.incoming.size_hint(),
            Some(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use foundation::secret::Secret;
    use http::HeaderValue;

    use super::*;

    fn search() -> Search {
        let detector = CredentialDetector::default();
        detector.learn(&[("token".to_owned(), Secret::new("t0ken-of-the-catalogue"))]).unwrap();
        Search { detector, held: BytesMut::new() }
    }

    #[test]
    fn no_part_of_a_token_passes_however_it_is_cut() {
        let body = b"a response with the t0ken-of-the-catalogue in it, and more after it";
        let at = body.windows(5).position(|window| window == b"t0ken").unwrap();
        for size in 1..body.len() {
            let mut search = search();
            let mut passed = Vec::new();
            let found = body.chunks(size).any(|chunk| match search.pass(chunk, false) {
                Ok(bytes) => {
                    passed.extend_from_slice(&bytes);
                    false
                }
                Err(SentBack) => true,
            });
            assert!(found && passed.len() <= at, "{size}: {}", String::from_utf8_lossy(&passed));
        }
    }

    #[test]
    fn everything_else_passes_whole() {
        let body = b"a response with t0ken-of-the-catalog and nothing more";
        for size in [1, 7, body.len()] {
            let mut search = search();
            let mut passed = Vec::new();
            for chunk in body.chunks(size) {
                passed.extend_from_slice(&search.pass(chunk, false).unwrap());
            }
            passed.extend_from_slice(&search.pass(&[], true).unwrap());
            assert_eq!(passed, body);
        }
    }

    #[test]
    fn a_token_in_a_header_is_found_in_every_form() {
        let detector = search().detector;
        for (value, has) in [
            ("Bearer t0ken-of-the-catalogue", true),
            ("dDBrZW4tb2YtdGhlLWNhdGFsb2d1ZQ==", true),
            ("x", false),
        ] {
            let response = Response::builder().header("x-echo", value).body(()).unwrap();
            let found = check_head(&response, &detector) == Err(Unsearchable::SentBack(SentBack));
            assert_eq!(found, has, "{value}");
        }
    }

    #[test]
    fn a_response_in_which_the_token_would_not_be_found_is_refused() {
        let detector = search().detector;
        let content = |text: &str| Err(Unsearchable::Coded(Coded::Content(text.to_owned())));
        let transfer = |text: &str| Err(Unsearchable::Coded(Coded::Transfer(text.to_owned())));
        let part = || Err(Unsearchable::Coded(Coded::Part));
        for (status, lines, expected) in [
            (200, vec![("content-encoding", "Identity"), ("transfer-encoding", "Chunked")], Ok(())),
            (200, vec![("content-encoding", "gzip")], content("gzip")),
            (200, vec![("content-encoding", "identity"), ("content-encoding", "gzip")], content("gzip")),
            (200, vec![("content-encoding", "identity, br")], content("identity, br")),
            (200, vec![("content-encoding", "\u{e9}")], content("\u{e9}")),
            (200, vec![("transfer-encoding", "gzip, chunked")], transfer("gzip, chunked")),
            (200, vec![("transfer-encoding", "gzip"), ("transfer-encoding", "chunked")], transfer("gzip")),
            (206, vec![], part()),
            (200, vec![("content-range", "bytes 0-4/100")], part()),
        ] {
            let mut response = Response::builder().status(status).body(()).unwrap();
            for (name, value) in &lines {
                response.headers_mut().append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            assert_eq!(check_head(&response, &detector), expected, "{lines:?}");
        }
    }
}
