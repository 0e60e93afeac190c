//! Makes the plan. Checks everything that the repository shows without reading the backup's files; only the control file is read.

use std::collections::{BTreeSet, HashSet};

use postgres_formats::names::{BACKUP_LABEL, PG_VERSION};
use postgres_formats::segment::SegmentName;
use restore::wal::Amount;
use understudy::{Error, Failure, Plan, Tablespace, cancelled, log};

use crate::choice::{Chosen, choose};
use crate::control::{self, ControlFile};
use crate::files::one_more;
use crate::manifest::{Contents, File};
use crate::names::shown;
use crate::options::Options;
use crate::wal;

/// How many damaged files are named in the log.
const MOST_NAMED: u64 = 20;

/// The counts of a manifest.
#[derive(Debug, Default)]
pub(crate) struct Counted {
    bytes: u64,
    files: u64,
    directories: usize,
    /// The first files that had pages with wrong checksums.
    damaged: Vec<(Box<str>, Option<u32>)>,
    damaged_files: u64,
    /// The files in `pg_wal`.
    wal: BTreeSet<Box<str>>,
}

impl Contents for Counted {
    fn file(&mut self, file: File) -> Result<(), String> {
        one_more(usize::try_from(self.files).unwrap_or(usize::MAX).saturating_add(self.directories))?;
        self.bytes = self.bytes.checked_add(file.size).ok_or("lists more bytes than there can be")?;
        self.files += 1;
        if let Some(damage) = file.damage {
            self.damaged_files += 1;
            if self.damaged_files <= MOST_NAMED {
                self.damaged.push((file.name.clone(), damage.0));
            }
        }
        if let Some(name) = file.name.strip_prefix("pg_wal/") {
            self.wal.insert(name.into());
        }
        Ok(())
    }

    fn directory(&mut self, _name: &str) -> Result<(), String> {
        one_more(usize::try_from(self.files).unwrap_or(usize::MAX).saturating_add(self.directories))?;
        self.directories += 1;
        Ok(())
    }
}

impl Counted {
    /// Returns the number of WAL segments in the backup that have no status file. `create` adds a status file for each.
    fn segments_without_status(&self) -> u64 {
        let has_status = |name: &str| {
            ["done", "ready"]
                .iter()
                .any(|state| self.wal.contains(format!("archive_status/{name}.{state}").as_str()))
        };
        let is_segment = |name: &str| SegmentName::parse(name.as_bytes()).is_some();
        self.wal.iter().filter(|name| is_segment(name) && !has_status(name)).count() as u64
    }
}

/// A backup that can be restored: the plan so far, and its control file.
#[derive(Debug)]
pub(crate) struct Usable {
    pub(crate) plan: Plan,
    pub(crate) control: ControlFile,
}

/// Checks that `chosen` can be restored. With `looks_for_objects`, also checks that the backups on which it is built exist, and that the
/// objects with the longest keys exist. Each of these checks takes a request.
///
/// # Errors
/// The error says why the backup cannot be restored.
pub(crate) fn usable<C>(chosen: &Chosen<C>, looks_for_objects: bool) -> Result<Usable, Failure> {
    check_kind(chosen)?;
    if looks_for_objects {
        check_references(chosen)?;
    }
    let mut plan = describe(chosen)?;
    let control = control::read(chosen)?;
    if let Some(system_identifier) = plan.system_identifier
        && system_identifier != control.control.system_identifier
    {
        let found = control.control.system_identifier;
        return Err(chosen.failed(format!(
            "is from the cluster {system_identifier}, but its pg_control is from the cluster {found}"
        )));
    }
    if looks_for_objects {
        check_longest(chosen)?;
    }
    // The manifest names no WAL if the cluster was shut down.
    plan.timeline = plan.timeline.or(Some(control.control.timeline));
    Ok(Usable { plan, control })
}

/// Returns the plan of the backup that `options` choose.
///
/// # Errors
/// The error says why no backup can be restored.
pub(crate) fn of(options: &Options) -> Result<Plan, Failure> {
    let (chosen, Usable { mut plan, control }) =
        choose(options, &mut Counted::default, &|chosen| usable(chosen, true))?;
    warn(&chosen);
    let wal = match wal::route(&chosen, options.wal, control.segment_size)? {
        None => Amount::default(),
        Some(route) => route.expected(&chosen.backup.label, &|name| chosen.contents.wal.contains(name))?,
    };
    let files = chosen.contents.files + chosen.contents.segments_without_status();
    (plan.bytes, plan.files) = wal.added_to((Some(chosen.contents.bytes), Some(files)));
    plan.builds_on_existing = options.is_delta;
    Ok(plan)
}

/// Makes the plan from the manifest.
///
/// # Errors
/// Fails if the manifest contradicts itself or `backup.info`.
fn describe<C>(chosen: &Chosen<C>) -> Result<Plan, Failure> {
    let head = &chosen.head;
    let timeline_of = |name: &str| SegmentName::parse(name.as_bytes()).map(SegmentName::timeline);
    let timeline = match (&head.archive_start, &head.archive_stop) {
        (Some(start), Some(stop)) => match (timeline_of(start), timeline_of(stop)) {
            (Some(start), Some(stop)) if start == stop => Some(stop),
            _ => {
                let (start, stop) = (shown(start, 60), shown(stop, 60));
                return Err(
                    chosen.failed(format!("begins with the segment `{start}` and ends with `{stop}`"))
                );
            }
        },
        _ => None,
    };
    if let (Some(start), Some(stop)) = (head.lsn_start, head.lsn_stop)
        && stop < start
    {
        return Err(chosen.failed(format!("begins at {start} and ends at {stop}")));
    }
    let Some(cluster) = chosen.cluster() else {
        return Err(chosen.failed("is from a cluster that backup.info does not list"));
    };
    if head.system_identifier != Some(cluster.system_identifier)
        || head.version.as_ref() != Some(&cluster.version)
    {
        return Err(chosen.failed(format!(
            "is not from the cluster that backup.info gives: {} of PostgreSQL {}",
            cluster.system_identifier, cluster.version
        )));
    }
    let major = match cluster.version.split_once('.') {
        None => cluster.version.parse().ok(),
        // Before version 10 a major version had two numbers.
        Some(_) => None,
    };
    let Some(major) = major else {
        return Err(
            chosen.failed(format!("is of PostgreSQL {}, which is too old to be restored", cluster.version))
        );
    };
    let tablespaces = head.targets.iter().filter_map(|target| {
        let (oid, name) = target.tablespace.as_ref()?;
        let name = Some(name.clone()).filter(|name| !name.is_empty());
        Some(Tablespace { oid: *oid, name, location: target.path.clone() })
    });
    Ok(Plan {
        backup: chosen.backup.label.clone(),
        postgresql_major: Some(major),
        system_identifier: head.system_identifier,
        timeline,
        start_lsn: head.lsn_start.map(|lsn| lsn.0),
        stop_lsn: head.lsn_stop.map(|lsn| lsn.0),
        tablespaces: tablespaces.collect(),
        ..Plan::default()
    })
}

/// Checks that a backup of this kind can be restored.
///
/// # Errors
/// The error says why the backup cannot be restored.
fn check_kind<C>(chosen: &Chosen<C>) -> Result<(), Failure> {
    let head = &chosen.head;
    // Bundles are raw if the full backup was taken with `repo-block=y` (`manifestBuildIncr` in pgBackRest's src/info/manifest.c).
    let full = head.block_references.iter().next().filter(|_| head.has_raw_bundles);
    for label in head.block_labels().chain(full) {
        if chosen.info.has_chunks(label) {
            return Err(chosen.failed(format!(
                "lists files in blocks of the backup {label}, which the beta of block incremental backup in pgBackRest 2.45 wrote in \
                 a form of its own: take a new full backup with repo-block=n or with a newer pgBackRest, or restore this one with \
                 pgBackRest 2.45"
            )));
        }
    }
    if !head.has_version_file {
        return Err(chosen.failed(format!("lists no {PG_VERSION}: a cluster does not start without it")));
    }
    if head.lsn_start.is_some() && !head.has_label_file {
        return Err(chosen.failed(format!(
            "is of a backup of a running cluster and lists no {BACKUP_LABEL}: without it the server would begin in the wrong place"
        )));
    }
    Ok(())
}

/// Checks that the store has the objects with the longest keys. A repository may have been copied to a store that does not accept them.
///
/// # Errors
/// Fails if one of these objects is missing.
fn check_longest<C>(chosen: &Chosen<C>) -> Result<(), Failure> {
    for file in chosen.head.longest.files() {
        cancelled()?;
        let object = chosen.repository.backup(&chosen.head.object(file));
        let name = shown(&file.name, 200);
        match chosen.repository.bucket.head(&object) {
            Ok(_) => {}
            Err(Error::NotFound(_)) => {
                return Err(chosen.failed(format!(
                    "lists `{name}`, which is not in the repository: the backup expired, was removed or was not copied whole"
                )));
            }
            Err(Error::Invalid(why) | Error::Limit(why)) => {
                return Err(chosen.failed(format!("lists `{name}`, which this store cannot have: {why}")));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Checks that every other backup that contains files of this backup exists.
fn check_references<C>(chosen: &Chosen<C>) -> Result<(), Failure> {
    let listed: HashSet<&str> = chosen.info.backups.iter().map(|backup| backup.label.as_str()).collect();
    let labels: BTreeSet<&str> =
        chosen.head.references.iter().chain(chosen.head.block_references.iter()).collect();
    for label in labels.into_iter().filter(|label| *label != chosen.backup.label) {
        cancelled()?;
        let gone = |what: &str| {
            chosen
                .failed(format!("lists files of the backup {label}, which {what}: it expired or was removed"))
        };
        if !listed.contains(label) {
            return Err(gone("backup.info does not list"));
        }
        let manifest = format!("{}/backup.manifest", chosen.repository.backup(label));
        let bucket = &chosen.repository.bucket;
        if bucket.find(&manifest)?.is_none() && bucket.find(&format!("{manifest}.copy"))?.is_none() {
            return Err(gone("is gone"));
        }
    }
    Ok(())
}

/// Logs what the operator should know about a backup that can be restored.
fn warn(chosen: &Chosen<Counted>) {
    for target in chosen.head.targets.iter().filter(|target| target.tablespace.is_none()) {
        let (name, path) = (shown(&target.name, 200), shown(&target.path, 200));
        if target.name == "pg_wal" {
            log::info!("pg_wal was a link to {path}: it goes where the operator keeps WAL");
        } else {
            log::warn!("{name} was a link to {path}: what it led to is restored in its place");
        }
    }
    if chosen.head.block_labels().next().is_some() {
        // A block map may also refer to the blocks of a backup that holds no map of this manifest, and the maps are not read here.
        for label in chosen.head.block_references.iter().filter(|label| chosen.info.has_chunks(label)) {
            log::warn!(
                "the backup {label}, which this one builds on, is of pgBackRest 2.45 or older: if a file has blocks in it, which only the beta \
                 of block incremental backup wrote, `create` refuses the file"
            );
        }
    }
    let counted = &chosen.contents;
    for (name, pages) in &counted.damaged {
        let name = shown(name, 200);
        match pages {
            Some(pages) => log::warn!(
                "{name} had {pages} pages with wrong checksums when the backup {} was taken, and is restored as it was",
                chosen.backup.label
            ),
            None => log::warn!(
                "{name} did not consist of whole pages when the backup {} was taken, and is restored as it was",
                chosen.backup.label
            ),
        }
    }
    if counted.damaged_files > MOST_NAMED {
        log::warn!("{} more files had pages with wrong checksums", counted.damaged_files - MOST_NAMED);
    }
    if chosen.backup.has_errors && counted.damaged_files == 0 {
        log::warn!("backup.info says that the backup {} had errors", chosen.backup.label);
    }
}
