//! Parses values of settings as PostgreSQL does.

use std::collections::BTreeSet;

use foundation::shell;

use crate::seal::guc::Values;
use crate::seal::problem::shown;
use crate::seal::required_settings::whole_number;
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

/// Returns the parts of a value of any syntax, each of which may be a path: `a=/x:/y` names two.
pub(super) fn parts(value: &str) -> impl Iterator<Item = &str> {
    let ends = |c: char| SPACE.contains(&c) || matches!(c, ',' | ';' | '=' | ':' | '"' | '\'');
    value.split(ends)
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

/// Returns whether a setting has one of these values. A value that PostgreSQL cannot read is not one of them, except
/// with `NoneOf` and `SomeClass`, which accept any other word.
pub(super) fn has(values: Values, value: &str) -> bool {
    let is_word = |words: &[&str]| words.contains(&value.trim_matches(SPACE).to_ascii_lowercase().as_str());
    let is_time = |least, most| milliseconds(value).is_some_and(|time: i64| (least..=most).contains(&time));
    match values {
        Values::Flag(flag) => boolean(value) == Some(flag),
        Values::OneOf(words) => is_word(words),
        Values::NoneOf(words) => !is_word(words),
        Values::SomeClass => some_class_is_left(value),
        Values::AtLeast(least) => whole_number(value).is_some_and(|number| number >= least),
        Values::Milliseconds(least, most) => is_time(least, most),
        Values::ZeroOrMilliseconds(least, most) => is_time(0, 0) || is_time(least, most),
    }
}

/// Returns whether a class is left in a list in which `-` before a class takes the class away, and `-all` takes all away
/// (`check_pgaudit_log` in `pgaudit.c`).
fn some_class_is_left(list: &str) -> bool {
    let mut left = BTreeSet::new();
    for class in elements(list).map(str::to_ascii_lowercase) {
        match class.strip_prefix('-') {
            Some("all") => left.clear(),
            Some(taken_away) => _ = left.remove(taken_away),
            None if class.is_empty() || class == "none" => {}
            None => _ = left.insert(class),
        }
    }
    !left.is_empty()
}

/// Parses the value of a time that PostgreSQL counts in milliseconds, as `parse_int` in `guc.c` does; `None` if that would fail.
pub(in crate::seal) fn milliseconds(value: &str) -> Option<i64> {
    let value = value.trim_matches(SPACE);
    let digits = value.trim_start_matches(['+', '-']).to_ascii_lowercase();
    let is_hexadecimal = digits.starts_with("0x");
    let of_number = |c: char| match is_hexadecimal {
        true => c.is_ascii_hexdigit() || matches!(c, '+' | '-' | 'x' | 'X'),
        false => c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E'),
    };
    let (number, unit) = value.split_at(value.find(|c| !of_number(c)).unwrap_or(value.len()));
    let has_fraction = !is_hexadecimal && number.contains(['.', 'e', 'E']);
    let number = if has_fraction { number.parse().ok()? } else { whole_number(number)? as f64 };
    let factor = match unit.trim_matches(SPACE) {
        "us" => 0.001,
        "" | "ms" => 1.0,
        "s" => 1000.0,
        "min" => 60_000.0,
        "h" => 3_600_000.0,
        "d" => 86_400_000.0,
        _ => return None,
    };
    let milliseconds: f64 = number * factor;
    milliseconds.is_finite().then_some(milliseconds.round_ties_even() as i64)
}

/// The units of PostgreSQL (`memory_unit_conversion_table` and `time_unit_conversion_table` in `guc.c`), and none.
const UNITS: [&str; 12] = ["", "B", "kB", "MB", "GB", "TB", "us", "ms", "s", "min", "h", "d"];

/// Returns whether a value is a switch, or a number with or without a unit, and so names nothing.
pub(super) fn is_switch_or_number(value: &str) -> bool {
    let value = value.trim_matches(SPACE);
    let unsigned = value.strip_prefix(['+', '-']).unwrap_or(value);
    let unit = unsigned.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number = unsigned.strip_suffix(unit).unwrap_or_default();
    let is_number = number.starts_with(|c: char| c.is_ascii_digit()) && number.parse::<f64>().is_ok();
    is_number && UNITS.contains(&unit.trim_start_matches(SPACE)) || boolean(value).is_some()
}

/// Returns what makes a connection string of a backup dangerous, whatever server it names: libpq would read or write files that the backup
/// names, or load code. `None` if nothing does.
pub(super) fn hazard_of_connection(conninfo: &str) -> Option<String> {
    let Ok(conninfo) = Conninfo::parse(conninfo) else {
        return Some("cannot be read".to_owned());
    };
    // `initialize_SSL` in libpq's `fe-secure-openssl.c`.
    if conninfo.get("sslkey").is_some_and(|key| key.contains(':')) {
        return Some("makes libpq load an engine of OpenSSL, which is code (`sslkey`)".to_owned());
    }
    let services = ["service", "servicefile"].into_iter().filter(|keyword| conninfo.get(keyword).is_some());
    let keywords: Vec<_> = conninfo.paths().map(|(keyword, _)| keyword).chain(services).collect();
    let list = keywords.iter().map(|keyword| format!("`{keyword}`")).collect::<Vec<_>>().join(", ");
    (!keywords.is_empty()).then(|| format!("makes libpq use files that the backup names ({list})"))
}

/// Returns the value of a setting for a message, without secrets.
pub(in crate::seal) fn displayed(name: &str, value: &str) -> String {
    match name {
        "primary_conninfo" => without_password(value),
        name if name.ends_with("_command") && !value.is_empty() => "(a command)".to_owned(),
        _ => shown(value.as_bytes()),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_number_with_a_unit_of_postgresql_names_nothing() {
        for value in ["0", "-1", "+7", "1.5", "64kB", "1 GB", "10s", "5 min", "100us", "7d", "on", "f", " 3 "]
        {
            assert!(is_switch_or_number(value), "{value:?}");
        }
        for value in
            ["-g", "-X", "-rf", "-Wl", "1x", "9so", "10.0.0.1", "--1", "-", "", "1kb", "kB", ".", "7.so"]
        {
            assert!(!is_switch_or_number(value), "{value:?}");
        }
    }

    #[test]
    fn a_list_of_classes_is_empty_if_all_of_them_are_taken_away() {
        for list in
            ["", "none", "-all", "-ALL", "all, -all", "read, write, -all", "read, -read", "none, -ddl"]
        {
            assert!(!has(Values::SomeClass, list), "{list}");
        }
        for list in ["all", "read", "-all, read", "all, -read", "write, ddl"] {
            assert!(has(Values::SomeClass, list), "{list}");
        }
    }

    #[test]
    fn a_time_is_read_as_postgresql_reads_it() {
        for (value, expected) in [
            ("0", Some(0)),
            (" 5 min ", Some(300_000)),
            ("1.5s", Some(1500)),
            ("1e3", Some(1000)),
            ("0x10", Some(16)),
            ("0x1d", Some(29)),
            ("010s", Some(8000)),
            ("1d", Some(86_400_000)),
            ("-1", Some(-1)),
            ("499us", Some(0)),
            ("1week", None),
            ("1 S", None),
            ("min", None),
            ("", None),
            ("089", None),
        ] {
            assert_eq!(milliseconds(value), expected, "{value:?}");
        }
    }
}
