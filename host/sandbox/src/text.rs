//! Makes text from a component safe for a terminal and a log. A component's strings are hostile until they have passed through here.

use std::fmt::Write as _;

use replica::Redactor;

pub(crate) use foundation::printable::is_printable;

/// Returns at most the first `limit` characters of `text`, as one line. Line ends and tabs become spaces, invisible and control
/// characters are escaped ([`foundation::printable`]), and a text that was shortened ends in an ellipsis.
pub(crate) fn printable(text: &str, limit: usize) -> String {
    let text = text.trim_end_matches(['\n', '\r']);
    // Cut first, so that a huge text is not copied.
    let end = text.char_indices().nth(limit.saturating_add(1)).map_or(text.len(), |(end, _)| end);
    foundation::printable::printable_within(&text[..end].replace(['\n', '\r', '\t'], " "), limit)
}

/// How many bytes of a text are searched for secrets before it is shown. The rest is dropped.
const SEARCHED: usize = 64 << 10;

/// Does the same as [`printable`], without the secrets that `redactor` knows. They are removed before the text is cut: the cut could leave
/// the beginning of one. `is_whole` says whether `text` is everything that was written.
pub(crate) fn printable_without(redactor: &Redactor, text: &str, is_whole: bool, limit: usize) -> String {
    let searched = &text[..text.floor_char_boundary(SEARCHED)];
    let redacted = redactor.redact(searched);
    if (!is_whole || searched.len() < text.len()) && redacted.chars().nth(limit).is_none() {
        // So little of the text is left after the redaction that its end would be shown. The text was cut there, so its end may be the
        // beginning of another secret.
        return printable(&format!("[a text of more than {SEARCHED} bytes is left out]"), limit);
    }
    printable(&redacted, limit)
}

/// Returns `text` as a quoted string of TOML. TOML has all escapes of JSON.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Returns `name` as a TOML key, quoted if it is not a bare key.
pub(crate) fn key(name: &str) -> String {
    let bare = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if bare { name.to_owned() } else { quoted(name) }
}

/// Returns bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_escape_does_not_reach_the_log() {
        assert_eq!(printable("\u{1b}[2Jgone\u{7}\nnext\r\n", 100), "\\u{1b}[2Jgone\\u{7} next");
        assert_eq!(printable("a\u{202E}b\u{9b}c", 100), "a\\u{202e}b\\u{9b}c");
    }

    #[test]
    fn invisible_characters_are_not_printable() {
        for character in ['\u{200B}', '\u{115F}', '\u{2800}', '\u{FE0F}', '\u{E0100}', '\u{E0041}'] {
            assert!(!is_printable(&format!("/mnt/back{character}ups")), "{character:?}");
        }
        assert!(is_printable("/mnt/Größe/バックアップ"));
    }

    #[test]
    fn a_long_line_is_cut() {
        assert_eq!(printable("abcdef", 3), "abc…");
        assert_eq!(printable("abc", 3), "abc");
    }

    #[test]
    fn a_text_is_cut_after_its_secrets_are_removed_so_that_no_part_of_a_secret_is_shown() {
        let redactor = Redactor::new();
        redactor.add(&foundation::secret::Secret::new("sw0rdfish-of-the-sea")).unwrap();
        let shown = |text: &str| printable_without(&redactor, text, true, 100);
        for padding in 80..=100 {
            let text = shown(&format!("{}sw0rdfish-of-the-sea", "x ".repeat(padding / 2)));
            assert!(!text.contains("sw"), "{padding}: {text}");
        }
        let many = "sw0rdfish-of-the-sea".repeat(2 * SEARCHED / 20);
        let text = printable_without(&redactor, &many, true, SEARCHED);
        assert_eq!(text, "[a text of more than 65536 bytes is left out]");
        assert_eq!(printable_without(&redactor, "x", false, 100), text);
    }

    #[test]
    fn a_name_is_quoted_only_if_it_is_not_a_bare_key() {
        assert_eq!(key("pg-backrest_2"), "pg-backrest_2");
        assert_eq!(key("my method"), "\"my method\"");
        assert_eq!(quoted("a\"b\\c"), r#""a\"b\\c""#);
    }
}
