//! Emptying: pg_control first, then the rest. Semantics rules 8, 22 to 24 and 28, step 4 of an attempt.

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

/// What emptying did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Emptied {
    /// Entries that were removed.
    pub entries: u64,
    /// Whether it was cut short by its budget or a cancel: contents remain, pg_control does not.
    pub unfinished: bool,
}

/// What emptying may remove besides `global/pg_control`, which always goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Nothing: `keep_data`.
    ControlFileOnly,
    /// Everything in the data directory, the mapped WAL directory, and of mapped tablespaces the `PG_<major>_<catalog>` folders.
    /// What a method of this program left in a mapped place goes too, whatever it is called.
    Everything,
}

impl DataDirectory {
    /// Removes `global/pg_control` and syncs `global/`, then what `extent` says. Blocking.
    ///
    /// `budget`: stop removing after this long (rule 28's two seconds); `cancel` is then not asked, for it is a cancelled run
    /// that cleans up so. None: until done or cancelled. pg_control goes in any case.
    ///
    /// The state file says `unfinished` before anything goes: this says it itself where the caller did not. The first time in
    /// a run it checks once more that no server has come to use the directories and nothing foreign into the mapped ones.
    /// The directories themselves, and links to them, stay.
    ///
    /// # Errors
    /// At the first thing that cannot be removed, which the message names. Nothing is removed where another file
    /// system is mounted at an entry of one of the directories; nothing but pg_control where this run has emptied them before.
    pub fn empty(
        &self,
        extent: Extent,
        budget: Option<Duration>,
        cancel: &CancellationToken,
    ) -> io::Result<Emptied> {
        let deadline = budget.and_then(|budget| Instant::now().checked_add(budget));
        let cancelled = || budget.is_none() && cancel.is_cancelled();
        let limit = Limit { deadline, cancelled: &cancelled };
        if !self.has_worked() {
            self.check_again()?;
        }
        let mount_points = match extent {
            Extent::ControlFileOnly => Ok(()),
            Extent::Everything => self.refuse_mount_points(),
        };
        // Nothing is begun that could not be finished; what was begun loses pg_control whatever stops the rest.
        let (before, after) = if self.has_worked() { (Ok(()), mount_points) } else { (mount_points, Ok(())) };
        before?;
        self.mark_unfinished()?;
        self.keep_what_was_made();
        let control_files = self.remove_control_files()?;
        after?;
        self.worked_in.store(true, Ordering::Release);
        match extent {
            Extent::ControlFileOnly => {
                // It kept PostgreSQL from starting from what pg_basebackup left, and is in a method's way.
                lock_file::vacate(&self.directory)?;
                Ok(Emptied { entries: control_files, unfinished: false })
            }
            Extent::Everything => self.remove_everything(control_files, &limit),
        }
    }

    /// What was checked when the directories were taken, minutes ago, must still hold when the first file goes.
    fn check_again(&self) -> io::Result<()> {
        let unfinished = self.marked || self.contents()? == Contents::Unfinished;
        server::refuse_running(&self.directory, unfinished)
            .and_then(|()| server::refuse_used(self.identity, &self.mapped))
            .and_then(|()| self.mapped.iter().try_for_each(|place| place.refuse_foreign()))
            .map_err(|refusal| io::Error::new(io::ErrorKind::ResourceBusy, refusal))
    }

    fn refuse_mount_points(&self) -> io::Result<()> {
        refuse_mount_points(&self.directory, &|_| true)?;
        self.mapped
            .iter()
            .try_for_each(|place| refuse_mount_points(place.directory(), &|name| place.is_emptied_of(name)))
    }

    fn mark_unfinished(&self) -> io::Result<()> {
        if !self.state.is_unfinished() {
            self.state.unfinished(&self.state.record().method.unwrap_or_default())?;
        }
        self.state.own_places(self.mapped.iter().map(|place| place.stamp()).collect())
    }

    fn remove_everything(&self, control_files: u64, limit: &Limit<'_>) -> io::Result<Emptied> {
        let mut emptied = Emptied { entries: control_files, unfinished: false };
        let removed = self.directory.remove_below(&|_| true, limit)?;
        emptied.entries += removed.entries;
        emptied.unfinished |= !removed.complete;
        for place in &self.mapped {
            let removed = place.directory().remove_below(&|name| place.is_emptied_of(name), limit)?;
            emptied.entries += removed.entries;
            emptied.unfinished |= !removed.complete;
            // What comes into it from here on a method wrote.
            place.now_own_work();
        }
        Ok(emptied)
    }

    /// After this, on disk, no server starts from the directory. How many entries went.
    fn remove_control_files(&self) -> io::Result<u64> {
        match self.directory.find(&GLOBAL)?.map(|found| found.kind) {
            None => return Ok(0),
            Some(Kind::Directory) => {}
            // A server would look for pg_control behind the link; what the link leads to is not ours.
            Some(Kind::File | Kind::Link | Kind::Special) => {
                self.directory.remove_file(&GLOBAL)?;
                self.directory.sync()?;
                return Ok(1);
            }
        }
        let removed = match self.remove_control_files_of_global() {
            // A mode that keeps its own owner out.
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
                // No server starts from a directory of that name; it goes with the rest.
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::IsADirectory) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(removed)
    }
}

fn refuse_mount_points(directory: &Directory, emptied_of: &dyn Fn(&OsStr) -> bool) -> io::Result<()> {
    directory.names(&mut |name| {
        if !emptied_of(name) {
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
