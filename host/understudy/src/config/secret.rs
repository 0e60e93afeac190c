//! Secrets of the configuration: where each comes from. None stands in the file itself.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sandbox::Secret;

use super::problem::{Place, Problem};
use super::tree::{Section, Value};
use super::{Environment, owned_file};

/// A secret that is longer is taken for a mistake in the file's name. A service account's key has some 2.5 kB.
const LIMIT: u64 = 64 << 10;

/// Where a secret comes from.
#[derive(Clone, Debug)]
pub enum SecretSource {
    /// Read from the environment already.
    Known(Secret),
    /// Read from a file before the run, as the user that it has by then.
    File {
        /// The file that holds the secret and nothing else.
        path: PathBuf,
        /// The configuration file that names it.
        file: PathBuf,
        /// Where it does.
        place: Place,
    },
}

impl SecretSource {
    /// Reads `{ env = "NAME" }` or `{ file = "/path" }`.
    pub(super) fn read(value: &Value<'_>, config: &Path, environment: Environment<'_>) -> Option<Self> {
        let form = "write { file = \"/path\" } or { env = \"NAME\" }";
        if value.raw().is_str() {
            value.problem(format_args!("must not stand in this file: {form}"));
            return None;
        }
        let table = value.section()?;
        let source = Self::read_of(value, &table, config, environment);
        table.finish();
        source
    }

    /// The same of a table that says more, which the caller reads and finishes.
    pub(super) fn read_of(
        value: &Value<'_>,
        table: &Section<'_>,
        config: &Path,
        environment: Environment<'_>,
    ) -> Option<Self> {
        let form = "write { file = \"/path\" } or { env = \"NAME\" }";
        let (variable, path) = (table.get("env"), table.get("file"));
        match (variable, path) {
            (Some(name), None) => {
                let secret = environment(name.text()?).filter(|secret| !secret.is_empty());
                if secret.is_none() {
                    name.problem("names an environment variable that is not set");
                }
                secret.map(|secret| Self::Known(Secret::new(secret.into_vec())))
            }
            (None, Some(path)) => {
                Some(Self::File { path: path.path()?, file: config.to_owned(), place: path.place() })
            }
            (Some(_), Some(_)) | (None, None) => {
                value.problem(format_args!("needs one of `env` and `file`: {form}"));
                None
            }
        }
    }

    /// The secret itself.
    ///
    /// # Errors
    /// A problem at the setting that names the file.
    pub fn resolve(&self) -> Result<Secret, Problem> {
        match self {
            Self::Known(secret) => Ok(secret.clone()),
            Self::File { path, file, place } => read(path).map_err(|why| {
                Problem::in_file(file, *place, format!("cannot use the secret in {}: {why}", path.display()))
            }),
        }
    }

    /// The file that it is read from.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Known(_) => None,
            Self::File { path, .. } => Some(path),
        }
    }
}

/// The file's content without the newline that editors put at its end. Read is only a file that others may not, by the rule
/// that PostgreSQL has for `ssl_key_file`: nobody but its owner, or root's file that a group may read.
fn read(path: &Path) -> Result<Secret, String> {
    let (file, metadata) = owned_file::open(path)?;
    let is_own = metadata.uid() == rustix::process::geteuid().as_raw();
    let refused = if is_own { 0o077 } else { 0o037 };
    if metadata.mode() & refused != 0 {
        return Err(format!(
            "others may read or change it (mode {:04o}): `chmod {:04o}` it",
            metadata.mode() & 0o7777,
            metadata.mode() & 0o777 & !refused
        ));
    }
    let bytes = content(file).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > LIMIT {
        return Err(format!("it is longer than {LIMIT} bytes"));
    }
    let secret = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    match secret.strip_suffix(b"\r").unwrap_or(secret) {
        [] => Err("it is empty".to_owned()),
        secret => Ok(Secret::new(secret)),
    }
}

fn content(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(LIMIT + 2).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn in_file(content: &[u8], mode: u32) -> Result<Vec<u8>, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), content).unwrap();
        fs::set_permissions(file.path(), Permissions::from_mode(mode)).unwrap();
        read(file.path()).map(|secret| secret.expose().to_owned())
    }

    #[test]
    fn a_secret_is_the_files_content_without_the_last_newline() {
        assert_eq!(in_file(b"se cret", 0o600).unwrap(), b"se cret");
        assert_eq!(in_file(b"se\ncret\r\n", 0o400).unwrap(), b"se\ncret");
        assert_eq!(in_file(b"\xFF\n\n", 0o600).unwrap(), b"\xFF\n");
        assert!(in_file(b"\n", 0o600).unwrap_err().contains("empty"));
        assert!(in_file(&vec![b'x'; LIMIT as usize + 1], 0o600).unwrap_err().contains("longer than"));
        assert_eq!(in_file(&vec![b'x'; LIMIT as usize], 0o600).unwrap().len() as u64, LIMIT);
    }

    #[test]
    fn a_secret_that_others_may_read_is_none() {
        for mode in [0o644, 0o604, 0o660] {
            let why = in_file(b"secret", mode).unwrap_err();
            assert!(why.contains("chmod 0600") && !why.contains("secret"), "{why}");
        }
        assert!(read(Path::new("/")).unwrap_err().contains("not a file"));
    }

    #[test]
    fn what_is_shown_of_a_secret_is_not_the_secret() {
        let source = SecretSource::Known(Secret::new("swordfish"));
        assert!(!format!("{source:?}").contains("swordfish"));
    }
}
