//! `transfer`: batches of work for the data plane. The component says what goes where; the plane's threads move it.

use std::sync::Arc;
use std::time::Duration;

use ::transfer::beneath::RelativePath;
use ::transfer::budget::{Charge, PIECE};
use ::transfer::digest::Digest;
use ::transfer::job::{Action, Fetch, Job, Outcome, Status, Unless, Unpack};
use ::transfer::listing::{Listed, Listing};
use ::transfer::pipeline::Pipeline;
use ::transfer::target::NotHere;
use async_trait::async_trait;
use tokio::time::{Instant, sleep, timeout};
use wasmtime::component::Resource;
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};

use super::digests::algorithm;
use super::interfaces::transfer;
use super::interfaces::types::Error;
use super::store::{Bucket, range};
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
    /// None where nothing may be written.
    job: Option<Arc<Job>>,
    /// Which objects the origins hold, by their index: the name of the store.
    origins: Vec<(Arc<str>, Charge)>,
}

/// A listing that a component holds; the unpacks that are compared with it hold it too.
#[expect(unreachable_pub, reason = "the bindings export it again")]
pub struct Files(Arc<Listing>);

impl State {
    /// Nothing is written in `plan` nor in `describe`.
    fn no_transfer(&self) -> Error {
        self.denied(
            "write",
            "a transfer into the data directory (nothing is written in plan)".to_owned(),
            None,
        )
    }

    /// The job behind a handle.
    fn work(&self, job: &Resource<Work>) -> wasmtime::Result<Option<Arc<Job>>> {
        Ok(self.table.get(job)?.job.clone())
    }

    /// Refuses what [`Target::judge`] refuses, as a denial where it is one. What leaves the data directory the job itself
    /// refuses, and what the members of an archive are called.
    fn may_write(&self, path: &str) -> Result<(), Error> {
        let Some(target) = self.plane().and_then(|plane| plane.target()) else {
            return Err(self.no_transfer());
        };
        if path.is_empty() {
            return Ok(());
        }
        let shown = || printable(path, 256);
        let relative =
            RelativePath::new(path).map_err(|error| Error::Invalid(format!("{}: {error}", shown())))?;
        target.judge(&relative).map_err(|why| match why {
            NotHere::ControlFile => {
                self.denied("write", format!("{} (the name is the host's)", shown()), None)
            }
            NotHere::UnmappedTablespace(oid) => self.unmapped_tablespace(oid),
            NotHere::NotATablespace => Error::Invalid(format!("{}: {why}", shown())),
        })
    }

    /// Refuses to write an object that holds a key which the component must not see.
    fn may_take(&self, job: &Work, origin: u32, object: &str) -> Result<(), Error> {
        let held = job.origins.get(origin as usize).zip(self.plane());
        if held.is_some_and(|((store, _), plane)| plane.holds_a_key(store, object)) {
            let what =
                format!("{} in the data directory (a key was derived from it)", printable(object, 256));
            return Err(self.denied("key", what, None));
        }
        Ok(())
    }

    fn outcome(&self, outcome: Outcome) -> transfer::Outcome {
        let ended = match outcome.ended {
            Ok(Action::Written) => Ok(transfer::Action::Written),
            Ok(Action::Kept) => Ok(transfer::Action::Kept),
            Err(error) => Err(self.error(error)),
        };
        transfer::Outcome { index: outcome.index, ended }
    }
}

/// Waits for `work`, telling meanwhile what the job has done.
async fn while_telling<T>(job: &Job, reporter: &Reporter, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        match timeout(PROGRESS, &mut work).await {
            Ok(ended) => return ended,
            Err(_) => report(job, reporter),
        }
    }
}

fn too_many<T>(items: &[T]) -> Result<(), Error> {
    match items.len() {
        0..=ITEMS => Ok(()),
        more => Err(Error::Limit(format!("{more} at once: at most {ITEMS} a call"))),
    }
}

impl transfer::HostJob for State {
    async fn new(&mut self, report_all: bool) -> wasmtime::Result<Resource<Work>> {
        let job = match &mut self.job.plane {
            Some(plane) => plane.job(report_all)?,
            None => None,
        };
        Ok(self.table.push(Work { job, origins: Vec::new() })?)
    }

    async fn add_origin(
        &mut self,
        job: Resource<Work>,
        bucket: Resource<Bucket>,
        via: Option<Resource<Pipeline>>,
    ) -> wasmtime::Result<Result<u32, Error>> {
        let via = self.pipeline(via.as_ref())?;
        let (name, store) = {
            let bucket = self.table.get(&bucket)?;
            (bucket.name.clone(), bucket.store.clone())
        };
        let Some(work) = self.work(&job)? else { return Ok(Err(self.no_transfer())) };
        if let Some(Err((what, line))) = self.plane().map(|plane| plane.may_decrypt(&name, &via)) {
            return Ok(Err(self.denied("key", what, line)));
        }
        // Each bucket has its name for itself, and it may be gone.
        let bytes = name.len() as u64 + 2 * (size_of::<(Arc<str>, Charge)>() as u64 + PIECE);
        let charged = self.files.bounds.memory.charge(bytes, "another origin of the job");
        match charged.and_then(|charge| Ok((work.add_origin(store, via)?, charge))) {
            Ok((index, charge)) => {
                self.table.get_mut(&job)?.origins.push((name, charge));
                Ok(Ok(index))
            }
            Err(error) => Ok(Err(self.error(error))),
        }
    }

    async fn fetch(
        &mut self,
        job: Resource<Work>,
        items: Vec<transfer::Fetch>,
    ) -> wasmtime::Result<Result<(), Error>> {
        let Some(work) = self.work(&job)? else { return Ok(Err(self.no_transfer())) };
        let held = self.table.get(&job)?;
        let may = too_many(&items).and_then(|()| {
            items.iter().try_for_each(|item| {
                self.may_write(&item.path)?;
                self.may_take(held, item.origin, &item.object)
            })
        });
        if let Err(error) = may {
            return Ok(Err(error));
        }
        let Some(plane) = self.plane() else { return Ok(Err(self.no_transfer())) };
        let items = items.into_iter().map(fetch).collect();
        let added = {
            let work = Arc::clone(&work);
            plane.run(async move { work.fetch(items).await })
        };
        let added = while_telling(&work, &self.reporter, added).await;
        Ok(added.map_err(|error| self.error(error)))
    }

    async fn unpack(
        &mut self,
        job: Resource<Work>,
        item: transfer::Unpack,
        files: Option<Resource<Files>>,
    ) -> wasmtime::Result<Result<(), Error>> {
        let Some(work) = self.work(&job)? else { return Ok(Err(self.no_transfer())) };
        let held = self.table.get(&job)?;
        let may = too_many(&item.skip)
            .and_then(|()| too_many(&item.refuse))
            .and_then(|()| self.may_write(&item.path))
            .and_then(|()| self.may_take(held, item.origin, &item.object));
        if let Err(error) = may {
            return Ok(Err(error));
        }
        let files = match files {
            Some(files) => Some(Arc::clone(&self.table.get(&files)?.0)),
            None => None,
        };
        let Some(plane) = self.plane() else { return Ok(Err(self.no_transfer())) };
        let item = Unpack {
            origin: item.origin,
            object: item.object,
            path: item.path,
            limit: item.limit,
            skip: item.skip,
            refuse: item.refuse,
        };
        let added = {
            let work = Arc::clone(&work);
            plane.run(async move { work.unpack(item, files).await })
        };
        let added = while_telling(&work, &self.reporter, added).await;
        Ok(added.map_err(|error| self.error(error)))
    }

    async fn wait(&mut self, job: Resource<Work>, at_most_ms: u32) -> wasmtime::Result<transfer::Status> {
        let Some(work) = self.work(&job)? else { return Ok(status(&idle())) };
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
                return Ok(status(&now));
            }
        }
    }

    async fn outcomes(&mut self, job: Resource<Work>, max: u32) -> wasmtime::Result<Vec<transfer::Outcome>> {
        let Some(work) = self.work(&job)? else { return Ok(Vec::new()) };
        report(&work, &self.reporter);
        let outcomes = work.outcomes((max as usize).min(ITEMS));
        Ok(outcomes.into_iter().map(|outcome| self.outcome(outcome)).collect())
    }

    async fn subscribe(&mut self, job: Resource<Work>) -> wasmtime::Result<Resource<DynPollable>> {
        let ready = Ready { job: self.work(&job)?, reporter: self.reporter.clone() };
        let ready = self.table.push(ready)?;
        subscribe(&mut self.table, ready)
    }

    async fn cancel(&mut self, job: Resource<Work>) -> wasmtime::Result<()> {
        if let Some(work) = self.work(&job)? {
            work.cancel().await;
            report(&work, &self.reporter);
        }
        Ok(())
    }

    async fn drop(&mut self, job: Resource<Work>) -> wasmtime::Result<()> {
        let Work { job, .. } = self.table.delete(job)?;
        let reporter = self.reporter.clone();
        if let (Some(job), Some(plane)) = (job, &mut self.job.plane) {
            plane.end_job(&job, &reporter).await;
        }
        Ok(())
    }
}

impl transfer::HostListing for State {
    async fn new(&mut self) -> wasmtime::Result<Resource<Files>> {
        let listing = Listing::within(&self.files.bounds.memory);
        Ok(self.table.push(Files(Arc::new(listing)))?)
    }

    async fn add(
        &mut self,
        listing: Resource<Files>,
        files: Vec<transfer::Listed>,
    ) -> wasmtime::Result<Result<(), Error>> {
        let listing = &self.table.get(&listing)?.0;
        if let Err(error) = too_many(&files) {
            return Ok(Err(error));
        }
        let files = files
            .into_iter()
            .map(|file| Listed { path: file.path, size: file.size, digest: file.digest.map(digest) })
            .collect();
        Ok(listing.add(files).map_err(|error| self.error(error)))
    }

    async fn tolerate(
        &mut self,
        listing: Resource<Files>,
        paths: Vec<String>,
    ) -> wasmtime::Result<Result<(), Error>> {
        let listing = &self.table.get(&listing)?.0;
        if let Err(error) = too_many(&paths) {
            return Ok(Err(error));
        }
        Ok(listing.tolerate(paths).map_err(|error| self.error(error)))
    }

    async fn missing(&mut self, listing: Resource<Files>, max: u32) -> wasmtime::Result<Vec<String>> {
        Ok(self.table.get(&listing)?.0.missing((max as usize).min(ITEMS)))
    }

    async fn drop(&mut self, listing: Resource<Files>) -> wasmtime::Result<()> {
        self.table.delete(listing)?;
        Ok(())
    }
}

impl transfer::Host for State {}

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
    Status { queued: 0, done: 0, failed: 0, bytes: 0, files: 0, idle: true }
}

fn status(status: &Status) -> transfer::Status {
    transfer::Status {
        queued: status.queued,
        done: status.done,
        failed: status.failed,
        bytes: status.bytes,
        idle: status.idle,
    }
}

fn fetch(item: transfer::Fetch) -> Fetch {
    Fetch {
        origin: item.origin,
        object: item.object,
        range: item.range.map(range),
        path: item.path,
        at: item.at,
        size: item.size,
        digest: item.digest.map(digest),
        mode: item.mode,
        mtime: item.mtime,
        unless: match item.unless {
            transfer::Unless::Always => Unless::Always,
            transfer::Unless::SameContent => Unless::SameContent,
            transfer::Unless::SameDigest => Unless::SameDigest,
            transfer::Unless::SameSizeAndTime => Unless::SameSizeAndTime,
        },
    }
}

fn digest(digest: transfer::Digest) -> Digest {
    Digest { algorithm: algorithm(digest.algorithm), value: digest.value }
}
