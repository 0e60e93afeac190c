//! Jobs against the stand-in host.

use std::fs;

use super::*;
use crate::UNFINISHED_CONTROL_FILE;
use crate::native::Host;

fn fetch(origin: u32, name: &str, size: u64) -> Fetch {
    Fetch {
        origin,
        object: name.to_owned(),
        range: None,
        path: name.to_owned(),
        at: None,
        size,
        digest: None,
        mode: None,
        mtime: None,
        unless: Unless::Always,
    }
}

#[test]
fn more_files_than_one_batch_are_all_fetched() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for number in 0..5000 {
        fs::write(from.path().join(number.to_string()), "x").unwrap();
    }
    fs::create_dir(from.path().join("global")).unwrap();
    fs::write(from.path().join("global/pg_control"), "control").unwrap();
    let (result, record) = Host::new(to.path()).run(|| {
        let bucket = Bucket::open(from.path().to_str().unwrap())?;
        let mut job = Job::new();
        let origin = job.origin(&bucket, None)?;
        for number in 0..5000 {
            job.fetch(fetch(origin, &number.to_string(), 1))?;
        }
        job.fetch(fetch(origin, "global/pg_control", 7))?;
        job.finish()
    });
    assert_eq!(result.unwrap().done, 5001);
    assert_eq!((record.bytes, record.files), (5007, 5001));
    assert_eq!(fs::read_dir(to.path()).unwrap().count(), 5001);
    assert!(to.path().join(UNFINISHED_CONTROL_FILE).exists());
}

#[test]
fn a_store_and_a_compression_have_one_origin_in_a_job() {
    let (one, other, to) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (made, _) = Host::new(to.path()).run(|| {
        let open = |dir: &tempfile::TempDir| Bucket::open(dir.path().to_str().unwrap());
        let (bucket, again, other) = (open(&one)?, open(&one)?, open(&other)?);
        let mut made = 0;
        let mut job = Job::new();
        let mut of = |bucket, codec| {
            job.origin_of(bucket, codec, || {
                made += 1;
                None
            })
        };
        let (plain, gzip) = (of(&bucket, None)?, of(&bucket, Some(Codec::Gzip))?);
        let elsewhere = of(&other, None)?;
        assert!(plain != gzip && plain != elsewhere && gzip != elsewhere);
        assert_eq!((of(&again, None)?, of(&bucket, Some(Codec::Gzip))?), (plain, gzip));
        assert_eq!(of(&other, None)?, elsewhere);
        Ok::<_, Error>(made)
    });
    assert_eq!(made.unwrap(), 3);
}

#[test]
fn the_first_failures_are_named_and_the_others_are_counted() {
    let failed = |what: &str| Error::Corrupt(format!("{what} is damaged"));
    let later = |what: &str| Error::Transient(format!("{what} does not answer"));
    assert_eq!(together([].into_iter()), None);
    assert_eq!(together([Error::Cancelled].into_iter()), Some(Failure::Cancelled));
    assert_eq!(
        together([later("a"), Error::Cancelled].into_iter()),
        Some(Failure::RetryLater("a does not answer".to_owned()))
    );
    assert_eq!(
        together([failed("a"), later("b"), failed("c"), failed("d")].into_iter()),
        Some(Failure::Failed("a is damaged; b does not answer; c is damaged; and 1 more failed".to_owned()))
    );
}

#[test]
fn the_failure_of_a_job_names_a_missing_file() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (result, _) = Host::new(to.path()).run(|| {
        let bucket = Bucket::open(from.path().to_str().unwrap())?;
        let mut job = Job::new();
        let origin = job.origin(&bucket, None)?;
        job.fetch(fetch(origin, "base/5/1259", 1))?;
        job.finish()
    });
    assert!(matches!(result, Err(Failure::Failed(why)) if why.contains("base/5/1259")));
}

#[test]
fn a_job_ends_when_the_run_is_cancelled() {
    let to = tempfile::tempdir().unwrap();
    let (result, _) = Host::new(to.path()).cancel_after(0).run(|| Job::new().finish());
    assert!(matches!(result, Err(Failure::Cancelled)));
}
