//! Finds the files of a backup.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use postgres_formats::names::tablespace_oid;
use understudy::{AtPath, Failure, UntilCancelled, is_granted};
use ustar::{Archive, Stream};

use crate::codec::Codec;

/// The largest permitted number of archives in a backup. Each tablespace has an archive.
const MOST_ARCHIVES: usize = 1000;

/// The files in the directory of a backup.
#[derive(Debug)]
pub(crate) struct Backup {
    pub(crate) base: ArchiveFile,
    /// The archives of the tablespaces by OID.
    pub(crate) tablespaces: BTreeMap<u32, ArchiveFile>,
    /// The archive of the WAL; `None` with `-X fetch`, where the WAL is in `base`, and with `-X none`.
    pub(crate) wal: Option<ArchiveFile>,
    /// The path of the manifest; `None` with `--no-manifest`.
    pub(crate) manifest: Option<PathBuf>,
}

/// One archive of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ArchiveFile {
    pub(crate) path: PathBuf,
    pub(crate) codec: Codec,
}

impl Backup {
    /// Finds the backup in `directory`.
    ///
    /// # Errors
    /// [`Failure::NotApplicable`] if the directory or `base.tar` is missing; [`Failure::Failed`] if the directory is not granted or has two
    /// archives for the same name.
    pub(crate) fn find(directory: &Path) -> Result<Self, Failure> {
        if !is_granted(directory) {
            let directory = directory.display();
            return Err(Failure::failed(format!(
                "{directory} is not granted: add it to `grants.read` of this method, as an absolute path without `..`"
            )));
        }
        let entries = match fs::read_dir(directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(Failure::not_applicable(format!(
                    "there is no directory {}",
                    directory.display()
                )));
            }
            entries => entries.at(directory)?,
        };
        let mut archives: BTreeMap<String, ArchiveFile> = BTreeMap::new();
        for entry in entries {
            let name = entry.at(directory)?.file_name();
            let Some((codec, stem)) = name.to_str().and_then(Codec::of) else { continue };
            let of_a_backup = matches!(stem, "base" | "pg_wal") || tablespace_oid(stem).is_some();
            if !of_a_backup {
                continue;
            }
            let archive = ArchiveFile { path: directory.join(&name), codec };
            if let Some(other) = archives.insert(stem.to_owned(), archive) {
                let (one, two) = (other.path.display().to_string(), name.to_string_lossy().into_owned());
                return Err(Failure::failed(format!(
                    "there are both {one} and {two}: keep the one that belongs here"
                )));
            }
            if archives.len() > MOST_ARCHIVES {
                let directory = directory.display();
                return Err(Failure::failed(format!("{directory} holds more than {MOST_ARCHIVES} archives")));
            }
        }
        let Some(base) = archives.remove("base") else {
            return Err(Failure::not_applicable(format!("there is no base.tar in {}", directory.display())));
        };
        let wal = archives.remove("pg_wal");
        let tablespaces = archives
            .into_iter()
            .filter_map(|(stem, archive)| Some((tablespace_oid(&stem)?, archive)))
            .collect();
        let manifest = directory.join("backup_manifest");
        let manifest = match fs::metadata(&manifest) {
            Ok(_) => Some(manifest),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error).at(manifest),
        };
        Ok(Self { base, tablespaces, wal, manifest })
    }
}

impl ArchiveFile {
    /// Opens the archive at its first member.
    pub(crate) fn read(&self) -> Result<Archive, Failure> {
        let file = UntilCancelled::new(self.file()?);
        Ok(Archive::boxed(Stream(self.codec.decode(file))))
    }

    /// Returns a failure that names the archive.
    pub(crate) fn failed(&self, what: impl std::fmt::Display) -> Failure {
        Failure::failed(format!("{} {what}", self.path.display()))
    }

    fn file(&self) -> Result<File, Failure> {
        // Reading anything but a regular file could block forever.
        if !fs::metadata(&self.path).at(&self.path)?.is_file() {
            return Err(self.failed("is not a plain file"));
        }
        File::open(&self.path).at(&self.path)
    }
}
