//! Finds the backups that an incremental backup of PostgreSQL 17 and later depends on.
//!
//! The label of an incremental backup names the start of the backup that it is based on (`INCREMENTAL FROM LSN` and `INCREMENTAL FROM
//! TLI`). That backup is the one in the same place whose own label says that it began there, as pg_combinebackup requires
//! (`check_backup_label_files` in `src/bin/pg_combinebackup/pg_combinebackup.c`).

use postgres_formats::names::BACKUP_MANIFEST;
use understudy::{Failure, cancelled, log};

use crate::backup::{self, Backup};
use crate::look::{self, Base, Wanted};
use crate::manifest;
use crate::place::Place;
use crate::plan::look_at;

/// The largest number of backups that an incremental backup may depend on.
const LONGEST: usize = 200;

/// A backup that an incremental backup depends on.
#[derive(Debug)]
pub(crate) struct Older {
    pub(crate) backup: Backup,
    pub(crate) base: Base,
}

/// The backups that an incremental backup depends on, from newer to older. The last one is a full backup.
#[derive(Debug)]
pub(crate) struct Chain {
    /// The place of all these backups.
    pub(crate) place: Place,
    pub(crate) older: Vec<Older>,
}

impl Chain {
    /// Finds the chain of a backup; `None` if it is a full backup.
    ///
    /// # Errors
    /// Fails if a backup of the chain is missing, cannot be read or has no manifest, or is from another cluster.
    pub(crate) fn of(place: &Place, backup: &Backup, base: &Base) -> Result<Option<Self>, Failure> {
        if base.label.incremental_from.is_none() {
            return Ok(None);
        }
        let beside = place.of_neighbours()?;
        let mut known = all_in(&beside)?;
        let system = system_identifier(place, backup)?;
        let mut older: Vec<Older> = Vec::new();
        loop {
            let (place, last, label) = match older.last() {
                None => (place, backup, &base.label),
                Some(last) => (&beside, &last.backup, &last.base.label),
            };
            let Some(from) = label.incremental_from else { break };
            let failed = |what: String| last.base.failed(place, what);
            if older.len() == LONGEST {
                return Err(failed(format!("depends on more than {LONGEST} backups")));
            }
            let timeline = label.incremental_from_timeline.unwrap_or(label.timeline);
            let began =
                |(_, base): &(Backup, Base)| (base.label.start_lsn, base.label.timeline) == (from, timeline);
            // A backup begins before those that are based on it. So no backup is its own predecessor.
            let found = known.iter().position(began).filter(|_| from < label.start_lsn);
            let Some(found) = found else {
                return Err(failed(format!(
                    "is an incremental backup from {from} on timeline {timeline}, and {beside} has no usable backup that began there: \
                     put that backup into a folder beside this one, or combine them with pg_combinebackup"
                )));
            };
            let (backup, _) = known.swap_remove(found);
            let (backup, base) = look_at(&beside, backup, Wanted::Labels)?;
            if let (Some(own), Some(listed)) = (system_identifier(&beside, &backup)?, system)
                && own != listed
            {
                return Err(backup.base.failed(
                    &beside,
                    format!("is from the cluster {own}, but the backup that is based on it is from the cluster {listed}"),
                ));
            }
            older.push(Older { backup, base });
        }
        Ok(Some(Self { place: beside, older }))
    }
}

/// Reads the labels of all backups in `place`. Backups that cannot be read are left out.
fn all_in(place: &Place) -> Result<Vec<(Backup, Base)>, Failure> {
    let mut known = Vec::new();
    for backup in backup::find(place)? {
        cancelled()?;
        match look::at_base(place, &backup.base, Wanted::Labels) {
            Ok(base) => known.push((backup, base)),
            Err(Failure::Failed(why)) => {
                log::debug!("no incremental backup can depend on this backup: {why}")
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(known)
}

/// Returns the system identifier in the manifest of a backup. Every backup of a chain must have a manifest, because nothing else covers
/// the pages of its files.
fn system_identifier(place: &Place, backup: &Backup) -> Result<Option<u64>, Failure> {
    let Some(object) = &backup.manifest else {
        return Err(backup.base.failed(
            place,
            format!("has no {BACKUP_MANIFEST} beside it: the backups of a chain are only combined if their files can be checked"),
        ));
    };
    Ok(manifest::summary(place, object, manifest::May::HaveIncrements)?.system_identifier)
}
