//! The method `tarball`: restores what `pg_basebackup -Ft` writes, from a directory that the operator granted. `base.tar`,
//! one `OID.tar` for each tablespace and `pg_wal.tar`, each plain or compressed with gzip, lz4 or zstd, and
//! `backup_manifest`, against which every file is checked while it is written.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod backup;
mod codec;
mod look;
mod manifest;
mod tar;
mod unpack;

use understudy::{
    Datadir, Description, Failure, Method, Need, NeedKind, OptionSpec, Plan, Request, is_cancelled,
};

use backup::Backup;

struct Tarball;

impl Method for Tarball {
    fn describe() -> Description {
        Description::new("tarball", env!("CARGO_PKG_VERSION"), "restores what pg_basebackup -Ft writes")
            .option(OptionSpec::text("directory").required().doc(
                "the folder that holds base.tar, plain or compressed, and what pg_basebackup wrote beside it",
            ))
            .need(Need::new(NeedKind::Directory, "directory", "the backup is read from there"))
    }

    fn plan(request: &Request) -> Result<Plan, Failure> {
        let directory: String = request.require("directory")?;
        told_to_stop(Backup::find(directory.as_ref()).and_then(|backup| look::plan(&backup)))
    }

    fn create(request: &Request, plan: &Plan) -> Result<(), Failure> {
        let directory: String = request.require("directory")?;
        let datadir = Datadir::of(request)?;
        told_to_stop(Backup::find(directory.as_ref()).and_then(|backup| unpack::all(&backup, plan, &datadir)))
    }
}

/// What a decoder makes of a cancelled read is its own affair: a method that was told to stop was cancelled.
fn told_to_stop<T>(result: Result<T, Failure>) -> Result<T, Failure> {
    result.map_err(|failure| if is_cancelled() { Failure::Cancelled } else { failure })
}

understudy::export!(Tarball);

#[cfg(test)]
mod tests;
