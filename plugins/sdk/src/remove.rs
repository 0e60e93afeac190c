//! Reuses the content of a data directory (`keep_data`): removes entries that are not in the backup.

use std::fs::{self, DirEntry, FileType};
use std::io::ErrorKind;
use std::path::Path;

use crate::names::{CONTROL_FILE, PG_TBLSPC, PG_WAL, UNFINISHED_CONTROL_FILE};
use crate::{AtPath, Datadir, Failure, cancelled};

/// How deep directories may be nested. PostgreSQL's are four deep.
const DEEPEST: usize = 64;

/// The kind of an entry in a data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A plain file.
    File,
    /// A symbolic link, or another kind of entry that no backup has.
    Other,
}

impl Datadir {
    /// Removes every entry in the data directory, its WAL directory and its tablespaces for which `keep` returns false, with everything
    /// below the entry. `keep` gets the name that the entry has in a backup, and gets a directory before the directory's content.
    ///
    /// `folders` has the OIDs of the backup's tablespaces, each with a directory in that tablespace, such as `PG_15_202209061`. All other
    /// entries in a tablespace stay, because a directory for another version may belong to another cluster.
    ///
    /// These entries always stay, and `keep` is not called for them: `global/pg_control` under either of its names and its directory,
    /// `lost+found`, `pg_wal` and `pg_tblspc` themselves. The links of other tablespaces in `pg_tblspc` are removed, but not their
    /// targets.
    ///
    /// # Errors
    /// Fails if a directory cannot be read, an entry cannot be removed, or directories are nested more than 64 deep;
    /// [`Failure::Cancelled`] if the run is cancelled.
    pub fn remove_others(
        &self,
        folders: &[(u32, &str)],
        keep: &mut dyn FnMut(&str, EntryKind) -> bool,
    ) -> Result<(), Failure> {
        let mut removing = Removing { keep };
        removing.folder(self.path(), "", 0)?;
        removing.folder(self.wal_directory(), PG_WAL, 0)?;
        for (oid, folder) in folders {
            removing.folder(
                &self.tablespace(*oid)?.join(folder),
                &format!("{PG_TBLSPC}/{oid}/{folder}"),
                0,
            )?;
        }
        remove_links(&self.path().join(PG_TBLSPC), folders)
    }
}

struct Removing<'a> {
    keep: &'a mut dyn FnMut(&str, EntryKind) -> bool,
}

impl Removing<'_> {
    /// Goes through the directory at `path`, whose name in a backup is `name`.
    fn folder(&mut self, path: &Path, name: &str, depth: usize) -> Result<(), Failure> {
        for entry in entries(path, depth)? {
            cancelled()?;
            let entry = entry.at(path)?;
            let path = entry.path();
            let last = entry.file_name().into_string().ok();
            let name = last.map(|last| if name.is_empty() { last } else { format!("{name}/{last}") });
            // WAL and tablespaces have separate walks; the other entries belong to the host or the file system.
            let is_another = matches!(
                name.as_deref(),
                Some(PG_WAL | PG_TBLSPC | "lost+found" | CONTROL_FILE | UNFINISHED_CONTROL_FILE)
            );
            if is_another {
                continue;
            }
            let file_type = entry.file_type().at(&path)?;
            let kind = match () {
                () if file_type.is_dir() => EntryKind::Directory,
                () if file_type.is_file() => EntryKind::File,
                () => EntryKind::Other,
            };
            // The directory of pg_control always stays, because the host writes pg_control.
            let is_hosts = |name: &str| kind == EntryKind::Directory && name == "global";
            match name.filter(|name| is_hosts(name) || (self.keep)(name, kind)) {
                Some(name) if kind == EntryKind::Directory => self.folder(&path, &name, depth + 1)?,
                Some(_) => {}
                None => remove(&path, file_type, depth + 1)?,
            }
        }
        Ok(())
    }
}

/// Returns the entries of the directory `path`, which is nested `depth` deep; no entries if it does not exist.
fn entries(path: &Path, depth: usize) -> Result<impl Iterator<Item = std::io::Result<DirEntry>>, Failure> {
    if depth > DEEPEST {
        return Err(Failure::failed(format!("{} lies more than {DEEPEST} folders deep", path.display())));
    }
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        entries => Some(entries.at(path)?),
    };
    Ok(entries.into_iter().flatten())
}

/// Removes `path`, a directory at depth `depth` with all its content.
fn remove(path: &Path, file_type: FileType, depth: usize) -> Result<(), Failure> {
    if !file_type.is_dir() {
        return fs::remove_file(path).at(path);
    }
    for entry in entries(path, depth)? {
        cancelled()?;
        let entry = entry.at(path)?;
        let path = entry.path();
        remove(&path, entry.file_type().at(&path)?, depth + 1)?;
    }
    fs::remove_dir(path).at(path)
}

/// Removes every entry in `path`, the directory `pg_tblspc`, that is not a tablespace in `folders`.
fn remove_links(path: &Path, folders: &[(u32, &str)]) -> Result<(), Failure> {
    for entry in entries(path, 0)? {
        cancelled()?;
        let entry = entry.at(path)?;
        let name = entry.file_name();
        if folders.iter().any(|(oid, _)| name.to_str() == Some(oid.to_string().as_str())) {
            continue;
        }
        let path = entry.path();
        remove(&path, entry.file_type().at(&path)?, 1)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::Request;
    use crate::native::Host;

    #[test]
    fn unwanted_entries_are_removed_and_the_files_of_the_host_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for folder in [
            "data/global",
            "data/base/5",
            "data/base/6/deep",
            "data/pg_tblspc",
            "wal",
            "fast/PG_15",
            "fast/PG_14",
            "other",
        ] {
            fs::create_dir_all(path(folder)).unwrap();
        }
        for file in [
            "data/global/pg_control",
            "data/global/pg_control.understudy",
            "data/base/5/1259",
            "data/base/5/9999",
            "data/base/6/deep/1",
            "data/stray",
            "wal/000000010000000000000001",
            "fast/PG_15/1",
            "fast/PG_14/1",
            "fast/notes",
            "other/kept",
        ] {
            fs::write(path(file), "x").unwrap();
        }
        symlink(path("fast"), path("data/pg_tblspc/16384")).unwrap();
        symlink(path("other"), path("data/pg_tblspc/16385")).unwrap();
        symlink(path("other"), path("data/base/link")).unwrap();
        let wanted = ["global", "base", "base/5", "base/5/1259", "base/link"];
        let request = Request::default().for_datadir(path("data").to_str().unwrap());
        let host = Host::new(path("data")).wal_directory(path("wal")).tablespace(16384, path("fast"));
        let (result, _) = host.run(|| {
            Datadir::of(&request)?.remove_others(&[(16384, "PG_15")], &mut |name, kind| {
                kind != EntryKind::Other && wanted.contains(&name)
            })
        });
        assert_eq!(result, Ok(()));
        for kept in [
            "data/global/pg_control",
            "data/global/pg_control.understudy",
            "data/base/5/1259",
            "data/pg_tblspc/16384",
            "fast/PG_14/1",
            "fast/notes",
            "other/kept",
        ] {
            assert!(path(kept).exists(), "{kept}");
        }
        for gone in [
            "data/base/5/9999",
            "data/base/6",
            "data/base/link",
            "data/stray",
            "wal/000000010000000000000001",
            "fast/PG_15/1",
            "data/pg_tblspc/16385",
        ] {
            assert!(fs::symlink_metadata(path(gone)).is_err(), "{gone}");
        }
    }
    /// Creates directories that are nested `depth` deep.
    fn deep(path: &Path, depth: usize) {
        fs::create_dir_all((0..depth).fold(path.to_owned(), |path, _| path.join("d"))).unwrap();
    }

    fn remove_all(data: &Path, host: Host, keep: bool) -> Result<(), Failure> {
        let request = Request::default().for_datadir(data.to_str().unwrap());
        host.run(|| Datadir::of(&request)?.remove_others(&[], &mut |_, _| keep)).0
    }

    #[test]
    fn directories_that_are_nested_too_deep_are_an_error() {
        for keep in [true, false] {
            let dir = tempfile::tempdir().unwrap();
            deep(dir.path(), DEEPEST);
            assert_eq!(remove_all(dir.path(), Host::new(dir.path()), keep), Ok(()));
            deep(dir.path(), DEEPEST + 1);
            let failure = remove_all(dir.path(), Host::new(dir.path()), keep).unwrap_err().to_string();
            assert!(failure.contains("more than 64 folders deep"), "{failure}");
        }
    }

    #[test]
    fn a_cancelled_removal_stops_within_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        deep(dir.path(), 40);
        let stopped = remove_all(dir.path(), Host::new(dir.path()).cancel_after(20), false);
        assert_eq!(stopped, Err(Failure::Cancelled));
        assert!(dir.path().join("d/d").exists());
    }

    #[test]
    fn the_control_file_of_the_host_is_never_removed() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("global")).unwrap();
        for name in ["pg_control", "pg_control.understudy", "1260"] {
            fs::write(dir.path().join("global").join(name), "x").unwrap();
        }
        assert_eq!(remove_all(dir.path(), Host::new(dir.path()), false), Ok(()));
        assert!(dir.path().join(UNFINISHED_CONTROL_FILE).exists());
        assert!(!dir.path().join("global/1260").exists());
    }
}
