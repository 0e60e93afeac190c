//! The patterns of a program's arguments: `args = ["restore", "--set={label}", "--pg-path={path under datadir}"]`.
//!
//! Each pattern except [`PATRONI`] covers one whole argument. Patterns are not regular expressions: a pattern is literal text with holes,
//! and each hole has a type with a bound.

mod covers;

use std::fmt;
use std::str::FromStr;

use foundation::nearest::nearest;

pub(super) use covers::{Values, cover, covering};

/// The pattern that covers the arguments which Patroni passes to a script.
pub const PATRONI: &str = "{patroni}";

/// The most holes of one pattern.
const HOLES: usize = 4;

/// A pattern of one argument, or of those that Patroni passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArgumentPattern {
    /// `--scope=`, `--role=`, `--datadir=` and `--connstring=`, in this order, with the values of the run; no argument if the operator
    /// set `no_params`.
    Patroni,
    /// One argument.
    Argument(Argument),
}

/// A pattern of one argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// As the operator wrote it.
    written: String,
    /// Literals and holes; no hole follows another one.
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Hole(Hole),
}

/// What may stand in the place of a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hole {
    /// 1 to 64 letters, digits, `_`, `-`, `.` and `:`, not beginning with `-`, and not only dots, so that it cannot lead to a directory
    /// above.
    Label,
    /// 1 to 20 digits.
    Number,
    /// An absolute path without `.` and `..` that is the data directory or a mapped place, or lies below one.
    Path,
    /// 1 to 4096 printable bytes. At the beginning of an argument it does not begin with `-`, so that it cannot be an option.
    Text,
}

const WORDS: [(&str, Hole); 4] = [
    ("label", Hole::Label),
    ("number", Hole::Number),
    ("path under datadir", Hole::Path),
    ("text", Hole::Text),
];

/// A text that is not a pattern. The message follows the name of the setting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotAPattern(String);

impl ArgumentPattern {
    /// Returns the literal texts of the pattern.
    pub fn literals(&self) -> impl Iterator<Item = &str> {
        let parts = if let Self::Argument(argument) = self { argument.parts.as_slice() } else { &[] };
        parts
            .iter()
            .filter_map(|part| if let Part::Literal(text) = part { Some(text.as_str()) } else { None })
    }

    /// Returns whether the pattern is more than one literal text.
    pub fn has_hole(&self) -> bool {
        !matches!(self, Self::Argument(argument) if matches!(argument.parts[..], [Part::Literal(_)]))
    }
}

impl FromStr for ArgumentPattern {
    type Err = NotAPattern;

    fn from_str(text: &str) -> Result<Self, NotAPattern> {
        if text == PATRONI {
            return Ok(Self::Patroni);
        }
        let parts = parts(text)?;
        if parts.windows(2).any(|two| matches!(two, [Part::Hole(_), Part::Hole(_)])) {
            let why = "has two holes with nothing between them, so the end of the first is ambiguous: put a literal between them";
            return Err(NotAPattern(why.to_owned()));
        }
        if parts.iter().filter(|part| matches!(part, Part::Hole(_))).count() > HOLES {
            return Err(NotAPattern(format!("has more than {HOLES} holes")));
        }
        Ok(Self::Argument(Argument { written: text.to_owned(), parts }))
    }
}

fn parts(text: &str) -> Result<Vec<Part>, NotAPattern> {
    let (mut parts, mut literal) = (Vec::new(), String::new());
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        literal.push_str(&rest[..at]);
        let brace = &rest[at..];
        if let Some(after) = brace.strip_prefix("{{").or_else(|| brace.strip_prefix("}}")) {
            literal.push_str(&brace[..1]);
            rest = after;
            continue;
        }
        let inside = brace.strip_prefix('{').and_then(|inside| inside.split_once('}'));
        let Some((word, after)) = inside else {
            let why = "has a brace that belongs to no hole: write {{ or }} for a brace itself";
            return Err(NotAPattern(why.to_owned()));
        };
        let Some((_, hole)) = WORDS.iter().find(|(known, _)| *known == word) else {
            return Err(no_such_hole(word));
        };
        if !literal.is_empty() {
            parts.push(Part::Literal(std::mem::take(&mut literal)));
        }
        parts.push(Part::Hole(*hole));
        rest = after;
    }
    literal.push_str(rest);
    if !literal.is_empty() || parts.is_empty() {
        parts.push(Part::Literal(literal));
    }
    Ok(parts)
}

fn no_such_hole(word: &str) -> NotAPattern {
    if word == "patroni" {
        let why = format!(
            "has {PATRONI} together with other text: it matches several arguments, so make it a separate pattern"
        );
        return NotAPattern(why);
    }
    let known = WORDS.map(|(known, _)| known);
    let hint = match nearest(word, known) {
        Some(near) => format!("did you mean {{{near}}}?"),
        None => format!("known are {{{}}} and {PATRONI}", known.join("}, {")),
    };
    NotAPattern(format!("has a hole that does not exist, {{{}}}: {hint}", word.escape_debug()))
}

impl fmt::Display for ArgumentPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Patroni => PATRONI,
            Self::Argument(argument) => &argument.written,
        })
    }
}

impl ArgumentPattern {
    /// Returns the pattern that covers exactly this argument.
    pub(super) fn literal(argument: &str) -> Self {
        let written = argument.replace('{', "{{").replace('}', "}}");
        Self::Argument(Argument { written, parts: vec![Part::Literal(argument.to_owned())] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_pattern_says_why() {
        for (text, says) in [
            ("{label}{number}", "nothing between them"),
            ("a{text}{path under datadir}", "nothing between them"),
            ("{lable}", "did you mean {label}?"),
            ("{path}", "a hole that does not exist, {path}"),
            ("{0}", "known are {label}, {number}, {path under datadir}, {text} and {patroni}"),
            ("--x={patroni}", "together with other text"),
            ("{label", "belongs to no hole"),
            ("label}", "belongs to no hole"),
            ("{label},{label},{label},{label},{label}", "more than 4 holes"),
        ] {
            let why = text.parse::<ArgumentPattern>().unwrap_err().to_string();
            assert!(why.contains(says), "{text}: {why}");
        }
    }
}
