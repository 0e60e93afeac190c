//! `cancellation`: whether the run is being cancelled.

use wasmtime::component::Resource;
use wasmtime_wasi::p2::DynPollable;

use super::interfaces::cancellation;
use crate::state::State;

impl cancellation::Host for State {
    fn requested(&mut self) -> wasmtime::Result<bool> {
        Ok(self.is_cancelled())
    }

    fn subscribe(&mut self) -> wasmtime::Result<Resource<DynPollable>> {
        self.subscribe_to_cancellation()
    }
}
