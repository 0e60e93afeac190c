//! What the restored configuration will have the server run, load, write or read elsewhere. Whoever supplied the data wrote it. Each
//! mention of a setting is judged by its class in the table of settings, also one that a later mention overrides, for the later one may
//! be removed. What can end the standby's life or damage the replica is overridden or refused under every policy. What runs, loads or
//! leads elsewhere is in the report, and `config = "refuse-commands"` refuses it. What else is worth telling is in the report alone.
//! Secrets are not shown: of a command only its program.

mod values;

use std::path::Path;

use foundation::rooted::RelativePath;

pub(super) use self::values::{SPACE, without_password};
use self::values::{
    boolean, elements, has_room_for_logs, is_file_name, is_no_time, is_path, library_directories,
    only_own_libraries, program,
};
use super::configuration::{Configuration, Entry};
use super::guc::{self, Class, Known, Setting};
use super::leads::{Leads, is_data_directory, leads};
use super::overrides::Overrides;
use super::places::Places;
use super::problem::{Findings, Problem, shown};
use super::recovery;

use crate::Rule;

const CHECK: Rule = Rule::Configuration;

/// The defaults of the log's place, for where a restored one is none.
const LOG_FILENAME: (&str, &str) = ("log_filename", "postgresql-%Y-%m-%d_%H%M%S.log");
const LOG_DIRECTORY: (&str, &str) = ("log_directory", "log");

/// How many bytes the directory of the log may have. The server has 1024 for it and a file's name together (`logfile_getname` in
/// `syslogger.c`), and takes the beginning of what is longer: another file.
const LONGEST_LOG_DIRECTORY: usize = 512;

/// What a mention of a setting comes to.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Nothing,
    /// Worth telling, and left as it is.
    Told(String),
    /// Runs, loads, or leads elsewhere: told, or refused by the operator's policy.
    Hazard(String),
    /// Could end the standby's life or damage the replica: these values are set in its place, under every policy.
    Overridden(Vec<(&'static str, &'static str)>, &'static str),
    /// Nothing can be set in its place.
    Refused(String),
}

/// Tells of every hazard, or refuses the first where the operator wants none; gives what must be overridden.
pub(super) fn check(
    places: &Places<'_>,
    configuration: &Configuration,
    major: u32,
    refuse: bool,
    findings: &mut Findings,
) -> Result<Overrides, Problem> {
    let mut overrides = Overrides::default();
    for entry in configuration.entries.iter().filter(|entry| !recovery::is_removed(entry)) {
        let place = entry.place();
        match verdict(places, entry, major) {
            Verdict::Nothing => {}
            Verdict::Told(told) => findings.add(CHECK, format!("{place}: {told}")),
            Verdict::Hazard(hazard) => refuse_or_tell(refuse, format!("{place}: {hazard}"), findings)?,
            Verdict::Overridden(values, why) => {
                overrides.add(entry, &values, why, findings);
            }
            Verdict::Refused(why) => return Err(Problem::new(CHECK, format!("{place}: {why}"))),
        }
    }
    check_includes(places, configuration, major, &mut overrides, findings)?;
    Ok(overrides)
}

/// Tells of a hazard, or refuses it where the operator wants none.
pub(super) fn refuse_or_tell(refuse: bool, hazard: String, findings: &mut Findings) -> Result<(), Problem> {
    if refuse {
        let message = format!("{hazard}, and `config = \"refuse-commands\"` refuses that");
        return Err(Problem::new(CHECK, message));
    }
    findings.add(CHECK, hazard);
    Ok(())
}

/// What files that were not read may say, and what the server itself may write into files that it reads.
fn check_includes(
    places: &Places<'_>,
    configuration: &Configuration,
    major: u32,
    overrides: &mut Overrides,
    findings: &mut Findings,
) -> Result<(), Problem> {
    let logs: Vec<_> = log_directories(places, configuration).collect();
    for entry in configuration.entries.iter().filter(|entry| entry.is_include()) {
        match of_include(places, entry) {
            Leads::Inside(Some(path)) => {
                if let Some(log) = logs.iter().find(|log| path.as_path().starts_with(log.as_path())) {
                    let message = format!(
                        "{}: `{}` includes `{}` from `{log}`, into which the server writes its log: it would read there what others \
                         have it write",
                        entry.place(),
                        entry.name,
                        shown(entry.value.as_bytes())
                    );
                    return Err(Problem::new(CHECK, message));
                }
            }
            Leads::Inside(None) => {}
            Leads::Mapped | Leads::Unclear | Leads::Outside => overrides.add_unseen(entry, major, findings),
        }
    }
    Ok(())
}

/// Where the server writes its log below the data directory, by whatever mention.
fn log_directories<'a>(
    places: &'a Places<'_>,
    configuration: &'a Configuration,
) -> impl Iterator<Item = RelativePath> + 'a {
    let mentions = configuration.entries.iter().filter(|entry| entry.name == LOG_DIRECTORY.0);
    mentions.map(|entry| entry.value.as_str()).chain([LOG_DIRECTORY.1]).filter_map(|path| {
        match leads(places, None, Path::new(path)) {
            Leads::Inside(path) => path,
            Leads::Mapped | Leads::Unclear | Leads::Outside => None,
        }
    })
}

/// Where an include leads, from the file that it stands in.
fn of_include(places: &Places<'_>, entry: &Entry) -> Leads {
    let from = entry.file.parent();
    leads(places, from.as_ref().map(RelativePath::as_path), Path::new(&entry.value))
}

fn verdict(places: &Places<'_>, entry: &Entry, major: u32) -> Verdict {
    if entry.is_include() {
        return include(places, entry);
    }
    let name = entry.name.as_str();
    match guc::known(name) {
        Known::Setting(setting) if !setting.is_in(major) => Verdict::Hazard(no_setting(name, major)),
        Known::Setting(Setting { class, .. }) | Known::OfExtension(class) => of_class(places, entry, class),
        Known::OfUnknownExtension => match leads_elsewhere(places, name, &entry.value) {
            Some(hazard) => Verdict::Hazard(hazard),
            None => Verdict::Told(format!("`{name}` is of an extension that is not known here")),
        },
        Known::Unknown => Verdict::Hazard(no_setting(name, major)),
    }
}

fn no_setting(name: &str, major: u32) -> String {
    format!("`{}` is no setting that PostgreSQL {major} is known to have", shown(name.as_bytes()))
}

fn include(places: &Places<'_>, entry: &Entry) -> Verdict {
    let (name, value) = (&entry.name, shown(entry.value.as_bytes()));
    Verdict::Hazard(match of_include(places, entry) {
        Leads::Inside(_) => format!("`{name}` includes `{value}`"),
        Leads::Mapped | Leads::Unclear | Leads::Outside => {
            format!("`{name}` includes `{value}`, which was not read: it lies outside the data directory")
        }
    })
}

fn of_class(places: &Places<'_>, entry: &Entry, class: Class) -> Verdict {
    let (name, value) = (entry.name.as_str(), entry.value.as_str());
    let blank = value.trim_matches(SPACE).is_empty();
    let hazard = |hazard: Option<String>| hazard.map_or(Verdict::Nothing, Verdict::Hazard);
    let inside = |path: &str| matches!(leads(places, None, Path::new(path)), Leads::Inside(_));
    match class {
        Class::Harmless | Class::Preset | Class::OfAnotherServer => Verdict::Nothing,
        // Of blanks, too, the server makes a command; only it says what a blank is, not Unicode.
        Class::Command | Class::RecoveryCommand => {
            hazard((!value.is_empty()).then(|| format!("`{name}` runs `{}`", program(value))))
        }
        Class::Code => {
            hazard((!value.is_empty()).then(|| format!("`{name}` runs code when its library is loaded")))
        }
        Class::Libraries if value.is_empty() || only_own_libraries(name, value) => Verdict::Nothing,
        // A list of blanks is empty, a name of blanks is one.
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
            "the server writes that file whatever it is, one that promotes the standby too",
        ),
        Class::Cluster if is_data_directory(places, value) => Verdict::Nothing,
        Class::Cluster => Verdict::Refused(format!(
            "`{name}` is `{}`: the server would run that directory, which was not checked, and not this one; remove the line where the \
             backup is taken",
            shown(value.as_bytes())
        )),
        Class::FileByName => hazard(is_path(value).then(|| {
            format!("`{name}` leads out of the server's own installation, to `{}`", shown(value.as_bytes()))
        })),
        // To the letter: a blank is the name of a trigger file or of a restore point.
        Class::EndsRecovery(harmless) if value == harmless => Verdict::Nothing,
        Class::EndsRecovery(harmless) => match guc::setting(name) {
            Some(setting) => {
                Verdict::Overridden(vec![(setting.name, harmless)], "it can end a standby's recovery")
            }
            None => Verdict::Nothing,
        },
        Class::Follows if blank => Verdict::Nothing,
        Class::Follows if name == "primary_conninfo" => {
            Verdict::Told(format!("`{name}` is `{}`", without_password(value)))
        }
        Class::Follows => Verdict::Told(format!("`{name}` is `{}`", shown(value.as_bytes()))),
        Class::Delays if is_no_time(value) => Verdict::Nothing,
        Class::Delays => Verdict::Told(format!(
            "`{name}` is `{}`: the standby applies what it receives only that much later",
            shown(value.as_bytes())
        )),
        Class::Protects(safe) if boolean(value) == Some(safe) => Verdict::Nothing,
        Class::Protects(_) => Verdict::Told(format!(
            "`{name}` is `{}`: the server gives up what protects the data",
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

/// Where a setting of an extension of which nothing is known leads, by the look of its value. A URL may have a password in it.
fn leads_elsewhere(places: &Places<'_>, name: &str, value: &str) -> Option<String> {
    first_outside(places, name, value)
        .or_else(|| value.contains("://").then(|| format!("`{name}` names something by a URL")))
}

/// The first part of a value that leads out of the data directory.
fn first_outside(places: &Places<'_>, name: &str, value: &str) -> Option<String> {
    elements(value)
        .find(|element| {
            is_path(element) && !matches!(leads(places, None, Path::new(element)), Leads::Inside(_))
        })
        .map(|outside| leads_out(name, outside))
}

/// A Kerberos key table: `FILE:` and `WRFILE:` stand before a path, `MEMORY:` before nothing that is read.
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
    let inside = matches!(leads(places, None, Path::new(path)), Leads::Inside(_)) && !path.contains("%{");
    (!inside && !path.is_empty()).then(|| leads_out(name, path))
}

/// Inside, the log has a directory of its own: in one that PostgreSQL or the write-ahead log has files in, a file of it could be any of them.
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
    match leads(places, None, Path::new(value)) {
        Leads::Inside(Some(path)) if has_room_for_logs(&path) => Verdict::Nothing,
        Leads::Inside(_) | Leads::Mapped | Leads::Unclear => overridden(),
        Leads::Outside => Verdict::Hazard(leads_out(name, value)),
    }
}

#[cfg(test)]
mod tests;
