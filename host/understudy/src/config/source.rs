//! `[source]`: the server that is copied from, and where its password comes from.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use replica::source::{Conninfo, Secret, SourceConfig, unusable_passfile};

use super::Environment;
use super::methods::{Listed, read_list};
use super::problem::{Place, Problem};
use super::tree::{Section, Value};

/// How to reach the source, before any secret file is read.
#[derive(Clone, Debug, Default)]
pub struct SourceSettings {
    /// The connection string.
    pub conninfo: Conninfo,
    /// The password that is kept apart from it.
    pub password: Option<Password>,
    /// A passfile in libpq's format.
    pub passfile: Option<PathBuf>,
    /// The configuration file that names the passfile, and where; none for the caller's PGPASSFILE, which may be of no use.
    pub passfile_at: Option<(PathBuf, Place)>,
}

/// A password that is kept apart from the connection string.
#[derive(Clone, Debug)]
pub enum Password {
    /// Read from the environment already.
    Known(Secret),
    /// Read from a file when the source is asked, as the user that the run has by then.
    File {
        /// The file that holds the password and nothing else.
        path: PathBuf,
        /// The configuration file that names it.
        file: PathBuf,
        /// Where it does.
        place: Place,
    },
}

/// A password longer than this is taken for a mistake in the file's name.
const PASSWORD_LIMIT: u64 = 4096;

impl SourceSettings {
    /// Reads the password's file, if there is one, and looks at the passfile that the file names.
    ///
    /// # Errors
    /// A problem at the setting that names the file.
    pub fn resolve(&self) -> Result<SourceConfig, Problem> {
        if let (Some(passfile), Some((file, place))) = (&self.passfile, &self.passfile_at) {
            check_passfile("source.passfile", passfile, file, *place)?;
        }
        let password = match &self.password {
            None => None,
            Some(Password::Known(secret)) => Some(secret.clone()),
            Some(Password::File { path, file, place }) => {
                let secret = read_password(path).map_err(|why| {
                    Problem::in_file(
                        file,
                        *place,
                        format!("cannot use the password in {}: {why}", path.display()),
                    )
                })?;
                Some(secret)
            }
        };
        Ok(SourceConfig { conninfo: self.conninfo.clone(), password, passfile: self.passfile.clone() })
    }
}

/// Refuses a passfile that libpq would pass over, which would then ask without a password.
///
/// # Errors
/// A problem at the `setting` that names it.
pub fn check_passfile(setting: &str, passfile: &Path, file: &Path, place: Place) -> Result<(), Problem> {
    match unusable_passfile(passfile) {
        None => Ok(()),
        Some(why) => {
            let message =
                format!("`{setting}` names {}, which libpq does not read: {why}", passfile.display());
            Err(Problem::in_file(file, place, message))
        }
    }
}

/// The file's content without the newline that editors put at its end.
fn read_password(path: &Path) -> Result<Secret, String> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(PASSWORD_LIMIT + 1).read_to_string(&mut text));
    match read {
        Err(error) => Err(error.to_string()),
        Ok(length) if length as u64 > PASSWORD_LIMIT => {
            Err(format!("it is longer than {PASSWORD_LIMIT} bytes"))
        }
        Ok(_) => {
            let line = text.strip_suffix('\n').unwrap_or(&text);
            let line = line.strip_suffix('\r').unwrap_or(line);
            match line {
                "" => Err("it is empty".to_owned()),
                line if line.contains(['\n', '\0']) => Err("it holds more than one line".to_owned()),
                line => Ok(Secret::new(line.to_owned())),
            }
        }
    }
}

/// What `[source]` says.
pub(super) struct SourceSection {
    pub(super) settings: Option<SourceSettings>,
    /// The remote member's list (semantics rule 1).
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
    let passfile = section.get("passfile").and_then(|value| Some((value.path()?, value.place())));
    let password = section.get("password").and_then(|value| {
        if passfile.is_some() {
            value.problem("and `source.passfile` are both given: keep one of them");
        }
        read_password_setting(&value, section.reader().file(), environment)
    });
    let methods = read_list(&section);
    let config = section.reader().file().to_owned();
    section.finish();
    SourceSection {
        settings: conninfo.map(|conninfo| SourceSettings {
            conninfo,
            password,
            passfile_at: passfile.as_ref().map(|(_, place)| (config.clone(), *place)),
            passfile: passfile.map(|(path, _)| path),
        }),
        methods,
    }
}

fn read_conninfo(value: &Value<'_>) -> Option<Conninfo> {
    let conninfo = Conninfo::parse(value.text()?)
        .map_err(|error| value.problem(format_args!("is no connection string that libpq reads: {error}")))
        .ok()?;
    conninfo.check_places().map_err(|error| value.problem(format_args!("cannot be used: {error}"))).ok()?;
    Some(conninfo)
}

fn read_password_setting(value: &Value<'_>, config: &Path, environment: Environment<'_>) -> Option<Password> {
    let form = "write password = { file = \"/path\" } or password = { env = \"NAME\" }";
    if value.raw().is_str() {
        value.problem(format_args!("must not stand in this file: {form}"));
        return None;
    }
    let table = value.section()?;
    let from_variable = table.get("env");
    let from_file = table.get("file");
    table.finish();
    match (from_variable, from_file) {
        (Some(name), None) => {
            let secret = environment(name.text()?).filter(|secret| !secret.is_empty());
            match secret.map(|secret| secret.into_string()) {
                Some(Ok(secret)) => Some(Password::Known(Secret::new(secret))),
                Some(Err(_)) => {
                    name.problem("names an environment variable that is not UTF-8");
                    None
                }
                None => {
                    name.problem("names an environment variable that is not set");
                    None
                }
            }
        }
        (None, Some(file)) => {
            Some(Password::File { path: file.path()?, file: config.to_owned(), place: file.place() })
        }
        _ => {
            value.problem(format_args!("needs one of `env` and `file`: {form}"));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password_in(content: &[u8]) -> Result<String, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        read_password(file.path()).map(|secret| secret.expose().to_owned())
    }

    #[test]
    fn a_password_file_holds_one_line_with_or_without_a_newline() {
        assert_eq!(password_in(b"se cret").as_deref(), Ok("se cret"));
        assert_eq!(password_in(b"se cret\n").as_deref(), Ok("se cret"));
        assert_eq!(password_in(b"se cret\r\n").as_deref(), Ok("se cret"));
        assert!(password_in(b"").is_err());
        assert!(password_in(b"one\ntwo\n").is_err());
    }

    #[test]
    fn a_password_file_that_is_too_long_is_refused() {
        assert!(password_in(&[b'x'; PASSWORD_LIMIT as usize]).is_ok());
        assert!(password_in(&[b'x'; PASSWORD_LIMIT as usize + 1]).unwrap_err().contains("longer than 4096"));
    }
}
