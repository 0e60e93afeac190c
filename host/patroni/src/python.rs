//! Prints values as Python does, because Patroni builds a program's arguments with `"--{0}={1}".format(key, value)`.

use crate::yaml::{Element, Value};

/// How many bytes an argument that is made from a value may have.
const ARGUMENT: usize = 16 << 10;

/// Returns the text of `str(value)`; `None` if the text is longer than [`ARGUMENT`], or if Python's Unicode tables would be needed to
/// print the value.
pub(crate) fn str(element: Element<'_>) -> Option<String> {
    let text = match element.value() {
        Value::Text(text) => text.clone(),
        _ => {
            let mut out = String::new();
            repr(element, &mut out)?;
            out
        }
    };
    (text.len() <= ARGUMENT).then_some(text)
}

/// Adds the text of `repr(value)`.
fn repr(element: Element<'_>, out: &mut String) -> Option<()> {
    if out.len() > ARGUMENT {
        return None;
    }
    match element.value() {
        Value::Null => out.push_str("None"),
        Value::Bool(true) => out.push_str("True"),
        Value::Bool(false) => out.push_str("False"),
        Value::Integer(digits) => out.push_str(digits),
        Value::Float(number) => out.push_str(&float(*number)),
        Value::Text(text) => quoted(text, out)?,
        Value::Date(_) => return None,
        Value::List(_) => {
            out.push('[');
            for (index, item) in element.items()?.enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                repr(item, out)?;
            }
            out.push(']');
        }
        Value::Map(_) => {
            out.push('{');
            for (index, (key, value)) in element.pairs()?.enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                repr(key, out)?;
                out.push_str(": ");
                repr(value, out)?;
            }
            out.push('}');
        }
    }
    Some(())
}

/// Adds a string with the quotation marks and escapes that Python uses. `None` if it is not ASCII, because Python's Unicode tables then
/// decide which characters are escaped.
fn quoted(text: &str, out: &mut String) -> Option<()> {
    let mark = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(mark);
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            _ if character == mark => out.extend(['\\', mark]),
            ' '..='~' => out.push(character),
            _ => return None,
        }
    }
    out.push(mark);
    Some(())
}

/// Returns `repr` of a float: the fewest digits that identify the number, with an exponent for numbers below 1e-4 and from 1e16 on.
fn float(number: f64) -> String {
    if number.is_nan() {
        return "nan".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    let scientific = format!("{number:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..16).contains(&exponent) {
        let plain = format!("{number}");
        return if plain.contains('.') { plain } else { format!("{plain}.0") };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::Document;

    /// The expected texts come from Python 3.11.
    #[test]
    fn values_are_printed_as_python_prints_them() {
        for (yaml, text) in [
            ("5", "5"),
            ("yes", "True"),
            ("off", "False"),
            ("~", "None"),
            ("0700", "448"),
            ("1.50", "1.5"),
            ("100.0", "100.0"),
            ("1.0e+16", "1e+16"),
            ("123456789012345.0", "123456789012345.0"),
            ("1.5e-07", "1.5e-07"),
            ("0.0001", "0.0001"),
            ("-.inf", "-inf"),
            (".nan", "nan"),
            ("it's", "it's"),
            ("[a, 1, ~, it's, 'a\"b''c']", "['a', 1, None, \"it's\", 'a\"b\\'c']"),
            ("{a: [1.0], no: 'x\\y'}", "{'a': [1.0], False: 'x\\\\y'}"),
        ] {
            let document = Document::read("p.yml", yaml.as_bytes()).unwrap();
            assert_eq!(str(document.root()).as_deref(), Some(text), "{yaml}");
        }
        for yaml in ["2026-01-01", "[ä]"] {
            let document = Document::read("p.yml", yaml.as_bytes()).unwrap();
            assert_eq!(str(document.root()), None, "{yaml}");
        }
    }

    #[test]
    fn the_length_of_an_argument_is_bounded() {
        let long = format!("[{}]", vec!["abcdefgh"; 3000].join(", "));
        let document = Document::read("p.yml", long.as_bytes()).unwrap();
        assert_eq!(str(document.root()), None);
    }
}
