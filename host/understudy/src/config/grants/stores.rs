//! `stores.NAME`: places where backups are kept, and the credentials for them.

use foundation::nearest::nearest;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use replica::Redactor;
use sandbox::kinds::{KINDS, StoreKind, Tls, Unset, ValueKind};
use sandbox::{Credentials, Grants, Renewal, Secret, StoreConfig};

use super::by_name;
use crate::config::Environment;
use crate::config::authorities::Authorities;
use crate::config::keys::{Key, names};
use crate::config::problem::Problem;
use crate::config::reference::words;
use crate::config::secret::{SecretSource, Shape};
use crate::config::tree::{Section, Value};

/// The highest `concurrency` that a store may have.
const CONCURRENCY: usize = 256;

/// The key of a store's address.
const URL: Key = Key::new(
    "url",
    "address",
    "required",
    "where the backups are; the scheme names the [kind of store](stores.md#kinds-of-stores). Refused: \
         a user or a password, `?`, `#`, characters that cannot be seen, and `%` in a `file:` URL",
);

/// The keys that every store has, in addition to the settings of its kind.
const FURTHER: &[Key] = &[
    Key::new(
        "ca_file",
        "path",
        "the machine's authorities",
        "a PEM file of at most 1 MiB that belongs to the program's user or root and that nobody else may \
         change. The server's certificate must then come from one of these authorities. Refused with an \
         `http://` endpoint",
    ),
    Key::new("redirects", "list", "none", "servers that redirects may lead to, each as `\"host:port\"`"),
    Key::new(
        "credentials",
        "table, or `\"auto\"`",
        "none: requests are not signed",
        "a table of secrets, or `\"auto\"` for `s3`, `gs` and `az`: see \
         [credentials](stores.md#credentials)",
    ),
    Key::new(
        "concurrency",
        "1 to 256",
        "16",
        "how many requests may wait for an answer at once. There may be more connections",
    ),
    Key::new(
        "retry_for",
        "time",
        "`\"10m\"`",
        "how long the transfer of one object may make no progress, including all tries and pauses",
    ),
    Key::new(
        "plan_retry_for",
        "time",
        "`\"20s\"`",
        "the same as `retry_for`, while a method plans, and so during all of `check`. Longer than `retry_for` is \
         refused",
    ),
    Key::new(
        "idle_timeout",
        "time",
        "`\"30s\"`",
        "how long one request may go without a byte from the store. While a method plans, at most half of \
         `plan_retry_for`",
    ),
];

/// Returns the keys of `stores.NAME` for all kinds of stores together.
pub(in crate::config) fn keys() -> Vec<Key> {
    let mut keys = vec![URL];
    for setting in KINDS.iter().flat_map(|kind| kind.settings) {
        let default = match setting.unset {
            Unset::Missing(_) => "required",
            Unset::Default(default) => default,
        };
        if keys.iter().all(|key| key.name != setting.name) {
            keys.push(Key::new(setting.name, words(setting.value), default, setting.doc));
        }
    }
    keys.extend(FURTHER);
    keys
}

/// Returns the keys of a store's credentials for all kinds of stores together, except `password`: a `password` in a wrong section is more
/// likely to be the one of `[source]`.
pub(in crate::config) fn credentials() -> Vec<Key> {
    let mut keys: Vec<Key> = Vec::new();
    for credential in KINDS.iter().flat_map(|kind| kind.all_credentials()) {
        let is_new = keys.iter().all(|key| key.name != credential.name);
        if is_new && credential.name != "password" {
            keys.push(Key::new(credential.name, "secret", "none", "a credential"));
        }
    }
    keys
}

/// The sources of the stores' secrets, and the authorities from which their servers' certificates must come.
#[derive(Clone, Debug, Default)]
pub(crate) struct StoreSecrets {
    /// The names of all stores, including those with problems.
    pub(super) names: Vec<String>,
    /// The sources of the credentials of each store, by the store's name.
    credentials: BTreeMap<String, Sources>,
    /// The `ca_file` of each store that has one, by the store's name.
    authorities: BTreeMap<String, Authorities>,
}

/// Reads the stores into `open`, without their secrets, and returns where the secrets come from.
pub(super) fn read(section: &Section<'_>, environment: Environment<'_>, open: &mut Grants) -> StoreSecrets {
    let mut secrets = StoreSecrets::default();
    for (name, value) in by_name(section.get("stores")) {
        secrets.names.push(name.clone());
        if let Some((config, credentials, authorities)) =
            value.section(names(&keys())).and_then(|store| read_store(store, environment))
        {
            open.stores.insert(name.clone(), config);
            secrets.authorities.extend(authorities.map(|authorities| (name.clone(), authorities)));
            secrets.credentials.insert(name, credentials);
        }
    }
    secrets
}

/// Returns the secrets that stores with `credentials = "auto"` find in the environment.
pub(super) fn ambient(open: &Grants, environment: Environment<'_>) -> Vec<Secret> {
    let found = open.stores.values().flat_map(|store| store.secrets_of_environment(environment));
    found.map(|(_, secret)| secret).collect()
}

/// Returns the files with secrets that the environment names for stores with `credentials = "auto"`.
pub(super) fn ambient_files(open: &Grants, environment: Environment<'_>) -> Vec<PathBuf> {
    open.stores.values().flat_map(|store| store.secret_files_of_environment(environment)).collect()
}

impl StoreSecrets {
    /// Reads the credentials and authorities of the stores into `grants`.
    ///
    /// # Errors
    /// The first problem, at the setting that names the file.
    pub(super) fn resolve(&self, grants: &mut Grants) -> Result<(), Problem> {
        for (name, config) in &mut grants.stores {
            if let Some(sources) = self.credentials.get(name).filter(|sources| !sources.is_empty()) {
                let secrets =
                    sources.iter().map(|(name, source)| Ok(((*name).to_owned(), source.resolve()?)));
                config.credentials = Credentials::Given(secrets.collect::<Result<_, Problem>>()?);
            }
            config.authorities = self.authorities.get(name).map(Authorities::resolve).transpose()?;
        }
        Ok(())
    }

    /// Lets each store whose credentials come from files read the files again when the store refuses the credentials. `redactor` is given
    /// the new credentials before the store uses them.
    pub(super) fn renew(&self, grants: &mut Grants, redactor: &Redactor) {
        for (name, config) in &mut grants.stores {
            let sources = self.credentials.get(name).map(Vec::as_slice).unwrap_or_default();
            if sources.iter().any(|(_, source)| source.file().is_some()) {
                let sources = sources.to_vec();
                config.renewal = Some(Arc::new(CredentialFiles { sources, redactor: redactor.clone() }));
            }
        }
    }

    /// Lists every file that holds a secret.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        self.credentials.values().flatten().filter_map(|(_, source)| source.file())
    }
}

/// The sources of one store's credentials, which are read again when the store refuses the credentials.
#[derive(Debug)]
struct CredentialFiles {
    sources: Sources,
    redactor: Redactor,
}

impl Renewal for CredentialFiles {
    fn credentials(&self) -> Result<Vec<(String, Secret)>, String> {
        let read = |(name, source): &(&'static str, SecretSource)| {
            let secret = source.resolve().map_err(|problem| problem.to_string())?;
            self.redactor.add(&secret).map_err(|error| error.to_string())?;
            Ok(((*name).to_owned(), secret))
        };
        self.sources.iter().map(read).collect()
    }
}

/// The name of each credential of a store, and where the credential comes from.
type Sources = Vec<(&'static str, SecretSource)>;

fn read_store(
    section: Section<'_>,
    environment: Environment<'_>,
) -> Option<(StoreConfig, Sources, Option<Authorities>)> {
    let Some(url) = section.get("url") else {
        section.missing("url", "write url = \"s3://bucket/prefix\", or another place where backups are");
        return None;
    };
    let text = url.word()?;
    let kind = StoreKind::of(text).map_err(|why| url.problem(why)).ok()?;
    let mut config = StoreConfig::new(text);
    for setting in kind.settings {
        let value = section.get(setting.name).and_then(|value| match setting.value {
            ValueKind::Flag => value.flag().map(|flag| flag.to_string()),
            _ => value.word().map(str::to_owned),
        });
        config.options.extend(value.map(|value| (setting.name.to_owned(), value)));
    }
    if let Some(concurrency) = section.get("concurrency").and_then(|value| value.number_to(CONCURRENCY)) {
        config.concurrency = concurrency;
    }
    if let Some(at_most) = section.get("retry_for").and_then(|value| value.duration()) {
        config.retry.at_most = at_most;
    }
    if let Some(value) = section.get("plan_retry_for")
        && let Some(at_most) = value.duration()
    {
        if at_most > config.retry.at_most {
            value.problem(
                "is longer than `retry_for`, which holds for every step: raise that, or remove the line",
            );
        }
        config.plan_retry_for = at_most;
    }
    if let Some(idle) = section.get("idle_timeout").and_then(|value| value.duration()) {
        config.retry.idle = idle;
    }
    if kind.redirects {
        config.redirects = section.get("redirects").map(|value| read_redirects(&value)).unwrap_or_default();
    } else {
        section.refuse(
            "redirects",
            "is not a setting of this kind of store, whose redirects are never followed: remove the line",
        );
    }
    let mut authorities = None;
    if matches!(kind.tls, Tls::Never) {
        section.refuse("ca_file", "has no effect without TLS: remove the line, or use an https:// address");
    } else if let Some(value) = section.get("ca_file") {
        if !config.speaks_tls() {
            value
                .problem("has no effect without TLS, and `endpoint` is http://: remove one of the two lines");
        }
        authorities = Authorities::read(&value);
    }
    let mut sources = Sources::new();
    match section.get("credentials") {
        Some(value) if kind.has_auto() && value.raw().as_str() == Some("auto") => {
            config.credentials = Credentials::Auto;
        }
        Some(value) => sources = read_credentials(&value, kind, &config, environment),
        None => {}
    }
    for credential in kind.all_credentials() {
        section.refuse(credential.name, &format!("belongs in `credentials`: {}", kind.form()));
    }
    for (key, schemes) in of_other_kinds(kind) {
        let schemes = schemes.join(", ");
        section.refuse(
            key,
            &format!("is a setting of {schemes} stores, not of `{}:` stores: remove the line", kind.scheme),
        );
    }
    for mistake in config.mistakes(environment) {
        section.tell(&mistake.setting, &mistake.message);
    }
    section.finish();
    Some((config, sources, authorities))
}

/// Reads the list of servers that redirects may lead to.
fn read_redirects(value: &Value<'_>) -> Vec<String> {
    let read = |item: &Value<'_>| {
        let place = item.word()?;
        if !StoreConfig::is_redirect(place) {
            item.problem("names no server: write its name and port, such as \"cdn.example:443\"");
            return None;
        }
        Some(place.to_owned())
    };
    value.list().unwrap_or_default().iter().filter_map(read).collect()
}

/// Returns the settings that `kind` does not have, each with the schemes of the kinds of stores that have it.
fn of_other_kinds(kind: &StoreKind) -> BTreeMap<&'static str, Vec<String>> {
    let mut others: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for other in KINDS {
        for setting in other.settings {
            others.entry(setting.name).or_default().push(format!("`{}:`", other.scheme));
        }
    }
    for own in kind.settings {
        others.remove(own.name);
    }
    others
}

/// Reads the credentials of a store, each written as `{ file }` or `{ env }`.
fn read_credentials(
    value: &Value<'_>,
    kind: &StoreKind,
    config: &StoreConfig,
    environment: Environment<'_>,
) -> Sources {
    if kind.credentials.is_empty() {
        value.problem(format_args!("are not a setting of `{}:` stores: remove the line", kind.scheme));
        return Sources::new();
    }
    if let Some(text) = value.raw().as_str() {
        match nearest(text.trim(), ["auto"]).filter(|_| kind.has_auto()) {
            Some(near) => value
                .problem(format_args!("must be \"auto\" or a table of secrets: did you mean \"{near}\"?")),
            None => value.problem(format_args!("must not be written in this file: {}", kind.form())),
        }
        return Sources::new();
    }
    let known = kind.all_credentials().map(|credential| credential.name).collect();
    let Some(section) = value.section(known) else { return Sources::new() };
    let mut given = Vec::new();
    let mut sources = Sources::new();
    for credential in kind.all_credentials() {
        let Some(value) = section.get(credential.name) else { continue };
        given.push(credential.name);
        let shape = match credential.value {
            ValueKind::JsonObject => Shape::JsonObject,
            _ => Shape::Line,
        };
        if let Some(source) = SecretSource::read(&value, shape, environment) {
            sources.push((credential.name, source));
        }
    }
    section.finish();
    let is_set = |name: &str| config.options.iter().any(|(set, _)| set == name);
    if given.is_empty() {
        value.problem(format_args!("are empty: {}", kind.form()));
    } else if let Some(why) = kind.wrong_credentials(&given, &is_set) {
        value.problem(why);
    }
    sources
}
