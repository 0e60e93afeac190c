//! A folder of a granted directory or store, which the options `directory` or `store` and `prefix` name.

use std::fmt;
use std::path::{Path, PathBuf};

use understudy::store::{Bucket, Object};
use understudy::{Error, Failure, Request, is_granted};

use crate::listing::{self, Refused};

/// A folder of a granted directory or store.
#[derive(Debug)]
pub struct Folder {
    /// The directory or the store.
    pub bucket: Bucket,
    /// The folder in the bucket, without a `/` at either end; empty for the whole bucket.
    pub path: String,
    /// Whether the folder is on this machine, where reads have no latency.
    pub is_local: bool,
}

impl Folder {
    /// Opens the folder `path` of the directory or store that the options name.
    ///
    /// # Errors
    /// [`Failure::NotApplicable`] if the directory does not exist; [`Failure::Failed`] if the options contradict each other or the place is
    /// not granted.
    pub fn open(request: &Request, path: String) -> Result<Self, Failure> {
        let (name, is_local) = match (request.get::<String>("directory")?, request.get::<String>("store")?) {
            (Some(directory), None) => (directory, true),
            (None, Some(store)) => (store, false),
            _ => {
                return Err(Failure::failed("set one of the options `directory` and `store`, and not both"));
            }
        };
        // `Bucket::open` tells a directory, which has an absolute path, from a store, which has a name.
        if is_local && !is_granted(&name) {
            return Err(Failure::failed(format!(
                "{name} is not granted: add it to `grants.read` of this method, as an absolute path without `..`"
            )));
        }
        if !is_local && name.starts_with('/') {
            return Err(Failure::failed(format!(
                "`store = \"{name}\"` is a path: write it as `directory`, or the name of a store"
            )));
        }
        let bucket = match Bucket::open(&name) {
            Err(Error::NotFound(_)) if is_local => {
                return Err(Failure::not_applicable(format!("there is no directory {name}")));
            }
            opened => opened?,
        };
        Ok(Self { bucket, path, is_local })
    }

    /// Returns the key of the object or folder `name` in this folder.
    pub fn key(&self, name: &str) -> String {
        below(&self.path, name)
    }

    /// Returns the path of this folder on this machine; `None` if it is in a store.
    pub fn directory(&self) -> Option<PathBuf> {
        self.is_local.then(|| Path::new(self.bucket.name()).join(&self.path))
    }

    /// Calls `each` with every object in the folder with the key `folder`, and with its path below it, as [`listing::each_in`] does.
    /// `too_many` makes the failure for more than `most` objects. Returns the number of objects.
    ///
    /// # Errors
    /// Fails if the store, such as a web server, cannot list its objects; the errors of [`listing::each_in`].
    pub fn each_in(
        &self,
        folder: &str,
        most: usize,
        too_many: &dyn Fn() -> Failure,
        each: &mut dyn FnMut(String, Object) -> Result<(), Failure>,
    ) -> Result<usize, Failure> {
        let refused = |why| match why {
            Refused::Unlistable(what) => Failure::failed(format!(
                "{} cannot be listed, so its objects cannot be found: {what}; use a store that lists its objects, or a directory",
                self.shown(folder)
            )),
            Refused::TooMany(_) => too_many(),
        };
        listing::each_in(&self.bucket, folder, most, &refused, each)
    }

    /// Names the object `key` in a message.
    pub fn shown(&self, key: &str) -> String {
        let name = self.bucket.name();
        if self.is_local { format!("{}/{key}", name.trim_end_matches('/')) } else { format!("{name}:{key}") }
    }
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(self.bucket.name())
        } else {
            f.write_str(&self.shown(&self.path))
        }
    }
}

/// Returns the path of `name` below `folder`; either may be empty.
pub fn below(folder: &str, name: &str) -> String {
    match (folder, name) {
        ("", name) => name.to_owned(),
        (folder, "") => folder.to_owned(),
        (folder, name) => format!("{folder}/{name}"),
    }
}

/// Reads an option that names a folder below the directory or the store; `None` if it is not set. The folder may end with `/`.
///
/// # Errors
/// Fails if the option names no such folder.
pub fn option(request: &Request, name: &str) -> Result<Option<String>, Failure> {
    let Some(text) = request.get::<String>(name)? else { return Ok(None) };
    let folder = text.trim_end_matches('/');
    if folder.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(Failure::failed(format!(
            "`{name} = \"{}\"` is not a folder below the directory or the store",
            text.escape_debug()
        )));
    }
    Ok(Some(folder.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_names_a_folder_below_the_place() {
        let of = |text: &str| option(&Request::default().with("prefix", text), "prefix");
        assert_eq!(option(&Request::default(), "prefix"), Ok(None));
        assert_eq!(of("a/b/"), Ok(Some("a/b".to_owned())));
        for wrong in ["", "/", "/a", "a//b", "../a", "a/.", "a/../b"] {
            assert!(of(wrong).unwrap_err().to_string().contains("`prefix = "), "{wrong}");
        }
        assert_eq!((below("", "a"), below("a", ""), below("a", "b")), ("a".into(), "a".into(), "a/b".into()));
    }
}
