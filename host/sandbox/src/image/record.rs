//! The record of a cached image: the digests of component, engine and image, and the component's description of itself. A record is
//! used only if its authentication code was made with this user's key.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use ring::hmac;
use serde::{Deserialize, Serialize};

use crate::Inspection;

/// How many bytes the authentication code before the record has.
const CODE: usize = 32;

/// The size limit of a signed record.
pub(super) const RECORD_BYTES: usize = 1 << 20;

/// How many seconds old a file's last change must be, so that a later change certainly has a different time in the stamp. The file system
/// with the coarsest clock is FAT, which counts in steps of two seconds.
const CLOCK_TICK: i64 = 2;

/// One image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The digest of the component.
    pub(super) component: [u8; 32],
    /// The digest of the engine that the image is for.
    pub(super) engine: [u8; 32],
    /// The digest of the image.
    pub(super) image: [u8; 32],
    /// The stamp of the image's file when its content was last found to have this digest.
    pub(super) stamp: Stamp,
    /// When the content was last found to have this digest, in seconds since 1970.
    pub(super) seen: i64,
    /// The checked description of the component, and what else `inspect` shows.
    pub(super) inspection: Inspection,
}

/// The metadata of a file that changes when its content changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// Returns the size of the file in bytes.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn of(file: &Metadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}

impl Record {
    /// Returns whether a file with this stamp certainly has the recorded content. If the file was changed just before its content was
    /// checked, it may have changed again within the same tick of the clock.
    pub(super) fn proves_unchanged(&self, stamp: &Stamp) -> bool {
        let last_change = self.stamp.changed.0.max(self.stamp.modified.0);
        self.stamp == *stamp && last_change.saturating_add(CLOCK_TICK) <= self.seen
    }

    /// Returns the content of the record's file: the authentication code, followed by the record.
    ///
    /// # Errors
    /// Fails if the record is too large, or if it would not be read back unchanged.
    pub(super) fn to_signed_bytes(&self, key: &hmac::Key) -> Result<Vec<u8>, &'static str> {
        const NOT_SERIALIZABLE: &str = "its description cannot be stored unchanged";
        let text = serde_json::to_vec(self).map_err(|_| NOT_SERIALIZABLE)?;
        if text.len() > RECORD_BYTES - CODE {
            return Err("its description is too long");
        }
        if serde_json::from_slice::<Self>(&text).ok().as_ref() != Some(self) {
            return Err(NOT_SERIALIZABLE);
        }
        Ok([hmac::sign(key, &text).as_ref(), &text].concat())
    }

    /// Reads the bytes that [`Record::to_signed_bytes`] returned; `None` if they were not signed with this key.
    pub(super) fn from_signed_bytes(key: &hmac::Key, bytes: &[u8]) -> Option<Self> {
        let (code, text) = bytes.split_at_checked(CODE)?;
        hmac::verify(key, text, code).ok()?;
        serde_json::from_slice(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::tests::inspection;

    fn record() -> Record {
        let stamp = Stamp { device: 1, inode: 2, size: 3, modified: (100, 5), changed: (101, 6) };
        let (component, engine, image) = ([1; 32], [2; 32], [3; 32]);
        Record { component, engine, image, stamp, seen: 103, inspection: inspection("x") }
    }

    #[test]
    fn a_stamp_proves_a_file_unchanged_if_its_last_change_is_old_enough() {
        let record = record();
        assert!(record.proves_unchanged(&record.stamp));
        let just_written = Record { seen: 102, ..record.clone() };
        assert!(!just_written.proves_unchanged(&record.stamp), "it may change once more in the same tick");
        let clock_went_back = Record { seen: 3, ..record.clone() };
        assert!(!clock_went_back.proves_unchanged(&record.stamp));
        let stamp = || record.stamp.clone();
        for other in [
            Stamp { device: 9, ..stamp() },
            Stamp { inode: 9, ..stamp() },
            Stamp { size: 9, ..stamp() },
            Stamp { modified: (100, 6), ..stamp() },
            Stamp { changed: (101, 7), ..stamp() },
        ] {
            assert!(!record.proves_unchanged(&other), "{other:?}");
        }
    }

    #[test]
    fn a_record_is_read_back_unchanged_and_refused_with_another_key() {
        let key = |byte| hmac::Key::new(hmac::HMAC_SHA256, &[byte; 32]);
        let sealed = record().to_signed_bytes(&key(1)).unwrap();
        assert_eq!(Record::from_signed_bytes(&key(1), &sealed), Some(record()));
        assert_eq!(Record::from_signed_bytes(&key(2), &sealed), None);
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(Record::from_signed_bytes(&key(1), &changed), None, "byte {at}");
        }
    }

    #[test]
    fn a_record_that_is_too_large_or_cannot_be_read_back_is_refused() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &[1; 32]);
        let mut large = record();
        large.inspection.imports = vec!["x".repeat(RECORD_BYTES)];
        assert!(large.to_signed_bytes(&key).unwrap_err().contains("too long"));
        let mut odd = record();
        odd.inspection.description.options[0].default = Some(crate::OptionValue::Number(f64::INFINITY));
        assert!(odd.to_signed_bytes(&key).unwrap_err().contains("unchanged"));
    }
}
