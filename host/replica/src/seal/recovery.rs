//! How the replica will recover: `postgresql.auto.conf` without what a backup may bring along, with what the operator wants. Rules 29 and 30.

use std::io;

use transfer::beneath::{Directory, RelativePath};

use super::configuration::{AUTO, Configuration, Entry, LONGEST};
use super::guc_file::{Line, lines, parse_line, quote};
use super::hazards::without_password;
use super::problem::{During, Findings, Problem, shown};
use super::{EndState, Standby};
use crate::source::Conninfo;

const CHECK: &str = "auto.conf";

/// Settings of another server's recovery: they can end a standby's recovery, bind it to another primary or run commands.
const REMOVED: [&str; 4] =
    ["restore_command", "archive_cleanup_command", "recovery_end_command", "promote_trigger_file"];

/// Settings that end recovery wherever they stand, and what takes their effect away.
const NEUTRALISED: [(&str, &str); 7] = [
    ("recovery_target", ""),
    ("recovery_target_lsn", ""),
    ("recovery_target_name", ""),
    ("recovery_target_time", ""),
    ("recovery_target_timeline", "latest"),
    ("recovery_target_xid", ""),
    ("promote_trigger_file", ""),
];

/// Settings that a method may ask for: none of them runs a command, loads a library, ends recovery or names another server.
const ALLOWED: [(&str, Grammar); 4] = [
    ("hot_standby_feedback", Grammar::Flag),
    ("recovery_min_apply_delay", Grammar::Duration),
    ("recovery_target_timeline", Grammar::Latest),
    ("wal_retrieve_retry_interval", Grammar::Duration),
];

#[derive(Clone, Copy, Debug)]
enum Grammar {
    /// `on`, `off`, `true`, `false`
    Flag,
    /// A whole number, with a unit of time or without.
    Duration,
    /// `latest`
    Latest,
}

impl Grammar {
    fn fits(self, value: &str) -> bool {
        match self {
            Self::Flag => matches!(value, "on" | "off" | "true" | "false"),
            Self::Latest => value == "latest",
            Self::Duration => {
                let unit = value.trim_start_matches(|c: char| c.is_ascii_digit());
                let digits = value.len() - unit.len();
                (1..=9).contains(&digits) && matches!(unit, "" | "us" | "ms" | "s" | "min" | "h" | "d")
            }
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Flag => "`on` or `off`",
            Self::Latest => "`latest`",
            Self::Duration => "a whole number with us, ms, s, min, h or d behind it, or without",
        }
    }
}

/// A setting that a method may not ask for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingRefused {
    /// It is not on the list.
    #[error("`{0}` is not a setting that a method may ask for: {list} are", list = allowed_names())]
    Name(String),
    /// Its value is not of its form.
    #[error("`{value}` is no value that a method may ask for as `{name}`: {expected} is")]
    Value {
        /// The setting.
        name: String,
        /// What was asked.
        value: String,
        /// What may be asked.
        expected: &'static str,
    },
}

fn allowed_names() -> String {
    ALLOWED.map(|(name, _)| format!("`{name}`")).join(", ")
}

/// Whether a method may have this line written into postgresql.auto.conf.
///
/// # Errors
/// Anything that is not on the list, which has only settings that run nothing, load nothing and do not end recovery.
pub fn check_recovery_setting(name: &str, value: &str) -> Result<(), SettingRefused> {
    let Some((_, grammar)) = ALLOWED.iter().find(|(allowed, _)| *allowed == name) else {
        return Err(SettingRefused::Name(shown(name.as_bytes())));
    };
    if !grammar.fits(value) {
        return Err(SettingRefused::Value {
            name: name.to_owned(),
            value: shown(value.as_bytes()),
            expected: grammar.words(),
        });
    }
    Ok(())
}

/// Whether the host removes this line: it stands in postgresql.auto.conf itself and is of another server's recovery.
pub(super) fn is_removed(entry: &Entry) -> bool {
    entry.file == AUTO && is_foreign(&entry.name)
}

fn is_foreign(name: &str) -> bool {
    name.starts_with("recovery_target") || name.starts_with("primary_") || REMOVED.contains(&name)
}

/// What is to be written, as judged.
#[derive(Debug)]
pub(super) struct AutoConf {
    bytes: Vec<u8>,
    mode: u32,
}

/// Puts together the new postgresql.auto.conf; none where the old one stays as it is. Changes nothing.
pub(super) fn judge(
    top: &Directory,
    configuration: &Configuration,
    asked: &[(String, String)],
    end: &EndState,
    findings: &mut Findings,
) -> Result<Option<AutoConf>, Problem> {
    let metadata = top.find(&AUTO).during(CHECK)?;
    let before = if metadata.is_some() { top.read(&AUTO, LONGEST).during(CHECK)? } else { Vec::new() };
    let mut bytes = without_foreign(&before, findings);
    for (name, value) in neutralising(configuration, findings) {
        append(&mut bytes, name, value)?;
    }
    for (name, value) in asked {
        check_recovery_setting(name, value).map_err(|refused| Problem::new(CHECK, refused.to_string()))?;
        append(&mut bytes, name, value)?;
    }
    if let Some(standby) = &end.configure_standby {
        let conninfo = conninfo_of(standby)?;
        findings.done(CHECK, format!("`primary_conninfo` was set to `{}`", without_password(&conninfo)));
        append(&mut bytes, "primary_conninfo", &conninfo)?;
    }
    match (&end.restore_command, &end.configure_standby) {
        (None, _) => {}
        (Some(command), Some(_)) => {
            findings.done(CHECK, "`restore_command` was set to the operator's");
            append(&mut bytes, "restore_command", command)?;
        }
        (Some(command), None) => findings.add(CHECK, not_written(command)),
    }
    let mode = metadata.map_or(0o600, |metadata| metadata.mode & 0o040 | 0o600);
    Ok((bytes != before).then_some(AutoConf { bytes, mode }))
}

/// The lines that stay.
fn without_foreign(before: &[u8], findings: &mut Findings) -> Vec<u8> {
    let mut kept: Vec<&[u8]> = Vec::new();
    for (number, line) in lines(before) {
        match parse_line(line) {
            Line::Setting { name, value } if is_foreign(&name) => {
                let value = match name.as_str() {
                    "primary_conninfo" => without_password(&value),
                    name if name.ends_with("_command") => "(a command)".to_owned(),
                    _ => shown(value.as_bytes()),
                };
                findings.add(
                    CHECK,
                    format!("postgresql.auto.conf line {number} was removed: `{name}` was `{value}`"),
                );
            }
            _ => kept.push(line),
        }
    }
    kept.join(&b'\n')
}

/// Overrides for what stands in files that are not rewritten. In postgresql.auto.conf they come last and count.
fn neutralising(configuration: &Configuration, findings: &mut Findings) -> Vec<(&'static str, &'static str)> {
    let mut overrides = Vec::new();
    for (name, harmless) in NEUTRALISED {
        let elsewhere =
            configuration.entries.iter().rev().find(|entry| entry.name == name && !is_removed(entry));
        if let Some(entry) = elsewhere
            && entry.value.trim() != harmless
        {
            findings.add(
                CHECK,
                format!(
                    "{} sets `{name}` to `{}`, which postgresql.auto.conf now overrides with `{harmless}`: it can end a \
                     standby's recovery",
                    entry.place(),
                    shown(entry.value.as_bytes())
                ),
            );
            overrides.push((name, harmless));
        }
    }
    overrides
}

/// That the operator's command is in effect nowhere, and where it would be; Patroni's configuration is in YAML.
fn not_written(command: &str) -> String {
    let quoted = command.replace('\'', "''");
    format!(
        "`restore_command` was not written, for `configure_standby` is not set: set that, or, under Patroni, add to its \
         configuration, below `postgresql`, `recovery_conf: {{ restore_command: '{quoted}' }}`"
    )
}

/// The connection string of the replica, without secrets.
fn conninfo_of(standby: &Standby) -> Result<String, Problem> {
    let refuse = |why: String| Problem::new("configure_standby", why);
    let mut conninfo = Conninfo::parse(&standby.conninfo).map_err(|error| refuse(error.to_string()))?;
    if let Some(passfile) = &standby.passfile {
        let passfile =
            passfile.to_str().ok_or_else(|| refuse(format!("`{}` is not UTF-8", passfile.display())))?;
        conninfo = conninfo.with("passfile", passfile);
    }
    Ok(conninfo.without_passwords())
}

fn append(bytes: &mut Vec<u8>, name: &str, value: &str) -> Result<(), Problem> {
    let quoted = quote(value).ok_or_else(|| {
        Problem::new(CHECK, format!("the value for `{name}` has a line feed or a NUL character in it"))
    })?;
    if !bytes.is_empty() && !bytes.ends_with(b"\n") {
        bytes.push(b'\n');
    }
    bytes.extend_from_slice(format!("{name} = {quoted}\n").as_bytes());
    Ok(())
}

/// Writes it: the old file or the new one is there, whatever happens.
pub(super) fn carry_out(top: &Directory, auto_conf: Option<&AutoConf>) -> Result<(), Problem> {
    match auto_conf {
        Some(auto_conf) => top.replace(&AUTO, &auto_conf.bytes, auto_conf.mode).during(CHECK),
        None => Ok(()),
    }
}

/// Removes a file if it is there; says whether it was.
pub(super) fn remove(top: &Directory, path: &RelativePath) -> io::Result<bool> {
    match top.remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::configuration::tests::Restored;
    use super::*;

    fn rewritten(
        files: &[(&str, &str)],
        asked: &[(&str, &str)],
        standby: Option<&Standby>,
    ) -> (String, Vec<String>) {
        let restored = Restored::with(files);
        let places = restored.places();
        let asked: Vec<_> = asked.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let mut findings = Findings::default();
        let end = EndState { configure_standby: standby.cloned(), ..EndState::default() };
        let auto_conf = judge(&places.top, &restored.read().unwrap(), &asked, &end, &mut findings).unwrap();
        carry_out(&places.top, auto_conf.as_ref()).unwrap();
        let text = fs::read_to_string(restored.place.path().join("postgresql.auto.conf")).unwrap_or_default();
        (text, findings.into_list().into_iter().map(|finding| finding.message).collect())
    }

    #[test]
    fn rule_30_another_servers_recovery_is_removed_and_the_rest_stays_byte_for_byte() {
        let before = "# Do not edit this file manually!\nwork_mem = '64MB'\nRecovery_Target_Action = promote\n\
            recovery_target = 'immediate'\r\n\tprimary_conninfo='host=x password=hunter2'\nprimary_slot_name = 's'\n\
            restore_command = 'AWS_SECRET=hunter2 fetch'\narchive_cleanup_command = 'x'\nrecovery_end_command = 'x'\n\
            promote_trigger_file = 'x'\n  max_connections =   100 # as before\n";
        let (after, told) = rewritten(&[("postgresql.auto.conf", before)], &[], None);
        assert_eq!(
            after,
            "# Do not edit this file manually!\nwork_mem = '64MB'\n  max_connections =   100 # as before\n"
        );
        assert_eq!(told.len(), 8, "{told:?}");
        assert!(
            told.iter().all(|line| line.contains("was removed") && !line.contains("hunter2")),
            "{told:?}"
        );
    }

    #[test]
    fn a_file_with_nothing_to_change_is_not_rewritten() {
        let restored = Restored::with(&[("postgresql.auto.conf", "work_mem = 1MB")]);
        let places = restored.places();
        let configuration = restored.read().unwrap();
        assert!(
            judge(&places.top, &configuration, &[], &EndState::default(), &mut Findings::default())
                .unwrap()
                .is_none()
        );
        assert_eq!(rewritten(&[], &[], None), (String::new(), vec![]));
    }

    #[test]
    fn rule_30_a_recovery_target_in_another_file_is_overridden() {
        let files = [
            (
                "postgresql.conf",
                "recovery_target_xid = '7'\nrecovery_target_timeline = latest\ninclude 'x.conf'\n",
            ),
            ("x.conf", "promote_trigger_file = '/etc/passwd'\nrecovery_target_action = 'promote'\n"),
            ("postgresql.auto.conf", "a = 1"),
        ];
        let (after, told) = rewritten(&files, &[], None);
        assert_eq!(after, "a = 1\nrecovery_target_xid = ''\npromote_trigger_file = ''\n");
        assert_eq!(told.len(), 2);
    }

    #[test]
    fn rule_29_a_standby_is_told_where_its_primary_is_without_a_password() {
        let standby = Standby {
            conninfo: "host=10.0.0.1 user=replicator password=hunter2".to_owned(),
            passfile: Some("/etc/under study/it's".into()),
        };
        let (after, _) = rewritten(
            &[("postgresql.auto.conf", "primary_conninfo = 'host=foreign'\n")],
            &[],
            Some(&standby),
        );
        assert!(!after.contains("hunter2") && !after.contains("foreign"), "{after}");
        let Line::Setting { name, value } = parse_line(after.trim_end().as_bytes()) else {
            panic!("{after}")
        };
        assert_eq!(name, "primary_conninfo");
        let conninfo = Conninfo::parse(&value).unwrap();
        assert_eq!(conninfo.get("host"), Some("10.0.0.1"));
        assert_eq!(conninfo.get("passfile"), Some("/etc/under study/it's"));
    }

    #[test]
    fn the_operators_restore_command_takes_the_place_of_the_backups() {
        const OURS: &str = "pgbackrest --stanza='main' archive-get %f \"%p\"";
        let restored = Restored::with(&[("postgresql.auto.conf", "restore_command = 'theirs'\n")]);
        let places = restored.places();
        let standby = Standby { conninfo: "host=10.0.0.1".to_owned(), passfile: None };
        let with = |configure_standby| EndState {
            configure_standby,
            restore_command: Some(OURS.to_owned()),
            ..EndState::default()
        };
        let judged = |end: &EndState| {
            let mut findings = Findings::default();
            let auto_conf =
                judge(&places.top, &restored.read().unwrap(), &[], end, &mut findings).unwrap().unwrap();
            (String::from_utf8(auto_conf.bytes).unwrap(), findings.into_list())
        };

        let (text, _) = judged(&with(Some(standby)));
        let line = text.lines().find(|line| line.starts_with("restore_command")).unwrap();
        let Line::Setting { value, .. } = parse_line(line.as_bytes()) else { panic!("{line}") };
        assert_eq!(value, OURS);
        assert!(!text.contains("theirs"), "{text}");

        // Without the setting it is a warning that it is in effect nowhere, with the line for Patroni's configuration.
        let (text, told) = judged(&with(None));
        assert!(!text.contains("restore_command"), "{text}");
        let line = "recovery_conf: { restore_command: 'pgbackrest --stanza=''main'' archive-get %f \"%p\"' }";
        let is_told = |finding: &crate::outcome::Finding| {
            finding.level == crate::Level::Warn && finding.message.contains(line)
        };
        assert!(told.iter().any(is_told), "{told:?}");
    }

    #[test]
    fn a_method_may_ask_only_for_what_runs_nothing() {
        let (after, _) = rewritten(
            &[],
            &[("recovery_min_apply_delay", "5min"), ("recovery_target_timeline", "latest")],
            None,
        );
        assert_eq!(after, "recovery_min_apply_delay = '5min'\nrecovery_target_timeline = 'latest'\n");
        for (name, value) in [
            ("restore_command", "sh"),
            ("RECOVERY_MIN_APPLY_DELAY", "5min"),
            ("recovery_target", "immediate"),
            ("recovery_target_timeline", "7"),
            ("recovery_target_action", "promote"),
            ("shared_preload_libraries", "x"),
            ("primary_conninfo", "host=x"),
            ("recovery_min_apply_delay", "5min'\nrestore_command = 'sh"),
            ("recovery_min_apply_delay", ""),
            ("hot_standby_feedback", "maybe"),
        ] {
            assert!(check_recovery_setting(name, value).is_err(), "{name} = {value}");
            let restored = Restored::with(&[]);
            let asked = [(name.to_owned(), value.to_owned())];
            let places = restored.places();
            assert!(
                judge(
                    &places.top,
                    &Configuration::default(),
                    &asked,
                    &EndState::default(),
                    &mut Findings::default()
                )
                .is_err()
            );
        }
    }
}
