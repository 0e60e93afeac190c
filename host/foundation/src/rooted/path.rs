//! The type of a path below a directory.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The longest path in bytes that the kernel accepts, without its NUL (PATH_MAX).
const LONGEST: usize = 4095;

/// A path that stays below its directory: not absolute, without `..`, not empty, without NUL. `.` components and doubled or
/// trailing slashes are dropped. It may contain any other bytes. It may name a link, which [`Directory`](super::Directory) does not
/// follow.
#[derive(Clone)]
pub struct RelativePath(Text);

#[derive(Clone)]
enum Text {
    Literal(&'static str),
    Owned(OsString),
}

/// Why a path is not a [`RelativePath`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRelative {
    /// The path has no components.
    #[error("a path is empty")]
    Empty,
    /// The path begins with a slash.
    #[error("`{}` is absolute; a relative path is required", .0.display())]
    Absolute(PathBuf),
    /// The path contains `..`.
    #[error("`{}` contains `..`; a path must stay below its directory", .0.display())]
    Upwards(PathBuf),
    /// The path contains a NUL byte.
    #[error("a path contains a NUL byte: `{}`", .0.display())]
    Nul(PathBuf),
    /// The path is longer than the kernel accepts.
    #[error("a path of {0} bytes is longer than the {LONGEST} bytes that Linux accepts")]
    Long(usize),
}

impl RelativePath {
    /// Parses a path.
    ///
    /// # Errors
    /// [`NotRelative`] says what is wrong with the path.
    pub fn new(path: impl AsRef<OsStr>) -> Result<Self, NotRelative> {
        let text = path.as_ref();
        let path = || PathBuf::from(text);
        if text.as_bytes().contains(&0) {
            return Err(NotRelative::Nul(path()));
        }
        if text.as_bytes().first() == Some(&b'/') {
            return Err(NotRelative::Absolute(path()));
        }
        let mut clean = OsString::with_capacity(text.len());
        for component in text.as_bytes().split(|byte| *byte == b'/') {
            match component {
                b"" | b"." => {}
                b".." => return Err(NotRelative::Upwards(path())),
                component => {
                    if !clean.is_empty() {
                        clean.push("/");
                    }
                    clean.push(OsStr::from_bytes(component));
                }
            }
        }
        match clean.len() {
            0 => Err(NotRelative::Empty),
            length if length > LONGEST => Err(NotRelative::Long(length)),
            _ => {
                // The components that were dropped may be thousands of times longer than the rest.
                clean.shrink_to_fit();
                Ok(Self(Text::Owned(clean)))
            }
        }
    }

    /// Makes a path from a literal: `const PG_CONTROL: RelativePath = RelativePath::literal("global/pg_control");`.
    ///
    /// # Panics
    /// Panics if `text` is not a relative path in its shortest form. In a `const`, this is a compile error.
    pub const fn literal(text: &'static str) -> Self {
        let bytes = text.as_bytes();
        let mut at = 0;
        let mut start = 0;
        while at <= bytes.len() {
            if at == bytes.len() || bytes[at] == b'/' {
                let length = at - start;
                assert!(length > 0, "a component is empty");
                assert!(!(bytes[start] == b'.' && length == 1), "a component is `.`");
                assert!(
                    !(bytes[start] == b'.' && bytes[start + length - 1] == b'.' && length == 2),
                    "it leads upwards"
                );
                start = at + 1;
            } else {
                assert!(bytes[at] != 0, "a byte is NUL");
            }
            at += 1;
        }
        Self(Text::Literal(text))
    }

    /// Returns the path as an `OsStr`.
    pub fn as_os_str(&self) -> &OsStr {
        match &self.0 {
            Text::Literal(text) => OsStr::new(text),
            Text::Owned(text) => text,
        }
    }

    /// Returns the path as a `Path`.
    pub fn as_path(&self) -> &Path {
        Path::new(self.as_os_str())
    }

    /// Returns the last component.
    pub fn file_name(&self) -> &OsStr {
        let bytes = self.as_os_str().as_bytes();
        let start = bytes.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        OsStr::from_bytes(&bytes[start..])
    }

    /// Returns everything before the last component; `None` if there is only one component.
    pub fn parent(&self) -> Option<Self> {
        let bytes = self.as_os_str().as_bytes();
        let end = bytes.iter().rposition(|byte| *byte == b'/')?;
        Some(Self(Text::Owned(OsStr::from_bytes(&bytes[..end]).to_owned())))
    }

    /// Appends `further` to the path.
    ///
    /// # Errors
    /// [`NotRelative::Long`] if the result is too long.
    pub fn join(&self, further: &Self) -> Result<Self, NotRelative> {
        Self::new(self.as_path().join(further.as_path()))
    }
}

impl PartialEq for RelativePath {
    fn eq(&self, other: &Self) -> bool {
        self.as_os_str() == other.as_os_str()
    }
}

impl Eq for RelativePath {}

impl Hash for RelativePath {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_os_str().hash(state);
    }
}

impl PartialOrd for RelativePath {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for RelativePath {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_os_str().cmp(other.as_os_str())
    }
}

impl fmt::Debug for RelativePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_os_str().fmt(f)
    }
}

impl fmt::Display for RelativePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_path().display().fmt(f)
    }
}

impl TryFrom<&str> for RelativePath {
    type Error = NotRelative;

    fn try_from(text: &str) -> Result<Self, NotRelative> {
        Self::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_could_leave_its_directory_is_refused() {
        let long = "a/".repeat(3000);
        for text in ["", ".", "./", "/", "/etc", "..", "../a", "a/..", "a/../b", "./..", "a\0b", &long] {
            assert!(RelativePath::new(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_path_is_kept_in_its_shortest_form() {
        for (text, kept) in
            [("a", "a"), ("./a", "a"), ("a//b/", "a/b"), ("a/./b/.", "a/b"), ("..a/b..", "..a/b..")]
        {
            assert_eq!(RelativePath::new(text).unwrap().as_os_str(), kept);
        }
    }

    #[test]
    fn names_may_be_any_bytes() {
        let name = OsStr::from_bytes(b"base/\xff\xfe\n");
        assert_eq!(RelativePath::new(name).unwrap().as_os_str(), name);
    }

    #[test]
    fn a_literal_equals_the_parsed_path() {
        const CONTROL: RelativePath = RelativePath::literal("global/pg_control");
        assert_eq!(CONTROL, RelativePath::new("global/./pg_control").unwrap());
        assert_eq!(CONTROL.file_name(), "pg_control");
        assert_eq!(CONTROL.parent(), Some(RelativePath::literal("global")));
        assert_eq!(RelativePath::literal("global").parent(), None);
    }

    #[test]
    fn a_literal_that_is_not_a_relative_path_panics() {
        for text in ["", "/a", "a/", "a//b", ".", "..", "a/../b", "a\0"] {
            assert!(std::panic::catch_unwind(|| RelativePath::literal(text)).is_err(), "{text:?}");
        }
    }
}
