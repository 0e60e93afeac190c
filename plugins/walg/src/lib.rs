//! The method `walg`: restores a full backup, or a delta backup with the backups that it depends on, from a storage of WAL-G, without WAL-G
//! on the machine.
//!
//! The component reads the texts that describe the backups, the control file and `backup_label`. The host unpacks the archives, takes each
//! page from the newest backup that has the page, and fetches the write-ahead log.

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod archives;
mod chain;
mod choice;
mod codec;
mod create;
mod document;
mod files;
mod look;
mod metadata;
mod name;
mod options;
mod place;
mod plan;
mod sentinel;
mod spec;
mod tokens;
mod wal;

use restore::wal::Wal;
use understudy::{
    Datadir, Description, Failure, Kind, Method, Need, NeedKind, OptionSpec, Plan, Request, or_cancelled,
};

use options::{ENCRYPTIONS, Options, TRANSFORMS};

struct WalG;

impl Method for WalG {
    fn describe() -> Description {
        Description::new("walg", env!("CARGO_PKG_VERSION"), "restores from a storage of WAL-G")
            .option(OptionSpec::text("directory").doc(
                "the folder that holds basebackups_005 and wal_005, as WAL-G's WALG_FILE_PREFIX; set this or `store`",
            ))
            .option(OptionSpec::text("store").doc(
                "the name of a granted store (`grants.stores.NAME`) that holds the same; set this or `directory`",
            ))
            .option(OptionSpec::text("prefix").doc("the folder below the directory or the store to look in"))
            .option(OptionSpec::text("backup").doc(
                "the name of a backup, such as base_000000010000000000000004, or LATEST, which is the default",
            ))
            .option(OptionSpec::text("target-time").doc(
                "the newest backup that finished at or before this time, such as 2026-11-26 04:30:00+00",
            ))
            .option(OptionSpec::text("target-lsn").doc(
                "the newest backup that finished at or before this LSN, such as 0/16B3748",
            ))
            .option(OptionSpec::integer("target-timeline").doc("the newest backup that was taken on this timeline"))
            .option(OptionSpec::text("target-user-data").doc(
                "the one backup with this user data, in JSON, as WAL-G's `--target-user-data`",
            ))
            .option(OptionSpec::new("key", Kind::Secret).doc(
                "for an encrypted storage, the name of the granted key (`grants.keys.NAME`), which holds WAL-G's \
                 WALG_LIBSODIUM_KEY or WALG_PGP_KEY",
            ))
            .option(OptionSpec::choice("encryption", ENCRYPTIONS).default("libsodium").doc(
                "what the key is for: libsodium, or openpgp with a key of the kind openpgp",
            ))
            .option(OptionSpec::choice("libsodium-key-transform", TRANSFORMS).default("none").doc(
                "how the key is written, as WAL-G's WALG_LIBSODIUM_KEY_TRANSFORM",
            ))
            .option(OptionSpec::choice("wal", Wal::CHOICES).default("consistent").doc(
                "which archived WAL is restored to pg_wal: none, what the backup needs to be consistent, or all archived \
                 up to the first gap, along the source's timelines",
            ))
            .option(restore::pages::option())
            .need(Need::new(NeedKind::Directory, "directory", "the backup is read from there").optional())
            .need(Need::new(NeedKind::Store, "store", "the backup is read from there").optional())
            .need(Need::new(NeedKind::Key, "key", "an encrypted storage is read with it").optional())
    }

    fn plan(request: &Request) -> Result<Plan, Failure> {
        or_cancelled(Options::of(request).and_then(|options| plan::of(&options)))
    }

    fn create(request: &Request, plan: &Plan) -> Result<(), Failure> {
        let datadir = Datadir::of(request)?;
        or_cancelled(Options::of(request).and_then(|options| create::all(&options, plan, &datadir)))
    }
}

understudy::export!(WalG);

#[cfg(test)]
mod tests;
