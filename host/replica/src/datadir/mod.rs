//! The data directory: what it holds, whether a run may touch it, how it is emptied. Loop rules 8, 22 to 26, 28.
//!
//! [`DataDirectory::acquire`] checks whether a run may touch the operator's directories, and locks them for it. Everything after that
//! uses the descriptors that it opened, so that a renamed directory or a new link cannot lead the run to other files.

mod acquire;
mod besides;
mod cluster;
mod contents;
mod empty;
mod enclosing_cluster;
pub(crate) mod lock_file;
mod places;
mod room;
mod server;

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use foundation::rooted::Directory;

use crate::mounts::real_path;
use crate::state::State;
use crate::{Bytes, Directories, Refusal, Rule};
pub use acquire::Inspected;
pub use cluster::FoundCluster;
pub use contents::Contents;
pub use empty::{Emptied, EmptyScope};
pub use enclosing_cluster::{EnclosingCluster, cluster_of};
use places::CreatedDirectories;
pub use places::MappedPlace;
pub use room::FileSystemRoom;

/// A data directory that only this run may touch: it is checked and locked, and its state file is open.
#[derive(Debug)]
pub struct DataDirectory {
    /// The first field, because it is dropped first: a directory is removed while its lock is still held, so that a run that gets the
    /// lock afterwards sees that the directory is gone.
    made: Mutex<CreatedDirectories>,
    directory: Directory,
    real_path: std::path::PathBuf,
    inode: (u64, u64),
    mapped: Vec<MappedPlace>,
    state: State,
    /// The cluster that the directory held when it was locked.
    cluster: Option<FoundCluster>,
    /// Whether the state file marked the directory as unfinished when it was locked.
    was_unfinished: bool,
    /// Whether this run has begun to empty the directory. If so, it has checked again that no server uses the directory.
    emptied: AtomicBool,
}

impl DataDirectory {
    /// Returns what the directory holds now. An empty directory is `Unfinished` while a mapped directory holds unfinished work.
    ///
    /// # Errors
    /// Fails if one of the directories cannot be read.
    pub fn contents(&self) -> std::io::Result<Contents> {
        let contents = contents::of(&self.directory, self.state.is_unfinished())?;
        if contents == Contents::Nothing && self.state.is_unfinished() {
            for place in &self.mapped {
                if place.is_own_work() && !place.directory().is_empty()? {
                    return Ok(Contents::Unfinished);
                }
            }
        }
        Ok(contents)
    }

    /// Returns the bytes and files that `EmptyScope::Everything` would free on all file systems together. [`DataDirectory::room`]
    /// returns them for each file system.
    ///
    /// # Errors
    /// The errors of [`DataDirectory::room`].
    pub fn reclaimable(&self) -> std::io::Result<(Bytes, u64)> {
        let room = self.room()?;
        Ok((
            Bytes(room.iter().map(|one| one.reclaimable.0).sum()),
            room.iter().map(|one| one.reclaimable_files).sum(),
        ))
    }

    /// Returns the descriptor that holds the lock. Native programs inherit a copy, so that the lock is held as long as one of them lives,
    /// even if the run is killed.
    pub fn lock(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Returns the descriptor of the opened directory.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Returns the opened directory.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Returns the directory's real path (links resolved).
    pub fn real_path(&self) -> &Path {
        &self.real_path
    }

    /// Returns the mapped WAL directory and tablespace directories, opened. If several entries of the map have the same target, the list
    /// has only the first of these entries.
    pub fn mapped(&self) -> &[MappedPlace] {
        &self.mapped
    }

    /// Returns the state file, which tells the next run about this one.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Returns the cluster in the directory; `None` if there is none, or if this run has begun to empty the directory.
    pub fn cluster(&self) -> Option<&FoundCluster> {
        self.cluster.as_ref().filter(|_| !self.has_emptied() && !self.state.is_unfinished())
    }

    /// Keeps the directories that were created for this run, because a method works in them. Without this call, the empty ones among them
    /// are removed when this value is dropped.
    pub fn keep_created_directories(&self) {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).keep();
    }

    fn has_emptied(&self) -> bool {
        self.emptied.load(Ordering::Acquire)
    }
}

/// Refuses, before anything is created, a state directory that overlaps the data directory or a mapped directory (rule 26), and any of
/// these directories that lies inside a cluster. [`DataDirectory::acquire`] checks everything else about the directories.
///
/// # Errors
/// Fails with the rule `state directory`, `data directory` or `mapped place`.
pub fn check_places(directories: &Directories, state_dir: &Path) -> Result<(), Refusal> {
    match places::resolve(directories, state_dir) {
        Err(refusal) if refusal.rule == Rule::StateDirectory => Err(refusal),
        Ok(_) => Ok(()),
        Err(_) => places::refuse_inside_cluster(directories, state_dir),
    }
}

/// Returns the directory of a run in which a file lies: the data directory, a mapped directory or the state directory, with its name for
/// a message. `None` if the file lies in none of them.
pub fn place_around<'a>(
    directories: &'a Directories,
    state_dir: &'a Path,
    file: &Path,
) -> Option<(&'static str, &'a Path)> {
    let state = ("the state directory", state_dir);
    emptied_place_around(directories, file)
        .or_else(|| places::lies_in(file, &real_path(state_dir)).then_some(state))
}

/// Returns the directory that a run may empty (the data directory or a mapped directory) if a path leads into it or through a symbolic link
/// in it. Also returns the name of that directory, for a message. `None` if there is no such directory.
pub fn emptied_place_around<'a>(
    directories: &'a Directories,
    path: &Path,
) -> Option<(&'static str, &'a Path)> {
    let own = [("the data directory", directories.datadir.as_path())];
    let mapped = directories.mapped().map(|path| ("a mapped place", path));
    own.into_iter().chain(mapped).find(|(_, place)| places::goes_with(path, &real_path(place)))
}

#[cfg(test)]
mod tests;
