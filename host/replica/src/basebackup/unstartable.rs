//! `pg_basebackup` writes `global/pg_control` under its own name, long before its work is whole. So that PostgreSQL does not start
//! from the directory even where this program is killed in between, two things keep it away meanwhile, each alone: the mode of the
//! directory, and a directory in the place of `postmaster.pid`.

use std::io;
use std::sync::Arc;

use postgres_formats::names;

use crate::datadir::{DataDirectory, lock_file};
use crate::seal::set_control_file_aside;

/// A bit that `checkDataDir` (src/backend/utils/init/miscinit.c) refuses: the group may write. Without the bit to search the directory
/// it gives nobody anything.
const MODE: u32 = 0o720;

/// The mode for a directory that had this one when an earlier run was killed.
const USUAL_MODE: u32 = 0o700;

/// A data directory with a mode that PostgreSQL does not start from.
pub(super) struct Unstartable {
    directory: Arc<DataDirectory>,
    mode: u32,
}

impl Unstartable {
    /// Gives the directory the mode.
    pub(super) fn make(directory: &Arc<DataDirectory>) -> io::Result<Self> {
        let top = directory.directory();
        let mode = match top.own_metadata()?.mode & 0o7777 {
            MODE => USUAL_MODE,
            mode => mode,
        };
        top.set_own_mode(MODE)?;
        top.sync()?;
        Ok(Self { directory: directory.clone(), mode })
    }

    /// Puts the directory into the place of `postmaster.pid`, once pg_basebackup has begun, which wants an empty directory then, and
    /// before pg_control can be there. No backup has a file of that name (`excludeFiles` in basebackup.c).
    pub(super) fn hold(directory: &DataDirectory) -> io::Result<()> {
        lock_file::occupy(directory.directory())
    }

    /// The work is whole: pg_control goes to its unfinished name, which keeps PostgreSQL away from here on, and the directory gets
    /// back the mode that it had.
    pub(super) fn whole(self) -> io::Result<()> {
        set_control_file_aside(self.directory.directory())?;
        self.let_go()
    }

    /// The work failed and was removed, or the loop removes it, pg_control first.
    pub(super) fn failed(self) -> io::Result<()> {
        if set_control_file_aside(self.directory.directory()).is_err() {
            // There is no `global`, or nothing that could be renamed in it; the mode stays where pg_control does.
            let control = self.directory.real_path().join(names::CONTROL_FILE);
            if control.symlink_metadata().is_ok() {
                return Ok(());
            }
        }
        self.let_go()
    }

    /// Takes away what kept PostgreSQL from starting while pg_control was there.
    fn let_go(self) -> io::Result<()> {
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

    fn held() -> (tempfile::TempDir, Arc<DataDirectory>) {
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
    fn what_is_whole_loses_pg_control_before_it_gets_its_mode_back() {
        let (_place, directory) = held();
        fs::set_permissions(directory.real_path(), fs::Permissions::from_mode(0o750)).unwrap();
        let unstartable = Unstartable::make(&directory).unwrap();
        assert_eq!(mode(&directory), MODE);
        fs::create_dir(directory.real_path().join("global")).unwrap();
        fs::write(directory.real_path().join("global/pg_control"), "control").unwrap();
        for _ in 0..2 {
            Unstartable::hold(&directory).unwrap();
        }
        assert!(directory.real_path().join("postmaster.pid/README").exists());
        unstartable.whole().unwrap();
        assert!(!directory.real_path().join("postmaster.pid").exists());
        assert_eq!(mode(&directory), 0o750);
        assert!(!directory.real_path().join("global/pg_control").exists());
    }

    #[test]
    fn what_failed_gets_its_mode_back_and_a_killed_runs_mode_is_not_taken_for_the_operators() {
        let (_place, directory) = held();
        drop(Unstartable::make(&directory).unwrap());
        Unstartable::make(&directory).unwrap().failed().unwrap();
        assert_eq!(mode(&directory), USUAL_MODE);
    }
}
