//! Lists a directory in the order of whole keys, page by page, in bounded memory for any number of files.
//!
//! For each directory on the current path only the next names in order are kept, up to a limit. When they are used up, the
//! directory is read again. So a directory of a million files is read about thirty times, and never kept as a whole.

use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{Dir, FileType};

use super::super::{Object, PAGE};
use super::{is_link, object, path, stat};
use crate::budget::{ALLOCATION_OVERHEAD, Budget, Charge};
use crate::error::{Error, Kind};
use foundation::rooted;

/// The most names that the first level keeps; each level below keeps half as many as the one above.
const NAMES: usize = 32_768;

/// The fewest names that a level keeps.
const FEWEST_NAMES: usize = 1_024;

/// A page ends when its keys have this many bytes.
const PAGE_BYTES: usize = 1 << 20;

/// How much memory for names is charged at once in bytes.
const STEP: u64 = 256 << 10;

/// The memory of a name without its bytes: slots in a vector that doubles, and the allocator's overhead.
const NAME: u64 = 2 * size_of::<Name>() as u64 + ALLOCATION_OVERHEAD;

/// How many directories of the current path stay open, the innermost ones. The others are opened again when they are needed.
const OPEN: usize = 8;

/// How deep directories may be nested.
const DEPTH: usize = 64;

/// The state of a listing. It holds no descriptors between two pages.
pub(super) struct Listing {
    levels: Vec<Level>,
    memory: Budget,
}

/// A directory that is being listed.
struct Level {
    /// The part of a key before its names: empty, or a path that ends with `/`.
    folder: String,
    /// The required beginning of its names.
    begin: String,
    /// Only keys after this one are listed; relative to this directory.
    after: Option<String>,
    /// The next names, in order.
    names: VecDeque<Name>,
    /// The last name that was listed.
    taken: Option<Name>,
    /// Whether it may have more names than were kept.
    more: bool,
    opened: Option<rooted::Directory>,
    /// The charge for the memory of the names.
    charge: Option<Charge>,
}

/// A name, with `/` at the end if it is a directory, as in a key. So the order of names is the order of keys.
type Name = String;

impl Listing {
    /// Starts a listing of the keys that begin with `prefix` and follow `after`.
    pub(super) fn new(prefix: &str, after: Option<&str>) -> Self {
        let (folder, begin) = prefix.split_at(prefix.rfind('/').map_or(0, |slash| slash + 1));
        let after = match after {
            None => None,
            Some(after) => match after.strip_prefix(folder) {
                Some(below) => Some(below.to_owned()),
                None if after < folder => None,
                // All keys in the folder sort before `after`.
                None => return Self { levels: Vec::new(), memory: Budget::unlimited() },
            },
        };
        let first = Level::new(folder.to_owned(), begin.to_owned(), after);
        Self { levels: vec![first], memory: Budget::unlimited() }
    }

    /// Charges the names to this budget if there is one.
    pub(super) fn within(self, memory: Option<&Budget>) -> Self {
        Self { memory: memory.cloned().unwrap_or(self.memory), ..self }
    }

    /// Returns the next page, and whether there may be another one.
    pub(super) fn page(&mut self, root: &rooted::Directory) -> Result<(Vec<Object>, bool), Error> {
        let page = self.fill(root);
        for level in &mut self.levels {
            level.opened = None;
        }
        page
    }

    fn fill(&mut self, root: &rooted::Directory) -> Result<(Vec<Object>, bool), Error> {
        let (mut objects, mut bytes) = (Vec::new(), 0);
        while !self.levels.is_empty() {
            if objects.len() == PAGE || bytes >= PAGE_BYTES {
                let more = self.levels.iter().any(|level| level.more || !level.names.is_empty());
                return Ok((objects, more));
            }
            let keep = (NAMES >> self.levels.len().saturating_sub(1).min(16)).max(FEWEST_NAMES);
            let Some(level) = self.levels.last_mut() else { break };
            let Some(name) = level.next(root, keep, &self.memory)? else {
                self.levels.pop();
                continue;
            };
            let key = format!("{}{name}", level.folder);
            if name.ends_with('/') {
                let after = level
                    .after
                    .as_deref()
                    .and_then(|after| after.strip_prefix(name.as_str()))
                    .map(str::to_owned);
                if self.levels.len() == DEPTH {
                    let message = format!(
                        "{} lies more than {DEPTH} directories deep",
                        root.path().join(&key).display()
                    );
                    return Err(Error::new(Kind::Limit, message));
                }
                self.levels.push(Level::new(key, String::new(), after));
                if let Some(above) = self.levels.len().checked_sub(OPEN + 1) {
                    self.levels[above].opened = None;
                }
            } else if let Some(found) = level.look_at(root, &name, key)? {
                bytes += found.key.len();
                objects.push(found);
            }
        }
        Ok((objects, false))
    }
}

impl Level {
    fn new(folder: String, begin: String, after: Option<String>) -> Self {
        // Nothing has been read yet.
        Self {
            folder,
            begin,
            after,
            names: VecDeque::new(),
            taken: None,
            more: true,
            opened: None,
            charge: None,
        }
    }

    /// Returns the next name; `None` at the end.
    fn next(
        &mut self,
        root: &rooted::Directory,
        keep: usize,
        memory: &Budget,
    ) -> Result<Option<Name>, Error> {
        if self.names.is_empty() && self.more {
            self.read(root, keep, memory)?;
        }
        let next = self.names.pop_front();
        if self.names.is_empty() {
            (self.names, self.charge) = (VecDeque::new(), None);
        }
        if next.is_some() {
            self.taken.clone_from(&next);
        }
        Ok(next)
    }

    /// Reads the directory and keeps the next names.
    fn read(&mut self, root: &rooted::Directory, keep: usize, memory: &Budget) -> Result<(), Error> {
        self.more = false;
        if !self.open(root)? {
            return Ok(());
        }
        let Some(directory) = &self.opened else { return Ok(()) };
        let failed = |errno: rustix::io::Errno| {
            let error = io::Error::from(errno);
            Error::from(io::Error::new(
                error.kind(),
                format!("cannot read {}: {error}", directory.path().display()),
            ))
        };
        let mut charge = memory.charge(STEP, "the names of a directory")?;
        let mut bytes = 0;
        let mut kept = BinaryHeap::new();
        for entry in Dir::read_from(directory.as_fd()).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown => {
                    match rustix::fs::statat(directory, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW) {
                        Ok(status) => FileType::from_raw_mode(status.st_mode),
                        Err(rustix::io::Errno::NOENT) => continue,
                        Err(errno) => return Err(failed(errno)),
                    }
                }
                kind => kind,
            };
            let directory_mark = match kind {
                FileType::RegularFile => "",
                FileType::Directory => "/",
                _ => continue,
            };
            let Ok(text) = name.to_str() else {
                let path = directory.path().join(String::from_utf8_lossy(name.to_bytes()).as_ref());
                let message = format!(
                    "the name of {} is not UTF-8, as an object's key must be: rename it or move it elsewhere; a listing must not leave it out",
                    path.display()
                );
                return Err(Error::new(Kind::Failed, message));
            };
            if !text.starts_with(&self.begin) {
                continue;
            }
            let name = format!("{text}{directory_mark}");
            if self.is_behind(&name) {
                continue;
            }
            // The name is charged before it is clear whether it is kept, because one more name makes little difference.
            if bytes + NAME + name.len() as u64 > charge.amount() {
                charge.grow(STEP, "the names of a directory")?;
            }
            if kept.len() < keep {
                bytes += NAME + name.len() as u64;
                kept.push(name);
            } else {
                self.more = true;
                if let Some(mut largest) = kept.peek_mut().filter(|largest| name < **largest) {
                    bytes = bytes + name.len() as u64 - largest.len() as u64;
                    *largest = name;
                }
            }
        }
        self.names = kept.into_sorted_vec().into();
        self.charge = Some(charge);
        Ok(())
    }

    /// Returns whether the listing has passed this name.
    fn is_behind(&self, name: &str) -> bool {
        if self.taken.as_deref().is_some_and(|taken| name <= taken) {
            return true;
        }
        // A directory that contains `after` may contain later keys.
        self.after
            .as_deref()
            .is_some_and(|after| name <= after && !(name.ends_with('/') && after.starts_with(name)))
    }

    /// Opens the directory; returns false if it does not exist any more.
    fn open(&mut self, root: &rooted::Directory) -> Result<bool, Error> {
        if self.opened.is_some() {
            return Ok(true);
        }
        let opened = match self.folder.as_str() {
            "" => root.try_clone(),
            folder => root.open_directory(&path(folder)?),
        };
        match opened {
            Ok(directory) => {
                self.opened = Some(directory);
                Ok(true)
            }
            Err(error) if is_gone(&error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the metadata of a file; `None` if it is not a regular file any more.
    fn look_at(
        &mut self,
        root: &rooted::Directory,
        name: &str,
        key: String,
    ) -> Result<Option<Object>, Error> {
        if !self.open(root)? {
            return Ok(None);
        }
        let Some(directory) = &self.opened else { return Ok(None) };
        match stat(directory, Path::new(name).as_os_str()) {
            Ok(status) if rooted::Metadata::from(status).kind == rooted::Kind::File => {
                Ok(Some(object(&status, key)))
            }
            Ok(_) | Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(errno) => {
                let error = io::Error::from(errno);
                let message = format!("cannot look at {}: {error}", directory.path().join(name).display());
                Err(io::Error::new(error.kind(), message).into())
            }
        }
    }
}

/// Returns whether the directory was removed or replaced, for example by a link.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) || is_link(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, file).unwrap();
        }
        root
    }

    fn keys(root: &Path, prefix: &str, after: Option<&str>) -> Vec<String> {
        let (objects, more) =
            Listing::new(prefix, after).page(&rooted::Directory::open(root).unwrap()).unwrap();
        assert!(!more);
        objects.into_iter().map(|object| object.key).collect()
    }

    #[test]
    fn keys_are_listed_in_the_order_of_their_bytes_for_every_prefix_and_start() {
        let files = ["a.b", "a/b", "a/c/d", "a/c.d", "a0", "b.b", "b-1/x", "b/x/y", "z/é", "A"];
        let root = tree(&files);
        let sorted: BTreeSet<&str> = files.into_iter().collect();
        for prefix in ["", "a", "a/", "a/c", "a/c/", "b", "z/", "q/", "b/x/y/"] {
            for after in [None]
                .into_iter()
                .chain(["A", "a", "a.b", "a/b", "a/c", "a/c/d", "a/z", "b", "b/", "z", "~"].map(Some))
            {
                let expected: Vec<&str> = sorted
                    .iter()
                    .copied()
                    .filter(|key| key.starts_with(prefix) && after.is_none_or(|after| *key > after))
                    .collect();
                assert_eq!(keys(root.path(), prefix, after), expected, "{prefix:?} after {after:?}");
            }
        }
    }

    #[test]
    fn links_and_special_files_are_neither_listed_nor_followed() {
        let root = tree(&["file", "real/inside"]);
        std::os::unix::fs::symlink("file", root.path().join("link")).unwrap();
        std::os::unix::fs::symlink("real", root.path().join("linked")).unwrap();
        std::os::unix::fs::symlink("/etc", root.path().join("outside")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(root.path().join("socket")).unwrap();
        assert_eq!(keys(root.path(), "", None), ["file", "real/inside"]);
        assert!(keys(root.path(), "outside/", None).is_empty());
    }

    #[test]
    fn an_error_names_the_directory_that_is_nested_too_deep() {
        let deep = "d/".repeat(DEPTH) + "file";
        let root = tree(&[&deep]);
        let error = Listing::new("", None).page(&rooted::Directory::open(root.path()).unwrap()).unwrap_err();
        assert_eq!(error.kind, Kind::Limit);
        assert!(error.message.contains("d/d/d"), "{error}");
        assert_eq!(keys(root.path(), "d/d/", None), [deep]);
    }

    #[test]
    fn a_directory_with_more_names_than_are_kept_is_listed_completely_and_in_order() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("1/2/3/4/5");
        std::fs::create_dir_all(&directory).unwrap();
        let count = FEWEST_NAMES * 3 + 7;
        for number in 0..count {
            std::fs::File::create(directory.join(format!("{number:06}"))).unwrap();
        }
        let opened = rooted::Directory::open(root.path()).unwrap();
        let mut listing = Listing::new("", None);
        let (mut seen, mut more) = (Vec::new(), true);
        while more {
            let (objects, further) = listing.page(&opened).unwrap();
            assert!(
                listing
                    .levels
                    .iter()
                    .all(|level| level.names.len() <= FEWEST_NAMES || level.folder.len() < 10)
            );
            seen.extend(objects.into_iter().map(|object| object.key));
            more = further;
        }
        let expected: Vec<String> = (0..count).map(|number| format!("1/2/3/4/5/{number:06}")).collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn names_are_charged_while_they_are_kept() {
        let root = tempfile::tempdir().unwrap();
        for number in 0..1500 {
            std::fs::File::create(root.path().join(format!("{number:0>250}"))).unwrap();
        }
        let opened = rooted::Directory::open(root.path()).unwrap();
        let memory = Budget::memory(1 << 20);
        let mut listing = Listing::new("", None).within(Some(&memory));
        let (objects, more) = listing.page(&opened).unwrap();
        assert!(more && objects.len() == PAGE);
        assert!(memory.held() >= 500 * 250, "{memory:?}");
        let (objects, more) = listing.page(&opened).unwrap();
        assert_eq!((objects.len(), more, memory.held()), (500, false, 0));
        let little = Budget::memory(STEP);
        let error = Listing::new("", None).within(Some(&little)).page(&opened).unwrap_err();
        assert_eq!((error.kind, little.held()), (Kind::Limit, 0));
    }

    #[test]
    fn a_name_that_is_not_utf_8_is_an_error_and_not_left_out() {
        use std::os::unix::ffi::OsStrExt;
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join(std::ffi::OsStr::from_bytes(b"caf\xe9")), "").unwrap();
        let error = Listing::new("", None).page(&rooted::Directory::open(root.path()).unwrap()).unwrap_err();
        assert_eq!(error.kind, Kind::Failed);
    }
}
