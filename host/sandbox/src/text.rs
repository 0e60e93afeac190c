//! Makes text from a component safe for a terminal and a log. A component's strings are hostile until they have passed through here.

use std::fmt::Write as _;

pub(crate) use foundation::printable::is_printable;

/// Returns `text` as one line of at most `limit` of its characters. Line ends and tabs become spaces, invisible characters and control
/// characters are escaped ([`foundation::printable`]), and a text that is too long ends in an ellipsis.
pub(crate) fn printable(text: &str, limit: usize) -> String {
    let text = text.trim_end_matches(['\n', '\r']);
    // Cut first, so that a huge text is not copied.
    let end = text.char_indices().nth(limit.saturating_add(1)).map_or(text.len(), |(end, _)| end);
    foundation::printable::printable_within(&text[..end].replace(['\n', '\r', '\t'], " "), limit)
}

/// Returns `text` as a quoted string of TOML. TOML has all escapes of JSON.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Returns `name` as a key of TOML, quoted if it is not a bare key.
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
    fn a_name_is_quoted_only_if_it_must_be() {
        assert_eq!(key("pg-backrest_2"), "pg-backrest_2");
        assert_eq!(key("my method"), "\"my method\"");
        assert_eq!(quoted("a\"b\\c"), r#""a\"b\\c""#);
    }
}
