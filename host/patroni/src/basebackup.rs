//! The section `basebackup`: options of `pg_basebackup`, as a mapping or as a list (`process_user_options` in `patroni/utils.py`).

use crate::Unreadable;
use crate::command::is_secret;
use crate::remarks::Remarks;
use crate::settings::{Setting, Settings};
use crate::yaml::Value;
use crate::{python, shlex};

/// The options for `[method.basebackup]`, and those that belong to `[replica]`.
#[derive(Debug, Default)]
pub(crate) struct Basebackup {
    /// The line of the section; `None` if there is none.
    pub(crate) line: Option<usize>,
    /// Whether the section is a list, in which an option may be repeated.
    pub(crate) is_list: bool,
    pub(crate) options: Vec<(String, Given)>,
    /// `waldir`
    pub(crate) wal_dir: Option<String>,
    /// `tablespace-mapping`: the old and the new path.
    pub(crate) tablespaces: Vec<(String, String)>,
}

/// What an option is set to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Given {
    /// An option without a value.
    Flag,
    Text(String),
    /// A number, as its digits.
    Number(String),
}

/// The options of `pg_basebackup` that Patroni omits after it logged an error (`Bootstrap.basebackup`).
pub const NOT_ALLOWED: [&str; 11] = [
    "pgdata",
    "format",
    "wal-method",
    "xlog-method",
    "gzip",
    "version",
    "dbname",
    "host",
    "port",
    "username",
    "password",
];

/// Further options that Understudy refuses, with the reason.
const REFUSED: [(&str, &str); 5] = [
    ("incremental", "the replica must be complete"),
    ("no-clean", "after a failure, no directory that looks complete may remain"),
    ("no-sync", "the replica must be on disk"),
    ("target", "the replica must be a plain data directory"),
    ("help", "pg_basebackup would print its help and make no backup"),
];

/// Options of `pg_basebackup` that have no value (`long_options` in `pg_basebackup.c`, releases 10 to 18).
const FLAGS: [&str; 10] = [
    "create-slot",
    "write-recovery-conf",
    "no-password",
    "verbose",
    "progress",
    "no-slot",
    "no-verify-checksums",
    "no-estimate-size",
    "no-manifest",
    "manifest-force-encode",
];

/// Options of `pg_basebackup` with a value.
const VALUED: [&str; 10] = [
    "checkpoint",
    "max-rate",
    "slot",
    "tablespace-mapping",
    "compress",
    "label",
    "status-interval",
    "waldir",
    "manifest-checksums",
    "sync-method",
];

impl Basebackup {
    /// Reads the section.
    ///
    /// # Errors
    /// Fails if it is a template.
    pub(crate) fn of(settings: &Settings<'_>, remarks: &mut Remarks) -> Result<Self, Unreadable> {
        let Some(section) = settings.postgresql("basebackup") else { return Ok(Self::default()) };
        section.refuse_variables()?;
        let mut basebackup = Self { line: Some(section.line()), ..Self::default() };
        match section.value.value() {
            Value::Map(_) => {
                for setting in section.settings() {
                    basebackup.take_of_mapping(&setting, remarks);
                }
            }
            Value::List(_) => {
                basebackup.is_list = true;
                for item in section.items() {
                    basebackup.take_of_list(&item, remarks);
                }
            }
            _ if !section.is_true() => basebackup.line = None,
            _ => remarks.note(
                &section,
                "the section is neither a mapping nor a list: Patroni logs an error and ignores it",
            ),
        }
        Ok(basebackup)
    }

    /// Reads a pair of the mapping. Patroni omits values that are false, 0 or empty.
    fn take_of_mapping(&mut self, setting: &Setting<'_>, remarks: &mut Remarks) {
        let name = setting.name();
        if name.is_empty() || !setting.is_true() {
            return;
        }
        match setting.value.value() {
            Value::Text(text) => {
                let text = shlex::unquote(text);
                if FLAGS.contains(&meant(&name)) {
                    let shown =
                        if is_secret("", &text) || name.contains("password") { "..." } else { text.as_str() };
                    let says = format!(
                        "Patroni turns this into --{name}={shown}, which pg_basebackup refuses: carried over as \
                             the flag --{name}"
                    );
                    remarks.note(setting, says);
                    self.take(setting, &name, Given::Flag, remarks);
                } else {
                    self.take(setting, &name, Given::Text(text), remarks);
                }
            }
            Value::Bool(_) | Value::Integer(_) | Value::Float(_) => {
                let given = match (setting.value.value(), python::str(setting.value)) {
                    (Value::Bool(_), _) => Given::Flag,
                    (_, text) => Given::Number(text.unwrap_or_default()),
                };
                remarks.note(
                    setting,
                    "Patroni fails on a value in `basebackup` that is not in quotes; Understudy accepts it",
                );
                self.take(setting, &name, given, remarks);
            }
            _ => remarks.not_carried(setting, "the value is not a string, so Patroni fails on it"),
        }
    }

    /// Reads an item of the list: a flag, `name=value`, or a mapping with one pair.
    fn take_of_list(&mut self, item: &Setting<'_>, remarks: &mut Remarks) {
        const IGNORED: &str = "Patroni logs an error and ignores this: an item must be a string, or a mapping \
             with one pair whose value is a string";
        if let Some(text) = item.value.text() {
            match text.split_once('=') {
                Some((name, value)) => self.take(item, name, Given::Text(value.to_owned()), remarks),
                None => self.take(item, text, Given::Flag, remarks),
            }
            return;
        }
        let pairs = item.settings();
        match &pairs[..] {
            [pair] => match pair.value.text() {
                Some(text) => self.take(pair, &pair.name(), Given::Text(shlex::unquote(text)), remarks),
                None => remarks.note(pair, IGNORED),
            },
            _ => remarks.note(item, IGNORED),
        }
    }

    /// Adds one option with its value.
    fn take(&mut self, setting: &Setting<'_>, name: &str, given: Given, remarks: &mut Remarks) {
        if NOT_ALLOWED.contains(&name) {
            remarks.note(
                setting,
                format!("Patroni does not allow the option `{name}`, logs an error and ignores it"),
            );
            return;
        }
        let option = meant(name);
        if NOT_ALLOWED.contains(&option) {
            let reason = format!(
                "Understudy does not allow the option `{option}`: it sets the replica's directory, format and \
                     source itself"
            );
            remarks.not_carried(setting, reason);
            return;
        }
        if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| *refused == option) {
            remarks.not_carried(setting, format!("Understudy does not allow the option `{option}`: {why}"));
            return;
        }
        if matches!(&given, Given::Text(text) if is_secret(name, text)) {
            remarks.not_carried(setting, "the value looks like a secret, which the configuration would show");
            return;
        }
        match (option, &given) {
            ("waldir", Given::Text(path)) => {
                if !path.starts_with('/') {
                    remarks.not_carried(setting, "the path of the WAL directory must be absolute");
                } else if self.wal_dir.as_ref().is_some_and(|other| other != path) {
                    remarks.not_carried(setting, "`waldir` is set twice, to different values");
                } else {
                    remarks.note(
                        setting,
                        "carried over as wal_dir below [replica], which applies to every method",
                    );
                    self.wal_dir = Some(path.clone());
                }
            }
            ("tablespace-mapping", Given::Text(mapping)) => match split_mapping(mapping) {
                Some((old, new)) if old.starts_with('/') && new.starts_with('/') => {
                    remarks.note(
                        setting,
                        "carried over as tablespaces below [replica], which applies to every method",
                    );
                    self.tablespaces.retain(|(known, _)| *known != old);
                    self.tablespaces.push((old, new));
                }
                _ => remarks.not_carried(setting, "the value does not have the form /OLD=/NEW"),
            },
            ("compress", Given::Text(method)) if !method.starts_with("server-") => {
                let reason = "compression by the client has no effect here from PostgreSQL 15 on and is an error in earlier \
                              releases, in Patroni and in Understudy: write server-gzip, server-lz4 or server-zstd";
                remarks.note(setting, reason);
            }
            _ => {
                if !self.is_list {
                    self.options.retain(|(known, _)| known != name);
                }
                self.options.push((name.to_owned(), given));
            }
        }
    }
}

/// Returns the option for an abbreviation that pg_basebackup accepts. Returns the text itself if it matches no option or several.
fn meant(name: &str) -> &str {
    let known = || {
        let refused = REFUSED.iter().map(|(name, _)| *name);
        NOT_ALLOWED.iter().chain(&FLAGS).chain(&VALUED).copied().chain(refused)
    };
    if known().any(|known| known == name) {
        return name;
    }
    let mut begun = known().filter(|known| known.starts_with(name));
    match (begun.next(), begun.next()) {
        (Some(only), None) => only,
        _ => name,
    }
}

/// Splits `OLD=NEW` at the first equals sign that has no backslash before it (`tablespace_list_append` in `pg_basebackup.c`).
fn split_mapping(mapping: &str) -> Option<(String, String)> {
    let mut parts = vec![String::new()];
    let mut characters = mapping.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\\' if characters.peek() == Some(&'=') => {
                characters.next();
                parts.last_mut()?.push('=');
            }
            '=' => parts.push(String::new()),
            other => parts.last_mut()?.push(other),
        }
    }
    let [old, new] = <[String; 2]>::try_from(parts).ok()?;
    Some((old, new))
}
