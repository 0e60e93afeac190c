//! The data directory: what it holds, who may touch it, how it is emptied. Semantics rules 8, 22 to 26, 28.
//!
//! [`DataDirectory::acquire`] answers whether a run may touch the operator's directories, and takes them for it. Everything
//! after that goes through the descriptors that it opened, so that no renaming and no link leads a run elsewhere.

mod acquire;
mod apart;
mod cluster;
mod contents;
mod empty;
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
pub use apart::{Around, cluster_of};
pub use cluster::FoundCluster;
pub use contents::Contents;
pub use empty::{Emptied, Extent};
use places::Made;
pub use places::MappedPlace;
pub use room::FileSystemRoom;

/// A data directory that this run alone may touch: checked, locked, its state file open.
#[derive(Debug)]
pub struct DataDirectory {
    /// The first, for what is removed of it goes while the locks are held: whoever gets one then finds the directory gone.
    made: Mutex<Made>,
    directory: Directory,
    real_path: std::path::PathBuf,
    identity: (u64, u64),
    mapped: Vec<MappedPlace>,
    state: State,
    /// The cluster that it held when it was taken.
    cluster: Option<FoundCluster>,
    /// Whether the state file called it unfinished then, whatever was in it.
    marked: bool,
    /// Whether this run has emptied it before, and so checked again that nobody else uses it.
    worked_in: AtomicBool,
}

impl DataDirectory {
    /// What it holds now. While unfinished work is left in a mapped directory it is not `Nothing`.
    ///
    /// # Errors
    /// Where it cannot be read.
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

    /// Bytes and files that `Extent::Everything` would free, over all file systems; [`DataDirectory::room`] tells them apart.
    ///
    /// # Errors
    /// As [`DataDirectory::room`].
    pub fn reclaimable(&self) -> std::io::Result<(Bytes, u64)> {
        let room = self.room()?;
        Ok((
            Bytes(room.iter().map(|one| one.reclaimable.0).sum()),
            room.iter().map(|one| one.reclaimable_files).sum(),
        ))
    }

    /// The descriptor that carries the lock; native children inherit a copy, so that a killed run with a live child still holds it.
    pub fn lock(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// The opened directory, for what works below it.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// The opened directory, with what can be done below it.
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// The directory's real path (links resolved).
    pub fn real_path(&self) -> &Path {
        &self.real_path
    }

    /// The mapped WAL directory and tablespaces, opened; of several entries of the map with one target, the first.
    pub fn mapped(&self) -> &[MappedPlace] {
        &self.mapped
    }

    /// What is told to the next run about this one.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The cluster that it holds; `None` where it holds none, or this run has begun to empty it.
    pub fn cluster(&self) -> Option<&FoundCluster> {
        self.cluster.as_ref().filter(|_| !self.has_worked() && !self.state.is_unfinished())
    }

    /// The directories that were made for this run stay, also where they are empty: a method was at work in them. Otherwise those
    /// that are empty go with this.
    pub fn keep_what_was_made(&self) {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).keep();
    }

    fn has_worked(&self) -> bool {
        self.worked_in.load(Ordering::Acquire)
    }
}

/// Refuses, before anything is made, a state directory that overlaps the data directory or a mapped directory (rule 26), and any of
/// these that lies inside a cluster. What else is wrong with the directories [`DataDirectory::acquire`] says.
///
/// # Errors
/// `state directory`, `data directory`, `mapped place`.
pub fn check_places(directories: &Directories, state_dir: &Path) -> Result<(), Refusal> {
    match places::resolve(directories, state_dir) {
        Err(refusal) if refusal.rule == Rule::StateDirectory => Err(refusal),
        Ok(_) => Ok(()),
        Err(_) => places::refuse_inside_cluster(directories, state_dir),
    }
}

/// In which of the places that a run writes to, or may empty, a file lies: the data directory, a mapped directory or the state
/// directory. `None` if it lies in none of them.
pub fn place_around<'a>(
    directories: &'a Directories,
    state_dir: &'a Path,
    file: &Path,
) -> Option<(&'static str, &'a Path)> {
    let own = [("the data directory", directories.datadir.as_path()), ("the state directory", state_dir)];
    let mapped = directories.mapped().map(|path| ("a mapped place", path));
    own.into_iter().chain(mapped).find(|(_, path)| places::lies_in(file, &real_path(path)))
}

#[cfg(test)]
mod tests;
