//! Tests how programs end, how their output is logged, and that none of their processes is left.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::stage::{Stage, output, with_mark};

/// Runs a script as the program `tool`, and returns the outcome, the message and the output of the attempt.
fn run(stage: &Stage, script: &str, keys: &str) -> (String, String, String) {
    let script = stage.script("tool", script);
    stage.tool("", &script, keys);
    let ended = stage.create();
    let attempt = ended.attempt("hostile");
    assert!(!attempt.is_null(), "{}", ended.output);
    let text = |key: &str| attempt[key].as_str().unwrap_or_default().to_owned();
    (text("outcome"), text("message"), output(attempt))
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn the_component_learns_the_exit_code_the_signal_and_the_end_of_the_output() {
    let stage = Stage::new("programs-ends");
    for (script, says) in [
        ("echo last words; exit 3", "ended with Ending::Code(3): last words"),
        ("exit 127", "ended with Ending::Code(127)"),
        ("echo dying; kill -SEGV $$", "ended with Ending::Signal(11): dying"),
        ("kill -TERM $$", "ended with Ending::Signal(15)"),
        ("kill -KILL $$", "ended with Ending::Signal(9)"),
        ("exec >&- 2>&-; exit 5", "ended with Ending::Code(5): "),
    ] {
        let (outcome, message, _) = run(&stage, script, "");
        assert!(outcome == "failed" && message.contains(says), "{script}: {outcome}: {message}");
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn output_is_logged_line_by_line_escaped_and_within_bounds() {
    let stage = Stage::new("programs-output");
    let (_, _, lines) = run(&stage, r"printf 'one\ntwo\r\033[2Jthree\000\377\n'; echo four >&2", "");
    for line in [
        "program tool: one\n",
        "program tool: two\n",
        "program tool: \\u{1b}[2Jthree\\u{0}\u{fffd}\n",
        "program tool: four\n",
    ] {
        assert!(lines.contains(line), "{line:?} in {lines:?}");
    }
    // The first script prints two megabytes in one line, the second prints a hundred thousand lines.
    let began = Instant::now();
    let big = "x=0123456789abcdef; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do x=$x$x; done; printf %s $x; printf '%s\\n' $x; echo end";
    let (outcome, _, lines) = run(&stage, big, "");
    assert_eq!(outcome, "check-failed");
    assert!(lines.contains("0123456789abcdef…") && lines.contains("program tool: end"), "{}", lines.len());
    let many = "i=0; while [ $i -lt 100000 ]; do echo line $i; i=$((i+1)); done; exit 1";
    let (_, message, lines) = run(&stage, many, "");
    assert!(message.contains("line 99999"), "the tail has the last lines");
    assert!(lines.contains("the rest of its log is dropped"), "{}", lines.len());
    assert!(began.elapsed() < Duration::from_secs(120));
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_program_that_does_not_end_is_killed_at_its_timeout_with_its_descendants() {
    let stage = Stage::new("programs-timeout");
    let mark = format!("mark-timeout-{}", std::process::id());
    let script = format!(
        "if [ \"$1\" ]; then trap '' TERM HUP INT; while :; do :; done; fi\ntrap '' TERM HUP\n$0 {mark} &\n($0 {mark} &) &\nwhile :; do echo again; done"
    );
    let path = stage.replica.path("tool");
    let began = Instant::now();
    let (outcome, message, _) = run(&stage, &script, &format!(", timeout = \"2s\", execute = [{path:?}]"));
    assert_eq!(outcome, "failed", "{message}");
    assert!(message.contains("did not end within 2s (programs.tool.timeout)"), "{message}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!(with_mark(&mark), [""; 0]);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_cancelled_run_and_a_timeout_end_all_processes_of_a_program_that_hides_them() {
    let stage = Stage::new("programs-cancel");
    let mark = format!("mark-cancel-{}", std::process::id());
    // The children are in their own sessions and groups, have lost their parents, ignore signals, and have closed their output.
    let script = format!(
        "if [ \"$1\" = {mark} ]; then trap '' TERM HUP INT; exec >&- 2>&-; while :; do echo x >> $2; done; fi\n\
         (setsid $0 {mark} $PLACE/a &) &\n(setsid setsid $0 {mark} $PLACE/b &) &\nset -m; $0 {mark} $PLACE/c & set +m\n\
         trap '' TERM; while [ ! -s $PLACE/a ] || [ ! -s $PLACE/b ] || [ ! -s $PLACE/c ]; do :; done; echo all-at-work; while :; do :; done"
    );
    let script = stage.script("tool", &script);
    let place = stage.replica.directory("scratch").unwrap();
    let keys = format!(
        ", write = [{place:?}], execute = [\"/usr/bin/setsid\", {script:?}], env = {{ PLACE = {place:?} }}"
    );
    for signal in [Signal::INT, Signal::TERM] {
        stage.tool("", &script, &keys);
        let running = stage.replica.spawn(&["--log-level", "debug"]).unwrap();
        wait_until("the program to be at work", || {
            fs::read_to_string(stage.replica.path("output")).unwrap_or_default().contains("all-at-work")
        });
        assert!(with_mark(&mark).len() >= 3, "{:?}", with_mark(&mark));
        running.signal(signal).unwrap();
        let began = Instant::now();
        let ended = stage.replica.wait_for_end(running).unwrap();
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        assert_eq!(ended.attempts(), [("hostile", "cancelled")], "{}", ended.output);
        assert_eq!(with_mark(&mark), [""; 0]);
        for name in ["a", "b", "c"] {
            fs::remove_file(place.join(name)).unwrap();
        }
    }
    // First the timeout of the method, then the timeout of the run.
    for (settings, arguments) in [("timeout = \"4s\"\n", &[][..]), ("", &["--timeout=4s"][..])] {
        stage.tool(settings, &script, &keys);
        let began = Instant::now();
        let ended = stage.replica.create(&[&["--log-level=debug"][..], arguments].concat()).unwrap();
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        assert_eq!(ended.attempts(), [("hostile", "timed-out")], "{}", ended.output);
        assert!(ended.output.contains("all-at-work"), "{}", ended.output);
        assert_eq!(with_mark(&mark), [""; 0]);
        for name in ["a", "b", "c"] {
            fs::remove_file(place.join(name)).unwrap();
        }
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn processes_that_a_program_leaves_behind_are_ended_after_it() {
    let stage = Stage::new("programs-leaves");
    let mark = format!("mark-leaves-{}", std::process::id());
    let script = format!(
        "if [ \"$1\" ]; then trap '' TERM HUP; exec >&- 2>&-; while :; do :; done; fi\n(setsid $0 {mark} &) &\nwait; echo leaving; exit 0"
    );
    let path = stage.replica.path("tool");
    let (outcome, message, lines) =
        run(&stage, &script, &format!(", execute = [\"/usr/bin/setsid\", {path:?}]"));
    assert_eq!(outcome, "check-failed", "{message}");
    assert!(
        lines.contains("program tool: leaving") && lines.contains("processes behind, which were ended"),
        "{lines}"
    );
    assert_eq!(with_mark(&mark), [""; 0]);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_program_does_not_inherit_the_lock_of_the_data_directory() {
    let stage = Stage::new("programs-lock");
    let script = "readlink /proc/self/fd/0 /proc/self/fd/3; if readlink /proc/self/fd/4; then echo more; fi";
    let (outcome, message, lines) = run(&stage, script, ", execute = [\"/usr/bin/readlink\"]");
    assert_eq!(outcome, "check-failed", "{message}");
    assert_eq!(lines.matches("program tool: /dev/null\n").count(), 2, "{lines}");
    assert!(!lines.contains("program tool: more"), "{lines}");
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_program_does_not_inherit_what_the_starter_of_the_host_left_open() {
    let stage = Stage::new("programs-descriptors");
    let script = "for n in 3 4 5 6 7 8 9 10 11 12 13 14 15; do if to=$(readlink /proc/self/fd/$n); then echo \"$n: $to\"; fi; done";
    let script = stage.script("tool", script);
    stage.tool("", &script, ", execute = [\"/usr/bin/readlink\"]");
    let usual = stage.replica.command("create");
    let report = stage.replica.path("report.json");
    let mut command = stage.playground.user().command("/bin/sh");
    command.args(["-c", "exec 7</etc/passwd 8>>$0 9</; exec \"$@\""]);
    command.arg(stage.replica.path("left-open")).arg(usual.get_program());
    command
        .args(usual.get_args())
        .args(["--log-level", "debug", "--report"])
        .arg(&report)
        .stdin(Stdio::null());
    let said = command.output().unwrap();
    let report: Value = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
    let lines = output(&report["attempts"][0]);
    // In a confined program, descriptor 3 is /dev/null instead of the lock. A shell may also have its own script open.
    assert!(
        lines.contains("program tool: 3: /dev/null\n"),
        "{lines} {}",
        String::from_utf8_lossy(&said.stderr)
    );
    for left_open in ["7:", "8:", "9:"] {
        assert!(!lines.contains(&format!("program tool: {left_open}")), "{left_open} in {lines}");
    }
    assert!(!lines.contains("/etc/passwd"), "{lines}");
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_program_inherits_no_environment_and_resolves_names_over_tcp_if_it_has_a_port() {
    let stage = Stage::new("programs-environment");
    let run = |keys: &str| run(&stage, "env", &format!(", execute = [\"/usr/bin/env\"]{keys}")).2;
    let lines = run(", env = { HOME = \"/nowhere\", LC_ALL = \"C.UTF-8\" }");
    for line in ["HOME=/nowhere", "LC_ALL=C.UTF-8", "PATH=/usr/local/bin:/usr/bin:/bin"] {
        assert!(lines.contains(&format!("program tool: {line}\n")), "{line} in {lines}");
    }
    for name in ["RES_OPTIONS", "CARGO", "USER", "PGPASSFILE"] {
        assert!(!lines.contains(&format!("program tool: {name}")), "{name} in {lines}");
    }
    assert!(run(", network = [53, 443]").contains("program tool: RES_OPTIONS=use-vc\n"));
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_program_that_fills_the_disk_is_stopped_by_the_budget() {
    let stage = Stage::new("programs-disk");
    let datadir = stage.replica.datadir();
    let endless =
        format!("while :; do echo 0123456789abcdef0123456789abcdef >> {}/big; done", datadir.display());
    let (outcome, message, _) = run_with_disk(&stage, &endless, "bytes = \"1MiB\"");
    assert_eq!(outcome, "out-of-disk", "{message}");
    assert!(message.contains("disk.bytes"), "{message}");
    let (outcome, message, _) = run_with_disk(&stage, &endless, "keep_free = \"1000TiB\"");
    assert_eq!(outcome, "out-of-disk", "{message}");
    assert!(message.contains("disk.keep_free"), "{message}");
}

fn run_with_disk(stage: &Stage, script: &str, disk: &str) -> (String, String, String) {
    let script = stage.script("tool", script);
    stage.configure("", "", &format!("disk = {{ {disk} }}\nprograms.tool = {{ path = {script:?} }}"));
    let ended = stage.create();
    let attempt = ended.attempt("hostile");
    let text = |key: &str| attempt[key].as_str().unwrap_or_default().to_owned();
    (text("outcome"), text("message"), output(attempt))
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_program_that_writes_is_not_stalled_and_one_that_only_computes_is() {
    let stage = Stage::new("programs-stalls");
    let datadir = stage.replica.datadir();
    let script = stage.script(
        "tool",
        &format!(
            "i=0; while [ $i -lt 50 ]; do i=$((i+1)); echo x >> {}/file; sleep 0.1; done; echo done",
            datadir.display()
        ),
    );
    let grant = format!("programs.tool = {{ path = {script:?}, execute = [\"/bin/sleep\"] }}");
    stage.configure("stall_timeout = \"3s\"\n", "", &grant);
    assert!(stage.works().contains("program tool: done"));
    let script = stage.script("tool", "while :; do :; done");
    stage.tool("stall_timeout = \"3s\"\n", &script, "");
    let (outcome, message) = stage.attempt();
    assert!(outcome == "timed-out" && message.contains("stall_timeout"), "{outcome}: {message}");
}

pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(30), "waited for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
