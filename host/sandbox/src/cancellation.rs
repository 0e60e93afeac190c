//! Tells a component that the run is being cancelled, so that the component can stop by itself. If it does not stop, the host ends it.

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use wasmtime::component::Resource;
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};

use crate::state::State;

struct Cancelled(CancellationToken);

#[async_trait]
impl Pollable for Cancelled {
    async fn ready(&mut self) {
        self.0.cancelled().await;
    }
}

impl State {
    /// Returns whether the run is being cancelled.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// Returns a pollable that is ready once the run is being cancelled.
    pub(crate) fn subscribe_to_cancellation(&mut self) -> wasmtime::Result<Resource<DynPollable>> {
        let cancelled = self.table.push(Cancelled(self.cancel.clone()))?;
        subscribe(&mut self.table, cancelled)
    }
}
