//! `cargo xtask bench`: measures the creation of a replica, and the usual tools with the same backup in the same run.

mod barman;
mod basebackup;
mod chain;
mod delta;
mod files;
mod guest;
mod home;
mod measure;
mod ours;
mod page;
mod pgbackrest;
mod sizes;
mod tarball;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use tests::control_file::{NO_CHECKPOINT, with_checkpoint};

use crate::say;
use home::Home;
pub(crate) use home::TargetMedium;
use ours::Ours;

/// The measurements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum What {
    /// A tar backup with every compression, compared with the codec's tool, tar, pg_verifybackup and sync
    #[value(alias = "a")]
    Tarball,
    /// A chain of incremental backups, compared with tar and pg_combinebackup
    #[value(alias = "h")]
    Chain,
    /// A copy from a primary on the same machine, compared with pg_basebackup
    #[value(alias = "b")]
    Basebackup,
    /// The data plane, compared with a component that decodes inside the sandbox
    #[value(alias = "c")]
    Guest,
    /// 100,000 files of 8 KiB, compared with tar
    #[value(alias = "d")]
    Files,
    /// Time and memory for backups from 0.5 to 8 GB
    #[value(alias = "e")]
    Sizes,
    /// A replica in which 0, 1 or 100 % of the data changed, compared with rsync
    #[value(alias = "f")]
    Delta,
    /// A pgBackRest repository: every compression, small files, and an unchanged replica, compared with `pgbackrest restore`
    #[value(alias = "g", name = "pgbackrest")]
    PgBackRest,
    /// Backups of barman-cloud in an S3 server, compared with `barman-cloud-restore`
    #[value(alias = "i")]
    Barman,
}

impl What {
    /// Returns whether the measurement uses targets on disk too, and not only in memory.
    fn has_media(self) -> bool {
        match self {
            Self::Tarball
            | Self::Chain
            | Self::Basebackup
            | Self::Files
            | Self::PgBackRest
            | Self::Barman => true,
            Self::Guest | Self::Sizes | Self::Delta => false,
        }
    }

    /// All measurements, in the order in which BENCHMARKS.md lists them.
    const ALL: [Self; 9] = [
        Self::Tarball,
        Self::Chain,
        Self::Basebackup,
        Self::Guest,
        Self::Files,
        Self::Sizes,
        Self::Delta,
        Self::PgBackRest,
        Self::Barman,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Tarball => "tarball",
            Self::Chain => "chain",
            Self::Basebackup => "basebackup",
            Self::Guest => "guest",
            Self::Files => "files",
            Self::Sizes => "sizes",
            Self::Delta => "delta",
            Self::PgBackRest => "pgbackrest",
            Self::Barman => "barman",
        }
    }
}

/// The sizes of the measurements.
struct Extent {
    rounds: u32,
    /// The media to which targets are written.
    media: &'static [TargetMedium],
    /// The size in bytes of the cluster that most measurements use.
    cluster: u64,
    /// The number of small files.
    files: u32,
    /// The sizes of the growing clusters in bytes.
    sizes: &'static [u64],
}

const FULL: Extent = Extent {
    rounds: 5,
    media: &[TargetMedium::Memory, TargetMedium::Disk],
    cluster: 2_600_000_000,
    files: 100_000,
    sizes: &[500_000_000, 1_000_000_000, 2_000_000_000, 4_000_000_000, 8_000_000_000],
};

const QUICK: Extent = Extent {
    rounds: 1,
    media: FULL.media,
    cluster: 300_000_000,
    files: 10_000,
    sizes: &[100_000_000, 200_000_000],
};

/// The arguments of a measurement.
struct Bench<'a> {
    home: &'a Home,
    ours: Ours<'a>,
    extent: Extent,
}

/// Runs these measurements (all of them if the list is empty), and writes each result into BENCHMARKS.md. The results of a quick run are
/// only printed.
pub(crate) fn run(
    what: &[What],
    quick: bool,
    rounds: Option<u32>,
    target: Option<TargetMedium>,
    program: Option<&Path>,
) -> Result<()> {
    let home = Home::open()?;
    let mut extent = if quick { QUICK } else { FULL };
    extent.rounds = rounds.unwrap_or(extent.rounds).max(1);
    match target {
        None => {}
        Some(TargetMedium::Memory) => extent.media = &[TargetMedium::Memory],
        Some(TargetMedium::Disk) => extent.media = &[TargetMedium::Disk],
    }
    let bench = Bench { ours: Ours::new(&home, program)?, home: &home, extent };
    for one in if what.is_empty() { &What::ALL } else { what } {
        say(&format!("measuring {}", one.name()));
        let mut section = match one {
            What::Tarball => tarball::measure(&bench)?,
            What::Chain => chain::measure(&bench)?,
            What::Basebackup => basebackup::measure(&bench)?,
            What::Guest => guest::measure(&bench)?,
            What::Files => files::measure(&bench)?,
            What::Sizes => sizes::measure(&bench)?,
            What::Delta => delta::measure(&bench)?,
            What::PgBackRest => pgbackrest::measure(&bench)?,
            What::Barman => barman::measure(&bench)?,
        };
        let target = target.filter(|_| one.has_media());
        if target == Some(TargetMedium::Disk) {
            section = section.replacen('\n', ", target on disk\n", 1);
        }
        section.push('\n');
        section.push_str(&page::machine(bench.extent.rounds)?);
        println!("\n{section}");
        if !quick {
            // A section with both media replaces an earlier section with only the disk.
            let on_disk = page::name(*one, Some(TargetMedium::Disk));
            page::write(&page::name(*one, target), &section, target.is_none().then_some(on_disk.as_str()))?;
        }
    }
    Ok(())
}

impl Bench<'_> {
    /// Checks that two restores are equal, except for the checkpoint in pg_control, which the seal replaces, and for the files and
    /// directories with the names `own`, which each program writes in its own way.
    fn compare(&self, ours: &Path, theirs: &Path, own: &[&str]) -> Result<()> {
        let mut diff = self.home.user().command("/usr/bin/diff");
        diff.args(["--recursive", "--brief", "--exclude=pg_control"]);
        diff.args(own.iter().map(|name| format!("--exclude={name}")));
        tests::server::run(diff.arg(ours).arg(theirs)).context("the two restores differ")?;
        let [ours, theirs] = [ours, theirs].map(|tree| -> Result<_> {
            Ok(with_checkpoint(&std::fs::read(tree.join("global/pg_control"))?, NO_CHECKPOINT)?)
        });
        ensure!(ours? == theirs?, "the pg_control of the two restores differ in more than their checkpoints");
        Ok(())
    }

    /// Returns the stopped cluster that most measurements use.
    fn cluster(&self) -> Result<PathBuf> {
        let bytes = self.extent.cluster;
        self.home.cluster(&format!("cluster-{}", bytes / 1_000_000), bytes)
    }

    /// Returns a backup of the cluster that most measurements use, in one of [`tarball::FORMATS`].
    fn backup(&self, format: &tarball::Format) -> Result<PathBuf> {
        let name = format!("backup-{}-{}", self.extent.cluster / 1_000_000, format.name);
        if self.home.has(&name) {
            return Ok(self.home.path(&name));
        }
        self.home.backup(&self.cluster()?, &name, format.options)
    }
}
