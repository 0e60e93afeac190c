//! Tests the limit on the processor time of a program with everything that it starts.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use replica::process::{Confinement, Exceeded, Status};

use crate::confined::{confinement, run};
use crate::stage::{Stage, with_mark};

/// The limit in these tests.
const MOST: Duration = Duration::from_secs(2);

/// Scripts that compute in several processes, none of which uses up the limit alone before the sum does. `work N` computes for a while
/// that grows with N. `$0` is the script itself.
const BURNERS: [(&str, &str); 4] = [
    ("children that run at the same time", "for i in 1 2 3 4; do work 100000000 & done; wait"),
    ("one child after another", "while :; do (work 100000); done"),
    (
        "processes that have lost their parents and left the session",
        "for i in 1 2 3 4; do (setsid $0 x &); done; work 100000000",
    ),
    // The kernel does not add the time of these children to that of their parent.
    (
        "children whose parent ignores their end",
        "trap '' CHLD; while :; do work 300000 & work 300000 & wait; done",
    ),
];

fn script(folder: &tempfile::TempDir, name: &str, text: &str) -> String {
    let script = folder.path().join(name);
    let text = format!(
        "#!/bin/sh\nwork() {{ i=0; while [ $i -lt $1 ]; do i=$((i + 1)); done; }}\n\
         if [ \"$1\" ]; then work 100000000; fi\n{text}\n"
    );
    // Another process writes the script, for the same reason as in `Stage::script`.
    let mut write = Command::new("/bin/sh");
    write.args(["-c", "printf %s \"$1\" > \"$2\"; chmod 700 \"$2\"", "sh", &text]).arg(&script);
    tests::server::run(&mut write).unwrap();
    script.to_str().unwrap().to_owned()
}

fn bounded(script: &str, cpu: Duration) -> Confinement {
    let mut confinement = Confinement { cpu: Some(cpu), ..confinement(script) };
    confinement.execute.extend(["/bin/sh", "/usr/bin/setsid"].map(PathBuf::from));
    confinement
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn a_program_whose_processes_compute_too_much_together_is_ended_with_all_of_them() {
    let folder = tempfile::tempdir().unwrap();
    for (number, (what, text)) in BURNERS.iter().enumerate() {
        let script = script(&folder, &format!("burner-{number}"), text);
        let (ending, output) = run(&script, &[], Some(bounded(&script, MOST))).await;
        assert_eq!(ending.exceeded, Some(Exceeded::Cpu), "{what}: {ending:?} {output}");
        assert!(ending.used.cpu > MOST && ending.used.cpu < 3 * MOST, "{what}: {ending:?}");
        assert_eq!(with_mark(&script), [""; 0], "{what}");
    }
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn a_program_that_stays_within_its_processor_time_is_not_ended() {
    let folder = tempfile::tempdir().unwrap();
    let within = "for i in 1 2 3 4; do work 100000 & done; wait; for i in 1 2 3 4; do (work 100000); done";
    let script = script(&folder, "within", within);
    let (ending, _) = run(&script, &[], Some(bounded(&script, Duration::from_secs(600)))).await;
    assert_eq!((ending.status, ending.exceeded), (Status::Exited(0), None), "{ending:?}");
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn the_kernel_bounds_the_processor_time_of_each_process_too() {
    let folder = tempfile::tempdir().unwrap();
    let script = script(&folder, "limits", "ulimit -St; ulimit -Ht");
    let (_, output) = run(&script, &[], Some(bounded(&script, Duration::from_millis(2500)))).await;
    assert_eq!(output, "4\n4\n");
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn the_method_is_told_that_its_program_used_too_much_processor_time() {
    let stage = Stage::new("programs-cpu");
    let text = "for i in 1 2 3; do while :; do :; done & done; wait";
    let script = stage.script("tool", text);
    stage.tool("", &script, ", cpu = \"1s\", timeout = \"5min\"");
    let ended = stage.create();
    let attempt = ended.attempt("hostile");
    let message = attempt["message"].as_str().unwrap_or_default();
    let says = "used more than 1s of processor time (programs.tool.cpu) with all that it started";
    assert!(attempt["outcome"] == "failed" && message.contains(says), "{}", ended.output);
    let cpu = &attempt["usage"]["programs"]["tool"]["cpu_seconds"];
    assert!(cpu["used"].as_f64().unwrap() > 1.0 && cpu["limit"] == 1.0, "{cpu}");
    assert_eq!(with_mark(script.to_str().unwrap()), [""; 0]);
    // The same program without an end of its own runs until its time is over if nothing bounds its processor time.
    stage.tool("", &script, ", cpu = \"0s\", timeout = \"3s\"");
    let (outcome, message) = stage.attempt();
    assert!(outcome == "failed" && message.contains("(programs.tool.timeout)"), "{outcome}: {message}");
}
