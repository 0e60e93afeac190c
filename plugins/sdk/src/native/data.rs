//! A stand-in for the data plane, for tests of a method. Stores are directories, and files are copied when they are added. The stand-in
//! decodes gzip, zlib, lz4 and zstd. It neither decrypts nor unpacks nor checks pages; a method that needs any of it must be tested with
//! the real host.

mod assembly;
mod decoding;

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use sha2::digest::DynDigest;

use decoding::Decoding;
pub(crate) use decoding::Pipeline;

use super::with;
use crate::raw::understudy::method::digests::{Algorithm, Digest};
use crate::raw::understudy::method::store::{Object, Range};
use crate::raw::understudy::method::transfer::{
    Action, Assembly, Fetch, IncrementFormat, Listed, Outcome, PageChecks, Status, Unless, Unpack,
};
use crate::raw::understudy::method::types::Error;

/// The number of objects in a page, as the contract requires.
const PAGE: usize = 1000;

pub(crate) struct Key(());

impl Key {
    pub(crate) fn named(name: &str) -> Result<Self, Error> {
        Err(Error::Denied(format!("the stand-in has no key {name}")))
    }
}

pub(crate) struct Hasher(RefCell<Sum>);

enum Sum {
    Crc32c(u32),
    Sha(Box<dyn DynDigest>),
}

impl Hasher {
    pub(crate) fn new(by: Algorithm) -> Self {
        Self(RefCell::new(match by {
            Algorithm::Crc32c => Sum::Crc32c(0),
            Algorithm::Sha1 => Sum::Sha(Box::new(sha1::Sha1::default())),
            Algorithm::Sha224 => Sum::Sha(Box::new(sha2::Sha224::default())),
            Algorithm::Sha256 => Sum::Sha(Box::new(sha2::Sha256::default())),
            Algorithm::Sha384 => Sum::Sha(Box::new(sha2::Sha384::default())),
            Algorithm::Sha512 => Sum::Sha(Box::new(sha2::Sha512::default())),
        }))
    }

    pub(crate) fn update(&self, bytes: &[u8]) {
        match &mut *self.0.borrow_mut() {
            Sum::Crc32c(sum) => *sum = crc32c::crc32c_append(*sum, bytes),
            Sum::Sha(sum) => sum.update(bytes),
        }
    }

    #[expect(clippy::unused_self, reason = "the host's function has the same signature")]
    pub(crate) fn secret(&self, key: &Key) -> Result<(), Error> {
        let () = key.0;
        Err(Error::Denied("the stand-in has no keys".to_owned()))
    }

    pub(crate) fn finish(&self) -> Vec<u8> {
        match &*self.0.borrow() {
            Sum::Crc32c(sum) => sum.to_le_bytes().to_vec(),
            Sum::Sha(sum) => sum.box_clone().finalize().into_vec(),
        }
    }
}

#[derive(Clone)]
pub(crate) struct Bucket {
    root: PathBuf,
}

impl Bucket {
    pub(crate) fn open(name: &str) -> Result<Self, Error> {
        let root = match with(|host| host.stores.get(name).cloned()).flatten() {
            Some(root) => root,
            None if name.starts_with('/') && crate::is_granted(name) => PathBuf::from(name),
            None => return Err(Error::Denied(format!("no grant covers the store {name}"))),
        };
        if root.is_dir() { Ok(Self { root }) } else { Err(Error::NotFound(format!("there is no {name}"))) }
    }

    pub(crate) fn head(&self, key: &str) -> Result<Object, Error> {
        let metadata = fs::symlink_metadata(self.root.join(key)).map_err(|error| error_of(key, &error))?;
        if !metadata.is_file() {
            return Err(Error::NotFound(format!("{key} is not a file")));
        }
        let listed = object(key.to_owned(), &metadata);
        // Like a real store, rounds this time differently than the times in its listings.
        Ok(Object { modified: listed.modified.map(|time| time + 1), ..listed })
    }

    pub(crate) fn get(&self, key: &str, via: Option<&Pipeline>, limit: u32) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        let mut stream = Stream::open(self, key, None, via)?;
        while let Some(chunk) = stream.next(u64::from(limit) + 1).map_err(Error::Failed)? {
            bytes.extend(chunk);
            if bytes.len() > limit as usize {
                return Err(Error::Limit(format!("{key} is larger than {limit} bytes")));
            }
        }
        Ok(bytes)
    }

    pub(crate) fn derive_key(
        &self,
        _key: &str,
        _via: &Pipeline,
        _section: &str,
        name: &str,
    ) -> Result<Key, Error> {
        Key::named(name)
    }
}

pub(crate) fn scan(
    bucket: &Bucket,
    prefix: &str,
    after: Option<&str>,
) -> Result<(Vec<Object>, Option<String>), Error> {
    let mut objects = Vec::new();
    // Like a real store, compares the beginning of the key, which may end within a name.
    let folder = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
    collect(&bucket.root, folder, &mut objects)?;
    objects.retain(|object| object.key.starts_with(prefix));
    objects.sort_by(|a, b| a.key.cmp(&b.key));
    objects.retain(|object| after.is_none_or(|after| object.key.as_str() > after));
    let more = objects.len() > PAGE;
    objects.truncate(PAGE);
    let next = objects.last().filter(|_| more).map(|last| last.key.clone());
    Ok((objects, next))
}

fn collect(root: &Path, below: &str, objects: &mut Vec<Object>) -> Result<(), Error> {
    let entries = match fs::read_dir(root.join(below)) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(()),
        entries => entries.map_err(|error| error_of(below, &error))?,
    };
    for entry in entries {
        let entry = entry.map_err(|error| error_of(below, &error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let key = if below.is_empty() { name } else { format!("{below}/{name}") };
        let metadata = fs::symlink_metadata(entry.path()).map_err(|error| error_of(&key, &error))?;
        if metadata.is_dir() {
            collect(root, &key, objects)?;
        } else if metadata.is_file() {
            objects.push(object(key, &metadata));
        }
    }
    Ok(())
}

fn object(key: String, metadata: &fs::Metadata) -> Object {
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    Object { key, size: metadata.len(), modified: modified.map(|time| time.as_secs()), etag: None }
}

fn error_of(key: &str, error: &std::io::Error) -> Error {
    let text = format!("{key}: {error}");
    if error.kind() == ErrorKind::NotFound { Error::NotFound(text) } else { Error::Failed(text) }
}

/// Returns the error for an object that cannot be decoded.
fn damaged(key: &str, error: &std::io::Error) -> Error {
    Error::Corrupt(format!("{key} cannot be decoded: {error}"))
}

pub(crate) struct Stream {
    key: String,
    plain: Box<dyn Read>,
}

impl Stream {
    pub(crate) fn open(
        bucket: &Bucket,
        key: &str,
        range: Option<Range>,
        via: Option<&Pipeline>,
    ) -> Result<Self, Error> {
        let decoding = Pipeline::decoding(via)?;
        bucket.head(key)?;
        let mut file = File::open(bucket.root.join(key)).map_err(|error| error_of(key, &error))?;
        let range = range.unwrap_or(Range { offset: 0, length: u64::MAX });
        file.seek(SeekFrom::Start(range.offset)).map_err(|error| error_of(key, &error))?;
        let plain = decoding.reader(file.take(range.length)).map_err(|error| damaged(key, &error))?;
        Ok(Self { key: key.to_owned(), plain })
    }

    pub(crate) fn next(&mut self, at_most: u64) -> Result<Option<Vec<u8>>, String> {
        let mut chunk = Vec::new();
        let read = self.plain.by_ref().take(at_most).read_to_end(&mut chunk);
        read.map_err(|error| format!("{}: {error}", self.key))?;
        Ok((!chunk.is_empty()).then_some(chunk))
    }
}

/// A listing whose files are never compared, because the stand-in does not unpack archives.
pub(crate) struct Listing(RefCell<Vec<String>>);

impl Listing {
    pub(crate) fn new() -> Self {
        Self(RefCell::default())
    }

    pub(crate) fn add(&self, files: &[Listed]) -> Result<(), Error> {
        self.0.borrow_mut().extend(files.iter().map(|file| file.path.clone()));
        Ok(())
    }

    pub(crate) fn tolerate(&self, _paths: &[String]) -> Result<(), Error> {
        Ok(())
    }

    pub(crate) fn missing(&self, max: u32) -> Vec<String> {
        self.0.borrow().iter().take(max as usize).cloned().collect()
    }
}

/// A chain whose files are never complete, because the stand-in does not unpack archives.
pub(crate) struct Chain(RefCell<Vec<String>>);

impl Chain {
    pub(crate) fn begin(_format: IncrementFormat, page_size: u32) -> Result<Self, Error> {
        if page_size.is_power_of_two() && (1024..=32768).contains(&page_size) {
            Ok(Self(RefCell::default()))
        } else {
            Err(Error::Invalid(format!("{page_size} is not a size of pages")))
        }
    }

    pub(crate) fn want(&self, paths: &[String]) -> Result<(), Error> {
        self.0.borrow_mut().extend_from_slice(paths);
        Ok(())
    }

    #[expect(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "the host's function has the same signature"
    )]
    pub(crate) fn begin_older(&self) -> Result<(), Error> {
        Ok(())
    }

    pub(crate) fn missing(&self, max: u32) -> Vec<String> {
        self.0.borrow().iter().take(max as usize).cloned().collect()
    }
}

pub(crate) struct Job {
    report_all: bool,
    state: RefCell<State>,
}

/// Where objects come from, and how they are decoded.
#[derive(Clone)]
struct Origin {
    bucket: Bucket,
    decoding: Decoding,
}

#[derive(Default)]
struct State {
    origins: Vec<Origin>,
    outcomes: Vec<Outcome>,
    items: u32,
    failed: u32,
    bytes: u64,
}

impl Job {
    pub(crate) fn new(report_all: bool) -> Self {
        Self { report_all, state: RefCell::default() }
    }

    pub(crate) fn check_pages(&self, _by: PageChecks) -> Result<(), Error> {
        match self.state.borrow().items {
            0 => Ok(()),
            _ => Err(Error::Invalid("whether pages are checked is said before items are added".to_owned())),
        }
    }

    pub(crate) fn add_origin(&self, bucket: &Bucket, via: Option<&Pipeline>) -> Result<u32, Error> {
        let decoding = Pipeline::decoding(via)?;
        let origins = &mut self.state.borrow_mut().origins;
        origins.push(Origin { bucket: bucket.clone(), decoding });
        u32::try_from(origins.len() - 1).map_err(|_| Error::Limit("too many origins".to_owned()))
    }

    pub(crate) fn fetch(&self, items: &[Fetch]) -> Result<(), Error> {
        for item in items {
            let origin = self.state.borrow().origins.get(item.origin as usize).cloned();
            let ended = match origin {
                None => return Err(Error::Invalid(format!("there is no origin {}", item.origin))),
                Some(origin) => copy(&origin, item),
            };
            let state = &mut *self.state.borrow_mut();
            match &ended {
                Ok(_) => state.bytes += item.size,
                Err(_) => state.failed += 1,
            }
            if self.report_all || ended.is_err() {
                state.outcomes.push(Outcome { index: state.items, ended });
            }
            state.items += 1;
        }
        Ok(())
    }

    pub(crate) fn unpack(&self, item: &Unpack, _files: Option<&Listing>) -> Result<(), Error> {
        Err(Error::Failed(format!("the stand-in cannot unpack archives, such as {}", item.object)))
    }

    pub(crate) fn unpack_link(
        &self,
        item: &Unpack,
        files: Option<&Listing>,
        _chain: &Chain,
    ) -> Result<(), Error> {
        self.unpack(item, files)
    }

    pub(crate) fn fetch_link(&self, items: &[Fetch], _chain: &Chain) -> Result<(), Error> {
        match items.first() {
            None => Ok(()),
            Some(item) => {
                Err(Error::Failed(format!("the stand-in cannot combine files, such as {}", item.path)))
            }
        }
    }

    pub(crate) fn assemble(&self, item: &Assembly) -> Result<(), Error> {
        let origins = self.state.borrow().origins.clone();
        let ended = assembly::assemble(&origins, item);
        let state = &mut *self.state.borrow_mut();
        match &ended {
            Ok(_) => state.bytes += item.size,
            Err(_) => state.failed += 1,
        }
        if self.report_all || ended.is_err() {
            state.outcomes.push(Outcome { index: state.items, ended });
        }
        state.items += 1;
        Ok(())
    }

    pub(crate) fn wait(&self, _at_most_ms: u32) -> Status {
        let state = self.state.borrow();
        let done = state.items - state.failed;
        Status { queued: 0, done, failed: state.failed, bytes: state.bytes, idle: true }
    }

    pub(crate) fn outcomes(&self, max: u32) -> Vec<Outcome> {
        let outcomes = &mut self.state.borrow_mut().outcomes;
        let count = outcomes.len().min(max as usize);
        outcomes.drain(..count).collect()
    }

    pub(crate) fn cancel(&self) {
        self.state.borrow_mut().origins.clear();
    }
}

/// Copies one file, unless the file exists already and matches as `unless` requires.
fn copy(origin: &Origin, item: &Fetch) -> Result<Action, Error> {
    let failed = |error: std::io::Error| error_of(&item.object, &error);
    let to = place(&item.path)?;
    if item.unless == Unless::SameDigest && has_digest(&to, item) {
        // As in the host, the object is not read in this case.
        set_mode_and_time(&to, item).map_err(failed)?;
        super::done(item.size, 1);
        return Ok(Action::Kept);
    }
    if item.size == 0 && item.range.is_some_and(|range| range.length == 0) {
        return write_nothing(&to, item);
    }
    let bytes = read_plain(origin, item)?;
    let kept = fs::symlink_metadata(&to).is_ok_and(|there| {
        there.is_file()
            && there.len() == item.size
            && match item.unless {
                Unless::Always | Unless::SameDigest => false,
                Unless::SameSizeAndTime => object(String::new(), &there).modified == item.mtime,
                Unless::SameContent => fs::read(&to).is_ok_and(|old| old == bytes),
            }
    });
    super::done(item.size, 1);
    if kept {
        return Ok(Action::Kept);
    }
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    fs::write(&to, bytes).map_err(failed)?;
    set_mode_and_time(&to, item).map_err(failed)?;
    Ok(Action::Written)
}

/// Reads and decodes an object. Fails if its plain bytes do not have the size and the digest of `item`.
fn read_plain(origin: &Origin, item: &Fetch) -> Result<Vec<u8>, Error> {
    let failed = |error: std::io::Error| error_of(&item.object, &error);
    let mut stored = File::open(origin.bucket.root.join(&item.object)).map_err(failed)?;
    let range = item.range.unwrap_or(Range { offset: 0, length: u64::MAX });
    stored.seek(SeekFrom::Start(range.offset)).map_err(failed)?;
    let mut bytes = Vec::new();
    // One byte more than expected shows that the object is too long, however much of it is left.
    origin
        .decoding
        .reader(stored.take(range.length))
        .and_then(|plain| plain.take(item.size.saturating_add(1)).read_to_end(&mut bytes))
        .map_err(|error| damaged(&item.object, &error))?;
    let (size, wanted) = (bytes.len() as u64, item.size);
    if size > wanted {
        return Err(Error::Corrupt(format!("{} has more than {wanted} bytes", item.object)));
    }
    if size < wanted {
        return Err(Error::Corrupt(format!("{} has {size} bytes instead of {wanted}", item.object)));
    }
    if item.digest.as_ref().is_some_and(|digest| !digest.is_of(&bytes)) {
        return Err(Error::Corrupt(format!("{} has another digest than expected", item.object)));
    }
    Ok(bytes)
}

impl Digest {
    /// Returns whether `bytes` have this digest.
    fn is_of(&self, bytes: &[u8]) -> bool {
        let hasher = Hasher::new(self.algorithm);
        hasher.update(bytes);
        hasher.finish() == self.value
    }
}

/// Returns whether a file with the size and the digest of `item` exists.
fn has_digest(to: &Path, item: &Fetch) -> bool {
    let (Some(digest), Ok(there)) = (&item.digest, fs::symlink_metadata(to)) else { return false };
    there.is_file() && there.len() == item.size && fs::read(to).is_ok_and(|bytes| digest.is_of(&bytes))
}

fn set_mode_and_time(to: &Path, item: &Fetch) -> std::io::Result<()> {
    if let Some(mode) = item.mode {
        fs::set_permissions(to, fs::Permissions::from_mode(mode))?;
    }
    if let Some(mtime) = item.mtime {
        let time = UNIX_EPOCH + std::time::Duration::from_secs(mtime);
        File::options().write(true).open(to)?.set_modified(time)?;
    }
    Ok(())
}

/// Creates an empty file. As in the host, the object need not exist.
fn write_nothing(to: &Path, item: &Fetch) -> Result<Action, Error> {
    let failed = |error: std::io::Error| error_of(&item.path, &error);
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    fs::write(to, b"").map_err(failed)?;
    super::done(0, 1);
    Ok(Action::Written)
}

/// Returns the path of a file in the data directory.
fn place(path: &str) -> Result<PathBuf, Error> {
    let datadir = crate::Datadir::at(with(|host| host.datadir.clone()).unwrap_or_default());
    datadir.place(path).map_err(|failure| Error::Invalid(failure.to_string()))
}
