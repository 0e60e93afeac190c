//! How a component says that it ended without a replica.

use crate::reporter::LINE_CHARACTERS;
use crate::text::printable;

/// Why a component says that it created no replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Nothing to restore here.
    NotApplicable(String),
    /// It may succeed later.
    RetryLater(String),
    /// It failed.
    Failed(String),
    /// It was asked to stop, and did.
    Cancelled,
}

impl Ended {
    /// Makes the component's words fit for a log.
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
        assert_eq!(Ended::Failed("\u{1b}[2J".into()).printable(), Ended::Failed("\\u{1b}[2J".into()));
        assert_eq!(Ended::Failed(" ".into()).printable(), Ended::Failed("the method gave no reason".into()));
    }
}
