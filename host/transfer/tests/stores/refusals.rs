//! Messages about refusals, renewed credentials, and notices about retries.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use foundation::secret::Secret;
use tokio::runtime::Handle;
use transfer::error::Kind;
use transfer::store::{Notice, PLAN_RETRY_FOR, Renewal, Retry, Store, StoreConfig};

use crate::implementations::config;
use crate::responder::{Answer, Request, Responder};
use crate::suite::read;

fn s3(server: &Responder, credentials: &[(&str, &str)]) -> StoreConfig {
    let url = server.url();
    config("s3://bucket/backups", &[("endpoint", url.as_str()), ("allow_http", "true")], credentials)
}

const OLD: [(&str, &str); 3] =
    [("access_key_id", "old-id"), ("secret_access_key", "old-secret"), ("session_token", "old-token")];

fn open(config: &StoreConfig) -> Store {
    Store::open(config, &Handle::current()).unwrap()
}

fn refusal(status: u16, code: &str, more: &str) -> Answer {
    Answer::Whole(status, vec![], format!("<Error><Code>{code}</Code>{more}</Error>").into_bytes())
}

fn object(bytes: &[u8]) -> Answer {
    let headers =
        vec![("ETag", "\"a\"".to_owned()), ("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT".to_owned())];
    Answer::Whole(200, headers, bytes.to_vec())
}

#[tokio::test]
async fn a_refused_head_request_is_repeated_to_get_the_error_code() {
    for (status, code, more, kind, says) in [
        (403, "AccessDenied", "", Kind::Denied, "s3:ListBucket"),
        (403, "RequestTimeTooSkewed", "", Kind::Denied, "clock"),
        (400, "ExpiredToken", "", Kind::Denied, "`session_token`"),
        (
            400,
            "AuthorizationHeaderMalformed",
            "<Region>eu-west-1</Region>",
            Kind::Invalid,
            "region = \"eu-west-1\"",
        ),
        (
            301,
            "PermanentRedirect",
            "<Endpoint>b.s3.example</Endpoint>",
            Kind::Invalid,
            "its server is b.s3.example",
        ),
    ] {
        let server = Responder::start(move |_, _| refusal(status, code, more));
        let error = open(&s3(&server, &OLD)).head("a").await.unwrap_err();
        assert_eq!(error.kind, kind, "{code}: {error}");
        assert!(error.message.contains(code) && error.message.contains(says), "{code}: {error}");
        let methods: Vec<String> = server.requests().into_iter().map(|request| request.method).collect();
        assert_eq!(methods, ["HEAD", "GET"], "{code}");
        assert_eq!(server.requests()[1].range(), Some((0, 0)));
    }
}

#[tokio::test]
async fn the_region_in_the_header_of_a_response_without_a_body_is_named() {
    for status in [301, 400] {
        let server = Responder::start(move |_, _| {
            Answer::Whole(status, vec![("x-amz-bucket-region", "eu-west-1".to_owned())], vec![])
        });
        let store = open(&s3(&server, &OLD));
        let (head, read) = (store.head("a").await.unwrap_err(), store.read("a", None).await.unwrap_err());
        for error in [head, read] {
            assert_eq!(error.kind, Kind::Invalid, "{error}");
            assert!(error.message.contains("region = \"eu-west-1\""), "{error}");
        }
    }
}

#[tokio::test]
async fn an_object_that_may_be_read_and_not_be_asked_about_is_found() {
    let server = Responder::start(|_, request| match (request.method.as_str(), request.range()) {
        ("HEAD", _) => Answer::Whole(403, vec![], vec![]),
        (_, Some(_)) => {
            let headers = vec![
                ("ETag", "\"a\"".to_owned()),
                ("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT".to_owned()),
                ("Content-Range", "bytes 0-0/5".to_owned()),
            ];
            Answer::Whole(206, headers, b"h".to_vec())
        }
        _ => object(b"hello"),
    });
    assert_eq!(open(&s3(&server, &OLD)).head("a").await.unwrap().size, 5);
    // An empty object has no first byte.
    let server = Responder::start(|_, request| match (request.method.as_str(), request.range()) {
        ("HEAD", _) => Answer::Whole(403, vec![], vec![]),
        (_, Some(_)) => refusal(416, "InvalidRange", ""),
        _ => object(b""),
    });
    assert_eq!(open(&s3(&server, &OLD)).head("a").await.unwrap().size, 0);
}

/// Credentials that another process renews.
#[derive(Debug, Default)]
struct Files {
    now: Mutex<Vec<(String, Secret)>>,
    looks: AtomicUsize,
}

impl Files {
    fn of(credentials: &[(&str, &str)]) -> Arc<Self> {
        let files = Self::default();
        files.write(credentials);
        Arc::new(files)
    }

    fn write(&self, credentials: &[(&str, &str)]) {
        let secret = |(name, value): &(&str, &str)| ((*name).to_owned(), Secret::new(*value));
        *self.now.lock().unwrap() = credentials.iter().map(secret).collect();
    }
}

impl Renewal for Files {
    fn credentials(&self) -> Result<Vec<(String, Secret)>, String> {
        self.looks.fetch_add(1, Ordering::SeqCst);
        Ok(self.now.lock().unwrap().clone())
    }
}

const NEW: [(&str, &str); 3] =
    [("access_key_id", "new-id"), ("secret_access_key", "new-secret"), ("session_token", "new-token")];

/// Accepts only the new token, and truncates its first response.
fn takes_the_new_token(files: Arc<Files>) -> Responder {
    Responder::start(move |number, request| {
        if number == 0 {
            let Answer::Whole(status, headers, body) = object(&[7; 100_000]) else { unreachable!() };
            return Answer::Cut(status, headers, body, 10_000);
        }
        if number == 1 {
            // An agent on the machine would have renewed the token by then.
            files.write(&NEW);
        }
        let token = request.headers.get("x-amz-security-token").or(request.headers.get("authorization"));
        match (token.is_some_and(|token| token.contains("new-token")), request.range()) {
            (false, _) => refusal(400, "ExpiredToken", ""),
            (true, Some((first, last))) => {
                let Answer::Whole(_, mut headers, body) = object(&[7; 100_000]) else { unreachable!() };
                headers.push(("Content-Range", format!("bytes {first}-{last}/100000")));
                Answer::Whole(206, headers, body[first..=last].to_vec())
            }
            (true, None) => object(&[7; 100_000]),
        }
    })
}

#[tokio::test]
async fn credentials_that_were_renewed_in_the_middle_of_a_read_are_used_for_the_rest() {
    let files = Files::of(&OLD);
    let server = takes_the_new_token(Arc::clone(&files));
    let store = open(&StoreConfig { renewal: Some(Arc::clone(&files) as _), ..s3(&server, &OLD) });
    assert!(read(&store, "a", None).await == [7; 100_000]);
    assert_eq!(server.requests().len(), 3);
    assert_eq!(files.looks.load(Ordering::SeqCst), 1);
    // No further request is refused.
    assert_eq!(read(&store, "b", None).await.len(), 100_000);
    assert_eq!(server.requests().len(), 4);
}

#[tokio::test]
async fn a_web_servers_token_that_was_renewed_is_used_too() {
    let files = Files::of(&[("token", "old-token")]);
    let server = Responder::start({
        let files = Arc::clone(&files);
        move |_, request: &Request| {
            files.write(&[("token", "new-token")]);
            match request.headers["authorization"].as_str() {
                "Bearer new-token" => object(b"hello"),
                _ => Answer::Whole(401, vec![], vec![]),
            }
        }
    });
    let web = config(format!("{}/pg", server.url()), &[], &[("token", "old-token")]);
    let store = open(&StoreConfig { renewal: Some(files), ..web });
    assert_eq!(read(&store, "a", None).await, b"hello");
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn neither_a_token_that_was_renewed_nor_the_one_before_comes_back() {
    let files = Files::of(&[("token", "the-old-token")]);
    let server = Responder::start({
        let files = Arc::clone(&files);
        move |_, request: &Request| {
            files.write(&[("token", "the-new-and-longer-token")]);
            match request.headers["authorization"].as_str() {
                "Bearer the-new-and-longer-token" if request.target.ends_with("old") => {
                    object(b"x the-old-token y")
                }
                "Bearer the-new-and-longer-token" if request.target.ends_with("new") => {
                    object(b"x the-new-and-longer-token y")
                }
                "Bearer the-new-and-longer-token" => object(b"hello"),
                _ => Answer::Whole(401, vec![], vec![]),
            }
        }
    });
    let web = config(format!("{}/pg", server.url()), &[], &[("token", "the-old-token")]);
    let store = open(&StoreConfig { renewal: Some(files), ..web });
    for key in ["new", "old"] {
        let (_, mut body) = store.read(key, None).await.unwrap();
        let error = body.chunk().await.unwrap_err();
        assert!(error.message.contains("sends back a credential"), "{key}: {error}");
    }
    assert_eq!(read(&store, "a", None).await, b"hello");
}

#[tokio::test]
async fn a_shared_access_signature_that_was_renewed_is_used_too() {
    let files = Files::of(&[("sas_token", "sv=1&se=then&sig=old")]);
    let server = Responder::start({
        let files = Arc::clone(&files);
        move |_, request: &Request| {
            files.write(&[("sas_token", "sv=1&se=later&sig=new")]);
            match request.target.contains("sig=new") {
                true => object(b"hello"),
                false => {
                    Answer::Whole(403, vec![("x-ms-error-code", "AuthenticationFailed".to_owned())], vec![])
                }
            }
        }
    });
    let url = server.url();
    let options = [("endpoint", url.as_str()), ("allow_http", "true"), ("account", "account")];
    let azure = config("az://bucket/backups", &options, &[("sas_token", "sv=1&se=then&sig=old")]);
    let store = open(&StoreConfig { renewal: Some(files), ..azure });
    assert_eq!(read(&store, "a", None).await, b"hello");
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn files_of_one_set_that_are_written_one_after_the_other_are_waited_for() {
    let files = Files::of(&OLD);
    let server = Responder::start({
        let files = Arc::clone(&files);
        move |number, request: &Request| {
            let token = &request.headers["x-amz-security-token"];
            let id = &request.headers["authorization"];
            match number {
                0 => files.write(&[NEW[0], OLD[1], OLD[2]]),
                1 => {
                    let files = Arc::clone(&files);
                    std::thread::spawn(move || {
                        std::thread::sleep(Duration::from_millis(1_500));
                        files.write(&NEW);
                    });
                }
                _ => {}
            }
            if id.contains("new-id") && token == "new-token" {
                object(b"hello")
            } else {
                refusal(403, "InvalidToken", "")
            }
        }
    });
    let store = open(&StoreConfig { renewal: Some(files), ..s3(&server, &OLD) });
    assert_eq!(read(&store, "a", None).await, b"hello");
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn credentials_that_were_not_renewed_are_refused_once_and_read_again_once() {
    let files = Files::of(&OLD);
    let server = Responder::start(|_, _| refusal(400, "ExpiredToken", ""));
    let store = open(&StoreConfig { renewal: Some(Arc::clone(&files) as _), ..s3(&server, &OLD) });
    let error = store.read("a", None).await.unwrap_err();
    assert_eq!(error.kind, Kind::Denied, "{error}");
    assert_eq!((server.requests().len(), files.looks.load(Ordering::SeqCst)), (1, 1));
    // After a failure of another kind the credentials are not read again.
    let server = Responder::start(|_, _| refusal(403, "InvalidObjectState", ""));
    let store = open(&StoreConfig { renewal: Some(Arc::clone(&files) as _), ..s3(&server, &OLD) });
    store.read("a", None).await.unwrap_err();
    assert_eq!(files.looks.load(Ordering::SeqCst), 1);
}

/// The notices and when they were sent.
type Received = Arc<Mutex<Vec<(Instant, Notice)>>>;

/// Opens a store and collects its notices.
fn with_notices(config: &StoreConfig) -> (Store, Received) {
    let notices = Received::default();
    let received = Arc::clone(&notices);
    let store = open(config)
        .with_notices(Arc::new(move |notice| received.lock().unwrap().push((Instant::now(), notice))));
    (store, notices)
}

#[tokio::test]
async fn every_failed_attempt_is_reported() {
    let server = Responder::start(|number, _| match number {
        0 => refusal(503, "SlowDown", ""),
        1 => Answer::Nothing,
        _ => object(b"hello"),
    });
    let retry = Retry { first_wait: Duration::from_millis(20), ..Retry::default() };
    let (store, notices) = with_notices(&StoreConfig { retry, ..s3(&server, &OLD) });
    assert_eq!(read(&store, "a", None).await, b"hello");
    let notices = notices.lock().unwrap();
    let [(_, first), (_, second)] = &notices[..] else { panic!("{notices:?}") };
    assert_eq!((first.attempt, second.attempt), (1, 2));
    assert_eq!((first.store.as_str(), first.about.as_str()), ("s3://bucket/backups", "a"));
    assert!(first.cause.contains("SlowDown") && first.next_try_in.is_some(), "{first:?}");
}

#[tokio::test]
async fn silence_is_reported_within_seconds() {
    let server = Responder::start(|_, _| Answer::Silence);
    let retry = Retry { at_most: Duration::from_secs(7), idle: Duration::from_secs(7), ..Retry::default() };
    let (store, notices) = with_notices(&StoreConfig { retry, ..s3(&server, &OLD) });
    let begun = Instant::now();
    assert_eq!(store.scan("", None).await.unwrap_err().kind, Kind::Transient);
    let notices = notices.lock().unwrap();
    let (at, first) = &notices[0];
    assert!(*at - begun < Duration::from_millis(6_500), "{:?}", *at - begun);
    assert_eq!((first.attempt, first.next_try_in), (1, None));
    assert!(first.cause.contains("no response for 5.0 s"), "{first:?}");
}

#[test]
fn in_plan_a_store_is_given_up_sooner_and_after_more_than_one_attempt() {
    let config = StoreConfig::new("s3://b").for_plan();
    assert_eq!(config.retry.at_most, PLAN_RETRY_FOR);
    assert!(config.retry.idle * 2 <= PLAN_RETRY_FOR);
    // `for_plan` never lengthens the time.
    let short = Retry { at_most: Duration::from_secs(3), ..Retry::default() };
    assert_eq!(
        StoreConfig { retry: short, ..StoreConfig::new("s3://b") }.for_plan().retry.at_most,
        short.at_most
    );
    let long = StoreConfig { plan_retry_for: Duration::from_secs(300), ..StoreConfig::new("s3://b") };
    assert_eq!(long.for_plan().retry, Retry { at_most: Duration::from_secs(300), ..Retry::default() });
}
