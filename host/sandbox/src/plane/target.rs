//! The opened directories that a run's jobs write to, with the disk budget of the run.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use foundation::rooted::{Directory, RelativePath};
use replica::seal::UNFINISHED_CONTROL_FILE;
use replica::{Directories, Tablespace};
use transfer::target::{Budget, Mapped, Target};

use crate::files::Quota;

const CONTROL_FILE: RelativePath = RelativePath::literal("global/pg_control");
const UNFINISHED: RelativePath = RelativePath::literal(UNFINISHED_CONTROL_FILE);
const PG_WAL: RelativePath = RelativePath::literal("pg_wal");

/// The modes that PostgreSQL gives the files and directories of a cluster (`src/common/file_perm.c`). Like PostgreSQL's modes, they include
/// group access if the data directory has it.
const OWNER_ONLY: (u32, u32) = (0o600, 0o700);
const GROUP_TOO: (u32, u32) = (0o640, 0o750);
const GROUP_MAY_READ: u32 = 0o050;

/// A directory that cannot be written to.
#[derive(Debug, thiserror::Error)]
#[error("cannot open {path}")]
pub(crate) struct NoTarget {
    path: PathBuf,
    source: io::Error,
}

/// Opens the data directory, the WAL directory and the directories of the plan's tablespaces. Must be called before Landlock restricts
/// this thread.
///
/// # Errors
/// Names the first directory that cannot be opened.
pub(crate) fn target(
    directories: &Directories,
    tablespaces: &[Tablespace],
    quota: &Quota,
) -> Result<Target, NoTarget> {
    let failed = |path: &std::path::Path| {
        let path = path.to_owned();
        move |source| NoTarget { path, source }
    };
    let open = |path: &std::path::Path| Directory::open(path).map_err(failed(path));
    let root = open(&directories.datadir)?;
    let mode = root.own_metadata().map_err(failed(&directories.datadir))?.mode;
    let mut mapped = Vec::new();
    if let Some(wal) = &directories.wal {
        mapped.push(Mapped { path: PG_WAL, directory: open(wal)? });
    }
    for Tablespace { oid, name, location } in tablespaces {
        let Some(place) = directories.tablespaces.target(*oid, name.as_deref(), location) else { continue };
        let path = RelativePath::new(format!("pg_tblspc/{oid}"))
            .map_err(|error| failed(place)(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        mapped.push(Mapped { path, directory: open(place)? });
    }
    Ok(Target {
        root,
        mapped,
        renamed: vec![(CONTROL_FILE, UNFINISHED)],
        budget: Arc::new(quota.clone()),
        modes: if mode & GROUP_MAY_READ == GROUP_MAY_READ { GROUP_TOO } else { OWNER_ONLY },
    })
}

impl Budget for Quota {
    fn write(&self, file: &File, start: u64, length: u64) -> io::Result<()> {
        Self::write(self, file, start, length)
    }

    fn extend(&self, file: &File, size: u64) -> io::Result<()> {
        self.grow(file, size)
    }

    fn make(&self, place: &File) -> io::Result<()> {
        Self::make(self, place)
    }

    fn disk_is_full(&self) {
        Self::disk_is_full(self);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use replica::{TablespaceKey, TablespaceMap};

    use super::*;

    #[test]
    fn restored_files_get_group_access_if_the_data_directory_has_it() {
        let place = tempfile::tempdir().unwrap();
        let directories = Directories {
            datadir: place.path().to_owned(),
            wal: None,
            tablespaces: TablespaceMap::default(),
        };
        let modes = |mode| {
            fs::set_permissions(place.path(), PermissionsExt::from_mode(mode)).unwrap();
            target(&directories, &[], &Quota::new(None)).unwrap().modes
        };
        assert_eq!(modes(0o700), (0o600, 0o700));
        assert_eq!(modes(0o750), (0o640, 0o750));
        assert_eq!(modes(0o710), (0o600, 0o700));
    }

    #[test]
    fn mapped_directories_have_their_paths_below_the_data_directory() {
        let place = tempfile::tempdir().unwrap();
        for name in ["data", "wal", "fast"] {
            fs::create_dir(place.path().join(name)).unwrap();
        }
        let map = TablespaceMap::new(vec![(TablespaceKey::parse("/old"), place.path().join("fast"))]);
        let directories = Directories {
            datadir: place.path().join("data"),
            wal: Some(place.path().join("wal")),
            tablespaces: map,
        };
        let tablespace = |oid, location: &str| Tablespace { oid, name: None, location: location.into() };
        let plan = [tablespace(16384, "/old"), tablespace(16385, "/unmapped")];
        let target = target(&directories, &plan, &Quota::new(None)).unwrap();
        let mapped: Vec<_> = target.mapped.iter().map(|mapped| mapped.path.as_path().to_owned()).collect();
        assert_eq!(mapped, ["pg_wal", "pg_tblspc/16384"].map(PathBuf::from));
    }

    #[test]
    fn the_error_names_a_missing_directory() {
        let place = tempfile::tempdir().unwrap();
        let wal = place.path().join("absent");
        let directories = Directories {
            datadir: place.path().to_owned(),
            wal: Some(wal.clone()),
            tablespaces: TablespaceMap::default(),
        };
        let error = target(&directories, &[], &Quota::new(None)).err().unwrap().to_string();
        assert!(error.contains(wal.to_str().unwrap()), "{error}");
    }
}
