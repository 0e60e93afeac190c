//! Text from a component, made fit for a terminal and a log. A component's strings are hostile until they came
//! through here.

use std::fmt::Write as _;

/// `text` on one line of at most `limit` characters: control characters, terminal escapes and the characters that
/// reorder text are replaced, what is too long ends in an ellipsis.
pub(crate) fn printable(text: &str, limit: usize) -> String {
    let mut line = String::with_capacity(text.len().min(limit) + 1);
    for (count, character) in text.trim_end_matches(['\n', '\r']).chars().enumerate() {
        if count == limit {
            line.push('…');
            break;
        }
        line.push(match character {
            '\n' | '\r' | '\t' => ' ',
            character if is_unsafe(character) => char::REPLACEMENT_CHARACTER,
            character => character,
        });
    }
    line
}

/// Whether every character may be shown as it is.
pub(crate) fn is_printable(text: &str) -> bool {
    !text.chars().any(|character| character.is_control() || is_unsafe(character))
}

/// Control characters, those that change how their neighbours are shown, and those that are not shown at all, so that
/// two paths would look the same (Unicode's `Bidi_Control`, `Default_Ignorable_Code_Point` where no script needs it to be
/// read, line and paragraph separator, annotations and tags).
fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{00AD}' | '\u{061C}' | '\u{180E}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}'
            | '\u{3164}' | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFB}' | '\u{E0000}'..='\u{E007F}')
}

/// `text` as a quoted string of TOML. JSON's escapes are TOML's too.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// `name` as a key of TOML, quoted where a bare key does not do.
pub(crate) fn key(name: &str) -> String {
    let bare = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if bare { name.to_owned() } else { quoted(name) }
}

/// Bytes as hexadecimal digits.
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
        assert_eq!(printable("\u{1b}[2Jgone\u{7}\nnext\r\n", 100), "\u{FFFD}[2Jgone\u{FFFD} next");
        assert_eq!(printable("a\u{202E}b\u{9b}c", 100), "a\u{FFFD}b\u{FFFD}c");
    }

    #[test]
    fn what_nobody_sees_is_not_printable() {
        for character in ['\u{200B}', '\u{2060}', '\u{FEFF}', '\u{00AD}', '\u{E0041}'] {
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
    fn a_name_is_quoted_only_where_it_must_be() {
        assert_eq!(key("pg-backrest_2"), "pg-backrest_2");
        assert_eq!(key("my method"), "\"my method\"");
        assert_eq!(quoted("a\"b\\c"), r#""a\"b\\c""#);
    }
}
