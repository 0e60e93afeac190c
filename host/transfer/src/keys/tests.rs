use super::*;
use crate::digest::{Algorithm, Hasher};

fn derived(secret: &str, text: &str) -> Key {
    Key::derived("`cipher-pass` in [cipher]".to_owned(), Secret::new(secret), Secret::new(text))
}

#[test]
fn the_sum_of_text_with_a_derived_key_is_the_sum_of_the_text_as_it_is_stored() {
    let key = derived("a\"b/c and more", r#"a\"b\/c and more"#);
    let sum = sha1_of(&[Part::Literal(b"{\"cipher-pass\":\""), Part::Secret(&key), Part::Literal(b"\"}")]);
    let mut hasher = Hasher::new(Algorithm::Sha1);
    hasher.update(br#"{"cipher-pass":"a\"b\/c and more"}"#);
    assert_eq!(sum.unwrap().to_vec(), hasher.finish().value);
}

#[test]
fn a_key_that_the_operator_granted_is_never_summed() {
    let key = Key::named("repo", Secret::new("operator's words"));
    let error = sha1_of(&[Part::Secret(&key)]).unwrap_err();
    assert_eq!(error.kind, Kind::Denied);
    assert!(error.message.contains("`repo`") && !error.message.contains("words"), "{error}");
}

#[test]
fn more_literal_bytes_than_the_bound_are_refused() {
    let most = vec![0; MOST_LITERAL_BYTES];
    assert!(sha1_of(&[Part::Literal(&most)]).is_ok());
    assert_eq!(sha1_of(&[Part::Literal(&most), Part::Literal(b"x")]).unwrap_err().kind, Kind::Limit);
}

#[test]
fn a_key_that_is_printed_shows_nothing_of_itself() {
    let shown = format!("{:?} {:?}", derived("open sesame", "open sesame"), Part::Literal(b""));
    assert!(!shown.contains("sesame"), "{shown}");
}
