//! Building on what the data directory holds (`keep_data`): what matches is kept, what the copy lacks is removed.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use understudy::{AtPath, Datadir, Failure, Request, UNFINISHED_CONTROL_FILE, cancelled};

use crate::layout::Layout;
use crate::left_out::left_out;
use crate::walk::DEEPEST;

/// When a file that is there already is taken for the copy's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delta {
    /// Never; the data directory is emptied.
    Off,
    /// Where it has the same size and the same time to the second.
    SizeAndTime,
    /// Where it has the same contents: the host reads both sides.
    Digest,
}

impl Delta {
    /// The names of the choices.
    pub(crate) const CHOICES: [&'static str; 3] = ["off", "size-and-time", "digest"];

    /// What the option `delta` says.
    pub(crate) fn of(request: &Request) -> Result<Self, Failure> {
        match request.get::<String>("delta")?.as_deref() {
            None | Some("off") => Ok(Self::Off),
            Some("size-and-time") => Ok(Self::SizeAndTime),
            Some("digest") => Ok(Self::Digest),
            Some(other) => {
                Err(Failure::failed(format!("`delta = \"{other}\"` is none of {}", Self::CHOICES.join(", "))))
            }
        }
    }
}

/// Removes from the data directory, its WAL and its tablespaces what a copy would not bring.
pub(crate) fn remove_others(layout: &Layout, datadir: &Datadir) -> Result<(), Failure> {
    let removing = Removing { layout };
    removing.folder(datadir.path(), "", 0)?;
    removing.folder(datadir.wal_directory(), "pg_wal", 0)?;
    for oid in layout.oids() {
        removing.folder(&datadir.tablespace(oid)?, &format!("pg_tblspc/{oid}"), 0)?;
    }
    removing.links(&datadir.path().join("pg_tblspc"))
}

struct Removing<'a> {
    layout: &'a Layout,
}

impl Removing<'_> {
    /// Removes what is in `path`, the folder `name`, and not in the copy.
    fn folder(&self, path: &Path, name: &str, depth: usize) -> Result<(), Failure> {
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
            let kind = entry.file_type().at(&path)?;
            let wanted = name.filter(|name| left_out(name).is_none());
            let wanted = wanted.filter(|name| self.copy_has(name, kind.is_dir(), kind.is_file()));
            match wanted {
                Some(name) if kind.is_dir() => self.folder(&path, &name, depth + 1)?,
                Some(_) => {}
                None if kind.is_dir() => fs::remove_dir_all(&path).at(&path)?,
                None => fs::remove_file(&path).at(&path)?,
            }
        }
        Ok(())
    }

    /// Whether the copy has a directory or a file of that name.
    fn copy_has(&self, name: &str, is_dir: bool, is_file: bool) -> bool {
        let Some(path) = self.source(name) else { return false };
        // A folder of a server's own is made anew wherever the copy's one led.
        let emptied = is_dir && crate::left_out::EMPTIED.contains(&name);
        fs::symlink_metadata(path)
            .is_ok_and(|there| emptied || (is_dir && there.is_dir()) || (is_file && there.is_file()))
    }

    /// Where the copy has what is called `name` in a data directory.
    fn source(&self, name: &str) -> Option<PathBuf> {
        if let Some(rest) = name.strip_prefix("pg_wal/") {
            return Some(self.layout.wal.join(rest));
        }
        let Some(rest) = name.strip_prefix("pg_tblspc/") else {
            return Some(self.layout.directory.join(name));
        };
        let mut parts = rest.splitn(3, '/');
        let oid = parts.next()?.parse::<u32>().ok()?;
        let folder = parts.next()?;
        let tablespace = self.layout.tablespaces.iter().find(|tablespace| tablespace.oid == oid)?;
        let (_, path) = tablespace.folders.iter().find(|(known, _)| known == folder)?;
        Some(parts.next().map_or_else(|| path.clone(), |rest| path.join(rest)))
    }

    /// Removes the links of tablespaces that the copy does not have. Where they led nothing is touched.
    fn links(&self, path: &Path) -> Result<(), Failure> {
        let entries = match fs::read_dir(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries.at(path)?,
        };
        for entry in entries {
            let entry = entry.at(path)?;
            let name = entry.file_name();
            let is_known = self.layout.oids().any(|oid| name.to_str() == Some(oid.to_string().as_str()));
            if is_known {
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
}
