use ustar::written::{archive, file};

use super::*;

#[test]
fn after_a_cancel_nothing_is_written_any_more() {
    let scene = Scene::new();
    scene.object("x", &noise(1, 50_000));
    for dropped in [false, true] {
        let job = scene.job();
        let items = (0..10_000).map(|number| fetch("x", &format!("{dropped}/{number}"), 50_000));
        scene.wait(job.fetch(items.collect())).unwrap();
        while job.status().done < 10 {
            scene.wait(job.wait(Duration::from_millis(1)));
        }
        if dropped {
            drop(job);
        } else {
            scene.wait(job.cancel());
            let status = job.status();
            assert!(status.idle && status.failed > 0 && status.done + status.failed == 10_000, "{status:?}");
            let error = scene.wait(job.fetch(vec![fetch("x", "y", 50_000)])).unwrap_err();
            assert_eq!(error.kind, Kind::Cancelled);
            let outcomes = job.outcomes(usize::MAX);
            let cancelled =
                |outcome: &&Outcome| outcome.ended.as_ref().is_err_and(|error| error.kind == Kind::Cancelled);
            assert_eq!(outcomes.iter().filter(cancelled).count(), status.failed as usize);
        }
        let before = tree(&scene.path(&dropped.to_string()));
        assert!(before.len() < 10_000);
        // Only complete files are left; the unfinished one was removed.
        assert!(before.iter().all(|(_, bytes)| bytes.as_ref().is_some_and(|bytes| bytes.len() == 50_000)));
        // Another job uses every worker; a worker that still wrote for the first job would have finished that by now.
        let after = scene.job();
        let items = (0..100).map(|number| fetch("x", &format!("{dropped}-after/{number}"), 50_000));
        assert!(scene.fetch(&after, items.collect()).iter().all(Result::is_ok));
        assert_eq!(tree(&scene.path(&dropped.to_string())).len(), before.len());
    }
}

#[test]
fn an_unpack_is_cancelled_in_the_middle() {
    let scene = Scene::new();
    let members: Vec<_> =
        (0..2000).map(|number| file(&format!("f/{number}"), &noise(number, 20_000))).collect();
    scene.object("a.tar", &archive(&members));
    let job = scene.job();
    let held = scene.hold();
    scene.wait(job.unpack(unpack("a.tar"), None)).unwrap();
    held.wait_until_blocked();
    let mut cancel = Box::pin(job.cancel());
    assert!(scene.wait(async { futures_util::poll!(cancel.as_mut()) }).is_pending());
    held.release();
    scene.wait(cancel);
    assert_eq!(job.outcomes(1)[0].ended.as_ref().unwrap_err().kind, Kind::Cancelled);
    assert!(tree(scene.data.path()).len() < 2000);
}

#[test]
fn a_fault_in_a_worker_fails_the_item_and_not_the_pool() {
    let scene = Scene::new();
    scene.object("x", b"bytes");
    scene.object("a.tar", &archive(&[file("b", b"small"), file("c", &[1; 1 << 20])]));
    let job = scene.job();
    scene.budget.panics.store(true, Ordering::Relaxed);
    let ended = scene.fetch(&job, (0..20).map(|number| fetch("x", &format!("f{number}"), 5)).collect());
    for error in ended.into_iter().map(Result::unwrap_err) {
        assert_eq!(error.kind, Kind::Failed);
        assert!(error.message.contains("fault") && error.message.contains("as the test wants it"), "{error}");
    }
    let error = scene.unpack(&job, unpack("a.tar"), None).unwrap_err();
    assert!(error.message.contains("fault"), "{error}");
    scene.budget.panics.store(false, Ordering::Relaxed);
    assert!(
        scene
            .fetch(&job, (0..20).map(|number| fetch("x", &format!("f{number}"), 5)).collect())
            .iter()
            .all(Result::is_ok)
    );
    scene.unpack(&job, unpack("a.tar"), None).unwrap();
}

#[test]
fn a_blocking_task_returns_even_if_it_panics() {
    let scene = Scene::new();
    assert_eq!(scene.wait(scene.plane.run(|| 7)).unwrap(), 7);
    let error = scene.wait(scene.plane.run::<()>(|| panic!("as the test wants it"))).unwrap_err();
    assert!(error.message.contains("as the test wants it"), "{error}");
    assert_eq!(scene.wait(scene.plane.run(|| 8)).unwrap(), 8);
}

#[test]
fn the_threads_end_with_the_plane_and_its_jobs() {
    let scene = Scene::new();
    let job = scene.job();
    let plane = scene.plane.clone();
    drop(scene);
    drop(plane);
    assert!(job.status().idle);
    drop(job);
}
