//! The list of methods, under its own name and under both of Patroni's names.

use toml::de::DeValue;

use super::problem::Place;
use super::tree::{Section, Value};

/// A method in the operator's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) name: String,
    pub(super) place: Place,
}

/// The name of the list.
const NAME: &str = "methods";

/// Patroni's newer and older name of the list.
pub(super) const OTHER_NAMES: &[&str] = &["create_replica_methods", "create_replica_method"];

/// Returns the methods that a section lists, in the operator's order and with repetitions; `None` if the section has no list.
pub(super) fn read_list(section: &Section<'_>) -> Option<Vec<Listed>> {
    let mut given = [NAME].into_iter().chain(OTHER_NAMES.iter().copied()).filter_map(|key| section.get(key));
    let list = given.next()?;
    for again in given {
        again.problem(format_args!("and `{}` are two names of one list: keep one of them", list.path));
    }
    let items = match list.raw() {
        DeValue::String(_) => vec![list],
        _ => list.texts()?,
    };
    let listed = |item: &Value<'_>| read_name(item).map(|name| Listed { name, place: item.place() });
    Some(items.iter().filter_map(listed).collect())
}

fn read_name(item: &Value<'_>) -> Option<String> {
    let name = item.word()?;
    if name.contains(',') && name.split(',').all(|name| is_method_name(name.trim())) {
        let names: Vec<String> = name.split(',').map(|name| format!("{:?}", name.trim())).collect();
        item.problem(format_args!("holds several names: write methods = [{}]", names.join(", ")));
        return None;
    }
    if !is_method_name(name) {
        item.problem(format_args!(
            "names a method `{}`: a name has 1 to 100 letters, digits, `_`, `-` and `.`, and does not begin with `.`",
            name.escape_debug()
        ));
        return None;
    }
    Some(name.to_owned())
}

/// Returns whether a method may have this name. The name becomes a file name in a directory of the plugin path, so it must not lead out of
/// that directory.
pub(crate) fn is_method_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    (1..=100).contains(&name.len()) && !name.starts_with('.') && name.chars().all(allowed)
}
