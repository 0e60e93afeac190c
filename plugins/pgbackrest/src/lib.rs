//! The method `pgbackrest`: restores a backup from a pgBackRest repository, without pgBackRest on the machine. Supports full,
//! differential and incremental backups, bundles, block incremental backups, every compression, encryption, tablespaces, and the archived
//! WAL.
//!
//! The component reads only what describes the backup: `backup.info`, a manifest, block maps, and listings of the archive. The host fetches
//! many files at once, and compares each file with its checksum while it writes the file.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod block_map;
mod blocks;
mod choice;
mod control;
mod create;
mod files;
mod info;
mod ini;
mod label;
mod manifest;
mod names;
mod options;
mod plan;
mod repository;
mod wal;

use understudy::{
    Datadir, Description, Failure, Method, Need, NeedKind, OptionSpec, Plan, Request, or_cancelled,
};

use options::{Options, REPOSITORY};
use restore::wal::Wal;

struct PgBackRest;

impl Method for PgBackRest {
    fn describe() -> Description {
        Description::new("pgbackrest", env!("CARGO_PKG_VERSION"), "restores from a repository of pgBackRest")
            .option(OptionSpec::text("stanza").required().doc("the stanza, as pgBackRest's `--stanza`"))
            .option(OptionSpec::texts("repositories").default(vec![REPOSITORY.to_owned()]).doc(
                "names of granted stores (`grants.stores.NAME`), each of which holds a repository: the first that has \
                 the backup is used; the pass phrase of an encrypted repository is the granted key \
                 of the same name",
            ))
            .option(OptionSpec::text("backup").doc(
                "the label of a backup, such as 20261126-043406F_20261126-050000I; without it, the newest backup \
                 that fits the other options",
            ))
            .option(OptionSpec::text("target-time").doc(
                "the newest backup that ended at or before this time, such as 2026-11-26 04:30:00+00",
            ))
            .option(OptionSpec::text("target-lsn").doc(
                "the newest backup that ended at or before this LSN, such as 0/16B3748",
            ))
            .option(OptionSpec::integer("target-timeline").doc("the newest backup that ended on this timeline"))
            .option(OptionSpec::flag("older").default(false).doc(
                "whether an older backup is restored if the plan finds that the newest backup that fits the other \
                 options cannot be restored: it is damaged, has expired in part or is of an \
                 unsupported kind",
            ))
            .option(OptionSpec::flag("delta").default(false).doc(
                "with keep_data, whether existing files with the right size and checksum are kept; files that the backup does not \
                 have are removed",
            ))
            .option(OptionSpec::choice("wal", Wal::CHOICES).default("consistent").doc(
                "which archived WAL is restored to pg_wal: none, what the backup needs to be consistent, or all archived \
                 up to the first gap, along the source's timelines",
            ))
            .need(Need::new(NeedKind::Store, REPOSITORY, "the repository, unless `repositories` names others").optional())
            .need(Need::new(NeedKind::Key, REPOSITORY, "the pass phrase of an encrypted repository").optional())
    }

    fn plan(request: &Request) -> Result<Plan, Failure> {
        or_cancelled(Options::of(request).and_then(|options| plan::of(&options)))
    }

    fn create(request: &Request, plan: &Plan) -> Result<(), Failure> {
        let datadir = Datadir::of(request)?;
        or_cancelled(Options::of(request).and_then(|options| create::all(&options, plan, &datadir)))
    }
}

understudy::export!(PgBackRest);

#[cfg(test)]
mod tests;
