//! Reads the secrets that the configuration names. The configuration file itself contains no secrets.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use replica::source::shown_if_there;
use sandbox::Secret;
use zeroize::Zeroizing;

use super::problem::{Origin, Problem};
use super::tree::{Section, Value};
use super::{Environment, owned_file};

/// How many bytes a secret may have. A longer file is likely the wrong file: a service account's key has about 2.5 kB.
const LIMIT: u64 = 64 << 10;

/// The keys of the table that names a secret.
const KEYS: [&str; 2] = ["env", "file"];

/// The form that a secret must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One line of text or bytes: a password, a pass phrase, a token.
    Line,
    /// A JSON object of any number of lines: the key file of a service account.
    JsonObject,
    /// Secret keys of OpenPGP, as text or binary. Nothing is removed at their end.
    OpenPgpKey,
}

/// Where a secret comes from. Every secret that the configuration names is read by this type.
#[derive(Clone, Debug)]
pub enum SecretSource {
    /// A secret that was already read from the environment.
    Known(Secret),
    /// A file, which is read before the run, after the program has become the user of the run.
    File {
        /// The file that holds the secret and nothing else.
        path: PathBuf,
        /// What the file must hold.
        shape: Shape,
        /// Where the configuration names it.
        origin: Origin,
    },
}

impl SecretSource {
    /// Reads `{ env = "NAME" }` or `{ file = "/path" }`.
    pub(super) fn read(value: &Value<'_>, shape: Shape, environment: Environment<'_>) -> Option<Self> {
        if value.raw().is_str() {
            value.problem(format_args!("must not be written in this file: {FORM}"));
            return None;
        }
        let table = value.section(KEYS.to_vec())?;
        let source = Self::read_of(value, &table, shape, environment);
        table.finish();
        source
    }

    /// Reads `env` or `file` of a table that has further keys. The caller reads those and calls [`Section::finish`].
    pub(super) fn read_of(
        value: &Value<'_>,
        table: &Section<'_>,
        shape: Shape,
        environment: Environment<'_>,
    ) -> Option<Self> {
        let (variable, path) = (table.get("env"), table.get("file"));
        match (variable, path) {
            (Some(name), None) => {
                let Some(content) = environment(name.word()?).filter(|content| !content.is_empty()) else {
                    name.problem("names an environment variable that is not set");
                    return None;
                };
                match checked(&content.into_vec(), shape) {
                    Ok(secret) => Some(Self::Known(secret)),
                    Err(why) => {
                        name.problem(format_args!(
                            "names an environment variable whose value cannot be a secret: {why}"
                        ));
                        None
                    }
                }
            }
            (None, Some(path)) => {
                Some(Self::File { path: path.path_of_secret()?, shape, origin: path.origin() })
            }
            (Some(_), Some(_)) | (None, None) => {
                value.problem(format_args!("needs one of `env` and `file`: {FORM}"));
                None
            }
        }
    }

    /// Returns the secret, read from its file now.
    ///
    /// # Errors
    /// A problem at the setting that names the file.
    pub fn resolve(&self) -> Result<Secret, Problem> {
        match self {
            Self::Known(secret) => Ok(secret.clone()),
            Self::File { path, shape, origin } => read(path, *shape).map_err(|why| {
                let shown = shown_if_there(path);
                Problem::new(origin.clone(), format!("cannot use the secret in {shown}: {why}"))
            }),
        }
    }

    /// Returns the file that the secret is read from; `None` if it came from the environment.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Known(_) => None,
            Self::File { path, .. } => Some(path),
        }
    }
}

/// Tells the operator, in messages, how to name a secret in the configuration.
const FORM: &str = "write { file = \"/path\" } or { env = \"NAME\" }";

/// Reads a secret's file. PostgreSQL's rule for `ssl_key_file` applies: only the owner may read the file, or the file belongs to root and
/// its group may read it too. A symbolic link is refused, so that the owner and the mode that are checked are those of the named file.
fn read(path: &Path, shape: Shape) -> Result<Secret, String> {
    let (file, metadata) = owned_file::open_without_link(path)?;
    let is_own = metadata.uid() == rustix::process::geteuid().as_raw();
    let refused = if is_own { 0o077 } else { 0o037 };
    if metadata.mode() & refused != 0 {
        return Err(format!(
            "others may read or change it (mode {:04o}): `chmod {:04o}` it",
            metadata.mode() & 0o7777,
            metadata.mode() & 0o777 & !refused
        ));
    }
    checked(&content(file).map_err(|error| error.to_string())?, shape)
}

fn content(file: File) -> io::Result<Zeroizing<Vec<u8>>> {
    // The capacity holds the whole secret: a buffer that grows would leave copies of its parts in freed memory.
    let mut bytes = Zeroizing::new(Vec::with_capacity(LIMIT as usize + 3));
    file.take(LIMIT + 3).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Checks the content of a file or variable and returns the secret without the newline that editors add at the end.
fn checked(content: &[u8], shape: Shape) -> Result<Secret, String> {
    let secret = match shape {
        Shape::OpenPgpKey if content.trim_ascii().is_empty() => &[],
        Shape::OpenPgpKey => content,
        Shape::Line | Shape::JsonObject => {
            let secret = content.strip_suffix(b"\n").unwrap_or(content);
            secret.strip_suffix(b"\r").unwrap_or(secret)
        }
    };
    if secret.is_empty() {
        return Err("it is empty".to_owned());
    }
    if secret.len() as u64 > LIMIT {
        return Err(format!("it is longer than {LIMIT} bytes"));
    }
    match shape {
        Shape::Line if secret.contains(&0) => Err("it holds a NUL byte".to_owned()),
        Shape::Line if secret.contains(&b'\n') || secret.contains(&b'\r') => {
            Err("it holds more than one line".to_owned())
        }
        // The parser's own message would quote the content.
        Shape::JsonObject if serde_json::from_slice::<serde_json::Map<_, _>>(secret).is_err() => {
            Err("it is not a JSON object, and therefore not the key file of a service account".to_owned())
        }
        Shape::Line | Shape::JsonObject | Shape::OpenPgpKey => Ok(Secret::new(secret)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn in_file(content: &[u8], mode: u32, shape: Shape) -> Result<Vec<u8>, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), content).unwrap();
        fs::set_permissions(file.path(), Permissions::from_mode(mode)).unwrap();
        read(file.path(), shape).map(|secret| secret.expose().to_owned())
    }

    #[test]
    fn a_secret_is_the_files_content_without_the_last_newline() {
        assert_eq!(in_file(b"se cret", 0o600, Shape::Line).unwrap(), b"se cret");
        assert_eq!(in_file(b"\xFFcret\r\n", 0o400, Shape::Line).unwrap(), b"\xFFcret");
        assert_eq!(in_file(b"{\n\"a\": 1\n}\n", 0o600, Shape::JsonObject).unwrap(), b"{\n\"a\": 1\n}");
        assert_eq!(in_file(&vec![b'x'; LIMIT as usize], 0o600, Shape::Line).unwrap().len() as u64, LIMIT);
        let why = in_file(&vec![b'x'; LIMIT as usize + 1], 0o600, Shape::Line).unwrap_err();
        assert!(why.contains("longer than"), "{why}");
    }

    #[test]
    fn the_debug_output_of_a_secret_does_not_show_it() {
        let source = SecretSource::Known(Secret::new("swordfish"));
        assert!(!format!("{source:?}").contains("swordfish"));
        let why = in_file(b"\"swordfish\"", 0o600, Shape::JsonObject).unwrap_err();
        assert!(!why.contains("swordfish"), "{why}");
    }
}
