//! Behaviours that use and misuse the data plane.

use understudy::raw::understudy::method::store::{Bucket, Pipeline};
use understudy::raw::understudy::method::transfer::{Fetch, Job, Listed, Listing, Unless, Unpack};
use understudy::raw::understudy::method::types::Error;
use understudy::{AtPath, Failure, Request, log};

use crate::{escaped, refused, verdict};

fn bucket(request: &Request) -> Result<Bucket, Failure> {
    Bucket::open(&request.require::<String>("store")?)
        .map_err(|error| refused("bucket.open", format!("{error:?}")))
}

fn file(origin: u32, object: &str, size: u64, path: &str) -> Fetch {
    Fetch {
        origin,
        object: object.to_owned(),
        range: None,
        path: path.to_owned(),
        at: None,
        size,
        digest: None,
        mode: None,
        mtime: None,
        unless: Unless::Always,
    }
}

fn failed(attempt: &str) -> impl Fn(Error) -> Failure {
    move |error| refused(attempt, format!("{error:?}"))
}

/// Fetches every object in the store to the data directory under its own name, and logs the outcomes.
pub(crate) fn transfer(request: &Request) -> Result<(), Failure> {
    let bucket = bucket(request)?;
    let page = bucket.scan("", None).map_err(failed("scan"))?;
    let job = Job::new(true);
    let origin = job.add_origin(&bucket, None).map_err(failed("add-origin"))?;
    let items: Vec<_> =
        page.objects.iter().map(|object| file(origin, &object.key, object.size, &object.key)).collect();
    job.fetch(&items).map_err(failed("fetch"))?;
    while !job.wait(1000).idle {}
    let outcomes = job.outcomes(4096);
    let failures: Vec<_> = outcomes.iter().filter(|outcome| outcome.ended.is_err()).collect();
    if failures.is_empty() && outcomes.len() == items.len() {
        return Ok(());
    }
    Err(refused("fetch", format!("{failures:?} of {} and {} items", outcomes.len(), items.len())))
}

/// Fetches the object `path` again and again, forever.
pub(crate) fn transfer_and_stay(request: &Request) -> Result<(), Failure> {
    let bucket = bucket(request)?;
    let object: String = request.require("path")?;
    let job = Job::new(false);
    let origin = job.add_origin(&bucket, None).map_err(failed("add-origin"))?;
    let size = bucket.head(&object).map_err(failed("head"))?.size;
    let trap = request.require::<String>("address")? == "trap";
    for round in 0_u64.. {
        let items: Vec<_> =
            (0..64).map(|number| file(origin, &object, size, &format!("round-{round}/{number}"))).collect();
        job.fetch(&items).map_err(failed("fetch"))?;
        log::info!("fetching round {round}");
        if trap && round == 2 {
            // Waits until a file is written. Otherwise a test could not see that the fetches began.
            while job.wait(1).done == 0 {}
            std::process::abort();
        }
    }
    Ok(())
}

/// Tries to fetch files to paths that must not be written.
pub(crate) fn elsewhere(request: &Request) -> Result<(), Failure> {
    let bucket = bucket(request)?;
    let object: String = request.require("path")?;
    let job = Job::new(true);
    let origin = job.add_origin(&bucket, None).map_err(failed("add-origin"))?;
    let answer = |answer: Result<(), Error>| answer.map_err(|error| format!("{error:?}"));
    let mut attempts = Vec::new();
    for path in [
        "../outside",
        "/tmp/outside",
        "a/../../outside",
        "global2/pg_control",
        "pg_control",
        "global/PG_CONTROL",
        "pg_control/x",
        "pg_wal/pg_control",
        "pg_tblspc/16384/outside",
        "pg_tblspc/x/outside",
        "",
        "a\0b",
    ] {
        attempts.push((format!("fetch {path:?}"), answer(job.fetch(&[file(origin, &object, 1, path)]))));
    }
    for path in ["../outside", "/tmp", "pg_tblspc/16384", "pg_control", "g2/pg_control/x"] {
        let unpack = Unpack {
            origin,
            object: object.clone(),
            path: path.to_owned(),
            limit: 1 << 20,
            skip: Vec::new(),
            refuse: Vec::new(),
        };
        attempts.push((format!("unpack {path:?}"), answer(job.unpack(&unpack, None))));
    }
    Err(verdict(attempts))
}

/// Unpacks the archive `path`, which contains a cluster with `global` under the name `g2`, and tries to create the control file under its
/// final name in every way. Leaves a `postmaster.pid` that names process 1, and keeps running.
pub(crate) fn plant(request: &Request) -> Result<(), Failure> {
    let bucket = bucket(request)?;
    let job = Job::new(true);
    let origin = job.add_origin(&bucket, None).map_err(failed("add-origin"))?;
    let unpack = |path: &str| Unpack {
        origin,
        object: request.require("path").unwrap_or_default(),
        path: path.to_owned(),
        limit: 1 << 30,
        skip: Vec::new(),
        refuse: Vec::new(),
    };
    job.unpack(&unpack(""), None).map_err(failed("unpack"))?;
    while !job.wait(1000).idle {}
    let mut attempts: Vec<_> = job
        .outcomes(16)
        .into_iter()
        .map(|outcome| ("unpack".to_owned(), outcome.ended.map(drop).map_err(|error| format!("{error:?}"))))
        .collect();
    let datadir = request.datadir()?;
    std::fs::create_dir_all(datadir.join("global")).at(datadir)?;
    attempts.extend(crate::files::other_global(datadir)?);
    let pid = datadir.join("postmaster.pid");
    std::fs::write(&pid, "1\n").at(&pid)?;
    log::info!("planted: {}", verdict(attempts));
    loop {
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
}

/// Passes more items than one call permits.
pub(crate) fn too_many_at_once(request: &Request) -> Result<(), Failure> {
    let bucket = bucket(request)?;
    let job = Job::new(true);
    let origin = job.add_origin(&bucket, None).map_err(failed("add-origin"))?;
    let items: Vec<_> = (0..4097).map(|number| file(origin, "x", 1, &number.to_string())).collect();
    let listing = Listing::new();
    let listed: Vec<_> =
        (0..4097).map(|number| Listed { path: number.to_string(), size: 1, digest: None }).collect();
    let paths: Vec<_> = (0..4097).map(|number| number.to_string()).collect();
    let answer = |answer: Result<(), Error>| match answer {
        Err(Error::Limit(text)) => Err(text),
        // Any error but `limit` breaks the contract.
        _ => Ok(()),
    };
    let large: String = request.require("path")?;
    Err(verdict(vec![
        ("fetch".to_owned(), answer(job.fetch(&items))),
        ("listing.add".to_owned(), answer(listing.add(&listed))),
        ("listing.tolerate".to_owned(), answer(listing.tolerate(&paths))),
        ("get".to_owned(), answer(bucket.get(&large, None, u32::MAX).map(drop))),
    ]))
}

/// Opens streams for the object `path`, and never closes any of them.
pub(crate) fn streams(request: &Request) -> Result<(), Failure> {
    let bucket = bucket(request)?;
    let object: String = request.require("path")?;
    let mut open = Vec::new();
    for count in 0..request.require::<u64>("count")? {
        match bucket.read(&object, None, None) {
            Ok(stream) => open.push(stream),
            Err(error) => return Err(refused(&format!("{count} open streams"), format!("{error:?}"))),
        }
    }
    Err(escaped(&format!("has {} open streams", open.len())))
}

/// Creates jobs, and never drops any of them.
pub(crate) fn jobs(request: &Request) -> Result<(), Failure> {
    let held: Vec<_> = (0..request.require::<u64>("count")?).map(|_| Job::new(true)).collect();
    Err(escaped(&format!("has {} jobs", held.len())))
}

/// Derives the keys `0`, `1`, `2` and so on from the object `path`.
pub(crate) fn derive_many(request: &Request) -> Result<(), Failure> {
    let bucket = bucket(request)?;
    let object: String = request.require("path")?;
    let plain = Pipeline::new();
    let mut held = Vec::new();
    for number in 0..request.require::<u64>("count")? {
        match bucket.derive_key(&object, &plain, "keys", &number.to_string()) {
            Ok(key) => held.push(key),
            Err(error) => return Err(refused(&format!("{number} derived keys"), format!("{error:?}"))),
        }
    }
    Err(escaped(&format!("has {} derived keys", held.len())))
}
