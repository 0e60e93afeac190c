//! A store's own mark of an object's content, in one form whoever answers.

use std::fmt;

/// An entity tag (RFC 9110, 8.8.3). Two are equal where what they hold between their quotes is: Azure lists them without
/// quotes and answers with them, and what stands between may weaken one (`W/`) and not the other. Which bytes came is held
/// against sizes and digests besides.
#[derive(Clone, Debug)]
pub struct Etag {
    /// What stands between the quotes.
    tag: String,
    is_weak: bool,
    /// Whether it came in quotes. One that did not is no entity tag that its server would know again in a header.
    is_quoted: bool,
}

impl Etag {
    /// Reads one as a header or a listing has it. `None` where it holds nothing.
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

    /// As it may stand in `If-Match`, which compares strongly (RFC 9110, 13.1.1). `None` for one that is weak, and for one
    /// that its server does not write as an entity tag.
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

/// Its normal form: in quotes, and without `W/`.
impl fmt::Display for Etag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_mark_is_the_same_in_every_form_that_servers_give_it() {
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
        // What only looks like quotes.
        assert_eq!(Etag::read("\"").unwrap().to_string(), "\"\"\"");
    }

    #[test]
    fn only_a_strong_mark_in_quotes_may_be_asked_for() {
        assert_eq!(Etag::read("\"a-1\"").unwrap().if_match().as_deref(), Some("\"a-1\""));
        for form in ["a-1", "W/\"a-1\"", "\"a\"-1\"", "\""] {
            assert_eq!(Etag::read(form).unwrap().if_match(), None, "{form}");
        }
    }
}
