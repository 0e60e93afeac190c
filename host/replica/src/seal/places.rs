//! The places that a replica takes up: the data directory and what the operator mapped besides, as the run holds them.

use std::path::{Path, PathBuf};

use foundation::rooted::Directory;

use super::problem::{During, Problem, shown};
use crate::datadir::DataDirectory;
use crate::{Directories, Rule, TablespaceMap};

const CHECK: Rule = Rule::Places;

/// A mapped directory, opened.
#[derive(Debug)]
pub(super) struct Place {
    /// As the operator wrote it.
    written: PathBuf,
    /// Its real path, links resolved: what a link to it reads.
    pub(super) path: PathBuf,
    pub(super) directory: Directory,
}

impl Place {
    /// An opened directory that must still be the one at its path, for links to it are made by path.
    fn held(written: &Path, path: &Path, directory: &Directory) -> Result<Self, Problem> {
        let identity = |directory: &Directory| directory.own_metadata().map(|metadata| metadata.identity());
        let there = Directory::open(path).and_then(|there| identity(&there)).during(CHECK)?;
        if there != identity(directory).during(CHECK)? {
            let message = format!("`{}` is no longer the directory that this run holds", path.display());
            return Err(Problem::new(CHECK, message));
        }
        let directory = directory.try_clone().during(CHECK)?;
        Ok(Self { written: written.to_owned(), path: path.to_owned(), directory })
    }
}

/// The data directory and where the operator's map leads.
#[derive(Debug)]
pub(super) struct Places<'a> {
    pub(super) top: Directory,
    /// The data directory's real path.
    pub(super) path: PathBuf,
    /// The data directory as the operator wrote it.
    pub(super) written: &'a Path,
    /// The directory of the write-ahead log, where it is mapped.
    pub(super) wal: Option<Place>,
    pub(super) tablespaces: &'a TablespaceMap,
    mapped: Vec<Place>,
}

impl<'a> Places<'a> {
    /// The places that the run holds. None lies within another: that was seen to when they were taken.
    pub(super) fn held(directory: &DataDirectory, directories: &'a Directories) -> Result<Self, Problem> {
        let top = Place::held(&directories.datadir, directory.real_path(), directory.directory())?;
        let (mut wal, mut mapped) = (None, Vec::new());
        for place in directory.mapped() {
            let held = Place::held(place.path(), place.real_path(), place.directory())?;
            if place.is_wal() {
                wal = Some(held);
            } else {
                mapped.push(held);
            }
        }
        Ok(Self::of(top, directories, wal, mapped))
    }

    fn of(top: Place, directories: &'a Directories, wal: Option<Place>, mapped: Vec<Place>) -> Self {
        Self {
            top: top.directory,
            path: top.path,
            written: &directories.datadir,
            wal,
            tablespaces: &directories.tablespaces,
            mapped,
        }
    }

    /// Whether a real path lies in a place that the operator mapped, for the log or for a tablespace.
    pub(super) fn is_mapped(&self, real: &Path) -> bool {
        self.wal
            .iter()
            .chain(&self.mapped)
            .any(|place| real.starts_with(&place.path) || real.starts_with(&place.written))
    }

    /// The place of a mapped tablespace, of which the map has `target`.
    pub(super) fn tablespace(&self, target: &Path) -> Result<&Place, Problem> {
        // Of two entries that lead to one place only the first is held.
        self.mapped
            .iter()
            .find(|place| place.written == target)
            .or_else(|| self.mapped.iter().find(|place| is_at(target, &place.path)))
            .ok_or_else(|| {
                let target = shown(target.as_os_str().as_encoded_bytes());
                Problem::new(CHECK, format!("`{target}` is not a directory that this run holds"))
            })
    }
}

/// Whether `path` leads to the directory whose real path is `real`.
pub(super) fn is_at(path: &Path, real: &Path) -> bool {
    path == real || path.canonicalize().is_ok_and(|path| path == real)
}

#[cfg(test)]
impl<'a> Places<'a> {
    /// The places at these paths, opened here and now.
    pub(super) fn opened(directories: &'a Directories) -> Self {
        let open = |path: &Path| {
            let real = path.canonicalize().unwrap();
            Place::held(path, &real, &Directory::open(&real).unwrap()).unwrap()
        };
        let mapped = directories.tablespaces.targets().filter(|target| target.exists()).map(open).collect();
        Self::of(open(&directories.datadir), directories, directories.wal.as_deref().map(open), mapped)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_place_that_was_exchanged_since_it_was_opened_is_noticed() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("wal");
        fs::create_dir(&path).unwrap();
        let directory = Directory::open(&path).unwrap();
        assert!(Place::held(&path, &path, &directory).is_ok());
        fs::rename(&path, root.path().join("moved")).unwrap();
        assert!(Place::held(&path, &path, &directory).is_err());
        fs::create_dir(&path).unwrap();
        assert!(Place::held(&path, &path, &directory).unwrap_err().message.contains("no longer"));
    }
}
