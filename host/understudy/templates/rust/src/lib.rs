//! A method of Understudy that restores a PostgreSQL data directory from a store. In the store, each file of a backup is an object of its
//! own, compressed with gzip, and each backup has an index. README.md describes the format.
//!
//! This crate decides what is restored. The host does the work: it reads, decompresses, checks and writes many files at once.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod index;
#[cfg(test)]
mod tests;

use index::{File, Index};
use understudy::names::{BACKUP_LABEL, PG_VERSION};
use understudy::store::{Bucket, Codec, Pipeline};
use understudy::transfer::{Algorithm, Digest, Fetch, Job, Unless};
use understudy::{
    Datadir, Description, Failure, Method, Need, NeedKind, OptionSpec, Plan, Request, cancelled,
    log, progress,
};

/// The name of the store in the operator's grants: `grants.stores.backups`.
const STORE: &str = "backups";

/// The option that names a backup.
const BACKUP: &str = "backup";

struct Restore;

impl Method for Restore {
    fn describe() -> Description {
        Description::new(
            env!("CARGO_PKG_NAME"),
            env!("CARGO_PKG_VERSION"),
            "restores a directory of compressed files",
        )
        .option(OptionSpec::text(BACKUP).doc("the name of the backup; the newest if not set"))
        .need(Need::new(
            NeedKind::Store,
            STORE,
            "the backups are read from there",
        ))
    }

    // Runs without write access, while the old data still exists. A failure for a reason that can be known here belongs here.
    fn plan(request: &Request) -> Result<Plan, Failure> {
        let store = Bucket::open(STORE)?;
        let name = match request.get(BACKUP)? {
            Some(name) => name,
            None => index::newest(&store)?,
        };
        let plan = Index::read(&store, &name)?.plan(&name);
        log::info!("the backup is {name}");
        Ok(plan)
    }

    // The host has emptied the data directory. If this function fails, the host removes what was written.
    fn create(request: &Request, plan: &Plan) -> Result<(), Failure> {
        let store = Bucket::open(STORE)?;
        let index = Index::read(&store, &plan.backup)?;
        if index.plan(&plan.backup) != *plan {
            let changed = format!(
                "{} was replaced since the plan was made: run again",
                plan.backup
            );
            return Err(Failure::retry_later(changed));
        }
        progress::expect(plan.bytes, plan.files);
        progress::phase("restoring");
        let mut job = Job::new();
        let origin = job.origin(&store, Some(&Pipeline::new().decompress(Codec::Gzip)))?;
        // From these two files a Patroni that starts during the run learns the version, and that the directory comes from a backup.
        let (first, rest): (Vec<_>, Vec<_>) = index
            .files
            .iter()
            .partition(|file| [PG_VERSION, BACKUP_LABEL].contains(&file.path.as_str()));
        for file in first {
            job.fetch(fetch(origin, &plan.backup, file))?;
        }
        job.wait_until_idle()?;
        let datadir = Datadir::of(request)?;
        for directory in &index.directories {
            cancelled()?;
            datadir.create_dir(directory)?;
        }
        for file in rest {
            job.fetch(fetch(origin, &plan.backup, file))?;
        }
        // Waits for all files. The failure names the files that failed.
        job.finish()?;
        Ok(())
    }
}

understudy::export!(Restore);

/// Returns what the host needs to know to write one file: the object, the path in the data directory, and how the result is checked.
fn fetch(origin: u32, backup: &str, file: &File) -> Fetch {
    Fetch {
        origin,
        object: index::object(backup, &file.path),
        range: None,
        path: file.path.clone(),
        at: None,
        size: file.size,
        digest: Some(Digest {
            algorithm: Algorithm::Sha256,
            value: file.sha256.to_vec(),
        }),
        mode: None,
        mtime: None,
        unless: Unless::Always,
    }
}
