//! Tablespaces that were created after the backup. Replay creates them at their path on the primary.

use std::fs;
use std::os::unix::fs::symlink;

use tests::primary::Primary;
use tests::replica_folder::ReplicaFolder;

use crate::change;

/// A primary on which the tablespace `later` was created after the backup. The path of the tablespace is a link. A test can remove the
/// link, so that the path is free for the replica on the same machine.
struct LaterTablespace {
    primary: Primary,
    section: String,
    path: std::path::PathBuf,
    count: std::cell::Cell<u32>,
}

impl LaterTablespace {
    fn new() -> Self {
        let primary = Primary::start("later", 100).unwrap();
        let backup = primary.tar_backup("before", &[]).unwrap();
        let disks = primary.playground.directory("later-disks").unwrap();
        let path = primary.playground.path("later");
        symlink(&disks, &path).unwrap();
        primary.server.psql(&format!("CREATE TABLESPACE later LOCATION '{}'", path.display())).unwrap();
        let section = primary.tarball(&backup);
        Self { primary, section, path, count: std::cell::Cell::new(0) }
    }

    /// Creates a replica whose source can be queried for tablespaces. `map` has further entries for the map.
    fn replica(&self, map: &str) -> ReplicaFolder {
        self.count.set(self.count.get() + 1);
        let name = format!("replica-{}", self.count.get());
        let replica = self.primary.replica(&name, &["tarball"], "", &self.section).unwrap();
        change(&replica, "user=replicator\"\n", "user=postgres\"\n");
        change(&replica, "tablespaces = { ", &format!("tablespaces = {{ {map}"));
        replica
    }

    /// Checks that `check` and `create` reject the method with all of `messages` and touch nothing.
    fn assert_rejected(&self, replica: &ReplicaFolder, messages: &[&str]) {
        let output = replica.command("check").output().unwrap();
        let checked = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        let ended = replica.create(&[]).unwrap();
        assert_eq!(ended.attempts().last(), Some(&("tarball", "rejected")), "{}", ended.output);
        for said in [&checked, &ended.output] {
            for text in messages {
                assert!(said.contains(text), "{text}\n{said}");
            }
        }
        assert!(!replica.datadir().join("PG_VERSION").exists());
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_tablespace_created_after_the_backup_is_rejected_before_anything_is_touched() {
    let later = LaterTablespace::new();
    let path = later.path.display().to_string();
    // The primary on this machine uses the path, and replay would empty the directory.
    later.assert_rejected(&later.replica(""), &["created after the backup", &path, "PG_15_"]);
    fs::remove_file(&later.path).unwrap();
    later.assert_rejected(&later.replica(""), &["created after the backup", &path, "no such directory"]);

    let elsewhere = later.primary.playground.directory("later-here").unwrap();
    let mapped = later.replica(&format!("\"{path}\" = \"{}\", ", elsewhere.display()));
    later.assert_rejected(&mapped, &["whatever the map says", "ln -s"]);

    // If the map names the path itself, a run would create the directory. Only `check` runs here, because the primary on this machine
    // uses the path.
    let at_its_path = later.replica(&format!("\"{path}\" = \"{path}\", "));
    let checked = at_its_path.command("check").output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    assert!(!later.path.exists());
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn replay_creates_a_tablespace_that_is_newer_than_the_backup_if_the_map_names_its_own_path() {
    // The run must not see the primary's processes, as on another machine. Only root can hide these processes.
    if !rustix::process::geteuid().is_root() {
        eprintln!("not tried: hiding the primary's processes from the run takes root");
        return;
    }
    let later = LaterTablespace::new();
    let path = later.path.display().to_string();
    fs::remove_file(&later.path).unwrap();
    let replica = later.replica(&format!("\"{path}\" = \"{path}\", "));
    let mut command = std::process::Command::new("/usr/bin/unshare");
    let create = replica.command("create");
    command.args(["--pid", "--fork", "--mount-proc", "--"]).arg(create.get_program()).args(create.get_args());
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("created after the backup; replay creates it there"), "{said}");
    assert!(later.path.is_dir(), "{said}");
    later.primary.streams_to(&replica).unwrap();
    let made = fs::read_dir(&later.path).unwrap().next().unwrap().unwrap().file_name();
    assert!(made.to_string_lossy().starts_with("PG_15_"), "{made:?}");
}
