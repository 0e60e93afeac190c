//! Readers of the files and the file names that PostgreSQL 13 to 18 keep in a data directory and in a backup, one module for each format:
//! bytes go in, types come out.
//!
//! This is a separate crate because the host, which checks the files that a method left, and the methods, which plan from a
//! backup, must read the same bytes in the same way. So it also builds for `wasm32-wasip2`, and knows neither stores nor plugins
//! nor the file system.
//!
//! If the host needs the whole file and a method only its beginning, a module has two functions over one parser. The strict one
//! accepts only what PostgreSQL writes. The lenient one reads what a plan needs, and leaves the rest to the host, which reads the
//! file again when it seals.
//!
//! The message of an error is a predicate: it follows the name of the file, as in "backup_label *has a last line that is cut off*".

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

pub mod backup_label;
pub mod configuration;
pub mod control_file;
pub mod history;
mod lsn;
pub mod names;
pub mod page;
pub mod segment;
pub mod tablespace_map;
pub mod version;
pub mod written;

pub use lsn::{Lsn, NotAnLsn};

/// How many characters of an invalid text a message repeats.
const SHOWN: usize = 200;

/// Returns the beginning of a text for a message, with control characters escaped.
fn shown(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    text.chars().take(SHOWN).flat_map(char::escape_debug).collect()
}
