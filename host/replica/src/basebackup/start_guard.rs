//! Keeps PostgreSQL from starting an unfinished base backup. `pg_basebackup` writes `global/pg_control` under its final name, before its
//! work is done. If this program is killed before the end, two things keep PostgreSQL from starting: the mode of the data directory, and a
//! directory in the place of `postmaster.pid`. Each of them is enough.

use std::io;
use std::sync::Arc;

use postgres_formats::names;

use crate::datadir::{DataDirectory, lock_file};
use crate::seal::set_control_file_aside;

/// A mode that `checkDataDir` (src/backend/utils/init/miscinit.c) refuses, because the group may write. Without the group's execute bit
/// it gives the group no access.
const MODE: u32 = 0o720;

/// The mode to restore if the directory already has [`MODE`], because an earlier run was killed.
const USUAL_MODE: u32 = 0o700;

/// A data directory with the mode [`MODE`], with which PostgreSQL does not start.
pub(super) struct StartGuard {
    directory: Arc<DataDirectory>,
    mode: u32,
}

impl StartGuard {
    /// Sets the mode of the directory.
    pub(super) fn set_mode(directory: &Arc<DataDirectory>) -> io::Result<Self> {
        let top = directory.directory();
        let mode = match top.own_metadata()?.mode & 0o7777 {
            MODE => USUAL_MODE,
            mode => mode,
        };
        top.set_own_mode(MODE)?;
        top.sync()?;
        Ok(Self { directory: directory.clone(), mode })
    }

    /// Creates the directory in the place of `postmaster.pid`. Call this after pg_basebackup has checked that the data directory is empty,
    /// and before it writes pg_control. No backup has a file of that name (`excludeFiles` in basebackup.c).
    pub(super) fn occupy_lock_file(directory: &DataDirectory) -> io::Result<()> {
        lock_file::occupy(directory.directory())
    }

    /// Renames pg_control to the name that it has in an unfinished replica, so that PostgreSQL cannot start, and restores the mode of the
    /// directory. Call this when the base backup is complete.
    pub(super) fn backup_complete(self) -> io::Result<()> {
        set_control_file_aside(self.directory.directory())?;
        self.release()
    }

    /// Restores the mode of the directory, unless a pg_control is left that cannot be renamed. Call this when the base backup failed. The
    /// directory is then empty, or the clean-up after the failed attempt empties it and removes pg_control first.
    pub(super) fn backup_failed(self) -> io::Result<()> {
        if set_control_file_aside(self.directory.directory()).is_err() {
            // There is no `global`, or pg_control in it cannot be renamed. In the second case the directory keeps its mode.
            let control = self.directory.real_path().join(names::CONTROL_FILE);
            if control.symlink_metadata().is_ok() {
                return Ok(());
            }
        }
        self.release()
    }

    /// Removes the directory at `postmaster.pid` and restores the mode of the data directory. Both kept PostgreSQL from starting until
    /// pg_control was renamed.
    fn release(self) -> io::Result<()> {
        let top = self.directory.directory();
        lock_file::vacate(top)?;
        top.set_own_mode(self.mode)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::Directories;

    fn locked() -> (tempfile::TempDir, Arc<DataDirectory>) {
        let place = tempfile::tempdir().unwrap();
        let datadir = place.path().join("data");
        let directories = Directories { datadir, wal: None, tablespaces: Default::default() };
        let directory = DataDirectory::acquire(&directories, &place.path().join("state"), false).unwrap();
        (place, Arc::new(directory))
    }

    fn mode(directory: &DataDirectory) -> u32 {
        fs::metadata(directory.real_path()).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_complete_backup_has_its_pg_control_renamed_and_its_mode_restored() {
        let (_place, directory) = locked();
        fs::set_permissions(directory.real_path(), fs::Permissions::from_mode(0o750)).unwrap();
        let start_guard = StartGuard::set_mode(&directory).unwrap();
        assert_eq!(mode(&directory), MODE);
        fs::create_dir(directory.real_path().join("global")).unwrap();
        fs::write(directory.real_path().join("global/pg_control"), "control").unwrap();
        for _ in 0..2 {
            StartGuard::occupy_lock_file(&directory).unwrap();
        }
        assert!(directory.real_path().join("postmaster.pid/README").exists());
        start_guard.backup_complete().unwrap();
        assert!(!directory.real_path().join("postmaster.pid").exists());
        assert_eq!(mode(&directory), 0o750);
        assert!(!directory.real_path().join("global/pg_control").exists());
    }

    #[test]
    fn a_failed_backup_has_its_mode_restored_and_the_mode_of_a_killed_run_is_not_kept() {
        let (_place, directory) = locked();
        drop(StartGuard::set_mode(&directory).unwrap());
        StartGuard::set_mode(&directory).unwrap().backup_failed().unwrap();
        assert_eq!(mode(&directory), USUAL_MODE);
    }
}
