//! A directory of a web server as a store: objects are read by their URL and cannot be listed.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use reqwest::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_RANGE, ETAG, HeaderMap, HeaderName,
    HeaderValue, IF_MATCH, LAST_MODIFIED, RANGE, RETRY_AFTER, TRANSFER_ENCODING,
};
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Client, Response, StatusCode, Url};
use tokio::runtime::Handle;

use super::body::Source;
use super::codings::other_coding;
use super::failures::{ErrorResponse, interrupted, unanswered};
use super::key::{self, KeyLimit};
use super::proxy::{Proxies, with_proxy_named};
use super::retry::{Failure, within};
use super::transport::{TrustRoots, on};
use super::{Backend, Etag, Object, Page, Range};
use crate::error::{Error, Kind};

/// How many redirects are followed for one request.
const REDIRECTS: usize = 5;

/// A web server's directory.
pub(super) struct Web {
    pub(super) client: Client,
    pub(super) runtime: Handle,
    /// Ends with `/`.
    pub(super) base: Url,
    pub(super) authorization: Option<HeaderValue>,
    pub(super) trust_roots: TrustRoots,
    pub(super) proxies: Proxies,
    /// How long to wait for one response.
    pub(super) idle: Duration,
}

/// A host and a port to which the operator allows redirects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    /// As in a URL: in lower case, an IPv6 address in brackets.
    host: String,
    port: u16,
}

impl Origin {
    /// Parses `HOST:PORT`; `None` if the text is anything else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let port: u16 = port.parse().ok().filter(|port| *port > 0)?;
        let url = Url::parse(&format!("https://{text}/")).ok()?;
        let plain = url.username().is_empty()
            && url.password().is_none()
            && url.path() == "/"
            && url.query().is_none();
        let own = url.host_str()?;
        (plain && own.eq_ignore_ascii_case(host)).then(|| Self { host: own.to_owned(), port })
    }

    fn is(&self, url: &Url) -> bool {
        url.host_str() == Some(self.host.as_str()) && url.port_or_known_default() == Some(self.port)
    }
}

/// Returns the policy for redirects: a few, to the server itself or to `granted` origins, and none from https to http. The client
/// itself drops `Authorization` from requests to another host or port.
pub(super) fn redirects(granted: Vec<Origin>) -> Policy {
    Policy::custom(move |attempt: Attempt<'_>| {
        match may_follow(attempt.previous(), attempt.url(), &granted) {
            Ok(()) => attempt.follow(),
            Err(error) => attempt.error(error),
        }
    })
}

fn may_follow(previous: &[Url], next: &Url, granted: &[Origin]) -> Result<(), Error> {
    if next.scheme() != "https" && previous.iter().any(|url| url.scheme() == "https") {
        return Err(Error::new(
            Kind::Denied,
            "the server redirects from https to http, which is not followed",
        ));
    }
    let is_own = previous.first().is_some_and(|first| first.origin() == next.origin());
    if !is_own && !granted.iter().any(|origin| origin.is(next)) {
        let place = format!(
            "{}:{}",
            next.host_str().unwrap_or_default().escape_debug(),
            next.port_or_known_default().unwrap_or_default()
        );
        return Err(Error::new(
            Kind::Denied,
            format!(
                "the server redirects to another server, {}://{place}, which is not granted; `redirects = [\"{place}\"]` in the \
                 grant of the store allows it",
                next.scheme().escape_debug()
            ),
        ));
    }
    // Web servers respond like this for a directory, whose page of links is not an object.
    if previous.last().is_some_and(|url| next.path() == format!("{}/", url.path())) {
        return Err(Error::new(Kind::NotFound, "the server has a directory at this URL, not an object"));
    }
    if previous.len() > REDIRECTS {
        return Err(Error::new(Kind::Limit, format!("the server redirects more than {REDIRECTS} times")));
    }
    Ok(())
}

impl Web {
    /// Requests an object.
    async fn get(&self, key: &str, headers: HeaderMap) -> Result<Response, Failure> {
        let mut url = self.base.clone();
        match url.path_segments_mut() {
            Ok(mut segments) => drop(segments.pop_if_empty().extend(key.split('/'))),
            Err(()) => return Err(Failure::never(Kind::Invalid, "the store's URL cannot have a path")),
        }
        let mut request = self.client.get(url).headers(headers).header(ACCEPT_ENCODING, "identity");
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        let response = within(self.idle, async {
            let result = on(&self.runtime, request.send())
                .await
                .map_err(|stopped| Failure::never(Kind::Cancelled, stopped.to_string()))?;
            result.map_err(|error| {
                let url = error.url().unwrap_or(&self.base);
                let host = url.host_str().unwrap_or_default().to_owned();
                let proxy = self.proxies.proxy_for(url.as_str());
                with_proxy_named(no_response(&error.without_url(), &host, self.trust_roots), proxy.as_deref())
            })
        })
        .await?;
        // In encoded bytes, the host could not find a credential that the server sends back, and the method would not get the bytes that
        // are stored.
        for (name, plain) in [(CONTENT_ENCODING, "identity"), (TRANSFER_ENCODING, "chunked")] {
            if other_coding(response.headers(), &name, plain).is_some() {
                let name = if name == CONTENT_ENCODING { "Content-Encoding" } else { "Transfer-Encoding" };
                let message =
                    format!("the server encodes the bytes ({name}), although the request does not allow it");
                return Err(Failure::never(Kind::Failed, message));
            }
        }
        Ok(response)
    }
}

#[async_trait]
impl Backend for Web {
    fn longest_key(&self) -> KeyLimit {
        key::DIRECTORY
    }

    async fn scan(&self, _prefix: &str, _after: Option<&str>) -> Result<Page, Failure> {
        let message = "a web server cannot be listed; name the objects, or use a store that can be listed (file, s3, gs, az)";
        Err(Failure::never(Kind::Invalid, message))
    }

    async fn head(&self, key: &str) -> Result<Object, Failure> {
        // Uses GET, because some URLs (presigned or behind a proxy) allow only that.
        let first = HeaderMap::from_iter([(RANGE, HeaderValue::from_static("bytes=0-0"))]);
        let mut response = self.get(key, first).await?;
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            // An empty object has no first byte, and requesting all of it costs nothing.
            response = self.get(key, HeaderMap::new()).await?;
        }
        let size = match response.status() {
            StatusCode::OK => length(&response)?,
            StatusCode::PARTIAL_CONTENT => content_range(&response)?.size,
            _ => return Err(refused(&response)),
        };
        Ok(object(&response, key, size))
    }

    async fn open(
        &self,
        key: &str,
        range: Option<Range>,
        known: Option<&Object>,
    ) -> Result<(Object, Source), Failure> {
        let mut headers = HeaderMap::new();
        if let Some(Range { offset, length }) = range {
            let last = offset.saturating_add(length).saturating_sub(1);
            headers.insert(RANGE, header(&format!("bytes={offset}-{last}"))?);
        }
        if let Some(etag) = known.and_then(|known| known.etag.as_ref()?.if_match()) {
            headers.insert(IF_MATCH, header(&etag)?);
        }
        let response = self.get(key, headers).await?;
        let (size, skip) = match (response.status(), range) {
            (StatusCode::OK, range) => (length(&response)?, range.map_or(0, |range| range.offset)),
            (StatusCode::PARTIAL_CONTENT, Some(range)) => {
                let given = content_range(&response)?;
                if given.from != range.offset {
                    let message = format!(
                        "the server was asked for bytes from offset {} and sends bytes from offset {}",
                        range.offset, given.from
                    );
                    return Err(Failure::never(Kind::Failed, message));
                }
                (given.size, 0)
            }
            _ => return Err(refused(&response)),
        };
        let object = object(&response, key, size);
        Ok((object, Source::Stream(bytes(response, skip))))
    }
}

/// Returns the bytes of a response without the first `skip` bytes, which a server without support for ranges sends. Skipped bytes
/// become empty chunks, so that they count as progress.
fn bytes(
    response: Response,
    mut skip: u64,
) -> futures_util::stream::BoxStream<'static, Result<Bytes, Failure>> {
    response
        .bytes_stream()
        .map(move |chunk| {
            let mut chunk = chunk.map_err(|error| interrupted(&error.without_url()))?;
            let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(chunk.len());
            skip -= skipped as u64;
            Ok(chunk.split_off(skipped))
        })
        .boxed()
}

fn no_response(error: &reqwest::Error, host: &str, trust_roots: TrustRoots) -> Failure {
    // An error of the redirect policy is this crate's own, and permanent.
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if let Some(own) = inner.downcast_ref::<Error>() {
            return own.clone().into();
        }
        cause = inner.source();
    }
    unanswered(error, host, trust_roots)
}

fn refused(response: &Response) -> Failure {
    ErrorResponse::with(response.status().as_u16(), text(response, RETRY_AFTER)).failure()
}

fn text(response: &Response, name: HeaderName) -> Option<&str> {
    response.headers().get(name).and_then(|value| value.to_str().ok())
}

fn header(value: &str) -> Result<HeaderValue, Failure> {
    HeaderValue::from_str(value).map_err(|error| Failure::never(Kind::Failed, error.to_string()))
}

/// Returns the length of a whole response.
fn length(response: &Response) -> Result<u64, Failure> {
    response.content_length().ok_or_else(|| {
        let message = "the server does not send the length of the object (no Content-Length), so a truncated response could not be detected";
        Failure::never(Kind::Invalid, message)
    })
}

/// The part of an object that a response contains.
#[derive(Debug, PartialEq, Eq)]
struct ContentRange {
    from: u64,
    size: u64,
}

fn content_range(response: &Response) -> Result<ContentRange, Failure> {
    let value = text(response, CONTENT_RANGE).unwrap_or_default();
    read_content_range(value).ok_or_else(|| {
        Failure::never(
            Kind::Failed,
            format!(
                "the server does not say which range it sends (Content-Range is `{}`)",
                value.escape_debug()
            ),
        )
    })
}

/// Parses `bytes FROM-TO/SIZE` (RFC 9110, 14.4).
fn read_content_range(value: &str) -> Option<ContentRange> {
    let (range, size) = value.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (from, to) = range.split_once('-')?;
    let (from, to, size): (u64, u64, u64) = (from.parse().ok()?, to.parse().ok()?, size.parse().ok()?);
    (from <= to && to < size).then_some(ContentRange { from, size })
}

fn object(response: &Response, key: &str, size: u64) -> Object {
    Object {
        key: key.to_owned(),
        size,
        modified: text(response, LAST_MODIFIED).and_then(seconds),
        etag: text(response, ETAG).and_then(Etag::read),
    }
}

/// Parses `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, 5.6.7) into seconds since 1970. Does not parse the obsolete forms.
fn seconds(date: &str) -> Option<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut words = date.split_once(", ")?.1.split(' ');
    let day: u64 = words.next()?.parse().ok().filter(|day| (1..=31).contains(day))?;
    let month = words.next()?;
    let month = MONTHS.iter().position(|name| *name == month)? as u64;
    let year: u64 = words.next()?.parse().ok().filter(|year| (1970..=9999).contains(year))?;
    let mut clock = words.next()?.split(':').map(|part| part.parse::<u64>().ok().filter(|part| *part <= 60));
    let (hours, minutes, seconds) = (clock.next()??, clock.next()??, clock.next()??);
    if words.next() != Some("GMT") {
        return None;
    }
    // Counts days in years that begin in March, so that the leap day is the last day of a year.
    let (shifted_year, shifted_month) = if month < 2 { (year - 1, month + 10) } else { (year, month - 2) };
    let leap_days = |year: u64| year / 4 - year / 100 + year / 400;
    let days = shifted_year * 365 + leap_days(shifted_year) + (shifted_month * 153 + 2) / 5 + day - 1;
    // The number of the day 1970-01-01 in the same count.
    let epoch = 1969 * 365 + leap_days(1969) + (10 * 153 + 2) / 5;
    Some((days - epoch) * 86_400 + hours * 3_600 + minutes * 60 + seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_dates_are_parsed() {
        for (date, expected) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Thu, 29 Feb 2024 23:59:59 GMT", Some(1_709_251_199)),
            ("Fri, 01 Mar 2024 00:00:00 GMT", Some(1_709_251_200)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", None),
            ("Sun, 06 Nov 1994 08:49 GMT", None),
            ("Sun, 06 Nov 0001 08:49:37 GMT", None),
            ("", None),
        ] {
            assert_eq!(seconds(date), expected, "{date}");
        }
    }

    #[test]
    fn no_redirect_leaves_tls_and_the_number_of_redirects_is_limited() {
        let url = |text: &str| Url::parse(text).unwrap();
        let granted = [Origin::parse("b:443").unwrap()];
        let kind = |previous: &[&str], next: &str| {
            let previous: Vec<Url> = previous.iter().map(|text| url(text)).collect();
            may_follow(&previous, &url(next), &granted).map_err(|error| error.kind)
        };
        assert_eq!(kind(&["http://a/x"], "https://b/y"), Ok(()));
        assert_eq!(kind(&["https://a/x"], "https://b/y"), Ok(()));
        assert_eq!(kind(&["https://a/x"], "http://a/x"), Err(Kind::Denied));
        assert_eq!(kind(&["https://a/x", "https://a/y"], "http://a/z"), Err(Kind::Denied));
        assert_eq!(kind(&["http://a/x"], "http://a/x/"), Err(Kind::NotFound));
        assert_eq!(kind(&["http://a/x"; REDIRECTS], "http://a/y"), Ok(()));
        assert_eq!(kind(&["http://a/x"; REDIRECTS + 1], "http://a/y"), Err(Kind::Limit));
    }

    #[test]
    fn redirects_go_only_to_the_own_server_and_to_granted_ones() {
        let url = |text: &str| Url::parse(text).unwrap();
        let granted = [Origin::parse("CDN.example:443").unwrap(), Origin::parse("[::1]:8443").unwrap()];
        let follows = |from: &str, next: &str| may_follow(&[url(from)], &url(next), &granted).is_ok();
        for next in [
            "http://a:81/y",
            "http://b/y",
            "http://a.b/y",
            "http://cdn.example/y",
            "https://a/y",
            "http://127.0.0.1/",
        ] {
            assert!(!follows("http://a/x", next), "{next}");
            let error = may_follow(&[url("http://a/x")], &url(next), &granted).unwrap_err();
            assert!(
                error.kind == Kind::Denied && error.message.contains("redirects = ["),
                "{}",
                error.message
            );
        }
        for next in ["http://a/y", "http://a:80/y", "https://cdn.example/y", "https://[::1]:8443/y"] {
            assert!(follows("http://a/x", next), "{next}");
        }
        // The first URL of the request decides, not the previous one.
        let by = [url("http://a/x"), url("https://cdn.example/y")];
        assert!(may_follow(&by, &url("https://cdn.example/z"), &granted).is_ok());
        assert!(may_follow(&by, &url("https://evil/z"), &granted).is_err());
        for no in [
            "",
            "a",
            "a:",
            "a:0",
            "a:65536",
            "u@a:1",
            "a/b:1",
            "::1:1",
            "https://a:1",
            "a:1/",
            "a:b:1",
            " a:1",
        ] {
            assert_eq!(Origin::parse(no), None, "{no}");
        }
    }

    #[test]
    fn a_contradictory_content_range_is_refused() {
        assert_eq!(read_content_range("bytes 5-9/10"), Some(ContentRange { from: 5, size: 10 }));
        for value in
            ["", "bytes 5-9/*", "bytes */10", "bytes 9-5/10", "bytes 5-10/10", "bytes -1-2/10", "items 0-1/2"]
        {
            assert_eq!(read_content_range(value), None, "{value}");
        }
    }
}
