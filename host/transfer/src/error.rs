//! The error type of the data plane.

use std::fmt;

/// The kind of a failure, in the words of the contract (`error` in `wit/method.wit`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A store refused the request (403), or no grant covers it.
    Denied,
    /// The object, file or key does not exist.
    NotFound,
    /// The request itself is invalid.
    Invalid,
    /// A temporary failure that outlasted every retry.
    Transient,
    /// The bytes are wrong: a checksum does not match, a stream is truncated or damaged, or an object changed.
    Corrupt,
    /// A limit was reached: a size, a number, or the space on the disk.
    Limit,
    /// Everything else.
    Failed,
    /// The work was cancelled.
    Cancelled,
}

impl Kind {
    /// Returns the kind's name in reports.
    pub fn word(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::NotFound => "not-found",
            Self::Invalid => "invalid",
            Self::Transient => "transient",
            Self::Corrupt => "corrupt",
            Self::Limit => "limit",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A failure of the data plane. Its message names the object or the file, and contains none of the secrets that this crate knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// The kind.
    pub kind: Kind,
    /// What happened, to which object or file.
    pub message: String,
}

impl Error {
    /// Makes a failure.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// Copies the error with which a reader failed, so that the reader can return it again. An [`std::io::Error`] cannot be cloned.
    pub(crate) fn again(error: &std::io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Self>()) {
            Some(own) => own.clone(),
            None => Self::from(std::io::Error::new(error.kind(), error.to_string())),
        }
    }

    /// Returns the error for cancelled work.
    pub fn cancelled() -> Self {
        Self::new(Kind::Cancelled, "the work was cancelled")
    }

    /// Returns the error for work that panicked, which is a bug in the data plane.
    pub(crate) fn of_panic(panic: &(dyn std::any::Any + Send)) -> Self {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Self::new(Kind::Failed, format!("a fault in the data plane: {}", text.unwrap_or("it gave no reason")))
    }

    /// Puts the object or file before the message: `"{what}: {message}"`.
    #[must_use]
    pub fn of(self, what: impl fmt::Display) -> Self {
        Self { kind: self.kind, message: format!("{what}: {}", self.message) }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<foundation::redact::CannotRedact> for Error {
    fn from(error: foundation::redact::CannotRedact) -> Self {
        use foundation::redact::CannotRedact;
        let kind = match error {
            CannotRedact::TooMany => Kind::Limit,
            CannotRedact::Search(_) => Kind::Failed,
        };
        Self::new(kind, error.to_string())
    }
}

/// Wraps the error so that it passes through a [`std::io::Read`]. [`Error::from`] unwraps it.
impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        Self::other(error)
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind;
        if let Some(own) = error.get_ref().and_then(|inner| inner.downcast_ref::<Self>()) {
            return own.clone();
        }
        let kind = match error.kind() {
            ErrorKind::NotFound => Kind::NotFound,
            ErrorKind::PermissionDenied => Kind::Denied,
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => Kind::Limit,
            ErrorKind::UnexpectedEof | ErrorKind::InvalidData => Kind::Corrupt,
            ErrorKind::InvalidInput => Kind::Invalid,
            _ => Kind::Failed,
        };
        Self::new(kind, error.to_string())
    }
}
