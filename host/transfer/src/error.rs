//! The one error of the data plane.

use std::fmt;

/// What kind of failure it is, in the words of the contract (`error` in `wit/method.wit`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A store refused (403), or a grant does not cover it.
    Denied,
    /// There is no such object, file or key.
    NotFound,
    /// What was asked for cannot be.
    Invalid,
    /// It failed for now, and every try that is allowed was made.
    Transient,
    /// The bytes are not what they must be: a checksum, a truncated or damaged stream, an object that changed.
    Corrupt,
    /// A bound was reached: a size, a number, the disk.
    Limit,
    /// Everything else.
    Failed,
    /// The work was cancelled.
    Cancelled,
}

impl Kind {
    /// The word that reports use.
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

/// A failure of the data plane. Its text names the object or the file; it never holds a secret of this crate's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What kind it is.
    pub kind: Kind,
    /// What happened, to which object or file.
    pub message: String,
}

impl Error {
    /// A failure of this kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// A copy of what a reader failed with, so that it can fail again. An [`std::io::Error`] cannot be copied.
    pub(crate) fn again(error: &std::io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<Self>()) {
            Some(own) => own.clone(),
            None => Self::from(std::io::Error::new(error.kind(), error.to_string())),
        }
    }

    /// What work ends with that was cancelled.
    pub fn cancelled() -> Self {
        Self::new(Kind::Cancelled, "the work was cancelled")
    }

    /// What work ends with that panicked: a fault of the data plane's own.
    pub(crate) fn of_panic(panic: &(dyn std::any::Any + Send)) -> Self {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Self::new(Kind::Failed, format!("a fault in the data plane: {}", text.unwrap_or("it gave no reason")))
    }

    /// The same, with what it happened to before it: `"{what}: {message}"`.
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

/// So that a failure survives a [`std::io::Read`]; [`Error::from`] finds it again.
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
