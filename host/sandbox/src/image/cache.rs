//! The directory of kept images: a record under a message authentication code binds the digests of component, engine and
//! image to the stamp of the image's file. Where the stamp (device, inode, size, times) is the recorded one the file is
//! mapped unread; where it is not, the file's content must have the recorded digest. Anything else is compiled again.
//!
//! ```text
//! key                       32 random bytes, made once; what makes the codes
//! lock                      held by who adds and removes
//! COMPONENT-ENGINE.image    machine code
//! COMPONENT-ENGINE.record   code and record; modified when the image was last used
//! tmp-*                     being written, and locked by who does
//! ```
//!
//! This keeps other users from what becomes native code, and finds what changed a file through the file system. It does not
//! find damage below the file system, which changes no stamp, and who is the same user can read the key.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use ring::hmac;
use sha2::{Digest, Sha256};

use super::private::{Locked, Private, Unfinished};
use super::record::{RECORD_BYTES, Record, Stamp};
use super::{Image, Kept};
use crate::Inspection;
use crate::text::hex;

/// How much is kept.
const BYTES: u64 = 1 << 30;
const ENTRIES: usize = 64;

/// What the names of an entry end with.
const IMAGE: &str = ".image";
const RECORD: &str = ".record";

/// Bytes that are read at once.
const BUFFER: usize = 128 << 10;

/// The kept images.
pub(crate) struct Cache {
    directory: Private,
    key: hmac::Key,
    engine: [u8; 32],
    executable: bool,
    bytes: u64,
    entries: usize,
}

/// An image that was written and has no name yet.
pub(crate) struct Written<'c> {
    file: Unfinished<'c>,
    digest: [u8; 32],
    executable: bool,
}

impl Written<'_> {
    /// Its file, where code may be executed from it.
    pub(super) fn executable(&self) -> Option<File> {
        self.file.file.try_clone().ok().filter(|_| self.executable)
    }
}

impl Cache {
    /// Opens the directory at `path` for images of the engine with this digest; makes it where it is missing.
    ///
    /// # Errors
    /// A directory or key that others could have a hand in; else what the file system says.
    pub(super) fn open(path: &Path, engine: [u8; 32]) -> io::Result<Self> {
        let directory = Private::open(path)?;
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

    /// What is kept of a component.
    ///
    /// # Errors
    /// Something is, and may not be used.
    pub(super) fn find(&self, component: &[u8; 32]) -> io::Result<Option<Kept>> {
        let name = self.name(component);
        let no = |why: &str| Err(io::Error::other(why.to_owned()));
        let record_file = match self.directory.read(&format!("{name}{RECORD}")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let mut bytes = Vec::new();
        (&record_file).take(RECORD_BYTES as u64).read_to_end(&mut bytes)?;
        let Some(mut record) = Record::open(&self.key, &bytes) else {
            return no("its record was not written by this program");
        };
        if record.component != *component || record.engine != self.engine {
            return no("its record is that of another component or engine");
        }
        let mut file = self.directory.read(&format!("{name}{IMAGE}"))?;
        let stamp = Stamp::of(&file.metadata()?);
        // Before any of it is read: what the code does not vouch for may be of any size.
        if stamp.size() != record.stamp.size() {
            return no("its image was changed");
        }
        let image = if self.executable && record.vouches_for(&stamp) {
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
            // Only that the next run need not read it all.
            let sealed = record.seal(&self.key).ok().zip(self.directory.try_lock().ok());
            let _ = sealed.map(|(bytes, _held)| self.directory.write(&format!("{name}{RECORD}"), &bytes));
            if self.executable { Image::File(file) } else { Image::Memory(content) }
        };
        // Where it is read-only nothing is removed either.
        let _ = self.directory.touch(&record_file);
        Ok(Some(Kept { image, inspection: record.inspection }))
    }

    /// Writes an image, on the disk and not only on the way there.
    pub(super) fn write(&self, image: &[u8]) -> io::Result<Written<'_>> {
        let mut file = self.directory.begin()?;
        file.file.write_all(image)?;
        file.file.sync_all()?;
        Ok(Written { file, digest: Sha256::digest(image).into(), executable: self.executable })
    }

    /// Keeps it, and no more in all than the bounds say: what was not used for longest goes.
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
        let kept = match record.seal(&self.key) {
            Ok(bytes) => self.directory.write(&format!("{name}{RECORD}"), &bytes),
            Err(why) => Err(io::Error::other(why)),
        };
        if let Err(error) = self.keep_the_bounds(&held) {
            tracing::warn!(
                "{}: compiled components that were not used for longest cannot be removed: {error}",
                self.path().display()
            );
        }
        kept
    }

    fn keep_the_bounds(&self, _held: &Locked) -> io::Result<()> {
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

/// The digest of the first `size` bytes of a file; they go to `content` too.
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

    /// Those of the first hundred that are kept.
    fn kept(cache: &Cache) -> Vec<u8> {
        (0..100).filter(|number| cache.find(&[*number; 32]).unwrap().is_some()).collect()
    }

    /// Says of an entry that it was used so many seconds after 1970.
    fn used(cache: &Cache, number: u8, at: u64) {
        let record = cache.path().join(format!("{}{RECORD}", cache.name(&[number; 32])));
        let file = File::options().write(true).open(record).unwrap();
        file.set_times(FileTimes::new().set_modified(UNIX_EPOCH + Duration::from_secs(at))).unwrap();
    }

    #[test]
    fn no_more_than_64_are_kept_and_what_was_not_used_for_longest_goes_first() {
        let place = tempfile::tempdir().unwrap();
        let cache = Cache::open(&place.path().join("c"), ENGINE).unwrap();
        for number in 0..64 {
            keep(&cache, number, b"image");
            used(&cache, number, 1000 + u64::from(number));
        }
        assert!(cache.find(&[0; 32]).unwrap().is_some(), "used once more");
        keep(&cache, 64, b"image");
        used(&cache, 64, 2000);
        assert!(cache.find(&[1; 32]).unwrap().is_none(), "it was the one not used for longest");
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
        // Two engines whose digests begin alike have the same names.
        let mut alike = ENGINE;
        alike[31] = 9;
        assert!(Cache::open(&path, alike).unwrap().find(&[7; 32]).is_err());
    }

    #[test]
    fn what_killed_runs_left_is_removed_and_what_is_being_written_is_not() {
        let place = tempfile::tempdir().unwrap();
        let cache = Cache::open(&place.path().join("c"), ENGINE).unwrap();
        let file = |name: &str| cache.path().join(name);
        for name in ["tmp-old", "tmp-new", "a-b.image"] {
            std::fs::write(file(name), "x").unwrap();
        }
        let old = File::options().write(true).open(file("tmp-old")).unwrap();
        old.set_times(FileTimes::new().set_modified(UNIX_EPOCH)).unwrap();
        // Before anything is written, for the disk may be full of them.
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
        // As on a file system that executes nothing, where an image is read into memory.
        cache.executable = false;
        keep(&cache, 1, b"image");
        assert!(cache.find(&[1; 32]).unwrap().is_some());
        let image = cache.path().join(format!("{}{IMAGE}", cache.name(&[1; 32])));
        File::options().write(true).open(image).unwrap().set_len(1 << 42).unwrap();
        let error = cache.find(&[1; 32]).map(drop).unwrap_err();
        assert_eq!(error.to_string(), "its image was changed");
    }

    #[test]
    fn an_image_that_was_looked_at_once_more_is_mapped_unread_from_then_on() {
        let place = tempfile::tempdir().unwrap();
        let cache = Cache::open(&place.path().join("c"), ENGINE).unwrap();
        keep(&cache, 1, b"image");
        let name = cache.name(&[1; 32]);
        let record = || {
            let bytes = std::fs::read(cache.path().join(format!("{name}{RECORD}"))).unwrap();
            Record::open(&cache.key, &bytes).unwrap()
        };
        let image = || std::fs::metadata(cache.path().join(format!("{name}{IMAGE}"))).unwrap();
        assert!(!record().vouches_for(&Stamp::of(&image())), "it was written just now");
        let before = record().seen;
        while now() < before + 3 {
            std::thread::yield_now();
        }
        assert!(cache.find(&[1; 32]).unwrap().is_some());
        assert!(record().vouches_for(&Stamp::of(&image())));
        // Which a change of the same length and times ends.
        std::fs::write(cache.path().join(format!("{name}{IMAGE}")), b"imago").unwrap();
        assert!(!record().vouches_for(&Stamp::of(&image())));
        assert!(cache.find(&[1; 32]).is_err());
    }
}
