//! The failure that a component returns if it did not create a replica.

use crate::reporter::LINE_CHARACTERS;
use crate::text::printable;

/// The reason that a component gives for not creating a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GuestFailure {
    /// There is nothing to restore.
    NotApplicable(String),
    /// A later attempt may succeed.
    RetryLater(String),
    /// Any other failure.
    Failed(String),
    /// The component was asked to stop, and stopped.
    Cancelled,
}

impl GuestFailure {
    /// Escapes and shortens the component's text for the log.
    #[must_use]
    pub(crate) fn printable(self) -> Self {
        match self {
            Self::NotApplicable(text) => Self::NotApplicable(reason(&text)),
            Self::RetryLater(text) => Self::RetryLater(reason(&text)),
            Self::Failed(text) => Self::Failed(reason(&text)),
            Self::Cancelled => Self::Cancelled,
        }
    }
}

fn reason(text: &str) -> String {
    match printable(text, LINE_CHARACTERS) {
        text if text.trim().is_empty() => "the method gave no reason".to_owned(),
        text => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_fit_for_the_log() {
        assert_eq!(
            GuestFailure::Failed("\u{1b}[2J".into()).printable(),
            GuestFailure::Failed("\\u{1b}[2J".into())
        );
        assert_eq!(
            GuestFailure::Failed(" ".into()).printable(),
            GuestFailure::Failed("the method gave no reason".into())
        );
    }
}
