//! What was chosen for one store: its settings, its credentials, and what the environment gives it.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use reqwest::Url;
use tokio::runtime::Handle;

use super::{Environment, StoreKind, Tls, Variable, invalid, url, values};
use crate::error::Error;
use crate::store::StoreConfig;
use crate::store::key::Prefix;
use crate::store::quoted::without_values;
use crate::store::transport::Connector;

/// Returns what the environment gives a store of this kind: each variable that is set, and its value.
///
/// # Errors
/// `Invalid` for a variable that cannot be used, by its name.
pub(super) fn found(
    kind: &StoreKind,
    environment: Environment<'_>,
) -> Result<Vec<(&'static Variable, String)>, Error> {
    let mut found = Vec::new();
    for variable in kind.environment {
        let Some(value) = environment(variable.name) else { continue };
        let unusable = |why: &str| invalid(format!("the variable {} {why}", variable.name));
        let value = value.into_string().map_err(|_| unusable("is not text in UTF-8"))?;
        let value = without_end(&value);
        // The clouds' own programs take an empty variable for one that is not set.
        if value.is_empty() {
            continue;
        }
        if let Some(why) = values::wrong(variable.gives.value(), value) {
            return Err(unusable(&why));
        }
        found.push((variable, value.to_owned()));
    }
    Ok(found)
}

/// What was chosen for a store.
pub(super) struct Chosen<'c> {
    config: &'c StoreConfig,
    kind: &'static StoreKind,
    values: Vec<ChosenValue>,
}

struct ChosenValue {
    /// The name in the configuration, or the library's where the configuration has none.
    name: &'static str,
    library: Option<&'static str>,
    is_secret: bool,
    text: String,
}

impl<'c> Chosen<'c> {
    /// Reads the credentials of a store that [`mistakes`](super::mistakes) has found nothing wrong with.
    ///
    /// # Errors
    /// `Invalid` for a credential that is not known or cannot be used, for credentials that do not belong together, and for a variable
    /// that cannot be used.
    pub(super) fn of(
        config: &'c StoreConfig,
        kind: &'static StoreKind,
        environment: Environment<'_>,
    ) -> Result<Self, Error> {
        let mut chosen = Self { config, kind, values: Vec::new() };
        for (name, value) in &config.options {
            if let Some(setting) = kind.settings.iter().find(|setting| setting.name == name) {
                chosen.add(setting.name, setting.library, false, value.clone());
            }
        }
        for (name, secret) in config.credentials.given() {
            let shown = name.escape_debug();
            let credential = kind
                .all_credentials()
                .find(|credential| credential.name == name)
                .ok_or_else(|| invalid(format!("`{shown}` is no credential of {}", kind.called)))?;
            if chosen.value(credential.name).is_some() {
                return Err(invalid(format!("the credential `{shown}` is given twice")));
            }
            let value = std::str::from_utf8(secret.expose())
                .map_err(|_| invalid(format!("the credential `{shown}` is not text in UTF-8")))?;
            let value = without_end(value);
            if let Some(why) = values::wrong(credential.value, value) {
                return Err(invalid(format!("the credential `{shown}` {why}")));
            }
            chosen.add(credential.name, credential.library, true, value.to_owned());
        }
        let names: Vec<&str> = config.credentials.given().iter().map(|(name, _)| name.as_str()).collect();
        let is_set = |name: &str| config.options.iter().any(|(set, _)| set == name);
        if let Some(why) = kind.wrong_credentials(&names, &is_set) {
            return Err(invalid(format!("its `credentials` {why}")));
        }
        if config.credentials.is_auto() {
            for (Variable { name, gives }, value) in found(kind, environment)? {
                // Two variables may name one thing, of which the first counts.
                if chosen.value(gives.name()).is_some() {
                    continue;
                }
                if let Some(why) = values::unreadable(gives.value(), &value) {
                    return Err(invalid(format!("the variable {name} {why}")));
                }
                chosen.add(gives.name(), gives.library(), gives.is_secret(), value);
            }
        }
        Ok(chosen)
    }

    fn add(&mut self, name: &'static str, library: Option<&'static str>, is_secret: bool, text: String) {
        self.values.push(ChosenValue { name, library, is_secret, text });
    }

    /// The value of a setting or a credential.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.values.iter().find(|value| value.name == name).map(|value| value.text.as_str())
    }

    /// The store's URL.
    pub(super) fn url(&self) -> &'c str {
        &self.config.url
    }

    /// The bucket that its URL names, and the prefix in it.
    pub(super) fn bucket(&self) -> Result<(&'c str, Prefix), Error> {
        url::bucket(self.url())
    }

    /// Where a web server may redirect to besides itself.
    pub(super) fn redirects(&self) -> &'c [String] {
        &self.config.redirects
    }

    /// Who vouches for its server, as certificates in PEM; `None` if the authorities do that this machine trusts.
    pub(super) fn authorities(&self) -> Option<&'c str> {
        self.config.authorities.as_deref()
    }

    /// How long one answer is awaited.
    pub(super) fn idle(&self) -> Duration {
        self.config.retry.idle
    }

    /// Whether nobody in particular reads it: requests are not signed.
    pub(super) fn is_anonymous(&self) -> bool {
        !self.config.credentials.is_auto() && !self.values.iter().any(|value| value.is_secret)
    }

    /// What speaks to the store at the address that the operator names, or else at the cloud's own `host`.
    pub(super) fn connector(&self, host: String, runtime: &Handle) -> Result<Connector, Error> {
        let named = match self.kind.tls {
            Tls::Unless(address) => self.value(address.name).and_then(|address| Url::parse(address).ok()),
            Tls::Never | Tls::Always => None,
        };
        let host = named.and_then(|url| url.host_str().map(str::to_owned)).unwrap_or(host);
        Connector::new(self.authorities(), host, runtime.clone())
    }

    /// Everything that the cloud's library reads, by its own names.
    pub(super) fn of_the_library<K: FromStr<Err = object_store::Error>>(
        &self,
    ) -> Result<Vec<(K, &str)>, Error> {
        let named = self.values.iter().filter_map(|value| Some((value.library?, value.text.as_str())));
        named.map(|(name, text)| Ok((name.parse().map_err(|error| self.failed(&error))?, text))).collect()
    }

    /// The error of a library that cannot use what was chosen, without the secrets that it may hold.
    pub(super) fn failed(&self, error: &dyn Display) -> Error {
        let text = without_values(&error.to_string());
        let mut secrets = self.values.iter().filter(|value| value.is_secret);
        invalid(match secrets.find(|secret| text.contains(secret.text.as_str())) {
            Some(ChosenValue { name, .. }) => format!("the credential `{name}` cannot be used"),
            None => format!("the settings or credentials of {} cannot be used: {text}", self.kind.called),
        })
    }
}

/// A secret without the end of its line: one that was read from a file often has it.
fn without_end(secret: &str) -> &str {
    secret.trim_end_matches(['\r', '\n'])
}
