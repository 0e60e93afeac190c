//! The types of scalars by PyYAML's `Resolver` and `SafeConstructor` (`lib/yaml/resolver.py`, `lib/yaml/constructor.py`).

use super::{Item, Pair};

/// A value, with the type that it has in Python.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// `None`
    Null,
    /// `True` or `False`
    Bool(bool),
    /// An `int`, as its decimal digits with a sign if it is negative.
    Integer(String),
    /// A `float`
    Float(f64),
    /// A `str`
    Text(String),
    /// A `datetime.date` or `datetime.datetime`, as written in the file.
    Date(String),
    /// A `list`
    List(Vec<Item>),
    /// A `dict`
    Map(Vec<Pair>),
}

impl Value {
    /// Returns a text that is the same for two values if Python treats them as the same key. Collections cannot be keys.
    pub(super) fn identity(&self) -> String {
        match self {
            Self::Null | Self::List(_) | Self::Map(_) => "null".to_owned(),
            Self::Bool(flag) => format!("number {}", u8::from(*flag)),
            Self::Integer(digits) => format!("number {digits}"),
            Self::Float(number) => format!("number {number}"),
            Self::Text(text) => format!("text {text}"),
            Self::Date(text) => format!("date {text}"),
        }
    }

    /// Returns a key as a message shows it.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Null | Self::List(_) | Self::Map(_) => "null".to_owned(),
            Self::Bool(flag) => flag.to_string(),
            Self::Integer(text) | Self::Text(text) | Self::Date(text) => text.clone(),
            Self::Float(number) => number.to_string(),
        }
    }
}

/// The type that a tag gives to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tagged {
    /// `!`: PyYAML determines the type from the text, even if the text is in quotes.
    None,
    Null,
    Bool,
    Integer,
    Float,
    Text,
    Date,
    List,
    Map,
    /// A tag for which PyYAML has no constructor, or whose type is not used by any setting of Patroni.
    Unknown,
}

/// The message about a tag that is not supported.
pub(super) const UNKNOWN_TAG: &str =
    "the tag (`!...`) names a type that no setting of Patroni has: write the value without a tag";

impl Tagged {
    pub(super) fn new(handle: &str, suffix: &str) -> Self {
        match (handle, suffix) {
            ("" | "!", "" | "!") => Self::None,
            ("tag:yaml.org,2002:", suffix) => match suffix {
                "null" => Self::Null,
                "bool" => Self::Bool,
                "int" => Self::Integer,
                "float" => Self::Float,
                "str" => Self::Text,
                "timestamp" => Self::Date,
                "seq" => Self::List,
                "map" => Self::Map,
                _ => Self::Unknown,
            },
            _ => Self::Unknown,
        }
    }
}

/// Returns the value of a scalar.
///
/// # Errors
/// Fails with a message if PyYAML has no value for it.
pub(super) fn scalar(text: &str, is_plain: bool, tag: Option<Tagged>, is_key: bool) -> Result<Value, String> {
    let as_text = || Ok(Value::Text(text.to_owned()));
    let not = |what: &str| format!("the tag says {what}, but the text is not a value of this type");
    match tag {
        None if is_plain => plain(text, is_key),
        Some(Tagged::None) => plain(text, is_key),
        None | Some(Tagged::Text) => as_text(),
        Some(Tagged::Null) => Ok(Value::Null),
        Some(Tagged::Bool) => boolean(&text.to_lowercase()).map(Value::Bool).ok_or_else(|| not("bool")),
        Some(Tagged::Integer) => integer(text).ok_or_else(|| not("int"))?,
        Some(Tagged::Float) => match (float(text), integer(text)) {
            (Some(number), _) => Ok(Value::Float(number)),
            (None, Some(Ok(Value::Integer(digits)))) => {
                digits.parse().map(Value::Float).map_err(|_| not("float"))
            }
            _ => Err(not("float")),
        },
        Some(Tagged::Date) if is_date(text) => Ok(Value::Date(text.to_owned())),
        Some(Tagged::Date) => Err(not("timestamp")),
        Some(Tagged::List | Tagged::Map | Tagged::Unknown) => Err(UNKNOWN_TAG.to_owned()),
    }
}

/// Returns the value of a plain scalar without a tag.
fn plain(text: &str, is_key: bool) -> Result<Value, String> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Value::Null),
        // As a key, `=` is a string (`flatten_mapping`).
        "=" if !is_key => return Err("PyYAML cannot read a plain `=`: put it in quotes".to_owned()),
        _ => {}
    }
    if let Some(flag) = boolean_word(text) {
        return Ok(Value::Bool(flag));
    }
    // The order is that of PyYAML's list of patterns. If a text matches two of them, such as `1:30.`, the first decides.
    if let Some(number) = float(text) {
        return Ok(Value::Float(number));
    }
    if let Some(value) = integer(text) {
        return value;
    }
    if is_date(text) {
        return Ok(Value::Date(text.to_owned()));
    }
    Ok(Value::Text(text.to_owned()))
}

/// Reads YAML 1.1's words for true and false, in lower case, upper case or capitalized, as PyYAML does. `y` and `n` are strings.
fn boolean_word(text: &str) -> Option<bool> {
    let lower = text.to_lowercase();
    let upper = text.to_uppercase();
    let mut capital = lower.clone();
    capital.get_mut(..1)?.make_ascii_uppercase();
    if text != lower && text != upper && text != capital {
        return None;
    }
    boolean(&lower)
}

fn boolean(lower: &str) -> Option<bool> {
    match lower {
        "yes" | "true" | "on" => Some(true),
        "no" | "false" | "off" => Some(false),
        _ => None,
    }
}

/// The message for a binary, octal, hexadecimal or base 60 number that is too large.
const TOO_LARGE: &str = "the number does not fit in 128 bits";

/// How many digits a decimal number may have. Python refuses to print more than 4300.
const DIGITS: usize = 4300;

/// Reads an integer: decimal, `0b`, octal with a leading `0`, `0x`, or base 60 with colons. `None` if the text is not an integer.
fn integer(text: &str) -> Option<Result<Value, String>> {
    let (negative, unsigned) = signed(text);
    let in_base = |digits: &str, base: u32| -> Option<Result<u128, String>> {
        let all = |c: char| c == '_' || c.is_digit(base);
        if digits.is_empty() || !digits.chars().all(all) {
            return None;
        }
        let digits = digits.replace('_', "");
        if digits.is_empty() {
            return Some(Err("the number has no digits".to_owned()));
        }
        Some(u128::from_str_radix(&digits, base).map_err(|_| TOO_LARGE.to_owned()))
    };
    let with_sign = |digits: String| {
        let is_zero = digits == "0";
        Value::Integer(if negative && !is_zero { format!("-{digits}") } else { digits })
    };
    let number = if let Some(digits) = unsigned.strip_prefix("0b") {
        in_base(digits, 2)?
    } else if let Some(digits) = unsigned.strip_prefix("0x") {
        in_base(digits, 16)?
    } else if unsigned == "0" {
        Ok(0)
    } else if unsigned.starts_with('0') {
        in_base(unsigned, 8)?
    } else if unsigned.contains(':') {
        sexagesimal(unsigned)?
    } else {
        if !unsigned.starts_with(|c: char| matches!(c, '1'..='9'))
            || !unsigned.chars().all(|c| c == '_' || c.is_ascii_digit())
        {
            return None;
        }
        let digits = unsigned.replace('_', "");
        if digits.len() > DIGITS {
            return Some(Err(format!("the number has more than {DIGITS} digits")));
        }
        return Some(Ok(with_sign(digits)));
    };
    Some(number.map(|number| with_sign(number.to_string())))
}

/// Reads a number in base 60, such as `190:20:30`.
fn sexagesimal(text: &str) -> Option<Result<u128, String>> {
    let (first, rest) = sexagesimal_parts(text)?;
    let mut number: u128 = match first.replace('_', "").parse() {
        Ok(number) => number,
        Err(_) => return Some(Err(TOO_LARGE.to_owned())),
    };
    if first.starts_with('0') {
        return None;
    }
    for part in rest {
        let next = number.checked_mul(60).and_then(|number| number.checked_add(part));
        match next {
            Some(next) => number = next,
            None => return Some(Err(TOO_LARGE.to_owned())),
        }
    }
    Some(Ok(number))
}

/// Returns the digits before the first colon, and the number from 0 to 59 after each colon.
fn sexagesimal_parts(text: &str) -> Option<(&str, Vec<u128>)> {
    let (first, rest) = text.split_once(':')?;
    if !is_digits(first) {
        return None;
    }
    let part = |part: &str| {
        let fits = matches!(part.len(), 1 | 2) && part.bytes().all(|byte| byte.is_ascii_digit());
        part.parse::<u128>().ok().filter(|number| fits && *number < 60)
    };
    Some((first, rest.split(':').map(part).collect::<Option<_>>()?))
}

/// Returns whether the text matches `[0-9][0-9_]*`.
fn is_digits(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit()) && text.chars().all(|c| c == '_' || c.is_ascii_digit())
}

/// Reads a floating point number. `None` if the text is not one. It needs a decimal point, and an exponent needs a sign.
fn float(text: &str) -> Option<f64> {
    let (negative, unsigned) = signed(text);
    let number = match unsigned {
        ".inf" | ".Inf" | ".INF" => f64::INFINITY,
        ".nan" | ".NaN" | ".NAN" if unsigned == text => f64::NAN,
        _ if unsigned.contains(':') => {
            let (whole, fraction) = unsigned.split_once('.')?;
            if !fraction.chars().all(|c| c == '_' || c.is_ascii_digit()) {
                return None;
            }
            let (first, rest) = sexagesimal_parts(whole)?;
            let mut digits = vec![first.replace('_', "").parse::<f64>().ok()?];
            digits.extend(rest.iter().map(|part| *part as f64));
            if let Some(last) = digits.pop() {
                let fraction = fraction.replace('_', "");
                digits.push(format!("{last}.{fraction}0").parse().ok()?);
            }
            // Adds the parts from the last to the first, as `construct_yaml_float` does.
            let mut base = 1.0;
            let mut number = 0.0;
            for digit in digits.iter().rev() {
                number += digit * base;
                base *= 60.0;
            }
            number
        }
        _ => {
            let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
                Some(at) => (&unsigned[..at], &unsigned[at + 1..]),
                None => (unsigned, ""),
            };
            let (whole, fraction) = mantissa.split_once('.')?;
            let is_fraction = fraction.chars().all(|c| c == '_' || c.is_ascii_digit());
            let has_whole = is_digits(whole) && is_fraction;
            // A number such as `.5` may not have a sign.
            let has_fraction = whole.is_empty() && is_digits(fraction) && unsigned == text;
            let is_exponent = unsigned.len() == mantissa.len()
                || exponent.strip_prefix(['-', '+']).is_some_and(|digits| {
                    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
                });
            if !(has_whole || has_fraction) || !is_exponent {
                return None;
            }
            unsigned.replace('_', "").parse().ok()?
        }
    };
    Some(if negative { -number } else { number })
}

/// Returns whether a text is a date, or a date with a time.
fn is_date(text: &str) -> bool {
    let number = |text: &str, least: usize, most: usize| {
        (least..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    let end = text.find(['T', 't', ' ', '\t']).unwrap_or(text.len());
    let (date, rest) = text.split_at(end);
    let parts: Vec<_> = date.split('-').collect();
    let [year, month, day] = parts[..] else { return false };
    if !number(year, 4, 4) {
        return false;
    }
    if rest.is_empty() {
        return number(month, 2, 2) && number(day, 2, 2);
    }
    let time = match rest.strip_prefix(['T', 't']) {
        Some(time) => time,
        None => rest.trim_start_matches([' ', '\t']),
    };
    let zone = time.find(['Z', '+', '-', ' ', '\t']).unwrap_or(time.len());
    let (time, zone) = time.split_at(zone);
    let (time, fraction) = time.split_once('.').unwrap_or((time, ""));
    let parts: Vec<_> = time.split(':').collect();
    let [hour, minute, second] = parts[..] else { return false };
    let zone = zone.trim_start_matches([' ', '\t']);
    let is_zone = match zone.strip_prefix(['+', '-']) {
        None => matches!(zone, "" | "Z"),
        Some(offset) => match offset.split_once(':') {
            None => number(offset, 1, 2),
            Some((hours, minutes)) => number(hours, 1, 2) && number(minutes, 2, 2),
        },
    };
    number(month, 1, 2)
        && number(day, 1, 2)
        && number(hour, 1, 2)
        && number(minute, 2, 2)
        && number(second, 2, 2)
        && fraction.bytes().all(|byte| byte.is_ascii_digit())
        && is_zone
}

/// Returns whether the text begins with a minus sign, and the text without its sign.
fn signed(text: &str) -> (bool, &str) {
    match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    }
}
