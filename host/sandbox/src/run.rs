//! Runs one call of a component on the calling thread, which runs nothing else.

use std::future::Future;
use std::time::Duration;

use replica::SealRequests;
use wasmtime::{Engine, Store, UpdateDeadline};

use crate::state::State;
use crate::thread::WritesEnded;

/// How many bytes one host call may copy out of the component: the lists and strings of all its arguments.
const HOSTCALL_BYTES: usize = 16 << 20;
/// How many handles all instances of a store may hold at once.
const HANDLES: usize = 4096;

/// What is known about a call after its wasmtime store was dropped.
#[derive(Debug, Default)]
pub(crate) struct Left {
    /// What the method requested for the seal.
    pub(crate) filled: SealRequests,
    /// Why a write failed for lack of space; `None` if none did.
    pub(crate) full: Option<String>,
    /// The last lines that the component printed to standard error.
    pub(crate) stderr: Vec<String>,
    /// How many bytes of memory the component held.
    pub(crate) memory: u64,
    /// How much processor time the call used.
    pub(crate) cpu: Duration,
}

/// Runs `call` with a new wasmtime store until either `call` or `stop` ends. If `stop` ends first, drops the call and returns `None`. A
/// component that computes is interrupted at the next tick of the epoch. Sets `writes_ended` when neither the component nor its jobs can
/// write any more.
///
/// # Errors
/// Returns the trap that ended the call.
pub(crate) fn call<T, S: Future<Output = ()>>(
    engine: &Engine,
    state: State,
    writes_ended: &WritesEnded,
    stop: impl FnOnce() -> S,
    call: impl AsyncFnOnce(&mut Store<State>) -> wasmtime::Result<T>,
) -> (wasmtime::Result<Option<T>>, Left) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return (Err(error.into()), Left::default()),
    };
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.memory);
    store.set_hostcall_fuel(HOSTCALL_BYTES);
    store.set_max_component_handles(HANDLES);
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|store| {
        store.data().cpu.check()?;
        Ok(UpdateDeadline::Yield(1))
    });
    // Order matters: the future is dropped at the end of this block, the store after it, and the runtime last.
    let ended = runtime.block_on(async {
        tokio::select! {
            biased;
            () = stop() => Ok(None),
            ended = call(&mut store) => ended.map(Some),
        }
    });
    // No code of the component runs after this point.
    let withdrawn = runtime.block_on(store.data_mut().end());
    writes_ended.set();
    drop(withdrawn);
    let state = store.into_data();
    state.flush();
    let left = Left {
        filled: state.job.filled.clone(),
        full: state.files.quota.full(),
        stderr: state.last_lines(),
        memory: state.memory.held(),
        cpu: state.cpu.used(),
    };
    drop(state);
    (ended, left)
}
