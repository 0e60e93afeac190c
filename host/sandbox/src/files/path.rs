//! A path in the component's file system.

use std::fmt;
use std::path::{Path, PathBuf};

/// An absolute path in the component's file system, without `.`, `..` and doubled slashes. The host uses it in messages and to find the
/// grant that covers it. The host never opens this path: it opens names below a directory that is already open.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct GuestPath(String);

impl GuestPath {
    /// The root.
    pub(crate) fn root() -> Self {
        Self("/".to_owned())
    }

    /// Returns the guest path for a directory of the host, which is the same text; `None` if it is not absolute or not UTF-8.
    pub(crate) fn of(host: &Path) -> Option<Self> {
        host.to_str().filter(|text| text.starts_with('/')).map(|text| Self::root().join(text))
    }

    /// Resolves `name` from this directory. An absolute `name` replaces the path.
    pub(crate) fn join(&self, name: &str) -> Self {
        let mut parts: Vec<&str> = Vec::new();
        let start = if name.starts_with('/') { "" } else { self.0.as_str() };
        for part in start.split('/').chain(name.split('/')) {
            match part {
                "" | "." => {}
                ".." => _ = parts.pop(),
                part => parts.push(part),
            }
        }
        Self(format!("/{}", parts.join("/")))
    }

    /// Returns the directory that contains the path. The parent of the root is the root.
    pub(crate) fn parent(&self) -> Self {
        self.join("..")
    }

    /// Returns whether the path is `other` or below it.
    pub(crate) fn is_below(&self, other: &Self) -> bool {
        self.0 == other.0
            || other.0 == "/"
            || self.0.strip_prefix(&other.0).is_some_and(|rest| rest.starts_with('/'))
    }

    /// Returns the length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns the host's path, which is the same text, for a line of the configuration.
    pub(crate) fn to_host(&self) -> PathBuf {
        PathBuf::from(&self.0)
    }
}

impl fmt::Display for GuestPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns the name that a new entry at this path would have, as the file system sees it: without trailing slashes and `.` components.
pub(crate) fn final_name(path: &str) -> &str {
    path.split('/').rfind(|part| !part.is_empty() && *part != ".").unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_path_is_normalized() {
        let data = GuestPath::root().join("/var//lib/./pg");
        assert_eq!(data.to_string(), "/var/lib/pg");
        assert_eq!(data.join("base/../../x").to_string(), "/var/lib/x");
        assert_eq!(data.join("/etc/passwd").to_string(), "/etc/passwd");
        assert_eq!(data.join("../../../../..").to_string(), "/");
        assert_eq!(data.parent().to_string(), "/var/lib");
    }

    #[test]
    fn a_sibling_with_the_same_prefix_is_not_below() {
        let data = GuestPath::root().join("/var/pg");
        assert!(data.is_below(&data));
        assert!(data.join("base").is_below(&data));
        assert!(!GuestPath::root().join("/var/pg2").is_below(&data));
        assert!(data.is_below(&GuestPath::root()));
    }

    #[test]
    fn the_final_name_ignores_trailing_slashes_and_dot_components() {
        for path in ["pg_control", "global/pg_control", "global/pg_control/", "pg_control/./", "./pg_control"]
        {
            assert_eq!(final_name(path), "pg_control", "{path}");
        }
        assert_eq!(final_name("/"), "");
    }
}
