//! Reads a parsed TOML document key by key. Reading does not stop at the first problem. Each problem is recorded with its place, so that the
//! operator sees all problems in one run.

use foundation::logins::without_logins;
use foundation::nearest::nearest;
use std::cell::RefCell;
use std::ops::Range;
use std::path::PathBuf;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::belongs::belongs;
use super::input::Input;
use super::kept::Kept;
use super::methods::is_method_name;
use super::problem::{Origin, Place, Problem};

mod value;

pub(super) use value::Value;
pub(crate) use value::parse_duration;

/// Collects the problems of one configuration, and the files and directories that no run may empty.
pub(super) struct Reader<'t> {
    input: Input<'t>,
    text: &'t str,
    problems: RefCell<Vec<Problem>>,
    kept: RefCell<Vec<Kept>>,
}

impl<'t> Reader<'t> {
    pub(super) fn new(input: Input<'t>, text: &'t str) -> Self {
        Self { input, text, problems: RefCell::default(), kept: RefCell::default() }
    }

    /// Returns where the text was written.
    pub(super) fn input(&self) -> Input<'t> {
        self.input
    }

    /// Returns where the text at a place was written.
    pub(super) fn origin(&self, place: Place) -> Origin {
        self.input.origin(place)
    }

    /// Returns where the text at a place was written, as messages show it: `FILE:LINE:COLUMN`, or a flag.
    pub(super) fn at(&self, place: Place) -> String {
        self.origin(place).to_string()
    }

    pub(super) fn place(&self, offset: usize) -> Place {
        Place::of(self.text, offset)
    }

    pub(super) fn problem(&self, place: Place, message: impl Into<String>) {
        self.note(Problem::new(self.origin(place), message));
    }

    /// Notes a problem. Logins in addresses are removed from the message, because it may quote an address with a password.
    pub(super) fn note(&self, mut problem: Problem) {
        problem.message = without_logins(&problem.message);
        self.problems.borrow_mut().push(problem);
    }

    /// Notes a file or a directory that no run may empty; `name` is its name in messages.
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

    /// Returns the value of the flag, or the value in the file if the flag is not given. Calls `missing` if neither gives the setting.
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
