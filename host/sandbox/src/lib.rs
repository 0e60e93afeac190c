//! Replica methods that are WebAssembly components. Each run has a thread, a store and a Landlock domain of its
//! own, and sees the data directory, what the operator granted, and nothing else.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod component;
mod describe;
mod engine;
mod failure;
mod files;
mod grants;
mod image;
mod inspection;
mod landlock;
mod last_word;
mod limits;
mod method;
mod network;
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
mod wasi;

pub use image::{CompileBounds, Compiler, compiler_main};
pub use inspection::{Description, Inspection, Kind, Need, NeedKind, OptionSpec};
pub use method::ComponentMethod;
pub use sandbox::{Sandbox, SandboxError, TooManySecrets};
pub use settings::{DiskBudget, Grants, KeyGrant, MethodSettings, OptionValue, SandboxSettings};
/// What grants are made of.
pub use transfer::{
    secret::Secret,
    store::{Renewal, Retry, StoreConfig},
    units::{BytesPerSecond, NotASpeed},
};
