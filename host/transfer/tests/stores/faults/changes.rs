//! How stores handle an object that changes or vanishes while it is read.

use super::*;

#[tokio::test]
async fn an_object_that_changes_in_the_middle_is_corrupt_and_never_mixed() {
    // The servers: one that compares the etag, one that does not, one whose object became longer, and one without etags.
    for answer in 0..4 {
        let object = pattern(100_000);
        let server = Responder::start(move |number, request| {
            if number % 2 == 0 {
                let (status, mut headers, body) = right(request, &object, "a");
                headers.retain(|(name, _)| answer != 3 || *name != "ETag");
                return Answer::Cut(status, headers, body, 10_000);
            }
            match answer {
                0 => refusal(412),
                1 => whole(right(request, &object, "b")),
                2 => whole(right(request, &[object.clone(), vec![0]].concat(), "a")),
                _ => {
                    let (status, mut headers, body) = right(request, &object, "a");
                    headers.retain(|(name, _)| *name == "Content-Range");
                    headers.push(("Last-Modified", "Sun, 06 Nov 1994 08:49:38 GMT".to_owned()));
                    Answer::Whole(status, headers, body)
                }
            }
        });
        for store in stores(&server, LONG) {
            let error = try_read(&store, "base/a.tar").await.unwrap_err();
            assert_eq!(error.kind, Kind::Corrupt, "{answer}: {error}");
            assert!(error.message.contains("changed while it was read"), "{error}");
            names_the_object_and_no_secret(&error, &store);
        }
    }
}

#[tokio::test]
async fn an_object_that_shrank_below_the_bytes_read_is_corrupt_even_without_an_etag() {
    let object = pattern(100_000);
    let server = Responder::start(move |number, request| {
        let unmarked = |(status, mut headers, body): (u16, Vec<(&'static str, String)>, Vec<u8>)| {
            headers.retain(|(name, _)| *name != "ETag");
            (status, headers, body)
        };
        match request.range() {
            None if number % 3 == 0 => {
                let (status, headers, body) = unmarked(right(request, &object, "a"));
                Answer::Cut(status, headers, body, 10_000)
            }
            Some((first, _)) if first >= 5_000 => refusal(416),
            _ => whole(unmarked(right(request, &object[..5_000], "a"))),
        }
    });
    for store in stores(&server, LONG) {
        let error = try_read(&store, "base/a.tar").await.unwrap_err();
        assert_eq!(error.kind, Kind::Corrupt, "{error}");
        assert!(error.message.contains("its size was 100000 and is 5000 bytes"), "{error}");
        names_the_object_and_no_secret(&error, &store);
    }
}

#[tokio::test]
async fn an_object_that_vanishes_in_the_middle_is_not_found() {
    let object = pattern(100_000);
    let server = Responder::start(move |number, request| {
        let (status, headers, body) = right(request, &object, "a");
        if number % 2 == 0 { Answer::Cut(status, headers, body, 10_000) } else { refusal(404) }
    });
    for store in stores(&server, LONG) {
        let error = try_read(&store, "base/a.tar").await.unwrap_err();
        assert_eq!(error.kind, Kind::NotFound, "{error}");
        names_the_object_and_no_secret(&error, &store);
    }
}

#[tokio::test]
async fn an_object_that_vanishes_is_not_found_even_if_the_server_refuses_its_range() {
    let object = pattern(100_000);
    let server = Responder::start(move |number, request| {
        let (status, headers, body) = right(request, &object, "a");
        match request.range() {
            None if number % 3 == 0 => Answer::Cut(status, headers, body, 10_000),
            Some((first, _)) if first > 0 => refusal(416),
            // The metadata of the object are requested.
            _ => refusal(404),
        }
    });
    for store in stores(&server, LONG) {
        let error = try_read(&store, "base/a.tar").await.unwrap_err();
        assert_eq!(error.kind, Kind::NotFound, "{error}");
        names_the_object_and_no_secret(&error, &store);
    }
}
