//! Empties the data directory: pg_control first, then the rest. Loop rules 8, 22 to 24 and 28, step 4 of an attempt.

use std::ffi::OsStr;
use std::io;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use foundation::rooted::{Directory, Kind, Limit, RelativePath};
use postgres_formats::names;
use tokio_util::sync::CancellationToken;

use super::room::mounted;
use super::{Contents, DataDirectory, lock_file, server};

const GLOBAL: RelativePath = RelativePath::literal(names::GLOBAL);
const CONTROL_FILES: [RelativePath; 2] =
    [RelativePath::literal(names::CONTROL_FILE), RelativePath::literal(names::UNFINISHED_CONTROL_FILE)];

/// The result of emptying.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Emptied {
    /// How many entries were removed.
    pub entries: u64,
    /// Whether the budget or a cancellation stopped the emptying: pg_control is removed, and other content remains.
    pub unfinished: bool,
}

/// What emptying removes after `global/pg_control`, which is always removed first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmptyScope {
    /// Nothing: `keep_data`.
    ControlFileOnly,
    /// Everything in the data directory, the WAL in the mapped WAL directory, and the `PG_<major>_<catalog>` folders in mapped
    /// tablespace directories. A mapped directory with unfinished work of this program is emptied completely.
    Everything,
}

impl DataDirectory {
    /// Removes `global/pg_control` and syncs `global/`, then removes what `scope` says. Blocking.
    ///
    /// With a `budget`, stops removing after this long (two seconds by rule 28) and ignores `cancel`, because a cancelled run cleans up
    /// in this way. Without a budget, goes on until everything is removed or `cancel` is cancelled. Removes pg_control in any case.
    ///
    /// Marks the directory as unfinished in the state file before it removes anything. The first time in a run, checks once more that
    /// no server uses the directories and that the mapped directories hold nothing foreign. Leaves the directories themselves and the
    /// links to them.
    ///
    /// # Errors
    /// Fails at the first entry that cannot be removed, which the message names. If another file system is mounted at an entry of one
    /// of the directories, removes nothing, or only pg_control if this run has emptied the directories before.
    pub fn empty(
        &self,
        scope: EmptyScope,
        budget: Option<Duration>,
        cancel: &CancellationToken,
    ) -> io::Result<Emptied> {
        let deadline = budget.and_then(|budget| Instant::now().checked_add(budget));
        let cancelled = || budget.is_none() && cancel.is_cancelled();
        let limit = Limit { deadline, cancelled: &cancelled };
        if !self.has_emptied() {
            self.check_again()?;
        }
        let mount_points = match scope {
            EmptyScope::ControlFileOnly => Ok(()),
            EmptyScope::Everything => self.refuse_mount_points(),
        };
        // The first time, a mount point is an error before anything is removed. Later the directory holds unfinished work, whose
        // pg_control is removed in any case.
        let (before, after) =
            if self.has_emptied() { (Ok(()), mount_points) } else { (mount_points, Ok(())) };
        before?;
        self.mark_unfinished()?;
        self.keep_created_directories();
        let control_files = self.remove_control_files()?;
        after?;
        self.emptied.store(true, Ordering::Release);
        match scope {
            EmptyScope::ControlFileOnly => {
                // The directory in place of the lock file kept PostgreSQL from starting an unfinished base backup. A method may write a
                // file there.
                lock_file::vacate(&self.directory)?;
                Ok(Emptied { entries: control_files, unfinished: false })
            }
            EmptyScope::Everything => self.remove_everything(control_files, &limit),
        }
    }

    /// Repeats the checks of [`DataDirectory::acquire`] whose results may have changed since, before the first file is removed.
    fn check_again(&self) -> io::Result<()> {
        let unfinished = self.was_unfinished || self.contents()? == Contents::Unfinished;
        server::refuse_running(&self.directory, unfinished)
            .and_then(|()| server::refuse_used(self.inode, &self.mapped))
            .and_then(|()| self.mapped.iter().try_for_each(|place| place.refuse_foreign()))
            .map_err(|refusal| io::Error::new(io::ErrorKind::ResourceBusy, refusal))
    }

    fn refuse_mount_points(&self) -> io::Result<()> {
        refuse_mount_points(&self.directory, &|_| true)?;
        self.mapped.iter().try_for_each(|place| {
            refuse_mount_points(place.directory(), &|name| place.emptying_removes(name))
        })
    }

    fn mark_unfinished(&self) -> io::Result<()> {
        if !self.state.is_unfinished() {
            self.state.mark_unfinished(&self.state.record().method.unwrap_or_default())?;
        }
        self.state.set_own_places(self.mapped.iter().map(|place| place.identity()).collect())
    }

    fn remove_everything(&self, control_files: u64, limit: &Limit<'_>) -> io::Result<Emptied> {
        let mut emptied = Emptied { entries: control_files, unfinished: false };
        let removed = self.directory.remove_below(&|_| true, limit)?;
        emptied.entries += removed.entries;
        emptied.unfinished |= !removed.complete;
        for place in &self.mapped {
            let removed = place.directory().remove_below(&|name| place.emptying_removes(name), limit)?;
            emptied.entries += removed.entries;
            emptied.unfinished |= !removed.complete;
            // From here on only a method writes into the mapped directory.
            place.mark_own_work();
        }
        Ok(emptied)
    }

    /// Removes pg_control and syncs its directory, after which no server starts from the data directory. Returns the number of entries
    /// that were removed.
    fn remove_control_files(&self) -> io::Result<u64> {
        match self.directory.find(&GLOBAL)?.map(|found| found.kind) {
            None => return Ok(0),
            Some(Kind::Directory) => {}
            // A server would follow a link and read pg_control behind it. The link is removed, and its target stays.
            Some(Kind::File | Kind::Link | Kind::Special) => {
                self.directory.remove_file(&GLOBAL)?;
                self.directory.sync()?;
                return Ok(1);
            }
        }
        let removed = match self.remove_control_files_of_global() {
            // The mode of `global` may deny access even to its owner.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.directory.set_mode(&GLOBAL, 0o700)?;
                self.remove_control_files_of_global()?
            }
            removed => removed?,
        };
        self.directory.open_directory(&GLOBAL)?.sync()?;
        Ok(removed)
    }

    fn remove_control_files_of_global(&self) -> io::Result<u64> {
        let mut removed = 0;
        for name in &CONTROL_FILES {
            match self.directory.remove_file(name) {
                Ok(()) => removed += 1,
                // No server starts with a directory in the place of pg_control. The directory is removed with the rest.
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::IsADirectory) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(removed)
    }
}

fn refuse_mount_points(directory: &Directory, is_removed: &dyn Fn(&OsStr) -> bool) -> io::Result<()> {
    directory.names(&mut |name| {
        if !is_removed(name) {
            return Ok(true);
        }
        let path = RelativePath::new(name).map_err(io::Error::other)?;
        match directory.is_mount_point(&path) {
            Ok(true) => Err(mounted(&directory.path().join(name))),
            Ok(false) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    })
}
