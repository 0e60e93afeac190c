//! Determines which arguments the patterns of a grant cover.

use std::collections::HashSet;
use std::path::{Component, Path};

use replica::{Context, Directories};

use super::{Argument, ArgumentPattern, Hole, Part};
use crate::text::is_printable;

/// The most bytes of a `{label}`.
const LABEL: usize = 64;
/// How many digits a `{number}` may have.
const NUMBER: usize = 20;
/// How many bytes a `{text}` or a `{path under datadir}` may have.
const TEXT: usize = 4096;

/// The values of the run, which the patterns are compared with.
#[derive(Clone, Copy)]
pub(in crate::capability::programs) struct Values<'a> {
    /// Patroni's four parameters; `None` with `no_params`.
    pub(in crate::capability::programs) context: Option<&'a Context>,
    /// The data directory and the mapped places.
    pub(in crate::capability::programs) directories: &'a Directories,
}

impl Values<'_> {
    /// Returns the arguments that [`PATRONI`](super::PATRONI) stands for.
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
pub(in crate::capability::programs) fn cover(
    patterns: &[ArgumentPattern],
    arguments: &[String],
    values: Values<'_>,
) -> bool {
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

/// Returns patterns that cover these arguments. Keeps each of `patterns` that covers the argument at its position, and adds a literal
/// pattern for any other argument. [`PATRONI`](super::PATRONI) covers Patroni's own arguments.
pub(in crate::capability::programs) fn covering(
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

    /// Returns whether the parts beginning with `part` match the argument beginning with byte `from`.
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

/// An argument with more bytes than this matches no pattern. All holes and literals of a pattern together cannot match more.
const MOST_BYTES: usize = 64 << 10;

/// How many bytes may be examined to decide whether a pattern matches an argument. Without this bound, a component could choose an argument
/// that makes the host search for hours. An ordinary argument takes a few hundred bytes.
const MOST_WORK: usize = 16 << 20;

/// The search for the ends of holes.
struct Search<'a> {
    argument: &'a str,
    values: Values<'a>,
    /// The parts and positions that are known not to match the rest. They are remembered because a literal may occur at several positions.
    failed: HashSet<(usize, usize)>,
    /// How many more bytes may be examined.
    left: usize,
}

impl Search<'_> {
    /// Returns whether the hole matches `text`, which begins at byte `at`. Returns `false` if the allowed work is used up.
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
    /// Returns how many bytes the hole can match.
    fn most(self) -> usize {
        match self {
            Self::Label => LABEL,
            Self::Number => NUMBER,
            Self::Path | Self::Text => TEXT,
        }
    }

    /// Returns whether the hole matches printable `text`, which begins at byte `at` of its argument.
    fn takes(self, text: &str, at: usize, values: Values<'_>) -> bool {
        (1..=self.most()).contains(&text.len())
            && match self {
                Self::Label => {
                    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':');
                    let is_dots = text.bytes().all(|byte| byte == b'.');
                    !text.starts_with('-') && !is_dots && text.chars().all(allowed)
                }
                Self::Number => text.bytes().all(|byte| byte.is_ascii_digit()),
                Self::Path => lies_in_a_place(text, values.directories),
                Self::Text => !(at == 0 && text.starts_with('-')),
            }
    }
}

/// Returns whether a path is the data directory or a mapped place, or is below one of them. Does not resolve symbolic links, because
/// Landlock checks their targets.
fn lies_in_a_place(path: &str, directories: &Directories) -> bool {
    // Checks the text, because `components` skips `.`.
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
        // Labels of dots alone could lead to a directory above, even after a dot in the pattern.
        for argument in ["/bk/../x", "/bk/./x", "/bk/.../x"] {
            assert!(!covered(&["/bk/{label}/x"], &[argument]), "{argument}");
        }
        assert!(!covered(&["/bk/.{label}"], &["/bk/.."]) && covered(&["/bk/{label}"], &["/bk/..x"]));
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
        // In the first argument, the last hole never fits. In the second one, the work is used up before the fitting ends are found.
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
        // With `no_params`, the pattern matches no arguments.
        let directories = directories();
        let without = Values { context: None, directories: &directories };
        assert!(cover(&patterns(&["x", "{patroni}"]), &["x".to_owned()], without));
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
