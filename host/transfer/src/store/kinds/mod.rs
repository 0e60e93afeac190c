//! The kinds of stores. Each has a module with one [`StoreKind`], which defines how an operator configures it, which environment
//! variables it reads, and how it is opened. The configuration of stores is checked against these definitions, and the tables of the
//! manual are made from them.

mod azure;
mod check;
mod chosen;
mod directory;
mod google;
mod s3;
mod url;
mod values;
mod web;

use std::ffi::OsString;
use std::path::PathBuf;

use foundation::nearest::nearest;
use foundation::secret::Secret;
use object_store::RetryConfig;
use tokio::runtime::Handle;

use super::access::Access;
use super::key::Prefix;
use super::{Backend, Store, StoreConfig};
use crate::error::{Error, Kind};
pub use check::Mistake;
pub(super) use check::{mistakes, speaks_tls};
use chosen::Chosen;
pub(super) use url::directory;
pub use values::ValueKind;
#[cfg(test)]
pub(in crate::store) use web::basic;

/// Every kind of store, in the order of the manual.
pub static KINDS: [&StoreKind; 6] =
    [&s3::KIND, &google::KIND, &azure::KIND, &web::HTTPS, &web::HTTP, &directory::KIND];

/// A kind of store.
#[derive(Debug)]
pub struct StoreKind {
    /// The scheme of its URL: the part before `://`.
    pub scheme: &'static str,
    /// An example of a URL.
    pub example: &'static str,
    /// Its name in messages, with an article.
    label: &'static str,
    /// What its URL names.
    place: Place,
    /// The settings that not every kind has.
    pub settings: &'static [Setting],
    /// The credentials that it accepts. A store has credentials of one set only.
    pub credentials: &'static [CredentialSet],
    /// The message for credentials of two sets, to be put after `credentials`. Empty if there is at most one set.
    conflict: &'static str,
    /// The environment variables that `credentials = "auto"` reads. Empty if this kind does not support `"auto"`.
    pub environment: &'static [Variable],
    /// Whether it is reached by TLS.
    pub tls: Tls,
    /// Whether the operator can grant redirects to other servers.
    pub redirects: bool,
    /// Makes the backend from settings and credentials in which [`mistakes`] has found nothing wrong.
    open: fn(&Chosen<'_>, &Handle) -> Result<Opened, Error>,
}

/// What the URL of a store names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// `SCHEME://BUCKET/PREFIX`
    Bucket,
    /// `SCHEME://HOST:PORT/PATH`
    Server,
    /// `SCHEME:///DIRECTORY`
    Directory,
}

/// A setting of a kind of store.
#[derive(Debug)]
pub struct Setting {
    /// Its name in the configuration.
    pub name: &'static str,
    /// Its name in the cloud's library; `None` if only this crate reads it.
    library: Option<&'static str>,
    /// The values that it accepts.
    pub value: ValueKind,
    /// Its default, or that it is required.
    pub unset: Unset,
    /// What it means, for the manual.
    pub doc: &'static str,
}

/// What happens if a setting is not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unset {
    /// The setting is required. The text says what to write.
    Missing(&'static str),
    /// This default applies, in the words of the manual.
    Default(&'static str),
}

/// A credential of a kind of store.
#[derive(Debug)]
pub struct Credential {
    /// Its name in the configuration.
    pub name: &'static str,
    /// Its name in the cloud's library; `None` if only this crate reads it.
    library: Option<&'static str>,
    /// The values that it accepts.
    pub value: ValueKind,
    /// Whether the other credentials of its set can be used without it.
    pub optional: bool,
}

/// Credentials that are used together. A store cannot have credentials of two sets.
#[derive(Debug)]
pub struct CredentialSet {
    /// The credentials.
    pub credentials: &'static [Credential],
    /// The settings that these credentials require.
    pub needs: &'static [&'static Setting],
}

/// An environment variable that `credentials = "auto"` reads.
#[derive(Debug)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// What its value is used for.
    pub gives: Gives,
}

/// What the value of an environment variable is used for.
#[derive(Debug)]
pub enum Gives {
    /// As the value of a setting, unless the configuration sets it.
    Setting(&'static Setting),
    /// As a credential.
    Credential(&'static Credential),
    /// As an option of the provider chain with which the cloud's library gets credentials.
    Chain {
        /// The name of the option in the library.
        library: &'static str,
        /// The values that it accepts.
        value: ValueKind,
    },
}

/// Whether a store is reached by TLS.
#[derive(Debug)]
pub enum Tls {
    /// Never.
    Never,
    /// Always.
    Always,
    /// Unless this setting is an address that begins with `http://`.
    Unless(&'static Setting),
}

/// The setting that allows an address with `http://`.
const ALLOW_HTTP: Setting = Setting {
    name: "allow_http",
    library: None,
    value: ValueKind::Flag,
    unset: Unset::Default("`false`"),
    doc: "allow an `endpoint` with `http://`",
};

/// Makes the setting for the address of a cloud's server, which has this name in the library.
const fn endpoint(library: &'static str) -> Setting {
    Setting {
        name: "endpoint",
        library: Some(library),
        value: ValueKind::Address,
        unset: Unset::Default("the cloud's own"),
        doc: "the URL of the server. `http://` needs `allow_http`",
    }
}

impl StoreKind {
    /// Returns the kind of store for a URL, by its scheme.
    ///
    /// # Errors
    /// What is wrong with the URL, to be put after the name of its setting.
    pub fn of(url: &str) -> Result<&'static Self, String> {
        let Some((scheme, _)) = url.split_once("://") else {
            let example = match url.starts_with('/') {
                true => "write file:// before the path of a directory, for example \"file:///mnt/backups\"",
                false => "write for example \"s3://bucket/prefix\" or \"file:///mnt/backups\"",
            };
            return Err(format!("is not the URL of a store: {example}"));
        };
        Self::with_scheme(scheme).ok_or_else(|| {
            let schemes = KINDS.map(|kind| kind.scheme);
            let hint = match nearest(scheme, schemes) {
                Some(near) => format!("did you mean `{near}://`?"),
                None => format!("the kinds are {}", schemes.join(", ")),
            };
            format!("names a kind of store that does not exist: {hint}")
        })
    }

    fn with_scheme(scheme: &str) -> Option<&'static Self> {
        KINDS.into_iter().find(|kind| kind.scheme == scheme)
    }

    /// Returns whether this kind supports `credentials = "auto"`.
    pub fn has_auto(&self) -> bool {
        !self.environment.is_empty()
    }

    /// Returns the credentials of all sets.
    pub fn all_credentials(&self) -> impl Iterator<Item = &'static Credential> {
        self.credentials.iter().flat_map(|set| set.credentials)
    }

    /// Returns how to write credentials of this kind in the configuration, for messages.
    pub fn form(&self) -> String {
        let auto = if self.has_auto() { " or credentials = \"auto\"" } else { "" };
        match self.all_credentials().next() {
            Some(Credential { name, .. }) => {
                format!(
                    "write credentials = {{ {name} = {{ file = \"/path\" }} }} with `file` or `env`{auto}"
                )
            }
            None => "remove them".to_owned(),
        }
    }

    /// Returns what is wrong with a store that has credentials with these names, to be put after the name of their setting; `None` if they
    /// belong to one set, and no required credential or setting is missing.
    pub fn wrong_credentials(&self, names: &[&str], is_set: &dyn Fn(&str) -> bool) -> Option<String> {
        let has = |credential: &Credential| names.contains(&credential.name);
        let mut sets = self.credentials.iter().filter(|set| set.credentials.iter().any(has));
        let set = sets.next()?;
        if sets.next().is_some() {
            return Some(self.conflict.to_owned());
        }
        if let Some(missing) =
            set.credentials.iter().find(|credential| !credential.optional && !has(credential))
        {
            return Some(format!("lack `{}`", missing.name));
        }
        let missing = set.needs.iter().find(|setting| !is_set(setting.name))?;
        let first = set.credentials.first()?;
        Some(format!("with a `{}` also need the setting `{}`", first.name, missing.name))
    }
}

impl Gives {
    /// Returns the name in the configuration, or the name in the library if the configuration has none.
    fn name(&self) -> &'static str {
        match self {
            Self::Setting(setting) => setting.name,
            Self::Credential(credential) => credential.name,
            Self::Chain { library, .. } => library,
        }
    }

    fn library(&self) -> Option<&'static str> {
        match self {
            Self::Setting(setting) => setting.library,
            Self::Credential(credential) => credential.library,
            Self::Chain { library, .. } => Some(library),
        }
    }

    /// Returns the values that the variable accepts.
    pub fn value(&self) -> ValueKind {
        match self {
            Self::Setting(setting) => setting.value,
            Self::Credential(credential) => credential.value,
            Self::Chain { value, .. } => *value,
        }
    }

    /// Returns whether the value of the variable is secret.
    pub fn is_secret(&self) -> bool {
        matches!(self, Self::Credential(_))
    }
}

/// The parts of an opened store that differ between the kinds.
struct Opened {
    prefix: Prefix,
    backend: Box<dyn Backend>,
}

/// Returns the value of an environment variable.
pub(super) type Environment<'e> = &'e dyn Fn(&str) -> Option<OsString>;

/// Opens the store that is configured.
pub(super) fn open(
    config: &StoreConfig,
    environment: Environment<'_>,
    runtime: &Handle,
) -> Result<Store, Error> {
    let Opened { prefix, backend } = opened(config, environment, runtime)?;
    let access = Access::of(backend.into(), config, environment, runtime)?;
    Ok(Store::assemble(url::shown(&config.url), prefix, access, config.concurrency, config.retry))
}

/// Makes only the backend, for a store that is open and gets renewed credentials. Does not read the environment.
pub(super) fn backend(config: &StoreConfig, runtime: &Handle) -> Result<Box<dyn Backend>, Error> {
    opened(config, &|_| None, runtime).map(|opened| opened.backend)
}

fn opened(config: &StoreConfig, environment: Environment<'_>, runtime: &Handle) -> Result<Opened, Error> {
    let opened = check::checked(config, environment).and_then(|kind| {
        let chosen = Chosen::of(config, kind, environment)?;
        (kind.open)(&chosen, runtime)
    });
    opened.map_err(|error| error.of(format!("the store {}", url::shown(&config.url))))
}

/// Returns the environment variables that this store reads: none unless its credentials are `"auto"`.
fn variables_read(config: &StoreConfig) -> &'static [Variable] {
    match StoreKind::of(&config.url) {
        Ok(kind) if config.credentials.is_auto() => kind.environment,
        _ => &[],
    }
}

/// Returns the secrets in the environment variables that this store reads, by the names that `Credentials` uses.
pub(super) fn secrets_of_environment(
    config: &StoreConfig,
    environment: Environment<'_>,
) -> Vec<(String, Secret)> {
    let secrets = variables_read(config).iter().filter(|variable| variable.gives.is_secret());
    let found = secrets.filter_map(|variable| {
        let value = environment(variable.name).filter(|value| !value.is_empty())?;
        Some((variable.gives.name().to_owned(), Secret::new(value.into_encoded_bytes())))
    });
    found.collect()
}

/// Returns the files with secrets that are named by the environment variables that this store reads.
pub(super) fn secret_files_of_environment(
    config: &StoreConfig,
    environment: Environment<'_>,
) -> Vec<PathBuf> {
    let files = variables_read(config).iter().filter(|variable| variable.gives.value() == ValueKind::File);
    // As `read_environment` does: the line end is removed, and an empty variable counts as not set.
    let value = |variable: &Variable| {
        let value = environment(variable.name)?;
        match value.to_str().map(chosen::without_line_end) {
            Some("") => None,
            Some(text) => Some(PathBuf::from(text)),
            None => Some(PathBuf::from(value)),
        }
    };
    files.filter_map(value).collect()
}

/// Disables the libraries' own retries, because this crate retries failed requests.
fn no_retry() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(Kind::Invalid, message)
}

#[cfg(test)]
mod tests;
