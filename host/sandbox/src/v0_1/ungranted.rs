//! `keys`, `store`, `transfer` and `program`: always linked, and nothing of them can be granted yet. Every function
//! that gives a key, a store or a result answers `denied`; a pipeline or a job, whose constructors cannot fail, is an
//! empty handle that does nothing.

use async_trait::async_trait;
use replica::Denial;
use wasmtime::component::Resource;
use wasmtime_wasi::p2::{DynInputStream, DynPollable, Pollable, subscribe};

use super::interfaces::types::Error;
use super::interfaces::{keys, program, store, transfer};
use crate::state::State;
use crate::text::printable;

impl State {
    /// Answers that `what` is denied, and tells it. No line would allow it: this version has no such grant.
    fn ungranted(&self, capability: &'static str, what: String) -> Error {
        let message = format!("{what}: this version of the program cannot grant it");
        self.reporter.denied(Denial { capability, what, remedy: String::new() });
        Error::Denied(message)
    }
}

/// A handle that a component cannot have.
fn unreachable<T>() -> wasmtime::Result<T> {
    Err(wasmtime::format_err!("a handle that was never given"))
}

fn named(what: &str, name: &str) -> String {
    format!("the {what} {}", printable(name, 64))
}

impl keys::HostKey for State {
    fn named(&mut self, name: String) -> wasmtime::Result<Result<Resource<keys::Key>, Error>> {
        Ok(Err(self.ungranted("key", named("key", &name))))
    }

    fn drop(&mut self, _key: Resource<keys::Key>) -> wasmtime::Result<()> {
        unreachable()
    }
}

impl keys::Host for State {
    fn sha1_of(&mut self, _parts: Vec<keys::Part>) -> wasmtime::Result<Result<Vec<u8>, Error>> {
        Ok(Err(self.ungranted("key", "a digest over a key".to_owned())))
    }
}

impl store::HostPipeline for State {
    fn new(&mut self) -> wasmtime::Result<Resource<store::Pipeline>> {
        Ok(Resource::new_own(0))
    }

    fn decrypt(
        &mut self,
        _pipeline: Resource<store::Pipeline>,
        _key: Resource<keys::Key>,
        _format: store::CipherFormat,
    ) -> wasmtime::Result<()> {
        unreachable()
    }

    fn decompress(
        &mut self,
        _pipeline: Resource<store::Pipeline>,
        _codec: store::Codec,
    ) -> wasmtime::Result<()> {
        Ok(())
    }

    fn drop(&mut self, _pipeline: Resource<store::Pipeline>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl store::HostBucket for State {
    fn open(&mut self, name: String) -> wasmtime::Result<Result<Resource<store::Bucket>, Error>> {
        Ok(Err(self.ungranted("store", named("store", &name))))
    }

    fn scan(
        &mut self,
        _bucket: Resource<store::Bucket>,
        _prefix: String,
        _after: Option<String>,
    ) -> wasmtime::Result<Result<store::Page, Error>> {
        unreachable()
    }

    fn head(
        &mut self,
        _bucket: Resource<store::Bucket>,
        _key: String,
    ) -> wasmtime::Result<Result<store::Object, Error>> {
        unreachable()
    }

    fn get(
        &mut self,
        _bucket: Resource<store::Bucket>,
        _key: String,
        _via: Option<Resource<store::Pipeline>>,
        _limit: u32,
    ) -> wasmtime::Result<Result<Vec<u8>, Error>> {
        unreachable()
    }

    fn read(
        &mut self,
        _bucket: Resource<store::Bucket>,
        _key: String,
        _range: Option<store::Range>,
        _via: Option<Resource<store::Pipeline>>,
    ) -> wasmtime::Result<Result<Resource<DynInputStream>, Error>> {
        unreachable()
    }

    fn derive_key(
        &mut self,
        _bucket: Resource<store::Bucket>,
        _key: String,
        _via: Resource<store::Pipeline>,
        _section: String,
        _name: String,
    ) -> wasmtime::Result<Result<Resource<keys::Key>, Error>> {
        unreachable()
    }

    fn drop(&mut self, _bucket: Resource<store::Bucket>) -> wasmtime::Result<()> {
        unreachable()
    }
}

impl store::Host for State {}

/// Ready at once: a job without work is idle.
struct Idle;

#[async_trait]
impl Pollable for Idle {
    async fn ready(&mut self) {}
}

impl transfer::HostJob for State {
    fn new(&mut self, _report_all: bool) -> wasmtime::Result<Resource<transfer::Job>> {
        Ok(Resource::new_own(0))
    }

    fn add_origin(
        &mut self,
        _job: Resource<transfer::Job>,
        _bucket: Resource<store::Bucket>,
        _via: Option<Resource<store::Pipeline>>,
    ) -> wasmtime::Result<Result<u32, Error>> {
        unreachable()
    }

    fn fetch(
        &mut self,
        _job: Resource<transfer::Job>,
        _items: Vec<transfer::Fetch>,
    ) -> wasmtime::Result<Result<(), Error>> {
        Ok(Err(self.ungranted("store", "a transfer from a store".to_owned())))
    }

    fn unpack(
        &mut self,
        _job: Resource<transfer::Job>,
        _item: transfer::Unpack,
    ) -> wasmtime::Result<Result<(), Error>> {
        Ok(Err(self.ungranted("store", "a transfer from a store".to_owned())))
    }

    fn wait(
        &mut self,
        _job: Resource<transfer::Job>,
        _at_most_ms: u32,
    ) -> wasmtime::Result<transfer::Status> {
        Ok(transfer::Status { queued: 0, done: 0, failed: 0, bytes: 0, idle: true })
    }

    fn outcomes(
        &mut self,
        _job: Resource<transfer::Job>,
        _max: u32,
    ) -> wasmtime::Result<Vec<transfer::Outcome>> {
        Ok(Vec::new())
    }

    fn subscribe(&mut self, _job: Resource<transfer::Job>) -> wasmtime::Result<Resource<DynPollable>> {
        let idle = self.table.push(Idle)?;
        subscribe(&mut self.table, idle)
    }

    fn cancel(&mut self, _job: Resource<transfer::Job>) -> wasmtime::Result<()> {
        Ok(())
    }

    fn drop(&mut self, _job: Resource<transfer::Job>) -> wasmtime::Result<()> {
        Ok(())
    }
}

impl transfer::Host for State {}

impl program::Host for State {
    fn run(
        &mut self,
        name: String,
        _arguments: Vec<String>,
    ) -> wasmtime::Result<Result<program::Completed, Error>> {
        Ok(Err(self.ungranted("program", named("program", &name))))
    }
}
