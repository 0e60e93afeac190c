//! Full disks and exhausted disk budgets.

use std::os::unix::fs::MetadataExt;
use std::process::Command;

use super::scene::Scene;

/// A mounted tmpfs. Dropping the value unmounts it.
struct TemporaryFilesystem(std::path::PathBuf);

impl TemporaryFilesystem {
    /// Mounts a tmpfs of this size; `None` if this process does not run as root.
    fn at(folder: std::path::PathBuf, mebibytes: u32) -> Option<Self> {
        let owner = folder.metadata().unwrap();
        let options = format!("size={mebibytes}m,mode=0700,uid={},gid={}", owner.uid(), owner.gid());
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(&folder)
            .status()
            .unwrap();
        assert!(mounted.success() || !rustix::process::geteuid().is_root(), "root could not mount a tmpfs");
        mounted.success().then_some(Self(folder))
    }
}

impl Drop for TemporaryFilesystem {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// The pg_basebackup options for a backup whose size is unknown before the restore, because it is compressed and has no manifest.
const UNKNOWN_SIZE: &[&str] = &["--compress=client-gzip:1", "--no-manifest"];

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_disk_that_fills_up_fails_the_attempt_with_the_file() {
    let (scene, backup) = Scene::with_backup("full-disk", UNKNOWN_SIZE);
    let replica = scene.replica(&scene.directory_section(&backup));
    let disk = replica.path("state").with_file_name("data");
    scene.primary.playground.user().directory(&disk).unwrap();
    let Some(mounted) = TemporaryFilesystem::at(disk, 16) else { return };
    let ended = replica.create(&["--force"]).unwrap();
    scene.assert_failed("full", &replica, &ended, &["base.tar.gz", "space"]);
    drop(mounted);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn an_exhausted_disk_budget_fails_the_attempt_with_the_file() {
    let (scene, backup) = Scene::with_backup("budget", UNKNOWN_SIZE);
    for budget in ["bytes = \"8MiB\"", "files = 100"] {
        let section =
            scene.directory_section(&backup).replace("read = [", &format!("disk = {{ {budget} }}\nread = ["));
        let replica = scene.replica(&section);
        let ended = replica.create(&[]).unwrap();
        scene.assert_failed(budget, &replica, &ended, &["base.tar.gz"]);
        std::fs::remove_dir_all(replica.path("")).unwrap();
    }
}
