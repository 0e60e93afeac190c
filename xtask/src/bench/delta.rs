//! Measures `mirror` with a replica in which 0, 1 or 100 % of the data changed. Compares it with rsync, and with a program that only
//! reads both sides.

use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tests::server::run;

use super::home::{TargetMedium, quoted, shell};
use super::measure::{Contestant, race};
use super::ours::{Job, reads};
use super::{Bench, page};
use crate::setup::BIN_DIR;

/// Which part of the target differs from the copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Nothing,
    OnePercent,
    All,
}

impl Change {
    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::OnePercent => "1 %",
            Self::All => "all",
        }
    }

    /// Overwrites the first page of files in `base`, until the sizes of these files add up to this share of the size of `base`. Each of
    /// these files must then be copied again completely.
    fn apply(self, target: &Path) -> Result<()> {
        let mut files = Vec::new();
        relations(&target.join("base"), &mut files)?;
        files.sort();
        let all: u64 = files.iter().map(|(_, size)| size).sum();
        let share = match self {
            Self::Nothing => return Ok(()),
            Self::OnePercent => all / 100,
            Self::All => all,
        };
        let mut changed = 0;
        // The last files by name belong to tables that are not empty.
        for (path, size) in files.iter().rev() {
            if changed >= share {
                break;
            }
            let mut file = std::fs::File::options()
                .write(true)
                .open(path)
                .with_context(|| format!("open {}", path.display()))?;
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&[0x55; 8192][..8192.min(usize::try_from(*size)?)])?;
            changed += size;
        }
        Ok(())
    }
}

fn relations(folder: &Path, files: &mut Vec<(PathBuf, u64)>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            relations(&entry.path(), files)?;
        } else {
            files.push((entry.path(), metadata.len()));
        }
    }
    Ok(())
}

pub(super) fn measure(bench: &Bench<'_>) -> Result<String> {
    let home = bench.home;
    let cluster = bench.cluster()?;
    let mut table = page::head("changed");
    let mut verdict = String::new();
    let trees = ["by-digest", "by-time", "rsync", "rsync-checksum"]
        .map(|name| home.target(TargetMedium::Memory, name));
    let [by_digest, by_time, by_rsync, by_checksum] = &trees;
    for (tree, how) in [(by_digest, "digest"), (by_time, "size-and-time")] {
        let first = ours(bench, &cluster, "first", how, tree, Change::Nothing)?;
        race(home, 1, &[first])?;
    }
    for tree in [by_rsync, by_checksum] {
        run(home
            .user()
            .command("/usr/bin/rsync")
            .arg("--archive")
            .arg(format!("{}/", cluster.display()))
            .arg(tree))?;
    }
    for change in [Change::Nothing, Change::OnePercent, Change::All] {
        let reading = Contestant {
            name: "reading both sides".to_owned(),
            prepare: Box::new(|| Ok(())),
            program: shell(&format!(
                "find {} {} -type f -exec cat {{}} + >/dev/null",
                quoted(&cluster),
                quoted(by_rsync)
            )),
            leaves: None,
        };
        let contestants = [
            reading,
            rsync(bench, &cluster, by_rsync, false, change),
            rsync(bench, &cluster, by_checksum, true, change),
            ours(bench, &cluster, "understudy, by size and time", "size-and-time", by_time, change)?,
            ours(bench, &cluster, "understudy, by digest", "digest", by_digest, change)?,
        ];
        let runs = race(home, bench.extent.rounds, &contestants)?;
        page::rows(&mut table, change.name(), &runs, 0);
        if change == Change::Nothing {
            for at in [3, 4] {
                let ratio = runs[at].wall() / runs[0].wall();
                verdict += &page::wanted(
                    &format!(
                        "- nothing changed, {}: the ratio of the wall time to that of reading both sides",
                        runs[at].name
                    ),
                    ratio,
                    1.0,
                );
            }
        }
    }
    for tree in &trees {
        home.remove(tree)?;
    }
    Ok(format!(
        "## A copy that is there already\n\n\
         `mirror` restores a cold copy of {cluster} MB on disk to a data directory in tmpfs that was made from the copy. Since then, no \
         file, files with 1 % of the bytes, or all files have changed. Both sides are in the page cache. `rsync --archive --delete` \
         compares sizes and times; with `--checksum` it reads both sides. The ratios compare with `cat` of both sides.\n\n{table}\n{verdict}",
        cluster = bench.extent.cluster / 1_000_000,
    ))
}

fn rsync<'a>(
    bench: &Bench<'a>,
    cluster: &Path,
    target: &Path,
    checksum: bool,
    change: Change,
) -> Contestant<'a> {
    let option = if checksum { "--checksum " } else { "" };
    let script = format!(
        "rsync --archive --delete {option}{}/ {}\nsync --file-system {}",
        quoted(cluster),
        quoted(target),
        quoted(target)
    );
    let (home, warm, changed) = (bench.home, cluster.to_owned(), target.to_owned());
    Contestant {
        name: format!("rsync --archive {option}").trim().to_owned(),
        leaves: Some(target.join("global/pg_control")),
        prepare: Box::new(move || {
            home.warm(&warm)?;
            change.apply(&changed)
        }),
        program: shell(&script),
    }
}

fn ours<'a>(
    bench: &Bench<'a>,
    cluster: &Path,
    name: &str,
    how: &str,
    target: &Path,
    change: Change,
) -> Result<Contestant<'a>> {
    let (home, warm, changed) = (bench.home, cluster.to_owned(), target.to_owned());
    let job = Job {
        name,
        method: "mirror",
        options: format!("directory = \"{}\"\ndelta = \"{how}\"", cluster.display()),
        grants: reads(cluster),
        target: target.to_owned(),
        keep_data: true,
        bin_dir: Path::new(BIN_DIR),
    };
    bench.ours.contestant(&job, move || {
        home.warm(&warm)?;
        if changed.join("base").exists() { change.apply(&changed) } else { Ok(()) }
    })
}
