//! Failures of a method, and errors of the host.

use std::fmt;
use std::io;
use std::path::Path;

/// Why a method failed. The host tries the next method.
///
/// ```
/// use understudy::{AtPath, Failure};
///
/// fn newest(directory: &str) -> Result<String, Failure> {
///     let mut names = Vec::new();
///     for entry in std::fs::read_dir(directory).at(directory)? {
///         names.push(entry.at(directory)?.file_name().to_string_lossy().into_owned());
///     }
///     names.into_iter().max().ok_or_else(|| Failure::not_applicable(format!("there is no backup in {directory}")))
/// }
/// assert!(newest("/no/such").unwrap_err().to_string().starts_with("/no/such: "));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// There is no backup that this method could restore.
    NotApplicable(String),
    /// A later attempt may succeed, such as when a store responds again.
    RetryLater(String),
    /// Any other failure. The text says what happened, to which file, and what to do.
    Failed(String),
    /// The host asked the method to stop, and the method stopped.
    Cancelled,
}

impl Failure {
    /// Makes a [`Failure::NotApplicable`].
    pub fn not_applicable(why: impl Into<String>) -> Self {
        Self::NotApplicable(why.into())
    }

    /// Makes a [`Failure::RetryLater`].
    pub fn retry_later(why: impl Into<String>) -> Self {
        Self::RetryLater(why.into())
    }

    /// Makes a [`Failure::Failed`].
    pub fn failed(why: impl Into<String>) -> Self {
        Self::Failed(why.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotApplicable(why) | Self::RetryLater(why) | Self::Failed(why) => f.write_str(why),
            Self::Cancelled => f.write_str("cancelled"),
        }
    }
}

impl std::error::Error for Failure {}

/// A failure passes through [`io::Read`] and [`io::Write`] as the inner error, and converting back returns it unchanged.
impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        Self::other(failure)
    }
}

/// Converts an input or output error without a path. Prefer [`AtPath::at`], which adds the path.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        error.downcast::<Self>().unwrap_or_else(|error| Self::Failed(without_number(&error)))
    }
}

/// Returns the text of an error without its error number. In a component the number is WASI's. On the machine of the person who reads the
/// message, the same number means another error.
fn without_number(error: &io::Error) -> String {
    let text = error.to_string();
    match error.raw_os_error() {
        Some(number) => text.replace(&format!(" (os error {number})"), ""),
        None => text,
    }
}

/// An error of a host function. The host has already recorded a denial, with the line of configuration that would allow the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// No grant covers the call.
    Denied(String),
    /// The object, file or name does not exist.
    NotFound(String),
    /// An argument of the call is invalid.
    Invalid(String),
    /// A later call may succeed.
    Transient(String),
    /// The data that was read is damaged.
    Corrupt(String),
    /// A bound was reached.
    Limit(String),
    /// Anything else.
    Failed(String),
    /// The run was cancelled.
    Cancelled,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(what) => write!(f, "denied: {what}"),
            Self::NotFound(what)
            | Self::Invalid(what)
            | Self::Transient(what)
            | Self::Corrupt(what)
            | Self::Limit(what)
            | Self::Failed(what) => f.write_str(what),
            Self::Cancelled => f.write_str("cancelled"),
        }
    }
}

impl std::error::Error for Error {}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Transient(what) => Self::RetryLater(what),
            Error::Cancelled => Self::Cancelled,
            other => Self::Failed(other.to_string()),
        }
    }
}

/// Turns an [`io::Error`] into a [`Failure`] that names the file.
pub trait AtPath<T> {
    /// Returns the value, or the failure `PATH: what went wrong`.
    ///
    /// # Errors
    /// [`Failure::Failed`]; [`Failure::Cancelled`] if the error came from a cancelled [`crate::DataFile`].
    fn at(self, path: impl AsRef<Path>) -> Result<T, Failure>;
}

impl<T> AtPath<T> for io::Result<T> {
    fn at(self, path: impl AsRef<Path>) -> Result<T, Failure> {
        self.map_err(|error| match error.downcast::<Failure>() {
            Ok(failure) => failure,
            Err(error) => Failure::Failed(format!("{}: {}", path.as_ref().display(), without_number(&error))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_or_output_error_names_its_file() {
        let failure = std::fs::File::open("/no/such/file").at("/no/such/file").unwrap_err();
        assert_eq!(failure, Failure::failed("/no/such/file: No such file or directory"));
    }

    #[test]
    fn a_cancellation_passes_through_a_reader_unchanged() {
        let through: io::Error = Failure::Cancelled.into();
        assert_eq!(Err::<(), _>(through).at("some/file"), Err(Failure::Cancelled));
        assert_eq!(Failure::from(io::Error::from(Failure::Cancelled)), Failure::Cancelled);
    }
}
