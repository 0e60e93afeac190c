//! Settings of the restored configuration that must have no effect under any policy: a line of postgresql.auto.conf is removed, and a
//! setting in another file is overridden at the end of postgresql.auto.conf, where the last mention counts.

use std::collections::{BTreeMap, BTreeSet};

use super::configuration::{AUTO, Entry};
use super::guc::{self, Class};
use super::judged_settings::{BY_PATRONI, LOG_DIRECTORY, LOG_FILENAME, displayed};
use super::problem::Findings;

use crate::Rule;

const CHECK: Rule = Rule::AutoConf;

/// The lines to remove and the settings to write.
#[derive(Debug, Default)]
pub(super) struct Overrides {
    /// The settings to write, each with its value.
    pub(super) values: BTreeMap<&'static str, &'static str>,
    /// The numbers of the lines to remove from postgresql.auto.conf, counted from 1.
    pub(super) removed: BTreeSet<usize>,
}

impl Overrides {
    /// Removes a mention of a setting, or overrides it with `values`, which are empty if the seal sets the setting anyway. `is_info`
    /// says that the finding is only information: Patroni, if it starts the server, drops the line, and the line has no other hazard.
    pub(super) fn add(
        &mut self,
        entry: &Entry,
        values: &[(&'static str, &'static str)],
        why: &str,
        is_info: bool,
        findings: &mut Findings,
    ) {
        let (name, value, place) = (&entry.name, displayed(&entry.name, &entry.value), entry.place());
        if entry.file == AUTO {
            self.removed.insert(entry.line);
            findings.add(CHECK, format!("{place} was removed: `{name}` was `{value}`: {why}"));
            return;
        }
        self.values.extend(values.iter().copied());
        let harmless = values.iter().find(|(of, _)| of == name);
        let with = harmless.map_or(String::new(), |(_, value)| format!(" with `{value}`"));
        let message = format!("{place} sets `{name}` to `{value}`, which {AUTO} now overrides{with}: {why}");
        match is_info {
            true => findings.add_info(CHECK, format!("{message}{BY_PATRONI}")),
            false => findings.add(CHECK, message),
        }
    }

    /// Overrides every setting that could end recovery or write a file, because an included file that was not read may set it.
    pub(super) fn add_unseen(&mut self, include: &Entry, major: u32, findings: &mut Findings) {
        let before = self.values.len();
        for setting in guc::of_version(major) {
            let harmless = match setting.class {
                Class::EndsRecovery(harmless) => harmless,
                Class::PidFile => "",
                Class::LogDirectory => LOG_DIRECTORY.1,
                Class::LogFilename => LOG_FILENAME.1,
                _ => continue,
            };
            self.values.insert(setting.name, harmless);
        }
        if self.values.len() > before {
            let names: Vec<_> = self.values.keys().map(|name| format!("`{name}`")).collect();
            let message = format!(
                "{}: the file that `{}` names was not read; in case that file sets them, postgresql.auto.conf overrides {}",
                include.place(),
                include.name,
                names.join(", ")
            );
            findings.add(CHECK, message);
        }
    }
}
