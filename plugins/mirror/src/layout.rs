//! Finds the parts of a copy: the data directory, pg_wal and the tablespaces.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use postgres_formats::Lsn;
use postgres_formats::backup_label::{self, Start};
use postgres_formats::control_file::{self, Beginning};
use postgres_formats::names::{
    BACKUP_LABEL, CONTROL_FILE, PG_TBLSPC, PG_VERSION, PG_WAL, POSTMASTER_PID, TABLESPACE_MAP,
    TablespaceFolder, tablespace_oid,
};
use postgres_formats::tablespace_map::{self, Mapped};
use postgres_formats::version::{self, Version, major_version};
use understudy::{AtPath, Failure, Plan, Request, cancelled, is_granted, log};

use crate::walk::{Entry, Warn, walk};

/// The largest permitted number of tablespaces in a copy.
const MOST_TABLESPACES: usize = 1000;

/// The parts of a copy of a data directory.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) directory: PathBuf,
    pub(crate) wal: PathBuf,
    pub(crate) tablespaces: Vec<Tablespace>,
    /// The content of global/pg_control.
    pub(crate) control_file: Vec<u8>,
    control: Beginning,
    major: u32,
    label: Option<Start>,
}

/// A tablespace in a copy.
#[derive(Debug)]
pub(crate) struct Tablespace {
    pub(crate) oid: u32,
    /// The original path of the tablespace from the copy's tablespace_map; without a tablespace_map, the path of the tablespace's copy.
    location: String,
    /// The directories for this PostgreSQL major version in the tablespace, with their paths.
    pub(crate) folders: Vec<(String, PathBuf)>,
}

impl Layout {
    /// Finds the copy that the options of `request` name.
    ///
    /// # Errors
    /// [`Failure::NotApplicable`] if there is no copy; [`Failure::Failed`] if a part of the copy is missing, not granted or invalid.
    pub(crate) fn find(request: &Request) -> Result<Self, Failure> {
        let directory = granted("directory", &request.require::<String>("directory")?)?;
        let none =
            |name: &str| Failure::not_applicable(format!("there is no {name} in {}", directory.display()));
        let version =
            read_small(&directory.join(PG_VERSION), version::LIMIT)?.ok_or_else(|| none(PG_VERSION))?;
        let control_file = read_control_file(&directory)?.ok_or_else(|| none(CONTROL_FILE))?;
        let in_directory =
            |name: &str, why: String| Failure::failed(format!("{} {why}", directory.join(name).display()));
        let major =
            major_version(&version).ok_or_else(|| in_directory(PG_VERSION, "names no version".to_owned()))?;
        let control =
            Beginning::parse(&control_file).map_err(|error| in_directory(CONTROL_FILE, error.to_string()))?;
        let label = read_small(&directory.join(BACKUP_LABEL), backup_label::LIMIT)?
            .map(|bytes| Start::parse(&bytes))
            .transpose()
            .map_err(|error| in_directory(BACKUP_LABEL, error.to_string()))?;
        if let Some(from) = label.as_ref().and_then(|label| label.incremental_from) {
            return Err(in_directory(
                BACKUP_LABEL,
                format!("is of an incremental backup from {from}: combine it first"),
            ));
        }
        let map = match read_small(&directory.join(TABLESPACE_MAP), tablespace_map::LIMIT)? {
            None => Vec::new(),
            Some(bytes) => tablespace_map::parse_absolute(&bytes)
                .map_err(|error| in_directory(TABLESPACE_MAP, error.to_string()))?,
        };
        let wal = find_wal(&directory, request)?;
        let tablespaces = find_tablespaces(&directory, request, &map, major)?;
        Ok(Self { directory, wal, tablespaces, control_file, control, major, label })
    }

    /// Makes the plan for restoring the copy.
    pub(crate) fn plan(&self) -> Result<Plan, Failure> {
        let (mut bytes, mut files) = (self.control_file.len() as u64, 1);
        walk(self, Warn::Yes, &mut |entry| {
            if let Entry::File { size, .. } = entry {
                bytes += size;
                files += 1;
            }
            Ok(())
        })?;
        if !self.control.state.is_shut_down() && self.label.is_none() {
            log::warn!(
                "{} is a snapshot of a server {}, without a backup_label: it must have been taken of all its file systems at \
                 one instant, and needs `snapshot = true`",
                self.directory.display(),
                self.control.state.describe()
            );
        }
        if fs::symlink_metadata(self.directory.join(POSTMASTER_PID)).is_ok() {
            log::warn!(
                "{} holds a postmaster.pid: it is a snapshot of a running server, or a server runs in it",
                self.directory.display()
            );
        }
        Ok(Plan {
            backup: self.describe(),
            postgresql_major: Some(self.major),
            system_identifier: Some(self.control.system_identifier),
            timeline: Some(self.label.as_ref().map_or(self.control.timeline, |label| label.timeline)),
            start_lsn: Some(self.start().0),
            stop_lsn: None,
            bytes: Some(bytes),
            files: Some(files),
            tablespaces: self
                .tablespaces
                .iter()
                .map(|tablespace| understudy::Tablespace {
                    oid: tablespace.oid,
                    name: None,
                    location: tablespace.location.clone(),
                })
                .collect(),
            builds_on_existing: false,
        })
    }

    /// Describes the copy for people to read.
    pub(crate) fn describe(&self) -> String {
        let directory = self.directory.display();
        match &self.label {
            Some(label) => format!("{directory}: {}", label.describe()),
            None => format!("{directory}, {} at {}", self.control.state.describe(), self.control.redo),
        }
    }

    /// Returns the directories of the copy.
    pub(crate) fn roots(&self) -> impl Iterator<Item = &Path> {
        let folders = self.tablespaces.iter().flat_map(|tablespace| &tablespace.folders);
        let tablespaces = folders.filter_map(|(_, path)| path.parent());
        [self.directory.as_path(), self.wal.as_path()].into_iter().chain(tablespaces)
    }

    /// Returns the OIDs of the copy's tablespaces.
    pub(crate) fn oids(&self) -> impl Iterator<Item = u32> {
        self.tablespaces.iter().map(|tablespace| tablespace.oid)
    }

    fn start(&self) -> Lsn {
        self.label.as_ref().map_or(self.control.redo, |label| label.start_lsn)
    }
}

/// Reads the control file of the data directory `directory`; `None` if it does not exist.
pub(crate) fn read_control_file(directory: &Path) -> Result<Option<Vec<u8>>, Failure> {
    let path = directory.join(CONTROL_FILE);
    let bytes = read_small(&path, control_file::SIZE)?;
    match &bytes {
        Some(bytes) if bytes.len() as u64 != control_file::SIZE => {
            Err(Failure::failed(format!("{} has {} bytes", path.display(), bytes.len())))
        }
        _ => Ok(bytes),
    }
}

fn find_wal(directory: &Path, request: &Request) -> Result<PathBuf, Failure> {
    if let Some(elsewhere) = request.get::<String>("wal")? {
        return granted("wal", &elsewhere);
    }
    let wal = directory.join(PG_WAL);
    let kind = fs::symlink_metadata(&wal).at(&wal)?.file_type();
    if kind.is_dir() {
        return Ok(wal);
    }
    let target = fs::read_link(&wal).ok();
    match &target {
        Some(target) if is_granted(target) => Ok(target.clone()),
        _ => Err(Failure::failed(format!(
            "{} is a link{} out of what is granted: say where its contents are with the option `wal`, and grant that",
            wal.display(),
            to(target.as_deref())
        ))),
    }
}

fn find_tablespaces(
    directory: &Path,
    request: &Request,
    map: &[Mapped<String>],
    major: u32,
) -> Result<Vec<Tablespace>, Failure> {
    let mut elsewhere = Vec::new();
    for text in request.get::<Vec<String>>("tablespaces")?.unwrap_or_default() {
        let (oid, path) = text.split_once('=').unwrap_or((&text, ""));
        let Ok(oid) = oid.parse::<u32>() else {
            return Err(Failure::failed(format!(
                "`{text}` in the option `tablespaces` is not of the form oid=/path"
            )));
        };
        elsewhere.push((oid, granted("tablespaces", path)?));
    }
    let links = directory.join(PG_TBLSPC);
    let mut found = Vec::new();
    for entry in fs::read_dir(&links).at(&links)? {
        let entry = entry.at(&links)?;
        let path = entry.path();
        let name = entry.file_name();
        let Some(oid) = name.to_str().and_then(tablespace_oid) else {
            log::warn!("skipped {}: it is not a tablespace", path.display());
            continue;
        };
        if found.len() == MOST_TABLESPACES {
            return Err(Failure::failed(format!(
                "{} holds more than {MOST_TABLESPACES} tablespaces",
                links.display()
            )));
        }
        let is_link = !entry.file_type().at(&path)?.is_dir();
        let named =
            elsewhere.iter().position(|(named, _)| *named == oid).map(|at| elsewhere.swap_remove(at).1);
        // Reads the link only if the option does not name the directory: if the target is not granted, the sandbox
        // does not return it and reports a denial.
        let target = if is_link && named.is_none() { fs::read_link(&path).ok() } else { None };
        let contents = match (named, &target) {
            (Some(named), _) => named,
            (None, Some(target)) if is_granted(target) => target.clone(),
            (None, target) if is_link => {
                return Err(Failure::failed(format!(
                    "the tablespace {oid} is behind a link{} out of what is granted: say where its copy is with \
                     `tablespaces = [\"{oid}=/path\"]` in the options, and grant that",
                    to(target.as_deref())
                )));
            }
            (None, _) => path.clone(),
        };
        let mapped = map.iter().find(|mapped| mapped.oid == oid).map(|mapped| mapped.location.clone());
        let location = mapped.unwrap_or_else(|| contents.to_string_lossy().into_owned());
        found.push(Tablespace { oid, location, folders: find_folders(&contents, major)? });
    }
    if let Some((oid, _)) = elsewhere.first() {
        let links = links.display();
        return Err(Failure::failed(format!(
            "the option `tablespaces` names {oid} (perhaps twice), which {links} does not"
        )));
    }
    found.sort_unstable_by_key(|tablespace| tablespace.oid);
    Ok(found)
}

/// Finds the directories for version `major` in a tablespace. The tablespace may also have directories for other versions.
fn find_folders(contents: &Path, major: u32) -> Result<Vec<(String, PathBuf)>, Failure> {
    let mut folders = Vec::new();
    for entry in fs::read_dir(contents).at(contents)? {
        cancelled()?;
        let entry = entry.at(contents)?;
        let path = entry.path();
        let folder = TablespaceFolder::parse(entry.file_name().as_encoded_bytes());
        match folder {
            Some(folder) if folder.version == Version::Major(major) => {
                if !entry.file_type().at(&path)?.is_dir() {
                    return Err(Failure::failed(format!("{} is not a folder", path.display())));
                }
                folders.push((folder.to_string(), path));
            }
            _ => log::warn!("skipped {}: it is not of PostgreSQL {major}", path.display()),
        }
    }
    if folders.is_empty() {
        return Err(Failure::failed(format!(
            "{} holds no tablespace of PostgreSQL {major}",
            contents.display()
        )));
    }
    Ok(folders)
}

/// Returns the directory `path`, which the option `option` names. Fails if the directory is not granted.
fn granted(option: &str, path: &str) -> Result<PathBuf, Failure> {
    let path = PathBuf::from(path);
    if is_granted(&path) {
        return Ok(path);
    }
    let path = path.display();
    Err(Failure::failed(format!(
        "{path} of the option `{option}` is not granted: add it to `grants.read` of this method, absolute and without `..`"
    )))
}

/// Reads a file that may have at most `limit` bytes; `None` if the file does not exist.
fn read_small(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, Failure> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        metadata => metadata.at(path)?,
    };
    // Links are not followed. Reading anything but a regular file could block forever.
    if !metadata.is_file() || metadata.len() > limit {
        let path = path.display();
        return Err(Failure::failed(format!("{path} is not a plain file, or is larger than {limit} bytes")));
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes)).at(path)?;
    Ok(Some(bytes))
}

fn to(target: Option<&Path>) -> String {
    target.map_or_else(String::new, |target| format!(" to {}", target.display()))
}
