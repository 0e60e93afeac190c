//! Tests programs that leave the session and group of their guard, programs that start processes faster than these can be found, and
//! programs whose guard is killed.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::endings::wait_until;
use crate::killed::guards_of;
use crate::stage::{Stage, output, with_mark};

/// Two ways in which a shell replaces itself with `$0 again`: in its own session, and in its own group.
const WAYS_OUT: [&str; 2] = ["exec setsid $0 again", "exec perl -e 'setpgrp(0, 0); exec @ARGV' $0 again"];

/// How long processes may live after understudy was killed, or after the program should have ended.
const PATIENCE: Duration = Duration::from_secs(3);

/// A stage whose program is a script. Its processes have `mark` among their arguments, and write to `place`.
struct Scene {
    stage: Stage,
    mark: String,
    place: PathBuf,
    /// A process of the same user that does not belong to the program.
    bystander: Child,
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ended_already = self.bystander.kill();
        let _status = self.bystander.wait();
    }
}

impl Scene {
    fn new(name: &str) -> Self {
        let stage = Stage::new(&format!("programs-{name}"));
        let place = stage.replica.directory("scratch").unwrap();
        let mut sleep = stage.playground.user().command("/bin/sleep");
        let bystander = sleep.arg("600").stdin(Stdio::null()).spawn().unwrap();
        Self { stage, mark: format!("mark-{name}-{}", std::process::id()), place, bystander }
    }

    /// Configures the script, in which `MARK` stands for the mark. A script that is called with the mark ignores signals, writes `there`
    /// and never ends.
    fn script(&self, text: &str, keys: &str) {
        let survivor = "if [ \"$1\" = MARK ]; then trap '' TERM HUP INT; exec >&- 2>&-; echo x > $PLACE/there; while :; do sleep 1; done; fi";
        let script = self.stage.script("tool", &format!("{survivor}\n{text}").replace("MARK", &self.mark));
        let keys = format!(
            ", write = [{place:?}], env = {{ PLACE = {place:?} }}, \
             execute = [\"/usr/bin/setsid\", \"/usr/bin/perl\", \"/bin/sleep\", {script:?}]{keys}",
            place = self.place
        );
        self.stage.tool("", &script, &keys);
        let _not_there = fs::remove_file(self.place.join("there"));
    }

    fn wait_until_there(&self) {
        wait_until("the program to be at work", || {
            fs::metadata(self.place.join("there")).is_ok_and(|file| file.len() > 0)
        });
        assert!(!with_mark(&self.mark).is_empty());
    }

    /// Checks that no process of the program is left, and that the bystander was not ended.
    fn assert_gone(&mut self, why: &str) {
        assert_eq!(with_mark(&self.mark), [""; 0], "{why}");
        assert!(self.bystander.try_wait().unwrap().is_none(), "{why}: another process of the user was ended");
    }

    fn wait_until_gone(&mut self, since: Instant, why: &str) {
        while !with_mark(&self.mark).is_empty() {
            assert!(since.elapsed() < PATIENCE, "{why}: {:?}", with_mark(&self.mark));
            std::thread::sleep(Duration::from_millis(5));
        }
        self.assert_gone(why);
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_survivor_in_a_session_of_its_own_is_counted_and_ended_although_nothing_else_is_left() {
    let mut scene = Scene::new("survivor");
    // The loop waits until the survivor has left the session.
    scene.script("setsid $0 MARK &\nwhile [ ! -s $PLACE/there ]; do :; done\necho leaving", "");
    let ended = scene.stage.create();
    assert_eq!(ended.attempts(), [("hostile", "check-failed")], "{}", ended.output);
    let lines = output(ended.attempt("hostile"));
    assert!(lines.contains("program tool: leaving"), "{lines}");
    // The message counts the survivor and, usually, the `sleep` that the survivor has started.
    assert!(ended.output.contains("processes behind, which were ended"), "{}", ended.output);
    scene.assert_gone("the run has ended");
}

/// Returns a script that leaves its guard's group in this way, with one child that ignores signals and one that is stopped.
fn leaver(way_out: &str) -> String {
    format!(
        "if [ \"$1\" = again ]; then trap '' TERM; perl -e 'kill STOP => $$; sleep 600' MARK & $0 MARK & while :; do sleep 1; done; fi\n{way_out}"
    )
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_program_that_leaves_its_session_or_group_ends_when_it_is_cancelled() {
    let mut scene = Scene::new("leaver-cancelled");
    for way_out in WAYS_OUT {
        scene.script(&leaver(way_out), "");
        let running = scene.stage.replica.spawn(&[]).unwrap();
        scene.wait_until_there();
        running.signal(Signal::TERM).unwrap();
        let began = Instant::now();
        let ended = scene.stage.replica.wait_for_end(running).unwrap();
        assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
        assert_eq!(ended.attempts(), [("hostile", "cancelled")], "{}", ended.output);
        scene.assert_gone(way_out);
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_program_that_leaves_its_session_or_group_ends_at_its_timeout() {
    let mut scene = Scene::new("leaver-timeout");
    for way_out in WAYS_OUT {
        scene.script(&leaver(way_out), ", timeout = \"1s\"");
        let (outcome, message) = scene.stage.attempt();
        assert!(outcome == "failed" && message.contains("programs.tool.timeout"), "{outcome}: {message}");
        assert!(scene.place.join("there").exists());
        scene.assert_gone(way_out);
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_program_that_leaves_its_session_or_group_ends_with_a_host_that_is_killed() {
    let mut scene = Scene::new("leaver-killed");
    for way_out in WAYS_OUT {
        scene.script(&leaver(way_out), "");
        let running = scene.stage.replica.spawn(&[]).unwrap();
        scene.wait_until_there();
        running.signal(Signal::KILL).unwrap();
        scene.wait_until_gone(Instant::now(), way_out);
        assert_eq!(scene.stage.replica.wait_for_end(running).unwrap().code(), None);
    }
}

/// Starts processes in their own groups, which ignore signals. Each of them starts another process and ends, and so on. These chains end
/// by themselves long after the test.
const CHAINS: &str = "exec perl -e '
    $SIG{$_} = \"IGNORE\" for qw(TERM HUP INT CHLD);
    for (1 .. 60) { my $pid = fork; next if !defined $pid || $pid; setpgrp(0, 0); close($_) for *STDIN, *STDOUT, *STDERR; for (1 .. 5000) { exit if fork } exit }
    open(my $there, \">\", \"$ENV{PLACE}/there\"); print $there \"x\"; close($there); sleep 600' MARK";

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn processes_that_start_another_one_and_end_all_the_time_are_ended_at_the_timeout() {
    let mut scene = Scene::new("chains-timeout");
    scene.script(CHAINS, ", timeout = \"2s\"");
    let running = scene.stage.replica.spawn(&[]).unwrap();
    scene.wait_until_there();
    let began = Instant::now();
    let ended = scene.stage.replica.wait_for_end(running).unwrap();
    assert!(began.elapsed() < Duration::from_secs(2) + PATIENCE, "{:?}", began.elapsed());
    let message = ended.attempt("hostile")["message"].as_str().unwrap_or_default().to_owned();
    assert!(message.contains("did not end within 2s (programs.tool.timeout)"), "{message}");
    scene.assert_gone("the run has ended");
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn processes_that_start_another_one_and_end_all_the_time_end_with_a_host_that_is_killed() {
    let mut scene = Scene::new("chains-killed");
    scene.script(CHAINS, "");
    let running = scene.stage.replica.spawn(&[]).unwrap();
    scene.wait_until_there();
    running.signal(Signal::KILL).unwrap();
    scene.wait_until_gone(Instant::now(), "the host was killed");
    assert_eq!(scene.stage.replica.wait_for_end(running).unwrap().code(), None);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_guard_that_is_killed_leaves_nothing_of_its_program_in_whatever_session() {
    let mut scene = Scene::new("guard-killed");
    let sessions = "(setsid $0 MARK &) &\nsetsid setsid $0 MARK &\nset -m; $0 MARK & set +m; trap '' TERM; while :; do sleep 1; done";
    for (script, at_least) in [(sessions.to_owned(), 3), (CHAINS.to_owned(), 1)] {
        scene.script(&script, "");
        let running = scene.stage.replica.spawn(&[]).unwrap();
        scene.wait_until_there();
        wait_until("all processes", || with_mark(&scene.mark).len() >= at_least);
        let guards = guards_of(running.id());
        let guard = guards.first().and_then(|pid| Pid::from_raw(pid.parse().unwrap())).unwrap();
        kill_process(guard, Signal::KILL).unwrap();
        let began = Instant::now();
        let ended = scene.stage.replica.wait_for_end(running).unwrap();
        assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
        let message = ended.attempt("hostile")["message"].as_str().unwrap_or_default().to_owned();
        assert!(message.contains("the guard of tool was killed, and tool with it"), "{message}");
        scene.assert_gone(&script);
    }
}
