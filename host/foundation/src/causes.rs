//! The message of an error with its causes.

use std::error::Error;

/// Returns the message of an error and those of all its causes, separated by colons. A cause's message is left out if the
/// text so far already ends with it.
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.ends_with(&message) {
            text.push_str(": ");
            text.push_str(&message);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::landlock::{Allowed, Domain};

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read the file")]
    struct Outer(#[source] Middle);

    #[derive(Debug, thiserror::Error)]
    #[error("it is gone: {0}")]
    struct Middle(#[source] io::Error);

    #[test]
    fn every_cause_is_told_once() {
        let error = Outer(Middle(io::ErrorKind::NotFound.into()));
        assert_eq!(with_causes(&error), "cannot read the file: it is gone: entity not found");
        assert_eq!(
            with_causes(&io::Error::other(error)),
            "cannot read the file: it is gone: entity not found"
        );
    }

    #[test]
    fn a_path_that_landlock_cannot_open_is_told_with_the_reason() {
        let missing = Domain::deny_all().with("/nowhere", Allowed::Read).enter(None);
        let message = with_causes(&io::Error::other(missing.unwrap_err()));
        assert_eq!(message.matches("No such file or directory").count(), 1, "{message}");
        assert!(message.starts_with("cannot open /nowhere for Landlock: "), "{message}");
    }
}
