//! Chooses the repository and the backup to restore.

use std::rc::Rc;

use restore::target::{Target, Until};
use restore::timelines::Timelines;
use understudy::store::Pipeline;
use understudy::{Failure, cancelled, log, source};

use crate::info::{Backup, BackupInfo, Cluster};
use crate::manifest::{Contents, Head, Manifest};
use crate::options::{Options, Wanted};
use crate::repository::{Loaded, Repository, TextKey, Wrapping};

/// A backup that was found, with its manifest.
#[derive(Debug)]
pub(crate) struct Chosen<C> {
    pub(crate) repository: Rc<Repository>,
    pub(crate) info: Rc<BackupInfo>,
    pub(crate) backup: Backup,
    pub(crate) head: Head,
    pub(crate) contents: C,
    /// The key of the files, if the repository is encrypted.
    pub(crate) key: Option<understudy::keys::Key>,
    /// The name of the manifest in messages.
    pub(crate) shown: String,
}

impl<C> Chosen<C> {
    /// Returns the cluster from which the backup was taken.
    pub(crate) fn cluster(&self) -> Option<&Cluster> {
        self.info.cluster(&self.backup)
    }

    /// Returns the pipeline for files with this wrapping.
    pub(crate) fn pipeline(&self, wrapping: Wrapping) -> Option<Pipeline> {
        Repository::pipeline(self.key.as_ref(), self.head.compression().codec, wrapping)
    }

    /// Returns a failure that names the manifest.
    pub(crate) fn failed(&self, what: impl AsRef<str>) -> Failure {
        Failure::failed(format!("{} {}", self.shown, what.as_ref()))
    }
}

/// Finds the requested backup in the first repository from which the backup can be restored; `usable` decides that. Reads the manifest
/// into the value that `fresh` returns. If no repository has such a backup and `options` allow older backups, tries older backups in the
/// same order of repositories. If a standby could not follow the source from any of the backups, chooses the newest backup; a later check
/// then reports the problem.
///
/// # Errors
/// [`Failure::NotApplicable`] if no repository has a backup of the stanza. Otherwise, the error says why each repository cannot be used.
pub(crate) fn choose<C: Contents, T>(
    options: &Options,
    fresh: &mut dyn FnMut() -> C,
    usable: &dyn Fn(&Chosen<C>) -> Result<T, Failure>,
) -> Result<(Chosen<C>, T), Failure> {
    for rule in [Rule::LeadsToTheSource, Rule::Any] {
        let (mut failures, mut leading_nowhere) = (Vec::<Failure>::new(), Vec::new());
        // Repositories whose newest backup cannot be restored.
        let mut older = Vec::new();
        for name in &options.repositories {
            let candidates = match Candidates::of(name, options, rule) {
                Ok(Some(candidates)) => candidates,
                Ok(None) => {
                    leading_nowhere.push(name);
                    continue;
                }
                Err(Failure::Cancelled) => return Err(Failure::Cancelled),
                Err(failure) => {
                    failures.push(failure);
                    continue;
                }
            };
            match candidates.try_one(0, fresh, usable) {
                Ok(found) => {
                    for failure in &failures {
                        log::warn!("skipped a repository: {failure}");
                    }
                    for name in &leading_nowhere {
                        log::warn!(
                            "skipped the repository {name}: a standby from any of its backups could not follow the source"
                        );
                    }
                    return Ok(found);
                }
                Err(Failure::Cancelled) => return Err(Failure::Cancelled),
                // A transient failure is not a reason to use an older backup.
                Err(failure @ Failure::RetryLater(_)) => failures.push(failure),
                Err(failure) => {
                    failures.push(with_advice(failure, candidates.older(1).filter(|_| !options.takes_older)));
                    older.push(candidates);
                }
            }
        }
        let may_pass = failures.iter().any(|failure| matches!(failure, Failure::RetryLater(_)));
        if options.takes_older && !may_pass {
            for candidates in &older {
                if let Some(found) = candidates.try_older(&mut failures, fresh, usable)? {
                    return Ok(found);
                }
            }
        }
        if rule == Rule::Any || leading_nowhere.is_empty() {
            return Err(combined(failures));
        }
    }
    Err(Failure::failed("no repository was looked at"))
}

/// Adds advice about a backup that cannot be restored to `failure`. `older` is the next backup that could be tried.
fn with_advice(failure: Failure, older: Option<&str>) -> Failure {
    let Failure::Failed(why) = failure else { return failure };
    let older = older.map_or_else(String::new, |label| {
        format!(", set `older = true` to try older backups automatically (the next is {label})")
    });
    Failure::failed(format!(
        "{why}; choose another backup with `backup`{older}, or name another repository in `repositories`"
    ))
}

/// How many older backups in a repository are tried.
const MOST_OLDER: usize = 20;

/// The backups in a repository that match the options.
struct Candidates {
    repository: Rc<Repository>,
    info: Rc<BackupInfo>,
    /// At least one, the best first.
    backups: Vec<Backup>,
}

impl Candidates {
    /// Finds the matching backups in the repository `name`; `None` if `rule` allows none of them.
    fn of(name: &str, options: &Options, rule: Rule) -> Result<Option<Self>, Failure> {
        let repository = Repository::open(name, &options.stanza)?;
        let folder = repository.backup("");
        let Some(info) = BackupInfo::load(&repository)? else {
            let stanza = &options.stanza;
            return Err(Failure::not_applicable(format!(
                "there is no stanza {stanza} in the repository {name}: {folder}/backup.info is missing"
            )));
        };
        let backups = match &options.wanted {
            Wanted::Label(label) => match info.find(label) {
                Some(backup) => vec![backup.clone()],
                None => return Err(not_listed(&repository, label)?),
            },
            Wanted::Newest(target) => newest_first(&repository, &info, target, rule)?,
        };
        let (repository, info) = (Rc::new(repository), Rc::new(info));
        Ok((!backups.is_empty()).then_some(Self { repository, info, backups }))
    }

    /// Returns the label of the backup that is `at` places behind the best.
    fn older(&self, at: usize) -> Option<&str> {
        self.backups.get(at).map(|backup| backup.label.as_str())
    }

    /// Reads the manifest of the backup that is `at` places behind the best, and checks that the backup is usable.
    fn try_one<C: Contents, T>(
        &self,
        at: usize,
        fresh: &mut dyn FnMut() -> C,
        usable: &dyn Fn(&Chosen<C>) -> Result<T, Failure>,
    ) -> Result<(Chosen<C>, T), Failure> {
        let Some(backup) = self.backups.get(at).cloned() else {
            return Err(Failure::failed("there is no older backup"));
        };
        let (repository, info) = (Rc::clone(&self.repository), Rc::clone(&self.info));
        let key = format!("{}/backup.manifest", repository.backup(&backup.label));
        let shown = repository.shown(&key);
        let loaded =
            repository.load(&key, TextKey::Held(info.key.as_ref()), &mut || Manifest::new(fresh()))?;
        let Some(Loaded { contents: manifest, key }) = loaded else {
            let label = &backup.label;
            return Err(Failure::failed(format!(
                "the backup {label} is in {}/backup.info, and {shown} is missing: it expired or was removed",
                repository.shown(&repository.backup(""))
            )));
        };
        let (head, contents) =
            manifest.finish(&backup.label).map_err(|what| Failure::failed(format!("{shown} {what}")))?;
        let chosen = Chosen { repository, info, backup, head, contents, key, shown };
        let what = usable(&chosen)?;
        Ok((chosen, what))
    }

    /// Finds the first of the older backups that can be restored; `None` if none of them can. Logs why the skipped backups cannot be
    /// restored.
    fn try_older<C: Contents, T>(
        &self,
        failures: &mut Vec<Failure>,
        fresh: &mut dyn FnMut() -> C,
        usable: &dyn Fn(&Chosen<C>) -> Result<T, Failure>,
    ) -> Result<Option<(Chosen<C>, T)>, Failure> {
        for at in 1..self.backups.len().min(1 + MOST_OLDER) {
            cancelled()?;
            match self.try_one(at, fresh, usable) {
                Ok(found) => {
                    for failure in failures.iter() {
                        log::warn!("skipped a newer backup: {failure}");
                    }
                    return Ok(Some(found));
                }
                Err(failure @ (Failure::Cancelled | Failure::RetryLater(_))) => return Err(failure),
                Err(failure) => failures.push(failure),
            }
        }
        if self.backups.len() > 1 + MOST_OLDER {
            let name = self.repository.bucket.name();
            failures.push(Failure::failed(format!(
                "more than {MOST_OLDER} older backups of the repository {name} were not tried: choose one with `backup`"
            )));
        }
        Ok(None)
    }
}

/// The set of backups from which the newest is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// Backups from which a standby can follow the source, if there is a source.
    LeadsToTheSource,
    /// All matching backups.
    Any,
}

/// Combines the failures of several repositories.
fn combined(mut failures: Vec<Failure>) -> Failure {
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

/// Returns the matching backups that `rule` allows, newest first; empty if it allows none of them.
fn newest_first(
    repository: &Repository,
    info: &BackupInfo,
    target: &Target,
    rule: Rule,
) -> Result<Vec<Backup>, Failure> {
    let shown = repository.shown(&format!("{}/backup.info", repository.backup("")));
    if info.backups.is_empty() {
        return Err(Failure::not_applicable(format!("{shown} lists no backup")));
    }
    let fits = |backup: &&Backup| {
        let in_time = match &target.until {
            None => true,
            Some(Until::Time { seconds, .. }) => {
                i64::try_from(backup.stopped).is_ok_and(|stopped| stopped <= *seconds)
            }
            Some(Until::Lsn(lsn)) => backup.stop_lsn.is_some_and(|stop| stop <= *lsn),
        };
        in_time && target.timeline.is_none_or(|timeline| backup.timeline == Some(timeline))
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
    let mut fitting: Vec<&Backup> = info.backups.iter().filter(fits).collect();
    fitting.sort_by(|one, other| (other.stopped, &other.label).cmp(&(one.stopped, &one.label)));
    let Some(newest) = fitting.first().copied() else {
        let (count, oldest) = (info.backups.len(), &info.backups[0].label);
        return Err(Failure::failed(format!(
            "{shown} lists {count} backups, the first {oldest}, and none{target}: choose another with `backup`"
        )));
    };
    if rule == Rule::LeadsToTheSource {
        fitting.retain(leads_to_the_source);
    }
    if fitting.first().is_some_and(|leading| leading.label != newest.label) {
        log::warn!(
            "skipped the backup {} in {shown}: it is of another cluster than the source, or on no timeline that leads to \
             where the source is",
            newest.label
        );
    }
    Ok(fitting.into_iter().cloned().collect())
}

/// Returns the failure for a label that is not in `backup.info`.
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
