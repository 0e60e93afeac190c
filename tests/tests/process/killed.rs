//! Tests that kill the guard of a native program, the host, or both.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use replica::event::Level;
use replica::process::{LineUse, ProcessError, Status};
use rustix::process::{Pid, Signal};

use crate::support::{guard_of, kill, mark, shell, watched, with_mark, within};

/// Runs the script, kills its guard when it prints `ready`, and checks that no process is left when the run returns.
async fn run_and_kill_guard(script: &str) {
    let (watched, mark) = (watched(), mark());
    let error = shell(script, &mark)
        .run(&watched.run, |line| {
            if line.text == "ready" {
                kill(guard_of(&mark), Signal::KILL);
            }
            LineUse::Log(Level::Info)
        })
        .await
        .unwrap_err();
    assert!(matches!(error, ProcessError::GuardKilled { .. }), "{error}");
    assert_eq!(with_mark(&mark), HashMap::new());
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_27_killing_the_guard_ends_the_program_and_its_children() {
    run_and_kill_guard("trap '' TERM HUP; echo ready; while :; do sleep 1; done").await;
    run_and_kill_guard("trap '' TERM HUP; (while :; do sleep 1; done) & (while :; do sleep 1; done) & sleep 0.3; echo ready; wait").await;
    // A child in a session of its own, whose parent has ended.
    run_and_kill_guard("trap '' TERM HUP; (setsid sh -c 'trap \"\" TERM HUP; echo ready; while :; do sleep 1; done' $0 &) & while :; do sleep 1; done").await;
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_27_sigterm_to_the_guard_ends_the_program() {
    let (watched, mark) = (watched(), mark());
    let ending = shell("trap 'exit 3' TERM; echo ready; while :; do sleep 0.01; done", &mark)
        .run(&watched.run, |line| {
            if line.text == "ready" {
                kill(guard_of(&mark), Signal::TERM);
            }
            LineUse::Log(Level::Info)
        })
        .await
        .unwrap();
    assert_eq!((ending.status, ending.stopped), (Status::Exited(3), false));
}

/// A host that runs in its own process.
struct Host {
    process: Child,
    guard: i32,
    datadir: PathBuf,
    output: BufReader<ChildStdout>,
    _folder: tempfile::TempDir,
}

/// Starts a host that runs `script` on a data directory, and returns after the script has printed its first line.
fn host(script: &str, mark: &str) -> Host {
    let folder = tempfile::tempdir().unwrap();
    let (datadir, state_dir) = (folder.path().join("data"), folder.path().join("state"));
    for directory in [&datadir, &state_dir] {
        fs::create_dir(directory).unwrap();
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).unwrap();
    }
    let mut process = Command::new(env!("CARGO_BIN_EXE_guard"))
        .args([&datadir, &state_dir, Path::new("/bin/sh")])
        .args(["-c", script, mark])
        .arg(datadir.join("written"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(process.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    let guard = line.trim().strip_prefix("started [").and_then(|rest| rest.strip_suffix(']'));
    let guard = guard.unwrap_or_else(|| panic!("the host says: {line}")).parse().unwrap();
    Host { process, guard, datadir, output, _folder: folder }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ended_already = self.process.kill();
        let _status = self.process.wait();
    }
}

impl Host {
    fn size(&self) -> u64 {
        fs::metadata(self.datadir.join("written")).map_or(0, |file| file.len())
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Returns whether a process still holds the lock of the data directory.
    fn is_locked(&self) -> bool {
        let directory = fs::File::open(&self.datadir).unwrap();
        rustix::fs::flock(&directory, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err()
    }
}

/// A script that writes to `$1` forever. Its children write too, one of them in its own session. All of them ignore SIGTERM.
const WRITERS: &str = "trap '' TERM HUP
    (while :; do echo x >> $1; sleep 0.01; done) &
    setsid sh -c 'while :; do echo x >> $1; sleep 0.01; done' $0 $1 &
    echo ready; while :; do echo x >> $1; sleep 0.01; done";

/// A script that writes to `$1` forever, ignores SIGTERM and leads its own session. Nothing else is in the group of the guard.
const WRITER_IN_ITS_OWN_SESSION: &str = "trap '' TERM HUP
    exec setsid sh -c 'echo ready; while :; do echo x >> $1; sleep 0.01; done' $0 $1";

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn rule_27_a_killed_host_leaves_no_writer() {
    for script in [WRITERS, WRITER_IN_ITS_OWN_SESSION] {
        kill_the_host_of(script);
    }
}

fn kill_the_host_of(script: &str) {
    let mark = mark();
    let mut host = host(script, &mark);
    within(Duration::from_secs(5), "something written", || host.size() > 0);
    host.kill();
    within(Duration::from_secs(2), "the end of every process", || with_mark(&mark).is_empty());
    let size = host.size();
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(host.size(), size);
    within(Duration::from_secs(1), "the lock to be released", || !host.is_locked());
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn rule_26_a_killed_host_with_a_live_child_still_holds_the_lock() {
    let mark = mark();
    let mut host = host("trap '' TERM HUP; echo ready; while :; do sleep 0.01; done", &mark);
    host.kill();
    // The child ignores SIGTERM, so it lives for the whole grace period of one second.
    assert!(!with_mark(&mark).is_empty());
    assert!(host.is_locked());
    within(Duration::from_secs(3), "the lock to be released", || !host.is_locked());
    assert_eq!(with_mark(&mark), HashMap::new());
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn rule_27_when_host_and_guard_are_killed_the_program_ends_and_its_children_hold_the_lock() {
    let mark = mark();
    let child_mark = format!("child-of-{mark}");
    let script = "sh -c 'trap \"\" TERM HUP; echo ready; while :; do sleep 0.01; done' child-of-$0 & wait";
    let mut host = host(script, &mark);
    kill(host.process.id() as i32, Signal::STOP);
    kill(host.guard, Signal::KILL);
    host.kill();
    let program_is_gone =
        || with_mark(&mark).into_iter().all(|(pid, _)| with_mark(&child_mark).contains_key(&pid));
    within(Duration::from_secs(2), "the end of the program", program_is_gone);
    assert!(!with_mark(&child_mark).is_empty());
    assert!(host.is_locked());
    // The next run ends leftover processes in the same way: it kills the process group that the state file names.
    rustix::process::kill_process_group(Pid::from_raw(host.guard).unwrap(), Signal::KILL).unwrap();
    within(Duration::from_secs(2), "the lock to be released", || !host.is_locked());
    assert_eq!(with_mark(&mark), HashMap::new());
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn rule_26_the_state_file_lists_the_guard_only_while_the_program_runs() {
    let mark = mark();
    let mut host = host("echo ready; sleep 0.2", &mark);
    assert!(host.guard > 1);
    let mut text = String::new();
    host.output.read_to_string(&mut text).unwrap();
    assert_eq!(text, "exited with code 0\n");
    let state_dir = host.datadir.parent().unwrap().join("state");
    let state: Vec<_> = fs::read_dir(&state_dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    let files: Vec<_> = state.iter().filter_map(|path| fs::read_to_string(path).ok()).collect();
    assert!(files.iter().any(|text| text.contains("\"processes\": []")), "{files:?}");
}
