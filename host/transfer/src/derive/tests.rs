use super::*;
use crate::digest::{Algorithm, Hasher};

/// A `backup.info` of pgBackRest, shortened.
const INFO: &str = "[backrest]\nbackrest-checksum=\"0123456789abcdef0123456789abcdef01234567\"\nbackrest-format=5\n\n\
    [backup:current]\n20261123-005044F={\"backup-type\":\"full\"}\n\n\
    [cipher]\ncipher-pass=\"zWa/6Xtp-IVZC5444yXB+cgFDFl7MxGlgkZSaoPvTGirhPygu4jOKOXf9LO4vjfO\"\n\n\
    [db]\ndb-id=1\n";

const PASS: &str = "zWa/6Xtp-IVZC5444yXB+cgFDFl7MxGlgkZSaoPvTGirhPygu4jOKOXf9LO4vjfO";

fn found(text: &str) -> Result<Key, Error> {
    derive_key(text.as_bytes(), "cipher", "cipher-pass")
}

/// A source that returns at most this many bytes per read.
struct SmallReads(io::Cursor<Vec<u8>>, usize);

impl Read for SmallReads {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(self.1);
        self.0.read(&mut buffer[..length])
    }
}

#[test]
fn the_key_in_a_backup_info_is_found_across_all_chunk_boundaries() {
    for source_bytes in [1, 2, 7, 64, 100_000] {
        let text = SmallReads(io::Cursor::new(INFO.into()), source_bytes);
        let key = derive_key(text, "cipher", "cipher-pass").unwrap();
        assert_eq!(key.text(), Ok(&Secret::new(PASS)));
        assert!(key.is_derived());
        assert_eq!(key.name, "`cipher-pass` in [cipher]");
    }
}

#[test]
fn a_value_with_escapes_is_decoded_as_json_and_hashed_undecoded() {
    let key = found("[cipher]\ncipher-pass=\"a\\\"b\\u0041\\/tail\"").unwrap();
    assert_eq!(key.text(), Ok(&Secret::new("a\"bA/tail")));
    let text = br#"a\"b\u0041\/tail"#;
    let (mut of_the_key, mut of_its_text) = (Hasher::new(Algorithm::Sha1), Hasher::new(Algorithm::Sha1));
    of_the_key.secret(&key).unwrap();
    of_its_text.update(text);
    assert_eq!(of_the_key.finish(), of_its_text.finish());
}

#[test]
fn only_the_whole_name_in_the_right_section_matches() {
    for text in [
        "cipher-pass=\"long enough\"\n",
        "[other]\ncipher-pass=\"long enough\"\n",
        "[cipher]\n[other]\ncipher-pass=\"long enough\"\n",
        "[cipher]\nx-cipher-pass=\"long enough\"\n cipher-pass=\"long enough\"\ncipher-passage=\"long enough\"\n",
        "[cipher] \ncipher-pass=\"long enough\"\n",
        "",
    ] {
        let error = found(text).unwrap_err();
        assert_eq!(error.kind, Kind::NotFound, "{text}");
        assert!(error.message.contains("`cipher-pass` in [cipher]"), "{error}");
    }
}

#[test]
fn a_name_that_occurs_twice_is_reported() {
    let line = "cipher-pass=\"long enough\"\n";
    for text in [format!("[cipher]\n{line}{line}"), format!("[cipher]\n{line}[db]\n[cipher]\n{line}")] {
        assert_eq!(found(&text).unwrap_err().kind, Kind::Corrupt, "{text}");
    }
}

#[test]
fn a_value_that_is_not_one_json_string_is_reported_without_being_shown() {
    for value in [
        "",
        "\"",
        "secretwords",
        "\"secretwords",
        "\"secretwords\" ",
        "\"secret\"\"words\"",
        "5",
        "\"secret\\words\"",
    ] {
        let error = found(&format!("[cipher]\ncipher-pass={value}\n")).unwrap_err();
        assert_eq!(error.kind, Kind::Corrupt, "{value}");
        assert!(!error.message.contains("secret"), "{error}");
    }
}

#[test]
fn a_value_outside_the_bounds_of_a_key_is_refused() {
    let of = |length: usize| found(&format!("[cipher]\ncipher-pass=\"{}\"\n", "x".repeat(length)));
    assert_eq!(of(SHORTEST_VALUE - 1).unwrap_err().kind, Kind::Invalid);
    assert!(of(SHORTEST_VALUE).is_ok());
    assert!(of(LONGEST_VALUE).is_ok());
    assert!(of(LONGEST_VALUE + 1).is_err());
    assert_eq!(of(100_000).unwrap_err().kind, Kind::Limit);
}

#[test]
fn a_section_or_name_that_no_line_can_have_is_refused() {
    for (section, name) in [("", "a"), ("a", ""), ("a\nb", "c"), ("a", "b=c"), ("a", "b\nc")] {
        assert_eq!(derive_key(&b""[..], section, name).unwrap_err().kind, Kind::Invalid);
    }
    let long = "x".repeat(10_000);
    let error = derive_key(&b""[..], "cipher", &long).unwrap_err();
    assert!(error.kind == Kind::Invalid && error.message.len() < 1000);
}

#[test]
fn other_lines_may_have_any_length() {
    let text = format!("[{}]\n{}\n{}[db]\n", "s".repeat(50_000), "l".repeat(500_000), INFO);
    assert_eq!(found(&text).unwrap().text(), Ok(&Secret::new(PASS)));
}

#[test]
fn an_error_of_the_reader_after_the_key_is_returned() {
    struct Fails;
    impl Read for Fails {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(Error::new(Kind::Corrupt, "the gzip stream is damaged").into())
        }
    }
    let error = derive_key(INFO.as_bytes().chain(Fails), "cipher", "cipher-pass").unwrap_err();
    assert_eq!(error, Error::new(Kind::Corrupt, "the gzip stream is damaged"));
}

#[test]
fn text_beyond_the_bound_is_a_limit_error() {
    let exact = INFO.len() as u64;
    assert!(derive_within(INFO.as_bytes(), "cipher", "cipher-pass", exact).is_ok());
    let error = derive_within(INFO.as_bytes(), "cipher", "cipher-pass", exact - 1).unwrap_err();
    assert_eq!(error.kind, Kind::Limit);
    // A line that never ends.
    let error = derive_within(io::repeat(b'x'), "cipher", "cipher-pass", 10 << 20).unwrap_err();
    assert_eq!(error.message, "`cipher-pass` in [cipher] is searched in at most 10.0 MiB of text");
}

fn blanked(keys: &[&Key], text: &[u8], source_bytes: usize, read_bytes: usize) -> Vec<u8> {
    let mut blanked = Blanked::default();
    for key in keys {
        blanked.add(key).unwrap();
    }
    let mut reader = blanked.reader(Box::new(SmallReads(io::Cursor::new(text.to_vec()), source_bytes)));
    let (mut seen, mut buffer) = (Vec::new(), vec![0; read_bytes]);
    loop {
        match reader.read(&mut buffer).unwrap() {
            0 => return seen,
            length => seen.extend_from_slice(&buffer[..length]),
        }
    }
}

#[test]
fn a_derived_key_is_blanked_wherever_it_occurs_and_nothing_else_is() {
    let key = found(INFO).unwrap();
    let expected = INFO.replace(PASS, &"*".repeat(PASS.len()));
    for (source_bytes, read_bytes) in [(1, 1), (5, 100), (1000, 7), (100_000, 100_000)] {
        assert_eq!(blanked(&[&key], INFO.as_bytes(), source_bytes, read_bytes), expected.as_bytes());
    }
    let mut text = format!("{PASS}{INFO}{PASS}").into_bytes();
    assert_eq!(
        blanked(&[&key], &text, 1000, 1000),
        format!("{0}{expected}{0}", "*".repeat(PASS.len())).into_bytes()
    );
    let mut known = Blanked::default();
    known.add(&key).unwrap();
    known.blank(&mut text);
    assert!(!text.windows(PASS.len()).any(|window| window == PASS.as_bytes()));
}

#[test]
fn a_key_is_blanked_across_every_boundary_between_reads() {
    let key = found(INFO).unwrap();
    for before in (65_536 - 2 * PASS.len()..65_536 + PASS.len()).step_by(3) {
        let text = [&vec![b'x'; before][..], PASS.as_bytes(), PASS.as_bytes(), b"rest"].concat();
        let expected = [&vec![b'x'; before][..], &[b'*'; PASS.len() * 2], b"rest"].concat();
        assert!(blanked(&[&key], &text, 1 << 20, 10_000) == expected, "{before}");
    }
}

#[test]
fn keys_that_overlap_are_blanked_each_as_a_whole() {
    let key = |text: &str| Key::derived(String::new(), Secret::new(text), Secret::new(text));
    let (first, second, long) = (key("abcabcab"), key("bcabXYZW"), key(&"abcabcab".repeat(100)));
    assert_eq!(blanked(&[&first, &second], b"-abcabcabcabXYZW-", 3, 2), b"-***************-");
    assert_eq!(blanked(&[&first], b"abcabcabcabcab!", 100, 100), b"**************!");
    for before in 65_000..65_600 {
        let text = [&vec![b'-'; before][..], b"abcabcabXYZW", &[b'-'; 2000]].concat();
        let seen = blanked(&[&first, &second, &long], &text, 1 << 20, 1 << 20);
        assert_eq!(&seen[before..before + 12], b"************", "{before}");
        assert_eq!(seen.len(), text.len());
    }
}

#[test]
fn only_derived_keys_are_blanked_and_a_bounded_number_of_them() {
    let mut blanked = Blanked::default();
    assert!(blanked.is_empty());
    assert_eq!(blanked.add(&Key::named("repo", Secret::new("words"))).unwrap_err().kind, Kind::Invalid);
    for number in 0..MOST_KEYS {
        let text = format!("key number {number}");
        for _twice in 0..2 {
            blanked.add(&Key::derived(String::new(), Secret::new(&*text), Secret::new(&*text))).unwrap();
        }
    }
    assert_eq!(format!("{blanked:?}"), format!("Blanked of {MOST_KEYS} keys"));
    let last = Key::derived(String::new(), Secret::new("one more"), Secret::new("one more"));
    assert_eq!(blanked.add(&last).unwrap_err().kind, Kind::Limit);
}
