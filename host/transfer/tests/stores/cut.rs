//! Listings that are truncated, repeat their token, list a key twice, or are not listings: no object of a backup may be left out
//! silently.

use tokio::runtime::Handle;
use transfer::error::Kind;
use transfer::store::{Page, Store};

use crate::implementations::config;
use crate::responder::{Answer, Request, Responder};

/// The clouds that can be listed.
const CLOUDS: [&str; 3] = ["s3", "gs", "az"];

/// Opens a bucket or container at this server.
fn bucket(cloud: &str, server: &Responder) -> Store {
    let url = server.url();
    let url = url.as_str();
    let config = match cloud {
        "s3" => config("s3://bucket/backups", &[("endpoint", url), ("allow_http", "true")], &[]),
        "gs" => config("gs://bucket/backups", &[("endpoint", url), ("allow_http", "true")], &[]),
        _ => {
            let options = [("endpoint", url), ("allow_http", "true"), ("account", "account")];
            config("az://bucket/backups", &options, &[])
        }
    };
    Store::open(&config, &Handle::current()).unwrap()
}

/// Makes a cloud's response with a part of a listing: its keys, whether it is truncated, and the token.
fn part(cloud: &str, keys: &[String], is_truncated: Option<bool>, token: Option<&str>) -> Answer {
    let mut xml =
        String::from(if cloud == "az" { "<EnumerationResults><Blobs>" } else { "<ListBucketResult>" });
    for key in keys {
        if cloud == "az" {
            xml += &format!(
                "<Blob><Name>{key}</Name><Properties><Last-Modified>Sun, 06 Nov 1994 08:49:37 GMT</Last-Modified>\
                 <Etag>0x8D</Etag><Content-Length>5</Content-Length><Content-Type>x</Content-Type></Properties></Blob>"
            );
        } else {
            let size = if key.ends_with('/') { 0 } else { 5 };
            xml += &format!(
                "<Contents><Key>{key}</Key><Size>{size}</Size>\
                 <LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>\"a\"</ETag></Contents>"
            );
        }
    }
    if cloud == "az" {
        xml +=
            &format!("</Blobs><NextMarker>{}</NextMarker></EnumerationResults>", token.unwrap_or_default());
    } else {
        if let Some(is_truncated) = is_truncated {
            xml += &format!("<IsTruncated>{is_truncated}</IsTruncated>");
        }
        if let Some(token) = token {
            xml += &format!("<NextContinuationToken>{token}</NextContinuationToken>");
        }
        xml += "</ListBucketResult>";
    }
    Answer::Whole(200, vec![], xml.into_bytes())
}

fn keys(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| format!("backups/{name}")).collect()
}

/// Returns the key after which a request asks the server to begin.
fn start_after(request: &Request) -> Option<String> {
    let (_, query) = request.target.split_once('?')?;
    let after = query.split('&').find_map(|part| part.strip_prefix("start-after="))?;
    Some(after.replace("%2F", "/"))
}

/// Lists all keys.
async fn all(store: &Store) -> Result<Vec<String>, transfer::error::Error> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let Page { objects, next } = store.scan("", after.as_deref()).await?;
        found.extend(objects.into_iter().map(|object| object.key));
        match next {
            Some(next) => after = Some(next),
            None => return Ok(found),
        }
    }
}

const NAMES: [&str; 7] = ["1/base.tar", "2/base.tar", "3/", "3/base.tar", "4/base.tar", "5/", "6/base.tar"];
const OBJECTS: [&str; 5] = ["1/base.tar", "2/base.tar", "3/base.tar", "4/base.tar", "6/base.tar"];

#[tokio::test]
async fn a_listing_that_is_cut_without_a_token_is_continued_by_the_last_key() {
    for cloud in ["s3", "gs"] {
        // One key at a time, an empty token, and full parts that do not say whether there is more.
        for token in [None, Some("")] {
            for most in 1..4 {
                let server = Responder::start(move |_, request| {
                    let after = start_after(request).unwrap_or_default();
                    let left: Vec<String> = keys(&NAMES).into_iter().filter(|key| *key > after).collect();
                    let is_cut = left.len() > most;
                    part(cloud, &left[..left.len().min(most)], Some(is_cut), token.filter(|_| is_cut))
                });
                assert_eq!(all(&bucket(cloud, &server)).await.unwrap(), OBJECTS, "{cloud} {most}");
            }
        }
    }
}

#[tokio::test]
async fn a_full_part_that_does_not_say_whether_there_is_more_is_continued() {
    let server = Responder::start(|_, request| {
        let after = start_after(request).unwrap_or_default();
        let all = (0..2_500).map(|number| format!("backups/{number:04}")).filter(|key| *key > after);
        part("s3", &all.take(1_000).collect::<Vec<_>>(), None, None)
    });
    assert_eq!(all(&bucket("s3", &server)).await.unwrap().len(), 2_500);
}

#[tokio::test]
async fn a_cut_listing_that_cannot_be_continued_is_an_error_of_the_server() {
    for cloud in ["s3", "gs"] {
        for names in [&NAMES[..2], &NAMES[2..3], &[]] {
            let server = Responder::start(move |_, _| part(cloud, &keys(names), Some(true), None));
            let error = all(&bucket(cloud, &server)).await.unwrap_err();
            assert_eq!(error.kind, Kind::Failed, "{error}");
            assert!(
                error.message.contains("bug of the server") && error.message.contains("IsTruncated"),
                "{error}"
            );
            assert!(server.requests().len() <= 3);
        }
    }
}

#[tokio::test]
async fn a_listing_that_is_cut_without_a_token_must_be_in_order() {
    let server = Responder::start(|_, _| part("s3", &keys(&["b", "a"]), Some(true), None));
    let error = all(&bucket("s3", &server)).await.unwrap_err();
    assert!(error.message.contains("keys in order"), "{error}");
}

#[tokio::test]
async fn a_token_that_leads_to_itself_is_an_error_of_the_server() {
    for cloud in CLOUDS {
        let server = Responder::start(move |_, _| part(cloud, &[], Some(true), Some("again")));
        let error = all(&bucket(cloud, &server)).await.unwrap_err();
        assert_eq!(error.kind, Kind::Failed, "{cloud}: {error}");
        assert_eq!(server.requests().iter().filter(|request| request.target.contains('?')).count(), 2);
        // The same part with keys is repeated.
        let server = Responder::start(move |_, _| part(cloud, &keys(&["a", "b"]), Some(true), Some("again")));
        let error = all(&bucket(cloud, &server)).await.unwrap_err();
        assert_eq!(error.kind, Kind::Failed, "{cloud}: {error}");
    }
}

#[tokio::test]
async fn a_key_that_is_listed_twice_is_reported() {
    for cloud in CLOUDS {
        let server = Responder::start(move |_, _| part(cloud, &keys(&["a", "a"]), Some(false), None));
        let error = all(&bucket(cloud, &server)).await.unwrap_err();
        assert_eq!(error.kind, Kind::Failed, "{cloud}: {error}");
        assert!(error.message.contains("`backups/a` twice"), "{cloud}: {error}");
    }
}

#[tokio::test]
async fn a_response_that_is_not_a_listing_is_not_an_empty_one() {
    for cloud in CLOUDS {
        for body in [
            "<!DOCTYPE html><html><head><title>Sign in</title></head><body>Please</body></html>",
            "",
            "{}",
            "<ListAllMyBucketsResult/>",
            "<ListBucketResult><Contents>",
            "<EnumerationResults><Blobs>",
        ] {
            let server = Responder::start(move |_, _| Answer::Whole(200, vec![], body.into()));
            let error = all(&bucket(cloud, &server)).await.unwrap_err();
            assert_eq!(error.kind, Kind::Failed, "{cloud}: {body}: {error}");
            assert!(error.message.contains("is not a listing"), "{cloud}: {body}: {error}");
            assert_eq!(server.requests().len(), 1);
        }
    }
}

#[tokio::test]
async fn an_error_in_a_successful_response_is_recognised() {
    let server = Responder::start(|number, _| match number {
        0 => Answer::Whole(
            200,
            vec![],
            b"<?xml version=\"1.0\"?>\n\n<Error><Code>SlowDown</Code></Error>".into(),
        ),
        _ => part("s3", &keys(&["a"]), Some(false), None),
    });
    assert_eq!(all(&bucket("s3", &server)).await.unwrap(), ["a"]);
    let server = Responder::start(|_, _| {
        Answer::Whole(200, vec![], b"<Error><Code>AccessDenied</Code></Error>".into())
    });
    let error = all(&bucket("s3", &server)).await.unwrap_err();
    assert_eq!(error.kind, Kind::Denied, "{error}");
}
