//! Shows remedies as flags of `run`. A remedy is a line of the configuration file, and a person who uses `run` has no such file.

use std::sync::{Arc, Mutex, PoisonError};

use replica::create_replica::Checked;
use replica::event::{Denial, Event};
use replica::{EventSink, Report};
use toml::{Table, Value};

/// An event sink that gives every event to another one, with the remedies as flags.
pub(in crate::command) struct AsFlags {
    events: Arc<dyn EventSink>,
    /// The remedies of the denials so far. The host reports a limited number of denials.
    changed: Mutex<Changed>,
}

impl AsFlags {
    /// Creates a sink that gives every event to `events`.
    pub(in crate::command) fn new(events: Arc<dyn EventSink>) -> Self {
        Self { events, changed: Mutex::default() }
    }
}

impl EventSink for AsFlags {
    fn emit(&self, mut event: Event) {
        let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut event {
            Event::Denied { denial, .. } => changed.denial(denial),
            Event::AttemptEnded { message, remedy, .. } => changed.attempt(message, remedy),
            _ => {}
        }
        drop(changed);
        self.events.emit(event);
    }

    fn takes_calls(&self) -> bool {
        self.events.takes_calls()
    }

    fn redacted(&self, text: &str) -> String {
        self.events.redacted(text)
    }
}

/// The remedies that were changed: each line, and the flags that replace it.
#[derive(Default)]
struct Changed(Vec<(String, String)>);

impl Changed {
    fn denial(&mut self, denial: &mut Denial) {
        self.change(&mut denial.remedy);
    }

    /// Writes the remedy of an attempt as flags, and also every remedy of a denial that its message quotes. Methods quote the answers of
    /// the host, so a line may be there in Rust's notation, too.
    fn attempt(&mut self, message: &mut String, remedy: &mut Option<String>) {
        self.change(remedy);
        for (line, flags) in &self.0 {
            *message = message.replace(line, flags).replace(&line.escape_debug().to_string(), flags);
        }
    }

    fn change(&mut self, remedy: &mut Option<String>) {
        let Some(line) = remedy else { return };
        let Some(flags) = flags(line) else { return };
        let line = std::mem::replace(line, flags.clone());
        if self.0.iter().all(|(known, _)| *known != line) {
            self.0.push((line, flags));
        }
    }
}

/// Writes the remedies of a report as flags.
pub(in crate::command) fn of_report(report: &mut Report) {
    for attempt in &mut report.attempts {
        let mut changed = Changed::default();
        attempt.denials.iter_mut().for_each(|denial| changed.denial(denial));
        changed.attempt(&mut attempt.message, &mut attempt.remedy);
    }
}

/// Writes the remedies of a check as flags.
pub(in crate::command) fn of_check(methods: &mut [Checked]) {
    for error in methods.iter_mut().filter_map(|checked| checked.error.as_mut()) {
        Changed::default().attempt(&mut error.message, &mut error.remedy);
    }
}

/// Returns the flags that do what a line of configuration does, such as `[replica] bin_dir = "/bin"`; `None` if there are none.
fn flags(line: &str) -> Option<String> {
    let (section, setting) = line.split_once("] ")?;
    let document: Table = format!("{section}]\n{setting}\n").parse().ok()?;
    let (section, content) = only(&document)?;
    let flags = match section {
        "replica" => {
            let (key, value) = only(content.as_table()?)?;
            let flag = match key {
                "bin_dir" => "--bin-dir",
                "state_dir" => "--state-dir",
                "user" => "--user",
                _ => return None,
            };
            vec![format!("{flag} {}", quoted(value.as_str()?))]
        }
        "source" => {
            let (key, value) = only(content.as_table()?)?;
            let flag = match key {
                "conninfo" => "--source",
                "passfile" => "--passfile",
                _ => return None,
            };
            vec![format!("{flag} {}", quoted(value.as_str()?))]
        }
        "method" => {
            let (_, method) = only(content.as_table()?)?;
            let (table, content) = only(method.as_table()?)?;
            match table {
                "options" => options(content.as_table()?)?,
                "grants" => grants(content.as_table()?)?,
                _ => return None,
            }
        }
        _ => return None,
    };
    Some(flags.join(" "))
}

/// Returns the only entry of a table; `None` if there is another number of entries.
fn only(table: &Table) -> Option<(&str, &Value)> {
    let mut entries = table.iter();
    let (key, value) = entries.next()?;
    entries.next().is_none().then_some((key.as_str(), value))
}

fn options(options: &Table) -> Option<Vec<String>> {
    let (name, value) = only(options)?;
    let values = match value {
        Value::Array(items) => items.iter().map(scalar).collect::<Option<Vec<_>>>()?,
        value => vec![scalar(value)?],
    };
    Some(values.iter().map(|value| format!("--option {}", pair(name, value))).collect())
}

fn grants(grants: &Table) -> Option<Vec<String>> {
    let (kind, granted) = only(grants)?;
    // The other settings of a store or a key, such as credentials, have no flags.
    let (flag, setting, ignored) = match kind {
        "read" => {
            let directories = granted.as_array()?.iter().map(Value::as_str).collect::<Option<Vec<_>>>()?;
            let flag = |directory: &&str| format!("--read {}", quoted(directory));
            return Some(directories.iter().map(flag).collect());
        }
        "stores" => ("--store", "url", None),
        "keys" => ("--key", "file", Some("stores")),
        _ => return None,
    };
    let (name, granted) = only(granted.as_table()?)?;
    let granted = granted.as_table()?;
    let is_whole = granted.keys().all(|key| key == setting || Some(key.as_str()) == ignored);
    let value = granted.get(setting).filter(|_| is_whole)?.as_str()?;
    Some(vec![format!("{flag} {}", pair(name, value))])
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Float(number) => Some(number.to_string()),
        Value::Boolean(flag) => Some(flag.to_string()),
        Value::Datetime(_) | Value::Array(_) | Value::Table(_) => None,
    }
}

fn pair(name: &str, value: &str) -> String {
    quoted(&format!("{name}={value}"))
}

/// Returns a text as a word of a POSIX shell. A text that only stands for what a person fills in, `<...>`, stays as it is.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-=:,@%+".contains(c);
    let is_blank = text.starts_with('<') && text.ends_with('>');
    match is_blank || (!text.is_empty() && text.chars().all(is_plain)) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_configuration_becomes_the_flags_that_do_the_same() {
        for (line, shown) in [
            ("[method.acme.grants] read = [\"/a\", \"/b c\"]", "--read /a --read '/b c'"),
            (
                "[method.acme.grants] stores.repo = { url = \"file:///mnt/it's\" }",
                "--store 'repo=file:///mnt/it'\\''s'",
            ),
            ("[method.acme.grants] keys.repo = { file = \"/path\" }", "--key repo=/path"),
            ("[method.acme.grants] keys.k = { file = \"/path\", stores = [\"repo\"] }", "--key k=/path"),
            ("[method.acme.options] directory = \"...\"", "--option directory=..."),
            ("[method.acme.options] jobs = 1", "--option jobs=1"),
            ("[method.acme.options] include = [\"a\", \"b\"]", "--option include=a --option include=b"),
            (
                "[replica] bin_dir = \"<the programs of PostgreSQL 15>\"",
                "--bin-dir <the programs of PostgreSQL 15>",
            ),
            ("[source] conninfo = \"host=...\"", "--source host=..."),
        ] {
            assert_eq!(flags(line).as_deref(), Some(shown), "{line}");
        }
    }

    #[test]
    fn a_message_that_quotes_a_remedy_quotes_the_flags() {
        let line = "[method.acme.grants] read = [\"/mnt\"]";
        let mut denial = Denial {
            capability: replica::CapabilityKind::Read,
            what: "/mnt".to_owned(),
            remedy: Some(line.to_owned()),
        };
        let mut changed = Changed::default();
        changed.denial(&mut denial);
        assert_eq!(denial.remedy.as_deref(), Some("--read /mnt"));
        let mut message =
            format!("refused: {:?}; denied: read /mnt, to allow it: {line}", format!("see {line}"));
        changed.attempt(&mut message, &mut None);
        assert_eq!(message, "refused: \"see --read /mnt\"; denied: read /mnt, to allow it: --read /mnt");
    }

    #[test]
    fn a_line_that_no_flag_replaces_stays_a_line() {
        for line in [
            "[method.acme.grants] stores.repo = { url = \"s3://b\", region = \"eu\" }",
            "[method.acme.grants] programs.tool = { path = \"/bin/true\" }",
            "[method.acme] keep_data = false",
            "[replica] tablespaces = { \"/a\" = \"/b\" }",
            "--force, if all of it may be removed",
            "create-slot = true",
        ] {
            assert_eq!(flags(line), None, "{line}");
        }
    }
}
