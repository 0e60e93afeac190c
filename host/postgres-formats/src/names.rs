//! Paths, relative to the data directory, that the host and the methods must agree on, and the names of the folders in tablespace
//! directories (`src/include/common/relpath.h`).
//!
//! The paths are in a file of their own, which is a module of the crate `understudy-sdk` too: that crate is published without this one.

mod paths;

use std::fmt;

use crate::version::Version;

pub use paths::*;

/// The folder in a tablespace directory that holds one cluster's files, such as `PG_15_202209061` (`TABLESPACE_VERSION_DIRECTORY`):
/// named by the major version and the nine-digit catalog version number (`CATALOG_VERSION_NO` in
/// `src/include/catalog/catversion.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TablespaceFolder {
    /// The major version.
    pub version: Version,
    /// The catalog version number.
    pub catalog: u32,
}

impl TablespaceFolder {
    /// Parses the name of a version folder; `None` for any other name.
    pub fn parse(name: &[u8]) -> Option<Self> {
        let rest = name.strip_prefix(b"PG_")?;
        let end = rest.iter().position(|byte| *byte == b'_')?;
        let (version, catalog) = (&rest[..end], &rest[end + 1..]);
        (catalog.len() == 9 && catalog.iter().all(u8::is_ascii_digit)).then_some(())?;
        let catalog = std::str::from_utf8(catalog).ok()?.parse().ok()?;
        let folder = Self { version: Version::parse(version)?, catalog };
        // Otherwise a number with leading zeros would give a folder two names.
        (folder.to_string().as_bytes() == name).then_some(folder)
    }
}

impl fmt::Display for TablespaceFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PG_{}_{:09}", self.version, self.catalog)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folders_of_a_tablespace_are_distinguished_from_others() {
        for (name, major, catalog) in [
            ("PG_15_202209061", Some(15), 202_209_061),
            ("PG_18_202506291", Some(18), 202_506_291),
            ("PG_9.6_201608131", None, 201_608_131),
        ] {
            let folder = TablespaceFolder::parse(name.as_bytes()).unwrap();
            assert_eq!((folder.version.major(), folder.catalog), (major, catalog), "{name}");
            assert_eq!(folder.to_string(), name);
        }
        for name in [
            "PG_15",
            "PG_15_",
            "PG_15_x",
            "PG__1",
            "PG_15_20220906",
            "PG_15_202209061_",
            "PG_15_+20220906",
            "PG_015_202209061",
            "PG_x_202209061",
            "pg_15_202209061",
            "pg_hba.conf",
            "16384",
        ] {
            assert_eq!(TablespaceFolder::parse(name.as_bytes()), None, "{name}");
        }
    }
}
