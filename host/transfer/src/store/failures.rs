//! Interprets failed requests: error responses, and requests without a usable response.

use std::cell::RefCell;
use std::error::Error as StdError;
use std::time::Duration;

use object_store::client::HttpError;
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use rustls::{AlertDescription, CertificateError};

use super::codes::{self, Code};
use super::proxy;
use super::quoted::without_values;
use super::retry::{Failure, Missing, RetryAdvice};
use super::transport::{RequestKind, Stopped, ThroughProxy, TrustRoots};
use crate::error::{Error, Kind};

/// The longest error code (`NoSuchKey`) that is shown, in bytes.
const LONGEST_CODE: usize = 64;

/// The clouds' error codes for a bucket or container that does not exist.
const NO_BUCKET: [&str; 4] = ["NoSuchBucket", "NoSuchAccessPoint", "ContainerNotFound", "FilesystemNotFound"];

/// Azure's error code for a container that does not exist, or that it hides from requests without credentials.
const HIDDEN: &str = "ResourceNotFound";

/// An error response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ErrorResponse {
    /// The kind of request to the store; `None` if it was a request to another server for credentials.
    request: Option<RequestKind>,
    /// The host of the request.
    host: String,
    /// The HTTP status.
    status: u16,
    /// The store's error code.
    code: Option<String>,
    /// When the store wants the request to be repeated.
    retry_after: Option<Duration>,
    /// The region of the bucket, according to S3.
    region: Option<String>,
    /// The endpoint of the bucket, according to S3.
    endpoint: Option<String>,
}

tokio::task_local! {
    /// The last error response to this task's request to a cloud. The cloud's library does not pass the status on.
    pub(super) static LAST_ERROR_RESPONSE: RefCell<Option<ErrorResponse>>;
}

/// Makes a request to a cloud and interprets its failure.
pub(super) async fn request<T>(request: impl Future<Output = object_store::Result<T>>) -> Result<T, Failure> {
    LAST_ERROR_RESPONSE
        .scope(RefCell::default(), async {
            let response = request.await;
            response.map_err(|error| match LAST_ERROR_RESPONSE.with(RefCell::take) {
                Some(refused) => refused.failure(),
                None => failed(&error),
            })
        })
        .await
}

impl ErrorResponse {
    /// Makes an error response of this host from its status, headers and the beginning of its body.
    pub(super) fn of(
        request: Option<RequestKind>,
        host: String,
        (status, headers): (StatusCode, &HeaderMap),
        body: &[u8],
    ) -> Self {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        Self {
            request,
            host,
            code: code(body).or_else(|| word(header("x-ms-error-code")?)),
            region: header("x-amz-bucket-region").and_then(word).or_else(|| element(body, "Region")),
            endpoint: element(body, "Endpoint"),
            ..Self::with(status.as_u16(), header("retry-after"))
        }
    }

    /// Makes an error response to a request for an object from its status alone.
    pub(super) fn with(status: u16, retry_after: Option<&str>) -> Self {
        let retry_after = retry_after.and_then(self::retry_after);
        Self {
            request: Some(RequestKind::Bytes),
            host: String::new(),
            status,
            code: None,
            retry_after,
            region: None,
            endpoint: None,
        }
    }

    /// Interprets the response: its kind and message, and whether to retry.
    pub(super) fn failure(self) -> Failure {
        let status = match &self.code {
            None => format!("HTTP {}", self.status),
            Some(code) => format!("HTTP {}, {code}", self.status),
        };
        let known = self.code.as_deref().and_then(codes::find);
        let (kind, message) = match self.request {
            Some(request) => self.store_failure(request, known, &status),
            None => self.credentials_failure(&status),
        };
        let credentials_refused = match (self.request, known) {
            // Another server may refuse a request because it does not accept the credentials that were sent to it.
            (None, _) => kind == Kind::Denied,
            (Some(_), Some(known)) => known.credentials_refused,
            (Some(_), None) => matches!(self.status, 401 | 403),
        };
        let missing = match (self.request, &self.code, self.status) {
            (Some(_), _, 416) => Missing::Range,
            (Some(_), None, 404 | 407 | 408 | 412 | 425 | 429) => Missing::Nothing,
            (Some(_), None, 300..=499) => Missing::ErrorCode,
            _ => Missing::Nothing,
        };
        let retry = match (kind, self.retry_after) {
            (Kind::Transient, None) => RetryAdvice::Soon,
            (Kind::Transient, Some(wait)) => RetryAdvice::After(wait),
            _ => RetryAdvice::Never,
        };
        Failure { error: Error::new(kind, message), retry, credentials_refused, missing }
    }

    /// Interprets a response of the store.
    fn store_failure(&self, request: RequestKind, known: Option<&Code>, status: &str) -> (Kind, String) {
        let code = self.code.as_deref().unwrap_or_default();
        match (self.status, known) {
            // Missing objects, buckets and ranges are interpreted below.
            (404 | 412 | 416, _) | (_, None) => {}
            (_, Some(known)) => return (known.kind, self.explained(known, status)),
        }
        match self.status {
            301 | 302 | 303 | 307 | 308 => {
                let message = format!(
                    "the store redirects ({status}), which is not followed; {}",
                    self.with_place("set `endpoint` or `region`")
                );
                (Kind::Invalid, message)
            }
            401 if code.is_empty() => {
                let message = format!(
                    "the store requires credentials, or does not accept those that were sent ({status}); check `credentials`"
                );
                (Kind::Denied, message)
            }
            401 | 403 => (Kind::Denied, format!("the store refuses the request ({status})")),
            407 => {
                let message = format!(
                    "the proxy requires a user and a password ({status}): set them in HTTP_PROXY in this program's environment"
                );
                (Kind::Denied, message)
            }
            404 if code == HIDDEN => {
                let message = format!(
                    "the store has no such container, or hides it without credentials ({status}); check `url` and `credentials`"
                );
                (Kind::Denied, message)
            }
            // A listing of an existing bucket without objects is empty and not 404. The kind is not `Invalid`, because that would mean that
            // the store cannot list.
            404 if NO_BUCKET.contains(&code) || request == RequestKind::Listing => {
                let message = format!(
                    "the store has no such bucket or container ({status}); check `url`, and that `endpoint` is the server of the bucket"
                );
                (Kind::Failed, message)
            }
            404 => (Kind::NotFound, format!("the store has no such object ({status})")),
            412 => (Kind::Corrupt, format!("the object changed while it was read ({status})")),
            416 => (Kind::Invalid, format!("the object has no such range ({status})")),
            408 | 425 | 429 | 500..=599 => {
                (Kind::Transient, format!("the store fails temporarily ({status})"))
            }
            400 => {
                let region = self.region.as_ref();
                let region =
                    region.map(|region| format!("; its bucket is in region = \"{region}\": check `region`"));
                let region = region.unwrap_or_default();
                (Kind::Invalid, format!("the store rejects the request ({status}){region}"))
            }
            _ => (Kind::Failed, format!("the store sends an unexpected response ({status})")),
        }
    }

    /// Returns the message of a known error code: what it means and what to do.
    fn explained(&self, known: &Code, status: &str) -> String {
        let what = match known.kind {
            Kind::Denied => "refuses",
            Kind::Transient => "fails temporarily",
            _ => "rejects the request",
        };
        let message = format!("the store {what} ({status}): {}", known.meaning);
        if known.remedy.is_empty() {
            message
        } else {
            format!("{message}; {}", self.with_place(known.remedy))
        }
    }

    /// Returns the remedy, with the region and endpoint that the store names.
    fn with_place(&self, remedy: &str) -> String {
        if !remedy.contains("`region`") {
            return remedy.to_owned();
        }
        let region = self.region.as_ref().map(|region| format!("region = \"{region}\""));
        let endpoint = self.endpoint.as_ref().map(|endpoint| format!("its server is {endpoint}"));
        let places: Vec<String> = region.into_iter().chain(endpoint).collect();
        if places.is_empty() {
            remedy.to_owned()
        } else {
            format!("{remedy}: the store says {}", places.join(", "))
        }
    }

    /// Interprets a response of a server that was asked for credentials. The response says nothing about the store: a 404 does not mean
    /// that an object does not exist.
    fn credentials_failure(&self, status: &str) -> (Kind, String) {
        let host = self.host.escape_debug();
        match self.status {
            408 | 425 | 429 | 500..=599 => (
                Kind::Transient,
                format!("the server {host}, which provides credentials, fails temporarily ({status})"),
            ),
            _ => {
                let message = format!(
                    "the server {host}, which provides credentials for the store, provides none ({status}); check the role or \
                     identity of this machine, and `credentials`"
                );
                (Kind::Denied, message)
            }
        }
    }
}

/// Interprets a failure without a status: there was no response, or it cannot be parsed.
pub(super) fn failed(error: &(dyn StdError + 'static)) -> Failure {
    if let Some(own) = chain(error).find_map(|error| error.downcast_ref::<Error>()) {
        return own.clone().into();
    }
    if chain(error).any(|error| error.is::<Stopped>()) {
        return Failure::never(Kind::Cancelled, Stopped.to_string());
    }
    if let Some(ThroughProxy { proxy, source }) =
        chain(error).find_map(|error| error.downcast_ref::<ThroughProxy>())
    {
        return proxy::with_proxy_named(interrupted(source), Some(proxy));
    }
    if let Some(error) = chain(error).find_map(|error| error.downcast_ref::<HttpError>()) {
        return interrupted(error);
    }
    // Outer errors repeat the whole URL. The innermost may contain any text, for example an invalid key.
    let innermost = chain(error).last().map_or_else(String::new, |error| {
        foundation::printable::printable(&without_values(&error.to_string())).into_owned()
    });
    Failure::never(Kind::Failed, format!("the store's response cannot be used: {innermost}"))
}

/// Makes the failure of an incomplete response.
pub(super) fn interrupted(error: &(dyn StdError + 'static)) -> Failure {
    Failure::transient(causes(error))
}

/// Interprets an error that left a request without a response.
pub(super) fn unanswered(error: &(dyn StdError + 'static), host: &str, trust_roots: TrustRoots) -> Failure {
    match refused_tls(error, host, trust_roots) {
        Some(refused) => refused.into(),
        None => interrupted(error),
    }
}

/// Returns the error of a TLS handshake that would fail again in the next attempt; `None` if a retry may succeed.
pub(super) fn refused_tls(
    error: &(dyn StdError + 'static),
    host: &str,
    trust_roots: TrustRoots,
) -> Option<Error> {
    use AlertDescription::{BadRecordMac, InternalError, UserCanceled};
    use rustls::Error::{AlertReceived, InvalidCertificate, InvalidMessage, PeerIncompatible};
    let wrong = chain(error).find_map(|error| innermost(error).downcast_ref::<rustls::Error>())?;
    let shown = host.escape_debug();
    let (kind, message) = match wrong {
        InvalidCertificate(wrong) => (Kind::Denied, certificate_refused(wrong, host, trust_roots)),
        InvalidMessage(_) => {
            let message = format!(
                "the server {shown} does not speak TLS on this port ({wrong}): check the port, and whether the address should \
                 begin with http://"
            );
            (Kind::Invalid, message)
        }
        // With these alerts the server reports an internal problem rather than a refusal (RFC 8446, 6), or the network damaged
        // data.
        AlertReceived(BadRecordMac | InternalError | UserCanceled) => return None,
        PeerIncompatible(_) | AlertReceived(_) => {
            let message = format!(
                "the server {shown} and this program have no TLS settings in common ({wrong}): the server must support TLS 1.2 or \
                 1.3 and the name {shown}, and must not require a client certificate"
            );
            (Kind::Invalid, message)
        }
        _ => return None,
    };
    Some(Error::new(kind, message))
}

/// Unwraps I/O errors, whose inner error is not part of the chain of sources. A TLS error is wrapped in two of them.
fn innermost<'a>(error: &'a (dyn StdError + 'static)) -> &'a (dyn StdError + 'static) {
    match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        Some(wrapped) => innermost(wrapped),
        None => error,
    }
}

/// Returns the message for a server's certificate that is not accepted.
fn certificate_refused(wrong: &CertificateError, host: &str, trust_roots: TrustRoots) -> String {
    let why = match (wrong, trust_roots) {
        // The error is `BadSignature` if a trusted authority has the same name as the issuer.
        (CertificateError::UnknownIssuer | CertificateError::BadSignature, TrustRoots::CaFile) => {
            "its certificate is from none of the authorities in the file of `ca_file`, and no others are trusted"
        }
        (CertificateError::UnknownIssuer | CertificateError::BadSignature, TrustRoots::System) => {
            "its certificate is not from an authority that this machine trusts; for a private authority of the store's own host set `ca_file`"
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
    format!("the server {} cannot prove its identity: {why} ({wrong})", host.escape_debug())
}

/// Returns an error and the chain of its sources.
fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn StdError + 'static)| (*error).source())
}

/// Formats the chain of sources as one sentence without repetitions.
pub(super) fn causes(error: &(dyn StdError + 'static)) -> String {
    let mut texts: Vec<String> = Vec::new();
    for cause in chain(error) {
        let text = without_values(&cause.to_string());
        // The text of an outer error often ends with that of the inner one.
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

/// Parses `Retry-After` in seconds. Its other form, a date, is ignored.
fn retry_after(value: &str) -> Option<Duration> {
    value.trim().parse().ok().map(Duration::from_secs)
}

/// Returns the error code: `<Code>` in the XML of S3, Google and Azure.
fn code(body: &[u8]) -> Option<String> {
    element(body, "Code")
}

/// Returns the text of an element of an error's XML if it is a single word.
fn element(body: &[u8], name: &str) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    word(rest.split_once(&format!("</{name}>"))?.0)
}

/// Returns the text if it is a single word or a host name. Other text from a server is not shown.
fn word(text: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let fits = !text.is_empty() && text.len() <= LONGEST_CODE && text.chars().all(allowed);
    fits.then(|| text.to_owned())
}

#[cfg(test)]
mod tests;
