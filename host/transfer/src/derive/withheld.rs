//! Tracks the derived keys of one run and the objects they were derived from, and decides which reads and writes are still allowed.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, PoisonError, RwLock};

use super::Blanked;
use crate::error::{Error, Kind};
use crate::keys::Key;
use crate::pipeline::Pipeline;
use crate::store::{Body, Object};

/// The identity of an opened object, independent of the name under which it was opened.
#[derive(Clone, Debug)]
pub struct ObjectIdentity {
    /// The store's URL and the object's key, normalized.
    place: String,
    object: Object,
    /// Device and inode of a local file.
    file: Option<(u64, u64)>,
}

impl ObjectIdentity {
    /// Returns the identity of the object that `body` reads.
    ///
    /// # Errors
    /// Fails if the metadata of a local file cannot be read.
    pub fn of(store: &str, object: &Object, body: &Body) -> Result<Self, Error> {
        let file = match body.file() {
            Some((file, _)) => Some(file.metadata().map(|metadata| (metadata.dev(), metadata.ino()))?),
            None => None,
        };
        Ok(Self { place: place(store, &object.key), object: object.clone(), file })
    }

    /// Returns whether both may be the same object: the same place, the same file, or the same etag and size, which a copy also has.
    fn is(&self, other: &Self) -> bool {
        let (one, two) = (&self.object, &other.object);
        self.place == other.place
            || (self.file.is_some() && self.file == other.file)
            || (one.etag.is_some() && one.size == two.size && one.etag == two.etag)
    }
}

/// Returns a URL and key in a normal form: without `.` and empty components, with scheme and host in lower case.
fn place(store: &str, key: &str) -> String {
    let (scheme, rest) = store.split_once("://").unwrap_or(("file", store));
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let mut place = format!("{}://{}", scheme.to_ascii_lowercase(), host.to_ascii_lowercase());
    for part in path.split('/').chain(key.split('/')).filter(|part| !matches!(*part, "" | ".")) {
        place.push('/');
        place.push_str(part);
    }
    place
}

/// The derived keys of one run and the objects that contain them: what the host withholds from the plugin. Clones share their
/// state.
#[derive(Clone, Debug, Default)]
pub struct Withheld(Arc<RwLock<Known>>);

#[derive(Debug, Default)]
struct Known {
    blanked: Blanked,
    sources: Vec<Source>,
    /// Whether a key was derived from an object that is stored without encryption. Then a range of any unencrypted object may be a
    /// part of the key.
    plain: bool,
}

#[derive(Debug)]
struct Source {
    identity: ObjectIdentity,
    /// The pipelines with which keys were derived from it.
    forms: Vec<Pipeline>,
}

impl Withheld {
    /// Withholds a key that was derived from this object through `via`.
    ///
    /// # Errors
    /// The errors of [`Blanked::add`].
    pub fn add(&self, key: &Key, identity: ObjectIdentity, via: &Pipeline) -> Result<(), Error> {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.blanked.add(key)?;
        known.plain |= via.decrypt.is_none();
        match known.sources.iter_mut().find(|source| source.identity.is(&identity)) {
            Some(source) if source.forms.iter().any(|form| form.is_same(via)) => {}
            Some(source) => source.forms.push(via.clone()),
            None => known.sources.push(Source { identity, forms: vec![via.clone()] }),
        }
        Ok(())
    }

    /// Returns whether no key was derived yet.
    pub fn is_empty(&self) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).blanked.is_empty()
    }

    /// Returns the set of the keys that were derived so far.
    pub fn blanked(&self) -> Blanked {
        self.0.read().unwrap_or_else(PoisonError::into_inner).blanked.clone()
    }

    /// Checks whether a plugin may read this object, or a range of it, through `via`. An object from which a key was derived may be
    /// read only with the same pipeline, because in another encoding the key would not be blanked. Once a key was derived from an
    /// unencrypted object, no range of an unencrypted object may be read, because the range may begin or end within a key.
    ///
    /// # Errors
    /// `Denied` if the plugin may not read the object.
    pub fn may_read(&self, identity: &ObjectIdentity, via: &Pipeline, ranged: bool) -> Result<(), Error> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut sources = known.sources.iter().filter(|source| source.identity.is(identity));
        if sources.any(|source| !source.forms.iter().any(|form| form.is_same(via))) {
            return Err(Error::new(
                Kind::Denied,
                "a key was derived from it, so it can be read only with the same `decrypt` and `decompress`",
            ));
        }
        known.no_range(via, ranged)
    }

    /// Checks whether this object, or a range of it, may be written to a file. An object from which a key was derived may not be written.
    ///
    /// # Errors
    /// `Denied` if the object may not be written.
    pub fn may_keep(&self, identity: &ObjectIdentity, via: &Pipeline, ranged: bool) -> Result<(), Error> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if known.sources.iter().any(|source| source.identity.is(identity)) {
            return Err(Error::new(
                Kind::Denied,
                "a key was derived from it, so it cannot be written to a file",
            ));
        }
        known.no_range(via, ranged)
    }

    /// Returns a reader of `plain` that fails before the first byte of a key that was derived so far.
    pub fn refusing(&self, plain: Box<dyn Read + Send>) -> Box<dyn Read + Send> {
        self.blanked().refusing(plain)
    }
}

impl Known {
    fn no_range(&self, via: &Pipeline, ranged: bool) -> Result<(), Error> {
        if self.plain && ranged && via.decrypt.is_none() {
            return Err(Error::new(
                Kind::Denied,
                "a key was derived from an unencrypted object, so ranges of unencrypted objects cannot be read",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::codec::Codec;
    use crate::derive::derive_key;
    use crate::store::Etag;

    const KEY: &str = "0123456789abcdef-key";

    fn key() -> Key {
        derive_key(format!("[c]\nk=\"{KEY}\"\n").as_bytes(), "c", "k").unwrap()
    }

    fn identity(store: &str, key: &str, etag: Option<&str>, file: Option<(u64, u64)>) -> ObjectIdentity {
        let object = Object { key: key.to_owned(), size: 7, modified: None, etag: etag.and_then(Etag::read) };
        ObjectIdentity { place: place(store, key), object, file }
    }

    #[test]
    fn an_object_is_recognised_under_any_name() {
        let withheld = Withheld::default();
        let plain = Pipeline::default();
        withheld.add(&key(), identity("s3://b/pg", "x/info", Some("mark"), Some((1, 2))), &plain).unwrap();
        let other = Pipeline { decompress: Some(Codec::Gzip), ..Pipeline::default() };
        for same in [
            identity("S3://B/pg/", "x/info", None, None),
            identity("s3://b//pg/x", "info", None, None),
            identity("s3://b/pg/./x", "info", None, None),
            identity("https://cdn/", "other", Some("mark"), None),
            identity("/mnt/link", "other", None, Some((1, 2))),
        ] {
            withheld.may_read(&same, &plain, false).unwrap();
            assert_eq!(withheld.may_read(&same, &other, false).unwrap_err().kind, Kind::Denied, "{same:?}");
            assert_eq!(withheld.may_keep(&same, &plain, false).unwrap_err().kind, Kind::Denied, "{same:?}");
        }
        let another = identity("s3://b/pg", "y", Some("else"), Some((1, 3)));
        withheld.may_read(&another, &other, false).unwrap();
        withheld.may_keep(&another, &plain, false).unwrap();
        // A range of a copy may be part of the key, because the copy has the same text.
        withheld.may_read(&another, &plain, true).unwrap_err();
        withheld.may_keep(&another, &plain, true).unwrap_err();
    }

    #[test]
    fn a_reader_for_files_fails_before_the_first_byte_of_a_key() {
        let withheld = Withheld::default();
        withheld.add(&key(), identity("s3://b", "x", None, None), &Pipeline::default()).unwrap();
        for before in [0, 1, 1000, (64 << 10) - 7, 200_000] {
            let text = [vec![b'x'; before], KEY.as_bytes().to_vec(), vec![b'y'; 1000]].concat();
            let mut got = Vec::new();
            let failed =
                withheld.refusing(Box::new(io::Cursor::new(text))).read_to_end(&mut got).unwrap_err();
            assert_eq!(Error::from(failed).kind, Kind::Denied);
            assert!(got.iter().all(|byte| *byte == b'x') && got.len() <= before, "{before}");
        }
        let mut got = Vec::new();
        withheld.refusing(Box::new(io::Cursor::new(vec![b'x'; 200_000]))).read_to_end(&mut got).unwrap();
        assert_eq!(got.len(), 200_000);
    }
}
