//! A method that asks a catalogue service over HTTPS which backup to restore, and lets the host fetch its archives from a store.
//! README.md describes the service and says how to build and use the method.

mod entry;
#[cfg(target_family = "wasm")]
mod http;
#[cfg(not(target_family = "wasm"))]
#[path = "native.rs"]
mod http;

use understudy::store::Bucket;
use understudy::transfer::{Job, Unpack};
use understudy::{Datadir, Description, Failure, Method, Need, NeedKind, OptionSpec, Plan, Request};
use understudy::{log, progress};

use entry::Entry;

/// The file of a base backup that the host writes itself.
const SKIPPED: &str = "tablespace_map";

struct Catalogue;

impl Method for Catalogue {
    fn describe() -> Description {
        Description::new(
            "catalogue",
            env!("CARGO_PKG_VERSION"),
            "restores the backup that a catalogue service names",
        )
        .option(
            OptionSpec::text("catalogue")
                .required()
                .doc("the https:// address at which the service describes the backup"),
        )
        .option(OptionSpec::text("store").default("backups").doc("the store that holds the archives"))
        .need(Need::new(NeedKind::Network, "catalogue", "the service is asked which backup to restore"))
        .need(Need::new(NeedKind::Store, "store", "the archives are fetched from there"))
    }

    fn plan(request: &Request) -> Result<Plan, Failure> {
        let entry = ask(request)?;
        let bucket = Bucket::open(&store(request)?)?;
        // Checks that all archives exist before the host empties the data directory.
        for archive in &entry.archives {
            bucket.head(&archive.object)?;
        }
        log::info!("the catalogue names the backup {}", entry.name);
        Ok(entry.plan())
    }

    fn create(request: &Request, plan: &Plan) -> Result<(), Failure> {
        // A plan does not contain the list of archives, so this asks the catalogue again. It may name another backup by now.
        let entry = ask(request)?;
        if entry.plan() != *plan {
            return Err(Failure::retry_later(
                "the catalogue now names another backup than in the plan: run again",
            ));
        }
        Datadir::of(request)?;
        progress::expect(plan.bytes, None);
        progress::phase("fetching");
        let bucket = Bucket::open(&store(request)?)?;
        let mut job = Job::new();
        let origin = job.origin(&bucket, None)?;
        for archive in entry.archives {
            let item = Unpack {
                origin,
                object: archive.object,
                path: archive.path,
                limit: archive.size,
                skip: vec![SKIPPED.to_owned()],
                refuse: Vec::new(),
            };
            job.unpack(&item, None)?;
        }
        job.finish().map(drop)
    }
}

understudy::export!(Catalogue);

/// Asks the catalogue for the backup of this cluster.
fn ask(request: &Request) -> Result<Entry, Failure> {
    let address: String = request.require("catalogue")?;
    Entry::read(&http::get(&address)?)
}

fn store(request: &Request) -> Result<String, Failure> {
    Ok(request.get("store")?.unwrap_or_else(|| "backups".to_owned()))
}
