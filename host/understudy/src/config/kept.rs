//! What the operator names and a run reads. It must lie outside of every place that a run empties.

use std::path::{Path, PathBuf};

use replica::Directories;
use replica::datadir::emptied_place_around;

use super::problem::{Origin, Place, Problem};

/// A file or a directory of the operator's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    path: PathBuf,
    /// What names it, as messages have it: a setting, a variable of the environment.
    name: String,
    origin: Origin,
}

impl Kept {
    /// What `name` in the configuration, or on the command line, leads to.
    pub(super) fn new(path: impl Into<PathBuf>, name: impl Into<String>, origin: Origin) -> Self {
        Self { path: path.into(), name: name.into(), origin }
    }

    /// The configuration file itself. A relative path is relative to the current directory, which changes when root is dropped.
    pub(super) fn configuration(file: &Path) -> Self {
        let origin = Origin::File { file: file.to_owned(), place: Place { line: 1, column: 1 } };
        Self::new(
            std::path::absolute(file).unwrap_or_else(|_| file.to_owned()),
            "the configuration file",
            origin,
        )
    }

    /// The problem if it lies, or is reached by a link that lies, in a place that a run empties. The path is not quoted: it may be of
    /// a file with a secret.
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
