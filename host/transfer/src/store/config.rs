//! The configuration of a store.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::access::Renewal;
use super::kinds::{self, Mistake};
use super::retry::Retry;
use foundation::secret::Secret;

/// The default limit of concurrent requests.
pub const CONCURRENCY: NonZeroUsize = NonZeroUsize::new(16).unwrap();

/// The default time that a read in `plan` may go without progress. Short, because the run waits for the plan, and a plan can be repeated
/// without loss.
pub const PLAN_RETRY_FOR: Duration = Duration::from_secs(20);

/// A store as the operator configured it: `stores.NAME = { url = "s3://bucket/prefix", ... }`.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// `file:///dir`, `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`, `http(s)://host/path`.
    pub url: String,
    /// The settings for this kind of store (`region`, `endpoint`, `allow_http`, ...), by their names in the configuration.
    pub options: Vec<(String, String)>,
    /// The credentials with which the store is read.
    pub credentials: Credentials,
    /// The certificates, in PEM, of the only authorities that are trusted for the server: the contents of `ca_file`. `None` for the
    /// authorities that this machine trusts.
    pub authorities: Option<String>,
    /// The limit of concurrent requests; [`CONCURRENCY`] by default.
    pub concurrency: NonZeroUsize,
    /// How transient failures are retried.
    pub retry: Retry,
    /// The other origins to which a web server may redirect, each `HOST:PORT` ([`StoreConfig::is_redirect`]).
    pub redirects: Vec<String>,
    /// Replaces [`Retry::at_most`] in `plan` if it is shorter.
    pub plan_retry_for: Duration,
    /// Reads the credentials again when the store does not accept them any more; `None` if they never change.
    pub renewal: Option<Arc<dyn Renewal>>,
}

impl StoreConfig {
    /// Makes the configuration of a store with this URL and defaults for everything else.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            options: Vec::new(),
            credentials: Credentials::None,
            authorities: None,
            concurrency: CONCURRENCY,
            retry: Retry::default(),
            redirects: Vec::new(),
            plan_retry_for: PLAN_RETRY_FOR,
            renewal: None,
        }
    }

    /// Returns the secrets that this store finds in the environment if it asks the provider chain, by the names that [`Credentials`] uses.
    /// Credentials that the chain gets from a service of the cloud are not among them.
    pub fn secrets_of_environment(
        &self,
        environment: &dyn Fn(&str) -> Option<OsString>,
    ) -> Vec<(String, Secret)> {
        kinds::secrets_of_environment(self, environment)
    }

    /// Returns the files with secrets that the environment names for this store if it asks the provider chain.
    pub fn secret_files_of_environment(
        &self,
        environment: &dyn Fn(&str) -> Option<OsString>,
    ) -> Vec<PathBuf> {
        kinds::secret_files_of_environment(self, environment)
    }

    /// Returns the mistakes in the URL, the settings and the environment variables of this store. Makes no request and reads no file. The
    /// credentials that are given are checked when the store is opened.
    pub fn mistakes(&self, environment: &dyn Fn(&str) -> Option<OsString>) -> Vec<Mistake> {
        kinds::mistakes(self, environment)
    }

    /// Returns whether a text is an origin to which a web server may redirect: `HOST:PORT`, where an IPv6 address is in
    /// brackets.
    pub fn is_redirect(text: &str) -> bool {
        super::http::Origin::parse(text).is_some()
    }

    /// Shortens the times for `plan`: retries end sooner, and one attempt may use at most half of the time, so that a second one
    /// fits.
    #[must_use]
    pub fn for_plan(mut self) -> Self {
        self.retry.at_most = self.retry.at_most.min(self.plan_retry_for);
        self.retry.idle = self.retry.idle.min(self.retry.at_most / 2);
        self
    }

    /// Returns the directory of a `file://` store, decoded from the URL in the same way as when the store is opened. `None` for other
    /// kinds, and for a URL that names no directory.
    pub fn directory(&self) -> Option<PathBuf> {
        self.url.starts_with("file://").then(|| kinds::directory(&self.url).ok()).flatten()
    }

    /// Returns whether this store is accessed over TLS, so that `ca_file` applies.
    pub fn speaks_tls(&self) -> bool {
        kinds::speaks_tls(self)
    }
}

/// The credentials with which a store is read.
#[derive(Clone, Debug, Default)]
pub enum Credentials {
    /// No credentials: requests are not signed.
    #[default]
    None,
    /// The credentials that the provider chain finds in the environment of the program or gets from a service of the cloud
    /// (`credentials = "auto"`).
    Auto,
    /// These secrets, by their names in the configuration (`access_key_id`, `token`, ...).
    Given(Vec<(String, Secret)>),
}

impl Credentials {
    /// Returns the secrets in the configuration; none for the other variants.
    pub fn given(&self) -> &[(String, Secret)] {
        match self {
            Self::None | Self::Auto => &[],
            Self::Given(secrets) => secrets,
        }
    }

    /// Returns whether the provider chain is asked.
    pub fn is_auto(&self) -> bool {
        matches!(self, Self::Auto)
    }
}
