//! Writes `postgresql.auto.conf`: removes the recovery settings that came with the backup, and adds the operator's. Loop rules 29 and
//! 30.

use std::io;

use foundation::rooted::{Directory, RelativePath};
use postgres_formats::configuration::{Line, lines, parse_line, quote};

use super::configuration::{AUTO, Entry, LONGEST};
use super::guc::{self, Class};
use super::judged_settings::{displayed, without_password};
use super::overrides::Overrides;
use super::problem::{During, Findings, Problem};
use super::{EndState, Standby};
use crate::Rule;
use crate::source::Conninfo;

const CHECK: Rule = Rule::AutoConf;

/// Returns whether the host removes this entry: it is in postgresql.auto.conf itself and belongs to another server's recovery.
pub(super) fn is_removed(entry: &Entry) -> bool {
    entry.file == AUTO && is_foreign(&entry.name)
}

/// Returns whether a setting belongs to another server's recovery: it can end a standby's recovery, make it follow another primary or run
/// commands. The prefixes cover settings of newer versions.
fn is_foreign(name: &str) -> bool {
    let by_class = guc::setting(name).is_some_and(|setting| {
        matches!(
            setting.class,
            Class::EndsRecovery(_) | Class::OfAnotherServer | Class::RecoveryCommand | Class::Follows
        )
    });
    by_class || name.starts_with("recovery_target") || name.starts_with("primary_")
}

/// The new content and mode of postgresql.auto.conf.
#[derive(Debug)]
pub(super) struct AutoConf {
    bytes: Vec<u8>,
    mode: u32,
}

impl AutoConf {
    /// Reads the file; returns empty content if the file does not exist.
    fn read(top: &Directory) -> Result<Self, Problem> {
        let metadata = top.find(&AUTO).during(CHECK)?;
        let bytes = if metadata.is_some() { top.read(&AUTO, LONGEST).during(CHECK)? } else { Vec::new() };
        Ok(Self { bytes, mode: metadata.map_or(0o600, |metadata| metadata.mode & 0o040 | 0o600) })
    }
}

/// Returns the new postgresql.auto.conf; `None` if the old file needs no change. Changes nothing.
pub(super) fn judge(
    top: &Directory,
    overrides: &Overrides,
    requested: &[(String, String)],
    end: &EndState,
    findings: &mut Findings,
) -> Result<Option<AutoConf>, Problem> {
    let AutoConf { bytes: before, mode } = AutoConf::read(top)?;
    let mut bytes = without_foreign(&before, overrides, findings);
    for (name, value) in &overrides.values {
        append(&mut bytes, name, value)?;
    }
    for (name, value) in requested {
        append(&mut bytes, name, value)?;
    }
    if let Some(standby) = &end.configure_standby {
        let conninfo = conninfo_of(standby)?;
        findings.add_info(CHECK, format!("`primary_conninfo` was set to `{}`", without_password(&conninfo)));
        append(&mut bytes, "primary_conninfo", &conninfo)?;
    }
    match (&end.restore_command, &end.configure_standby) {
        (None, _) => {}
        (Some(command), Some(_)) => {
            findings.add_info(CHECK, "`restore_command` was set to the command in the configuration");
            append(&mut bytes, "restore_command", command)?;
        }
        (Some(command), None) => findings.add(CHECK, not_written(command)),
    }
    Ok((bytes != before).then_some(AutoConf { bytes, mode }))
}

/// Returns the lines that stay.
fn without_foreign(before: &[u8], overrides: &Overrides, findings: &mut Findings) -> Vec<u8> {
    let mut kept: Vec<&[u8]> = Vec::new();
    for (number, line) in lines(before).filter(|(number, _)| !overrides.removed.contains(number)) {
        match parse_line(line) {
            Line::Setting { name, value } if is_foreign(&name) => {
                let value = displayed(&name, &value);
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

/// Returns the finding that the operator's command was not written, with the settings that would write it; the settings for Patroni are in
/// YAML.
fn not_written(command: &str) -> String {
    let quoted = command.replace('\'', "''");
    format!(
        "`restore_command` was not written, because `configure_standby` is not set: set that, or, under Patroni, add to its \
         configuration, below `postgresql`, `recovery_conf: {{ restore_command: '{quoted}' }}`"
    )
}

/// Returns the standby's connection string, without secrets.
fn conninfo_of(standby: &Standby) -> Result<String, Problem> {
    let refuse = |why: String| Problem::new(Rule::ConfigureStandby, why);
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
        Problem::new(CHECK, format!("the value for `{name}` contains a line feed or a NUL character"))
    })?;
    if !bytes.is_empty() && !bytes.ends_with(b"\n") {
        bytes.push(b'\n');
    }
    bytes.extend_from_slice(format!("{name} = {quoted}\n").as_bytes());
    Ok(())
}

/// Writes the file. If this is interrupted, either the old or the new file exists.
pub(super) fn apply(top: &Directory, auto_conf: Option<&AutoConf>) -> Result<(), Problem> {
    match auto_conf {
        Some(auto_conf) => top.replace(&AUTO, &auto_conf.bytes, auto_conf.mode).during(CHECK),
        None => Ok(()),
    }
}

/// Adds settings at the end of the file, where they override every other mention.
pub(super) fn add(top: &Directory, settings: &[(&str, &str)]) -> Result<(), Problem> {
    let mut auto_conf = AutoConf::read(top)?;
    for (name, value) in settings {
        append(&mut auto_conf.bytes, name, value)?;
    }
    apply(top, Some(&auto_conf))
}

/// Removes a file if it exists; returns whether it did.
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
    use super::super::judged_settings;
    use super::*;

    fn rewritten(
        files: &[(&str, &str)],
        requests: &[(&str, &str)],
        standby: Option<&Standby>,
    ) -> (String, Vec<String>) {
        let restored = Restored::with(files);
        let places = restored.places();
        let requested: Vec<_> =
            requests.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let mut findings = Findings::default();
        let end = EndState { configure_standby: standby.cloned(), ..EndState::default() };
        let overrides =
            judged_settings::check(&places, &restored.read().unwrap(), 15, &end, &mut Findings::default())
                .unwrap();
        let auto_conf = judge(&places.top, &overrides, &requested, &end, &mut findings).unwrap();
        apply(&places.top, auto_conf.as_ref()).unwrap();
        let text = fs::read_to_string(restored.place.path().join("postgresql.auto.conf")).unwrap_or_default();
        (text, findings.into_list().into_iter().map(|finding| finding.message).collect())
    }

    #[test]
    fn rule_30_another_servers_recovery_is_removed_and_the_rest_stays_byte_for_byte() {
        let before = "# Do not edit this file manually!\nwork_mem = '64MB'\nRecovery_Target_Action = promote\n\
            recovery_target = 'immediate'\r\n\tprimary_conninfo='host=x password=hunter2'\nprimary_slot_name = 's'\n\
            restore_command = 'AWS_SECRET=hunter2 fetch'\narchive_cleanup_command = 'x'\nrecovery_end_command = 'x'\n\
            promote_trigger_file = 'x'\n  max_connections =   100 # as before\n";
        let (after, reported) = rewritten(&[("postgresql.auto.conf", before)], &[], None);
        assert_eq!(
            after,
            "# Do not edit this file manually!\nwork_mem = '64MB'\n  max_connections =   100 # as before\n"
        );
        assert_eq!(reported.len(), 8, "{reported:?}");
        assert!(
            reported.iter().all(|line| line.contains("was removed") && !line.contains("hunter2")),
            "{reported:?}"
        );
    }

    #[test]
    fn a_file_with_nothing_to_change_is_not_rewritten() {
        let restored = Restored::with(&[("postgresql.auto.conf", "work_mem = 1MB")]);
        let places = restored.places();
        let (overrides, end) = (Overrides::default(), EndState::default());
        let judged = judge(&places.top, &overrides, &[], &end, &mut Findings::default()).unwrap();
        assert!(judged.is_none());
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
        let (after, _) = rewritten(&files, &[], None);
        assert_eq!(after, "a = 1\npromote_trigger_file = ''\nrecovery_target_xid = ''\n");
    }

    #[test]
    fn rule_29_primary_conninfo_is_written_without_a_password() {
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
                judge(&places.top, &Overrides::default(), &[], end, &mut findings).unwrap().unwrap();
            (String::from_utf8(auto_conf.bytes).unwrap(), findings.into_list())
        };

        let (text, _) = judged(&with(Some(standby)));
        let line = text.lines().find(|line| line.starts_with("restore_command")).unwrap();
        let Line::Setting { value, .. } = parse_line(line.as_bytes()) else { panic!("{line}") };
        assert_eq!(value, OURS);
        assert!(!text.contains("theirs"), "{text}");

        // Without `configure_standby` a warning says that the command was not written, with the line for Patroni's configuration.
        let (text, findings) = judged(&with(None));
        assert!(!text.contains("restore_command"), "{text}");
        let line = "recovery_conf: { restore_command: 'pgbackrest --stanza=''main'' archive-get %f \"%p\"' }";
        let is_reported = |finding: &crate::outcome::Finding| {
            finding.level == crate::Level::Warn && finding.message.contains(line)
        };
        assert!(findings.iter().any(is_reported), "{findings:?}");
    }

    #[test]
    fn requested_settings_come_after_the_overrides() {
        let (after, _) = rewritten(
            &[("postgresql.conf", "recovery_target_timeline = '7'\n")],
            &[("recovery_min_apply_delay", "5min"), ("recovery_target_timeline", "latest")],
            None,
        );
        assert_eq!(
            after,
            "recovery_target_timeline = 'latest'\nrecovery_min_apply_delay = '5min'\nrecovery_target_timeline = 'latest'\n"
        );
    }

    #[test]
    fn an_overridden_line_is_removed_from_postgresql_auto_conf() {
        let before =
            "work_mem = '1MB'\nexternal_pid_file = 'promote'\nlog_directory = '.'\nlog_directory = 'log'\n";
        let (after, _) = rewritten(&[("postgresql.auto.conf", before)], &[], None);
        assert_eq!(after, "work_mem = '1MB'\nlog_directory = 'log'\n");
    }
}
