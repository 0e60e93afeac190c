//! The suite: checks that every store must pass.

use std::sync::Arc;
use std::time::{Duration, Instant};

use foundation::units::Bytes;
use tokio::runtime::Handle;
use transfer::error::Kind;
use transfer::rate::Rate;
use transfer::store::{CHUNK, Object, PAGE, Range, Store};

/// The objects that every store of the suite has, below the prefix with which the store is opened.
pub(crate) fn objects() -> Vec<(String, Vec<u8>)> {
    let mut objects = vec![
        ("base/backup.tar".to_owned(), pattern(3 * CHUNK + 17)),
        ("base/empty".to_owned(), Vec::new()),
        ("base/small.txt".to_owned(), b"0123456789".to_vec()),
        ("base-2/other".to_owned(), b"other".to_vec()),
        ("odd/ä ö+%2F%20&=@~.txt".to_owned(), b"odd".to_vec()),
        ("top".to_owned(), b"top".to_vec()),
    ];
    objects
        .extend((0..PAGE + 5).map(|number| (format!("many/{number:05}"), number.to_string().into_bytes())));
    objects
}

/// An object outside of the prefix with which the store is opened.
pub(crate) const OUTSIDE: &str = "outside";

/// Random bytes, so that no two ranges are equal.
pub(crate) fn pattern(length: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(15);
    std::iter::repeat_with(|| random.u8(..)).take(length).collect()
}

/// The features of a server.
#[derive(Clone, Copy)]
pub(crate) struct Features {
    /// It can be listed.
    pub(crate) listings: bool,
    /// It supports the range of bytes 0 to 0.
    pub(crate) first_byte_alone: bool,
}

impl Features {
    pub(crate) const EVERYTHING: Self = Self { listings: true, first_byte_alone: true };
}

/// Runs the whole suite.
pub(crate) async fn run(store: &Store, features: Features) {
    let lists = features.listings;
    if features.first_byte_alone {
        assert_eq!(read(store, "base/small.txt", Some(Range { offset: 0, length: 1 })).await, b"0");
    }
    if lists {
        every_key_is_listed_once_and_in_order(store).await;
        a_listing_begins_after_the_requested_key(store).await;
    } else {
        let error = store.scan("", None).await.unwrap_err();
        assert_eq!(error.kind, Kind::Invalid);
        assert!(error.message.contains("cannot be listed"), "{error}");
    }
    every_request_reports_the_same_key_size_and_etag(store, lists).await;
    the_error_for_a_missing_object_is_not_found_and_names_the_object(store).await;
    all_bytes_and_any_range_of_them_are_read(store).await;
    a_range_that_is_not_in_the_object_is_refused(store).await;
    an_invalid_key_or_prefix_is_refused(store).await;
    a_thread_that_may_block_reads_the_same_bytes(store).await;
    more_bodies_can_be_open_than_requests_may_be_concurrent(store).await;
    the_rate_is_obeyed(store).await;
}

async fn all(store: &Store, prefix: &str) -> Vec<Object> {
    let (mut objects, mut after) = (Vec::new(), None);
    loop {
        let page = store.scan(prefix, after.as_deref()).await.unwrap();
        assert!(page.objects.len() <= PAGE);
        objects.extend(page.objects);
        match page.next {
            Some(next) => after = Some(next),
            None => return objects,
        }
    }
}

async fn every_key_is_listed_once_and_in_order(store: &Store) {
    let mut expected: Vec<(String, u64)> =
        objects().into_iter().map(|(key, bytes)| (key, bytes.len() as u64)).collect();
    expected.sort();
    let found: Vec<(String, u64)> =
        all(store, "").await.into_iter().map(|object| (object.key, object.size)).collect();
    assert_eq!(found, expected);
}

async fn a_listing_begins_after_the_requested_key(store: &Store) {
    let keys = async |prefix: &str| -> Vec<String> {
        all(store, prefix).await.into_iter().map(|object| object.key).collect()
    };
    assert_eq!(keys("base/").await, ["base/backup.tar", "base/empty", "base/small.txt"]);
    assert_eq!(keys("base/s").await, ["base/small.txt"]);
    assert_eq!(keys("base").await.len(), 4);
    assert!(keys("nowhere/").await.is_empty());
    assert!(keys(OUTSIDE).await.is_empty());
    // A listing can begin after any key, not only after the last key of a page.
    let page = store.scan("", Some("many/01003")).await.unwrap();
    let keys: Vec<&str> = page.objects.iter().map(|object| object.key.as_str()).collect();
    assert_eq!(keys, ["many/01004", "odd/ä ö+%2F%20&=@~.txt", "top"]);
    let page = store.scan("base/", Some("base/f")).await.unwrap();
    assert_eq!(page.objects.len(), 1);
    assert!(store.scan("base/", Some("zzz")).await.unwrap().objects.is_empty());
}

async fn every_request_reports_the_same_key_size_and_etag(store: &Store, lists: bool) {
    for (key, bytes) in objects().iter().take(6) {
        let object = store.head(key).await.unwrap();
        assert_eq!((&object.key, object.size), (key, bytes.len() as u64));
        assert!(object.modified.is_some());
        let (read, _) = store.read(key, None).await.unwrap();
        assert_eq!(read, object);
        if lists {
            let listed = store.scan(key, None).await.unwrap().objects.remove(0);
            assert_eq!((&listed.key, listed.size), (&object.key, object.size));
            // Azure quotes the etag in responses for an object and not in listings; both must be equal here.
            let shown = |object: &Object| object.etag.as_ref().map(ToString::to_string);
            assert_eq!(shown(&listed), shown(&object), "{key}");
        }
    }
}

async fn the_error_for_a_missing_object_is_not_found_and_names_the_object(store: &Store) {
    for key in ["base/nothing", "base", "base/small.txt/below", "nowhere/at/all", OUTSIDE] {
        for error in [store.head(key).await.unwrap_err(), store.read(key, None).await.unwrap_err()] {
            assert_eq!(error.kind, Kind::NotFound, "{key}: {error}");
            assert!(error.message.contains(&format!("`{key}` of {}", store.name())), "{error}");
        }
    }
}

/// Reads an object, chunk by chunk.
pub(crate) async fn read(store: &Store, key: &str, range: Option<Range>) -> Vec<u8> {
    let (_, mut body) = store.read(key, range).await.unwrap();
    let mut bytes = Vec::new();
    while let Some(chunk) = body.chunk().await.unwrap() {
        assert!(!chunk.is_empty() && chunk.len() <= CHUNK, "{}", chunk.len());
        bytes.extend_from_slice(&chunk);
    }
    assert_eq!(body.remaining(), 0);
    bytes
}

async fn all_bytes_and_any_range_of_them_are_read(store: &Store) {
    for (key, expected) in objects().iter().take(6) {
        assert!(read(store, key, None).await == *expected, "{key}");
    }
    let (key, expected) = objects().remove(0);
    let end = expected.len() as u64;
    for (offset, length) in [(0, 2), (0, end), (5, 10), (CHUNK as u64 - 1, 2), (end - 1, 1), (17, 2 << 20)] {
        let bytes = read(store, &key, Some(Range { offset, length })).await;
        let offset = usize::try_from(offset).unwrap();
        assert!(
            bytes == expected[offset..offset + usize::try_from(length).unwrap()],
            "{length} from {offset}"
        );
    }
    for offset in [0, 3, end] {
        assert!(read(store, &key, Some(Range { offset, length: 0 })).await.is_empty());
    }
    assert!(read(store, "base/empty", Some(Range { offset: 0, length: 0 })).await.is_empty());
}

async fn a_range_that_is_not_in_the_object_is_refused(store: &Store) {
    for (offset, length) in [(0, 11), (5, 6), (10, 1), (11, 0), (1 << 40, 1), (u64::MAX, 2), (u64::MAX, 0)] {
        let error = store.read("base/small.txt", Some(Range { offset, length })).await.unwrap_err();
        assert_eq!(error.kind, Kind::Invalid, "{length} from {offset}: {error}");
        assert!(error.message.contains("base/small.txt"), "{error}");
    }
    let error = store.read("base/empty", Some(Range { offset: 0, length: 1 })).await.unwrap_err();
    assert_eq!(error.kind, Kind::Invalid, "{error}");
}

async fn an_invalid_key_or_prefix_is_refused(store: &Store) {
    let outside = format!("../{OUTSIDE}");
    for key in [
        outside.as_str(),
        "base/../../outside",
        "/base/small.txt",
        "",
        "base//small.txt",
        "base/",
        "./top",
        "a\0b",
    ] {
        assert_eq!(store.head(key).await.unwrap_err().kind, Kind::Invalid, "{key:?}");
        assert_eq!(store.read(key, None).await.unwrap_err().kind, Kind::Invalid, "{key:?}");
    }
    for prefix in ["../", "/", "base//", "base/../", "\0"] {
        assert_eq!(store.scan(prefix, None).await.unwrap_err().kind, Kind::Invalid, "{prefix:?}");
    }
}

async fn a_thread_that_may_block_reads_the_same_bytes(store: &Store) {
    let (key, expected) = objects().remove(0);
    for range in [None, Some(Range { offset: 1000, length: 2_000_000 })] {
        let (store, key, runtime) = (store.clone(), key.clone(), Handle::current());
        // Like a worker, this thread is not a thread of the runtime.
        let bytes = std::thread::spawn(move || runtime.block_on(read(&store, &key, range)));
        let bytes = tokio::task::spawn_blocking(|| bytes.join().unwrap()).await.unwrap();
        match range {
            None => assert!(bytes == expected),
            Some(_) => assert!(bytes == expected[1000..2_001_000]),
        }
    }
}

async fn more_bodies_can_be_open_than_requests_may_be_concurrent(store: &Store) {
    let opening = async {
        let mut bodies = Vec::new();
        for _ in 0..transfer::store::CONCURRENCY.get() * 2 {
            bodies.push(store.read("base/backup.tar", None).await.unwrap().1);
        }
        // Reads one chunk from each body in turn, beginning with the last one.
        let (mut bytes, mut open) = (0, bodies.len());
        while open > 0 {
            open = 0;
            for body in bodies.iter_mut().rev() {
                if let Some(chunk) = body.chunk().await.unwrap() {
                    bytes += chunk.len();
                    open += 1;
                }
            }
        }
        assert_eq!(bytes, bodies.len() * (3 * CHUNK + 17));
    };
    tokio::time::timeout(Duration::from_secs(60), opening)
        .await
        .expect("open bodies do not block each other");
}

async fn the_rate_is_obeyed(store: &Store) {
    let rate = Arc::new(Rate::new(Bytes(4 << 20)));
    let limited = store.clone().with_rate(rate);
    let begun = Instant::now();
    // Two concurrent reads share the rate: 6 MiB at 4 MiB/s, less the burst of a tenth of a second.
    tokio::join!(read(&limited, "base/backup.tar", None), read(&limited, "base/backup.tar", None));
    assert!(begun.elapsed() >= Duration::from_millis(1_350), "{:?}", begun.elapsed());
}
