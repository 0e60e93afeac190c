//! A cache of the directories that a worker has open, so that a small file costs only its own creation, writing and closing.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::{Error, Kind};
use crate::target::{Place, Root, Target};
use foundation::rooted::RelativePath;

/// The most directories that a worker has open.
pub(crate) const MOST_OPEN: usize = 64;

/// How many directories a worker may have open in any case, even if the limit of open files is low.
pub(crate) const FEWEST_OPEN: usize = 4;

/// How many times an `openat2` that lost a race against a concurrent rename (EAGAIN) is repeated.
const RACES: u32 = 128;

/// The flags with which every path below a directory is resolved.
const BENEATH: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

/// The flags for opening a directory.
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// The bits of a mode that the program's umask (077) clears.
const MASKED: u32 = 0o077;

/// Open directories of one target. The least recently used one is closed first.
pub(crate) struct Directories {
    /// How many may be open.
    most: usize,
    of: Option<Arc<Target>>,
    open: HashMap<Root, HashMap<Box<OsStr>, Entry>>,
    count: usize,
    clock: u64,
}

struct Entry {
    directory: Arc<File>,
    used: u64,
}

impl Directories {
    /// Makes an empty cache of at most `most` directories.
    pub(crate) fn with_limit(most: usize) -> Self {
        Self { most, of: None, open: HashMap::new(), count: 0, clock: 0 }
    }

    /// Closes all directories.
    pub(crate) fn close(&mut self) {
        *self = Self::with_limit(self.most);
    }

    /// Returns the parent directory of `place`, which is created if it does not exist, and the name in it.
    ///
    /// # Errors
    /// Fails if the directory cannot be created or opened, or lies behind a link.
    pub(crate) fn parent<'a>(
        &mut self,
        target: &Arc<Target>,
        place: &'a Place,
    ) -> Result<(Arc<File>, &'a OsStr), Error> {
        let bytes = place.path.as_os_str().as_bytes();
        let (parent, name) = match bytes.iter().rposition(|byte| *byte == b'/') {
            None => (&bytes[..0], bytes),
            Some(slash) => (&bytes[..slash], &bytes[slash + 1..]),
        };
        Ok((self.directory(target, place.root, OsStr::from_bytes(parent))?, OsStr::from_bytes(name)))
    }

    /// Creates the directory at `place` and missing ones above it. Succeeds if it exists already.
    ///
    /// # Errors
    /// The errors of [`Directories::parent`].
    pub(crate) fn make(&mut self, target: &Arc<Target>, place: &Place) -> Result<(), Error> {
        self.directory(target, place.root, place.path.as_os_str()).map(drop)
    }

    /// Returns the directory at `path`; for the empty path, the root itself.
    fn directory(&mut self, target: &Arc<Target>, root: Root, path: &OsStr) -> Result<Arc<File>, Error> {
        if self.of.as_ref().is_none_or(|of| !Arc::ptr_eq(of, target)) {
            self.close();
            self.of = Some(Arc::clone(target));
        }
        self.clock += 1;
        if let Some(entry) = self.open.get_mut(&root).and_then(|open| open.get_mut(path)) {
            entry.used = self.clock;
            return Ok(Arc::clone(&entry.directory));
        }
        let directory = Arc::new(open_or_make(target, root, path)?);
        if self.count >= self.most {
            self.close_oldest();
        }
        let entry = Entry { directory: Arc::clone(&directory), used: self.clock };
        self.open.entry(root).or_default().insert(path.into(), entry);
        self.count += 1;
        Ok(directory)
    }

    fn close_oldest(&mut self) {
        let all = self
            .open
            .iter()
            .flat_map(|(root, open)| open.iter().map(move |(path, entry)| (root, path, entry)));
        let oldest = all.min_by_key(|(_, _, entry)| entry.used).map(|(root, path, _)| (*root, path.clone()));
        if let Some((root, path)) = oldest
            && self.open.get_mut(&root).and_then(|open| open.remove(&path)).is_some()
        {
            self.count -= 1;
        }
    }
}

/// Opens a directory below a root of the target. Creates it and missing ones above it.
fn open_or_make(target: &Target, root: Root, path: &OsStr) -> Result<File, Error> {
    let root = target.directory(root);
    let shown = || root.path().join(path).display().to_string();
    if path.is_empty() {
        return Ok(File::from(root.as_fd().try_clone_to_owned()?));
    }
    match open(root, path, DIRECTORY, Mode::empty()) {
        Err(Errno::NOENT) => {}
        opened => return opened.map_err(|errno| failed("open the directory", &shown(), errno.into())),
    }
    // From the root downwards: open each existing directory, create each missing one.
    let mut here = File::from(root.as_fd().try_clone_to_owned()?);
    for name in path.as_bytes().split(|byte| *byte == b'/').map(OsStr::from_bytes) {
        here = match open(&here, name, DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT) => make(target, &here, name),
            opened => opened.map_err(io::Error::from),
        }
        .map_err(|error| failed("make the directory", &shown(), error))?;
    }
    Ok(here)
}

/// Creates a directory, unless another worker has created it.
fn make(target: &Target, parent: &File, name: &OsStr) -> io::Result<File> {
    target.budget.make(parent)?;
    let mode = target.modes.1 & 0o7777;
    match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(mode)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    let made = open(parent, name, DIRECTORY, Mode::empty())?;
    if mode & MASKED != 0 {
        rustix::fs::fchmod(&made, Mode::from_raw_mode(mode))?;
    }
    Ok(made)
}

/// Opens `path` below `directory`, never through a link. Repeats the call after EINTR and EAGAIN.
pub(super) fn open(
    directory: impl AsFd,
    path: impl rustix::path::Arg + Copy,
    flags: OFlags,
    mode: Mode,
) -> rustix::io::Result<File> {
    let mut races = 0;
    loop {
        match rustix::fs::openat2(directory.as_fd(), path, flags, mode, BENEATH) {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) if races < RACES => races += 1,
            opened => return opened.map(File::from),
        }
    }
}

/// Creates a file. Fails if anything with this name exists.
pub(super) fn create(directory: &File, name: &OsStr, mode: u32) -> rustix::io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = open(directory, name, flags, Mode::from_raw_mode(mode & 0o7777))?;
    if mode & MASKED != 0 {
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o7777))?;
    }
    Ok(file)
}

/// Returns the metadata of `name`. Does not follow a link, but returns its own metadata.
pub(super) fn look(directory: &File, name: &OsStr) -> rustix::io::Result<rustix::fs::Stat> {
    rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
}

/// Makes an error that names the action and the file. `NotFound` becomes `Failed`, because `NotFound` would mean that the object does not
/// exist.
pub(super) fn failed(action: &str, what: &str, error: io::Error) -> Error {
    match Error::from(error) {
        error if error.kind == Kind::NotFound => {
            Error::new(Kind::Failed, format!("cannot {action} {what}: {error}"))
        }
        error => Error::new(error.kind, format!("cannot {action} {what}: {error}")),
    }
}

/// Returns a path's text for messages.
pub(crate) fn shown(path: &RelativePath) -> String {
    path.as_path().display().to_string().escape_debug().to_string()
}
