//! The provider chain of S3, with an agent on loopback in place of the agent of Amazon EKS.

use std::io::Write;

use tempfile::{NamedTempFile, TempPath};
use tokio::runtime::Handle;
use transfer::error::Kind;
use transfer::store::{Credentials, Store, StoreConfig};

use crate::implementations::config;
use crate::responder::{Answer, Responder};
use crate::suite::read;

const CREDENTIALS: &str = r#"{"AccessKeyId": "ASIAREADER", "SecretAccessKey": "hunter2", "Token": "t0ken",
    "Expiration": "2099-01-01T00:00:00Z"}"#;

/// Answers like the agent that gives a pod its credentials (<https://docs.aws.amazon.com/eks/latest/userguide/pod-id-how-it-works.html>).
fn agent() -> Responder {
    Responder::start(|_, request| match request.headers["authorization"].as_str() {
        "token of the pod" => Answer::Whole(200, vec![], CREDENTIALS.into()),
        _ => Answer::Whole(403, vec![], vec![]),
    })
}

fn bucket() -> Responder {
    Responder::start(|_, _| {
        let headers =
            vec![("ETag", "\"a\"".to_owned()), ("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT".to_owned())];
        Answer::Whole(200, headers, b"object".to_vec())
    })
}

/// A store that asks the agent at one address for credentials, and has its bucket at another.
/// The file has the token by which the agent recognises the pod.
fn chained(agent: &Responder, bucket: &Responder) -> (Store, TempPath) {
    let mut token = NamedTempFile::new().unwrap();
    token.write_all(b"token of the pod").unwrap();
    let token = token.into_temp_path();
    let environment = |name: &str| match name {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI" => Some(format!("{}/v1/credentials", agent.url()).into()),
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE" => Some(token.as_os_str().to_owned()),
        _ => None,
    };
    let url = bucket.url();
    let options = [("endpoint", url.as_str()), ("allow_http", "true")];
    let chain = StoreConfig { credentials: Credentials::Auto, ..config("s3://bucket", &options, &[]) };
    let store = Store::open_in(&chain, &environment, &Handle::current()).unwrap();
    (store, token)
}

#[tokio::test]
async fn the_pods_own_credentials_are_asked_for_where_the_operator_says_so() {
    let (agent, bucket) = (agent(), bucket());
    let (store, _token) = chained(&agent, &bucket);
    // Opening the store makes no request.
    assert!(agent.requests().is_empty() && bucket.requests().is_empty());
    assert_eq!(read(&store, "a", None).await, b"object");
    assert_eq!(read(&store, "b", None).await, b"object");
    let asked = bucket.requests();
    assert!(asked.iter().all(|request| request.headers["authorization"].contains("Credential=ASIAREADER/")));
    assert!(asked.iter().all(|request| request.headers["x-amz-security-token"] == "t0ken"));
    // The credentials are kept while they are valid.
    assert_eq!(agent.requests().len(), 1);
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
async fn a_pod_without_a_role_is_denied_and_finds_no_object_missing() {
    let agent = Responder::start(|_, _| Answer::Whole(404, vec![], b"<Code>NoSuchBucket</Code>".to_vec()));
    let bucket = bucket();
    let (store, _token) = chained(&agent, &bucket);
    for error in [
        store.head("a").await.unwrap_err(),
        store.read("a", None).await.unwrap_err(),
        store.scan("", None).await.unwrap_err(),
    ] {
        assert_eq!(error.kind, Kind::Denied, "{error}");
        assert!(error.message.contains("provides credentials") && error.message.contains("404"), "{error}");
    }
    assert!(bucket.requests().is_empty());
}
