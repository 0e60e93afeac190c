//! Measures the restore of a tar backup with every compression, compared with the codec's own tool, tar, pg_verifybackup and sync.

use std::path::{Path, PathBuf};

use anyhow::Result;
use tests::server::run;

use super::home::{Home, quoted, shell, size};
use super::measure::{Contestant, race};
use super::ours::{Job, reads};
use super::{Bench, page};
use crate::setup::BIN_DIR;

/// A compression that pg_basebackup can apply to a tar backup.
pub(crate) struct Format {
    /// The name in the table.
    pub(crate) name: &'static str,
    /// The pg_basebackup options that select the compression.
    pub(crate) options: &'static [&'static str],
    /// The suffix of the archive names after `.tar`.
    pub(crate) suffix: &'static str,
    /// The command that decompresses an archive to standard output.
    pub(crate) decoder: &'static str,
}

/// No compression.
pub(crate) const PLAIN: Format = Format { name: "plain", options: &[], suffix: "", decoder: "cat" };

/// Zstandard with pg_basebackup's default level.
pub(crate) const ZSTD: Format =
    Format { name: "zst", options: &["--compress=client-zstd"], suffix: ".zst", decoder: "zstd -dcq" };

/// All compressions.
pub(crate) const FORMATS: [Format; 4] = [
    ZSTD,
    Format { name: "gz", options: &["--compress=client-gzip"], suffix: ".gz", decoder: "gzip -dc" },
    Format { name: "lz4", options: &["--compress=client-lz4"], suffix: ".lz4", decoder: "lz4 -dcq" },
    PLAIN,
];

/// What the tools do after they have unpacked the backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// They verify every file and the WAL, and then sync.
    VerifyAndSync,
    /// They only sync.
    Sync,
}

/// Returns the contestant that runs the usual tools.
pub(crate) fn tools<'a>(
    home: &'a Home,
    format: &Format,
    backup: &Path,
    target: &Path,
    then: Then,
) -> Contestant<'a> {
    let (into, suffix, decoder) = (quoted(target), format.suffix, format.decoder);
    let unpack = |name: &str, into: &str| {
        let archive = backup.join(format!("{name}.tar{suffix}"));
        // pg_basebackup compresses pg_wal.tar only with gzip.
        if suffix.is_empty() || !archive.exists() {
            let plain = backup.join(format!("{name}.tar"));
            return format!("tar --extract --file {} --directory {into}", quoted(&plain));
        }
        format!("{decoder} {} | tar --extract --file - --directory {into}", quoted(&archive))
    };
    let verify = match then {
        Then::VerifyAndSync => format!(
            "cp {manifest} {into}/backup_manifest\n{BIN_DIR}/pg_verifybackup --quiet {into}\n",
            manifest = quoted(&backup.join("backup_manifest"))
        ),
        Then::Sync => String::new(),
    };
    let script = format!(
        "{}\n{}\n{verify}sync --file-system {into}",
        unpack("base", &into),
        unpack("pg_wal", &format!("{into}/pg_wal"))
    );
    let (target, backup) = (target.to_owned(), backup.to_owned());
    let name = match (then, suffix) {
        (Then::VerifyAndSync, "") => "tar, pg_verifybackup, sync".to_owned(),
        (Then::VerifyAndSync, _) => {
            format!("{}, tar, pg_verifybackup, sync", decoder.split(' ').next().unwrap_or(decoder))
        }
        (Then::Sync, "") => "tar, sync".to_owned(),
        (Then::Sync, _) => format!("{}, tar, sync", decoder.split(' ').next().unwrap_or(decoder)),
    };
    Contestant {
        name,
        leaves: Some(target.join("global/pg_control")),
        prepare: Box::new(move || {
            home.warm(&backup)?;
            home.fresh(&target)
        }),
        program: shell(&script),
    }
}

impl<'a> Bench<'a> {
    /// Returns the contestant that runs the program with this method, which must have an option `directory`.
    pub(crate) fn restoring(
        &self,
        name: &str,
        method: &str,
        backup: &Path,
        target: PathBuf,
    ) -> Result<Contestant<'a>> {
        let (home, warm) = (self.home, backup.to_owned());
        let job = Job {
            name,
            method,
            options: format!("directory = \"{}\"", backup.display()),
            grants: reads(backup),
            target,
            keep_data: false,
            bin_dir: Path::new(BIN_DIR),
        };
        self.ours.contestant(&job, move || home.warm(&warm))
    }

    /// Checks a restored data directory against the manifest of its backup.
    pub(crate) fn verify(&self, target: &Path, backup: &Path) -> Result<()> {
        let mut verify = self.home.user().command(Path::new(BIN_DIR).join("pg_verifybackup"));
        // The seal created the links and removed tablespace_map.
        verify.args(["--quiet", "--ignore=tablespace_map", "--manifest-path"]);
        verify.arg(backup.join("backup_manifest")).arg(target);
        tests::control_file::with_checkpoint_of_backup(target, || run(&mut verify))?;
        Ok(())
    }
}

pub(super) fn measure(bench: &Bench<'_>) -> Result<String> {
    let home = bench.home;
    let mut table = page::head("format, target");
    let mut verdicts = String::new();
    let mut sizes = String::new();
    for format in &FORMATS {
        let backup = bench.backup(format)?;
        sizes += &format!(
            "{}{} {} MB",
            if sizes.is_empty() { "" } else { ", " },
            format.name,
            size(&backup)? / 1_000_000
        );
        for &medium in bench.extent.media {
            let (ours, theirs) = (home.target(medium, "ours"), home.target(medium, "tools"));
            let contestants = [
                tools(home, format, &backup, &theirs, Then::VerifyAndSync),
                bench.restoring("understudy", "tarball", &backup, ours.clone())?,
            ];
            let runs = race(home, bench.extent.rounds, &contestants)?;
            bench.verify(&ours, &backup)?;
            home.remove(&ours)?;
            home.remove(&theirs)?;
            page::rows(&mut table, &format!("{}, {}", format.name, medium.name()), &runs, 0);
            verdicts += &page::wanted(
                &format!("- {}, target {}: the ratio of the wall times", format.name, medium.at()),
                runs[1].wall() / runs[0].wall(),
                0.6,
            );
        }
    }
    Ok(format!(
        "## A tar backup, in every compression\n\n\
         A backup of a cluster of {cluster} MB, half of it random bytes and half pgbench's tables, which `pg_basebackup --format=tar` wrote with its \
         default compression levels ({sizes}). The tools decompress into `tar --extract`, then run `pg_verifybackup` (for every file and the \
         WAL), and then `sync` the target's file system. For Understudy, the whole process of `understudy create` is measured, with the \
         same checks and with the seal and its sync; an earlier run has compiled the component. The backup is in the page cache for both. \
         A target in memory is in tmpfs. A target on disk is on the checkout's disk, whose speed varies.\n\n{table}\n{verdicts}",
        cluster = bench.extent.cluster / 1_000_000,
    ))
}
