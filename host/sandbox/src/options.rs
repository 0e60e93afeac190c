//! Checks the options that the operator set against those that the component describes.

use foundation::logins::without_logins;
use foundation::nearest::nearest;
use replica::{Bytes, Refusal, Rule};

use crate::inspection::{Description, Kind, OptionSpec};
use crate::text::{key, quoted};
use crate::{MethodSettings, OptionValue, Written};

/// An option as a component gets it: a size is a whole number of bytes, and a duration is a whole number of milliseconds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Setting {
    /// Its name.
    pub(crate) name: String,
    /// Its value; never [`OptionValue::Untyped`].
    pub(crate) value: OptionValue,
}

/// Converts the operator's options to the kinds that the component describes, and adds the defaults of the options that are not set.
///
/// # Errors
/// A [`Refusal`] of the rule `option` that names everything that is wrong.
pub(crate) fn check(method: &MethodSettings, specs: &[OptionSpec]) -> Result<Vec<Setting>, Refusal> {
    check_given(&method.name, &method.options, &method.written, specs)
}

impl Description {
    /// Returns options as a configuration file would have them: each once, with the type of its kind. Sizes and durations stay texts.
    ///
    /// # Errors
    /// A [`Refusal`] of the rule `option` that names everything that is wrong, as a run with these options would. `method` is the method's
    /// name, and `written` says where the options were given.
    pub fn typed_options(
        &self,
        method: &str,
        given: &[(String, OptionValue)],
        written: &Written,
    ) -> Result<Vec<(String, OptionValue)>, Refusal> {
        let checked = check_given(method, given, written, &self.options)?;
        let as_given = |name: &str| match given.iter().find(|(given, _)| given == name) {
            Some((_, OptionValue::Untyped(text))) => Some(OptionValue::Text(text.clone())),
            Some((_, value)) => Some(value.clone()),
            None => None,
        };
        let typed = checked.into_iter().filter_map(|Setting { name, value }| {
            let given = as_given(&name)?;
            let kind = &self.options.iter().find(|spec| spec.name == name)?.kind;
            // A component gets bytes and milliseconds, which nobody writes in a configuration.
            let has_unit = matches!(kind, Kind::Size | Kind::Duration);
            Some((name, if has_unit { given } else { value }))
        });
        Ok(typed.collect())
    }
}

/// Does the work of [`check`] for the method of this name.
fn check_given(
    method: &str,
    given: &[(String, OptionValue)],
    written: &Written,
    specs: &[OptionSpec],
) -> Result<Vec<Setting>, Refusal> {
    let mut wrong = Vec::new();
    let mut remedy = None;
    let mut settings: Vec<Setting> = Vec::new();
    for (name, value) in given {
        let Some(spec) = specs.iter().find(|spec| spec.name == *name) else {
            wrong.push(written.at(name, unknown(name, specs)));
            continue;
        };
        match (read(spec, value), settings.iter_mut().find(|setting| setting.name == *name)) {
            (Ok(OptionValue::Texts(more)), Some(Setting { value: OptionValue::Texts(texts), .. })) => {
                texts.extend(more);
            }
            (Ok(_), Some(_)) => wrong.push(written.at(name, format!("option `{name}` is given twice"))),
            (Ok(value), None) => settings.push(Setting { name: name.clone(), value }),
            (Err(why), _) => {
                wrong.push(written.at(name, format!("option `{name}`: {}", without_logins(&why))));
            }
        }
    }
    for spec in specs {
        let is_given = given.iter().any(|(name, _)| *name == spec.name);
        match &spec.default {
            _ if is_given => {}
            Some(default) => settings.push(Setting { name: spec.name.clone(), value: default.clone() }),
            None if spec.required => {
                let missing = format!("option `{}` is missing: {}", spec.name, spec.doc);
                wrong.push(written.at(&spec.name, missing));
                remedy.get_or_insert_with(|| {
                    format!("[method.{}.options] {} = {}", key(method), key(&spec.name), example(&spec.kind))
                });
            }
            None => {}
        }
    }
    if wrong.is_empty() {
        return Ok(settings);
    }
    let refusal = Refusal::new(Rule::Option, wrong.join("; "));
    Err(match remedy {
        Some(line) => refusal.remedy(line),
        None => refusal,
    })
}

fn unknown(name: &str, specs: &[OptionSpec]) -> String {
    match nearest(name, specs.iter().map(|spec| spec.name.as_str())) {
        Some(right) => format!("there is no option `{name}`: did you mean `{right}`?"),
        None if specs.is_empty() => format!("there is no option `{name}`: the method has none"),
        None => {
            let all: Vec<_> = specs.iter().map(|spec| spec.name.as_str()).collect();
            format!("there is no option `{name}`: the method has {}", all.join(", "))
        }
    }
}

/// Returns an example of a value, as the configuration would have it.
fn example(kind: &Kind) -> String {
    match kind {
        Kind::Text | Kind::Secret => "\"...\"".to_owned(),
        Kind::Choice(choices) => quoted(choices.first().map_or("...", String::as_str)),
        Kind::Integer | Kind::Number => "1".to_owned(),
        Kind::Flag => "true".to_owned(),
        Kind::Texts => "[\"...\"]".to_owned(),
        Kind::Size => "\"256MiB\"".to_owned(),
        Kind::Duration => "\"90s\"".to_owned(),
    }
}

/// Reads one value by the kind of its option. An error says which values the option takes.
pub(crate) fn read(spec: &OptionSpec, value: &OptionValue) -> Result<OptionValue, String> {
    use OptionValue::{Flag, Integer, Number, Text, Texts, Untyped};
    let wants = |what: &str| Err(format!("{what}, not {}", shown(value)));
    match (&spec.kind, value) {
        (Kind::Text, Text(text) | Untyped(text)) => Ok(Text(text.clone())),
        (Kind::Text, _) => wants("write a string"),
        (Kind::Choice(choices), Text(text) | Untyped(text)) if choices.contains(text) => {
            Ok(Text(text.clone()))
        }
        (Kind::Choice(choices), _) => wants(&format!("write one of {}", choices.join(", "))),
        (Kind::Integer, Integer(number)) => Ok(Integer(*number)),
        (Kind::Integer, Untyped(text)) => {
            text.parse().map(Integer).or_else(|_| wants("write a whole number"))
        }
        (Kind::Integer, _) => wants("write a whole number"),
        (Kind::Number, Integer(number)) => Ok(Number(*number as f64)),
        (Kind::Number, Number(number)) if number.is_finite() => Ok(Number(*number)),
        (Kind::Number, Untyped(text)) => match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Number(number)),
            _ => wants("write a number"),
        },
        (Kind::Number, _) => wants("write a number"),
        (Kind::Flag, Flag(flag)) => Ok(Flag(*flag)),
        (Kind::Flag, Untyped(text)) => flag(text).map(Flag).map_or_else(|| wants("write true or false"), Ok),
        (Kind::Flag, _) => wants("write true or false"),
        (Kind::Texts, Texts(texts)) => Ok(Texts(texts.clone())),
        (Kind::Texts, Untyped(text)) => Ok(Texts(vec![text.clone()])),
        (Kind::Texts, _) => wants("write a list of strings"),
        (Kind::Size, Integer(bytes)) if *bytes >= 0 => Ok(Integer(*bytes)),
        (Kind::Size, Text(text) | Untyped(text)) => {
            let bytes = text.parse::<Bytes>().map_err(|error| error.to_string())?;
            i64::try_from(bytes.0).map(Integer).or_else(|_| wants("write a size below 8 EiB"))
        }
        (Kind::Size, _) => wants("write a size such as \"256MiB\""),
        (Kind::Duration, Text(text) | Untyped(text)) => milliseconds(text).map(Integer).map_or_else(
            || wants("write a duration such as \"500ms\", \"90s\", \"5min\", \"1h30m\" or \"1d\""),
            Ok,
        ),
        (Kind::Duration, _) => wants("write a duration with its unit, such as \"90s\""),
        // `check_needs` refuses the name of a key that is not granted. A text that is not a name may be the secret itself, so do not show
        // it.
        (Kind::Secret, Text(name) | Untyped(name)) if is_name(name) => Ok(Text(name.clone())),
        (Kind::Secret, _) => {
            Err("write the name of a key of `grants.keys`, never the secret itself".to_owned())
        }
    }
}

/// Returns whether a text can be the name of a key (`keys.NAME` in the configuration).
fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    (1..=64).contains(&text.len()) && text.chars().all(allowed)
}

/// Returns a short text for a value, for messages.
fn shown(value: &OptionValue) -> String {
    match value {
        // Redact before shortening, because the cut could remove the `@` that ends a password.
        OptionValue::Text(text) | OptionValue::Untyped(text) => {
            quoted(&crate::text::printable(&without_logins(text), 60))
        }
        OptionValue::Integer(number) => format!("the number {number}"),
        OptionValue::Number(number) => format!("the number {number}"),
        OptionValue::Flag(flag) => flag.to_string(),
        OptionValue::Texts(_) => "a list".to_owned(),
    }
}

/// Reads a boolean from the command line, in any spelling that PostgreSQL or Python accepts.
fn flag(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "on" | "yes" | "1" => Some(true),
        "false" | "off" | "no" | "0" => Some(false),
        _ => None,
    }
}

/// Reads a duration in the format of the configuration, and returns it in milliseconds.
fn milliseconds(text: &str) -> Option<i64> {
    i64::try_from(foundation::units::parse_duration(text).ok()?.as_millis()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Grants;

    fn spec(name: &str, kind: Kind) -> OptionSpec {
        OptionSpec { name: name.to_owned(), kind, required: false, default: None, doc: "a doc".to_owned() }
    }

    fn one(kind: Kind, value: OptionValue) -> Result<OptionValue, String> {
        read(&spec("x", kind), &value)
    }

    fn text(text: &str) -> OptionValue {
        OptionValue::Text(text.to_owned())
    }

    fn untyped(text: &str) -> OptionValue {
        OptionValue::Untyped(text.to_owned())
    }

    fn method(options: &[(String, OptionValue)]) -> MethodSettings {
        MethodSettings {
            name: "m".to_owned(),
            component: std::path::PathBuf::from("/m.wasm").into(),
            options: options.to_vec(),
            written: Written::default(),
            cpu: None,
            grants: Grants::default(),
        }
    }

    #[test]
    fn a_value_is_read_by_its_kind() {
        use OptionValue::{Flag, Integer, Number, Texts};
        let choice = || Kind::Choice(vec!["fast".to_owned(), "spread".to_owned()]);
        for (kind, given, read) in [
            (Kind::Text, text("a"), text("a")),
            (Kind::Text, untyped("7"), text("7")),
            (choice(), text("fast"), text("fast")),
            (Kind::Integer, untyped("-7"), Integer(-7)),
            (Kind::Number, Integer(7), Number(7.0)),
            (Kind::Number, untyped("0.5"), Number(0.5)),
            (Kind::Flag, Flag(true), Flag(true)),
            (Kind::Flag, untyped("True"), Flag(true)),
            (Kind::Flag, untyped("off"), Flag(false)),
            (Kind::Texts, untyped("a"), Texts(vec!["a".to_owned()])),
            (Kind::Secret, text("repo-2_a"), text("repo-2_a")),
            (Kind::Size, text("256MiB"), Integer(256 << 20)),
            (Kind::Size, Integer(12), Integer(12)),
            (Kind::Duration, text("90s"), Integer(90_000)),
            (Kind::Duration, untyped("4h"), Integer(14_400_000)),
            (Kind::Duration, text("1h30m"), Integer(5_400_000)),
            (Kind::Duration, text("1d"), Integer(86_400_000)),
        ] {
            assert_eq!(one(kind, given), Ok(read));
        }
    }

    #[test]
    fn the_message_for_a_wrong_value_says_what_to_write() {
        use OptionValue::{Integer, Number};
        for (kind, given, says) in [
            (Kind::Text, Integer(1), "write a string, not the number 1"),
            (Kind::Choice(vec!["fast".to_owned()]), text("slow"), "write one of fast, not \"slow\""),
            (Kind::Integer, text("1"), "write a whole number, not \"1\""),
            (Kind::Integer, Number(1.5), "write a whole number"),
            (Kind::Number, Number(f64::NAN), "write a number"),
            (Kind::Flag, text("true"), "write true or false, not \"true\""),
            (Kind::Texts, text("a"), "write a list of strings"),
            (Kind::Size, Integer(-1), "write a size"),
            (Kind::Size, text("much"), "is not a size"),
            (Kind::Duration, Integer(5), "with its unit"),
            (Kind::Duration, text("5"), "write a duration"),
            (Kind::Duration, text("9223372036854775807d"), "write a duration"),
            (Kind::Secret, text("sword/fish="), "never the secret itself"),
        ] {
            let error = one(kind, given).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn the_password_in_an_address_is_not_quoted() {
        let value = format!("s3://AK:S3cret' x`{}@b/p", "y".repeat(100));
        let kinds = [
            Kind::Choice(vec!["fast".to_owned()]),
            Kind::Integer,
            Kind::Number,
            Kind::Flag,
            Kind::Size,
            Kind::Duration,
            Kind::Secret,
        ];
        for kind in kinds {
            let given = [("x".to_owned(), untyped(&value))];
            let refusal = check(&method(&given), &[spec("x", kind)]).unwrap_err();
            assert!(!refusal.message.contains("S3cret"), "{refusal}");
        }
    }

    #[test]
    fn one_refusal_names_all_wrong_options() {
        let specs = [
            OptionSpec { required: true, ..spec("directory", Kind::Text) },
            spec("parallel", Kind::Integer),
            spec("twice", Kind::Flag),
        ];
        let given = [
            ("paralel".to_owned(), OptionValue::Integer(1)),
            ("parallel".to_owned(), text("many")),
            ("twice".to_owned(), OptionValue::Flag(true)),
            ("twice".to_owned(), OptionValue::Flag(true)),
            ("zzz".to_owned(), OptionValue::Flag(true)),
        ];
        let refusal = check(&method(&given), &specs).unwrap_err();
        for says in [
            "`paralel`: did you mean `parallel`?",
            "`parallel`: write a whole number",
            "`twice` is given twice",
            "`zzz`: the method has directory, parallel, twice",
            "`directory` is missing: a doc",
        ] {
            assert!(refusal.message.contains(says), "{refusal}");
        }
        assert_eq!(refusal.remedy.as_deref(), Some("[method.m.options] directory = \"...\""));
    }

    #[test]
    fn the_refusal_names_the_file_and_line_of_each_wrong_option() {
        let specs = [
            OptionSpec { required: true, ..spec("directory", Kind::Text) },
            spec("parallel", Kind::Integer),
            spec("limit", Kind::Size),
        ];
        let given = [
            ("paralel".to_owned(), OptionValue::Integer(1)),
            ("parallel".to_owned(), text("many")),
            ("limit".to_owned(), untyped("much")),
        ];
        let places = [("paralel", "u.toml:7:1"), ("parallel", "u.toml:8:1"), ("limit", "--limit")];
        let places = places.map(|(name, place)| (name.to_owned(), place.to_owned()));
        let written = Written { section: Some("u.toml:6:1".to_owned()), options: places.into() };
        let refusal = check(&MethodSettings { written, ..method(&given) }, &specs).unwrap_err();
        assert_eq!(
            refusal.message,
            "u.toml:7:1: there is no option `paralel`: did you mean `parallel`?; u.toml:8:1: option `parallel`: write a whole \
             number, not \"many\"; --limit: option `limit`: `much` is not a size: write a whole number and one of B, kB, MB, \
             GB, TB, KiB, MiB, GiB, TiB; u.toml:6:1: option `directory` is missing: a doc"
        );
    }

    #[test]
    fn options_of_the_command_line_are_written_with_the_types_of_their_kinds() {
        use OptionValue::{Flag, Integer, Number, Texts};
        let description = Description {
            name: "m".to_owned(),
            version: "1".to_owned(),
            summary: String::new(),
            options: vec![
                spec("text", Kind::Text),
                spec("jobs", Kind::Integer),
                spec("ratio", Kind::Number),
                spec("delta", Kind::Flag),
                spec("limit", Kind::Size),
                spec("wait", Kind::Duration),
                spec("include", Kind::Texts),
                OptionSpec { default: Some(Integer(4)), ..spec("untouched", Kind::Integer) },
            ],
            needs: Vec::new(),
        };
        let given = [
            ("text", "7"),
            ("include", "a"),
            ("jobs", "8"),
            ("ratio", "0.5"),
            ("delta", "on"),
            ("limit", "256MiB"),
            ("wait", "90s"),
            ("include", "b"),
        ];
        let given = given.map(|(name, value)| (name.to_owned(), untyped(value)));
        let typed = description.typed_options("m", &given, &Written::default()).unwrap();
        let expected = [
            ("text", text("7")),
            ("include", Texts(vec!["a".to_owned(), "b".to_owned()])),
            ("jobs", Integer(8)),
            ("ratio", Number(0.5)),
            ("delta", Flag(true)),
            ("limit", text("256MiB")),
            ("wait", text("90s")),
        ];
        assert_eq!(typed, expected.map(|(name, value)| (name.to_owned(), value)));
        let wrong = [("jobs".to_owned(), untyped("many"))];
        let refusal = description.typed_options("m", &wrong, &Written::default()).unwrap_err();
        assert!(refusal.message.contains("write a whole number"), "{refusal}");
    }

    #[test]
    fn defaults_are_added_and_repeated_list_options_are_joined() {
        let specs = [
            OptionSpec {
                default: Some(OptionValue::Integer(4)),
                required: true,
                ..spec("parallel", Kind::Integer)
            },
            spec("include", Kind::Texts),
            spec("absent", Kind::Flag),
        ];
        let given = [("include".to_owned(), untyped("a")), ("include".to_owned(), untyped("b"))];
        let settings = check(&method(&given), &specs).unwrap();
        let expected = [
            Setting {
                name: "include".to_owned(),
                value: OptionValue::Texts(vec!["a".to_owned(), "b".to_owned()]),
            },
            Setting { name: "parallel".to_owned(), value: OptionValue::Integer(4) },
        ];
        assert_eq!(settings, expected);
    }
}
