//! Reads one value of a parsed TOML document as the type that a setting has.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use replica::Bytes;
use toml::Spanned;
use toml::de::DeValue;

use super::{Reader, Section};
use crate::config::problem::{Origin, Place, not_absolute, not_absolute_unquoted};
use crate::config::visible::invisible;

/// A value and its place. Each method that reads a type notes a problem, and returns `None`, if the value is not of that type.
pub(in crate::config) struct Value<'t> {
    pub(super) reader: &'t Reader<'t>,
    /// The dotted path of the key.
    pub(in crate::config) path: String,
    pub(super) key: Place,
    pub(super) value: &'t Spanned<DeValue<'t>>,
}

impl<'t> Value<'t> {
    /// Returns the place of the value.
    pub(in crate::config) fn place(&self) -> Place {
        self.reader.place(self.value.span().start)
    }

    /// Returns where the value was written.
    pub(in crate::config) fn origin(&self) -> Origin {
        self.reader.origin(self.place())
    }

    /// Returns the folder to which a relative path of the configuration refers.
    pub(in crate::config) fn folder(&self) -> &'t Path {
        self.reader.input.folder()
    }

    /// Returns where the value was written, as messages show it: `FILE:LINE:COLUMN`, or a flag.
    pub(in crate::config) fn at(&self) -> String {
        self.origin().to_string()
    }

    /// Returns the value as parsed, for settings that allow more than one type.
    pub(in crate::config) fn raw(&self) -> &'t DeValue<'t> {
        self.value.get_ref()
    }

    /// Notes that the value leads to `path`, which no run may empty.
    pub(in crate::config) fn keep(&self, path: impl Into<PathBuf>) {
        self.keep_as(path, format!("what `{}` names", self.path));
    }

    /// Notes that the value leads to `path`, which no run may empty and which messages call `name`.
    pub(in crate::config) fn keep_as(&self, path: impl Into<PathBuf>, name: impl Into<String>) {
        self.reader.keep(path, name, self.origin());
    }

    /// Notes a problem with this value.
    pub(in crate::config) fn problem(&self, message: impl std::fmt::Display) {
        self.reader.problem(self.place(), format!("`{}` {message}", self.path));
    }

    fn wrong_type<T>(&self, wanted: &str) -> Option<T> {
        self.problem(format!("must be {wanted}, not {}", kind(self.raw())));
        None
    }

    /// Reads a text that is not empty.
    pub(in crate::config) fn text(&self) -> Option<&'t str> {
        match self.raw() {
            DeValue::String(text) if text.is_empty() => {
                self.problem("is empty: write a value, or leave the key out");
                None
            }
            DeValue::String(text) => Some(text.as_ref()),
            _ => self.wrong_type("a quoted string"),
        }
    }

    /// Reads a text without invisible characters: a name, an address, a path.
    pub(in crate::config) fn word(&self) -> Option<&'t str> {
        let text = self.text()?;
        match invisible(text) {
            None => Some(text),
            Some(why) => {
                self.problem(why);
                None
            }
        }
    }

    /// Reads `true` or `false`. A string in place of a flag is an error (loop rule 7).
    pub(in crate::config) fn flag(&self) -> Option<bool> {
        match self.raw() {
            DeValue::Boolean(flag) => Some(*flag),
            DeValue::String(_) => {
                self.problem("must be true or false without quotes: any quoted text, even \"false\", is true in Patroni");
                None
            }
            _ => self.wrong_type("true or false"),
        }
    }

    /// Reads a whole number of at least `least`.
    pub(in crate::config) fn count(&self, least: u64) -> Option<u64> {
        let DeValue::Integer(digits) = self.raw() else { return self.wrong_type("a whole number") };
        let number =
            u64::from_str_radix(digits.as_str(), digits.radix()).ok().filter(|number| *number >= least);
        if number.is_none() {
            self.problem(format!("must be a whole number of at least {least}, not {digits}"));
        }
        number
    }

    /// Reads the absolute path of a file or directory that no run may empty.
    pub(in crate::config) fn path(&self) -> Option<PathBuf> {
        self.unkept_path().inspect(|path| self.keep(path))
    }

    /// Reads the path of a file that holds a secret, or whose setting is next to that of a secret, as [`Value::path`] does. No message
    /// quotes the value, because it may be the secret itself.
    pub(in crate::config) fn path_of_secret(&self) -> Option<PathBuf> {
        self.absolute(|_| not_absolute_unquoted()).inspect(|path| self.keep(path))
    }

    /// Reads the absolute path of a place that a run fills, or of something whose location is checked elsewhere.
    pub(in crate::config) fn unkept_path(&self) -> Option<PathBuf> {
        self.absolute(not_absolute)
    }

    fn absolute(&self, not_absolute: impl FnOnce(&str) -> String) -> Option<PathBuf> {
        let text = self.word()?;
        let path = PathBuf::from(text);
        if !path.is_absolute() {
            self.problem(not_absolute(text));
            return None;
        }
        Some(path)
    }

    /// Reads a size such as `"256MiB"`.
    pub(in crate::config) fn size(&self) -> Option<Bytes> {
        if let DeValue::Integer(digits) = self.raw() {
            let bytes = u64::from_str_radix(digits.as_str(), digits.radix()).unwrap_or_default();
            let example = likely_size(bytes);
            self.problem(format!("must be a quoted size with its unit, such as \"{example}\""));
            return None;
        }
        self.text()?.parse().map_err(|error| self.problem(format_args!("cannot be read: {error}"))).ok()
    }

    /// Reads a size that is not 0.
    pub(in crate::config) fn nonzero_size(&self) -> Option<Bytes> {
        let size = self.size()?;
        if size == Bytes(0) {
            self.problem("must not be 0: write a larger size, or leave the key out");
            return None;
        }
        Some(size)
    }

    /// Reads a length of time such as `"90s"` that is not 0.
    pub(in crate::config) fn duration(&self) -> Option<Duration> {
        self.duration_by(parse_duration)
    }

    /// Reads a length of time such as `"90s"`; `"0s"` is allowed.
    pub(in crate::config) fn duration_or_zero(&self) -> Option<Duration> {
        self.duration_by(parse_duration_or_zero)
    }

    fn duration_by(&self, parse: impl FnOnce(&str) -> Result<Duration, String>) -> Option<Duration> {
        if let DeValue::Integer(digits) = self.raw() {
            self.problem(format!("must be a quoted length of time with its unit, such as \"{digits}s\""));
            return None;
        }
        parse(self.text()?).map_err(|message| self.problem(message)).ok()
    }

    /// Reads a list of values of any type.
    pub(in crate::config) fn list(&self) -> Option<Vec<Value<'t>>> {
        match self.raw() {
            DeValue::Array(items) => {
                Some(items.iter().enumerate().map(|(i, item)| self.item(i, item)).collect())
            }
            DeValue::String(text) => {
                let key = self.path.rsplit('.').next().unwrap_or_default();
                self.problem(format!("must be a list, not a string: write {key} = [{:?}]", text.as_ref()));
                None
            }
            _ => self.wrong_type("a list"),
        }
    }

    fn item(&self, index: usize, value: &'t Spanned<DeValue<'t>>) -> Value<'t> {
        Value {
            reader: self.reader,
            path: format!("{}[{index}]", self.path),
            key: self.reader.place(value.span().start),
            value,
        }
    }

    /// Reads a list of texts. Items of another type, and empty texts, are noted as problems and left out.
    pub(in crate::config) fn texts(&self) -> Option<Vec<Value<'t>>> {
        Some(self.list()?.into_iter().filter(|item| item.text().is_some()).collect())
    }

    /// Reads a list of absolute paths, each with `read`.
    pub(in crate::config) fn paths(
        &self,
        read: impl Fn(&Value<'t>) -> Option<PathBuf>,
    ) -> Option<Vec<PathBuf>> {
        Some(self.list()?.iter().filter_map(read).collect())
    }

    /// Reads a table whose keys the operator chooses.
    pub(in crate::config) fn table(&self) -> Option<Section<'t>> {
        self.section(Vec::new())
    }

    /// Reads a table that may have these keys.
    pub(in crate::config) fn section(&self, keys: Vec<&'static str>) -> Option<Section<'t>> {
        match self.raw() {
            DeValue::Table(table) => Some(Section {
                reader: self.reader,
                table,
                path: self.path.clone(),
                place: self.key,
                keys,
                asked: RefCell::default(),
                refused: RefCell::default(),
            }),
            DeValue::Array(items)
                if items.iter().all(|item| item.get_ref().is_table()) && !items.is_empty() =>
            {
                self.problem(format!("is written with two pairs of brackets: write [{}]", self.path));
                None
            }
            _ => self.wrong_type("a table"),
        }
    }
}

/// Returns the name of a value's type in messages.
fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "a flag",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// Returns the size that the operator probably means by a number without a unit: a small number is taken for MiB, not for bytes.
fn likely_size(number: u64) -> String {
    const MIB: u64 = 1 << 20;
    match number {
        0 => "256MiB".to_owned(),
        1..MIB => format!("{number}MiB"),
        bytes if bytes % MIB == 0 => format!("{}MiB", bytes / MIB),
        bytes => format!("{bytes}B"),
    }
}

/// Parses a length of time: `"90s"`, `"4h"`, `"1h30m"`, `"1d"`. A length of 0 is refused.
///
/// # Errors
/// What is wrong with the text, worded to follow the name of the setting.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    match parse_duration_or_zero(text)? {
        Duration::ZERO => {
            Err("must not be 0: write a longer time, or leave the setting out for no limit".to_owned())
        }
        duration => Ok(duration),
    }
}

fn parse_duration_or_zero(text: &str) -> Result<Duration, String> {
    foundation::units::parse_duration(text).map_err(|error| format!("cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_time_needs_a_unit_and_must_not_be_0() {
        for (text, seconds) in [("90s", 90), ("4h", 14_400), ("1h30m", 5_400), ("1d", 86_400)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "90", "-1s", "0s", "4 parsecs", "99999999999999999h"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
