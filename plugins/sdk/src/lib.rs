//! Write a method of Understudy in Rust.
//!
//! A method is one way to create a PostgreSQL replica. It is a WebAssembly component with three functions:
//! [`describe`](Method::describe) says what it is and which options it takes, [`plan`](Method::plan) looks at what it
//! would restore, [`create`](Method::create) fills the data directory. The host does the rest: it checks the plan, empties
//! the directory, runs the method where it reaches nothing but its grants, checks what it left and puts it in place.
//!
//! # Example
//!
//! A method that restores nothing but shows every part:
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
//!             // Counts bytes and files for the progress bar, and ends with `Failure::Cancelled` when told to.
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
//! The crate that holds it is a `cdylib`, built with `cargo build --release --target wasm32-wasip2`.
//!
//! # Where to write
//!
//! [`Datadir`] takes the names that a backup has (`base/5/1259`, `pg_wal/…`, `pg_tblspc/16384/…`) and puts each where the
//! operator wants it. `global/pg_control` it writes under another name, which the host changes at the very end: until then
//! PostgreSQL does not start from the directory. Links are the host's: a method makes none.
//!
//! # What comes first
//!
//! `PG_VERSION`, which [`Datadir::write_version`] writes, and `backup_label` should be there before everything else. A Patroni that
//! is started while a run is at work reads the version once, at its own start; where it finds none it later takes a replica that was
//! restored from a backup for a server that crashed, and runs it once alone, which parts it from its primary for good.
//!
//! # Who moves the bytes
//!
//! A method that carries every byte through its memory decodes on one thread, in WebAssembly. [`store`] and [`transfer`]
//! leave that to the host: the method looks at the backup and says which object becomes which file; reading, decrypting,
//! decompressing, comparing and writing are native, many files at once.
//!
//! # Testing
//!
//! A method also compiles for the machine that builds it. There [`native::Host`] stands where the host would, so that
//! `plan` and `create` run in an ordinary `#[test]` against an ordinary folder.

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
#[cfg(not(target_family = "wasm"))]
pub mod native;
mod plan;
pub mod progress;
mod remove;
mod request;
pub mod source;
pub mod store;
pub mod transfer;
mod value;

/// The contract as generated from `wit/`, for what this crate does not wrap: programs. Off `wasm32` its functions panic.
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
        path: "../../wit",
        generate_all,
        pub_export_macro: true,
        export_macro_name: "export_plugin",
        default_bindings_module: "::understudy::raw",
    });
}

/// The functions of the host that this crate calls: the contract's on `wasm32`, a stand-in elsewhere.
#[cfg(target_family = "wasm")]
mod host;
#[cfg(not(target_family = "wasm"))]
use native as host;

pub use cancellation::{UntilCancelled, cancelled, is_cancelled};
pub use datadir::{DataFile, Datadir, Signal, UNFINISHED_CONTROL_FILE, recovery_setting, signal_file};
pub use describe::{Description, Kind, Need, NeedKind, OptionSpec};
#[doc(hidden)]
pub use export::Exported;
pub use failure::{AtPath, Error, Failure};
pub use grants::{granted_directories, is_granted};
pub use plan::{Plan, Tablespace};
pub use remove::EntryKind;
pub use request::{Context, Request};
pub use value::{FromValue, Value};

/// One way to create a replica. Implement it and [`export!`] it.
pub trait Method {
    /// Whether the method needs Patroni's four parameters, of which the data directory is one. Unless it says that it does not,
    /// its plan fails where the operator set `no_params`, before anything is emptied.
    const NEEDS_PARAMETERS: bool = true;

    /// What the method is, which options it takes, what it needs. The same answer every time: it runs once for each
    /// digest of the component, with everything denied, a standing clock, fixed random bytes and one second of time.
    fn describe() -> Description;

    /// Looks at what would be restored and writes nothing: it runs in an instance of its own, without write access.
    ///
    /// # Errors
    /// [`Failure::NotApplicable`] where there is nothing to restore; the next method is tried. Say here whatever can be
    /// known before the data directory is emptied.
    fn plan(request: &Request) -> Result<Plan, Failure>;

    /// Fills the data directory, which the host has emptied unless [`Request::keep_data`]. `plan` is what
    /// [`plan`](Self::plan) gave and the host accepted.
    ///
    /// # Errors
    /// Any [`Failure`]; the host then removes what was written.
    fn create(request: &Request, plan: &Plan) -> Result<(), Failure>;
}

/// The method that the manual shows compiles.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/src/writing-a-method.md")]
struct Manual;
