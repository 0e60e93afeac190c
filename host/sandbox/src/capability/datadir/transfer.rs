//! A component's transfer jobs. The component determines which object is written to which file; the threads of the data plane copy the
//! objects.

use std::sync::Arc;
use std::time::Duration;

use ::foundation::rooted::RelativePath;
use ::transfer::budget::{ALLOCATION_OVERHEAD, Charge};
use ::transfer::chain::Chain;
use ::transfer::error::Kind;
use ::transfer::job::{Action, Fetch, Job, Status, Unpack};
use ::transfer::listing::{Listed, Listing};
use ::transfer::pages::PageChecks;
use ::transfer::pipeline::Pipeline;
use ::transfer::target::RefusedPath;
use async_trait::async_trait;
use replica::CapabilityKind;
use tokio::time::{Instant, sleep, timeout};
use wasmtime::component::Resource;
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};

use super::Datadir;
use crate::answer::{Answer, HostError};
use crate::capability::Keys;
use crate::capability::stores::{Bucket, StoreName};
use crate::plane::report;
use crate::reporter::Reporter;
use crate::state::State;
use crate::text::printable;

/// How many items one call accepts, and how many outcomes or names one call returns.
pub(super) const ITEMS: usize = 4096;
/// How often progress is reported while the component waits.
const PROGRESS: Duration = Duration::from_millis(100);

/// A job that a component holds.
#[expect(unreachable_pub, reason = "the bindings export it again")]
pub struct TransferJob {
    /// `None` if nothing may be written (in `plan` and `describe`).
    job: Option<Arc<Job>>,
    /// The store name of each origin, in the order of the origins' indexes, with the memory charged for the name.
    origins: Vec<(StoreName, Charge)>,
}

/// A listing of files that a component holds. All archives that are compared with the listing while they are unpacked share it.
#[expect(unreachable_pub, reason = "the bindings export it again")]
pub struct FileListing(Arc<Listing>);

/// How one item ended.
pub(crate) struct Outcome {
    /// The index of the item in the order in which the items were added, from 0.
    pub(crate) index: u32,
    /// The result.
    pub(crate) ended: Result<Action, HostError>,
}

/// Functions of the resource `job`.
impl State {
    /// Makes a job. In `plan` and `describe`, where jobs may not write, the job is always idle.
    ///
    /// # Errors
    /// Ends the component with a trap if it makes too many jobs.
    pub(crate) fn new_job(&mut self, report_all: bool) -> wasmtime::Result<Resource<TransferJob>> {
        let job = match &mut self.job.plane {
            Some(plane) => plane.job(report_all)?,
            None => None,
        };
        Ok(self.table.push(TransferJob { job, origins: Vec::new() })?)
    }

    /// Adds an origin of items: a store and a pipeline. Returns its index, from 0.
    ///
    /// # Errors
    /// `Denied` if nothing may be written, or if the key is not bound to the store; `Limit` if there are too many origins.
    pub(crate) fn add_origin_to(
        &mut self,
        job: &Resource<TransferJob>,
        bucket: &Resource<Bucket>,
        via: Option<&Resource<Pipeline>>,
    ) -> Answer<u32> {
        let name = self.table.get(bucket).ok().map(|bucket| &bucket.name);
        let capability = name.map_or(CapabilityKind::Store, StoreName::capability);
        let object = || name.map_or_else(String::new, |name| name.as_str().to_owned());
        let call = self.reporter.call(capability, "transfer.add-origin", object);
        call.end(self.add_origin(job, bucket, via))
    }

    fn add_origin(
        &mut self,
        job: &Resource<TransferJob>,
        bucket: &Resource<Bucket>,
        via: Option<&Resource<Pipeline>>,
    ) -> Answer<u32> {
        let via = self.pipeline(via)?;
        let (name, store) = {
            let bucket = self.table.get(bucket)?;
            (bucket.name.clone(), bucket.store.clone())
        };
        let work = self.writable_job(job)?;
        let plane = self.plane().ok_or_else(|| self.no_transfer())?;
        plane.may_decrypt(name.as_str(), &via).map_err(|(what, line)| self.denied(&Keys, what, line))?;
        // The component may drop the bucket before the job. Then only the job holds the name, so the job is charged for it.
        let bytes =
            name.as_str().len() as u64 + 2 * (size_of::<(StoreName, Charge)>() as u64 + ALLOCATION_OVERHEAD);
        let charged = self.files.bounds.memory.charge(bytes, "another origin of the job");
        let added = charged.and_then(|charge| Ok((work.add_origin(store, via)?, charge)));
        let (index, charge) = added.map_err(|error| self.error(error))?;
        self.table.get_mut(job)?.origins.push((name, charge));
        Ok(index)
    }

    /// Has the pages of relations checked in every file that the job writes.
    ///
    /// # Errors
    /// `Denied` if nothing may be written; otherwise the error of the job.
    pub(crate) fn check_pages_of(&mut self, job: &Resource<TransferJob>, checks: PageChecks) -> Answer<()> {
        let work = self.writable_job(job)?;
        Ok(work.check_pages(checks).map_err(|error| self.error(error))?)
    }

    /// Returns the capability that opens this origin of a job, for the record of a call; `store` if there is no such origin.
    pub(super) fn opens_origin(&self, job: &Resource<TransferJob>, origin: Option<u32>) -> CapabilityKind {
        let job = self.table.get(job).ok().zip(origin);
        let origin = job.and_then(|(job, origin)| job.origins.get(origin as usize));
        origin.map_or(CapabilityKind::Store, |(name, _)| name.capability())
    }

    /// Adds files to fetch. If one of them is refused, adds none. Reports the job's progress while it waits for room in the queue.
    ///
    /// # Errors
    /// `Denied` if a path may not be written or an object holds a key, `Limit` if there are too many items; otherwise the error of the job.
    pub(crate) async fn fetch_files(&mut self, job: &Resource<TransferJob>, items: Vec<Fetch>) -> Answer<()> {
        self.fetch_in(job, items, None).await
    }

    /// Adds files to fetch, which belong to a chain if `chain` is given.
    ///
    /// # Errors
    /// The errors of [`State::fetch_files`].
    pub(super) async fn fetch_in(
        &mut self,
        job: &Resource<TransferJob>,
        items: Vec<Fetch>,
        chain: Option<Arc<Chain>>,
    ) -> Answer<()> {
        let capability = self.opens_origin(job, items.first().map(|item| item.origin));
        let call = self.reporter.call(capability, "transfer.fetch", || match items.as_slice() {
            [] => String::new(),
            [item] => item_text(&item.object, &item.path),
            [item, more @ ..] => format!("{} and {} more", item_text(&item.object, &item.path), more.len()),
        });
        let answer: Answer<()> = async move {
            let work = self.writable_job(job)?;
            let held = self.table.get(job)?;
            self.check_count(&items)?;
            for item in &items {
                self.check_path(&item.path)?;
                self.check_object(held, item.origin, &item.object)?;
            }
            let adds = Arc::clone(&work);
            self.while_reporting(&work, async move {
                match chain {
                    None => adds.fetch(items).await,
                    Some(chain) => adds.fetch_link(items, chain).await,
                }
            })
            .await
        }
        .await;
        call.end_unless_ok(answer)
    }

    /// Adds one archive to unpack. Its files are compared with the listing, if there is one, while they are written.
    ///
    /// # Errors
    /// The errors of [`State::fetch_files`].
    pub(crate) async fn unpack_archive(
        &mut self,
        job: &Resource<TransferJob>,
        item: Unpack,
        files: Option<&Resource<FileListing>>,
    ) -> Answer<()> {
        self.unpack_in(job, item, files, None).await
    }

    /// Adds one archive, which belongs to a chain if `chain` is given.
    ///
    /// # Errors
    /// The errors of [`State::fetch_files`].
    pub(super) async fn unpack_in(
        &mut self,
        job: &Resource<TransferJob>,
        item: Unpack,
        files: Option<&Resource<FileListing>>,
        chain: Option<Arc<Chain>>,
    ) -> Answer<()> {
        let capability = self.opens_origin(job, Some(item.origin));
        let call = self.reporter.call(capability, "transfer.unpack", || item_text(&item.object, &item.path));
        let answer: Answer<()> = async move {
            let work = self.writable_job(job)?;
            let held = self.table.get(job)?;
            self.check_count(&item.skip)?;
            self.check_count(&item.refuse)?;
            self.check_path(&item.path)?;
            self.check_object(held, item.origin, &item.object)?;
            let files = match files {
                Some(files) => Some(Arc::clone(&self.table.get(files)?.0)),
                None => None,
            };
            let adds = Arc::clone(&work);
            self.while_reporting(&work, async move {
                match chain {
                    None => adds.unpack(item, files).await,
                    Some(chain) => adds.unpack_link(item, files, chain).await,
                }
            })
            .await
        }
        .await;
        call.end_unless_ok(answer)
    }

    /// Waits until the job is idle or the run is cancelled, but at most `at_most_ms` milliseconds.
    pub(crate) async fn wait_for_job(
        &mut self,
        job: &Resource<TransferJob>,
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

    /// Takes up to `max` outcomes from the job.
    pub(crate) fn outcomes_of(
        &mut self,
        job: &Resource<TransferJob>,
        max: u32,
    ) -> wasmtime::Result<Vec<Outcome>> {
        let Some(work) = self.table.get(job)?.job.clone() else { return Ok(Vec::new()) };
        report(&work, &self.reporter);
        let outcomes = work.outcomes((max as usize).min(ITEMS)).into_iter();
        let reported = outcomes.map(|outcome| Outcome {
            index: outcome.index,
            ended: outcome.ended.map_err(|error| self.error(error)),
        });
        Ok(reported.collect())
    }

    /// Returns a pollable that is ready when the job has outcomes or is idle.
    pub(crate) fn subscribe_to_job(
        &mut self,
        job: &Resource<TransferJob>,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        let ready = Ready { job: self.table.get(job)?.job.clone(), reporter: self.reporter.clone() };
        let ready = self.table.push(ready)?;
        subscribe(&mut self.table, ready)
    }

    /// Cancels a job. When this function returns, the job does not write any more.
    pub(crate) async fn cancel_job(&mut self, job: &Resource<TransferJob>) -> wasmtime::Result<()> {
        if let Some(work) = self.table.get(job)?.job.clone() {
            work.cancel().await;
            report(&work, &self.reporter);
        }
        Ok(())
    }

    /// Cancels a job and drops it.
    pub(crate) async fn drop_job(&mut self, job: Resource<TransferJob>) -> wasmtime::Result<()> {
        let TransferJob { job, .. } = self.table.delete(job)?;
        let reporter = self.reporter.clone();
        if let (Some(job), Some(plane)) = (job, &mut self.job.plane) {
            plane.end_job(&job, &reporter).await;
        }
        Ok(())
    }

    /// Returns the job that a handle refers to.
    ///
    /// # Errors
    /// `Denied` if the job may not write.
    pub(super) fn writable_job(&self, job: &Resource<TransferJob>) -> Answer<Arc<Job>> {
        let job = self.table.get(job)?.job.clone();
        Ok(job.ok_or_else(|| self.no_transfer())?)
    }

    /// Returns the denial of a transfer in `plan` or `describe`, where nothing may be written.
    fn no_transfer(&self) -> HostError {
        let what = "a transfer into the data directory (nothing may be written in plan)";
        self.denied(&Datadir, what.to_owned(), None)
    }

    /// Checks an item's target path with [`Target::check_path`](::transfer::target::Target::check_path). The job itself refuses paths that
    /// lead out of the data directory, and invalid names of archive members.
    ///
    /// # Errors
    /// `Denied` if the name is reserved or a tablespace is not mapped, `Invalid` for any other path that cannot be written.
    pub(super) fn check_path(&self, path: &str) -> Result<(), HostError> {
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
                self.denied(&Datadir, format!("{} (this name is reserved for the host)", shown()), None)
            }
            RefusedPath::UnmappedTablespace(oid) => self.unmapped_tablespace(oid),
            RefusedPath::NotATablespace => invalid(&why),
        })
    }

    /// Refuses an object from which a key was derived: if the object were written to a file, the component could read the key there.
    ///
    /// # Errors
    /// `Denied` if a key was derived from the object.
    pub(super) fn check_object(&self, job: &TransferJob, origin: u32, object: &str) -> Result<(), HostError> {
        let held = job.origins.get(origin as usize).zip(self.plane());
        if held.is_some_and(|((store, _), plane)| plane.holds_a_key(store.as_str(), object)) {
            let what =
                format!("{} in the data directory (a key was derived from it)", printable(object, 256));
            return Err(self.denied(&Keys, what, None));
        }
        Ok(())
    }

    pub(super) fn check_count<T>(&self, items: &[T]) -> Result<(), HostError> {
        match items.len() {
            0..=ITEMS => Ok(()),
            more => {
                Err(self
                    .fails(Kind::Limit, &format!("the call has {more} items: at most {ITEMS} are allowed")))
            }
        }
    }

    /// Runs `work` on the plane's threads. Reports the job's progress until `work` ends.
    pub(super) async fn while_reporting(
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

/// Functions of the resource `listing`: the files that archives must contain.
impl State {
    /// Makes an empty listing.
    pub(crate) fn new_listing(&mut self) -> wasmtime::Result<Resource<FileListing>> {
        let listing = Listing::within(&self.files.bounds.memory);
        Ok(self.table.push(FileListing(Arc::new(listing)))?)
    }

    /// Adds files to a listing. If one of them is refused, adds none.
    ///
    /// # Errors
    /// `Limit` if there are too many files; otherwise the error of the listing.
    pub(crate) fn list_files(&mut self, listing: &Resource<FileListing>, files: Vec<Listed>) -> Answer<()> {
        let listing = &self.table.get(listing)?.0;
        self.check_count(&files)?;
        Ok(listing.add(files).map_err(|error| self.error(error))?)
    }

    /// Adds paths that an archive may contain although they are not listed.
    ///
    /// # Errors
    /// The errors of [`State::list_files`].
    pub(crate) fn tolerate_files(
        &mut self,
        listing: &Resource<FileListing>,
        paths: Vec<String>,
    ) -> Answer<()> {
        let listing = &self.table.get(listing)?.0;
        self.check_count(&paths)?;
        Ok(listing.tolerate(paths).map_err(|error| self.error(error))?)
    }

    /// Returns up to `max` of the listed files that no archive has contained yet.
    pub(crate) fn missing_files(
        &mut self,
        listing: &Resource<FileListing>,
        max: u32,
    ) -> wasmtime::Result<Vec<String>> {
        Ok(self.table.get(listing)?.0.missing((max as usize).min(ITEMS)))
    }
}

/// Returns the text that names a refused item in the record of a call. An item that was added has its own record, made when the item ends.
pub(super) fn item_text(object: &str, path: &str) -> String {
    format!("{object} -> {path}")
}

/// A pollable that is ready when a job has outcomes or is idle. Reports the job's progress while a component waits for it.
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
