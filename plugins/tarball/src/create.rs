//! Restores a backup. The host unpacks all archives at the same time and compares every file with the manifest. Afterwards this module
//! checks in the data directory what the host cannot check.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::Path;

use postgres_formats::backup_label::{self, Start};
use postgres_formats::{control_file, names, version};
use understudy::transfer::{Job, Listing, Unpack};
use understudy::{AtPath, Datadir, Failure, Plan, cancelled, log, progress, source};

use crate::archive::ArchiveObject;
use crate::backup::Backup;
use crate::manifest::{self, Manifest};
use crate::names::{
    REFUSED_IN_BASE, SKIPPED_IN_BASE, VERSION, belongs_in_tablespace, is_status, is_wal, is_whole,
};
use crate::place::Place;
use crate::plan::{planned, replaced};
use crate::wal;

/// The size of the largest WAL segment in bytes. On each timeline the archive may have one segment more than the manifest needs.
const LARGEST_SEGMENT: u64 = 1 << 30;

/// How many bytes base.tar may contain in addition to the files that the manifest lists: settings, timeline histories.
const SLACK: u64 = 64 << 20;

/// How deep directories may be nested. PostgreSQL's are four deep.
const DEEPEST: usize = 64;

/// Restores the backup of `plan`.
pub(crate) fn all(place: &Place, plan: &Plan, datadir: &Datadir) -> Result<(), Failure> {
    let (backup, base) = planned(place, plan)?;
    let as_planned = base.map.len() == plan.tablespaces.len()
        && base.map.iter().all(|mapped| {
            plan.tablespaces
                .iter()
                .any(|planned| (planned.oid, &planned.location) == (mapped.oid, &mapped.location))
        });
    if !as_planned || plan.start_lsn != Some(base.label.start_lsn.0) {
        return Err(replaced(place));
    }
    let mut manifest = match &backup.manifest {
        Some(object) => Some(manifest::listing(place, object)?),
        None => None,
    };
    progress::expect(plan.bytes, plan.files);
    progress::phase("unpacking");
    let major = plan.postgresql_major.or_else(|| source::server_version().map(|version| version / 10_000));
    if let Some(major) = major {
        datadir.write_version(major)?;
    }
    unpack(place, &backup, manifest.as_mut(), major.is_some())?;
    if let (Some(manifest), Some(object)) = (&manifest, &backup.manifest) {
        manifest.check_version(place, object, &fs::read(datadir.place(VERSION)?).at(VERSION)?)?;
    }
    if let (Some(manifest), Some(object)) = (&mut manifest, &backup.manifest) {
        manifest.check_complete(place, object)?;
    }
    if backup.reload(place)?.is_none_or(|now| now.mark() != backup.mark()) {
        return Err(replaced(place));
    }
    Restored { place, backup: &backup, datadir }.check(plan, manifest.is_none())?;
    progress::phase("checking the write-ahead log");
    wal::check(place, &backup, &base.label, manifest.as_ref().map(|manifest| &manifest.summary), datadir)?;
    log::info!("unpacked {}", plan.backup);
    Ok(())
}

/// Unpacks all archives. With `has_version`, PG_VERSION is written already and skipped.
fn unpack(
    place: &Place,
    backup: &Backup,
    mut manifest: Option<&mut Manifest>,
    has_version: bool,
) -> Result<(), Failure> {
    let wal_limit = manifest.as_ref().map(|manifest| {
        let ranges = manifest.summary.wal_ranges.len() as u64;
        let needed = manifest.summary.wal_bytes(LARGEST_SEGMENT).unwrap_or(u64::MAX);
        needed.saturating_add(ranges.saturating_mul(LARGEST_SEGMENT))
    });
    let mut work = Unpacking { place, job: Job::new(), origins: HashMap::new() };
    let base = Unpack {
        limit: manifest.as_ref().map_or(u64::MAX, |manifest| {
            let fetched = if backup.wal.is_none() { wal_limit.unwrap_or(u64::MAX) } else { 0 };
            manifest.base_bytes.saturating_add(SLACK).saturating_add(fetched)
        }),
        skip: std::iter::once(SKIPPED_IN_BASE)
            .chain(has_version.then_some(VERSION))
            .map(str::to_owned)
            .collect(),
        refuse: REFUSED_IN_BASE.map(str::to_owned).to_vec(),
        ..nothing("")
    };
    work.add(&backup.base, base, manifest.as_deref_mut().map(|manifest| &mut manifest.listing))?;
    for (oid, archive) in &backup.tablespaces {
        let item = Unpack {
            limit: manifest
                .as_ref()
                .map_or(u64::MAX, |manifest| manifest.tablespace_bytes.get(oid).copied().unwrap_or(0)),
            ..nothing(&format!("{}/{oid}", names::PG_TBLSPC))
        };
        work.add(archive, item, manifest.as_deref_mut().map(|manifest| &mut manifest.listing))?;
    }
    if let Some(archive) = &backup.wal {
        let item = Unpack { limit: wal_limit.unwrap_or(u64::MAX), ..nothing(names::PG_WAL) };
        work.add(archive, item, manifest.map(|manifest| &mut manifest.listing))?;
    }
    work.job.finish().map(drop)
}

/// Returns an item without an object, for the directory `path`.
fn nothing(path: &str) -> Unpack {
    Unpack {
        origin: 0,
        object: String::new(),
        path: path.to_owned(),
        limit: 0,
        skip: Vec::new(),
        refuse: Vec::new(),
    }
}

struct Unpacking<'a> {
    place: &'a Place,
    job: Job,
    /// The origins by the ending of the archive's name, which determines the codec.
    origins: HashMap<&'static str, u32>,
}

impl Unpacking<'_> {
    fn add(
        &mut self,
        archive: &ArchiveObject,
        item: Unpack,
        files: Option<&mut Listing>,
    ) -> Result<(), Failure> {
        let ending = archive.ending();
        let origin = match self.origins.get(ending) {
            Some(origin) => *origin,
            None => self.job.origin(&self.place.bucket, archive.pipeline().as_ref())?,
        };
        self.origins.insert(ending, origin);
        // The files of a plain archive cannot be larger than the archive.
        let limit = if archive.codec.is_none() { item.limit.min(archive.object.size) } else { item.limit };
        self.job.unpack(&Unpack { origin, object: archive.object.key.clone(), limit, ..item }, files)
    }
}

/// The data directory after the host has unpacked the archives.
struct Restored<'a> {
    place: &'a Place,
    backup: &'a Backup,
    datadir: &'a Datadir,
}

impl Restored<'_> {
    /// Checks what `refuse` of `unpack` cannot express, and checks that the files that a cluster needs to start exist. With `look_at_all`,
    /// which is set if there is no manifest, every file is checked.
    fn check(&self, plan: &Plan, look_at_all: bool) -> Result<(), Failure> {
        let base = &self.backup.base;
        self.datadir.create_dir("pg_wal/archive_status")?;
        let label = Start::parse(&self.small(names::BACKUP_LABEL, backup_label::LIMIT)?)
            .map_err(|error| base.failed(self.place, format!("has a backup_label that {error}")))?;
        if plan.start_lsn != Some(label.start_lsn.0) || !plan.backup.contains(&label.describe()) {
            return Err(replaced(self.place));
        }
        self.small(names::PG_VERSION, version::LIMIT)?;
        let control = self.small(names::CONTROL_FILE, control_file::SIZE)?;
        if control.len() as u64 != control_file::SIZE {
            let size = control.len();
            return Err(base.failed(self.place, format!("has a global/pg_control of {size} bytes")));
        }
        for (oid, archive) in &self.backup.tablespaces {
            let root = self.datadir.tablespace(*oid)?;
            for (name, is_dir) in entries(&root)? {
                if !is_dir || !belongs_in_tablespace(&name) {
                    let shown = name.escape_debug();
                    let what =
                        format!("has a member `{shown}`, which is not below a PG_MAJOR_CATALOG folder");
                    return Err(archive.failed(self.place, what));
                }
            }
            if look_at_all {
                whole(&root, "", 0).map_err(|failure| self.in_archive(archive, failure))?;
            }
        }
        self.wal()?;
        if look_at_all {
            whole(self.datadir.path(), "", 0).map_err(|failure| self.in_archive(base, failure))?;
        }
        Ok(())
    }

    /// Checks that the WAL directory contains only WAL files.
    fn wal(&self) -> Result<(), Failure> {
        let archive = self.backup.wal.as_ref().unwrap_or(&self.backup.base);
        let root = self.datadir.wal_directory();
        let refused = |name: &str| {
            archive.failed(
                self.place,
                format!("has a member `{}`, which is not a WAL file", name.escape_debug()),
            )
        };
        for (name, is_dir) in entries(root)? {
            let known = match is_dir {
                true => matches!(name.as_str(), names::ARCHIVE_STATUS | names::SUMMARIES),
                false => is_wal(&name),
            };
            if !known {
                return Err(refused(&name));
            }
        }
        for (name, is_dir) in entries(&root.join(names::ARCHIVE_STATUS))? {
            if is_dir || !is_status(&name) {
                return Err(refused(&format!("archive_status/{name}")));
            }
        }
        Ok(())
    }

    /// Reads a small file of the data directory, which must have been in base.tar.
    fn small(&self, name: &str, limit: u64) -> Result<Vec<u8>, Failure> {
        let path = self.datadir.place(name)?;
        let base = &self.backup.base;
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(base.failed(self.place, format!("has no {name}")));
            }
            metadata if metadata.as_ref().is_ok_and(|metadata| metadata.len() > limit) => {
                return Err(
                    base.failed(self.place, format!("has a {name} that is larger than {limit} bytes"))
                );
            }
            metadata => {
                metadata.at(&path)?;
            }
        }
        let mut bytes = Vec::new();
        File::open(&path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes)).at(&path)?;
        Ok(bytes)
    }

    fn in_archive(&self, archive: &ArchiveObject, failure: Failure) -> Failure {
        match failure {
            Failure::Failed(why) => archive.failed(self.place, why),
            other => other,
        }
    }
}

/// Checks that no file below `path` comes from an incremental backup.
fn whole(path: &Path, name: &str, depth: usize) -> Result<(), Failure> {
    if depth > DEEPEST {
        return Err(Failure::failed(format!("has a member `{name}` more than {DEEPEST} folders deep")));
    }
    for (last, is_dir) in entries(path)? {
        cancelled()?;
        let name = if name.is_empty() { last.clone() } else { format!("{name}/{last}") };
        if is_dir {
            whole(&path.join(&last), &name, depth + 1)?;
        } else {
            is_whole(&name).map_err(Failure::failed)?;
        }
    }
    Ok(())
}

/// Returns the entries of a directory, and whether each is a directory.
fn entries(path: &Path) -> Result<Vec<(String, bool)>, Failure> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).at(path)? {
        let entry = entry.at(path)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        found.push((name, entry.file_type().at(entry.path())?.is_dir()));
    }
    Ok(found)
}
