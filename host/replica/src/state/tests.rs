use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::*;

struct Files {
    root: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap() }
    }

    fn directory(&self) -> Directory {
        open_directory(&self.root.path().join("state"), true).unwrap().unwrap()
    }

    fn begin(&self, identity: (u64, u64)) -> State {
        self.begin_on(&DirectoryIdentity::for_test(identity, Some("1.000000000")))
    }

    fn begin_on(&self, identity: &DirectoryIdentity) -> State {
        let directory = self.directory();
        let previous = self.read();
        State::begin(directory, Path::new("/data"), identity, previous).unwrap()
    }

    fn read(&self) -> Option<Record> {
        read(&self.directory(), Path::new("/data")).unwrap()
    }

    fn file(&self) -> std::path::PathBuf {
        self.root.path().join("state/data.json")
    }
}

/// A process that is killed and reaped when the test ends.
struct KilledOnDrop(Child);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        if self.0.try_wait().unwrap().is_none()
            && let Some(group) = rustix::process::Pid::from_raw(self.pid() as i32)
        {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

impl KilledOnDrop {
    /// Starts a shell that leads a new session and runs `script`.
    fn leader(script: &str) -> Self {
        let child =
            Command::new("setsid").args(["bash", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        Self(child)
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Returns the identity once the shell leads its session.
    fn identity(&self) -> ProcessIdentity {
        until("the process leads a session", || {
            process::stat(self.pid()).unwrap().is_some_and(|process| process.session == self.pid())
        });
        ProcessIdentity::of(self.pid()).unwrap().unwrap()
    }

    /// Reads a line that the script prints: a number.
    fn number(&mut self) -> u32 {
        use std::io::BufRead;
        let mut line = String::new();
        io::BufReader::new(self.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        line.trim().parse().unwrap()
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn runs(pid: u32) -> bool {
    process::stat(pid).unwrap().is_some_and(|process| !process.is_dead())
}

#[test]
fn rule_26_the_state_file_names_the_run_its_start_its_method_and_its_processes() {
    let files = Files::new();
    let state = files.begin((1, 2));
    state.mark_unfinished("pgbackrest").unwrap();
    let process = ProcessIdentity { pid: 7, started: 8 };
    state.process_started(process).unwrap();
    let record = files.read().unwrap();
    assert_eq!(record, state.record());
    assert_eq!(record.host.unwrap().process, ProcessIdentity::of_this_process().unwrap());
    assert_eq!((record.device, record.inode, record.real_path.as_str()), (1, 2, "/data"));
    assert_eq!(
        (record.unfinished, record.method.as_deref(), record.processes.as_slice()),
        (true, Some("pgbackrest"), &[process][..])
    );
    assert!(record.is_of_this_namespace().unwrap());
    let text: serde_json::Value = serde_json::from_slice(&fs::read(files.file()).unwrap()).unwrap();
    let since = text["host"]["since"].as_str().unwrap();
    assert!(since.parse::<jiff::Timestamp>().is_ok() && since.ends_with('Z'), "RFC 3339: {since}");
    assert_eq!(fs::metadata(files.file()).unwrap().permissions().mode() & 0o777, 0o600);
    state.process_ended(process).unwrap();
    assert_eq!(files.read().unwrap().processes, []);
}

#[test]
fn rule_26_a_created_replica_is_no_longer_unfinished_and_a_failed_one_is() {
    let files = Files::new();
    for (result, empty, unfinished) in [
        (RunResult::Created, false, false),
        (RunResult::Failed, false, true),
        (RunResult::Interrupted, false, true),
        (RunResult::Failed, true, false),
    ] {
        let state = files.begin((1, 2));
        state.mark_unfinished("tarball").unwrap();
        state.run_ended(result, empty).unwrap();
        let record = files.read().unwrap();
        assert_eq!((record.unfinished, record.host, record.method), (unfinished, None, None), "{result:?}");
        assert_eq!(record.last_result.unwrap(), serde_json::to_value(result).unwrap().as_str().unwrap());
    }
}

#[test]
fn rule_26_the_unfinished_mark_is_about_one_directory_and_not_about_another_at_its_path() {
    let files = Files::new();
    files.begin((1, 2)).mark_unfinished("tarball").unwrap();
    assert!(files.begin((1, 2)).is_unfinished());
    assert!(!files.begin((1, 3)).is_unfinished());
    assert!(!files.begin((1, 2)).is_unfinished(), "the file is now about (1, 3)");
}

#[test]
fn rule_26_the_unfinished_mark_is_not_about_a_directory_that_has_the_inode_of_another() {
    let files = Files::new();
    let born = |born| DirectoryIdentity::for_test((1, 2), born);
    files.begin_on(&born(Some("1.000000000"))).mark_unfinished("tarball").unwrap();
    assert!(files.begin_on(&born(Some("1.000000000"))).is_unfinished());
    assert!(!files.begin_on(&born(Some("1.000000001"))).is_unfinished(), "the directory was made later");
    // The mark does not count either if the file system did not record the time of creation in the first or in the second run.
    files.begin_on(&born(None)).mark_unfinished("tarball").unwrap();
    assert!(!files.begin_on(&born(None)).is_unfinished());
    files.begin_on(&born(Some("1.000000000"))).mark_unfinished("tarball").unwrap();
    assert!(!files.begin_on(&born(None)).is_unfinished());
    // The mark in a state file of an older version, which has no time of creation, does not count either.
    files.begin_on(&born(Some("1.000000000"))).mark_unfinished("tarball").unwrap();
    let mut older: serde_json::Value = serde_json::from_slice(&fs::read(files.file()).unwrap()).unwrap();
    older.as_object_mut().unwrap().remove("born").unwrap();
    fs::write(files.file(), older.to_string()).unwrap();
    assert!(files.read().unwrap().unfinished);
    assert!(!files.begin_on(&born(Some("1.000000000"))).is_unfinished());
}

#[test]
fn rule_26_a_state_file_that_cannot_be_parsed_is_refused() {
    let files = Files::new();
    files.begin((1, 2));
    let whole = fs::read(files.file()).unwrap();
    let mut newer: serde_json::Value = serde_json::from_slice(&whole).unwrap();
    newer["version"] = 2.into();
    let mut of_another: serde_json::Value = serde_json::from_slice(&whole).unwrap();
    of_another["real_path"] = "/other".into();
    let long = vec![b' '; 2 << 20];
    for bytes in [
        b"".to_vec(),
        whole[..whole.len() / 2].to_vec(),
        b"{}".to_vec(),
        b"\0\0\0\0".to_vec(),
        newer.to_string().into_bytes(),
        of_another.to_string().into_bytes(),
        long,
    ] {
        fs::write(files.file(), &bytes).unwrap();
        let refusal = read(&files.directory(), Path::new("/data")).unwrap_err();
        assert_eq!(refusal.rule, Rule::StateFile);
        assert!(
            refusal.message.contains("data.json") && refusal.message.contains("remove the file"),
            "{refusal}"
        );
    }
    fs::remove_file(files.file()).unwrap();
    symlink("/dev/null", files.file()).unwrap();
    assert!(read(&files.directory(), Path::new("/data")).is_err(), "a link is not followed");
}

#[test]
fn rule_26_a_state_directory_that_others_may_write_to_is_refused() {
    let files = Files::new();
    let path = files.root.path().join("state");
    files.directory();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    for mode in [0o770, 0o707, 0o777] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let refusal = open_directory(&path, true).unwrap_err();
        assert!(refusal.message.contains("chmod 0700"), "{refusal}");
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(open_directory(&path, true).unwrap().is_some());
    assert!(open_directory(Path::new("relative"), false).is_err());
    assert!(open_directory(&files.root.path().join("none"), false).unwrap().is_none());
}

#[test]
fn rule_26_a_run_has_a_bounded_number_of_processes() {
    let files = Files::new();
    let state = files.begin((1, 2));
    let mut record = state.record();
    record.processes = (0..MOST_PROCESSES as u32).map(|pid| ProcessIdentity { pid, started: 1 }).collect();
    *state.record.lock().unwrap() = record;
    state.process_started(ProcessIdentity { pid: 5, started: 1 }).unwrap();
    let error = state.process_started(ProcessIdentity { pid: 5, started: 2 }).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::QuotaExceeded);
}

#[test]
fn rule_26_a_mark_that_could_not_be_written_is_not_set() {
    let files = Files::new();
    let state = files.begin((1, 2));
    fs::remove_dir_all(files.root.path().join("state")).unwrap();
    assert!(state.mark_unfinished("tarball").is_err());
    assert!(!state.is_unfinished());
}

fn record_of(processes: &[ProcessIdentity]) -> Record {
    let mut record =
        Record::of_this_process(Path::new("/data"), &DirectoryIdentity::for_test((1, 2), Some("1"))).unwrap();
    record.processes = processes.to_vec();
    record
}

#[test]
fn rule_26_leftover_processes_are_ended_with_their_whole_group() {
    let mut leader = KilledOnDrop::leader("sleep 600 & echo $!; wait");
    let child = leader.number();
    let identity = leader.identity();
    assert_eq!(record_of(&[identity]).end_leftover_processes().unwrap(), 2);
    assert!(!runs(leader.pid()) && !runs(child));
    assert_eq!(record_of(&[identity]).end_leftover_processes().unwrap(), 0);
}

#[test]
fn rule_26_members_of_a_group_whose_leader_is_gone_are_ended() {
    let mut leader = KilledOnDrop::leader("sleep 600 & echo $!; wait");
    let child = leader.number();
    let identity = leader.identity();
    leader.0.kill().unwrap();
    leader.0.wait().unwrap();
    assert!(process::stat(leader.pid()).unwrap().is_none() && runs(child));
    assert_eq!(record_of(&[identity]).end_leftover_processes().unwrap(), 1);
    assert!(!runs(child));
}

#[test]
fn rule_26_a_process_that_left_the_group_but_not_the_session_is_ended() {
    let mut leader = KilledOnDrop::leader("set -m; sleep 600 & echo $!; wait");
    let child = leader.number();
    let identity = leader.identity();
    until("the child has a group of its own", || {
        process::stat(child).unwrap().is_some_and(|one| one.group == child)
    });
    record_of(&[identity]).end_leftover_processes().unwrap();
    assert!(!runs(leader.pid()) && !runs(child));
}

#[test]
fn rule_26_a_process_that_has_the_pid_of_a_dead_one_is_not_ended() {
    let mut leader = KilledOnDrop::leader("sleep 600 & echo $!; wait");
    let child = leader.number();
    let identity = leader.identity();
    let earlier = ProcessIdentity { started: identity.started - 1, ..identity };
    let later = ProcessIdentity { started: identity.started + 1, ..identity };
    assert_eq!(record_of(&[earlier, later]).end_leftover_processes().unwrap(), 0);
    let mut of_another_boot = record_of(&[identity]);
    of_another_boot.boot_id = "another".into();
    assert_eq!(of_another_boot.end_leftover_processes().unwrap(), 0);
    let mut of_another_container = record_of(&[identity]);
    of_another_container.pid_namespace = "1-1".into();
    assert_eq!(of_another_container.end_leftover_processes().unwrap(), 0);
    assert!(runs(leader.pid()) && runs(child));
    record_of(&[identity]).end_leftover_processes().unwrap();
}
