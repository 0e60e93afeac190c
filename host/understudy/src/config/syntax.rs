//! Explains the errors of a file that is not TOML to a reader who does not know TOML. The parser's own message is used if no better one is
//! known. No message quotes the file's text, because that text may be a password.

use std::ops::Range;

use super::input::Input;
use super::problem::{Place, Problem};
use super::{duplicate, visible};

/// Quotation marks that word processors put in place of `"` and `'`.
const TYPOGRAPHIC: &str = "“”„‟‘’‚‛«»";

/// Words for true and false in other languages of configuration.
const FLAGS: [&str; 6] = ["yes", "no", "on", "off", "y", "n"];

/// Returns what is wrong with `text`, at most one problem for each line, in the order of the file.
pub(super) fn problems(input: Input<'_>, text: &str, errors: &[toml::de::Error]) -> Vec<Problem> {
    let at = |offset: usize, message: String| Problem::new(input.origin(Place::of(text, offset)), message);
    if let Some((offset, why)) = of_the_whole(text, errors) {
        return vec![at(offset, format!("not TOML: {why}"))];
    }
    let mut problems: Vec<Problem> = Vec::new();
    let mut lines = Vec::new();
    let mut sorted: Vec<_> = errors.iter().map(|error| (error.span().unwrap_or_default(), error)).collect();
    sorted.sort_by_key(|(span, _)| span.start);
    for (span, error) in sorted {
        let line = Place::of(text, span.start).line;
        if lines.contains(&line) {
            continue;
        }
        lines.push(line);
        let (offset, why) = of_a_line(text, span, error.message());
        problems.push(at(offset, why));
    }
    problems
}

/// Returns a mistake that causes all other errors, with its offset; `None` if the errors are independent.
fn of_the_whole(text: &str, errors: &[toml::de::Error]) -> Option<(usize, String)> {
    if let Some(offset) = lone_carriage_return(text) {
        let why =
            "its lines end with carriage returns only: convert the file, for example with `tr '\\r' '\\n'`";
        return Some((offset, why.to_owned()));
    }
    if text.trim_start().starts_with('{') {
        let why =
            "this looks like JSON; this file is TOML: scope = \"batman\", with sections such as [replica]";
        return Some((text.len() - text.trim_start().len(), why.to_owned()));
    }
    if let Some(offset) = yaml(text) {
        let why =
            "this looks like YAML; this file is TOML: scope = \"batman\", with sections such as [replica]";
        return Some((offset, why.to_owned()));
    }
    let first = errors.iter().filter_map(|error| error.span()).map(|span| span.start).min()?;
    for (unclosed, open, what, close) in
        [("unclosed array", '[', "list", ']'), ("unclosed inline table", '{', "table", '}')]
    {
        if errors.iter().any(|error| error.message().starts_with(unclosed)) {
            let begins = value_with(text.get(..first)?, open)?;
            return Some((begins, format!("the {what} that begins here is not closed: add `{close}`")));
        }
    }
    None
}

fn lone_carriage_return(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    (0..bytes.len()).find(|at| bytes[*at] == b'\r' && bytes.get(at + 1) != Some(&b'\n'))
}

/// Returns the offset of the first line of YAML if at least two lines look like YAML and no line has a `=`.
fn yaml(text: &str) -> Option<usize> {
    let mut found = text.lines().filter(|line| is_yaml(line));
    let (first, second) = (found.next()?, found.next());
    let only_yaml = !text.lines().any(|line| !line.trim_start().starts_with('#') && line.contains('='));
    (second.is_some() && only_yaml).then(|| text.find(first)).flatten()
}

/// Returns whether a line is `key: value` or `key:`.
fn is_yaml(line: &str) -> bool {
    line.trim_start().split_once(':').is_some_and(|(key, value)| {
        !key.is_empty()
            && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
            && (value.is_empty() || value.starts_with(char::is_whitespace))
    })
}

/// Returns the offset of the last value that begins with `open`.
fn value_with(text: &str, open: char) -> Option<usize> {
    text.match_indices(open)
        .map(|(offset, _)| offset)
        .rfind(|offset| text[..*offset].trim_end_matches([' ', '\t']).ends_with('='))
}

/// Returns the offset of the mistake in one line, and the message about it.
fn of_a_line(text: &str, span: Range<usize>, message: &str) -> (usize, String) {
    let start = text.get(..span.start).map_or(0, |before| before.rfind('\n').map_or(0, |end| end + 1));
    let line = text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
    let not_toml = |offset, why: &str| (offset, format!("not TOML: {why}"));
    if message == "duplicate key"
        && let Some(why) = duplicate::message(text, span.clone())
    {
        return (span.start, why);
    }
    if line.trim_start().starts_with([';', '/']) {
        return not_toml(start, "a comment begins with `#`");
    }
    if let Some((at, quote)) = line.char_indices().find(|(_, character)| TYPOGRAPHIC.contains(*character)) {
        return not_toml(
            start + at,
            &format!("`{quote}` is a typographic quotation mark: write a plain `\"`"),
        );
    }
    let here = text.get(span.start..).and_then(|rest| rest.chars().next());
    let wrong_case = |word: &str| ["true", "false"].iter().any(|flag| word.eq_ignore_ascii_case(flag));
    let word = text.get(span.clone()).unwrap_or_default().trim();
    let in_a_list = line.get(..span.start.saturating_sub(start)).is_some_and(|before| before.contains('['));
    let why = match message {
        _ if here == Some(':') => "write `=` in place of `:`".to_owned(),
        _ if message.starts_with("invalid unquoted key") && here.is_some_and(|c| !c.is_ascii()) => {
            match visible::invisible(&here.map(String::from).unwrap_or_default()) {
                Some(why) => format!("the key {why}"),
                None => "a key may contain only ASCII letters, digits, `_` and `-`".to_owned(),
            }
        }
        _ if message.starts_with("invalid boolean") && wrong_case(word) => {
            "write the value in lower case: true or false".to_owned()
        }
        _ if message.starts_with("string values must be quoted") && word.is_empty() => {
            "the value is missing".to_owned()
        }
        _ if message.starts_with("string values must be quoted")
            && FLAGS.iter().any(|flag| word.eq_ignore_ascii_case(flag)) =>
        {
            "write the value as true or false, or put a text in double quotes".to_owned()
        }
        _ if message.starts_with("string values must be quoted")
            || message.starts_with("invalid boolean") =>
        {
            if in_a_list {
                "put each text of a list in double quotes, such as [\"tarball\", \"basebackup\"]".to_owned()
            } else {
                "put the value in double quotes, such as timeout = \"4h\"".to_owned()
            }
        }
        _ if message.starts_with("invalid basic string") => {
            let opens = line.find('"').unwrap_or_default();
            return not_toml(start + opens, "the text that begins here has no closing `\"`");
        }
        _ if message.starts_with("invalid literal string") => {
            let opens = line.find('\'').unwrap_or_default();
            return not_toml(start + opens, "the text that begins here has no closing `'`");
        }
        _ if message.starts_with("missing escaped value") => {
            "`\\` begins an escape in double quotes: write `\\\\`, or put the text in single quotes"
                .to_owned()
        }
        _ if message.starts_with("unclosed table") => {
            "the name of the section is not closed: add `]`".to_owned()
        }
        _ if message.starts_with("unexpected key or value") => {
            "nothing but a comment may follow here; put a text that contains `'` in double quotes".to_owned()
        }
        _ => message.replace('\n', ", "),
    };
    not_toml(span.start, &why)
}

#[cfg(test)]
mod tests {
    use toml::de::DeTable;

    use std::path::Path;

    use super::*;

    fn explained(text: &str) -> Vec<String> {
        let (_, errors) = DeTable::parse_recoverable(text);
        let problems = problems(Input::File(Path::new("u.toml")), text, &errors);
        problems.iter().map(|problem| problem.to_string().replacen("u.toml:", "", 1)).collect()
    }

    #[test]
    fn a_mistake_of_syntax_is_reported_once_in_words_that_say_what_to_do() {
        for (text, says) in [
            ("a = “x”\n", "1:5: not TOML: `“` is a typographic quotation mark: write a plain `\"`"),
            ("a = yes\n", "1:5: not TOML: write the value as true or false, or put a text in double quotes"),
            ("a = 4h\n", "1:5: not TOML: put the value in double quotes, such as timeout = \"4h\""),
            ("a = /x/y\n", "1:5: not TOML: put the value in double quotes, such as timeout = \"4h\""),
            ("a = True\n", "1:5: not TOML: write the value in lower case: true or false"),
            (
                "a = [tarball, basebackup]\n",
                "1:6: not TOML: put each text of a list in double quotes, such as [\"tarball\", \"basebackup\"]",
            ),
            ("a = \"x\n", "1:5: not TOML: the text that begins here has no closing `\"`"),
            ("a = \"x'\n", "1:5: not TOML: the text that begins here has no closing `\"`"),
            (
                "[r]\na = [\"x\", \"y\"\nb = 1\n[s]\nc = 2\n",
                "2:5: not TOML: the list that begins here is not closed: add `]`",
            ),
            (
                "a = 1\rb = 2\r",
                "1:6: not TOML: its lines end with carriage returns only: convert the file, for example with `tr '\\r' '\\n'`",
            ),
            (
                "scope: a\nreplica:\n  datadir: /x\n",
                "1:1: not TOML: this looks like YAML; this file is TOML: scope = \"batman\", with sections such as [replica]",
            ),
            (
                "{ \"a\": 1 }\n",
                "1:1: not TOML: this looks like JSON; this file is TOML: scope = \"batman\", with sections such as [replica]",
            ),
            ("a: \"x\"\n", "1:2: not TOML: write `=` in place of `:`"),
            ("t = { \"/a\": \"/b\" }\n", "1:11: not TOML: write `=` in place of `:`"),
            ("; c\na = 1\n", "1:1: not TOML: a comment begins with `#`"),
            ("// c\n", "1:1: not TOML: a comment begins with `#`"),
            (
                "\u{a0}a = 1\n",
                "1:1: not TOML: the key has an invisible character, U+00A0 (no-break space), at position 1: remove it",
            ),
            ("scöpe = 1\n", "1:3: not TOML: a key may contain only ASCII letters, digits, `_` and `-`"),
            (
                "a = \"C:\\pg\"\n",
                "1:9: not TOML: `\\` begins an escape in double quotes: write `\\\\`, or put the text in single quotes",
            ),
            ("a = \n", "1:5: not TOML: the value is missing"),
            ("[r\na = 1\n", "1:3: not TOML: the name of the section is not closed: add `]`"),
        ] {
            assert_eq!(explained(text), [says], "{text:?}");
        }
        assert_eq!(explained("a = “x”\nb = yes\n").len(), 2, "independent mistakes are all reported");
    }

    #[test]
    fn a_value_that_may_be_a_password_is_not_quoted() {
        for text in [
            "password = S3cret\n",
            "password = \"S3cret\n",
            "password = 'S3cret\n",
            "password: S3cret\n",
            "password =\nS3cret==\n",
        ] {
            assert!(
                explained(text).iter().all(|problem| !problem.contains("S3cret")),
                "{:?}",
                explained(text)
            );
        }
    }
}
