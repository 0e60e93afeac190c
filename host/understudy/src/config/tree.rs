//! Reading a parsed TOML document key by key. Reading does not stop at the first problem: each problem is noted with its place, so that the
//! operator sees all problems in one run.

use foundation::logins::without_logins;
use foundation::nearest::nearest;
use std::cell::RefCell;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use replica::Bytes;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::belongs::belongs;
use super::kept::Kept;
use super::methods::is_method_name;
use super::problem::{Origin, Place, Problem, not_absolute, not_absolute_unquoted};
use super::visible::invisible;

/// Collects the problems of one file, and the files and directories that no run may empty.
pub(super) struct Reader<'t> {
    file: &'t Path,
    text: &'t str,
    problems: RefCell<Vec<Problem>>,
    kept: RefCell<Vec<Kept>>,
}

impl<'t> Reader<'t> {
    pub(super) fn new(file: &'t Path, text: &'t str) -> Self {
        Self { file, text, problems: RefCell::default(), kept: RefCell::default() }
    }

    /// Returns the path of the configuration file.
    pub(super) fn file(&self) -> &'t Path {
        self.file
    }

    /// Returns a place as messages show it: `FILE:LINE:COLUMN`.
    pub(super) fn at(&self, Place { line, column }: Place) -> String {
        format!("{}:{line}:{column}", self.file.display())
    }

    pub(super) fn place(&self, offset: usize) -> Place {
        Place::of(self.text, offset)
    }

    pub(super) fn problem(&self, place: Place, message: impl Into<String>) {
        self.note(Problem::in_file(self.file, place, message));
    }

    /// Notes a problem. Logins in addresses are removed from the message, because it may quote an address with a password.
    pub(super) fn note(&self, mut problem: Problem) {
        problem.message = without_logins(&problem.message);
        self.problems.borrow_mut().push(problem);
    }

    /// Notes a file or a directory that no run may empty; `name` is what messages call it.
    pub(super) fn keep(&self, path: impl Into<PathBuf>, name: impl Into<String>, origin: Origin) {
        self.kept.borrow_mut().push(Kept::new(path, name, origin));
    }

    /// Returns the files and directories noted so far that no run may empty.
    pub(super) fn kept(&self) -> Vec<Kept> {
        self.kept.borrow().clone()
    }

    /// Returns every problem once, in the order of the file; problems with flags come last.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort();
        problems.dedup();
        problems
    }
}

/// A table of the document, with the keys that it may have.
pub(super) struct Section<'t> {
    reader: &'t Reader<'t>,
    table: &'t DeTable<'t>,
    path: String,
    place: Place,
    keys: Vec<&'static str>,
    asked: RefCell<Vec<&'static str>>,
    refused: RefCell<Vec<&'static str>>,
}

impl<'t> Section<'t> {
    /// Returns the whole document as a section.
    pub(super) fn root(reader: &'t Reader<'t>, table: &'t DeTable<'t>, keys: Vec<&'static str>) -> Self {
        Self {
            reader,
            table,
            path: String::new(),
            place: reader.place(0),
            keys,
            asked: RefCell::default(),
            refused: RefCell::default(),
        }
    }

    pub(super) fn reader(&self) -> &'t Reader<'t> {
        self.reader
    }

    /// Returns the place of the section's head.
    pub(super) fn place(&self) -> Place {
        self.place
    }

    /// Returns the value of `key`, which must be one of the section's keys; `None` if the file does not set `key`.
    pub(super) fn get(&self, key: &'static str) -> Option<Value<'t>> {
        debug_assert!(self.keys.contains(&key), "`{key}` is not in the table of the keys of `{}`", self.path);
        self.asked.borrow_mut().push(key);
        self.find(key)
    }

    fn find(&self, key: &str) -> Option<Value<'t>> {
        self.entries().into_iter().find(|(name, _)| name.text == key).map(|(_, value)| value)
    }

    /// Notes `message` as a problem if `key` is given. `key` is neither reported as unknown nor suggested in place of a misspelt key.
    pub(super) fn refuse(&self, key: &'static str, message: &str) {
        self.refused.borrow_mut().push(key);
        if let Some(value) = self.find(key) {
            self.reader.problem(value.key, format!("`{}` {message}", value.path));
        }
    }

    /// Returns the dotted path of a key of this section.
    pub(super) fn below(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// Notes `message` at the value of `key`, or at the head of the section if the key is not given.
    pub(super) fn tell(&self, key: &str, message: &str) {
        match self.find(key) {
            Some(value) => value.problem(message),
            None => self.reader.problem(self.place, format!("`{}` {message}", join(&self.path, key))),
        }
    }

    /// Notes that a key is missing, at the head of the section.
    pub(super) fn missing(&self, key: &str, what_to_write: &str) {
        let path = join(&self.path, key);
        self.reader.problem(self.place, format!("`{path}` is missing: {what_to_write}"));
    }

    /// Returns every entry in the order of the file, for tables whose keys the operator chooses.
    pub(super) fn entries(&self) -> Vec<(Name, Value<'t>)> {
        let mut entries: Vec<_> = self.table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        entries.into_iter().map(|(key, value)| self.entry(key.span(), key.get_ref(), value)).collect()
    }

    fn entry(&self, span: Range<usize>, key: &str, value: &'t Spanned<DeValue<'t>>) -> (Name, Value<'t>) {
        let place = self.reader.place(span.start);
        let value = Value { reader: self.reader, path: join(&self.path, key), key: place, value };
        (Name { text: key.to_owned(), place }, value)
    }

    /// Notes every unknown key as a problem. The message names the section that the key belongs to, or the nearest key of this section.
    pub(super) fn finish(self) {
        self.finish_with(|_, hint| hint);
    }

    /// Does the same as [`Section::finish`], with the hint that `better` returns for a key. `better` is given the key and the hint that the
    /// message would have.
    pub(super) fn finish_with(self, better: impl Fn(&str, Option<String>) -> Option<String>) {
        let (asked, refused) = (self.asked.into_inner(), self.refused.into_inner());
        // A key that is listed but never read would be accepted and have no effect.
        debug_assert!(
            self.keys.iter().all(|key| asked.contains(key) || refused.contains(key)),
            "not every key of `{}` is read: {:?}, but {asked:?}",
            self.path,
            self.keys
        );
        let known = || self.keys.iter().copied().filter(|key| !refused.contains(key));
        for (key, value) in self.table {
            let name = key.get_ref().as_ref();
            if refused.contains(&name) || self.keys.contains(&name) {
                continue;
            }
            let near = || nearest(name, known()).map(|near| format!("did you mean `{near}`?"));
            let is_top = self.path.is_empty();
            let section = || is_top.then(|| section_of_a_method(name, value.get_ref())).flatten();
            let is_of_a_method = name == "methods" || name.starts_with("method.");
            let section =
                section().filter(|_| is_of_a_method).or_else(|| belongs(name, &self.path)).or_else(section);
            let hint = better(name, section.or_else(near));
            let hint =
                hint.unwrap_or_else(|| format!("known here: {}", known().collect::<Vec<_>>().join(", ")));
            let path = join(&self.path, name);
            self.reader.problem(self.reader.place(key.span().start), format!("unknown key `{path}`: {hint}"));
        }
    }
}

/// Returns a hint about how to write the section of a method if a key at the top of the file looks like one: `[methods.NAME]`,
/// `["method.NAME"]` or `[NAME]`.
fn section_of_a_method(name: &str, value: &DeValue<'_>) -> Option<String> {
    let DeValue::Table(table) = value else { return None };
    let method = match name {
        "methods" => table.keys().next().map(|key| key.get_ref().to_string())?,
        _ => name.strip_prefix("method.").unwrap_or(name).to_owned(),
    };
    let is_known = ["replica", "source", "method"].iter().any(|known| nearest(name, [*known]).is_some());
    let is_a_section = name == "methods" || name.starts_with("method.") || !is_known;
    (is_a_section && is_method_name(&method))
        .then(|| format!("the section of a method is `[method.{method}]`"))
}

fn join(path: &str, key: &str) -> String {
    let bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    let key = if bare { key.to_owned() } else { format!("{key:?}") };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

/// A required setting, which a flag may give in place of the file.
#[derive(Default)]
pub(super) enum Setting<T> {
    /// The file does not have the setting.
    #[default]
    Absent,
    /// The file has the setting, but the value cannot be used. The problem is noted already.
    Unusable,
    /// The file has the setting.
    Given(T),
}

impl<T> Setting<T> {
    /// Reads a value of the file.
    pub(super) fn read<'t>(value: Option<Value<'t>>, read: impl FnOnce(&Value<'t>) -> Option<T>) -> Self {
        match value {
            None => Self::Absent,
            Some(value) => read(&value).map_or(Self::Unusable, Self::Given),
        }
    }

    /// Returns the value of the flag, or else the value in the file. Calls `missing` if neither gives the setting.
    pub(super) fn under(self, flag: Option<T>, missing: impl FnOnce()) -> Option<T> {
        match (flag, self) {
            (Some(given), _) | (None, Self::Given(given)) => Some(given),
            (None, Self::Unusable) => None,
            (None, Self::Absent) => {
                missing();
                None
            }
        }
    }
}

/// A key that the operator chose.
pub(super) struct Name {
    /// The key.
    pub(super) text: String,
    /// The key's place.
    pub(super) place: Place,
}

/// A value and its place. Each method that reads a type notes a problem, and returns `None`, if the value is not of that type.
pub(super) struct Value<'t> {
    reader: &'t Reader<'t>,
    /// The dotted path of the key.
    pub(super) path: String,
    key: Place,
    value: &'t Spanned<DeValue<'t>>,
}

impl<'t> Value<'t> {
    /// Returns the place of the value.
    pub(super) fn place(&self) -> Place {
        self.reader.place(self.value.span().start)
    }

    /// Returns the place of the value as messages show it: `FILE:LINE:COLUMN`.
    pub(super) fn at(&self) -> String {
        self.reader.at(self.place())
    }

    /// Returns the value as parsed, for settings that allow more than one type.
    pub(super) fn raw(&self) -> &'t DeValue<'t> {
        self.value.get_ref()
    }

    /// Notes that the value leads to `path`, which no run may empty.
    pub(super) fn keep(&self, path: impl Into<PathBuf>) {
        self.keep_as(path, format!("what `{}` names", self.path));
    }

    /// Notes that the value leads to `path`, which no run may empty and which messages call `name`.
    pub(super) fn keep_as(&self, path: impl Into<PathBuf>, name: impl Into<String>) {
        let origin = Origin::File { file: self.reader.file.to_owned(), place: self.place() };
        self.reader.keep(path, name, origin);
    }

    /// Notes a problem with this value.
    pub(super) fn problem(&self, message: impl std::fmt::Display) {
        self.reader.problem(self.place(), format!("`{}` {message}", self.path));
    }

    fn wrong_type<T>(&self, wanted: &str) -> Option<T> {
        self.problem(format!("must be {wanted}, not {}", kind(self.raw())));
        None
    }

    /// Reads a text that is not empty.
    pub(super) fn text(&self) -> Option<&'t str> {
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
    pub(super) fn word(&self) -> Option<&'t str> {
        let text = self.text()?;
        match invisible(text) {
            None => Some(text),
            Some(why) => {
                self.problem(why);
                None
            }
        }
    }

    /// Reads `true` or `false`. A string in place of a flag is an error (semantics rule 7).
    pub(super) fn flag(&self) -> Option<bool> {
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
    pub(super) fn count(&self, least: u64) -> Option<u64> {
        let DeValue::Integer(digits) = self.raw() else { return self.wrong_type("a whole number") };
        let number =
            u64::from_str_radix(digits.as_str(), digits.radix()).ok().filter(|number| *number >= least);
        if number.is_none() {
            self.problem(format!("must be a whole number of at least {least}, not {digits}"));
        }
        number
    }

    /// Reads the absolute path of a file or directory that no run may empty.
    pub(super) fn path(&self) -> Option<PathBuf> {
        self.unkept_path().inspect(|path| self.keep(path))
    }

    /// Reads a path as [`Value::path`] does, of a file that holds a secret or is set next to one. No message quotes the value, because it
    /// may be the secret itself.
    pub(super) fn path_of_secret(&self) -> Option<PathBuf> {
        self.absolute(|_| not_absolute_unquoted()).inspect(|path| self.keep(path))
    }

    /// Reads the absolute path of a place that a run fills, or of something whose location is checked elsewhere.
    pub(super) fn unkept_path(&self) -> Option<PathBuf> {
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
    pub(super) fn size(&self) -> Option<Bytes> {
        if let DeValue::Integer(digits) = self.raw() {
            let bytes = u64::from_str_radix(digits.as_str(), digits.radix()).unwrap_or_default();
            let example = likely_size(bytes);
            self.problem(format!("must be a quoted size with its unit, such as \"{example}\""));
            return None;
        }
        self.text()?.parse().map_err(|error| self.problem(format_args!("cannot be read: {error}"))).ok()
    }

    /// Reads a size that is not 0.
    pub(super) fn nonzero_size(&self) -> Option<Bytes> {
        let size = self.size()?;
        if size == Bytes(0) {
            self.problem("must not be 0: write a larger size, or leave the key out");
            return None;
        }
        Some(size)
    }

    /// Reads a length of time such as `"90s"` that is not 0.
    pub(super) fn duration(&self) -> Option<Duration> {
        self.duration_by(parse_duration)
    }

    /// Reads a length of time such as `"90s"`; `"0s"` is allowed.
    pub(super) fn duration_or_zero(&self) -> Option<Duration> {
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
    pub(super) fn list(&self) -> Option<Vec<Value<'t>>> {
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
    pub(super) fn texts(&self) -> Option<Vec<Value<'t>>> {
        Some(self.list()?.into_iter().filter(|item| item.text().is_some()).collect())
    }

    /// Reads a list of absolute paths, each with `read`.
    pub(super) fn paths(&self, read: impl Fn(&Value<'t>) -> Option<PathBuf>) -> Option<Vec<PathBuf>> {
        Some(self.list()?.iter().filter_map(read).collect())
    }

    /// Reads a table whose keys the operator chooses.
    pub(super) fn table(&self) -> Option<Section<'t>> {
        self.section(Vec::new())
    }

    /// Reads a table that may have these keys.
    pub(super) fn section(&self, keys: Vec<&'static str>) -> Option<Section<'t>> {
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

/// Returns what messages call the type of a value.
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
    fn a_length_of_time_needs_a_unit_and_is_more_than_none() {
        for (text, seconds) in [("90s", 90), ("4h", 14_400), ("1h30m", 5_400), ("1d", 86_400)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "90", "-1s", "0s", "4 parsecs", "99999999999999999h"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
