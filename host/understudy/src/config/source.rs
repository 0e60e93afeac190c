//! `[source]`: the server to copy from, and the source of its password.

use std::path::{Path, PathBuf};

use replica::source::{Conninfo, SourceConfig, hosts_without_entry, shown_if_there, unusable_passfile};

use super::Environment;
use super::keys::Key;
use super::methods::{Listed, OTHER_NAMES, read_list};
use super::problem::{Origin, Problem};
use super::secret::{SecretSource, Shape};
use super::tree::{Section, Value};
use super::visible::invisible;

/// The keys of `[source]`.
pub(super) const KEYS: &[Key] = &[
    Key::new(
        "conninfo",
        "text",
        "required in this section",
        "libpq's connection string, as `key=value` words or as a URI. Refused: keywords that libpq does not know, \
         values that libpq does not accept (for `sslmode`, `port`, `target_session_attrs` and the like), the \
         keywords `service` and `servicefile`, and relative paths of files. A certificate file that the \
         connection string names must exist if libpq needs it",
    ),
    Key::new(
        "passfile",
        "path",
        "`PGPASSFILE` of the caller",
        "a file in libpq's format. Refused if libpq would not read it. Not together with `password`",
    ),
    Key::new("password", "secret", "none", "the password"),
    Key::new(
        "methods",
        "as `replica.methods`",
        "the list of `[replica]`",
        "replaces the list of `[replica]` while there is a source",
    )
    .also(OTHER_NAMES),
];

/// How to reach the source, before any secret file is read.
#[derive(Clone, Debug, Default)]
pub struct SourceSettings {
    /// The connection string.
    pub conninfo: Conninfo,
    /// The password, if it is not part of the connection string.
    pub password: Option<SecretSource>,
    /// A passfile in libpq's format.
    pub passfile: Option<PathBuf>,
    /// Where the configuration names the passfile; `None` for the caller's `PGPASSFILE`, which is not checked.
    pub passfile_at: Option<Origin>,
}

impl SourceSettings {
    /// Returns the files that hold a secret of the source: passfiles, the file of the password and the client's key.
    pub fn secret_files(&self) -> Vec<PathBuf> {
        let password = self.password.as_ref().and_then(SecretSource::file).map(PathBuf::from);
        let named = ["passfile", "sslkey"].into_iter().filter_map(|keyword| self.conninfo.get(keyword));
        self.passfile.iter().cloned().chain(password).chain(named.map(PathBuf::from)).collect()
    }

    /// Returns the source with its password, which is read from its file now, and checks the passfile that the configuration file names.
    ///
    /// # Errors
    /// A problem at the setting that names the unusable file.
    pub fn resolve(&self) -> Result<SourceConfig, Problem> {
        if let (Some(passfile), Some(origin)) = (&self.passfile, &self.passfile_at) {
            check_passfile("source.passfile", passfile, origin)?;
        }
        let password = self.password.as_ref().map(SecretSource::resolve).transpose()?;
        Ok(SourceConfig { conninfo: self.conninfo.clone(), password, passfile: self.passfile.clone() })
    }
}

/// Refuses a passfile that libpq would ignore: libpq would then connect without a password.
///
/// # Errors
/// A problem at `origin`, where `setting` names the passfile.
pub fn check_passfile(setting: &str, passfile: &Path, origin: &Origin) -> Result<(), Problem> {
    match unusable_passfile(passfile) {
        None => Ok(()),
        Some(why) => {
            let message =
                format!("`{setting}` names {}, which libpq does not read: {why}", shown_if_there(passfile));
            Err(Problem::new(origin.clone(), message))
        }
    }
}

/// Refuses a passfile in which the standby would find a password for none of the hosts in the connection string. Call this function only if
/// the source asks for a password.
///
/// # Errors
/// A problem at `replica.standby_passfile`, with the beginnings of the lines that the file lacks.
pub fn check_entries(conninfo: &Conninfo, passfile: &Path, origin: &Origin) -> Result<(), Problem> {
    // A file that cannot be read was refused before; a file that is too long to check here is left to the standby.
    match hosts_without_entry(passfile, conninfo) {
        Ok(without) if without.is_all => {
            let message = format!(
                "`replica.standby_passfile` names {}, which has no password for the source: write a line `{}:<password>` into it, `*` for \
                 any",
                passfile.display(),
                without.lines.join(":<password>`, `")
            );
            Err(Problem::new(origin.clone(), message))
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

/// The content of `[source]`.
pub(super) struct SourceSection {
    pub(super) settings: Option<SourceSettings>,
    /// The methods to use with a source (rule 1).
    pub(super) methods: Option<Vec<Listed>>,
}

pub(super) fn read(section: Section<'_>, environment: Environment<'_>) -> SourceSection {
    let conninfo = match section.get("conninfo") {
        Some(value) => read_conninfo(&value),
        None => {
            section.missing(
                "conninfo",
                "write conninfo = \"host=... port=5432 user=replicator\", or leave [source] out",
            );
            None
        }
    };
    let passfile = section.get("passfile").and_then(|value| Some((value.path_of_secret()?, value.origin())));
    let password = section.get("password").and_then(|value| {
        if passfile.is_some() {
            value.problem("and `source.passfile` are both given: keep one of them");
        }
        SecretSource::read(&value, Shape::Line, environment)
    });
    let methods = read_list(&section);
    section.finish_with(|name, hint| match Conninfo::is_keyword(name) {
        true => Some(format!("`{name}` belongs in the value of `conninfo`, as in conninfo = \"{name}=...\"")),
        false => hint,
    });
    SourceSection {
        settings: conninfo.map(|conninfo| SourceSettings {
            conninfo,
            password,
            passfile_at: passfile.as_ref().map(|(_, origin)| origin.clone()),
            passfile: passfile.map(|(path, _)| path),
        }),
        methods,
    }
}

/// Keywords of a connection string whose values must not contain invisible characters.
const SEEN: [&str; 11] = [
    "host",
    "hostaddr",
    "port",
    "user",
    "dbname",
    "passfile",
    "sslmode",
    "sslcert",
    "sslkey",
    "sslrootcert",
    "sslcrl",
];

/// Parses a connection string of the file or of `--connstring`.
///
/// # Errors
/// Why the connection string cannot be used, worded to follow the name of the setting. No value is quoted.
pub(super) fn parse_conninfo(text: &str) -> Result<Conninfo, String> {
    let conninfo = Conninfo::parse(text)
        .map_err(|error| format!("is not a connection string that libpq accepts: {error}"))?;
    let checked = conninfo.check_places().and_then(|()| conninfo.check_values());
    checked.map_err(|error| format!("cannot be used: {error}"))?;
    for keyword in SEEN {
        if let Some(why) = conninfo.get(keyword).and_then(invisible) {
            return Err(format!("has a value of `{keyword}` that {why}"));
        }
    }
    Ok(conninfo)
}

fn read_conninfo(value: &Value<'_>) -> Option<Conninfo> {
    let conninfo = parse_conninfo(value.text()?).map_err(|why| value.problem(why)).ok()?;
    for (keyword, path) in conninfo.paths() {
        value.keep_as(path, format!("what `{keyword}` of `{}` names", value.path));
    }
    Some(conninfo)
}
