//! Cancelling ends a run promptly and leaves none of its threads.

use std::time::{Duration, Instant};

use replica::{Method, Outcome};

use crate::stage::Stage;

/// How long a run may take to end after a cancel: 250 ms, and what a loaded machine may add.
const PROMPT: Duration = Duration::from_millis(250 + 750);

/// Waits until no thread has this name any more. A joined thread may still be listed for a moment.
pub(crate) async fn gone(thread: &str) {
    let started = Instant::now();
    let lives = || {
        let names = std::fs::read_dir("/proc/self/task").unwrap();
        let mut names = names.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
        names.any(|name| name.trim() == thread)
    };
    while lives() {
        assert!(started.elapsed() < Duration::from_secs(10), "the thread {thread} still exists");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs components: cargo xtask test"]
async fn a_component_is_cancelled_whatever_it_does() {
    for (behave, says) in [
        ("loop", "looping"),
        ("sleep", "sleeping"),
        ("ignore-cancel", "ignoring"),
        ("cooperative-cancel", "waiting"),
    ] {
        for mut stage in [Stage::hostile(behave), Stage::hostile(behave).in_plan()] {
            stage.settings.name = "to-be-cancelled".to_owned();
            let creating = stage.create();
            let cancelling = async {
                stage.says(says).await;
                stage.cancel.cancel();
                Instant::now()
            };
            let (ended, cancelled) = tokio::join!(creating, cancelling);
            assert_eq!(ended.unwrap_err().outcome, Outcome::Cancelled, "{behave}");
            assert!(cancelled.elapsed() < PROMPT, "{behave}: {:?}", cancelled.elapsed());
            gone("to-be-cancelled").await;
        }
    }
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn a_run_that_is_cancelled_already_does_not_start() {
    let stage = Stage::hostile("nothing");
    stage.cancel.cancel();
    assert_eq!(stage.plan().await.unwrap_err().outcome, Outcome::Cancelled);
    assert!(stage.events().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs components: cargo xtask test"]
async fn dropping_the_future_of_a_call_ends_the_call() {
    let mut stage = Stage::hostile("loop").in_plan();
    stage.settings.name = "dropped-call".to_owned();
    let (method, request, run) = (stage.method(), stage.request(), stage.run());
    tokio::select! {
        _ = method.plan(&request, &run) => panic!("`plan` returned although the component loops"),
        () = stage.says("looping") => {}
    }
    gone("dropped-call").await;
}
