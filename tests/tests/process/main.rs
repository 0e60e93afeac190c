//! Native programs under their guard: loop rule 27.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod killed;
mod support;

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use replica::event::Level;
use replica::process::{
    GRACE, GuardExecutable, LONGEST_LINE, LineUse, MOST_LINES, NativeProgram, ProcessError, Status, TAIL,
};
use support::{cancelled_when_ready, logged, mark, run_script, shell, watched, with_mark, within};

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn the_exit_status_of_a_program_is_reported() {
    assert_eq!(run_script("exit 0").await.status, Status::Exited(0));
    assert_eq!(run_script("exit 127").await.status, Status::Exited(127));
    assert_eq!(run_script("kill -SEGV $$").await.status, Status::Signalled(11));
    assert_eq!(run_script("kill -TERM $$").await.status, Status::Signalled(15));
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn the_error_for_a_missing_program_has_its_path() {
    let program = NativeProgram { program: "/nowhere/pg_basebackup".into(), ..shell("", "x") };
    let error = program.run(&watched().run, logged).await.unwrap_err();
    assert!(matches!(error, ProcessError::NotStarted { .. }));
    assert_eq!(
        error.to_string(),
        "/nowhere/pg_basebackup cannot be run: No such file or directory (os error 2)"
    );
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn an_executable_that_is_not_a_guard_is_reported() {
    for (guard, said) in [("/bin/true", "does not answer as a guard"), ("/nowhere/guard", "No such file")] {
        let program = NativeProgram { guard: GuardExecutable::at(guard), ..shell("", "x") };
        let error = program.run(&watched().run, logged).await.unwrap_err().to_string();
        assert!(error.starts_with("the guard of sh cannot be started") && error.contains(said), "{error}");
    }
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn a_guard_that_never_answers_is_ended_at_the_timeout() {
    let (folder, mark) = (tempfile::tempdir().unwrap(), mark());
    let silent = folder.path().join(&mark);
    fs::write(&silent, "#!/bin/sh\nwhile :; do sleep 1; done").unwrap();
    fs::set_permissions(&silent, fs::Permissions::from_mode(0o755)).unwrap();
    let program = NativeProgram { guard: GuardExecutable::at(&silent), ..shell("echo ran", "x") };
    let begun = Instant::now();
    let error = program.run(&watched().run, logged).await.unwrap_err().to_string();
    assert!(error.contains("was not ready within 10 s") && begun.elapsed().as_secs() < 12, "{error}");
    assert_eq!(with_mark(&mark), HashMap::new());
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn the_length_of_arguments_is_limited() {
    let watched = watched();
    let program = NativeProgram { arguments: vec!["x".repeat(4 << 20).into()], ..shell("", "x") };
    let error = program.run(&watched.run, logged).await.unwrap_err().to_string();
    assert!(error.contains("longer than 4194304 bytes"), "{error}");
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_21_output_is_captured_line_by_line_under_the_programs_name() {
    let watched = watched();
    let ending =
        shell("echo one; printf 'two\\rthree' >&2; exit 1", "x").run(&watched.run, logged).await.unwrap();
    let mut log = watched.log();
    log.sort();
    assert_eq!(log, ["one", "three", "two"].map(|line| ("sh".to_owned(), line.to_owned())));
    assert_eq!(ending.tail.len(), 3);
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn output_is_limited_and_its_last_lines_are_kept() {
    let watched = watched();
    let script = format!("seq {}; head -c 10000000 /dev/zero | tr '\\0' x; echo; echo last", MOST_LINES + 90);
    let ending = shell(&script, "x").run(&watched.run, logged).await.unwrap();
    let log = watched.log();
    let (notes, lines): (Vec<_>, Vec<_>) = log.iter().partition(|(origin, _)| origin == "host");
    assert_eq!(lines.len() as u64, MOST_LINES);
    assert_eq!(notes[0].1, "92 more lines of sh were not logged");
    assert_eq!(ending.tail.len(), TAIL);
    assert_eq!(ending.tail[TAIL - 1], "last");
    assert_eq!(ending.tail[TAIL - 2].len(), LONGEST_LINE + " [cut]".len());
    assert_eq!(ending.tail[TAIL - 3], (MOST_LINES + 90).to_string());
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn a_program_has_only_the_given_environment() {
    let program = NativeProgram {
        program: "/usr/bin/env".into(),
        arguments: Vec::new(),
        environment: vec![("PGPASSFILE".into(), "/run/x".into())],
        ..shell("", "x")
    };
    let mut environment = program.run(&watched().run, logged).await.unwrap().tail;
    environment.sort();
    assert_eq!(environment, ["LC_ALL=C", "PATH=/usr/local/bin:/usr/bin:/bin", "PGPASSFILE=/run/x"]);
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn a_program_inherits_no_descriptor_but_its_output() {
    // The test runner may have left descriptors open too, so the test recognizes its own descriptor by the file that it opened.
    let left_open = fs::File::open("/etc/passwd").unwrap();
    rustix::io::fcntl_setfd(&left_open, rustix::io::FdFlags::empty()).unwrap();
    let list = Command::new("ls").args(["-l", "/proc/self/fd"]).output().unwrap().stdout;
    assert!(String::from_utf8(list).unwrap().contains("/etc/passwd"));
    let list = run_script("exec ls -l /proc/self/fd").await.tail.join("\n");
    assert!(list.contains("0 -> /dev/null") && !list.contains("/etc/passwd"), "{list}");
    assert_eq!(run_script("readlink /proc/self/fd/0").await.tail, ["/dev/null"]);
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn a_program_can_write_only_to_writable_directories() {
    let inside = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("file"), "old").unwrap();
    let script = "echo new > $1/made; mkdir $1/folder; echo x > /dev/null && echo null; \
                  echo new > $2/file; mkdir $2/folder; rm $2/file; ln $2/file $1/link; cat $2/file";
    let mut program = shell(script, "x");
    program.arguments.extend([inside.path().into(), outside.path().into()]);
    program.writable = vec![inside.path().to_owned()];
    let ending = program.run(&watched().run, logged).await.unwrap();
    assert!(ending.landlock > 0, "this test needs a kernel with Landlock");
    assert_eq!(fs::read_to_string(inside.path().join("made")).unwrap(), "new\n");
    assert!(inside.path().join("folder").is_dir());
    assert!(!inside.path().join("link").exists());
    assert_eq!(fs::read_to_string(outside.path().join("file")).unwrap(), "old");
    assert!(!outside.path().join("folder").exists());
    assert!(
        ending.tail.contains(&"null".to_owned()) && ending.tail.contains(&"old".to_owned()),
        "{ending:?}"
    );
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn a_program_does_not_start_if_it_cannot_be_confined() {
    let too_new = NativeProgram { require_landlock: Some(10_000), ..shell("echo ran", "x") };
    let missing = NativeProgram { writable: vec!["/nowhere".into()], ..shell("echo ran", "x") };
    for (program, said) in [(too_new, "require_landlock = 10000"), (missing, "cannot open /nowhere")] {
        let watched = watched();
        let error = program.run(&watched.run, logged).await.unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
        assert_eq!(watched.log(), []);
    }
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn a_program_cannot_signal_processes_that_it_did_not_start() {
    let mut other = Command::new("sleep").arg("60").spawn().unwrap();
    let ending = run_script(&format!("kill -KILL {} 2> /dev/null; echo $?", other.id())).await;
    assert_eq!(ending.tail.last().map(String::as_str), Some("1"));
    assert_eq!(other.try_wait().unwrap(), None);
    other.kill().unwrap();
    other.wait().unwrap();
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_27_a_cancelled_program_gets_sigterm_first() {
    let mark = mark();
    let (ending, took) = cancelled_when_ready(
        "trap 'echo asked; exit 7' TERM; echo ready; while :; do sleep 0.01; done",
        &mark,
    )
    .await;
    assert_eq!((ending.status, ending.stopped), (Status::Exited(7), true));
    assert!(ending.tail.contains(&"asked".to_owned()), "{ending:?}");
    assert!(took < GRACE, "{took:?}");
    assert_eq!(with_mark(&mark), HashMap::new());
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_27_a_program_that_ignores_sigterm_is_killed_with_its_children() {
    let mark = mark();
    let script = "trap '' TERM; setsid sh -c 'while :; do sleep 1; done' $0 & (while :; do sleep 1; done) & echo ready; wait";
    let (ending, took) = cancelled_when_ready(script, &mark).await;
    assert_eq!((ending.status, ending.stopped), (Status::Signalled(9), true));
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert_eq!(with_mark(&mark), HashMap::new());
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_27_a_stopped_program_is_ended_too() {
    let mark = mark();
    let (ending, took) = cancelled_when_ready("echo ready; kill -STOP $$; echo went on", &mark).await;
    assert!(ending.stopped && took < Duration::from_secs(3), "{ending:?} {took:?}");
    assert_eq!(with_mark(&mark), HashMap::new());
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_27_children_that_survive_the_program_are_ended() {
    let mark = mark();
    let script = "sh -c 'trap \"\" TERM; echo ready; while :; do sleep 1; done' $0 & wait";
    let (ending, took) = cancelled_when_ready(script, &mark).await;
    assert_eq!((ending.status, ending.stopped), (Status::Signalled(15), true));
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert_eq!(with_mark(&mark), HashMap::new());
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_27_processes_that_a_program_leaves_behind_are_ended_and_reported() {
    let (watched, mark) = (watched(), mark());
    let script = "setsid sh -c 'sleep 600; :' $0 & sh -c 'sleep 600; :' $0 & exit 0";
    let ending = shell(script, &mark).run(&watched.run, logged).await.unwrap();
    assert_eq!((ending.status, ending.stopped), (Status::Exited(0), false));
    assert!(ending.leftover_processes >= 2, "{ending:?}");
    assert_eq!(with_mark(&mark), HashMap::new());
    assert!(watched.log().iter().any(|(_, line)| line.contains("processes behind, which were ended")));
}

/// In the test above, one of the survivors is in the guard's group. Here no survivor is, and the only survivor has its own session before
/// the program ends.
#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_27_a_process_in_a_session_of_its_own_is_ended_if_nothing_else_is_left() {
    let (watched, mark) = (watched(), mark());
    let script = "{ setsid sh -c 'echo up; exec >/dev/null 2>&1; trap \"\" TERM; while :; do sleep 1; done' $0 & } | read up; exit 0";
    let ending = shell(script, &mark).run(&watched.run, logged).await.unwrap();
    assert_eq!((ending.status, ending.stopped), (Status::Exited(0), false));
    assert!(ending.leftover_processes >= 1, "{ending:?}");
    assert_eq!(with_mark(&mark), HashMap::new());
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_27_a_program_that_starts_a_session_of_its_own_is_observed_and_ended() {
    let ended = tokio::time::timeout(Duration::from_secs(10), run_script("exec setsid sh -c 'exit 5'")).await;
    assert_eq!(ended.expect("the end is observed").status, Status::Exited(5));
    let mark = mark();
    let script = "trap '' TERM; exec setsid sh -c 'echo ready; while :; do sleep 1; done' $0";
    let (ending, took) = cancelled_when_ready(script, &mark).await;
    assert_eq!((ending.status, ending.stopped), (Status::Signalled(9), true));
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert_eq!(with_mark(&mark), HashMap::new());
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_05_a_cancelled_run_starts_no_program() {
    let watched = watched();
    watched.cancel.cancel();
    let error = shell("echo ran", "x").run(&watched.run, logged).await.unwrap_err();
    assert!(matches!(error, ProcessError::Cancelled { .. }), "{error}");
    assert_eq!(watched.log(), []);
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_27_a_dropped_run_leaves_no_process() {
    let (watched, mark) = (watched(), mark());
    let mut ready = false;
    let program = shell("trap '' TERM; echo ready; while :; do sleep 1; done", &mark);
    {
        let running = program.run(&watched.run, |_| {
            ready = true;
            LineUse::Log(Level::Info)
        });
        let _ = tokio::time::timeout(Duration::from_secs(1), running).await;
    }
    assert!(ready);
    within(Duration::from_secs(2), "the end of every process", || with_mark(&mark).is_empty());
}
