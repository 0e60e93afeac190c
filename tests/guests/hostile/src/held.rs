//! Behaviours that make the host hold more and more resources, until a call is refused or `count` rounds are done.

use understudy::raw::understudy::method::store::{Bucket, Codec, Pipeline};
use understudy::raw::understudy::method::transfer::{Fetch, Job, Listed, Listing, Unless, Unpack};
use understudy::raw::wasi::io::streams::StreamError;
use understudy::{Failure, Request};
use wasip2::filesystem::types::{DescriptorFlags, OpenFlags, PathFlags};
use wasip2::http::types::{Fields, Method, OutgoingBody, OutgoingRequest, Scheme};

use crate::files::preopened;
use crate::refused;

/// How many items one call passes. With this number the names of the items fill the largest permitted call.
const ITEMS: usize = 3500;

/// Returns a relative path of 3.9 KB that ends with `name`.
fn long(name: &str) -> String {
    format!("{}{name}", format!("{}/", "n".repeat(200)).repeat(19))
}

fn bucket(request: &Request) -> Result<Bucket, Failure> {
    let name: String = request.require("store")?;
    Bucket::open(&name).map_err(|error| refused("bucket.open", format!("{error:?}")))
}

fn fetch(origin: u32, object: &str, size: u64, path: String) -> Fetch {
    Fetch {
        origin,
        object: object.to_owned(),
        range: None,
        path,
        at: None,
        size,
        digest: None,
        mode: None,
        mtime: None,
        unless: Unless::Always,
    }
}

fn rounds(
    request: &Request,
    what: &str,
    mut round: impl FnMut(u64) -> Result<(), String>,
) -> Result<(), Failure> {
    let count = request.require::<u64>("count")?;
    for number in 0..count {
        round(number).map_err(|answer| refused(&format!("{number} {what}"), answer))?;
    }
    Err(Failure::failed(format!("{count} {what}")))
}

fn text<T, E: std::fmt::Debug>(answer: Result<T, E>) -> Result<T, String> {
    answer.map_err(|error| format!("{error:?}"))
}

/// Queues files with long names in many jobs, one batch per job.
pub(crate) fn queues(request: &Request) -> Result<(), Failure> {
    let bucket = bucket(request)?;
    let object: String = request.require("path")?;
    let mut jobs = Vec::new();
    rounds(request, "batches of long names", |number| {
        let job = Job::new(false);
        let origin = text(job.add_origin(&bucket, None))?;
        let path = |item| long(&format!("{number}-{item}"));
        let items: Vec<_> = (0..ITEMS).map(|item| fetch(origin, &object, 1 << 20, path(item))).collect();
        text(job.fetch(&items))?;
        jobs.push(job);
        Ok(())
    })
}

/// Adds origins for a bucket with a long name.
pub(crate) fn origins(request: &Request) -> Result<(), Failure> {
    let short: String = request.require("path")?;
    let long = format!("{short}{}", "/.".repeat(1900 - short.len() / 2));
    let mut job = Job::new(false);
    rounds(request, "origins", |number| {
        if number % 60_000 == 59_999 {
            let full = std::mem::replace(&mut job, Job::new(false));
            std::mem::forget(full);
        }
        let bucket = text(Bucket::open(&long))?;
        text(job.add_origin(&bucket, None)).map(drop)
    })
}

/// Unpacks archives with long lists of skipped and refused paths, each archive in its own job.
pub(crate) fn path_lists(request: &Request) -> Result<(), Failure> {
    let bucket = bucket(request)?;
    let object: String = request.require("path")?;
    let mut jobs = Vec::new();
    rounds(request, "lists of paths", |number| {
        let job = Job::new(false);
        let origin = text(job.add_origin(&bucket, None))?;
        let skip = (0..ITEMS).map(|item| long(&format!("{number}-{item}"))).collect();
        let unpack = Unpack {
            origin,
            object: object.clone(),
            path: String::new(),
            limit: 0,
            skip,
            refuse: Vec::new(),
        };
        text(job.unpack(&unpack, None))?;
        jobs.push(job);
        Ok(())
    })
}

/// Lists files with long names.
pub(crate) fn listed(request: &Request) -> Result<(), Failure> {
    let listing = Listing::new();
    rounds(request, "batches of listed files", |number| {
        let path = |item| long(&format!("{number}-{item}"));
        let files: Vec<_> =
            (0..ITEMS).map(|item| Listed { path: path(item), size: 1, digest: None }).collect();
        text(listing.add(&files))
    })
}

/// Creates listings, each of which tolerates paths with long names.
pub(crate) fn tolerated(request: &Request) -> Result<(), Failure> {
    let mut listings = Vec::new();
    rounds(request, "lists of tolerated paths", |number| {
        let listing = Listing::new();
        let paths: Vec<_> = (0..ITEMS).map(|item| long(&format!("{number}-{item}"))).collect();
        text(listing.tolerate(&paths))?;
        listings.push(listing);
        Ok(())
    })
}

/// Fetches missing objects, and never reads the outcomes.
pub(crate) fn outcomes(request: &Request) -> Result<(), Failure> {
    let bucket = bucket(request)?;
    let job = Job::new(true);
    let origin = text(job.add_origin(&bucket, None)).map_err(Failure::failed)?;
    rounds(request, "batches of failures", |number| {
        let object = |item| long(&format!("{number}-{item}"));
        let items: Vec<_> = (0..ITEMS).map(|item| fetch(origin, &object(item), 1, "f".to_owned())).collect();
        text(job.fetch(&items))?;
        while !job.wait(1000).idle {}
        Ok(())
    })
}

/// Creates and drops a job, again and again.
pub(crate) fn job_churn(request: &Request) -> Result<(), Failure> {
    rounds(request, "jobs that are gone", |_| {
        drop(Job::new(true));
        Ok(())
    })
}

/// Opens one stream after another for the object `path`, which is zstd-compressed, and reads no stream to its end.
pub(crate) fn windows(request: &Request) -> Result<(), Failure> {
    let bucket = bucket(request)?;
    let object: String = request.require("path")?;
    let via = Pipeline::new();
    via.decompress(Codec::Zstd);
    let mut streams = Vec::new();
    rounds(request, "windows", |_| {
        let stream = text(bucket.read(&object, None, Some(&via)))?;
        // Reads enough to use the whole window.
        for _ in 0..2100 {
            match stream.blocking_read(64 << 10) {
                Ok(_) => {}
                Err(StreamError::Closed) => return Err("it has ended".to_owned()),
                Err(StreamError::LastOperationFailed(error)) => return Err(error.to_debug_string()),
            }
        }
        streams.push(stream);
        Ok(())
    })
}

/// Fetches the object `path`, a zstd stream of `count` MiB, as many times at once as there are workers.
pub(crate) fn fetched_windows(request: &Request) -> Result<(), Failure> {
    let bucket = bucket(request)?;
    let object: String = request.require("path")?;
    let size = request.require::<u64>("count")? << 20;
    let via = Pipeline::new();
    via.decompress(Codec::Zstd);
    let job = Job::new(true);
    let origin = text(job.add_origin(&bucket, Some(&via))).map_err(Failure::failed)?;
    let items: Vec<_> = (0..6).map(|number| fetch(origin, &object, size, number.to_string())).collect();
    text(job.fetch(&items)).map_err(Failure::failed)?;
    while !job.wait(1000).idle {}
    let failed: Vec<_> = job.outcomes(100).into_iter().filter_map(|outcome| outcome.ended.err()).collect();
    Err(Failure::failed(format!("all were fetched, but for {failed:?}")))
}

/// Opens the directory `path` as a store under many spellings, and keeps all stores open.
pub(crate) fn spellings(request: &Request) -> Result<(), Failure> {
    let path: String = request.require("path")?;
    let mut open = Vec::new();
    rounds(request, "spellings", |number| {
        open.push(text(Bucket::open(&format!("{path}{}", "/.".repeat(number as usize))))?);
        if open.len() > 500 {
            open.clear();
        }
        Ok(())
    })
}

/// Opens the directories `0`, `1`, `2` and so on in `path` as stores.
pub(crate) fn directories(request: &Request) -> Result<(), Failure> {
    let path: String = request.require("path")?;
    rounds(request, "directories", |number| text(Bucket::open(&format!("{path}/{number}"))).map(drop))
}

/// Opens the file `path` for a stream and drops the descriptor, again and again.
pub(crate) fn dropped_descriptors(request: &Request) -> Result<(), Failure> {
    let path: String = request.require("path")?;
    let (directory, name) = path.rsplit_once('/').unwrap_or(("", &path));
    let directory = preopened(directory.as_ref())?;
    let mut streams = Vec::new();
    rounds(request, "streams without a descriptor", |_| {
        let file =
            text(directory.open_at(PathFlags::empty(), name, OpenFlags::empty(), DescriptorFlags::READ))?;
        streams.push(text(file.read_via_stream(0))?);
        Ok(())
    })
}

/// Returns a list with as many bytes of headers as there may be.
fn headers() -> Result<Fields, String> {
    let fields = Fields::new();
    for number in 0..7 {
        text(fields.append(&format!("x-{number}"), &[b'x'; 4 << 10]))?;
    }
    Ok(fields)
}

/// Makes requests with long parts, headers, trailers and a body that waits, and sends none of them.
pub(crate) fn http_requests(request: &Request) -> Result<(), Failure> {
    let long = "a".repeat(15 << 20);
    let mut requests = Vec::new();
    rounds(request, "requests that are not sent", |_| {
        let made = OutgoingRequest::new(headers()?);
        // A part that is too long is refused, and the longest that is not is used.
        for bytes in [15 << 20, 8 << 10, 300, 64, 16] {
            let part = &long[..bytes];
            let _ = made.set_method(&Method::Other(part.to_owned()));
            let _ = made.set_authority(Some(part));
            let _ = made.set_scheme(Some(&Scheme::Other(part.to_owned())));
            if made.path_with_query().is_none() {
                let _ = made.set_path_with_query(Some(&format!("/{}", &part[1..])));
            }
        }
        let body = made.body().map_err(|()| "no body")?;
        let stream = body.write().map_err(|()| "no stream")?;
        while let Ok(most @ 1..) = stream.check_write() {
            text(stream.write(&vec![b'b'; most as usize]))?;
        }
        drop(stream);
        text(OutgoingBody::finish(body, Some(headers()?)))?;
        requests.push(made);
        Ok(())
    })
}
