//! Parses values of settings as PostgreSQL does.

use foundation::rooted::RelativePath;
use foundation::shell;

use crate::seal::problem::shown;
use crate::source::Conninfo;

/// The white space in a list for PostgreSQL (`scanner_isspace`).
pub(in crate::seal) const SPACE: [char; 6] = [' ', '\t', '\n', '\r', '\x0b', '\x0c'];

/// PostgreSQL's own libraries that are the default values of settings.
const OWN_LIBRARIES: [(&str, &[&str]); 2] =
    [("jit_provider", &["llvmjit"]), ("output_plugin_libraries", &["pgoutput", "test_decoding"])];

/// Returns the parts of a value, each of which may be a path.
pub(super) fn elements(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(|element| element.trim_matches(SPACE).trim_matches('"'))
}

/// Returns whether a text is an absolute path or one with `..`. Any other relative path stays in the data directory.
pub(super) fn is_path(text: &str) -> bool {
    text.starts_with('/') || text.split('/').any(|component| component == "..")
}

pub(super) fn only_own_libraries(setting: &str, value: &str) -> bool {
    let own = OWN_LIBRARIES.iter().find(|(name, _)| *name == setting).map_or(&[][..], |(_, own)| own);
    elements(value).all(|library| own.contains(&library))
}

/// Returns the directories of a search path that are not the server's own. Directories in the data directory are returned too, because a
/// backup may contain a library.
pub(super) fn library_directories<'a>(setting: &str, value: &'a str) -> impl Iterator<Item = &'a str> {
    // In `extension_control_path`, `$system` is the server's own directory, only as a whole element (`get_extension_control_directories` in
    // `extension.c`).
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

/// The conversions that are allowed after `%` in `log_filename` (`strftime.c`): all except dates with slashes (`%D`, `%x`), the name of the
/// time zone (`%Z`, `%+`), which `log_timezone` can set to anything (`</>0` is a time zone with the name `/`), and modifiers (`%E`, `%O`).
const IN_LOG_NAMES: &[u8] = b"ABCFGHIMRSTUVWXYabdeghjklmpruvwyz%";

/// The longest `log_filename`, in bytes. No conversion expands to more than six bytes for each byte of the pattern.
const LONGEST_LOG_NAME: usize = 64;

/// Returns whether every file name that the pattern `log_filename` gives stays in the log directory.
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

/// Returns whether logs may be written to a directory below the data directory, because it is not one of PostgreSQL's own directories.
pub(super) fn has_room_for_logs(path: &RelativePath) -> bool {
    let first =
        path.as_path().components().next().map(|first| first.as_os_str().to_string_lossy().into_owned());
    match first.as_deref() {
        None | Some("base" | "global") => false,
        Some(first) => !first.starts_with("pg_") || first.starts_with("pg_log") && first != "pg_logical",
    }
}

/// Parses a boolean as PostgreSQL does (`parse_bool`): the words, or an unambiguous prefix of a word.
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

/// Returns whether a time is zero, in any unit.
pub(super) fn is_zero_time(value: &str) -> bool {
    const UNITS: [&str; 7] = ["", "us", "ms", "s", "min", "h", "d"];
    value.trim_matches(SPACE).strip_prefix('0').is_some_and(|unit| UNITS.contains(&unit.trim_matches(SPACE)))
}

/// Returns a connection string without its secrets, for a message.
pub(in crate::seal) fn without_password(conninfo: &str) -> String {
    match Conninfo::parse(conninfo) {
        Ok(conninfo) => shown(conninfo.without_passwords().as_bytes()),
        Err(_) => "(not a connection string that can be shown)".to_owned(),
    }
}

/// Returns the program of a shell command, for a message. The text before and after the program may contain a secret.
pub(super) fn program(command: &str) -> String {
    if command.trim().is_empty() {
        return "(a command of blanks)".to_owned();
    }
    match shell::program(command) {
        Some(program) => format!("{} ...", shown(program.as_bytes())),
        None => "(a command whose program is not clear)".to_owned(),
    }
}
