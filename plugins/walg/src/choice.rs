//! Chooses the backup to restore.

use postgres_formats::Lsn;
use restore::target::Until;
use understudy::{Failure, cancelled, log};

use crate::metadata::{Found, Metadata};
use crate::name::BackupName;
use crate::options::Wanted;
use crate::place::Place;
use crate::sentinel::SUFFIX;

/// The largest permitted number of finished backups in a storage.
const MOST_BACKUPS: usize = 10_000;

/// How many objects below the folder of the backups are looked through. The archives of all backups are among them.
const MOST_OBJECTS: usize = 1_000_000;

/// Returns the name of the backup that `wanted` chooses.
///
/// # Errors
/// [`Failure::NotApplicable`] if there is no finished backup. Fails if no backup matches, or if several have the same user data.
pub(crate) fn choose(place: &Place, wanted: &Wanted) -> Result<BackupName, Failure> {
    match wanted {
        Wanted::Named(name) => Ok(name.clone()),
        Wanted::Newest(target) => {
            let found = finished(place)?;
            let fits = |finished: &&Finished| {
                target.timeline.is_none_or(|timeline| finished.name.timeline() == timeline)
            };
            let fitting: Vec<_> = found.iter().filter(fits).collect();
            let newest = match &target.until {
                None => fitting.last().map(|finished| &finished.name),
                Some(Until::Time { seconds, .. }) => before_time(place, &fitting, *seconds)?,
                Some(Until::Lsn(lsn)) => before_lsn(place, &fitting, *lsn)?,
            };
            newest.cloned().ok_or_else(|| {
                Failure::failed(format!(
                    "{place} holds {} finished backups, and none{target}: choose another with `backup`",
                    found.len()
                ))
            })
        }
        Wanted::UserData(wanted) => {
            let found = finished(place)?;
            let mut matching = Vec::new();
            for finished in &found {
                cancelled()?;
                if matches!(Metadata::load(place, &finished.name)?, Found::Metadata(metadata) if metadata.has_user_data(wanted))
                {
                    matching.push(&finished.name);
                }
            }
            let wanted = shown(wanted);
            match matching.as_slice() {
                [name] => Ok((*name).clone()),
                [] => Err(Failure::failed(format!(
                    "{place} holds {} finished backups, and none with the user data {wanted}: choose another with `backup`",
                    found.len()
                ))),
                [one, other, ..] => Err(Failure::failed(format!(
                    "{} backups in {place} have the user data {wanted}, such as {one} and {other}: choose one with `backup`",
                    matching.len()
                ))),
            }
        }
    }
}

/// How many characters of user data a message has.
const MOST_SHOWN: usize = 100;

/// Returns user data for a message, shortened.
fn shown(user_data: &serde_json::Value) -> String {
    let text = user_data.to_string();
    let beginning: String = text.chars().take(MOST_SHOWN).collect();
    if beginning.len() < text.len() { format!("{beginning}...") } else { beginning }
}

/// Returns the last of the backups that finished at or before a time; `None` if there is none.
fn before_time<'a>(
    place: &Place,
    found: &[&'a Finished],
    seconds: i64,
) -> Result<Option<&'a BackupName>, Failure> {
    let mut best: Option<(i64, &BackupName)> = None;
    for finished in found {
        cancelled()?;
        let at = match Metadata::load(place, &finished.name)? {
            Found::Damaged => continue,
            Found::Metadata(metadata) => metadata.finished(),
            Found::Nothing => None,
        };
        let at = match at {
            Some(at) => at,
            // WAL-G writes the sentinel when the backup has finished.
            None => finished.written.and_then(|written| i64::try_from(written).ok()).unwrap_or(i64::MAX),
        };
        if at <= seconds && best.is_none_or(|(best, _)| best <= at) {
            best = Some((at, &finished.name));
        }
    }
    Ok(best.map(|(_, name)| name))
}

/// Returns the last of the backups that finished at or before an LSN; `None` if there is none.
fn before_lsn<'a>(
    place: &Place,
    found: &[&'a Finished],
    lsn: Lsn,
) -> Result<Option<&'a BackupName>, Failure> {
    for finished in found.iter().rev() {
        cancelled()?;
        let finish = match Metadata::load(place, &finished.name)? {
            Found::Damaged => continue,
            Found::Metadata(metadata) => metadata.finish(),
            Found::Nothing => None,
        };
        match finish {
            Some(finish) if finish <= lsn => return Ok(Some(&finished.name)),
            Some(_) => {}
            None => log::warn!(
                "skipped the backup {}: it has no metadata with the LSN at which it finished",
                finished.name
            ),
        }
    }
    Ok(None)
}

/// A finished backup.
struct Finished {
    name: BackupName,
    /// When its sentinel was written, in seconds since 1970.
    written: Option<u64>,
}

/// Finds the finished backups, the one whose sentinel was written last at the end, as WAL-G sorts them (`GetLatestBackup` in
/// internal/backup_util.go).
///
/// # Errors
/// [`Failure::NotApplicable`] if there is none; the errors of the store and of the limits.
fn finished(place: &Place) -> Result<Vec<Finished>, Failure> {
    let folder = place.backups("");
    let mut found = Vec::new();
    let too_many = || {
        Failure::failed(format!(
            "{place} holds more than {MOST_OBJECTS} objects: name the backup with the option `backup`"
        ))
    };
    place.at.each_in(&folder, MOST_OBJECTS, &too_many, &mut |path, object| {
        let Some(name) = path.strip_suffix(SUFFIX) else { return Ok(()) };
        if name.contains('/') {
            return Ok(());
        }
        let Some(name) = BackupName::parse(name) else {
            log::warn!("skipped {}: it does not have the name of a backup", place.shown(&object.key));
            return Ok(());
        };
        if found.len() == MOST_BACKUPS {
            return Err(Failure::failed(format!(
                "{place} holds more than {MOST_BACKUPS} backups: name one with the option `backup`"
            )));
        }
        found.push(Finished { name, written: object.modified });
        Ok(())
    })?;
    if found.is_empty() {
        return Err(Failure::not_applicable(format!(
            "there is no finished backup in {place}: none of its objects is named base_*{SUFFIX}"
        )));
    }
    found.sort_by(|one, other| (one.written, &one.name).cmp(&(other.written, &other.name)));
    Ok(found)
}
