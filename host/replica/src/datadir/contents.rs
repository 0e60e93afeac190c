//! Recognises what a data directory and the mapped directories hold. Loop rules 22, 24 and 25.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;

use foundation::rooted::{Directory, Kind, RelativePath};
use postgres_formats::names::{self, TablespaceFolder};
use postgres_formats::segment::WalFile;
use postgres_formats::version;

use super::lock_file;

/// What a data directory holds before a run, by rule 25.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// The directory is empty by pg_basebackup's definition (rule 22), or does not exist yet.
    Nothing,
    /// A PostgreSQL data directory.
    Cluster,
    /// This program's own unfinished work, by the state file.
    Unfinished,
    /// Something else, which is touched only with `--force`.
    Foreign,
}

pub(super) const LOST_AND_FOUND: &str = "lost+found";
pub(super) const PG_VERSION: RelativePath = RelativePath::literal(names::PG_VERSION);
const CLUSTER_FOLDERS: [RelativePath; 2] =
    [RelativePath::literal("base"), RelativePath::literal(names::GLOBAL)];

pub(super) const CONTROL_FILE: RelativePath = RelativePath::literal(names::CONTROL_FILE);

/// PostgreSQL does not start if the data directory has any of these bits (`PG_MODE_MASK_GROUP` of src/include/common/file_perm.h).
const REFUSED_MODE: u32 = 0o027;

/// Returns what the data directory holds. `Nothing` means empty for `pg_check_dir` (src/port/pgcheckdir.c), which counts dotfiles.
/// `unfinished` says whether the state file marks the directory as unfinished; a whole cluster is a [`Contents::Cluster`] in spite of
/// the mark.
pub(super) fn of(directory: &Directory, unfinished: bool) -> io::Result<Contents> {
    if directory.is_empty()? {
        Ok(Contents::Nothing)
    } else if unfinished && !is_whole(directory)? {
        Ok(Contents::Unfinished)
    } else if is_cluster(directory)? {
        Ok(Contents::Cluster)
    } else {
        Ok(Contents::Foreign)
    }
}

/// Returns whether the directory holds a cluster that PostgreSQL would start. Unfinished work of this program is never such a cluster: it
/// lacks pg_control, or, while pg_basebackup works, the directory has a mode that PostgreSQL refuses and a directory in the place of
/// postmaster.pid. A state file that marks a whole cluster as unfinished is out of date: a run was killed before its first change or after
/// its last one, or another program has filled the directory since.
pub(super) fn is_whole(directory: &Directory) -> io::Result<bool> {
    Ok(directory.own_metadata()?.mode & REFUSED_MODE == 0
        && is_cluster(directory)?
        && !lock_file::is_occupied(directory)?
        && directory.find(&CONTROL_FILE)?.is_some_and(|found| found.kind == Kind::File))
}

/// Returns whether the directory has a readable PG_VERSION and the folders `base` and `global`.
fn is_cluster(directory: &Directory) -> io::Result<bool> {
    for folder in &CLUSTER_FOLDERS {
        if directory.find(folder)?.is_none_or(|found| found.kind != Kind::Directory) {
            return Ok(false);
        }
    }
    if directory
        .find(&PG_VERSION)?
        .is_none_or(|found| found.kind != Kind::File || found.length > version::LIMIT)
    {
        return Ok(false);
    }
    let contents = directory.read(&PG_VERSION, version::LIMIT)?;
    Ok(version::version_between_spaces(&contents).is_some())
}

/// What may be in a mapped directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AllowedContents {
    /// What PostgreSQL keeps in pg_wal.
    Wal,
    /// What PostgreSQL keeps in the directory of a tablespace: a folder for each version of its catalogs.
    TablespaceFolders,
}

impl AllowedContents {
    /// Returns whether an entry of this name and kind is PostgreSQL's.
    fn allows(self, name: &OsStr, kind: Kind) -> bool {
        let name = name.as_bytes();
        match (self, kind) {
            (Self::Wal, Kind::Directory) => is_wal_folder(name),
            (Self::Wal, Kind::File) => is_wal_file(name),
            (Self::TablespaceFolders, Kind::Directory) => is_tablespace_folder(name),
            (Self::TablespaceFolders, Kind::File) | (_, Kind::Link | Kind::Special) => false,
        }
    }

    /// Returns whether an entry of this name is PostgreSQL's, for entries whose kind was checked before.
    pub(super) fn allows_name(self, name: &OsStr) -> bool {
        match self {
            Self::Wal => is_wal_folder(name.as_bytes()) || is_wal_file(name.as_bytes()),
            Self::TablespaceFolders => is_tablespace_folder(name.as_bytes()),
        }
    }

    /// Returns a description of the first entry in the directory that is not PostgreSQL's; `None` if there is none.
    pub(super) fn foreign(self, directory: &Directory) -> io::Result<Option<String>> {
        let mut foreign: Option<OsString> = None;
        let (mut wal, mut archive_status) = (false, false);
        directory.names(&mut |name| {
            let path = RelativePath::new(name).map_err(io::Error::other)?;
            let Some(metadata) = directory.find(&path)? else { return Ok(true) };
            if !self.allows(name, metadata.kind) {
                foreign = Some(name.to_owned());
                return Ok(false);
            }
            match metadata.kind {
                Kind::Directory => archive_status |= name == "archive_status",
                _ => wal = true,
            }
            Ok(true)
        })?;
        Ok(match foreign {
            Some(name) => Some(format!("`{}`", name.display())),
            // An archive of WAL has the same files; only a server's own directory has `archive_status` too.
            None if self == Self::Wal && wal && !archive_status => {
                Some("WAL without the folder `archive_status`, like an archive of WAL".to_owned())
            }
            None => None,
        })
    }
}

/// Returns whether a folder of pg_wal has this name.
fn is_wal_folder(name: &[u8]) -> bool {
    [names::ARCHIVE_STATUS, names::SUMMARIES].iter().any(|folder| name == folder.as_bytes())
}

/// Returns whether a file of pg_wal has this name: [`WalFile`], or a temporary file that a killed server leaves
/// (src/backend/access/transam/xlog.c, xlogarchive.c, xlogrecovery.c).
fn is_wal_file(name: &[u8]) -> bool {
    let is_number = |text: &[u8]| (1..=10).contains(&text.len()) && text.iter().all(u8::is_ascii_digit);
    matches!(name, b"RECOVERYXLOG" | b"RECOVERYHISTORY")
        || name.strip_prefix(b"xlogtemp.").is_some_and(is_number)
        || WalFile::parse(name).is_some()
}

/// Returns whether the name is `PG_<major>_<catalog version>`, such as `PG_15_202209061`.
fn is_tablespace_folder(name: &[u8]) -> bool {
    TablespaceFolder::parse(name).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_24_wal_and_its_archive_status_are_distinguished_from_other_files() {
        for name in [
            "000000010000000000000001",
            "0000000A00000000000000FF.partial",
            "00000002.history",
            "000000010000000000000002.00000028.backup",
            "xlogtemp.12345",
            "RECOVERYXLOG",
            "archive_status",
        ] {
            assert!(AllowedContents::Wal.allows_name(OsStr::new(name)), "{name}");
        }
        for name in [
            "00000001000000000000000",
            "0000000100000000000000011",
            "00000001000000000000000g",
            "0000000a0000000000000001",
            "000000010000000000000001.gz",
            "000000010000000000000001.partial.gz",
            "1.history",
            "x.backup",
            "xlogtemp.",
            "notes.txt",
            ".hidden",
            "lost+found",
            "",
        ] {
            assert!(!AllowedContents::Wal.allows_name(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn rule_24_the_folders_of_a_tablespace_are_distinguished_from_other_folders() {
        for name in ["PG_15_202209061", "PG_9.6_201608131", "PG_18_202506291"] {
            assert!(AllowedContents::TablespaceFolders.allows_name(OsStr::new(name)), "{name}");
        }
        for name in [
            "PG_15",
            "PG_15_",
            "PG_15_20220906",
            "PG_15_202209061_",
            "PG_x_202209061",
            "pg_15_202209061",
            "16384",
        ] {
            assert!(!AllowedContents::TablespaceFolders.allows_name(OsStr::new(name)), "{name}");
        }
        assert!(!AllowedContents::TablespaceFolders.allows(OsStr::new("PG_15_202209061"), Kind::Link));
        assert!(!AllowedContents::TablespaceFolders.allows(OsStr::new("PG_15_202209061"), Kind::File));
        assert!(!AllowedContents::Wal.allows(OsStr::new("000000010000000000000001"), Kind::Link));
    }
}
