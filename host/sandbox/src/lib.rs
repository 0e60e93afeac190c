//! Replica methods that are WebAssembly components. Each run has its own thread, wasmtime store and Landlock domain. A component can
//! access the data directory and what the operator granted, and nothing else.
//!
//! A call from a component to the host goes through three layers. The module of the contract's version (`v0_1`) converts the contract's
//! types to the host's and calls one function of the host. The capability (`capability`) checks the grant and the limits, and does the work
//! or gives it to the data plane (`plane`). Errors and denials are made in `answer`, which removes secrets. `contracts` lists the versions,
//! and `capability::CAPABILITIES` lists the capabilities.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod answer;
mod calls;
mod cancellation;
mod capability;
mod component;
mod component_source;
mod contracts;
mod describe;
mod digests;
mod engine;
mod failure;
mod files;
mod grants;
mod guest_failure;
mod image;
mod inspection;
mod last_error;
mod limits;
mod method;
mod options;
mod output;
mod overlap;
mod plan;
mod plane;
mod reporter;
mod run;
mod sandbox;
mod settings;
mod state;
mod text;
mod thread;
mod v0_1;
#[cfg(test)]
#[path = "../tests/v0_2/mod.rs"]
mod v0_2;
mod wasi;

pub use capability::{
    ArgumentPattern, DiskBudget, EnvironmentValue, KeyGrant, NotAPattern, NotAServer, NotAVariable, PATRONI,
    ProgramGrant, Resolve, Server, ServerGrant, SystemResolver, Variables,
};
pub use component_source::ComponentSource;
/// Types that grants contain.
pub use foundation::{
    secret::Secret,
    units::{BytesPerSecond, NotASpeed},
};
pub use grants::Grants;
pub use image::{CompileBounds, Compiler, compiler_main};
pub use inspection::{Description, Inspection, Kind, Need, NeedKind, OptionSpec};
pub use method::ComponentMethod;
pub use reporter::LogBudget;
pub use sandbox::{Sandbox, SandboxError, TooManySecrets};
pub use settings::{MethodSettings, OptionValue, SandboxSettings, Written};
pub use transfer::store::{Credentials, Mistake, Renewal, Retry, StoreConfig, kinds, secrets_of_proxies};
