//! The directories that the operator gave to the replica: nothing outside them is ever touched.

use std::path::{Path, PathBuf};

use postgres_formats::names::PG_WAL;

/// The operator's directories. All paths are absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directories {
    /// The data directory, as the operator wrote it; it may be a symbolic link to a directory.
    pub datadir: PathBuf,
    /// The directory of the write-ahead log, if it is not `<datadir>/pg_wal`.
    pub wal: Option<PathBuf>,
    /// Where each tablespace of a backup goes.
    pub tablespaces: TablespaceMap,
}

impl Directories {
    /// Returns the directory of the write-ahead log: the operator's, or `<datadir>/pg_wal`.
    pub fn wal_directory(&self) -> PathBuf {
        self.wal.clone().unwrap_or_else(|| self.datadir.join(PG_WAL))
    }

    /// Returns every directory outside the data directory that the operator named.
    pub fn mapped(&self) -> impl Iterator<Item = &Path> {
        self.wal.as_deref().into_iter().chain(self.tablespaces.targets())
    }
}

/// How the operator names a tablespace of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TablespaceKey {
    /// The tablespace's path on the server that was backed up: `"/old/path"`.
    Location(PathBuf),
    /// The tablespace's object identifier in `pg_tablespace`: `"16384"`.
    Oid(u32),
    /// The tablespace's name, which only some backup formats record: `"fast_disks"`.
    Name(String),
}

impl TablespaceKey {
    /// Parses a key of the map in the configuration: a leading `/` makes it a location, digits alone make it an object identifier, anything
    /// else makes it a name.
    pub fn parse(text: &str) -> Self {
        if text.starts_with('/') {
            Self::Location(PathBuf::from(text))
        } else if let Ok(oid) = text.parse() {
            Self::Oid(oid)
        } else {
            Self::Name(text.to_owned())
        }
    }
}

/// The operator's map from a tablespace of the backup to a directory of this machine. A tablespace that the map does not name is not
/// restored, not even to its original path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TablespaceMap(Vec<(TablespaceKey, PathBuf)>);

impl TablespaceMap {
    /// Returns a map of these entries; if several entries have the same key, the first one counts.
    pub fn new(entries: Vec<(TablespaceKey, PathBuf)>) -> Self {
        Self(entries)
    }

    /// Returns the directory for a tablespace, looked up by its location, its object identifier and its name, in this order.
    pub fn target(&self, oid: u32, name: Option<&str>, location: &Path) -> Option<&Path> {
        let find = |fits: &dyn Fn(&TablespaceKey) -> bool| self.0.iter().find(|(key, _)| fits(key));
        find(&|key| matches!(key, TablespaceKey::Location(from) if from == location))
            .or_else(|| find(&|key| matches!(key, TablespaceKey::Oid(of) if *of == oid)))
            .or_else(|| find(&|key| matches!(key, TablespaceKey::Name(of) if Some(of.as_str()) == name)))
            .map(|(_, to)| to.as_path())
    }

    /// Returns every directory of the map.
    pub fn targets(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(|(_, to)| to.as_path())
    }

    /// Returns the entries, in the operator's order.
    pub fn entries(&self) -> impl Iterator<Item = (&TablespaceKey, &Path)> {
        self.0.iter().map(|(key, to)| (key, to.as_path()))
    }
}
