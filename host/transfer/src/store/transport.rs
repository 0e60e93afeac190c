//! What speaks HTTP to stores: one client for all kinds of them.
//!
//! Every request runs on the runtime that the store was opened with, whoever asks: names are resolved and connections kept
//! there, and never on the thread of a guest. Redirects are not followed but where a store says so.

use std::cell::RefCell;
use std::sync::{Arc, Once};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
    HttpService,
};
use object_store::{ClientOptions, Extensions};
use reqwest::redirect::Policy;
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;

use super::answer::{self, Answer};
use super::failures::{REFUSED, Refused, causes, refused_tls};
use super::proxy::Proxies;
use crate::error::{Error, Kind};

/// How long a connection may take to be made where nothing is said.
const CONNECT: Duration = Duration::from_secs(10);

/// How long a connection is kept for the next request.
const KEPT: Duration = Duration::from_secs(60);

/// The most bytes that are read of an answer that is an error.
const ERROR_BYTES: usize = 64 << 10;

/// The most bytes of an answer that is no object: 1000 keys of 1024 bytes, each written as `&#xNN;`, and what stands around.
const ANSWER_BYTES: usize = 16 << 20;

/// A client. With `authorities`, which are certificates in PEM, the certificate of a server must come from one of them and from no
/// others; the operator knows them as the file of `ca_file`.
///
/// # Errors
/// `Invalid` if the authorities cannot be read.
pub(super) fn client(authorities: Option<&str>, redirects: Policy) -> Result<reqwest::Client, Error> {
    static RING: Once = Once::new();
    // The program may have chosen one before: then that is it.
    RING.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
    let invalid = |what: &str, error: reqwest::Error| {
        Error::new(Kind::Invalid, format!("{what} cannot be used: {}", causes(&error.without_url())))
    };
    let mut builder = reqwest::Client::builder()
        .redirect(redirects)
        .referer(false)
        .http1_only()
        .connect_timeout(CONNECT)
        .pool_idle_timeout(KEPT)
        .user_agent(concat!("understudy/", env!("CARGO_PKG_VERSION")));
    if let Some(authorities) = authorities {
        let authorities = reqwest::Certificate::from_pem_bundle(authorities.as_bytes())
            .map_err(|error| invalid("what the file of `ca_file` holds", error))?;
        if authorities.is_empty() {
            return Err(Error::new(Kind::Invalid, "the file of `ca_file` holds no certificate in PEM"));
        }
        builder = builder.tls_certs_only(authorities);
    }
    builder.build().map_err(|error| invalid("the client for HTTP", error))
}

/// Runs `work` on the runtime of the store; it ends where nobody waits for it any more.
pub(super) async fn on<T: Send + 'static>(
    runtime: &Handle,
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, Stopped> {
    AbortOnDropHandle::new(runtime.spawn(work)).await.map_err(|_| Stopped)
}

/// The runtime of the store has ended.
#[derive(Debug, thiserror::Error)]
#[error("the runtime that reads the store has ended")]
pub(super) struct Stopped;

/// What is asked of a store. A request without it is not of the store: a library asks somebody for credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// The bytes of an object, of any length.
    Bytes,
    /// What is known of an object.
    Metadata,
    /// A part of a listing.
    Listing,
}

impl Asked {
    /// As a request carries it.
    pub(super) fn extensions(self) -> Extensions {
        let mut extensions = Extensions::new();
        extensions.insert(self);
        extensions
    }
}

/// What stands behind the `/` at the end of a key in a listing that has passed here: no character, so that no key has it.
pub(super) const FOLDER: char = '\u{ffff}';

/// Marks the keys of a listing that end with `/`. Their library takes the `/` off, so that what marks an empty folder would
/// pass for an object of the folder's name.
fn with_folders_marked(listing: Bytes) -> Bytes {
    // What is not text is the library's to refuse.
    let Ok(text) = std::str::from_utf8(&listing) else { return listing };
    // S3's and Google's; Azure's.
    let marked = ["</Key>", "</Name>"]
        .iter()
        .fold(text.to_owned(), |text, end| text.replace(&format!("/{end}"), &format!("/{FOLDER}{end}")));
    marked.into()
}

/// Gives the libraries of the clouds this client.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    client: HttpClient,
    own: Option<Own>,
    proxies: Arc<Proxies>,
    runtime: Handle,
}

/// The host of a store for which other authorities vouch than for the hosts that its library asks for tokens.
#[derive(Clone, Debug)]
struct Own {
    /// Its name; a bucket may stand before it (`bucket.s3.eu-west-1.amazonaws.com`).
    host: String,
    client: HttpClient,
}

impl Connector {
    /// Speaks to the store at `host`, for which these authorities vouch, and to whoever gives tokens for it.
    ///
    /// # Errors
    /// As [`client`].
    pub(super) fn new(authorities: Option<&str>, host: String, runtime: Handle) -> Result<Self, Error> {
        // A redirect could carry a signature or a token elsewhere.
        let new = |authorities| client(authorities, Policy::none()).map(HttpClient::new);
        let own = match authorities {
            Some(_) => Some(Own { host, client: new(authorities)? }),
            None => None,
        };
        let proxies = Arc::new(Proxies::of_the_environment());
        Ok(Self { client: new(None)?, own, proxies, runtime })
    }

    /// The client for a host, and who vouches for that.
    fn client_for(&self, host: &str) -> (&HttpClient, Voucher) {
        match &self.own {
            Some(own) if own.is(host) => (&own.client, Voucher::CaFile),
            _ => (&self.client, Voucher::Machine),
        }
    }
}

impl Own {
    fn is(&self, host: &str) -> bool {
        let start = host.len().checked_sub(self.host.len());
        start.and_then(|start| host.split_at_checked(start)).is_some_and(|(before, rest)| {
            rest.eq_ignore_ascii_case(&self.host) && (before.is_empty() || before.ends_with('.'))
        })
    }
}

/// Who says which servers are to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Voucher {
    /// The authorities that this machine trusts.
    Machine,
    /// Those that the operator's `ca_file` names.
    CaFile,
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        // The options are this module's own to read.
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Connector {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let asked = request.extensions().get::<Asked>().copied();
        // Whoever goes on asking has got over the answer before.
        let _ = REFUSED.try_with(RefCell::take);
        let host = request.uri().host().unwrap_or_default().to_owned();
        let (client, voucher) = self.client_for(&host);
        let client = client.clone();
        let url = request.uri().to_string();
        let response = on(&self.runtime, async move { client.execute(request).await })
            .await
            .map_err(|stopped| HttpError::new(HttpErrorKind::Unknown, stopped))?
            .map_err(|error| match refused_tls(&error, &host, voucher) {
                // Only here it is known whose it was.
                Some(refused) => HttpError::new(HttpErrorKind::Unknown, refused),
                None => match self.proxies.between(&url) {
                    Some(proxy) => HttpError::new(error.kind(), ByProxy { proxy, source: error }),
                    None => error,
                },
            })?;
        let succeeded = response.status().is_success();
        if succeeded && asked == Some(Asked::Bytes) {
            return Ok(response);
        }
        let (mut parts, body) = response.into_parts();
        let mut bytes = bounded(body, if succeeded { ANSWER_BYTES } else { ERROR_BYTES }, succeeded).await?;
        let mut is_refused = !succeeded;
        if succeeded && asked == Some(Asked::Listing) {
            match answer::read(&bytes).map_err(|error| HttpError::new(HttpErrorKind::Decode, error))? {
                Answer::Listing(listed) => {
                    parts.extensions.insert(listed);
                    bytes = with_folders_marked(bytes);
                }
                Answer::Refusal => is_refused = true,
            }
        }
        if is_refused {
            let refused = Refused::of(asked, host, (parts.status, &parts.headers), &bytes);
            // Nobody listens to a request that this crate did not make.
            let _ = REFUSED.try_with(|last| last.replace(Some(refused)));
        }
        if is_refused && succeeded {
            return Err(HttpError::new(HttpErrorKind::Unknown, RefusedLate));
        }
        Ok(HttpResponse::from_parts(parts, bytes.into()))
    }
}

/// That no answer came by a proxy.
#[derive(Debug, thiserror::Error)]
#[error("asked by the proxy {proxy}, which the environment names (NO_PROXY excepts hosts from it)")]
pub(super) struct ByProxy {
    pub(super) proxy: String,
    pub(super) source: HttpError,
}

/// An error behind a status that says that it succeeded.
#[derive(Debug, thiserror::Error)]
#[error("the store answers with an error")]
struct RefusedLate;

/// The beginning of a body; a longer one is an error only where it `must_end`.
async fn bounded(body: HttpResponseBody, most: usize, must_end: bool) -> Result<Bytes, HttpError> {
    let mut bytes = BytesMut::new();
    let mut stream = body.bytes_stream();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        let room = most - bytes.len();
        if chunk.len() > room {
            if must_end {
                let message = format!("an answer that is no object has more than {most} bytes");
                return Err(HttpError::new(HttpErrorKind::Decode, Error::new(Kind::Limit, message)));
            }
            bytes.extend_from_slice(&chunk[..room]);
            break;
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.freeze())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::{Ipv4Addr, TcpListener};

    use object_store::client::HttpRequestBody;

    use super::*;
    use crate::store::failures::ask;

    #[tokio::test]
    async fn a_refusal_that_was_overcome_is_not_told_as_the_reason_of_what_fails_later() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for status in ["403 Forbidden", "200 OK"] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
                write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                    .unwrap();
            }
        });
        let connector = Connector::new(None, "127.0.0.1".to_owned(), Handle::current()).unwrap();
        // As Google's library asks two addresses for credentials, and then the store.
        let asked = ask(async {
            for status in [403, 200] {
                let mut request = HttpRequest::new(HttpRequestBody::empty());
                *request.uri_mut() = format!("http://{address}/").parse().unwrap();
                assert_eq!(connector.call(request).await.unwrap().status(), status);
            }
            let source = "no listing".into();
            Err::<(), _>(object_store::Error::Generic { store: "test", source })
        });
        let failure = asked.await.unwrap_err();
        assert_eq!(failure.error.kind, Kind::Failed, "{failure:?}");
        assert!(failure.error.message.contains("no listing"), "{failure:?}");
    }

    #[test]
    fn a_private_authority_vouches_for_the_stores_own_host_alone() {
        client(None, Policy::none()).unwrap();
        let own = Own {
            host: "s3.eu-west-1.amazonaws.com".to_owned(),
            client: HttpClient::new(reqwest::Client::new()),
        };
        for host in
            ["s3.eu-west-1.amazonaws.com", "S3.EU-WEST-1.amazonaws.com", "b.s3.eu-west-1.amazonaws.com"]
        {
            assert!(own.is(host), "{host}");
        }
        for host in
            ["sts.eu-west-1.amazonaws.com", "amazonaws.com", "evils3.eu-west-1.amazonaws.com", "é", ""]
        {
            assert!(!own.is(host), "{host}");
        }
    }
}
