//! Protection of the data directory: PostgreSQL cannot start from files that a method planted, data of another cluster is kept, and a
//! state file is ignored if it describes another directory.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tests::files::paths_below;
use tests::primary::Primary;
use tests::replica_folder::ReplicaFolder;
use tests::server::{BIN_DIR, Playground, run};

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(60), "waited for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Creates an archive with a complete cluster and its WAL, in which `global` is named `g2` and comes last.
fn planted_archive(primary: &Primary) -> PathBuf {
    let backup = primary.tar_backup("latest", &["--no-manifest"]).unwrap();
    let tree = primary.playground.directory("planted").unwrap();
    let user = primary.playground.user();
    for (archive, below) in [("base.tar", ""), ("pg_wal.tar", "pg_wal")] {
        run(user
            .command("/bin/tar")
            .args(["--extract", "--file"])
            .arg(backup.join(archive))
            .arg("--directory")
            .arg(tree.join(below)))
        .unwrap();
    }
    fs::rename(tree.join("global"), tree.join("g2")).unwrap();
    for entry in fs::read_dir(tree.join("pg_tblspc")).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let _ = fs::remove_file(tree.join("tablespace_map"));
    let mut names: Vec<String> =
        fs::read_dir(&tree).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_by_key(|name| name == "g2");
    let archive = backup.join("planted.tar");
    run(user
        .command("/bin/tar")
        .args(["--create", "--format=ustar", "--sort=name", "--file"])
        .arg(&archive)
        .arg("--directory")
        .arg(&tree)
        .args(names))
    .unwrap();
    archive
}

/// Creates an archive with a file of a tablespace to which no directory is mapped.
fn archive_of_unmapped_tablespace(primary: &Primary) -> PathBuf {
    let tree = primary.playground.directory("tree").unwrap();
    let user = primary.playground.user();
    let file = "pg_tblspc/99999/PG_15_202209061/planted";
    let folder = tree.join(file).parent().unwrap().to_owned();
    run(user.command("/bin/mkdir").arg("-p").arg(&folder)).unwrap();
    user.write(&tree.join(file), "planted").unwrap();
    let archive = primary.playground.directory("objects").unwrap().join("unmapped.tar");
    let mut pack = user.command("/bin/tar");
    pack.args(["--create", "--format=ustar", "--file"]).arg(&archive).arg("--directory").arg(&tree);
    run(pack.arg(file)).unwrap();
    archive
}

/// Creates a replica whose first method tries to plant a control file from the archive. The replica's WAL is in the data directory.
fn replica_with_planting_method(primary: &Primary, archive: &Path) -> ReplicaFolder {
    let replica = ReplicaFolder::new(&primary.playground, "replica").unwrap();
    let (store, object) = (archive.parent().unwrap(), archive.file_name().unwrap());
    replica
        .configure(
            &format!(
                "methods = [\"hostile\", \"basebackup\"]\ntablespaces = {{ \"{}\" = \"{}\" }}\n",
                primary.tablespace().display(),
                replica.fast().display()
            ),
            &format!(
                "{}\n{}\npath = \"{}\"\n",
                primary.source(),
                primary.hostile(
                    "plant",
                    &format!("grants.stores.repo = {{ url = \"file://{}\" }}", store.display())
                ),
                object.display()
            ),
        )
        .unwrap();
    replica
}

fn kill_after_planting(replica: &ReplicaFolder) -> String {
    let child = replica.spawn(&[]).unwrap();
    let output = || fs::read_to_string(replica.path("output")).unwrap_or_default();
    wait_until("the method to plant its files", || output().contains("planted: "));
    child.signal(Signal::KILL).unwrap();
    replica.wait_for_end(child).unwrap().output
}

fn configure_basebackup_only(replica: &ReplicaFolder) {
    let config = replica.path("understudy.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("[\"hostile\", \"basebackup\"]", "[\"basebackup\"]")).unwrap();
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn files_planted_by_a_method_cannot_start_a_server_or_stop_the_next_run() {
    let primary = Primary::start("planted", 500).unwrap();
    let replica = replica_with_planting_method(&primary, &planted_archive(&primary));
    let output = kill_after_planting(&replica);
    assert!(output.contains("refused: ") && !output.contains("ESCAPED"), "{output}");
    let data = replica.datadir();
    assert!(
        data.join("PG_VERSION").exists() && data.join("g2").exists(),
        "the method did not restore the other files"
    );
    assert!(!replica.is_sealed() && !data.join("global").is_symlink());
    let pid_file = data.join("postmaster.pid");
    assert_eq!(fs::read_to_string(&pid_file).unwrap(), "1\n");
    let started = primary
        .playground
        .user()
        .command(Path::new(BIN_DIR).join("postgres"))
        .args(["--single", "-D"])
        .arg(&data)
        .args(["-c", "unix_socket_directories=", "postgres"])
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    assert!(!started.status.success(), "it starts");
    // The planted postmaster.pid names a process that is running. PostgreSQL has replaced the file, so the test writes it again.
    fs::write(&pid_file, "1\n").unwrap();
    configure_basebackup_only(&replica);
    replica.created_by("basebackup").unwrap();
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn an_unmapped_tablespace_is_refused_and_foreign_files_in_a_recreated_directory_stay() {
    let primary = Primary::start("made-anew", 500).unwrap();
    let replica = replica_with_planting_method(&primary, &archive_of_unmapped_tablespace(&primary));
    let output = kill_after_planting(&replica);
    assert!(output.contains("no directory is mapped for tablespace 99999"), "{output}");
    assert!(output.contains("refused: ") && !output.contains("ESCAPED"), "{output}");
    configure_basebackup_only(&replica);
    let data = replica.datadir();
    assert!(!data.join("pg_tblspc/99999").exists());
    let inode = fs::metadata(&data).unwrap().ino();
    fs::remove_dir_all(&data).unwrap();
    replica.directory("data").unwrap();
    fs::write(data.join("thesis.txt"), "years of work").unwrap();
    // The file system usually reuses the inode. If it does not, the test changes the inode in the state file.
    let now = fs::metadata(&data).unwrap().ino();
    for entry in fs::read_dir(replica.path("state")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.contains("\"unfinished\": true"), "{text}");
            fs::write(&path, text.replace(&format!("\"inode\": {inode}"), &format!("\"inode\": {now}")))
                .unwrap();
        }
    }
    let ended = replica.create(&[]).unwrap();
    assert_eq!(ended.code(), Some(3), "{}", ended.output);
    assert!(
        ended.output.contains("an older directory") && ended.output.contains("--force"),
        "{}",
        ended.output
    );
    assert_eq!(fs::read_to_string(data.join("thesis.txt")).unwrap(), "years of work");
}

/// Creates a replica of `primary`, and then configures it for the primary `other`, with the password of `other` in the passfile.
fn replica_for_another_primary(primary: &Primary, other: &Primary) -> ReplicaFolder {
    let passfile = primary.playground.path("pgpass");
    let lines = [&passfile, &other.playground.path("pgpass")].map(|path| fs::read_to_string(path).unwrap());
    fs::write(&passfile, lines.join("\n")).unwrap();
    let replica = primary.replica("replica", &["basebackup"], "", "").unwrap();
    replica.created_by("basebackup").unwrap();
    let config = replica.path("understudy.toml");
    let text = fs::read_to_string(&config).unwrap();
    let text = text.replace(&primary.source(), &other.source()).replace(
        &format!("\"{}\"", primary.tablespace().display()),
        &format!("\"{}\"", other.tablespace().display()),
    );
    fs::write(&config, text).unwrap();
    replica
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn data_of_another_cluster_is_reported_and_kept_without_force() {
    let (primary, other) = (Primary::start("own", 500).unwrap(), Primary::start("other", 500).unwrap());
    let replica = replica_for_another_primary(&primary, &other);
    let identifier =
        |of: &Primary| of.server.psql("SELECT system_identifier FROM pg_control_system()").unwrap();
    let (here, there) = (identifier(&primary), identifier(&other));
    let said = |output: &str| {
        for part in [here.as_str(), there.as_str(), "last checkpoint at", "--force"] {
            assert!(output.contains(part), "{part}: {output}");
        }
    };
    let ended = replica.create(&[]).unwrap();
    assert_eq!(ended.code(), Some(3), "{}", ended.output);
    assert!(ended.attempts().is_empty());
    said(&ended.output);
    let checked = replica.command("check").output().unwrap();
    assert_eq!(checked.status.code(), Some(3));
    said(&String::from_utf8_lossy(&checked.stdout));
    primary.streams_to(&replica).unwrap();
    // Old data is reported before it is removed, even with --force.
    let forced = replica.create(&["--force"]).unwrap();
    assert_eq!(forced.code(), Some(0), "{}", forced.output);
    assert!(
        forced.output.contains(&here) && forced.output.contains("--force was given"),
        "{}",
        forced.output
    );
    let mut control = primary.playground.user().command(Path::new(BIN_DIR).join("pg_controldata"));
    let control = control.arg(replica.datadir()).output().unwrap();
    assert!(
        String::from_utf8_lossy(&control.stdout).contains(&there),
        "the directory does not hold the other cluster"
    );
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn old_data_is_reported_before_it_is_removed_and_unreadable_data_is_kept_without_force() {
    let primary = Primary::start("named", 500).unwrap();
    let replica = primary.replica("replica", &["basebackup"], "", "").unwrap();
    replica.created_by("basebackup").unwrap();
    let identifier = primary.server.psql("SELECT system_identifier FROM pg_control_system()").unwrap();
    let checked = replica.command("check").output().unwrap();
    let text = String::from_utf8_lossy(&checked.stdout);
    assert_eq!(checked.status.code(), Some(0), "{text}");
    let parts = [
        "old data",
        &identifier,
        "PostgreSQL 15 cluster",
        "last checkpoint",
        " MiB in ",
        " files and directories",
        "tablespaces in",
    ];
    for part in parts {
        assert!(text.contains(part), "{part}: {text}");
    }
    let again = replica.create(&["--log-level", "debug"]).unwrap();
    assert_eq!(again.code(), Some(0), "{}", again.output);
    assert!(again.report.to_string().contains("old data"), "{}", again.report);
    let (before, _) = again.output.split_once("step empty").unwrap();
    let said = before.lines().find(|line| line.contains("what the data directory holds is removed: "));
    for part in parts {
        assert!(said.is_some_and(|line| line.contains(part)), "{part}: {before}");
    }
    let control = replica.datadir().join("global/pg_control");
    let mut bytes = fs::read(&control).unwrap();
    bytes[100] ^= 1;
    fs::write(&control, bytes).unwrap();
    let ended = replica.create(&[]).unwrap();
    assert_eq!(ended.code(), Some(3), "{}", ended.output);
    assert!(ended.output.contains("checksum") && control.exists(), "{}", ended.output);
    let forced = replica.create(&["--force"]).unwrap();
    assert_eq!(forced.code(), Some(0), "{}", forced.output);
}

/// Returns every directory below the replica's folder.
fn directories(replica: &ReplicaFolder) -> Vec<PathBuf> {
    let paths = paths_below(&replica.path("")).unwrap();
    paths.into_iter().filter(|path| path.is_dir() && !path.is_symlink()).collect()
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_refused_run_leaves_no_empty_directory_that_it_created() {
    let primary = Primary::start("refused", 500).unwrap();
    let hostile = format!("{}system-identifier = \"1\"\n", primary.hostile("nothing", ""));
    let replica = primary.replica("replica", &["hostile"], "", &hostile).unwrap();
    fs::remove_dir(replica.wal()).unwrap();
    let before = directories(&replica);
    let config = replica.path("understudy.toml");
    let text = fs::read_to_string(&config).unwrap();
    let assert_nothing_new = |why: &str| {
        let after = directories(&replica);
        let empty = |path: &&PathBuf| fs::read_dir(path).unwrap().next().is_none();
        let new: Vec<_> = after.iter().filter(|path| !before.contains(path)).filter(empty).collect();
        assert!(new.is_empty(), "{why}: {new:?}");
        assert!(!replica.datadir().exists() && !replica.wal().exists(), "{why}");
    };
    // Exit code 2: the configuration is wrong.
    fs::write(&config, text.replace("scope =", "scop =")).unwrap();
    assert_eq!(replica.create(&[]).unwrap().code(), Some(2));
    assert_nothing_new("usage");
    fs::write(&config, &text).unwrap();
    // Exit code 3: a mapped directory holds a foreign file.
    fs::write(replica.fast().join("thesis.txt"), "").unwrap();
    let ended = replica.create(&[]).unwrap();
    assert_eq!(ended.code(), Some(3), "{}", ended.output);
    assert_nothing_new("refused");
    fs::remove_file(replica.fast().join("thesis.txt")).unwrap();
    // The plan is rejected, because the backup is from another cluster.
    let ended = replica.create(&[]).unwrap();
    assert_eq!(ended.attempts(), [("hostile", "rejected")], "{}", ended.output);
    assert_nothing_new("rejected");
    assert_eq!(fs::metadata(replica.path("state")).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_state_directory_inside_a_directory_that_is_filled_is_refused_before_anything_is_created() {
    let primary = Primary::start("state-within", 100).unwrap();
    let user = primary.playground.user();
    for (name, within) in
        [("missing", "data/state"), ("at", "data"), ("mapped", "wal/state"), ("outside", ".")]
    {
        let replica = ReplicaFolder::new(&primary.playground, name).unwrap();
        let (datadir, wal) = (replica.datadir(), replica.wal());
        for directory in [&datadir, &wal].into_iter().filter(|directory| !directory.exists()) {
            user.directory(directory).unwrap();
        }
        user.write(&datadir.join("PG_VERSION"), "15\n").unwrap();
        let state = replica.path(within);
        let text = format!(
            "scope = \"demo\"\n[replica]\ndatadir = \"{}\"\nwal_dir = \"{}\"\nstate_dir = \"{}\"\nbin_dir = \"{BIN_DIR}\"\n{}",
            datadir.display(),
            wal.display(),
            state.display(),
            primary.source(),
        );
        user.write(&replica.path("understudy.toml"), &text).unwrap();
        for verb in ["check", "create"] {
            let output = replica.command(verb).output().unwrap();
            let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            assert_eq!(output.status.code(), Some(3), "{name} {verb}: {said}");
            assert!(
                said.contains("state files") && said.contains("[replica] state_dir"),
                "{name} {verb}: {said}"
            );
        }
        let entries = |directory: &Path| fs::read_dir(directory).unwrap().count();
        assert_eq!((entries(&datadir), entries(&wal)), (1, 0), "{name}: something was created");
        assert!(!replica.path("gate.lock").exists(), "{name}: something was created");
    }
}

/// Creates a folder with links to PostgreSQL's programs, and a `pg_basebackup` that does not exit when its copy is complete.
fn programs_with_an_endless_pg_basebackup(playground: &Playground) -> PathBuf {
    let folder = playground.directory("endless").unwrap();
    for entry in fs::read_dir(playground.bin_dir()).unwrap() {
        let path = entry.unwrap().path();
        std::os::unix::fs::symlink(&path, folder.join(path.file_name().unwrap())).unwrap();
    }
    let program = folder.join("pg_basebackup");
    let real = playground.bin_dir().join("pg_basebackup");
    fs::remove_file(&program).unwrap();
    let script = format!(
        "#!/bin/sh\ncase \"$1\" in --pgdata=*) ;; *) exec {0} \"$@\" ;; esac\n{0} \"$@\"\necho 'the copy is complete' >&2\nexec sleep 600\n",
        real.display()
    );
    playground.user().write(&program, &script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// Kills a run and its pg_basebackup when the copy is complete but not sealed yet.
fn kill_with_complete_copy(replica: &ReplicaFolder) {
    let child = replica.spawn(&[]).unwrap();
    let output = || fs::read_to_string(replica.path("output")).unwrap_or_default();
    wait_until("the copy to be complete", || output().contains("the copy is complete"));
    child.signal(Signal::KILL).unwrap();
    replica.wait_for_end(child).unwrap();
    let pgdata = format!("--pgdata={}", replica.datadir().display());
    wait_until("pg_basebackup to be gone", || {
        let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        let arguments = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
        !arguments.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).any(|all| all.contains(&pgdata))
    });
    assert!(replica.is_sealed(), "the copy has no pg_control");
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn the_copy_of_a_killed_pg_basebackup_does_not_start_with_any_mode_and_the_next_run_replaces_it() {
    let majors: &[Option<u32>] = match tests::program::fast_or_full(0, 1) {
        0 => &[None],
        _ => &[None, Some(16), Some(17), Some(18)],
    };
    for major in majors {
        let playground = match major {
            None => Playground::new("cut-short").unwrap(),
            Some(major) => tests::releases::playground("cut-short", *major).unwrap(),
        };
        let bin_dir = playground.bin_dir().to_owned();
        let primary = Primary::start_in(playground, 500).unwrap();
        let replica = primary.replica("replica", &["basebackup"], "", "").unwrap();
        let config = replica.path("understudy.toml");
        let text = fs::read_to_string(&config).unwrap();
        let endless = programs_with_an_endless_pg_basebackup(&primary.playground);
        let bin_dirs = |dir: &Path| format!("bin_dir = \"{}\"", dir.display());
        let data = replica.datadir();
        let user = primary.playground.user();
        let starts = |program: &str, arguments: &[&str]| {
            let mut command = user.command(bin_dir.join(program));
            let output = command.args(arguments).arg("-D").arg(&data).stdin(std::process::Stdio::null());
            let output = output.output().unwrap();
            (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
        };
        for state_is_lost in [false, true] {
            fs::write(&config, text.replace(&bin_dirs(&bin_dir), &bin_dirs(&endless))).unwrap();
            kill_with_complete_copy(&replica);
            assert_eq!(fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o720);
            assert!(!starts("postgres", &["--single"]).0);
            // PostgreSQL's message asks for this mode, and entry points of containers set it.
            fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
            let _ = user.command("/bin/rm").arg("-f").arg(data.join("postmaster.pid")).output().unwrap();
            for (program, arguments, says) in [
                ("postgres", &["--single"][..], "could not read lock file"),
                ("postgres", &["-c", "listen_addresses="], "could not read lock file"),
                ("pg_ctl", &["start", "--wait"], "invalid data in PID file"),
                ("pg_resetwal", &["--force"], "lock file \"postmaster.pid\" exists"),
            ] {
                let (started, said) = starts(program, arguments);
                assert!(!started && said.contains(says), "{major:?} {program} {arguments:?}: {said}");
            }
            assert!(fs::read_to_string(data.join("postmaster.pid/README")).unwrap().contains("understudy"));
            if state_is_lost {
                fs::remove_dir_all(replica.path("state")).unwrap();
            }
            fs::write(&config, &text).unwrap();
            let checked = replica.command("check").output().unwrap();
            assert_eq!(checked.status.code(), Some(0), "{}", String::from_utf8_lossy(&checked.stdout));
            replica.created_by("basebackup").unwrap();
            assert!(!data.join("postmaster.pid").exists());
            primary.streams_to(&replica).unwrap();
        }
    }
}
