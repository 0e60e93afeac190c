//! Creates a PostgreSQL replica: the loop over the methods, the data directory that they fill, the checks before
//! and after. This crate knows nothing of WebAssembly: a sandboxed component and `pg_basebackup` are both a
//! [`Method`], and the loop cannot tell them apart.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod basebackup;
pub mod create_replica;
pub mod datadir;
pub mod directories;
pub mod event;
pub mod method;
pub mod mounts;
pub mod outcome;
pub mod process;
mod program_version;
pub mod rule;
pub mod run;
pub mod seal;
pub mod source;
pub mod state;
pub mod usage;

pub use create_replica::{
    Cancel, CancelReason, Job, ListedMethod, check_methods, create_replica, methods_to_try,
};
pub use directories::{Directories, TablespaceKey, TablespaceMap};
pub use event::{CapabilityKind, Denial, Event, EventSink, Level};
pub use foundation::printable;
pub use foundation::redact::Redactor;
use foundation::regular_file;
pub use foundation::secret::Secret;
pub use foundation::units::Bytes;
pub use method::{Context, Failure, Method, Plan, Refusal, Request, SealRequests, Signal, Tablespace};
pub use outcome::{Attempt, Finding, Outcome, Report, Result as RunResult};
pub use postgres_formats::Lsn;
pub use rule::Rule;
pub use run::Run;
pub use source::Source;
