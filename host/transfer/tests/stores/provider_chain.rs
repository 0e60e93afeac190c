//! The provider chain of S3, with a metadata service on loopback in place of that of an Amazon instance.

use tokio::runtime::Handle;
use transfer::error::Kind;
use transfer::store::{Store, StoreConfig};

use crate::implementations::config;
use crate::responder::{Answer, Responder};
use crate::suite::read;

const CREDENTIALS: &str = r#"{"AccessKeyId": "ASIAREADER", "SecretAccessKey": "hunter2", "Token": "t0ken",
    "Expiration": "2099-01-01T00:00:00Z"}"#;

/// Responds like the metadata service of an instance
/// (<https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-metadata-security-credentials.html>).
fn metadata() -> Responder {
    Responder::start(|_, request| {
        let text = match request.target.as_str() {
            "/latest/api/token" => "session",
            "/latest/meta-data/iam/security-credentials/" => "reader",
            "/latest/meta-data/iam/security-credentials/reader" => CREDENTIALS,
            _ => return Answer::Whole(404, vec![], vec![]),
        };
        Answer::Whole(200, vec![], text.into())
    })
}

fn bucket() -> Responder {
    Responder::start(|_, _| {
        let headers =
            vec![("ETag", "\"a\"".to_owned()), ("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT".to_owned())];
        Answer::Whole(200, headers, b"object".to_vec())
    })
}

/// Opens a store that gets credentials from this metadata service and reads this bucket.
fn chained(metadata: &Responder, bucket: &Responder, more: &[(&str, &str)]) -> Store {
    let (metadata, url) = (metadata.url(), bucket.url());
    let options =
        [("endpoint", url.as_str()), ("allow_http", "true"), ("metadata_endpoint", metadata.as_str())];
    let chain =
        StoreConfig { provider_chain: true, ..config("s3://bucket", &[&options[..], more].concat(), &[]) };
    Store::open(&chain, &Handle::current()).unwrap()
}

#[tokio::test]
async fn the_instances_own_credentials_are_asked_for_where_the_operator_says_so() {
    let (metadata, bucket) = (metadata(), bucket());
    let store = chained(&metadata, &bucket, &[]);
    // Opening makes no requests.
    assert!(metadata.requests().is_empty() && bucket.requests().is_empty());
    assert_eq!(read(&store, "a", None).await, b"object");
    assert_eq!(read(&store, "b", None).await, b"object");
    let asked = bucket.requests();
    assert!(asked.iter().all(|request| request.headers["authorization"].contains("Credential=ASIAREADER/")));
    assert!(asked.iter().all(|request| request.headers["x-amz-security-token"] == "t0ken"));
    // The credentials are kept while they are valid.
    assert_eq!(metadata.requests().len(), 3);
}

#[tokio::test]
async fn without_credentials_and_provider_chain_nothing_is_signed() {
    let bucket = bucket();
    let url = bucket.url();
    let options = [("endpoint", url.as_str()), ("allow_http", "true")];
    let store = Store::open(&config("s3://bucket", &options, &[]), &Handle::current()).unwrap();
    assert_eq!(read(&store, "a", None).await, b"object");
    assert!(bucket.requests().iter().all(|request| !request.headers.contains_key("authorization")));
}

#[tokio::test]
async fn an_instance_without_a_role_is_denied_and_finds_no_object_missing() {
    let metadata = Responder::start(|_, request| match request.target.as_str() {
        "/latest/api/token" => Answer::Whole(200, vec![], "session".into()),
        _ => Answer::Whole(404, vec![], b"<Code>NoSuchBucket</Code>".to_vec()),
    });
    let bucket = bucket();
    let store = chained(&metadata, &bucket, &[]);
    for error in [
        store.head("a").await.unwrap_err(),
        store.read("a", None).await.unwrap_err(),
        store.scan("", None).await.unwrap_err(),
    ] {
        assert_eq!(error.kind, Kind::Denied, "{error}");
        assert!(error.message.contains("gives credentials") && error.message.contains("404"), "{error}");
    }
    assert!(bucket.requests().is_empty());
}

#[tokio::test]
async fn a_refusal_that_was_overcome_is_not_reported_as_the_cause_of_a_later_failure() {
    let metadata = Responder::start(|_, request| match request.target.as_str() {
        // The older version of the service needs no token.
        "/latest/api/token" => Answer::Whole(403, vec![], vec![]),
        "/latest/meta-data/iam/security-credentials/" => Answer::Whole(200, vec![], "reader".into()),
        _ => Answer::Whole(200, vec![], CREDENTIALS.into()),
    });
    let bucket = Responder::start(|_, _| Answer::Whole(200, vec![], "no listing".into()));
    let store = chained(&metadata, &bucket, &[("imdsv1_fallback", "true")]);
    let error = store.scan("", None).await.unwrap_err();
    assert_eq!(error.kind, Kind::Failed, "{error}");
    assert_eq!(bucket.requests().len(), 1);
}
