//! Checks a component's answer to `describe` before it is used.

use std::collections::HashSet;

use crate::inspection::{Description, Kind, OptionSpec};
use crate::options;
use crate::text::is_printable;

/// How many options and needs a component may have, and how many choices or items of a default list an option may have.
const OPTIONS: usize = 128;
const NEEDS: usize = 64;
const CHOICES: usize = 64;
/// How many characters a name, a version or a sentence may have.
const NAME: usize = 64;
const SENTENCE: usize = 2000;
/// How many characters a default may have.
const DEFAULT: usize = 4096;

/// Checks a description: its sizes, its names, and that each default is a valid value of its option.
///
/// Converts each default by the kind of its option, in the same way as the values that the operator writes.
///
/// # Errors
/// Says what is wrong with the description.
pub(crate) fn check(mut description: Description) -> Result<Description, String> {
    name("its name", &description.name)?;
    text("its version", &description.version, NAME)?;
    text("its summary", &description.summary, SENTENCE)?;
    if description.options.len() > OPTIONS {
        return Err(format!("it has {} options, more than {OPTIONS}", description.options.len()));
    }
    let mut names = HashSet::new();
    for option in &mut description.options {
        name("the name of an option", &option.name)?;
        if !names.insert(option.name.clone()) {
            return Err(format!("it has two options `{}`", option.name));
        }
        text("the text of an option", &option.doc, SENTENCE)?;
        kind(option)?;
        default(option).map_err(|why| format!("the default of its option `{}`: {why}", option.name))?;
    }
    if description.needs.len() > NEEDS {
        return Err(format!("it has {} needs, more than {NEEDS}", description.needs.len()));
    }
    let mut names = HashSet::new();
    for need in &description.needs {
        name("the name of a need", &need.name)?;
        text("the reason of a need", &need.reason, SENTENCE)?;
        if !names.insert((need.kind.word(), &need.name)) {
            return Err(format!("it needs the {} `{}` twice", need.kind.word(), need.name));
        }
    }
    Ok(description)
}

fn kind(option: &OptionSpec) -> Result<(), String> {
    let Kind::Choice(choices) = &option.kind else { return Ok(()) };
    if choices.is_empty() || choices.len() > CHOICES {
        return Err(format!(
            "its option `{}` has {} choices, not 1 to {CHOICES}",
            option.name,
            choices.len()
        ));
    }
    choices.iter().try_for_each(|choice| text("a choice", choice, NAME))
}

fn default(option: &mut OptionSpec) -> Result<(), String> {
    use crate::OptionValue::{Integer, Text, Texts};
    let value = match (&option.kind, option.default.take()) {
        (_, None) => return Ok(()),
        (Kind::Secret, Some(_)) => return Err("a secret may not have a default".to_owned()),
        // A component writes a default duration in milliseconds, the unit in which it also gets durations.
        (Kind::Duration, Some(Integer(milliseconds))) if milliseconds >= 0 => Integer(milliseconds),
        (_, Some(value)) => options::read(option, &value)?,
    };
    match &value {
        Text(value) => text("it", value, DEFAULT)?,
        Texts(values) if values.len() > CHOICES => return Err(format!("it has more than {CHOICES} items")),
        Texts(values) => values.iter().try_for_each(|value| text("it", value, DEFAULT))?,
        _ => {}
    }
    option.default = Some(value);
    Ok(())
}

fn text(what: &str, text: &str, limit: usize) -> Result<(), String> {
    if text.chars().count() > limit || !is_printable(text) {
        return Err(format!("{what} is longer than {limit} characters or cannot be printed"));
    }
    Ok(())
}

fn name(what: &str, name: &str) -> Result<(), String> {
    let mut bytes = name.bytes();
    let starts = bytes.next().is_some_and(|byte| byte.is_ascii_lowercase());
    let goes_on =
        bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_');
    if !starts || !goes_on || name.len() > NAME {
        return Err(format!("{what} is not a lower-case word with hyphens of at most {NAME} characters"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::OptionValue;
    use crate::inspection::{Need, NeedKind};

    fn option(name: &str, kind: Kind, default: Option<OptionValue>) -> OptionSpec {
        OptionSpec { name: name.to_owned(), kind, required: false, default, doc: "doc".to_owned() }
    }

    fn described(options: Vec<OptionSpec>) -> Description {
        Description {
            name: "tarball".to_owned(),
            version: "0.1.0".to_owned(),
            summary: "Restores".to_owned(),
            options,
            needs: Vec::new(),
        }
    }

    #[test]
    fn a_default_is_converted_like_a_value_that_the_operator_writes() {
        let options = vec![
            option("block", Kind::Size, Some(OptionValue::Text("1MiB".to_owned()))),
            option("pause", Kind::Duration, Some(OptionValue::Integer(1500))),
            option("rate", Kind::Number, Some(OptionValue::Integer(2))),
        ];
        let checked = check(described(options)).unwrap();
        let defaults: Vec<_> = checked.options.into_iter().map(|option| option.default).collect();
        assert_eq!(
            defaults,
            [
                Some(OptionValue::Integer(1 << 20)),
                Some(OptionValue::Integer(1500)),
                Some(OptionValue::Number(2.0))
            ]
        );
    }

    #[test]
    fn an_invalid_description_is_refused() {
        let need =
            Need { kind: NeedKind::Key, name: "repo".to_owned(), required: true, reason: String::new() };
        let many = (0..=OPTIONS).map(|number| option(&format!("o{number}"), Kind::Flag, None)).collect();
        for (wrong, says) in [
            (Description { name: "Tarball".to_owned(), ..described(vec![]) }, "its name"),
            (Description { name: String::new(), ..described(vec![]) }, "its name"),
            (Description { version: "\u{1b}[2J".to_owned(), ..described(vec![]) }, "its version"),
            (Description { summary: "x".repeat(SENTENCE + 1), ..described(vec![]) }, "its summary"),
            (described(many), "more than 128"),
            (described(vec![option("a b", Kind::Flag, None)]), "the name of an option"),
            (
                described(vec![option("a", Kind::Flag, None), option("a", Kind::Text, None)]),
                "two options `a`",
            ),
            (described(vec![option("a", Kind::Choice(vec![]), None)]), "0 choices"),
            (described(vec![option("a", Kind::Flag, Some(OptionValue::Integer(1)))]), "write true or false"),
            (
                described(vec![option(
                    "a",
                    Kind::Choice(vec!["b".to_owned()]),
                    Some(OptionValue::Text("c".to_owned())),
                )]),
                "write one of b",
            ),
            (described(vec![option("a", Kind::Secret, Some(OptionValue::Text("c".to_owned())))]), "a secret"),
            (described(vec![option("a", Kind::Duration, Some(OptionValue::Integer(-1)))]), "unit"),
            (
                described(vec![option("a", Kind::Text, Some(OptionValue::Text("x".repeat(DEFAULT + 1))))]),
                "4096",
            ),
            (Description { needs: vec![need.clone(), need], ..described(vec![]) }, "twice"),
        ] {
            let error = check(wrong).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
