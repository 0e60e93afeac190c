//! Tests the confinement directly, as the user that runs the tests. On most build machines this is root.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use replica::event::Event;
use replica::process::{Confinement, Ending, GRACE, GuardExecutable, LineUse, NativeProgram, Status};
use replica::{Level, Run};
use tests::user::ServerUser;
use tokio_util::sync::CancellationToken;

use crate::intruder::{PROGRAM, Targets, assert_refused};
use crate::stage::with_mark;

/// Returns the paths of the dynamic linker and of the libraries.
fn system() -> (Vec<PathBuf>, Vec<PathBuf>) {
    let existing = |paths: &[&str]| paths.iter().map(PathBuf::from).filter(|path| path.exists()).collect();
    (
        existing(&["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"]),
        existing(&["/lib", "/lib64", "/usr/lib", "/etc/ld.so.cache", "/etc/passwd"]),
    )
}

pub(crate) async fn run(
    program: &str,
    arguments: &[String],
    confinement: Option<Confinement>,
) -> (Ending, String) {
    run_with(program, arguments, &[], confinement, CancellationToken::new()).await
}

/// Runs the program with these variables until it ends or `cancel` is cancelled. Returns its output too.
async fn run_with(
    program: &str,
    arguments: &[String],
    environment: &[(&str, &str)],
    confinement: Option<Confinement>,
    cancel: CancellationToken,
) -> (Ending, String) {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let run = Run::new("test", cancel, Arc::new(|_: Event| {}));
    let native = NativeProgram {
        environment: environment.iter().map(|(name, value)| (name.into(), value.into())).collect(),
        ..native(program, arguments, confinement)
    };
    let ending = native
        .run(&run, |line| {
            lines.lock().unwrap().push(line.text.clone());
            LineUse::Log(Level::Info)
        })
        .await
        .unwrap();
    let text = lines.lock().unwrap().iter().map(|line| format!("{line}\n")).collect();
    (ending, text)
}

/// Returns a program without variables that runs under the guard of these tests.
pub(crate) fn native(program: &str, arguments: &[String], confinement: Option<Confinement>) -> NativeProgram {
    NativeProgram {
        name: "tool".to_owned(),
        program: program.into(),
        arguments: arguments.iter().map(Into::into).collect(),
        environment: Vec::new(),
        writable: confinement.as_ref().map(|of| of.write.clone()).unwrap_or_default(),
        require_landlock: None,
        directory: None,
        guard: GuardExecutable::at(env!("CARGO_BIN_EXE_guard")),
        grace: GRACE,
        confinement,
    }
}

pub(crate) fn confinement(program: &str) -> Confinement {
    let (mut execute, read) = system();
    execute.push(program.into());
    Confinement {
        execute,
        read,
        write: Vec::new(),
        ports: Vec::new(),
        processes: 100,
        cpu: None,
        memory: 1 << 30,
        file_size: None,
    }
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn confinement_stops_an_intruder_even_if_it_runs_as_root() {
    let folder = tempfile::tempdir().unwrap();
    // The targets belong to the user of this test.
    let targets = Targets::new(folder.path(), ServerUser::of_this_process());
    for ports in [Vec::new(), vec![1]] {
        let confinement = Confinement { ports, ..confinement(PROGRAM) };
        let (ending, output) = run(PROGRAM, targets.arguments(), Some(confinement)).await;
        assert_eq!(ending.status, Status::Exited(0), "{output}");
        assert_refused(&output);
        assert_eq!(std::fs::read_dir(targets.outside()).unwrap().count(), 1);
    }
    // Without the confinement, only the guard's Landlock domain restricts the program. It forbids writes.
    let (_, output) = run(PROGRAM, targets.arguments(), None).await;
    for escaped in ["key", "list", "start a program", "tcp", "udp", "unix", "etc"] {
        assert!(output.contains(&format!("{escaped}: ESCAPED")), "{output}");
    }
    if rustix::process::geteuid().is_root() {
        assert!(output.contains("shadow: ESCAPED") && output.contains("root's user: ESCAPED"), "{output}");
    }
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn a_path_that_the_program_cannot_open_is_told_with_the_reason() {
    let mut confinement = confinement(PROGRAM);
    confinement.read.push("/nowhere/backups".into());
    let run = Run::new("test", CancellationToken::new(), Arc::new(|_: Event| {}));
    let program = native(PROGRAM, &[], Some(confinement));
    let error = program.run(&run, |_| LineUse::Log(Level::Info)).await.unwrap_err().to_string();
    for says in ["cannot open /nowhere/backups for Landlock", "No such file or directory"] {
        assert!(error.contains(says), "{says} in {error}");
    }
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn a_confined_program_has_no_capabilities_and_cannot_gain_any() {
    let shell = std::fs::canonicalize("/bin/sh").unwrap();
    let shell = shell.to_str().unwrap();
    let mut confinement = confinement(shell);
    confinement.read.push("/proc".into());
    let script = "while read line; do case $line in Cap*|NoNewPrivs*|Seccomp:*) echo $line;; esac; done < /proc/self/status";
    let arguments = ["-c".to_owned(), script.to_owned()];
    let (_, output) = run(shell, &arguments, Some(confinement)).await;
    for line in [
        "CapPrm: 0000000000000000",
        "CapEff: 0000000000000000",
        "CapInh: 0000000000000000",
        "CapAmb: 0000000000000000",
        "NoNewPrivs: 1",
        "Seccomp: 2",
    ] {
        assert!(output.contains(line), "{line} in\n{output}");
    }
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn a_confined_program_is_killed_before_its_guard_when_memory_runs_short() {
    let shell = std::fs::canonicalize("/bin/sh").unwrap();
    let shell = shell.to_str().unwrap();
    let mut confinement = confinement(shell);
    confinement.read.push("/proc".into());
    let usual = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim().to_owned();
    // The guard restores its own score just after it has started the program.
    let script = format!(
        "read own < /proc/self/oom_score_adj; i=0; until [ \"$guard\" = {usual} ] || [ $i = 100000 ]; do \
         read guard < /proc/$PPID/oom_score_adj; i=$((i+1)); done; echo own=$own guard=$guard"
    );
    let (_, output) = run(shell, &["-c".to_owned(), script], Some(confinement)).await;
    assert_eq!(output, format!("own=1000 guard={usual}\n"));
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn a_program_is_not_executed_if_it_cannot_be_confined() {
    let missing = Confinement { read: vec!["/nowhere".into()], ..confinement(PROGRAM) };
    let run_with = Run::new("test", CancellationToken::new(), Arc::new(|_: Event| {}));
    let native = NativeProgram {
        name: "tool".to_owned(),
        program: PROGRAM.into(),
        arguments: vec!["files".into(), "1".into()],
        environment: Vec::new(),
        writable: Vec::new(),
        require_landlock: None,
        directory: None,
        guard: GuardExecutable::at(env!("CARGO_BIN_EXE_guard")),
        grace: GRACE,
        confinement: Some(missing),
    };
    let error = native.run(&run_with, |line| panic!("{}", line.text)).await.unwrap_err().to_string();
    assert!(error.contains("/nowhere"), "{error}");
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn the_environment_of_a_program_reaches_no_process_before_it_is_confined() {
    let shell = std::fs::canonicalize("/bin/sh").unwrap();
    let shell = shell.to_str().unwrap();
    // With this variable the dynamic loader tells which programs it starts, as it would load a library of LD_PRELOAD into each of them.
    let tells = [("LD_DEBUG", "libs")];
    let arguments = ["-c".to_owned(), ":".to_owned()];
    let (_, output) =
        run_with(shell, &arguments, &tells, Some(confinement(shell)), CancellationToken::new()).await;
    let started: Vec<_> = output.lines().filter(|line| line.contains("initialize program: ")).collect();
    assert!(started.len() == 1 && started[0].ends_with(shell), "{output}");
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn a_program_whose_start_takes_long_is_ended_before_it_starts() {
    let shell = std::fs::canonicalize("/bin/sh").unwrap();
    let shell = shell.to_str().unwrap();
    // The paths are opened before the program starts, which takes much longer than a start without them.
    let slow = Confinement { read: vec!["/".into(); 900_000], ..confinement(shell) };
    let mut durations = Vec::new();
    for is_cancelled in [false, true] {
        let mark = format!("mark-slow-start-{is_cancelled}-{}", std::process::id());
        let arguments = ["-c".to_owned(), "echo started".to_owned(), mark.clone()];
        let cancel = CancellationToken::new();
        let starting = {
            let cancel = cancel.clone();
            async move {
                while with_mark(&mark).is_empty() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                if is_cancelled {
                    cancel.cancel();
                }
                Instant::now()
            }
        };
        let running = run_with(shell, &arguments, &[], Some(slow.clone()), cancel);
        let (began, (ending, output)) = tokio::join!(starting, running);
        durations.push(began.elapsed());
        assert_eq!((ending.stopped, output.contains("started")), (is_cancelled, !is_cancelled), "{output}");
    }
    assert!(durations[1] < durations[0] / 3, "{durations:?}");
}
