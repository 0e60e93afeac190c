//! The memory of a job is charged and given back.

use std::io::Write as _;

use super::*;
use crate::budget::Budget;
use crate::codec::Codec;
use crate::job::archive_directories::ArchiveDirectories;

impl Scene {
    /// Makes a scene with this much memory, in addition to the memory of the workers.
    fn within(workers: usize, more: u64) -> (Self, Budget) {
        let memory = Budget::memory(workers as u64 * WORKER + more.max(workers as u64 * WORKER));
        let bounds = Bounds { memory: memory.clone(), ..Bounds::unlimited() };
        let plane = DataPlane::start_within(NonZeroUsize::new(workers), None, &bounds).unwrap();
        assert_eq!(plane.workers(), workers);
        (Self { plane, ..Self::with_workers(1) }, memory)
    }
}

/// Waits until exactly `at` bytes are charged. A thread may keep the last item of a job for a moment after the job has ended.
fn settles(memory: &Budget, at: u64) {
    let begun = std::time::Instant::now();
    while memory.held() != at {
        assert!(begun.elapsed() < LONG, "{memory:?} instead of {at}");
        std::thread::yield_now();
    }
}

/// An existing object, followed by many missing ones with names of 4000 bytes.
fn long_names(first: &str, count: usize) -> Vec<Fetch> {
    let absent =
        |number: usize| fetch(&format!("{}{number}", format!("{}/", "n".repeat(199)).repeat(20)), "f", 0);
    std::iter::once(fetch("x", first, 0)).chain((0..count).map(absent)).collect()
}

#[test]
fn names_are_charged_by_their_length_and_adding_waits_or_fails_without_memory() {
    let (scene, memory) = Scene::within(1, 8 << 20);
    scene.object("x", b"");
    let (one, other) = (scene.job(), scene.job());
    let before = memory.held();
    let held = scene.hold();
    scene.wait(one.fetch(long_names("a", 1000))).unwrap();
    held.wait_until_blocked();
    let taken = memory.held() - before;
    assert!((4 << 20..6 << 20).contains(&taken), "{taken}");
    // No item of the other job ends, so waiting would never end.
    let error = scene.wait(other.fetch(long_names("b", 1000))).unwrap_err();
    assert_eq!(error.kind, Kind::Limit, "{error}");
    assert!(error.message.contains("host_memory"), "{error}");
    assert_eq!(other.status().queued, 0);
    // The texts of the first thousand failures keep their memory until they are taken.
    let mut more = Box::pin(one.fetch(long_names("c", 500)));
    assert!(scene.wait(async { futures_util::poll!(more.as_mut()) }).is_pending());
    held.release();
    scene.wait(more).unwrap();
    assert_eq!(scene.ended(&one).len(), 1502);
    settles(&memory, before);
    // The memory is also given back if the job is cancelled.
    let held = scene.hold();
    scene.wait(other.fetch(long_names("d", 1000))).unwrap();
    held.wait_until_blocked();
    held.release();
    drop(other);
    drop(one);
    settles(&memory, WORKER);
}

#[test]
fn a_batch_larger_than_the_memory_is_refused() {
    let (scene, _) = Scene::within(1, 8 << 20);
    let job = scene.job();
    let error = scene.wait(job.fetch(long_names("a", 4000))).unwrap_err();
    assert_eq!((error.kind, job.status().queued), (Kind::Limit, 0));
}

#[test]
fn texts_of_failures_are_kept_while_there_is_memory() {
    let (scene, memory) = Scene::within(1, 8 << 20);
    let job = scene.job();
    let before = memory.held();
    let name = format!("{}/", "n".repeat(199)).repeat(5);
    for _ in 0..16 {
        let items = (0..500).map(|number| fetch(&format!("{name}{number}"), "f", 0)).collect();
        scene.wait(job.fetch(items)).unwrap();
        assert!(scene.wait(job.wait(LONG)).idle);
    }
    assert!(memory.held() <= memory.most());
    let outcomes = job.outcomes(usize::MAX);
    assert_eq!(outcomes.len(), 8000);
    let dropped = |outcome: &&Outcome| {
        let error = outcome.ended.as_ref().unwrap_err();
        assert_eq!(error.kind, Kind::NotFound, "{error}");
        error.message.contains("too many failures are waiting")
    };
    let dropped = outcomes.iter().filter(dropped).count();
    assert!((500..6000).contains(&dropped), "{dropped}");
    settles(&memory, before);
}

#[test]
fn origins_are_charged_with_their_keys() {
    let (scene, memory) = Scene::within(1, 4 << 20);
    let job = scene.plane.job(scene.target(), true, Withheld::default());
    let store = Store::directory(scene.store.path()).unwrap();
    let key = crate::keys::Key::named("k", foundation::secret::Secret::new(vec![7; 100_000]));
    let via = Pipeline { decrypt: Some((key, crate::cipher::CipherFormat::OpensslSha1)), decompress: None };
    let refused = (0..100).find_map(|_| job.add_origin(store.clone(), via.clone()).err()).unwrap();
    assert_eq!(refused.kind, Kind::Limit);
    drop(job);
    settles(&memory, WORKER);
}

#[test]
fn lists_of_an_unpack_are_charged() {
    let (scene, _) = Scene::within(1, 4 << 20);
    scene.object("a.tar", &[0; 1024]);
    let paths = |count: usize| (0..count).map(|number| format!("{number:0>4000}")).collect::<Vec<_>>();
    for (skip, refuse) in [(2000, 0), (0, 2000)] {
        let item = Unpack { skip: paths(skip), refuse: paths(refuse), ..unpack("a.tar") };
        assert_eq!(scene.wait(scene.job().unpack(item, None)).unwrap_err().kind, Kind::Limit);
    }
    let item = Unpack { skip: paths(300), refuse: paths(300), ..unpack("a.tar") };
    scene.unpack(&scene.job(), item, None).unwrap();
}

#[test]
fn windows_of_workers_wait_for_one_another() {
    let plain = vec![7; 1 << 20];
    let stored = {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(27).unwrap();
        encoder.write_all(&plain).unwrap();
        encoder.finish().unwrap()
    };
    let via = || Pipeline { decompress: Some(Codec::Zstd), ..Pipeline::default() };
    let (scene, memory) = Scene::within(4, 130 << 20);
    scene.object("x", &stored);
    let items = || (0..12).map(|number| fetch("x", &number.to_string(), 1 << 20)).collect::<Vec<_>>();
    let ended = scene.fetch(&scene.job_via(via()), items());
    assert!(ended.iter().all(|ended| *ended == Ok(Action::Written)), "{ended:?}");
    settles(&memory, 4 * WORKER);

    let (scene, _) = Scene::within(4, 100 << 20);
    scene.object("x", &stored);
    let ended = scene.fetch(&scene.job_via(via()), items());
    assert!(
        ended.iter().all(|ended| ended.as_ref().is_err_and(|error| error.kind == Kind::Limit)),
        "{ended:?}"
    );
}

#[test]
fn directories_of_an_archive_are_charged() {
    let memory = Budget::memory(1 << 20);
    let mut seen = ArchiveDirectories::within(&memory);
    let path = |number: usize| RelativePath::new(number.to_string()).unwrap();
    let refused = (0..100_000).find_map(|number| seen.add(&path(number)).err()).unwrap();
    assert_eq!(refused.kind, Kind::Limit);
    drop(seen);
    assert_eq!(memory.held(), 0);
}

#[test]
fn fewer_workers_start_with_little_memory() {
    let workers = |memory, files| {
        let bounds = Bounds { memory: Budget::memory(memory), files: Budget::files(files) };
        DataPlane::start_within(NonZeroUsize::new(16), None, &bounds).unwrap().workers()
    };
    assert_eq!(workers(64 * WORKER, 1000), 16);
    assert_eq!(workers(6 * WORKER, 1000), 3);
    assert_eq!(workers(0, 1000), 1);
    assert_eq!(workers(64 * WORKER, 64), 4);
    assert_eq!(workers(64 * WORKER, 0), 1);
}
