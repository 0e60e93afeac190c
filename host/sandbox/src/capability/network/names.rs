//! Host names. They are resolved outside the method's thread and its restrictions, and the result is kept. The first answer holds for the
//! whole run, so it makes no difference if the name resolves to another address later.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::runtime::Handle;

/// How long the resolution of a name may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How many addresses of a name are kept.
const ADDRESSES: usize = 16;

/// Resolves names of hosts.
#[async_trait]
pub trait Resolve: fmt::Debug + Send + Sync {
    /// Returns the addresses of a name.
    ///
    /// # Errors
    /// The error of the resolver.
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>>;
}

/// The resolver of this machine (`getaddrinfo`), which also reads `/etc/hosts`.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

#[async_trait]
impl Resolve for SystemResolver {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((name, 0)).await?.map(|address| address.ip()).collect())
    }
}

/// Why a name could not be resolved.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LookupError {
    /// The resolver failed, or returned no address.
    #[error("the name cannot be resolved: {0}")]
    Failed(String),
    /// The resolver did not answer in time.
    #[error("the name was not resolved in {} seconds", TIMEOUT.as_secs())]
    Timeout,
}

/// The addresses of the names that one method has used. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    resolver: Arc<dyn Resolve>,
    timeout: Duration,
    pinned: Arc<Mutex<BTreeMap<String, Vec<IpAddr>>>>,
    /// Held until a look-up has ended, even if nobody waits for it any more. A method has at most one look-up at a time, because each takes
    /// a thread.
    busy: Arc<tokio::sync::Mutex<()>>,
}

impl Names {
    /// Makes an empty table that uses this resolver.
    pub(crate) fn new(resolver: Arc<dyn Resolve>) -> Self {
        Self { resolver, timeout: TIMEOUT, pinned: Arc::default(), busy: Arc::default() }
    }

    /// Returns the addresses of a name that was resolved before; `None` if it was not.
    pub(super) fn known(&self, name: &str) -> Option<Vec<IpAddr>> {
        self.table().get(name).cloned()
    }

    /// Returns the addresses of a name. Resolves it on `runtime`, whose threads are not restricted, unless it was resolved before. A
    /// failure is not remembered.
    ///
    /// # Errors
    /// [`LookupError`].
    pub(super) async fn resolve(&self, name: &str, runtime: &Handle) -> Result<Vec<IpAddr>, LookupError> {
        if let Some(known) = self.known(name) {
            return Ok(known);
        }
        let alone = tokio::time::timeout(self.timeout, Arc::clone(&self.busy).lock_owned()).await;
        let alone = alone.map_err(|_| LookupError::Timeout)?;
        if let Some(known) = self.known(name) {
            return Ok(known);
        }
        let (resolver, own) = (Arc::clone(&self.resolver), name.to_owned());
        // The task continues after the timeout, because the system's resolver cannot be stopped and keeps its thread.
        let lookup = runtime.spawn(async move {
            let found = resolver.resolve(&own).await;
            drop(alone);
            found
        });
        let found = tokio::time::timeout(self.timeout, lookup).await.map_err(|_| LookupError::Timeout)?;
        let failed = |error: &dyn fmt::Display| LookupError::Failed(error.to_string());
        let found = found.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
        let mut addresses: Vec<IpAddr> = Vec::new();
        for address in found.into_iter().map(|address| address.to_canonical()) {
            if !addresses.contains(&address) && addresses.len() < ADDRESSES {
                addresses.push(address);
            }
        }
        if addresses.is_empty() {
            return Err(failed(&"it has no address"));
        }
        self.table().insert(name.to_owned(), addresses.clone());
        Ok(addresses)
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<String, Vec<IpAddr>>> {
        self.pinned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// Returns the next answer of its list for each request.
    #[derive(Debug)]
    struct Lies(Mutex<Vec<io::Result<Vec<IpAddr>>>>);

    #[async_trait]
    impl Resolve for Lies {
        async fn resolve(&self, _name: &str) -> io::Result<Vec<IpAddr>> {
            self.0.lock().unwrap().remove(0)
        }
    }

    fn names(answers: Vec<io::Result<Vec<IpAddr>>>) -> Names {
        Names::new(Arc::new(Lies(Mutex::new(answers))))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn the_first_answer_holds_for_the_whole_run() {
        let names = names(vec![
            Err(io::Error::other("busy")),
            Ok(vec![]),
            Ok(vec![ip("1.1.1.1"), ip("::ffff:1.1.1.1")]),
            Ok(vec![ip("127.0.0.1")]),
        ]);
        let runtime = Handle::current();
        for _ in 0..2 {
            assert!(matches!(names.resolve("a", &runtime).await, Err(LookupError::Failed(_))));
            assert_eq!(names.known("a"), None);
        }
        for _ in 0..3 {
            assert_eq!(names.clone().resolve("a", &runtime).await, Ok(vec![ip("1.1.1.1")]));
        }
        assert_eq!(names.known("a"), Some(vec![ip("1.1.1.1")]));
        assert_eq!(names.resolve("b", &runtime).await, Ok(vec![ip("127.0.0.1")]));
    }

    #[tokio::test]
    async fn a_resolver_that_never_answers_is_not_waited_for() {
        /// Counts its requests, and answers only after a signal.
        #[derive(Debug, Default)]
        struct Slow(AtomicU32, tokio::sync::Notify);
        #[async_trait]
        impl Resolve for Slow {
            async fn resolve(&self, _name: &str) -> io::Result<Vec<IpAddr>> {
                self.0.fetch_add(1, Ordering::Relaxed);
                self.1.notified().await;
                Ok(vec![ip("1.1.1.1")])
            }
        }
        let slow = Arc::new(Slow::default());
        let names = Names { timeout: Duration::from_millis(10), ..Names::new(slow.clone()) };
        let runtime = Handle::current();
        // The resolver is still working on the first name, and may use a thread for it.
        for name in ["a", "a", "b"] {
            assert_eq!(names.resolve(name, &runtime).await, Err(LookupError::Timeout));
        }
        assert_eq!(slow.0.load(Ordering::Relaxed), 1);
        // The end of this look-up lets the next one begin.
        slow.1.notify_one();
        let patient = Names { timeout: TIMEOUT, ..names };
        let answer = async { slow.1.notify_one() };
        let (found, ()) = tokio::join!(patient.resolve("b", &runtime), answer);
        assert_eq!(found, Ok(vec![ip("1.1.1.1")]));
    }

    #[tokio::test]
    async fn a_name_has_a_bounded_number_of_addresses() {
        let many = (0..1000_u32).map(|number| IpAddr::from(number.to_be_bytes())).collect();
        let kept = names(vec![Ok(many)]).resolve("a", &Handle::current()).await.unwrap();
        assert_eq!(kept.len(), ADDRESSES);
    }
}
