//! Which backup of which repository is restored.

use understudy::{Failure, log, source};

use crate::info::{Backup, BackupInfo, Cluster};
use crate::manifest::{Contents, Head, Manifest};
use crate::options::{Options, Until, Wanted};
use crate::repository::{Loaded, Lock, Repository};
use crate::wal::timelines::Timelines;

/// A backup that was found, with its manifest.
#[derive(Debug)]
pub(crate) struct Chosen<C> {
    pub(crate) repository: Repository,
    pub(crate) info: BackupInfo,
    pub(crate) backup: Backup,
    pub(crate) head: Head,
    pub(crate) contents: C,
    /// What opens the files, of an encrypted repository.
    pub(crate) key: Option<understudy::keys::Key>,
    /// The object that is the manifest, for messages.
    pub(crate) shown: String,
}

impl<C> Chosen<C> {
    /// The cluster that the backup is of.
    pub(crate) fn cluster(&self) -> Option<&Cluster> {
        self.info.cluster(&self.backup)
    }

    /// A failure that names the manifest.
    pub(crate) fn failed(&self, what: impl AsRef<str>) -> Failure {
        Failure::failed(format!("{} {}", self.shown, what.as_ref()))
    }
}

/// Finds the wanted backup in the first repository that has it and from which it can be restored, as `usable` says, and reads
/// its manifest into what `fresh` makes. Where no backup leads to the source, the newest is taken nevertheless: what is wrong
/// with it is told later.
///
/// # Errors
/// [`Failure::NotApplicable`] where no repository has a backup of the stanza; why each of them cannot be used else.
pub(crate) fn choose<C: Contents, T>(
    options: &Options,
    fresh: &mut dyn FnMut() -> C,
    usable: &dyn Fn(&Chosen<C>) -> Result<T, Failure>,
) -> Result<(Chosen<C>, T), Failure> {
    for rule in [Rule::LeadsToTheSource, Rule::Any] {
        let (mut failures, mut leading_nowhere) = (Vec::<Failure>::new(), Vec::new());
        for name in &options.repositories {
            let found = match choose_from(name, options, rule, fresh) {
                Ok(Some(chosen)) => match usable(&chosen) {
                    Ok(what) => Ok((chosen, what)),
                    Err(Failure::Failed(why)) => Err(Failure::failed(format!("{why}; {OTHERWISE}"))),
                    Err(failure) => Err(failure),
                },
                Ok(None) => {
                    leading_nowhere.push(name);
                    continue;
                }
                Err(failure) => Err(failure),
            };
            match found {
                Ok(found) => {
                    for failure in &failures {
                        log::warn!("passed over a repository: {failure}");
                    }
                    for name in &leading_nowhere {
                        log::warn!(
                            "passed over the repository {name}: from none of its backups a standby could follow the source"
                        );
                    }
                    return Ok(found);
                }
                Err(Failure::Cancelled) => return Err(Failure::Cancelled),
                Err(failure) => failures.push(failure),
            }
        }
        if rule == Rule::Any || leading_nowhere.is_empty() {
            return Err(together(failures));
        }
    }
    Err(Failure::failed("no repository was looked at"))
}

/// What to do where a backup cannot be restored.
const OTHERWISE: &str = "choose another backup with `backup`, or name another repository in `repositories`";

/// From which backups the newest is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// Those from which a standby can follow the source, where there is one.
    LeadsToTheSource,
    /// All that fit.
    Any,
}

/// One failure out of those of several repositories.
fn together(mut failures: Vec<Failure>) -> Failure {
    if failures.len() == 1
        && let Some(only) = failures.pop()
    {
        return only;
    }
    let text = failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let is_later = failures.iter().any(|failure| matches!(failure, Failure::RetryLater(_)));
    let applies = failures.iter().any(|failure| !matches!(failure, Failure::NotApplicable(_)));
    match (is_later, applies) {
        (true, _) => Failure::RetryLater(text),
        (false, true) => Failure::Failed(text),
        (false, false) => Failure::NotApplicable(text),
    }
}

/// What is wanted of the repository `name`; none where it has such backups and `rule` allows none of them.
fn choose_from<C: Contents>(
    name: &str,
    options: &Options,
    rule: Rule,
    fresh: &mut dyn FnMut() -> C,
) -> Result<Option<Chosen<C>>, Failure> {
    let repository = Repository::open(name, &options.stanza)?;
    let folder = repository.backup("");
    let Some(info) = BackupInfo::load(&repository)? else {
        let stanza = &options.stanza;
        return Err(Failure::not_applicable(format!(
            "there is no stanza {stanza} in the repository {name}: {folder}/backup.info is missing"
        )));
    };
    let backup = match &options.wanted {
        Wanted::Label(label) => match info.find(label) {
            Some(backup) => backup.clone(),
            None => return Err(not_listed(&repository, label)?),
        },
        Wanted::Newest { until, timeline } => {
            match newest(&repository, &info, until.as_ref(), *timeline, rule)? {
                Some(backup) => backup.clone(),
                None => return Ok(None),
            }
        }
    };
    let key = format!("{}/backup.manifest", repository.backup(&backup.label));
    let shown = repository.shown(&key);
    let loaded = repository.load(&key, Lock::Held(info.key.as_ref()), &mut || Manifest::new(fresh()))?;
    let Some(Loaded { contents: manifest, key }) = loaded else {
        let label = &backup.label;
        return Err(Failure::failed(format!(
            "the backup {label} is in {}/backup.info, and {shown} is missing: it expired or was removed; {OTHERWISE}",
            repository.shown(&folder)
        )));
    };
    manifest.check(&backup.label).map_err(|what| Failure::failed(format!("{shown} {what}; {OTHERWISE}")))?;
    let Manifest { head, contents, .. } = manifest;
    Ok(Some(Chosen { repository, info, backup, head, contents, key, shown }))
}

/// The newest backup that fits and that `rule` allows; none where it allows none of those that fit.
fn newest<'a>(
    repository: &Repository,
    info: &'a BackupInfo,
    until: Option<&Until>,
    timeline: Option<u32>,
    rule: Rule,
) -> Result<Option<&'a Backup>, Failure> {
    let shown = repository.shown(&format!("{}/backup.info", repository.backup("")));
    if info.backups.is_empty() {
        return Err(Failure::not_applicable(format!("{shown} lists no backup")));
    }
    let fits = |backup: &&Backup| {
        let in_time = match until {
            None => true,
            Some(Until::Time { seconds, .. }) => {
                i64::try_from(backup.stopped).is_ok_and(|stopped| stopped <= *seconds)
            }
            Some(Until::Lsn(lsn)) => backup.stop_lsn.is_some_and(|stop| stop <= *lsn),
        };
        in_time && timeline.is_none_or(|timeline| backup.timeline == Some(timeline))
    };
    let (timelines, cluster) = (Timelines::of_source(), source::system_identifier());
    let leads_to_the_source = |backup: &&Backup| {
        let is_on_its_way = match (&timelines, backup.timeline, backup.stop_lsn) {
            (Some(timelines), Some(timeline), Some(stop)) => timelines.check(timeline, stop).is_ok(),
            _ => true,
        };
        let of_cluster =
            |identifier| info.cluster(backup).is_some_and(|cluster| cluster.system_identifier == identifier);
        is_on_its_way && cluster.is_none_or(of_cluster)
    };
    let age = |backup: &&Backup| (backup.stopped, backup.label.clone());
    let newest = info.backups.iter().filter(fits).max_by_key(age);
    let Some(newest) = newest else {
        let ended = match until {
            None => String::new(),
            Some(Until::Time { text, .. }) => format!(" that ended at or before {text}"),
            Some(Until::Lsn(lsn)) => format!(" that ended at or before {lsn}"),
        };
        let on = timeline.map_or_else(String::new, |timeline| format!(" on the timeline {timeline}"));
        let (count, oldest) = (info.backups.len(), &info.backups[0].label);
        return Err(Failure::failed(format!(
            "{shown} lists {count} backups, the first {oldest}, and none{ended}{on}: choose another with `backup`"
        )));
    };
    if rule == Rule::Any {
        return Ok(Some(newest));
    }
    let leading = info.backups.iter().filter(fits).filter(leads_to_the_source).max_by_key(age);
    if leading.is_some_and(|leading| leading.label != newest.label) {
        log::warn!(
            "passed over the backup {} in {shown}: it is of another cluster than the source, or on no timeline that leads to \
             where the source is",
            newest.label
        );
    }
    Ok(leading)
}

/// What to say of a label that is not in `backup.info`.
fn not_listed(repository: &Repository, label: &str) -> Result<Failure, Failure> {
    let manifest = format!("{}/backup.manifest", repository.backup(label));
    let name = repository.bucket.name();
    let info = repository.shown(&format!("{}/backup.info", repository.backup("")));
    Ok(Failure::failed(if repository.bucket.find(&manifest)?.is_some() {
        format!(
            "the backup {label} is in the repository {name}, and {info} does not list it: it was expired or is not whole"
        )
    } else if repository.bucket.find(&format!("{manifest}.copy"))?.is_some() {
        format!(
            "the backup {label} in the repository {name} is unfinished: only its backup.manifest.copy is there"
        )
    } else {
        format!("there is no backup {label} in the repository {name}: {info} does not list it")
    }))
}
