//! Values of settings, read as PostgreSQL reads them.

use foundation::rooted::RelativePath;

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
pub(super) fn library_directories<'a>(setting: &str, value: &'a str) -> impl Iterator<Item = &'a str> {
    // The path of extensions has a word for its own that only stands alone (`get_extension_control_directories` in `extension.c`).
    let of_extensions = setting == "extension_control_path";
    value.split(':').map(|directory| directory.trim_matches(SPACE)).filter(move |directory| {
        let own = match directory.strip_prefix("$libdir") {
            _ if of_extensions => *directory == "$system",
            Some(below) => below.is_empty() || below.starts_with('/'),
            None => false,
        };
        !directory.is_empty() && (!own || directory.contains(".."))
    })
}

/// What may stand behind `%` in a name pattern of log files (`strftime.c`): all but dates that have slashes (`%D`, `%x`), the name of the
/// time zone (`%Z`, `%+`), which `log_timezone` makes up (`</>0` is one of the name `/`), and what only leads to these (`%E`, `%O`).
const IN_LOG_NAMES: &[u8] = b"ABCFGHIMRSTUVWXYabdeghjklmpruvwyz%";

/// How many bytes such a pattern may have: none of these makes more than six of one.
const LONGEST_LOG_NAME: usize = 64;

/// Whether a name pattern of log files stays in the log's directory.
pub(super) fn is_file_name(pattern: &str) -> bool {
    let mut bytes = pattern.bytes();
    while let Some(byte) = bytes.next() {
        let stays = match byte {
            b'%' => bytes.next().is_some_and(|conversion| IN_LOG_NAMES.contains(&conversion)),
            _ => !matches!(byte, b'/' | b'\\'),
        };
        if !stays {
            return false;
        }
    }
    (1..=LONGEST_LOG_NAME).contains(&pattern.len()) && !matches!(pattern, "." | "..")
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

/// Whether a length of time is none, with whatever unit.
pub(super) fn is_no_time(value: &str) -> bool {
    const UNITS: [&str; 7] = ["", "us", "ms", "s", "min", "h", "d"];
    value.trim_matches(SPACE).strip_prefix('0').is_some_and(|unit| UNITS.contains(&unit.trim_matches(SPACE)))
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
