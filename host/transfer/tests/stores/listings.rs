//! Listings of a million keys, a page at a time.

use tests::program::fast_or_full;
use tokio::runtime::Handle;
use transfer::store::{PAGE, Store};

use crate::implementations::config;
use crate::responder::{Answer, Responder};

/// How many keys, and that they came in order and each once.
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
        // Far from the order that they are listed in.
        std::fs::File::create(root.path().join(format!("{:08x}", number.wrapping_mul(2_654_435_761))))
            .unwrap();
    }
    let store = Store::directory(root.path()).unwrap();
    assert_eq!(count(&store).await, usize::try_from(files).unwrap());
}

#[tokio::test]
async fn a_store_that_lists_the_same_page_for_ever_is_left() {
    let server = Responder::start(|_, _| {
        let xml = "<ListBucketResult><IsTruncated>true</IsTruncated>\
                   <NextContinuationToken>again</NextContinuationToken></ListBucketResult>";
        Answer::Whole(200, vec![], xml.into())
    });
    let url = server.url();
    let options = [("endpoint", url.as_str()), ("allow_http", "true")];
    let store = Store::open(&config("s3://bucket/backups", &options, &[]), &Handle::current()).unwrap();
    let error = store.scan("", None).await.unwrap_err();
    assert_eq!(error.kind, transfer::error::Kind::Limit, "{error}");
}
