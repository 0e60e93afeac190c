//! The backend of a store, which is replaced when the credentials of the store are renewed.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;

use super::credential_detector::CredentialDetector;
use super::kinds::Environment;
use super::{Backend, Credentials, StoreConfig, kinds, proxy};
use crate::error::{Error, Kind};
use foundation::secret::Secret;

/// How long after a renewal further changes are expected: an access key, its secret and a token are often separate files, which are
/// written one after the other.
const RENEWAL_WINDOW: Duration = Duration::from_secs(10);

/// The time between two checks for such changes.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Reads the credentials of a store again.
pub trait Renewal: fmt::Debug + Send + Sync {
    /// Returns all current credentials, by the names that [`Credentials`] uses. May read files. The implementation must register the
    /// secrets for redaction before it returns.
    ///
    /// # Errors
    /// Says why the credentials cannot be read, without a secret.
    fn credentials(&self) -> Result<Vec<(String, Secret)>, String>;
}

/// The backend of a store, and how to renew it.
pub(super) struct Access {
    current: RwLock<Current>,
    renewable: Option<Renewable>,
    detector: CredentialDetector,
}

/// The current backend.
#[derive(Clone)]
pub(super) struct Current {
    pub(super) backend: Arc<dyn Backend>,
    /// How many times the backend was replaced.
    pub(super) renewals: u64,
}

/// What is needed to make a backend with renewed credentials.
struct Renewable {
    config: StoreConfig,
    renewal: Arc<dyn Renewal>,
    runtime: Handle,
    last: tokio::sync::Mutex<Last>,
}

/// The credentials of the current backend.
struct Last {
    credentials: Vec<(String, Secret)>,
    /// The time of the last renewal; `None` before the first one.
    renewed: Option<Instant>,
}

impl Access {
    /// Makes the access to a backend whose credentials never change.
    pub(super) fn fixed(backend: Arc<dyn Backend>) -> Self {
        Self {
            current: RwLock::new(Current { backend, renewals: 0 }),
            renewable: None,
            detector: CredentialDetector::default(),
        }
    }

    /// Makes the access to the backend that was made from this configuration.
    ///
    /// # Errors
    /// The errors of [`CredentialDetector::learn`].
    pub(super) fn of(
        backend: Arc<dyn Backend>,
        config: &StoreConfig,
        environment: Environment<'_>,
        runtime: &Handle,
    ) -> Result<Self, Error> {
        let detector = CredentialDetector::default();
        detector.learn(config.credentials.given())?;
        detector.learn(&config.secrets_of_environment(environment))?;
        // Without TLS a proxy can send its own credentials back in the response.
        for login in proxy::credentials(environment) {
            detector.learn(&login)?;
        }
        let renewable = config.renewal.clone().map(|renewal| Renewable {
            config: config.clone(),
            renewal,
            runtime: runtime.clone(),
            last: tokio::sync::Mutex::new(Last {
                credentials: config.credentials.given().to_vec(),
                renewed: None,
            }),
        });
        Ok(Self { renewable, detector, ..Self::fixed(backend) })
    }

    /// Returns the detector of all credentials that the server received, current and earlier ones.
    pub(super) fn detector(&self) -> CredentialDetector {
        self.detector.clone()
    }

    /// Returns the current backend.
    pub(super) fn current(&self) -> Current {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the credentials again, and replaces the backend if they changed. Returns whether the current backend is newer than the
    /// one with renewal number `used`. Concurrent calls wait for each other.
    ///
    /// # Errors
    /// `Denied` if the credentials cannot be read, `Invalid` if they cannot be used.
    pub(super) async fn renew(&self, used: u64) -> Result<bool, Error> {
        let Some(renewable) = &self.renewable else { return Ok(false) };
        let mut last = renewable.last.lock().await;
        if self.current().renewals != used {
            return Ok(true);
        }
        loop {
            let unread =
                |why| Error::new(Kind::Denied, format!("its credentials cannot be read again: {why}"));
            let found = renewable.renewal.credentials().map_err(unread)?;
            if found != last.credentials {
                let config = StoreConfig {
                    credentials: Credentials::Given(found.clone()),
                    ..renewable.config.clone()
                };
                let backend = kinds::backend(&config, &renewable.runtime)?;
                // The detector must know the new credentials before the server receives them.
                self.detector.learn(&found)?;
                *self.current.write().unwrap_or_else(PoisonError::into_inner) =
                    Current { backend: backend.into(), renewals: used + 1 };
                *last = Last { credentials: found, renewed: Some(Instant::now()) };
                return Ok(true);
            }
            if last.renewed.is_none_or(|renewed| renewed.elapsed() >= RENEWAL_WINDOW) {
                return Ok(false);
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}
