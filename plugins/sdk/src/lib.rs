//! Write a method of Understudy in Rust.
//!
//! A method is one way to create a PostgreSQL replica. It is a WebAssembly component with three functions:
//! [`describe`](Method::describe) names the method, its options and its needs, [`plan`](Method::plan) says what it would restore, and
//! [`create`](Method::create) fills the data directory. The host does the rest: it checks the plan, empties the directory, runs the
//! method in a sandbox that reaches nothing but its grants, and checks and completes the result.
//!
//! # Example
//!
//! A method that copies the files of one directory, and shows every part:
//!
//! ```
//! use std::fs;
//! use understudy::{AtPath, Datadir, Description, Failure, Method, OptionSpec, Plan, Request, log, progress};
//!
//! struct Copy;
//!
//! impl Method for Copy {
//!     fn describe() -> Description {
//!         Description::new("copy", env!("CARGO_PKG_VERSION"), "copies the files of one folder")
//!             .option(OptionSpec::text("directory").required().doc("the folder that holds the files"))
//!     }
//!
//!     fn plan(request: &Request) -> Result<Plan, Failure> {
//!         let directory: String = request.require("directory")?;
//!         if fs::metadata(&directory).is_err() {
//!             return Err(Failure::not_applicable(format!("there is no {directory}")));
//!         }
//!         Ok(Plan { backup: directory, ..Plan::default() })
//!     }
//!
//!     fn create(request: &Request, plan: &Plan) -> Result<(), Failure> {
//!         let datadir = Datadir::of(request)?;
//!         progress::phase("copying");
//!         for entry in fs::read_dir(&plan.backup).at(&plan.backup)? {
//!             let entry = entry.at(&plan.backup)?;
//!             let name = entry.file_name().into_string().map_err(|_| Failure::failed("a name is not UTF-8"))?;
//!             // Counts bytes and files for the progress bar, and fails with `Failure::Cancelled` once the run is cancelled.
//!             datadir.write(&name, &mut fs::File::open(entry.path()).at(entry.path())?)?;
//!             log::debug!("copied {name}");
//!         }
//!         Ok(())
//!     }
//! }
//!
//! understudy::export!(Copy);
//! # let _ = Copy::describe();
//! ```
//!
//! The crate of a method is a `cdylib`, built with `cargo build --release --target wasm32-wasip2`.
//!
//! # Where to write
//!
//! [`Datadir`] takes the file names of a backup (`base/5/1259`, `pg_wal/…`, `pg_tblspc/16384/…`) and writes each file to the directory
//! that the operator configured. It writes `global/pg_control` under another name, which the host changes at the very end: until then
//! PostgreSQL does not start from the directory. A method creates no symbolic links; the host does.
//!
//! # What to write first
//!
//! A method should write `PG_VERSION` (with [`Datadir::write_version`]) and `backup_label` before everything else. A Patroni that is
//! started during a run reads the version only once, when it starts. If it finds no version, it later mistakes a replica that was restored
//! from a backup for a crashed server, and starts it once in single-user mode. After that the replica can never follow its primary again.
//!
//! # Transfers
//!
//! A method that reads and writes every byte itself decodes on one thread, in WebAssembly. With [`store`] and [`transfer`] the host does
//! that instead: the method looks at the backup and says which object becomes which file. The host reads, decrypts, decompresses, checks
//! and writes many files at once, in native code.
//!
//! # Testing
//!
//! A method also compiles for the machine that builds it. There [`native::Host`] replaces the host, so that `plan` and `create` run in an
//! ordinary `#[test]` against an ordinary directory.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod cancellation;
mod datadir;
mod describe;
pub mod digests;
mod export;
mod failure;
mod grants;
pub mod keys;
pub mod log;
pub mod names;
#[cfg(not(target_family = "wasm"))]
pub mod native;
mod plan;
pub mod program;
pub mod progress;
mod remove;
mod request;
pub mod source;
pub mod store;
pub mod transfer;
mod value;

/// The bindings generated from `wit/`, for functions that this crate does not wrap. Except on `wasm32`, they panic.
#[allow(
    missing_docs,
    unreachable_pub,
    unsafe_code,
    unused_qualifications,
    clippy::allow_attributes_without_reason,
    reason = "wit-bindgen writes it"
)]
pub mod raw {
    wit_bindgen::generate!({
        world: "plugin",
        path: "wit",
        generate_all,
        pub_export_macro: true,
        export_macro_name: "export_plugin",
        default_bindings_module: "::understudy::raw",
    });
}

/// The functions of the host that this crate calls: those of the contract on `wasm32`, a stand-in on other targets.
#[cfg(target_family = "wasm")]
mod host;
#[cfg(not(target_family = "wasm"))]
use native as host;

pub use cancellation::{UntilCancelled, cancelled, is_cancelled, or_cancelled};
pub use datadir::{DataFile, Datadir, Signal, recovery_setting, signal_file};
pub use describe::{Description, Kind, Need, NeedKind, OptionSpec};
#[doc(hidden)]
pub use export::Exported;
pub use failure::{AtPath, Error, Failure};
pub use grants::{granted_directories, is_granted};
pub use names::UNFINISHED_CONTROL_FILE;
pub use plan::{Plan, Tablespace};
pub use remove::EntryKind;
pub use request::{Context, Request};
pub use value::{FromValue, Value};

/// One way to create a replica. Implement it and [`export!`] it.
pub trait Method {
    /// Whether the method needs Patroni's four parameters, one of which is the data directory. If true, which is the default, and the
    /// operator set `no_params`, planning fails, so the data directory is not emptied.
    const NEEDS_PARAMETERS: bool = true;

    /// Returns the method's description. The description must be the same every time: the host calls this function once for each digest of
    /// the component, with all grants denied, a fixed clock, fixed random bytes and a limit of one second.
    fn describe() -> Description;

    /// Returns the plan: what the method would restore. The host calls this function in a separate instance, without write access.
    ///
    /// # Errors
    /// [`Failure::NotApplicable`] if there is nothing to restore; the host then tries the next method. A method should fail here for every
    /// reason that can be known before the data directory is emptied.
    fn plan(request: &Request) -> Result<Plan, Failure>;

    /// Fills the data directory, which the host has emptied unless [`Request::keep_data`] is set. `plan` is the plan that
    /// [`plan`](Self::plan) returned and the host accepted.
    ///
    /// # Errors
    /// Any [`Failure`]; the host then removes what was written.
    fn create(request: &Request, plan: &Plan) -> Result<(), Failure>;
}

/// Compiles the method that the manual shows.
#[cfg(doctest)]
#[doc = include_str!("../writing-a-method.md")]
struct Manual;
