//! Files and directories that the operator names and a run reads. They must lie outside every place that a run empties.

use std::path::{Path, PathBuf};

use replica::Directories;
use replica::datadir::emptied_place_around;

use super::problem::{Origin, Place, Problem};

/// A file or a directory that no run may empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    path: PathBuf,
    /// What messages call the file or directory, such as "what `source.passfile` names".
    name: String,
    origin: Origin,
}

impl Kept {
    /// Creates an entry for `path`, which messages call `name`. `origin` is where the operator wrote the path.
    pub(super) fn new(path: impl Into<PathBuf>, name: impl Into<String>, origin: Origin) -> Self {
        Self { path: path.into(), name: name.into(), origin }
    }

    /// Creates an entry for the configuration file. Its path is made absolute because the current directory changes when the program drops
    /// root.
    pub(super) fn configuration(file: &Path) -> Self {
        let origin = Origin::File { file: file.to_owned(), place: Place { line: 1, column: 1 } };
        Self::new(
            std::path::absolute(file).unwrap_or_else(|_| file.to_owned()),
            "the configuration file",
            origin,
        )
    }

    /// Returns a problem if the path, or a link on the way to it, lies in a place that a run empties. The message does not quote the path,
    /// because it may be the path of a file with a secret.
    pub(super) fn problem(&self, directories: &Directories) -> Option<Problem> {
        let (what, place) = emptied_place_around(directories, &self.path)?;
        let message = format!(
            "{} lies in {what}, {}, which a run empties: keep it elsewhere",
            self.name,
            place.display()
        );
        Some(Problem { origin: self.origin.clone(), message })
    }
}
