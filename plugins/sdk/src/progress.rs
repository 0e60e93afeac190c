//! What the progress bar shows. [`crate::DataFile`] counts by itself what it writes.

use crate::host;

/// What the method does now, for people, such as `tablespace 16384`.
pub fn phase(name: &str) {
    host::phase(name);
}

/// How much there will be in all, where it is known.
pub fn expect(bytes: Option<u64>, files: Option<u64>) {
    host::expect(bytes, files);
}

/// `bytes` and `files` more are done.
pub fn done(bytes: u64, files: u64) {
    host::done(bytes, files);
}
