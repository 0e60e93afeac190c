use std::time::Instant;

use super::*;
use crate::budget::Budget;
use crate::job::archive_directories::{self, MOST_DIRECTORIES};
use crate::sink::directories::{Directories, MOST_OPEN};

#[test]
fn a_hundred_thousand_files_are_fetched_and_only_failures_are_reported() {
    let scene = Scene::new();
    scene.object("x", b"");
    let job = scene.plane.job(scene.target(), false, Withheld::default());
    job.add_origin(Store::directory(scene.store.path()).unwrap(), Pipeline::default()).unwrap();
    let all: Vec<_> = (0..100_000)
        .map(|number| {
            fetch(
                if number % 50_000 == 7 { "none" } else { "x" },
                &format!("base/{}/{number}", number % 64),
                0,
            )
        })
        .collect();
    for items in all.chunks(4096) {
        scene.wait(job.fetch(items.to_vec())).unwrap();
        assert!(job.status().queued <= QUEUE as u32);
    }
    let status = scene.wait(job.wait(LONG));
    assert_eq!((status.done, status.failed, status.files, status.idle), (99_998, 2, 99_998, true));
    let mut failed: Vec<_> = job.outcomes(10).into_iter().map(|outcome| outcome.index).collect();
    failed.sort_unstable();
    assert_eq!(failed, [7, 50_007]);
    assert_eq!(tree(scene.data.path()).len(), 99_998 + 65);
}

#[test]
fn adding_waits_while_the_queue_is_full() {
    let scene = Scene::with_workers(1);
    scene.object("x", b"");
    let job = scene.job();
    let held = scene.hold();
    let items: Vec<_> = (0..QUEUE).map(|number| fetch("x", &format!("f/{number}"), 0)).collect();
    scene.wait(job.fetch(items)).unwrap();
    held.wait_until_blocked();
    let mut more = Box::pin(job.fetch(vec![fetch("x", "one more", 0)]));
    // The first poll cannot succeed, because the queue is full.
    assert!(scene.wait(async { futures_util::poll!(more.as_mut()) }).is_pending());
    assert_eq!(job.status().queued, QUEUE as u32);
    held.release();
    scene.wait(more).unwrap();
    assert_eq!(scene.ended(&job).len(), QUEUE + 1);
}

#[test]
fn untaken_outcomes_are_bounded() {
    let scene = Scene::new();
    let job = scene.job();
    let items = |count: usize| (0..count).map(|_| fetch("none", "f", 0)).collect::<Vec<_>>();
    let error = scene.wait(job.fetch(items(MOST_OUTCOMES + 1))).unwrap_err();
    assert_eq!(error.kind, Kind::Limit);
    scene.wait(job.fetch(items(MOST_MESSAGES + 10))).unwrap();
    scene.wait(job.wait(LONG));
    let outcomes = job.outcomes(usize::MAX);
    assert_eq!(outcomes.len(), MOST_MESSAGES + 10);
    let named = |outcome: &Outcome| outcome.ended.as_ref().unwrap_err().message.contains("none");
    assert_eq!(outcomes.iter().filter(|outcome| named(outcome)).count(), MOST_MESSAGES);
    assert!(outcomes.iter().all(|outcome| outcome.ended.as_ref().unwrap_err().kind == Kind::NotFound));
    // Taking outcomes makes room for new ones.
    scene.wait(job.fetch(items(1))).unwrap();
    assert!(named(
        &scene.wait(async {
            job.ready().await;
            job.outcomes(1)
        })[0]
    ));
}

#[test]
fn an_exhausted_disk_budget_is_a_limit() {
    let scene = Scene::new();
    scene.object("x", &noise(1, 100_000));
    scene.budget.bytes.store(150_000, Ordering::Relaxed);
    let ended = scene.fetch(&scene.job(), vec![fetch("x", "a", 100_000), fetch("x", "b", 100_000)]);
    let errors: Vec<_> = ended.iter().filter_map(|ended| ended.as_ref().err()).collect();
    assert_eq!(errors.len(), 1, "{ended:?}");
    assert_eq!(errors[0].kind, Kind::Limit);
    assert!(errors[0].message.contains("No space left on device"), "{}", errors[0]);
    assert_eq!(tree(scene.data.path()).len(), 1);

    scene.budget.bytes.store(u64::MAX, Ordering::Relaxed);
    scene.budget.files.store(1, Ordering::Relaxed);
    let ended = scene.fetch(&scene.job(), vec![fetch("x", "new/c", 100_000)]);
    assert_eq!(ended[0].as_ref().unwrap_err().kind, Kind::Limit);
    assert!(!scene.path("new/c").exists());
}

#[test]
fn nothing_that_a_restricted_thread_calls_starts_a_thread() {
    let scene = Scene::new();
    scene.object("x", b"bytes");
    scene.object("archive", &[0; 1024]);
    let job = scene.job();
    // Every kind of work has run once before, so that threads that start late have started.
    let items = || (0..100).map(|number| fetch("x", &format!("f/{number}"), 5)).collect::<Vec<_>>();
    scene.fetch(&job, items());
    scene.unpack(&job, unpack("archive"), None).unwrap();

    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mine = std::thread::spawn(move || {
        // A new thread inherits its name, like Landlock's restrictions, from the thread that starts it.
        rustix::thread::set_name(c"restricted").unwrap();
        runtime.block_on(async {
            job.fetch(items()).await.unwrap();
            job.unpack(unpack("archive"), None).await.unwrap();
            while !job.wait(Duration::from_millis(50)).await.idle {}
            job.ready().await;
            assert_eq!(job.outcomes(1000).len(), 101);
            job.progress();
            scene.plane.run(|| ()).await.unwrap();
            let held = scene.hold();
            job.fetch(items()).await.unwrap();
            held.wait_until_blocked();
            held.release();
            job.cancel().await;
            drop(job);
            drop(scene);
        });
        let names = fs::read_dir("/proc/self/task")
            .unwrap()
            .filter_map(|task| fs::read_to_string(task.unwrap().path().join("comm")).ok());
        names.filter(|name| name.trim() == "restricted").count()
    });
    assert_eq!(mine.join().unwrap(), 1);
}

#[test]
fn waiting_ends_when_its_time_is_over() {
    let scene = Scene::with_workers(1);
    scene.object("x", b"");
    let job = scene.job();
    let held = scene.hold();
    scene.wait(job.fetch(vec![fetch("x", "f", 0)])).unwrap();
    held.wait_until_blocked();
    let start = Instant::now();
    assert!(!scene.wait(job.wait(Duration::from_millis(20))).idle);
    assert!(start.elapsed() >= Duration::from_millis(20));
    held.release();
    assert!(scene.wait(job.wait(LONG)).idle);
}

#[test]
fn the_number_of_origins_is_bounded() {
    let scene = Scene::new();
    let job = scene.job();
    let store = Store::directory(scene.store.path()).unwrap();
    for _ in 1..MOST_ORIGINS {
        job.add_origin(store.clone(), Pipeline::default()).unwrap();
    }
    assert_eq!(job.add_origin(store, Pipeline::default()).unwrap_err().kind, Kind::Limit);
}

#[test]
fn the_number_of_paths_that_an_unpack_skips_or_refuses_is_bounded() {
    let scene = Scene::new();
    scene.object("a.tar", &[0; 1024]);
    let paths = |count: usize| (0..count).map(|path| path.to_string()).collect::<Vec<_>>();
    let job = scene.job();
    for (skip, refuse) in [(MOST_PATHS + 1, 0), (0, MOST_PATHS + 1)] {
        let item = Unpack { skip: paths(skip), refuse: paths(refuse), ..unpack("a.tar") };
        assert_eq!(scene.wait(job.unpack(item, None)).unwrap_err().kind, Kind::Limit);
    }
    let item = Unpack { skip: paths(MOST_PATHS), refuse: paths(MOST_PATHS), ..unpack("a.tar") };
    scene.unpack(&job, item, None).unwrap();
}

#[test]
fn the_number_of_an_archives_directories_is_bounded() {
    let mut seen = archive_directories::ArchiveDirectories::within(&Budget::unlimited());
    let path = |number: usize| RelativePath::new(number.to_string()).unwrap();
    for number in 0..MOST_DIRECTORIES {
        seen.add(&path(number)).unwrap();
    }
    assert_eq!(seen.add(&path(MOST_DIRECTORIES)).unwrap_err().kind, Kind::Limit);
}

#[test]
fn a_worker_keeps_within_its_limit_of_open_directories_however_many_it_fills() {
    let scene = Scene::new();
    let target = scene.target();
    let data = fs::canonicalize(scene.data.path()).unwrap();
    let open = || {
        let all = fs::read_dir("/proc/self/fd").unwrap();
        let all = all.filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
        all.filter(|path| path.starts_with(&data)).count()
    };
    let before = open();
    let mut directories = Directories::with_limit(MOST_OPEN);
    for number in 0..3 * MOST_OPEN {
        let path = RelativePath::new(format!("base/{number}/file")).unwrap();
        let place = target.file(&path).unwrap();
        directories.parent(&target, &place).unwrap();
        assert_eq!(open() - before, (number + 1).min(MOST_OPEN));
    }
    directories.close();
    assert_eq!(open(), before);
}
