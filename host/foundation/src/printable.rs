//! Makes untrusted text safe for a terminal, a log and JSON. Only this module decides which characters may be shown.
//!
//! Text from a plugin, a server, a file name or restored data may be hostile until it has passed through this module. Two
//! properties decide whether a character is shown: its general category (Unicode Standard, section 4.5), and whether renderers may
//! leave it out (`Default_Ignorable_Code_Point`, section 5.21). So no shown character moves the cursor, changes the
//! direction of its neighbours, or is invisible. Letters of two scripts that look alike are both shown.

use std::borrow::Cow;

use icu_properties::props::{DefaultIgnorableCodePoint, GeneralCategory};
use icu_properties::{CodePointMapData, CodePointSetData};

/// How many combining marks may follow one letter or digit. Languages need up to three or four (Hebrew with vowels and
/// accents, Vietnamese, Thai); more of them would cover the lines above and below.
pub const MOST_MARKS: usize = 4;

/// Characters that are invisible although their categories are those of visible characters: braille blank, null notehead, object
/// replacement character, the blanks of Egyptian hieroglyphs. No property of Unicode identifies them.
const BLANK: [char; 5] = ['\u{2800}', '\u{1D159}', '\u{FFFC}', '\u{13441}', '\u{13442}'];

/// How a character appears on the screen.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    /// A letter or a number. A combining mark may follow it.
    Base,
    /// Punctuation, a symbol or a space. No combining mark may follow it.
    Alone,
    /// A combining mark.
    Mark,
    /// An invisible character, or one that changes how others appear.
    Hidden,
}

fn look(character: char) -> Look {
    use GeneralCategory as Of;
    if character.is_ascii() {
        return match character {
            'a'..='z' | 'A'..='Z' | '0'..='9' => Look::Base,
            ' '..='~' => Look::Alone,
            _ => Look::Hidden,
        };
    }
    if BLANK.contains(&character) || CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(character)
    {
        return Look::Hidden;
    }
    match CodePointMapData::<GeneralCategory>::new().get(character) {
        Of::UppercaseLetter
        | Of::LowercaseLetter
        | Of::TitlecaseLetter
        | Of::ModifierLetter
        | Of::OtherLetter
        | Of::DecimalNumber
        | Of::LetterNumber
        | Of::OtherNumber => Look::Base,
        Of::ConnectorPunctuation
        | Of::DashPunctuation
        | Of::OpenPunctuation
        | Of::ClosePunctuation
        | Of::InitialPunctuation
        | Of::FinalPunctuation
        | Of::OtherPunctuation
        | Of::MathSymbol
        | Of::CurrencySymbol
        | Of::ModifierSymbol
        | Of::OtherSymbol => Look::Alone,
        Of::NonspacingMark | Of::SpacingMark | Of::EnclosingMark => Look::Mark,
        // A reader cannot tell other spaces from the plain one of ASCII.
        Of::SpaceSeparator
        | Of::LineSeparator
        | Of::ParagraphSeparator
        | Of::Control
        | Of::Format
        | Of::Surrogate
        | Of::PrivateUse
        | Of::Unassigned => Look::Hidden,
    }
}

/// Decides for each character of a text, in order, whether it may be shown unescaped.
#[derive(Default)]
struct Reader {
    /// The number of marks after the last letter or number; `None` if the last character was neither one of these nor a mark.
    marks: Option<usize>,
}

impl Reader {
    fn shows(&mut self, character: char) -> bool {
        match look(character) {
            Look::Base => {
                self.marks = Some(0);
                true
            }
            Look::Alone => {
                self.marks = None;
                true
            }
            Look::Mark => match &mut self.marks {
                Some(marks) if *marks < MOST_MARKS => {
                    *marks += 1;
                    true
                }
                Some(_) | None => false,
            },
            Look::Hidden => {
                self.marks = None;
                false
            }
        }
    }
}

/// Returns whether every character may be shown unescaped.
pub fn is_printable(text: &str) -> bool {
    let mut reader = Reader::default();
    text.chars().all(|character| reader.shows(character))
}

/// Returns the text as one line: line ends are escaped as `\n` and `\r`, every other character that may not be shown as `\u{..}`,
/// and a tab becomes a space. Printable text is not changed, so a second call changes nothing.
pub fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, |character, line| match character {
        '\t' => line.push(' '),
        character => line.extend(character.escape_default()),
    })
}

/// Escapes a JSON text as [`printable`] does, but with JSON's own escapes (RFC 8259, section 7), so a parser reads the same characters.
/// The characters to escape must be inside strings, as in the output of serde_json.
pub fn printable_json(json: &str) -> Cow<'_, str> {
    escaped(json, |character, line| {
        for unit in character.encode_utf16(&mut [0; 2]) {
            line.push_str(&format!("\\u{unit:04x}"));
        }
    })
}

fn escaped(text: &str, escape: impl Fn(char, &mut String)) -> Cow<'_, str> {
    if is_printable(text) {
        return Cow::Borrowed(text);
    }
    let mut reader = Reader::default();
    let mut line = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if reader.shows(character) {
            line.push(character);
        } else {
            escape(character, &mut line);
        }
    }
    Cow::Owned(line)
}

/// Returns the first `limit` characters of the text, escaped as [`printable`] does, and `…` if the text has more. Escapes and `…`
/// do not count towards `limit`.
pub fn printable_within(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        None => printable(text).into_owned(),
        Some((end, _)) => format!("{}…", printable(&text[..end])),
    }
}

#[cfg(test)]
mod tests {
    use icu_properties::props::{BidiControl, VariationSelector, WhiteSpace};

    use super::*;

    fn every() -> impl Iterator<Item = char> {
        (0..=0x0010_FFFF).filter_map(char::from_u32)
    }

    #[test]
    fn no_invisible_or_direction_changing_character_of_unicode_is_shown() {
        let category = CodePointMapData::<GeneralCategory>::new();
        let ignorable = CodePointSetData::new::<DefaultIgnorableCodePoint>();
        let (bidi, selector, white) = (
            CodePointSetData::new::<BidiControl>(),
            CodePointSetData::new::<VariationSelector>(),
            CodePointSetData::new::<WhiteSpace>(),
        );
        for character in every() {
            // After a letter, where a mark may stand.
            let text = format!("a{character}");
            let shown = printable(&text);
            let left = shown.strip_prefix('a').unwrap();
            assert!(is_printable(&shown), "{character:?} leaves {shown:?}");
            if left == format!("{character}") && character != ' ' {
                let of = category.get(character);
                let hidden = matches!(
                    of,
                    GeneralCategory::Control
                        | GeneralCategory::Format
                        | GeneralCategory::PrivateUse
                        | GeneralCategory::Unassigned
                        | GeneralCategory::SpaceSeparator
                        | GeneralCategory::LineSeparator
                        | GeneralCategory::ParagraphSeparator
                );
                let acts =
                    bidi.contains(character) || selector.contains(character) || white.contains(character);
                assert!(
                    !hidden && !acts && !ignorable.contains(character),
                    "{character:?} ({of:?}) is shown"
                );
            } else if character != ' ' && character != '\t' {
                assert!(left.is_ascii() && left.starts_with('\\'), "{character:?} became {left:?}");
            }
        }
    }

    #[test]
    fn characters_known_to_be_invisible_are_escaped() {
        for character in [
            '\u{115F}',
            '\u{1160}',
            '\u{3164}',
            '\u{FFA0}',
            '\u{2800}',
            '\u{FE0F}',
            '\u{E0100}',
            '\u{180B}',
            '\u{034F}',
            '\u{00AD}',
            '\u{200B}',
            '\u{200D}',
            '\u{2060}',
            '\u{FEFF}',
            '\u{E0041}',
            '\u{202E}',
            '\u{2066}',
            '\u{2028}',
            '\u{2029}',
            '\u{00A0}',
            '\u{3000}',
            '\u{E000}',
            '\u{FFF9}',
            '\u{9B}',
            '\u{7F}',
            '\u{0378}',
            '\u{17B4}',
            '\u{FFFC}',
        ] {
            let text = format!("/mnt/back{character}ups");
            assert_eq!(printable(&text), format!("/mnt/back\\u{{{:x}}}ups", u32::from(character)));
            assert!(!is_printable(&text), "{character:?}");
            let json = serde_json::to_string(&text).unwrap();
            let line = printable_json(&json);
            assert!(is_printable(&line), "{line}");
            assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
        }
        assert_eq!(printable("a\r\nb\tc"), "a\\r\\nb c");
    }

    #[test]
    fn text_in_many_languages_stays_unchanged() {
        for text in [
            "Größe: 10 % – ok, „ja“ €5 §3 ½",
            "/mnt/バックアップ/数据库",
            "резервная копия",
            "גיבוי שָׁלוֹם",
            "نسخة احتياطية",
            "สำรองข้อมูล",
            "बैकअप",
            "cafe\u{301} Việt Nam e\u{302}\u{301}",
            "→ ✓ 🐘",
        ] {
            assert_eq!(printable(text), text);
            assert!(matches!(printable(text), Cow::Borrowed(_)), "{text}");
        }
    }

    #[test]
    fn only_a_few_marks_may_follow_a_letter() {
        // A mark at the beginning would be drawn over the host's own text before it.
        assert_eq!(printable("\u{301}x"), "\\u{301}x");
        assert_eq!(printable("'\u{301}"), "'\\u{301}");
        let heap = format!("a{}", "\u{301}".repeat(MOST_MARKS + 2));
        let shown = format!("a{}{}", "\u{301}".repeat(MOST_MARKS), "\\u{301}".repeat(2));
        assert_eq!(printable(&heap), shown);
    }

    #[test]
    fn a_long_text_is_cut_before_it_is_escaped() {
        assert_eq!(printable_within("abcdef", 3), "abc…");
        assert_eq!(printable_within("abc", 3), "abc");
        assert_eq!(printable_within("\u{1b}[2J", 1), "\\u{1b}…");
    }
}
