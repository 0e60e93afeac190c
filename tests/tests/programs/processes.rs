//! Tests the limit on the number of a program's processes, and the reported usage of a program.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use replica::event::Event;
use replica::process::{Confinement, Exceeded, LineUse, NativeProgram, Status};
use replica::{Level, Run};
use tokio_util::sync::CancellationToken;

use crate::confined::{confinement, native, run};
use crate::endings::wait_until;
use crate::intruder::ended;
use crate::stage::{Stage, with_mark};

/// The limit in these tests.
const MOST: u64 = 40;

/// The message to the component if the program has more processes.
const SAYS: &str = "had more than 40 processes and threads at once (programs.tool.processes)";

/// Scripts that start more and more processes. They stop at about 2000, so that the machine survives if the guard fails. `$0` is the
/// script itself, which the test starts without arguments.
const BOMBS: [&str; 3] = [
    // One shell, whose copies are all in the group of the guard.
    "bomb() { if [ $1 -lt 10 ]; then bomb $(($1 + 1)) & bomb $(($1 + 1)) & wait; fi; while :; do :; done; }; bomb 0",
    // Processes in their own sessions, which have lost their parents, ignore signals and compute.
    "trap '' TERM HUP INT; depth=${1:-0}; if [ $depth -lt 10 ]; then (setsid $0 $((depth + 1)) &); (setsid $0 $((depth + 1)) &); fi; \
     while :; do :; done",
    // A process that starts one after another.
    "trap '' TERM; if [ \"$1\" ]; then while :; do :; done; fi; i=0; while [ $i -lt 2000 ]; do $0 x & i=$((i + 1)); done; wait",
];

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn a_program_that_starts_more_and_more_processes_is_ended_with_all_of_them() {
    let folder = tempfile::tempdir().unwrap();
    for (number, bomb) in BOMBS.iter().enumerate() {
        let script = folder.path().join(format!("bomb-{number}"));
        // Another process writes the script, for the same reason as in `Stage::script`.
        let mut write = Command::new("/bin/sh");
        write.args([
            "-c",
            "printf %s \"$1\" > \"$2\"; chmod 700 \"$2\"",
            "sh",
            &format!("#!/bin/sh\n{bomb}\n"),
        ]);
        tests::server::run(write.arg(&script)).unwrap();
        let script = script.to_str().unwrap();
        let mut confinement = Confinement { processes: MOST, ..confinement(script) };
        confinement.execute.extend(["/bin/sh", "/usr/bin/setsid"].map(PathBuf::from));
        let began = Instant::now();
        let (ending, output) = run(script, &[], Some(confinement)).await;
        assert!(
            ending.exceeded == Some(Exceeded::Processes) && ending.used.processes > MOST,
            "{number}: {ending:?} {output}"
        );
        assert!(began.elapsed() < Duration::from_secs(10), "{number}: {:?}", began.elapsed());
        assert_eq!(with_mark(script), [""; 0], "{number}");
    }
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn threads_of_other_programs_do_not_shorten_the_time_in_which_a_program_may_end() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().canonicalize().unwrap();
    let script = place.join("tool");
    // The program leaves a process behind. After TERM, this process waits for `go` and then works for a while.
    let text = "#!/bin/sh\ncd ${0%/*}\nif [ \"$1\" ]; then\n\
                trap 'echo > asked; while [ ! -e go ]; do :; done; i=0; while [ $i -lt 200000 ]; do i=$((i + 1)); done; echo > done; exit' TERM\n\
                echo > ready; while :; do :; done\nfi\n$0 x &\nwhile [ ! -e ready ]; do :; done\n";
    let mut write = Command::new("/bin/sh");
    write.args(["-c", "printf %s \"$1\" > \"$2\"; chmod 700 \"$2\"", "sh", text]);
    tests::server::run(write.arg(&script)).unwrap();
    let script = script.to_str().unwrap();
    let mut confinement = Confinement { processes: MOST, ..confinement(script) };
    confinement.execute.push("/bin/sh".into());
    confinement.write.push(place.clone());
    let program = NativeProgram { grace: Duration::from_secs(60), ..native(script, &[], Some(confinement)) };
    let others = std::thread::spawn({
        let place = place.clone();
        move || {
            wait_until("the process to be asked to end", || place.join("asked").exists());
            // More threads than are counted without a closer look.
            let threads: Vec<_> = (0..400).map(|_| std::thread::spawn(std::thread::park)).collect();
            std::fs::write(place.join("go"), "").unwrap();
            wait_until("the process to end", || place.join("done").exists());
            threads.into_iter().for_each(|thread| {
                thread.thread().unpark();
                thread.join().unwrap();
            });
        }
    });
    let run = Run::new("test", CancellationToken::new(), Arc::new(|_: Event| {}));
    let ending = program.run(&run, |_| LineUse::Log(Level::Info)).await.unwrap();
    assert_eq!((ending.status, ending.leftover_processes), (Status::Exited(0), 1));
    assert!(place.join("done").exists(), "the process was killed before its time was over");
    others.join().unwrap();
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn the_method_is_told_that_its_program_had_too_many_processes() {
    let stage = Stage::new("programs-bomb");
    let script = stage.script("tool", BOMBS[0]);
    stage.tool("", &script, &format!(", processes = {MOST}"));
    let (outcome, message) = stage.attempt();
    assert!(outcome == "failed" && message.contains(SAYS), "{outcome}: {message}");
    assert_eq!(with_mark(script.to_str().unwrap()), [""; 0]);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn the_threads_of_a_program_count_too() {
    let stage = Stage::new("programs-threads");
    let keys = format!(", processes = {MOST}, timeout = \"1min\"");
    let (outcome, message) = ended(&stage, ["threads", "60"], &keys);
    assert!(outcome == "failed" && message.contains(SAYS), "{outcome}: {message}");
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn what_a_program_uses_is_in_the_usage_beside_its_limits() {
    let stage = Stage::new("programs-usage");
    let place = stage.replica.directory("scratch").unwrap();
    let script = format!(
        "i=0; while [ $i -lt 20 ]; do sleep 1 & i=$((i+1)); done; head -c 3000000 /dev/zero > {}/file; wait",
        place.display()
    );
    let script = stage.script("tool", &script);
    let keys = format!(
        ", processes = {MOST}, timeout = \"1min\", memory = \"100MiB\", write = [{place:?}], \
         execute = [\"/bin/sleep\", \"/usr/bin/head\"]"
    );
    stage.tool("", &script, &keys);
    let ended = stage.create();
    assert_eq!(ended.attempts(), [("hostile", "check-failed")], "{}", ended.output);
    let usage = &ended.attempt("hostile")["usage"]["programs"]["tool"];
    assert_eq!(usage["runs"], 1, "{usage}");
    let used = |key: &str| usage[key]["used"].as_f64().unwrap_or_else(|| panic!("{key} of {usage}"));
    let limit = |key: &str| &usage[key]["limit"];
    assert!((1.0..60.0).contains(&used("wall_seconds")) && *limit("wall_seconds") == 60.0, "{usage}");
    assert!(used("cpu_seconds") > 0.0 && *limit("cpu_seconds") == 360_000.0, "{usage}");
    assert!(used("memory_bytes") > 0.0 && *limit("memory_bytes") == 100 << 20, "{usage}");
    assert!((21.0..=40.0).contains(&used("processes")) && *limit("processes") == MOST, "{usage}");
    // The test may run on a file system in memory, for which no written bytes are counted.
    assert!(usage["written_bytes"]["used"].is_u64() && limit("written_bytes").is_null(), "{usage}");
    assert!(ended.output.contains("; program tool: "), "{}", ended.output);
}
