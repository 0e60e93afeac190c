//! Finds invisible characters in names and paths, such as a space that was copied together with a value. Such a name looks the same as the
//! intended one, but is different.

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
            "has an invisible character, {}, at position {}: remove it",
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
    Some(format!("{edge} with an invisible character, {}: remove it", shown(' ')))
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
    fn the_message_names_the_invisible_character_and_its_position() {
        for (text, says) in [
            ("/da\u{a0}ta", "has an invisible character, U+00A0 (no-break space), at position 4: remove it"),
            ("ä\u{200b}", "has an invisible character, U+200B (zero-width space), at position 2: remove it"),
            ("/data\n", "has an invisible character, U+000A (line feed), at position 6: remove it"),
            ("\u{feff}x", "has an invisible character, U+FEFF (byte order mark), at position 1: remove it"),
            ("a\u{85}b", "has an invisible character, U+0085, at position 2: remove it"),
            ("/data ", "ends with an invisible character, U+0020 (space): remove it"),
            (" /data", "begins with an invisible character, U+0020 (space): remove it"),
            (" ", "begins with an invisible character, U+0020 (space): remove it"),
        ] {
            assert_eq!(invisible(text).as_deref(), Some(says), "{text:?}");
        }
        for text in ["", "/data", "/my data/ä/データ", "a b"] {
            assert_eq!(invisible(text), None, "{text}");
        }
    }
}
