//! The place from which backups are read. The options `directory` or `store`, `prefix` and `backup` name the place.

use std::fmt;

use restore::folder::{self, Folder, below};
use understudy::store::Bucket;
use understudy::{Failure, Request};

/// A folder of a granted directory or store.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) at: Folder,
    /// The folder that holds the folder of the backup which the operator named, and its neighbours; the same folder if no backup is named.
    above: String,
    /// Whether the folder must be a backup, because the operator named it.
    pub(crate) is_named: bool,
}

impl Place {
    /// Opens the place that the options name.
    ///
    /// # Errors
    /// [`Failure::NotApplicable`] if the directory does not exist; [`Failure::Failed`] if the options contradict each other or the place is
    /// not granted.
    pub(crate) fn of(request: &Request) -> Result<Self, Failure> {
        let mut path = folder::option(request, "prefix")?.unwrap_or_default();
        let mut above = path.clone();
        let named = folder::option(request, "backup")?;
        if let Some(named) = &named {
            if let Some((parent, _)) = named.rsplit_once('/') {
                above = below(&path, parent);
            }
            path = below(&path, named);
        }
        Ok(Self { at: Folder::open(request, path)?, above, is_named: named.is_some() })
    }

    /// Returns the place that holds the folder of the named backup, and those beside it; the same place if no backup is named.
    ///
    /// # Errors
    /// The error of the store.
    pub(crate) fn of_neighbours(&self) -> Result<Self, Failure> {
        Ok(Self {
            at: Folder {
                bucket: Bucket::open(self.at.bucket.name())?,
                path: self.above.clone(),
                is_local: self.at.is_local,
            },
            above: self.above.clone(),
            is_named: false,
        })
    }

    /// Says with which options the operator names a backup that is the place itself, so that the folders beside it are looked at.
    pub(crate) fn how_to_name(&self) -> String {
        let name = self.at.bucket.name().trim_end_matches('/');
        match (self.at.path.rsplit_once('/'), name.rsplit_once('/')) {
            (Some((above, own)), _) => format!("set `prefix = \"{above}\"` and `backup = \"{own}\"`"),
            (None, _) if !self.at.path.is_empty() => {
                format!("set `backup = \"{}\"` instead of `prefix`", self.at.path)
            }
            (None, Some((above, own))) if self.at.is_local => {
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
        below(&self.at.key(folder), name)
    }

    /// Names the object `key` in a message.
    pub(crate) fn shown(&self, key: &str) -> String {
        self.at.shown(key)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.at.fmt(f)
    }
}
