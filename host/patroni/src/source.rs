//! The server that a standby cluster follows, and the settings with which Patroni connects to that server.

use foundation::printable::is_printable;

use crate::command::is_secret;
use crate::python;
use crate::remarks::Remarks;
use crate::settings::{Setting, Settings};

/// Patroni's names of authentication parameters (`_AUTH_ALLOWED_PARAMETERS` in `patroni/config.py`), libpq's keywords for them, and the
/// values that libpq accepts. The list of values is empty for a name, and [`FILE`] for a path.
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

/// Marks a keyword whose value is the path of a file.
const FILE: &[&str] = &["/"];

/// The settings with which Patroni connects for replication.
#[derive(Clone, Debug, Default)]
pub(crate) struct Login {
    /// libpq's keywords with their values.
    words: Vec<(&'static str, String)>,
    /// Whether Patroni has a password.
    pub(crate) has_password: bool,
}

/// The server that a standby cluster follows.
#[derive(Clone, Debug)]
pub(crate) struct Remote {
    /// The file and line of `standby_cluster`.
    pub(crate) place: String,
    pub(crate) conninfo: String,
    /// The lines for the passfile, with a placeholder instead of the password; empty if Patroni has no password.
    pub(crate) passfile: Vec<String>,
}

/// Why a value is left out.
const LOOKS_SECRET: &str = "the value looks like a secret, which the configuration would show";

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
            let value = python::str(setting.value);
            if value.as_ref().is_some_and(|value| is_secret("", value)) {
                remarks.not_carried(&setting, LOOKS_SECRET);
                continue;
            }
            match value.filter(|value| takes(values, value)) {
                Some(value) => login.words.push((keyword, value)),
                None if values == FILE => {
                    remarks.not_carried(&setting, "the path must be absolute");
                }
                None => {
                    remarks.not_carried(&setting, format!("libpq does not accept this value for {keyword}"))
                }
            }
        }
        login
    }

    /// Returns the user; `*` if Patroni names none.
    pub(crate) fn user(&self) -> &str {
        self.words.iter().find(|(keyword, _)| *keyword == "user").map_or("*", |(_, user)| user)
    }

    /// Returns a connection string for this server.
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

    /// Returns the lines of a passfile for these hosts, without the password (`_pgpass_content` in `patroni/postgresql/config.py`).
    pub(crate) fn passfile(&self, host: &str, port: Option<&str>) -> Vec<String> {
        if !self.has_password {
            return Vec::new();
        }
        let escape = |text: &str| text.replace('\\', "\\\\").replace(':', "\\:");
        let ports: Vec<_> = port.unwrap_or("*").split(',').map(str::trim).collect();
        let hosts = host.split(',').map(str::trim).filter(|host| !host.is_empty());
        let line = |(index, host): (usize, &str)| {
            // For the default socket directory, libpq looks up `localhost` in the passfile.
            let port = ports.get(index).or(ports.last()).copied().unwrap_or("*");
            format!("{}:{}:*:{}:PASSWORD", escape(host), escape(port), escape(self.user()))
        };
        hosts.enumerate().map(line).collect()
    }
}

impl Remote {
    /// Returns the server that a standby cluster follows; `None` if the cluster has no `host` and only restores WAL from an archive.
    pub(crate) fn of(standby: &Setting<'_>, login: &Login, remarks: &mut Remarks) -> Option<Self> {
        let text = |name: &str, remarks: &mut Remarks| {
            let setting = standby.get(name).filter(Setting::is_true)?;
            let text = python::str(setting.value).filter(|text| is_printable(text) && text.trim() == text);
            if text.is_none() {
                remarks.not_carried(&setting, "the value has characters that a host or port cannot have");
            }
            Some((setting, text?))
        };
        let (setting, host) = text("host", remarks)?;
        if is_secret("", &host) {
            remarks.not_carried(&setting, LOOKS_SECRET);
            return None;
        }
        let port = text("port", remarks).and_then(|(setting, port)| {
            let is_port = |port: &str| port.trim().parse::<u16>().is_ok_and(|port| port > 0);
            if !port.split(',').all(is_port) {
                remarks.not_carried(&setting, "libpq does not accept this value for port");
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

/// Returns whether libpq accepts a value for a keyword with this list of values.
fn takes(values: &[&str], value: &str) -> bool {
    let is_seen = is_printable(value) && value.trim() == value;
    match values {
        [] => is_seen,
        [only] if *only == "/" => is_seen && value.starts_with('/'),
        values => values.contains(&value),
    }
}

/// Returns a value quoted for a libpq connection string.
fn quoted(value: &str) -> String {
    let is_simple =
        !value.is_empty() && !value.contains(|c: char| c.is_whitespace() || matches!(c, '\'' | '\\'));
    match is_simple {
        true => value.to_owned(),
        false => format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'")),
    }
}
