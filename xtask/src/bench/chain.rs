//! Measures the restore of a chain of incremental backups, compared with `tar` and `pg_combinebackup`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use tests::releases;

use super::home::{quoted, shell, size};
use super::measure::{Contestant, Runs, race};
use super::ours::{Job, reads};
use super::{Bench, page};

/// The first PostgreSQL with incremental backups.
const RELEASE: u32 = 17;

/// The files and directories that only one of the programs writes, or each in its own way.
const OWN: [&str; 6] = [
    "postgresql.auto.conf",
    "backup_manifest",
    "tablespace_map",
    "standby.signal",
    "archive_status",
    "summaries",
];

/// The wanted ratio to the wall time of the tools.
const OF_TOOLS: f64 = 0.5;

/// The wanted upper limit of the peak memory in bytes.
const PEAK: u64 = 96 << 20;

pub(super) fn measure(bench: &Bench<'_>) -> Result<String> {
    let home = bench.home;
    let bin_dir = releases::ensure(RELEASE)?.join("bin");
    let name = format!("chain-{}", bench.extent.cluster / 1_000_000);
    let chain = home.chain(&name, bench.extent.cluster, &bin_dir)?;
    let mut table = page::head("target");
    let (mut verdicts, mut highest) = (String::new(), 0);
    for &medium in bench.extent.media {
        let [ours, theirs] = ["chain-ours", "chain-theirs"].map(|name| home.target(medium, name));
        let contestants =
            [tools(bench, &chain, &theirs, &bin_dir), understudy(bench, &chain, &ours, &bin_dir)?];
        let runs = race(home, bench.extent.rounds, &contestants)?;
        bench.compare(&ours, &theirs.join("whole"), &OWN)?;
        home.remove(&ours)?;
        home.remove(&theirs)?;
        page::rows(&mut table, medium.name(), &runs, 0);
        highest = highest.max(runs[1].peak());
        let ratio = |of: fn(&Runs) -> f64| of(&runs[1]) / of(&runs[0]);
        let what = format!("- target {}: the ratio of the wall times", medium.at());
        verdicts += &page::wanted(&what, ratio(Runs::wall), OF_TOOLS);
    }
    Ok(format!(
        "## A chain of incremental backups\n\n\
         A full backup of a cluster of {cluster} MB, half of it random bytes and half pgbench's tables, and two incremental backups, before \
         each of which two percent of the accounts changed. PostgreSQL {RELEASE} wrote them as archives with zstd ({sizes}), and they are in \
         the page cache. The tools unpack the three backups with `zstd` and `tar`, combine them with `pg_combinebackup`, and unpack the \
         newest WAL; they compare no checksum. `sync` follows. `understudy create` compares every file with its manifest and checks the WAL, and the seal syncs.\n\n\
         {table}\n{verdicts}{peak}",
        cluster = bench.extent.cluster / 1_000_000,
        sizes = sizes(&chain)?,
        peak = page::peak(highest, PEAK),
    ))
}

/// Returns the stored sizes of the backups.
fn sizes(chain: &Path) -> Result<String> {
    let mut sizes = Vec::new();
    for number in 0..3 {
        sizes.push(format!("{} MB", size(&chain.join(format!("link-{number}")))? / 1_000_000));
    }
    Ok(sizes.join(", "))
}

fn tools<'a>(bench: &Bench<'a>, chain: &Path, target: &Path, bin_dir: &Path) -> Contestant<'a> {
    let (into, home) = (quoted(target), bench.home);
    let unpack = |number: u32| {
        let backup = chain.join(format!("link-{number}"));
        format!(
            "mkdir {into}/{number}\nzstd -dcq {base} | tar --extract --file - --directory {into}/{number}\n\
             cp {manifest} {into}/{number}/backup_manifest\n",
            base = quoted(&backup.join("base.tar.zst")),
            manifest = quoted(&backup.join("backup_manifest")),
        )
    };
    let script = format!(
        "{}{}{}{combine} --no-sync --output {into}/whole {into}/0 {into}/1 {into}/2\n\
         tar --extract --file {wal} --directory {into}/whole/pg_wal\nsync --file-system {into}",
        unpack(0),
        unpack(1),
        unpack(2),
        combine = quoted(&bin_dir.join("pg_combinebackup")),
        wal = quoted(&chain.join("link-2/pg_wal.tar")),
    );
    let (target, chain) = (target.to_owned(), chain.to_owned());
    Contestant {
        name: "zstd, tar, pg_combinebackup, sync".to_owned(),
        leaves: Some(target.join("whole/global/pg_control")),
        prepare: Box::new(move || {
            home.warm(&chain)?;
            home.fresh(&target)
        }),
        program: shell(&script),
    }
}

fn understudy<'a>(bench: &Bench<'a>, chain: &Path, target: &Path, bin_dir: &Path) -> Result<Contestant<'a>> {
    let (home, warm): (_, PathBuf) = (bench.home, chain.to_owned());
    let job = Job {
        name: "understudy, chain",
        method: "tarball",
        options: format!("directory = \"{}\"\nbackup = \"link-2\"", chain.display()),
        grants: reads(chain),
        target: target.to_owned(),
        keep_data: false,
        bin_dir,
    };
    bench.ours.contestant(&job, move || home.warm(&warm))
}
