//! Files and directories that the operator names and a run reads. They must be outside of every directory that a run empties.

use std::path::{Path, PathBuf};

use replica::Directories;
use replica::datadir::emptied_place_around;

use super::problem::{Origin, Place, Problem};

/// A file or directory that must not be in a directory that a run empties.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    path: PathBuf,
    /// The name of the file or directory in messages, such as "what `source.passfile` names".
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

    /// Returns the path, and its name in messages together with the place where the operator wrote it.
    pub(super) fn trusted(&self) -> (&Path, String) {
        let what = match &self.origin {
            Origin::File { place, .. } if self.name.contains('`') => {
                format!("{} (line {} of the configuration)", self.name, place.line)
            }
            Origin::File { .. } => self.name.clone(),
            Origin::Flag { flag } if self.name.contains('`') => format!("{} ({flag})", self.name),
            Origin::Flag { flag } => format!("{} that {flag} names", self.name),
        };
        (&self.path, what)
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
