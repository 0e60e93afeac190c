//! Judges the restored settings, which may make the server run, load, write or read something. They are not trusted, because they come with
//! the backup. Each mention of a setting is judged by the setting's class in the table of settings, even if a later mention overrides it,
//! because the later mention may be removed. Settings that can end recovery, damage the replica or make it follow another server are
//! overridden or refused under every policy, unless it is certain that the server does not read the file: then they are reported. Settings
//! that run or load something, or lead out of the data directory, are reported, or refused with `config = "refuse-commands"`. Other
//! settings of interest are only reported. A mention that a later line of the same file overrides is not reported. Secrets are not shown: a
//! report shows only the program of a command.

mod judge;
mod logs;
mod values;

use std::collections::BTreeMap;
use std::path::Path;

use foundation::rooted::RelativePath;

use self::judge::Judge;
pub(super) use self::judge::why_told;
pub(super) use self::logs::{LOG_DIRECTORY, LOG_FILENAME, is_place_for_logs};
pub(super) use self::values::{SPACE, displayed, milliseconds, without_password};
use super::configuration::{AUTO, Configuration, Entry, MAIN};
use super::destination::{Destination, destination};
use super::overrides::Overrides;
use super::places::Places;
use super::problem::{Findings, Problem, shown, shown_within};
use super::{EndState, recovery};

use crate::Rule;

const CHECK: Rule = Rule::Configuration;

/// The most characters of the list of settings that replace the operator's own.
const SHOWN: usize = 2000;

/// What happens to a mention of a setting.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// The mention is not even reported.
    Nothing,
    /// The mention is harmless itself, but may weaken the operator's own configuration: all of these are reported together.
    Replaces,
    /// The mention is reported and stays.
    Reported(String),
    /// The setting runs or loads something, or leads out of the data directory: the mention is reported, or refused by the operator's
    /// policy.
    Hazard(String),
    /// The setting could end recovery, damage the replica or make it follow another server: it is overridden under every policy.
    Overridden {
        /// The values that replace it. Empty if the seal sets the setting anyway.
        values: Vec<(&'static str, &'static str)>,
        /// Why it is overridden.
        why: &'static str,
        /// What the setting would also do, which the operator's policy may refuse.
        hazard: Option<String>,
    },
    /// The mention is refused under every policy, because no value can replace it.
    Refused(String),
}

/// The settings of `postgresql.conf` that Patroni writes itself, in addition to the include of `postgresql.base.conf`
/// (`write_postgresql_conf` in `patroni/postgresql/config.py`).
const WRITTEN_BY_PATRONI: [&str; 3] = ["primary_conninfo", "primary_slot_name", "unix_socket_directories"];

/// The end of a finding about such a setting.
pub(super) const BY_PATRONI: &str = ". Patroni, if it starts PostgreSQL here, writes this file anew";

/// Returns whether Patroni has written this line and drops it when it starts PostgreSQL: it writes `postgresql.conf` anew, and keeps the old
/// one only if there is no `postgresql.base.conf`.
fn is_written_by_patroni(entry: &Entry, configuration: &Configuration) -> bool {
    configuration.has_base
        && entry.file == MAIN
        && (WRITTEN_BY_PATRONI.contains(&entry.name.as_str())
            || entry.name == "include" && entry.value == "postgresql.base.conf")
}

/// Returns what Patroni does with the override of a setting in a file that Patroni keeps, if it starts PostgreSQL; `None` if it leaves the
/// override. Patroni removes the settings of a standby from postgresql.auto.conf (`_sanitize_auto_conf` in
/// `patroni/postgresql/config.py`), and does not always write its own values (`build_recovery_params`).
fn undone_by_patroni(name: &str) -> Option<&'static str> {
    match name {
        "primary_conninfo" => Some(
            "Patroni, if it starts PostgreSQL here, removes the override, and writes its own value only if there is a member to follow",
        ),
        "primary_slot_name" => Some(
            "Patroni, if it starts PostgreSQL here, removes the override, and writes its own value only if there is a member to follow, \
             with `use_slots` and without `no_replication_slot`",
        ),
        _ => None,
    }
}

/// Judges every setting. Reports each hazard, or refuses the first one with `refuse_commands`. Returns what must be overridden.
pub(super) fn check(
    places: &Places<'_>,
    configuration: &Configuration,
    major: u32,
    end: &EndState,
    findings: &mut Findings,
) -> Result<Overrides, Problem> {
    let (refuse, by_patroni) = (end.refuse_commands, end.configure_standby.is_none());
    let judge = Judge::new(places, configuration, major, end);
    let mut overrides = Overrides::default();
    let mut replaced = BTreeMap::new();
    let last = last_lines(configuration);
    let report = |findings: &mut Findings, entry: &Entry, message: String| {
        let is_used = last.get(&(&entry.file, entry.name.as_str())).is_none_or(|last| *last <= entry.line);
        if !is_used {
            return;
        }
        if by_patroni && is_written_by_patroni(entry, configuration) {
            findings.add_info(CHECK, format!("{message}{BY_PATRONI}"));
        } else {
            findings.add(CHECK, message);
        }
    };
    for entry in configuration.entries.iter().filter(|entry| !recovery::is_removed(entry)) {
        if entry.file == AUTO {
            // The last line counts.
            replaced.remove(entry.name.as_str());
        }
        let place = entry.place();
        match judge.verdict(entry) {
            Verdict::Replaces => {
                replaced.insert(entry.name.as_str(), entry);
            }
            Verdict::Nothing => {}
            Verdict::Reported(message) => report(findings, entry, format!("{place}: {message}")),
            Verdict::Hazard(hazard) if refuse => return Err(refused(&format!("{place}: {hazard}"))),
            Verdict::Hazard(hazard) => report(findings, entry, format!("{place}: {hazard}")),
            Verdict::Overridden { hazard: Some(hazard), .. } if refuse => {
                return Err(refused(&format!("{place}: {hazard}")));
            }
            Verdict::Overridden { values, why, hazard } => {
                let is_dropped = by_patroni && is_written_by_patroni(entry, configuration);
                let is_undone = by_patroni && !is_dropped && entry.file != AUTO;
                let undone = undone_by_patroni(&entry.name).filter(|_| is_undone);
                let is_info = is_dropped && hazard.is_none();
                let why: Vec<_> = [Some(why), hazard.as_deref(), undone].into_iter().flatten().collect();
                overrides.add(entry, &values, &why.join("; "), is_info, findings);
            }
            Verdict::Refused(why) => return Err(Problem::new(CHECK, format!("{place}: {why}"))),
        }
    }
    report_replaced(&replaced, findings);
    check_includes(places, configuration, &judge, &mut overrides, findings)?;
    Ok(overrides)
}

/// Reports, in one finding, the lines of the restored postgresql.auto.conf that may weaken a configuration outside the data directory.
fn report_replaced(replaced: &BTreeMap<&str, &Entry>, findings: &mut Findings) {
    if replaced.is_empty() {
        return;
    }
    let of_entry = |entry: &&Entry| {
        format!("`{}` is `{}` (line {})", entry.name, displayed(&entry.name, &entry.value), entry.line)
    };
    let list: Vec<_> = replaced.values().map(of_entry).collect();
    let message = format!(
        "the restored {AUTO} replaces settings of the configuration outside the data directory, and may admit more users, protect \
         connections less, or load or archive less: {}; remove the lines that are not wanted (`ALTER SYSTEM RESET`)",
        shown_within(list.join(", ").as_bytes(), SHOWN)
    );
    findings.add(CHECK, message);
}

/// Reports a hazard, or fails with it if `refuse` is set.
pub(super) fn refuse_or_report(refuse: bool, hazard: String, findings: &mut Findings) -> Result<(), Problem> {
    if refuse {
        return Err(refused(&hazard));
    }
    findings.add(CHECK, hazard);
    Ok(())
}

fn refused(hazard: &str) -> Problem {
    Problem::new(CHECK, format!("{hazard}, and `config = \"refuse-commands\"` refuses that"))
}

/// Returns the last line of each setting in each file. Includes do not override each other, and lines of postgresql.auto.conf may be
/// removed.
fn last_lines(configuration: &Configuration) -> BTreeMap<(&RelativePath, &str), usize> {
    let settings = configuration.entries.iter().filter(|entry| !entry.is_include() && entry.file != AUTO);
    let mut last = BTreeMap::new();
    for entry in settings {
        let line = last.entry((&entry.file, entry.name.as_str())).or_insert(entry.line);
        *line = entry.line.max(*line);
    }
    last
}

/// Judges the includes: overrides what included files that were not read may set, and refuses an include from the server's log directory.
fn check_includes(
    places: &Places<'_>,
    configuration: &Configuration,
    judge: &Judge<'_>,
    overrides: &mut Overrides,
    findings: &mut Findings,
) -> Result<(), Problem> {
    let logs: Vec<_> = log_directories(places, configuration).collect();
    for entry in configuration.entries.iter().filter(|entry| entry.is_include()) {
        match include_destination(places, entry) {
            Destination::Inside(Some(path)) => {
                if let Some(log) = logs.iter().find(|log| path.as_path().starts_with(log.as_path())) {
                    let message = format!(
                        "{}: `{}` includes `{}` from `{log}`, into which the server writes its log: it would read text that others \
                         have it write there",
                        entry.place(),
                        entry.name,
                        shown(entry.value.as_bytes())
                    );
                    return Err(Problem::new(CHECK, message));
                }
            }
            Destination::Inside(None) => {}
            // The operator's own configuration does not include the file.
            _ if judge.is_unread(entry) => {}
            Destination::Mapped | Destination::Unclear | Destination::Outside => {
                overrides.add_unseen(entry, judge.major, findings)
            }
        }
    }
    Ok(())
}

/// Returns the directories below the data directory to which the server may write its log, according to any mention of the setting.
fn log_directories<'a>(
    places: &'a Places<'_>,
    configuration: &'a Configuration,
) -> impl Iterator<Item = RelativePath> + 'a {
    let mentions = configuration.entries.iter().filter(|entry| logs::is_directory(&entry.name));
    mentions.map(|entry| entry.value.as_str()).chain([LOG_DIRECTORY.1]).filter_map(|path| {
        match destination(places, None, Path::new(path)) {
            Destination::Inside(path) => path,
            Destination::Mapped | Destination::Unclear | Destination::Outside => None,
        }
    })
}

/// Returns where an include leads from its file.
fn include_destination(places: &Places<'_>, entry: &Entry) -> Destination {
    let from = entry.file.parent();
    destination(places, from.as_ref().map(RelativePath::as_path), Path::new(&entry.value))
}

#[cfg(test)]
mod tests;
