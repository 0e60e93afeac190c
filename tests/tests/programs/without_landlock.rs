//! A kernel without Landlock: what is not enforced is said, and refused where the operator requires it.

use std::process::{Command, Stdio};

use crate::intruder::{PROGRAM, Targets};
use crate::stage::Stage;

/// Returns `understudy VERB`, for which the kernel has no Landlock.
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
fn without_landlock_the_check_and_the_report_say_so_and_sockets_stay_forbidden() {
    let stage = Stage::new("programs-old-kernel");
    let targets = Targets::new(&stage.replica.path(""), stage.playground.user());
    let program = stage.copy(PROGRAM);
    let grant = format!("programs.tool = {{ path = {program:?}, args = {:?} }}", targets.arguments());
    stage.configure("", &format!("arguments = {:?}\n", targets.arguments()), &grant);
    let output = command(&stage, "check").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    for says in
        ["the program tool may read, write and execute every file", "the program tool may send signals"]
    {
        assert!(said.contains(says) && said.contains("require_landlock"), "{says} in {said}");
    }
    let report = stage.replica.path("report.json");
    let output = command(&stage, "create").arg("--report").arg(&report).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let report = std::fs::read_to_string(&report).unwrap();
    assert!(report.contains("the program tool may read, write and execute every file"), "{report}");
    for attempt in
        ["tcp", "udp", "unix", "abstract", "datagram", "ptrace", "tcp listener", "root's user", "shadow"]
    {
        assert!(report.contains(&format!("{attempt}: refused")), "{attempt} in {said} {report}");
    }
    // The kernel that runs the tests enforces everything.
    let output = stage.replica.command("check").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(!said.contains("the program tool may"), "{said}");
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_required_landlock_refuses_such_a_kernel() {
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
