//! What is known of a kept image: whose it is, of what content, and what its component said. Believed only with the
//! authentication code of this user's key.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use ring::hmac;
use serde::{Deserialize, Serialize};

use crate::Inspection;

/// Bytes of the code before the record.
const CODE: usize = 32;

/// A record as large as this is not kept.
pub(super) const RECORD_BYTES: usize = 1 << 20;

/// How old the last change of a file must be for its stamp to tell the next one: the coarsest clock of a file system is
/// that of FAT.
const SETTLED: i64 = 2;

/// One image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The digest of the component.
    pub(super) component: [u8; 32],
    /// The digest of the engine that the image is for.
    pub(super) engine: [u8; 32],
    /// The digest of the image.
    pub(super) image: [u8; 32],
    /// The image's file when its content last had this digest.
    pub(super) stamp: Stamp,
    /// When that was, in seconds since 1970.
    pub(super) seen: i64,
    /// The checked answer of the component to `describe`, and what else `inspect` tells of it.
    pub(super) inspection: Inspection,
}

/// What changes when a file does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// Bytes of the file.
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
    /// Whether a file with this stamp has the recorded content for certain. A file that was changed just before it was
    /// looked at may have been changed once more in the same tick of the clock.
    pub(super) fn vouches_for(&self, stamp: &Stamp) -> bool {
        let last_change = self.stamp.changed.0.max(self.stamp.modified.0);
        self.stamp == *stamp && last_change.saturating_add(SETTLED) <= self.seen
    }

    /// The bytes of its file.
    ///
    /// # Errors
    /// Why there is no record of it: it is too large, or would not come back as it is.
    pub(super) fn seal(&self, key: &hmac::Key) -> Result<Vec<u8>, &'static str> {
        const OTHERWISE: &str = "what it says of itself cannot be written down as it is";
        let text = serde_json::to_vec(self).map_err(|_| OTHERWISE)?;
        if text.len() > RECORD_BYTES - CODE {
            return Err("what it says of itself is too long");
        }
        if serde_json::from_slice::<Self>(&text).ok().as_ref() != Some(self) {
            return Err(OTHERWISE);
        }
        Ok([hmac::sign(key, &text).as_ref(), &text].concat())
    }

    /// Reads what [`Record::seal`] gave; none where it was not made with this key.
    pub(super) fn open(key: &hmac::Key, bytes: &[u8]) -> Option<Self> {
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
    fn a_stamp_vouches_for_a_file_that_nothing_touched_since_and_that_had_settled() {
        let record = record();
        assert!(record.vouches_for(&record.stamp));
        let just_written = Record { seen: 102, ..record.clone() };
        assert!(!just_written.vouches_for(&record.stamp), "it may change once more in the same tick");
        let clock_went_back = Record { seen: 3, ..record.clone() };
        assert!(!clock_went_back.vouches_for(&record.stamp));
        let stamp = || record.stamp.clone();
        for other in [
            Stamp { device: 9, ..stamp() },
            Stamp { inode: 9, ..stamp() },
            Stamp { size: 9, ..stamp() },
            Stamp { modified: (100, 6), ..stamp() },
            Stamp { changed: (101, 7), ..stamp() },
        ] {
            assert!(!record.vouches_for(&other), "{other:?}");
        }
    }

    #[test]
    fn a_record_comes_back_as_it_was_and_only_with_its_key() {
        let key = |byte| hmac::Key::new(hmac::HMAC_SHA256, &[byte; 32]);
        let sealed = record().seal(&key(1)).unwrap();
        assert_eq!(Record::open(&key(1), &sealed), Some(record()));
        assert_eq!(Record::open(&key(2), &sealed), None);
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(Record::open(&key(1), &changed), None, "byte {at}");
        }
    }

    #[test]
    fn a_record_that_is_too_large_or_would_come_back_otherwise_is_not_made() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &[1; 32]);
        let mut large = record();
        large.inspection.imports = vec!["x".repeat(RECORD_BYTES)];
        assert!(large.seal(&key).unwrap_err().contains("too long"));
        let mut odd = record();
        odd.inspection.description.options[0].default = Some(crate::OptionValue::Number(f64::INFINITY));
        assert!(odd.seal(&key).unwrap_err().contains("as it is"));
    }
}
