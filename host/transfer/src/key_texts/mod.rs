//! Key texts: encrypted texts that contain the keys of other objects. A plugin may have such a text decrypted, but must not see the keys
//! in it. So the keys are blanked when the plugin reads the text ([`Blanking`]); the text is not written to a file
//! ([`Refusing`]); and it is not returned in compressed form, because the plugin could decompress it ([`RefusingCompressed`]).
//!
//! A text that is to be written, or returned in compressed form, is recognised by its first bytes ([`FORMATS`]), never by an object's name:
//! the rows of a table may contain any line, and a file of the replica must stay as it is. In decrypted bytes that a plugin reads, the rest
//! of every line that begins like a key's line is blanked, whatever the text is. To support the format of another tool, add an entry.

mod blank;
mod refuse;

pub(crate) use blank::Blanking;
pub(crate) use refuse::{Refusing, RefusingCompressed};

/// The format in which a backup tool keeps keys in its encrypted texts.
struct Format {
    /// The beginning of every text that may hold a key.
    begins: &'static [u8],
    /// The beginning of the line of a key. The rest of a JSON string follows.
    line: &'static [u8],
}

/// The formats that the host knows.
static FORMATS: [Format; 1] = [
    // pgBackRest's `backup.info`, `archive.info` and `backup.manifest` (src/info/info.c, `infoSave`).
    Format { begins: b"[backrest]", line: b"cipher-pass=\"" },
];

/// The most bytes of a text's beginning that are needed to recognise it.
const LONGEST: usize = 16;

/// What the beginning of a text says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begins {
    /// The text may hold keys.
    WithKeys,
    /// The text holds no keys.
    Without,
    /// More bytes are needed to decide.
    Unclear,
}

/// Decides whether a text that begins with these bytes may hold keys.
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
    fn a_text_is_recognised_by_its_beginning() {
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
