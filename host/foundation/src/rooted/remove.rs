//! Removes whole directory trees with bounded descriptors, memory and time.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::{AtFlags, Dir, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;

use super::{BENEATH, Directory, Metadata, READ_DIRECTORY, chmod_opened, failed, resolve_at};

/// How many directories are open at once. A deeper directory is moved up to the top of its tree and removed from there, so that
/// deep nesting does not take more descriptors or memory.
const OPEN_AT_ONCE: usize = 32;

/// How many times a directory is read again because it had entries. One pass finds all entries unless another process adds entries, or the
/// file system skips some while others are removed.
const PASSES: u32 = 1000;

/// The name of a directory that was moved up, followed by a number.
const MOVED_UP: &str = ".understudy-moved-up-";

/// The conditions under which a removal stops before it is complete.
#[derive(Clone, Copy)]
pub struct Limit<'a> {
    /// Stop at this time.
    pub deadline: Option<Instant>,
    /// Stop if this returns true; called before each entry.
    pub cancelled: &'a dyn Fn() -> bool,
}

impl Limit<'_> {
    /// No limit.
    pub const NONE: Limit<'static> = Limit { deadline: None, cancelled: &|| false };

    fn reached(&self) -> bool {
        (self.cancelled)() || self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

/// The result of a removal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// The number of entries that were removed.
    pub entries: u64,
    /// Whether every wanted entry was removed; false if the limit was reached.
    pub complete: bool,
}

/// A directory that is being emptied.
struct Level {
    entries: Dir,
    /// The name of the directory in the level above; empty for the first level.
    name: CString,
    /// Whether this pass found anything to remove.
    found: bool,
    passes: u32,
}

impl Level {
    fn new(directory: OwnedFd, name: CString) -> rustix::io::Result<Self> {
        Ok(Self { entries: Dir::new(directory)?, name, found: false, passes: 0 })
    }

    fn fd(&self) -> rustix::io::Result<BorrowedFd<'_>> {
        self.entries.fd()
    }
}

struct Removal<'a> {
    top: &'a Path,
    levels: Vec<Level>,
    wanted: &'a dyn Fn(&OsStr) -> bool,
    moved_up: u64,
    removed: Removed,
}

impl Directory {
    /// Removes every entry of the directory for whose name `wanted` returns true, with everything below it. Links are removed, never
    /// followed. If the mode of a directory denies its owner access, the mode is changed first.
    ///
    /// # Errors
    /// Fails at the first entry that cannot be removed, and names it: a mount point, or a file of another user.
    pub fn remove_below(&self, wanted: &dyn Fn(&OsStr) -> bool, limit: &Limit<'_>) -> io::Result<Removed> {
        let top = resolve_at(self.as_fd(), c".", READ_DIRECTORY, Mode::empty(), BENEATH)
            .and_then(|directory| Level::new(directory, CString::default()))
            .map_err(|errno| failed("read", self.path(), errno))?;
        let mut removal = Removal {
            top: self.path(),
            levels: vec![top],
            wanted,
            moved_up: 0,
            removed: Removed { entries: 0, complete: true },
        };
        while !removal.levels.is_empty() {
            if limit.reached() {
                removal.removed.complete = false;
                break;
            }
            removal.step()?;
        }
        Ok(removal.removed)
    }
}

impl Removal<'_> {
    /// Handles one entry of the deepest level, or leaves that level if it has no entries.
    fn step(&mut self) -> io::Result<()> {
        let depth = self.levels.len();
        let Some(level) = self.levels.last_mut() else { return Ok(()) };
        let entry = match level.entries.read() {
            None if level.found => {
                level.found = false;
                level.passes += 1;
                level.entries.rewind();
                let endless = level.passes >= PASSES;
                return if endless { Err(self.still_written_to()) } else { Ok(()) };
            }
            None => return self.leave(),
            Some(entry) => entry.map_err(|errno| self.failed("read", None, errno))?,
        };
        let name = entry.file_name();
        let bytes = name.to_bytes();
        if matches!(bytes, b"." | b"..") || (depth == 1 && !(self.wanted)(OsStr::from_bytes(bytes))) {
            return Ok(());
        }
        if let Some(level) = self.levels.last_mut() {
            level.found = true;
        }
        self.remove(name)
    }

    /// Removes the entry `name` of the deepest level, or enters it if it is a directory with entries.
    fn remove(&mut self, name: &CStr) -> io::Result<()> {
        let Some(level) = self.levels.last() else { return Ok(()) };
        let unlinked = level.fd().and_then(|here| {
            let unlink = || match rustix::fs::unlinkat(here, name, AtFlags::empty()) {
                // For a directory, Linux returns EISDIR, and POSIX specifies EPERM.
                Err(Errno::ISDIR | Errno::PERM) => rustix::fs::unlinkat(here, name, AtFlags::REMOVEDIR),
                result => result,
            };
            match unlink() {
                Err(Errno::ACCESS) => {
                    let mode = Metadata::from(rustix::fs::fstat(here)?).mode;
                    rustix::fs::fchmod(here, Mode::from_raw_mode(mode & 0o7777 | 0o700))
                        .and_then(|()| unlink())
                }
                result => result,
            }
        });
        match unlinked {
            Ok(()) => {
                self.removed.entries += 1;
                Ok(())
            }
            Err(Errno::NOENT) => Ok(()),
            Err(Errno::NOTEMPTY | Errno::EXIST) if self.levels.len() > OPEN_AT_ONCE => self.move_up(name),
            Err(Errno::NOTEMPTY | Errno::EXIST) => self.enter(name),
            Err(Errno::BUSY) => Err(self.failed("remove", Some(name), Errno::XDEV)),
            // `unlink` was not permitted, and the entry is not a directory.
            Err(Errno::NOTDIR) => Err(self.failed("remove", Some(name), Errno::PERM)),
            Err(errno) => Err(self.failed("remove", Some(name), errno)),
        }
    }

    fn enter(&mut self, name: &CStr) -> io::Result<()> {
        let Some(level) = self.levels.last() else { return Ok(()) };
        let opened = level.fd().and_then(|here| match open(here, name, READ_DIRECTORY) {
            Err(Errno::ACCESS) => open_up(here, name).and_then(|()| open(here, name, READ_DIRECTORY)),
            result => result,
        });
        match opened.and_then(|directory| Level::new(directory, name.to_owned())) {
            Ok(level) => {
                self.levels.push(level);
                Ok(())
            }
            // Another process replaced the entry; the next pass finds the new entry.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(()),
            Err(errno) => Err(self.failed("open", Some(name), errno)),
        }
    }

    /// Moves a directory that is too deep to the top of the tree that is being removed, where a later pass finds it.
    fn move_up(&mut self, name: &CStr) -> io::Result<()> {
        let (Some(level), Some(tree)) = (self.levels.last(), self.levels.get(1)) else { return Ok(()) };
        loop {
            let free = format!("{MOVED_UP}{}", self.moved_up);
            let moved = level.fd().and_then(|here| {
                let there = tree.fd()?;
                let rename = || rustix::fs::renameat_with(here, name, there, &free, RenameFlags::NOREPLACE);
                match rename() {
                    // A directory that changes its parent must itself be writable.
                    Err(Errno::ACCESS) => open_up(here, name)
                        .and_then(|()| rustix::fs::fchmod(there, Mode::RWXU))
                        .and_then(|()| rename()),
                    result => result,
                }
            });
            self.moved_up += 1;
            match moved {
                Err(Errno::EXIST) => {}
                Ok(()) => break,
                Err(errno) => return Err(self.failed("move", Some(name), errno)),
            }
        }
        if let Some(tree) = self.levels.get_mut(1) {
            tree.found = true;
            tree.passes = 0;
        }
        Ok(())
    }

    /// Leaves the deepest level, which is empty, and removes its directory, unless it is the first.
    fn leave(&mut self) -> io::Result<()> {
        let Some(emptied) = self.levels.pop() else { return Ok(()) };
        let Some(level) = self.levels.last() else { return Ok(()) };
        let gone = level.fd().and_then(|here| rustix::fs::unlinkat(here, &emptied.name, AtFlags::REMOVEDIR));
        match gone {
            Ok(()) => {
                self.removed.entries += 1;
                Ok(())
            }
            // Another process refilled or renamed the directory; the next pass of this level finds the current entries.
            Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => Ok(()),
            Err(errno) => Err(self.failed("remove", Some(&emptied.name), errno)),
        }
    }

    fn path(&self, name: Option<&CStr>) -> PathBuf {
        let mut path = self.top.to_owned();
        path.extend(self.levels.iter().skip(1).map(|level| OsStr::from_bytes(level.name.to_bytes())));
        path.extend(name.map(|name| OsStr::from_bytes(name.to_bytes())));
        path
    }

    fn failed(&self, action: &'static str, name: Option<&CStr>, errno: Errno) -> io::Error {
        failed(action, &self.path(name), errno)
    }

    fn still_written_to(&self) -> io::Error {
        let message = format!(
            "cannot empty {}: after {PASSES} passes it still has new entries; stop the process that writes there",
            self.path(None).display()
        );
        io::Error::new(io::ErrorKind::ResourceBusy, message)
    }
}

fn open(here: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    resolve_at(here, name, flags | OFlags::NOFOLLOW, Mode::empty(), BENEATH.union(ResolveFlags::NO_XDEV))
}

/// Gives the owner of a directory all permissions on it.
fn open_up(here: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<()> {
    let directory = open(here, name, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC)?;
    let mode = Metadata::from(rustix::fs::fstat(&directory)?).mode;
    chmod_opened(directory.as_fd(), mode | 0o700)
}
