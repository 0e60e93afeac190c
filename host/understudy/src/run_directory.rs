//! A private directory below the state directory for the files of one run, such as its passfile. The run holds a lock on the
//! directory. The next run recognizes a directory of a killed run by the missing lock, and removes it.

use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use foundation::way::{Changeable, ChangeableBy, changeable_by_others};
use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

const PREFIX: &str = "run-";

/// The file that marks a directory as one of this program's. A directory that only has such a name is never removed.
const MARK_FILE: &str = "understudy-run";

/// The file that a run locks while it looks for directories of other runs. The state directory itself is not locked: any user
/// that may read it could lock it, and so keep every run waiting.
const LOCK_FILE: &str = "gate.lock";

/// The private directory of a run. Dropping the value removes it.
#[derive(Debug)]
pub struct RunDirectory {
    directory: TempDir,
    _lock: File,
}

impl RunDirectory {
    /// Creates a directory below `state_dir`, and `state_dir` (0700) if it is missing. Removes the directories of dead runs.
    ///
    /// # Errors
    /// `PermissionDenied` if another user owns the state directory, may write to it or may replace it, because that user could replace what
    /// is created here. Other errors are those of the file system.
    pub fn below(state_dir: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(state_dir)?;
        refuse_if_others_may_change(state_dir)?;
        // Only one run at a time holds this lock, so that no run removes a directory that another run has created but not yet locked.
        let runs_lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(state_dir.join(LOCK_FILE))?;
        flock(&runs_lock, FlockOperation::LockExclusive)?;
        remove_directories_of_dead_runs(state_dir)?;
        let private = Permissions::from_mode(0o700);
        let directory = tempfile::Builder::new().prefix(PREFIX).permissions(private).tempdir_in(state_dir)?;
        File::options().create_new(true).write(true).mode(0o600).open(directory.path().join(MARK_FILE))?;
        let lock = File::open(directory.path())?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self { directory, _lock: lock })
    }

    /// Returns the path of the directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

fn refuse_if_others_may_change(state_dir: &Path) -> io::Result<()> {
    let refuse = |why| Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    let metadata = std::fs::metadata(state_dir)?;
    let user = rustix::process::geteuid().as_raw();
    if metadata.uid() != user {
        return refuse(format!(
            "it belongs to user {}, and this program runs as user {user}",
            metadata.uid()
        ));
    }
    if metadata.mode() & 0o022 != 0 {
        return refuse(format!(
            "others may write to it (mode {:04o}): `chmod 0700 {}`",
            metadata.mode() & 0o7777,
            state_dir.display()
        ));
    }
    match changeable_by_others(state_dir, None)?.first() {
        None => Ok(()),
        Some(Changeable { path, by: ChangeableBy::Owner(owner), .. }) => {
            refuse(format!("user {owner} may replace it, to whom {} on its path belongs", path.display()))
        }
        Some(Changeable { path, by: ChangeableBy::Mode(mode), .. }) => refuse(format!(
            "others may replace it, because {path} on its path has mode {mode:04o}: `chmod go-w {path}`",
            path = path.display()
        )),
    }
}

fn remove_directories_of_dead_runs(state_dir: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(state_dir)? {
        let entry = entry?;
        let has_prefix = entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes());
        let is_marked = || entry.path().join(MARK_FILE).symlink_metadata().is_ok_and(|mark| mark.is_file());
        if !has_prefix || !entry.file_type()?.is_dir() || !is_marked() {
            continue;
        }
        let dead = File::open(entry.path())
            .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok());
        if dead {
            // A directory of another user cannot be removed, but this run does not depend on the removal.
            let _removed = std::fs::remove_dir_all(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_has_a_private_directory_that_is_removed_at_its_end() {
        let state = tempfile::tempdir().unwrap();
        let state_dir = state.path().join("deep/state");
        let run = RunDirectory::below(&state_dir).unwrap();
        let path = run.path().to_owned();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(std::fs::metadata(&state_dir).unwrap().permissions().mode() & 0o777, 0o700);
        drop(run);
        assert!(!path.exists());
    }

    #[test]
    fn a_state_directory_that_others_may_write_to_is_refused() {
        let state = tempfile::tempdir().unwrap();
        for mode in [0o770, 0o777, 0o1777] {
            std::fs::set_permissions(state.path(), Permissions::from_mode(mode)).unwrap();
            let error = RunDirectory::below(state.path()).unwrap_err().to_string();
            assert!(error.contains("others may write to it"), "{error}");
            assert_eq!(std::fs::read_dir(state.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn a_state_directory_that_others_may_replace_is_refused() {
        let state = tempfile::tempdir().unwrap();
        let state_dir = state.path().join("understudy");
        std::fs::set_permissions(state.path(), Permissions::from_mode(0o777)).unwrap();
        let error = RunDirectory::below(&state_dir).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("others may replace it"), "{error}");
        std::fs::set_permissions(state.path(), Permissions::from_mode(0o1777)).unwrap();
        RunDirectory::below(&state_dir).unwrap();
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(state.path(), Some(65_534), None).unwrap();
            let error = RunDirectory::below(&state_dir).unwrap_err().to_string();
            assert!(error.contains("user 65534 may replace it"), "{error}");
        }
    }

    #[test]
    fn a_lock_of_another_user_on_the_state_directory_does_not_delay_a_run() {
        let state = tempfile::tempdir().unwrap();
        std::fs::set_permissions(state.path(), Permissions::from_mode(0o755)).unwrap();
        let theirs = File::open(state.path()).unwrap();
        flock(&theirs, FlockOperation::LockExclusive).unwrap();
        let (done, waits) = std::sync::mpsc::channel();
        let path = state.path().to_owned();
        std::thread::spawn(move || done.send(RunDirectory::below(&path).map(drop)));
        waits.recv_timeout(std::time::Duration::from_secs(20)).unwrap().unwrap();
        let mode = std::fs::metadata(state.path().join(LOCK_FILE)).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600, "other users could open it to lock it");
    }

    #[test]
    fn the_directory_of_a_killed_run_is_removed_and_that_of_a_live_run_is_kept() {
        let state = tempfile::tempdir().unwrap();
        let dead = state.path().join("run-dead");
        std::fs::create_dir(&dead).unwrap();
        std::fs::write(dead.join("pgpass"), "secret").unwrap();
        std::fs::write(dead.join(MARK_FILE), "").unwrap();
        let theirs = state.path().join("run-2024");
        std::fs::create_dir(&theirs).unwrap();
        std::fs::write(theirs.join("data"), "precious").unwrap();
        std::fs::write(state.path().join("run-file"), "not a directory").unwrap();
        let live = RunDirectory::below(state.path()).unwrap();
        let second = RunDirectory::below(state.path()).unwrap();
        assert!(!dead.exists());
        assert!(live.path().exists() && second.path().exists());
        assert!(state.path().join("run-file").exists());
        assert!(theirs.join("data").exists(), "a directory that no run made was removed");
    }
}
