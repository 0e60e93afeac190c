//! `wasi:http`: requests that the host sends for a component. The host checks that the server is granted, resolves its name, connects,
//! encrypts the connection with TLS and adds the granted token. It does not follow redirects: the component gets them, and its next request
//! is checked again. Proxies are not used.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, HOST, IF_RANGE, RANGE, TE, TRANSFER_ENCODING,
};
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
use super::held::{Held, Share};
use super::metered::IDLE;
use super::request::{BoundedHead, SentBody, TooMuchBefore};
use super::response::{self, Coded, SentBack, Unsearchable};
use super::server::Server;
use crate::calls::{DENIED, Ongoing};
use crate::text::printable;

/// How many bytes the status line and headers of a response may have. The host's read buffer has the same size.
pub(super) const HEAD: usize = 64 << 10;
/// How many header lines a request or a response may have.
pub(super) const HEADERS: usize = 128;
/// How many bytes the headers of one request may have, including the host's records of them.
pub(super) const FIELDS: usize = 32 << 10;
/// How many bytes of a request's body a component may write at once.
pub(super) const CHUNK: usize = 64 << 10;
/// How many characters of an authority appear in a message.
const SHOWN: usize = 255;

/// The state of `wasi:http` in one call.
pub(crate) struct Http {
    context: WasiHttpCtx,
    hooks: Hooks,
    /// The memory that the host needs for what the component has open.
    pub(super) held: Held,
}

impl Http {
    /// Makes the state. If `connections` is `None`, every request is denied.
    pub(crate) fn new(connections: Option<Connections>) -> Self {
        let mut context = WasiHttpCtx::new();
        context.set_field_size_limit(FIELDS);
        Self { context, hooks: Hooks { connections, share: None }, held: Held::default() }
    }

    /// Sets the share of memory of the request that is sent next. The request has it until its response has come.
    pub(super) fn set_share(&mut self, share: Option<Share>) {
        self.hooks.share = share;
    }

    /// Returns WASI's view for one call.
    pub(super) fn view<'a>(&'a mut self, table: &'a mut ResourceTable) -> WasiHttpCtxView<'a> {
        WasiHttpCtxView { hooks: &mut self.hooks, table, ctx: &mut self.context }
    }
}

type Io = Box<dyn Future<Output = Result<(), Error>> + Send>;

/// Sends requests for wasmtime.
struct Hooks {
    connections: Option<Connections>,
    share: Option<Share>,
}

impl WasiHttpHooks for Hooks {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _processed: Io,
    ) -> Box<dyn Future<Output = Result<(Response<WasiBody>, Io), Error>> + Send> {
        let connections = self.connections.clone();
        let share = self.share.take();
        let object = || shown_request(&request);
        let call =
            connections.as_ref().map(|connections| connections.call("outgoing-handler.handle", object));
        let call = call.unwrap_or_default();
        Box::new(async move {
            // Also ends if the request is dropped, because that drops this task.
            let _share = share;
            let connections = connections.ok_or(Error::HttpRequestDenied)?;
            let sent = send(&connections, request, options.unwrap_or_default(), &call).await;
            match &sent {
                Ok(_) => call.succeeds(),
                Err(error) => call.fails(word(error)),
            }
            sent
        })
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK
    }
}

/// The checked parts of a request.
struct Checked {
    server: Server,
    is_secure: bool,
    headers: HeaderMap,
    path: PathAndQuery,
    detector: Option<CredentialDetector>,
}

/// Sends a request. Returns the response, and the task that drives its connection. The record of `call` is reported after both have ended.
async fn send(
    connections: &Connections,
    request: Request<WasiBody>,
    options: RequestOptions,
    call: &Ongoing,
) -> Result<(Response<WasiBody>, Io), Error> {
    let (parts, body) = request.into_parts();
    let checked = check(connections, &parts)?;
    let server = &checked.server;
    let addresses =
        connections.addresses(server).await.map_err(|why| not_connected(connections, server, why))?;
    let timeout = options.connect_timeout.unwrap_or(CONNECT_TIMEOUT);
    let stream = connections
        .connect(server, &addresses, timeout, call.clone())
        .await
        .map_err(|why| not_connected(connections, server, why))?;
    let stream: Box<dyn Stream> = if checked.is_secure {
        let connector = connections.tls().connector(server).ok_or(Error::TlsProtocolError)?;
        let name = server.certified_name().ok_or_else(|| {
            connections.complain(server, &"no certificate can have the name of this server");
            Error::TlsCertificateError
        })?;
        let agreed = tokio::time::timeout(CONNECT_TIMEOUT, connector.connect(name, stream)).await;
        let stream = agreed.map_err(|_| {
            let seconds = CONNECT_TIMEOUT.as_secs();
            connections.complain(
                server,
                &format_args!("it did not complete the TLS handshake in {seconds} seconds"),
            );
            Error::ConnectionTimeout
        })?;
        Box::new(stream.map_err(|error| not_secure(connections, server, &error))?)
    } else {
        Box::new(stream)
    };

    let (body, sent) = SentBody::new(body);
    let mut request = Request::new(body);
    *request.method_mut() = parts.method;
    *request.headers_mut() = checked.headers;
    // The request line gets only the path, because an authority in it could name another server.
    *request.uri_mut() = Uri::from(checked.path);
    let failed = |error: hyper::Error| no_response(connections, server, &error);
    let (stream, has_response) = BoundedHead::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(HEAD)
        .max_headers(HEADERS)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    let connection = wasmtime_wasi::runtime::spawn(connection);
    let patience = options.first_byte_timeout.unwrap_or(IDLE).min(IDLE);
    let response = tokio::select! {
        biased;
        response = sender.send_request(request) => response.map_err(failed)?,
        () = sent.and_then(patience) => return Err(silent(connections, server, patience)),
    };
    has_response.store(true, Ordering::Relaxed);
    // The two headers may disagree about where the body ends (RFC 9112, 6.3).
    if response.headers().contains_key(TRANSFER_ENCODING) && response.headers().contains_key(CONTENT_LENGTH) {
        connections.complain(
            server,
            &"its response has a Content-Length and a Transfer-Encoding, which no response may have together",
        );
        return Err(Error::HttpProtocolError);
    }
    if let Some(detector) = &checked.detector {
        response::check_head(&response, detector).map_err(|why| unsearchable(connections, server, why))?;
    }
    let patience: Duration = options.between_bytes_timeout.unwrap_or(IDLE).min(IDLE);
    let (own, at, call) = (connections.clone(), server.clone(), call.clone());
    let report = move |error: response::Failed| {
        let error = match error {
            response::Failed::Hyper(error) => no_response(&own, &at, &error),
            response::Failed::SentBack(error) => sent_back(&own, &at, error),
            response::Failed::Silent => silent(&own, &at, patience),
        };
        call.fails(word(&error));
        error
    };
    let detector = checked.detector;
    let response =
        response.map(|body| response::Body::new(body, patience, detector, Arc::new(report)).boxed_unsync());
    let ends: Io = Box::new(async move {
        // The response body returns this error.
        let _ = connection.await;
        Ok(())
    });
    Ok((response, ends))
}

/// Checks a request against the grants, and makes the headers that are sent.
fn check(connections: &Connections, parts: &http::request::Parts) -> Result<Checked, Error> {
    let scheme = parts.uri.scheme().cloned().unwrap_or(Scheme::HTTPS);
    let is_secure = scheme == Scheme::HTTPS;
    if !is_secure && scheme != Scheme::HTTP {
        return Err(Error::HttpProtocolError);
    }
    // A tunnel would connect to servers that nobody checks.
    if parts.method == Method::CONNECT {
        return Err(Error::HttpRequestMethodInvalid);
    }
    let authority = parts.uri.authority().ok_or(Error::HttpRequestUriInvalid)?;
    let default = if is_secure { 443 } else { 80 };
    let Some(server) = server_of(authority, default) else {
        connections.deny(format!("a request to {}", shown(authority)), None);
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
        // The host could not find the token in a compressed or partial response.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        for name in [RANGE, IF_RANGE, TE] {
            headers.remove(name);
        }
        let known = CredentialDetector::default();
        known
            .learn(&[("token".to_owned(), token.clone())])
            .map_err(|error| failed(error.message.to_string()))?;
        detector = Some(known);
    }
    Ok(Checked { server, is_secure, headers, path, detector })
}

/// Returns the server that an authority names; `None` if it does not name a server, or also names a user.
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

/// Returns the word for an error in the record of a request: WASI's name for the error.
fn word(error: &Error) -> &'static str {
    match error {
        Error::HttpRequestDenied => DENIED,
        Error::HttpRequestMethodInvalid => "http-request-method-invalid",
        Error::HttpRequestUriInvalid => "http-request-uri-invalid",
        Error::HttpRequestBodySize(_) => "http-request-body-size",
        Error::HttpResponseIncomplete => "http-response-incomplete",
        Error::HttpResponseHeaderSectionSize(_) => "http-response-header-section-size",
        Error::HttpResponseContentCoding(_) => "http-response-content-coding",
        Error::HttpResponseTransferCoding(_) => "http-response-transfer-coding",
        Error::HttpProtocolError => "http-protocol-error",
        Error::DnsTimeout => "dns-timeout",
        Error::DnsError { .. } => "dns-error",
        Error::DestinationUnavailable => "destination-unavailable",
        Error::DestinationIpProhibited => "destination-ip-prohibited",
        Error::ConnectionRefused => "connection-refused",
        Error::ConnectionTimeout => "connection-timeout",
        Error::ConnectionReadTimeout => "connection-read-timeout",
        Error::ConnectionLimitReached => "connection-limit-reached",
        Error::TlsProtocolError => "tls-protocol-error",
        Error::TlsCertificateError => "tls-certificate-error",
        _ => "internal-error",
    }
}

/// Returns a request for its record: the method and the URL, without a user and a password.
fn shown_request<B>(request: &Request<B>) -> String {
    let uri = request.uri();
    let authority = uri.authority().map_or("", Authority::as_str);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let path = uri.path_and_query().map_or("", PathAndQuery::as_str);
    format!("{} {}://{host}{path}", request.method(), uri.scheme_str().unwrap_or("https"))
}

/// Returns an authority for a message, without a user and a password before the host.
fn shown(authority: &Authority) -> String {
    match authority.as_str().rsplit_once('@') {
        Some((_, host)) => format!("{} with a user, which is not allowed", printable(host, SHOWN)),
        None => printable(authority.as_str(), SHOWN),
    }
}

/// A connection, with or without TLS.
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
        _ => own(connections, server, error).unwrap_or_else(|| {
            connections.complain(server, &format_args!("TLS failed: {}", causes(error)));
            Error::TlsProtocolError
        }),
    }
}

/// Returns an error with its chain of causes.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        // Some errors repeat their cause.
        if !text.ends_with(&inner_text) {
            text.push_str(&format!(": {inner_text}"));
        }
        cause = inner.source();
    }
    text
}

/// Reports that a response, or its next bytes, did not come in time.
fn silent(connections: &Connections, server: &Server, patience: Duration) -> Error {
    connections.complain(server, &format_args!("no byte of its response came for {patience:?}"));
    Error::ConnectionReadTimeout
}

/// Returns the error for a connection that exceeded a limit of bytes or was silent for too long; `None` for any other error. The allowance
/// reports the exceeded limit itself.
fn own(connections: &Connections, server: &Server, error: &io::Error) -> Option<Error> {
    if error.kind() == io::ErrorKind::TimedOut {
        connections.complain(server, error);
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
                "the head of its response is longer than {HEAD} bytes or has more than {HEADERS} lines, or its Content-Length is too large"
            ),
        );
        return Error::HttpResponseHeaderSectionSize(u32::try_from(HEAD).ok());
    }
    let mut is_incomplete = error.is_incomplete_message();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        let failed = inner.downcast_ref::<io::Error>();
        // The body is shorter than its Content-Length.
        is_incomplete |= failed.is_some_and(|failed| failed.kind() == io::ErrorKind::UnexpectedEof);
        if let Some(own) = failed.and_then(|failed| own(connections, server, failed)) {
            return own;
        }
        let custom = inner.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(too_much) = custom.and_then(|custom| custom.downcast_ref::<TooMuchBefore>()) {
            connections.complain(server, too_much);
            return Error::HttpResponseHeaderSectionSize(u32::try_from(HEAD).ok());
        }
        if let Some(Error::HttpRequestBodySize(size)) = inner.downcast_ref() {
            return Error::HttpRequestBodySize(*size);
        }
        cause = inner.source();
    }
    connections.complain(server, &causes(error));
    if is_incomplete { Error::HttpResponseIncomplete } else { Error::HttpProtocolError }
}

fn unsearchable(connections: &Connections, server: &Server, why: Unsearchable) -> Error {
    let coded = match why {
        Unsearchable::SentBack(error) => return sent_back(connections, server, error),
        Unsearchable::Coded(coded) => coded,
    };
    connections.complain(server, &Unsearchable::Coded(coded.clone()));
    match coded {
        Coded::Part => Error::HttpProtocolError,
        Coded::Content(coding) => Error::HttpResponseContentCoding(Some(coding)),
        Coded::Transfer(coding) => Error::HttpResponseTransferCoding(Some(coding)),
    }
}

fn sent_back(connections: &Connections, server: &Server, error: SentBack) -> Error {
    connections.complain(server, &error);
    Error::InternalError(Some(error.to_string()))
}
