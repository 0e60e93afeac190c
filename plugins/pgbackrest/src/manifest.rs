//! Reads `backup.manifest`, which lists every file and directory in a backup and the backup that contains each file (pgBackRest's
//! src/info/manifest.c). The manifest is read once, and each file is passed to [`Contents`] immediately.

mod file;
mod longest;
mod references;
mod targets;

use std::collections::BTreeSet;

use postgres_formats::Lsn;
use postgres_formats::names::{BACKUP_LABEL, CONTROL_FILE, PG_VERSION, tablespace_oid};
use understudy::store::Codec;

use crate::ini::{Visitor, skip, split};
use crate::names::{Name, name_of, shown};
use crate::repository::Wrapping;

#[cfg(test)]
pub(crate) use file::Bundled;
use file::Line;
pub(crate) use file::{Blocks, File, digest};
use longest::Longest;
pub(crate) use references::References;
pub(crate) use targets::Target;
use targets::Targets;

/// Receives the files and directories of a manifest.
pub(crate) trait Contents {
    /// Receives a file. Files come in the order of their names.
    ///
    /// # Errors
    /// The error says why the file is refused.
    fn file(&mut self, file: File) -> Result<(), String>;

    /// Receives a directory by its path in the data directory. Directories come in the order of their names.
    ///
    /// # Errors
    /// The error says why the directory is refused.
    fn directory(&mut self, name: &str) -> Result<(), String>;
}

/// How the files in a backup are compressed (`option-compress-type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Compression {
    pub(crate) codec: Option<Codec>,
    /// The ending of the object names.
    pub(crate) ending: &'static str,
}

/// No compression.
const PLAIN: Compression = Compression { codec: None, ending: "" };

/// The content of a manifest, except for its files.
#[derive(Debug, Default)]
pub(crate) struct Head {
    pub(crate) label: String,
    pub(crate) archive_start: Option<String>,
    pub(crate) archive_stop: Option<String>,
    pub(crate) lsn_start: Option<Lsn>,
    pub(crate) lsn_stop: Option<Lsn>,
    /// The backups that hold the block maps of files, as [`File::reference`]. Empty if no file is stored in blocks, whatever the setting
    /// `backup-block-incr` is.
    pub(crate) block_holders: BTreeSet<Option<u16>>,
    /// The labels of the backups that may hold blocks. Block maps refer to backups by their index in this list. Empty if no file is stored
    /// in blocks.
    pub(crate) block_references: References,
    pub(crate) has_raw_bundles: bool,
    pub(crate) system_identifier: Option<u64>,
    pub(crate) version: Option<String>,
    compression: Option<Compression>,
    pub(crate) targets: Vec<Target>,
    /// The mode for files whose line has no mode.
    pub(crate) file_mode: Option<u32>,
    /// The labels of the backups that hold files; [`File::reference`] is an index.
    pub(crate) references: References,
    /// The control file.
    pub(crate) control_file: Option<File>,
    pub(crate) has_version_file: bool,
    pub(crate) has_label_file: bool,
    /// The files whose objects have the longest keys.
    pub(crate) longest: Longest,
}

impl Head {
    /// Returns the compression of the files.
    pub(crate) fn compression(&self) -> Compression {
        self.compression.unwrap_or(PLAIN)
    }

    /// Returns the wrapping of `file`.
    pub(crate) fn wrapping(&self, file: &File) -> Wrapping {
        if self.has_raw_bundles && file.bundled.is_some() { Wrapping::Raw } else { Wrapping::Whole }
    }

    /// Returns the OIDs of the tablespaces.
    pub(crate) fn oids(&self) -> impl Iterator<Item = u32> {
        self.targets.iter().filter_map(|target| target.tablespace.as_ref().map(|(oid, _)| *oid))
    }

    /// Returns the labels of the backups that hold block maps.
    pub(crate) fn block_labels(&self) -> impl Iterator<Item = &str> {
        let holders = self.block_holders.iter();
        holders.map(|at| at.and_then(|at| self.references.get(at)).unwrap_or(&self.label))
    }

    /// Returns the label of the backup that holds `file`. For a file in blocks it is the backup that holds the block map.
    pub(crate) fn holder(&self, file: &File) -> &str {
        file.reference.and_then(|at| self.references.get(at)).unwrap_or(&self.label)
    }

    /// Returns the object of the backup `label` that holds blocks of the file `name`, relative to the folder of the backups. `bundle` is 0
    /// if they are in an object of the file's own.
    #[expect(clippy::unused_self, reason = "the names of objects are the manifest's matter")]
    pub(crate) fn block_object(&self, label: &str, bundle: u64, name: &str) -> String {
        if bundle > 0 {
            format!("{label}/bundle/{bundle}")
        } else {
            format!("{label}/{}{name}.pgbi", crate::names::root_of(name))
        }
    }

    /// Returns the object that holds `file`, relative to the folder of the backups. For a file in blocks that is the object with the block
    /// map.
    pub(crate) fn object(&self, file: &File) -> String {
        let label = self.holder(file);
        match &file.bundled {
            bundled if file.blocks.is_some() => {
                self.block_object(label, bundled.map_or(0, |bundled| bundled.bundle.get()), &file.name)
            }
            Some(bundled) => format!("{label}/bundle/{}", bundled.bundle),
            None => format!(
                "{label}/{}{}{}",
                crate::names::root_of(&file.name),
                file.name,
                self.compression().ending
            ),
        }
    }
}

/// A manifest that is being read.
#[derive(Debug)]
pub(crate) struct Manifest<C> {
    pub(crate) head: Head,
    pub(crate) contents: C,
    /// The last file and the last directory, by their names in the manifest.
    last_file: String,
    last_directory: String,
    /// The OIDs of the tablespaces that have files.
    oids: Vec<u32>,
    targets: Targets,
    /// The list of backups that may hold blocks (`backup-reference`).
    block_references: Option<String>,
}

impl<C: Contents> Manifest<C> {
    pub(crate) fn new(contents: C) -> Self {
        Self {
            head: Head::default(),
            contents,
            last_file: String::new(),
            last_directory: String::new(),
            oids: Vec::new(),
            targets: Targets::default(),
            block_references: None,
        }
    }

    /// Checks and returns the content after the last line.
    ///
    /// # Errors
    /// The error says what is missing or contradictory.
    pub(crate) fn finish(mut self, label: &str) -> Result<(Head, C), String> {
        if self.head.label != label {
            return Err(format!("belongs to the backup `{}`", shown(&self.head.label, 80)));
        }
        self.head.targets = self.targets.finish()?;
        if !self.head.block_holders.is_empty() {
            let list = self.block_references.ok_or("has files in blocks and no backup-reference")?;
            self.head.block_references = References::of_list(&list)?;
            let is_unlisted = |label: &&str| self.head.block_references.position(label).is_none();
            if let Some(label) = self.head.block_labels().find(is_unlisted) {
                return Err(format!(
                    "lists files in blocks of the backup {label}, which backup-reference does not list"
                ));
            }
        }
        if let Some(oid) = self.oids.iter().find(|oid| !self.head.oids().any(|known| known == **oid)) {
            return Err(format!("lists files of the tablespace {oid}, which is not among its targets"));
        }
        Ok((self.head, self.contents))
    }

    fn add_file(&mut self, line: &str) -> Result<usize, String> {
        let (key, value) = split::<Line<'_>>(line)?;
        let name = name_of(key)?;
        in_order(&mut self.last_file, key)?;
        match name {
            Name::Below(name) => {
                let file = value
                    .file(name, &mut self.head.references)
                    .map_err(|what| format!("lists `{name:.200}`, which {what}"))?;
                self.note_tablespace(name)?;
                match name {
                    CONTROL_FILE => self.head.control_file = Some(file.clone()),
                    PG_VERSION => self.head.has_version_file = true,
                    BACKUP_LABEL => self.head.has_label_file = true,
                    _ => {}
                }
                let label =
                    file.reference.and_then(|at| self.head.references.get(at)).unwrap_or(&self.head.label);
                self.head.longest.add(label, &file);
                if file.blocks.is_some() {
                    self.head.block_holders.insert(file.reference);
                }
                self.contents.file(file)?;
            }
            Name::NotRestored => {}
            Name::Root => return Err("lists a directory as a file".to_owned()),
        }
        Ok(key.len())
    }

    fn add_directory(&mut self, line: &str) -> Result<usize, String> {
        let length = skip(line)?;
        let key = &line[..length];
        let name = name_of(key)?;
        in_order(&mut self.last_directory, key)?;
        match name {
            Name::Below(name) => {
                self.note_tablespace(name)?;
                self.contents.directory(name)?;
            }
            Name::NotRestored => {
                return Err(format!("lists the directory `{key:.200}`, which is a file's name"));
            }
            Name::Root => {}
        }
        Ok(length)
    }

    fn note_tablespace(&mut self, name: &str) -> Result<(), String> {
        let Some(rest) = name.strip_prefix("pg_tblspc/") else { return Ok(()) };
        let oid = rest.split('/').next().unwrap_or(rest);
        let oid = tablespace_oid(oid).ok_or_else(|| format!("lists `{name:.200}`, which is below no oid"))?;
        if self.oids.last() != Some(&oid) && !self.oids.contains(&oid) {
            if self.oids.len() == targets::MOST {
                return Err(format!("lists more than {} tablespaces", targets::MOST));
            }
            self.oids.push(oid);
        }
        Ok(())
    }

    fn add_to_head(&mut self, line: &str) -> Result<usize, String> {
        let key = line.split('=').next().unwrap_or_default();
        let head = &mut self.head;
        match key {
            "backup-label" => head.label = split(line)?.1,
            "backup-archive-start" => head.archive_start = Some(split(line)?.1),
            "backup-archive-stop" => head.archive_stop = Some(split(line)?.1),
            "backup-lsn-start" => head.lsn_start = Some(lsn(line)?),
            "backup-lsn-stop" => head.lsn_stop = Some(lsn(line)?),
            "backup-reference" => self.block_references = Some(split(line)?.1),
            "backup-bundle-raw" => head.has_raw_bundles = split(line)?.1,
            _ => return skip(line),
        }
        Ok(key.len())
    }

    fn add_option(&mut self, line: &str) -> Result<usize, String> {
        let key = line.split('=').next().unwrap_or_default();
        match key {
            // Newer manifests name the kind in this option, which comes after the older `option-compress`.
            "option-compress-type" => {
                let (_, kind) = split::<&str>(line)?;
                self.head.compression = Some(compression(kind)?);
            }
            "option-compress" => {
                let (_, is_compressed) = split::<bool>(line)?;
                let compression = if is_compressed { compression("gz")? } else { PLAIN };
                self.head.compression.get_or_insert(compression);
            }
            _ => return skip(line),
        }
        Ok(key.len())
    }
}

/// Returns the compression that pgBackRest calls `kind` (its src/common/compress/helper.c).
///
/// # Errors
/// Fails if the compression is unknown.
fn compression(kind: &str) -> Result<Compression, String> {
    Ok(match kind {
        "none" => PLAIN,
        "gz" => Compression { codec: Some(Codec::Gzip), ending: ".gz" },
        "lz4" => Compression { codec: Some(Codec::Lz4), ending: ".lz4" },
        "zst" => Compression { codec: Some(Codec::Zstd), ending: ".zst" },
        "bz2" => Compression { codec: Some(Codec::Bzip2), ending: ".bz2" },
        other => return Err(format!("has the compression `{}`, which is not known", shown(other, 40))),
    })
}

fn lsn(line: &str) -> Result<Lsn, String> {
    split::<&str>(line)?.1.parse().map_err(|error| format!("has an invalid LSN: {error}"))
}

/// Checks that `name` sorts after `last`, as in every manifest (`lstSort` in pgBackRest's src/info/manifest.c). So each name is unique.
fn in_order(last: &mut String, name: &str) -> Result<(), String> {
    if name <= last.as_str() {
        let (name, last) = (shown(name, 200), shown(last, 200));
        return Err(format!("lists `{name}` after `{last}`: twice, or out of order"));
    }
    name.clone_into(last);
    Ok(())
}

impl<C: Contents> Visitor for Manifest<C> {
    fn line(&mut self, section: &str, line: &str) -> Result<usize, String> {
        match section {
            "target:file" => self.add_file(line),
            "target:path" => self.add_directory(line),
            "backup" => self.add_to_head(line),
            "backup:db" => {
                let key = line.split('=').next().unwrap_or_default();
                match key {
                    "db-system-id" => self.head.system_identifier = Some(split(line)?.1),
                    "db-version" => self.head.version = Some(split(line)?.1),
                    _ => return skip(line),
                }
                Ok(key.len())
            }
            "backup:option" => self.add_option(line),
            "backup:target" => self.targets.add(line),
            "target:file:default" if line.starts_with("mode=") => {
                let (key, mode) = split::<&str>(line)?;
                self.head.file_mode = Some(file::mode(mode)?);
                Ok(key.len())
            }
            _ => skip(line),
        }
    }
}
