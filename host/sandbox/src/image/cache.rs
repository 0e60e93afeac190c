//! The cache of images, which are compiled components. Each image has a record with a message authentication code. The record contains the
//! digests of the component, the engine and the image, and the stamp of the image's file (device, inode, size, times). If the file still
//! has this stamp, it is mapped into memory without being read. If the stamp differs, the file's content must have the recorded
//! digest. If the digest differs too, the component is compiled again.
//!
//! ```text
//! key                       32 random bytes, made once: the key of the authentication codes
//! lock                      locked by a run that adds or removes files
//! COMPONENT-ENGINE.image    machine code
//! COMPONENT-ENGINE.record   authentication code and record; its modification time is the last use of the image
//! tmp-*                     a file that is being written, locked by the writer
//! ```
//!
//! The cache prevents other users from changing files that are executed as native code, and detects changes made through the file
//! system. It does not detect two kinds of changes: damage below the file system, which leaves the stamp unchanged, and changes by a
//! process of the same user, which can read the key.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use ring::hmac;
use sha2::{Digest, Sha256};

use super::private::{Locked, PrivateDirectory, Unfinished};
use super::record::{RECORD_BYTES, Record, Stamp};
use super::{CachedComponent, Image};
use crate::Inspection;
use crate::text::hex;

/// How many bytes and how many images are kept.
const BYTES: u64 = 1 << 30;
const ENTRIES: usize = 64;

/// The endings of the file names of an entry.
const IMAGE: &str = ".image";
const RECORD: &str = ".record";

/// How many bytes are read at once.
const BUFFER: usize = 128 << 10;

/// The cache of images for one engine.
pub(crate) struct Cache {
    directory: PrivateDirectory,
    key: hmac::Key,
    engine: [u8; 32],
    executable: bool,
    bytes: u64,
    entries: usize,
}

/// An image that was written but does not have its name yet.
pub(crate) struct Written<'c> {
    file: Unfinished<'c>,
    digest: [u8; 32],
    executable: bool,
}

impl Written<'_> {
    /// Returns the file; `None` if its file system is mounted `noexec`.
    pub(super) fn executable(&self) -> Option<File> {
        self.file.file.try_clone().ok().filter(|_| self.executable)
    }
}

impl Cache {
    /// Opens the directory at `path`, or creates it, for images of the engine with this digest.
    ///
    /// # Errors
    /// Fails if other users could change the directory or the key, or if the file system fails.
    pub(super) fn open(path: &Path, engine: [u8; 32]) -> io::Result<Self> {
        let directory = PrivateDirectory::open(path)?;
        let key = directory.key()?;
        let executable = directory.is_executable();
        Ok(Self { directory, key, engine, executable, bytes: BYTES, entries: ENTRIES })
    }

    pub(super) fn path(&self) -> &Path {
        &self.directory.path
    }

    fn name(&self, component: &[u8; 32]) -> String {
        format!("{}-{}", hex(component), hex(&self.engine[..8]))
    }

    /// Returns the image and the inspection of a component; `None` if the cache has no record of it.
    ///
    /// # Errors
    /// Fails if the cache has a record but the entry must not be used.
    pub(super) fn find(&self, component: &[u8; 32]) -> io::Result<Option<CachedComponent>> {
        let name = self.name(component);
        let no = |why: &str| Err(io::Error::other(why.to_owned()));
        let record_file = match self.directory.read(&format!("{name}{RECORD}")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut bytes = Vec::new();
        (&record_file).take(RECORD_BYTES as u64).read_to_end(&mut bytes)?;
        let Some(mut record) = Record::from_signed_bytes(&self.key, &bytes) else {
            return no("its record was not written by this program");
        };
        if record.component != *component || record.engine != self.engine {
            return no("its record belongs to another component or engine");
        }
        let mut file = self.directory.read(&format!("{name}{IMAGE}"))?;
        let stamp = Stamp::of(&file.metadata()?);
        // The size is checked before the file is read, because a file that was not authenticated yet may have any size.
        if stamp.size() != record.stamp.size() {
            return no("its image was changed");
        }
        let image = if self.executable && record.proves_unchanged(&stamp) {
            Image::File(file)
        } else {
            let seen = now();
            let mut content = Vec::new();
            if !self.executable {
                let size = usize::try_from(stamp.size()).map_err(io::Error::other)?;
                content.try_reserve_exact(size)?;
            }
            let digest = digest(&mut file, stamp.size(), (!self.executable).then_some(&mut content))?;
            if digest != record.image || Stamp::of(&file.metadata()?) != stamp {
                return no("its image was changed");
            }
            record.seen = seen;
            record.stamp = stamp;
            // With the new stamp, the next run need not read the whole file. A failure here does not matter.
            let sealed = record.to_signed_bytes(&self.key).ok().zip(self.directory.try_lock().ok());
            let _ = sealed.map(|(bytes, _held)| self.directory.write(&format!("{name}{RECORD}"), &bytes));
            if self.executable { Image::File(file) } else { Image::Memory(content) }
        };
        // This fails on a read-only file system, where no run removes entries.
        let _ = self.directory.touch(&record_file);
        Ok(Some(CachedComponent { image, inspection: record.inspection }))
    }

    /// Writes an image and syncs it to the disk.
    pub(super) fn write(&self, image: &[u8]) -> io::Result<Written<'_>> {
        let mut file = self.directory.begin()?;
        file.file.write_all(image)?;
        file.file.sync_all()?;
        Ok(Written { file, digest: Sha256::digest(image).into(), executable: self.executable })
    }

    /// Gives a written image its name and writes its record. Then removes the least recently used entries beyond the bounds.
    pub(super) fn keep(
        &self,
        written: Written<'_>,
        component: &[u8; 32],
        inspection: &Inspection,
    ) -> io::Result<()> {
        let name = self.name(component);
        let held = self.directory.lock()?;
        let file = written.file.file.try_clone()?;
        written.file.finish(&format!("{name}{IMAGE}"))?;
        let record = Record {
            component: *component,
            engine: self.engine,
            image: written.digest,
            stamp: Stamp::of(&file.metadata()?),
            seen: now(),
            inspection: inspection.clone(),
        };
        let kept = match record.to_signed_bytes(&self.key) {
            Ok(bytes) => self.directory.write(&format!("{name}{RECORD}"), &bytes),
            Err(why) => Err(io::Error::other(why)),
        };
        if let Err(error) = self.remove_beyond_bounds(&held) {
            tracing::warn!(
                "{}: cannot remove the least recently used compiled components: {error}",
                self.path().display()
            );
        }
        kept
    }

    fn remove_beyond_bounds(&self, _held: &Locked) -> io::Result<()> {
        let files = self.directory.files()?;
        let image_of = |entry: &str| {
            files
                .iter()
                .find(|(name, _)| name.strip_suffix(IMAGE) == Some(entry))
                .map_or(0, |(_, file)| file.size())
        };
        let mut entries = Vec::new();
        for (name, file) in &files {
            if let Some(entry) = name.strip_suffix(RECORD) {
                let size = image_of(entry) + file.size();
                entries.push(((file.mtime(), file.mtime_nsec()), entry, size));
            } else if let Some(entry) = name.strip_suffix(IMAGE) {
                let record = format!("{entry}{RECORD}");
                if !files.iter().any(|(name, _)| *name == record) {
                    self.directory.remove(name)?;
                }
            }
        }
        entries.sort_unstable();
        let (mut count, mut bytes) = (entries.len(), entries.iter().map(|(_, _, size)| size).sum::<u64>());
        for (_, entry, size) in entries {
            if count <= self.entries && bytes <= self.bytes {
                break;
            }
            self.directory.remove(&format!("{entry}{RECORD}"))?;
            self.directory.remove(&format!("{entry}{IMAGE}"))?;
            (count, bytes) = (count - 1, bytes - size);
        }
        Ok(())
    }
}

/// Returns the digest of the first `size` bytes of a file. Appends the bytes to `content`, if given.
fn digest(file: &mut File, size: u64, mut content: Option<&mut Vec<u8>>) -> io::Result<[u8; 32]> {
    file.rewind()?;
    let mut file = file.take(size);
    let mut digest = Sha256::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(digest.finalize().into()),
            Ok(count) => {
                digest.update(&buffer[..count]);
                if let Some(content) = &mut content {
                    content.extend_from_slice(&buffer[..count]);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::fs::FileTimes;
    use std::time::Duration;

    use super::*;
    use crate::image::private::UNFINISHED;
    use crate::image::tests::inspection;

    const ENGINE: [u8; 32] = [1; 32];

    fn keep(cache: &Cache, number: u8, image: &[u8]) {
        cache.keep(cache.write(image).unwrap(), &[number; 32], &inspection("x")).unwrap();
    }

    /// Returns the numbers below 100 whose components the cache has.
    fn kept(cache: &Cache) -> Vec<u8> {
        (0..100).filter(|number| cache.find(&[*number; 32]).unwrap().is_some()).collect()
    }

    /// Sets when an entry was last used, in seconds since 1970.
    fn used(cache: &Cache, number: u8, at: u64) {
        let record = cache.path().join(format!("{}{RECORD}", cache.name(&[number; 32])));
        let file = File::options().write(true).open(record).unwrap();
        file.set_times(FileTimes::new().set_modified(UNIX_EPOCH + Duration::from_secs(at))).unwrap();
    }

    #[test]
    fn no_more_than_64_are_kept_and_the_least_recently_used_is_removed_first() {
        let place = tempfile::tempdir().unwrap();
        let cache = Cache::open(&place.path().join("c"), ENGINE).unwrap();
        for number in 0..64 {
            keep(&cache, number, b"image");
            used(&cache, number, 1000 + u64::from(number));
        }
        assert!(cache.find(&[0; 32]).unwrap().is_some(), "used once more");
        keep(&cache, 64, b"image");
        used(&cache, 64, 2000);
        assert!(cache.find(&[1; 32]).unwrap().is_none(), "it was the least recently used");
        keep(&cache, 65, b"image");
        let expected: Vec<u8> = [0].into_iter().chain(3..66).collect();
        assert_eq!(kept(&cache), expected);
        assert_eq!(cache.directory.files().unwrap().len(), 2 * 64 + 2, "nothing else is left");
    }

    #[test]
    fn no_more_bytes_are_kept_than_the_bound() {
        let place = tempfile::tempdir().unwrap();
        let mut cache = Cache::open(&place.path().join("c"), ENGINE).unwrap();
        assert_eq!((cache.bytes, cache.entries), (1 << 30, 64));
        cache.bytes = 100_000;
        for number in 0..3 {
            keep(&cache, number, &[0; 40_000]);
            used(&cache, number, 1000 + u64::from(number));
        }
        assert_eq!(kept(&cache), [1, 2]);
        keep(&cache, 3, &[0; 200_000]);
        assert_eq!(kept(&cache), <[u8; 0]>::default(), "one that alone is too large is not kept either");
    }

    #[test]
    fn an_image_for_another_engine_is_not_found_and_stays_for_that_one() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("c");
        let (old, new) = (Cache::open(&path, ENGINE).unwrap(), Cache::open(&path, [2; 32]).unwrap());
        keep(&old, 7, b"old");
        assert!(new.find(&[7; 32]).unwrap().is_none());
        keep(&new, 7, b"new");
        assert!(old.find(&[7; 32]).unwrap().is_some() && new.find(&[7; 32]).unwrap().is_some());
        // The two engines have the same file names, because their digests begin with the same bytes.
        let mut alike = ENGINE;
        alike[31] = 9;
        assert!(Cache::open(&path, alike).unwrap().find(&[7; 32]).is_err());
    }

    #[test]
    fn left_over_files_of_killed_runs_are_removed_and_files_being_written_are_not() {
        let place = tempfile::tempdir().unwrap();
        let cache = Cache::open(&place.path().join("c"), ENGINE).unwrap();
        let file = |name: &str| cache.path().join(name);
        for name in ["tmp-old", "tmp-new", "a-b.image"] {
            std::fs::write(file(name), "x").unwrap();
        }
        let old = File::options().write(true).open(file("tmp-old")).unwrap();
        old.set_times(FileTimes::new().set_modified(UNIX_EPOCH)).unwrap();
        // Left-over files are removed before anything is written, because they may fill the disk.
        let written = cache.write(b"image").unwrap();
        assert!(!file("tmp-old").exists() && !file("tmp-new").exists());
        keep(&cache, 1, b"image");
        assert!(!file("a-b.image").exists());
        cache.keep(written, &[2; 32], &inspection("x")).unwrap();
        assert_eq!(kept(&cache), [1, 2]);
        drop(cache.write(b"image").unwrap());
        let unfinished = |(name, _): &(String, _)| name.starts_with(UNFINISHED);
        assert!(!cache.directory.files().unwrap().iter().any(unfinished));
    }

    #[test]
    fn an_image_of_another_size_is_not_read_at_all() {
        let place = tempfile::tempdir().unwrap();
        let mut cache = Cache::open(&place.path().join("c"), ENGINE).unwrap();
        // On a file system that is mounted `noexec`, an image is read into memory.
        cache.executable = false;
        keep(&cache, 1, b"image");
        assert!(cache.find(&[1; 32]).unwrap().is_some());
        let image = cache.path().join(format!("{}{IMAGE}", cache.name(&[1; 32])));
        File::options().write(true).open(image).unwrap().set_len(1 << 42).unwrap();
        let error = cache.find(&[1; 32]).map(drop).unwrap_err();
        assert_eq!(error.to_string(), "its image was changed");
    }

    #[test]
    fn after_a_check_of_its_digest_an_image_is_mapped_without_being_read() {
        let place = tempfile::tempdir().unwrap();
        let cache = Cache::open(&place.path().join("c"), ENGINE).unwrap();
        keep(&cache, 1, b"image");
        let name = cache.name(&[1; 32]);
        let record = || {
            let bytes = std::fs::read(cache.path().join(format!("{name}{RECORD}"))).unwrap();
            Record::from_signed_bytes(&cache.key, &bytes).unwrap()
        };
        let image = || std::fs::metadata(cache.path().join(format!("{name}{IMAGE}"))).unwrap();
        assert!(!record().proves_unchanged(&Stamp::of(&image())), "it was written just now");
        let before = record().seen;
        while now() < before + 3 {
            std::thread::yield_now();
        }
        assert!(cache.find(&[1; 32]).unwrap().is_some());
        assert!(record().proves_unchanged(&Stamp::of(&image())));
        // A change of the content is detected even if the length stays the same.
        std::fs::write(cache.path().join(format!("{name}{IMAGE}")), b"imago").unwrap();
        assert!(!record().proves_unchanged(&Stamp::of(&image())));
        assert!(cache.find(&[1; 32]).is_err());
    }
}
