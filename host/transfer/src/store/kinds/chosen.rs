//! The settings and credentials of one store, from its configuration and from the environment.

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

/// Returns the environment variables for this kind of store that are set and not empty, with their values.
///
/// # Errors
/// `Invalid` if a variable cannot be used; the message names it.
pub(super) fn read_environment(
    kind: &StoreKind,
    environment: Environment<'_>,
) -> Result<Vec<(&'static Variable, String)>, Error> {
    let mut found = Vec::new();
    for variable in kind.environment {
        let Some(value) = environment(variable.name) else { continue };
        let unusable = |why: &str| invalid(format!("the variable {} {why}", variable.name));
        let value = value.into_string().map_err(|_| unusable("is not text in UTF-8"))?;
        let value = without_line_end(&value);
        // The clouds' own programs also treat an empty variable as not set.
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

/// The settings and credentials of a store.
pub(super) struct Chosen<'c> {
    config: &'c StoreConfig,
    kind: &'static StoreKind,
    values: Vec<ChosenValue>,
}

struct ChosenValue {
    /// The name in the configuration, or in the library if the configuration has none.
    name: &'static str,
    /// The name in the library; `None` if only this crate reads the value.
    library: Option<&'static str>,
    is_secret: bool,
    text: String,
}

impl<'c> Chosen<'c> {
    /// Collects and checks the settings and credentials of a store in which [`mistakes`](super::mistakes) has found nothing wrong.
    ///
    /// # Errors
    /// `Invalid` if a credential is unknown or cannot be used, if the credentials do not belong to one set, or if an environment variable
    /// cannot be used.
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
                .ok_or_else(|| invalid(format!("`{shown}` is not a credential of {}", kind.label)))?;
            if chosen.value(credential.name).is_some() {
                return Err(invalid(format!("the credential `{shown}` is given twice")));
            }
            let value = std::str::from_utf8(secret.expose())
                .map_err(|_| invalid(format!("the credential `{shown}` is not text in UTF-8")))?;
            let value = without_line_end(value);
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
            for (Variable { name, gives }, value) in read_environment(kind, environment)? {
                // Two variables may set the same value; the first one counts.
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

    /// Returns the value of a setting or a credential; `None` if it is not set.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.values.iter().find(|value| value.name == name).map(|value| value.text.as_str())
    }

    /// Returns the store's URL.
    pub(super) fn url(&self) -> &'c str {
        &self.config.url
    }

    /// Returns the bucket that the store's URL names, and the prefix in the bucket.
    pub(super) fn bucket(&self) -> Result<(&'c str, Prefix), Error> {
        url::bucket(self.url())
    }

    /// Returns the other origins to which a web server may redirect, each `HOST:PORT`.
    pub(super) fn redirects(&self) -> &'c [String] {
        &self.config.redirects
    }

    /// Returns the only authorities that are trusted for the store's server, as certificates in PEM; `None` for those that this machine
    /// trusts.
    pub(super) fn authorities(&self) -> Option<&'c str> {
        self.config.authorities.as_deref()
    }

    /// Returns how long to wait for one response.
    pub(super) fn idle(&self) -> Duration {
        self.config.retry.idle
    }

    /// Returns whether the store is read without credentials, so that requests are not signed.
    pub(super) fn is_anonymous(&self) -> bool {
        !self.config.credentials.is_auto() && !self.values.iter().any(|value| value.is_secret)
    }

    /// Makes the connector for the store's host: the one in the operator's `endpoint`, or else the cloud's own `host`.
    pub(super) fn connector(&self, host: String, runtime: &Handle) -> Result<Connector, Error> {
        let named = match self.kind.tls {
            Tls::Unless(address) => self.value(address.name).and_then(|address| Url::parse(address).ok()),
            Tls::Never | Tls::Always => None,
        };
        let host = named.and_then(|url| url.host_str().map(str::to_owned)).unwrap_or(host);
        Connector::new(self.authorities(), host, runtime.clone())
    }

    /// Returns the values that the cloud's library reads, by the names of the library.
    pub(super) fn library_options<K: FromStr<Err = object_store::Error>>(
        &self,
    ) -> Result<Vec<(K, &str)>, Error> {
        let named = self.values.iter().filter_map(|value| Some((value.library?, value.text.as_str())));
        named.map(|(name, text)| Ok((name.parse().map_err(|error| self.failed(&error))?, text))).collect()
    }

    /// Makes the error of a library that cannot use the settings or credentials. Removes secrets from the text of the library.
    pub(super) fn failed(&self, error: &dyn Display) -> Error {
        let text = without_values(&error.to_string());
        let mut secrets = self.values.iter().filter(|value| value.is_secret);
        invalid(match secrets.find(|secret| text.contains(secret.text.as_str())) {
            Some(ChosenValue { name, .. }) => format!("the credential `{name}` cannot be used"),
            None => format!("the settings or credentials of {} cannot be used: {text}", self.kind.label),
        })
    }
}

/// Removes the line end after a value. A secret from a file often has one.
pub(super) fn without_line_end(secret: &str) -> &str {
    secret.trim_end_matches(['\r', '\n'])
}
