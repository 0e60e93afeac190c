//! Reads one repository: opens the store, decrypts texts, and uses the copy that pgBackRest keeps of each text.
//!
//! An encrypted repository has a chain of keys. The repository's pass phrase decrypts `backup.info` and `archive.info`. The key in
//! `backup.info` decrypts the manifests, the key in a manifest decrypts the files of that set of backups, and the key in `archive.info`
//! decrypts the archive. The host keeps all keys; the component has only handles.

use std::io::Read;

use understudy::keys::Key;
use understudy::store::{Bucket, CipherFormat, Codec, Pipeline, Range};
use understudy::{Error, Failure, log};

use crate::ini::{self, CIPHER_PASS, CIPHER_SECTION, Visitor};

/// How an encrypted text begins (OpenSSL's `enc`).
const SALTED: &[u8; 8] = b"Salted__";

/// A granted store with a repository.
#[derive(Debug)]
pub(crate) struct Repository {
    pub(crate) bucket: Bucket,
    pub(crate) stanza: String,
}

/// The format in which pgBackRest stores compressed and encrypted data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrapping {
    /// The format of an object, and of the files in most bundles.
    Whole,
    /// The format of files in raw bundles: a zlib header instead of a gzip header, and the salt without `Salted__` (`raw` in pgBackRest's
    /// src/common/compress/gz/compress.c and src/common/crypto/cipherBlock.c). The other codecs have one format.
    Raw,
}

/// The key that decrypts a text.
#[derive(Clone, Copy, Debug)]
pub(crate) enum TextKey<'a> {
    /// The pass phrase of the repository, if the text is encrypted.
    PassPhrase,
    /// A key from another text, if the repository is encrypted.
    Held(Option<&'a Key>),
}

/// A text that was read.
#[derive(Debug)]
pub(crate) struct Loaded<T> {
    pub(crate) contents: T,
    /// The key in the text, if the repository is encrypted.
    pub(crate) key: Option<Key>,
}

impl Repository {
    /// Opens the store `grants.stores.NAME` for the stanza `stanza`.
    ///
    /// # Errors
    /// The error of the host.
    pub(crate) fn open(name: &str, stanza: &str) -> Result<Self, Failure> {
        if name.starts_with('/') {
            return Err(Failure::failed(format!(
                "`{name}` in the option `repositories` is a path: write the name of a store, which is granted as \
                 stores.NAME = {{ url = \"file://{name}\" }}"
            )));
        }
        let bucket = Bucket::open(name).map_err(|error| match error {
            Error::NotFound(what) => {
                Failure::not_applicable(format!("there is no repository {name}: {what}"))
            }
            error => error.into(),
        })?;
        Ok(Self { bucket, stanza: stanza.to_owned() })
    }

    /// Names the object `key` in a message.
    pub(crate) fn shown(&self, key: &str) -> String {
        format!("{}:{key}", self.bucket.name())
    }

    /// Returns the folder of the backups, or of the backup with this label.
    pub(crate) fn backup(&self, label: &str) -> String {
        if label.is_empty() {
            format!("backup/{}", self.stanza)
        } else {
            format!("backup/{}/{label}", self.stanza)
        }
    }

    /// Returns the path of `below` in the archive's folder.
    pub(crate) fn archive(&self, below: &str) -> String {
        format!("archive/{}/{below}", self.stanza)
    }

    /// Returns the pipeline for this key, codec and wrapping; `None` if the stored bytes are plain.
    pub(crate) fn pipeline(key: Option<&Key>, codec: Option<Codec>, wrapping: Wrapping) -> Option<Pipeline> {
        let (cipher, codec) = match (wrapping, codec) {
            (Wrapping::Whole, codec) => (CipherFormat::OpensslSha1, codec),
            (Wrapping::Raw, Some(Codec::Gzip)) => (CipherFormat::SaltOnlySha1, Some(Codec::Zlib)),
            (Wrapping::Raw, codec) => (CipherFormat::SaltOnlySha1, codec),
        };
        let decrypting = key.map(|key| Pipeline::new().decrypt(key, cipher));
        match (decrypting, codec) {
            (None, None) => None,
            (pipeline, None) => pipeline,
            (pipeline, Some(codec)) => Some(pipeline.unwrap_or_default().decompress(codec)),
        }
    }

    /// Reads the object `key`, or its `.copy` if the object cannot be used, with a visitor from `fresh`; `None` if neither exists.
    ///
    /// # Errors
    /// If neither can be used, the error describes the problem with the object.
    pub(crate) fn load<T: Visitor>(
        &self,
        key: &str,
        text_key: TextKey<'_>,
        fresh: &mut dyn FnMut() -> T,
    ) -> Result<Option<Loaded<T>>, Failure> {
        let first = self.load_one(key, text_key, fresh());
        match &first {
            Ok(Some(_)) | Err(Failure::RetryLater(_) | Failure::Cancelled) => return first,
            Ok(None) | Err(_) => {}
        }
        let copy = format!("{key}.copy");
        let second = match self.load_one(&copy, text_key, fresh()) {
            Err(failure @ (Failure::RetryLater(_) | Failure::Cancelled)) => return Err(failure),
            Err(_) | Ok(None) => return first,
            Ok(Some(loaded)) => loaded,
        };
        let why =
            first.map_or_else(|failure| failure.to_string(), |_| format!("{} is missing", self.shown(key)));
        log::warn!("took {} instead: {why}", self.shown(&copy));
        Ok(Some(second))
    }

    fn load_one<T: Visitor>(
        &self,
        key: &str,
        text_key: TextKey<'_>,
        mut visitor: T,
    ) -> Result<Option<Loaded<T>>, Failure> {
        let shown = self.shown(key);
        let named = match text_key {
            TextKey::PassPhrase => match self.is_encrypted(key)? {
                None => return Ok(None),
                Some(false) => None,
                Some(true) => Some(self.granted_key()?),
            },
            // Checked first, because a missing text must not be reported as one that cannot be decrypted.
            TextKey::Held(Some(_)) if self.bucket.find(key)?.is_none() => return Ok(None),
            TextKey::Held(_) => None,
        };
        let key_of_text = match text_key {
            TextKey::PassPhrase => named.as_ref(),
            TextKey::Held(held) => held,
        };
        let pipeline = Self::pipeline(key_of_text, None, Wrapping::Whole);
        let held = match &pipeline {
            None => None,
            Some(pipeline) => match self.bucket.derive_key(key, pipeline, CIPHER_SECTION, CIPHER_PASS) {
                Ok(held) => Some(held),
                Err(error) => return Err(self.why_not_opened(&shown, text_key, error)),
            },
        };
        let stream = match self.bucket.read(key, None, pipeline.as_ref()) {
            Err(Error::NotFound(_)) => return Ok(None),
            stream => stream?,
        };
        ini::read(&shown, stream, held.as_ref(), &mut visitor)?;
        Ok(Some(Loaded { contents: visitor, key: held }))
    }

    /// Returns whether the object `key` is encrypted; `None` if it does not exist.
    fn is_encrypted(&self, key: &str) -> Result<Option<bool>, Failure> {
        let mut beginning = Vec::new();
        let range = Range { offset: 0, length: SALTED.len() as u64 };
        let object = match self.bucket.find(key)? {
            None => return Ok(None),
            Some(object) if object.size < range.length => return Ok(Some(false)),
            Some(_) => self.bucket.read(key, Some(range), None)?,
        };
        object.take(range.length).read_to_end(&mut beginning)?;
        Ok(Some(beginning == SALTED))
    }

    /// Returns the pass phrase of the repository.
    fn granted_key(&self) -> Result<Key, Failure> {
        let name = self.bucket.name();
        Key::named(name).map_err(|error| match error {
            Error::Denied(_) => Failure::failed(format!(
                "the repository {name} is encrypted and its pass phrase, repo-cipher-pass in pgbackrest.conf, is not \
                 granted: add keys.{name} = {{ file = \"/path\" }} to the grants of this method"
            )),
            error => error.into(),
        })
    }

    /// Returns the failure for a text that exists but cannot be decrypted.
    fn why_not_opened(&self, shown: &str, text_key: TextKey<'_>, error: Error) -> Failure {
        let name = self.bucket.name();
        match error {
            // Decrypting a text with a wrong key leads to one of these errors.
            Error::NotFound(_) | Error::Corrupt(_) | Error::Invalid(_) => {}
            error => return error.into(),
        }
        Failure::failed(match text_key {
            TextKey::PassPhrase => format!(
                "{shown} does not open with the pass phrase of grants.keys.{name}: it is not the repo-cipher-pass of \
                 this repository, or the object is damaged"
            ),
            TextKey::Held(_) => {
                format!("{shown} does not open with the key that the repository holds for it: it is damaged")
            }
        })
    }
}
