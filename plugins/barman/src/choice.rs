//! Chooses the backup that the options name.

use restore::target::{Target, Until, seconds_of};
use restore::timelines::Timelines;
use understudy::{Failure, log, source};

use crate::catalogue::{self, Entry};
use crate::info::{Backup, Status};
use crate::options::{Options, Wanted};
use crate::place::Place;

/// How many backups that cannot be chosen are described in a failure.
const NAMED: usize = 3;

/// Returns the backups that the options allow, the best first, read from their `backup.info`. There is at least one, and the status of each
/// says that all its files were copied. Only for the first backup, the function has checked that Barman does not delete it.
///
/// # Errors
/// [`Failure::NotApplicable`] if the server has no backup; [`Failure::Failed`] if none can be chosen.
pub(crate) fn choose(options: &Options) -> Result<Vec<(Entry, Backup)>, Failure> {
    let place = &options.place;
    match &options.wanted {
        Wanted::Id(id) => match catalogue::find(place, id)? {
            Some(entry) => Ok(vec![accepted(place, entry)?]),
            None => {
                Err(Failure::failed(format!("there is no backup {id} in {place}: it has no backup.info")))
            }
        },
        Wanted::Name(name) => Ok(vec![named(place, name)?]),
        Wanted::Newest(target) => newest(place, target),
    }
}

/// Checks that Barman does not delete the backup `id`.
///
/// # Errors
/// Fails if it does, or with the error of the store.
pub(crate) fn check_kept(place: &Place, id: &str) -> Result<(), Failure> {
    match catalogue::deletion(place, id)? {
        None => Ok(()),
        Some(why) => Err(Failure::failed(format!("{why}: choose another with `backup`"))),
    }
}

/// Returns the backup of `entry` if its files are complete.
///
/// A backup of status WAITING_FOR_WALS is accepted if the operator names it, as Barman does (`STATUS_COPY_DONE` in barman/infofile.py): its
/// files are complete, and the WAL that is missing may have been archived by now, or come from the source.
fn accepted(place: &Place, entry: Entry) -> Result<(Entry, Backup), Failure> {
    match entry.record.status {
        Status::Done => {}
        Status::WaitingForWals => log::warn!(
            "the backup {} has the status WAITING_FOR_WALS: WAL that makes it consistent was not archived yet",
            entry.id
        ),
        _ => {
            return Err(Failure::failed(format!(
                "the backup {} in {place} cannot be restored: its status is {}, and only a backup of status DONE or \
                 WAITING_FOR_WALS has all its files",
                entry.id,
                entry.record.describe_status()
            )));
        }
    }
    check_kept(place, &entry.id)?;
    let backup = entry.record.backup(&entry.id).map_err(|why| place.failed(&entry.key, why))?;
    Ok((entry, backup))
}

fn none_at_all(place: &Place) -> Failure {
    Failure::not_applicable(format!("there is no backup of the server {} in {place}", place.server))
}

/// Calls `visit` for every backup whose `backup.info` can be read, and logs a warning for the others. Returns how many backups there are.
fn each(place: &Place, visit: &mut dyn FnMut(Entry) -> Result<(), Failure>) -> Result<usize, Failure> {
    let ids = catalogue::ids(place)?;
    let mut count = 0;
    for id in &ids {
        match catalogue::read(place, id)? {
            // A folder without `backup.info` is not a backup.
            None => continue,
            Some(Ok(entry)) => visit(entry)?,
            Some(Err(why)) => log::warn!("skipped the backup {id}: {why}"),
        }
        count += 1;
    }
    Ok(count)
}

fn named(place: &Place, name: &str) -> Result<(Entry, Backup), Failure> {
    let mut found = Vec::new();
    let count = each(place, &mut |entry| {
        if entry.record.name() == Some(name) {
            found.push(entry);
        }
        Ok(())
    })?;
    let shown = name.escape_debug();
    match (found.pop(), found.is_empty()) {
        (Some(entry), true) => accepted(place, entry),
        (Some(last), false) => {
            let ids: Vec<_> =
                found.iter().chain([&last]).take(NAMED).map(|entry| entry.id.as_str()).collect();
            Err(Failure::failed(format!(
                "several backups in {place} have the name `{shown}`, such as {}: name one by its ID with the option `backup`",
                ids.join(" and ")
            )))
        }
        (None, _) if count == 0 => Err(none_at_all(place)),
        (None, _) => Err(Failure::failed(format!(
            "none of the {count} backups in {place} has the name `{shown}`: set `backup` to the ID or the name of a backup, \
             or to latest"
        ))),
    }
}

fn newest(place: &Place, target: &Target) -> Result<Vec<(Entry, Backup)>, Failure> {
    let mut fitting = Vec::new();
    let mut others = Vec::new();
    let count = each(place, &mut |entry| {
        if entry.record.status != Status::Done {
            others.push(format!("{} is {}", entry.id, entry.record.describe_status()));
            return Ok(());
        }
        let backup = match entry.record.backup(&entry.id) {
            Ok(backup) => backup,
            Err(why) => {
                log::warn!("skipped the backup {}: {} {why}", entry.id, place.shown(&entry.key));
                others.push(format!("{} has an invalid backup.info", entry.id));
                return Ok(());
            }
        };
        let is_on = target.timeline.is_none_or(|timeline| timeline == backup.timeline);
        if is_on && ended_by(&entry, &backup, target.until.as_ref()) {
            fitting.push((entry, backup));
        }
        Ok(())
    })?;
    if count == 0 {
        return Err(none_at_all(place));
    }
    let key = |backup: &Backup| (backup.timeline, backup.begin);
    fitting.sort_by(|(one, a), (other, b)| key(b).cmp(&key(a)).then_with(|| other.id.cmp(&one.id)));
    fitting = kept(place, fitting, &mut others)?;
    if let Some(leading) = fitting.iter().position(|(_, backup)| leads_to_the_source(backup)) {
        for (entry, _) in &fitting[..leading] {
            log::warn!(
                "skipped the backup {}: it is of another cluster than the source, or on no timeline that leads to where the \
                 source is",
                entry.id
            );
        }
        fitting.retain(|(_, backup)| leads_to_the_source(backup));
    }
    if !fitting.is_empty() {
        return Ok(fitting);
    }
    others.truncate(NAMED);
    let such = if others.is_empty() { String::new() } else { format!(" ({})", others.join("; ")) };
    Err(Failure::failed(format!(
        "none of the {count} backups in {place} has the status DONE{target}{such}: choose one by its ID with `backup`"
    )))
}

/// Skips the backups that Barman deletes, up to the first one that can be chosen, and describes them in `others`. Those after it are not
/// looked at.
fn kept(
    place: &Place,
    fitting: Vec<(Entry, Backup)>,
    others: &mut Vec<String>,
) -> Result<Vec<(Entry, Backup)>, Failure> {
    let mut kept = Vec::with_capacity(fitting.len());
    let mut is_chosen = false;
    for (entry, backup) in fitting {
        if !is_chosen && let Some(why) = catalogue::deletion(place, &entry.id)? {
            log::warn!("skipped the backup {}: {why}", entry.id);
            others.push(format!("{} is being deleted", entry.id));
            continue;
        }
        is_chosen |= leads_to_the_source(&backup);
        kept.push((entry, backup));
    }
    Ok(kept)
}

/// Returns whether the backup ended at or before the point `until`.
fn ended_by(entry: &Entry, backup: &Backup, until: Option<&Until>) -> bool {
    match until {
        None => true,
        Some(Until::Lsn(lsn)) => backup.end <= *lsn,
        Some(Until::Time { seconds, .. }) => match entry.record.end_time().and_then(seconds_of) {
            Some(ended) => ended <= *seconds,
            None => {
                log::warn!(
                    "skipped the backup {}: its `end_time` is not a time with a zone, so that it cannot be compared with \
                     `target-time`",
                    entry.id
                );
                false
            }
        },
    }
}

/// Returns whether a standby can follow the source from this backup, as far as that is known.
fn leads_to_the_source(backup: &Backup) -> bool {
    let of_cluster = match (source::system_identifier(), backup.system_identifier) {
        (Some(source), Some(own)) => source == own,
        _ => true,
    };
    of_cluster
        && Timelines::of_source().is_none_or(|timelines| timelines.check(backup.timeline, backup.end).is_ok())
}
