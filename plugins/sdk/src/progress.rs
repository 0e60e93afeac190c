//! The progress of the run. [`crate::DataFile`] and [`crate::transfer::Job`] report what they write by themselves.
//!
//! ```
//! use understudy::{Plan, progress};
//!
//! fn begin(plan: &Plan) {
//!     progress::expect(plan.bytes, plan.files);
//!     progress::phase("restoring");
//! }
//! ```

use crate::host;

/// Reports what the method is doing, such as `tablespace 16384`, for people to read.
pub fn phase(name: &str) {
    host::phase(name);
}

/// Reports how many bytes and files will be written in total; `None` if unknown.
pub fn expect(bytes: Option<u64>, files: Option<u64>) {
    host::expect(bytes, files);
}

/// Reports that `bytes` and `files` more are written.
pub fn done(bytes: u64, files: u64) {
    host::done(bytes, files);
}
