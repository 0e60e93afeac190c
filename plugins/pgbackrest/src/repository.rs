//! One repository: its store, how its texts are encrypted, and the second copy that pgBackRest keeps of each.
//!
//! An encrypted repository is a chain: the pass phrase of the repository opens `backup.info` and `archive.info`, the one
//! that stands in `backup.info` opens the manifests, the one in a manifest the files of that set of backups, the one in
//! `archive.info` the archive. The host keeps them all: here they are keys without bytes.

use std::io::Read;

use understudy::keys::Key;
use understudy::store::{Bucket, CipherFormat, Codec, Pipeline, Range};
use understudy::{Error, Failure, log};

use crate::ini::{self, CIPHER_PASS, CIPHER_SECTION, Visitor};

/// How the text of an encrypted repository begins (OpenSSL's `enc`).
const SALTED: &[u8; 8] = b"Salted__";

/// A granted store that holds a repository.
#[derive(Debug)]
pub(crate) struct Repository {
    pub(crate) bucket: Bucket,
    pub(crate) stanza: String,
}

/// How pgBackRest wraps what it compresses and encrypts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrapping {
    /// As every object of its own, and the files of most bundles.
    Whole,
    /// As the files of raw bundles: zlib's header and not gzip's, the salt without `Salted__` (`raw` in pgBackRest's
    /// src/common/compress/gz/compress.c and src/common/crypto/cipherBlock.c). The other codecs write what they read either way.
    Raw,
}

/// With what a text is opened.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lock<'a> {
    /// The pass phrase of the repository, where the text is encrypted.
    Repository,
    /// A key that another text held, if the repository is encrypted.
    Held(Option<&'a Key>),
}

/// A text that was read.
#[derive(Debug)]
pub(crate) struct Loaded<T> {
    pub(crate) contents: T,
    /// The key that it holds, of an encrypted repository.
    pub(crate) key: Option<Key>,
}

impl Repository {
    /// Opens the store `grants.stores.NAME` for the stanza `stanza`.
    ///
    /// # Errors
    /// What the host answers.
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

    /// How a message calls the object `key`.
    pub(crate) fn shown(&self, key: &str) -> String {
        format!("{}:{key}", self.bucket.name())
    }

    /// The folder of the backups, or of the one with this label.
    pub(crate) fn backup(&self, label: &str) -> String {
        if label.is_empty() {
            format!("backup/{}", self.stanza)
        } else {
            format!("backup/{}/{label}", self.stanza)
        }
    }

    /// The folder of the archive, or of what is below it.
    pub(crate) fn archive(&self, below: &str) -> String {
        format!("archive/{}/{below}", self.stanza)
    }

    /// How the stored bytes become plain bytes.
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

    /// Reads the text `key` with the visitors that `fresh` makes: the object, else its `.copy`; none where there is
    /// neither.
    ///
    /// # Errors
    /// What is wrong with the object where both cannot be used.
    pub(crate) fn load<T: Visitor>(
        &self,
        key: &str,
        lock: Lock<'_>,
        fresh: &mut dyn FnMut() -> T,
    ) -> Result<Option<Loaded<T>>, Failure> {
        let first = self.load_one(key, lock, fresh());
        match &first {
            Ok(Some(_)) | Err(Failure::RetryLater(_) | Failure::Cancelled) => return first,
            Ok(None) | Err(_) => {}
        }
        let copy = format!("{key}.copy");
        let second = match self.load_one(&copy, lock, fresh()) {
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
        lock: Lock<'_>,
        mut visitor: T,
    ) -> Result<Option<Loaded<T>>, Failure> {
        let shown = self.shown(key);
        let named = match lock {
            Lock::Repository => match self.is_encrypted(key)? {
                None => return Ok(None),
                Some(false) => None,
                Some(true) => Some(self.granted_key()?),
            },
            // What its key says of a text that is missing is not what it says of one that does not open.
            Lock::Held(Some(_)) if self.bucket.find(key)?.is_none() => return Ok(None),
            Lock::Held(_) => None,
        };
        let key_of_text = match lock {
            Lock::Repository => named.as_ref(),
            Lock::Held(held) => held,
        };
        let pipeline = Self::pipeline(key_of_text, None, Wrapping::Whole);
        let held = match &pipeline {
            None => None,
            Some(pipeline) => match self.bucket.derive_key(key, pipeline, CIPHER_SECTION, CIPHER_PASS) {
                Ok(held) => Some(held),
                Err(error) => return Err(self.why_not_opened(&shown, lock, error)),
            },
        };
        let stream = match self.bucket.read(key, None, pipeline.as_ref()) {
            Err(Error::NotFound(_)) => return Ok(None),
            stream => stream?,
        };
        ini::read(&shown, stream, held.as_ref(), &mut visitor)?;
        Ok(Some(Loaded { contents: visitor, key: held }))
    }

    /// Whether the object `key` is encrypted; none where there is no such object.
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

    /// The pass phrase of the repository.
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

    /// What to say of a text that is there and does not open.
    fn why_not_opened(&self, shown: &str, lock: Lock<'_>, error: Error) -> Failure {
        let name = self.bucket.name();
        match error {
            // What it becomes with a wrong key has no such line.
            Error::NotFound(_) | Error::Corrupt(_) | Error::Invalid(_) => {}
            error => return error.into(),
        }
        Failure::failed(match lock {
            Lock::Repository => format!(
                "{shown} does not open with the pass phrase of grants.keys.{name}: it is not the repo-cipher-pass of \
                 this repository, or the object is damaged"
            ),
            Lock::Held(_) => {
                format!("{shown} does not open with the key that the repository holds for it: it is damaged")
            }
        })
    }
}
