//! Settings that a hot standby must not have below its primary's: PostgreSQL does not start then, or stops replaying
//! (`CheckRequiredParameterValues` in `xlogrecovery.c`).

use postgres_formats::control_file::RequiredSettings;

use super::configuration::Configuration;
use super::problem::{Problem, shown};

use crate::Rule;

const CHECK: Rule = Rule::Settings;

/// A setting, its default, and its value on the primary, which is the least value that the standby may have.
struct Required {
    name: &'static str,
    default: i64,
    primary: u32,
}

fn required(primary: &RequiredSettings) -> [Required; 5] {
    let setting = |name, default, primary| Required { name, default, primary };
    [
        setting("max_connections", 100, primary.max_connections),
        setting("max_worker_processes", 8, primary.max_worker_processes),
        setting("max_wal_senders", 10, primary.max_wal_senders),
        setting("max_prepared_transactions", 0, primary.max_prepared_transactions),
        setting("max_locks_per_transaction", 64, primary.max_locks_per_transaction),
    ]
}

/// Compares the configuration, and the method's requested settings, which override it, with the primary's settings in pg_control.
pub(super) fn check(
    configuration: &Configuration,
    requested: &[(String, String)],
    primary: &RequiredSettings,
) -> Result<(), Problem> {
    for required in required(primary) {
        let requested = requested.iter().rev().find(|(name, _)| name == required.name);
        let written = match (requested, configuration.effective(required.name)) {
            (Some((_, value)), _) => Some((value, "the method requested it".to_owned())),
            (None, Some(entry)) => Some((&entry.value, entry.place())),
            (None, None) => None,
        };
        let (configured, place) = match written {
            Some((value, place)) => {
                let number = whole_number(value).ok_or_else(|| {
                    let message = format!(
                        "`{}` is `{}` ({place}), which is not a whole number: PostgreSQL would not start",
                        required.name,
                        shown(value.as_bytes())
                    );
                    Problem::new(CHECK, message)
                })?;
                (number, place)
            }
            None if configuration.has_main => {
                (required.default, "nothing in postgresql.conf sets it".to_owned())
            }
            // If the configuration is elsewhere, the server's own programs are asked instead.
            None => continue,
        };
        if configured < i64::from(required.primary) {
            let message = format!(
                "`{}` is {configured} ({place}) but was {} on the primary when the backup was taken: a hot standby \
                 needs at least as many",
                required.name, required.primary
            );
            return Err(Problem::new(CHECK, message));
        }
    }
    Ok(())
}

/// Parses a whole number as PostgreSQL does (`parse_int` in `guc.c`): decimal, hexadecimal or octal as in C, or with a fraction, rounded.
pub(super) fn whole_number(text: &str) -> Option<i64> {
    let text = text.trim_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c']);
    let (negative, digits) = match text.strip_prefix(['-', '+']) {
        Some(digits) => (text.starts_with('-'), digits),
        None => (false, text),
    };
    let signed = |value: i64| if negative { -value } else { value };
    let only = |digits: &str, radix| {
        (!digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix)))
            .then(|| i64::from_str_radix(digits, radix).ok())
            .flatten()
            .map(signed)
    };
    if let Some(hexadecimal) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        return only(hexadecimal, 16);
    }
    let octal = if digits.len() > 1 && digits.starts_with('0') { only(digits, 8) } else { None };
    if let Some(value) =
        octal.or_else(|| if digits.starts_with('0') && digits.len() > 1 { None } else { only(digits, 10) })
    {
        return Some(value);
    }
    let of_a_fraction = |c: char| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '-' | '+');
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        || !digits.contains(['.', 'e', 'E'])
        || !digits.chars().all(of_a_fraction)
    {
        return None;
    }
    let value: f64 = digits.parse().ok()?;
    let value = value.round_ties_even();
    (value <= f64::from(i32::MAX)).then_some(signed(value as i64))
}

#[cfg(test)]
mod tests {
    use super::super::configuration::tests::Restored;
    use super::*;

    const DEFAULTS: RequiredSettings = RequiredSettings {
        max_connections: 100,
        max_worker_processes: 8,
        max_wal_senders: 10,
        max_prepared_transactions: 0,
        max_locks_per_transaction: 64,
    };

    fn checked(files: &[(&str, &str)], primary: &RequiredSettings) -> Result<(), Problem> {
        check(&Restored::with(files).read().unwrap(), &[], primary)
    }

    #[test]
    fn a_requested_setting_overrides_the_files() {
        let checked = |files: &[(&str, &str)], value: &str| {
            let requested = [("max_connections".to_owned(), value.to_owned())];
            check(&Restored::with(files).read().unwrap(), &requested, &DEFAULTS)
        };
        assert!(checked(&[("postgresql.conf", "max_connections = 20")], "100").is_ok());
        let message = checked(&[("postgresql.conf", "")], "99").unwrap_err().message;
        assert!(message.contains("the method requested it"), "{message}");
    }

    #[test]
    fn numbers_are_read_as_postgresql_reads_them() {
        for (text, value) in [
            ("100", Some(100)),
            (" 100 ", Some(100)),
            ("-1", Some(-1)),
            ("0x64", Some(100)),
            ("0144", Some(100)),
            ("0", Some(0)),
            ("1e2", Some(100)),
            ("99.5", Some(100)),
            ("", None),
            ("many", None),
            ("100kB", None),
            ("1-2", None),
            ("inf", None),
            ("1e30", None),
            ("089", None),
        ] {
            assert_eq!(whole_number(text), value, "{text:?}");
        }
    }

    #[test]
    fn rule_30_a_setting_below_the_primarys_is_refused_with_its_line() {
        assert!(checked(&[("postgresql.conf", "")], &DEFAULTS).is_ok());
        let lower = [("postgresql.conf", "max_connections = 200\n\nmax_connections = 99\n")];
        let message = checked(&lower, &DEFAULTS).unwrap_err().message;
        assert!(
            message.contains("max_connections") && message.contains("postgresql.conf line 3"),
            "{message}"
        );
        for (name, primary) in [
            ("max_worker_processes", RequiredSettings { max_worker_processes: 9, ..DEFAULTS }),
            ("max_wal_senders", RequiredSettings { max_wal_senders: 11, ..DEFAULTS }),
            ("max_prepared_transactions", RequiredSettings { max_prepared_transactions: 1, ..DEFAULTS }),
            ("max_locks_per_transaction", RequiredSettings { max_locks_per_transaction: 65, ..DEFAULTS }),
        ] {
            let message = checked(&[("postgresql.conf", "")], &primary).unwrap_err().message;
            assert!(message.contains(name) && message.contains("nothing in postgresql.conf"), "{message}");
        }
    }

    #[test]
    fn rule_30_the_last_mention_counts() {
        let files = [
            ("postgresql.conf", "max_connections = 1\n"),
            ("postgresql.auto.conf", "max_connections = '100'\n"),
        ];
        assert!(checked(&files, &DEFAULTS).is_ok());
        let files = [
            ("postgresql.conf", "max_connections = 100\n"),
            ("postgresql.auto.conf", "max_connections = '1'\n"),
        ];
        assert!(checked(&files, &DEFAULTS).is_err());
    }

    #[test]
    fn rule_30_only_files_in_the_data_directory_are_judged_if_the_configuration_is_elsewhere() {
        assert!(checked(&[], &DEFAULTS).is_ok());
        assert!(checked(&[("postgresql.auto.conf", "max_connections = 99")], &DEFAULTS).is_err());
    }

    #[test]
    fn a_value_that_is_not_a_number_is_refused() {
        let problem = checked(&[("postgresql.conf", "max_connections = many")], &DEFAULTS).unwrap_err();
        assert!(problem.message.contains("would not start"), "{}", problem.message);
    }
}
