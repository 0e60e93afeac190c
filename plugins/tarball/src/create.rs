//! Restores a backup. The host unpacks all archives at the same time and compares every file with the manifest. Afterwards this module
//! checks in the data directory what the host cannot check.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};

use postgres_formats::backup_label::{self, Start};
use postgres_formats::control_file::RelationFiles;
use postgres_formats::{control_file, names, version};
use restore::missing;
use restore::unpacked::{check_files, entries};
use understudy::transfer::{self, IncrementFormat, Job, Listing, Unpack};
use understudy::{AtPath, Datadir, Failure, Plan, log, progress, source};

use crate::archive::ArchiveObject;
use crate::backup::Backup;
use crate::chain::{Chain, Older};
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

/// Restores the backup of `plan`.
pub(crate) fn all(place: &Place, plan: &Plan, datadir: &Datadir) -> Result<(), Failure> {
    let (backup, base, chain) = planned(place, plan)?;
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
        Some(object) => Some(manifest::listing(place, object, &|_| true)?),
        None => None,
    };
    progress::expect(plan.bytes, plan.files);
    progress::phase("unpacking");
    let major = plan.postgresql_major.or_else(|| source::server_version().map(|version| version / 10_000));
    if let Some(major) = major {
        datadir.write_version(major)?;
    }
    if chain.is_some() {
        // The server does not start from the label of an incremental backup. The label in the archive is checked, but not written.
        datadir.write(names::BACKUP_LABEL, &mut &backup_label::without_increment(&base.label_text)[..])?;
    }
    let mut work = Unpacking::new(chain.as_ref(), major.is_some())?;
    work.add_all(place, &backup, manifest.as_mut(), Link::Newest, &|_| true)?;
    if let Some(chain) = &chain {
        let has_tablespace = |oid| backup.tablespaces.contains_key(&oid);
        work.add_older(chain, &has_tablespace)?;
    }
    work.job.finish()?;
    if let (Some(manifest), Some(object)) = (&manifest, &backup.manifest) {
        manifest.check_version(place, object, &fs::read(datadir.place(VERSION)?).at(VERSION)?)?;
    }
    if let (Some(manifest), Some(object)) = (&mut manifest, &backup.manifest) {
        manifest.check_complete(place, object)?;
    }
    if backup.reload(place)?.is_none_or(|now| now.mark() != backup.mark()) {
        return Err(replaced(place));
    }
    let restored = Restored { place, backup: &backup, datadir };
    restored.check(plan, manifest.is_none())?;
    if chain.is_some() {
        restored.check_relation_files()?;
    }
    progress::phase("checking the write-ahead log");
    wal::check(place, &backup, &base.label, manifest.as_ref().map(|manifest| &manifest.summary), datadir)?;
    log::info!("unpacked {}", plan.backup);
    Ok(())
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

/// The place of a backup in its chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    /// The backup that is restored.
    Newest,
    /// A backup that it depends on.
    Older,
}

/// The job that unpacks the archives.
struct Unpacking {
    job: Job,
    /// The host's chain, if the backup is incremental.
    chain: Option<transfer::Chain>,
    /// Files of base.tar that are not written.
    skip: Vec<String>,
}

impl Unpacking {
    /// With `has_version`, PG_VERSION is written already. With a chain, backup_label is.
    fn new(chain: Option<&Chain>, has_version: bool) -> Result<Self, Failure> {
        let skip = std::iter::once(SKIPPED_IN_BASE)
            .chain(has_version.then_some(VERSION))
            .chain(chain.is_some().then_some(names::BACKUP_LABEL));
        Ok(Self {
            job: Job::new(),
            chain: match chain {
                Some(_) => Some(restore::chain::begin(IncrementFormat::Postgresql)?),
                None => None,
            },
            skip: skip.map(str::to_owned).collect(),
        })
    }

    /// Adds all archives of a backup. Of an older backup of a chain, those of the WAL and of tablespaces that the newest backup does not
    /// have are left out.
    fn add_all(
        &mut self,
        place: &Place,
        backup: &Backup,
        mut manifest: Option<&mut Manifest>,
        which: Link,
        has_tablespace: &dyn Fn(u32) -> bool,
    ) -> Result<(), Failure> {
        let wal_limit = manifest.as_ref().map(|manifest| {
            let ranges = manifest.summary.wal_ranges.len() as u64;
            let needed = manifest.summary.wal_bytes(LARGEST_SEGMENT).unwrap_or(u64::MAX);
            needed.saturating_add(ranges.saturating_mul(LARGEST_SEGMENT))
        });
        let base = Unpack {
            limit: manifest.as_ref().map_or(u64::MAX, |manifest| {
                let fetched = if backup.wal.is_none() { wal_limit.unwrap_or(u64::MAX) } else { 0 };
                manifest.base_bytes.saturating_add(SLACK).saturating_add(fetched)
            }),
            skip: self.skip.clone(),
            refuse: REFUSED_IN_BASE.map(str::to_owned).to_vec(),
            ..nothing("")
        };
        self.add(place, &backup.base, base, listing_of(&mut manifest))?;
        for (oid, archive) in backup.tablespaces.iter().filter(|(oid, _)| has_tablespace(**oid)) {
            let item = Unpack {
                limit: manifest
                    .as_ref()
                    .map_or(u64::MAX, |manifest| manifest.tablespace_bytes.get(oid).copied().unwrap_or(0)),
                ..nothing(&format!("{}/{oid}", names::PG_TBLSPC))
            };
            self.add(place, archive, item, listing_of(&mut manifest))?;
        }
        if let Some(archive) = backup.wal.as_ref().filter(|_| which == Link::Newest) {
            let item = Unpack { limit: wal_limit.unwrap_or(u64::MAX), ..nothing(names::PG_WAL) };
            self.add(place, archive, item, listing_of(&mut manifest))?;
        }
        Ok(())
    }

    fn add(
        &mut self,
        place: &Place,
        archive: &ArchiveObject,
        item: Unpack,
        files: Option<&mut Listing>,
    ) -> Result<(), Failure> {
        let origin = self.job.origin_of(&place.at.bucket, archive.codec, || archive.pipeline())?;
        // The files of a plain archive cannot be larger than the archive.
        let limit = if archive.codec.is_none() { item.limit.min(archive.object.size) } else { item.limit };
        let item = Unpack { origin, object: archive.object.key.clone(), limit, ..item };
        match &mut self.chain {
            None => self.job.unpack(&item, files),
            Some(chain) => self.job.unpack_link(&item, files, chain),
        }
    }

    /// Adds the pages that the newest backup does not have, from one older backup after the other.
    fn add_older(&mut self, older: &Chain, has_tablespace: &dyn Fn(u32) -> bool) -> Result<(), Failure> {
        let place = &older.place;
        for Older { backup, label, .. } in &older.older {
            self.job.wait_until_idle()?;
            if let Some(chain) = &mut self.chain {
                chain.begin_older()?;
            }
            log::info!("adding the pages that only {} has", label.describe());
            let mut manifest = match &backup.manifest {
                Some(object) => Some((manifest::listing(place, object, has_tablespace)?, object)),
                None => None,
            };
            let listing = manifest.as_mut().map(|(manifest, _)| manifest);
            self.add_all(place, backup, listing, Link::Older, has_tablespace)?;
            self.job.wait_until_idle()?;
            if let Some((manifest, object)) = &mut manifest {
                manifest.check_complete(place, object)?;
            }
            if backup.reload(place)?.is_none_or(|now| now.mark() != backup.mark()) {
                return Err(replaced(place));
            }
        }
        let Some(chain) = &mut self.chain else { return Ok(()) };
        match missing::of_chain(chain)? {
            None => Ok(()),
            Some(some) => Err(Failure::failed(format!(
                "the backups of the chain in {place} do not contain all pages of {some}"
            ))),
        }
    }
}

/// Returns the listing of a manifest.
fn listing_of<'a>(manifest: &'a mut Option<&mut Manifest>) -> Option<&'a mut Listing> {
    manifest.as_deref_mut().map(|manifest| &mut manifest.listing)
}

/// The data directory after the host has unpacked the archives.
pub(crate) struct Restored<'a> {
    pub(crate) place: &'a Place,
    pub(crate) backup: &'a Backup,
    pub(crate) datadir: &'a Datadir,
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
                check_files(&root, &is_whole).map_err(|failure| self.in_archive(archive, failure))?;
            }
        }
        self.wal()?;
        if look_at_all {
            check_files(self.datadir.path(), &is_whole).map_err(|failure| self.in_archive(base, failure))?;
        }
        Ok(())
    }

    /// Checks that the cluster has the pages and the segments for which files were combined. An increment without pages looks alike for all.
    ///
    /// # Errors
    /// Fails if the control file says otherwise or cannot be read.
    pub(crate) fn check_relation_files(&self) -> Result<(), Failure> {
        let control = self.small(names::CONTROL_FILE, control_file::SIZE)?;
        RelationFiles::check_default(&control).map_err(|error| {
            self.backup.base.failed(self.place, format!("has a global/pg_control that {error}"))
        })
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
