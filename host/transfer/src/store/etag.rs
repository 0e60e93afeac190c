//! Etags in one normal form, whichever server or response they are from.

use std::fmt;

/// An entity tag (RFC 9110, 8.8.3). Two etags are equal if their values between the quotes are equal: Azure lists etags without quotes and
/// sends them with quotes in other responses, and a proxy may weaken one (`W/`) and not the other. Sizes and digests verify the bytes
/// themselves.
#[derive(Clone, Debug)]
pub struct Etag {
    /// The value between the quotes.
    tag: String,
    is_weak: bool,
    /// Whether it had quotes. A server may not recognise an etag without quotes in a header.
    is_quoted: bool,
}

impl Etag {
    /// Parses the etag of a header or a listing; `None` if it is empty.
    pub fn read(text: &str) -> Option<Self> {
        let text = text.trim();
        let between = |text: &str| text.strip_prefix('"')?.strip_suffix('"').map(str::to_owned);
        let weak = text.strip_prefix("W/").or_else(|| text.strip_prefix("w/")).and_then(between);
        let is_weak = weak.is_some();
        let quoted = weak.or_else(|| between(text));
        let is_quoted = quoted.is_some();
        let tag = quoted.unwrap_or_else(|| text.to_owned());
        (!tag.is_empty()).then_some(Self { tag, is_weak, is_quoted })
    }

    /// Returns the value for `If-Match`, which compares strongly (RFC 9110, 13.1.1); `None` if the etag is weak, or the server does
    /// not write it as an entity tag.
    pub(super) fn if_match(&self) -> Option<String> {
        (self.is_quoted && !self.is_weak && !self.tag.contains('"')).then(|| format!("\"{}\"", self.tag))
    }
}

impl PartialEq for Etag {
    fn eq(&self, other: &Self) -> bool {
        self.tag == other.tag
    }
}

impl Eq for Etag {}

/// Writes the normal form: in quotes, and without `W/`.
impl fmt::Display for Etag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etag_is_equal_in_every_form_that_servers_send() {
        let listed = Etag::read("0x8DC5C8E2B3A4F00").unwrap();
        for form in [
            "\"0x8DC5C8E2B3A4F00\"",
            "W/\"0x8DC5C8E2B3A4F00\"",
            "w/\"0x8DC5C8E2B3A4F00\"",
            " 0x8DC5C8E2B3A4F00 ",
        ] {
            let answered = Etag::read(form).unwrap();
            assert_eq!(answered, listed, "{form}");
            assert_eq!(answered.to_string(), listed.to_string(), "{form}");
        }
        for other in
            ["\"0x8DC5C8E2B3A4F01\"", "0X8DC5C8E2B3A4F00", "W/0x8DC5C8E2B3A4F00", "\"0x8DC5C8E2B3A4F00"]
        {
            assert_ne!(Etag::read(other).unwrap(), listed, "{other}");
        }
        for nothing in ["", " ", "\"\"", "W/\"\""] {
            assert_eq!(Etag::read(nothing), None, "{nothing}");
        }
        // A single quote is not a pair of quotes.
        assert_eq!(Etag::read("\"").unwrap().to_string(), "\"\"\"");
    }

    #[test]
    fn only_a_strong_quoted_etag_is_used_in_if_match() {
        assert_eq!(Etag::read("\"a-1\"").unwrap().if_match().as_deref(), Some("\"a-1\""));
        for form in ["a-1", "W/\"a-1\"", "\"a\"-1\"", "\""] {
            assert_eq!(Etag::read(form).unwrap().if_match(), None, "{form}");
        }
    }
}
