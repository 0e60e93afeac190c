//! Building on what a data directory holds (`keep_data`): removing what a backup does not have.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use crate::{AtPath, Datadir, Failure, UNFINISHED_CONTROL_FILE, cancelled};

/// How deep folders may lie in each other. PostgreSQL's own are four deep.
const DEEPEST: usize = 64;

/// What an entry of a data directory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A plain file.
    File,
    /// A link or something else that no backup brings.
    Other,
}

impl Datadir {
    /// Removes from the data directory, its WAL and the tablespaces `oids` every entry that `keep` does not want, with all
    /// that is below it. `keep` is asked by the name that the entry has in a backup, a directory before what is in it.
    ///
    /// What is the host's or the disk's own stays and is not asked for: `global/pg_control` under either of its names,
    /// `lost+found`, `pg_wal` and `pg_tblspc` themselves. Links in `pg_tblspc` of tablespaces that are not among `oids`
    /// are removed; nothing is touched where they lead.
    ///
    /// # Errors
    /// Where a directory cannot be read, an entry cannot be removed, or folders lie more than 64 deep;
    /// [`Failure::Cancelled`] when told to stop.
    pub fn remove_others(
        &self,
        oids: &[u32],
        keep: &mut dyn FnMut(&str, EntryKind) -> bool,
    ) -> Result<(), Failure> {
        let mut removing = Removing { keep };
        removing.folder(self.path(), "", 0)?;
        removing.folder(self.wal_directory(), "pg_wal", 0)?;
        for oid in oids {
            removing.folder(&self.tablespace(*oid)?, &format!("pg_tblspc/{oid}"), 0)?;
        }
        remove_links(&self.path().join("pg_tblspc"), oids)
    }
}

struct Removing<'a> {
    keep: &'a mut dyn FnMut(&str, EntryKind) -> bool,
}

impl Removing<'_> {
    /// Goes through `path`, the folder `name`.
    fn folder(&mut self, path: &Path, name: &str, depth: usize) -> Result<(), Failure> {
        if depth > DEEPEST {
            return Err(Failure::failed(format!("{} lies more than {DEEPEST} folders deep", path.display())));
        }
        let entries = match fs::read_dir(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries.at(path)?,
        };
        for entry in entries {
            cancelled()?;
            let entry = entry.at(path)?;
            let path = entry.path();
            let last = entry.file_name().into_string().ok();
            let name = last.map(|last| if name.is_empty() { last } else { format!("{name}/{last}") });
            // The places of WAL and tablespaces are gone through by themselves; the rest is the host's or the disk's.
            let is_another = matches!(
                name.as_deref(),
                Some("pg_wal" | "pg_tblspc" | "lost+found" | "global/pg_control" | UNFINISHED_CONTROL_FILE)
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
            match name.filter(|name| (self.keep)(name, kind)) {
                Some(name) if kind == EntryKind::Directory => self.folder(&path, &name, depth + 1)?,
                Some(_) => {}
                None if kind == EntryKind::Directory => fs::remove_dir_all(&path).at(&path)?,
                None => fs::remove_file(&path).at(&path)?,
            }
        }
        Ok(())
    }
}

/// Removes what is in `path`, the folder `pg_tblspc`, and is none of `oids`.
fn remove_links(path: &Path, oids: &[u32]) -> Result<(), Failure> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.at(path)?,
    };
    for entry in entries {
        let entry = entry.at(path)?;
        let name = entry.file_name();
        if oids.iter().any(|oid| name.to_str() == Some(oid.to_string().as_str())) {
            continue;
        }
        let path = entry.path();
        if entry.file_type().at(&path)?.is_dir() {
            fs::remove_dir_all(&path).at(&path)?;
        } else {
            fs::remove_file(&path).at(&path)?;
        }
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
    fn what_is_not_wanted_goes_and_what_is_the_hosts_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for folder in
            ["data/global", "data/base/5", "data/base/6/deep", "data/pg_tblspc", "wal", "fast/PG_15", "other"]
        {
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
            Datadir::of(&request)?
                .remove_others(&[16384], &mut |name, kind| kind != EntryKind::Other && wanted.contains(&name))
        });
        assert_eq!(result, Ok(()));
        for kept in [
            "data/global/pg_control",
            "data/global/pg_control.understudy",
            "data/base/5/1259",
            "data/pg_tblspc/16384",
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
            "fast/PG_15",
            "data/pg_tblspc/16385",
        ] {
            assert!(fs::symlink_metadata(path(gone)).is_err(), "{gone}");
        }
    }
}
