//! The user that runs PostgreSQL. PostgreSQL refuses to run as root.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// A user of this machine, by user ID and group ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerUser {
    uid: u32,
    gid: u32,
}

impl ServerUser {
    /// Returns `postgres` if this process runs as root, otherwise the user of this process.
    ///
    /// # Errors
    /// Fails if `id` fails, for example because Debian's PostgreSQL, which creates the user, is not installed.
    pub fn find() -> Result<Self> {
        let number = |arguments: &[&str]| -> Result<u32> {
            let output = Command::new("id").args(arguments).output().context("`id` does not run")?;
            ensure!(
                output.status.success(),
                "`id {}`: {}; `cargo xtask test` installs PostgreSQL, which brings the user",
                arguments.join(" "),
                String::from_utf8_lossy(&output.stderr).trim()
            );
            String::from_utf8_lossy(&output.stdout).trim().parse().context("`id` printed no number")
        };
        if number(&["-u"])? == 0 {
            Ok(Self { uid: number(&["-u", "postgres"])?, gid: number(&["-g", "postgres"])? })
        } else {
            Ok(Self { uid: number(&["-u"])?, gid: number(&["-g"])? })
        }
    }

    /// Returns the user of this process.
    pub fn of_this_process() -> Self {
        Self { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() }
    }

    /// Returns a command that runs as this user, in a clean environment and in a directory that the user may read.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("LC_ALL", "C.UTF-8")
            .current_dir("/");
        if rustix::process::geteuid().is_root() {
            command.uid(self.uid).gid(self.gid);
        }
        command
    }

    /// Makes this user the owner of a file or directory.
    ///
    /// # Errors
    /// Fails if this process is root and chown fails.
    pub fn own(&self, path: &Path) -> Result<()> {
        if rustix::process::geteuid().is_root() {
            chown(path, Some(self.uid), Some(self.gid))
                .with_context(|| format!("chown {}", path.display()))?;
        }
        Ok(())
    }

    /// Creates a directory (0700) that this user owns.
    ///
    /// # Errors
    /// Fails if mkdir or chown fails.
    pub fn directory(&self, path: &Path) -> Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(path)
            .with_context(|| format!("mkdir {}", path.display()))?;
        self.own(path)
    }

    /// Writes a file that this user owns.
    ///
    /// # Errors
    /// Fails if the file cannot be written or its owner cannot be changed.
    pub fn write(&self, path: &Path, text: &str) -> Result<()> {
        std::fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
        self.own(path)
    }
}
