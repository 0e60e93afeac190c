//! Texts in which a backup tool keeps the key of what it encrypts next. Whoever holds the key of such a text must not get at the
//! next one, which the host keeps: the text is read with that value blanked ([`Blanking`]), is not written where others read it
//! ([`Refusing`]), and does not come out compressed, to be decompressed where nobody blanks anything ([`RefusingCompressed`]).
//!
//! The host knows such texts by their formats, listed in [`FORMATS`], and what a name says or a value looks like makes none: in the
//! rows of a table any line may stand, and a replica with one blanked would be damaged. A format of another tool is another entry.

mod blank;
mod refuse;

pub(crate) use blank::Blanking;
pub(crate) use refuse::{Refusing, RefusingCompressed};

/// How a backup tool keeps keys in its own encrypted texts.
struct Format {
    /// How every text begins that may hold one.
    begins: &'static [u8],
    /// How the line of a key begins, in any text of the tool's; what follows is the rest of one JSON string.
    line: &'static [u8],
}

/// Every format of such texts that the host knows.
static FORMATS: [Format; 1] = [
    // pgBackRest's `backup.info`, `archive.info` and `backup.manifest` (src/info/info.c, `infoSave`).
    Format { begins: b"[backrest]", line: b"cipher-pass=\"" },
];

/// The most bytes that tell such a text by its beginning.
const LONGEST: usize = 16;

/// What the beginning of a text says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begins {
    /// It may hold keys.
    WithKeys,
    /// It holds none.
    Without,
    /// More of it is needed.
    Unclear,
}

/// Tells whether a text that begins so may hold keys.
fn judge(beginning: &[u8]) -> Begins {
    if FORMATS.iter().any(|format| beginning.starts_with(format.begins)) {
        Begins::WithKeys
    } else if FORMATS.iter().any(|format| format.begins.starts_with(beginning)) {
        Begins::Unclear
    } else {
        Begins::Without
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_told_by_its_beginning_as_soon_as_that_is_clear() {
        for format in &FORMATS {
            assert!(format.begins.len() <= LONGEST);
            assert_eq!(judge(format.begins), Begins::WithKeys);
            assert_eq!(judge(&[format.begins, b"\n"].concat()), Begins::WithKeys);
            assert_eq!(judge(&format.begins[..format.begins.len() - 1]), Begins::Unclear);
        }
        assert_eq!(judge(b""), Begins::Unclear);
        assert_eq!(judge(b"[backup]"), Begins::Without);
    }
}
