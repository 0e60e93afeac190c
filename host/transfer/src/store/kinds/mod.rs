//! The kinds of stores. What is known of a kind stands in its own module, in one [`StoreKind`]: how an operator configures it, what
//! it takes from the environment, and how it is opened. The configuration reads a store by this table, and the tables of the manual
//! are made from it.

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
    /// What stands before the `://` of its URL.
    pub scheme: &'static str,
    /// A URL of this kind.
    pub example: &'static str,
    /// What it is called in messages.
    called: &'static str,
    /// What its URL names.
    place: Place,
    /// The settings that not every kind has.
    pub settings: &'static [Setting],
    /// The credentials that it takes: those of one set, never of two.
    pub credentials: &'static [CredentialSet],
    /// What is said of credentials of two sets, put behind `credentials`. Empty if there are no two.
    several: &'static str,
    /// What `credentials = "auto"` takes from the environment. Empty if there is nobody to ask.
    pub environment: &'static [Variable],
    /// Whether it is reached by TLS.
    pub tls: Tls,
    /// Whether redirects to other servers can be granted.
    pub redirects: bool,
    /// Makes its backend of settings and credentials that [`mistakes`] has found nothing wrong with.
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
    /// Its name in the cloud's library. `None` if this crate itself reads it.
    library: Option<&'static str>,
    /// What its value may be.
    pub value: ValueKind,
    /// What holds if it is not set.
    pub unset: Unset,
    /// What it means, for the manual.
    pub doc: &'static str,
}

/// What holds if a setting is not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unset {
    /// Nothing: it is required. The text says what to write.
    Missing(&'static str),
    /// This, in the words of the manual.
    Default(&'static str),
}

/// A credential of a kind of store.
#[derive(Debug)]
pub struct Credential {
    /// Its name in the configuration.
    pub name: &'static str,
    /// Its name in the cloud's library. `None` if this crate itself reads it.
    library: Option<&'static str>,
    /// What its value may be.
    pub value: ValueKind,
    /// Whether the others of its set make sense without it.
    pub optional: bool,
}

/// Credentials that belong together. Those of one set exclude those of every other.
#[derive(Debug)]
pub struct CredentialSet {
    /// The credentials.
    pub credentials: &'static [Credential],
    /// The settings that are required with them.
    pub needs: &'static [&'static Setting],
}

/// A variable of the environment that `credentials = "auto"` takes.
#[derive(Debug)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// What it says.
    pub gives: Gives,
}

/// What a variable of the environment says.
#[derive(Debug)]
pub enum Gives {
    /// A setting, which counts before it where it is set in the configuration.
    Setting(&'static Setting),
    /// A credential.
    Credential(&'static Credential),
    /// How the cloud's library comes to credentials.
    Chain {
        /// The library's own name.
        library: &'static str,
        /// What its value may be.
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

/// Whether the address of a cloud may begin with `http://`.
const ALLOW_HTTP: Setting = Setting {
    name: "allow_http",
    library: None,
    value: ValueKind::Flag,
    unset: Unset::Default("`false`"),
    doc: "allow an `endpoint` with `http://`",
};

/// The address of a cloud, by the library's name for it.
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
    /// The kind of store that a URL names.
    ///
    /// # Errors
    /// What is wrong with the URL, to be put behind the name of its setting.
    pub fn of(url: &str) -> Result<&'static Self, String> {
        let Some((scheme, _)) = url.split_once("://") else {
            let example = match url.starts_with('/') {
                true => "a directory is written with `file://` before it, such as \"file:///mnt/backups\"",
                false => "write such as \"s3://bucket/prefix\" or \"file:///mnt/backups\"",
            };
            return Err(format!("is no address of a store: {example}"));
        };
        Self::with_scheme(scheme).ok_or_else(|| {
            let schemes = KINDS.map(|kind| kind.scheme);
            let hint = match nearest(scheme, schemes) {
                Some(near) => format!("did you mean `{near}://`?"),
                None => format!("known are {}", schemes.join(", ")),
            };
            format!("names a kind of store that does not exist: {hint}")
        })
    }

    fn with_scheme(scheme: &str) -> Option<&'static Self> {
        KINDS.into_iter().find(|kind| kind.scheme == scheme)
    }

    /// Whether `credentials = "auto"` has somebody to ask.
    pub fn has_auto(&self) -> bool {
        !self.environment.is_empty()
    }

    /// All credentials that it takes, of whichever set.
    pub fn all_credentials(&self) -> impl Iterator<Item = &'static Credential> {
        self.credentials.iter().flat_map(|set| set.credentials)
    }

    /// How its credentials are written in the configuration.
    pub fn form(&self) -> String {
        let auto = if self.has_auto() { " or credentials = \"auto\"" } else { "" };
        match self.all_credentials().next() {
            Some(Credential { name, .. }) => {
                format!(
                    "write credentials = {{ {name} = {{ file = \"/path\" }} }} with `file` or `env`{auto}"
                )
            }
            None => "leave them out".to_owned(),
        }
    }

    /// Says what is wrong with credentials of these names, to be put behind the name of their setting; `None` if they belong
    /// together and nothing that they need is missing among the settings.
    pub fn wrong_credentials(&self, names: &[&str], is_set: &dyn Fn(&str) -> bool) -> Option<String> {
        let has = |credential: &Credential| names.contains(&credential.name);
        let mut sets = self.credentials.iter().filter(|set| set.credentials.iter().any(has));
        let set = sets.next()?;
        if sets.next().is_some() {
            return Some(self.several.to_owned());
        }
        if let Some(missing) =
            set.credentials.iter().find(|credential| !credential.optional && !has(credential))
        {
            return Some(format!("lack `{}`", missing.name));
        }
        let missing = set.needs.iter().find(|setting| !is_set(setting.name))?;
        let first = set.credentials.first()?;
        Some(format!("with a `{}` need `{}` beside them", first.name, missing.name))
    }
}

impl Gives {
    /// By which name it is chosen: the configuration's, or else the library's.
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

    /// What its value may be.
    pub fn value(&self) -> ValueKind {
        match self {
            Self::Setting(setting) => setting.value,
            Self::Credential(credential) => credential.value,
            Self::Chain { value, .. } => *value,
        }
    }

    /// Whether its value is secret.
    pub fn is_secret(&self) -> bool {
        matches!(self, Self::Credential(_))
    }
}

/// What a kind of store makes of its configuration.
struct Opened {
    prefix: Prefix,
    backend: Box<dyn Backend>,
}

/// How the environment is asked.
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

/// The backend alone, as for other credentials than those that the store was opened with.
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

/// What the environment says to a store that asks it.
fn asked(config: &StoreConfig) -> &'static [Variable] {
    match StoreKind::of(&config.url) {
        Ok(kind) if config.credentials.is_auto() => kind.environment,
        _ => &[],
    }
}

/// Returns the secrets that a store finds in the environment if it asks there.
pub(super) fn secrets_of_environment(
    config: &StoreConfig,
    environment: Environment<'_>,
) -> Vec<(String, Secret)> {
    let secrets = asked(config).iter().filter(|variable| variable.gives.is_secret());
    let found = secrets.filter_map(|variable| {
        let value = environment(variable.name).filter(|value| !value.is_empty())?;
        Some((variable.gives.name().to_owned(), Secret::new(value.into_encoded_bytes())))
    });
    found.collect()
}

/// Returns the files with secrets to which the environment leads a store that asks there.
pub(super) fn secret_files_of_environment(
    config: &StoreConfig,
    environment: Environment<'_>,
) -> Vec<PathBuf> {
    let files = asked(config).iter().filter(|variable| variable.gives.value() == ValueKind::File);
    files.filter_map(|variable| environment(variable.name)).map(PathBuf::from).collect()
}

/// The libraries' own retries are off: what fails is tried again by this crate alone.
fn no_retry() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(Kind::Invalid, message)
}

#[cfg(test)]
mod tests;
