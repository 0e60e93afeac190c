//! `keys.NAME`: keys for encrypted backups, and the stores whose objects each key decrypts.

use foundation::nearest::nearest;
use std::collections::BTreeMap;
use std::path::Path;

use sandbox::{Grants, KeyGrant};

use super::by_name;
use crate::config::Environment;
use crate::config::keys::{Key, names};
use crate::config::problem::Problem;
use crate::config::secret::{SecretSource, Shape};
use crate::config::tree::{Section, Value};

/// The keys of `keys.NAME`.
pub(in crate::config) const KEYS: &[Key] = &[
    Key::new(
        "file",
        "path",
        "one of `file` and `env` is required",
        "the file that holds the pass phrase or key. One newline at the end is removed. A file has at most 64 \
         KiB, belongs to the program's user or to root, and must not be readable by others (PostgreSQL's \
         rule for `ssl_key_file`)",
    ),
    Key::new(
        "env",
        "text",
        "one of `file` and `env` is required",
        "the variable of the environment that holds the pass phrase or key. One newline at the end is removed",
    ),
    Key::new(
        "stores",
        "list of names",
        "the store of the key's own name",
        "the granted stores whose objects the key decrypts. A key that is bound to no store is refused unless a \
         program's `env` uses it",
    ),
];

/// The source of each key and the stores that the key is bound to, by the key's name.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeySources {
    /// The names of all keys, including those that have a problem.
    pub(super) names: Vec<String>,
    sources: BTreeMap<String, (SecretSource, Vec<String>)>,
}

/// Reads where the keys come from. `stores` are the names of the granted stores, to which a key may be bound.
pub(super) fn read(
    section: &Section<'_>,
    stores: &[String],
    used: &[&str],
    environment: Environment<'_>,
) -> KeySources {
    let mut keys = KeySources::default();
    for (name, value) in by_name(section.get("keys")) {
        keys.names.push(name.clone());
        let is_used = used.contains(&name.as_str());
        if let Some(key) = read_key(&name, &value, stores, is_used, environment) {
            keys.sources.insert(name, key);
        }
    }
    keys
}

impl KeySources {
    /// Reads the keys from their files into `grants`.
    ///
    /// # Errors
    /// The first problem, at the setting that names the file.
    pub(super) fn resolve(&self, grants: &mut Grants) -> Result<(), Problem> {
        for (name, (source, stores)) in &self.sources {
            grants.keys.insert(name.clone(), KeyGrant::new(source.resolve()?, stores.clone()));
        }
        Ok(())
    }

    /// Lists every file that holds a secret.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        self.sources.values().filter_map(|(source, _)| source.file())
    }
}

/// Reads the source of a key, and the stores that the key is bound to: those that `stores` lists, or the store with the key's own name if
/// `stores` is not given. A key that is bound to no store is a problem.
fn read_key(
    name: &str,
    value: &Value<'_>,
    granted: &[String],
    is_used: bool,
    environment: Environment<'_>,
) -> Option<(SecretSource, Vec<String>)> {
    if value.raw().is_str() {
        // Notes the problem that a secret must not be written in the file.
        return SecretSource::read(value, Shape::Line, environment).map(|source| (source, Vec::new()));
    }
    let table = value.section(names(KEYS))?;
    let source = SecretSource::read_of(value, &table, Shape::Line, environment);
    let listed = table.get("stores");
    table.finish();
    let source = source?;
    let Some(listed) = listed else {
        if granted.iter().any(|store| store == name) {
            return Some((source, vec![name.to_owned()]));
        }
        if is_used {
            return Some((source, Vec::new()));
        }
        value.problem(format_args!(
            "decrypts nothing: name the stores whose objects it decrypts, such as keys.{name} = {{ file = \"/path\", stores = \
             [\"repo\"] }}, or give the key the name of its store"
        ));
        return None;
    };
    let stores = listed.list()?;
    if stores.is_empty() {
        listed.problem("names no store, so the key would decrypt nothing: name a store, or remove the key");
    }
    let bound = stores.iter().filter_map(|item| {
        let store = item.word()?;
        if !granted.iter().any(|known| known == store) {
            let near = nearest(store, granted.iter().map(String::as_str));
            let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            item.problem(format_args!("names no store of these grants{hint}"));
        }
        Some(store.to_owned())
    });
    Some((source, bound.collect()))
}
