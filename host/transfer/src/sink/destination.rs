//! The state that all files of a job share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::target::Target;

/// Where a job writes, whether it was cancelled, and how much it has written.
pub(crate) struct Destination {
    /// The target of its files.
    pub(crate) target: Arc<Target>,
    /// Set when the job is cancelled.
    pub(crate) cancel: CancellationToken,
    bytes: AtomicU64,
    files: AtomicU64,
}

impl Destination {
    /// Makes a destination into which nothing has been written.
    pub(crate) fn new(target: Arc<Target>) -> Self {
        Self { target, cancel: CancellationToken::new(), bytes: AtomicU64::new(0), files: AtomicU64::new(0) }
    }

    /// Fails if the job is cancelled.
    ///
    /// # Errors
    /// `Cancelled` if the job is cancelled.
    pub(crate) fn fail_if_cancelled(&self) -> Result<(), Error> {
        if self.cancel.is_cancelled() { Err(Error::cancelled()) } else { Ok(()) }
    }

    /// Counts bytes that were written.
    pub(super) fn wrote(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts a file that was written.
    pub(super) fn wrote_file(&self) {
        self.files.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns how many bytes and files were written so far.
    pub(crate) fn written(&self) -> (u64, u64) {
        (self.bytes.load(Ordering::Relaxed), self.files.load(Ordering::Relaxed))
    }
}
