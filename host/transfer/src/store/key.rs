//! Keys: the names of objects below a store's prefix.

use crate::error::{Error, Kind};

/// The longest key in bytes, prefix included: what S3, Google and Azure take
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html>).
pub(super) const LONGEST: usize = 1024;

/// Says whether `key` names an object below a store: relative, no `.`, `..` or empty component, no control character.
///
/// # Errors
/// `Invalid`, with what is wrong with it.
pub(super) fn check(key: &str) -> Result<(), Error> {
    wrong_with(key).map_or(Ok(()), |wrong| Err(refused("key", key, wrong)))
}

/// The same for the beginning of keys, which may be empty and may end with `/` or in the middle of a component.
///
/// # Errors
/// `Invalid`, with what is wrong with it.
pub(super) fn check_prefix(prefix: &str) -> Result<(), Error> {
    let folder = prefix.strip_suffix('/').unwrap_or(prefix);
    if prefix.is_empty() {
        return Ok(());
    }
    wrong_with(folder).map_or(Ok(()), |wrong| Err(refused("prefix", prefix, wrong)))
}

fn wrong_with(key: &str) -> Option<&'static str> {
    if key.is_empty() {
        return Some("is empty");
    }
    if key.len() > LONGEST {
        return Some("is longer than the 1024 bytes that a store takes");
    }
    if key.starts_with('/') {
        return Some("is absolute; keys are relative to the store's prefix");
    }
    if key.contains(|c: char| c.is_ascii_control()) {
        return Some("has a control character in it");
    }
    key.split('/').find_map(|component| match component {
        "" => Some("has an empty component (`//` or a `/` at its end)"),
        "." => Some("has a `.` component"),
        ".." => Some("leads upwards with `..`"),
        _ => None,
    })
}

fn refused(what: &str, key: &str, wrong: &str) -> Error {
    let shown: String = key.escape_debug().take(200).collect();
    Error::new(Kind::Invalid, format!("the {what} `{shown}` {wrong}"))
}

/// The part of a bucket that a store is: what stands before each of its keys. Empty or ending with `/`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Prefix(String);

impl Prefix {
    /// Reads the path of a store's URL, percent signs resolved.
    ///
    /// # Errors
    /// `Invalid` where it could lead elsewhere.
    pub(super) fn of_path(path: &str) -> Result<Self, Error> {
        let folder = path.trim_matches('/');
        if folder.is_empty() {
            return Ok(Self::default());
        }
        wrong_with(folder).map_or(Ok(()), |wrong| Err(refused("path", folder, wrong)))?;
        Ok(Self(format!("{folder}/")))
    }

    /// The whole key.
    pub(super) fn and(&self, key: &str) -> String {
        format!("{}{key}", self.0)
    }

    /// The part of a whole key that is the store's own; none for a key that is not below it.
    pub(super) fn strip<'a>(&self, whole: &'a str) -> Option<&'a str> {
        whole.strip_prefix(self.0.as_str()).filter(|key| !key.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_could_lead_elsewhere_is_refused() {
        let long = "k".repeat(LONGEST + 1);
        for key in [
            "",
            "/etc/passwd",
            "..",
            "../x",
            "a/../../x",
            "a/..",
            "a//b",
            "a/",
            "./a",
            "a/./b",
            "a\0b",
            "a\nb",
            &long,
        ] {
            let error = check(key).unwrap_err();
            assert_eq!(error.kind, Kind::Invalid, "{key}");
        }
        for key in ["a", "a/b", "..a", "a..", "...", "pg_wal/00000001.history", "ä ö+%2e%2e&?#"] {
            assert_eq!(check(key), Ok(()), "{key}");
        }
    }

    #[test]
    fn a_prefix_may_end_anywhere_but_lead_nowhere_else() {
        for prefix in ["", "a", "a/", "a/b", "a/b/"] {
            assert_eq!(check_prefix(prefix), Ok(()), "{prefix}");
        }
        for prefix in ["/", "//", "../", "a//", "a/../", "\0"] {
            assert!(check_prefix(prefix).is_err(), "{prefix}");
        }
    }

    #[test]
    fn a_prefix_stands_before_every_key_and_is_taken_off_again() {
        let prefix = Prefix::of_path("/backups/main/").unwrap();
        assert_eq!(prefix.and("base.tar"), "backups/main/base.tar");
        assert_eq!(prefix.strip("backups/main/base.tar"), Some("base.tar"));
        assert_eq!(prefix.strip("backups/mainly/base.tar"), None);
        assert_eq!(prefix.strip("backups/main/"), None);
        assert!(Prefix::of_path("/a/../b").is_err());
    }
}
