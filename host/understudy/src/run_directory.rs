//! A private directory for the files of one run, such as its passfile, below the state directory. Held by a lock on the
//! directory itself, so that the next run recognises what a killed one left, and removes it.

use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

const PREFIX: &str = "run-";

/// The file by which a directory is known to have been made here. What only has such a name is somebody else's.
const MARK: &str = "understudy-run";

/// The file that a run locks while it looks at the others. Not the state directory itself: a lock on that is anybody's who
/// may read it, and would hold every run up for as long as it pleases them.
const GATE: &str = "gate.lock";

/// The directory; removed with this value.
#[derive(Debug)]
pub struct RunDirectory {
    directory: TempDir,
    _held: File,
}

impl RunDirectory {
    /// Makes one below `state_dir`, which it makes too where it is missing (0700), and removes those of dead runs.
    ///
    /// # Errors
    /// A state directory that others own or may write to, for they could put their own in the place of what is made
    /// here; else what the file system says.
    pub fn below(state_dir: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(state_dir)?;
        refuse_if_others_may_change(state_dir)?;
        // One run at a time looks and makes, so that none removes what another has made and not locked yet.
        let gate = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(state_dir.join(GATE))?;
        flock(&gate, FlockOperation::LockExclusive)?;
        remove_those_of_dead_runs(state_dir)?;
        let private = Permissions::from_mode(0o700);
        let directory = tempfile::Builder::new().prefix(PREFIX).permissions(private).tempdir_in(state_dir)?;
        File::options().create_new(true).write(true).mode(0o600).open(directory.path().join(MARK))?;
        let held = File::open(directory.path())?;
        flock(&held, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self { directory, _held: held })
    }

    /// Where it is.
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
    Ok(())
}

fn remove_those_of_dead_runs(state_dir: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(state_dir)? {
        let entry = entry?;
        let is_named_so = entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes());
        let is_marked = || entry.path().join(MARK).symlink_metadata().is_ok_and(|mark| mark.is_file());
        if !is_named_so || !entry.file_type()?.is_dir() || !is_marked() {
            continue;
        }
        let dead = File::open(entry.path())
            .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok());
        if dead {
            // Another user's cannot be removed, and is not this run's to complain about.
            let _removed = std::fs::remove_dir_all(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_has_a_private_directory_that_goes_with_it() {
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
    fn a_lock_that_others_hold_on_a_state_directory_that_they_may_read_holds_no_run_up() {
        let state = tempfile::tempdir().unwrap();
        std::fs::set_permissions(state.path(), Permissions::from_mode(0o755)).unwrap();
        let theirs = File::open(state.path()).unwrap();
        flock(&theirs, FlockOperation::LockExclusive).unwrap();
        let (done, waits) = std::sync::mpsc::channel();
        let path = state.path().to_owned();
        std::thread::spawn(move || done.send(RunDirectory::below(&path).map(drop)));
        waits.recv_timeout(std::time::Duration::from_secs(20)).unwrap().unwrap();
        let mode = std::fs::metadata(state.path().join(GATE)).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600, "nobody else can open it to lock it");
    }

    #[test]
    fn what_a_killed_run_left_is_removed_and_what_a_live_one_holds_is_not() {
        let state = tempfile::tempdir().unwrap();
        let dead = state.path().join("run-dead");
        std::fs::create_dir(&dead).unwrap();
        std::fs::write(dead.join("pgpass"), "secret").unwrap();
        std::fs::write(dead.join(MARK), "").unwrap();
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
