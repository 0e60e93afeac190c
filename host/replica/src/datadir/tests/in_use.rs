//! Tests with a data directory in use: by a running server, by another run, or by leftover processes of a run that was killed.

use super::*;
use crate::seal::UNFINISHED_CONTROL_FILE;

/// A process that is killed and reaped when the test ends.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
    }

    /// Runs `sleep` under the name of another program.
    fn named(name: &Path, stands_in: &Path) -> Self {
        fs::copy("/bin/sleep", name).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match Command::new(name).arg("600").current_dir(stands_in).spawn() {
                Ok(child) => return Self(child),
                // Another thread's child may still hold the copy open for writing (ETXTBSY).
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn runs(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts `sleep` as the leader of a session, with a copy of `descriptor` if there is one.
fn leader(descriptor: Option<BorrowedFd<'_>>) -> (Running, ProcessIdentity) {
    let mut command = Command::new("setsid");
    command.args(["sleep", "600"]);
    if let Some(descriptor) = descriptor {
        let parent_fd = descriptor.try_clone_to_owned().unwrap();
        command.fd_mappings(vec![FdMapping { parent_fd, child_fd: 9 }]).unwrap();
    }
    let running = Running::start(&mut command);
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let process = crate::state::process::stat(running.pid()).unwrap().unwrap();
        if process.session == running.pid() && process.name == b"sleep" {
            return (running, ProcessIdentity { pid: process.pid, started: process.started });
        }
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn rule_25_a_server_that_works_in_the_directory_is_not_disturbed() {
    let machine = Machine::with_cluster();
    let server = Running::start(Command::new("sleep").arg("600").current_dir(machine.path("data")));
    for sign in ["", "-"] {
        fs::write(machine.path("data/postmaster.pid"), format!("{sign}{}\n/data\n", server.pid())).unwrap();
        let refusal = machine.refused();
        assert_eq!(refusal.rule, Rule::RunningServer);
        assert!(refusal.message.contains(&server.pid().to_string()), "{refusal}");
        assert!(machine.force().is_err(), "`--force` does not help");
    }
}

#[test]
fn rule_25_a_stale_postmaster_pid_is_no_server() {
    let machine = Machine::with_cluster();
    let mut ended = Command::new("true").spawn().unwrap();
    let dead = ended.id();
    let elsewhere = Running::start(Command::new("sleep").arg("600").current_dir("/"));
    // `dead` is the PID of a zombie. The other PIDs are those of another program, of this program, and of no process.
    while !crate::state::process::stat(dead).unwrap().unwrap().is_dead() {
        std::thread::yield_now();
    }
    for pid in [dead, elsewhere.pid(), std::process::id(), i32::MAX as u32] {
        fs::write(machine.path("data/postmaster.pid"), format!("{pid}\n")).unwrap();
        assert_eq!(machine.inspect(), Ok(Contents::Cluster), "{pid}");
    }
    ended.wait().unwrap();
    fs::write(machine.path("data/postmaster.pid"), format!("{dead}\n")).unwrap();
    assert!(machine.acquire().is_ok());
}

#[test]
fn rule_25_a_server_that_cannot_be_examined_is_not_disturbed() {
    // An ordinary user cannot see the working directory of another user's process, so the check runs as one.
    let machine = Machine::with_cluster();
    let stranger = Running::start(Command::new("sleep").arg("600").current_dir("/"));
    let pid = if rustix::process::geteuid().is_root() {
        let status = Command::new("chown").args(["-R", "65534"]).arg(&machine.root).status().unwrap();
        assert!(status.success());
        stranger.pid()
    } else {
        1
    };
    fs::write(machine.path("data/postmaster.pid"), format!("{pid}\n")).unwrap();
    let refused = std::thread::spawn(move || {
        if rustix::process::geteuid().is_root() {
            let nobody = rustix::process::Uid::from_raw(65534);
            rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
        }
        let refusal = machine.refused();
        // A method may write such a file. In unfinished work, which cannot be started, it does not count.
        fs::remove_file(machine.path("data/global/pg_control")).unwrap();
        let directory = Directory::open(&machine.path("data")).unwrap();
        assert_eq!(server::refuse_running(&directory, true), Ok(()));
        refusal
    })
    .join()
    .unwrap();
    assert!(refused.message.contains("cannot be examined from here"), "{refused}");
}

#[test]
fn rule_25_a_postmaster_pid_that_names_no_process_is_refused_in_a_cluster_and_not_in_unfinished_work() {
    let machine = Machine::with_cluster();
    fs::write(machine.path("data/postmaster.pid"), "").unwrap();
    assert!(machine.refused().message.contains("remove that file"));
    fs::remove_file(machine.path("data/postmaster.pid")).unwrap();
    machine.killed(machine.acquire().unwrap(), &[]);
    symlink("/etc/hostname", machine.path("data/postmaster.pid")).unwrap();
    assert_eq!(machine.inspect(), Ok(Contents::Unfinished));
    let server = Running::start(Command::new("sleep").arg("600").current_dir(machine.path("data")));
    fs::remove_file(machine.path("data/postmaster.pid")).unwrap();
    fs::write(machine.path("data/postmaster.pid"), server.pid().to_string()).unwrap();
    assert_eq!(machine.refused().rule, Rule::RunningServer);
}

#[test]
fn rule_25_a_servers_process_without_a_postmaster_pid_is_seen() {
    let machine = Machine::with_cluster();
    let server = Running::named(&machine.path("postgres"), &machine.path("data"));
    let refusal = machine.refused();
    assert!(refusal.message.contains(&server.pid().to_string()), "{refusal}");
}

#[test]
fn rule_25_a_place_below_which_a_server_works_is_refused_even_with_force() {
    let mut machine = Machine::new();
    machine.map_wal("wal");
    let main = machine.cluster("main");
    let _server = Running::named(&machine.path("postgres"), &main);
    for (place, below) in [("data", "data/deep/main"), ("wal", "wal/archive_status/main")] {
        let moved = machine.path(below);
        fs::create_dir_all(moved.parent().unwrap()).unwrap();
        // First the server's data directory lies in the place, then only its WAL directory.
        fs::rename(&main, &moved).unwrap();
        let refusal = machine.force().unwrap_err();
        assert!(refusal.message.contains("running server"), "{place}: {refusal}");
        assert_eq!(machine.inspected(true).unwrap_err(), refusal);
        fs::rename(&moved, &main).unwrap();
        fs::create_dir(&moved).unwrap();
        symlink(&moved, main.join("pg_wal")).unwrap();
        let refusal = machine.force().unwrap_err();
        assert!(refusal.message.contains("WAL directory of a running server"), "{place}: {refusal}");
        fs::remove_file(main.join("pg_wal")).unwrap();
        fs::remove_dir_all(machine.path(place)).unwrap();
    }
}

#[test]
fn rule_25_a_process_that_works_in_the_directory_beside_a_stale_postmaster_pid_is_no_server() {
    let machine = Machine::with_cluster();
    fs::write(machine.path("data/postmaster.pid"), format!("{}\n", std::process::id())).unwrap();
    let _shell = Running::start(Command::new("sleep").arg("600").current_dir(machine.path("data")));
    machine.acquire().unwrap();
}

#[test]
fn rule_26_the_files_of_a_killed_pg_basebackup_are_replaced_with_and_without_the_state_file() {
    let machine = Machine::with_cluster();
    let held = || fs::create_dir(machine.path("data/postmaster.pid")).unwrap();
    held();
    assert_eq!(machine.inspect(), Ok(Contents::Cluster));
    fs::remove_dir(machine.path("data/postmaster.pid")).unwrap();
    machine.killed(machine.acquire().unwrap(), &[]);
    // pg_basebackup has written pg_control, and a person has set the mode that PostgreSQL requires.
    machine.cluster("data");
    held();
    assert_eq!(machine.inspect(), Ok(Contents::Unfinished));
    fs::write(machine.path("data/postmaster.pid/README"), "").unwrap();
    let directory = machine.acquire().unwrap();
    assert_eq!(directory.contents().unwrap(), Contents::Unfinished);
    // With `keep_data`, the directory at `postmaster.pid` is removed too, so that a method can write a file with that name.
    directory.empty(EmptyScope::ControlFileOnly, None, &CancellationToken::new()).unwrap();
    assert!(!machine.path("data/postmaster.pid").exists());
}

#[test]
fn rule_25_a_server_that_was_started_since_is_found_before_the_first_file_is_removed() {
    let machine = Machine::with_cluster();
    let directory = machine.acquire().unwrap();
    let server = Running::start(Command::new("sleep").arg("600").current_dir(machine.path("data")));
    fs::write(machine.path("data/postmaster.pid"), server.pid().to_string()).unwrap();
    directory.state().mark_unfinished("tarball").unwrap();
    let error = directory.empty(EmptyScope::Everything, None, &CancellationToken::new()).unwrap_err();
    assert!(error.to_string().contains("server running"), "{error}");
    assert!(machine.path("data/global/pg_control").exists());
}

#[test]
fn rule_24_the_places_of_a_running_server_are_not_emptied() {
    let mut machine = Machine::with_cluster();
    let primary = machine.cluster("primary");
    fs::create_dir_all(machine.path("wal/archive_status")).unwrap();
    fs::create_dir_all(machine.path("space/PG_15_202209061/5")).unwrap();
    symlink(machine.path("wal"), primary.join("pg_wal")).unwrap();
    symlink(machine.path("space"), primary.join("pg_tblspc/16384")).unwrap();
    let server = Running::start(Command::new("sleep").arg("600").current_dir(&primary));
    fs::write(primary.join("postmaster.pid"), server.pid().to_string()).unwrap();
    machine.map_wal("wal");
    assert!(machine.refused().message.contains("the WAL directory of a running server"));
    machine.directories.wal = None;
    machine.map_tablespaces(&[("/old", "space")]);
    let refusal = machine.refused();
    assert!(refusal.message.contains("a tablespace's directory of a running server"), "{refusal}");
    assert!(refusal.remedy.unwrap().contains("\"/old\""));
    drop(server);
    // The directories still belong to the other cluster.
    assert!(machine.refused().message.contains("no cluster in the data directory links to it"));
    assert!(machine.force().is_ok());
}

#[test]
fn rule_26_two_runs_at_once_are_refused_and_the_one_at_work_is_named() {
    let machine = Machine::with_cluster();
    let first = machine.acquire().unwrap();
    first.state().mark_unfinished("pgbackrest").unwrap();
    let refusal = machine.refused();
    assert_eq!(refusal.rule, Rule::InUse);
    let since = format!("{:.0}", first.state().record().host.unwrap().since);
    for part in [&std::process::id().to_string(), "`pgbackrest`", &since] {
        assert!(refusal.message.contains(part), "{part}: {refusal}");
    }
    first.state().run_ended(RunResult::Failed, false).unwrap();
    drop(first);
    assert!(machine.acquire().is_ok());
}

#[test]
fn rule_26_a_live_run_on_a_directory_that_was_moved_away_is_refused_too() {
    let machine = Machine::with_cluster();
    let first = machine.acquire().unwrap();
    fs::rename(machine.path("data"), machine.path("moved")).unwrap();
    machine.cluster("data");
    assert_eq!(machine.refused().rule, Rule::InUse);
    drop(first);
}

#[test]
fn rule_26_a_lock_that_a_leftover_child_inherited_is_freed_by_ending_the_child() {
    let machine = Machine::with_cluster();
    let directory = machine.acquire().unwrap();
    let (mut child, identity) = leader(Some(directory.lock()));
    machine.killed(directory, &[identity]);
    let next = machine.acquire().unwrap();
    assert!(!child.runs());
    assert_eq!(next.contents().unwrap(), Contents::Unfinished);
    assert_eq!(next.state().record().processes, []);
}

#[test]
fn rule_26_a_leftover_process_without_the_lock_is_ended_as_well() {
    let machine = Machine::with_cluster();
    let directory = machine.acquire().unwrap();
    let (mut child, identity) = leader(None);
    machine.killed(directory, &[identity]);
    assert_eq!(machine.inspect(), Ok(Contents::Unfinished));
    assert!(child.runs(), "`inspect` ended the process");
    machine.acquire().unwrap();
    assert!(!child.runs());
}

#[test]
fn rule_26_a_lock_of_an_unknown_process_is_respected() {
    let machine = Machine::with_cluster();
    let directory = machine.acquire().unwrap();
    let (mut child, _) = leader(Some(directory.lock()));
    machine.killed(directory, &[]);
    let refusal = machine.acquire().unwrap_err();
    assert!(refusal.message.contains("fuser"), "{refusal}");
    assert!(child.runs());
    machine.change_state(|state| {
        state["pid_namespace"] = "1-1".into();
        state["host"]["pid"] = 4711.into();
    });
    let refusal = machine.acquire().unwrap_err();
    assert!(refusal.message.contains("4711") && refusal.message.contains("container"), "{refusal}");
    drop(child);
    machine.acquire().unwrap();
}

#[test]
fn rule_26_a_garbled_state_file_stops_the_run() {
    let machine = Machine::with_cluster();
    drop(machine.acquire().unwrap());
    let file = machine.path("state").join(&entries(&machine.path("state"))[0]);
    fs::write(&file, "{\"unfinished\": tr").unwrap();
    let refusal = machine.refused();
    assert!(refusal.message.contains(file.to_str().unwrap()), "{refusal}");
    assert!(machine.force().is_err());
    assert!(machine.path("data/global/pg_control").exists());
    fs::remove_file(file).unwrap();
    assert!(machine.acquire().is_ok());
}

#[test]
fn rule_26_the_state_directory_and_what_is_emptied_may_not_lie_one_in_the_other() {
    let machine = Machine::with_cluster();
    let above = machine.path("data").parent().unwrap().to_owned();
    for state_dir in [machine.path("data"), machine.path("data/state/deeper"), above] {
        let refusal = DataDirectory::acquire(&machine.directories, &state_dir, true).unwrap_err();
        assert_eq!(refusal.rule, Rule::StateDirectory);
    }
    assert!(!machine.path("data/state").exists());
}

#[test]
fn rule_26_the_lock_and_the_directory_are_one_descriptor() {
    let machine = Machine::with_cluster();
    let directory = machine.acquire().unwrap();
    let found = rustix::fs::fstat(directory.lock()).unwrap();
    let data = fs::metadata(machine.path("data")).unwrap();
    assert_eq!((found.st_dev, found.st_ino), (data.dev(), data.ino()));
    assert_eq!(rustix::fs::fstat(directory.descriptor()).unwrap().st_ino, data.ino());
    assert_eq!(rustix::fs::fstat(directory.directory().as_fd()).unwrap().st_ino, data.ino());
}

/// Creates one replica after the other until it is killed.
fn create_replicas_for_ever(machine: &Machine) {
    loop {
        let directory = machine.acquire().unwrap();
        directory.state().mark_unfinished("tarball").unwrap();
        empty(&directory);
        let own = ProcessIdentity::of_this_process().unwrap();
        directory.state().process_started(ProcessIdentity { started: own.started - 1, ..own }).unwrap();
        fs::write(machine.path("wal/junk"), "").unwrap();
        fs::create_dir(machine.path("data/global")).unwrap();
        fs::write(machine.path("data").join(UNFINISHED_CONTROL_FILE), "control").unwrap();
        fs::remove_file(machine.path("wal/junk")).unwrap();
        // pg_control comes last, as it does in the seal.
        machine.cluster("data");
        fs::remove_file(machine.path("data").join(UNFINISHED_CONTROL_FILE)).unwrap();
        directory.state().process_ended(ProcessIdentity { started: own.started - 1, ..own }).unwrap();
        directory.state().run_ended(RunResult::Created, false).unwrap();
        fs::write(machine.path("go"), "").unwrap();
    }
}

#[test]
fn rule_26_a_run_killed_at_any_moment_leaves_what_the_next_run_recovers_from() {
    const ROOT: &str = "UNDERSTUDY_TEST_ROOT";
    if let Some(root) = std::env::var_os(ROOT) {
        let mut machine = Machine::in_folder(Path::new(&root));
        machine.map_wal("wal");
        create_replicas_for_ever(&machine);
    }
    let mut machine = Machine::new();
    machine.map_wal("wal");
    let name =
        "datadir::tests::in_use::rule_26_a_run_killed_at_any_moment_leaves_what_the_next_run_recovers_from";
    let (mut whole, mut unfinished) = (0, 0);
    for round in 0..30 {
        let mut child = Running::start(
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", name, "--nocapture"])
                .env(ROOT, &machine.root),
        );
        let mut next_replica = || {
            let began = Instant::now();
            let _ = fs::remove_file(machine.path("go"));
            while !machine.path("go").exists() {
                assert!(
                    began.elapsed() < Duration::from_secs(60) && child.runs(),
                    "the child created no replica in 60 s, or ended"
                );
                std::thread::sleep(Duration::from_micros(200));
            }
            began.elapsed()
        };
        next_replica();
        // The kills are spread over thirty points of the time that one replica takes on this machine now.
        let one_replica = next_replica();
        std::thread::sleep(one_replica * round / 30);
        drop(child);
        match machine.inspect().unwrap() {
            Contents::Cluster => {
                whole += 1;
                assert!(machine.path("data/global/pg_control").exists(), "round {round}");
                assert_eq!(entries(&machine.path("wal")), [""; 0]);
            }
            Contents::Unfinished | Contents::Nothing => unfinished += 1,
            Contents::Foreign => unreachable!("round {round}"),
        }
        let directory = machine.acquire().unwrap();
        empty(&directory);
        assert_eq!(entries(&machine.path("wal")), [""; 0]);
        directory.state().run_ended(RunResult::Failed, true).unwrap();
    }
    assert!(unfinished > 0, "{whole} times the child was killed between two replicas, and never during one");
}
