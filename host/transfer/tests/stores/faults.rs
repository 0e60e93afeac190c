//! How stores handle servers that refuse, fail, are slow or silent.

mod changes;

use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use transfer::error::{Error, Kind};
use transfer::store::{Range, Retry, Store, StoreConfig};

use crate::implementations::config;
use crate::responder::{Answer, Request, Responder};
use crate::suite::{pattern, read};

/// Fast retries for tests, for at most this time.
fn fast(at_most: Duration) -> Retry {
    Retry {
        at_most,
        idle: Duration::from_secs(1),
        first_wait: Duration::from_millis(10),
        longest_wait: Duration::from_millis(50),
    }
}

fn web_config(server: &Responder, at_most: Duration) -> StoreConfig {
    let config = config(format!("{}/bucket/backups", server.url()), &[], &[("token", "hunter2")]);
    StoreConfig { retry: fast(at_most), ..config }
}

/// Opens the same server as a web server and as S3, which must handle every fault alike.
fn stores(server: &Responder, at_most: Duration) -> Vec<Store> {
    let url = server.url();
    let web = web_config(server, at_most);
    let s3 = config(
        "s3://bucket/backups",
        &[("endpoint", url.as_str()), ("allow_http", "true")],
        &[("access_key_id", "somebody"), ("secret_access_key", "hunter2"), ("session_token", "hunter2")],
    );
    let open = |config: StoreConfig| {
        let config = StoreConfig { retry: fast(at_most), ..config };
        Store::open(&config, &Handle::current()).unwrap()
    };
    vec![open(web), open(s3)]
}

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(700);

fn refusal(status: u16) -> Answer {
    Answer::Whole(
        status,
        vec![],
        b"<Error><Code>SomeReason</Code><Message>hunter2</Message></Error>".to_vec(),
    )
}

fn headers(etag: &str) -> Vec<(&'static str, String)> {
    vec![("ETag", format!("\"{etag}\"")), ("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT".to_owned())]
}

/// The correct response of a server that supports ranges.
fn right(request: &Request, object: &[u8], etag: &str) -> (u16, Vec<(&'static str, String)>, Vec<u8>) {
    match request.range() {
        None => (200, headers(etag), object.to_vec()),
        Some((first, last)) => {
            let last = last.min(object.len() - 1);
            let mut headers = headers(etag);
            headers.push(("Content-Range", format!("bytes {first}-{last}/{}", object.len())));
            (206, headers, object[first..=last].to_vec())
        }
    }
}

fn whole((status, headers, body): (u16, Vec<(&'static str, String)>, Vec<u8>)) -> Answer {
    Answer::Whole(status, headers, body)
}

/// Reads an object to its end or the first error.
async fn try_read(store: &Store, key: &str) -> Result<Vec<u8>, Error> {
    let (_, mut body) = store.read(key, None).await?;
    let mut bytes = Vec::new();
    while let Some(chunk) = body.chunk().await? {
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn names_the_object_and_no_secret(error: &Error, store: &Store) {
    assert!(error.message.contains(&format!("`base/a.tar` of {}", store.name())), "{error}");
    assert!(!error.message.contains("hunter2") && !error.message.contains("X-Amz"), "{error}");
}

#[tokio::test]
async fn a_permanent_failure_is_reported_at_once_and_not_retried() {
    for (status, kind) in [
        (400, Kind::Invalid),
        (401, Kind::Denied),
        (403, Kind::Denied),
        (404, Kind::NotFound),
        (416, Kind::Invalid),
        (307, Kind::Invalid),
    ] {
        let server = Responder::start(move |_, _| refusal(status));
        for (number, store) in stores(&server, LONG).iter().enumerate() {
            let error = try_read(store, "base/a.tar").await.unwrap_err();
            assert_eq!(error.kind, kind, "{status}: {error}");
            names_the_object_and_no_secret(&error, store);
            assert_eq!(server.requests().len(), number + 1, "{status}");
        }
    }
}

#[tokio::test]
async fn the_error_code_of_a_store_is_reported() {
    let server = Responder::start(|_, _| refusal(403));
    let error = try_read(&stores(&server, LONG)[1], "base/a.tar").await.unwrap_err();
    assert!(error.message.ends_with("the store refuses the request (HTTP 403, SomeReason)"), "{error}");
}

#[tokio::test]
async fn a_transient_failure_is_retried() {
    for status in [500, 503, 429, 408] {
        let object = pattern(100_000);
        let sent = object.clone();
        let server = Responder::start(move |number, request| match number % 4 {
            3 => whole(right(request, &sent, "a")),
            0 => Answer::Nothing,
            _ => refusal(status),
        });
        for (number, store) in stores(&server, LONG).iter().enumerate() {
            assert!(read(store, "base/a.tar", None).await == object);
            // The library itself makes no retries.
            assert_eq!(server.requests().len(), 4 * (number + 1));
        }
    }
}

#[tokio::test]
async fn a_lasting_failure_is_given_up_in_time_and_reported_with_its_object() {
    let server = Responder::start(|_, _| refusal(500));
    for store in stores(&server, SHORT) {
        let begun = Instant::now();
        let error = try_read(&store, "base/a.tar").await.unwrap_err();
        assert_eq!(error.kind, Kind::Transient);
        names_the_object_and_no_secret(&error, &store);
        assert!(begun.elapsed() < SHORT * 5, "{:?}", begun.elapsed());
        // The waits are between 5 and 50 ms; the machine may be slow.
        assert!((3..=150).contains(&server.requests().len()), "{}", server.requests().len());
    }
    let begun = Instant::now();
    let error = stores(&server, SHORT)[1].scan("base/", None).await.unwrap_err();
    assert_eq!(error.kind, Kind::Transient);
    assert!(error.message.contains("`base/`") && begun.elapsed() < SHORT * 5, "{error}");
}

#[tokio::test]
async fn a_server_that_nobody_runs_is_given_up_in_time() {
    let server = Responder::start(|_, _| Answer::Nothing);
    let stores = stores(&server, SHORT);
    drop(server);
    for store in stores {
        let error = store.head("base/a.tar").await.unwrap_err();
        assert_eq!(error.kind, Kind::Transient, "{error}");
        names_the_object_and_no_secret(&error, &store);
    }
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up_in_time() {
    let server = Responder::start(|_, _| Answer::Silence);
    for store in stores(&server, SHORT) {
        let begun = Instant::now();
        let error = try_read(&store, "base/a.tar").await.unwrap_err();
        assert_eq!(error.kind, Kind::Transient, "{error}");
        assert!(error.message.contains("no response for 1s"), "{error}");
        names_the_object_and_no_secret(&error, &store);
        assert!(begun.elapsed() < SHORT + Duration::from_secs(5), "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn a_slow_server_is_waited_for_as_long_as_something_comes() {
    let object = pattern(1000);
    let sent = object.clone();
    let server = Responder::start(move |_, request| {
        let (status, headers, body) = right(request, &sent, "a");
        Answer::Slow(status, headers, body, 100, Duration::from_millis(120))
    });
    // The whole read takes longer than the idle time and the time without progress.
    for store in stores(&server, SHORT) {
        assert!(read(&store, "base/a.tar", None).await == object);
    }
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn a_lost_connection_is_taken_up_where_it_was_cut() {
    for stuck in [false, true] {
        let object = pattern(3_000_000);
        let sent = object.clone();
        let server = Responder::start(move |number, request| {
            let (status, headers, body) = right(request, &sent, "a");
            match number % 4 {
                3 => Answer::Whole(status, headers, body),
                _ if stuck => Answer::Stuck(status, headers, body, 700_000),
                _ => Answer::Cut(status, headers, body, 700_000),
            }
        });
        for (number, store) in stores(&server, LONG).iter().enumerate() {
            assert!(read(store, "base/a.tar", None).await == object);
            let requests = &server.requests()[4 * number..];
            assert_eq!(requests.len(), 4);
            let ranges: Vec<_> = requests.iter().map(Request::range).collect();
            let last = object.len() - 1;
            assert_eq!(
                ranges,
                [None, Some((700_000, last)), Some((1_400_000, last)), Some((2_100_000, last))]
            );
            // The request lets the store compare the etag.
            assert!(requests[1..].iter().all(|request| request.headers["if-match"] == "\"a\""));
        }
    }
}

#[tokio::test]
async fn a_lost_connection_of_a_range_is_taken_up_within_it() {
    let object = pattern(100_000);
    let sent = object.clone();
    let server = Responder::start(move |number, request| {
        let (status, headers, body) = right(request, &sent, "a");
        if number % 2 == 0 {
            Answer::Cut(status, headers, body, 10_000)
        } else {
            Answer::Whole(status, headers, body)
        }
    });
    for store in stores(&server, LONG) {
        let bytes = read(&store, "base/a.tar", Some(Range { offset: 5_000, length: 20_000 })).await;
        assert!(bytes == object[5_000..25_000]);
        assert_eq!(server.requests().last().unwrap().range(), Some((15_000, 24_999)));
    }
}

#[tokio::test]
async fn a_body_that_always_ends_too_early_is_never_taken_for_whole() {
    let object = pattern(100_000);
    let server = Responder::start(move |_, request| {
        let (status, headers, body) = right(request, &object, "a");
        // Every response ends at byte 60,000.
        let left = 60_000 - request.range().map_or(0, |(first, _)| first);
        Answer::Cut(status, headers, body, left)
    });
    for store in stores(&server, SHORT) {
        let error = try_read(&store, "base/a.tar").await.unwrap_err();
        assert_eq!(error.kind, Kind::Transient, "{error}");
        names_the_object_and_no_secret(&error, &store);
    }
}

#[tokio::test]
async fn bytes_before_a_failure_are_returned_and_every_later_read_fails_alike() {
    let object = pattern(100_000);
    let server = Responder::start(move |number, request| {
        let (status, headers, body) = right(request, &object, "a");
        if number == 0 { Answer::Cut(status, headers, body, 10_000) } else { refusal(403) }
    });
    let (_, mut body) = stores(&server, LONG)[1].read("base/a.tar", None).await.unwrap();
    let mut length = 0;
    let error = loop {
        match body.chunk().await {
            Ok(chunk) => length += chunk.unwrap().len(),
            Err(error) => break error,
        }
    };
    assert_eq!((length, error.kind), (10_000, Kind::Denied));
    assert_eq!(body.chunk().await.unwrap_err(), error);
}

#[tokio::test]
async fn retry_after_is_obeyed() {
    let server = Responder::start(move |number, request| match number {
        0 => Answer::Whole(503, vec![("Retry-After", "1".to_owned())], vec![]),
        _ => whole(right(request, b"object", "a")),
    });
    let begun = Instant::now();
    assert_eq!(read(&stores(&server, LONG)[1], "base/a.tar", None).await, b"object");
    assert!(begun.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn an_endless_error_response_is_not_kept() {
    let server = Responder::start(|_, request| match request.target.contains("list-type") {
        false => Answer::Endless(403, vec![b'x'; 1 << 16]),
        true => Answer::Endless(200, b"<ListBucketResult>".repeat(1 << 12)),
    });
    for store in stores(&server, LONG) {
        assert_eq!(try_read(&store, "base/a.tar").await.unwrap_err().kind, Kind::Denied);
    }
    let error = stores(&server, LONG)[1].scan("", None).await.unwrap_err();
    assert_eq!(error.kind, Kind::Limit, "{error}");
}

#[tokio::test]
async fn credentials_go_to_no_other_server() {
    let elsewhere = Responder::start(|_, request| whole(right(request, b"object", "a")));
    let url = elsewhere.url();
    let server = Responder::start(move |_, request| {
        Answer::Whole(307, vec![("Location", format!("{url}{}", request.target))], vec![])
    });
    let [web, s3] = stores(&server, LONG).try_into().unwrap();
    // A redirect to a server that is not granted is refused.
    let error = try_read(&web, "base/a.tar").await.unwrap_err();
    assert_eq!(error.kind, Kind::Denied, "{error}");
    assert!(error.message.contains("redirects = ["), "{error}");
    assert_eq!(elsewhere.requests().len(), 0);
    // A redirect to a granted server is followed without credentials.
    let named = elsewhere.url().strip_prefix("http://").unwrap().trim_end_matches('/').to_owned();
    let granted = StoreConfig { redirects: vec![named], ..web_config(&server, LONG) };
    let granted = Store::open(&granted, &Handle::current()).unwrap();
    assert_eq!(read(&granted, "base/a.tar", None).await, b"object");
    assert!(server.requests()[0].headers["authorization"].contains("hunter2"));
    let redirected = &elsewhere.requests()[0];
    assert!(redirected.headers.values().all(|value| !value.contains("hunter2")), "{redirected:?}");
    // A cloud's request is signed for its server only, so redirects are not followed.
    let error = try_read(&s3, "base/a.tar").await.unwrap_err();
    assert_eq!(error.kind, Kind::Invalid, "{error}");
    assert_eq!(elsewhere.requests().len(), 1);
}

#[tokio::test]
async fn redirects_in_a_circle_end() {
    let server = Responder::start(|number, request| {
        Answer::Whole(302, vec![("Location", format!("{}?{number}", request.target))], vec![])
    });
    let error = try_read(&stores(&server, LONG)[0], "base/a.tar").await.unwrap_err();
    assert_eq!(error.kind, Kind::Limit, "{error}");
    assert!(server.requests().len() <= 7, "{}", server.requests().len());
}

#[tokio::test]
async fn a_web_server_that_sends_another_range_or_encoding_is_refused() {
    let right = ("Content-Range", "bytes 5-7/100");
    for (more, says) in [
        (vec![("Content-Range", "bytes 7-9/100")], Some("bytes from offset 7")),
        (vec![], Some("does not say which range")),
        (vec![right, ("Content-Encoding", "gzip")], Some("(Content-Encoding)")),
        (
            vec![right, ("Content-Encoding", "identity"), ("Content-Encoding", "gzip")],
            Some("(Content-Encoding)"),
        ),
        (vec![right, ("Content-Encoding", "gzip, identity")], Some("(Content-Encoding)")),
        (vec![right, ("Content-Encoding", "Identity")], None),
    ] {
        let given = more.clone();
        let server = Responder::start(move |_, _| {
            let mut headers = headers("a");
            headers.extend(given.iter().map(|(name, value)| (*name, (*value).to_owned())));
            Answer::Whole(206, headers, b"abc".to_vec())
        });
        let store = &stores(&server, LONG)[0];
        let read = store.read("base/a.tar", Some(Range { offset: 5, length: 3 })).await;
        match says {
            None => drop(read.unwrap()),
            Some(says) => {
                let error = read.unwrap_err();
                assert_eq!(error.kind, Kind::Failed, "{error}");
                assert!(error.message.contains(says), "{more:?}: {error}");
            }
        }
        assert_eq!(server.requests().len(), 1);
    }
}

#[tokio::test]
async fn concurrent_requests_are_bounded() {
    use std::num::NonZeroUsize;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counted, largest) = (Arc::clone(&now), Arc::clone(&most));
    let server = Responder::start(move |_, request| {
        largest.fetch_max(counted.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        // Long enough for all concurrent requests to arrive.
        std::thread::sleep(Duration::from_millis(50));
        counted.fetch_sub(1, Ordering::SeqCst);
        whole(right(request, b"object", "a"))
    });
    let limited =
        StoreConfig { concurrency: NonZeroUsize::new(3).unwrap(), ..config(server.url(), &[], &[]) };
    let store = Store::open(&limited, &Handle::current()).unwrap();
    let reading = (0..20).map(|_| read(&store, "base/a.tar", None));
    assert!(futures_util::future::join_all(reading).await.iter().all(|bytes| bytes == b"object"));
    assert_eq!(most.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_credential_that_the_server_sends_back_is_not_passed_on() {
    const TOKEN: &str = "t0ken/of+the-server-0123456789";
    let server = Responder::start(|_, request| {
        let sent = &request.headers["authorization"];
        let text = format!("{}{sent}{}", "x".repeat(1000), "y".repeat(1000)).into_bytes();
        match request.target.as_str() {
            // Sends the text in chunks, none of which contains the whole credential.
            target if target.ends_with("slow") => {
                Answer::Slow(200, headers("a"), text, 7, Duration::from_millis(1))
            }
            target if target.ends_with("mark") => Answer::Whole(200, headers(sent), b"x".to_vec()),
            target if target.ends_with("near") => {
                Answer::Whole(200, headers("a"), text[..1000 + sent.len() - 1].to_vec())
            }
            _ => Answer::Whole(200, headers("a"), text),
        }
    });
    let config = config(server.url(), &[], &[("token", TOKEN)]);
    let store = Store::open(&StoreConfig { retry: fast(LONG), ..config }, &Handle::current()).unwrap();
    for key in ["whole", "slow"] {
        let (_, mut body) = store.read(key, None).await.unwrap();
        let mut got = Vec::new();
        let error = loop {
            match body.chunk().await {
                Ok(Some(bytes)) => got.extend_from_slice(&bytes),
                Ok(None) => panic!("{key} was handed on"),
                Err(error) => break error,
            }
        };
        assert!(error.message.contains("sends back a credential"), "{error}");
        assert!(got.iter().all(|byte| *byte == b'x') || !got.windows(3).any(|part| part == b"t0k"), "{key}");
        // No bytes are returned after the error.
        body.chunk().await.unwrap_err();
    }
    for error in [store.head("mark").await.unwrap_err(), try_read(&store, "mark").await.unwrap_err()] {
        assert!(error.message.contains("sends back a credential"), "{error}");
        assert!(!error.message.contains("t0ken"), "{error}");
    }
    // Similar bytes are returned.
    assert_eq!(read(&store, "near", None).await.len(), 1000 + "Bearer ".len() + TOKEN.len() - 1);
}
