//! Where the data plane writes: resolves each path in the data directory to an opened directory and a path below it. Follows the operator's
//! map for `pg_wal` and the tablespaces.

use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use crate::error::{Error, Kind};
use crate::reserved;
use foundation::rooted::{Directory, RelativePath};

/// The longest name of a directory entry in bytes (NAME_MAX).
const LONGEST_NAME: usize = 255;

/// The disk budget. The data plane asks it before it writes or creates anything.
pub trait Budget: Send + Sync {
    /// Allows writing `length` bytes of `file` from `start` on.
    ///
    /// # Errors
    /// ENOSPC if the budget does not cover them; the item then fails with the kind `Limit`.
    fn write(&self, file: &File, start: u64, length: u64) -> io::Result<()>;

    /// Allows making `file` as long as `size` bytes without writing them.
    ///
    /// # Errors
    /// The errors of [`Budget::write`].
    fn extend(&self, file: &File, size: u64) -> io::Result<()>;

    /// Allows creating a file, directory or link in the file system of `place`.
    ///
    /// # Errors
    /// The errors of [`Budget::write`].
    fn make(&self, place: &File) -> io::Result<()>;

    /// Records that a write within the budget failed because the file system is full.
    fn disk_is_full(&self) {}
}

/// The directory of the links to tablespaces.
const TABLESPACES: &str = "pg_tblspc";

/// Why an item of a job or a member of an archive may not be written at a path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefusedPath {
    /// A component of the path is `pg_control`; see [`crate::reserved`].
    #[error(
        "only the host may give a file the name `{}`, when it has checked the whole replica",
        reserved::CONTROL_FILE
    )]
    ControlFile,
    /// The path lies in a tablespace that is not mapped.
    #[error("no directory is mapped for tablespace {0}")]
    UnmappedTablespace(u32),
    /// The path lies in `pg_tblspc`, and its name there is not the oid of a tablespace.
    #[error("a tablespace is named by its oid")]
    NotATablespace,
}

/// A directory outside the data directory that replaces a path in the data directory: `pg_wal`, `pg_tblspc/16384`.
#[derive(Debug)]
pub struct Mapped {
    /// The path in the data directory.
    pub path: RelativePath,
    /// The opened directory.
    pub directory: Directory,
}

/// A data directory that is open for writing.
pub struct Target {
    /// The data directory.
    pub root: Directory,
    /// Paths that are mapped to other directories. If several paths match, the longest applies.
    pub mapped: Vec<Mapped>,
    /// Files that are written under another name until the host renames them (`global/pg_control`): pairs of the final and the written
    /// name.
    pub renamed: Vec<(RelativePath, RelativePath)>,
    /// The disk budget.
    pub budget: Arc<dyn Budget>,
    /// All permission bits that a file may have, such as 0o600 or 0o640, and that a directory may have, such as 0o700 or 0o750.
    pub modes: (u32, u32),
}

/// A directory of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Root {
    /// The data directory.
    Datadir,
    /// A mapped directory, by its index.
    Mapped(usize),
}

/// Where a path in the data directory really lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The directory below which it lies.
    pub(crate) root: Root,
    /// The path relative to `root`.
    pub(crate) path: RelativePath,
}

impl Target {
    /// Returns the opened directory.
    pub(crate) fn directory(&self, root: Root) -> &Directory {
        match root {
            Root::Datadir => &self.root,
            Root::Mapped(index) => self.mapped.get(index).map_or(&self.root, |mapped| &mapped.directory),
        }
    }

    /// Checks whether a file or directory may be created at `path`: nothing named `pg_control` except the file that the host
    /// renames later, and nothing in a tablespace that is not mapped.
    ///
    /// # Errors
    /// [`RefusedPath`] says why not.
    pub fn check_path(&self, path: &RelativePath) -> Result<(), RefusedPath> {
        let is_renamed = self.renamed.iter().any(|(from, _)| path == from);
        if !is_renamed && reserved::has_control_file(path.as_os_str().as_bytes()) {
            return Err(RefusedPath::ControlFile);
        }
        let mut names = path.as_path().iter();
        if names.next().is_none_or(|first| first != TABLESPACES) {
            return Ok(());
        }
        let Some(name) = names.next() else { return Ok(()) };
        let is_mapped = |mapped: &Mapped| {
            let mut names = mapped.path.as_path().iter();
            names.next().is_some_and(|first| first == TABLESPACES) && names.next() == Some(name)
        };
        if self.mapped.iter().any(is_mapped) {
            return Ok(());
        }
        Err(match name.to_str().and_then(|name| name.parse().ok()) {
            Some(oid) => RefusedPath::UnmappedTablespace(oid),
            None => RefusedPath::NotATablespace,
        })
    }

    /// Returns where the file `path` is written.
    ///
    /// # Errors
    /// `Invalid` if the path is mapped or lies above a mapped path, if it lies below a file that the host renames later, or if
    /// [`Target::check_path`] refuses it.
    pub(crate) fn file(&self, path: &RelativePath) -> Result<Place, Error> {
        let path = self.name(path)?;
        if let Some(mapped) = self.mapped.iter().find(|mapped| is_within(&mapped.path, path)) {
            return Err(invalid(path, &format!("`{}` is a directory", mapped.path)));
        }
        self.place(path)
    }

    /// Returns where the directory `path` is created; `None` if it is mapped and therefore exists already.
    ///
    /// # Errors
    /// `Invalid` if the path is a file that the host renames later or lies below such a file, or if [`Target::check_path`] refuses it.
    pub(crate) fn directory_of(&self, path: &RelativePath) -> Result<Option<Place>, Error> {
        if self.renamed.iter().any(|(from, to)| path == from || path == to) {
            return Err(invalid(path, "a directory cannot have this name"));
        }
        if self.mapped.iter().any(|mapped| mapped.path == *path) {
            return Ok(None);
        }
        self.name(path).and_then(|path| self.place(path)).map(Some)
    }

    /// Returns the path under which the file `path` is written.
    fn name<'a>(&'a self, path: &'a RelativePath) -> Result<&'a RelativePath, Error> {
        if path.as_os_str().as_bytes().split(|byte| *byte == b'/').any(|name| name.len() > LONGEST_NAME) {
            return Err(invalid(path, &format!("a name in it is longer than {LONGEST_NAME} bytes")));
        }
        self.check_path(path).map_err(|why| invalid(path, &why.to_string()))?;
        for (from, to) in &self.renamed {
            if path == from {
                return Ok(to);
            }
            if path != to && (is_within(path, from) || is_within(path, to)) {
                return Err(invalid(path, &format!("`{from}` is a file")));
            }
        }
        Ok(path)
    }

    fn place(&self, path: &RelativePath) -> Result<Place, Error> {
        let longest = self
            .mapped
            .iter()
            .enumerate()
            .filter(|(_, mapped)| is_within(path, &mapped.path))
            .max_by_key(|(_, mapped)| mapped.path.as_os_str().len());
        let Some((index, mapped)) = longest else {
            return Ok(Place { root: Root::Datadir, path: path.clone() });
        };
        let rest = &path.as_os_str().as_bytes()[mapped.path.as_os_str().len()..];
        let rest = std::ffi::OsStr::from_bytes(rest.strip_prefix(b"/").unwrap_or(rest));
        let below = RelativePath::new(rest).map_err(|why| invalid(path, &why.to_string()))?;
        Ok(Place { root: Root::Mapped(index), path: below })
    }
}

/// Returns whether `path` is `directory` or lies below it.
fn is_within(path: &RelativePath, directory: &RelativePath) -> bool {
    let (path, directory) = (path.as_os_str().as_bytes(), directory.as_os_str().as_bytes());
    path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

fn invalid(path: &RelativePath, why: &str) -> Error {
    Error::new(Kind::Invalid, format!("`{}` cannot be written: {why}", path.as_path().display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Free;

    impl Budget for Free {
        fn write(&self, _: &File, _: u64, _: u64) -> io::Result<()> {
            Ok(())
        }

        fn extend(&self, _: &File, _: u64) -> io::Result<()> {
            Ok(())
        }

        fn make(&self, _: &File) -> io::Result<()> {
            Ok(())
        }
    }

    fn path(text: &str) -> RelativePath {
        RelativePath::new(text).unwrap()
    }

    fn target() -> Target {
        let open = || Directory::open(std::path::Path::new("/")).unwrap();
        let mapped = |text| Mapped { path: path(text), directory: open() };
        Target {
            root: open(),
            mapped: vec![mapped("pg_tblspc/1"), mapped("pg_wal"), mapped("pg_tblspc/1/PG_15/5")],
            renamed: vec![(path("global/pg_control"), path("global/pg_control.understudy"))],
            budget: Arc::new(Free),
            modes: (0o600, 0o700),
        }
    }

    #[test]
    fn the_longest_mapped_path_applies() {
        for (name, root, below) in [
            ("base/1", Root::Datadir, "base/1"),
            ("pg_wal/0001", Root::Mapped(1), "0001"),
            ("pg_wal2/0001", Root::Datadir, "pg_wal2/0001"),
            ("pg_tblspc/1/PG_15/4/1", Root::Mapped(0), "PG_15/4/1"),
            ("pg_tblspc/1/PG_15/5/1", Root::Mapped(2), "1"),
        ] {
            assert_eq!(target().file(&path(name)).unwrap(), Place { root, path: path(below) }, "{name}");
        }
    }

    #[test]
    fn the_control_file_goes_to_its_unfinished_name() {
        let unfinished = Place { root: Root::Datadir, path: path("global/pg_control.understudy") };
        assert_eq!(target().file(&path("global/pg_control")).unwrap(), unfinished);
        assert_eq!(target().file(&path("./global//pg_control")).unwrap(), unfinished);
        assert_eq!(target().file(&path("global/pg_control.understudy")).unwrap(), unfinished);
    }

    #[test]
    fn reserved_and_mapped_paths_are_refused() {
        let long = "x".repeat(256);
        for name in [
            "pg_wal",
            "pg_tblspc",
            "pg_tblspc/12/PG_15/5/1",
            "pg_tblspc/x",
            "pg_control",
            "g2/pg_control",
            "global/PG_CONTROL",
            "global/pg_control.understudy/pg_control",
            "pg_wal/pg_control",
            "pg_tblspc/1/pg_control",
            "pg_tblspc/1",
            "pg_tblspc/1/PG_15",
            "global/pg_control/x",
            "global/pg_control.understudy/x",
            &long,
            &format!("{long}/x"),
        ] {
            assert_eq!(target().file(&path(name)).unwrap_err().kind, Kind::Invalid, "{name}");
        }
        for name in [
            "global/pg_control",
            "global/pg_control.understudy",
            "global/pg_control/x",
            "g2/pg_control",
            "pg_control/x",
            "pg_wal/pg_control",
            "pg_tblspc/12",
            "pg_tblspc/12/PG_15",
            "pg_tblspc/x",
            &long,
        ] {
            assert_eq!(target().directory_of(&path(name)).unwrap_err().kind, Kind::Invalid, "{name}");
        }
    }

    #[test]
    fn a_mapped_directory_exists_already() {
        assert_eq!(target().directory_of(&path("pg_wal")).unwrap(), None);
        let above = Place { root: Root::Datadir, path: path("pg_tblspc") };
        assert_eq!(target().directory_of(&path("pg_tblspc")).unwrap(), Some(above));
        let below = Place { root: Root::Mapped(1), path: path("archive_status") };
        assert_eq!(target().directory_of(&path("pg_wal/archive_status")).unwrap(), Some(below));
    }
}
