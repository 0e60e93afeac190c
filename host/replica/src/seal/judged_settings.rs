//! Judges the restored settings, which may make the server run, load, write or read something. They are not trusted, because they come with
//! the backup. Each mention of a setting is judged by the setting's class in the table of settings, even if a later mention overrides it,
//! because the later mention may be removed. Settings that can end recovery or damage the replica are overridden or refused under every
//! policy. Settings that run or load something, or lead out of the data directory, are reported, or refused with
//! `config = "refuse-commands"`. Other settings of interest are only reported. A mention that a later line of the same file overrides is
//! not reported. Secrets are not shown: a report shows only the program of a command.

mod values;

use std::collections::BTreeMap;
use std::path::Path;

use foundation::rooted::RelativePath;

pub(super) use self::values::{SPACE, without_password};
use self::values::{
    boolean, elements, has_room_for_logs, is_file_name, is_path, is_zero_time, library_directories,
    only_own_libraries, program,
};
use super::configuration::{AUTO, Configuration, Entry, MAIN};
use super::destination::{Destination, destination, is_data_directory};
use super::guc::{self, Class, Known, Setting};
use super::overrides::Overrides;
use super::places::Places;
use super::problem::{Findings, Problem, shown};
use super::{EndState, recovery};

use crate::Rule;

const CHECK: Rule = Rule::Configuration;

/// The defaults that replace an unsafe name or directory of the server's log.
const LOG_FILENAME: (&str, &str) = ("log_filename", "postgresql-%Y-%m-%d_%H%M%S.log");
const LOG_DIRECTORY: (&str, &str) = ("log_directory", "log");

/// The longest path of the log directory, in bytes. The server has 1024 bytes for this path and a file name together (`logfile_getname` in
/// `syslogger.c`), and truncates a longer path, which then names another file.
const LONGEST_LOG_DIRECTORY: usize = 512;

/// What happens to a mention of a setting.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// The mention is not even reported.
    Nothing,
    /// The mention is reported and stays.
    Reported(String),
    /// The setting runs or loads something, or leads out of the data directory: the mention is reported, or refused by the operator's
    /// policy.
    Hazard(String),
    /// The setting could end recovery or damage the replica: these values replace it under every policy. The text says why.
    Overridden(Vec<(&'static str, &'static str)>, &'static str),
    /// The mention is refused under every policy, because no value can replace it.
    Refused(String),
}

/// The settings of `postgresql.conf` that Patroni writes anew when it starts PostgreSQL, in addition to the include of
/// `postgresql.base.conf` (`write_postgresql_conf` in `patroni/postgresql/config.py`).
const WRITTEN_BY_PATRONI: [&str; 3] = ["primary_conninfo", "primary_slot_name", "unix_socket_directories"];

fn is_written_by_patroni(entry: &Entry) -> bool {
    entry.file == MAIN
        && (WRITTEN_BY_PATRONI.contains(&entry.name.as_str())
            || entry.name == "include" && entry.value == "postgresql.base.conf")
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
    let mut overrides = Overrides::default();
    let last = last_lines(configuration);
    let report = |findings: &mut Findings, entry: &Entry, message: String| {
        let is_used = last.get(&(&entry.file, entry.name.as_str())).is_none_or(|last| *last <= entry.line);
        if !is_used {
            return;
        }
        if by_patroni && is_written_by_patroni(entry) {
            let message = format!("{message}. Patroni, if it starts PostgreSQL here, writes this itself");
            findings.add_info(CHECK, message);
        } else {
            findings.add(CHECK, message);
        }
    };
    for entry in configuration.entries.iter().filter(|entry| !recovery::is_removed(entry)) {
        let place = entry.place();
        match verdict(places, entry, major) {
            Verdict::Nothing => {}
            Verdict::Reported(message) => report(findings, entry, format!("{place}: {message}")),
            Verdict::Hazard(hazard) if refuse => return Err(refused(&format!("{place}: {hazard}"))),
            Verdict::Hazard(hazard) => report(findings, entry, format!("{place}: {hazard}")),
            Verdict::Overridden(values, why) => {
                overrides.add(entry, &values, why, findings);
            }
            Verdict::Refused(why) => return Err(Problem::new(CHECK, format!("{place}: {why}"))),
        }
    }
    check_includes(places, configuration, major, &mut overrides, findings)?;
    Ok(overrides)
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
    major: u32,
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
            Destination::Mapped | Destination::Unclear | Destination::Outside => {
                overrides.add_unseen(entry, major, findings)
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
    let mentions = configuration.entries.iter().filter(|entry| entry.name == LOG_DIRECTORY.0);
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

fn verdict(places: &Places<'_>, entry: &Entry, major: u32) -> Verdict {
    if entry.is_include() {
        return include(places, entry);
    }
    let name = entry.name.as_str();
    match guc::known(name) {
        Known::Setting(setting) if !setting.is_in(major) => Verdict::Hazard(unknown_setting(name, major)),
        Known::Setting(Setting { class, .. }) | Known::OfExtension(class) => {
            judge_class(places, entry, class)
        }
        Known::OfUnknownExtension => match leads_elsewhere(places, name, &entry.value) {
            Some(hazard) => Verdict::Hazard(hazard),
            None => {
                Verdict::Reported(format!("`{name}` belongs to an extension that this program does not know"))
            }
        },
        Known::Unknown => Verdict::Hazard(unknown_setting(name, major)),
    }
}

fn unknown_setting(name: &str, major: u32) -> String {
    format!("`{}` is not a setting that PostgreSQL {major} is known to have", shown(name.as_bytes()))
}

fn include(places: &Places<'_>, entry: &Entry) -> Verdict {
    let (name, value) = (&entry.name, shown(entry.value.as_bytes()));
    Verdict::Hazard(match include_destination(places, entry) {
        Destination::Inside(_) => format!("`{name}` includes `{value}`"),
        Destination::Mapped | Destination::Unclear | Destination::Outside => {
            format!("`{name}` includes `{value}`, which was not read: it lies outside the data directory")
        }
    })
}

fn judge_class(places: &Places<'_>, entry: &Entry, class: Class) -> Verdict {
    let (name, value) = (entry.name.as_str(), entry.value.as_str());
    let blank = value.trim_matches(SPACE).is_empty();
    let hazard = |hazard: Option<String>| hazard.map_or(Verdict::Nothing, Verdict::Hazard);
    let inside = |path: &str| matches!(destination(places, None, Path::new(path)), Destination::Inside(_));
    match class {
        Class::Harmless | Class::Preset | Class::OfAnotherServer => Verdict::Nothing,
        // The server also runs a command of blanks.
        Class::Command | Class::RecoveryCommand => {
            hazard((!value.is_empty()).then(|| format!("`{name}` runs `{}`", program(value))))
        }
        Class::Code => {
            hazard((!value.is_empty()).then(|| format!("`{name}` runs code when its library is loaded")))
        }
        Class::Libraries if value.is_empty() || only_own_libraries(name, value) => Verdict::Nothing,
        // A list of blanks is empty, but a name of blanks is a name.
        Class::Libraries if blank && name.ends_with("_libraries") => Verdict::Nothing,
        Class::Libraries => Verdict::Hazard(format!("`{name}` loads `{}`", shown(value.as_bytes()))),
        Class::LibraryPath => {
            hazard(library_directories(name, value).next().map(|from| loads_from(name, from)))
        }
        Class::LibraryRoot => hazard((!value.is_empty()).then(|| loads_from(name, value))),
        Class::Reads => hazard((!value.is_empty() && !inside(value)).then(|| leads_out(name, value))),
        Class::ReadsWhereStarted if value.is_empty() => Verdict::Nothing,
        Class::ReadsWhereStarted if !value.starts_with('/') => Verdict::Hazard(format!(
            "`{name}` is `{}`, which the server looks for below the directory in which it is started",
            shown(value.as_bytes())
        )),
        Class::ReadsWhereStarted => hazard((!inside(value)).then(|| leads_out(name, value))),
        Class::Keytab => hazard(keytab(places, name, value)),
        Class::WritesIn => hazard(first_outside(places, name, value)),
        Class::LogDirectory => log_directory(places, name, value),
        Class::LogFilename if is_file_name(value) => Verdict::Nothing,
        Class::LogFilename => Verdict::Overridden(
            vec![LOG_FILENAME],
            "the server would write its log over other files of the cluster",
        ),
        Class::PidFile if value.is_empty() => Verdict::Nothing,
        Class::PidFile => Verdict::Overridden(
            vec![("external_pid_file", "")],
            "the server writes any file of that name, even a file that promotes the standby",
        ),
        Class::Cluster if is_data_directory(places, value) => Verdict::Nothing,
        Class::Cluster => Verdict::Refused(format!(
            "`{name}` is `{}`: the server would run on that directory, which was not checked, and not on this one; remove the line where \
             the backup is taken",
            shown(value.as_bytes())
        )),
        Class::FileByName => hazard(is_path(value).then(|| {
            format!("`{name}` leads out of the server's own installation, to `{}`", shown(value.as_bytes()))
        })),
        // Blanks are not trimmed, because a blank is a valid name of a trigger file or a restore point.
        Class::EndsRecovery(harmless) if value == harmless => Verdict::Nothing,
        Class::EndsRecovery(harmless) => match guc::setting(name) {
            Some(setting) => {
                Verdict::Overridden(vec![(setting.name, harmless)], "it can end a standby's recovery")
            }
            None => Verdict::Nothing,
        },
        Class::Follows if blank => Verdict::Nothing,
        Class::Follows if name == "primary_conninfo" => {
            Verdict::Reported(format!("`{name}` is `{}`", without_password(value)))
        }
        Class::Follows => Verdict::Reported(format!("`{name}` is `{}`", shown(value.as_bytes()))),
        Class::Delays if is_zero_time(value) => Verdict::Nothing,
        Class::Delays => Verdict::Reported(format!(
            "`{name}` is `{}`: the standby applies WAL only with this delay",
            shown(value.as_bytes())
        )),
        Class::Protects(safe) if boolean(value) == Some(safe) => Verdict::Nothing,
        Class::Protects(_) => Verdict::Reported(format!(
            "`{name}` is `{}`: this disables a protection of the data",
            shown(value.as_bytes())
        )),
    }
}

fn leads_out(name: &str, path: &str) -> String {
    format!("`{name}` leads out of the data directory, to `{}`", shown(path.as_bytes()))
}

fn loads_from(name: &str, directory: &str) -> String {
    format!("`{name}` has libraries or extensions loaded from `{}`", shown(directory.as_bytes()))
}

/// Returns a description if the value of an unknown extension's setting looks like a path out of the data directory or like a URL. A URL is
/// not shown, because it may contain a password.
fn leads_elsewhere(places: &Places<'_>, name: &str, value: &str) -> Option<String> {
    first_outside(places, name, value)
        .or_else(|| value.contains("://").then(|| format!("`{name}` names something by a URL")))
}

/// Describes the first part of a value that leads out of the data directory; `None` if no part does.
fn first_outside(places: &Places<'_>, name: &str, value: &str) -> Option<String> {
    elements(value)
        .find(|element| {
            is_path(element)
                && !matches!(destination(places, None, Path::new(element)), Destination::Inside(_))
        })
        .map(|outside| leads_out(name, outside))
}

/// Judges a Kerberos key table: a path, or a path after `FILE:` or `WRFILE:`; `MEMORY:` reads no file.
fn keytab(places: &Places<'_>, name: &str, value: &str) -> Option<String> {
    let path = match value.split_once(':') {
        _ if value.starts_with('/') || value.is_empty() => value,
        None => value,
        Some(("FILE" | "WRFILE", path)) => path,
        Some(("MEMORY", _)) => return None,
        Some((scheme, _)) => {
            return Some(format!("`{name}` is a key table of the kind `{}`", shown(scheme.as_bytes())));
        }
    };
    let inside =
        matches!(destination(places, None, Path::new(path)), Destination::Inside(_)) && !path.contains("%{");
    (!inside && !path.is_empty()).then(|| leads_out(name, path))
}

/// Judges the directory of the server's log. Inside the data directory, the log must have a separate directory: in a directory with
/// PostgreSQL's own files it could overwrite them.
fn log_directory(places: &Places<'_>, name: &str, value: &str) -> Verdict {
    let overridden = || {
        Verdict::Overridden(
            vec![LOG_DIRECTORY, LOG_FILENAME],
            "the server would write its log among other files of the cluster",
        )
    };
    if value.len() > LONGEST_LOG_DIRECTORY {
        return overridden();
    }
    match destination(places, None, Path::new(value)) {
        Destination::Inside(Some(path)) if has_room_for_logs(&path) => Verdict::Nothing,
        Destination::Inside(_) | Destination::Mapped | Destination::Unclear => overridden(),
        Destination::Outside => Verdict::Hazard(leads_out(name, value)),
    }
}

#[cfg(test)]
mod tests;
