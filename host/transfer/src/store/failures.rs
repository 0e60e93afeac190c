//! What it means that a request failed: an answer that is an error, or none that can be used.

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
use super::retry::{Again, Failure, Lacks};
use super::transport::{Asked, ByProxy, Stopped, Voucher};
use crate::error::{Error, Kind};

/// The most letters of a store's own word for an error (`NoSuchKey`) that is shown.
const CODE: usize = 64;

/// The words of the clouds for a bucket or container that is not there.
const NO_BUCKET: [&str; 4] = ["NoSuchBucket", "NoSuchAccessPoint", "ContainerNotFound", "FilesystemNotFound"];

/// Azure's word for a container that is not there, or that it shows to nobody without credentials.
const HIDDEN: &str = "ResourceNotFound";

/// An answer that is an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    /// What the store was asked; none where somebody else was asked for credentials.
    asked: Option<Asked>,
    /// Who was asked.
    host: String,
    /// The HTTP status.
    status: u16,
    /// The store's own word for it.
    code: Option<String>,
    /// When the store wants to be asked again.
    retry_after: Option<Duration>,
    /// Where S3 says the bucket is.
    region: Option<String>,
    /// Which server of it S3 says to ask.
    endpoint: Option<String>,
}

tokio::task_local! {
    /// The last answer that was an error to what this task asks a cloud: its library does not hand over the status.
    pub(super) static REFUSED: RefCell<Option<Refused>>;
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
    /// What the answer of this host says, of whose body this is the beginning.
    pub(super) fn of(
        asked: Option<Asked>,
        host: String,
        (status, headers): (StatusCode, &HeaderMap),
        body: &[u8],
    ) -> Self {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        Self {
            asked,
            host,
            code: code(body).or_else(|| word(header("x-ms-error-code")?)),
            region: header("x-amz-bucket-region").and_then(word).or_else(|| element(body, "Region")),
            endpoint: element(body, "Endpoint"),
            ..Self::with(status.as_u16(), header("retry-after"))
        }
    }

    /// What an answer with this status alone means, to somebody who asked for an object.
    pub(super) fn with(status: u16, retry_after: Option<&str>) -> Self {
        let retry_after = retry_after.and_then(self::retry_after);
        Self {
            asked: Some(Asked::Bytes),
            host: String::new(),
            status,
            code: None,
            retry_after,
            region: None,
            endpoint: None,
        }
    }

    /// Which tries it is worth, and the text.
    pub(super) fn failure(self) -> Failure {
        let status = match &self.code {
            None => format!("HTTP {}", self.status),
            Some(code) => format!("HTTP {}, {code}", self.status),
        };
        let known = self.code.as_deref().and_then(codes::find);
        let (kind, message) = match self.asked {
            Some(asked) => self.of_the_store(asked, known, &status),
            None => self.of_credentials(&status),
        };
        let of_credentials = match (self.asked, known) {
            // What somebody gives for them may be refused where they are not taken.
            (None, _) => kind == Kind::Denied,
            (Some(_), Some(known)) => known.is_of_credentials,
            (Some(_), None) => matches!(self.status, 401 | 403),
        };
        let lacks = match (self.asked, &self.code, self.status) {
            (Some(_), _, 416) => Lacks::Range,
            (Some(_), None, 404 | 407 | 408 | 412 | 425 | 429) => Lacks::Nothing,
            (Some(_), None, 300..=499) => Lacks::Word,
            _ => Lacks::Nothing,
        };
        let again = match (kind, self.retry_after) {
            (Kind::Transient, None) => Again::Soon,
            (Kind::Transient, Some(wait)) => Again::After(wait),
            _ => Again::Never,
        };
        Failure { error: Error::new(kind, message), again, of_credentials, lacks }
    }

    /// What an answer of the store means.
    fn of_the_store(&self, asked: Asked, known: Option<&Code>, status: &str) -> (Kind, String) {
        let code = self.code.as_deref().unwrap_or_default();
        match (self.status, known) {
            // What is there and what is not has words of its own, below.
            (404 | 412 | 416, _) | (_, None) => {}
            (_, Some(known)) => return (known.kind, self.explained(known, status)),
        }
        match self.status {
            301 | 302 | 303 | 307 | 308 => {
                let message = format!(
                    "the store sends elsewhere ({status}), which is not followed; {}",
                    self.with_place("set `endpoint` or `region`")
                );
                (Kind::Invalid, message)
            }
            401 if code.is_empty() => {
                let message = format!(
                    "the store wants to know who reads, or does not take who does ({status}); see `credentials`"
                );
                (Kind::Denied, message)
            }
            401 | 403 => (Kind::Denied, format!("the store refuses ({status})")),
            407 => {
                let message = format!(
                    "the proxy wants a user and a password ({status}): they belong into HTTP_PROXY of this program's environment"
                );
                (Kind::Denied, message)
            }
            404 if code == HIDDEN => {
                let message = format!(
                    "the store has no such container, or shows it to nobody without credentials ({status}); see `url` and `credentials`"
                );
                (Kind::Denied, message)
            }
            // A listing without an object is empty. Not `Invalid`, by which a store is known that cannot list.
            404 if NO_BUCKET.contains(&code) || asked == Asked::Listing => {
                let message = format!(
                    "the store has no such bucket or container ({status}); `url` names it, and `endpoint` where it is looked for"
                );
                (Kind::Failed, message)
            }
            404 => (Kind::NotFound, format!("the store has no such object ({status})")),
            412 => (Kind::Corrupt, format!("the object changed while it was read ({status})")),
            416 => (Kind::Invalid, format!("the object has no such range ({status})")),
            408 | 425 | 429 | 500..=599 => (Kind::Transient, format!("the store fails for now ({status})")),
            400 => (Kind::Invalid, format!("the store does not take the request ({status})")),
            _ => (Kind::Failed, format!("the store answers what nobody expects ({status})")),
        }
    }

    /// What a word means that is known, and what can be done.
    fn explained(&self, known: &Code, status: &str) -> String {
        let what = match known.kind {
            Kind::Denied => "refuses",
            Kind::Transient => "fails for now",
            _ => "does not take the request",
        };
        let message = format!("the store {what} ({status}): {}", known.meaning);
        if known.remedy.is_empty() {
            message
        } else {
            format!("{message}; {}", self.with_place(known.remedy))
        }
    }

    /// What is to be done, with the place that the store says.
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

    /// What the answer of somebody means who was asked for credentials. It says nothing of the store, and least of all that an
    /// object is not there.
    fn of_credentials(&self, status: &str) -> (Kind, String) {
        let host = self.host.escape_debug();
        match self.status {
            408 | 425 | 429 | 500..=599 => (
                Kind::Transient,
                format!("the server {host}, which gives credentials, fails for now ({status})"),
            ),
            _ => {
                let message = format!(
                    "the server {host}, which gives credentials for the store, gives none ({status}); see which role or identity \
                     this machine has, and `credentials`"
                );
                (Kind::Denied, message)
            }
        }
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
    if let Some(ByProxy { proxy, source }) = chain(error).find_map(|error| error.downcast_ref::<ByProxy>()) {
        return proxy::named(interrupted(source), Some(proxy));
    }
    if let Some(error) = chain(error).find_map(|error| error.downcast_ref::<HttpError>()) {
        return interrupted(error);
    }
    // The outer ones repeat the whole URL. A key that is none may have anything in it.
    let innermost = chain(error).last().map_or_else(String::new, |error| {
        foundation::printable::printable(&without_values(&error.to_string())).into_owned()
    });
    Failure::never(Kind::Failed, format!("the store's answer cannot be used: {innermost}"))
}

/// What it means that not all of an answer came.
pub(super) fn interrupted(error: &(dyn StdError + 'static)) -> Failure {
    Failure::transient(causes(error))
}

/// What it means that no answer came from a host.
pub(super) fn unanswered(error: &(dyn StdError + 'static), host: &str, voucher: Voucher) -> Failure {
    match refused_tls(error, host, voucher) {
        Some(refused) => refused.into(),
        None => interrupted(error),
    }
}

/// Why no TLS can be spoken with a host, where that is why no answer came and the next try would find the same.
pub(super) fn refused_tls(error: &(dyn StdError + 'static), host: &str, voucher: Voucher) -> Option<Error> {
    use AlertDescription::{BadRecordMac, InternalError, UserCanceled};
    use rustls::Error::{AlertReceived, InvalidCertificate, InvalidMessage, PeerIncompatible};
    let wrong = chain(error).find_map(|error| innermost(error).downcast_ref::<rustls::Error>())?;
    let shown = host.escape_debug();
    let (kind, message) = match wrong {
        InvalidCertificate(wrong) => (Kind::Denied, certificate_refused(wrong, host, voucher)),
        InvalidMessage(_) => {
            let message = format!(
                "the server {shown} does not speak TLS there ({wrong}): see whether the port is right, and whether the address \
                 begins with http://"
            );
            (Kind::Invalid, message)
        }
        // Of these the server says that it could not, not that it would not (RFC 8446, 6), or the network damaged something.
        AlertReceived(BadRecordMac | InternalError | UserCanceled) => return None,
        PeerIncompatible(_) | AlertReceived(_) => {
            let message = format!(
                "with the server {shown} there is no TLS that both speak ({wrong}): it must know TLS 1.2 or 1.3 and the name \
                 {shown}, and ask for no certificate"
            );
            (Kind::Invalid, message)
        }
        _ => return None,
    };
    Some(Error::new(kind, message))
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
pub(super) fn causes(error: &(dyn StdError + 'static)) -> String {
    let mut texts: Vec<String> = Vec::new();
    for cause in chain(error) {
        let text = without_values(&cause.to_string());
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
    element(body, "Code")
}

/// What an element of an error's XML holds, where that is a word.
fn element(body: &[u8], name: &str) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    word(rest.split_once(&format!("</{name}>"))?.0)
}

/// A word, or the name of a host, and nothing else: whatever stands in an error's text comes from a server.
fn word(text: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let fits = !text.is_empty() && text.len() <= CODE && text.chars().all(allowed);
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
    fn only_an_object_that_is_not_there_is_not_found() {
        let kind = |asked, code: &str| {
            let refused = Refused { asked, code: word(code), ..Refused::with(404, None) };
            refused.failure().error.kind
        };
        for asked in [Asked::Bytes, Asked::Metadata] {
            for code in ["", "NoSuchKey", "BlobNotFound"] {
                assert_eq!(kind(Some(asked), code), Kind::NotFound, "{asked:?} {code}");
            }
        }
        for code in NO_BUCKET {
            assert_eq!(kind(Some(Asked::Bytes), code), Kind::Failed, "{code}");
        }
        assert_eq!(kind(Some(Asked::Listing), ""), Kind::Failed);
        assert_eq!(kind(Some(Asked::Listing), HIDDEN), Kind::Denied);
        for code in ["", "NoSuchKey", "NoSuchBucket", HIDDEN] {
            assert_eq!(kind(None, code), Kind::Denied, "{code}");
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

    fn refused(status: u16, body: &str) -> Failure {
        let headers = HeaderMap::new();
        let status = StatusCode::from_u16(status).unwrap();
        Refused::of(Some(Asked::Bytes), String::new(), (status, &headers), body.as_bytes()).failure()
    }

    #[test]
    fn a_word_that_is_known_says_what_to_do_whatever_status_comes_with_it() {
        for (status, code, kind, of_credentials, says) in [
            (400, "ExpiredToken", Kind::Denied, true, "`session_token`"),
            (400, "InvalidToken", Kind::Denied, true, "`session_token`"),
            (403, "AccessDenied", Kind::Denied, true, "s3:ListBucket"),
            (403, "RequestTimeTooSkewed", Kind::Denied, false, "clock"),
            (403, "InvalidObjectState", Kind::Denied, false, "Glacier"),
            (403, "AuthenticationFailed", Kind::Denied, true, "`sas_token`"),
            (409, "PublicAccessNotPermitted", Kind::Denied, false, "`credentials`"),
            (409, "BlobArchived", Kind::Denied, false, "archive"),
            (400, "UserProjectMissing", Kind::Invalid, false, "pay"),
            (503, "SlowDown", Kind::Transient, false, "`concurrency`"),
            (200, "SlowDown", Kind::Transient, false, "`concurrency`"),
            (400, "RequestTimeout", Kind::Transient, false, "gave up waiting"),
        ] {
            let failure = refused(status, &format!("<Error><Code>{code}</Code></Error>"));
            assert_eq!((failure.error.kind, failure.of_credentials), (kind, of_credentials), "{code}");
            let message = &failure.error.message;
            assert!(message.contains(code) && message.contains(says), "{message}");
            assert_eq!(failure.again == Again::Soon, kind == Kind::Transient, "{code}");
        }
    }

    #[test]
    fn where_the_bucket_is_is_told_as_the_setting_to_write() {
        let body = "<Error><Code>AuthorizationHeaderMalformed</Code><Message>the region 'us-east-1' is wrong</Message>\
                    <Region>eu-west-1</Region></Error>";
        let failure = refused(400, body);
        assert_eq!(failure.error.kind, Kind::Invalid);
        assert!(
            failure.error.message.ends_with("set `region`: the store says region = \"eu-west-1\""),
            "{failure:?}"
        );
        let body =
            "<Error><Code>PermanentRedirect</Code><Endpoint>b.s3-eu-west-1.amazonaws.com</Endpoint></Error>";
        assert!(refused(301, body).error.message.ends_with("its server is b.s3-eu-west-1.amazonaws.com"));
        // Not what has more in it than a name.
        let body =
            "<Error><Code>PermanentRedirect</Code><Endpoint>b/?x</Endpoint><Region>a b</Region></Error>";
        assert!(refused(301, body).error.message.ends_with("set `region`, or `endpoint`"));
    }

    #[test]
    fn only_an_answer_without_a_word_for_it_is_asked_for_again_with_a_body() {
        for status in [301, 400, 401, 403, 405] {
            assert_eq!(refused(status, "").lacks, Lacks::Word, "{status}");
            assert_eq!(refused(status, "<Code>SomeReason</Code>").lacks, Lacks::Nothing, "{status}");
        }
        for status in [404, 408, 412, 429, 500, 503] {
            assert_eq!(refused(status, "").lacks, Lacks::Nothing, "{status}");
        }
        assert_eq!(refused(416, "<Code>InvalidRange</Code>").lacks, Lacks::Range);
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
