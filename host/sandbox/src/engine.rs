//! The wasmtime engine, and the thread that interrupts components.

use std::thread;
use std::time::Duration;

use wasmtime::component::Linker;
use wasmtime::{Config, Engine};

use crate::state::State;
use crate::{contracts, wasi};

/// How often a running component yields to the host. The host's deadlines are no more precise than this.
const TICK: Duration = Duration::from_millis(10);

/// The engine and everything that components may import.
pub(crate) struct Host {
    pub(crate) engine: Engine,
    pub(crate) linker: Linker<State>,
}

impl Host {
    /// Sets up the engine and starts its epoch thread, which ends with the engine.
    pub(crate) fn new() -> wasmtime::Result<Self> {
        let engine = Engine::new(&config())?;
        let mut linker = Linker::new(&engine);
        wasi::add_to_linker(&mut linker)?;
        contracts::link(&mut linker)?;
        let ticked = engine.weak();
        thread::Builder::new().name("epochs".to_owned()).spawn(move || {
            while let Some(engine) = ticked.upgrade() {
                engine.increment_epoch();
                drop(engine);
                thread::sleep(TICK);
            }
        })?;
        Ok(Self { engine, linker })
    }
}

/// Returns the configuration with the WebAssembly features that plugin languages need, and no others.
pub(crate) fn config() -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .wasm_component_model(true)
        .wasm_threads(false)
        .wasm_memory64(false)
        .wasm_gc(false)
        .wasm_function_references(false)
        .wasm_exceptions(false)
        .wasm_tail_call(false)
        .wasm_relaxed_simd(false);
    config
}
