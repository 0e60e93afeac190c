use super::*;
use crate::digest::{Algorithm, Hasher};
use crate::error::Kind;

fn derived(secret: &str, text: &str) -> Key {
    Key::derived("`cipher-pass` in [cipher]".to_owned(), Secret::new(secret), Secret::new(text))
}

#[test]
fn the_digest_of_a_text_with_a_derived_key_equals_that_of_the_stored_text() {
    let key = derived("a\"b/c and more", r#"a\"b\/c and more"#);
    for algorithm in [Algorithm::Sha1, Algorithm::Sha256] {
        let (mut with_key, mut stored) = (Hasher::new(algorithm), Hasher::new(algorithm));
        with_key.update(b"{\"cipher-pass\":\"");
        with_key.secret(&key).unwrap();
        with_key.update(b"\"}");
        stored.update(br#"{"cipher-pass":"a\"b\/c and more"}"#);
        assert_eq!(with_key.finish(), stored.finish());
    }
}

#[test]
fn granted_keys_and_crc32c_are_refused_in_a_digest() {
    let granted = Key::named("repo", Secret::new("operator's words"));
    let derived = derived("some secret", "some secret");
    for (key, algorithm) in [(&granted, Algorithm::Sha1), (&derived, Algorithm::Crc32c)] {
        let mut hasher = Hasher::new(algorithm);
        let error = hasher.secret(key).unwrap_err();
        assert_eq!(error.kind, Kind::Denied);
        assert!(error.message.contains(&key.name) && !error.message.contains("words"), "{error}");
        assert_eq!(hasher.finish(), Hasher::new(algorithm).finish());
    }
}

#[test]
fn a_key_that_is_printed_shows_nothing_of_itself() {
    let shown = format!("{:?}", derived("open sesame", "open sesame"));
    assert!(!shown.contains("sesame"), "{shown}");
}
