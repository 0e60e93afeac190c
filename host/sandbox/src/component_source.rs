//! Where the bytes of a component come from.

use std::fmt;
use std::path::{Path, PathBuf};

/// Where a component comes from. `Display` writes the name that messages and the report use.
#[derive(Clone, PartialEq, Eq)]
pub enum ComponentSource {
    /// The absolute path of a file.
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

/// Writes what `Display` writes, as `ComponentSource(...)`. A derived `Debug` would also write the bytes of the component.
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
