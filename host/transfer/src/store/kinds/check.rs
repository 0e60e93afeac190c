//! What is wrong with a store as it is configured, as far as nobody must be asked: told where the configuration is read, and not
//! when a method first asks the store.

use foundation::nearest::nearest;
use reqwest::Url;

use super::{Environment, Setting, StoreKind, Tls, Unset, chosen, invalid, url, values};
use crate::error::Error;
use crate::store::StoreConfig;

/// One thing that is wrong with a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The setting, by its name in the configuration.
    pub setting: String,
    /// What is wrong with it, to be put behind the name of the setting. Has no secret in it.
    pub message: String,
}

impl Mistake {
    fn new(setting: &str, message: impl Into<String>) -> Self {
        Self { setting: setting.to_owned(), message: message.into() }
    }
}

/// The kind of a store that nothing is wrong with.
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

/// Everything that is wrong; credentials are looked at where the store is opened, for they may stand in files.
pub(in crate::store) fn mistakes(config: &StoreConfig, environment: Environment<'_>) -> Vec<Mistake> {
    let kind = match StoreKind::of(&config.url) {
        Ok(kind) => kind,
        Err(why) => return vec![Mistake::new("url", why)],
    };
    let mut mistakes: Vec<Mistake> =
        url::wrong(kind, &config.url).map(|why| Mistake::new("url", why)).into_iter().collect();
    for (index, (name, value)) in config.options.iter().enumerate() {
        let wrong = match kind.settings.iter().find(|setting| setting.name == name) {
            None => Some(unknown(kind, name)),
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
        mistakes.push(Mistake::new("redirects", format!("is nothing that {} has", kind.called)));
    }
    if mistakes.is_empty() {
        mistakes.extend(wrong_way(kind, config));
    }
    if config.credentials.is_auto() {
        let wrong = match kind.has_auto() {
            true => chosen::found(kind, environment)
                .err()
                .map(|error| format!("asks the environment: {}", error.message)),
            false => Some(format!("asks the environment, which says nothing to {}", kind.called)),
        };
        mistakes.extend(wrong.map(|why| Mistake::new("credentials", why)));
    }
    mistakes
}

fn unknown(kind: &StoreKind, name: &str) -> String {
    let names = || kind.settings.iter().map(|setting| setting.name);
    if matches!(&kind.settings, []) {
        return format!("is no setting of {}, which has none of its own", kind.called);
    }
    let hint = match nearest(name, names()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("there are {}", names().collect::<Vec<_>>().join(", ")),
    };
    format!("is no setting of {}, or does nothing there; {hint}", kind.called)
}

fn value<'c>(config: &'c StoreConfig, setting: &Setting) -> Option<&'c str> {
    config.options.iter().find(|(name, _)| name == setting.name).map(|(_, value)| value.as_str())
}

/// Whether this store is reached by TLS. `false` also for a URL that names no kind of store.
pub(in crate::store) fn speaks_tls(config: &StoreConfig) -> bool {
    StoreKind::of(&config.url).is_ok_and(|kind| match kind.tls {
        Tls::Never => false,
        Tls::Always => true,
        Tls::Unless(address) => !is_plain(config, address),
    })
}

fn is_plain(config: &StoreConfig, address: &Setting) -> bool {
    value(config, address).is_some_and(|address| Url::parse(address).is_ok_and(|url| url.scheme() == "http"))
}

/// Plain http must be said, and must be meant; and nobody is asked who vouches for a server where no TLS is spoken.
fn wrong_way(kind: &StoreKind, config: &StoreConfig) -> Option<Mistake> {
    if let Tls::Unless(address) = kind.tls {
        let is_allowed = value(config, &super::ALLOW_HTTP) == Some("true");
        match (is_plain(config, address), is_allowed) {
            (true, false) => {
                return Some(Mistake::new(
                    address.name,
                    "is http without TLS, which everybody on the way can read: write https://, or allow_http = true beside it",
                ));
            }
            (false, true) => {
                return Some(Mistake::new(
                    super::ALLOW_HTTP.name,
                    "does nothing without an `endpoint` that begins with http://: take the line out",
                ));
            }
            (true, true) | (false, false) => {}
        }
    }
    let is_vouched_for = config.authorities.is_some() && !speaks_tls(config);
    is_vouched_for.then(|| Mistake::new("ca_file", "does nothing without TLS: the address is http://"))
}
