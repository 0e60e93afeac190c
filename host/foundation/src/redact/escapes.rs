//! The encodings that use escapes, and the decoding of escapes.

/// An encoding of texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    /// The backslash escapes of JSON (RFC 8259, section 7) and of Rust's `escape_debug`.
    Backslash,
    /// Character references of HTML and XML: `&#47;`, `&#x2F;`, `&sol;`.
    Reference,
    /// Percent-encoded bytes (RFC 3986, section 2.1), with digits of either case.
    Percent,
    /// Percent-encoded bytes and `+` for a space, as in the body of a form.
    Form,
}

impl Encoding {
    /// Every encoding.
    pub(super) const ALL: [Self; 4] = [Self::Backslash, Self::Reference, Self::Percent, Self::Form];

    /// Returns a byte that every text with something to decode contains. For [`Self::Form`], returns `+`: a text without `+` decodes as
    /// with [`Self::Percent`].
    pub(super) fn mark(self) -> u8 {
        match self {
            Self::Backslash => b'\\',
            Self::Reference => b'&',
            Self::Percent => b'%',
            Self::Form => b'+',
        }
    }

    /// Returns how many bytes precede the next byte with which an escape may begin.
    pub(super) fn plain(self, text: &[u8]) -> usize {
        let (mark, other) = (self.mark(), if self == Self::Form { b'%' } else { self.mark() });
        text.iter().position(|&byte| byte == mark || byte == other).unwrap_or(text.len())
    }

    /// Decodes the escape at the beginning of `rest`. Returns its value and its length in bytes; `None` if no escape begins there.
    pub(super) fn decode(self, rest: &[u8]) -> Option<(Decoded, usize)> {
        match (self, rest.first()?) {
            (Self::Backslash, b'\\') => backslash(rest),
            (Self::Reference, b'&') => reference(rest),
            (Self::Percent | Self::Form, b'%') => percent(rest),
            (Self::Form, b'+') => Some((Decoded::Byte(b' '), 1)),
            _ => None,
        }
    }
}

/// The value of an escape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    Byte(u8),
    Char(char),
}

/// The bytes with which an escape begins, other than the `+` of a form.
pub const ESCAPES: [u8; 3] = [b'%', b'\\', b'&'];

/// Returns whether an escape may contain this byte.
pub fn may_contain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"%\\&#;{}\"'/".contains(&byte)
}

/// Returns the first byte of the value of the escape at the beginning of `rest`; `None` if no escape begins there. Does not treat the `+`
/// of a form as an escape.
pub fn stands_for(rest: &[u8]) -> Option<u8> {
    let encoding = match rest.first()? {
        b'%' => Encoding::Percent,
        b'\\' => Encoding::Backslash,
        b'&' => Encoding::Reference,
        _ => return None,
    };
    match encoding.decode(rest)?.0 {
        Decoded::Byte(byte) => Some(byte),
        Decoded::Char(char) => char.encode_utf8(&mut [0; 4]).bytes().next(),
    }
}

fn percent(rest: &[u8]) -> Option<(Decoded, usize)> {
    let digits = rest.strip_prefix(b"%")?.get(..2)?;
    Some((Decoded::Byte(u8::try_from(number(digits)?).ok()?), 3))
}

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

/// How many bytes a character reference may have between `&` and `;`: enough for `#x` and eight digits, the most that programs write.
const REFERENCE: usize = 10;

/// The names of ASCII characters in HTML 5 (the first five also in XML).
const NAMES: &[(&str, char)] = &[
    ("amp", '&'),
    ("lt", '<'),
    ("gt", '>'),
    ("quot", '"'),
    ("apos", '\''),
    ("Tab", '\t'),
    ("NewLine", '\n'),
    ("excl", '!'),
    ("num", '#'),
    ("dollar", '$'),
    ("percnt", '%'),
    ("lpar", '('),
    ("rpar", ')'),
    ("ast", '*'),
    ("midast", '*'),
    ("plus", '+'),
    ("comma", ','),
    ("period", '.'),
    ("sol", '/'),
    ("colon", ':'),
    ("semi", ';'),
    ("equals", '='),
    ("quest", '?'),
    ("commat", '@'),
    ("lsqb", '['),
    ("lbrack", '['),
    ("bsol", '\\'),
    ("rsqb", ']'),
    ("rbrack", ']'),
    ("Hat", '^'),
    ("lowbar", '_'),
    ("UnderBar", '_'),
    ("grave", '`'),
    ("lcub", '{'),
    ("lbrace", '{'),
    ("verbar", '|'),
    ("vert", '|'),
    ("rcub", '}'),
    ("rbrace", '}'),
    ("AMP", '&'),
    ("LT", '<'),
    ("GT", '>'),
    ("QUOT", '"'),
];

fn reference(rest: &[u8]) -> Option<(Decoded, usize)> {
    let after = rest.strip_prefix(b"&")?;
    let length = after.iter().take(REFERENCE + 1).position(|&byte| byte == b';')?;
    let name = &after[..length];
    let char = match name.strip_prefix(b"#") {
        Some([b'x' | b'X', digits @ ..]) => char::from_u32(number(without_zeros(digits))?)?,
        Some(digits) => {
            let digits = std::str::from_utf8(digits).ok()?;
            let is_number = digits.bytes().all(|digit| digit.is_ascii_digit());
            char::from_u32(digits.parse().ok().filter(|_| is_number)?)?
        }
        None => NAMES.iter().find(|(own, _)| own.as_bytes() == name)?.1,
    };
    Some((Decoded::Char(char), length + 2))
}

fn without_zeros(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
    &digits[zeros..]
}

/// Parses one to six hexadecimal digits.
fn number(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() || digits.len() > 6 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_escape_is_told_from_text_that_looks_like_one() {
        for (text, byte) in [
            ("%2f", Some(b'/')),
            ("%2F", Some(b'/')),
            ("\\/", Some(b'/')),
            ("\\u002B", Some(b'+')),
            ("&#47;", Some(b'/')),
            ("&#x2f;", Some(b'/')),
            ("&#X0000002F;", Some(b'/')),
            ("&#0000047;", Some(b'/')),
            ("&sol;", Some(b'/')),
            ("&#xe9;", Some(0xC3)),
            ("+", None),
            ("a", None),
            ("", None),
            ("%", None),
            ("%2", None),
            ("%2g", None),
            ("\\q", None),
            ("&", None),
            ("&;", None),
            ("&#;", None),
            ("&#x;", None),
            ("&#+7;", None),
            ("&#x110000;", None),
            ("&#99999999999;", None),
            ("&amp", None),
            ("&unknown;", None),
            ("&a-name-that-is-long;", None),
        ] {
            assert_eq!(stands_for(text.as_bytes()), byte, "{text}");
        }
    }
}
