//! A directory that only this user may change, and the files in it.

use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, StatVfsMountFlags};
use rustix::io::Errno;

/// How many bytes the key has.
const KEY: usize = 32;
/// The file that holds the key.
const KEY_FILE: &str = "key";
/// The file that a run locks while it changes the directory.
const LOCK_FILE: &str = "lock";
/// How long to wait for the lock of another run, and the pause between two attempts.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
const LOCK_RETRY_PAUSE: Duration = Duration::from_millis(10);
/// How the name of a file begins while it is being written.
pub(super) const UNFINISHED: &str = "tmp-";
/// How many times to try to create a file. Another run may remove the new file before it is locked, because it looks like a left-over file.
const CREATE_ATTEMPTS: usize = 8;

/// The opened directory.
pub(super) struct PrivateDirectory {
    pub(super) path: PathBuf,
    directory: OwnedFd,
    user: u32,
}

/// A file that is being written. Dropping this value removes the file, unless it got its name.
pub(super) struct Unfinished<'d> {
    directory: &'d PrivateDirectory,
    name: Option<String>,
    pub(super) file: File,
}

/// The lock of the directory, released on drop.
pub(super) struct Locked {
    _file: File,
}

fn refused(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}

/// Refuses a path in a data directory, because methods write there as this user. Such a path is likely, because the data directory is
/// often in the home directory of the server's user. A directory counts as a data directory if it contains `PG_VERSION`, which PostgreSQL
/// also checks for, or `global`, which a method may create earlier.
fn refuse_in_a_data_directory(path: &Path) -> io::Result<()> {
    let absolute = std::path::absolute(path)?;
    // The last parts of the path may not exist yet, and any part may be a symbolic link.
    let existing = absolute.ancestors().find_map(|place| place.canonicalize().ok());
    for place in existing.iter().flat_map(|existing| existing.ancestors()) {
        if place.join("PG_VERSION").symlink_metadata().is_ok() || place.join("global").is_dir() {
            return Err(refused(format!(
                "it is in {}, which is a data directory (it holds PG_VERSION or global/), and methods write there",
                place.display()
            )));
        }
    }
    Ok(())
}

impl PrivateDirectory {
    /// Opens the directory at `path`, or creates it with mode 0700.
    ///
    /// # Errors
    /// Fails if another user owns the directory or may write to it, if it is in a data directory, or if it is a symbolic link: this user
    /// executes the directory's files as native code. Also fails if the file system returns an error.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        refuse_in_a_data_directory(path)?;
        match std::fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_symlink() => return Err(refused("it is a symbolic link".to_owned())),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                DirBuilder::new().recursive(true).mode(0o700).create(path)?;
            }
            Err(error) => return Err(error),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = File::from(rustix::fs::open(path, flags, Mode::empty())?);
        let metadata = directory.metadata()?;
        let user = rustix::process::geteuid().as_raw();
        if metadata.uid() != user {
            let owner = metadata.uid();
            return Err(refused(format!("it belongs to user {owner}, and this program runs as user {user}")));
        }
        if metadata.mode() & 0o022 != 0 {
            let mode = metadata.mode() & 0o7777;
            return Err(refused(format!("others may write to it (mode {mode:04o}): `chmod 0700` it")));
        }
        Ok(Self { path: path.to_owned(), directory: directory.into(), user })
    }

    /// Returns whether the files may be executed, which means that the file system is not mounted `noexec`.
    pub(super) fn is_executable(&self) -> bool {
        rustix::fs::fstatvfs(&self.directory)
            .is_ok_and(|system| !system.f_flag.contains(StatVfsMountFlags::NOEXEC))
    }

    /// Opens a file for reading.
    pub(super) fn read(&self, name: &str) -> io::Result<File> {
        self.existing(name, OFlags::RDONLY)
    }

    fn existing(&self, name: &str, access: OFlags) -> io::Result<File> {
        let flags = access | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = File::from(rustix::fs::openat(&self.directory, name, flags, Mode::empty())?);
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.uid() != self.user || metadata.mode() & 0o022 != 0 {
            return Err(refused(format!("{name} is not a file that only this user may change")));
        }
        Ok(file)
    }

    /// Creates a file under a temporary name, and locks it until it is finished. Also removes left-over files of killed runs.
    pub(super) fn begin(&self) -> io::Result<Unfinished<'_>> {
        // A left-over file that cannot be removed only takes disk space, and a full disk would be reported by the write.
        let _ = self.remove_left_overs();
        for _ in 0..CREATE_ATTEMPTS {
            let (name, file) = self.create()?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if file.metadata()?.nlink() > 0 => {
                    return Ok(Unfinished { directory: self, name: Some(name), file });
                }
                // Another run is removing the file, because it looked like a left-over file before it was locked.
                Ok(()) | Err(Errno::WOULDBLOCK) => {}
                Err(error) => {
                    self.remove(&name)?;
                    return Err(error.into());
                }
            }
        }
        Err(io::Error::other("other runs remove every file that this run begins there: try again"))
    }

    /// Removes unfinished files that no run is writing any more.
    fn remove_left_overs(&self) -> io::Result<()> {
        for entry in rustix::fs::Dir::read_from(&self.directory)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if !name.starts_with(UNFINISHED) {
                continue;
            }
            // Opened for writing, because network file systems require it for an exclusive lock.
            let Ok(file) = self.existing(name, OFlags::RDWR) else { continue };
            if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok() {
                self.remove(name)?;
            }
        }
        Ok(())
    }

    fn create(&self) -> io::Result<(String, File)> {
        let mut random = [0; 8];
        SystemRandom::new().fill(&mut random).map_err(|_| io::Error::other("no random bytes"))?;
        let name = format!("{UNFINISHED}{:016x}", u64::from_ne_bytes(random));
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = File::from(rustix::fs::openat(&self.directory, &name, flags, mode)?);
        Ok((name, file))
    }

    /// Writes a file under a temporary name and then renames it to `name`, replacing a file with that name.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.begin()?;
        file.file.write_all(bytes)?;
        file.finish(name).map(drop)
    }

    /// Removes a file, if it exists.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Marks a file as used now.
    pub(super) fn touch(&self, file: &File) -> io::Result<()> {
        let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
        Ok(rustix::fs::futimens(file, &rustix::fs::Timestamps { last_access: now, last_modification: now })?)
    }

    /// Returns the names and metadata of the files.
    pub(super) fn files(&self) -> io::Result<Vec<(String, std::fs::Metadata)>> {
        let mut files = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.directory)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            // A file that was removed after its name was read, or that another user owns, is skipped.
            if let Ok(file) = self.read(name) {
                files.push((name.to_owned(), file.metadata()?));
            }
        }
        Ok(files)
    }

    /// Locks the directory against changes by other runs.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if another run holds the lock for [`LOCK_TIMEOUT`].
    pub(super) fn lock(&self) -> io::Result<Locked> {
        let until = Instant::now() + LOCK_TIMEOUT;
        loop {
            match self.try_lock() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < until => {
                    std::thread::sleep(LOCK_RETRY_PAUSE);
                }
                locked => return locked,
            }
        }
    }

    /// Locks the directory without waiting.
    pub(super) fn try_lock(&self) -> io::Result<Locked> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = rustix::fs::openat(&self.directory, LOCK_FILE, flags, Mode::RUSR | Mode::WUSR)?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Locked { _file: file.into() })
    }

    /// Returns the key in this directory. Creates a key from random bytes if there is none.
    ///
    /// # Errors
    /// Fails if other users may read the key or if the key is damaged. Does not replace such a key, because nobody knows who wrote it.
    pub(super) fn key(&self) -> io::Result<hmac::Key> {
        match self.read_key() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            key => return key,
        }
        let _held = self.lock()?;
        match self.read_key() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            key => return key,
        }
        let mut bytes = [0; KEY];
        SystemRandom::new().fill(&mut bytes).map_err(|_| io::Error::other("no random bytes"))?;
        let mut file = self.begin()?;
        file.file.write_all(&bytes)?;
        file.file.sync_all()?;
        file.finish(KEY_FILE)?;
        self.read_key()
    }

    fn read_key(&self) -> io::Result<hmac::Key> {
        let file = self.read(KEY_FILE)?;
        if file.metadata()?.mode() & 0o077 != 0 {
            return Err(refused(format!(
                "others may read its {KEY_FILE}: remove the directory, and it is made again"
            )));
        }
        let mut bytes = Vec::with_capacity(KEY + 1);
        file.take(KEY as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() != KEY {
            return Err(refused(format!(
                "its {KEY_FILE} is damaged: remove the directory, and it is made again"
            )));
        }
        Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
    }
}

impl Unfinished<'_> {
    /// Renames the file to `name`, replacing a file with that name.
    pub(super) fn finish(mut self, name: &str) -> io::Result<()> {
        if let Some(unfinished) = self.name.take() {
            let directory = &self.directory.directory;
            if let Err(error) = rustix::fs::renameat(directory, &unfinished, directory, name) {
                self.name = Some(unfinished);
                return Err(error.into());
            }
        }
        Ok(())
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // If the file cannot be removed now, `begin` removes it later.
            let _ = self.directory.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_in_a_data_directory_is_refused_because_methods_write_there() {
        let place = tempfile::tempdir().unwrap();
        let cache = |home: &str| place.path().join(home).join(".cache/understudy/components");
        for (home, sign) in [("whole", "PG_VERSION"), ("emptied", "global"), ("deep/inside", "../PG_VERSION")]
        {
            std::fs::create_dir_all(place.path().join(home)).unwrap();
            let sign = place.path().join(home).join(sign);
            if sign.ends_with("global") {
                std::fs::create_dir(&sign).unwrap();
            } else {
                std::fs::write(&sign, "15\n").unwrap();
            }
            let error = PrivateDirectory::open(&cache(home)).map(drop).unwrap_err();
            assert!(error.to_string().contains("data directory"), "{error}");
            assert!(!place.path().join(home).join(".cache").exists(), "nothing is made in it either");
        }
        std::os::unix::fs::symlink(place.path().join("whole"), place.path().join("link")).unwrap();
        PrivateDirectory::open(&cache("link")).map(drop).unwrap_err();
        // A cache directory that exists already is refused too: a method may have written it.
        DirBuilder::new().recursive(true).mode(0o700).create(cache("whole")).unwrap();
        PrivateDirectory::open(&cache("whole")).map(drop).unwrap_err();
        PrivateDirectory::open(&cache("home")).unwrap();
    }
}
