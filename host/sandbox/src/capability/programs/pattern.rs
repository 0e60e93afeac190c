//! The patterns of a program's arguments: `args = ["restore", "--set={label}", "--pg-path={path under datadir}"]`.
//!
//! A pattern covers one argument, except [`PATRONI`], and never a part of one or several joined. Patterns are no regular expressions: a
//! pattern is literal text with holes, and each hole has a type with a bound.

use std::collections::HashSet;
use std::fmt;
use std::path::{Component, Path};
use std::str::FromStr;

use foundation::nearest::nearest;
use replica::{Context, Directories};

use crate::text::is_printable;

/// The pattern that covers the arguments which Patroni passes to a script.
pub const PATRONI: &str = "{patroni}";

/// The most bytes of a `{label}`.
const LABEL: usize = 64;
/// The most digits of a `{number}`.
const NUMBER: usize = 20;
/// The most bytes of a `{text}` and of a `{path under datadir}`.
const TEXT: usize = 4096;
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
    /// 1 to 64 letters, digits, `_`, `-`, `.` and `:`, not beginning with `-`.
    Label,
    /// 1 to 20 digits.
    Number,
    /// An absolute path without `.` and `..` that is the data directory or a mapped place, or lies below one.
    Path,
    /// 1 to 4096 printable bytes. At the beginning of an argument it does not begin with `-`, so that it is no option.
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

impl FromStr for ArgumentPattern {
    type Err = NotAPattern;

    fn from_str(text: &str) -> Result<Self, NotAPattern> {
        if text == PATRONI {
            return Ok(Self::Patroni);
        }
        let parts = parts(text)?;
        if parts.windows(2).any(|two| matches!(two, [Part::Hole(_), Part::Hole(_)])) {
            let why = "has two holes with nothing between them, so that it is not known where one ends: put a literal between them";
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
            "has {PATRONI} beside other text: it stands for several arguments, as a pattern of its own"
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

/// The run whose values the holes are compared with.
#[derive(Clone, Copy)]
pub(super) struct Values<'a> {
    /// Patroni's four parameters; `None` with `no_params`.
    pub(super) context: Option<&'a Context>,
    /// The data directory and the mapped places.
    pub(super) directories: &'a Directories,
}

impl Values<'_> {
    /// Returns the arguments that [`PATRONI`] stands for.
    fn patroni(&self) -> Vec<String> {
        let Some(Context { scope, role, datadir, connstring }) = self.context else { return Vec::new() };
        vec![
            format!("--scope={scope}"),
            format!("--role={role}"),
            format!("--datadir={datadir}"),
            format!("--connstring={connstring}"),
        ]
    }
}

/// Returns whether the patterns cover all arguments, in order.
pub(super) fn cover(patterns: &[ArgumentPattern], arguments: &[String], values: Values<'_>) -> bool {
    let mut rest = arguments;
    for pattern in patterns {
        rest = match pattern {
            ArgumentPattern::Patroni => match rest.strip_prefix(values.patroni().as_slice()) {
                Some(rest) => rest,
                None => return false,
            },
            ArgumentPattern::Argument(pattern) => match rest.split_first() {
                Some((argument, rest)) if pattern.covers(argument, values) => rest,
                Some(_) | None => return false,
            },
        };
    }
    rest.is_empty()
}

/// Returns patterns that cover these arguments: of `patterns` those that do already, if there are as many, else literals. Patroni's own
/// arguments are covered by [`PATRONI`].
pub(super) fn covering(
    patterns: &[ArgumentPattern],
    arguments: &[String],
    values: Values<'_>,
) -> Vec<ArgumentPattern> {
    let patroni = values.patroni();
    let mut covering = Vec::new();
    let mut rest = arguments;
    while let Some((argument, after)) = rest.split_first() {
        if let Some(after) = rest.strip_prefix(patroni.as_slice()).filter(|_| !patroni.is_empty()) {
            covering.push(ArgumentPattern::Patroni);
            rest = after;
            continue;
        }
        let kept = match patterns.get(covering.len()) {
            Some(ArgumentPattern::Argument(pattern)) if pattern.covers(argument, values) => {
                Some(ArgumentPattern::Argument(pattern.clone()))
            }
            Some(_) | None => None,
        };
        covering.push(kept.unwrap_or_else(|| ArgumentPattern::literal(argument)));
        rest = after;
    }
    covering
}

impl Argument {
    fn covers(&self, argument: &str, values: Values<'_>) -> bool {
        let has_hole = self.parts.iter().any(|part| matches!(part, Part::Hole(_)));
        if argument.len() > MOST_BYTES || (has_hole && !is_printable(argument)) {
            return false;
        }
        let mut search = Search { argument, values, failed: HashSet::new(), left: MOST_WORK };
        self.covers_from(0, 0, &mut search)
    }

    /// Returns whether the parts from `part` on cover the argument from byte `from` on.
    fn covers_from(&self, part: usize, from: usize, search: &mut Search<'_>) -> bool {
        if search.failed.contains(&(part, from)) {
            return false;
        }
        let rest = &search.argument[from..];
        let covers = match (self.parts.get(part), self.parts.get(part + 1)) {
            (None, _) => rest.is_empty(),
            (Some(Part::Literal(literal)), _) => {
                rest.starts_with(literal.as_str()) && self.covers_from(part + 1, from + literal.len(), search)
            }
            (Some(Part::Hole(hole)), Some(Part::Literal(literal))) => rest
                .match_indices(literal.as_str())
                .take_while(|(end, _)| *end <= hole.most())
                .any(|(end, _)| {
                    search.takes(*hole, &rest[..end], from) && self.covers_from(part + 1, from + end, search)
                }),
            (Some(Part::Hole(hole)), _) => search.takes(*hole, rest, from),
        };
        if !covers {
            search.failed.insert((part, from));
        }
        covers
    }
}

/// The most bytes of an argument that has a hole: every hole at its longest, and the literals.
const MOST_BYTES: usize = 64 << 10;

/// How many bytes are examined at most until it is decided whether a pattern covers an argument. A component chooses the argument, and could
/// otherwise make the host search for hours. An ordinary argument takes a few hundred.
const MOST_WORK: usize = 16 << 20;

/// The search for the ends of holes.
struct Search<'a> {
    argument: &'a str,
    values: Values<'a>,
    /// The parts and places of which it is known that they do not cover the rest, because a literal may occur at several places.
    failed: HashSet<(usize, usize)>,
    /// How many more bytes may be examined.
    left: usize,
}

impl Search<'_> {
    /// Returns whether `text`, which begins at byte `at`, may stand in the place of the hole; not if the work is used up.
    fn takes(&mut self, hole: Hole, text: &str, at: usize) -> bool {
        match self.left.checked_sub(text.len().min(hole.most()) + 1) {
            Some(left) => {
                self.left = left;
                hole.takes(text, at, self.values)
            }
            None => {
                self.left = 0;
                false
            }
        }
    }
}

impl Hole {
    /// Returns how many bytes it takes at most.
    fn most(self) -> usize {
        match self {
            Self::Label => LABEL,
            Self::Number => NUMBER,
            Self::Path | Self::Text => TEXT,
        }
    }

    /// Returns whether printable `text`, which begins at byte `at` of its argument, may stand in the place of the hole.
    fn takes(self, text: &str, at: usize, values: Values<'_>) -> bool {
        (1..=self.most()).contains(&text.len())
            && match self {
                Self::Label => {
                    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':');
                    !text.starts_with('-') && text.chars().all(allowed)
                }
                Self::Number => text.bytes().all(|byte| byte.is_ascii_digit()),
                Self::Path => lies_in_a_place(text, values.directories),
                Self::Text => !(at == 0 && text.starts_with('-')),
            }
    }
}

/// Returns whether a path lies by its name in the data directory or a mapped place. Links are the kernel's matter: Landlock judges
/// where they lead.
fn lies_in_a_place(path: &str, directories: &Directories) -> bool {
    // `components` leaves out `.`, which would be told from nothing.
    let is_plain = path.starts_with('/') && path.split('/').all(|name| !matches!(name, "." | ".."));
    let path = Path::new(path);
    let mut places = std::iter::once(directories.datadir.as_path()).chain(directories.mapped());
    is_plain
        && path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
        && places.any(|place| path.starts_with(place))
}

#[cfg(test)]
mod tests {
    use replica::{TablespaceKey, TablespaceMap};

    use super::*;

    fn patterns(texts: &[&str]) -> Vec<ArgumentPattern> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn directories() -> Directories {
        let map = TablespaceMap::new(vec![(TablespaceKey::parse("/old"), "/fast".into())]);
        Directories { datadir: "/data/15".into(), wal: Some("/wal".into()), tablespaces: map }
    }

    fn context() -> Context {
        Context {
            scope: "batman".to_owned(),
            role: "replica".to_owned(),
            datadir: "/data/15".to_owned(),
            connstring: "host=h port=5432".to_owned(),
        }
    }

    fn covered(texts: &[&str], arguments: &[&str]) -> bool {
        let arguments: Vec<_> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let (context, directories) = (context(), directories());
        cover(&patterns(texts), &arguments, Values { context: Some(&context), directories: &directories })
    }

    #[test]
    fn each_pattern_covers_one_argument_in_order() {
        assert!(covered(&[], &[]));
        assert!(covered(&["restore", "--delta"], &["restore", "--delta"]));
        for arguments in [
            &["restore"][..],
            &["--delta", "restore"],
            &["restore", "--delta", "--delta"],
            &["restore--delta", ""],
            &["restore --delta"],
            &["restore", "--deltas"],
            &["Restore", "--delta"],
        ] {
            assert!(!covered(&["restore", "--delta"], arguments), "{arguments:?}");
        }
        assert!(covered(&["{{x}}"], &["{x}"]));
        assert!(covered(&[""], &[""]) && !covered(&[""], &[]));
    }

    #[test]
    fn a_label_is_a_short_word_and_no_option() {
        for label in ["20261127-205600F", "a.b:c_d", "x", &"x".repeat(64)] {
            assert!(covered(&["--set={label}"], &[&format!("--set={label}")]), "{label}");
        }
        for label in
            ["", "-x", "--config=/etc", "a b", "a/b", "a=b", "ä", "a\n", "a;b", "$x", &"x".repeat(65)]
        {
            assert!(!covered(&["--set={label}"], &[&format!("--set={label}")]), "{label}");
        }
        assert!(!covered(&["{label}"], &["-x"]));
    }

    #[test]
    fn a_number_has_digits_alone() {
        assert!(covered(&["-j{number}"], &["-j16"]));
        for number in ["", "-1", "+1", "1.5", "0x10", "1e3", "١", "123456789012345678901"] {
            assert!(!covered(&["-j{number}"], &[&format!("-j{number}")]), "{number}");
        }
    }

    #[test]
    fn a_path_lies_in_the_data_directory_or_a_mapped_place() {
        for path in
            ["/data/15", "/data/15/base/1", "/wal", "/wal/x", "/fast/PG_15", "/data/15/", "/data/15//base"]
        {
            assert!(covered(&["{path under datadir}"], &[path]), "{path}");
        }
        for path in [
            "",
            "/",
            "/data",
            "/data/151",
            "/data/15/..",
            "/data/15/../16",
            "/data/15/./../x",
            "/data/15/./x",
            "data/15",
            "/etc/shadow",
            "/data/15\n",
            "/walx",
            "/data/15/../../etc",
        ] {
            assert!(!covered(&["{path under datadir}"], &[path]), "{path}");
        }
        assert!(covered(&["--pg={path under datadir}/x"], &["--pg=/data/15/base/x"]));
    }

    #[test]
    fn a_text_is_printable_and_an_option_only_behind_a_literal() {
        for text in ["a b", "--x", "s3://bucket/pré", "a'b\"c$(d)", &"x".repeat(4096)] {
            assert!(covered(&["--to={text}"], &[&format!("--to={text}")]), "{text}");
        }
        for text in ["", "a\nb", "a\0b", "\u{1b}[2J", "a\u{202e}b", &"x".repeat(4097)] {
            assert!(!covered(&["--to={text}"], &[&format!("--to={text}")]), "{text}");
        }
        assert!(covered(&["{text}"], &["a"]) && !covered(&["{text}"], &["-a"]));
    }

    #[test]
    fn several_holes_are_told_apart_by_what_stands_between_them() {
        assert!(covered(&["{label}={number}"], &["a=1"]));
        assert!(covered(&["{text},{text}"], &["a,b,c"]));
        assert!(!covered(&["{text},{text}"], &["a,"]));
        assert!(covered(&["{label}-{number}"], &["a-b-1"]));
        assert!(!covered(&["{label}-{number}"], &["a-b"]));
    }

    #[test]
    fn the_work_for_one_argument_is_bounded() {
        let pattern = "{text}a{text}a{text}a{number}";
        assert!(covered(&[pattern], &[&format!("{}1", "a".repeat(100))]));
        // Whichever ends are tried, the last hole does not fit, or the work is used up before it is found to fit.
        assert!(!covered(&[pattern], &[&"a".repeat(16_000)]));
        assert!(!covered(&[pattern], &[&format!("{}1", "a".repeat(16_000))]));
    }

    #[test]
    fn patronis_arguments_are_those_of_this_run() {
        let own = ["--scope=batman", "--role=replica", "--datadir=/data/15", "--connstring=host=h port=5432"];
        assert!(covered(&["{patroni}"], &own));
        assert!(covered(&["-v", "{patroni}", "x"], &["-v", own[0], own[1], own[2], own[3], "x"]));
        let with = |index: usize, other: &'static str| {
            let mut arguments = own;
            arguments[index] = other;
            arguments
        };
        for arguments in [
            with(0, "--scope=robin"),
            with(1, "--role=primary"),
            with(2, "--datadir=/data/16"),
            with(3, "--connstring=host=other"),
        ] {
            assert!(!covered(&["{patroni}"], &arguments), "{arguments:?}");
        }
        assert!(!covered(&["{patroni}"], &[own[1], own[0], own[2], own[3]]));
        assert!(!covered(&["{patroni}"], &own[..3]));
        // With `no_params` there are none.
        let directories = directories();
        let without = Values { context: None, directories: &directories };
        assert!(cover(&patterns(&["x", "{patroni}"]), &["x".to_owned()], without));
    }

    #[test]
    fn what_is_no_pattern_says_why() {
        for (text, says) in [
            ("{label}{number}", "nothing between them"),
            ("a{text}{path under datadir}", "nothing between them"),
            ("{lable}", "did you mean {label}?"),
            ("{path}", "a hole that does not exist, {path}"),
            ("{0}", "known are {label}, {number}, {path under datadir}, {text} and {patroni}"),
            ("--x={patroni}", "beside other text"),
            ("{label", "belongs to no hole"),
            ("label}", "belongs to no hole"),
            ("{label},{label},{label},{label},{label}", "more than 4 holes"),
        ] {
            let why = text.parse::<ArgumentPattern>().unwrap_err().to_string();
            assert!(why.contains(says), "{text}: {why}");
        }
    }

    #[test]
    fn the_patterns_of_a_remedy_cover_what_was_asked_and_keep_what_fits() {
        let (context, directories) = (context(), directories());
        let values = Values { context: Some(&context), directories: &directories };
        let asked = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let shown = |granted: &[&str], arguments: &[&str]| {
            let covering = covering(&patterns(granted), &asked(arguments), values);
            assert!(cover(&covering, &asked(arguments), values));
            covering.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(shown(&[], &["restore", "{x}"]), ["restore", "{{x}}"]);
        assert_eq!(shown(&["restore", "{label}"], &["restore", "--set=x"]), ["restore", "--set=x"]);
        assert_eq!(shown(&["info", "{label}"], &["restore", "x"]), ["restore", "{label}"]);
        let patroni =
            ["x", "--scope=batman", "--role=replica", "--datadir=/data/15", "--connstring=host=h port=5432"];
        assert_eq!(shown(&[], &patroni), ["x", "{patroni}"]);
    }
}
