//! One call of a component, on the calling thread, which belongs to it.

use std::future::Future;

use replica::SealRequests;
use wasmtime::{Engine, Store, UpdateDeadline};

use crate::state::State;
use crate::thread::Quiet;

/// Bytes that one host call may copy out of the component: lists and strings of all its arguments.
const HOSTCALL_BYTES: usize = 16 << 20;
/// Handles that all instances of a store may hold at once.
const HANDLES: usize = 4096;

/// What is left of a call when its store is gone.
#[derive(Debug, Default)]
pub(crate) struct Left {
    /// What the method asked the host to do at the seal.
    pub(crate) filled: SealRequests,
    /// Why it could not write something, where that was for want of space.
    pub(crate) full: Option<String>,
    /// Its last lines on standard error.
    pub(crate) stderr: Vec<String>,
}

/// Runs `call` with a new store until it ends, or until `stop` does: then it is dropped where it stands, and the
/// answer is none. A component that computes is interrupted at the next tick of the epoch. `quiet` hears when nothing of it
/// writes any more.
///
/// # Errors
/// The trap that ended it.
pub(crate) fn call<T, S: Future<Output = ()>>(
    engine: &Engine,
    state: State,
    quiet: &Quiet,
    stop: impl FnOnce() -> S,
    call: impl AsyncFnOnce(&mut Store<State>) -> wasmtime::Result<T>,
) -> (wasmtime::Result<Option<T>>, Left) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_time().build() {
        Ok(runtime) => runtime,
        Err(error) => return (Err(error.into()), Left::default()),
    };
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.memory);
    store.set_hostcall_fuel(HOSTCALL_BYTES);
    store.set_max_component_handles(HANDLES);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|_| Ok(UpdateDeadline::Yield(1)));
    // The future is dropped at the end of this block, before the store, and the store before the runtime.
    let ended = runtime.block_on(async {
        tokio::select! {
            biased;
            () = stop() => Ok(None),
            ended = call(&mut store) => ended.map(Some),
        }
    });
    // No code of the component runs from here on.
    let withdrawn = runtime.block_on(store.data_mut().end());
    quiet.say();
    drop(withdrawn);
    let state = store.into_data();
    state.flush();
    let left =
        Left { filled: state.job.filled.clone(), full: state.files.quota.full(), stderr: state.last_lines() };
    drop(state);
    (ended, left)
}
