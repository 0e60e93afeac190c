//! Asking whether the run is being cancelled: a chance to end well. A component that does not take it is ended all the same.

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
    /// Whether the run is being cancelled.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// Gives what is ready once the run is being cancelled.
    pub(crate) fn cancelled(&mut self) -> wasmtime::Result<Resource<DynPollable>> {
        let cancelled = self.table.push(Cancelled(self.cancel.clone()))?;
        subscribe(&mut self.table, cancelled)
    }
}
