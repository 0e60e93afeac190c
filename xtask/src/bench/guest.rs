//! Compares the data plane with a component that decodes the same backup inside the sandbox.

use anyhow::{Result, ensure};

use super::home::TargetMedium;
use super::measure::race;
use super::tarball::FORMATS;
use super::{Bench, page};

/// The method that decodes in the component. It takes the same options as `tarball`.
const DECODES: &str = "decode";

pub(super) fn measure(bench: &Bench<'_>) -> Result<String> {
    let home = bench.home;
    ensure!(bench.ours.has(DECODES), "the component {DECODES} is not built: run `cargo xtask plugins`");
    let mut table = page::head("format");
    for format in &FORMATS {
        let backup = bench.backup(format)?;
        let (moved, decoded) =
            (home.target(TargetMedium::Memory, "moved"), home.target(TargetMedium::Memory, "decoded"));
        let contestants = [
            bench.restoring("inside the sandbox", DECODES, &backup, decoded.clone())?,
            bench.restoring("by the data plane", "tarball", &backup, moved.clone())?,
        ];
        let runs = race(home, bench.extent.rounds, &contestants)?;
        bench.verify(&decoded, &backup)?;
        home.remove(&moved)?;
        home.remove(&decoded)?;
        page::rows(&mut table, format.name, &runs, 0);
    }
    Ok(format!(
        "## The data plane compared with decoding in the component\n\n\
         The same backups of {cluster} MB are restored in two ways, with the target in tmpfs. In the first, a component reads, decompresses, \
         checks and writes every byte through WASI. In the second, the component only plans, and the host transfers the files.\n\n{table}",
        cluster = bench.extent.cluster / 1_000_000,
    ))
}
