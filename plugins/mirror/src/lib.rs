//! The method `mirror`: restores a cold or snapshot copy of a data directory from a directory that the operator granted. Files that belong
//! to a running server are not copied, as with pg_basebackup. The host copies the files; with `delta` it keeps files that match.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod copy;
mod delta;
mod layout;
mod left_out;
mod links;
mod walk;

use understudy::{Datadir, Description, Failure, Method, Need, NeedKind, OptionSpec, Plan, Request};

use delta::Delta;
use layout::Layout;

struct Mirror;

impl Method for Mirror {
    fn describe() -> Description {
        let (wal, tablespaces) =
            ("where the copy's pg_wal is, if it is not in the copy", "where the copy's tablespaces are");
        Description::new(
            "mirror",
            env!("CARGO_PKG_VERSION"),
            "copies a cold or snapshot copy of a data directory",
        )
        .option(
            OptionSpec::text("directory")
                .required()
                .doc("the copy of a data directory; no server runs in it"),
        )
        .option(
            OptionSpec::text("wal").doc(format!("{wal} but behind a link that leads out of the granted directories")),
        )
        .option(
            OptionSpec::texts("tablespaces")
                .doc(format!("{tablespaces}, each as `oid=/path`, unless they are in the copy")),
        )
        .option(OptionSpec::choice("delta", Delta::CHOICES).default("off").doc(
            "with keep_data, which existing files are kept: those with the same size and time, or those with the \
             same contents; files that the copy does not have are removed",
        ))
        .need(Need::new(NeedKind::Directory, "directory", "the copy is read from there"))
        .need(Need::new(NeedKind::Directory, "wal", wal).optional())
        .need(Need::new(NeedKind::Directory, "tablespaces", tablespaces).optional())
    }

    fn plan(request: &Request) -> Result<Plan, Failure> {
        let delta = Delta::of(request)?;
        Ok(Plan { builds_on_existing: delta != Delta::Off, ..Layout::find(request)?.plan()? })
    }

    fn create(request: &Request, plan: &Plan) -> Result<(), Failure> {
        copy::all(&Layout::find(request)?, Delta::of(request)?, plan, &Datadir::of(request)?)
    }
}

understudy::export!(Mirror);

#[cfg(test)]
mod tests;
