//! Decodes the encodings in a text, and maps positions in the decoded text back to the original.

use std::borrow::Cow;
use std::ops::Range;

/// The original text or a decoded copy.
pub(super) struct View<'a> {
    bytes: Cow<'a, [u8]>,
    /// For each byte, the position in the original at which its encoding begins; then the position of the end. `None` for the original.
    from: Option<Vec<usize>>,
}

impl View<'_> {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Converts a range in this view to the range in the original.
    pub(super) fn in_original(&self, range: Range<usize>) -> Range<usize> {
        match &self.from {
            None => range,
            Some(from) => from[range.start]..from[range.end],
        }
    }

    /// Returns a decoded copy of this view. `decode` takes the rest of the text and returns what the escape at its beginning stands for,
    /// and the length of the escape; `None` if no escape begins there.
    fn decoded(&self, decode: impl Fn(&[u8]) -> Option<(Decoded, usize)>) -> View<'static> {
        let mut bytes = Vec::with_capacity(self.bytes.len());
        let mut from = Vec::with_capacity(self.bytes.len() + 1);
        let origin = |at: usize| self.from.as_ref().map_or(at, |from| from[at]);
        let mut at = 0;
        while let Some(&byte) = self.bytes.get(at) {
            let (decoded, length) = decode(&self.bytes[at..]).unwrap_or((Decoded::Byte(byte), 1));
            match decoded {
                Decoded::Byte(byte) => bytes.push(byte),
                Decoded::Char(char) => bytes.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
            }
            from.resize(bytes.len(), origin(at));
            at += length;
        }
        from.push(origin(at));
        View { bytes: Cow::Owned(bytes), from: Some(from) }
    }
}

/// What an escape stands for.
enum Decoded {
    Byte(u8),
    Char(char),
}

/// Calls `look` with the text, and with each decoded copy that may differ from it.
pub(super) fn each(text: &[u8], mut look: impl FnMut(&View<'_>)) {
    let raw = View { bytes: Cow::Borrowed(text), from: None };
    let unescaped = text.contains(&b'\\').then(|| raw.decoded(backslash));
    for view in std::iter::once(raw).chain(unescaped) {
        look(&view);
        if view.bytes.contains(&b'%') {
            look(&view.decoded(percent));
        }
        if view.bytes.contains(&b'+') {
            look(&view.decoded(|rest| match rest.first() {
                Some(b'+') => Some((Decoded::Byte(b' '), 1)),
                _ => percent(rest),
            }));
        }
    }
}

/// Decodes a percent-encoded byte (RFC 3986, section 2.1).
fn percent(rest: &[u8]) -> Option<(Decoded, usize)> {
    let digits = rest.strip_prefix(b"%")?.get(..2)?;
    Some((Decoded::Byte(u8::try_from(number(digits)?).ok()?), 3))
}

/// Decodes an escape as written in JSON (RFC 8259, section 7) or by Rust's `escape_debug`.
fn backslash(rest: &[u8]) -> Option<(Decoded, usize)> {
    let (letter, after) = rest.strip_prefix(b"\\")?.split_first()?;
    let byte = |byte| Some((Decoded::Byte(byte), 2));
    match letter {
        b'n' => byte(b'\n'),
        b'r' => byte(b'\r'),
        b't' => byte(b'\t'),
        b'b' => byte(8),
        b'f' => byte(12),
        b'0' => byte(0),
        b'"' | b'\'' | b'\\' | b'/' => byte(*letter),
        b'x' => Some((Decoded::Byte(u8::try_from(number(after.get(..2)?)?).ok()?), 4)),
        b'u' => match after.strip_prefix(b"{") {
            Some(braced) => {
                let length = braced.iter().take(7).position(|&byte| byte == b'}')?;
                Some((Decoded::Char(char::from_u32(number(&braced[..length])?)?), length + 4))
            }
            None => {
                let unit = number(after.get(..4)?)?;
                let low = || number(after.get(4..)?.strip_prefix(b"\\u")?.get(..4)?);
                match (unit, low()) {
                    (0xD800..=0xDBFF, Some(low @ 0xDC00..=0xDFFF)) => {
                        let char = char::from_u32(0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00))?;
                        Some((Decoded::Char(char), 12))
                    }
                    _ => Some((Decoded::Char(char::from_u32(unit)?), 6)),
                }
            }
        },
        _ => None,
    }
}

/// Parses one to six hexadecimal digits.
fn number(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() || digits.len() > 6 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}
