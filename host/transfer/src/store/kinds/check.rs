//! Finds mistakes in the configuration of a store without a request. They are reported when the configuration is read, and not only
//! when a method first uses the store.

use foundation::nearest::nearest;
use reqwest::Url;

use super::{Environment, Setting, StoreKind, Tls, Unset, chosen, invalid, url, values};
use crate::error::Error;
use crate::store::StoreConfig;

/// A mistake in the configuration of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The setting, by its name in the configuration.
    pub setting: String,
    /// What is wrong with it, to be put after the name of the setting. Contains no secret.
    pub message: String,
}

impl Mistake {
    fn new(setting: &str, message: impl Into<String>) -> Self {
        Self { setting: setting.to_owned(), message: message.into() }
    }
}

/// Returns the kind of a store, if nothing is wrong with its configuration.
///
/// # Errors
/// `Invalid` with the first mistake.
pub(super) fn checked(
    config: &StoreConfig,
    environment: Environment<'_>,
) -> Result<&'static StoreKind, Error> {
    if let Some(Mistake { setting, message }) = mistakes(config, environment).into_iter().next() {
        return Err(invalid(format!("`{}` {message}", setting.escape_debug())));
    }
    StoreKind::of(&config.url).map_err(invalid)
}

/// Returns all mistakes. Does not check the credentials, which may be in files: [`Chosen::of`](chosen::Chosen::of) checks them.
pub(in crate::store) fn mistakes(config: &StoreConfig, environment: Environment<'_>) -> Vec<Mistake> {
    let kind = match StoreKind::of(&config.url) {
        Ok(kind) => kind,
        Err(why) => return vec![Mistake::new("url", why)],
    };
    let mut mistakes: Vec<Mistake> =
        url::wrong(kind, &config.url).map(|why| Mistake::new("url", why)).into_iter().collect();
    for (index, (name, value)) in config.options.iter().enumerate() {
        let wrong = match kind.settings.iter().find(|setting| setting.name == name) {
            None => Some(unknown_setting(kind, name)),
            Some(_) if config.options[..index].iter().any(|(before, _)| before == name) => {
                Some("is given twice".to_owned())
            }
            Some(setting) => values::wrong(setting.value, value),
        };
        mistakes.extend(wrong.map(|why| Mistake::new(name, why)));
    }
    for setting in kind.settings {
        if let Unset::Missing(what_to_write) = setting.unset
            && value(config, setting).is_none()
        {
            mistakes.push(Mistake::new(setting.name, format!("is missing: {what_to_write}")));
        }
    }
    if !kind.redirects && !config.redirects.is_empty() {
        mistakes.push(Mistake::new("redirects", format!("is not supported by {}", kind.label)));
    }
    if mistakes.is_empty() {
        mistakes.extend(tls_mistake(kind, config));
    }
    if config.credentials.is_auto() {
        let wrong = match kind.has_auto() {
            true => chosen::read_environment(kind, environment)
                .err()
                .map(|error| format!("asks the environment: {}", error.message)),
            false => Some(format!("asks the environment, from which {} takes no credentials", kind.label)),
        };
        mistakes.extend(wrong.map(|why| Mistake::new("credentials", why)));
    }
    mistakes
}

fn unknown_setting(kind: &StoreKind, name: &str) -> String {
    let names = || kind.settings.iter().map(|setting| setting.name);
    if matches!(&kind.settings, []) {
        return format!("is not a setting of {}, which has no settings of its own", kind.label);
    }
    let hint = match nearest(name, names()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("the settings are {}", names().collect::<Vec<_>>().join(", ")),
    };
    format!("is not a setting of {}, or does nothing there; {hint}", kind.label)
}

fn value<'c>(config: &'c StoreConfig, setting: &Setting) -> Option<&'c str> {
    config.options.iter().find(|(name, _)| name == setting.name).map(|(_, value)| value.as_str())
}

/// Returns whether this store is reached by TLS; `false` also for a URL of an unknown kind.
pub(in crate::store) fn speaks_tls(config: &StoreConfig) -> bool {
    StoreKind::of(&config.url).is_ok_and(|kind| match kind.tls {
        Tls::Never => false,
        Tls::Always => true,
        Tls::Unless(address) => !is_plain_http(config, address),
    })
}

/// Returns whether this setting is an address that begins with `http://`.
fn is_plain_http(config: &StoreConfig, address: &Setting) -> bool {
    value(config, address).is_some_and(|address| Url::parse(address).is_ok_and(|url| url.scheme() == "http"))
}

/// Returns the mistake in settings about TLS: an `http://` address without `allow_http`, `allow_http` without such an address, or
/// `ca_file` without TLS.
fn tls_mistake(kind: &StoreKind, config: &StoreConfig) -> Option<Mistake> {
    if let Tls::Unless(address) = kind.tls {
        let is_allowed = value(config, &super::ALLOW_HTTP) == Some("true");
        match (is_plain_http(config, address), is_allowed) {
            (true, false) => {
                return Some(Mistake::new(
                    address.name,
                    "is http without TLS, so everybody on the network path can read the data: write https://, or set allow_http = true",
                ));
            }
            (false, true) => {
                return Some(Mistake::new(
                    super::ALLOW_HTTP.name,
                    "does nothing without an `endpoint` that begins with http://: remove the line",
                ));
            }
            (true, true) | (false, false) => {}
        }
    }
    let is_without_effect = config.authorities.is_some() && !speaks_tls(config);
    is_without_effect.then(|| Mistake::new("ca_file", "does nothing without TLS: the address is http://"))
}
