//! Many small files, against tar.

use anyhow::Result;

use super::measure::race;
use super::tarball::{PLAIN, Then, tools};
use super::{Bench, page};

pub(super) fn measure(bench: &Bench<'_>) -> Result<String> {
    let (home, files) = (bench.home, bench.extent.files);
    let cluster = home.cluster_of_small_files(&format!("cluster-files-{files}"), files)?;
    let backup = home.backup(&cluster, &format!("backup-files-{files}"), PLAIN.options)?;
    let mut table = page::head("target");
    let mut verdicts = String::new();
    for &place in bench.extent.places {
        let trees = ["ours", "unpacked", "verified"].map(|name| home.target(place, name));
        let [ours, unpacked, verified] = &trees;
        let contestants = [
            tools(home, &PLAIN, &backup, unpacked, Then::Sync),
            tools(home, &PLAIN, &backup, verified, Then::VerifyAndSync),
            bench.restoring("understudy", "tarball", &backup, ours.clone())?,
        ];
        let runs = race(home, bench.extent.rounds, &contestants)?;
        bench.verify(ours, &backup)?;
        for tree in &trees {
            home.remove(tree)?;
        }
        page::rows(&mut table, place.name(), &runs, 0);
        verdicts += &page::wanted(
            &format!("- against `tar --extract` and `sync`, target {}", place.at()),
            runs[2].wall() / runs[0].wall(),
            1.0,
        );
    }
    Ok(format!(
        "## {files} files of 8 KiB\n\n\
         A small cluster with so many more files in the folder of a database, as `pg_basebackup --format=tar` wrote them, all in \
         its manifest. Understudy checks each; `tar` alone does not, so it stands here with and without `pg_verifybackup`.\n\n\
         {table}\n{verdicts}"
    ))
}
