//! The method `tarball`: restores a backup that `pg_basebackup -Ft` wrote, from a directory or a store that the operator granted. The
//! backup consists of `base.tar`, one `OID.tar` for each tablespace and `pg_wal.tar`, each plain or compressed with gzip, lz4 or
//! zstd, and of `backup_manifest`. An incremental backup of PostgreSQL 17 and later is combined with the backups that it depends on while
//! these are unpacked.
//!
//! The host unpacks all archives at the same time, and compares every file with the manifest while it writes the file. The component reads
//! only the first members of `base.tar`, the manifest, and at the end the WAL.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod archive;
mod backup;
mod chain;
mod create;
mod look;
mod manifest;
mod names;
mod neighbours;
mod place;
mod plan;
mod wal;

use understudy::{
    Datadir, Description, Failure, Method, Need, NeedKind, OptionSpec, Plan, Request, or_cancelled,
};

use place::Place;

struct Tarball;

impl Method for Tarball {
    fn describe() -> Description {
        Description::new("tarball", env!("CARGO_PKG_VERSION"), "restores what pg_basebackup -Ft writes")
            .option(OptionSpec::text("directory").doc(
                "the folder that holds base.tar, plain or compressed, and what pg_basebackup wrote beside it, or a \
                 folder that holds several such folders; set this or `store`",
            ))
            .option(OptionSpec::text("store").doc(
                "the name of a granted store (`grants.stores.NAME`) that holds the same; set this or `directory`",
            ))
            .option(OptionSpec::text("prefix").doc("the folder below the directory or the store to look in"))
            .option(OptionSpec::text("backup").doc(
                "the folder of one backup; without it the usable backup that began last, by timeline and LSN",
            ))
            .need(Need::new(NeedKind::Directory, "directory", "the backup is read from there").optional())
            .need(Need::new(NeedKind::Store, "store", "the backup is read from there").optional())
    }

    fn plan(request: &Request) -> Result<Plan, Failure> {
        or_cancelled(Place::of(request).and_then(|place| plan::of_best(&place)))
    }

    fn create(request: &Request, plan: &Plan) -> Result<(), Failure> {
        let datadir = Datadir::of(request)?;
        or_cancelled(Place::of(request).and_then(|place| create::all(&place, plan, &datadir)))
    }
}

understudy::export!(Tarball);

#[cfg(test)]
mod tests;
