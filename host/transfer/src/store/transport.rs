//! What speaks HTTP to stores: one client for all kinds of them, and what its failures mean.
//!
//! Every request runs on the runtime that the store was opened with, whoever asks: names are resolved and connections kept
//! there, and never on the thread of a guest. Redirects are not followed but where a store says so.

use std::cell::RefCell;
use std::error::Error as StdError;
use std::sync::Once;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
    HttpService,
};
use reqwest::redirect::Policy;
use rustls::CertificateError;
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;

use super::retry::{Again, Failure};
use crate::error::{Error, Kind};

/// How long a connection may take to be made where nothing is said.
const CONNECT: Duration = Duration::from_secs(10);

/// How long a connection is kept for the next request.
const KEPT: Duration = Duration::from_secs(60);

/// The most bytes that are read of an answer that is an error.
const ERROR_BYTES: usize = 64 << 10;

/// The most bytes of an answer that is no object: 1000 keys of 1024 bytes, each written as `&#xNN;`, and what stands around.
const ANSWER_BYTES: usize = 16 << 20;

/// The most letters of a store's own word for an error (`NoSuchKey`) that is shown.
const CODE: usize = 64;

/// What the operator may say of connections.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    /// Certificates of authorities in PEM: the certificate of the store's server must come from one of them, and from no
    /// others. Named `ca_file` in what the operator reads, who wrote that.
    pub(super) ca_certificate: Option<String>,
    pub(super) user_agent: Option<String>,
    pub(super) proxy_url: Option<String>,
    pub(super) proxy_ca_certificate: Option<String>,
    pub(super) proxy_excludes: Option<String>,
}

/// A client with these settings.
///
/// # Errors
/// `Invalid` where a setting cannot be read.
pub(super) fn client(settings: &Settings, redirects: Policy) -> Result<reqwest::Client, Error> {
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
        .user_agent(
            settings.user_agent.as_deref().unwrap_or(concat!("understudy/", env!("CARGO_PKG_VERSION"))),
        );
    if let Some(url) = &settings.proxy_url {
        let mut proxy = reqwest::Proxy::all(url).map_err(|error| invalid("the option `proxy_url`", error))?;
        if let Some(excluded) = &settings.proxy_excludes {
            proxy = proxy.no_proxy(reqwest::NoProxy::from_string(excluded));
        }
        builder = builder.proxy(proxy);
    }
    if let Some(certificate) = &settings.proxy_ca_certificate {
        let certificate = reqwest::Certificate::from_pem(certificate.as_bytes())
            .map_err(|error| invalid("the option `proxy_ca_certificate`", error))?;
        builder = builder.tls_certs_merge([certificate]);
    }
    if let Some(authorities) = &settings.ca_certificate {
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

/// Marks a request whose answer is an object, of any length.
#[derive(Clone, Copy, Debug)]
pub(super) struct OfAnObject;

/// Gives the libraries of the clouds this client.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    client: HttpClient,
    own: Option<Own>,
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
    /// Speaks to the store at `host`, and to whoever gives tokens for it, with these settings.
    ///
    /// # Errors
    /// `Invalid` where a setting cannot be read.
    pub(super) fn new(settings: &Settings, host: String, runtime: Handle) -> Result<Self, Error> {
        // A redirect could carry a signature or a token elsewhere.
        let new = |settings: &Settings| client(settings, Policy::none()).map(HttpClient::new);
        let of_the_machine = Settings { ca_certificate: None, ..settings.clone() };
        let own = match settings.ca_certificate {
            Some(_) => Some(Own { host, client: new(settings)? }),
            None => None,
        };
        Ok(Self { client: new(&of_the_machine)?, own, runtime })
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
        let of_an_object = request.extensions().get::<OfAnObject>().is_some();
        let host = request.uri().host().unwrap_or_default().to_owned();
        let (client, voucher) = self.client_for(&host);
        let client = client.clone();
        let response = on(&self.runtime, async move { client.execute(request).await })
            .await
            .map_err(|stopped| HttpError::new(HttpErrorKind::Unknown, stopped))?
            .map_err(|error| match refused_certificate(&error, &host, voucher) {
                // Only here it is known whose it was.
                Some(refused) => HttpError::new(HttpErrorKind::Unknown, refused),
                None => error,
            })?;
        let succeeded = response.status().is_success();
        if succeeded && of_an_object {
            return Ok(response);
        }
        let (parts, body) = response.into_parts();
        let bytes = bounded(body, if succeeded { ANSWER_BYTES } else { ERROR_BYTES }, succeeded).await?;
        if !succeeded {
            let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
            let refused = Refused {
                status: parts.status.as_u16(),
                code: code(&bytes).or_else(|| word(header("x-ms-error-code")?)),
                retry_after: header("retry-after").and_then(retry_after),
                region: header("x-amz-bucket-region").and_then(word),
            };
            // Nobody listens to a request that this crate did not make.
            let _ = REFUSED.try_with(|last| last.replace(Some(refused)));
        }
        Ok(HttpResponse::from_parts(parts, bytes.into()))
    }
}

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

/// An answer that is an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// The HTTP status.
    pub(super) status: u16,
    /// The store's own word for it.
    pub(super) code: Option<String>,
    /// When the store wants to be asked again.
    pub(super) retry_after: Option<Duration>,
    /// Where S3 says the bucket is.
    pub(super) region: Option<String>,
}

tokio::task_local! {
    /// The last answer that was an error to what this task asks a cloud: its library does not hand over the status.
    static REFUSED: RefCell<Option<Refused>>;
}

/// Asks a cloud, and says what its failure means.
pub(super) async fn ask<T>(request: impl Future<Output = object_store::Result<T>>) -> Result<T, Failure> {
    REFUSED
        .scope(RefCell::default(), async {
            let answer = request.await;
            answer.map_err(|error| match REFUSED.with(RefCell::take) {
                Some(refused) => refused.failure(),
                None => failed(&error),
            })
        })
        .await
}

impl Refused {
    /// What an answer with this status alone means.
    pub(super) fn with(status: u16, retry_after: Option<&str>) -> Self {
        Self { status, code: None, retry_after: retry_after.and_then(self::retry_after), region: None }
    }

    /// Which tries it is worth, and the text.
    pub(super) fn failure(self) -> Failure {
        let code = self.code.as_deref().unwrap_or_default();
        let status = match code {
            "" => format!("HTTP {}", self.status),
            code => format!("HTTP {}, {code}", self.status),
        };
        let (kind, message) = match self.status {
            // S3's word for a connection on which nothing came, with a status of a mistake of the client.
            400 if code == "RequestTimeout" => {
                (Kind::Transient, format!("the store gave up waiting ({status})"))
            }
            301 | 302 | 303 | 307 | 308 => {
                let region =
                    self.region.map_or(String::new(), |region| format!(", which S3 says is `{region}`"));
                let message = format!(
                    "the store sends elsewhere ({status}), which is not followed; set the option `endpoint` or `region`{region}"
                );
                (Kind::Invalid, message)
            }
            401 | 403 => (Kind::Denied, format!("the store refuses ({status})")),
            404 => (Kind::NotFound, format!("the store has no such object ({status})")),
            412 => (Kind::Corrupt, format!("the object changed while it was read ({status})")),
            416 => (Kind::Invalid, format!("the object has no such range ({status})")),
            408 | 425 | 429 | 500..=599 => (Kind::Transient, format!("the store fails for now ({status})")),
            400 => (Kind::Invalid, format!("the store does not take the request ({status})")),
            _ => (Kind::Failed, format!("the store answers what nobody expects ({status})")),
        };
        let again = match (kind, self.retry_after) {
            (Kind::Transient, None) => Again::Soon,
            (Kind::Transient, Some(wait)) => Again::After(wait),
            _ => Again::Never,
        };
        Failure { error: Error::new(kind, message), again }
    }
}

/// What a failure without a status means: no answer came, or one that cannot be read.
pub(super) fn failed(error: &(dyn StdError + 'static)) -> Failure {
    if let Some(own) = chain(error).find_map(|error| error.downcast_ref::<Error>()) {
        return own.clone().into();
    }
    if chain(error).any(|error| error.is::<Stopped>()) {
        return Failure::never(Kind::Cancelled, Stopped.to_string());
    }
    if let Some(error) = chain(error).find_map(|error| error.downcast_ref::<HttpError>()) {
        return interrupted(error);
    }
    // The outer ones repeat the whole URL.
    let innermost = chain(error).last().map_or_else(String::new, ToString::to_string);
    Failure::never(Kind::Failed, format!("the store's answer cannot be used: {innermost}"))
}

/// What it means that not all of an answer came.
pub(super) fn interrupted(error: &(dyn StdError + 'static)) -> Failure {
    Failure::transient(causes(error))
}

/// What it means that no answer came from a host.
pub(super) fn unanswered(error: &(dyn StdError + 'static), host: &str, voucher: Voucher) -> Failure {
    match refused_certificate(error, host, voucher) {
        Some(refused) => refused.into(),
        None => interrupted(error),
    }
}

/// What is wrong with the certificate of a host, where that is why no answer came.
fn refused_certificate(error: &(dyn StdError + 'static), host: &str, voucher: Voucher) -> Option<Error> {
    let wrong = chain(error).find_map(|error| match innermost(error).downcast_ref() {
        Some(rustls::Error::InvalidCertificate(wrong)) => Some(wrong),
        _ => None,
    })?;
    Some(Error::new(Kind::Denied, certificate_refused(wrong, host, voucher)))
}

/// What an error of the system wraps, which is no link of the chain of causes: TLS wraps its own in two of them.
fn innermost<'a>(error: &'a (dyn StdError + 'static)) -> &'a (dyn StdError + 'static) {
    match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(wrapped) => innermost(wrapped),
        None => error,
    }
}

/// What is wrong with a server's certificate, and what can be done.
fn certificate_refused(wrong: &CertificateError, host: &str, voucher: Voucher) -> String {
    let why = match (wrong, voucher) {
        // The latter where an authority of the same name is trusted.
        (CertificateError::UnknownIssuer | CertificateError::BadSignature, Voucher::CaFile) => {
            "its certificate is from none of the authorities in the file of `ca_file`, and others are not asked"
        }
        (CertificateError::UnknownIssuer | CertificateError::BadSignature, Voucher::Machine) => {
            "its certificate is from no authority that is trusted here; the setting `ca_file` of a store names the file of a private one for the store's own host"
        }
        (CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }, _) => {
            "its certificate is for other names"
        }
        (CertificateError::Expired | CertificateError::ExpiredContext { .. }, _) => {
            "its certificate has expired"
        }
        (CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }, _) => {
            "its certificate is not valid yet"
        }
        _ => "its certificate cannot be used",
    };
    format!("the server {} cannot show who it is: {why} ({wrong})", host.escape_debug())
}

/// An error, what caused it, what caused that, and so on.
fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn StdError + 'static)| (*error).source())
}

/// A chain of causes as one sentence, without what repeats itself.
fn causes(error: &(dyn StdError + 'static)) -> String {
    let mut texts: Vec<String> = Vec::new();
    for cause in chain(error) {
        let text = cause.to_string();
        // An outer one often ends with the inner one.
        if let Some(last) = texts.last_mut().filter(|last| last.ends_with(text.as_str())) {
            let keep = last.len() - text.len();
            last.truncate(keep);
            let kept = last.trim_end_matches([':', ' ']).len();
            last.truncate(kept);
        }
        texts.push(text);
    }
    texts.retain(|text| !text.is_empty());
    texts.join(": ")
}

/// `Retry-After` in seconds; its other form, a date, is not heeded.
fn retry_after(value: &str) -> Option<Duration> {
    value.trim().parse().ok().map(Duration::from_secs)
}

/// The store's own word for an error: `<Code>` of the XML that S3, Google and Azure answer.
fn code(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    let (_, rest) = text.split_once("<Code>")?;
    word(rest.split_once("</Code>")?.0)
}

/// A word and nothing else: whatever stands in an error's text comes from a server.
fn word(text: &str) -> Option<String> {
    let fits =
        !text.is_empty() && text.len() <= CODE && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    fits.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(status: u16, code: Option<&str>) -> Failure {
        Refused { code: code.map(str::to_owned), ..Refused::with(status, None) }.failure()
    }

    #[test]
    fn a_permanent_status_is_not_tried_again_and_has_its_own_kind() {
        for (status, kind) in [
            (301, Kind::Invalid),
            (400, Kind::Invalid),
            (401, Kind::Denied),
            (403, Kind::Denied),
            (404, Kind::NotFound),
            (412, Kind::Corrupt),
            (416, Kind::Invalid),
            (418, Kind::Failed),
        ] {
            let failure = failure(status, None);
            assert_eq!((failure.error.kind, failure.again), (kind, Again::Never), "{status}");
        }
    }

    #[test]
    fn a_passing_status_is_tried_again_and_no_sooner_than_the_store_says() {
        for status in [408, 429, 500, 502, 503, 504] {
            assert_eq!(failure(status, None).again, Again::Soon, "{status}");
            assert_eq!(failure(status, None).error.kind, Kind::Transient, "{status}");
        }
        assert_eq!(failure(400, Some("RequestTimeout")).again, Again::Soon);
        assert_eq!(Refused::with(503, Some("7")).failure().again, Again::After(Duration::from_secs(7)));
    }

    #[test]
    fn a_private_authority_vouches_for_the_stores_own_host_alone() {
        client(&Settings::default(), Policy::none()).unwrap();
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

    #[test]
    fn only_a_word_of_a_servers_error_is_shown() {
        let xml =
            b"<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>key AKIA1234</Message></Error>";
        assert_eq!(code(xml).as_deref(), Some("AccessDenied"));
        for body in ["", "<Code></Code>", "<Code>a b</Code>", "<Code>\x1b[31m</Code>", "<Code>unfinished"] {
            assert_eq!(code(body.as_bytes()), None, "{body}");
        }
        assert_eq!(word(&"x".repeat(CODE + 1)), None);
    }
}
