//! The rules of the loop (rules 4 to 17a, 27, 28), on real data directories: what a person sees of a run.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod place;
mod source;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use place::*;
use replica::datadir::Contents;
use replica::event::Step;
use replica::{
    CancelReason, Context, Event, Failure, Level, ListedMethod, Outcome, Plan, Refusal, Rule, Run, RunResult,
    SealRequests, check_methods,
};
use tests::cluster::minimal_cluster;
use tests::scripted::Scripted;
use tests::server::BIN_DIR;

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_04_without_a_source_only_methods_with_no_leader_are_tried() {
    let place = Place::with_old_data();
    let needs_leader = ListedMethod { no_leader: false, ..candidate(never("needs-leader")) };
    let report =
        place.run(&[candidate(never("basebackup")), needs_leader, candidate(restores("archive"))]).await;
    assert_eq!(outcomes(&report), [("archive", "created")]);
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_04_a_list_of_which_nothing_remains_touches_nothing_and_says_what_is_missing() {
    let place = Place::with_old_data();
    let report = place.run(&[candidate(never("basebackup"))]).await;
    assert_eq!(report.result, RunResult::Failed);
    assert!(report.message.unwrap().contains("no_leader = true"));
    assert!(place.has("global/pg_control") && place.has("base/old"));
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_05_a_run_cancelled_before_its_first_method_touches_nothing() {
    let place = Place::with_old_data();
    place.cancel.cancel(CancelReason::Interrupt);
    let report = place.run(&[candidate(never("a"))]).await;
    assert_eq!(report.result.exit_code(), 130);
    assert!(report.attempts.is_empty() && place.has("global/pg_control"));
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_05_cancellation_is_looked_at_before_each_method() {
    let place = Place::new();
    let cancel = place.cancel.clone();
    let cancels = Scripted::new("a", move |_, _| {
        cancel.cancel(CancelReason::Terminate);
        async { Err(Failure::new(Outcome::Failed, "by itself")) }
    });
    let report = place.run(&[candidate(cancels), candidate(never("b"))]).await;
    assert_eq!(outcomes(&report), [("a", "cancelled")]);
    assert_eq!(report.result.exit_code(), 143);
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_05_cancellation_is_looked_at_before_the_seal_too() {
    let place = Place::new();
    let cancel = place.cancel.clone();
    let done_too_late = Scripted::new("a", move |request, _| {
        minimal_cluster(CLUSTER).write(&request.directories.datadir).unwrap();
        cancel.cancel(CancelReason::Interrupt);
        async { Ok(SealRequests::default()) }
    });
    let report = place.run(&[candidate(done_too_late)]).await;
    assert_eq!(outcomes(&report), [("a", "cancelled")]);
    assert!(place.is_empty());
}

/// PostgreSQL's programs, of which `postgres` tells its version at once the first time, and from the second time on only when there is
/// the file `go`; it makes the file `asked` then.
fn programs_that_wait(root: &Path) -> PathBuf {
    let bin_dir = root.join("bin");
    fs::create_dir(&bin_dir).unwrap();
    let script = format!(
        "#!/bin/sh\ncd '{}'\nif [ -e once ]; then : > asked; until [ -e go ]; do sleep 0.01; done; fi\n: > once\n\
         exec {BIN_DIR}/postgres \"$@\"\n",
        root.display()
    );
    fs::write(bin_dir.join("postgres"), script).unwrap();
    fs::set_permissions(bin_dir.join("postgres"), fs::Permissions::from_mode(0o755)).unwrap();
    bin_dir
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_05_a_seal_that_is_cancelled_does_not_go_on() {
    let mut place = Place::new();
    place.job.bin_dir = programs_that_wait(place.root.path());
    let (root, cancel) = (place.root.path().to_owned(), place.cancel.clone());
    let cancels = tokio::spawn(async move {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !root.join("asked").exists() {
            assert!(Instant::now() < deadline, "the seal asks `postgres` for its version");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        cancel.cancel(CancelReason::Interrupt);
        fs::write(root.join("go"), "").unwrap();
    });
    let report = place.run(&[candidate(restores("a"))]).await;
    cancels.await.unwrap();
    assert_eq!(place.steps_of("a").last(), Some(&Step::Seal));
    assert_eq!(outcomes(&report), [("a", "cancelled")]);
    assert_eq!(report.attempts[0].message, "cancelled by SIGINT");
    assert!(place.is_empty());
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_08_what_ends_before_step_4_touches_nothing_and_the_loop_goes_on() {
    let place = Place::with_old_data();
    let refused = never("refused").refused(Refusal::new(Rule::Grant, "no").remedy("line"));
    let nothing = never("nothing")
        .looking(|_, _| async { Err(Failure::new(Outcome::NotApplicable, "no backup here")) });
    let newer = never("newer").planning(Plan { postgresql_major: Some(16), ..Plan::default() });
    let report = place.run(&[candidate(refused), candidate(nothing), candidate(newer)]).await;
    assert_eq!(
        outcomes(&report),
        [("refused", "rejected"), ("nothing", "not-applicable"), ("newer", "rejected")]
    );
    assert!(report.attempts.iter().all(|attempt| !attempt.touched));
    assert_eq!(report.attempts[0].rule, Some(Rule::Grant));
    assert_eq!(report.attempts[0].remedy.as_deref(), Some("line"));
    assert_eq!(report.attempts[2].rule, Some(Rule::MajorVersion));
    assert!(place.has("global/pg_control") && place.has("base/old"));
    assert_eq!(place.contents(), Contents::Cluster);
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_08_old_data_is_gone_when_a_method_creates() {
    let place = Place::with_old_data();
    let looks = Scripted::new("a", |request, _| async move {
        let left = fs::read_dir(&request.directories.datadir).unwrap().count();
        Err(Failure::new(Outcome::Failed, format!("{left} left")))
    });
    let report = place.run(&[candidate(looks)]).await;
    assert_eq!(report.attempts[0].message, "0 left");
    assert!(report.attempts[0].touched);
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_08_keep_data_leaves_old_data_but_never_its_control_file() {
    let place = Place::with_old_data();
    let looks = Scripted::new("a", |request, _| async move {
        let has = |path: &str| request.directories.datadir.join(path).exists();
        let seen = format!("{} {} {}", request.keep_data, has("base/old"), has("global/pg_control"));
        Err(Failure::new(Outcome::Failed, seen))
    });
    let report = place.run(&[keeping_data(looks.planning(delta()))]).await;
    assert_eq!(report.attempts[0].message, "true true false");
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rules_09_and_10_the_four_parameters_are_patronis_and_no_params_takes_them_away() {
    let place = Place::new().with_source(Ok(facts()));
    let seen: Arc<Mutex<Vec<Option<Context>>>> = Arc::default();
    let looks = |name: &str| {
        let seen = seen.clone();
        Scripted::new(name, move |request, _| {
            seen.lock().unwrap().push(request.context);
            async { Err(Failure::new(Outcome::Failed, "seen")) }
        })
    };
    let without = ListedMethod { no_params: true, ..candidate(looks("b")) };
    place.run(&[candidate(looks("a")), without]).await;
    let expected = Context {
        scope: "batman".to_owned(),
        role: "replica".to_owned(),
        datadir: place.datadir().to_str().unwrap().to_owned(),
        connstring: "host=127.0.0.1 port=1 user=replicator".to_owned(),
    };
    assert_eq!(*seen.lock().unwrap(), [Some(expected), None]);
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_09_without_a_source_the_connection_string_is_empty() {
    let place = Place::new();
    let looks = Scripted::new("a", |request, _| async move {
        Err(Failure::new(Outcome::Failed, format!("<{}>", request.context.unwrap().connstring)))
    });
    assert_eq!(place.run(&[candidate(looks)]).await.attempts[0].message, "<>");
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_12_a_failure_of_any_word_goes_on_to_the_next_and_success_ends_the_loop() {
    let words = [
        Outcome::NotApplicable,
        Outcome::RetryLater,
        Outcome::Failed,
        Outcome::Trapped,
        Outcome::Denied,
        Outcome::TimedOut,
        Outcome::OutOfMemory,
        Outcome::OutOfDisk,
    ];
    let place = Place::new();
    let mut candidates: Vec<_> = words.iter().map(|word| candidate(fails_as(word.word(), *word))).collect();
    candidates.extend([candidate(restores("good")), candidate(never("after"))]);
    let report = place.run(&candidates).await;
    let mut expected: Vec<_> = words.iter().map(|word| (word.word(), word.word())).collect();
    expected.push(("good", "created"));
    assert_eq!(outcomes(&report), expected);
    assert_eq!(report.result, RunResult::Created);
    assert!(place.has("global/pg_control") && !place.has("base/half"));
    assert_eq!(place.contents(), Contents::Cluster);
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_12_a_panic_in_a_method_is_its_failure_and_not_the_programs() {
    let place = Place::new();
    let in_plan = never("plan").looking(|_, _| async { panic!("in plan") });
    let in_create = Scripted::new("create", |_, _| async { panic!("in create") });
    let report = place.run(&[candidate(in_plan), candidate(in_create), candidate(restores("good"))]).await;
    assert_eq!(outcomes(&report), [("plan", "failed"), ("create", "failed"), ("good", "created")]);
    assert_eq!(report.attempts[1].message, "the method panicked: in create");
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_12_words_that_are_the_hosts_are_no_methods() {
    let place = Place::new();
    let liar = |word| Scripted::new("liar", move |_, _| async move { Err(Failure::new(word, "so it says")) });
    for word in [Outcome::Created, Outcome::CheckFailed, Outcome::Cancelled] {
        let report = place.run(&[candidate(liar(word))]).await;
        assert_eq!(outcomes(&report), [("liar", "failed")]);
        assert_eq!(report.result, RunResult::Failed);
    }
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_13_after_a_failure_the_directory_is_empty() {
    let place = Place::with_old_data();
    place.run(&[candidate(fails("a"))]).await;
    assert!(place.is_empty());
    assert_eq!(place.contents(), Contents::Nothing);
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_13_keep_data_survives_a_failure_also_with_no_params_and_cannot_be_started() {
    for no_params in [false, true] {
        let place = Place::with_old_data();
        let method = ListedMethod { no_params, ..keeping_data(fails("a").planning(delta())) };
        let report = place.run(&[method]).await;
        assert_eq!(outcomes(&report), [("a", "failed")]);
        assert!(place.has("base/old") && place.has("base/half"));
        assert!(!place.has("global/pg_control"));
        assert_eq!(place.contents(), Contents::Unfinished);
    }
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_27_a_method_that_could_not_be_stopped_is_left_alone_in_the_directory() {
    let place = Place::with_old_data();
    let hangs = Scripted::new("hangs", |request, _| async move {
        leave_half(&request);
        Err(Failure::new(Outcome::Failed, "its thread hangs in a system call").may_still_write())
    });
    let report = place.run(&[candidate(hangs), candidate(restores("next"))]).await;
    assert_eq!(outcomes(&report), [("hangs", "failed")], "no other method may write beside it");
    assert!(!place.has("global/pg_control"));
    assert_eq!(place.contents(), Contents::Unfinished, "the next run empties it");
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_14_a_failed_basebackup_does_not_end_the_loop() {
    let place = Place::new().with_source(Ok(facts()));
    let report = place.run(&[candidate(fails("basebackup")), candidate(restores("archive"))]).await;
    assert_eq!(outcomes(&report), [("basebackup", "failed"), ("archive", "created")]);
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_15_an_unfinished_tree_is_emptied_before_a_method_that_does_not_build_on_it() {
    let place = Place::with_old_data();
    let first = keeping_data(fails("first").planning(delta()));
    let second = keeping_data(restores("second"));
    let report = place.run(&[first, second]).await;
    assert_eq!(outcomes(&report), [("first", "failed"), ("second", "created")]);
    assert!(!place.has("base/old") && !place.has("base/half"));
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_15_a_method_that_builds_on_it_gets_the_unfinished_tree() {
    let place = Place::with_old_data();
    let build = |method: Scripted| keeping_data(method.planning(delta()));
    let report = place.run(&[build(fails("first")), build(restores("second"))]).await;
    assert_eq!(report.result, RunResult::Created);
    assert!(place.has("base/old") && place.has("base/half"));
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_16_the_states_are_patronis_two_words() {
    let place = Place::new();
    place.run(&[candidate(fails("a"))]).await;
    let events = place.events.lock().unwrap();
    let states: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::State { state } => Some(*state),
            _ => None,
        })
        .collect();
    assert_eq!(states, ["creating replica", "stopped"]);
    assert!(matches!(events.first(), Some(Event::State { .. })));
    assert!(matches!(events.last(), Some(Event::RunEnded { result: RunResult::Failed, .. })));
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_17_after_a_methods_timeout_the_loop_goes_on() {
    let place = Place::with_old_data();
    let slow = ListedMethod { timeout: Some(Duration::from_millis(50)), ..candidate(hangs("slow")) };
    let report = place.run(&[slow, candidate(restores("good"))]).await;
    assert_eq!(outcomes(&report), [("slow", "timed-out"), ("good", "created")]);
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_17_after_the_runs_timeout_no_method_is_tried() {
    let mut place = Place::new();
    place.job.timeout = Some(Duration::from_millis(50));
    let report = place.run(&[candidate(hangs("slow")), candidate(never("after"))]).await;
    assert_eq!(outcomes(&report), [("slow", "timed-out")]);
    assert_eq!(report.result, RunResult::Failed);
    assert!(place.is_empty());
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_17_a_plan_has_the_same_deadline() {
    let place = Place::with_old_data();
    let slow = never("slow").looking(|_, run: Run| async move {
        run.cancelled().await;
        Err(Failure::cancelled())
    });
    let slow = ListedMethod { timeout: Some(Duration::from_millis(50)), ..candidate(slow) };
    let report = place.run(&[slow]).await;
    assert_eq!(outcomes(&report), [("slow", "timed-out")]);
    assert!(place.has("global/pg_control"));
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_17a_keep_data_without_a_plan_that_builds_on_old_data_is_rejected() {
    let place = Place::with_old_data();
    let report = place.run(&[keeping_data(never("a"))]).await;
    assert_eq!(outcomes(&report), [("a", "rejected")]);
    assert_eq!(report.attempts[0].rule, Some(Rule::KeepData));
    assert_eq!(report.attempts[0].remedy.as_deref(), Some("[method.a] keep_data = false"));
    assert!(place.has("global/pg_control") && place.has("base/old"));
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_17a_an_empty_directory_holds_nothing_to_mix_with() {
    let place = Place::new();
    assert_eq!(place.run(&[keeping_data(restores("a"))]).await.result, RunResult::Created);
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_17a_a_plan_that_builds_on_old_data_may_do_without() {
    let place = Place::with_old_data();
    assert_eq!(place.run(&[candidate(restores("a").planning(delta()))]).await.result, RunResult::Created);
    assert!(!place.has("base/old"));
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_25_a_directory_that_is_not_postgresqls_is_refused_before_any_method() {
    let place = Place::new();
    fs::create_dir(place.datadir()).unwrap();
    fs::write(place.datadir().join("diary.txt"), "dear diary").unwrap();
    let report = place.run(&[candidate(never("a"))]).await;
    assert_eq!(report.result.exit_code(), 3);
    assert!(report.attempts.is_empty());
    assert!(report.message.unwrap().contains("--force"));
    assert!(place.has("diary.txt"));
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rules_27_and_28_a_cancelled_method_is_waited_for_and_leaves_nothing() {
    let place = Place::with_old_data();
    let cancel = place.cancel.clone();
    let returned = Arc::new(Mutex::new(false));
    let has_returned = returned.clone();
    let slow_to_stop = Scripted::new("a", move |request, run| {
        leave_half(&request);
        cancel.cancel(CancelReason::Interrupt);
        let returned = returned.clone();
        async move {
            run.cancelled().await;
            fs::write(request.directories.datadir.join("base/late"), "late").unwrap();
            *returned.lock().unwrap() = true;
            Err(Failure::cancelled())
        }
    });
    let began = Instant::now();
    let report = place.run(&[candidate(slow_to_stop), candidate(never("b"))]).await;
    assert!(*has_returned.lock().unwrap());
    assert!(began.elapsed() < Duration::from_secs(3));
    assert_eq!(report.result, RunResult::Interrupted);
    assert_eq!(report.attempts[0].message, "cancelled by SIGINT");
    assert!(place.is_empty());
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_28_a_cancelled_method_with_keep_data_leaves_what_cannot_be_started() {
    let place = Place::with_old_data();
    let cancel = place.cancel.clone();
    let method = Scripted::new("a", move |request, _| {
        leave_half(&request);
        cancel.cancel(CancelReason::Interrupt);
        async { Err(Failure::cancelled()) }
    });
    place.run(&[keeping_data(method.planning(delta()))]).await;
    assert!(place.has("base/old") && place.has("base/half") && !place.has("global/pg_control"));
    assert_eq!(place.contents(), Contents::Unfinished);
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_30_what_fails_its_last_check_is_not_a_replica() {
    let place = Place::new();
    let without_version = Scripted::new("a", |request, _| async move {
        minimal_cluster(CLUSTER).write(&request.directories.datadir).unwrap();
        fs::remove_file(request.directories.datadir.join("PG_VERSION")).unwrap();
        Ok(SealRequests::default())
    });
    let report = place.run(&[candidate(without_version)]).await;
    assert_eq!(outcomes(&report), [("a", "check-failed")]);
    assert_eq!(report.result.exit_code(), 4);
    assert!(report.attempts[0].rule.is_some());
    assert!(place.is_empty());
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn the_steps_of_an_attempt_are_six_and_in_order() {
    let place = Place::with_old_data();
    place.run(&[candidate(restores("a"))]).await;
    assert_eq!(
        place.steps_of("a"),
        [Step::Preflight, Step::Plan, Step::Accept, Step::Empty, Step::Create, Step::Seal]
    );
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn the_report_keeps_what_a_method_said() {
    let place = Place::new();
    let talks = Scripted::new("a", |_, run| async move {
        run.log(Level::Info, "stdout", "half way there");
        run.progress(512, None, 3, None);
        Err(Failure::new(Outcome::OutOfDisk, "no room"))
    });
    let report = place.run(&[candidate(talks)]).await;
    let attempt = &report.attempts[0];
    assert_eq!(attempt.output, ["stdout: half way there"]);
    assert_eq!((attempt.bytes, attempt.files, attempt.outcome), (512, 3, Outcome::OutOfDisk));
    assert_eq!((report.scope.as_str(), report.result), ("batman", RunResult::Failed));
    assert!(report.started.ends_with('Z') && report.started.contains('T'), "{}", report.started);
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn check_says_what_a_run_would_do_and_touches_nothing() {
    let place = Place::with_old_data();
    let before = listing(place.root.path());
    let candidates = [
        candidate(never("a").refused(Refusal::new(Rule::Grant, "no"))),
        candidate(never("b").planning(Plan { backup: "monday".to_owned(), ..Plan::default() })),
        candidate(never("basebackup")),
    ];
    let checked = check_methods(&place.job, &candidates, Arc::new(|_| {}), &place.cancel).await.unwrap();
    let said: Vec<_> = checked
        .iter()
        .map(|one| (one.method.as_str(), one.error.as_ref().map(|error| error.outcome.word())))
        .collect();
    assert_eq!(said, [("a", Some("rejected")), ("b", None)]);
    assert_eq!(checked[1].plan.as_ref().unwrap().backup, "monday");
    assert_eq!(listing(place.root.path()), before);
}
