//! Step 3: compares the plan with the source, the server's version, the operator's map, the disks and the old data.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::attempt_error::{AttemptError, blocking};
use super::installed::Installed;
use super::{ListedMethod, places, space, younger_tablespaces};
use crate::datadir::{Contents, DataDirectory, EmptyScope, FoundCluster, Inspected};
use crate::outcome::Finding;
use crate::source::SourceFacts;
use crate::{Directories, Failure, Level, Outcome, Plan, Refusal, Request, Rule};

/// The data directory that an attempt fills, or that it would fill in a check.
#[derive(Clone, Debug)]
pub(super) enum Target {
    /// The directory that the run has locked.
    Locked(Arc<DataDirectory>),
    /// What `check` saw in the directory, which it only inspects.
    Inspected(Inspected),
}

impl Target {
    /// Returns the directory if the run has locked it; `None` in a check.
    pub(super) fn locked(&self) -> Option<Arc<DataDirectory>> {
        match self {
            Self::Locked(directory) => Some(directory.clone()),
            Self::Inspected(_) => None,
        }
    }

    /// Returns what kind of content the directory holds. Blocking.
    fn contents(&self) -> io::Result<Contents> {
        match self {
            Self::Locked(directory) => directory.contents(),
            Self::Inspected(seen) => Ok(seen.contents),
        }
    }

    /// Returns the cluster that the directory holds; `None` if it holds none.
    fn cluster(&self) -> Option<&FoundCluster> {
        match self {
            Self::Locked(directory) => directory.cluster(),
            Self::Inspected(seen) => seen.cluster.as_ref(),
        }
    }
}

/// The decision of step 3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Accepted {
    /// What step 4 removes.
    pub(super) empty_scope: EmptyScope,
    /// The findings for the report.
    pub(super) findings: Vec<Finding>,
}

/// Compares a plan with everything that can be known before the data directory is touched.
pub(super) async fn accept(
    request: &Request,
    listed: &ListedMethod,
    target: &Target,
    force: bool,
    installed: &Installed,
    plan: &Plan,
) -> Result<Accepted, AttemptError> {
    let facts = request.source.as_ref().and_then(|source| source.facts.as_ref().ok());
    let major = installed.major().await?;
    check_major(plan, facts, major)?;
    if let Some(facts) = facts {
        check_source(plan, facts)?;
    }

    let mut findings = old_cluster(target.cluster(), plan, facts, listed.keep_data, force)?;
    let facts = facts.cloned();
    let (target, plan, directories) = (target.clone(), plan.clone(), request.directories.clone());
    let (keep_data, method) = (listed.keep_data, listed.method.name().to_owned());
    let on_disk = blocking(move || -> Result<_, AttemptError> {
        let contents = target.contents().map_err(|error| cannot_look(&directories, error))?;
        let empty_scope = empty_scope(&method, keep_data, contents, &plan)?;
        places::hold_no_other_version(&directories, major)?;
        let places = places::of_plan(&plan, &directories)?;
        let mut findings = younger_tablespaces::check(&plan, facts.as_ref(), &directories, major)?;
        findings.extend(fits(&plan, &places, &directories, &target, empty_scope)?);
        Ok((empty_scope, findings))
    });
    let (empty_scope, found) = on_disk.await??;
    findings.extend(found);
    Ok(Accepted { empty_scope, findings })
}

/// Returns findings about the cluster that the data directory holds, which is removed or built on, and about other files in the directory.
///
/// # Errors
/// Refuses to replace the cluster with another one without `--force`.
fn old_cluster(
    old: Option<&FoundCluster>,
    plan: &Plan,
    facts: Option<&SourceFacts>,
    keep_data: bool,
    force: bool,
) -> Result<Vec<Finding>, Refusal> {
    let Some(old) = old else { return Ok(Vec::new()) };
    let comes = match (facts, plan.system_identifier) {
        (Some(facts), _) => Some((facts.system_identifier, "the source")),
        (None, Some(identifier)) => Some((identifier, "the backup")),
        (None, None) => None,
    };
    if let Some((cluster, whose)) = comes {
        old.refuse_other(cluster, whose, force)?;
    }
    let becomes = if keep_data { "is built on" } else { "is removed" };
    let (level, why) = match comes {
        Some((cluster, _)) if old.system_identifier() == Some(cluster) => (Level::Info, String::new()),
        Some((cluster, whose)) => (Level::Warn, format!("; {whose} is the cluster {cluster}, and --force was given")),
        None => (
            Level::Warn,
            "; neither a source nor the plan says which cluster replaces it, so that the two are not compared".to_owned(),
        ),
    };
    let message = format!("what the data directory holds {becomes}: {old}{why}");
    let mut findings = vec![Finding { check: Rule::OldData, level, message }];
    if let Some(besides) = old.besides() {
        let becomes = if keep_data { "the method may remove them" } else { "they are removed too" };
        let message = format!(
            "the data directory holds files that neither PostgreSQL nor Patroni creates there, and {becomes}: {besides}; move away those \
             that must be kept"
        );
        findings.push(Finding { check: Rule::OldData, level: Level::Warn, message });
    }
    Ok(findings)
}

fn cannot_look(directories: &Directories, error: io::Error) -> Failure {
    let place = directories.datadir.display();
    Failure::caused_by(Outcome::Failed, format!("cannot read the data directory {place}"), error)
}

/// Checks that the plan fits on the disks. If the size of the old data is not known, a lack of space is a finding and not a refusal.
fn fits(
    plan: &Plan,
    places: &[PathBuf],
    directories: &Directories,
    target: &Target,
    empty_scope: EmptyScope,
) -> Result<Option<Finding>, AttemptError> {
    if plan.bytes.is_none() && plan.files.is_none() {
        return Ok(None);
    }
    let room = match target {
        Target::Locked(directory) => match (directory.room(), empty_scope) {
            (Ok(room), _) => Some(room),
            // A directory that is not emptied may contain a mount point.
            (Err(error), EmptyScope::ControlFileOnly) if error.kind() == io::ErrorKind::CrossesDevices => {
                None
            }
            (Err(error), EmptyScope::Everything) if error.kind() == io::ErrorKind::CrossesDevices => {
                return Err(Refusal::new(Rule::MountPoint, error.to_string()).into());
            }
            (Err(error), _) => return Err(cannot_look(directories, error).into()),
        },
        Target::Inspected(_) => None,
    };
    match room {
        Some(room) => {
            space::check(plan, places, &room)?;
            Ok(None)
        }
        None => {
            let room = space::without_old_data(places).map_err(|error| cannot_look(directories, error))?;
            let tight = space::check(plan, places, &room).err();
            Ok(tight.map(|refusal| Finding {
                check: Rule::Space,
                level: Level::Warn,
                message: refusal.message,
            }))
        }
    }
}

/// Refuses a plan or a source of another major version than the programs in `bin_dir`.
fn check_major(plan: &Plan, facts: Option<&SourceFacts>, installed: u32) -> Result<(), Refusal> {
    let refuse = |whose: &str, major: u32| {
        let message = format!("{whose} PostgreSQL {major}, and `bin_dir` holds PostgreSQL {installed}");
        Err(Refusal::new(Rule::MajorVersion, message)
            .remedy(format!("[replica] bin_dir = \"<the programs of PostgreSQL {major}>\"")))
    };
    match (plan.postgresql_major, facts.map(|facts| facts.server_version / 10_000)) {
        (Some(major), _) if major != installed => refuse("the backup is of", major),
        (_, Some(major)) if major != installed => refuse("the source runs", major),
        _ => Ok(()),
    }
}

/// Refuses a backup that is not of the source's cluster, or does not lie in the source's history.
fn check_source(plan: &Plan, facts: &SourceFacts) -> Result<(), Refusal> {
    if let Some(identifier) = plan.system_identifier
        && identifier != facts.system_identifier
    {
        return Err(Refusal::new(
            Rule::SystemIdentifier,
            format!(
                "the backup {} is from the cluster {identifier}, but the source is the cluster {}",
                plan.backup, facts.system_identifier
            ),
        ));
    }
    if let Some(timeline) = plan.timeline
        && !facts.contains(timeline, plan.stop_lsn)
    {
        let stop = plan.stop_lsn.map(|stop| format!(" at {stop}")).unwrap_or_default();
        return Err(Refusal::new(
            Rule::Timeline,
            format!(
                "the backup {} ends on timeline {timeline}{stop}, which is not in the history of the source, now on \
                 timeline {}",
                plan.backup, facts.timeline
            ),
        ));
    }
    Ok(())
}

/// Returns what emptying removes (rules 8 and 15). Refuses `keep_data` for a plan that does not build on the old data (rule 17a).
fn empty_scope(
    method: &str,
    keep_data: bool,
    contents: Contents,
    plan: &Plan,
) -> Result<EmptyScope, Refusal> {
    match (keep_data, plan.builds_on_existing, contents) {
        (false, _, _) => Ok(EmptyScope::Everything),
        (true, true, _) => Ok(EmptyScope::ControlFileOnly),
        // There is no data, or only the unfinished work of an earlier method.
        (true, false, Contents::Nothing | Contents::Unfinished) => Ok(EmptyScope::Everything),
        (true, false, Contents::Cluster | Contents::Foreign) => Err(Refusal::new(
            Rule::KeepData,
            "`keep_data` leaves the old data in place, and this method would write a backup over it that does not \
             build on it: the result would be a mixture of two clusters",
        )
        .remedy(format!("[method.{method}] keep_data = false"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Lsn;

    fn facts() -> SourceFacts {
        SourceFacts {
            server_version: 150_018,
            system_identifier: 7,
            timeline: 3,
            wal_position: Lsn(0x5000_0000),
            history: Vec::new(),
            tablespaces: None,
        }
    }

    #[test]
    fn the_plan_of_another_cluster_is_rejected() {
        let of = |system_identifier| Plan { system_identifier, ..Plan::default() };
        assert_eq!(
            check_source(&of(Some(8)), &facts()).map_err(|refusal| refusal.rule),
            Err(Rule::SystemIdentifier)
        );
        assert_eq!(check_source(&of(Some(7)), &facts()), Ok(()));
        assert_eq!(check_source(&of(None), &facts()), Ok(()));
    }

    #[test]
    fn the_plan_of_a_future_timeline_is_rejected() {
        let plan = Plan { timeline: Some(4), ..Plan::default() };
        assert_eq!(check_source(&plan, &facts()).map_err(|refusal| refusal.rule), Err(Rule::Timeline));
        assert_eq!(check_source(&Plan { timeline: Some(3), ..Plan::default() }, &facts()), Ok(()));
    }

    #[test]
    fn another_major_version_is_rejected_whether_the_backup_or_the_source_has_it() {
        let newer = Plan { postgresql_major: Some(16), ..Plan::default() };
        assert_eq!(check_major(&newer, None, 15).map_err(|refusal| refusal.rule), Err(Rule::MajorVersion));
        assert_eq!(check_major(&newer, None, 16), Ok(()));
        assert!(
            check_major(&newer, Some(&facts()), 16)
                .is_err_and(|refusal| refusal.message.contains("source runs"))
        );
        assert_eq!(check_major(&Plan::default(), Some(&facts()), 15), Ok(()));
    }

    #[test]
    fn rule_08_without_keep_data_everything_is_removed() {
        for contents in [Contents::Nothing, Contents::Cluster, Contents::Unfinished, Contents::Foreign] {
            for builds_on_existing in [false, true] {
                let plan = Plan { builds_on_existing, ..Plan::default() };
                assert_eq!(empty_scope("m", false, contents, &plan), Ok(EmptyScope::Everything));
            }
        }
    }

    #[test]
    fn rule_15_an_unfinished_tree_is_emptied_for_a_method_that_does_not_build_on_it() {
        let builds = Plan { builds_on_existing: true, ..Plan::default() };
        assert_eq!(
            empty_scope("m", true, Contents::Unfinished, &Plan::default()),
            Ok(EmptyScope::Everything)
        );
        assert_eq!(empty_scope("m", true, Contents::Unfinished, &builds), Ok(EmptyScope::ControlFileOnly));
    }

    #[test]
    fn rule_17a_keep_data_needs_a_plan_that_builds_on_the_old_data() {
        for contents in [Contents::Cluster, Contents::Foreign] {
            let refusal = empty_scope("pgbackrest", true, contents, &Plan::default()).unwrap_err();
            assert_eq!(refusal.rule, Rule::KeepData);
            assert_eq!(refusal.remedy.as_deref(), Some("[method.pgbackrest] keep_data = false"));
        }
        assert_eq!(empty_scope("m", true, Contents::Nothing, &Plan::default()), Ok(EmptyScope::Everything));
    }
}
