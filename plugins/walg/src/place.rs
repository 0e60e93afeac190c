//! The storage from which backups are read. The options `directory` or `store`, `prefix` and `key` name it.

use std::fmt;

use understudy::keys::Key;
use understudy::store::{Bucket, CipherFormat, Codec, Pipeline};
use understudy::{Error, Failure, Request, is_granted};

/// The folder of the backups, and of the write-ahead log (`BaseBackupPath` and `WalPath` in WAL-G's utility/utility.go).
const BACKUPS: &str = "basebackups_005";
const WAL: &str = "wal_005";

/// A folder of a granted directory or store.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) bucket: Bucket,
    /// The folder in the bucket, without a `/` at either end; empty for the whole bucket.
    folder: String,
    /// Whether the place is a directory on this machine.
    is_local: bool,
    /// The key of an encrypted storage. WAL-G encrypts archives and WAL, and no JSON.
    cipher: Option<(Key, CipherFormat)>,
}

impl Place {
    /// Opens the place that the options name. `format` is the format in which an encrypted storage is encrypted.
    ///
    /// # Errors
    /// [`Failure::NotApplicable`] if the directory does not exist; [`Failure::Failed`] if the options contradict each other or something is
    /// not granted.
    pub(crate) fn of(request: &Request, format: CipherFormat) -> Result<Self, Failure> {
        let (name, is_local) = match (request.get::<String>("directory")?, request.get::<String>("store")?) {
            (Some(directory), None) => (directory, true),
            (None, Some(store)) => (store, false),
            _ => {
                return Err(Failure::failed("set one of the options `directory` and `store`, and not both"));
            }
        };
        let key = request.get::<String>("key")?;
        let folder = folder_of(request)?;
        // `Bucket::open` tells a directory, which has an absolute path, from a store, which has a name.
        if is_local && !is_granted(&name) {
            return Err(Failure::failed(format!(
                "{name} is not granted: add it to `grants.read` of this method, as an absolute path without `..`"
            )));
        }
        if is_local && key.is_some() {
            return Err(Failure::failed(format!(
                "a key decrypts only the objects of a store: grant {name} as stores.NAME = {{ url = \"file://{name}\" }}, and \
                 set `store` instead of `directory`"
            )));
        }
        if !is_local && name.starts_with('/') {
            return Err(Failure::failed(format!(
                "`store = \"{name}\"` is a path: write it as `directory`, or the name of a store"
            )));
        }
        let bucket = match Bucket::open(&name) {
            Err(Error::NotFound(_)) if is_local => {
                return Err(Failure::not_applicable(format!("there is no directory {name}")));
            }
            opened => opened?,
        };
        let cipher = match key {
            None => None,
            Some(key) => Some((Key::named(&key)?, format)),
        };
        Ok(Self { bucket, folder, is_local, cipher })
    }

    /// Returns the key of `name` in the folder of the backups.
    pub(crate) fn backups(&self, name: &str) -> String {
        below(&below(&self.folder, BACKUPS), name)
    }

    /// Returns the key of `name` in the folder of the write-ahead log.
    pub(crate) fn wal(&self, name: &str) -> String {
        below(&below(&self.folder, WAL), name)
    }

    /// Returns the pipeline that decrypts and decompresses an archive or WAL; `None` if the stored bytes are plain.
    pub(crate) fn pipeline(&self, codec: Option<Codec>) -> Option<Pipeline> {
        let decrypting = self.cipher.as_ref().map(|(key, format)| Pipeline::new().decrypt(key, *format));
        match codec {
            None => decrypting,
            Some(codec) => Some(decrypting.unwrap_or_default().decompress(codec)),
        }
    }

    /// Returns whether archives and WAL are decrypted.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.cipher.is_some()
    }

    /// Names the object `key` in a message.
    pub(crate) fn shown(&self, key: &str) -> String {
        let name = self.bucket.name();
        if self.is_local { format!("{}/{key}", name.trim_end_matches('/')) } else { format!("{name}:{key}") }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown(&self.backups("")))
    }
}

/// Returns the path of `name` below `folder`.
fn below(folder: &str, name: &str) -> String {
    match (folder, name) {
        ("", name) => name.to_owned(),
        (folder, "") => folder.to_owned(),
        (folder, name) => format!("{folder}/{name}"),
    }
}

/// Reads the option `prefix`, which must name a folder; empty if the option is not set.
fn folder_of(request: &Request) -> Result<String, Failure> {
    let Some(text) = request.get::<String>("prefix")? else { return Ok(String::new()) };
    let folder = text.trim_end_matches('/');
    if folder.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(Failure::failed(format!(
            "`prefix = \"{}\"` is not a folder below the directory or the store",
            text.escape_debug()
        )));
    }
    Ok(folder.to_owned())
}
