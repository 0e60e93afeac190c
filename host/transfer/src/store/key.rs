//! Keys: the names of objects, relative to a store's prefix.

use crate::error::{Error, Kind};

/// The longest whole key, with the prefix, that a kind of store accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyLimit {
    /// In bytes of UTF-8.
    Bytes(usize),
    /// In characters, as UTF-16 counts them.
    Characters(usize),
}

/// The limit of S3 and Google (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html>,
/// <https://cloud.google.com/storage/docs/objects#naming>).
pub(super) const BUCKET: KeyLimit = KeyLimit::Bytes(1024);

/// The limit of Azure
/// (<https://learn.microsoft.com/rest/api/storageservices/naming-and-referencing-containers--blobs--and-metadata>).
pub(super) const CONTAINER: KeyLimit = KeyLimit::Characters(1024);

/// The limit of Linux (`PATH_MAX` without the NUL). It also applies to web servers, for which no other limit is known.
pub(super) const DIRECTORY: KeyLimit = KeyLimit::Bytes(4095);

impl KeyLimit {
    /// Checks the length of a whole key.
    ///
    /// # Errors
    /// `Invalid`, with both lengths.
    pub(super) fn check(self, whole: &str) -> Result<(), Error> {
        let (length, most, unit) = match self {
            Self::Bytes(most) => (whole.len(), most, "bytes"),
            Self::Characters(most) => (whole.encode_utf16().count(), most, "characters"),
        };
        if length <= most {
            return Ok(());
        }
        let wrong =
            format!("has {length} {unit} with the store's prefix, and this kind of store accepts {most}");
        Err(refused("key", whole, &wrong))
    }
}

/// Checks that `key` can name an object of a store: relative, without `.`, `..` or empty components and without control characters.
/// Its length depends on the kind of store ([`KeyLimit`]).
///
/// # Errors
/// `Invalid`; the message says what is wrong.
pub(super) fn check(key: &str) -> Result<(), Error> {
    wrong_with(key).map_or(Ok(()), |wrong| Err(refused("key", key, wrong)))
}

/// Checks a prefix of keys, which may be empty and may end with `/` or within a component.
///
/// # Errors
/// `Invalid`; the message says what is wrong.
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

/// The prefix of all keys of a store in its bucket. Empty, or ends with `/`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Prefix(String);

impl Prefix {
    /// Makes the prefix from the path of a store's URL, already percent-decoded.
    ///
    /// # Errors
    /// `Invalid` if the path is not a valid key.
    pub(super) fn of_path(path: &str) -> Result<Self, Error> {
        let folder = path.trim_matches('/');
        if folder.is_empty() {
            return Ok(Self::default());
        }
        wrong_with(folder).map_or(Ok(()), |wrong| Err(refused("path", folder, wrong)))?;
        // Only buckets and containers have a prefix.
        CONTAINER.check(folder)?;
        Ok(Self(format!("{folder}/")))
    }

    /// Returns the whole key.
    pub(super) fn and(&self, key: &str) -> String {
        format!("{}{key}", self.0)
    }

    /// Removes the prefix from a whole key; `None` for a key that is not below it.
    pub(super) fn strip<'a>(&self, whole: &'a str) -> Option<&'a str> {
        whole.strip_prefix(self.0.as_str()).filter(|key| !key.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_could_lead_elsewhere_is_refused() {
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
        ] {
            let error = check(key).unwrap_err();
            assert_eq!(error.kind, Kind::Invalid, "{key}");
        }
        for key in ["a", "a/b", "..a", "a..", "...", "pg_wal/00000001.history", "ä ö+%2e%2e&?#"] {
            assert_eq!(check(key), Ok(()), "{key}");
        }
    }

    #[test]
    fn each_kind_of_store_accepts_keys_up_to_its_own_limit() {
        for (longest, sign, most) in [
            (BUCKET, "k", 1024),
            (BUCKET, "\u{e9}", 512),
            (CONTAINER, "k", 1024),
            (CONTAINER, "\u{e9}", 1024),
            // One character, two units of UTF-16.
            (CONTAINER, "\u{1f418}", 512),
            (DIRECTORY, "k", 4095),
        ] {
            assert_eq!(longest.check(&sign.repeat(most)), Ok(()), "{longest:?} {sign}");
            let error = longest.check(&sign.repeat(most + 1)).unwrap_err();
            assert_eq!(error.kind, Kind::Invalid);
            assert!(
                error.message.contains("with the store's prefix") && error.message.chars().count() < 300,
                "{error}"
            );
        }
        assert!(Prefix::of_path(&"p".repeat(1025)).is_err());
    }

    #[test]
    fn a_prefix_may_end_within_a_component_but_not_leave_the_store() {
        for prefix in ["", "a", "a/", "a/b", "a/b/"] {
            assert_eq!(check_prefix(prefix), Ok(()), "{prefix}");
        }
        for prefix in ["/", "//", "../", "a//", "a/../", "\0"] {
            assert!(check_prefix(prefix).is_err(), "{prefix}");
        }
    }

    #[test]
    fn a_prefix_is_put_before_every_key_and_removed_again() {
        let prefix = Prefix::of_path("/backups/main/").unwrap();
        assert_eq!(prefix.and("base.tar"), "backups/main/base.tar");
        assert_eq!(prefix.strip("backups/main/base.tar"), Some("base.tar"));
        assert_eq!(prefix.strip("backups/mainly/base.tar"), None);
        assert_eq!(prefix.strip("backups/main/"), None);
        assert!(Prefix::of_path("/a/../b").is_err());
    }
}
