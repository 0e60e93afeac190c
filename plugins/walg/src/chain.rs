//! The backups that a delta backup depends on.

use std::collections::BTreeSet;

use understudy::{Failure, cancelled};

use crate::files::Listed;
use crate::name::BackupName;
use crate::place::Place;
use crate::sentinel::{Backup, Parent};

/// The longest permitted chain. WAL-G makes a full backup after WALG_DELTA_MAX_STEPS delta backups.
pub(crate) const MOST_BACKUPS: usize = 1000;

/// A backup, and the archives that its sentinel names.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) backup: Backup,
    pub(crate) archives: BTreeSet<String>,
}

/// Reads the sentinels of the backup `name` and of every backup on which it depends. Returns the older backups with the newest first. If
/// the sentinel of `name` lists the files of the backup, passes the list to `listed`.
///
/// # Errors
/// Fails if a backup is missing, or does not belong to the chain.
pub(crate) fn load(
    place: &Place,
    name: &BackupName,
    listed: &mut Listed<'_>,
) -> Result<(Loaded, Vec<Loaded>), Failure> {
    let Some(newest) = Backup::load(place, name, listed)? else {
        return Err(missing(place, name)?);
    };
    let newest = Loaded { backup: newest, archives: listed.archives.clone() };
    let mut older: Vec<Loaded> = Vec::new();
    let mut known = BTreeSet::from([name.clone()]);
    loop {
        let child = &older.last().unwrap_or(&newest).backup;
        let Some(parent) = &child.sentinel.parent else { return Ok((newest, older)) };
        cancelled()?;
        if !known.insert(parent.name.clone()) {
            return Err(child.failed(format!("names {}, which depends on it itself", parent.name)));
        }
        if older.len() + 1 == MOST_BACKUPS {
            return Err(Failure::failed(format!("{name} depends on more than {MOST_BACKUPS} backups")));
        }
        let mut ignored = |_: String| Ok(());
        let mut listed = Listed::new(&mut ignored);
        let Some(found) = Backup::load(place, &parent.name, &mut listed)? else {
            return Err(child.failed(format!(
                "names the backup {}, on which it depends, and that backup has no sentinel: it was removed; choose another \
                 with `backup`",
                parent.name
            )));
        };
        check(child, parent, &found)?;
        older.push(Loaded { backup: found, archives: listed.archives });
    }
}

/// Returns the failure for a backup without a sentinel.
fn missing(place: &Place, name: &BackupName) -> Result<Failure, Failure> {
    let folder = place.backups(name.as_str());
    let has_objects = match place.at.bucket.objects(&folder).next() {
        None | Some(Err(understudy::Error::NotFound(_) | understudy::Error::Invalid(_))) => false,
        // A listing also has the objects of backups whose names only begin so. Those of the folder come first.
        Some(object) => object?.key.strip_prefix(&folder).is_some_and(|rest| rest.starts_with('/')),
    };
    Ok(Failure::failed(if has_objects {
        format!("the backup {name} in {place} has no sentinel: it was not finished, or was removed in part")
    } else {
        format!("there is no backup {name} in {place}")
    }))
}

/// Checks that `child` was made from `parent`, to which `link` leads.
fn check(child: &Backup, link: &Parent, parent: &Backup) -> Result<(), Failure> {
    let (newer, older) = (&child.sentinel, &parent.sentinel);
    let refuse =
        |what: String| Err(child.failed(format!("was not made from the backup {}: {what}", parent.name)));
    if link.start != older.start {
        return refuse(format!(
            "it begins with the changes after {}, and that backup began at {}",
            link.start, older.start
        ));
    }
    // WAL-G refuses to make such a backup (`backupFromFuture` in internal/databases/postgres/backup_push_handler.go).
    if older.finish > newer.start {
        return refuse(format!("that backup ended at {}, and it began at {}", older.finish, newer.start));
    }
    if let (Some(of_child), Some(of_parent)) = (newer.system_identifier, older.system_identifier)
        && of_child != of_parent
    {
        return refuse(format!(
            "it is of the cluster {of_child}, and that backup of the cluster {of_parent}"
        ));
    }
    // A minor release may have been installed between the two.
    if newer.major != older.major {
        return refuse(format!(
            "it is of PostgreSQL {}, and that backup of PostgreSQL {}",
            newer.major, older.major
        ));
    }
    if child.name.timeline() < parent.name.timeline() {
        let (of_child, of_parent) = (child.name.timeline(), parent.name.timeline());
        return refuse(format!(
            "it is on the timeline {of_child}, and that backup on the timeline {of_parent}"
        ));
    }
    let (full, count) = match &older.parent {
        None => (&parent.name, 0),
        Some(further) => (&further.full, further.count),
    };
    if link.full != *full {
        return refuse(format!("its chain begins with {}, and that backup's with {full}", link.full));
    }
    // The count may be larger: with WALG_DELTA_ORIGIN=LATEST_FULL it goes on from that of the latest backup.
    if link.count <= count {
        return refuse(format!("it is number {} of its chain, and that backup number {count}", link.count));
    }
    Ok(())
}
