//! The storage from which backups are read. The options `directory` or `store`, `prefix` and `key` name it.

use std::fmt;

use restore::folder::{self, Folder, below};
use understudy::keys::Key;
use understudy::store::{CipherFormat, Codec, Pipeline};
use understudy::{Failure, Request};

/// The folder of the backups, and of the write-ahead log (`BaseBackupPath` and `WalPath` in WAL-G's utility/utility.go).
const BACKUPS: &str = "basebackups_005";
const WAL: &str = "wal_005";

/// A folder of a granted directory or store.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) at: Folder,
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
        let key = request.get::<String>("key")?;
        let at = Folder::open(request, folder::option(request, "prefix")?.unwrap_or_default())?;
        if at.is_local && key.is_some() {
            let name = at.bucket.name();
            return Err(Failure::failed(format!(
                "a key decrypts only the objects of a store: grant {name} as stores.NAME = {{ url = \"file://{name}\" }}, and \
                 set `store` instead of `directory`"
            )));
        }
        let cipher = match key {
            None => None,
            Some(key) => Some((Key::named(&key)?, format)),
        };
        Ok(Self { at, cipher })
    }

    /// Returns the key of `name` in the folder of the backups.
    pub(crate) fn backups(&self, name: &str) -> String {
        below(&self.at.key(BACKUPS), name)
    }

    /// Returns the key of `name` in the folder of the write-ahead log.
    pub(crate) fn wal(&self, name: &str) -> String {
        below(&self.at.key(WAL), name)
    }

    /// Returns the pipeline that decrypts and decompresses an archive or WAL; `None` if the stored bytes are plain.
    pub(crate) fn pipeline(&self, codec: Option<Codec>) -> Option<Pipeline> {
        let decrypting = self.cipher.as_ref().map(|(key, format)| Pipeline::new().decrypt(key, *format));
        match codec {
            None => decrypting,
            Some(codec) => Some(decrypting.unwrap_or_default().decompress(codec)),
        }
    }

    /// Returns the format in which archives and WAL are decrypted; `None` if they are not.
    pub(crate) fn decrypts(&self) -> Option<CipherFormat> {
        self.cipher.as_ref().map(|(_, format)| *format)
    }

    /// Names the object `key` in a message.
    pub(crate) fn shown(&self, key: &str) -> String {
        self.at.shown(key)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown(&self.backups("")))
    }
}
