//! Stores that hold backups: the stores that the operator granted, and the granted directories, whose files are objects.
//!
//! ```
//! use std::io::Read;
//! use understudy::store::{Bucket, Codec, Pipeline};
//! use understudy::{Error, Failure};
//!
//! /// The first bytes of the newest object below `nightly/`, decompressed.
//! fn beginning(bucket: &Bucket) -> Result<Vec<u8>, Failure> {
//!     let mut newest = None;
//!     for object in bucket.objects("nightly") {
//!         let object = object?;
//!         newest = newest.max(Some((object.modified, object.key)));
//!     }
//!     let Some((_, key)) = newest else { return Err(Failure::not_applicable("there is no backup")) };
//!     let mut bytes = Vec::new();
//!     bucket.read(&key, None, Some(&Pipeline::new().decompress(Codec::Zstd)))?.take(512).read_to_end(&mut bytes)?;
//!     Ok(bytes)
//! }
//! ```

use std::io::{self, Read};

use crate::host::data;
use crate::keys::Key;
use crate::{Error, Failure};

pub use crate::raw::understudy::method::store::{CipherFormat, Codec, Object, Range};

/// How many bytes a [`Stream`] requests from the host at a time.
const CHUNK: u64 = 256 << 10;

/// A store that the operator granted.
pub struct Bucket {
    pub(crate) inner: data::Bucket,
    name: String,
}

impl Bucket {
    /// Opens the store `grants.stores.NAME` by its name, or a directory by its absolute path if `grants.read` contains it or one above it.
    ///
    /// # Errors
    /// [`Error::Denied`] if no grant covers the store or directory, [`Error::NotFound`] if the directory does not exist.
    pub fn open(name: &str) -> Result<Self, Error> {
        Ok(Self { inner: data::Bucket::open(name)?, name: name.to_owned() })
    }

    /// Returns the name with which the store was opened.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Lists every object whose key begins with the text `prefix`, or all if `prefix` is empty, in the order of their keys. To list the
    /// objects of a folder alone, end `prefix` with `/`: `a` is also the beginning of `ab/c`. Requests one page at a time.
    pub fn objects<'a>(&'a self, prefix: &'a str) -> Objects<'a> {
        Objects { bucket: self, prefix, page: Vec::new().into_iter(), after: None, more: true }
    }

    /// Returns the metadata of one object.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the object does not exist; otherwise the error of the store.
    pub fn head(&self, key: &str) -> Result<Object, Error> {
        Ok(self.inner.head(key)?)
    }

    /// Returns the metadata of one object; `None` if it does not exist.
    ///
    /// # Errors
    /// The error of the store, except [`Error::NotFound`].
    pub fn find(&self, key: &str) -> Result<Option<Object>, Error> {
        match self.head(key) {
            Err(Error::NotFound(_)) => Ok(None),
            other => other.map(Some),
        }
    }

    /// Reads the whole plain text of an object, of at most `limit` bytes and at most 4 MiB.
    ///
    /// # Errors
    /// [`Error::Limit`] if the text is larger; otherwise the error of the store.
    pub fn get(&self, key: &str, via: Option<&Pipeline>, limit: u32) -> Result<Vec<u8>, Error> {
        Ok(self.inner.get(key, via.map(|via| &via.0), limit)?)
    }

    /// Opens a stream of the plain text of an object, or of a range of its stored bytes.
    ///
    /// # Errors
    /// The error of the store.
    pub fn read(&self, key: &str, range: Option<Range>, via: Option<&Pipeline>) -> Result<Stream, Error> {
        let inner = data::Stream::open(&self.inner, key, range, via.map(|via| &via.0))?;
        Ok(Stream { inner, chunk: Vec::new(), at: 0 })
    }

    /// Derives a key: the one JSON string after `name=` in the INI section `section` of the object's plain text. From then on the host
    /// blanks the key with `*` in everything that the method reads from any store.
    ///
    /// # Errors
    /// Fails if there is no such string, or more than one.
    pub fn derive_key(&self, key: &str, via: &Pipeline, section: &str, name: &str) -> Result<Key, Error> {
        Ok(Key(self.inner.derive_key(key, &via.0, section, name)?))
    }
}

impl std::fmt::Debug for Bucket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Bucket").field(&self.name).finish()
    }
}

/// The objects of a listing. The iterator ends after the first error.
pub struct Objects<'a> {
    bucket: &'a Bucket,
    prefix: &'a str,
    page: std::vec::IntoIter<Object>,
    after: Option<String>,
    more: bool,
}

impl Iterator for Objects<'_> {
    type Item = Result<Object, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(object) = self.page.next() {
                return Some(Ok(object));
            }
            if !self.more {
                return None;
            }
            match data::scan(&self.bucket.inner, self.prefix, self.after.as_deref()) {
                Ok((objects, next)) => {
                    self.page = objects.into_iter();
                    self.more = next.is_some();
                    self.after = next;
                }
                Err(error) => {
                    self.more = false;
                    return Some(Err(error.into()));
                }
            }
        }
    }
}

impl std::fmt::Debug for Objects<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Objects").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// How stored bytes become plain bytes: they are decrypted, then decompressed. A new pipeline does neither.
pub struct Pipeline(pub(crate) data::Pipeline);

impl Pipeline {
    /// Makes a pipeline that changes nothing.
    pub fn new() -> Self {
        Self(data::Pipeline::new())
    }

    /// Adds decryption, which comes before decompression.
    #[must_use]
    pub fn decrypt(self, key: &Key, format: CipherFormat) -> Self {
        self.0.decrypt(&key.0, format);
        self
    }

    /// Adds decompression.
    #[must_use]
    pub fn decompress(self, codec: Codec) -> Self {
        self.0.decompress(codec);
        self
    }
}

impl Default for Pipeline {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pipeline")
    }
}

/// The plain bytes of an object. An error of the store or of a codec is a [`Failure`] within the [`io::Error`], and names the object.
pub struct Stream {
    inner: data::Stream,
    chunk: Vec<u8>,
    at: usize,
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if into.is_empty() {
            return Ok(0);
        }
        while self.at == self.chunk.len() {
            match self.inner.next(CHUNK) {
                Ok(Some(chunk)) => (self.chunk, self.at) = (chunk, 0),
                Ok(None) => return Ok(0),
                Err(_) if crate::is_cancelled() => return Err(Failure::Cancelled.into()),
                Err(what) => return Err(Failure::failed(what).into()),
            }
        }
        let count = into.len().min(self.chunk.len() - self.at);
        into[..count].copy_from_slice(&self.chunk[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stream")
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::native::Host;

    #[test]
    fn a_granted_directory_is_a_store_of_its_files() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("backups/one")).unwrap();
        for number in 0..2500 {
            fs::write(dir.path().join(format!("backups/one/{number:04}")), number.to_string()).unwrap();
        }
        fs::write(dir.path().join("backups/zero"), "0123456789").unwrap();
        let (_, _) = Host::new("/data").granted([dir.path().join("backups")]).run(|| {
            let bucket = Bucket::open(dir.path().join("backups").to_str().unwrap()).unwrap();
            let keys: Vec<_> = bucket.objects("").map(|object| object.unwrap().key).collect();
            assert_eq!((keys.len(), keys[0].as_str(), keys[2500].as_str()), (2501, "one/0000", "zero"));
            assert_eq!(bucket.objects("one").count(), 2500);
            // A prefix is a text and not a folder.
            for (prefix, count) in
                [("one/", 2500), ("one/00", 100), ("zer", 1), ("zero", 1), ("zero/", 0), ("x/y", 0)]
            {
                assert_eq!(bucket.objects(prefix).count(), count, "{prefix}");
            }
            assert_eq!(bucket.head("zero").unwrap().size, 10);
            assert!(bucket.find("one/9999").unwrap().is_none());
            let mut text = String::new();
            let range = Range { offset: 3, length: 4 };
            bucket.read("zero", Some(range), None).unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "3456");
            assert_eq!(bucket.get("zero", None, 10).unwrap(), b"0123456789");
            assert!(matches!(bucket.get("zero", None, 9), Err(Error::Limit(_))));
        });
    }

    #[test]
    fn a_directory_that_is_not_granted_is_denied() {
        let (result, _) = Host::new("/data").granted([]).run(|| Bucket::open("/tmp").map(drop));
        assert!(matches!(result, Err(Error::Denied(_))), "{result:?}");
    }
}
