//! Environment variables: `environment`. The interface of WASI is linked, but this version cannot grant it: a component finds no
//! variable and no argument, and the configuration refuses the key.

use replica::CapabilityKind;
use wasmtime::component::Linker;
use wasmtime_wasi::cli::{WasiCli, WasiCliView};
use wasmtime_wasi::p2::bindings::cli;

use super::Capability;
use crate::inspection::NeedKind;
use crate::state::State;

/// The capability to read environment variables.
pub(crate) struct Environment;

impl Capability for Environment {
    fn kind(&self) -> CapabilityKind {
        CapabilityKind::Environment
    }

    fn key(&self) -> &'static str {
        "environment"
    }

    fn meets(&self) -> Option<NeedKind> {
        Some(NeedKind::Environment)
    }

    /// Links WASI's own implementation, whose context never gets a variable.
    fn link(&self, linker: &mut Linker<State>) -> wasmtime::Result<()> {
        cli::environment::add_to_linker::<State, WasiCli>(linker, State::cli)
    }
}
