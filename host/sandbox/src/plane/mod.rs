//! The data plane as one run of a component reaches it: the stores and keys that it was granted, the threads that read
//! and write for it, and the jobs that they work on.
//!
//! The method's own thread is behind a Landlock wall, and so would be every thread that it starts. So the plane's threads
//! are there before that wall is, and everything that opens a file or a connection happens on them.

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
use transfer::pipeline::Pipeline;
use transfer::plane::DataPlane;
use transfer::store::Store;
use transfer::target::Target;

use crate::Grants;
use crate::capability::Remedies;
use crate::capability::read::find as find_directory;
use crate::reporter::Reporter;
use crate::text::printable;

use read::Held;
pub(crate) use read::{Object, ObjectStream};
pub(crate) use target::target;

/// Streams that may be open at once: each has a thread and some buffers.
const STREAMS: usize = 16;
/// Jobs that may be there at once.
const JOBS: usize = 64;
/// Keys that may be derived in one run; a chain of backups has three.
const DERIVED: usize = 64;
/// How many bytes they may have in all. What is kept out of texts is bounded for all methods together
/// ([`MOST_BYTES`](foundation::redact::MOST_BYTES)), and one that fails must leave room for the next.
const DERIVED_BYTES: usize = 4 << 10;

/// Jobs that write nothing any more, and what they did not do.
pub(crate) type Ended = Vec<(Arc<Job>, Withdrawn)>;

/// What one run may reach of the data plane.
pub(crate) struct Plane {
    data: Arc<DataPlane>,
    grants: Arc<Grants>,
    pub(crate) remedies: Remedies,
    redactor: Redactor,
    cancel: CancellationToken,
    /// Where jobs write; none in `plan`.
    target: Option<Arc<Target>>,
    /// Who is told when a store is asked again.
    reporter: Option<Reporter>,
    /// What is held for the run.
    bounds: Bounds,
    /// Stores by their one name: the operator's, or a directory's real path.
    opened: HashMap<OsString, Kept>,
    derived: Derived,
    streams: Arc<Semaphore>,
    /// Jobs, with what cancels each with the run.
    jobs: Vec<(Arc<Job>, AbortOnDropHandle<()>)>,
}

/// A store that was opened, with what it takes.
struct Kept {
    store: Store,
    _charges: Option<(Charge, Charge)>,
}

/// What an opened directory takes in memory, in bytes: its names and structures, twice a path's bound.
const DIRECTORY: u64 = 16 << 10;

/// What a stream takes, in bytes: chunks that wait before and behind its decoder, and a decoder without its window.
pub(super) const STREAM: u64 = (2 << 20) + transfer::codec::DECODER_OVERHEAD;

/// What was derived from the texts of objects, and what the component must not see for it.
#[derive(Default)]
struct Derived {
    withheld: Withheld,
    count: usize,
    bytes: usize,
    /// How many of them are taken out of the operator's log too.
    in_no_log: usize,
    /// Takes all of them out of what the component is told.
    told: Redactor,
    /// How each object is decoded from which a key was derived, by its store's name and its own.
    pipelines: HashMap<(String, String), Vec<Pipeline>>,
}

impl Plane {
    /// Starts the threads. The calling thread must not be restricted yet, nor be one of a runtime.
    ///
    /// # Errors
    /// Where no threads can be had.
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
            bounds,
            opened: HashMap::new(),
            derived: Derived::default(),
            streams: Arc::new(Semaphore::new(STREAMS)),
            jobs: Vec::new(),
        })
    }

    /// The same, which tells when a store is asked again.
    #[must_use]
    pub(crate) fn told_to(self, reporter: Reporter) -> Self {
        Self { reporter: Some(reporter), ..self }
    }

    /// Does `work` on the plane's threads. When the run is cancelled, or this future dropped, it is given up.
    ///
    /// # Errors
    /// That of `work`, or `Cancelled`.
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

    /// A key that the operator granted.
    pub(crate) fn key(&self, name: &str) -> Option<Key> {
        self.grants.key(name)
    }

    /// Opens a store that the operator granted; none where that name was not granted.
    pub(crate) async fn granted_store(&mut self, name: &str) -> Option<Result<Store, Error>> {
        if let Some(kept) = self.opened.get(OsStr::new(name)) {
            return Some(Ok(kept.store.clone()));
        }
        let config = self.grants.stores.get(name)?.clone();
        let config = if self.target.is_none() { config.for_plan() } else { config };
        let runtime = self.data.runtime().clone();
        let opened = self.run(async move { Store::open(&config, &runtime) }).await;
        Some(opened.map(|store| self.keep(name.into(), store, None)))
    }

    /// Opens a directory as a store: one that the operator granted to be read, or one below it. None where it is not.
    pub(crate) async fn granted_directory(&mut self, path: &str) -> Option<Result<Store, Error>> {
        let (grants, wanted) = (Arc::clone(&self.grants), path.to_owned());
        let found = self.run(async move { find_directory(Path::new(&wanted), &grants.read) }).await;
        match found {
            Ok(found) => Some(self.directory(found?).await),
            Err(error) => Some(Err(error)),
        }
    }

    /// Opens a directory by its real path, once.
    async fn directory(&mut self, real: PathBuf) -> Result<Store, Error> {
        if let Some(kept) = self.opened.get(real.as_os_str()) {
            return Ok(kept.store.clone());
        }
        let file = self.bounds.files.charge(1, "a directory as a store")?;
        let memory = self.bounds.memory.charge(DIRECTORY, "a directory as a store")?;
        let name = real.clone().into_os_string();
        let store = self.run(async move { Store::directory(&real) }).await?;
        Ok(self.keep(name, store, Some((file, memory))))
    }

    fn keep(&mut self, name: OsString, store: Store, charges: Option<(Charge, Charge)>) -> Store {
        let store = store.within(&self.bounds.memory);
        let store = match self.data.rate() {
            Some(rate) => store.with_rate(rate),
            None => store,
        };
        let store = match self.reporter.clone() {
            Some(reporter) => store.with_notices(Arc::new(move |notice| reporter.retrying(notice))),
            None => store,
        };
        self.opened.insert(name, Kept { store: store.clone(), _charges: charges });
        store
    }

    /// Checks whether a plugin may read this object through `via`. An object from which a key was derived may be read only with the
    /// same pipeline, because in another encoding the key would not be blanked.
    ///
    /// # Errors
    /// `Denied` if it may not.
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

    /// Whether any key was derived from this object: then it is not written anywhere either.
    pub(crate) fn holds_a_key(&self, store: &str, object: &str) -> bool {
        self.derived.pipelines.contains_key(&(store.to_owned(), object.to_owned()))
    }

    /// Reads an object, with what was derived blanked.
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

    /// Whether the pipeline's key, if it has one, opens what is in the store that the component opened under this name. A
    /// directory that was opened by its path is no store that a key is bound to.
    ///
    /// # Errors
    /// What is refused, and the line that would allow it, if there is one.
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

    /// A stream of an object or a part of it.
    ///
    /// # Errors
    /// `Limit` where too many are open; what the store says.
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
        // There, for the thread that decodes must be the plane's and not this one's.
        let chunks = self.run(async move { Ok(object.open(range).await?.chunks(held)) }).await?;
        Ok(ObjectStream::new(chunks, [self.redactor.clone(), self.derived.told.clone()]))
    }

    /// Derives a key from the text of an object, and keeps it from the component from now on.
    ///
    /// # Errors
    /// `Limit` for too many; what the store or the text says.
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
        // What it opens lies where what it came from lies.
        let stores = match &via.decrypt {
            Some((key, _)) => Arc::clone(key.stores()),
            None => Arc::new([store_name.to_owned()].into()),
        };
        let _held = self.bounds.memory.charge(STREAM, "deriving a key")?;
        let (key, seen) = self.run(object.derive(section, name)).await?;
        let key = key.bound_to(stores);
        let bytes = self.derived.bytes + key.secret.expose().len();
        if bytes > DERIVED_BYTES {
            let message = format!("the keys that were derived have more than {DERIVED_BYTES} bytes in all");
            return Err(Error::new(Kind::Limit, message));
        }
        self.derived.told.add(&key.secret)?;
        self.derived.withheld.add(&key, seen, &via)?;
        // A word that the component calls a key stays in the operator's log.
        if is_random(&key) {
            self.redactor.add(&key.secret)?;
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

    /// A job that fills the data directory; none in `plan`.
    ///
    /// # Errors
    /// The trap of a component that makes too many.
    pub(crate) fn job(&mut self, report_all: bool) -> wasmtime::Result<Option<Arc<Job>>> {
        let Some(target) = &self.target else { return Ok(None) };
        if self.jobs.len() >= JOBS {
            return Err(wasmtime::format_err!("{JOBS} jobs are there already"));
        }
        let job = self.data.job(Arc::clone(target), report_all, self.derived.withheld.clone());
        let job = Arc::new(job);
        let (cancel, watched) = (self.cancel.clone(), Arc::downgrade(&job));
        // So that a cancelled run stops writing at once, whatever the component does.
        let watching = self.data.runtime().spawn(async move {
            cancel.cancelled().await;
            if let Some(job) = watched.upgrade() {
                job.cancel().await;
            }
        });
        self.jobs.push((Arc::clone(&job), AbortOnDropHandle::new(watching)));
        Ok(Some(job))
    }

    /// Ends a job; returns when nothing of it writes any more.
    pub(crate) async fn end_job(&mut self, job: &Arc<Job>, reporter: &Reporter) {
        job.cancel().await;
        report(job, reporter);
        self.jobs.retain(|(other, _)| !Arc::ptr_eq(other, job));
    }

    /// Ends every job. Nothing of this run writes any more when it returns; to drop the answer may take long.
    pub(crate) async fn end(&mut self, reporter: &Reporter) -> Ended {
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
                    "the method derived {count} key{}: {in_no_log} of them are long and random, and stand as <secret> wherever \
                     they occur in this log and report; the others are kept from the method alone",
                    if count == 1 { "" } else { "s" }
                ),
            );
        }
        ended
    }

    /// Where jobs write; none in `plan`.
    pub(crate) fn target(&self) -> Option<&Target> {
        self.target.as_deref()
    }

    /// A text of the host or of a store without the secrets that the component must not see.
    pub(crate) fn without_secrets(&self, text: &str) -> String {
        self.derived.told.redact(&self.redactor.redact(text)).into_owned()
    }
}

/// A key as messages have it.
fn shown_key(key: &Key) -> String {
    if key.is_derived() { "derived key".to_owned() } else { format!("key {}", printable(&key.name, 64)) }
}

fn is_same(one: &Pipeline, other: &Pipeline) -> bool {
    one.decrypt == other.decrypt && one.decompress == other.decompress
}

/// Tells what a job has done since it was told last.
pub(crate) fn report(job: &Job, reporter: &Reporter) {
    let (bytes, files) = job.progress();
    if (bytes, files) != (0, 0) {
        reporter.done(bytes, files);
    }
    if job.has_read() {
        reporter.activity().mark();
    }
}

/// What a call answers when the run is cancelled.
pub(crate) fn cancelled() -> Error {
    Error::new(Kind::Cancelled, "the run is being cancelled")
}
