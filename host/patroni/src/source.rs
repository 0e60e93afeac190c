//! The server that a standby cluster follows, and how Patroni logs in to it.

use foundation::printable::is_printable;

use crate::python;
use crate::remarks::Remarks;
use crate::settings::{Setting, Settings};

/// Patroni's names for libpq's keywords of a login (`_AUTH_ALLOWED_PARAMETERS` of `patroni/config.py`), and the values that libpq takes;
/// none if it is a name or a file.
const KEYWORDS: [(&str, &str, &[&str]); 10] = [
    ("username", "user", &[]),
    ("sslmode", "sslmode", &["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]),
    ("sslcert", "sslcert", FILE),
    ("sslkey", "sslkey", FILE),
    ("sslrootcert", "sslrootcert", FILE),
    ("sslcrl", "sslcrl", FILE),
    ("sslcrldir", "sslcrldir", FILE),
    ("gssencmode", "gssencmode", &["disable", "prefer", "require"]),
    ("channel_binding", "channel_binding", &["disable", "prefer", "require"]),
    ("sslnegotiation", "sslnegotiation", &["postgres", "direct"]),
];

/// The mark of a keyword that names a file.
const FILE: &[&str] = &["/"];

/// How Patroni logs in for replication.
#[derive(Clone, Debug, Default)]
pub(crate) struct Login {
    /// libpq's keywords with their values.
    words: Vec<(&'static str, String)>,
    /// Whether there is a password.
    pub(crate) has_password: bool,
}

/// The server that a standby cluster follows.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    /// The line of `standby_cluster`.
    pub(crate) place: String,
    pub(crate) conninfo: String,
    /// The lines of the passfile, as far as a person may see them; nothing if there is no password.
    pub(crate) passfile: Vec<String>,
}

impl Login {
    /// Reads `postgresql.authentication.replication`, or the older `postgresql.replication`.
    pub(crate) fn of(settings: &Settings<'_>, remarks: &mut Remarks) -> Self {
        let section = match settings.postgresql("authentication") {
            Some(authentication) => authentication.get("replication"),
            None => settings.postgresql("replication"),
        };
        let Some(section) = section else { return Self::default() };
        let has_password = section.get("password").is_some_and(|password| password.is_true());
        let mut login = Self { has_password, ..Self::default() };
        for (name, keyword, values) in KEYWORDS {
            let Some(setting) = section.get(name).filter(Setting::is_true) else { continue };
            match python::str(setting.value).filter(|value| takes(values, value)) {
                Some(value) => login.words.push((keyword, value)),
                None if values == FILE => {
                    remarks.not_carried(&setting, "the path must be absolute");
                }
                None => remarks.not_carried(&setting, format!("libpq does not take the value of {keyword}")),
            }
        }
        login
    }

    /// Returns the user; `*` if Patroni names none.
    pub(crate) fn user(&self) -> &str {
        self.words.iter().find(|(keyword, _)| *keyword == "user").map_or("*", |(_, user)| user)
    }

    /// Returns the words of a connection string for this server.
    pub(crate) fn conninfo(&self, host: &str, port: Option<&str>) -> String {
        let place = [("host", Some(host)), ("port", port)];
        let place = place.into_iter().filter_map(|(keyword, value)| Some((keyword, value?)));
        let login = self.words.iter().map(|(keyword, value)| (*keyword, value.as_str()));
        place
            .chain(login)
            .map(|(keyword, value)| format!("{keyword}={}", quoted(value)))
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// Returns the lines of a passfile for these hosts, without the password (`_pgpass_content` of `patroni/postgresql/config.py`).
    pub(crate) fn passfile(&self, host: &str, port: Option<&str>) -> Vec<String> {
        if !self.has_password {
            return Vec::new();
        }
        let escape = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:");
        let ports: Vec<_> = port.unwrap_or("*").split(',').map(str::trim).collect();
        let hosts = host.split(',').map(str::trim).filter(|host| !host.is_empty());
        let line = |(index, host): (usize, &str)| {
            // A directory of sockets is looked up as `localhost` if it is the default one.
            let port = ports.get(index).or(ports.last()).copied().unwrap_or("*");
            format!("{}:{}:*:{}:PASSWORD", escape(host), escape(port), escape(self.user()))
        };
        hosts.enumerate().map(line).collect()
    }
}

impl Remote {
    /// Returns the server of a standby cluster; `None` if it has no host, so that it only restores WAL.
    pub(crate) fn of(standby: &Setting<'_>, login: &Login, remarks: &mut Remarks) -> Option<Self> {
        let text = |name: &str, remarks: &mut Remarks| {
            let setting = standby.get(name).filter(Setting::is_true)?;
            let text = python::str(setting.value).filter(|text| is_printable(text) && text.trim() == text);
            if text.is_none() {
                remarks.not_carried(&setting, "the value has characters that no host and no port has");
            }
            Some((setting, text?))
        };
        let (_, host) = text("host", remarks)?;
        let port = text("port", remarks).and_then(|(setting, port)| {
            let is_port = |port: &str| port.trim().parse::<u16>().is_ok_and(|port| port > 0);
            if !port.split(',').all(is_port) {
                remarks.not_carried(&setting, "libpq does not take the value of port");
                return None;
            }
            Some(port)
        });
        Some(Self {
            place: format!("{}:{}", standby.file(), standby.line()),
            conninfo: login.conninfo(&host, port.as_deref()),
            passfile: login.passfile(&host, port.as_deref()),
        })
    }
}

/// Returns whether libpq takes a value for a keyword.
fn takes(values: &[&str], value: &str) -> bool {
    let is_seen = is_printable(value) && value.trim() == value;
    match values {
        [] => is_seen,
        [only] if *only == "/" => is_seen && value.starts_with('/'),
        values => values.contains(&value),
    }
}

/// Returns a value as libpq's connection strings have it.
fn quoted(value: &str) -> String {
    let is_simple =
        !value.is_empty() && !value.contains(|c: char| c.is_whitespace() || matches!(c, '\'' | '\\'));
    match is_simple {
        true => value.to_owned(),
        false => format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'")),
    }
}
