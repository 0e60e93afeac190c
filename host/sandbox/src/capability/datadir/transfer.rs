//! Batches of work for the data plane. The component says what goes where; the plane's threads move it.

use std::sync::Arc;
use std::time::Duration;

use ::foundation::rooted::RelativePath;
use ::transfer::budget::{ALLOCATION_OVERHEAD, Charge};
use ::transfer::error::Kind;
use ::transfer::job::{Action, Fetch, Job, Status, Unpack};
use ::transfer::listing::{Listed, Listing};
use ::transfer::pipeline::Pipeline;
use ::transfer::target::RefusedPath;
use async_trait::async_trait;
use tokio::time::{Instant, sleep, timeout};
use wasmtime::component::Resource;
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};

use super::Datadir;
use crate::answer::{Answer, HostError};
use crate::capability::Keys;
use crate::capability::stores::Bucket;
use crate::plane::report;
use crate::reporter::Reporter;
use crate::state::State;
use crate::text::printable;

/// Items that one call takes, and outcomes and names that one call gives.
const ITEMS: usize = 4096;
/// How often progress is told while the component waits.
const PROGRESS: Duration = Duration::from_millis(100);

/// A job that a component holds.
#[expect(unreachable_pub, reason = "the bindings export it again")]
pub struct Work {
    /// `None` where nothing may be written.
    job: Option<Arc<Job>>,
    /// Which objects the origins hold, by their index: the name of the store.
    origins: Vec<(Arc<str>, Charge)>,
}

/// A listing that a component holds; the unpacks that are compared with it hold it too.
#[expect(unreachable_pub, reason = "the bindings export it again")]
pub struct Files(Arc<Listing>);

/// How one item ended.
pub(crate) struct Outcome {
    /// Counts the items of the job in the order in which they were added, from 0.
    pub(crate) index: u32,
    /// What became of it.
    pub(crate) ended: Result<Action, HostError>,
}

/// Jobs.
impl State {
    /// Makes a job; one that may not write is idle for good.
    ///
    /// # Errors
    /// The trap of a component that makes too many.
    pub(crate) fn new_job(&mut self, report_all: bool) -> wasmtime::Result<Resource<Work>> {
        let job = match &mut self.job.plane {
            Some(plane) => plane.job(report_all)?,
            None => None,
        };
        Ok(self.table.push(Work { job, origins: Vec::new() })?)
    }

    /// Adds a place that items come from; its index counts from 0.
    ///
    /// # Errors
    /// `Denied` where nothing may be written, and for a key that is not bound to the store; `Limit` for too many.
    pub(crate) fn add_origin_to(
        &mut self,
        job: &Resource<Work>,
        bucket: &Resource<Bucket>,
        via: Option<&Resource<Pipeline>>,
    ) -> Answer<u32> {
        let via = self.pipeline(via)?;
        let (name, store) = {
            let bucket = self.table.get(bucket)?;
            (Arc::clone(&bucket.name), bucket.store.clone())
        };
        let work = self.work(job)?;
        let plane = self.plane().ok_or_else(|| self.no_transfer())?;
        plane.may_decrypt(&name, &via).map_err(|(what, line)| self.denied(&Keys, what, line))?;
        // Each bucket has its name for itself, and it may be gone.
        let bytes = name.len() as u64 + 2 * (size_of::<(Arc<str>, Charge)>() as u64 + ALLOCATION_OVERHEAD);
        let charged = self.files.bounds.memory.charge(bytes, "another origin of the job");
        let added = charged.and_then(|charge| Ok((work.add_origin(store, via)?, charge)));
        let (index, charge) = added.map_err(|error| self.error(error))?;
        self.table.get_mut(job)?.origins.push((name, charge));
        Ok(index)
    }

    /// Adds files to fetch, all or none of them. Waits while the queue is full, telling meanwhile what the job has done.
    ///
    /// # Errors
    /// `Denied` for a path that may not be written and for an object that holds a key, `Limit` for too many; what the job says.
    pub(crate) async fn fetch_files(&mut self, job: &Resource<Work>, items: Vec<Fetch>) -> Answer<()> {
        let work = self.work(job)?;
        let held = self.table.get(job)?;
        self.few_enough(&items)?;
        for item in &items {
            self.may_write(&item.path)?;
            self.may_take(held, item.origin, &item.object)?;
        }
        let adds = Arc::clone(&work);
        self.while_telling(&work, async move { adds.fetch(items).await }).await
    }

    /// Adds one archive, whose files are compared with a listing while they are written.
    ///
    /// # Errors
    /// As [`State::fetch_files`].
    pub(crate) async fn unpack_archive(
        &mut self,
        job: &Resource<Work>,
        item: Unpack,
        files: Option<&Resource<Files>>,
    ) -> Answer<()> {
        let work = self.work(job)?;
        let held = self.table.get(job)?;
        self.few_enough(&item.skip)?;
        self.few_enough(&item.refuse)?;
        self.may_write(&item.path)?;
        self.may_take(held, item.origin, &item.object)?;
        let files = match files {
            Some(files) => Some(Arc::clone(&self.table.get(files)?.0)),
            None => None,
        };
        let adds = Arc::clone(&work);
        self.while_telling(&work, async move { adds.unpack(item, files).await }).await
    }

    /// Waits until the job is idle or the run cancelled, or for so many milliseconds.
    pub(crate) async fn wait_for_job(
        &mut self,
        job: &Resource<Work>,
        at_most_ms: u32,
    ) -> wasmtime::Result<Status> {
        let Some(work) = self.table.get(job)?.job.clone() else { return Ok(idle()) };
        let ends = Instant::now() + Duration::from_millis(at_most_ms.into());
        loop {
            let left = ends.saturating_duration_since(Instant::now());
            let now = tokio::select! {
                biased;
                now = work.wait(left.min(PROGRESS)) => now,
                () = self.cancel.cancelled() => work.status(),
            };
            report(&work, &self.reporter);
            if now.idle || self.cancel.is_cancelled() || Instant::now() >= ends {
                return Ok(now);
            }
        }
    }

    /// Takes up to `max` outcomes away from the job.
    pub(crate) fn outcomes_of(&mut self, job: &Resource<Work>, max: u32) -> wasmtime::Result<Vec<Outcome>> {
        let Some(work) = self.table.get(job)?.job.clone() else { return Ok(Vec::new()) };
        report(&work, &self.reporter);
        let outcomes = work.outcomes((max as usize).min(ITEMS)).into_iter();
        let told = outcomes.map(|outcome| Outcome {
            index: outcome.index,
            ended: outcome.ended.map_err(|error| self.error(error)),
        });
        Ok(told.collect())
    }

    /// Gives what is ready when the job has outcomes or is idle.
    pub(crate) fn job_is_ready(&mut self, job: &Resource<Work>) -> wasmtime::Result<Resource<DynPollable>> {
        let ready = Ready { job: self.table.get(job)?.job.clone(), reporter: self.reporter.clone() };
        let ready = self.table.push(ready)?;
        subscribe(&mut self.table, ready)
    }

    /// Cancels a job; returns when nothing of it writes any more.
    pub(crate) async fn cancel_job(&mut self, job: &Resource<Work>) -> wasmtime::Result<()> {
        if let Some(work) = self.table.get(job)?.job.clone() {
            work.cancel().await;
            report(&work, &self.reporter);
        }
        Ok(())
    }

    /// Drops a job, which cancels it.
    pub(crate) async fn drop_job(&mut self, job: Resource<Work>) -> wasmtime::Result<()> {
        let Work { job, .. } = self.table.delete(job)?;
        let reporter = self.reporter.clone();
        if let (Some(job), Some(plane)) = (job, &mut self.job.plane) {
            plane.end_job(&job, &reporter).await;
        }
        Ok(())
    }

    /// The job behind a handle, where it may write.
    fn work(&self, job: &Resource<Work>) -> Answer<Arc<Job>> {
        let job = self.table.get(job)?.job.clone();
        Ok(job.ok_or_else(|| self.no_transfer())?)
    }

    /// Nothing is written in `plan` nor in `describe`.
    fn no_transfer(&self) -> HostError {
        let what = "a transfer into the data directory (nothing is written in plan)";
        self.denied(&Datadir, what.to_owned(), None)
    }

    /// Refuses what [`Target::judge`](::transfer::target::Target::judge) refuses, as a denial where it is one. What leaves the data
    /// directory the job itself refuses, and what the members of an archive are called.
    fn may_write(&self, path: &str) -> Result<(), HostError> {
        let Some(target) = self.plane().and_then(|plane| plane.target()) else {
            return Err(self.no_transfer());
        };
        if path.is_empty() {
            return Ok(());
        }
        let shown = || printable(path, 256);
        let invalid = |why: &dyn std::fmt::Display| self.fails(Kind::Invalid, &format!("{}: {why}", shown()));
        let relative = RelativePath::new(path).map_err(|error| invalid(&error))?;
        target.check_path(&relative).map_err(|why| match why {
            RefusedPath::ControlFile => {
                self.denied(&Datadir, format!("{} (the name is the host's)", shown()), None)
            }
            RefusedPath::UnmappedTablespace(oid) => self.unmapped_tablespace(oid),
            RefusedPath::NotATablespace => invalid(&why),
        })
    }

    /// Refuses to write an object that holds a key which the component must not see.
    fn may_take(&self, job: &Work, origin: u32, object: &str) -> Result<(), HostError> {
        let held = job.origins.get(origin as usize).zip(self.plane());
        if held.is_some_and(|((store, _), plane)| plane.holds_a_key(store, object)) {
            let what =
                format!("{} in the data directory (a key was derived from it)", printable(object, 256));
            return Err(self.denied(&Keys, what, None));
        }
        Ok(())
    }

    fn few_enough<T>(&self, items: &[T]) -> Result<(), HostError> {
        match items.len() {
            0..=ITEMS => Ok(()),
            more => Err(self.fails(Kind::Limit, &format!("{more} at once: at most {ITEMS} a call"))),
        }
    }

    /// Does `work` on the plane's threads, telling meanwhile what the job has done.
    async fn while_telling(
        &mut self,
        job: &Job,
        work: impl Future<Output = Result<(), ::transfer::error::Error>> + Send + 'static,
    ) -> Answer<()> {
        let Some(plane) = self.plane() else { return Err(self.no_transfer().into()) };
        let mut work = std::pin::pin!(plane.run(work));
        loop {
            match timeout(PROGRESS, &mut work).await {
                Ok(ended) => return Ok(ended.map_err(|error| self.error(error))?),
                Err(_) => report(job, &self.reporter),
            }
        }
    }
}

/// Listings of what archives must bring.
impl State {
    /// Makes an empty listing.
    pub(crate) fn new_listing(&mut self) -> wasmtime::Result<Resource<Files>> {
        let listing = Listing::within(&self.files.bounds.memory);
        Ok(self.table.push(Files(Arc::new(listing)))?)
    }

    /// Adds files to a listing, all or none of them.
    ///
    /// # Errors
    /// `Limit` for too many; what the listing says.
    pub(crate) fn list_files(&mut self, listing: &Resource<Files>, files: Vec<Listed>) -> Answer<()> {
        let listing = &self.table.get(listing)?.0;
        self.few_enough(&files)?;
        Ok(listing.add(files).map_err(|error| self.error(error))?)
    }

    /// Adds paths that need not be listed.
    ///
    /// # Errors
    /// As [`State::list_files`].
    pub(crate) fn tolerate_files(&mut self, listing: &Resource<Files>, paths: Vec<String>) -> Answer<()> {
        let listing = &self.table.get(listing)?.0;
        self.few_enough(&paths)?;
        Ok(listing.tolerate(paths).map_err(|error| self.error(error))?)
    }

    /// Tells up to `max` of the listed files that nothing has brought yet.
    pub(crate) fn missing_files(
        &mut self,
        listing: &Resource<Files>,
        max: u32,
    ) -> wasmtime::Result<Vec<String>> {
        Ok(self.table.get(listing)?.0.missing((max as usize).min(ITEMS)))
    }
}

/// Ready when a job has outcomes or is idle; tells its progress meanwhile. One that may not write is idle.
struct Ready {
    job: Option<Arc<Job>>,
    reporter: Reporter,
}

#[async_trait]
impl Pollable for Ready {
    async fn ready(&mut self) {
        let Some(job) = &self.job else { return };
        loop {
            tokio::select! {
                biased;
                () = job.ready() => return,
                () = sleep(PROGRESS) => report(job, &self.reporter),
            }
        }
    }
}

fn idle() -> Status {
    Status { idle: true, ..Status::default() }
}
