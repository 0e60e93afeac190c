//! Makes the plan. Checks everything that the storage shows without unpacking archives.

use std::collections::BTreeSet;

use postgres_formats::history;
use restore::timelines::Timelines;
use restore::wal::Archive as _;
use understudy::{Failure, Plan, cancelled, log};

use crate::archives::Archives;
use crate::chain::{self, Loaded};
use crate::choice::choose;
use crate::files::{self, Listed};
use crate::look::{self, Looked};
use crate::name::BackupName;
use crate::options::Options;
use crate::place::Place;
use crate::sentinel::Backup;
use crate::wal::{self, WalFolder};

/// A backup with its archives.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) backup: Backup,
    pub(crate) archives: Archives,
}

/// A backup that can be restored.
#[derive(Debug)]
pub(crate) struct Usable {
    pub(crate) newest: Link,
    /// The backups on which `newest` depends, newest first.
    pub(crate) older: Vec<Link>,
    pub(crate) looked: Looked,
    pub(crate) plan: Plan,
}

/// Reads the backup `name` and the backups that it depends on, with the lists of their files. `wanted` receives each file that the backup
/// takes from an older one, as a whole or in part.
///
/// # Errors
/// The error says why the backup cannot be restored.
pub(crate) fn usable(
    place: &Place,
    name: &BackupName,
    wanted: &mut dyn FnMut(String) -> Result<(), Failure>,
) -> Result<Usable, Failure> {
    let mut listed = Listed::new(wanted);
    let (newest, loaded) = chain::load(place, name, &mut listed)?;
    let (archives, has_list) = archives(place, &newest.backup, newest.archives, &mut listed)?;
    let newest = Link { backup: newest.backup, archives };
    check_list(&newest.backup, has_list, &listed)?;
    listed.warn(&newest.backup);
    let mut older = Vec::with_capacity(loaded.len());
    for Loaded { backup, archives: of_sentinel } in loaded {
        cancelled()?;
        // The host takes from older backups what the newest needs.
        let (archives, _) = self::archives(place, &backup, of_sentinel, &mut Listed::new(&mut |_| Ok(())))?;
        older.push(Link { backup, archives });
    }
    let looked = look::at(place, &newest)?;
    for link in &older {
        look::check_cluster(place, &link.archives, looked.system_identifier)?;
    }
    for (child, parent) in std::iter::once(&newest).chain(&older).zip(&older) {
        check_timelines(place, &child.backup, &parent.backup, looked.system_identifier)?;
    }
    let plan = describe(&newest.backup, &looked);
    Ok(Usable { newest, older, looked, plan })
}

/// Finds the archives of `backup`, without those that its list of files does not name. The list goes to `listed`; `of_sentinel` has the
/// archives that the sentinel names. Returns also whether there is a list.
fn archives(
    place: &Place,
    backup: &Backup,
    of_sentinel: BTreeSet<String>,
    listed: &mut Listed<'_>,
) -> Result<(Archives, bool), Failure> {
    let mut archives = Archives::list(place, backup)?;
    listed.archives = of_sentinel;
    let has_list = files::read(place, backup, listed)?;
    archives.check(place, backup, &listed.archives)?;
    archives.keep_listed(place, &listed.archives)?;
    Ok((archives, has_list))
}

/// Checks what the list of the files of `backup`, the newest of a chain, says.
fn check_list(backup: &Backup, has_list: bool, listed: &Listed<'_>) -> Result<(), Failure> {
    match (&backup.sentinel.parent, has_list) {
        (Some(_), false) => Err(backup.failed(format!(
            "is of a delta backup whose {} is missing or lists no file: nothing says which files come from the backup before it; \
             choose another with `backup`",
            files::FILES_METADATA
        ))),
        (None, _) if listed.from_older > 0 => Err(backup.failed(format!(
            "is of a full backup, and its list of files says that {} files come from an older one",
            listed.from_older
        ))),
        (None, false) => {
            log::info!("the backup {} has no list of its files", backup.name);
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Checks that `child`, which was made from `parent` on another timeline, has the history of `parent`: WAL-G does not compare timelines
/// when it makes a delta backup.
fn check_timelines(place: &Place, child: &Backup, parent: &Backup, cluster: u64) -> Result<(), Failure> {
    let (newer, older) = (child.name.timeline(), parent.name.timeline());
    if newer == older {
        return Ok(());
    }
    let mut ends = None;
    for text in WalFolder::of(place).histories(newer)? {
        let forks = history::parse(&text).map_err(|error| {
            Failure::failed(format!("the archived history of the timeline {newer} {error}"))
        })?;
        ends = Some(forks.iter().find(|fork| fork.timeline == older).map(|fork| fork.at));
    }
    if ends.is_none()
        && understudy::source::system_identifier() == Some(cluster)
        && let Some(timelines) = Timelines::of_source()
        && let Some(end) = timelines.end(older)
    {
        ends = Some(Some(end));
    }
    let (name, finish) = (&parent.name, parent.sentinel.finish);
    match ends {
        None => {
            log::warn!(
                "the backup {} was made from {name} on another timeline, and the history of the timeline {newer} is not archived: \
                 it is not known whether the two belong together",
                child.name
            );
            Ok(())
        }
        Some(None) => Err(child.failed(format!(
            "was made from {name}: the timeline {older} of that backup is not in the history of the timeline {newer}; choose \
             another with `backup`"
        ))),
        Some(Some(end)) if finish > end => Err(child.failed(format!(
            "was made from {name}, which ended at {finish}: the timeline {newer} left the timeline {older} at {end}, so that the \
             two do not belong together; choose another with `backup`"
        ))),
        Some(Some(_)) => Ok(()),
    }
}

fn describe(backup: &Backup, looked: &Looked) -> Plan {
    let sentinel = &backup.sentinel;
    Plan {
        backup: backup.name.to_string(),
        postgresql_major: Some(sentinel.major),
        system_identifier: Some(looked.system_identifier),
        timeline: Some(backup.name.timeline()),
        start_lsn: Some(sentinel.start.0),
        stop_lsn: Some(sentinel.finish.0),
        // A delta backup has only some of the files in its archives.
        bytes: sentinel.catalog.or(sentinel.uncompressed.filter(|_| sentinel.parent.is_none())),
        tablespaces: sentinel.tablespaces.clone(),
        ..Plan::default()
    }
}

/// Returns the plan of the backup that `options` choose.
///
/// # Errors
/// The error says why no backup can be restored.
pub(crate) fn of(options: &Options) -> Result<Plan, Failure> {
    let place = &options.place;
    let name = choose(place, &options.wanted)?;
    let Usable { newest, older, looked, mut plan } = usable(place, &name, &mut |_| Ok(()))?;
    let names: BTreeSet<&str> = older.iter().map(|link| link.backup.name.as_str()).collect();
    if !names.is_empty() {
        log::info!("{name} is a delta backup and depends on {}", shown(&names));
    }
    if options.verify {
        looked.pages?;
    }
    let route =
        wal::route(place, &newest.backup, looked.system_identifier, options.wal, looked.segment_size)?;
    if let Some(route) = route {
        let wal = route.expected(name.as_str(), &|_| false)?;
        (plan.bytes, plan.files) = wal.added_to((plan.bytes, plan.files));
    }
    Ok(plan)
}

/// How many backups of a chain are named in the log.
const MOST_NAMED: usize = 5;

/// Names the backups of a chain.
fn shown(names: &BTreeSet<&str>) -> String {
    let named: Vec<_> = names.iter().rev().take(MOST_NAMED).copied().collect();
    let more = names.len() - named.len();
    let and = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{and}", named.join(", "))
}
