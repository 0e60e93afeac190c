//! Chooses the backup and makes the plan.
//!
//! If a place has several backups, the backup that began last is used: the highest timeline, then the highest start LSN, according to the
//! backup_labels. Backups that cannot be used are skipped with a warning: backups without backup_label or without the archive of a
//! tablespace, incremental backups of which a predecessor is missing, and backups whose manifest is damaged or belongs to another backup.

use pgdata::checksum::{Algorithm, Digesting, Summing};
use pgdata::manifest::Summary;
use postgres_formats::backup_label::Start;
use understudy::{Failure, Plan, Tablespace, cancelled, log};

use crate::backup::{self, Backup, Search};
use crate::chain::{Chain, Older};
use crate::look::{self, Base, Wanted};
use crate::manifest::Overview;
use crate::neighbours::{Known, Neighbours};
use crate::place::Place;

/// How many marks of a chain the name of a backup has.
const NAMED: usize = 4;

/// The default size of a WAL segment. Another size is known only from the control file.
const USUAL_SEGMENT: u64 = 16 << 20;

/// Returns the plan of the best backup in `place`.
///
/// # Errors
/// [`Failure::NotApplicable`] if there is no backup. If no backup can be used, the error describes the problem with the backup that
/// began last.
pub(crate) fn of_best(place: &Place) -> Result<Plan, Failure> {
    let mut first_failure = None;
    let mut broken = |folder: &str, failure| skip(folder, failure, &mut first_failure);
    let backups = backup::find(place, Search::Best, &mut broken)?;
    if let ([], None) = (backups.as_slice(), &first_failure) {
        return Err(Failure::not_applicable(format!("there is no base.tar in {place}")));
    }
    if let ([backup], None) = (backups.as_slice(), &first_failure) {
        return of(place, backup.clone(), &mut Known::default());
    }
    let mut begins = Vec::new();
    let mut neighbours = Neighbours::new(place.of_neighbours()?);
    for backup in backups {
        cancelled()?;
        match look::at_base(place, &backup.base, Wanted::Labels) {
            Ok(base) => {
                begins.push(((base.label.timeline, base.label.start_lsn), backup.clone()));
                neighbours.add(backup, base);
            }
            Err(failure) => skip(&backup.folder, failure, &mut first_failure)?,
        }
    }
    let mut known = Known { neighbours: Some(neighbours), ..Known::default() };
    begins.sort_by(|(one, a), (two, b)| two.cmp(one).then_with(|| b.folder.cmp(&a.folder)));
    for (_, backup) in begins {
        match of(place, backup.clone(), &mut known) {
            Ok(plan) => return Ok(plan),
            Err(failure) => skip(&backup.folder, failure, &mut first_failure)?,
        }
    }
    Err(first_failure.unwrap_or_else(|| Failure::failed(format!("no backup in {place} can be used"))))
}

/// Logs a warning that the backup in `folder` cannot be used. Returns failures that the backup did not cause.
fn skip(folder: &str, failure: Failure, first: &mut Option<Failure>) -> Result<(), Failure> {
    let Failure::Failed(why) = failure else { return Err(failure) };
    log::warn!("skipped the backup {folder}: {why}");
    first.get_or_insert(Failure::Failed(why));
    Ok(())
}

/// Finds the backup from which `plan` was made. The backup must be unchanged.
///
/// # Errors
/// [`Failure::RetryLater`] if the backup, or one that it depends on, was removed or replaced.
pub(crate) fn planned(place: &Place, plan: &Plan) -> Result<(Backup, Base, Option<Chain>), Failure> {
    let mut broken = |folder: &str, failure| {
        log::debug!("the folder {folder} is not of the plan: {failure}");
        Ok(())
    };
    for backup in backup::find(place, Search::Best, &mut broken)? {
        if !backup.folder.is_empty() && !plan.backup.starts_with(&format!("{}: ", backup.folder)) {
            continue;
        }
        let (backup, base) = look_at(place, backup, Wanted::Labels)?;
        let chain = match Chain::of(place, &backup, &base, &mut Known::default()) {
            // The plan had a chain.
            Err(Failure::Failed(why)) => {
                log::warn!("{why}");
                continue;
            }
            chain => chain?,
        };
        if name(&backup, &base.label, chain.as_ref()) == plan.backup {
            return Ok((backup, base, chain));
        }
    }
    Err(replaced(place))
}

/// Returns the failure for a backup that changed after the plan was made.
pub(crate) fn replaced(place: &Place) -> Failure {
    Failure::retry_later(format!(
        "the backup in {place} was replaced or removed since the plan was made: run again"
    ))
}

/// Names a backup, for people to read and for [`planned`].
fn name(backup: &Backup, label: &Start, chain: Option<&Chain>) -> String {
    let older = chain.into_iter().flat_map(|chain| &chain.older).map(|older| &older.backup);
    let mut marks: Vec<_> = std::iter::once(backup).chain(older).map(Backup::mark).collect();
    // A name for people has room for the marks of some backups; the others are together in one.
    if marks.len() > NAMED {
        let mut sum = Summing::new(Algorithm::Crc32c);
        marks.drain(NAMED - 1..).for_each(|mark| sum.update(mark.as_bytes()));
        marks.push(sum.finish().iter().map(|byte| format!("{byte:02x}")).collect());
    }
    let (described, mark) = (label.describe(), marks.join(" on "));
    if backup.folder.is_empty() {
        return format!("{described} ({mark})");
    }
    format!("{}: {described} ({mark})", backup.folder)
}

/// Reads base.tar, and finds the archives of the tablespaces that it names.
pub(crate) fn look_at(place: &Place, mut backup: Backup, wanted: Wanted) -> Result<(Backup, Base), Failure> {
    let base = look::at_base(place, &backup.base, wanted)?;
    backup.find_tablespaces(place, base.map.iter().map(|mapped| mapped.oid))?;
    check_tablespaces(place, &backup, &base)?;
    Ok((backup, base))
}

/// Checks that a backup has the archives of its tablespaces, and no others.
///
/// # Errors
/// Fails if it does not.
pub(crate) fn check_tablespaces(place: &Place, backup: &Backup, base: &Base) -> Result<(), Failure> {
    if let Some(missing) = base.map.iter().find(|mapped| !backup.tablespaces.contains_key(&mapped.oid)) {
        let (oid, location) = (missing.oid, &missing.location);
        return Err(backup.base.failed(
            place,
            format!("has the tablespace {oid} at {location}, but the backup has no {oid}.tar"),
        ));
    }
    for (oid, archive) in &backup.tablespaces {
        if !base.map.iter().any(|mapped| mapped.oid == *oid) {
            return Err(archive.failed(place, "belongs to no tablespace of the backup's tablespace_map"));
        }
    }
    Ok(())
}

/// Makes the plan for `backup`.
fn of(place: &Place, backup: Backup, known: &mut Known) -> Result<Plan, Failure> {
    let (backup, base) = look_at(place, backup, Wanted::All)?;
    let chain = Chain::of(place, &backup, &base, known)?;
    let manifest = known.manifests.of(place, &backup, &base.label)?;
    warn_if_unchecked(place, &backup, manifest.as_deref());
    let mut plan = Plan {
        backup: name(&backup, &base.label, chain.as_ref()),
        postgresql_major: base.major,
        system_identifier: base.control.map(|control| control.system_identifier),
        timeline: Some(base.label.timeline),
        start_lsn: Some(base.label.start_lsn.0),
        tablespaces: base
            .map
            .iter()
            .map(|mapped| Tablespace { oid: mapped.oid, name: None, location: mapped.location.clone() })
            .collect(),
        ..Plan::default()
    };
    match &manifest {
        Some(manifest) => {
            let summary = &manifest.summary;
            add_manifest(place, &backup, summary, &mut plan)?;
            let (bytes, files) = wal(&backup, summary);
            plan.bytes = Some(summary.bytes.saturating_add(bytes));
            plan.files = Some(summary.files.saturating_add(files));
        }
        None => plan.bytes = plain_bytes(&backup),
    }
    if let Some(Chain { place, older }) = &chain {
        // An estimate: the sizes of all files that the backups store. A page that several backups have is written once, and zeros are
        // written for the pages that none has.
        for Older { backup, manifest, .. } in older {
            warn_if_unchecked(place, backup, Some(manifest));
            plan.bytes = plan.bytes.map(|all| all.saturating_add(manifest.summary.bytes));
        }
    }
    Ok(plan)
}

/// Logs a warning if the content of a backup's files cannot be checked.
fn warn_if_unchecked(place: &Place, backup: &Backup, manifest: Option<&Overview>) {
    let base = place.shown(&backup.base.object.key);
    match manifest {
        None => log::warn!("the folder of {base} has no backup_manifest: files cannot be checked"),
        Some(manifest) if manifest.lacks_checksums => log::warn!(
            "the backup_manifest beside {base} has no checksums: only the names and sizes of files can be checked"
        ),
        Some(_) => {}
    }
}

/// Adds what the manifest says to the plan. Fails if the manifest is from another cluster.
fn add_manifest(place: &Place, backup: &Backup, summary: &Summary, plan: &mut Plan) -> Result<(), Failure> {
    let manifest = backup.manifest.as_ref().map(|object| place.shown(&object.key)).unwrap_or_default();
    let base = place.shown(&backup.base.object.key);
    match (summary.system_identifier, plan.system_identifier) {
        (Some(listed), Some(found)) if listed != found => {
            return Err(Failure::failed(format!(
                "{manifest} is from the cluster {listed}, but {base} is from the cluster {found}"
            )));
        }
        (Some(listed), _) => plan.system_identifier = Some(listed),
        (None, _) => {}
    }
    if let Some(last) = summary.wal_ranges.iter().max_by_key(|range| range.timeline) {
        plan.timeline = Some(last.timeline);
        plan.stop_lsn = Some(last.end.0);
    }
    Ok(())
}

/// Returns how many bytes and files of WAL are restored. For an uncompressed pg_wal.tar, counts the whole archive. For a compressed one, or
/// for WAL in base.tar, counts only the WAL that the manifest requires, so more may be restored.
fn wal(backup: &Backup, summary: &Summary) -> (u64, u64) {
    let listed = summary.wal_bytes(USUAL_SEGMENT).unwrap_or(0);
    match &backup.wal {
        Some(wal) if wal.codec.is_none() => (wal.object.size, wal.object.size.div_ceil(USUAL_SEGMENT)),
        _ => (listed, listed / USUAL_SEGMENT),
    }
}

/// Returns an upper limit for the number of bytes in the archives; `None` if an archive is compressed.
fn plain_bytes(backup: &Backup) -> Option<u64> {
    let archives = std::iter::once(&backup.base).chain(&backup.wal).chain(backup.tablespaces.values());
    archives.map(|archive| archive.codec.is_none().then_some(archive.object.size)).sum()
}
