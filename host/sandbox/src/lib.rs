//! Replica methods that are WebAssembly components. Each run has a thread, a store and a Landlock domain of its
//! own, and sees the data directory, what the operator granted, and nothing else.
//!
//! A call of a component goes through three layers. The module of its version of the contract (`v0_1`) turns the contract's types into the
//! host's and calls one function of the host. The capability (`capability`) decides: it checks the grant, keeps the limits, denies, and
//! does the work or hands it to the data plane (`plane`). What is denied or fails is told by `answer`, without secrets. `contracts` lists the
//! versions, `capability::CAPABILITIES` the capabilities.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod answer;
mod cancellation;
mod capability;
mod component;
mod component_source;
mod contracts;
mod describe;
mod digests;
mod ended;
mod engine;
mod failure;
mod files;
mod grants;
mod image;
mod inspection;
mod last_word;
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

pub use capability::{DiskBudget, KeyGrant, not_enforced};
pub use component_source::ComponentSource;
/// What grants are made of.
pub use foundation::{
    secret::Secret,
    units::{BytesPerSecond, NotASpeed},
};
pub use grants::Grants;
pub use image::{CompileBounds, Compiler, compiler_main};
pub use inspection::{Description, Inspection, Kind, Need, NeedKind, OptionSpec};
pub use method::ComponentMethod;
pub use sandbox::{Sandbox, SandboxError, TooManySecrets};
pub use settings::{MethodSettings, OptionValue, SandboxSettings};
pub use transfer::store::{Renewal, Retry, StoreConfig};
