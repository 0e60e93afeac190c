//! Compares the program with pg_basebackup, both copying from a primary on the same machine.

use std::ffi::OsString;
use std::path::Path;

use anyhow::Result;

use super::measure::{Contestant, race};
use super::tarball::{PLAIN, ZSTD};
use super::{Bench, page};
use crate::setup::BIN_DIR;

pub(super) fn measure(bench: &Bench<'_>) -> Result<String> {
    let home = bench.home;
    let cluster = bench.cluster()?;
    let (plain, zstd) = (bench.backup(&PLAIN)?, bench.backup(&ZSTD)?);
    let server = home.server(&cluster)?;
    let mut table = page::head("target");
    for &medium in bench.extent.media {
        let target = home.target(medium, "native");
        let program = [
            Path::new(BIN_DIR).join("pg_basebackup").into_os_string(),
            "--host=127.0.0.1".into(),
            format!("--port={}", server.port()).into(),
            "--username=postgres".into(),
            "--format=plain".into(),
            "--checkpoint=fast".into(),
            "--pgdata".into(),
            target.clone().into_os_string(),
        ];
        let (emptied, warm) = (target.clone(), cluster.clone());
        let native = Contestant {
            name: "pg_basebackup, without the server's own processor time".to_owned(),
            leaves: Some(target.join("global/pg_control")),
            prepare: Box::new(move || {
                home.warm(&warm.join("base"))?;
                home.remove(&emptied)
            }),
            program: program.into_iter().collect::<Vec<OsString>>(),
        };
        let (from_zstd, from_plain) = (home.target(medium, "from-zstd"), home.target(medium, "from-plain"));
        let contestants = [
            native,
            bench.restoring("understudy, zst", "tarball", &zstd, from_zstd.clone())?,
            bench.restoring("understudy, plain", "tarball", &plain, from_plain.clone())?,
        ];
        let runs = race(home, bench.extent.rounds, &contestants)?;
        for tree in [target, from_zstd, from_plain] {
            home.remove(&tree)?;
        }
        page::rows(&mut table, medium.name(), &runs, 0);
    }
    server.stop()?;
    Ok(format!(
        "## Against pg_basebackup\n\n\
         A running, idle cluster of {cluster} MB, whose files are in the page cache. `pg_basebackup --format=plain \
         --checkpoint=fast` copies it over loopback, syncs the copy, and checks only the checksums of pages. Understudy creates the \
         replica from a tar backup of the same cluster.\n\n{table}",
        cluster = bench.extent.cluster / 1_000_000,
    ))
}
