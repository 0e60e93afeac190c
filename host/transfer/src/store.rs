//! Stores: where backups are. Read-only, behind one type, whatever is below.
//!
//! There is no method here that writes, and none below that could be reached. What bounds a store:
//!
//! - *Requests at once*: a permit is held while an answer or the next bytes are awaited, never while somebody else is to do
//!   something. An opened [`Body`] that nobody reads holds none, so that whoever opens many of them before reading the first
//!   cannot wait for himself. Connections may therefore be more than permits: as many as there are bodies.
//! - *Time*: [`Retry`]. The libraries' own retries are off.
//! - *Bytes a second*: [`crate::rate::Rate`].
//! - *Memory*: a page of a listing, [`CHUNK`] a body, 64 KiB of an error's text.

mod access;
mod answer;
mod body;
mod cloud;
mod codes;
mod directory;
mod echo;
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
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Semaphore;

use crate::budget::Budget;
use crate::error::{Error, Kind};
use crate::rate::Rate;
use foundation::secret::Secret;

pub use access::Renewal;
pub use body::{Body, CHUNK};
pub(crate) use directory::this_thread_may_block;
pub use etag::Etag;
pub use kinds::Mistake;
pub use proxy::secrets_of_proxies;
pub use retry::{Notice, Notices, Retry};

use access::{Access, Current};
use echo::Echo;
use key::{Longest, Prefix};
use retry::{Failure, Tries};

/// The most objects in a page of a listing.
pub const PAGE: usize = 1000;

/// How many answers are awaited at once where nothing is said.
pub const CONCURRENCY: NonZeroUsize = NonZeroUsize::new(16).unwrap();

/// How long one object may go without progress in `plan`, where nothing is said: somebody waits for its answer, and nothing is lost
/// where it is asked for once more.
pub const PLAN_RETRY_FOR: Duration = Duration::from_secs(20);

/// After how long a request without an answer is told.
const SILENCE: Duration = Duration::from_secs(5);

/// A store as the operator configured it: `stores.NAME = { url = "s3://bucket/prefix", ... }`.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// `file:///dir`, `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`, `http(s)://host/path`.
    pub url: String,
    /// The settings that its kind has (`region`, `endpoint`, `allow_http`, ...), by the names of the configuration.
    pub options: Vec<(String, String)>,
    /// Who reads it.
    pub credentials: Credentials,
    /// Who vouches for its server: certificates in PEM, as the file of `ca_file` holds them. `None`: the authorities that this machine
    /// trusts.
    pub authorities: Option<String>,
    /// How many answers, and further bytes of them, are awaited at once; [`CONCURRENCY`] is a good number.
    pub concurrency: NonZeroUsize,
    /// How transient failures are met.
    pub retry: Retry,
    /// Where a web server may redirect to besides its own scheme, host and port: each `HOST:PORT` ([`StoreConfig::is_redirect`]).
    pub redirects: Vec<String>,
    /// The same for `plan`, in place of [`Retry::at_most`] where it is shorter.
    pub plan_retry_for: Duration,
    /// Where the credentials are read again when the store does not take them any more. `None`: they stay.
    pub renewal: Option<Arc<dyn Renewal>>,
}

impl StoreConfig {
    /// A store of which only the URL is said.
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

    /// Returns the secrets that this store finds in the environment if it asks there, by the names that [`Credentials`] have. What a
    /// service of the cloud tells is not among them.
    pub fn secrets_of_environment(
        &self,
        environment: &dyn Fn(&str) -> Option<OsString>,
    ) -> Vec<(String, Secret)> {
        kinds::secrets_of_environment(self, environment)
    }

    /// Returns the files with secrets to which the environment leads this store if it asks there.
    pub fn secret_files_of_environment(
        &self,
        environment: &dyn Fn(&str) -> Option<OsString>,
    ) -> Vec<PathBuf> {
        kinds::secret_files_of_environment(self, environment)
    }

    /// Returns everything that is wrong with this store as far as nobody must be asked and no file be read.
    pub fn mistakes(&self, environment: &dyn Fn(&str) -> Option<OsString>) -> Vec<Mistake> {
        kinds::mistakes(self, environment)
    }

    /// Whether a text names a place that a web server may redirect to: `HOST:PORT`, an IPv6 address in brackets.
    pub fn is_redirect(text: &str) -> bool {
        http::Origin::parse(text).is_some()
    }

    /// The same for `plan`: tries are given up sooner, and no single one is waited for so long that it would be the only one.
    #[must_use]
    pub fn for_plan(mut self) -> Self {
        self.retry.at_most = self.retry.at_most.min(self.plan_retry_for);
        self.retry.idle = self.retry.idle.min(self.retry.at_most / 2);
        self
    }

    /// The directory that a `file://` store is, as it is opened whatever the URL's spelling. `None` for other kinds, and for a URL
    /// that cannot be opened.
    pub fn directory(&self) -> Option<PathBuf> {
        self.url.starts_with("file://").then(|| kinds::directory(&self.url).ok()).flatten()
    }

    /// Whether this store is reached by TLS, so that somebody vouches for its server.
    pub fn speaks_tls(&self) -> bool {
        kinds::speaks_tls(self)
    }
}

/// Who reads a store.
#[derive(Clone, Debug, Default)]
pub enum Credentials {
    /// Nobody in particular: requests are not signed.
    #[default]
    None,
    /// Who the environment of the program says, or a service of the machine (`credentials = "auto"`).
    Auto,
    /// Who has these secrets, by the names of the configuration (`access_key_id`, `token`, ...).
    Given(Vec<(String, Secret)>),
}

impl Credentials {
    /// The secrets that are given.
    pub fn given(&self) -> &[(String, Secret)] {
        match self {
            Self::None | Self::Auto => &[],
            Self::Given(secrets) => secrets,
        }
    }

    /// Whether the environment is asked.
    pub fn is_auto(&self) -> bool {
        matches!(self, Self::Auto)
    }
}

/// A part of an object: `length` stored bytes from `offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// From this byte.
    pub offset: u64,
    /// So many bytes.
    pub length: u64,
}

impl Range {
    /// The byte after its last one; none where no number can say it.
    fn end(self) -> Option<u64> {
        self.offset.checked_add(self.length)
    }
}

/// What is known of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its key below the store's prefix.
    pub key: String,
    /// Its stored size in bytes.
    pub size: u64,
    /// When it was written, in seconds since 1970. Stores round it in their listings in another way than in their answers for
    /// one object: it tells something only beside one that was asked for in the same way.
    pub modified: Option<u64>,
    /// The store's own mark of its content.
    pub etag: Option<Etag>,
}

impl Object {
    /// What tells this object from what was there before; none where it is the same. The mark decides where there is one.
    fn changed_since(&self, before: &Self) -> Option<String> {
        if self.size != before.size {
            return Some(format!("its size was {} and is {} bytes", before.size, self.size));
        }
        match (&before.etag, &self.etag) {
            (Some(before), Some(now)) => {
                (before != now).then(|| format!("its etag was {before} and is {now}"))
            }
            // A server that gives a mark gives it with every answer.
            (Some(_), None) | (None, Some(_)) => Some("one answer has an etag and the other none".to_owned()),
            (None, None) => (self.modified != before.modified).then(|| "its time is another".to_owned()),
        }
    }
}

/// A part of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// At most [`PAGE`] objects, in the order of their keys.
    pub objects: Vec<Object>,
    /// What `after` is for the next page; none on the last.
    pub next: Option<String>,
}

/// What a store is made of: three ways to read. Keys are whole, prefix included.
#[async_trait]
trait Backend: Send + Sync + 'static {
    /// How long a whole key may be.
    fn longest_key(&self) -> Longest;

    /// What it keeps from one listing to the next is charged to this budget from now on.
    fn charge_to(&self, _memory: &Budget) {}

    /// At most [`PAGE`] objects whose keys begin with `prefix`, after the key `after`, in the order of the keys.
    async fn scan(&self, prefix: &str, after: Option<&str>) -> Result<Page, Failure>;

    /// What is known of an object.
    async fn head(&self, key: &str) -> Result<Object, Failure>;

    /// Opens an object, or the range of it, which begins inside of it and has at least one byte. With `known`, only that
    /// very object: a backend that can have the store compare does so; the caller compares in any case.
    async fn open(
        &self,
        key: &str,
        range: Option<Range>,
        known: Option<&Object>,
    ) -> Result<(Object, body::Source), Failure>;
}

/// An opened store. Cheap to clone; all clones share its limits. Every method checks the key: relative, no `..`.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
    rate: Option<Arc<Rate>>,
    notices: Option<Notices>,
}

struct Inner {
    /// The store's URL without credentials or query, for messages.
    name: String,
    prefix: Prefix,
    longest_key: Longest,
    access: Access,
    permits: Semaphore,
    retry: Retry,
    /// Knows the credentials that go to the server, which must not come back.
    echo: Echo,
}

impl Store {
    /// Opens a store. Asks nothing of the network.
    ///
    /// # Errors
    /// `Invalid` for a URL, a setting or a credential that this kind of store does not know, with the nearest that it does;
    /// for a `file://` directory that cannot be opened, why.
    pub fn open(config: &StoreConfig, runtime: &tokio::runtime::Handle) -> Result<Self, Error> {
        Self::open_in(config, &|name| std::env::var_os(name), runtime)
    }

    /// The same in another environment than that of the program.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_in(
        config: &StoreConfig,
        environment: &dyn Fn(&str) -> Option<OsString>,
        runtime: &tokio::runtime::Handle,
    ) -> Result<Self, Error> {
        kinds::open(config, environment, runtime)
    }

    /// A local directory, never following a link below it.
    ///
    /// # Errors
    /// Where it cannot be opened.
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
        let echo = access.echo();
        let inner = Inner { name, prefix, longest_key, access, permits, retry, echo };
        Self { inner: Arc::new(inner), rate: None, notices: None }
    }

    /// What bounds its bytes a second, shared by all that reads it.
    #[must_use]
    pub fn with_rate(self, rate: Arc<Rate>) -> Self {
        Self { rate: Some(rate), ..self }
    }

    /// Who is told when the store does not answer as it should, and is asked again.
    #[must_use]
    pub fn with_notices(self, notices: Notices) -> Self {
        Self { notices: Some(notices), ..self }
    }

    /// The store's URL or path as messages have it: without credentials and query.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// At most [`PAGE`] objects whose keys begin with `prefix`, which may be empty, in the order of their keys' bytes; `after` is the
    /// `next` of the page before, or any key.
    ///
    /// # Errors
    /// `Invalid` for a prefix that leads elsewhere and for a store that cannot list (HTTP); `Failed` for an object whose name is no
    /// key, which is not left out, and for a store that lists what was not asked for, or not in order; what the store fails with.
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
            match self.permitted(&about, &tries, backend.scan(&whole, after.as_deref())).await {
                Ok(page) => break page,
                Err(failure) => {
                    self.before_another(&about, &mut tries, renewals, failure).await.map_err(failed)?;
                }
            }
        };
        for object in &page.objects {
            self.inner.echo.refuse(object).map_err(failed)?;
        }
        let listed = |key: &str| self.inner.listed(key, &whole).map_err(failed);
        let objects =
            page.objects.into_iter().map(|object| listed(&object.key).map(|key| Object { key, ..object }));
        Ok(Page {
            objects: objects.collect::<Result<_, Error>>()?,
            next: page.next.as_deref().map(listed).transpose()?,
        })
    }

    /// The same, with what it keeps between two pages of a listing charged to this budget.
    #[must_use]
    pub fn within(self, memory: &Budget) -> Self {
        self.inner.access.current().backend.charge_to(memory);
        self
    }

    /// What is known of one object.
    ///
    /// # Errors
    /// `NotFound` where there is none, `Invalid` for a key that this kind of store cannot have, `Failed` where there is no such bucket;
    /// what the store fails with.
    pub async fn head(&self, key: &str) -> Result<Object, Error> {
        key::check(key)?;
        let whole = self.inner.whole(key)?;
        let mut tries = Tries::new(self.inner.retry);
        loop {
            let Current { backend, renewals } = self.inner.access.current();
            match self.permitted(key, &tries, backend.head(&whole)).await {
                Ok(object) => {
                    let object = Object { key: key.to_owned(), ..object };
                    self.inner.echo.refuse(&object).map_err(|error| self.inner.on(key, error))?;
                    return Ok(object);
                }
                Err(failure) => self
                    .before_another(key, &mut tries, renewals, failure)
                    .await
                    .map_err(|error| self.inner.on(key, error))?,
            }
        }
    }

    /// The stored bytes of an object, or of a range of it. Also says what the object is, so that a change between two reads
    /// can be seen.
    ///
    /// # Errors
    /// `NotFound` where there is none, `Invalid` for a range that does not lie inside of it, `Failed` where there is no such bucket; what
    /// the store fails with.
    pub async fn read(&self, key: &str, range: Option<Range>) -> Result<(Object, Body), Error> {
        key::check(key)?;
        Body::open(self.clone(), key, range).await
    }
}

impl Store {
    /// Does what asks the store with a permit. How long one answer is awaited is the backend's to mind, which alone knows how
    /// many requests it takes; that nothing comes is told.
    async fn permitted<T>(
        &self,
        about: &str,
        tries: &Tries,
        asking: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        // It is never closed.
        let _permit = self
            .inner
            .permits
            .acquire()
            .await
            .map_err(|closed| Failure::never(Kind::Failed, closed.to_string()))?;
        // A local file is read without any runtime, and by the time of nobody's network.
        if self.notices.is_none() || tokio::runtime::Handle::try_current().is_err() {
            return asking.await;
        }
        let mut asking = std::pin::pin!(asking);
        tokio::select! {
            biased;
            answer = &mut asking => return answer,
            () = tokio::time::sleep(SILENCE) => {}
        }
        self.tell(about, tries.failed() + 1, format!("nothing has come for {}", seconds(SILENCE)), None);
        asking.await
    }

    /// Waits until it is time for another try, made with what `used` renewals of the credentials gave; with other credentials, where
    /// there are some by now, it is time at once.
    ///
    /// # Errors
    /// The failure itself, where it will not pass or there is no time left for another try.
    async fn before_another(
        &self,
        about: &str,
        tries: &mut Tries,
        used: u64,
        failure: Failure,
    ) -> Result<(), Error> {
        if failure.of_credentials {
            match self.inner.access.is_renewed(used).await {
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
        self.tell(about, tries.failed(), cause, Some(wait));
        tokio::time::sleep(wait).await;
        Ok(())
    }

    fn tell(&self, about: &str, attempt: u32, cause: String, next_try_in: Option<Duration>) {
        let Some(notices) = &self.notices else { return };
        let (store, about) = (self.name().to_owned(), about.to_owned());
        notices(Notice { store, about, attempt, cause, next_try_in });
    }
}

impl Inner {
    /// A key with the store's prefix.
    ///
    /// # Errors
    /// `Invalid` where it is longer than this kind of store takes.
    fn whole(&self, key: &str) -> Result<String, Error> {
        let whole = self.prefix.and(key);
        self.longest_key.check(&whole)?;
        Ok(whole)
    }

    /// The store's own part of a whole key that it lists, when it was `asked` for those that begin so. One that nobody could ask
    /// for is refused: without it a backup would seem to be whole, and a page that ends with it could not be gone on from.
    fn listed(&self, whole: &str, asked: &str) -> Result<String, Error> {
        let key = self.prefix.strip(whole).filter(|_| whole.starts_with(asked));
        let key = key.ok_or_else(|| {
            let shown = whole.escape_debug();
            Error::new(Kind::Failed, format!("the store lists `{shown}`, which was not asked for"))
        })?;
        // Not `Invalid`, by which a store is known that cannot list.
        key::check(key).and_then(|()| self.longest_key.check(whole)).map_err(
            |Error { message, .. }| {
                let message =
                    format!("{message}: rename the object, or put it elsewhere; no listing leaves it out");
                Error::new(Kind::Failed, message)
            },
        )?;
        Ok(key.to_owned())
    }

    /// An error with the object that it is about.
    fn on(&self, key: &str, error: Error) -> Error {
        error.of(format!("`{key}` of {}", self.name))
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("name", &self.inner.name).finish_non_exhaustive()
    }
}

/// A wait as messages have it.
fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
