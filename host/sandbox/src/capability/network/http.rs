//! `wasi:http`: requests that the host sends for a component. The component names a server, and the host checks it, resolves its name,
//! connects, speaks TLS and adds the token of the grant. Redirects are not followed: the component sees them, and what it asks then is
//! another request with another check. There is no proxy.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, HOST};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use http_body_util::BodyExt;
use tokio::io::{AsyncRead, AsyncWrite};
use transfer::store::CredentialDetector;
use wasmtime::component::ResourceTable;
use wasmtime_wasi_http::io::TokioIo;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks};

use super::allowance::SpentAll;
use super::connections::{CONNECT_TIMEOUT, Connections, NoConnection};
use super::metered::IDLE;
use super::response::{self, SentBack};
use super::server::Server;
use crate::text::printable;

/// How many bytes the head of a response may have, and the buffer in which the host reads a response.
const HEAD: usize = 64 << 10;
/// How many header lines a response may have.
const HEADERS: usize = 128;
/// How many bytes the headers may have that a component makes for one request, with the host's own records of them.
const FIELDS: usize = 32 << 10;
/// How many bytes of a request's body a component may write at once.
const CHUNK: usize = 64 << 10;
/// How many characters of an authority a message shows.
const SHOWN: usize = 255;

/// What `wasi:http` needs in the state of a run.
pub(crate) struct Http {
    context: WasiHttpCtx,
    hooks: Hooks,
}

impl Http {
    /// Makes the state. Without connections every request is denied.
    pub(crate) fn new(connections: Option<Connections>) -> Self {
        let mut context = WasiHttpCtx::new();
        context.set_field_size_limit(FIELDS);
        Self { context, hooks: Hooks(connections) }
    }

    /// Returns the view for one call.
    pub(crate) fn view<'a>(&'a mut self, table: &'a mut ResourceTable) -> WasiHttpCtxView<'a> {
        WasiHttpCtxView { hooks: &mut self.hooks, table, ctx: &mut self.context }
    }
}

type Io = Box<dyn Future<Output = Result<(), Error>> + Send>;

/// How wasmtime sends requests.
struct Hooks(Option<Connections>);

impl WasiHttpHooks for Hooks {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _processed: Io,
    ) -> Box<dyn Future<Output = Result<(Response<WasiBody>, Io), Error>> + Send> {
        let connections = self.0.clone();
        Box::new(async move {
            let connections = connections.ok_or(Error::HttpRequestDenied)?;
            send(&connections, request, options.unwrap_or_default()).await
        })
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK
    }
}

/// What of a request the host has checked.
struct Checked {
    server: Server,
    is_secure: bool,
    headers: HeaderMap,
    path: PathAndQuery,
    detector: Option<CredentialDetector>,
}

/// Sends a request, and returns the response with what drives its connection.
async fn send(
    connections: &Connections,
    request: Request<WasiBody>,
    options: RequestOptions,
) -> Result<(Response<WasiBody>, Io), Error> {
    let (parts, body) = request.into_parts();
    let checked = check(connections, &parts)?;
    let server = &checked.server;
    let addresses =
        connections.addresses(server).await.map_err(|why| not_connected(connections, server, why))?;
    let timeout = options.connect_timeout.unwrap_or(CONNECT_TIMEOUT);
    let stream = connections
        .connect(server, &addresses, timeout)
        .await
        .map_err(|why| not_connected(connections, server, why))?;
    let stream: Box<dyn Stream> = if checked.is_secure {
        let connector = connections.tls().connector(server).ok_or(Error::TlsProtocolError)?;
        let name = server.certified_name().ok_or(Error::TlsCertificateError)?;
        let agreed = tokio::time::timeout(CONNECT_TIMEOUT, connector.connect(name, stream)).await;
        let stream = agreed.map_err(|_| Error::ConnectionTimeout)?;
        Box::new(stream.map_err(|error| not_secure(connections, server, &error))?)
    } else {
        Box::new(stream)
    };

    let mut request = Request::new(body);
    *request.method_mut() = parts.method;
    *request.headers_mut() = checked.headers;
    // With a scheme and an authority in it, a request line could name another server than the connection has.
    *request.uri_mut() = Uri::from(checked.path);
    let failed = |error: hyper::Error| no_response(connections, server, &error);
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(HEAD)
        .max_headers(HEADERS)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    let connection = wasmtime_wasi::runtime::spawn(connection);
    let patience = options.first_byte_timeout.unwrap_or(IDLE).min(IDLE);
    let response = tokio::time::timeout(patience, sender.send_request(request)).await;
    let response = response.map_err(|_| Error::ConnectionReadTimeout)?.map_err(failed)?;
    if let Some(detector) = &checked.detector {
        response::check_head(&response, detector).map_err(|error| sent_back(connections, server, error))?;
        let encoding = response.headers().get(CONTENT_ENCODING);
        if encoding.is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            let encoding =
                encoding.and_then(|encoding| encoding.to_str().ok()).map(|text| printable(text, 100));
            return Err(Error::HttpResponseContentCoding(encoding));
        }
    }
    let patience: Duration = options.between_bytes_timeout.unwrap_or(IDLE).min(IDLE);
    let (own, at) = (connections.clone(), server.clone());
    let report = move |error: response::Failed| match error {
        response::Failed::Hyper(error) => no_response(&own, &at, &error),
        response::Failed::SentBack(error) => sent_back(&own, &at, error),
        response::Failed::Silent => Error::ConnectionReadTimeout,
    };
    let detector = checked.detector;
    let response =
        response.map(|body| response::Body::new(body, patience, detector, Arc::new(report)).boxed_unsync());
    let ends: Io = Box::new(async move {
        // The body has the error.
        let _ = connection.await;
        Ok(())
    });
    Ok((response, ends))
}

/// Checks a request against the grants, and makes the headers with which it is sent.
fn check(connections: &Connections, parts: &http::request::Parts) -> Result<Checked, Error> {
    let scheme = parts.uri.scheme().cloned().unwrap_or(Scheme::HTTPS);
    let is_secure = scheme == Scheme::HTTPS;
    if !is_secure && scheme != Scheme::HTTP {
        return Err(Error::HttpProtocolError);
    }
    // A tunnel would lead to servers that nobody checks.
    if parts.method == Method::CONNECT {
        return Err(Error::HttpRequestMethodInvalid);
    }
    let authority = parts.uri.authority().ok_or(Error::HttpRequestUriInvalid)?;
    let default = if is_secure { 443 } else { 80 };
    let Some(server) = server_of(authority, default) else {
        connections.deny(format!("a request to {}", printable(authority.as_str(), SHOWN)), None);
        return Err(Error::HttpRequestDenied);
    };
    let Some(grant) = connections.grant(&server) else {
        connections.deny_server(&server, format!("{server} ({scheme})"));
        return Err(Error::HttpRequestDenied);
    };
    let path = match parts.uri.path_and_query().map(PathAndQuery::as_str) {
        None | Some("") => Ok(PathAndQuery::from_static("/")),
        Some(path) if path.starts_with('/') => path.parse(),
        Some(query) if query.starts_with('?') => format!("/{query}").parse(),
        Some(_) => return Err(Error::HttpRequestUriInvalid),
    };
    let path = path.map_err(|_| Error::HttpRequestUriInvalid)?;
    let mut headers = parts.headers.clone();
    let host = HeaderValue::from_str(authority.as_str()).map_err(|_| Error::HttpRequestUriInvalid)?;
    headers.insert(HOST, host);
    let mut detector = None;
    if let Some(token) = &grant.token {
        if !is_secure {
            connections.deny(
                format!("a request without TLS to {server}, whose `token` is sent only with TLS (https://)"),
                None,
            );
            return Err(Error::HttpRequestDenied);
        }
        if headers.contains_key(AUTHORIZATION) {
            connections.deny(
                format!("a request with an `Authorization` of its own to {server}, to which the host sends its `token`"),
                None,
            );
            return Err(Error::HttpRequestDenied);
        }
        let failed = |why: String| Error::InternalError(Some(why));
        let mut value = HeaderValue::from_bytes(&[b"Bearer ", token.expose()].concat())
            .map_err(|_| failed("the token of the server cannot be sent".to_owned()))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
        // In a compressed response nobody would see the token.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let known = CredentialDetector::default();
        known
            .learn(&[("token".to_owned(), token.clone())])
            .map_err(|error| failed(error.message.to_string()))?;
        detector = Some(known);
    }
    Ok(Checked { server, is_secure, headers, path, detector })
}

/// Returns the server that an authority names; `None` if it names none, or a user before it.
fn server_of(authority: &Authority, default: u16) -> Option<Server> {
    let text = authority.as_str();
    if text.contains('@') {
        return None;
    }
    match authority.port() {
        Some(_) => text.parse().ok(),
        None => Server::new(text, default).ok(),
    }
}

/// A connection with TLS or without.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

fn not_connected(connections: &Connections, server: &Server, why: NoConnection) -> Error {
    match why {
        NoConnection::Denied => Error::HttpRequestDenied,
        NoConnection::Unresolved(error) => {
            connections.complain(server, &error);
            let timeout = error == super::names::LookupError::Timeout;
            if timeout { Error::DnsTimeout } else { Error::DnsError { rcode: None, info_code: None } }
        }
        NoConnection::TooMany => Error::ConnectionLimitReached,
        NoConnection::Refused(error) => {
            connections.complain(server, &format_args!("cannot connect: {error}"));
            match error.kind() {
                io::ErrorKind::ConnectionRefused => Error::ConnectionRefused,
                io::ErrorKind::PermissionDenied => Error::DestinationIpProhibited,
                _ => Error::DestinationUnavailable,
            }
        }
        NoConnection::Timeout => {
            connections.complain(server, &"cannot connect: it does not answer");
            Error::ConnectionTimeout
        }
    }
}

fn not_secure(connections: &Connections, server: &Server, error: &io::Error) -> Error {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(why)) => {
            connections.complain(
                server,
                &format_args!(
                    "the server's certificate is refused: {why} (`ca_file` of the grant names the authorities that are trusted instead of the machine's)"
                ),
            );
            Error::TlsCertificateError
        }
        _ => own(error).unwrap_or_else(|| {
            connections.complain(server, &format_args!("TLS failed: {error}"));
            Error::TlsProtocolError
        }),
    }
}

/// Returns the error of a connection that was counted or silent for too long; `None` for any other.
fn own(error: &io::Error) -> Option<Error> {
    if error.kind() == io::ErrorKind::TimedOut {
        return Some(Error::ConnectionReadTimeout);
    }
    let spent = error.get_ref()?.downcast_ref::<SpentAll>()?;
    Some(Error::InternalError(Some(spent.to_string())))
}

fn no_response(connections: &Connections, server: &Server, error: &hyper::Error) -> Error {
    if error.is_parse_too_large() {
        connections.complain(
            server,
            &format_args!(
                "the head of its response is longer than {HEAD} bytes or has more than {HEADERS} lines"
            ),
        );
        return Error::HttpResponseHeaderSectionSize(u32::try_from(HEAD).ok());
    }
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if let Some(own) = inner.downcast_ref::<io::Error>().and_then(own) {
            return own;
        }
        if let Some(Error::HttpRequestBodySize(size)) = inner.downcast_ref() {
            return Error::HttpRequestBodySize(*size);
        }
        cause = inner.source();
    }
    connections.complain(server, error);
    if error.is_incomplete_message() { Error::HttpResponseIncomplete } else { Error::HttpProtocolError }
}

fn sent_back(connections: &Connections, server: &Server, error: SentBack) -> Error {
    connections.complain(server, &error);
    Error::InternalError(Some(error.to_string()))
}
