//! Reading a parsed TOML document key by key. Nothing here stops at the first problem: a reader that meets one notes
//! it with its place and goes on, so that a person sees all of them in one run.

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

/// Collects the problems of one file, and what it names that no run may empty.
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

    /// The file that is read.
    pub(super) fn file(&self) -> &'t Path {
        self.file
    }

    /// A place as messages name it.
    pub(super) fn at(&self, Place { line, column }: Place) -> String {
        format!("{}:{line}:{column}", self.file.display())
    }

    pub(super) fn place(&self, offset: usize) -> Place {
        Place::of(self.text, offset)
    }

    pub(super) fn problem(&self, place: Place, message: impl Into<String>) {
        self.note(Problem::in_file(self.file, place, message));
    }

    /// Notes a problem; what it quotes may be an address with a password.
    pub(super) fn note(&self, mut problem: Problem) {
        problem.message = without_logins(&problem.message);
        self.problems.borrow_mut().push(problem);
    }

    /// Notes a file or a directory that no run may empty; `name` is what messages call it.
    pub(super) fn keep(&self, path: impl Into<PathBuf>, name: impl Into<String>, origin: Origin) {
        self.kept.borrow_mut().push(Kept::new(path, name, origin));
    }

    /// What no run may empty, as far as it was noted.
    pub(super) fn kept(&self) -> Vec<Kept> {
        self.kept.borrow().clone()
    }

    /// Every problem in the order of the file, flags last.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort();
        problems.dedup();
        problems
    }
}

/// A table whose keys are known by name.
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
    /// The whole document.
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

    /// Where the section begins.
    pub(super) fn place(&self) -> Place {
        self.place
    }

    /// The value of `key`, which is one of the section's keys.
    pub(super) fn get(&self, key: &'static str) -> Option<Value<'t>> {
        debug_assert!(self.keys.contains(&key), "`{key}` is not in the table of the keys of `{}`", self.path);
        self.asked.borrow_mut().push(key);
        self.find(key)
    }

    fn find(&self, key: &str) -> Option<Value<'t>> {
        self.entries().into_iter().find(|(name, _)| name.text == key).map(|(_, value)| value)
    }

    /// Notes `message` where `key` is given, which is no key to be told of otherwise.
    pub(super) fn refuse(&self, key: &'static str, message: &str) {
        self.refused.borrow_mut().push(key);
        if let Some(value) = self.find(key) {
            self.reader.problem(value.key, format!("`{}` {message}", value.path));
        }
    }

    /// The dotted path of a key of this section.
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

    /// Every entry in the order of the file, for tables whose keys are the operator's own.
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

    /// Notes every key that this section does not have, with the section that has it, or with the nearest that this one has.
    pub(super) fn finish(self) {
        self.finish_with(|_, hint| hint);
    }

    /// The same, where `better` may say more of a key than the hint that there is, if any.
    pub(super) fn finish_with(self, better: impl Fn(&str, Option<String>) -> Option<String>) {
        let (asked, refused) = (self.asked.into_inner(), self.refused.into_inner());
        // A key that nobody reads would be taken and do nothing.
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

/// Says how the section of a method is written, if this is one at the top of the file: `[methods.NAME]`, `["method.NAME"]`, `[NAME]`.
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

/// A setting that the file or a flag must give.
#[derive(Default)]
pub(super) enum Setting<T> {
    /// Not in the file.
    #[default]
    Absent,
    /// In the file, and a problem of its own already.
    Unusable,
    /// In the file.
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

    /// What the flag says, or else the file; `missing` is called where neither says anything.
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

/// A key of the operator's own.
pub(super) struct Name {
    /// The key.
    pub(super) text: String,
    /// Where it stands.
    pub(super) place: Place,
}

/// A value and where it stands. Each reader of a type notes a problem where the value is of another.
pub(super) struct Value<'t> {
    reader: &'t Reader<'t>,
    /// The dotted path of the key.
    pub(super) path: String,
    key: Place,
    value: &'t Spanned<DeValue<'t>>,
}

impl<'t> Value<'t> {
    /// Where the value stands.
    pub(super) fn place(&self) -> Place {
        self.reader.place(self.value.span().start)
    }

    /// Where the value stands, as messages name it.
    pub(super) fn at(&self) -> String {
        self.reader.at(self.place())
    }

    /// The value, for tables whose types are the plugin's business.
    pub(super) fn raw(&self) -> &'t DeValue<'t> {
        self.value.get_ref()
    }

    /// Notes that the value leads to `path`, which no run may empty.
    pub(super) fn keep(&self, path: impl Into<PathBuf>) {
        self.keep_as(path, format!("what `{}` names", self.path));
    }

    /// The same under another name.
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

    /// Text that is not empty.
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

    /// Text of which every character can be seen: a name, an address, a path.
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

    /// `true` or `false`. Semantics rule 7: a string where a flag belongs is an error.
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

    /// A whole number of at least `least`.
    pub(super) fn count(&self, least: u64) -> Option<u64> {
        let DeValue::Integer(digits) = self.raw() else { return self.wrong_type("a whole number") };
        let number =
            u64::from_str_radix(digits.as_str(), digits.radix()).ok().filter(|number| *number >= least);
        if number.is_none() {
            self.problem(format!("must be a whole number of at least {least}, not {digits}"));
        }
        number
    }

    /// An absolute path of something that no run may empty.
    pub(super) fn path(&self) -> Option<PathBuf> {
        self.unkept_path().inspect(|path| self.keep(path))
    }

    /// The same of a file that holds a secret, or is beside one. The value is never quoted: it may be the secret itself.
    pub(super) fn path_of_secret(&self) -> Option<PathBuf> {
        self.absolute(|_| not_absolute_unquoted()).inspect(|path| self.keep(path))
    }

    /// An absolute path of a place that a run fills, or of something whose place is judged elsewhere.
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

    /// A size such as `"256MiB"`.
    pub(super) fn size(&self) -> Option<Bytes> {
        if let DeValue::Integer(digits) = self.raw() {
            let bytes = u64::from_str_radix(digits.as_str(), digits.radix()).unwrap_or_default();
            let example = likely_size(bytes);
            self.problem(format!("must be a quoted size with its unit, such as \"{example}\""));
            return None;
        }
        self.text()?.parse().map_err(|error| self.problem(format_args!("cannot be read: {error}"))).ok()
    }

    /// A size that is more than nothing.
    pub(super) fn size_of_something(&self) -> Option<Bytes> {
        let size = self.size()?;
        if size == Bytes(0) {
            self.problem("is nothing at all: write a larger size, or leave it out");
            return None;
        }
        Some(size)
    }

    /// A length of time such as `"90s"`, more than none.
    pub(super) fn duration(&self) -> Option<Duration> {
        self.duration_by(parse_duration)
    }

    /// A length of time such as `"90s"`, or `"0s"`.
    pub(super) fn duration_or_none_at_all(&self) -> Option<Duration> {
        self.duration_by(parse_any_duration)
    }

    fn duration_by(&self, parse: impl FnOnce(&str) -> Result<Duration, String>) -> Option<Duration> {
        if let DeValue::Integer(digits) = self.raw() {
            self.problem(format!("must be a quoted length of time with its unit, such as \"{digits}s\""));
            return None;
        }
        parse(self.text()?).map_err(|message| self.problem(message)).ok()
    }

    /// A list, item by item.
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

    /// A list of texts; items of another type are noted and left out.
    pub(super) fn texts(&self) -> Option<Vec<Value<'t>>> {
        Some(self.list()?.into_iter().filter(|item| item.text().is_some()).collect())
    }

    /// A list of absolute paths, each read by `read`.
    pub(super) fn paths(&self, read: impl Fn(&Value<'t>) -> Option<PathBuf>) -> Option<Vec<PathBuf>> {
        Some(self.list()?.iter().filter_map(read).collect())
    }

    /// A table whose keys are the operator's own.
    pub(super) fn table(&self) -> Option<Section<'t>> {
        self.section(Vec::new())
    }

    /// A table of these keys.
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

/// What a person calls the type of a value.
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

/// The size that somebody means who writes a number: a small one is not one of bytes.
fn likely_size(number: u64) -> String {
    const MIB: u64 = 1 << 20;
    match number {
        0 => "256MiB".to_owned(),
        1..MIB => format!("{number}MiB"),
        bytes if bytes % MIB == 0 => format!("{}MiB", bytes / MIB),
        bytes => format!("{bytes}B"),
    }
}

/// Reads a length of time: `"90s"`, `"4h"`, `"1h30m"`, `"1d"`. None at all is refused.
///
/// # Errors
/// What is wrong with it, to be put behind the name of the setting.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    match parse_any_duration(text)? {
        Duration::ZERO => {
            Err("is no time at all: write a longer one, or leave it out for no limit".to_owned())
        }
        duration => Ok(duration),
    }
}

fn parse_any_duration(text: &str) -> Result<Duration, String> {
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
