//! The place from which backups are read. The options `directory` or `store`, `prefix` and `backup` name the place.

use std::fmt;

use understudy::store::Bucket;
use understudy::{Error, Failure, Request, is_granted};

/// A folder of a granted directory or store.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) bucket: Bucket,
    /// The folder in the bucket, without a `/` at either end; empty for the whole bucket.
    pub(crate) folder: String,
    /// The folder that holds the folder of the backup which the operator named, and its neighbours; equal to `folder` if no backup is
    /// named.
    above: String,
    /// Whether the folder must be a backup, because the operator named it.
    pub(crate) is_named: bool,
    /// Whether the place is a directory on this machine, where reads have no latency.
    pub(crate) is_local: bool,
}

impl Place {
    /// Opens the place that the options name.
    ///
    /// # Errors
    /// [`Failure::NotApplicable`] if the directory does not exist; [`Failure::Failed`] if the options contradict each other or the place is
    /// not granted.
    pub(crate) fn of(request: &Request) -> Result<Self, Failure> {
        let (name, is_local) = match (request.get::<String>("directory")?, request.get::<String>("store")?) {
            (Some(directory), None) => (directory, true),
            (None, Some(store)) => (store, false),
            _ => {
                return Err(Failure::failed("set one of the options `directory` and `store`, and not both"));
            }
        };
        let mut folder = folder_of(request, "prefix")?.unwrap_or_default();
        let mut above = folder.clone();
        let named = folder_of(request, "backup")?;
        if let Some(named) = &named {
            if let Some((parent, _)) = named.rsplit_once('/') {
                above = below(&folder, parent);
            }
            folder = below(&folder, named);
        }
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
        Ok(Self { bucket, folder, above, is_named: named.is_some(), is_local })
    }

    /// Returns the place that holds the folder of the named backup, and those beside it; the same place if no backup is named.
    ///
    /// # Errors
    /// The error of the store.
    pub(crate) fn of_neighbours(&self) -> Result<Self, Failure> {
        Ok(Self {
            bucket: Bucket::open(self.bucket.name())?,
            folder: self.above.clone(),
            above: self.above.clone(),
            is_named: false,
            is_local: self.is_local,
        })
    }

    /// Says with which options the operator names a backup that is the place itself, so that the folders beside it are looked at.
    pub(crate) fn how_to_name(&self) -> String {
        let name = self.bucket.name().trim_end_matches('/');
        match (self.folder.rsplit_once('/'), name.rsplit_once('/')) {
            (Some((above, own)), _) => format!("set `prefix = \"{above}\"` and `backup = \"{own}\"`"),
            (None, _) if !self.folder.is_empty() => {
                format!("set `backup = \"{}\"` instead of `prefix`", self.folder)
            }
            (None, Some((above, own))) if self.is_local => {
                let above = if above.is_empty() { "/" } else { above };
                format!("set `directory = \"{above}\"` and `backup = \"{own}\"`, and grant that directory")
            }
            _ => format!(
                "grant `{name}` at the folder above its address, and set `backup` to the name of this folder"
            ),
        }
    }

    /// Returns the key of the object `name` in the folder `folder` of this place.
    pub(crate) fn key(&self, folder: &str, name: &str) -> String {
        below(&below(&self.folder, folder), name)
    }

    /// Names the object `key` in a message.
    pub(crate) fn shown(&self, key: &str) -> String {
        let name = self.bucket.name();
        if self.is_local { format!("{}/{key}", name.trim_end_matches('/')) } else { format!("{name}:{key}") }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.folder.is_empty() {
            f.write_str(self.bucket.name())
        } else {
            f.write_str(&self.shown(&self.folder))
        }
    }
}

/// Returns the path of `name` below `folder`.
fn below(folder: &str, name: &str) -> String {
    match (folder, name) {
        ("", name) => name.to_owned(),
        (folder, "") => folder.to_owned(),
        (folder, name) => format!("{folder}/{name}"),
    }
}

/// Reads the option `option`, which must name a folder.
fn folder_of(request: &Request, option: &str) -> Result<Option<String>, Failure> {
    let Some(text) = request.get::<String>(option)? else { return Ok(None) };
    let folder = text.trim_end_matches('/');
    let is_folder = !folder.split('/').any(|part| matches!(part, "" | "." | ".."));
    if is_folder {
        return Ok(Some(folder.to_owned()));
    }
    Err(Failure::failed(format!("`{option} = \"{text}\"` is not a folder below the directory or the store")))
}
