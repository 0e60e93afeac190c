//! A tablespace that was made after the backup: replay makes it at the path that it has on the primary.

use std::fs;
use std::os::unix::fs::symlink;

use tests::primary::Primary;
use tests::replica_folder::ReplicaFolder;

use crate::change;

/// A primary that made the tablespace `later` after its backup. Its path is a link there, and so can be free here.
struct Later {
    primary: Primary,
    section: String,
    path: std::path::PathBuf,
    count: std::cell::Cell<u32>,
}

impl Later {
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

    /// A replica whose source may be asked for tablespaces, and that maps what `map` says besides.
    fn replica(&self, map: &str) -> ReplicaFolder {
        self.count.set(self.count.get() + 1);
        let name = format!("replica-{}", self.count.get());
        let replica = self.primary.replica(&name, &["tarball"], "", &self.section).unwrap();
        change(&replica, "user=replicator\"\n", "user=postgres\"\n");
        change(&replica, "tablespaces = { ", &format!("tablespaces = {{ {map}"));
        replica
    }

    /// Both `check` and `create` reject the method before they touch anything, and tell all of `told`.
    fn is_rejected(&self, replica: &ReplicaFolder, told: &[&str]) {
        let output = replica.command("check").output().unwrap();
        let checked = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        let ended = replica.create(&[]).unwrap();
        assert_eq!(ended.attempts().last(), Some(&("tarball", "rejected")), "{}", ended.output);
        for said in [&checked, &ended.output] {
            for text in told {
                assert!(said.contains(text), "{text}\n{said}");
            }
        }
        assert!(!replica.datadir().join("PG_VERSION").exists());
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_tablespace_made_after_the_backup_is_told_before_anything_is_touched() {
    let later = Later::new();
    let path = later.path.display().to_string();
    // It is this machine's primary's own directory, which replay would empty.
    later.is_rejected(&later.replica(""), &["created after the backup", &path, "PG_15_"]);
    fs::remove_file(&later.path).unwrap();
    later.is_rejected(&later.replica(""), &["created after the backup", &path, "no such directory"]);

    let elsewhere = later.primary.playground.directory("later-here").unwrap();
    let mapped = later.replica(&format!("\"{path}\" = \"{}\", ", elsewhere.display()));
    later.is_rejected(&mapped, &["whatever the map says", "ln -s"]);

    // With a map to itself its directory would be made. On the primary's own machine the run itself must not: it is in use there.
    let at_its_path = later.replica(&format!("\"{path}\" = \"{path}\", "));
    let checked = at_its_path.command("check").output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    assert!(!later.path.exists());
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_tablespace_made_after_the_backup_is_made_by_replay_where_the_map_names_its_own_path() {
    // Another machine than the primary's, as far as processes go: only root can hide the primary from the run.
    if !rustix::process::geteuid().is_root() {
        eprintln!("not tried: hiding the primary's processes from the run takes root");
        return;
    }
    let later = Later::new();
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
