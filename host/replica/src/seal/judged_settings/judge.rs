//! Judges one mention of a setting by the setting's class in the table.

use std::path::Path;

use super::super::EndState;
use super::super::configuration::{AUTO, Configuration, Entry};
use super::super::destination::{Destination, destination, is_data_directory};
use super::super::guc::{self, Class, Known, Setting};
use super::super::places::Places;
use super::super::problem::shown;
use super::super::required_settings::whole_number;
use super::super::server::reads;
use super::logs::{
    AUDIT_DIRECTORY, AUDIT_FILENAME, LOG_DIRECTORY, LOG_FILENAME, destination_of_logs, is_directory,
    is_file_name,
};
use super::values::{
    SPACE, displayed, elements, has, hazard_of_connection, is_path, is_switch_or_number, library_directories,
    only_own_libraries, parts, program,
};
use super::{Verdict, include_destination};

/// The first version with abstract sockets.
const FIRST_WITH_ABSTRACT_SOCKETS: u32 = 14;

/// The permission bits of a file for its group and for others.
const OF_OTHERS: i64 = 0o077;

/// Returns whether the server's configuration file is the operator's own, outside the data directory.
fn is_elsewhere(places: &Places<'_>, configuration: &Configuration, end: &EndState) -> bool {
    let is_outside = |file: &Path| !matches!(destination(places, None, file), Destination::Inside(_));
    !configuration.has_main || end.config_file.as_deref().is_some_and(is_outside)
}

/// Returns why the operator should know about the value of a setting; `None` if the value is nothing unusual.
pub(in crate::seal) fn why_told(name: &str, value: &str) -> Option<&'static str> {
    match guc::setting(name)?.class {
        Class::ToldUnless(values, why) if !has(values, value) => Some(why),
        _ => None,
    }
}

/// What a verdict depends on besides the mention itself.
pub(super) struct Judge<'a> {
    places: &'a Places<'a>,
    /// The server's major version.
    pub(super) major: u32,
    /// See [`is_elsewhere`].
    is_elsewhere: bool,
    /// Whether it is certain that the server reads no restored file except postgresql.auto.conf. Patroni, if it may start the server, would
    /// also read the files that are only for Patroni, and make one of them the main file.
    reads_only_auto: bool,
    /// Whether the seal writes its own `primary_conninfo`.
    configures_standby: bool,
    /// Whether a log may be written outside the data directory.
    logs_outside: bool,
}

impl<'a> Judge<'a> {
    pub(super) fn new(
        places: &'a Places<'a>,
        configuration: &Configuration,
        major: u32,
        end: &EndState,
    ) -> Self {
        let is_elsewhere = is_elsewhere(places, configuration, end);
        let is_restored = |file: &Path| destination(places, None, file) != Destination::Outside;
        let reads_restored = |file: &Path| reads(file, &is_restored);
        let leads_out = |entry: &Entry| {
            is_directory(&entry.name)
                && destination_of_logs(places, &entry.value) == Some(Destination::Outside)
        };
        Self {
            places,
            major,
            is_elsewhere,
            reads_only_auto: is_elsewhere
                && (end.configure_standby.is_some() || configuration.of_patroni == 0)
                && !configuration.entries.iter().any(|entry| entry.file == AUTO && entry.is_include())
                && !end.config_file.as_deref().is_some_and(reads_restored),
            configures_standby: end.configure_standby.is_some(),
            logs_outside: is_elsewhere || configuration.entries.iter().any(leads_out),
        }
    }

    /// Judges a mention. A mention in a file that the server does not read is not overridden, because that would override the operator's
    /// own configuration.
    pub(super) fn verdict(&self, entry: &Entry) -> Verdict {
        match self.judge(entry) {
            Verdict::Overridden { why, hazard: None, .. } if self.is_unread(entry) => {
                Verdict::Reported(format!(
                    "`{}` is `{}`: {why}; the server does not read this file: it reads the configuration outside the data directory",
                    entry.name,
                    displayed(&entry.name, &entry.value)
                ))
            }
            Verdict::Nothing if self.weakens(entry) => Verdict::Replaces,
            verdict => verdict,
        }
    }

    /// Returns whether the server does not read the file of this entry.
    pub(super) fn is_unread(&self, entry: &Entry) -> bool {
        self.reads_only_auto && entry.file != AUTO
    }

    fn judge(&self, entry: &Entry) -> Verdict {
        if entry.is_include() {
            return self.include(entry);
        }
        let (name, major) = (entry.name.as_str(), self.major);
        match guc::known(name) {
            Known::Setting(setting) if !setting.is_in(major) => Verdict::Hazard(unknown_setting(name, major)),
            Known::Setting(Setting { class, .. }) | Known::OfExtension(class) => {
                self.judge_class(entry, class)
            }
            Known::OfUnknownExtension => self.of_unknown_extension(name, &entry.value),
            Known::Unknown => Verdict::Hazard(unknown_setting(name, major)),
        }
    }

    /// Returns whether a line of the restored postgresql.auto.conf may weaken the operator's own configuration, which lies outside the
    /// data directory, although the same line is harmless where it replaces nothing.
    fn weakens(&self, entry: &Entry) -> bool {
        let class = match guc::known(&entry.name) {
            Known::Setting(Setting { class, .. }) | Known::OfExtension(class) => class,
            Known::OfUnknownExtension | Known::Unknown => return false,
        };
        self.replaces(entry)
            && match class {
                Class::Access(values) => !has(values, &entry.value),
                Class::Command
                | Class::Libraries
                | Class::Reads
                | Class::ReadsWhereStarted
                | Class::Keytab => entry.value.trim_matches(SPACE).is_empty(),
                _ => false,
            }
    }

    /// Returns whether a line may replace one in the operator's own configuration. Of the restored files, the server then reads only
    /// postgresql.auto.conf.
    fn replaces(&self, entry: &Entry) -> bool {
        self.is_elsewhere && entry.file == AUTO
    }

    fn include(&self, entry: &Entry) -> Verdict {
        let (name, value) = (&entry.name, shown(entry.value.as_bytes()));
        Verdict::Hazard(match include_destination(self.places, entry) {
            Destination::Inside(_) => format!("`{name}` includes `{value}`"),
            Destination::Mapped | Destination::Unclear | Destination::Outside => {
                format!("`{name}` includes `{value}`, which was not read: it lies outside the data directory")
            }
        })
    }

    fn of_unknown_extension(&self, name: &str, value: &str) -> Verdict {
        match self.leads_elsewhere(name, value) {
            Some(hazard) => Verdict::Hazard(hazard),
            None => {
                Verdict::Reported(format!("`{name}` belongs to an extension that this program does not know"))
            }
        }
    }

    fn judge_class(&self, entry: &Entry, class: Class) -> Verdict {
        let (name, value) = (entry.name.as_str(), entry.value.as_str());
        let blank = value.trim_matches(SPACE).is_empty();
        let hazard = |hazard: Option<String>| hazard.map_or(Verdict::Nothing, Verdict::Hazard);
        match class {
            Class::Harmless | Class::Preset | Class::OfAnotherServer | Class::Access(_) => Verdict::Nothing,
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
            Class::Reads | Class::ReadsWhereStarted | Class::Keytab if value.is_empty() => Verdict::Nothing,
            Class::Reads => hazard(self.reads(entry, value)),
            Class::ReadsWhereStarted if !value.starts_with('/') => Verdict::Hazard(format!(
                "`{name}` is `{}`, which the server looks for below the directory in which it is started",
                shown(value.as_bytes())
            )),
            Class::ReadsWhereStarted => hazard(self.reads(entry, value)),
            Class::Keytab => hazard(self.keytab(entry)),
            Class::WritesIn => hazard(self.first_outside(name, value)),
            Class::Sockets => hazard(self.sockets(name, value)),
            Class::LogDirectory => self.log_directory(name, value),
            Class::LogFilename => log_filename(name, value),
            Class::LogFileMode if whole_number(value).is_some_and(|mode| mode & OF_OTHERS == 0) => {
                Verdict::Nothing
            }
            Class::LogFileMode if !self.logs_outside => Verdict::Nothing,
            Class::LogFileMode => Verdict::Reported(format!(
                "`{name}` is `{}`: other users of the machine may be able to read or change the log, if it lies outside the data directory",
                shown(value.as_bytes())
            )),
            Class::PidFile if value.is_empty() => Verdict::Nothing,
            Class::PidFile => overridden(
                vec![("external_pid_file", "")],
                "the server writes any file of that name, even a file that promotes the standby",
            ),
            Class::Cluster if is_data_directory(self.places, value) => Verdict::Nothing,
            Class::Cluster => Verdict::Refused(format!(
                "`{name}` is `{}`: the server would run on that directory, which was not checked, and not on this one; remove the line \
                 on the server that is backed up",
                shown(value.as_bytes())
            )),
            Class::FileByName => hazard(is_path(value).then(|| {
                format!(
                    "`{name}` leads out of the server's own installation, to `{}`",
                    shown(value.as_bytes())
                )
            })),
            // Blanks are not trimmed, because a blank is a valid name of a trigger file or a restore point.
            Class::EndsRecovery(harmless) if value == harmless => Verdict::Nothing,
            Class::EndsRecovery(harmless) => match guc::setting(name) {
                Some(setting) => {
                    overridden(vec![(setting.name, harmless)], "it can end a standby's recovery")
                }
                None => Verdict::Nothing,
            },
            Class::Follows if blank => Verdict::Nothing,
            Class::Follows => self.follows(name, value),
            Class::ToldUnless(values, _) if has(values, value) => Verdict::Nothing,
            Class::ToldUnless(_, why) => {
                Verdict::Reported(format!("`{name}` is `{}`: {why}", shown(value.as_bytes())))
            }
            // Such a value names nothing, whatever the setting is for.
            Class::MayNameFiles if is_switch_or_number(value) || value.is_empty() => {
                self.of_unknown_extension(name, value)
            }
            Class::MayNameFiles => Verdict::Hazard(self.leads_elsewhere(name, value).unwrap_or_else(|| {
                format!("`{name}` may name a file, a directory, a server or options of a program")
            })),
        }
    }

    fn is_inside(&self, path: &str) -> bool {
        matches!(destination(self.places, None, Path::new(path)), Destination::Inside(_))
    }

    /// Describes a file that is read; `None` if nothing is wrong with it.
    fn reads(&self, entry: &Entry, path: &str) -> Option<String> {
        if !self.is_inside(path) {
            return Some(leads_out(&entry.name, path));
        }
        self.replaces(entry).then(|| {
            format!(
                "`{}` is `{}`, which may have come with the backup, and the restored {AUTO} sets it in place of the configuration \
                 outside the data directory",
                entry.name,
                shown(path.as_bytes())
            )
        })
    }

    /// Judges a Kerberos key table: a path, or a path after `FILE:` or `WRFILE:`; `MEMORY:` reads no file.
    fn keytab(&self, entry: &Entry) -> Option<String> {
        let (name, value) = (&entry.name, entry.value.as_str());
        let path = match value.split_once(':') {
            _ if value.starts_with('/') => value,
            None => value,
            Some(("FILE" | "WRFILE", path)) => path,
            Some(("MEMORY", _)) => return None,
            Some((scheme, _)) => {
                return Some(format!("`{name}` is a key table of the kind `{}`", shown(scheme.as_bytes())));
            }
        };
        if path.contains("%{") {
            return Some(leads_out(name, path));
        }
        (!path.is_empty()).then(|| self.reads(entry, path)).flatten()
    }

    /// Judges the directories of sockets. An abstract socket has no mode that could keep other users out.
    fn sockets(&self, name: &str, value: &str) -> Option<String> {
        let is_abstract = |element: &&str| element.starts_with('@');
        match elements(value).find(is_abstract) {
            Some(socket) if self.major >= FIRST_WITH_ABSTRACT_SOCKETS => Some(format!(
                "`{name}` names the abstract socket `{}`, to which every user of the machine can connect",
                shown(socket.as_bytes())
            )),
            _ => self.first_outside(name, value),
        }
    }

    /// Judges the directory of a log. Inside the data directory, the log must have a directory that is meant for logs: the server would
    /// create a directory with a name that promotes the standby, or overwrite PostgreSQL's own files.
    fn log_directory(&self, name: &str, value: &str) -> Verdict {
        // With an empty name, the extension writes to the server's log.
        if name == AUDIT_DIRECTORY.0 && value.is_empty() {
            return Verdict::Nothing;
        }
        match destination_of_logs(self.places, value) {
            Some(Destination::Outside) => Verdict::Hazard(leads_out(name, value)),
            Some(_) => Verdict::Nothing,
            None => overridden(
                match name == AUDIT_DIRECTORY.0 {
                    true => vec![AUDIT_DIRECTORY, AUDIT_FILENAME],
                    false => vec![LOG_DIRECTORY, LOG_FILENAME],
                },
                "the log belongs in `log`, `logs` or `pg_log`, because other names of the data directory can end recovery or belong to \
                 the cluster",
            ),
        }
    }

    /// Judges what a standby follows. The seal does not override the operator's own configuration, but always writes the
    /// `primary_conninfo` that the operator configured.
    fn follows(&self, name: &str, value: &str) -> Verdict {
        let is_conninfo = name == "primary_conninfo";
        let hazard =
            is_conninfo.then(|| hazard_of_connection(value)).flatten().map(|why| format!("`{name}` {why}"));
        if self.is_elsewhere {
            let told = || Verdict::Reported(format!("`{name}` is `{}`", displayed(name, value)));
            return hazard.map_or_else(told, Verdict::Hazard);
        }
        match is_conninfo {
            true if self.configures_standby => Verdict::Overridden { values: vec![], why: FOLLOWS, hazard },
            true => Verdict::Overridden { values: vec![("primary_conninfo", "")], why: FOLLOWS, hazard },
            false => overridden(vec![("primary_slot_name", "")], "the slot belongs to another standby"),
        }
    }

    /// Returns a description if the value of an unknown extension's setting looks like a path out of the data directory or like a URL. A
    /// URL is not shown, because it may contain a password, nor is a path within another text.
    fn leads_elsewhere(&self, name: &str, value: &str) -> Option<String> {
        if value.contains("://") {
            return Some(format!("`{name}` names something by a URL"));
        }
        self.first_outside(name, value).or_else(|| {
            let is_outside = |part: &str| is_path(part) && !self.is_inside(part);
            parts(value)
                .any(is_outside)
                .then(|| format!("`{name}` contains a path that leads out of the data directory"))
        })
    }

    /// Describes the first element of a value that leads out of the data directory; `None` if no element does.
    fn first_outside(&self, name: &str, value: &str) -> Option<String> {
        elements(value)
            .find(|element| is_path(element) && !self.is_inside(element))
            .map(|outside| leads_out(name, outside))
    }
}

/// Why `primary_conninfo` of the backup is overridden.
const FOLLOWS: &str = "the server that the standby follows is not the backup's to choose";

fn overridden(values: Vec<(&'static str, &'static str)>, why: &'static str) -> Verdict {
    Verdict::Overridden { values, why, hazard: None }
}

fn log_filename(name: &str, value: &str) -> Verdict {
    let is_of_audit = name == AUDIT_FILENAME.0;
    if is_file_name(value) || is_of_audit && value.is_empty() {
        return Verdict::Nothing;
    }
    overridden(
        vec![if is_of_audit { AUDIT_FILENAME } else { LOG_FILENAME }],
        "the server would write its log over other files of the cluster",
    )
}

fn unknown_setting(name: &str, major: u32) -> String {
    format!("`{}` is not a setting that PostgreSQL {major} is known to have", shown(name.as_bytes()))
}

fn leads_out(name: &str, path: &str) -> String {
    format!("`{name}` leads out of the data directory, to `{}`", shown(path.as_bytes()))
}

fn loads_from(name: &str, directory: &str) -> String {
    format!("`{name}` has libraries or extensions loaded from `{}`", shown(directory.as_bytes()))
}
