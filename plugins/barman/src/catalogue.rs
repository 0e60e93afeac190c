//! Finds the backups of a server. `backup.info` is in `meta/ID-backup.info` since Barman 3.13.2, and in `base/ID/backup.info` before and in
//! the store of barman-cloud (`get_filename` in barman/infofile.py, and `get_backup_info` in barman/cloud.py).

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;

use understudy::{AtPath, Error, Failure, cancelled};

use crate::info::{LIMIT, Record};
use crate::names::is_backup_id;
use crate::place::Place;

/// The largest permitted number of backups of a server.
pub(crate) const MOST_BACKUPS: usize = 2000;

/// How many objects of a store are searched for backups. A directory of this machine is not searched, because its folders can be listed.
const MOST_OBJECTS: usize = 200_000;

/// How the name of a `backup.info` in `meta` ends.
const IN_META: &str = "-backup.info";

/// The mark of a backup that Barman deletes (`DELETE_ANNOTATION` in barman/backup.py).
const DELETED: &str = "delete_this";

/// A backup with its `backup.info`.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) id: String,
    /// The key of `backup.info`.
    pub(crate) key: String,
    pub(crate) record: Record,
}

/// Reads the `backup.info` of the backup `id`; `None` if there is none.
///
/// # Errors
/// The error of the store, or why `backup.info` cannot be used.
pub(crate) fn find(place: &Place, id: &str) -> Result<Option<Entry>, Failure> {
    read(place, id)?.transpose().map_err(Failure::failed)
}

/// Reads the `backup.info` of the backup `id`; `None` if there is none, and an error within the result if it cannot be used.
///
/// # Errors
/// The error of the store.
pub(crate) fn read(place: &Place, id: &str) -> Result<Option<Result<Entry, String>>, Failure> {
    for key in [place.key(&format!("meta/{id}{IN_META}")), format!("{}/backup.info", place.backup(id))] {
        let contents = match place.at.bucket.get(&key, None, LIMIT) {
            Err(Error::NotFound(_)) => continue,
            Err(Error::Limit(why)) => return Ok(Some(Err(why))),
            contents => contents?,
        };
        return Ok(Some(match Record::parse(&contents) {
            Ok(record) => Ok(Entry { id: id.to_owned(), key, record }),
            Err(why) => Err(format!("{} {why}", place.shown(&key))),
        }));
    }
    Ok(None)
}

/// Returns why the backup `id` is not restored although its `backup.info` is there: Barman marks a backup before it deletes the first
/// file, and deletes `backup.info` last (`delete_backup` in barman/backup.py, and annotations.py for the two places of the mark). `None`
/// if there is no mark.
///
/// # Errors
/// The error of the store.
pub(crate) fn deletion(place: &Place, id: &str) -> Result<Option<String>, Failure> {
    for key in
        [place.key(&format!("meta/{id}-{DELETED}")), format!("{}/annotations/{DELETED}", place.backup(id))]
    {
        if place.at.bucket.find(&key)?.is_some() {
            return Ok(Some(format!(
                "{} marks the backup as one that barman began to delete, so that files may be missing",
                place.shown(&key)
            )));
        }
    }
    Ok(None)
}

/// Finds the IDs of all backups, in order.
///
/// # Errors
/// Fails if the place cannot be listed, or if there are too many backups.
pub(crate) fn ids(place: &Place) -> Result<BTreeSet<String>, Failure> {
    let mut ids = BTreeSet::new();
    for folder in ["meta", "base"] {
        let mut add = |name: &str| {
            let id = if folder == "meta" { name.strip_suffix(IN_META) } else { Some(name) };
            let Some(id) = id.filter(|id| is_backup_id(id)) else { return Ok(()) };
            ids.insert(id.to_owned());
            if ids.len() > MOST_BACKUPS {
                return Err(Failure::failed(format!(
                    "{place} holds more than {MOST_BACKUPS} backups: name one by its ID with the option `backup`"
                )));
            }
            Ok(())
        };
        match place.at.directory() {
            Some(path) => names_in(&path.join(folder), &mut add)?,
            None => names_below(place, &place.key(folder), MOST_OBJECTS, &mut add)?,
        }
    }
    Ok(ids)
}

/// Calls `add` for every name in a directory of this machine; never if there is no directory.
fn names_in(
    directory: &std::path::Path,
    add: &mut dyn FnMut(&str) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.at(directory)?,
    };
    for entry in entries {
        cancelled()?;
        add(&entry.at(directory)?.file_name().to_string_lossy())?;
    }
    Ok(())
}

/// Calls `add` for the first part of every key below the folder `prefix` of a store, which may have `most` objects there.
fn names_below(
    place: &Place,
    prefix: &str,
    most: usize,
    add: &mut dyn FnMut(&str) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let too_many = || {
        place.failed(
            prefix,
            format!("holds more than {most} objects: name a backup by its ID with the option `backup`"),
        )
    };
    place
        .at
        .each_in(prefix, most, &too_many, &mut |path, _| path.split('/').next().map_or(Ok(()), &mut *add))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::scene::Scene;

    #[test]
    fn the_number_of_objects_is_bounded() {
        let scene = Scene::new();
        scene.put("base/20261126T043406/data.tar", "").put("base/20261126T043406/backup.info", "");
        let names = |most| {
            let mut names = Vec::new();
            let found = scene.host().run(|| {
                let place = Place::of(&scene.request_to_store())?;
                names_below(&place, &place.key("base"), most, &mut |name| {
                    names.push(name.to_owned());
                    Ok(())
                })
            });
            found.0.map(|()| names)
        };
        assert_eq!(names(2).unwrap(), ["20261126T043406"; 2]);
        assert!(names(1).unwrap_err().to_string().contains("more than 1 objects"));
    }
}
