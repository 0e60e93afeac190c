//! Rules 27 and 28: a run that is cancelled or killed.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tests::primary::Primary;
use tests::program::fast_or_full;
use tests::replica_folder::ReplicaFolder;
use tests::server::{BIN_DIR, run};

/// Waits until `holds`, at most so long.
fn wait_until(what: &str, at_most: Duration, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < at_most, "waited {at_most:?} for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Every process of this machine whose command line or working directory names the replica's folder.
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

/// PostgreSQL refuses to start from what is there.
fn does_not_start(primary: &Primary, replica: &ReplicaFolder) {
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

/// Signals a run while a hostile method is at work and holds the run to its three seconds.
fn cancelled_while(behave: &str, by: Signal, code: i32) {
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
    let ended = replica.ended(child).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(3), "it took {:?}", begun.elapsed());
    assert_eq!(ended.code(), Some(code), "{}", ended.output);
    assert_eq!(ended.attempts(), [("hostile", "cancelled")], "no further method runs");
    assert_eq!(processes_of(&replica), Vec::<String>::new());
    assert!(!replica.is_sealed());
    assert_eq!(std::fs::read_dir(replica.datadir()).unwrap().count(), 0, "rule 28: contents are removed");
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn rule_27_an_interrupt_ends_a_busy_guest_within_three_seconds() {
    cancelled_while("loop", Signal::INT, 130);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn rule_27_a_termination_ends_a_sleeping_guest_within_three_seconds() {
    cancelled_while("sleep", Signal::TERM, 143);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn rule_27_an_interrupt_ends_pg_basebackup_with_everything_it_started() {
    let primary = Primary::start("cancel-basebackup", 20_000).unwrap();
    let replica = primary.replica("replica", &["basebackup"], "", "").unwrap();
    slow_basebackup(&replica);
    let child = replica.spawn(&[]).unwrap();
    wait_until("pg_basebackup to write", Duration::from_secs(30), || replica.datadir().join("base").exists());
    assert!(processes_of(&replica).len() >= 2, "pg_basebackup and its WAL receiver run");
    child.signal(Signal::INT).unwrap();
    let begun = Instant::now();
    let ended = replica.ended(child).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(3), "it took {:?}", begun.elapsed());
    assert_eq!(ended.code(), Some(130), "{}", ended.output);
    assert_eq!(processes_of(&replica), Vec::<String>::new());
    assert!(!replica.is_sealed());
    assert_eq!(std::fs::read_dir(replica.datadir()).unwrap().count(), 0);
}

fn slow_basebackup(replica: &ReplicaFolder) {
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
fn rule_17_a_deadline_ends_a_method_and_the_next_one_is_tried() {
    let primary = Primary::start("deadline", 1_000).unwrap();
    let section = primary.hostile("loop", "timeout = \"1s\"");
    let replica = primary.replica("replica", &["hostile", "basebackup"], "", &section).unwrap();
    let ended = replica.created_by("basebackup").unwrap();
    assert_eq!(ended.attempts(), [("hostile", "timed-out"), ("basebackup", "created")]);
}

/// Kills the program at ten moments (sixty in a full run) of a method's work, spread over how long it takes when left alone. After each, PostgreSQL does not start from
/// what is left unless the run was complete, nothing of the old run writes once the next has begun, and the next run succeeds.
fn killed_at_ten_moments(method: &str, backup: impl Fn(Primary) -> (Primary, String)) {
    let (primary, section) = backup(Primary::start(&format!("kill-{method}"), 20_000).unwrap());
    let whole = primary.replica("whole", &[method], "", &section).unwrap();
    let begun = Instant::now();
    whole.created_by(method).unwrap();
    let duration = begun.elapsed();
    let moments = fast_or_full(10, 60);
    for moment in 1..=moments {
        let replica = primary.replica(&format!("killed-{moment}"), &[method], "", &section).unwrap();
        let begun = Instant::now();
        let child = replica.spawn(&[]).unwrap();
        // Not a synchronisation: the moment of the kill is the test's input.
        std::thread::sleep((duration * moment / (moments + 1)).saturating_sub(begun.elapsed()));
        child.signal(Signal::KILL).unwrap();
        replica.ended(child).unwrap();
        starts_only_if_sealed(&primary, &replica);
        let again = replica.created_by(method).unwrap();
        assert_eq!(again.attempts(), [(method, "created")], "moment {moment}");
        assert_eq!(processes_of(&replica), Vec::<String>::new(), "moment {moment}");
        if moment % 3 == 0 {
            primary.streams_to(&replica).unwrap();
        }
        // A hundred megabytes each would add up.
        run(primary.playground.user().command("/bin/rm").arg("-rf").arg(replica.path(""))).unwrap();
    }
}

/// Only what the seal has put in place starts, and by then it is configured; not even what pg_basebackup has finished does.
fn starts_only_if_sealed(primary: &Primary, replica: &ReplicaFolder) {
    let mode =
        std::fs::metadata(replica.datadir()).map_or(0, |metadata| metadata.permissions().mode() & 0o777);
    if replica.is_sealed() && mode == 0o700 {
        assert!(replica.datadir().join("standby.signal").exists(), "sealed before it was configured");
    } else {
        does_not_start(primary, replica);
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn rule_27_a_kill_at_any_moment_of_tarball_leaves_nothing_that_starts_and_the_next_run_succeeds() {
    killed_at_ten_moments("tarball", |primary| {
        let backup = primary.tar_backup("latest", &["--compress=client-gzip:1"]).unwrap();
        let section = primary.tarball(&backup);
        (primary, section)
    });
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn rule_27_a_kill_at_any_moment_of_basebackup_leaves_nothing_that_starts_and_the_next_run_succeeds() {
    killed_at_ten_moments("basebackup", |primary| (primary, String::new()));
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn rule_27_a_kill_at_any_moment_of_mirror_leaves_nothing_that_starts_and_the_next_run_succeeds() {
    killed_at_ten_moments("mirror", |primary| {
        let section = primary.copy_for_mirror().unwrap();
        (primary.restarted().unwrap(), section)
    });
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn rule_26_what_a_killed_run_left_running_is_ended_before_the_next_run_writes() {
    let primary = Primary::start("left-over", 20_000).unwrap();
    let replica = primary.replica("replica", &["basebackup"], "", "").unwrap();
    slow_basebackup(&replica);
    let child = replica.spawn(&[]).unwrap();
    wait_until("pg_basebackup to write", Duration::from_secs(30), || replica.datadir().join("base").exists());
    child.signal(Signal::KILL).unwrap();
    replica.ended(child).unwrap();
    // Nothing waits here for the old run's processes: that is the next run's work.
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
    assert_eq!(replica.ended(first).unwrap().code(), Some(143));
}
