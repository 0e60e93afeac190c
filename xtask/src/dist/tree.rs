//! The tree of files that a release installs.

use std::fs::{self, File, FileTimes, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};

use super::remove;

/// A folder with the files. Creating the value empties the folder.
pub(super) struct Tree(PathBuf);

impl Tree {
    pub(super) fn new(root: &Path) -> Result<Self> {
        remove(root)?;
        fs::create_dir_all(root).with_context(|| format!("cannot make {}", root.display()))?;
        Ok(Self(root.to_owned()))
    }

    /// Returns the part of the tree below `folder`.
    pub(super) fn below(&self, folder: &str) -> Self {
        Self(self.0.join(folder))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file that everybody may read (0644).
    pub(super) fn file(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.place(name)?;
        fs::write(&path, bytes)
            .and_then(|()| fs::set_permissions(&path, Permissions::from_mode(0o644)))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Copies a program that everybody may run (0755).
    pub(super) fn program(&self, name: &str, from: &Path) -> Result<()> {
        let path = self.place(name)?;
        fs::copy(from, &path)
            .and_then(|_| fs::set_permissions(&path, Permissions::from_mode(0o755)))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Writes a gzip-compressed file, without a file name and a time in the gzip header.
    pub(super) fn file_zipped(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let gzip = Command::new("gzip").arg("-9n").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut gzip = gzip.context("gzip does not run")?;
        let mut input = gzip.stdin.take().context("gzip has no standard input")?;
        let output = std::thread::scope(|scope| {
            let written = scope.spawn(move || input.write_all(bytes));
            let output = gzip.wait_with_output();
            // If gzip ends early, its exit code says so.
            let _ = written.join();
            output
        })?;
        ensure!(output.status.success(), "gzip failed: {}", output.status);
        self.file(name, &output.stdout)
    }

    /// Returns the total size in KiB, with each file rounded up, as in Debian's field `Installed-Size`.
    pub(super) fn kibibytes(&self) -> Result<u64> {
        let mut sum = 0;
        walk(&self.0, &mut |path| {
            let metadata = fs::symlink_metadata(path)?;
            sum += if metadata.is_file() { metadata.len().div_ceil(1024) } else { 1 };
            Ok(())
        })?;
        Ok(sum)
    }

    /// Sets the time of every file and folder, and the mode of every folder.
    pub(super) fn stamp(&self, epoch: u64) -> Result<()> {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(epoch);
        walk(&self.0, &mut |path| {
            if path.is_dir() {
                fs::set_permissions(path, Permissions::from_mode(0o755))?;
            }
            File::open(path)?.set_times(FileTimes::new().set_accessed(time).set_modified(time))
        })
    }

    fn place(&self, name: &str) -> Result<PathBuf> {
        let path = self.0.join(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        Ok(path)
    }
}

/// Calls `each` for every file and folder below `folder`, and last for `folder` itself.
fn walk(folder: &Path, each: &mut dyn FnMut(&Path) -> std::io::Result<()>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() { walk(&path, each)? } else { each(&path)? }
    }
    each(folder).with_context(|| format!("cannot read or change {}", folder.display()))
}
