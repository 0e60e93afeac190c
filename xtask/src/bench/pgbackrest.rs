//! Measures the restore of a backup from a pgBackRest repository, compared with `pgbackrest restore` of the same backup.

use std::path::{Path, PathBuf};

use anyhow::Result;
use tests::cluster::{DatabaseState, minimal_cluster};
use tests::pgbackrest::{PGBACKREST, STANZA, newer_pgbackrest};
use tests::server::run;

use super::home::{TargetMedium, quoted, shell, size};
use super::measure::{Contestant, Runs, race};
use super::ours::{Job, reads};
use super::{Bench, page};
use crate::setup::BIN_DIR;

/// The compressions, each with the wanted ratios to pgBackRest's wall time and processor time with two processes.
const CODECS: [(&str, f64, f64); 3] = [("gz", 0.85, 0.85), ("zst", 1.0, 1.0), ("lz4", 1.0, 1.0)];

/// The wanted ratio to pgBackRest's wall time with its defaults, which are one process and gz.
const OF_DEFAULTS: f64 = 0.6;

/// The wanted ratio to pgBackRest's wall time for files that are stored in blocks.
const OF_BLOCKS: f64 = 1.1;

/// The wanted upper limit in bytes for the peak memory in excess of a run that does almost nothing.
const PEAK: u64 = 64 << 20;

/// The wanted upper limit of the peak memory in bytes for files that are stored in blocks.
const PEAK_OF_BLOCKS: u64 = 96 << 20;

/// The files and directories that each tool writes in its own way.
const OWN: [&str; 4] = ["pg_wal", "postgresql.auto.conf", "recovery.signal", "standby.signal"];

/// The state of the target before a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Fresh,
    /// The target of an earlier run, which the contestant updates.
    Kept,
}

impl<'a> Bench<'a> {
    /// Returns the contestant that runs pgBackRest with this number of processes.
    fn theirs(&self, folder: &Path, processes: u32, target: &Path, then: Target) -> Contestant<'a> {
        self.theirs_by(Path::new(PGBACKREST), folder, processes, target, then)
    }

    /// Returns the contestant that runs this release of pgBackRest.
    fn theirs_by(
        &self,
        program: &Path,
        folder: &Path,
        processes: u32,
        target: &Path,
        then: Target,
    ) -> Contestant<'a> {
        let delta = if then == Target::Kept { " --delta" } else { "" };
        let script = format!(
            "{} --config={} --stanza={STANZA} --process-max={processes} --pg1-path={}{delta} restore",
            quoted(program),
            quoted(&folder.join("pgbackrest.conf")),
            quoted(target)
        );
        let (home, target, warm) = (self.home, target.to_owned(), folder.join("repository"));
        Contestant {
            name: format!("pgbackrest restore{delta} --process-max={processes}"),
            leaves: Some(target.join("global/pg_control")),
            prepare: Box::new(move || {
                home.warm(&warm)?;
                if then == Target::Fresh { home.fresh(&target) } else { Ok(()) }
            }),
            program: shell(&script),
        }
    }

    /// Returns the contestant that runs the program with two workers.
    fn restoring_repository(&self, folder: &Path, target: &Path, then: Target) -> Result<Contestant<'a>> {
        let (home, warm) = (self.home, folder.join("repository"));
        let is_kept = then == Target::Kept;
        let job = Job {
            name: if is_kept { "understudy, delta" } else { "understudy" },
            method: "pgbackrest",
            options: format!("stanza = \"{STANZA}\"\ndelta = {is_kept}"),
            grants: format!(
                "stores.repo = {{ url = \"file://{}\" }}, workers = 2",
                folder.join("repository").display()
            ),
            target: target.to_owned(),
            keep_data: is_kept,
            bin_dir: Path::new(BIN_DIR),
        };
        self.ours.contestant(&job, move || home.warm(&warm))
    }
}

pub(super) fn measure(bench: &Bench<'_>) -> Result<String> {
    let (codecs, in_all) = codecs(bench)?;
    Ok(format!(
        "## A pgBackRest repository\n\n\
         Full backups of a cluster of {cluster} MB, half of it random bytes and half pgbench's tables. pgBackRest wrote them with its default \
         compression levels, and they are in the page cache. `pgbackrest restore` runs with two processes and, for gz, also with one, \
         which is its default. `understudy create` runs with two threads that transfer files. Its time includes the backup's WAL, which \
         pgBackRest leaves to `restore_command`, and the checks and the sync of the seal, but not the compilation of the component. \
         Both check the SHA-1 of every file.\n\n{codecs}\n{blocks}\n{delta}\n{files}\n{peak}",
        cluster = bench.extent.cluster / 1_000_000,
        blocks = blocks(bench)?,
        delta = delta(bench)?,
        files = files(bench)?,
        peak = peak(bench, in_all)?,
    ))
}

/// Returns a repository with a backup of the cluster that most measurements use, with this compression.
fn repository(bench: &Bench<'_>, codec: &str) -> Result<PathBuf> {
    let name = format!("repository-{}-{codec}", bench.extent.cluster / 1_000_000);
    bench.home.repository(&bench.cluster()?, &name, &format!("compress-type={codec}\n"))
}

/// Returns the table for the compressions, and the highest memory peak.
fn codecs(bench: &Bench<'_>) -> Result<(String, u64)> {
    let home = bench.home;
    let mut table = page::head("compression, target");
    let (mut verdicts, mut sizes, mut highest) = (String::new(), Vec::new(), 0);
    for (codec, wall, cpu) in CODECS {
        let folder = repository(bench, codec)?;
        sizes.push(format!("{codec} {} MB", size(&folder.join("repository/backup"))? / 1_000_000));
        for &medium in bench.extent.media {
            let [ours, two, one] = ["ours", "two", "one"].map(|name| home.target(medium, name));
            let mut contestants = vec![
                bench.theirs(&folder, 2, &two, Target::Fresh),
                bench.restoring_repository(&folder, &ours, Target::Fresh)?,
            ];
            if codec == "gz" {
                contestants.push(bench.theirs(&folder, 1, &one, Target::Fresh));
            }
            let runs = race(home, bench.extent.rounds, &contestants)?;
            bench.compare(&ours, &two, &OWN)?;
            for tree in [&ours, &two, &one] {
                home.remove(tree)?;
            }
            page::rows(&mut table, &format!("{codec}, {}", medium.name()), &runs, 0);
            highest = highest.max(runs[1].peak());
            let medium = medium.at();
            let ratio = |of: fn(&Runs) -> f64, against: usize| of(&runs[1]) / of(&runs[against]);
            verdicts += &page::wanted(
                &format!("- {codec}, target {medium}: the ratio of the wall times"),
                ratio(Runs::wall, 0),
                wall,
            );
            verdicts += &page::wanted(
                &format!("- {codec}, target {medium}: the ratio of the processor times"),
                ratio(Runs::cpu, 0),
                cpu,
            );
            if codec == "gz" {
                let what = format!(
                    "- {codec}, target {medium}: the ratio of the wall time to that with pgBackRest's defaults"
                );
                verdicts += &page::wanted(&what, ratio(Runs::wall, 2), OF_DEFAULTS);
            }
        }
    }
    Ok((format!("The repositories' backups take {}.\n\n{table}\n{verdicts}", sizes.join(", ")), highest))
}

/// Measures a repository in which files are stored in blocks, with the newer pgBackRest that writes their final format.
fn blocks(bench: &Bench<'_>) -> Result<String> {
    let home = bench.home;
    let program = home.path("pgbackrest-newer");
    std::fs::copy(newer_pgbackrest()?, &program)?;
    let name = format!("repository-{}-blocks", bench.extent.cluster / 1_000_000);
    let settings = "compress-type=zst\nrepo1-bundle=y\nrepo1-block=y\n";
    let folder = home.repository_by(&program, &bench.cluster()?, &name, settings)?;
    let mut table = page::head("target");
    let (mut verdicts, mut highest) = (String::new(), 0);
    for &medium in bench.extent.media {
        let [ours, theirs] = ["blocks-ours", "blocks-theirs"].map(|name| home.target(medium, name));
        let contestants = [
            bench.theirs_by(&program, &folder, 2, &theirs, Target::Fresh),
            bench.restoring_repository(&folder, &ours, Target::Fresh)?,
        ];
        let runs = race(home, bench.extent.rounds, &contestants)?;
        bench.compare(&ours, &theirs, &OWN)?;
        home.remove(&ours)?;
        home.remove(&theirs)?;
        page::rows(&mut table, medium.name(), &runs, 0);
        highest = highest.max(runs[1].peak());
        let what = format!("- blocks, target {}: the ratio of the wall times", medium.at());
        verdicts += &page::wanted(&what, runs[1].wall() / runs[0].wall(), OF_BLOCKS);
    }
    Ok(format!(
        "A full backup in blocks (`repo-block`) with zst, which the newer pgBackRest of Debian 13 has written and restores.\n\n{table}\n\
         {verdicts}{}",
        page::peak(highest, PEAK_OF_BLOCKS)
    ))
}

/// Measures a data directory in which nothing changed.
fn delta(bench: &Bench<'_>) -> Result<String> {
    let home = bench.home;
    let folder = repository(bench, "gz")?;
    let [ours, theirs] = ["delta-ours", "delta-theirs"].map(|name| home.target(TargetMedium::Memory, name));
    race(
        home,
        1,
        &[
            bench.theirs(&folder, 2, &theirs, Target::Fresh),
            bench.restoring_repository(&folder, &ours, Target::Kept)?,
        ],
    )?;
    let contestants = [
        bench.theirs(&folder, 2, &theirs, Target::Kept),
        bench.restoring_repository(&folder, &ours, Target::Kept)?,
    ];
    let runs = race(home, bench.extent.rounds, &contestants)?;
    bench.compare(&ours, &theirs, &OWN)?;
    home.remove(&ours)?;
    home.remove(&theirs)?;
    let mut table = page::head("changed");
    page::rows(&mut table, "nothing", &runs, 0);
    let ratio = runs[1].wall() / runs[0].wall();
    Ok(format!(
        "The gz backup is restored once more into a data directory in tmpfs that was made from it and in which nothing changed; both \
         programs read and check every file there.\n\n{table}\n{}",
        page::wanted("- nothing changed: the ratio of the wall times", ratio, 1.0)
    ))
}

/// Measures many small files, with bundles and without.
fn files(bench: &Bench<'_>) -> Result<String> {
    let (home, files) = (bench.home, bench.extent.files);
    let cluster = home.cluster_of_small_files(&format!("cluster-files-{files}"), files)?;
    let mut table = page::head("repository, target");
    let mut verdicts = String::new();
    for (kind, bundle) in [("not bundled", "n"), ("bundled", "y")] {
        let name = format!("repository-files-{files}-{bundle}");
        let folder =
            home.repository(&cluster, &name, &format!("compress-type=zst\nrepo1-bundle={bundle}\n"))?;
        for &medium in bench.extent.media {
            let [ours, theirs] = ["files-ours", "files-theirs"].map(|name| home.target(medium, name));
            let contestants = [
                bench.theirs(&folder, 2, &theirs, Target::Fresh),
                bench.restoring_repository(&folder, &ours, Target::Fresh)?,
            ];
            let runs = race(home, bench.extent.rounds, &contestants)?;
            bench.compare(&ours, &theirs, &OWN)?;
            home.remove(&ours)?;
            home.remove(&theirs)?;
            page::rows(&mut table, &format!("{kind}, {}", medium.name()), &runs, 0);
            let ratio = runs[1].wall() / runs[0].wall();
            verdicts += &page::wanted(
                &format!("- {kind}, target {}: the ratio of the wall times", medium.at()),
                ratio,
                1.0,
            );
        }
    }
    Ok(format!(
        "A small cluster with {files} more files of 8 KiB in the folder of a database. Half of each file is random bytes. The backups are \
         compressed with zst.\n\n{table}\n{verdicts}"
    ))
}

/// Returns a sentence about the peak memory in excess of a run that does almost nothing.
fn peak(bench: &Bench<'_>, highest: u64) -> Result<String> {
    let home = bench.home;
    let (copies, target) = (home.path("nothing"), home.target(TargetMedium::Memory, "nothing"));
    home.fresh(&copies)?;
    let mut cluster = minimal_cluster(7_000_000_000_000_000_001);
    cluster.state = DatabaseState::ShutDown;
    cluster.backup_label = false;
    cluster.write_complete(&copies.join("2026-11-26"))?;
    run(std::process::Command::new("chown")
        .arg("-R")
        .arg("--reference")
        .arg(home.path("state"))
        .arg(&copies))?;
    let job = Job {
        name: "nothing",
        method: "hello-method",
        options: format!("directory = \"{}\"", copies.display()),
        grants: reads(&copies),
        target: target.clone(),
        keep_data: false,
        bin_dir: Path::new(BIN_DIR),
    };
    let runs = race(home, bench.extent.rounds, &[bench.ours.contestant(&job, || Ok(()))?])?;
    home.remove(&target)?;
    let own = runs[0].peak();
    let beyond = highest.saturating_sub(own);
    let met = if beyond <= PEAK { "met" } else { "**not met**" };
    Ok(format!(
        "- In the table of the compressions, understudy's peak is at most {} MiB. Restoring three dozen empty files takes {} MiB. The \
         difference is {} MiB; at most {} MiB are wanted: {met}.\n",
        page::mebibytes(highest),
        page::mebibytes(own),
        page::mebibytes(beyond),
        PEAK >> 20,
    ))
}
