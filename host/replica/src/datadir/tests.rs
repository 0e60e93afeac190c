use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt, FdMapping};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::state::ProcessIdentity;
use crate::{Directories, RunResult, TablespaceKey, TablespaceMap};

mod enclosing_cluster;
mod in_use;
mod mapped;
mod ownership;
mod room;

/// An operator's machine: a data directory and a state directory in one folder.
struct Machine {
    root: PathBuf,
    directories: Directories,
    /// The folder is removed when the machine is dropped.
    _folder: Option<tempfile::TempDir>,
}

impl Machine {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        Self { _folder: Some(folder), ..Self::in_folder(&root) }
    }

    /// Returns the machine that another process created.
    fn in_folder(root: &Path) -> Self {
        let directories =
            Directories { datadir: root.join("data"), wal: None, tablespaces: TablespaceMap::default() };
        Self { root: root.to_owned(), directories, _folder: None }
    }

    fn with_cluster() -> Self {
        let machine = Self::new();
        machine.cluster("data");
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Creates a data directory of this name with a few files.
    fn cluster(&self, name: &str) -> PathBuf {
        let data = self.path(name);
        fs::create_dir_all(data.join("base/1")).unwrap();
        fs::create_dir_all(data.join("global")).unwrap();
        fs::create_dir_all(data.join("pg_tblspc")).unwrap();
        fs::write(data.join("PG_VERSION"), "15\n").unwrap();
        fs::write(data.join("base/1/1259"), [0; 8192]).unwrap();
        fs::write(data.join("global/pg_control"), control_file(OWN_CLUSTER)).unwrap();
        data
    }

    fn map_wal(&mut self, name: &str) -> PathBuf {
        let wal = self.path(name);
        self.directories.wal = Some(wal.clone());
        wal
    }

    fn map_tablespaces(&mut self, targets: &[(&str, &str)]) {
        let map = targets.iter().map(|(key, to)| (TablespaceKey::parse(key), self.path(to))).collect();
        self.directories.tablespaces = TablespaceMap::new(map);
    }

    fn acquire(&self) -> Result<DataDirectory, Refusal> {
        DataDirectory::acquire(&self.directories, &self.path("state"), false)
    }

    fn force(&self) -> Result<DataDirectory, Refusal> {
        DataDirectory::acquire(&self.directories, &self.path("state"), true)
    }

    fn inspect(&self) -> Result<Contents, Refusal> {
        self.inspected(false).map(|seen| seen.contents)
    }

    fn inspected(&self, force: bool) -> Result<Inspected, Refusal> {
        DataDirectory::inspect(&self.directories, &self.path("state"), force)
    }

    /// Returns the refusal, which must be the same for a run and a check.
    fn refused(&self) -> Refusal {
        let refusal = self.acquire().unwrap_err();
        assert_eq!(self.inspect().unwrap_err().message, refusal.message);
        refusal
    }

    /// Leaves the state file as a run that was killed would.
    fn killed(&self, directory: DataDirectory, processes: &[ProcessIdentity]) {
        directory.state().mark_unfinished("tarball").unwrap();
        directory.empty(EmptyScope::ControlFileOnly, None, &CancellationToken::new()).unwrap();
        for process in processes {
            directory.state().process_started(*process).unwrap();
        }
        drop(directory);
        // A process that is certainly dead: it has the PID of this process and another start time.
        self.change_state(|state| state["host"]["started"] = 1.into());
    }

    fn change_state(&self, change: impl FnOnce(&mut serde_json::Value)) {
        let file = fs::read_dir(self.path("state")).unwrap().next().unwrap().unwrap().path();
        let mut state = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        change(&mut state);
        fs::write(&file, state.to_string()).unwrap();
    }
}

const OWN_CLUSTER: u64 = 7_000_000_000_000_000_001;

/// A pg_control of PostgreSQL 15 that was shut down, with a CRC that fits.
fn control_file(system_identifier: u64) -> Vec<u8> {
    let mut file = vec![0; 8192];
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &system_identifier.to_ne_bytes());
    put(8, &1300_u32.to_ne_bytes());
    put(12, &202_209_061_u32.to_ne_bytes());
    put(16, &1_u32.to_ne_bytes());
    put(32, &0x200_0060_u64.to_ne_bytes());
    put(48, &3_u32.to_ne_bytes());
    put(104, &1_795_420_800_i64.to_ne_bytes());
    put(172, &1_u32.to_ne_bytes());
    put(228, &(16_u32 << 20).to_ne_bytes());
    postgres_formats::control_file::with_crc(file).unwrap()
}

fn empty(directory: &DataDirectory) -> Emptied {
    directory.empty(EmptyScope::Everything, None, &CancellationToken::new()).unwrap()
}

fn entries(path: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Runs the named test again in a process with its own mount namespace. Returns true in that process.
fn with_own_mounts(test: &str) -> bool {
    if std::env::var_os("UNDERSTUDY_TEST_OWN_MOUNTS").is_some() {
        return true;
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]);
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    let output = command
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &format!("datadir::tests::{test}"), "--nocapture"])
        .env("UNDERSTUDY_TEST_OWN_MOUNTS", "1")
        .output()
        .unwrap_or_else(|error| panic!("this test needs unshare (package util-linux): {error}"));
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(
        output.status.success() && text.contains("1 passed"),
        "this test needs root or user namespaces: {text}"
    );
    false
}

fn mount(arguments: &[&str], at: &Path) {
    let status = Command::new("mount").args(arguments).arg(at).status().unwrap();
    assert!(status.success(), "mount {arguments:?} {}", at.display());
}

#[test]
fn rule_22_a_missing_directory_is_created_for_its_owner_alone() {
    let machine = Machine::new();
    assert_eq!(machine.inspect(), Ok(Contents::Nothing));
    assert!(!machine.path("data").exists() && !machine.path("state").exists(), "a check creates nothing");
    let directory = machine.acquire().unwrap();
    assert_eq!(directory.contents().unwrap(), Contents::Nothing);
    assert_eq!(fs::metadata(machine.path("data")).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(directory.real_path(), machine.path("data"));
    directory.state().run_ended(RunResult::Failed, true).unwrap();
    drop(directory);
    assert!(!machine.path("data").exists(), "a run in which no method was at work leaves nothing");
}

#[test]
fn rule_22_dotfiles_count_as_they_do_for_pg_basebackup() {
    let machine = Machine::new();
    fs::create_dir(machine.path("data")).unwrap();
    assert_eq!(machine.inspect(), Ok(Contents::Nothing));
    fs::write(machine.path("data/.bash_history"), "").unwrap();
    assert_eq!(machine.refused().rule, Rule::DataDirectory);
    let forced = machine.force().unwrap();
    assert_eq!(forced.contents().unwrap(), Contents::Foreign);
    empty(&forced);
    assert_eq!(forced.contents().unwrap(), Contents::Nothing);
}

#[test]
fn rule_22_the_root_of_a_file_system_is_refused_with_the_advice_to_use_a_sub_directory() {
    let machine = Machine::with_cluster();
    fs::create_dir(machine.path("data/lost+found")).unwrap();
    let refusal = machine.refused();
    assert!(refusal.message.contains("lost+found") && refusal.message.contains("sub-directory"), "{refusal}");
    assert!(machine.force().is_err(), "force does not help: pg_basebackup refuses lost+found too");
}

#[test]
fn rule_23_the_target_of_a_linked_data_directory_is_emptied_and_the_link_stays() {
    let mut machine = Machine::new();
    let target = machine.cluster("target");
    symlink(&target, machine.path("link")).unwrap();
    machine.directories.datadir = machine.path("link");
    let directory = machine.acquire().unwrap();
    assert_eq!(directory.real_path(), target);
    empty(&directory);
    assert_eq!(fs::read_link(machine.path("link")).unwrap(), target);
    assert_eq!(entries(&target), [""; 0]);
}

#[test]
fn rule_23_a_mount_point_is_emptied_and_not_removed() {
    if !with_own_mounts("rule_23_a_mount_point_is_emptied_and_not_removed") {
        return;
    }
    let machine = Machine::new();
    let data = machine.path("data");
    fs::create_dir(&data).unwrap();
    mount(&["-t", "tmpfs", "-o", "mode=0700", "none"], &data);
    machine.cluster("data");
    let device = fs::metadata(&data).unwrap().dev();
    let directory = machine.acquire().unwrap();
    empty(&directory);
    assert_eq!(entries(&data), [""; 0]);
    assert_eq!(fs::metadata(&data).unwrap().dev(), device, "it is still mounted");
}

#[test]
fn rule_23_a_file_system_mounted_inside_is_named_before_anything_is_removed() {
    if !with_own_mounts("rule_23_a_file_system_mounted_inside_is_named_before_anything_is_removed") {
        return;
    }
    let machine = Machine::with_cluster();
    let inside = machine.path("data/pg_wal");
    fs::create_dir(&inside).unwrap();
    mount(&["-t", "tmpfs", "none"], &inside);
    fs::write(inside.join("victim"), "").unwrap();
    let directory = machine.acquire().unwrap();
    for error in [
        directory.room().unwrap_err(),
        directory.empty(EmptyScope::Everything, None, &CancellationToken::new()).unwrap_err(),
    ] {
        assert!(error.to_string().contains(inside.to_str().unwrap()), "{error}");
        assert!(error.to_string().contains("wal_dir"), "{error}");
    }
    assert!(inside.join("victim").exists() && machine.path("data/global/pg_control").exists());
    assert!(!directory.state().is_unfinished());
    directory.empty(EmptyScope::ControlFileOnly, None, &CancellationToken::new()).unwrap();
    assert!(inside.join("victim").exists() && !machine.path("data/global/pg_control").exists());
}

#[test]
fn rule_28_pg_control_is_removed_even_if_a_file_system_was_mounted_since() {
    if !with_own_mounts("rule_28_pg_control_is_removed_even_if_a_file_system_was_mounted_since") {
        return;
    }
    let machine = Machine::with_cluster();
    let directory = machine.acquire().unwrap();
    empty(&directory);
    // A method wrote into the directory, and a file system was mounted in it.
    machine.cluster("data");
    let inside = machine.path("data/base");
    mount(&["-t", "tmpfs", "none"], &inside);
    fs::write(inside.join("victim"), "").unwrap();
    let error = directory.empty(EmptyScope::Everything, None, &CancellationToken::new()).unwrap_err();
    assert!(error.to_string().contains(inside.to_str().unwrap()), "{error}");
    assert!(inside.join("victim").exists() && !machine.path("data/global/pg_control").exists());
}

#[test]
fn a_data_directory_that_cannot_be_one_is_refused_with_what_to_do() {
    let mut machine = Machine::new();
    fs::write(machine.path("file"), "").unwrap();
    symlink(machine.path("none"), machine.path("dangling")).unwrap();
    symlink(machine.path("file"), machine.path("to-file")).unwrap();
    symlink("loop", machine.path("loop")).unwrap();
    for (name, says) in [
        ("file", "is not a directory"),
        ("dangling", "is a link to nothing"),
        ("to-file", "is a link to something that is not a directory"),
        ("loop", "cannot be examined"),
        ("no/parent", "create that directory, or mount its file system"),
        ("file/below", "cannot be examined"),
    ] {
        machine.directories.datadir = machine.path(name);
        let refusal = machine.refused();
        assert!(refusal.message.contains(says), "{name}: {refusal}");
        assert_eq!(refusal.rule, Rule::DataDirectory);
        assert!(refusal.remedy.unwrap().contains("datadir"));
    }
    for (written, says) in
        [("relative", "not an absolute path"), ("/", "root of the file system"), ("/..", "root of")]
    {
        machine.directories.datadir = PathBuf::from(written);
        let refusal = machine.refused();
        assert!(refusal.message.contains(says), "{written}: {refusal}");
    }
    assert!(!machine.path("none").exists() && !machine.path("no").exists());
}

#[test]
fn a_data_directory_of_another_user_is_refused() {
    let mut machine = Machine::new();
    if rustix::process::geteuid().is_root() {
        fs::create_dir(machine.path("data")).unwrap();
        std::os::unix::fs::chown(machine.path("data"), Some(12345), None).unwrap();
    } else {
        machine.directories.datadir = PathBuf::from("/usr");
    }
    let refusal = machine.refused();
    assert!(refusal.message.contains("belongs to user"), "{refusal}");
}

#[test]
fn rule_25_content_that_is_neither_a_cluster_nor_ours_is_refused_without_force() {
    for missing in ["PG_VERSION", "base", "global"] {
        let machine = Machine::with_cluster();
        assert_eq!(machine.inspect(), Ok(Contents::Cluster));
        let path = machine.path("data").join(missing);
        fs::rename(&path, machine.path("away")).unwrap();
        let refusal = machine.refused();
        assert!(refusal.remedy.unwrap().contains("--force"));
        assert_eq!(machine.force().unwrap().contents().unwrap(), Contents::Foreign);
        // A link does not count as one of the folders that PostgreSQL creates.
        symlink(machine.path("away"), &path).unwrap();
        assert!(machine.acquire().is_err(), "{missing}");
    }
    let machine = Machine::with_cluster();
    fs::write(machine.path("data/PG_VERSION"), "not a version").unwrap();
    assert!(machine.acquire().is_err());
}

#[test]
fn rule_25_unfinished_work_of_this_program_is_replaced_without_force() {
    let machine = Machine::with_cluster();
    machine.killed(machine.acquire().unwrap(), &[]);
    fs::remove_file(machine.path("data/PG_VERSION")).unwrap();
    assert_eq!(machine.inspect(), Ok(Contents::Unfinished));
    let directory = machine.acquire().unwrap();
    assert_eq!(directory.contents().unwrap(), Contents::Unfinished);
    empty(&directory);
    assert_eq!(directory.contents().unwrap(), Contents::Nothing);
}

#[test]
fn rule_26_a_complete_cluster_is_not_unfinished_work_even_if_the_state_file_says_so() {
    let mut machine = Machine::with_cluster();
    machine.map_tablespaces(&[("/old/fast", "fast")]);
    machine.killed(machine.acquire().unwrap(), &[]);
    assert_eq!(machine.inspect(), Ok(Contents::Unfinished));
    // This is the state after a kill between the last step of the seal and its record, or after another program has filled the directory.
    machine.cluster("data");
    let mode = |mode| {
        fs::set_permissions(machine.path("data"), fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(0o720);
    assert_eq!(machine.inspect(), Ok(Contents::Unfinished), "pg_basebackup was at work");
    mode(0o700);
    assert_eq!(machine.inspect(), Ok(Contents::Cluster));
    fs::write(machine.path("fast/thesis.txt"), "").unwrap();
    assert_eq!(machine.refused().rule, Rule::MappedPlace);
    fs::remove_file(machine.path("fast/thesis.txt")).unwrap();
    let directory = machine.acquire().unwrap();
    assert_eq!(directory.contents().unwrap(), Contents::Cluster);
    assert!(!directory.state().is_unfinished());
    // A run that was killed, or failed, between marking the directory and its first change.
    directory.state().mark_unfinished("tarball").unwrap();
    assert_eq!(directory.contents().unwrap(), Contents::Cluster);
}

#[test]
fn rule_26_another_directory_at_the_path_is_not_taken_for_ours() {
    let machine = Machine::with_cluster();
    machine.killed(machine.acquire().unwrap(), &[]);
    fs::rename(machine.path("data"), machine.path("moved")).unwrap();
    fs::create_dir(machine.path("data")).unwrap();
    fs::write(machine.path("data/thesis.txt"), "").unwrap();
    assert_eq!(machine.refused().rule, Rule::DataDirectory);
    assert!(machine.path("data/thesis.txt").exists());
}

#[test]
fn rule_24_links_are_only_unlinked() {
    let machine = Machine::with_cluster();
    let victim = machine.cluster("victim");
    for link in ["pg_wal", "pg_tblspc/16384", "base/1/link", "pg_stat"] {
        symlink(&victim, machine.path("data").join(link)).unwrap();
    }
    symlink(victim.join("PG_VERSION"), machine.path("data/postgresql.conf")).unwrap();
    let before = entries(&victim);
    let directory = machine.acquire().unwrap();
    assert!(!empty(&directory).unfinished);
    assert_eq!(entries(&machine.path("data")), [""; 0]);
    assert_eq!(entries(&victim), before);
    assert_eq!(fs::read(victim.join("global/pg_control")).unwrap(), control_file(OWN_CLUSTER));
}

#[test]
fn rule_24_a_linked_global_is_unlinked_first_and_its_pg_control_stays() {
    let machine = Machine::with_cluster();
    let victim = machine.cluster("victim");
    fs::remove_dir_all(machine.path("data/global")).unwrap();
    symlink(victim.join("global"), machine.path("data/global")).unwrap();
    let directory = machine.force().unwrap();
    directory.empty(EmptyScope::ControlFileOnly, None, &CancellationToken::new()).unwrap();
    assert!(!machine.path("data/global/pg_control").exists());
    assert!(victim.join("global/pg_control").exists());
}

#[test]
fn rule_13_with_keep_data_only_pg_control_is_removed_and_the_directory_is_marked_unfinished() {
    let machine = Machine::with_cluster();
    fs::write(machine.path("data/global/pg_control.understudy"), "half").unwrap();
    let directory = machine.acquire().unwrap();
    let emptied = directory.empty(EmptyScope::ControlFileOnly, None, &CancellationToken::new()).unwrap();
    assert_eq!(emptied, Emptied { entries: 2, unfinished: false });
    assert_eq!(entries(&machine.path("data/global")), [""; 0]);
    assert!(machine.path("data/base/1/1259").exists());
    assert!(directory.state().is_unfinished());
    assert_eq!(directory.contents().unwrap(), Contents::Unfinished);
}

#[test]
fn rule_28_a_cancelled_run_removes_pg_control_and_leaves_the_rest_for_the_next_run() {
    let machine = Machine::with_cluster();
    let directory = machine.acquire().unwrap();
    let cancelled = CancellationToken::new();
    cancelled.cancel();
    let emptied = directory.empty(EmptyScope::Everything, None, &cancelled).unwrap();
    assert_eq!(emptied, Emptied { entries: 1, unfinished: true });
    assert!(!machine.path("data/global/pg_control").exists() && machine.path("data/base/1/1259").exists());
    assert!(directory.state().is_unfinished());
    directory.state().run_ended(RunResult::Terminated, false).unwrap();
    drop(directory);
    let next = machine.acquire().unwrap();
    assert_eq!(next.contents().unwrap(), Contents::Unfinished);
    assert!(!empty(&next).unfinished);
    assert_eq!(entries(&machine.path("data")), [""; 0]);
}

#[test]
fn rule_28_removing_keeps_to_its_budget_also_after_a_cancel() {
    let machine = Machine::with_cluster();
    let directory = machine.acquire().unwrap();
    let cancelled = CancellationToken::new();
    cancelled.cancel();
    let none = directory.empty(EmptyScope::Everything, Some(Duration::ZERO), &cancelled).unwrap();
    assert_eq!(none, Emptied { entries: 1, unfinished: true });
    let rest = directory.empty(EmptyScope::Everything, Some(Duration::from_secs(60)), &cancelled).unwrap();
    assert!(!rest.unfinished && rest.entries > 0);
    assert_eq!(entries(&machine.path("data")), [""; 0]);
}

#[test]
fn step_4_the_state_file_says_unfinished_before_pg_control_goes() {
    let machine = Machine::with_cluster();
    let directory = machine.acquire().unwrap();
    let state_dir = machine.path("state");
    fs::remove_dir_all(&state_dir).unwrap();
    assert!(directory.empty(EmptyScope::Everything, None, &CancellationToken::new()).is_err());
    assert!(machine.path("data/global/pg_control").exists(), "what cannot be said is not done");
}
