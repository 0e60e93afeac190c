//! Invisible characters in names and paths, such as a blank that was copied along with a value. They make a different name that looks the
//! same.

/// The names of the most common invisible characters.
const NAMES: [(char, &str); 15] = [
    (' ', "space"),
    ('\t', "tab"),
    ('\n', "line feed"),
    ('\r', "carriage return"),
    ('\u{a0}', "no-break space"),
    ('\u{ad}', "soft hyphen"),
    ('\u{200b}', "zero-width space"),
    ('\u{200c}', "zero-width non-joiner"),
    ('\u{200d}', "zero-width joiner"),
    ('\u{200e}', "left-to-right mark"),
    ('\u{200f}', "right-to-left mark"),
    ('\u{202f}', "narrow no-break space"),
    ('\u{2060}', "word joiner"),
    ('\u{3000}', "ideographic space"),
    ('\u{feff}', "byte order mark"),
];

/// Returns a message about the first invisible character of a text, with its position; `None` if every character is visible. A space counts
/// as visible unless it is the first or the last character.
pub(crate) fn invisible(text: &str) -> Option<String> {
    let found = text.chars().enumerate().find(|(_, character)| is_invisible(*character));
    if let Some((index, character)) = found {
        return Some(format!(
            "has a character that cannot be seen, {}, in place {}: take it out",
            shown(character),
            index + 1
        ));
    }
    let edge = if text.starts_with(' ') {
        "begins"
    } else if text.ends_with(' ') {
        "ends"
    } else {
        return None;
    };
    Some(format!("{edge} with a character that cannot be seen, {}: take it out", shown(' ')))
}

fn shown(character: char) -> String {
    let number = format!("U+{:04X}", u32::from(character));
    match NAMES.iter().find(|(known, _)| *known == character) {
        Some((_, name)) => format!("{number} ({name})"),
        None => number,
    }
}

/// Returns whether a character is a control, a blank other than the space, or one that Unicode calls ignorable: joiners, direction marks,
/// variation selectors, fillers.
fn is_invisible(character: char) -> bool {
    character.is_control()
        || (character.is_whitespace() && character != ' ')
        || matches!(character,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_that_cannot_be_seen_is_named_with_its_place() {
        for (text, says) in [
            (
                "/da\u{a0}ta",
                "has a character that cannot be seen, U+00A0 (no-break space), in place 4: take it out",
            ),
            (
                "ä\u{200b}",
                "has a character that cannot be seen, U+200B (zero-width space), in place 2: take it out",
            ),
            ("/data\n", "has a character that cannot be seen, U+000A (line feed), in place 6: take it out"),
            (
                "\u{feff}x",
                "has a character that cannot be seen, U+FEFF (byte order mark), in place 1: take it out",
            ),
            ("a\u{85}b", "has a character that cannot be seen, U+0085, in place 2: take it out"),
            ("/data ", "ends with a character that cannot be seen, U+0020 (space): take it out"),
            (" /data", "begins with a character that cannot be seen, U+0020 (space): take it out"),
            (" ", "begins with a character that cannot be seen, U+0020 (space): take it out"),
        ] {
            assert_eq!(invisible(text).as_deref(), Some(says), "{text:?}");
        }
        for text in ["", "/data", "/my data/ä/データ", "a b"] {
            assert_eq!(invisible(text), None, "{text}");
        }
    }
}
