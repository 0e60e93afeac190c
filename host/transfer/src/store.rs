//! Stores: read-only access to the places where backups are kept, behind one type for all kinds.
//!
//! No method writes to a store. These are the limits of a store:
//!
//! - *Concurrent requests*: a task holds a permit while it waits for a response or the next bytes, and never while it waits for its
//!   caller. An opened [`Body`] that is not being read holds no permit, so a caller that opens many bodies before it reads the first
//!   one cannot block itself. So there may be more connections than permits: one for each body.
//! - *Time*: [`Retry`]. The libraries' own retries are off.
//! - *Bytes per second*: [`crate::rate::Rate`].
//! - *Memory*: a page of a listing, [`CHUNK`] bytes per body, 64 KiB of text per error response.

mod access;
mod answer;
mod body;
mod cloud;
mod codes;
mod codings;
mod config;
mod credential_detector;
mod directory;
mod etag;
mod failures;
mod http;
mod key;
pub mod kinds;
mod proxy;
mod quoted;
mod retry;
mod transport;

use std::ffi::OsString;
use std::fmt;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Semaphore;

use crate::budget::Budget;
use crate::error::{Error, Kind};
use crate::meter::Meter;
use crate::rate::Rate;

pub use access::Renewal;
pub use body::{Body, CHUNK};
pub use codings::other_coding;
pub use config::{CONCURRENCY, Credentials, PLAN_RETRY_FOR, StoreConfig};
pub use credential_detector::{CredentialDetector, SHORTEST_TOKEN};
pub(crate) use directory::this_thread_may_block;
pub use etag::Etag;
pub use kinds::Mistake;
pub use proxy::secrets_of_proxies;
pub use retry::{Notice, Notices, Retry};

use access::{Access, Current};
use key::{KeyLimit, Prefix};
use retry::{Failure, Tries};

/// The most objects in a page of a listing.
pub const PAGE: usize = 1000;

/// After this time without a response a [`Notice`] is sent.
const SILENCE: Duration = Duration::from_secs(5);

/// A range of an object: `length` stored bytes from `offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first byte.
    pub offset: u64,
    /// The number of bytes.
    pub length: u64,
}

impl Range {
    /// Returns the offset after the range's last byte; `None` if that overflows.
    fn end(self) -> Option<u64> {
        self.offset.checked_add(self.length)
    }
}

/// The metadata of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// The key, without the store's prefix.
    pub key: String,
    /// The stored size in bytes.
    pub size: u64,
    /// When it was written, in seconds since 1970. Stores round it differently in listings and in responses for one object, so
    /// compare only times from the same kind of request.
    pub modified: Option<u64>,
    /// The store's etag of its content.
    pub etag: Option<Etag>,
}

impl Object {
    /// Returns how this object differs from an earlier state; `None` if it does not. If the sizes are equal and both have an etag, the
    /// etags decide.
    fn changed_since(&self, before: &Self) -> Option<String> {
        if self.size != before.size {
            return Some(format!("its size was {} and is {} bytes", before.size, self.size));
        }
        match (&before.etag, &self.etag) {
            (Some(before), Some(now)) => {
                (before != now).then(|| format!("its etag was {before} and is {now}"))
            }
            // A server that sends etags sends an etag with every response.
            (Some(_), None) | (None, Some(_)) => {
                Some("one response has an etag and the other has none".to_owned())
            }
            (None, None) => {
                (self.modified != before.modified).then(|| "its modification time changed".to_owned())
            }
        }
    }
}

/// A page of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// At most [`PAGE`] objects, in the order of their keys.
    pub objects: Vec<Object>,
    /// The value of `after` for the next page; `None` on the last page.
    pub next: Option<String>,
}

/// A kind of store, with the three operations that read it. Keys are whole: they include the store's prefix.
#[async_trait]
trait Backend: Send + Sync + 'static {
    /// Returns the longest whole key that the store accepts.
    fn longest_key(&self) -> KeyLimit;

    /// From now on, charges to this budget what the backend keeps between two pages of a listing.
    fn charge_to(&self, _memory: &Budget) {}

    /// Lists at most [`PAGE`] objects whose keys begin with `prefix`, after the key `after`, in the order of the keys.
    async fn scan(&self, prefix: &str, after: Option<&str>) -> Result<Page, Failure>;

    /// Returns the metadata of an object.
    async fn head(&self, key: &str) -> Result<Object, Failure>;

    /// Opens an object, or a range of it. The range has at least one byte, and may lie outside of the object: then this fails, or the
    /// caller refuses the range by the size that is returned. With `known`, the object must be unchanged: a backend may let the store
    /// check that, and the caller checks it in any case.
    async fn open(
        &self,
        key: &str,
        range: Option<Range>,
        known: Option<&Object>,
    ) -> Result<(Object, body::Source), Failure>;
}

/// An opened store. Cheap to clone; all clones share its limits. Every method checks that the key is relative and without `..`.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
    rate: Option<Arc<Rate>>,
    notices: Option<Notices>,
    meter: Meter,
}

struct Inner {
    /// The store's URL without credentials or query, for messages.
    name: String,
    prefix: Prefix,
    longest_key: KeyLimit,
    access: Access,
    permits: Semaphore,
    retry: Retry,
    /// Finds the store's own credentials in what the server sends.
    detector: CredentialDetector,
}

impl Store {
    /// Opens a store. Makes no requests.
    ///
    /// # Errors
    /// `Invalid` if no kind of store has the URL's scheme, if this kind does not have a setting or a credential, or if one cannot be used.
    /// For an unknown scheme or setting, the message names the nearest known one, or the known ones if none is near. Fails if a `file://`
    /// directory cannot be opened.
    pub fn open(config: &StoreConfig, runtime: &tokio::runtime::Handle) -> Result<Self, Error> {
        Self::open_in(config, &|name| std::env::var_os(name), runtime)
    }

    /// Opens a store as [`Store::open`] does, but reads environment variables with `environment`.
    ///
    /// # Errors
    /// The errors of [`Store::open`].
    pub fn open_in(
        config: &StoreConfig,
        environment: &dyn Fn(&str) -> Option<OsString>,
        runtime: &tokio::runtime::Handle,
    ) -> Result<Self, Error> {
        kinds::open(config, environment, runtime)
    }

    /// Opens a local directory as a store. Follows no links below it.
    ///
    /// # Errors
    /// Fails if the directory cannot be opened.
    pub fn directory(path: &Path) -> Result<Self, Error> {
        let access = Access::fixed(Arc::new(directory::Directory::open(path)?));
        let (name, retry) = (path.display().to_string(), Retry::default());
        Ok(Self::assemble(name, Prefix::default(), access, CONCURRENCY, retry))
    }

    fn assemble(
        name: String,
        prefix: Prefix,
        access: Access,
        concurrency: NonZeroUsize,
        retry: Retry,
    ) -> Self {
        let permits = Semaphore::new(concurrency.get().min(Semaphore::MAX_PERMITS));
        let longest_key = access.current().backend.longest_key();
        let detector = access.detector();
        let inner = Inner { name, prefix, longest_key, access, permits, retry, detector };
        Self { inner: Arc::new(inner), rate: None, notices: None, meter: Meter::default() }
    }

    /// Limits the bytes per second that are read from this store, together with everything else that shares the rate.
    #[must_use]
    pub fn with_rate(self, rate: Arc<Rate>) -> Self {
        Self { rate: Some(rate), ..self }
    }

    /// Sends a [`Notice`] to this function when the store does not respond, or a request is retried.
    #[must_use]
    pub fn with_notices(self, notices: Notices) -> Self {
        Self { notices: Some(notices), ..self }
    }

    /// Counts the store's requests and bytes with this meter.
    #[must_use]
    pub fn with_meter(self, meter: Meter) -> Self {
        Self { meter, ..self }
    }

    /// Returns the store's URL or path for messages, without credentials and query.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Lists at most [`PAGE`] objects whose keys begin with `prefix`, which may be empty, in the order of their keys' bytes.
    /// `after` is the `next` of the page before, or any key.
    ///
    /// # Errors
    /// `Invalid` if the prefix could leave the store, or the store cannot list (HTTP); `Failed` if the name of an object is not a valid
    /// key, because the object must not be left out silently, or if the store lists keys that were not requested or are out of order;
    /// errors of the store.
    pub async fn scan(&self, prefix: &str, after: Option<&str>) -> Result<Page, Error> {
        key::check_prefix(prefix)?;
        if let Some(after) = after {
            key::check(after)?;
        }
        let whole = self.inner.whole(prefix)?;
        let after = after.map(|after| self.inner.whole(after)).transpose()?;
        let failed = |error: Error| error.of(format!("listing {} below `{prefix}`", self.name()));
        let mut tries = Tries::new(self.inner.retry);
        let about = format!("the objects below `{prefix}`");
        let page = loop {
            let Current { backend, renewals } = self.inner.access.current();
            match self.request(&about, &tries, backend.scan(&whole, after.as_deref())).await {
                Ok(page) => break page,
                Err(failure) => {
                    self.wait_before_retry(&about, &mut tries, renewals, failure).await.map_err(failed)?;
                }
            }
        };
        for object in &page.objects {
            self.inner.detector.check_object(object).map_err(failed)?;
        }
        let listed = |key: &str| self.inner.listed(key, &whole).map_err(failed);
        let objects =
            page.objects.into_iter().map(|object| listed(&object.key).map(|key| Object { key, ..object }));
        Ok(Page {
            objects: objects.collect::<Result<_, Error>>()?,
            next: page.next.as_deref().map(listed).transpose()?,
        })
    }

    /// Charges to this budget what the store keeps between two pages of a listing.
    #[must_use]
    pub fn within(self, memory: &Budget) -> Self {
        self.inner.access.current().backend.charge_to(memory);
        self
    }

    /// Returns the metadata of an object.
    ///
    /// # Errors
    /// `NotFound` if it does not exist, `Invalid` if this kind of store cannot have such a key, `Failed` if the bucket does not
    /// exist; errors of the store.
    pub async fn head(&self, key: &str) -> Result<Object, Error> {
        key::check(key)?;
        let whole = self.inner.whole(key)?;
        let mut tries = Tries::new(self.inner.retry);
        loop {
            let Current { backend, renewals } = self.inner.access.current();
            match self.request(key, &tries, backend.head(&whole)).await {
                Ok(object) => {
                    let object = Object { key: key.to_owned(), ..object };
                    self.inner.detector.check_object(&object).map_err(|error| self.inner.on(key, error))?;
                    return Ok(object);
                }
                Err(failure) => self
                    .wait_before_retry(key, &mut tries, renewals, failure)
                    .await
                    .map_err(|error| self.inner.on(key, error))?,
            }
        }
    }

    /// Opens an object, or a range of it, for reading. Also returns its metadata, so that the caller can detect a change between
    /// two reads.
    ///
    /// # Errors
    /// `NotFound` if it does not exist, `Invalid` if the range is not within it, `Failed` if the bucket does not exist; errors of
    /// the store.
    pub async fn read(&self, key: &str, range: Option<Range>) -> Result<(Object, Body), Error> {
        key::check(key)?;
        Body::open(self.clone(), key, range).await
    }
}

impl Store {
    /// Makes a request as [`Store::with_permit`] does, and counts it.
    async fn request<T>(
        &self,
        about: &str,
        tries: &Tries,
        request: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        self.meter.request();
        self.with_permit(about, tries, request).await
    }

    /// Runs `request` with a permit, and sends a notice after a long time without a response. `request` must limit its own time,
    /// because only a backend knows how many requests it makes.
    async fn with_permit<T>(
        &self,
        about: &str,
        tries: &Tries,
        request: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        // The semaphore is never closed.
        let _permit = self
            .inner
            .permits
            .acquire()
            .await
            .map_err(|closed| Failure::never(Kind::Failed, closed.to_string()))?;
        // A local file may be read without a runtime, and needs no notices.
        if self.notices.is_none() || tokio::runtime::Handle::try_current().is_err() {
            return request.await;
        }
        let mut request = std::pin::pin!(request);
        tokio::select! {
            biased;
            response = &mut request => return response,
            () = tokio::time::sleep(SILENCE) => {}
        }
        self.notify(about, tries.failed() + 1, format!("no response for {}", seconds(SILENCE)), None);
        request.await
    }

    /// Waits until it is time to retry a request that failed with the credentials of renewal number `used`. Does not wait if the
    /// credentials were refused and there are already new ones.
    ///
    /// # Errors
    /// The failure if it is permanent; the failure with the number of tries if no time is left for a retry; the failure with the reason if
    /// its credentials were refused and cannot be renewed.
    async fn wait_before_retry(
        &self,
        about: &str,
        tries: &mut Tries,
        used: u64,
        failure: Failure,
    ) -> Result<(), Error> {
        if failure.credentials_refused {
            match self.inner.access.renew(used).await {
                Ok(true) => {
                    tracing::info!("the credentials of {} were read again", self.name());
                    return Ok(());
                }
                Ok(false) => {}
                Err(why) => {
                    return Err(Error { message: format!("{}; {why}", failure.error), ..failure.error });
                }
            }
        }
        let cause = failure.error.message.clone();
        let wait = tries.after(failure)?;
        self.notify(about, tries.failed(), cause, Some(wait));
        tokio::time::sleep(wait).await;
        Ok(())
    }

    fn notify(&self, about: &str, attempt: u32, cause: String, next_try_in: Option<Duration>) {
        let Some(notices) = &self.notices else { return };
        let (store, about) = (self.name().to_owned(), about.to_owned());
        notices(Notice { store, about, attempt, cause, next_try_in });
    }
}

impl Inner {
    /// Returns a key with the store's prefix.
    ///
    /// # Errors
    /// `Invalid` if the whole key is longer than this kind of store accepts.
    fn whole(&self, key: &str) -> Result<String, Error> {
        let whole = self.prefix.and(key);
        self.longest_key.check(&whole)?;
        Ok(whole)
    }

    /// Removes the store's prefix from a whole key that the store lists for the prefix `requested`.
    ///
    /// # Errors
    /// `Failed` if the key does not begin with `requested`, or is not a valid key. If such a key were left out, an incomplete
    /// backup could seem complete. If it were the last key of a page, the next page could not be requested, because `scan` accepts only a
    /// valid key as `after`.
    fn listed(&self, whole: &str, requested: &str) -> Result<String, Error> {
        let key = self.prefix.strip(whole).filter(|_| whole.starts_with(requested));
        let key = key.ok_or_else(|| {
            let shown = whole.escape_debug();
            Error::new(Kind::Failed, format!("the store lists `{shown}`, which was not requested"))
        })?;
        // The kind is not `Invalid`, because that would mean that the store cannot list.
        key::check(key).and_then(|()| self.longest_key.check(whole)).map_err(
            |Error { message, .. }| {
                let message = format!(
                    "{message}: rename the object or move it elsewhere; a listing must not leave it out"
                );
                Error::new(Kind::Failed, message)
            },
        )?;
        Ok(key.to_owned())
    }

    /// Puts the name of the object before an error.
    fn on(&self, key: &str, error: Error) -> Error {
        error.of(format!("`{key}` of {}", self.name))
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("name", &self.inner.name).finish_non_exhaustive()
    }
}

/// Formats a time for messages.
fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
