//! A directory that no other user may change, and the files in it.

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

/// Bytes of the key.
const KEY: usize = 32;
/// The file of the key.
const KEY_FILE: &str = "key";
/// The file that whoever changes the directory locks.
const LOCK_FILE: &str = "lock";
/// How long another run may hold it.
const PATIENCE: Duration = Duration::from_secs(2);
const INTERVAL: Duration = Duration::from_millis(10);
/// What the name of a file begins with that is still being written.
pub(super) const UNFINISHED: &str = "tmp-";
/// How often a file is begun once more that another run took for a left-over.
const BEGINNINGS: usize = 8;

/// The directory, opened.
pub(super) struct Private {
    pub(super) path: PathBuf,
    directory: OwnedFd,
    user: u32,
}

/// A file that is being written; removed with this value unless it was given its name.
pub(super) struct Unfinished<'d> {
    directory: &'d Private,
    name: Option<String>,
    pub(super) file: File,
}

/// Holds the directory's lock.
pub(super) struct Locked {
    _file: File,
}

fn refused(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}

/// Refuses a place that methods write to as this user: below a data directory, which is the home directory of many a
/// server's user. By what PostgreSQL itself knows one by (`PG_VERSION`), and by `global`, which is there before it.
fn refuse_in_a_data_directory(path: &Path) -> io::Result<()> {
    let absolute = std::path::absolute(path)?;
    // What is not there yet holds nothing; what is there may be reached by symbolic links.
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

impl Private {
    /// Opens the directory at `path`, which it makes where it is missing (0700).
    ///
    /// # Errors
    /// A directory that another user owns or may write to, that is in a data directory, or a symbolic link: what is in it
    /// would run as native code of this user. Else what the file system says.
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

    /// Whether code in its files may be executed (`noexec` of its mount).
    pub(super) fn is_executable(&self) -> bool {
        rustix::fs::fstatvfs(&self.directory)
            .is_ok_and(|system| !system.f_flag.contains(StatVfsMountFlags::NOEXEC))
    }

    /// Opens a file of it to be read.
    pub(super) fn read(&self, name: &str) -> io::Result<File> {
        self.existing(name, OFlags::RDONLY)
    }

    fn existing(&self, name: &str, access: OFlags) -> io::Result<File> {
        let flags = access | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = File::from(rustix::fs::openat(&self.directory, name, flags, Mode::empty())?);
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.uid() != self.user || metadata.mode() & 0o022 != 0 {
            return Err(refused(format!("{name} is no file that this user alone may change")));
        }
        Ok(file)
    }

    /// Begins a file, which is locked for as long as it is being written; removes what killed runs left.
    pub(super) fn begin(&self) -> io::Result<Unfinished<'_>> {
        // What cannot be removed is in nobody's way but the disk's, which says so itself.
        let _ = self.remove_left_overs();
        for _ in 0..BEGINNINGS {
            let (name, file) = self.create()?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if file.metadata()?.nlink() > 0 => {
                    return Ok(Unfinished { directory: self, name: Some(name), file });
                }
                // Another run took it for a left-over before it was locked, and removes it.
                Ok(()) | Err(Errno::WOULDBLOCK) => {}
                Err(error) => {
                    self.remove(&name)?;
                    return Err(error.into());
                }
            }
        }
        Err(io::Error::other("other runs remove what is begun there: try again"))
    }

    /// Removes the files that were begun and that nobody is writing any more.
    fn remove_left_overs(&self) -> io::Result<()> {
        for entry in rustix::fs::Dir::read_from(&self.directory)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if !name.starts_with(UNFINISHED) {
                continue;
            }
            // For writing, as a file system of the network wants it for this lock.
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

    /// Writes a file under its name, in place of what has that name.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.begin()?;
        file.file.write_all(bytes)?;
        file.finish(name).map(drop)
    }

    /// Removes a file; one that is not there is no error.
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

    /// The names and metadata of its files.
    pub(super) fn files(&self) -> io::Result<Vec<(String, std::fs::Metadata)>> {
        let mut files = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.directory)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            // What is gone by now, or is no file of ours, is nothing to count.
            if let Ok(file) = self.read(name) {
                files.push((name.to_owned(), file.metadata()?));
            }
        }
        Ok(files)
    }

    /// Keeps other runs from changing the directory meanwhile.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] where another run holds the lock for two seconds.
    pub(super) fn lock(&self) -> io::Result<Locked> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.try_lock() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < until => {
                    std::thread::sleep(INTERVAL);
                }
                locked => return locked,
            }
        }
    }

    /// The same without waiting.
    pub(super) fn try_lock(&self) -> io::Result<Locked> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = rustix::fs::openat(&self.directory, LOCK_FILE, flags, Mode::RUSR | Mode::WUSR)?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Locked { _file: file.into() })
    }

    /// The key of this directory, made once, of random bytes.
    ///
    /// # Errors
    /// A key that others may read or that is none; it is not replaced, for it is not known who put it there.
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
    /// Gives the file its name, in place of what has that name.
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
            // What cannot be removed now is removed when the next file is begun.
            let _ = self.directory.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_in_a_data_directory_is_none_for_methods_write_there() {
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
            let error = Private::open(&cache(home)).map(drop).unwrap_err();
            assert!(error.to_string().contains("data directory"), "{error}");
            assert!(!place.path().join(home).join(".cache").exists(), "nothing is made in it either");
        }
        std::os::unix::fs::symlink(place.path().join("whole"), place.path().join("link")).unwrap();
        Private::open(&cache("link")).map(drop).unwrap_err();
        // What a method wrote there before counts no more.
        DirBuilder::new().recursive(true).mode(0o700).create(cache("whole")).unwrap();
        Private::open(&cache("whole")).map(drop).unwrap_err();
        Private::open(&cache("home")).unwrap();
    }
}
