//! Measures the restore of many small files, compared with tar.

use std::cell::Cell;
use std::path::Path;

use anyhow::Result;

use super::home::TargetMedium;
use super::measure::{Contestant, race};
use super::tarball::{PLAIN, Then, tools};
use super::{Bench, page};

/// Returns the contestant with a changed preparation, which moves the tree from the earlier run aside instead of removing it. ext4 skips
/// recently freed inodes one by one (`recently_deleted` in fs/ext4/ialloc.c), so a removal would slow down the next contestant.
fn keeping<'a>(contestant: Contestant<'a>, aside: &Path) -> Contestant<'a> {
    let Contestant { name, prepare, program, leaves } = contestant;
    let (kept, left, runs) = (aside.join(name.replace([' ', ','], "-")), leaves.clone(), Cell::new(0_u32));
    let prepare = move || {
        // The control file is in the folder `global` of the tree.
        if let Some(tree) =
            left.as_deref().and_then(Path::parent).and_then(Path::parent).filter(|tree| tree.exists())
        {
            runs.set(runs.get() + 1);
            std::fs::rename(tree, kept.with_extension(runs.get().to_string()))?;
        }
        prepare()
    };
    Contestant { name, prepare: Box::new(prepare), program, leaves }
}

pub(super) fn measure(bench: &Bench<'_>) -> Result<String> {
    let (home, files) = (bench.home, bench.extent.files);
    let cluster = home.cluster_of_small_files(&format!("cluster-files-{files}"), files)?;
    let backup = home.backup(&cluster, &format!("backup-files-{files}"), PLAIN.options)?;
    let mut table = page::head("target");
    let mut verdicts = String::new();
    for &medium in bench.extent.media {
        let trees = ["ours", "unpacked", "verified"].map(|name| home.target(medium, name));
        let [ours, unpacked, verified] = &trees;
        let mut contestants = [
            tools(home, &PLAIN, &backup, unpacked, Then::Sync),
            tools(home, &PLAIN, &backup, verified, Then::VerifyAndSync),
            bench.restoring("understudy", "tarball", &backup, ours.clone())?,
        ];
        let aside = home.target(medium, "aside");
        if medium == TargetMedium::Disk {
            home.fresh(&aside)?;
            contestants = contestants.map(|one| keeping(one, &aside));
        }
        let runs = race(home, bench.extent.rounds, &contestants)?;
        bench.verify(ours, &backup)?;
        for tree in trees.iter().chain([&aside]) {
            home.remove(tree)?;
        }
        page::rows(&mut table, medium.name(), &runs, 0);
        verdicts += &page::wanted(
            &format!(
                "- target {}: the ratio of the wall time to that of `tar --extract` and `sync`",
                medium.at()
            ),
            runs[2].wall() / runs[0].wall(),
            1.0,
        );
    }
    Ok(format!(
        "## {files} files of 8 KiB\n\n\
         A tar backup of a small cluster with this many additional files in the folder of a database. The manifest lists all of them. \
         Understudy checks each file. `tar` does not, so it is measured with and without `pg_verifybackup`.\n\n\
         {table}\n{verdicts}"
    ))
}
