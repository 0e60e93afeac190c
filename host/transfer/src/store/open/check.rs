//! What is wrong with a store as it is configured, as far as nobody must be asked: told where the configuration is read, and not
//! when a method first asks the store.

use std::ffi::OsString;

use reqwest::Url;

use super::options::{AZURE, FILE, GOOGLE, Known, S3, WEB};
use super::{StoreConfig, bucket, check_url, directory, provider_chain, values};

/// One thing that is wrong with a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// `url`, `credentials`, or the option by the name that [`StoreConfig::options`] has.
    pub option: String,
    /// What is wrong with it, to be put behind the name of the setting. Has no secret in it.
    pub message: String,
}

impl Mistake {
    fn new(option: &str, message: impl Into<String>) -> Self {
        Self { option: option.to_owned(), message: message.into() }
    }
}

/// Everything that is wrong; credentials that stand in files are looked at where the store is opened.
pub(in crate::store) fn mistakes(
    config: &StoreConfig,
    environment: &dyn Fn(&str) -> Option<OsString>,
) -> Vec<Mistake> {
    let (scheme, rest) = config.url.split_once("://").unwrap_or_default();
    let mut mistakes: Vec<Mistake> =
        wrong_url(scheme, rest, &config.url).map(|why| Mistake::new("url", why)).into_iter().collect();
    let wrong = |(name, value): &(String, String)| {
        Some(Mistake::new(name, values::wrong(known(scheme)?.canonical(name)?, value)?))
    };
    mistakes.extend(config.options.iter().filter_map(wrong));
    if scheme == "az" && value(config, "account_name").is_none() {
        mistakes.push(Mistake::new(
            "account_name",
            "is missing: write account = \"NAME\", the storage account that the container is in",
        ));
    }
    if mistakes.is_empty() {
        mistakes.extend(wrong_way(config));
    }
    if let Some(Err(error)) = provider_chain(config).map(|known| known.found(environment)) {
        mistakes.push(Mistake::new("credentials", format!("asks the environment: {}", error.message)));
    }
    mistakes
}

fn known(scheme: &str) -> Option<&'static Known> {
    match scheme {
        "file" => Some(&FILE),
        "s3" => Some(&S3),
        "gs" => Some(&GOOGLE),
        "az" => Some(&AZURE),
        "http" | "https" => Some(&WEB),
        _ => None,
    }
}

fn value<'c>(config: &'c StoreConfig, name: &str) -> Option<&'c str> {
    config.options.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
}

fn wrong_url(scheme: &str, rest: &str, url: &str) -> Option<String> {
    let checked = match scheme {
        "file" => directory(url).map(drop),
        "s3" | "gs" | "az" => bucket(rest).map(drop),
        _ => match Url::parse(url) {
            Ok(url) => check_url(&url),
            Err(error) => return Some(format!("is no URL: {error}")),
        },
    };
    checked.err().map(|error| format!("cannot be used: {}", error.message))
}

/// Plain http must be said, and must be meant.
fn wrong_way(config: &StoreConfig) -> Option<Mistake> {
    let (option, address) =
        ["endpoint", "base_url"].into_iter().find_map(|name| Some((name, value(config, name)?))).unzip();
    let plain = address.is_some_and(|address| Url::parse(address).is_ok_and(|url| url.scheme() == "http"));
    match (option, value(config, "allow_http") == Some("true")) {
        (Some(option), false) if plain => Some(Mistake::new(
            option,
            "is http without TLS, which everybody on the way can read: write https://, or allow_http = true beside it",
        )),
        (_, true) if !plain => Some(Mistake::new(
            "allow_http",
            "does nothing without an `endpoint` that begins with http://: take the line out",
        )),
        _ => None,
    }
}
