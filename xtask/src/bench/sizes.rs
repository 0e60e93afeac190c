//! Measures how time and memory grow with the size of the backup.

use std::fmt::Write as _;

use anyhow::Result;

use super::home::{TargetMedium, size};
use super::measure::race;
use super::tarball::{Then, ZSTD, tools};
use super::{Bench, page};

/// The target for the peak memory in bytes, regardless of the size of the backup.
const PEAK: u64 = 96 << 20;

pub(super) fn measure(bench: &Bench<'_>) -> Result<String> {
    let home = bench.home;
    let mut table = "| cluster, MB | backup, MB | wall, s | shortest to longest | MB of the cluster a second | of `zstd`, `tar`, `sync` | processor, s | peak, MiB |\n|--:|--:|--:|---|--:|--:|--:|--:|\n".to_owned();
    let mut highest = 0;
    let (mut rates, mut ratios) = (Vec::new(), Vec::new());
    for bytes in bench.extent.sizes {
        let (cluster, name) =
            (format!("growing-{}", bytes / 1_000_000), format!("backup-growing-{}", bytes / 1_000_000));
        if !home.has(&name) {
            let made = home.cluster_of_copies(&cluster, *bytes, &bench.cluster()?)?;
            home.backup(&made, &name, ZSTD.options)?;
            home.forget(&cluster)?;
        }
        let backup = home.path(&name);
        let target = home.target(TargetMedium::Memory, "grown");
        let runs = race(
            home,
            bench.extent.rounds,
            // Both use the same target, because two targets of the largest size would not fit into memory.
            &[
                tools(home, &ZSTD, &backup, &target, Then::Sync),
                bench.restoring("understudy", "tarball", &backup, target.clone())?,
            ],
        )?;
        let restored = size(&target)?;
        bench.verify(&target, &backup)?;
        home.remove(&target)?;
        let [theirs, one] = &runs[..] else { anyhow::bail!("not two contestants ran") };
        let (shortest, longest) = one.spread();
        let rate = restored as f64 / 1e6 / one.wall();
        writeln!(
            table,
            "| {} | {} | {:.2} | {shortest:.2} to {longest:.2} | {rate:.0} | {:.2} | {:.2} | {} |",
            restored / 1_000_000,
            size(&backup)? / 1_000_000,
            one.wall(),
            one.wall() / theirs.wall(),
            one.cpu(),
            page::mebibytes(one.peak())
        )?;
        rates.push(rate);
        ratios.push(one.wall() / theirs.wall());
        highest = highest.max(one.peak());
    }
    let met = if highest < PEAK { "met" } else { "**not met**" };
    let span = |values: &[f64]| {
        values.iter().fold((f64::INFINITY, 0.0_f64), |(low, high), value| (low.min(*value), high.max(*value)))
    };
    let ((slowest, fastest), (least, most)) = (span(&rates), span(&ratios));
    Ok(format!(
        "## How time and memory grow\n\n\
         The backups are compressed with zstd. Each cluster is a new one with copies of the relations of the cluster of {base} MB, half random \
         bytes and half pgbench's tables. The target is in tmpfs. The column \"of `zstd`, `tar`, `sync`\" has the ratio to the time of these \
         programs, which check nothing. The ratio is shown because the speed of tmpfs depends on the size.\n\n{table}\n\
         - The peak memory is {peak} MiB. For every size, less than {limit} MiB is wanted: {met}.\n\
         - If time is linear in size, the rate is constant. The rate is {slowest:.0} to {fastest:.0} MB a second, and the time is \
         {least:.2} to {most:.2} of the tools' time.\n",
        base = bench.extent.cluster / 1_000_000,
        peak = page::mebibytes(highest),
        limit = PEAK >> 20,
    ))
}
