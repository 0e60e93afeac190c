//! The HTTP client for all kinds of stores.
//!
//! Every request runs on the runtime with which the store was opened: host names are resolved and connections kept there, never on
//! the thread of a guest. Redirects are followed only if the kind of store allows them.

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
use super::failures::{ErrorResponse, LAST_ERROR_RESPONSE, causes, refused_tls};
use super::proxy::Proxies;
use crate::error::{Error, Kind};

/// How long it may take to open a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long an idle connection is kept for the next request.
const POOL_IDLE: Duration = Duration::from_secs(60);

/// The most bytes that are read from an error response.
const ERROR_BYTES: usize = 64 << 10;

/// The most bytes of a response that is not an object: 1000 keys of 1024 bytes, each byte written as `&#xNN;`, and the XML around
/// them.
const ANSWER_BYTES: usize = 16 << 20;

/// Makes a client. With `authorities`, which are certificates in PEM, only certificates that these authorities issued are accepted from a
/// server. Messages name the setting `ca_file`, which the operator wrote.
///
/// # Errors
/// `Invalid` if the authorities cannot be read.
pub(super) fn client(authorities: Option<&str>, redirects: Policy) -> Result<reqwest::Client, Error> {
    static RING: Once = Once::new();
    // This fails if the program has already installed a provider, which is then used.
    RING.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
    let invalid = |what: &str, error: reqwest::Error| {
        Error::new(Kind::Invalid, format!("{what} cannot be used: {}", causes(&error.without_url())))
    };
    let mut builder = reqwest::Client::builder()
        .redirect(redirects)
        .referer(false)
        .http1_only()
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(POOL_IDLE)
        .user_agent(concat!("understudy/", env!("CARGO_PKG_VERSION")));
    if let Some(authorities) = authorities {
        let authorities = reqwest::Certificate::from_pem_bundle(authorities.as_bytes())
            .map_err(|error| invalid("the contents of the file of `ca_file`", error))?;
        if authorities.is_empty() {
            return Err(Error::new(Kind::Invalid, "the file of `ca_file` holds no certificate in PEM"));
        }
        builder = builder.tls_certs_only(authorities);
    }
    builder.build().map_err(|error| invalid("the client for HTTP", error))
}

/// Runs `work` on the runtime of the store. Dropping the returned future aborts it.
pub(super) async fn on<T: Send + 'static>(
    runtime: &Handle,
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, Stopped> {
    AbortOnDropHandle::new(runtime.spawn(work)).await.map_err(|_| Stopped)
}

/// The error when the runtime of the store has ended.
#[derive(Debug, thiserror::Error)]
#[error("the runtime that reads the store has ended")]
pub(super) struct Stopped;

/// The kind of a request to a store. A request without a kind is a library's own request to another server for credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestKind {
    /// The bytes of an object, of any length.
    Bytes,
    /// The metadata of an object.
    Metadata,
    /// A part of a listing.
    Listing,
}

impl RequestKind {
    /// Returns the extensions with which a request carries its kind.
    pub(super) fn extensions(self) -> Extensions {
        let mut extensions = Extensions::new();
        extensions.insert(self);
        extensions
    }
}

/// The mark after the `/` at the end of a key in a listing. It is a noncharacter, so no key contains it.
pub(super) const FOLDER_MARK: char = '\u{ffff}';

/// Marks the keys of a listing that end with `/`. The library removes the `/`, so without the mark the placeholder of an empty
/// folder would look like an object with the folder's name.
fn with_folders_marked(listing: Bytes) -> Bytes {
    // The library refuses a listing that is not UTF-8.
    let Ok(text) = std::str::from_utf8(&listing) else { return listing };
    // The elements of S3 and Google, and of Azure.
    let marked = ["</Key>", "</Name>"]
        .iter()
        .fold(text.to_owned(), |text, end| text.replace(&format!("/{end}"), &format!("/{FOLDER_MARK}{end}")));
    marked.into()
}

/// Connects the libraries of the clouds to this client.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    client: HttpClient,
    store_host: Option<StoreHost>,
    proxies: Arc<Proxies>,
    runtime: Handle,
}

/// The store's own host, for which `ca_file` names the trusted authorities. They are not trusted for the hosts from which the
/// library gets tokens.
#[derive(Clone, Debug)]
struct StoreHost {
    /// The name of the host. The name with a bucket before it (`bucket.s3.eu-west-1.amazonaws.com`) matches too.
    name: String,
    client: HttpClient,
}

impl Connector {
    /// Makes a connector for the store at `host` and for the servers from which the store's library gets tokens. If `authorities` are
    /// given, only they are trusted for `host`; for the other servers the system's authorities are trusted.
    ///
    /// # Errors
    /// The errors of [`client`].
    pub(super) fn new(authorities: Option<&str>, host: String, runtime: Handle) -> Result<Self, Error> {
        // A redirect could send a signature or a token to another server.
        let new = |authorities| client(authorities, Policy::none()).map(HttpClient::new);
        let store_host = match authorities {
            Some(_) => Some(StoreHost { name: host, client: new(authorities)? }),
            None => None,
        };
        let proxies = Arc::new(Proxies::from_environment());
        Ok(Self { client: new(None)?, store_host, proxies, runtime })
    }

    /// Returns the client for a host, and the authorities that it trusts.
    fn client_for(&self, host: &str) -> (&HttpClient, TrustRoots) {
        match &self.store_host {
            Some(store_host) if store_host.is(host) => (&store_host.client, TrustRoots::CaFile),
            _ => (&self.client, TrustRoots::System),
        }
    }
}

impl StoreHost {
    fn is(&self, host: &str) -> bool {
        let start = host.len().checked_sub(self.name.len());
        start.and_then(|start| host.split_at_checked(start)).is_some_and(|(before, rest)| {
            rest.eq_ignore_ascii_case(&self.name) && (before.is_empty() || before.ends_with('.'))
        })
    }
}

/// The authorities that are trusted for a server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TrustRoots {
    /// The authorities that this machine trusts.
    System,
    /// The authorities that the operator's `ca_file` names.
    CaFile,
}

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        // This module reads the options itself.
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Connector {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let kind = request.extensions().get::<RequestKind>().copied();
        // A library that makes another request has recovered from the previous error response.
        let _ = LAST_ERROR_RESPONSE.try_with(RefCell::take);
        let host = request.uri().host().unwrap_or_default().to_owned();
        let (client, trust_roots) = self.client_for(&host);
        let client = client.clone();
        let url = request.uri().to_string();
        let response = on(&self.runtime, async move { client.execute(request).await })
            .await
            .map_err(|stopped| HttpError::new(HttpErrorKind::Unknown, stopped))?
            .map_err(|error| match refused_tls(&error, &host, trust_roots) {
                // The host is known only here.
                Some(refused) => HttpError::new(HttpErrorKind::Unknown, refused),
                None => match self.proxies.proxy_for(&url) {
                    Some(proxy) => HttpError::new(error.kind(), ThroughProxy { proxy, source: error }),
                    None => error,
                },
            })?;
        let succeeded = response.status().is_success();
        if succeeded && kind == Some(RequestKind::Bytes) {
            return Ok(response);
        }
        let (mut parts, body) = response.into_parts();
        let mut bytes = bounded(body, if succeeded { ANSWER_BYTES } else { ERROR_BYTES }, succeeded).await?;
        let mut is_refused = !succeeded;
        if succeeded && kind == Some(RequestKind::Listing) {
            match answer::read(&bytes).map_err(|error| HttpError::new(HttpErrorKind::Decode, error))? {
                Answer::Listing(listed) => {
                    parts.extensions.insert(listed);
                    bytes = with_folders_marked(bytes);
                }
                Answer::Refusal => is_refused = true,
            }
        }
        if is_refused {
            let refused = ErrorResponse::of(kind, host, (parts.status, &parts.headers), &bytes);
            // Fails for a request that this crate did not make, whose error response is not needed.
            let _ = LAST_ERROR_RESPONSE.try_with(|last| last.replace(Some(refused)));
        }
        if is_refused && succeeded {
            return Err(HttpError::new(HttpErrorKind::Unknown, ErrorAfterSuccess));
        }
        Ok(HttpResponse::from_parts(parts, bytes.into()))
    }
}

/// The error when a request through a proxy got no response.
#[derive(Debug, thiserror::Error)]
#[error("requested through the proxy {proxy}, which the environment names (NO_PROXY excludes hosts)")]
pub(super) struct ThroughProxy {
    pub(super) proxy: String,
    pub(super) source: HttpError,
}

/// An error in the body of a response with a status of success.
#[derive(Debug, thiserror::Error)]
#[error("the store responds with an error")]
struct ErrorAfterSuccess;

/// Reads at most `most` bytes of a body. Cuts a longer body, or fails if `must_end` is set.
async fn bounded(body: HttpResponseBody, most: usize, must_end: bool) -> Result<Bytes, HttpError> {
    let mut bytes = BytesMut::new();
    let mut stream = body.bytes_stream();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk?;
        let room = most - bytes.len();
        if chunk.len() > room {
            if must_end {
                let message = format!("a response that is not an object has more than {most} bytes");
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
    use crate::store::failures::request as with_interpreted_errors;

    #[tokio::test]
    async fn an_error_response_that_was_overcome_is_not_the_cause_of_a_later_failure() {
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
        // Makes the same requests as Google's library: two for credentials, and then one to the store.
        let response = with_interpreted_errors(async {
            for status in [403, 200] {
                let mut request = HttpRequest::new(HttpRequestBody::empty());
                *request.uri_mut() = format!("http://{address}/").parse().unwrap();
                assert_eq!(connector.call(request).await.unwrap().status(), status);
            }
            let source = "no listing".into();
            Err::<(), _>(object_store::Error::Generic { store: "test", source })
        });
        let failure = response.await.unwrap_err();
        assert_eq!(failure.error.kind, Kind::Failed, "{failure:?}");
        assert!(failure.error.message.contains("no listing"), "{failure:?}");
    }

    #[test]
    fn a_private_authority_is_trusted_for_the_stores_own_host_only() {
        client(None, Policy::none()).unwrap();
        let store_host = StoreHost {
            name: "s3.eu-west-1.amazonaws.com".to_owned(),
            client: HttpClient::new(reqwest::Client::new()),
        };
        for host in
            ["s3.eu-west-1.amazonaws.com", "S3.EU-WEST-1.amazonaws.com", "b.s3.eu-west-1.amazonaws.com"]
        {
            assert!(store_host.is(host), "{host}");
        }
        for host in
            ["sts.eu-west-1.amazonaws.com", "amazonaws.com", "evils3.eu-west-1.amazonaws.com", "é", ""]
        {
            assert!(!store_host.is(host), "{host}");
        }
    }
}
