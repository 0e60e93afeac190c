//! Lines in the host's log and in the report.
//!
//! ```
//! use understudy::log;
//!
//! log::info!("restoring {}", "base.tar");
//! log::warn!("there is no backup_manifest: sizes are not checked");
//! ```

use crate::host;

/// The level of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Why the method failed.
    Error,
    /// What the operator should check.
    Warn,
    /// What was done.
    Info,
    /// What helps the author of the method.
    Debug,
    /// Everything.
    Trace,
}

/// Logs one line with named fields. The host bounds the number of lines.
pub fn record(level: Level, message: &str, fields: &[(&str, &str)]) {
    host::log(level, message, fields);
}

/// Logs a line at [`Level::Error`]; takes what `format!` takes.
#[doc(hidden)]
#[macro_export]
macro_rules! __error {
    ($($arg:tt)*) => { $crate::log::record($crate::log::Level::Error, &format!($($arg)*), &[]) };
}

/// Logs a line at [`Level::Warn`]; takes what `format!` takes.
#[doc(hidden)]
#[macro_export]
macro_rules! __warn {
    ($($arg:tt)*) => { $crate::log::record($crate::log::Level::Warn, &format!($($arg)*), &[]) };
}

/// Logs a line at [`Level::Info`]; takes what `format!` takes.
#[doc(hidden)]
#[macro_export]
macro_rules! __info {
    ($($arg:tt)*) => { $crate::log::record($crate::log::Level::Info, &format!($($arg)*), &[]) };
}

/// Logs a line at [`Level::Debug`]; takes what `format!` takes.
#[doc(hidden)]
#[macro_export]
macro_rules! __debug {
    ($($arg:tt)*) => { $crate::log::record($crate::log::Level::Debug, &format!($($arg)*), &[]) };
}

#[doc(inline)]
pub use crate::{__debug as debug, __error as error, __info as info, __warn as warn};
