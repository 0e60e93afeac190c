//! The values of options.

use std::time::Duration;

/// The value of an option. The host has checked it against the option's [`Kind`](crate::Kind).
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A text, one of a choice, or the name of a secret.
    Text(String),
    /// A whole number; a size in bytes; a duration in milliseconds.
    Integer(i64),
    /// A number.
    Number(f64),
    /// Yes or no.
    Flag(bool),
    /// Several texts.
    Texts(Vec<String>),
}

impl Value {
    /// Names the type of the value, for a message.
    pub(crate) fn is_a(&self) -> &'static str {
        match self {
            Self::Text(_) => "a text",
            Self::Integer(_) => "a whole number",
            Self::Number(_) => "a number",
            Self::Flag(_) => "a flag",
            Self::Texts(_) => "a list of texts",
        }
    }
}

/// A type that an option can be read as: `String`, `bool`, `i64`, `u64`, `f64`, `Vec<String>`, [`Duration`], or [`Value`] itself.
pub trait FromValue: Sized {
    /// The name of the type for a message, such as `a text`.
    const WANTS: &'static str;

    /// Returns the value as this type; `None` if it has another type.
    fn from_value(value: &Value) -> Option<Self>;
}

impl FromValue for Value {
    const WANTS: &'static str = "a value";
    fn from_value(value: &Value) -> Option<Self> {
        Some(value.clone())
    }
}

impl FromValue for String {
    const WANTS: &'static str = "a text";
    fn from_value(value: &Value) -> Option<Self> {
        if let Value::Text(text) = value { Some(text.clone()) } else { None }
    }
}

impl FromValue for bool {
    const WANTS: &'static str = "a flag";
    fn from_value(value: &Value) -> Option<Self> {
        if let Value::Flag(flag) = value { Some(*flag) } else { None }
    }
}

impl FromValue for i64 {
    const WANTS: &'static str = "a whole number";
    fn from_value(value: &Value) -> Option<Self> {
        if let Value::Integer(number) = value { Some(*number) } else { None }
    }
}

impl FromValue for u64 {
    const WANTS: &'static str = "a whole number that is not negative";
    fn from_value(value: &Value) -> Option<Self> {
        if let Value::Integer(number) = value { Self::try_from(*number).ok() } else { None }
    }
}

impl FromValue for f64 {
    const WANTS: &'static str = "a number";
    fn from_value(value: &Value) -> Option<Self> {
        if let Value::Number(number) = value { Some(*number) } else { None }
    }
}

impl FromValue for Vec<String> {
    const WANTS: &'static str = "a list of texts";
    fn from_value(value: &Value) -> Option<Self> {
        if let Value::Texts(texts) = value { Some(texts.clone()) } else { None }
    }
}

impl FromValue for Duration {
    const WANTS: &'static str = "a duration";
    fn from_value(value: &Value) -> Option<Self> {
        u64::from_value(value).map(Self::from_millis)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<Vec<String>> for Value {
    fn from(texts: Vec<String>) -> Self {
        Self::Texts(texts)
    }
}
