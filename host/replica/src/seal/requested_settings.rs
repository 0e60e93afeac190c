//! The recovery settings that a method may request. The same list is used when the method requests a setting and in the seal. None of
//! these settings runs a command, loads a library, ends recovery, or names a server or a slot.

use super::guc::{self, LONGEST_RETRY, MOST, SHORTEST_TIMEOUT};
use super::judged_settings::{milliseconds, why_told};
use super::problem::{Findings, Problem, shown};

use crate::Rule;

const CHECK: Rule = Rule::AutoConf;

/// The largest number of connections, workers and the like (`MAX_BACKENDS`).
const MOST_BACKENDS: i64 = 262_143;

/// The allowed settings, each with the values that PostgreSQL accepts and with which a standby keeps following.
const ALLOWED: [(&str, Grammar); 14] = [
    ("hot_standby", Grammar::Flag),
    ("hot_standby_feedback", Grammar::Flag),
    ("max_connections", Grammar::Number(1, MOST_BACKENDS)),
    ("max_locks_per_transaction", Grammar::Number(10, MOST)),
    ("max_prepared_transactions", Grammar::Number(0, MOST_BACKENDS)),
    ("max_standby_archive_delay", Grammar::Milliseconds(Some(-1), 0, MOST)),
    ("max_standby_streaming_delay", Grammar::Milliseconds(Some(-1), 0, MOST)),
    ("max_wal_senders", Grammar::Number(0, MOST_BACKENDS)),
    ("max_worker_processes", Grammar::Number(0, MOST_BACKENDS)),
    ("recovery_min_apply_delay", Grammar::Milliseconds(None, 0, MOST)),
    ("recovery_prefetch", Grammar::Words("`on`, `off` or `try`", &["on", "off", "try"])),
    ("recovery_target_timeline", Grammar::Words("`latest`", &["latest"])),
    ("wal_receiver_timeout", Grammar::Milliseconds(Some(0), SHORTEST_TIMEOUT, MOST)),
    ("wal_retrieve_retry_interval", Grammar::Milliseconds(None, 1, LONGEST_RETRY)),
];

/// The values of a setting.
#[derive(Clone, Copy, Debug)]
enum Grammar {
    /// `on`, `off`, `true`, `false`
    Flag,
    /// One of these words. The text describes the words.
    Words(&'static str, &'static [&'static str]),
    /// A whole number from the first value to the second.
    Number(i64, i64),
    /// A time from the second number to the third, in milliseconds, written as a whole number with or without a unit; or the first number,
    /// if there is one, without a unit.
    Milliseconds(Option<i64>, i64, i64),
}

impl Grammar {
    fn fits(self, value: &str) -> bool {
        match self {
            Self::Flag => matches!(value, "on" | "off" | "true" | "false"),
            Self::Words(_, words) => words.contains(&value),
            Self::Number(least, most) => digits(value).is_some_and(|number| (least..=most).contains(&number)),
            Self::Milliseconds(Some(special), ..) if value == special.to_string() => true,
            Self::Milliseconds(_, least, most) => {
                plain_milliseconds(value).is_some_and(|time| (least..=most).contains(&time))
            }
        }
    }

    fn words(self) -> String {
        match self {
            Self::Flag => "`on` or `off`".to_owned(),
            Self::Words(words, _) => words.to_owned(),
            Self::Number(least, most) => format!("a whole number from {least} to {most}"),
            Self::Milliseconds(special, least, most) => {
                let special = special.map_or(String::new(), |special| format!(", or {special}"));
                format!(
                    "a whole number with us, ms, s, min, h or d behind it, or without for ms, from {least} to {most} ms{special}"
                )
            }
        }
    }
}

fn digits(text: &str) -> Option<i64> {
    // A leading zero is not allowed, because PostgreSQL reads such a number as octal.
    let plain = text == "0" || !text.starts_with('0') && (1..=10).contains(&text.len());
    (plain && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

/// Parses a time without a sign, a fraction or a blank.
fn plain_milliseconds(text: &str) -> Option<i64> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    digits(text.strip_suffix(unit)?)?;
    matches!(unit, "" | "us" | "ms" | "s" | "min" | "h" | "d").then(|| milliseconds(text)).flatten()
}

/// Why a method may not request a setting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingRefused {
    /// The setting is not on the list.
    #[error("`{0}` is not a setting that a method may request: {list} are", list = allowed_names())]
    Name(String),
    /// The value is not allowed.
    #[error("`{value}` is not a value that a method may request for `{name}`: {expected} is")]
    Value {
        /// The setting.
        name: String,
        /// The value.
        value: String,
        /// The allowed values.
        expected: String,
    },
    /// The server's version does not have the setting, and would not start with it.
    #[error("PostgreSQL {major} has no setting `{name}` and would not start with it")]
    Version {
        /// The setting.
        name: String,
        /// The server's major version.
        major: u32,
    },
}

fn allowed_names() -> String {
    ALLOWED.map(|(name, _)| format!("`{name}`")).join(", ")
}

/// Checks that a method may have this setting written into postgresql.auto.conf. `major` is the server's version, `None` if it is not
/// known yet.
///
/// # Errors
/// Fails if the setting is not on the list, which has only settings that run nothing, load nothing, do not end recovery and name no other
/// server; if PostgreSQL would not accept the value; or if the server's version does not have the setting.
pub fn check_recovery_setting(name: &str, value: &str, major: Option<u32>) -> Result<(), SettingRefused> {
    let Some((_, grammar)) = ALLOWED.iter().find(|(allowed, _)| *allowed == name) else {
        return Err(SettingRefused::Name(shown(name.as_bytes())));
    };
    if !grammar.fits(value) {
        let (value, expected) = (shown(value.as_bytes()), grammar.words());
        return Err(SettingRefused::Value { name: name.to_owned(), value, expected });
    }
    match major {
        Some(major) if !guc::setting(name).is_some_and(|setting| setting.is_in(major)) => {
            Err(SettingRefused::Version { name: name.to_owned(), major })
        }
        _ => Ok(()),
    }
}

/// Checks the settings that a method requested, and returns them. Reports those that keep the standby behind its primary.
pub(super) fn judge<'a>(
    requested: &'a [(String, String)],
    major: u32,
    findings: &mut Findings,
) -> Result<&'a [(String, String)], Problem> {
    for (name, value) in requested {
        check_recovery_setting(name, value, Some(major))
            .map_err(|refused| Problem::new(CHECK, refused.to_string()))?;
        if let Some(why) = why_told(name, value) {
            findings.add(CHECK, format!("the method requested `{name} = {value}`: {why}"));
        }
    }
    Ok(requested)
}

#[cfg(test)]
mod tests {
    use super::super::guc::Class;
    use super::super::test_cluster::Cluster;
    use super::*;

    /// Values that PostgreSQL accepts and a method may not request: PostgreSQL reads the number at the beginning of a timeline, and allows
    /// times with which a standby does not follow.
    const ACCEPTED_BEYOND: [(&str, &str); 3] = [
        ("recovery_target_timeline", "7x"),
        ("wal_receiver_timeout", "998"),
        ("wal_retrieve_retry_interval", "300001"),
    ];

    /// Returns values at each end of the allowed range, and values beyond that range.
    fn examples(grammar: Grammar) -> (Vec<String>, Vec<String>) {
        let text = |number: i64| number.to_string();
        match grammar {
            Grammar::Flag => (vec!["on".into(), "off".into()], vec!["maybe".into(), "".into()]),
            Grammar::Words(_, words) => (words.iter().map(ToString::to_string).collect(), vec!["7x".into()]),
            // 100 instead of the highest allowed number, for which this machine may not have enough memory.
            Grammar::Number(least, most) => {
                (vec![text(least.max(1)), text(100)], vec![text(most + 1), "1.5".into()])
            }
            Grammar::Milliseconds(special, least, most) => {
                let fitting = [text(least), text(most), format!("{}s", most / 1000), "5min".into()];
                let fitting = fitting.into_iter().chain(special.map(text)).collect();
                (
                    fitting,
                    vec![
                        "-2".into(),
                        text(least - 2),
                        text(most + 1),
                        "25d".into(),
                        "1week".into(),
                        "".into(),
                    ],
                )
            }
        }
    }

    #[test]
    fn settings_that_a_method_may_request_are_harmless_by_the_table() {
        for (name, _) in ALLOWED {
            let class = guc::setting(name).unwrap().class;
            // A delay runs nothing and names no server: a method may request one.
            let is_allowed =
                matches!(class, Class::Harmless | Class::EndsRecovery("latest") | Class::ToldUnless(..));
            assert!(is_allowed, "{name}");
        }
    }

    #[test]
    fn a_method_may_request_only_what_runs_nothing_and_names_no_server() {
        for (name, value) in [
            ("restore_command", "sh"),
            ("RECOVERY_MIN_APPLY_DELAY", "5min"),
            ("recovery_target", "immediate"),
            ("recovery_target_timeline", "7"),
            ("recovery_target_action", "promote"),
            ("shared_preload_libraries", "x"),
            ("primary_conninfo", "host=x"),
            ("primary_slot_name", "slot_of_another"),
            ("recovery_min_apply_delay", "5min'\nrestore_command = 'sh"),
            ("recovery_min_apply_delay", ""),
            ("recovery_min_apply_delay", "0144"),
            ("hot_standby_feedback", "maybe"),
            ("max_connections", "99999999999999999999"),
            ("wal_retrieve_retry_interval", "24d"),
            ("wal_retrieve_retry_interval", "300001"),
            ("wal_receiver_timeout", "999"),
            ("wal_receiver_timeout", "1ms"),
        ] {
            assert!(check_recovery_setting(name, value, Some(15)).is_err(), "{name} = {value}");
            let requested = [(name.to_owned(), value.to_owned())];
            assert!(judge(&requested, 15, &mut Findings::default()).is_err(), "{name} = {value}");
        }
    }

    #[test]
    fn a_requested_setting_with_which_the_standby_stays_behind_is_reported() {
        let reported = |name: &str, value: &str| {
            let mut findings = Findings::default();
            judge(&[(name.to_owned(), value.to_owned())], 15, &mut findings).unwrap();
            findings.into_list().into_iter().map(|finding| finding.message).collect::<Vec<_>>()
        };
        assert_eq!(
            reported("recovery_min_apply_delay", "5min"),
            [
                "the method requested `recovery_min_apply_delay = 5min`: the standby applies WAL only with this delay"
            ]
        );
        assert_eq!(reported("max_standby_streaming_delay", "-1").len(), 1);
        for (name, value) in [
            ("recovery_min_apply_delay", "0s"),
            ("max_standby_streaming_delay", "30s"),
            ("wal_retrieve_retry_interval", "5min"),
            ("wal_retrieve_retry_interval", "1"),
            ("wal_receiver_timeout", "0"),
            ("wal_receiver_timeout", "1s"),
            ("max_connections", "100"),
        ] {
            assert_eq!(reported(name, value), Vec::<String>::new(), "{name} = {value}");
        }
    }

    #[test]
    fn a_setting_that_the_version_does_not_have_is_refused() {
        assert!(check_recovery_setting("recovery_prefetch", "try", Some(15)).is_ok());
        assert!(check_recovery_setting("recovery_prefetch", "try", None).is_ok());
        let refused = check_recovery_setting("recovery_prefetch", "try", Some(14)).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "PostgreSQL 14 has no setting `recovery_prefetch` and would not start with it"
        );
    }

    #[test]
    fn postgresql_accepts_every_allowed_value_and_refuses_those_beyond() {
        let cluster = Cluster::made_with(&[]);
        for (name, grammar) in ALLOWED {
            let (fitting, beyond) = examples(grammar);
            let accepts = |value: &str| {
                let setting = format!("{name}={value}");
                cluster.run("postgres", &["-D", &cluster.text(), "-c", &setting, "-C", name]).status.success()
            };
            for value in fitting {
                assert!(check_recovery_setting(name, &value, Some(15)).is_ok(), "{name} = {value}");
                assert!(accepts(&value), "{name} = {value}");
            }
            for value in beyond {
                assert!(check_recovery_setting(name, &value, Some(15)).is_err(), "{name} = {value}");
                // PostgreSQL rounds a fraction.
                if value != "1.5" {
                    assert_eq!(
                        accepts(&value),
                        ACCEPTED_BEYOND.contains(&(name, value.as_str())),
                        "{name} = {value}"
                    );
                }
            }
        }
    }
}
