//! From what the operator wrote to an opened store: which kind it is, which options and credentials that kind knows.

mod check;
mod options;
mod values;

use foundation::nearest::nearest;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GcpCredential, GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::{RetryConfig, StaticCredentialProvider};
use reqwest::Url;
use reqwest::header::HeaderValue;
use tokio::runtime::Handle;

use super::access::Access;
use super::cloud::Cloud;
use super::directory::Directory;
use super::http::{Origin, Web, redirects};
use super::key::Prefix;
use super::proxy::Proxies;
use super::transport::{Connector, TrustRoots, client};
use super::{Backend, Store, StoreConfig};
use crate::error::{Error, Kind};
pub use check::Mistake;
pub(super) use check::mistakes;
use foundation::secret::Secret;
pub(in crate::store) use options::basic;
use options::{AZURE, Chosen, FILE, GOOGLE, Known, S3, WEB};

/// The kinds of stores, by the scheme of their URL.
const SCHEMES: [&str; 6] = ["file", "s3", "gs", "az", "http", "https"];

/// Opens the store that is configured.
pub(super) fn open(config: &StoreConfig, runtime: &Handle) -> Result<Store, Error> {
    let Opened { name, prefix, backend } = opened(config, runtime)?;
    let access = Access::of(backend.into(), config, runtime)?;
    Ok(Store::assemble(name, prefix, access, config.concurrency, config.retry))
}

/// Returns the secrets that a store finds in the environment if it asks the provider chain.
pub(super) fn secrets_of_environment(
    config: &StoreConfig,
    environment: &dyn Fn(&str) -> Option<OsString>,
) -> Vec<(String, Secret)> {
    provider_chain(config).map(|known| known.secrets_of(environment)).unwrap_or_default()
}

/// Returns the files with secrets to which the environment leads a store that asks the provider chain.
pub(super) fn secret_files_of_environment(
    config: &StoreConfig,
    environment: &dyn Fn(&str) -> Option<OsString>,
) -> Vec<PathBuf> {
    provider_chain(config).map(|known| known.files_of(environment)).unwrap_or_default()
}

/// The environment of this program.
fn of_the_program(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// What the kind of a store knows of its provider chain; `None` if it does not ask one.
fn provider_chain(config: &StoreConfig) -> Option<&'static Known> {
    match config.url.split_once("://") {
        _ if !config.provider_chain => None,
        Some(("s3", _)) => Some(&S3),
        Some(("gs", _)) => Some(&GOOGLE),
        Some(("az", _)) => Some(&AZURE),
        Some(_) | None => None,
    }
}

/// The backend alone, as for other credentials than those that the store was opened with.
pub(super) fn backend(config: &StoreConfig, runtime: &Handle) -> Result<Box<dyn Backend>, Error> {
    opened(config, runtime).map(|opened| opened.backend)
}

fn opened(config: &StoreConfig, runtime: &Handle) -> Result<Opened, Error> {
    let (scheme, rest) = config.url.split_once("://").ok_or_else(|| {
        invalid("a store's URL begins with its kind: file://, s3://, gs://, az://, http:// or https://")
    })?;
    if !config.redirects.is_empty() && !matches!(scheme, "http" | "https") {
        return Err(invalid(format!("`redirects` is nothing that a `{}:` store has", scheme.escape_debug())));
    }
    let opened = match scheme {
        _ if has_credentials(&config.url) => Err(invalid(
            "its URL has credentials in it, or a `:` or `@` that could be theirs: they have a place of their own, the server of a \
             bucket is named by `endpoint`, and an `@` behind a port is written `%40`",
        )),
        "file" => file(config),
        "s3" => bucket(rest).and_then(|bucket| s3(config, bucket, runtime)),
        "gs" => bucket(rest).and_then(|bucket| google(config, bucket, runtime)),
        "az" => bucket(rest).and_then(|bucket| azure(config, bucket, runtime)),
        "http" | "https" => web(config, runtime),
        unknown => {
            let hint = match nearest(unknown, SCHEMES) {
                Some(near) => format!("did you mean `{near}://`?"),
                None => format!("there are {}", SCHEMES.map(|scheme| format!("`{scheme}://`")).join(", ")),
            };
            Err(invalid(format!("`{}://` is no kind of store; {hint}", unknown.escape_debug())))
        }
    };
    let opened = opened.map_err(|error| error.of(format!("the store {}", shown(&config.url))))?;
    if config.concurrency == 0 {
        return Err(invalid(
            "a store with no request at once could not be read: `concurrency` must be 1 or more",
        ));
    }
    Ok(opened)
}

/// What a kind of store makes of its configuration.
struct Opened {
    name: String,
    prefix: Prefix,
    backend: Box<dyn Backend>,
}

/// A URL's scheme, what stands where its host or bucket belongs, and its path.
fn parts(url: &str) -> (&str, &str, &str) {
    let end = url.find(['?', '#']).unwrap_or(url.len());
    let (scheme, rest) = url[..end].split_once("://").unwrap_or(("", &url[..end]));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    (scheme, authority, path)
}

/// Whether something is a host and perhaps a port, or a bucket. Of a URL with a password that has a `/` in it, `USER:PASS` seems
/// to be the host: what follows a `:` and is no number is taken for a password.
fn is_host(authority: &str) -> bool {
    // An IPv6 address has colons in its brackets.
    let bracketed = authority.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let rest = bracketed.map_or(authority, |(_, rest)| rest);
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    !rest.contains('@') && rest.split_once(':').is_none_or(|(_, port)| is_port(port))
}

/// Whether a URL has a user or a password where its host or bucket belongs, or what could be one. Only an address of the web
/// has a port, and what stands between that and an `@` may be the rest of a password.
pub(super) fn has_credentials(url: &str) -> bool {
    let (scheme, authority, path) = parts(url);
    let has_colon = authority.rsplit(']').next().is_some_and(|rest| rest.contains(':'));
    let is_web = matches!(scheme, "http" | "https");
    !is_host(authority) || (has_colon && (!is_web || path.contains('@')))
}

/// A URL without what may be secret in it.
fn shown(url: &str) -> String {
    let (scheme, authority, path) = parts(url);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if has_credentials(&format!("{scheme}://{host}{path}")) {
        return format!("{scheme}://");
    }
    format!("{scheme}://{}", format!("{host}{path}").escape_debug())
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(Kind::Invalid, message)
}

/// A bucket's name and the prefix in it, both as they are written.
fn bucket(rest: &str) -> Result<(&str, Prefix), Error> {
    if rest.contains(['?', '#']) {
        return Err(invalid(
            "its URL has a query or a fragment; options and credentials have places of their own",
        ));
    }
    let (bucket, path) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty()
        || bucket.contains(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_' | '.' | '$'))
    {
        return Err(invalid(format!(
            "`{}` is no name of a bucket: a URL is KIND://BUCKET/PREFIX",
            bucket.escape_debug()
        )));
    }
    Ok((bucket, Prefix::of_path(path)?))
}

/// An address that the operator names; plain http only where he says so.
fn endpoint(chosen: &Chosen, option: &str) -> Result<(), Error> {
    let allowed = match chosen.value("allow_http") {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => {
            return Err(invalid(format!("the option `allow_http` is true or false, not `{other}`")));
        }
    };
    let plain = match chosen.value(option) {
        // The cloud itself, which speaks TLS alone.
        None => false,
        Some(address) => {
            let url = Url::parse(address)
                .map_err(|error| invalid(format!("the option `{option}` is no URL: {error}")))?;
            check_url(&url).map_err(|error| error.of(format!("the option `{option}`")))?;
            url.scheme() == "http"
        }
    };
    authority(chosen, plain)?;
    match (plain, allowed) {
        (true, false) => Err(invalid(format!(
            "the option `{option}` is http without TLS, which everybody on the way can read; `allow_http = \"true\"` allows it"
        ))),
        (false, true) => Err(invalid(format!(
            "the option `allow_http` does nothing without an `{option}` that begins with http://"
        ))),
        _ => Ok(()),
    }
}

/// Who vouches for a server is only asked where TLS is spoken.
fn authority(chosen: &Chosen, plain: bool) -> Result<(), Error> {
    if plain && chosen.value("ca_certificate").is_some() {
        return Err(invalid("`ca_file` does nothing without TLS: the address is http://"));
    }
    Ok(())
}

/// Refuses a URL that has more in it than an address.
fn check_url(url: &Url) -> Result<(), Error> {
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(invalid("is no address of a server: it begins with https:// or http:// and has a host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid("has credentials in it; they have a place of their own"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(invalid("has a query or a fragment; options and credentials have places of their own"));
    }
    Ok(())
}

/// The directory that a `file:` URL names.
///
/// # Errors
/// `Invalid` for a URL that names none.
pub(super) fn directory(url: &str) -> Result<PathBuf, Error> {
    let url = Url::parse(url).map_err(|error| invalid(error.to_string()))?;
    match url.to_file_path() {
        Ok(path) if url.query().is_none() && url.fragment().is_none() => Ok(path),
        _ => Err(invalid(
            "is no absolute path: a directory is file:///DIRECTORY, with %3F for ? and %23 for #",
        )),
    }
}

fn file(config: &StoreConfig) -> Result<Opened, Error> {
    Chosen::of(config, &FILE, &of_the_program)?;
    let path = directory(&config.url)?;
    let backend = Directory::open(&path)?;
    Ok(Opened { name: shown(&config.url), prefix: Prefix::default(), backend: Box::new(backend) })
}

fn web(config: &StoreConfig, runtime: &Handle) -> Result<Opened, Error> {
    let chosen = Chosen::of(config, &WEB, &of_the_program)?;
    let mut base = Url::parse(&config.url).map_err(|error| invalid(error.to_string()))?;
    check_url(&base)?;
    authority(&chosen, base.scheme() == "http")?;
    if !base.path().ends_with('/') {
        let path = format!("{}/", base.path());
        base.set_path(&path);
    }
    let authorization = match (chosen.value("username"), chosen.value("password"), chosen.value("token")) {
        (None, None, None) => None,
        (Some(user), Some(password), None) => Some(basic(user, password)),
        (None, None, Some(token)) => Some(format!("Bearer {token}")),
        _ => {
            return Err(invalid(
                "the credentials of a web server are `username` and `password`, or `token` alone",
            ));
        }
    };
    let authorization = authorization
        .map(|value| {
            let mut value = HeaderValue::from_str(&value)
                .map_err(|_| invalid("a credential has a character that no header can have"))?;
            value.set_sensitive(true);
            Ok::<_, Error>(value)
        })
        .transpose()?;
    let granted = config.redirects.iter().map(|place| {
        Origin::parse(place)
            .ok_or_else(|| invalid(format!("`{}` in `redirects` is no HOST:PORT", place.escape_debug())))
    });
    let granted = granted.collect::<Result<Vec<_>, Error>>()?;
    let settings = chosen.settings();
    let trust_roots = if settings.ca_certificate.is_some() { TrustRoots::CaFile } else { TrustRoots::System };
    let backend = Web {
        client: client(&settings, redirects(granted))?,
        runtime: runtime.clone(),
        base,
        authorization,
        trust_roots,
        proxies: Proxies::of(&settings),
        idle: config.retry.idle,
    };
    Ok(Opened { name: shown(&config.url), prefix: Prefix::default(), backend: Box::new(backend) })
}

/// The libraries' own retries are off: what fails is tried again by this crate alone.
fn no_retry() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

/// What speaks to the store at the address that the operator names as this option, or else at the cloud's own `host`.
fn connector(chosen: &Chosen, option: &str, host: String, runtime: &Handle) -> Result<Connector, Error> {
    let named = chosen.value(option).and_then(|address| Url::parse(address).ok());
    let host = named.and_then(|url| url.host_str().map(str::to_owned)).unwrap_or(host);
    Connector::new(&chosen.settings(), host, runtime.clone())
}

fn s3(config: &StoreConfig, (bucket, prefix): (&str, Prefix), runtime: &Handle) -> Result<Opened, Error> {
    let chosen = Chosen::of(config, &S3, &of_the_program)?;
    endpoint(&chosen, "endpoint")?;
    let host = format!("s3.{}.amazonaws.com", chosen.value("region").unwrap_or("us-east-1"));
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_retry(no_retry())
        .with_http_connector(connector(&chosen, "endpoint", host, runtime)?);
    for (key, value) in chosen.of_the_cloud::<AmazonS3ConfigKey>()? {
        builder = builder.with_config(key, value);
    }
    if chosen.is_anonymous() {
        builder = builder.with_skip_signature(true);
    }
    let store = builder.build().map_err(|error| chosen.failed(&error))?;
    Ok(Opened { name: shown(&config.url), prefix, backend: Box::new(Cloud::new(store, config.retry.idle)) })
}

/// Where Google keeps objects.
const GOOGLE_HOST: &str = "storage.googleapis.com";

/// The library would take the address of the store from `gcs_base_url` of a service account's key, for which emulators have
/// it: whoever wrote the key would decide where the bytes come from, and whether by TLS.
fn refuse_an_address_in_the_key(chosen: &Chosen) -> Result<(), Error> {
    let key = chosen.value("service_account_key").map(serde_json::from_str::<serde_json::Value>);
    // One that cannot be read is the library's to refuse.
    if let Some(Ok(key)) = key
        && key.get("gcs_base_url").is_some_and(|address| !address.is_null())
    {
        return Err(invalid(
            "the credential `service_account_key` names an address of the store (`gcs_base_url`): take it out, and name it as \
             `endpoint`",
        ));
    }
    Ok(())
}

fn google(config: &StoreConfig, (bucket, prefix): (&str, Prefix), runtime: &Handle) -> Result<Opened, Error> {
    let chosen = Chosen::of(config, &GOOGLE, &of_the_program)?;
    endpoint(&chosen, "base_url")?;
    refuse_an_address_in_the_key(&chosen)?;
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(bucket)
        // Else a service account's key could name one, past every check.
        .with_config(GoogleConfigKey::BaseUrl, format!("https://{GOOGLE_HOST}"))
        .with_retry(no_retry())
        .with_http_connector(connector(&chosen, "base_url", GOOGLE_HOST.to_owned(), runtime)?);
    for (key, value) in chosen.of_the_cloud::<GoogleConfigKey>()? {
        builder = builder.with_config(key, value);
    }
    if chosen.is_anonymous() {
        // Without credentials of any kind the library would look for its user's.
        let nobody = StaticCredentialProvider::new(GcpCredential { bearer: String::new() });
        builder = builder.with_credentials(Arc::new(nobody)).with_skip_signature(true);
    }
    let store = builder.build().map_err(|error| chosen.failed(&error))?;
    Ok(Opened { name: shown(&config.url), prefix, backend: Box::new(Cloud::new(store, config.retry.idle)) })
}

fn azure(
    config: &StoreConfig,
    (container, prefix): (&str, Prefix),
    runtime: &Handle,
) -> Result<Opened, Error> {
    let chosen = Chosen::of(config, &AZURE, &of_the_program)?;
    endpoint(&chosen, "endpoint")?;
    let account = chosen.value("account_name").ok_or_else(|| {
        invalid("the option `account_name` is missing: it names the storage account that the container is in")
    })?;
    let host = format!("{account}.blob.core.windows.net");
    let mut builder = MicrosoftAzureBuilder::new()
        .with_container_name(container)
        .with_retry(no_retry())
        .with_http_connector(connector(&chosen, "endpoint", host, runtime)?);
    for (key, value) in chosen.of_the_cloud::<AzureConfigKey>()? {
        builder = builder.with_config(key, value);
    }
    if chosen.is_anonymous() {
        builder = builder.with_skip_signature(true);
    }
    let store = builder.build().map_err(|error| chosen.failed(&error))?;
    Ok(Opened { name: shown(&config.url), prefix, backend: Box::new(Cloud::azure(store, config.retry.idle)) })
}

#[cfg(test)]
mod tests;
