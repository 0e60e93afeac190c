//! The lists of methods, and the section of each method that is a program.

use crate::Unreadable;
use crate::command::{Command, Runnable};
use crate::remarks::Remarks;
use crate::settings::{Setting, Settings};

/// The name of Patroni's built-in method.
pub(crate) const BASEBACKUP: &str = "basebackup";

/// A method that runs a program.
#[derive(Clone, Debug)]
pub(crate) struct Method {
    /// Its name in Understudy's configuration.
    pub(crate) name: String,
    /// Its name in Patroni's configuration.
    pub(crate) original: String,
    /// The line of its section in Patroni's file, or of its name in the list if it has no section.
    pub(crate) line: usize,
    /// Whether Patroni leaves the old data directory in place for this method.
    pub(crate) keep_data: bool,
    /// Whether Patroni tries the method even without a source.
    pub(crate) no_leader: bool,
    /// Whether Patroni leaves out the arguments that describe the cluster.
    pub(crate) no_params: bool,
    pub(crate) command: Command,
}

/// A name in a list.
#[derive(Debug)]
pub(crate) struct Listed<'d> {
    name: String,
    setting: Setting<'d>,
}

/// Every method that a list names, in the order in which they first occur.
#[derive(Debug, Default)]
pub(crate) struct Methods {
    /// The methods that run a program.
    pub(crate) programs: Vec<Method>,
    /// Whether a method is Understudy itself, which Patroni already runs even without a source.
    pub(crate) is_understudy_without_leader: bool,
    /// The names that were processed, each with its name in Understudy's configuration; `None` if the method is left out.
    known: Vec<(String, Option<String>)>,
}

/// Returns the names that Patroni finds when it iterates over the list.
pub(crate) fn list<'d>(setting: &Setting<'d>, remarks: &mut Remarks) -> Vec<Listed<'d>> {
    let listed =
        |name: &str, setting: &Setting<'d>| Listed { name: name.to_owned(), setting: setting.clone() };
    if let Some(text) = setting.value.text() {
        remarks.note(
            setting,
            "Patroni reads a string as a list of its letters; Understudy reads the names in it: write a \
             list",
        );
        let names = text.split([',', ' ']).filter(|name| !name.is_empty());
        return names.map(|name| listed(name, setting)).collect();
    }
    // Python iterates over the keys of a mapping.
    let keys = setting.keys();
    if !keys.is_empty() {
        remarks.note(setting, "Patroni uses the keys of a mapping as the list");
    }
    let items = if keys.is_empty() { setting.items() } else { keys };
    if items.is_empty() && setting.is_true() {
        remarks.not_carried(setting, "the value is not a list of names, so Patroni fails on it");
    }
    let mut names = Vec::new();
    for item in items {
        match item.value.text() {
            Some(name) if !name.trim().is_empty() => names.push(listed(name, &item)),
            _ => remarks.not_carried(
                &item,
                "the name of a method must be a string: put it in quotes (without quotes, `no` and `on` are booleans)",
            ),
        }
    }
    names
}

impl Methods {
    /// Reads the methods of a list, and returns their names in Understudy's configuration.
    ///
    /// # Errors
    /// Fails if a section is a template.
    pub(crate) fn take(
        &mut self,
        listed: &[Listed<'_>],
        settings: &Settings<'_>,
        remarks: &mut Remarks,
    ) -> Result<Vec<String>, Unreadable> {
        let mut names = Vec::new();
        for listed in listed {
            if listed.name == BASEBACKUP {
                names.push(BASEBACKUP.to_owned());
                continue;
            }
            if let Some((_, known)) = self.known.iter().find(|(name, _)| *name == listed.name) {
                names.extend(known.clone());
                continue;
            }
            listed.setting.refuse_variables()?;
            let method = self.method(listed, settings, remarks)?;
            let name = method.as_ref().map(|method| method.name.clone());
            self.known.push((listed.name.clone(), name.clone()));
            self.programs.extend(method);
            names.extend(name);
        }
        Ok(names)
    }

    fn method(
        &mut self,
        listed: &Listed<'_>,
        settings: &Settings<'_>,
        remarks: &mut Remarks,
    ) -> Result<Option<Method>, Unreadable> {
        let section = settings.postgresql(&listed.name).filter(Setting::is_true);
        if let Some(section) = &section {
            if section.value.pairs().is_none() {
                let what = if section.value.items().is_some() { "a list" } else { "not a mapping" };
                let reason =
                    format!("the section is {what}, so Patroni fails on it: only `basebackup` may be a list");
                remarks.not_carried(section, reason);
                return Ok(None);
            }
            section.refuse_variables()?;
        }
        let flag = |name: &str, remarks: &mut Remarks| flag(section.as_ref()?.get(name)?, remarks);
        let keep_data = flag("keep_data", remarks).is_some_and(|is_set| is_set);
        if let Some(setting) =
            section.as_ref().and_then(|section| section.get("keep_data")).filter(|_| keep_data)
        {
            let says = "carried over together with `builds-on-existing`: the program must keep or replace the old files, as \
                        pgBackRest does with --delta; if it does not, remove both lines";
            remarks.note(&setting, says);
        }
        let no_leader = flag("no_leader", remarks).is_some_and(|is_set| is_set);
        let no_params = flag("no_params", remarks).is_some_and(|is_set| is_set);
        let no_master = section.as_ref().and_then(|section| section.get("no_master"));
        let is_old = no_master.as_ref().is_some_and(|setting| setting.is_true()) && !no_leader;
        if let Some(setting) = no_master.filter(|_| is_old) {
            let says = "carried over as no_leader; Patroni 4 does not read no_master, and does not use the \
                 method without a leader";
            remarks.note(&setting, says);
        }
        let command = match Command::read(&listed.setting, section.as_ref(), no_params, remarks) {
            Runnable::Program(command) => command,
            Runnable::Understudy => {
                self.is_understudy_without_leader |= no_leader || is_old;
                return Ok(None);
            }
            Runnable::Nothing => return Ok(None),
        };
        let name = self.name_for(&listed.name);
        if name != listed.name {
            let reason = format!(
                "the method is renamed to `{name}`, because a name may have only letters, digits, `_`, `-` and `.`"
            );
            remarks.note(&listed.setting, reason);
        }
        Ok(Some(Method {
            name,
            original: listed.name.clone(),
            line: section.as_ref().map_or(listed.setting.line(), Setting::line),
            keep_data,
            no_leader: no_leader || is_old,
            no_params,
            command,
        }))
    }

    /// Returns a name that Understudy accepts and no other method has.
    fn name_for(&self, original: &str) -> String {
        const LONGEST: usize = 60;
        let base = original.rsplit('/').next().unwrap_or(original);
        let allowed =
            |c: char| if c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.') { c } else { '_' };
        let cleaned: String = base.chars().map(allowed).take(LONGEST).collect();
        let cleaned = match cleaned.trim_start_matches('.') {
            "" => "method",
            // `basebackup` is the name of the method that runs pg_basebackup.
            BASEBACKUP => "basebackup_program",
            other => other,
        };
        let is_taken = |name: &str| self.programs.iter().any(|method| method.name == name);
        let numbered = (2..).map(|number| format!("{cleaned}_{number}"));
        std::iter::once(cleaned.to_owned()).chain(numbered).find(|name| !is_taken(name)).unwrap_or_default()
    }
}

/// Returns whether a flag is true in a Python condition. Adds a remark if that may surprise a person.
fn flag(setting: Setting<'_>, remarks: &mut Remarks) -> Option<bool> {
    let is_true = setting.is_true();
    if is_true && setting.is_quoted_false() {
        let says = "Patroni treats any string as true, even one that says false, so the value is carried over as true: if you mean false, \
                    write false without quotes in both files";
        remarks.note(&setting, says);
    }
    Some(is_true)
}

/// Adds a remark for every section of a method that no list names.
pub(crate) fn note_unlisted(settings: &Settings<'_>, listed: &[&[Listed<'_>]], remarks: &mut Remarks) {
    for setting in settings.all_of_postgresql() {
        let name = setting.name();
        let is_listed = listed.iter().copied().flatten().any(|listed| listed.name == name);
        if !is_listed && name != BASEBACKUP && setting.get("command").is_some() {
            remarks.note(&setting, "no list of methods names this section, so it is left out");
        }
    }
}
