//! Values of settings, read as PostgreSQL reads them.

use transfer::beneath::RelativePath;

use crate::seal::problem::shown;
use crate::source::Conninfo;

/// What PostgreSQL takes for space in a list (`scanner_isspace`).
pub(in crate::seal) const SPACE: [char; 6] = [' ', '\t', '\n', '\r', '\x0b', '\x0c'];

/// The libraries that PostgreSQL itself brings for a setting, and that it names where nothing sets it.
const OWN_LIBRARIES: [(&str, &[&str]); 2] =
    [("jit_provider", &["llvmjit"]), ("output_plugin_libraries", &["pgoutput", "test_decoding"])];

/// The parts of a value that may be a path each.
pub(super) fn elements(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(|element| element.trim_matches(SPACE).trim_matches('"'))
}

/// Whether text leads somewhere: absolute, or upwards. A relative path stays in the data directory.
pub(super) fn is_path(text: &str) -> bool {
    text.starts_with('/') || text.split('/').any(|component| component == "..")
}

pub(super) fn only_own_libraries(setting: &str, value: &str) -> bool {
    let own = OWN_LIBRARIES.iter().find(|(name, _)| *name == setting).map_or(&[][..], |(_, own)| own);
    elements(value).all(|library| own.contains(&library))
}

/// The directories of a search path that are not the server's own: a planted library lies in the data directory as well as elsewhere.
pub(super) fn library_directories(value: &str) -> impl Iterator<Item = &str> {
    value.split(':').map(|directory| directory.trim_matches(SPACE)).filter(|directory| {
        let own = ["$libdir", "$system"].iter().any(|own| {
            directory.strip_prefix(own).is_some_and(|below| below.is_empty() || below.starts_with('/'))
        });
        !directory.is_empty() && (!own || directory.contains(".."))
    })
}

/// Whether a name pattern of log files stays in the log's directory. `%D` is a date with slashes.
pub(super) fn is_file_name(pattern: &str) -> bool {
    !pattern.is_empty()
        && !pattern.contains(['/', '\\'])
        && !pattern.contains("%D")
        && !matches!(pattern, "." | "..")
}

pub(super) fn has_room_for_logs(path: &RelativePath) -> bool {
    let first =
        path.as_path().components().next().map(|first| first.as_os_str().to_string_lossy().into_owned());
    match first.as_deref() {
        None | Some("base" | "global") => false,
        Some(first) => !first.starts_with("pg_") || first.starts_with("pg_log") && first != "pg_logical",
    }
}

/// A switch as PostgreSQL reads it (`parse_bool`): the words, or as much of them as is clear.
pub(super) fn boolean(value: &str) -> Option<bool> {
    let value = value.to_ascii_lowercase();
    let begins = |word: &str, least: usize| value.len() >= least && word.starts_with(&value);
    if value == "1" || begins("on", 2) || begins("true", 1) || begins("yes", 1) {
        Some(true)
    } else if value == "0" || begins("off", 2) || begins("false", 1) || begins("no", 1) {
        Some(false)
    } else {
        None
    }
}

/// A connection string as a person may see it.
pub(in crate::seal) fn without_password(conninfo: &str) -> String {
    match Conninfo::parse(conninfo) {
        Ok(conninfo) => shown(conninfo.without_passwords().as_bytes()),
        Err(_) => "(not a connection string that can be shown)".to_owned(),
    }
}

/// The program of a shell command. What comes before and behind it may hold a secret.
pub(super) fn program(command: &str) -> String {
    let is_assignment = |word: &&str| {
        word.split_once('=')
            .is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
    };
    if command.trim().is_empty() {
        return "(a command of blanks)".to_owned();
    }
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
