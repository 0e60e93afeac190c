//! Disks that fill, and budgets that end.

use std::os::unix::fs::MetadataExt;
use std::process::Command;

use super::scene::Scene;

/// A file system in memory of this size, mounted until it goes.
struct Mounted(std::path::PathBuf);

impl Mounted {
    /// None where only root mounts and this is another user.
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

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// Compressed and without a manifest, so that nobody knows before how large it is.
const UNKNOWN: &[&str] = &["--compress=client-gzip:1", "--no-manifest"];

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_disk_that_fills_midway_fails_the_attempt_with_the_file() {
    let (scene, backup) = Scene::with_backup("full-disk", UNKNOWN);
    let replica = scene.replica(&scene.in_directory(&backup));
    let disk = replica.path("state").with_file_name("data");
    scene.primary.playground.user().directory(&disk).unwrap();
    let Some(mounted) = Mounted::at(disk, 16) else { return };
    let ended = replica.create(&["--force"]).unwrap();
    scene.failed("full", &replica, &ended, &["base.tar.gz", "space"]);
    drop(mounted);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_budget_that_ends_midway_fails_the_attempt_with_the_file_and_holds() {
    let (scene, backup) = Scene::with_backup("budget", UNKNOWN);
    for budget in ["bytes = \"8MiB\"", "files = 100"] {
        let section =
            scene.in_directory(&backup).replace("read = [", &format!("disk = {{ {budget} }}\nread = ["));
        let replica = scene.replica(&section);
        let ended = replica.create(&[]).unwrap();
        scene.failed(budget, &replica, &ended, &["base.tar.gz"]);
        std::fs::remove_dir_all(replica.path("")).unwrap();
    }
}
