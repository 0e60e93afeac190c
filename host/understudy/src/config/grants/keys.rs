//! `keys.NAME`: keys for encrypted backups, and the stores whose objects each key decrypts.

use foundation::nearest::nearest;
use std::collections::BTreeMap;
use std::path::Path;

use replica::source::shown_if_there;
use sandbox::{Grants, KeyGrant};

use super::by_name;
use crate::config::Environment;
use crate::config::keys::{Key, names};
use crate::config::problem::{Origin, Problem};
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
        "kind",
        "`\"text\"` or `\"openpgp\"`",
        "`\"text\"`",
        "what the secret is: a text of one line, or secret keys of OpenPGP as `gpg --export-secret-keys` writes them, with \
         or without `--armor`",
    ),
    Key::new(
        "passphrase",
        "secret",
        "none: the keys have none",
        "the pass phrase of the OpenPGP keys, as `{ file = \"/path\" }` or `{ env = \"NAME\" }`. Refused with other \
         kinds",
    ),
    Key::new(
        "stores",
        "list of names",
        "the store of the key's own name",
        "the granted stores whose objects the key decrypts. A key that is bound to no store is refused unless a \
         program's `env` uses it",
    ),
];

/// The source of each key, by the key's name.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeySources {
    /// The names of all keys, including those that have a problem.
    pub(super) names: Vec<String>,
    sources: BTreeMap<String, KeySource>,
}

/// The source of a key.
#[derive(Clone, Debug)]
struct KeySource {
    secret: SecretSource,
    /// What else is needed for a key of OpenPGP; `None` for a text.
    openpgp: Option<OpenPgpSource>,
    /// The stores that the key is bound to.
    stores: Vec<String>,
}

/// What an OpenPGP key needs besides its text.
#[derive(Clone, Debug)]
struct OpenPgpSource {
    passphrase: Option<SecretSource>,
    /// Where the configuration names the key.
    origin: Origin,
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
        for (name, source) in &self.sources {
            grants.keys.insert(name.clone(), source.resolve()?);
        }
        Ok(())
    }

    /// Lists every file that holds a secret.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        self.sources.values().flat_map(KeySource::files)
    }
}

impl KeySource {
    /// Lists the files that hold the key and its pass phrase.
    fn files(&self) -> impl Iterator<Item = &Path> {
        let passphrase = self.openpgp.as_ref().and_then(|openpgp| openpgp.passphrase.as_ref());
        [Some(&self.secret), passphrase].into_iter().flatten().filter_map(SecretSource::file)
    }

    fn resolve(&self) -> Result<KeyGrant, Problem> {
        let (secret, stores) = (self.secret.resolve()?, self.stores.clone());
        let Some(openpgp) = &self.openpgp else { return Ok(KeyGrant::new(secret, stores)) };
        let passphrase = openpgp.passphrase.as_ref().map(SecretSource::resolve).transpose()?;
        KeyGrant::openpgp(secret, passphrase, stores).map_err(|why| {
            let named = match self.secret.file() {
                Some(file) => format!("the secret in {}", shown_if_there(file)),
                None => "the OpenPGP key".to_owned(),
            };
            Problem::new(openpgp.origin.clone(), format!("cannot use {named}: {why}"))
        })
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
) -> Option<KeySource> {
    if value.raw().is_str() {
        // Notes the problem that a secret must not be written in the file.
        SecretSource::read(value, Shape::Line, environment);
        return None;
    }
    let table = value.section(names(KEYS))?;
    let is_openpgp = match table.get("kind").map(|kind| (kind.word(), kind)) {
        None | Some((Some("text"), _)) => false,
        Some((Some("openpgp"), _)) => true,
        Some((other, kind)) => {
            if other.is_some() {
                kind.problem("must be \"text\" or \"openpgp\"");
            }
            return None;
        }
    };
    let shape = if is_openpgp { Shape::OpenPgpKey } else { Shape::Line };
    let secret = SecretSource::read_of(value, &table, shape, environment);
    let passphrase = table.get("passphrase");
    let listed = table.get("stores");
    table.finish();
    let passphrase = match passphrase {
        Some(given) if !is_openpgp => {
            given.problem("is for an OpenPGP key only: write kind = \"openpgp\" beside it, or remove it");
            return None;
        }
        Some(given) => Some(SecretSource::read(&given, Shape::Line, environment)?),
        None => None,
    };
    let openpgp = is_openpgp.then(|| OpenPgpSource { passphrase, origin: value.origin() });
    let secret = secret?;
    if is_openpgp && is_used {
        value.problem(
            "is an OpenPGP key, and the `env` of a program cannot have one: give the program a file to read",
        );
        return None;
    }
    let source = |stores| KeySource { secret, openpgp, stores };
    let Some(listed) = listed else {
        if granted.iter().any(|store| store == name) {
            return Some(source(vec![name.to_owned()]));
        }
        if is_used {
            return Some(source(Vec::new()));
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
    Some(source(bound.collect()))
}
