//! Rules 27 and 28: runs that are cancelled or killed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tests::primary::Primary;
use tests::program::fast_or_full;
use tests::replica_folder::ReplicaFolder;
use tests::server::{BIN_DIR, run};

/// Waits until `holds` returns true, at most for this time.
fn wait_until(what: &str, at_most: Duration, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < at_most, "waited {at_most:?} for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Returns every process whose command line or program names the replica's folder.
fn processes_of(replica: &ReplicaFolder) -> Vec<String> {
    let folder = replica.path("");
    let folder = folder.to_str().unwrap();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(command) = std::fs::read(entry.path().join("cmdline")) else { continue };
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let program = std::fs::read_link(entry.path().join("exe")).unwrap_or_default();
        if command.contains(folder) || program.to_string_lossy().contains(folder) {
            found.push(format!("{}: {command}", entry.file_name().display()));
        }
    }
    found
}

/// Checks that PostgreSQL refuses to start from the data directory.
fn assert_does_not_start(primary: &Primary, replica: &ReplicaFolder) {
    let started = primary
        .playground
        .user()
        .command(Path::new(BIN_DIR).join("postgres"))
        .args(["--single", "-D"])
        .arg(replica.datadir())
        .args(["-c", "unix_socket_directories=", "postgres"])
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    assert!(!started.status.success(), "it starts: {}", String::from_utf8_lossy(&started.stderr));
}

/// Sends a signal to a run while a hostile method works, and checks that the run ends within three seconds.
fn cancel_while(behave: &str, by: Signal, code: i32) {
    let primary = Primary::start(&format!("cancel-{behave}"), 1_000).unwrap();
    let replica =
        primary.replica("replica", &["hostile", "basebackup"], "", &primary.hostile(behave, "")).unwrap();
    let child = replica.spawn(&["--log-level", "debug"]).unwrap();
    wait_until("the method to be at work", Duration::from_secs(30), || {
        let output = std::fs::read_to_string(replica.path("output")).unwrap_or_default();
        output.contains("step create")
    });
    child.signal(by).unwrap();
    let begun = Instant::now();
    let ended = replica.wait_for_end(child).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(3), "it took {:?}", begun.elapsed());
    assert_eq!(ended.code(), Some(code), "{}", ended.output);
    assert_eq!(ended.attempts(), [("hostile", "cancelled")], "another method ran");
    assert_eq!(processes_of(&replica), Vec::<String>::new());
    assert!(!replica.is_sealed());
    assert_eq!(std::fs::read_dir(replica.datadir()).unwrap().count(), 0, "the contents were not removed");
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn rule_27_sigint_ends_a_busy_component_within_three_seconds() {
    cancel_while("loop", Signal::INT, 130);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn rule_27_sigterm_ends_a_sleeping_component_within_three_seconds() {
    cancel_while("sleep", Signal::TERM, 143);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn rule_27_sigint_ends_pg_basebackup_and_its_child_processes() {
    let primary = Primary::start("cancel-basebackup", 20_000).unwrap();
    let replica = primary.replica("replica", &["basebackup"], "", "").unwrap();
    slow_down_basebackup(&replica);
    let child = replica.spawn(&[]).unwrap();
    wait_until("pg_basebackup to write", Duration::from_secs(30), || replica.datadir().join("base").exists());
    assert!(processes_of(&replica).len() >= 2, "pg_basebackup or its WAL receiver does not run");
    child.signal(Signal::INT).unwrap();
    let begun = Instant::now();
    let ended = replica.wait_for_end(child).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(3), "it took {:?}", begun.elapsed());
    assert_eq!(ended.code(), Some(130), "{}", ended.output);
    assert_eq!(processes_of(&replica), Vec::<String>::new());
    assert!(!replica.is_sealed());
    assert_eq!(std::fs::read_dir(replica.datadir()).unwrap().count(), 0);
}

fn slow_down_basebackup(replica: &ReplicaFolder) {
    let config = replica.path("understudy.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(
        &config,
        text.replace("checkpoint = \"fast\"", "checkpoint = \"fast\"\nmax-rate = \"2M\""),
    )
    .unwrap();
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn rule_17_a_timeout_ends_a_method_and_the_next_one_is_tried() {
    let primary = Primary::start("deadline", 1_000).unwrap();
    let section = primary.hostile("loop", "timeout = \"1s\"");
    let replica = primary.replica("replica", &["hostile", "basebackup"], "", &section).unwrap();
    let ended = replica.created_by("basebackup").unwrap();
    assert_eq!(ended.attempts(), [("hostile", "timed-out"), ("basebackup", "created")]);
}

/// Kills the program at ten moments (sixty in a full run), spread over the duration of a complete run. After each kill, PostgreSQL
/// must not start from the data directory unless the run was complete, the next run must succeed, and no process of the killed run
/// may be left.
fn kill_at_ten_moments(method: &str, backup: impl Fn(Primary) -> (Primary, String)) {
    let (primary, section) = backup(Primary::start(&format!("kill-{method}"), 20_000).unwrap());
    let complete = primary.replica("complete", &[method], "", &section).unwrap();
    let begun = Instant::now();
    complete.created_by(method).unwrap();
    let duration = begun.elapsed();
    let moments = fast_or_full(10, 60);
    for moment in 1..=moments {
        let replica = primary.replica(&format!("killed-{moment}"), &[method], "", &section).unwrap();
        let begun = Instant::now();
        let child = replica.spawn(&[]).unwrap();
        // This sleep does not synchronize anything: the moment of the kill is the input of the test.
        std::thread::sleep((duration * moment / (moments + 1)).saturating_sub(begun.elapsed()));
        child.signal(Signal::KILL).unwrap();
        replica.wait_for_end(child).unwrap();
        assert_starts_only_if_sealed(&primary, &replica);
        let again = replica.created_by(method).unwrap();
        assert_eq!(again.attempts(), [(method, "created")], "moment {moment}");
        assert_eq!(processes_of(&replica), Vec::<String>::new(), "moment {moment}");
        if moment % 3 == 0 {
            primary.streams_to(&replica).unwrap();
        }
        // Each replica takes a hundred megabytes.
        run(primary.playground.user().command("/bin/rm").arg("-rf").arg(replica.path(""))).unwrap();
    }
}

/// Checks that PostgreSQL can start only if the seal was complete. A complete seal includes the configuration as a standby.
fn assert_starts_only_if_sealed(primary: &Primary, replica: &ReplicaFolder) {
    let mode =
        std::fs::metadata(replica.datadir()).map_or(0, |metadata| metadata.permissions().mode() & 0o777);
    if replica.is_sealed() && mode == 0o700 {
        assert!(replica.datadir().join("standby.signal").exists(), "sealed before it was configured");
    } else {
        assert_does_not_start(primary, replica);
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn rule_27_a_killed_tarball_run_leaves_nothing_that_starts_and_the_next_run_succeeds() {
    kill_at_ten_moments("tarball", |primary| {
        let backup = primary.tar_backup("latest", &["--compress=client-gzip:1"]).unwrap();
        let section = primary.tarball(&backup);
        (primary, section)
    });
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn rule_27_a_killed_basebackup_run_leaves_nothing_that_starts_and_the_next_run_succeeds() {
    kill_at_ten_moments("basebackup", |primary| (primary, String::new()));
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn rule_27_a_killed_mirror_run_leaves_nothing_that_starts_and_the_next_run_succeeds() {
    kill_at_ten_moments("mirror", |primary| {
        let section = primary.copy_for_mirror().unwrap();
        (primary.restarted().unwrap(), section)
    });
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn rule_26_processes_of_a_killed_run_are_ended_before_the_next_run_writes() {
    let primary = Primary::start("left-over", 20_000).unwrap();
    let replica = primary.replica("replica", &["basebackup"], "", "").unwrap();
    slow_down_basebackup(&replica);
    let child = replica.spawn(&[]).unwrap();
    wait_until("pg_basebackup to write", Duration::from_secs(30), || replica.datadir().join("base").exists());
    child.signal(Signal::KILL).unwrap();
    replica.wait_for_end(child).unwrap();
    // The test does not wait for the old run's processes: the next run must end them.
    let config = replica.path("understudy.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("max-rate = \"2M\"\n", "")).unwrap();
    replica.created_by("basebackup").unwrap();
    assert_eq!(processes_of(&replica), Vec::<String>::new());
    primary.streams_to(&replica).unwrap();
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn rule_26_a_second_run_on_the_same_directory_is_refused_and_names_the_first() {
    let primary = Primary::start("two-runs", 1_000).unwrap();
    let replica = primary.replica("replica", &["hostile"], "", &primary.hostile("sleep", "")).unwrap();
    let first = replica.spawn(&["--log-level", "debug"]).unwrap();
    wait_until("the first run to be at work", Duration::from_secs(30), || {
        let output = std::fs::read_to_string(replica.path("output")).unwrap_or_default();
        output.contains("step create")
    });
    let second = replica.command("create").output().unwrap();
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(3), "{said}");
    assert!(said.contains(&first.id().to_string()), "it names the first run: {said}");
    first.signal(Signal::TERM).unwrap();
    assert_eq!(replica.wait_for_end(first).unwrap().code(), Some(143));
}
