//! The method `barman`: restores a backup from the directory of a Barman server, or from the store to which barman-cloud uploads, without
//! Barman on the machine. Supports plain trees (`backup_method = rsync` and `postgres`), tar archives, the split archives of barman-cloud,
//! incremental backups of PostgreSQL 17 with the backups that they depend on, tablespaces, every compression, and the archived WAL.
//!
//! The component reads only the texts that describe a backup: `backup.info`, `backup_manifest`, and listings. The host fetches the files
//! and unpacks the archives, many at once.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod archive;
mod catalogue;
mod chain;
mod choice;
mod combine;
mod contents;
mod create;
mod info;
mod items;
mod label;
mod literal;
mod manifest;
mod names;
mod options;
mod place;
mod plan;
mod tree;
mod unpack;
mod wal;

use restore::wal::Wal;
use understudy::{
    Datadir, Description, Failure, Method, Need, NeedKind, OptionSpec, Plan, Request, or_cancelled,
};

use options::Options;

struct Barman;

impl Method for Barman {
    fn describe() -> Description {
        Description::new("barman", env!("CARGO_PKG_VERSION"), "restores what Barman and barman-cloud keep")
            .option(OptionSpec::text("directory").doc(
                "the folder that holds the server's folder, as Barman's `barman_home`; set this or `store`",
            ))
            .option(OptionSpec::text("store").doc(
                "the name of a granted store (`grants.stores.NAME`) that holds the same, or what barman-cloud \
                 uploads; set this or `directory`",
            ))
            .option(OptionSpec::text("prefix").doc(
                "the path of the folder that holds the server's folder, relative to the directory or the store; for \
                 barman-cloud, the path in its URL",
            ))
            .option(OptionSpec::text("server").required().doc("the name of the server in Barman"))
            .option(OptionSpec::text("backup").default("latest").doc(
                "the ID or the name of a backup, such as 20261126T043406; `latest` is the newest backup of status \
                 DONE that fits the other options",
            ))
            .option(OptionSpec::text("target-time").doc(
                "the newest backup that ended at or before this time, such as 2026-11-26 04:30:00+00",
            ))
            .option(OptionSpec::text("target-lsn").doc(
                "the newest backup that ended at or before this LSN, such as 0/16B3748",
            ))
            .option(OptionSpec::integer("target-timeline").doc("the newest backup on this timeline"))
            .option(OptionSpec::flag("older").default(false).doc(
                "whether an older backup is restored if the plan finds that the newest backup that fits the other \
                 options cannot be restored: some of its files are missing, or it is of an unsupported kind",
            ))
            .option(OptionSpec::choice("wal", Wal::CHOICES).default("consistent").doc(
                "which archived WAL is restored to pg_wal: none, what the backup needs to be consistent, or all archived \
                 up to the first gap, along the source's timelines",
            ))
            .option(restore::pages::option())
            .need(Need::new(NeedKind::Directory, "directory", "the backup is read from there").optional())
            .need(Need::new(NeedKind::Store, "store", "the backup is read from there").optional())
    }

    fn plan(request: &Request) -> Result<Plan, Failure> {
        or_cancelled(Options::of(request).and_then(|options| plan::of(&options)))
    }

    fn create(request: &Request, plan: &Plan) -> Result<(), Failure> {
        let datadir = Datadir::of(request)?;
        or_cancelled(Options::of(request).and_then(|options| create::all(options, plan, &datadir)))
    }
}

understudy::export!(Barman);

#[cfg(test)]
mod tests;
