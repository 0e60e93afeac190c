//! What a store is read with: its backend, and how that is made anew where its credentials were renewed.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;

use super::echo::Echo;
use super::kinds::Environment;
use super::{Backend, Credentials, StoreConfig, kinds, proxy};
use crate::error::{Error, Kind};
use foundation::secret::Secret;

/// How long after a renewal another one may still be under way: a key, its secret and a token are often files of their own, which
/// somebody writes one after the other.
const UNDER_WAY: Duration = Duration::from_secs(10);

/// How long is waited for that at a time.
const PAUSE: Duration = Duration::from_secs(1);

/// Where the credentials of a store are read again.
pub trait Renewal: fmt::Debug + Send + Sync {
    /// All credentials as they are now, by the names that [`Credentials`] have. May read files; everything that keeps
    /// secrets out of texts knows them when this returns.
    ///
    /// # Errors
    /// Why they cannot be read, without a secret in it.
    fn credentials(&self) -> Result<Vec<(String, Secret)>, String>;
}

/// The backend of a store.
pub(super) struct Access {
    current: RwLock<Current>,
    renewable: Option<Renewable>,
    echo: Echo,
}

/// The backend as it is now, and how often it was made anew.
#[derive(Clone)]
pub(super) struct Current {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) renewals: u64,
}

/// What a backend is made anew from.
struct Renewable {
    config: StoreConfig,
    renewal: Arc<dyn Renewal>,
    runtime: Handle,
    last: tokio::sync::Mutex<Last>,
}

/// The credentials that the backend has now.
struct Last {
    credentials: Vec<(String, Secret)>,
    renewed: Option<Instant>,
}

impl Access {
    /// A backend whose credentials stay what they are.
    pub(super) fn fixed(backend: Arc<dyn Backend>) -> Self {
        Self {
            current: RwLock::new(Current { backend, renewals: 0 }),
            renewable: None,
            echo: Echo::default(),
        }
    }

    /// The backend that was made of this configuration.
    ///
    /// # Errors
    /// As [`Echo::learn`].
    pub(super) fn of(
        backend: Arc<dyn Backend>,
        config: &StoreConfig,
        environment: Environment<'_>,
        runtime: &Handle,
    ) -> Result<Self, Error> {
        let echo = Echo::default();
        echo.learn(config.credentials.given())?;
        echo.learn(&config.secrets_of_environment(environment))?;
        // A proxy that speaks to a store without TLS hands on what it likes.
        for login in proxy::credentials(environment) {
            echo.learn(&login)?;
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
        Ok(Self { renewable, echo, ..Self::fixed(backend) })
    }

    /// What knows every credential that the server was given: those of now and those of before.
    pub(super) fn echo(&self) -> Echo {
        self.echo.clone()
    }

    /// The backend as it is now.
    pub(super) fn current(&self) -> Current {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether there are other credentials than those that `used` had, by now: looks where they are read from. Whoever comes
    /// while somebody else looks waits for him.
    ///
    /// # Errors
    /// `Denied` where they cannot be read, `Invalid` where they cannot be used.
    pub(super) async fn is_renewed(&self, used: u64) -> Result<bool, Error> {
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
                // Before the server is given them.
                self.echo.learn(&found)?;
                *self.current.write().unwrap_or_else(PoisonError::into_inner) =
                    Current { backend: backend.into(), renewals: used + 1 };
                *last = Last { credentials: found, renewed: Some(Instant::now()) };
                return Ok(true);
            }
            if last.renewed.is_none_or(|renewed| renewed.elapsed() >= UNDER_WAY) {
                return Ok(false);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
