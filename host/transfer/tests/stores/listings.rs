//! Listings of a million keys, page by page, and of stores that list incorrectly.

use std::time::Duration;

use tests::program::fast_or_full;
use tokio::runtime::Handle;
use transfer::error::Kind;
use transfer::store::{PAGE, Page, Retry, Store, StoreConfig};

use crate::implementations::config;
use crate::responder::{Answer, Responder};

/// Returns the number of keys, and checks that they are in order without repetitions.
async fn count(store: &Store) -> usize {
    let (mut keys, mut after, mut last) = (0, None, String::new());
    loop {
        let page = store.scan("", after.as_deref()).await.unwrap();
        assert!(page.objects.len() <= PAGE);
        for object in page.objects {
            assert!(object.key > last, "{} after {last}", object.key);
            last = object.key;
            keys += 1;
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return keys,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_million_keys_of_a_bucket_are_listed_with_one_request_a_page() {
    const KEYS: usize = 1_000_000;
    let server = Responder::start(|_, request| {
        let token = request
            .target
            .split('&')
            .find_map(|part| part.split_once("continuation-token="))
            .map(|(_, token)| token);
        let first: usize = token.map_or(0, |token| token.parse().unwrap());
        assert!(request.target.contains("max-keys=1000"), "{}", request.target);
        let mut xml = String::from("<ListBucketResult>");
        for key in first..first + PAGE {
            xml += &format!(
                "<Contents><Key>backups/{key:09}</Key><Size>8192</Size>\
                 <LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>\"{key}\"</ETag></Contents>"
            );
        }
        if first + PAGE < KEYS {
            xml += &format!(
                "<IsTruncated>true</IsTruncated><NextContinuationToken>{}</NextContinuationToken>",
                first + PAGE
            );
        } else {
            xml += "<IsTruncated>false</IsTruncated>";
        }
        Answer::Whole(200, vec![], (xml + "</ListBucketResult>").into_bytes())
    });
    let url = server.url();
    let options = [("endpoint", url.as_str()), ("allow_http", "true")];
    let store = Store::open(&config("s3://bucket/backups", &options, &[]), &Handle::current()).unwrap();
    assert_eq!(count(&store).await, KEYS);
    assert_eq!(server.requests().len(), KEYS / PAGE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_of_very_many_files_is_listed_whole_and_in_order() {
    let files = fast_or_full(70_000, 1_000_000);
    let root = tempfile::tempdir().unwrap();
    for number in 0..files {
        // The files are created in a different order from the order in which they are listed.
        std::fs::File::create(root.path().join(format!("{:08x}", number.wrapping_mul(2_654_435_761))))
            .unwrap();
    }
    let store = Store::directory(root.path()).unwrap();
    assert_eq!(count(&store).await, usize::try_from(files).unwrap());
}

/// Makes S3's response with these keys and the token for the next page.
fn page(keys: &[&str], token: Option<&str>) -> Vec<u8> {
    let mut xml = String::from("<ListBucketResult>");
    for key in keys {
        let size = if key.ends_with('/') { 0 } else { 5 };
        xml += &format!(
            "<Contents><Key>{key}</Key><Size>{size}</Size>\
             <LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>\"{key}\"</ETag></Contents>"
        );
    }
    if let Some(token) = token {
        xml +=
            &format!("<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>");
    }
    (xml + "</ListBucketResult>").into_bytes()
}

/// Opens a bucket of this server with these retries.
fn bucket(server: &Responder, retry: Retry) -> Store {
    let url = server.url();
    let options = [("endpoint", url.as_str()), ("allow_http", "true")];
    let config = StoreConfig { retry, ..config("s3://bucket/backups", &options, &[]) };
    Store::open(&config, &Handle::current()).unwrap()
}

fn names(page: &Page) -> Vec<&str> {
    page.objects.iter().map(|object| object.key.as_str()).collect()
}

/// A store that lists these pages, and ignores the requested start.
fn two_pages(first: &'static [&'static str], second: &'static [&'static str]) -> Responder {
    Responder::start(move |_, request| {
        let (keys, token) = match request.target.contains("continuation-token=second") {
            false => (first, Some("second")),
            true => (second, None),
        };
        Answer::Whole(200, vec![], page(keys, token))
    })
}

#[tokio::test]
async fn a_listing_that_never_ends_is_an_error() {
    let server = Responder::start(|_, _| Answer::Whole(200, vec![], page(&[], Some("again"))));
    let error = bucket(&server, Retry::default()).scan("", None).await.unwrap_err();
    assert_eq!(error.kind, Kind::Failed, "{error}");
    // The requests to a server that sends a new token each time are bounded, too.
    let server =
        Responder::start(|number, _| Answer::Whole(200, vec![], page(&[], Some(&number.to_string()))));
    let error = bucket(&server, Retry::default()).scan("", None).await.unwrap_err();
    assert_eq!(error.kind, Kind::Limit, "{error}");
}

/// Azure's order with a hierarchical namespace: the folder `A` with its contents comes before `A-B`.
#[tokio::test]
async fn a_listing_that_is_not_in_order_is_an_error() {
    let server = two_pages(&["backups/A/dat0", "backups/A/dat1"], &["backups/A-B", "backups/B"]);
    let store = bucket(&server, Retry::default());
    let first = store.scan("", None).await.unwrap();
    assert_eq!(names(&first), ["A/dat0", "A/dat1"]);
    let error = store.scan("", first.next.as_deref()).await.unwrap_err();
    assert_eq!(error.kind, Kind::Failed, "{error}");
    assert!(error.message.contains("`backups/A-B` after `backups/A/dat1`"), "{error}");
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn the_order_is_checked_against_a_page_whose_keys_are_all_skipped() {
    let server = two_pages(&["backups/A/dat0", "backups/A/dat1"], &["backups/A-B", "backups/B"]);
    let error = bucket(&server, Retry::default()).scan("", Some("A/dat1")).await.unwrap_err();
    assert_eq!(error.kind, Kind::Failed, "{error}");
    assert!(error.message.contains("`backups/A-B` after `backups/A/dat1`"), "{error}");
}

#[tokio::test]
async fn only_keys_after_the_start_are_returned_even_if_the_server_ignores_the_start() {
    let server = two_pages(&["backups/a", "backups/b"], &["backups/c", "backups/d"]);
    let store = bucket(&server, Retry::default());
    assert_eq!(names(&store.scan("", Some("c")).await.unwrap()), ["d"]);
    assert_eq!(names(&store.scan("", Some("a")).await.unwrap()), ["b"]);
}

#[tokio::test]
async fn unordered_keys_are_an_error_in_a_listing_with_a_start() {
    let server =
        Responder::start(|_, _| Answer::Whole(200, vec![], page(&["backups/A/dat1", "backups/A-C"], None)));
    let store = bucket(&server, Retry::default());
    // The server may have left out keys that it sorts before `A-B`, although they come after `A-B` in the order of their bytes.
    let error = store.scan("", Some("A-B")).await.unwrap_err();
    assert_eq!(error.kind, Kind::Failed, "{error}");
    // Without a start, an unordered listing that is not cut leaves out no key, and is sorted here.
    assert_eq!(names(&store.scan("", None).await.unwrap()), ["A-C", "A/dat1"]);
}

#[tokio::test]
async fn a_key_that_was_not_requested_is_an_error() {
    let server =
        Responder::start(|_, _| Answer::Whole(200, vec![], page(&["aside", "backupz/a"], Some("second"))));
    let error = bucket(&server, Retry::default()).scan("", None).await.unwrap_err();
    assert_eq!(error.kind, Kind::Failed, "{error}");
    assert!(error.message.contains("`aside`"), "{error}");
}

#[tokio::test]
async fn a_key_with_the_end_of_a_line_in_it_is_reported_and_not_left_out() {
    let server = Responder::start(|_, _| Answer::Whole(200, vec![], page(&["backups/a&#10;b"], None)));
    let error = bucket(&server, Retry::default()).scan("", None).await.unwrap_err();
    assert_eq!(error.kind, Kind::Failed, "{error}");
    assert!(error.message.contains("a\\nb") && !error.message.contains('\n'), "{error}");
}

#[tokio::test]
async fn a_page_with_nothing_but_the_folders_own_marker_does_not_end_a_listing() {
    let server = two_pages(&["backups/"], &["backups/a"]);
    let page = bucket(&server, Retry::default()).scan("", None).await.unwrap();
    assert_eq!((names(&page), &page.next), (vec!["a"], &None));
}

#[tokio::test]
async fn the_time_limits_of_a_store_apply_to_each_request_and_not_to_a_whole_listing() {
    const PAGES: usize = 4;
    let server = Responder::start(|number, _| {
        let xml =
            if number < PAGES { page(&[], Some(&number.to_string())) } else { page(&["backups/a"], None) };
        let whole = xml.len();
        Answer::Slow(200, vec![], xml, whole, Duration::from_millis(400))
    });
    let retry = Retry {
        idle: Duration::from_millis(1_500),
        at_most: Duration::from_secs(1),
        first_wait: Duration::from_secs(2),
        ..Retry::default()
    };
    assert_eq!(names(&bucket(&server, retry).scan("", None).await.unwrap()), ["a"]);
    assert_eq!(server.requests().len(), PAGES + 1);
}
