//! The sandbox: one engine for every component.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use replica::Refusal;
use tokio_util::sync::CancellationToken;

use crate::component::{Bytecode, Loaded};
use crate::engine::Host;
use crate::image::Images;
use crate::{ComponentMethod, ComponentSource, Inspection, MethodSettings, SandboxSettings};
use foundation::landlock::{self, LandlockError};

/// One engine, its epoch thread and the components that were loaded. Cheap to clone.
#[derive(Clone)]
pub struct Sandbox {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) host: Host,
    pub(crate) settings: SandboxSettings,
    /// The ABI version of the kernel's Landlock; 0 if the kernel has no Landlock.
    pub(crate) landlock: u32,
    images: Images,
    /// The loaded components by the digest of their bytes. `describe` runs once for each.
    loaded: Mutex<HashMap<[u8; 32], Arc<Loaded>>>,
}

/// Why a sandbox cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The kernel's Landlock is older than the operator requires.
    #[error("{0}: lower it or use a newer kernel")]
    Landlock(String),
    /// The engine does not work on this machine.
    #[error("cannot set up the WebAssembly engine: {0}")]
    Engine(String),
}

/// A method has more secrets than the redactor can hold.
#[derive(Debug, thiserror::Error)]
#[error("its grants have too many secrets to keep out of the log: {0}")]
pub struct TooManySecrets(String);

impl Sandbox {
    /// Sets up the engine and opens the cache.
    ///
    /// # Errors
    /// [`SandboxError::Landlock`] if the kernel offers less than `settings` require, [`SandboxError::Engine`] if the engine does not work
    /// on this machine.
    pub fn new(settings: SandboxSettings) -> Result<Self, SandboxError> {
        let landlock = match landlock::kernel_abi(settings.require_landlock) {
            Err(error @ LandlockError::TooOld { .. }) => {
                return Err(SandboxError::Landlock(error.to_string()));
            }
            Err(error) if settings.require_landlock.is_some() => {
                return Err(SandboxError::Landlock(error.to_string()));
            }
            // Without a requirement, each run logs what the kernel enforces.
            Err(_) => 0,
            Ok(abi) => abi,
        };
        let host = Host::new().map_err(|error| SandboxError::Engine(format!("{error:#}")))?;
        let images = Images::new(&settings, &host.engine);
        Ok(Self { inner: Arc::new(Inner { host, settings, landlock, images, loaded: Mutex::default() }) })
    }

    /// Returns the method that runs the component of `settings`. The component is not read before [`replica::Method::preflight`].
    ///
    /// # Errors
    /// Fails if the grants have more secrets than the redactor can hold.
    pub fn method(&self, settings: MethodSettings) -> Result<ComponentMethod, TooManySecrets> {
        for secret in settings.grants.secrets() {
            self.inner.settings.redactor.add(secret).map_err(|error| TooManySecrets(error.to_string()))?;
        }
        Ok(ComponentMethod::new(self.clone(), settings))
    }

    /// Returns what a component says about itself. Unless the cache has the result, compiles the component and calls `describe` with
    /// everything denied. Call this from a thread that may block.
    ///
    /// # Errors
    /// The refusals of a preflight that concern the component itself: the rules `component`, `interface version`, `import` and
    /// `describe`.
    pub fn inspect(&self, component: impl Into<ComponentSource>) -> Result<Inspection, Refusal> {
        Ok(self.load(&component.into(), &CancellationToken::new())?.inspection.clone())
    }

    /// Loads a component, or returns the loaded one with the same bytes. Blocks; `cancel` ends a compilation.
    pub(crate) fn load(
        &self,
        source: &ComponentSource,
        cancel: &CancellationToken,
    ) -> Result<Arc<Loaded>, Refusal> {
        let code = Bytecode::read(source)?;
        let digest = code.digest();
        let known = || self.inner.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = known().get(&digest) {
            return Ok(Arc::clone(loaded));
        }
        let loaded = Arc::new(Loaded::new(&self.inner.host, &self.inner.images, source, code, cancel)?);
        Ok(Arc::clone(known().entry(digest).or_insert(loaded)))
    }
}
