//! The directories of a replica, all locked by the run: the data directory and the mapped directories.

use std::path::{Path, PathBuf};

use foundation::rooted::Directory;

use super::problem::{During, Problem, shown};
use crate::datadir::DataDirectory;
use crate::{Directories, Rule, TablespaceMap};

const CHECK: Rule = Rule::Places;

/// A mapped directory, opened.
#[derive(Debug)]
pub(super) struct Place {
    /// The path, as the operator wrote it.
    written: PathBuf,
    /// The real path of the directory, with links resolved: the target of a link to the directory.
    pub(super) path: PathBuf,
    pub(super) directory: Directory,
}

impl Place {
    /// Checks that an opened directory is still the one at its path, because links to it are made by path.
    fn checked(written: &Path, path: &Path, directory: &Directory) -> Result<Self, Problem> {
        let identity = |directory: &Directory| directory.own_metadata().map(|metadata| metadata.identity());
        let there = Directory::open(path).and_then(|there| identity(&there)).during(CHECK)?;
        if there != identity(directory).during(CHECK)? {
            let message = format!("`{}` is no longer the directory that this run has locked", path.display());
            return Err(Problem::new(CHECK, message));
        }
        let directory = directory.try_clone().during(CHECK)?;
        Ok(Self { written: written.to_owned(), path: path.to_owned(), directory })
    }
}

/// The data directory and the mapped directories.
#[derive(Debug)]
pub(super) struct Places<'a> {
    pub(super) top: Directory,
    /// The data directory's real path.
    pub(super) path: PathBuf,
    /// The data directory as the operator wrote it.
    pub(super) written: &'a Path,
    /// The directory of the write-ahead log, if it is mapped.
    pub(super) wal: Option<Place>,
    pub(super) tablespaces: &'a TablespaceMap,
    mapped: Vec<Place>,
}

impl<'a> Places<'a> {
    /// Returns the directories that the run has locked. None of them lies within another; that was checked before they were locked.
    pub(super) fn of(directory: &DataDirectory, directories: &'a Directories) -> Result<Self, Problem> {
        let top = Place::checked(&directories.datadir, directory.real_path(), directory.directory())?;
        let (mut wal, mut mapped) = (None, Vec::new());
        for place in directory.mapped() {
            let checked = Place::checked(place.path(), place.real_path(), place.directory())?;
            if place.is_wal() {
                wal = Some(checked);
            } else {
                mapped.push(checked);
            }
        }
        Ok(Self::from_parts(top, directories, wal, mapped))
    }

    /// Returns a scratch directory in place of the data directory, for checks before anything is restored.
    pub(super) fn of_scratch(scratch: &Path, directories: &'a Directories) -> Result<Self, Problem> {
        let top = Directory::open(scratch).during(CHECK)?;
        let top = Place { written: scratch.to_owned(), path: scratch.to_owned(), directory: top };
        Ok(Self::from_parts(top, directories, None, Vec::new()))
    }

    fn from_parts(top: Place, directories: &'a Directories, wal: Option<Place>, mapped: Vec<Place>) -> Self {
        Self {
            top: top.directory,
            path: top.path,
            written: &directories.datadir,
            wal,
            tablespaces: &directories.tablespaces,
            mapped,
        }
    }

    /// Returns whether a real path lies in a mapped directory, for the log or for a tablespace.
    pub(super) fn is_mapped(&self, real: &Path) -> bool {
        self.wal
            .iter()
            .chain(&self.mapped)
            .any(|place| real.starts_with(&place.path) || real.starts_with(&place.written))
    }

    /// Returns the directory for `target`, the value of an entry of the map.
    pub(super) fn tablespace(&self, target: &Path) -> Result<&Place, Problem> {
        // If two entries lead to the same directory, only the directory of the first entry is locked.
        self.mapped
            .iter()
            .find(|place| place.written == target)
            .or_else(|| self.mapped.iter().find(|place| is_at(target, &place.path)))
            .ok_or_else(|| {
                let target = shown(target.as_os_str().as_encoded_bytes());
                Problem::new(CHECK, format!("`{target}` is not a directory that this run has locked"))
            })
    }
}

/// Returns whether `path` leads to the directory whose real path is `real`.
pub(super) fn is_at(path: &Path, real: &Path) -> bool {
    path == real || path.canonicalize().is_ok_and(|path| path == real)
}

#[cfg(test)]
impl<'a> Places<'a> {
    /// Opens the directories at these paths.
    pub(super) fn opened(directories: &'a Directories) -> Self {
        let open = |path: &Path| {
            let real = path.canonicalize().unwrap();
            Place::checked(path, &real, &Directory::open(&real).unwrap()).unwrap()
        };
        let mapped = directories.tablespaces.targets().filter(|target| target.exists()).map(open).collect();
        Self::from_parts(
            open(&directories.datadir),
            directories,
            directories.wal.as_deref().map(open),
            mapped,
        )
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_directory_that_was_replaced_since_it_was_opened_is_noticed() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("wal");
        fs::create_dir(&path).unwrap();
        let directory = Directory::open(&path).unwrap();
        assert!(Place::checked(&path, &path, &directory).is_ok());
        fs::rename(&path, root.path().join("moved")).unwrap();
        assert!(Place::checked(&path, &path, &directory).is_err());
        fs::create_dir(&path).unwrap();
        assert!(Place::checked(&path, &path, &directory).unwrap_err().message.contains("no longer"));
    }
}
