//! A local directory as a store: its regular files are the objects. Symbolic links below it are neither followed nor objects.

mod listing;

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use async_trait::async_trait;
use rustix::fs::{AtFlags, Stat};

use super::body::Source;
use super::key::{self, KeyLimit};
use super::retry::Failure;
use super::{Backend, Etag, Object, Page, Range};
use crate::budget::Budget;
use crate::error::{Error, Kind};
use foundation::rooted::{self, RelativePath};
use listing::Listing;

/// How many unfinished listings are kept, so that the next page can continue one.
const LISTINGS: usize = 4;

/// A directory that is opened once. Every object is opened relative to its descriptor.
pub(super) struct Directory {
    opened: Arc<Opened>,
}

struct Opened {
    root: rooted::Directory,
    /// The budget to which names of listings are charged, if any.
    memory: OnceLock<Budget>,
    /// Unfinished listings: the prefix, the key after which the next page begins, and the state.
    listings: Mutex<Vec<(String, String, Listing)>>,
}

impl Directory {
    /// Opens the directory at `path`. Follows links in `path`, because the operator chose it.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let root = rooted::Directory::open(path)?;
        Ok(Self {
            opened: Arc::new(Opened { root, memory: OnceLock::new(), listings: Mutex::new(Vec::new()) }),
        })
    }

    /// Runs `work`, which may block on a disk, without blocking other tasks.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Opened) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Failure> {
        let opened = Arc::clone(&self.opened);
        Ok(blocking(move || work(&opened)).await?)
    }
}

thread_local! {
    static MAY_BLOCK: Cell<bool> = const { Cell::new(false) };
}

/// Marks this thread as one that disk access may block although the thread also polls futures: a worker's thread, which does not belong to
/// a runtime.
pub(crate) fn this_thread_may_block() {
    MAY_BLOCK.set(true);
}

/// Runs `work`, which may block on a disk, on a blocking thread of the runtime; without a runtime, or on a thread that may block,
/// runs it directly. For a small file, switching threads costs more than reading.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    if MAY_BLOCK.get() {
        return work();
    }
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => match runtime.spawn_blocking(work).await {
            Ok(ended) => ended,
            Err(ended) => Err(Error::new(Kind::Cancelled, format!("reading a file: {ended}"))),
        },
        Err(_) => work(),
    }
}

#[async_trait]
impl Backend for Directory {
    fn longest_key(&self) -> KeyLimit {
        key::DIRECTORY
    }

    fn charge_to(&self, memory: &Budget) {
        // A store belongs to one run, so the first budget is kept.
        let _ = self.opened.memory.set(memory.clone());
    }

    async fn scan(&self, prefix: &str, after: Option<&str>) -> Result<Page, Failure> {
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        self.blocking(move |opened| opened.scan(&prefix, after.as_deref())).await
    }

    async fn head(&self, key: &str) -> Result<Object, Failure> {
        let key = key.to_owned();
        self.blocking(move |opened| opened.head(&key)).await
    }

    async fn open(
        &self,
        key: &str,
        _range: Option<Range>,
        _known: Option<&Object>,
    ) -> Result<(Object, Source), Failure> {
        let key = key.to_owned();
        self.blocking(move |opened| {
            let file = opened.root.open_file(&path(&key)?).map_err(no_object)?;
            let object = opened_object(&file, key)?;
            Ok((object, Source::File(Arc::new(file))))
        })
        .await
    }
}

impl Opened {
    fn scan(&self, prefix: &str, after: Option<&str>) -> Result<Page, Error> {
        let kept = after.and_then(|after| {
            let mut listings = self.listings.lock().unwrap_or_else(PoisonError::into_inner);
            let place = listings.iter().position(|(of, at, _)| of == prefix && at == after)?;
            Some(listings.remove(place).2)
        });
        let mut listing = match kept {
            Some(listing) => listing,
            None => Listing::new(prefix, after).within(self.memory.get()),
        };
        // The path of a file is too long. The kind is not `Invalid`, because that would mean that the store cannot list.
        let (objects, more) = listing.page(&self.root).map_err(|error| match error.kind {
            Kind::Invalid => Error::new(Kind::Failed, error.message),
            _ => error,
        })?;
        let next = objects.last().filter(|_| more).map(|last| last.key.clone());
        if let Some(next) = &next {
            let mut listings = self.listings.lock().unwrap_or_else(PoisonError::into_inner);
            if listings.len() >= LISTINGS {
                listings.remove(0);
            }
            listings.push((prefix.to_owned(), next.clone(), listing));
        }
        Ok(Page { objects, next })
    }

    fn head(&self, key: &str) -> Result<Object, Error> {
        let path = path(key)?;
        let name = path.file_name();
        let status = match path.parent() {
            None => stat(self.root.as_fd(), name),
            Some(parent) => stat(self.root.open_directory(&parent).map_err(no_object)?.as_fd(), name),
        };
        let status = status.map_err(|errno| {
            let message =
                format!("cannot look at {}: {errno}", self.root.path().join(path.as_path()).display());
            no_object(io::Error::new(io::Error::from(errno).kind(), message))
        })?;
        match rooted::Metadata::from(status).kind {
            rooted::Kind::File => Ok(object(&status, key.to_owned())),
            rooted::Kind::Directory | rooted::Kind::Link | rooted::Kind::Special => Err(Error::new(
                Kind::NotFound,
                "it is not a regular file, and only regular files are objects",
            )),
        }
    }
}

fn path(key: &str) -> Result<RelativePath, Error> {
    RelativePath::new(key).map_err(|wrong| Error::new(Kind::Invalid, wrong.to_string()))
}

fn stat(directory: impl AsFd, name: &std::ffi::OsStr) -> rustix::io::Result<Stat> {
    rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
}

/// Makes the error of a path that is not an object.
fn no_object(error: io::Error) -> Error {
    use io::ErrorKind::{InvalidFilename, InvalidInput, IsADirectory, NotADirectory};
    let kind = match error.kind() {
        // The path names a directory, a special file, or something below a file.
        InvalidInput | NotADirectory | IsADirectory => Kind::NotFound,
        _ if is_link(&error) => Kind::NotFound,
        InvalidFilename => Kind::Invalid,
        _ => return Error::from(error),
    };
    Error::new(kind, error.to_string())
}

/// Returns whether the error is ELOOP, for which the standard library has no stable error kind.
fn is_link(error: &io::Error) -> bool {
    error.kind() == io::Error::from(rustix::io::Errno::LOOP).kind()
}

#[expect(clippy::unnecessary_cast, reason = "the fields' types differ from one architecture to the next")]
fn object(status: &Stat, key: String) -> Object {
    let size = u64::try_from(status.st_size).unwrap_or(0);
    let seconds = status.st_mtime as i64;
    let etag = etag(status.st_ino as u64, size, seconds, status.st_mtime_nsec as i64);
    Object { key, size, modified: u64::try_from(seconds).ok(), etag: Etag::read(&etag) }
}

/// Returns the current metadata of an opened file.
pub(super) fn opened_object(file: &File, key: String) -> Result<Object, Error> {
    let status = file.metadata()?;
    let etag = etag(status.ino(), status.len(), status.mtime(), status.mtime_nsec());
    Ok(Object {
        key,
        size: status.len(),
        modified: u64::try_from(status.mtime()).ok(),
        etag: Etag::read(&etag),
    })
}

/// Makes an etag from inode, size and modification time, at least one of which differs if the contents differ.
fn etag(inode: u64, size: u64, seconds: i64, nanoseconds: i64) -> String {
    format!("{inode:x}-{size:x}-{seconds:x}.{nanoseconds:09}")
}
