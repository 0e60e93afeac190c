//! On a kernel without Landlock, Understudy reports what the kernel does not enforce, and refuses to run if the operator requires Landlock.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::intruder::{PROGRAM, Targets};
use crate::stage::{Stage, with_mark};

/// Returns the command `understudy VERB`, for which Landlock's system calls fail as on a kernel without Landlock.
fn command(stage: &Stage, verb: &str) -> Command {
    let helper = stage.replica.path("without-landlock");
    if !helper.exists() {
        let mut copy = Command::new("/bin/cp");
        copy.arg(env!("CARGO_BIN_EXE_without_landlock")).arg(&helper);
        tests::server::run(&mut copy).unwrap();
        stage.own(&helper, 0o700);
    }
    let usual = stage.replica.command(verb);
    let mut command = stage.playground.user().command(helper);
    command.arg(usual.get_program()).args(usual.get_args()).stdin(Stdio::null());
    command
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn without_landlock_check_and_report_say_what_is_not_enforced_and_sockets_stay_forbidden() {
    let stage = Stage::new("programs-old-kernel");
    let targets = Targets::new(&stage.replica.path(""), stage.playground.user());
    let program = stage.copy(PROGRAM);
    let grant = format!(
        "network = [\"192.0.2.1:443\"]\nprograms.tool = {{ path = {program:?}, args = {:?} }}",
        targets.arguments()
    );
    stage.configure("", &format!("arguments = {:?}\n", targets.arguments()), &grant);
    let output = command(&stage, "check").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    for says in [
        "the program tool may read, write and execute every file",
        "the program tool may send signals",
        "the program tool may live on after it was ended",
        "the kernel does not restrict the method to the ports of the servers in `network`",
    ] {
        assert!(said.contains(says) && said.contains("require_landlock"), "{says} in {said}");
    }
    let report = stage.replica.path("report.json");
    let output = command(&stage, "create").arg("--report").arg(&report).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let report = std::fs::read_to_string(&report).unwrap();
    assert!(report.contains("the program tool may read, write and execute every file"), "{report}");
    for attempt in [
        "tcp",
        "udp",
        "unix",
        "abstract",
        "datagram",
        "ptrace",
        "tcp listener",
        "root's user",
        "shadow",
        "limits of another",
        "processors of another",
        "death signal",
        "file in memory",
        "attribute",
        "attribute of a link",
        "watch",
    ] {
        assert!(report.contains(&format!("{attempt}: refused")), "{attempt} in {said} {report}");
    }
    // The kernel that runs the tests enforces everything.
    let output = stage.replica.command("check").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(!said.contains("because this kernel") && !said.contains("because the kernel"), "{said}");
    assert!(!said.contains("the kernel does not restrict"), "{said}");
    // `check` also reports what no kernel enforces.
    assert!(said.contains("the program tool may change the mode, group and times"), "{said}");
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn without_landlock_a_program_whose_processes_replace_each_other_is_ended_at_its_timeout() {
    let stage = Stage::new("programs-replace");
    // Each process starts the next one and ends. They stop by themselves after a while, so that the machine survives if the guard fails.
    let text = "if [ \"$1\" ]; then [ $1 -gt 20000 ] || $0 $(($1 + 1)) & exit; fi\n\
                for chain in 1 2 3 4 5 6 7 8; do $0 1 & done\ntrap '' TERM\nwhile :; do :; done";
    let script = stage.script("tool", text);
    stage.tool("", &script, &format!(", timeout = \"2s\", execute = [{script:?}]"));
    let began = Instant::now();
    let output = command(&stage, "create").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("did not end within 2s (programs.tool.timeout)"), "{said}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!(with_mark(script.to_str().unwrap()), [""; 0]);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn require_landlock_refuses_a_kernel_without_landlock() {
    let stage = Stage::new("programs-required");
    let script = stage.script("tool", "echo ran");
    let section = format!(
        "[method.hostile]\nno_leader = true\noptions.behave = \"run-program\"\ngrants.programs.tool = {{ path = {script:?} }}\n"
    );
    stage.replica.configure("methods = [\"hostile\"]\nrequire_landlock = 1\n", &section).unwrap();
    let output = command(&stage, "create").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("require_landlock") && !said.contains("program tool: ran"), "{said}");
}
