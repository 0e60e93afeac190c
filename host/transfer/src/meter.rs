//! Counts what one run reads from stores.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts requests and bytes. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    inner: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Counters {
    requests: AtomicU64,
    bytes: AtomicU64,
}

impl Meter {
    /// Returns how many requests were made, repeated ones included. Opening a local file and listing a local directory count too.
    pub fn requests(&self) -> u64 {
        self.inner.requests.load(Ordering::Relaxed)
    }

    /// Returns how many stored bytes were read.
    pub fn bytes(&self) -> u64 {
        self.inner.bytes.load(Ordering::Relaxed)
    }

    /// Counts a request.
    pub(crate) fn request(&self) {
        self.inner.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts bytes.
    pub(crate) fn read(&self, bytes: u64) {
        self.inner.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}
