//! What the restored configuration will have the server run, load or read elsewhere. Whoever supplied the data wrote it; the report lists
//! it, and `config = "refuse-commands"` refuses it. Secrets are not shown: of a command only its program.

use std::path::Path;

use super::configuration::{Configuration, Entry, Leads, leads};
use super::places::Places;
use super::problem::{Findings, Problem, shown};
use super::recovery;
use crate::source::Conninfo;

const CHECK: &str = "configuration";

/// The library of `jit_provider` that PostgreSQL itself brings.
const OWN_JIT_PROVIDER: &str = "llvmjit";

/// Tells of every hazard, or refuses the first where the operator wants none.
pub(super) fn check(
    places: &Places<'_>,
    configuration: &Configuration,
    refuse: bool,
    findings: &mut Findings,
) -> Result<(), Problem> {
    for entry in configuration.entries.iter().filter(|entry| !recovery::is_removed(entry)) {
        if let Some(hazard) = hazard(places, entry) {
            if refuse {
                let message = format!("{hazard}, and `config = \"refuse-commands\"` refuses that");
                return Err(Problem::new(CHECK, message));
            }
            findings.add(CHECK, hazard);
        } else if let Some(told) = told(entry) {
            findings.add(CHECK, told);
        }
    }
    Ok(())
}

fn hazard(places: &Places<'_>, entry: &Entry) -> Option<String> {
    let (name, value, place) = (entry.name.as_str(), entry.value.trim(), entry.place());
    if value.is_empty() {
        return None;
    }
    let what = if entry.is_include() {
        match inside(places, entry, value) {
            true => format!("`{name}` includes `{}`", shown(value.as_bytes())),
            false => format!(
                "`{name}` includes `{}`, which was not read: it lies outside the data directory",
                shown(value.as_bytes())
            ),
        }
    } else if name.ends_with("_command") {
        format!("`{name}` runs `{}`", program(value))
    } else if loads_a_library(name) && value != OWN_JIT_PROVIDER {
        format!("`{name}` loads `{}`", shown(value.as_bytes()))
    } else {
        let outside =
            elements(name, value).find(|element| is_path(element) && !inside(places, entry, element))?;
        format!("`{name}` leads out of the data directory, to `{}`", shown(outside.as_bytes()))
    };
    Some(format!("{place}: {what}"))
}

fn loads_a_library(setting: &str) -> bool {
    setting.ends_with("_library") || setting.ends_with("_libraries") || setting == "jit_provider"
}

/// What is worth telling although it runs nothing: settings of another replica that stay.
fn told(entry: &Entry) -> Option<String> {
    if entry.value.trim().is_empty() {
        return None;
    }
    let value = match entry.name.as_str() {
        "primary_conninfo" => without_password(&entry.value),
        "primary_slot_name" => shown(entry.value.as_bytes()),
        _ => return None,
    };
    Some(format!("{}: `{}` is `{value}`", entry.place(), entry.name))
}

/// A connection string as a person may see it.
pub(super) fn without_password(conninfo: &str) -> String {
    match Conninfo::parse(conninfo) {
        Ok(conninfo) => shown(conninfo.without_passwords().as_bytes()),
        Err(_) => "(not a connection string that can be shown)".to_owned(),
    }
}

/// The parts of a value that may be a path each. Lists are separated by commas, search paths by colons.
fn elements<'a>(name: &str, value: &'a str) -> impl Iterator<Item = &'a str> {
    let search_path = name.ends_with("_path");
    value
        .split(move |c: char| c == ',' || search_path && c == ':')
        .map(|element| element.trim().trim_matches('"'))
        // `$libdir/x` is PostgreSQL's own directory.
        .filter(|element| !element.starts_with("$libdir") || element.contains(".."))
}

/// Whether text leads somewhere: absolute, or upwards. A relative path stays in the data directory.
fn is_path(text: &str) -> bool {
    text.starts_with('/') || text.split('/').any(|component| component == "..")
}

/// Whether a path stays in the data directory. Settings are relative to it, includes to the file they stand in.
fn inside(places: &Places<'_>, entry: &Entry, path: &str) -> bool {
    let from = entry.file.parent().filter(|_| entry.is_include());
    matches!(leads(places, from.as_ref().map(|from| from.as_path()), Path::new(path)), Leads::Inside(_))
}

/// The program of a shell command. What comes before and behind it may hold a secret.
fn program(command: &str) -> String {
    let is_assignment = |word: &&str| {
        word.split_once('=')
            .is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
    };
    match command.split_whitespace().find(|word| !is_assignment(word)) {
        // A value with a space in it would make the rest of a secret look like the program.
        Some(_)
            if command
                .split_whitespace()
                .take_while(is_assignment)
                .any(|word| word.contains(['\'', '"', '\\'])) =>
        {
            "(a command that sets variables)".to_owned()
        }
        Some(program) => format!("{} ...", shown(program.as_bytes())),
        None => "(a command that sets variables)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::configuration::tests::Restored;
    use super::*;

    fn told_of(files: &[(&str, &str)]) -> Vec<String> {
        let restored = Restored::with(files);
        let mut findings = Findings::default();
        check(&restored.places(), &restored.read().unwrap(), false, &mut findings).unwrap();
        findings.into_list().into_iter().map(|finding| finding.message).collect()
    }

    #[test]
    fn rule_30_what_the_server_will_run_load_or_read_elsewhere_is_listed_with_its_line() {
        for (line, expected) in [
            ("archive_command = 'wal-g wal-push %p'", "`archive_command` runs `wal-g ...`"),
            ("restore_command = 'AWS_SECRET=x wal-g wal-fetch'", "`restore_command` runs `wal-g ...`"),
            (
                "ssl_passphrase_command = 'P=\"a secret\" echo'",
                "`ssl_passphrase_command` runs `(a command that sets variables)`",
            ),
            ("archive_library = basic_archive", "`archive_library` loads `basic_archive`"),
            ("shared_preload_libraries = 'a, b'", "`shared_preload_libraries` loads `a, b`"),
            ("jit_provider = 'evil'", "`jit_provider` loads `evil`"),
            (
                "include_if_exists '/etc/x.conf'",
                "`include_if_exists` includes `/etc/x.conf`, which was not read: it lies outside the data directory",
            ),
            ("include_if_exists 'x.conf'", "`include_if_exists` includes `x.conf`"),
            (
                "data_directory = '/elsewhere'",
                "`data_directory` leads out of the data directory, to `/elsewhere`",
            ),
            (
                "hba_file = '../pg_hba.conf'",
                "`hba_file` leads out of the data directory, to `../pg_hba.conf`",
            ),
            (
                "unix_socket_directories = 'sockets, /tmp'",
                "`unix_socket_directories` leads out of the data directory, to `/tmp`",
            ),
            (
                "dynamic_library_path = '$libdir:/tmp/evil'",
                "`dynamic_library_path` leads out of the data directory, to `/tmp/evil`",
            ),
            ("primary_slot_name = 'other'", "`primary_slot_name` is `other`"),
        ] {
            let told = told_of(&[("postgresql.conf", &format!("\n{line}\n"))]);
            assert_eq!(told, [format!("postgresql.conf line 2: {expected}")], "{line}");
        }
    }

    #[test]
    fn harmless_settings_are_not_listed() {
        let harmless = "archive_command = ''\nshared_preload_libraries = ''\njit_provider = 'llvmjit'\nlog_directory = 'log'\n\
            dynamic_library_path = '$libdir'\nmax_connections = 100\nlisten_addresses = '*'\ndatestyle = 'iso, mdy'\n";
        assert_eq!(told_of(&[("postgresql.conf", harmless)]), Vec::<String>::new());
    }

    #[test]
    fn what_is_removed_from_postgresql_auto_conf_is_no_hazard() {
        assert!(told_of(&[("postgresql.auto.conf", "restore_command = 'x'\n")]).is_empty());
    }

    #[test]
    fn a_password_in_primary_conninfo_is_never_shown() {
        for conninfo in ["host=a password=hunter2", "postgresql://u:hunter2@a/", "host=a pass word=hunter2"] {
            let told = told_of(&[("postgresql.conf", &format!("primary_conninfo = '{conninfo}'"))]).join("");
            assert!(told.contains("primary_conninfo") && !told.contains("hunter2"), "{told}");
        }
    }

    #[test]
    fn rule_30_refuse_commands_refuses_each_of_them() {
        for line in
            ["archive_command = 'x'", "archive_library = 'x'", "include_if_exists 'x'", "hba_file = '/etc/x'"]
        {
            let restored = Restored::with(&[("postgresql.conf", line)]);
            let configuration = restored.read().unwrap();
            let refused = check(&restored.places(), &configuration, true, &mut Findings::default());
            assert!(refused.unwrap_err().message.contains("refuse-commands"), "{line}");
        }
        let restored = Restored::with(&[("postgresql.conf", "max_connections = 100\n")]);
        assert!(check(&restored.places(), &restored.read().unwrap(), true, &mut Findings::default()).is_ok());
    }
}
