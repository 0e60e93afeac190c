//! What one run must not hand out of the texts that keys were derived from, wherever it reads them and writes to.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, PoisonError, RwLock};

use super::Blanked;
use crate::error::{Error, Kind};
use crate::keys::Key;
use crate::pipeline::Pipeline;
use crate::store::{Body, Object};

/// An object that was opened, by everything that tells it from others whatever it is called.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The store's address and the key in it, in one form.
    place: String,
    object: Object,
    /// Device and inode of a local file.
    file: Option<(u64, u64)>,
}

impl Seen {
    /// The object of this body.
    ///
    /// # Errors
    /// Where a local file cannot be looked at.
    pub fn of(store: &str, object: &Object, body: &Body) -> Result<Self, Error> {
        let file = match body.file() {
            Some((file, _)) => Some(file.metadata().map(|metadata| (metadata.dev(), metadata.ino()))?),
            None => None,
        };
        Ok(Self { place: place(store, &object.key), object: object.clone(), file })
    }

    /// Whether both are one object, under two names perhaps: one file, one place, or the same mark and size, which a copy has.
    fn is(&self, other: &Self) -> bool {
        let (one, two) = (&self.object, &other.object);
        self.place == other.place
            || (self.file.is_some() && self.file == other.file)
            || (one.etag.is_some() && one.size == two.size && one.etag == two.etag)
    }
}

/// An address without what does not tell places apart: `.` and empty components, the case of the host.
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

/// The derived keys of one run and the objects that they stand in. Clones share what they know.
#[derive(Clone, Debug, Default)]
pub struct Withheld(Arc<RwLock<Known>>);

#[derive(Debug, Default)]
struct Known {
    blanked: Blanked,
    sources: Vec<Source>,
    /// Whether a key stands in an object that is stored without encryption: then a part of any such object may be a part of
    /// the key.
    plain: bool,
}

#[derive(Debug)]
struct Source {
    seen: Seen,
    /// In which ways it was decoded when a key was derived from it.
    forms: Vec<Pipeline>,
}

impl Withheld {
    /// From now on this key, which was derived from this object, does not come out.
    ///
    /// # Errors
    /// As [`Blanked::add`].
    pub fn add(&self, key: &Key, seen: Seen, via: &Pipeline) -> Result<(), Error> {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.blanked.add(key)?;
        known.plain |= via.decrypt.is_none();
        match known.sources.iter_mut().find(|source| source.seen.is(&seen)) {
            Some(source) if source.forms.iter().any(|form| form.is_same(via)) => {}
            Some(source) => source.forms.push(via.clone()),
            None => known.sources.push(Source { seen, forms: vec![via.clone()] }),
        }
        Ok(())
    }

    /// Whether nothing was derived yet.
    pub fn is_empty(&self) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).blanked.is_empty()
    }

    /// What blanks the keys that are known now.
    pub fn blanked(&self) -> Blanked {
        self.0.read().unwrap_or_else(PoisonError::into_inner).blanked.clone()
    }

    /// Whether this object, or a range of it, may be read in this way: one from which a key was derived only as it was decoded
    /// then, for in any other form the key could be in it unblanked; and no range of what is not encrypted once a key was derived
    /// from such an object, for a range may begin or end within a key.
    ///
    /// # Errors
    /// `Denied` where it may not.
    pub fn may_read(&self, seen: &Seen, via: &Pipeline, ranged: bool) -> Result<(), Error> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut sources = known.sources.iter().filter(|source| source.seen.is(seen));
        if sources.any(|source| !source.forms.iter().any(|form| form.is_same(via))) {
            return Err(Error::new(
                Kind::Denied,
                "a key was derived from it, so it is read as it was decoded for that only",
            ));
        }
        known.no_range(via, ranged)
    }

    /// Whether this object, or a range of it, may be written where others read it: none from which a key was derived.
    ///
    /// # Errors
    /// `Denied` where it may not.
    pub fn may_keep(&self, seen: &Seen, via: &Pipeline, ranged: bool) -> Result<(), Error> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if known.sources.iter().any(|source| source.seen.is(seen)) {
            return Err(Error::new(Kind::Denied, "a key was derived from it, so it is not written"));
        }
        known.no_range(via, ranged)
    }

    /// `plain`, which fails before the first byte of a key that is known now.
    pub fn refusing(&self, plain: Box<dyn Read + Send>) -> Box<dyn Read + Send> {
        self.blanked().refusing(plain)
    }
}

impl Known {
    fn no_range(&self, via: &Pipeline, ranged: bool) -> Result<(), Error> {
        if self.plain && ranged && via.decrypt.is_none() {
            return Err(Error::new(
                Kind::Denied,
                "a key was derived from an object without encryption, so no part of such an object is read alone",
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

    fn seen(store: &str, key: &str, etag: Option<&str>, file: Option<(u64, u64)>) -> Seen {
        let object = Object { key: key.to_owned(), size: 7, modified: None, etag: etag.and_then(Etag::read) };
        Seen { place: place(store, key), object, file }
    }

    #[test]
    fn one_object_is_one_whatever_it_is_called() {
        let withheld = Withheld::default();
        let plain = Pipeline::default();
        withheld.add(&key(), seen("s3://b/pg", "x/info", Some("mark"), Some((1, 2))), &plain).unwrap();
        let other = Pipeline { decompress: Some(Codec::Gzip), ..Pipeline::default() };
        for same in [
            seen("S3://B/pg/", "x/info", None, None),
            seen("s3://b//pg/x", "info", None, None),
            seen("s3://b/pg/./x", "info", None, None),
            seen("https://cdn/", "other", Some("mark"), None),
            seen("/mnt/link", "other", None, Some((1, 2))),
        ] {
            withheld.may_read(&same, &plain, false).unwrap();
            assert_eq!(withheld.may_read(&same, &other, false).unwrap_err().kind, Kind::Denied, "{same:?}");
            assert_eq!(withheld.may_keep(&same, &plain, false).unwrap_err().kind, Kind::Denied, "{same:?}");
        }
        let another = seen("s3://b/pg", "y", Some("else"), Some((1, 3)));
        withheld.may_read(&another, &other, false).unwrap();
        withheld.may_keep(&another, &plain, false).unwrap();
        // A part of it might be a part of the key, for a copy has the same text.
        withheld.may_read(&another, &plain, true).unwrap_err();
        withheld.may_keep(&another, &plain, true).unwrap_err();
    }

    #[test]
    fn what_is_written_ends_before_the_first_byte_of_a_key() {
        let withheld = Withheld::default();
        withheld.add(&key(), seen("s3://b", "x", None, None), &Pipeline::default()).unwrap();
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
