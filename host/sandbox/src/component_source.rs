//! Where the bytes of a component come from.

use std::fmt;
use std::path::{Path, PathBuf};

/// Where a component comes from. Shown as messages and the report name it.
#[derive(Clone, PartialEq, Eq)]
pub enum ComponentSource {
    /// A file, absolute.
    File(PathBuf),
    /// A component that is included in this program.
    Included {
        /// The name by which it is found, such as `tarball`.
        name: &'static str,
        /// The component itself.
        bytes: &'static [u8],
    },
}

impl fmt::Display for ComponentSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(formatter),
            Self::Included { name, .. } => write!(formatter, "{name} (included in the program)"),
        }
    }
}

/// As it is shown: nobody wants to read the bytes.
impl fmt::Debug for ComponentSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ComponentSource({self})")
    }
}

impl From<PathBuf> for ComponentSource {
    fn from(path: PathBuf) -> Self {
        Self::File(path)
    }
}

impl From<&PathBuf> for ComponentSource {
    fn from(path: &PathBuf) -> Self {
        Self::File(path.clone())
    }
}

impl From<&Path> for ComponentSource {
    fn from(path: &Path) -> Self {
        Self::File(path.to_owned())
    }
}
