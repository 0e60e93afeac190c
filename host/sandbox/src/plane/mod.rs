//! The data plane of one run of a component: the granted stores and keys, the threads that read and write for the run, and its jobs.
//!
//! Landlock restricts the method's own thread and every thread that it starts. So the threads of the data plane are started before the
//! method's thread restricts itself, and only they open files and connections.

mod items;
mod read;
mod target;

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use replica::{Level, Redactor};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use transfer::budget::Charge;
use transfer::derive::{Withheld, is_random};
use transfer::error::{Error, Kind};
use transfer::job::Bounds;
use transfer::job::{Job, Withdrawn};
use transfer::keys::Key;
use transfer::meter::Meter;
use transfer::pipeline::Pipeline;
use transfer::plane::DataPlane;
use transfer::store::Store;
use transfer::target::Target;

use crate::Grants;
use crate::capability::Remedies;
use crate::capability::read::find_granted_directory;
use crate::reporter::Reporter;
use crate::text::printable;

use items::ItemRecords;
use read::Held;
pub(crate) use read::{Object, ObjectStream};
pub(crate) use target::target;

/// How many streams may be open at once. Each has a thread and some buffers.
const STREAMS: usize = 16;
/// How many jobs may exist at once.
const JOBS: usize = 64;
/// How many keys may be derived in one run. A chain of backups has three.
const DERIVED: usize = 64;
/// How many bytes the derived keys of one run may have in total. The redactor bounds the secrets of all methods together
/// ([`MOST_BYTES`](foundation::redact::MOST_BYTES)), and a method that fails must leave room for the next.
const DERIVED_BYTES: usize = 4 << 10;

/// Jobs that no longer write, each with the items that it did not do.
pub(crate) type WithdrawnJobs = Vec<(Arc<Job>, Withdrawn)>;

/// The data plane of one run.
pub(crate) struct Plane {
    data: Arc<DataPlane>,
    grants: Arc<Grants>,
    pub(crate) remedies: Remedies,
    redactor: Redactor,
    cancel: CancellationToken,
    /// The directories that jobs write to; `None` in `plan`.
    target: Option<Arc<Target>>,
    /// Reports the retries of requests to stores.
    reporter: Option<Reporter>,
    /// Counts the requests to stores, and the bytes that are read from them.
    meter: Meter,
    /// Bounds the memory that the host uses and the files that it opens for the run.
    bounds: Bounds,
    /// Opened stores, by the operator's name or, for a directory, by its real path.
    opened: HashMap<OsString, OpenedStore>,
    derived: Derived,
    streams: Arc<Semaphore>,
    /// Jobs, each with the task that cancels it when the run is cancelled.
    jobs: Vec<(Arc<Job>, AbortOnDropHandle<()>)>,
}

/// An opened store and the memory and files that are charged for it.
struct OpenedStore {
    store: Store,
    _charges: Option<(Charge, Charge)>,
}

/// How many bytes of memory are charged for an opened directory: its names and structures, about twice the longest path.
const DIRECTORY: u64 = 16 << 10;

/// How many bytes of memory are charged for a stream: the chunks that wait before and after its decoder, and the decoder. The decoder's
/// window is charged separately.
pub(super) const STREAM: u64 = (2 << 20) + transfer::codec::DECODER_OVERHEAD;

/// The keys that were derived from objects, and what must therefore be hidden from the component.
#[derive(Default)]
struct Derived {
    withheld: Withheld,
    count: usize,
    bytes: usize,
    /// How many of the keys are also removed from the operator's log.
    in_no_log: usize,
    /// Removes all of the keys from texts for the component.
    component_redactor: Redactor,
    /// The pipelines with which keys were derived, by the names of the store and the object.
    pipelines: HashMap<(String, String), Vec<Pipeline>>,
}

impl Plane {
    /// Starts the threads. The calling thread must not be restricted yet, and must not belong to a tokio runtime.
    ///
    /// # Errors
    /// Fails if the threads cannot be started.
    pub(crate) fn start(
        grants: &Arc<Grants>,
        remedies: Remedies,
        redactor: Redactor,
        cancel: CancellationToken,
        target: Option<Target>,
        bounds: Bounds,
    ) -> io::Result<Self> {
        let rate = grants.rate.map(|rate| rate.bytes());
        let data = DataPlane::start_within(grants.workers, rate, &bounds)?;
        Ok(Self {
            data: Arc::new(data),
            grants: Arc::clone(grants),
            remedies,
            redactor,
            cancel,
            target: target.map(Arc::new),
            reporter: None,
            meter: Meter::default(),
            bounds,
            opened: HashMap::new(),
            derived: Derived::default(),
            streams: Arc::new(Semaphore::new(STREAMS)),
            jobs: Vec::new(),
        })
    }

    /// Makes the plane report retries of requests to stores.
    #[must_use]
    pub(crate) fn with_reporter(self, reporter: Reporter) -> Self {
        Self { reporter: Some(reporter), ..self }
    }

    /// Returns how many threads move bytes.
    pub(crate) fn workers(&self) -> usize {
        self.data.workers()
    }

    /// Returns the meter that counts the requests to stores.
    pub(crate) fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Runs `work` on the plane's threads, and aborts it if the run is cancelled or this future is dropped.
    ///
    /// # Errors
    /// The error of `work`, or `Cancelled`.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let work = AbortOnDropHandle::new(self.data.runtime().spawn(work));
        tokio::select! {
            biased;
            ended = work => ended.unwrap_or_else(|fault| {
                Err(Error::new(Kind::Failed, format!("a fault in the host: {fault}")))
            }),
            () = self.cancel.cancelled() => Err(cancelled()),
        }
    }

    /// Returns a key that the operator granted.
    pub(crate) fn key(&self, name: &str) -> Option<Key> {
        self.grants.key(name)
    }

    /// Opens a store that the operator granted; `None` if that name was not granted.
    pub(crate) async fn granted_store(&mut self, name: &str) -> Option<Result<Store, Error>> {
        if let Some(opened) = self.opened.get(OsStr::new(name)) {
            return Some(Ok(opened.store.clone()));
        }
        let config = self.grants.stores.get(name)?.clone();
        let config = if self.target.is_none() { config.for_plan() } else { config };
        let runtime = self.data.runtime().clone();
        let opened = self.run(async move { Store::open(&config, &runtime) }).await;
        Some(opened.map(|store| self.keep(name.into(), store, None)))
    }

    /// Opens a directory as a store; `None` unless the operator granted read access to it or to a directory above it.
    pub(crate) async fn granted_directory(&mut self, path: &str) -> Option<Result<Store, Error>> {
        let (grants, wanted) = (Arc::clone(&self.grants), path.to_owned());
        let found = self.run(async move { find_granted_directory(Path::new(&wanted), &grants.read) }).await;
        match found {
            Ok(found) => Some(self.directory(found?).await),
            Err(error) => Some(Err(error)),
        }
    }

    /// Opens a directory by its real path, or returns the store that was opened for it before.
    async fn directory(&mut self, real: PathBuf) -> Result<Store, Error> {
        if let Some(opened) = self.opened.get(real.as_os_str()) {
            return Ok(opened.store.clone());
        }
        let file = self.bounds.files.charge(1, "a directory as a store")?;
        let memory = self.bounds.memory.charge(DIRECTORY, "a directory as a store")?;
        let name = real.clone().into_os_string();
        let store = self.run(async move { Store::directory(&real) }).await?;
        Ok(self.keep(name, store, Some((file, memory))))
    }

    fn keep(&mut self, name: OsString, store: Store, charges: Option<(Charge, Charge)>) -> Store {
        let store = store.within(&self.bounds.memory).with_meter(self.meter.clone());
        let store = match self.data.rate() {
            Some(rate) => store.with_rate(rate),
            None => store,
        };
        let store = match self.reporter.clone() {
            Some(reporter) => store.with_notices(Arc::new(move |notice| reporter.retrying(notice))),
            None => store,
        };
        self.opened.insert(name, OpenedStore { store: store.clone(), _charges: charges });
        store
    }

    /// Checks that an object may be read through this pipeline. If a key was derived from the object, only the pipeline that derived the
    /// key is allowed: decoded in another way, the object could show the key in a form that is not blanked.
    ///
    /// # Errors
    /// `Denied` if the object may not be read through this pipeline.
    pub(crate) fn may_read(&self, store: &str, object: &str, via: &Pipeline) -> Result<(), Error> {
        match self.derived.pipelines.get(&(store.to_owned(), object.to_owned())) {
            Some(pipelines) if !pipelines.iter().any(|other| is_same(other, via)) => Err(Error::new(
                Kind::Denied,
                format!(
                    "{object}: a key was derived from it, so it can be read only with the same `decrypt` and `decompress`"
                ),
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// Returns whether a key was derived from this object. Such an object must not be written to a file either.
    pub(crate) fn holds_a_key(&self, store: &str, object: &str) -> bool {
        self.derived.pipelines.contains_key(&(store.to_owned(), object.to_owned()))
    }

    /// Prepares to read an object. Derived keys will be blanked in its text.
    pub(crate) fn object(&self, store: Store, key: String, via: Pipeline) -> Object {
        Object {
            store,
            key,
            via,
            withheld: self.derived.withheld.clone(),
            run: self.cancel.clone(),
            memory: self.bounds.memory.clone(),
        }
    }

    /// Checks that the pipeline's key, if it has one, is bound to the store that the component opened under this name. A directory that
    /// was opened by its path has no keys bound to it.
    ///
    /// # Errors
    /// Returns a text for the denied operation, and the configuration line that would allow it, if there is one.
    pub(crate) fn may_decrypt(&self, store: &str, via: &Pipeline) -> Result<(), (String, Option<String>)> {
        match &via.decrypt {
            Some((key, _)) if !key.opens(store) => {
                let what = format!("the {} for objects of {}", shown_key(key), printable(store, 256));
                let line = if key.is_derived() { None } else { self.remedies.key_of_store(&key.name, store) };
                Err((what, line))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Opens a stream of an object or of a range of it.
    ///
    /// # Errors
    /// `Limit` if too many streams are open; otherwise the error of the store.
    pub(crate) async fn stream(
        &self,
        object: Object,
        range: Option<transfer::store::Range>,
    ) -> Result<ObjectStream, Error> {
        let slot = Arc::clone(&self.streams).try_acquire_owned().map_err(|_| {
            Error::new(Kind::Limit, format!("{}: {STREAMS} streams are open already", object.key))
        })?;
        let file = self.bounds.files.charge(1, "a stream").map_err(|error| error.of(&object.key))?;
        let memory = self.bounds.memory.charge(STREAM, "a stream").map_err(|error| error.of(&object.key))?;
        let held = Held::of(slot, file, memory);
        // This runs on the plane's runtime, so that the thread that decodes is one of the plane's threads.
        let chunks = self.run(async move { Ok(object.open(range).await?.chunks(held)) }).await?;
        Ok(ObjectStream::new(chunks, [self.redactor.clone(), self.derived.component_redactor.clone()]))
    }

    /// Derives a key from the text of an object. From now on, hides the key from the component.
    ///
    /// # Errors
    /// `Limit` if there are too many derived keys; otherwise the error of the store or of the text.
    pub(crate) async fn derive(
        &mut self,
        store_name: &str,
        object: Object,
        section: String,
        name: String,
    ) -> Result<Key, Error> {
        if self.derived.count >= DERIVED {
            return Err(Error::new(Kind::Limit, format!("{DERIVED} keys were derived already")));
        }
        let (place, via) = ((store_name.to_owned(), object.key.clone()), object.via.clone());
        // A derived key is bound to the stores that its object may come from.
        let stores = match &via.decrypt {
            Some((key, _)) => Arc::clone(key.stores()),
            None => Arc::new([store_name.to_owned()].into()),
        };
        let _held = self.bounds.memory.charge(STREAM, "deriving a key")?;
        let (key, seen) = self.run(object.derive(section, name)).await?;
        let key = key.bound_to(stores);
        let secret = key.text()?.clone();
        let bytes = self.derived.bytes + secret.expose().len();
        if bytes > DERIVED_BYTES {
            let message = format!("the keys that were derived have more than {DERIVED_BYTES} bytes in all");
            return Err(Error::new(Kind::Limit, message));
        }
        self.derived.component_redactor.add(&secret)?;
        self.derived.withheld.add(&key, seen, &via)?;
        // Only a long random key is removed from the operator's log, because a component could declare any word to be a key.
        if is_random(&key) {
            self.redactor.add(&secret)?;
            self.derived.in_no_log += 1;
        }
        self.derived.bytes = bytes;
        self.derived.count += 1;
        let pipelines = self.derived.pipelines.entry(place).or_default();
        if !pipelines.iter().any(|other| is_same(other, &via)) {
            pipelines.push(via);
        }
        Ok(key)
    }

    /// Makes a job that fills the data directory; `None` in `plan`.
    ///
    /// # Errors
    /// Returns a trap if the component has made too many jobs.
    pub(crate) fn job(&mut self, report_all: bool) -> wasmtime::Result<Option<Arc<Job>>> {
        let Some(target) = &self.target else { return Ok(None) };
        if self.jobs.len() >= JOBS {
            return Err(wasmtime::format_err!("{JOBS} jobs exist already"));
        }
        let job = self.data.job(Arc::clone(target), report_all, self.derived.withheld.clone());
        if let Some(items) = self.reporter.as_ref().and_then(ItemRecords::of) {
            job.observe(Arc::new(items));
        }
        let job = Arc::new(job);
        let (cancel, watched) = (self.cancel.clone(), Arc::downgrade(&job));
        // A cancelled run must stop writing at once, whatever the component does.
        let watching = self.data.runtime().spawn(async move {
            cancel.cancelled().await;
            if let Some(job) = watched.upgrade() {
                job.cancel().await;
            }
        });
        self.jobs.push((Arc::clone(&job), AbortOnDropHandle::new(watching)));
        Ok(Some(job))
    }

    /// Ends a job. When this function returns, the job does not write any more.
    pub(crate) async fn end_job(&mut self, job: &Arc<Job>, reporter: &Reporter) {
        job.cancel().await;
        report(job, reporter);
        self.jobs.retain(|(other, _)| !Arc::ptr_eq(other, job));
    }

    /// Ends every job. When this function returns, no job of the run writes any more. Dropping the returned jobs may take a long time.
    pub(crate) async fn end(&mut self, reporter: &Reporter) -> WithdrawnJobs {
        let mut ended = Vec::new();
        for (job, _watching) in std::mem::take(&mut self.jobs) {
            let withdrawn = job.halt().await;
            report(&job, reporter);
            ended.push((job, withdrawn));
        }
        let Derived { count, in_no_log, .. } = self.derived;
        if count > 0 {
            reporter.host(
                Level::Info,
                &format!(
                    "the method derived {count} key{}: {in_no_log} of them are long and random, and are replaced by <secret> in \
                     this log and in the report; the others are hidden only from the method",
                    if count == 1 { "" } else { "s" }
                ),
            );
        }
        ended
    }

    /// Returns the directories that jobs write to; `None` in `plan`.
    pub(crate) fn target(&self) -> Option<&Target> {
        self.target.as_deref()
    }

    /// Removes the secrets that the component must not see from a text that the host or a store wrote.
    pub(crate) fn without_secrets(&self, text: &str) -> String {
        self.derived.component_redactor.redact(&self.redactor.redact(text)).into_owned()
    }
}

/// Names a key in a message.
fn shown_key(key: &Key) -> String {
    if key.is_derived() { "derived key".to_owned() } else { format!("key {}", printable(&key.name, 64)) }
}

fn is_same(one: &Pipeline, other: &Pipeline) -> bool {
    one.decrypt == other.decrypt && one.decompress == other.decompress
}

/// Reports what a job has done since the last report.
pub(crate) fn report(job: &Job, reporter: &Reporter) {
    let (bytes, files) = job.progress();
    if (bytes, files) != (0, 0) {
        reporter.done(bytes, files);
    }
    if job.has_read() {
        reporter.activity().mark();
    }
}

/// Returns the error of a call after the run was cancelled.
pub(crate) fn cancelled() -> Error {
    Error::new(Kind::Cancelled, "the run is being cancelled")
}
