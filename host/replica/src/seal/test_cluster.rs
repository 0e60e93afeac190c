//! A real PostgreSQL cluster for tests of how the seal reads PostgreSQL's files.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// PostgreSQL 15's programs on Debian.
const BIN_DIR: &str = "/usr/lib/postgresql/15/bin";

/// A cluster that initdb made, owned by the server's user.
pub(super) struct Cluster {
    root: tempfile::TempDir,
}

impl Cluster {
    pub(super) fn made_with(options: &[&str]) -> Self {
        let root = tempfile::tempdir().unwrap();
        if let Some((user, group)) = postgres() {
            std::os::unix::fs::chown(root.path(), Some(user), Some(group)).unwrap();
        }
        let cluster = Self { root };
        let output = cluster
            .run("initdb", &[&["--no-sync", "--auth=trust", "--pgdata", &cluster.text()], options].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        cluster
    }

    pub(super) fn path(&self) -> PathBuf {
        self.root.path().join("main")
    }

    pub(super) fn text(&self) -> String {
        self.path().to_str().unwrap().to_owned()
    }

    /// Runs one of PostgreSQL's programs as the server's user, with an empty standard input.
    pub(super) fn run(&self, program: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(Path::new(BIN_DIR).join(program));
        command
            .args(arguments)
            .env_clear()
            .env("LC_ALL", "C")
            .current_dir("/")
            .stdin(std::process::Stdio::null());
        if let Some((user, group)) = postgres() {
            command.uid(user).gid(group);
        }
        command.output().unwrap()
    }
}

/// Returns the user `postgres` if this process is root, as which PostgreSQL does not run.
fn postgres() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let number = |what: &str| {
        let output = Command::new("id").args([what, "postgres"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().parse::<u32>().unwrap()
    };
    Some((number("-u"), number("-g")))
}
