//! Finds the backups in a place, and the objects of a backup.

use std::collections::{BTreeMap, BTreeSet};

use pgdata::checksum::{Algorithm, Digesting, Summing};
use postgres_formats::names::{BACKUP_MANIFEST, PG_WAL, tablespace_oid};
use restore::listing::{Refused, each_in};
use understudy::store::Object;
use understudy::{Error, Failure, cancelled};

use crate::archive::{ArchiveObject, names_of, stem_of};
use crate::place::Place;

/// The largest permitted number of archives in a backup. Each tablespace has an archive.
const MOST_ARCHIVES: usize = 1000;

/// The largest permitted number of backups among which the best is chosen, and among which those are looked for that one depends on.
const MOST_BACKUPS: usize = 200;
const MOST_NEIGHBOURS: usize = 1000;

/// How many objects are searched for backups.
const MOST_OBJECTS: usize = 100_000;

/// The objects of a backup.
#[derive(Clone, Debug)]
pub(crate) struct Backup {
    /// The backup's folder below the place; empty if the place itself is the backup.
    pub(crate) folder: String,
    pub(crate) base: ArchiveObject,
    /// The archives of the tablespaces by OID.
    pub(crate) tablespaces: BTreeMap<u32, ArchiveObject>,
    /// The archive of the WAL; `None` with `-X fetch`, where the WAL is in `base`, and with `-X none`.
    pub(crate) wal: Option<ArchiveObject>,
    /// The manifest; `None` with `--no-manifest`.
    pub(crate) manifest: Option<Object>,
    /// Whether the folder was listed, so that all archives of the backup are known.
    is_listed: bool,
}

/// The archives of a folder by their stems, and its manifest.
#[derive(Default)]
struct Folder {
    archives: BTreeMap<String, ArchiveObject>,
    manifest: Option<Object>,
}

/// Why backups are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Search {
    /// To choose one.
    Best,
    /// To find those that an incremental backup depends on.
    Neighbours,
}

impl Search {
    /// Returns the largest permitted number of backups.
    fn most(self) -> usize {
        match self {
            Self::Best => MOST_BACKUPS,
            Self::Neighbours => MOST_NEIGHBOURS,
        }
    }

    /// Says what to do if a place has too many backups or objects.
    fn advice(self) -> &'static str {
        match self {
            Self::Best => "name one backup with the option `backup`",
            Self::Neighbours => "put the backups of a chain into a folder of their own",
        }
    }
}

/// Finds the backups in `place`: the place itself, or the backups in its folders. `broken` receives each folder that cannot be a backup, and
/// why.
///
/// # Errors
/// Fails if the place cannot be read or has too many objects, and if the place itself is a backup and has two archives for the same name.
/// Returns the failures of `broken`.
pub(crate) fn find(
    place: &Place,
    search: Search,
    broken: &mut dyn FnMut(&str, Failure) -> Result<(), Failure>,
) -> Result<Vec<Backup>, Failure> {
    let folders = match list(place, search) {
        Ok(folders) => folders,
        Err(Listing::Unsupported) if search == Search::Neighbours => {
            return Err(Failure::failed(format!(
                "{place} is on a web server, which cannot be listed, so that the backups on which an incremental backup is based \
                 cannot be found: read them from a directory or another store, or combine them with pg_combinebackup"
            )));
        }
        // A web server cannot be listed, so the objects are looked up by name.
        Err(Listing::Unsupported) => return Ok(find_by_name(place)?.into_iter().collect()),
        Err(Listing::Failed(failure)) => return Err(failure),
    };
    let mut backups = Vec::new();
    for (name, folder) in folders {
        let backup = match folder.map(|folder| folder.backup(&name)) {
            Ok(Some(backup)) => backup,
            Ok(None) => continue,
            Err(failure) if name.is_empty() && search == Search::Best => return Err(failure),
            Err(failure) => {
                broken(&name, failure)?;
                continue;
            }
        };
        if name.is_empty() && search == Search::Best {
            return Ok(vec![backup]);
        }
        if backups.len() == search.most() {
            let (most, advice) = (search.most(), search.advice());
            return Err(Failure::failed(format!("{place} holds more than {most} backups: {advice}")));
        }
        backups.push(backup);
    }
    Ok(backups)
}

enum Listing {
    Unsupported,
    Failed(Failure),
}

impl<E: Into<Failure>> From<E> for Listing {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Lists the folders of `place` with their archives. The place itself has the empty name.
fn list(place: &Place, search: Search) -> Result<BTreeMap<String, Result<Folder, Failure>>, Listing> {
    let mut folders: BTreeMap<String, Result<Folder, Failure>> = BTreeMap::new();
    let refused = |why| match why {
        Refused::Unlistable(_) => Listing::Unsupported,
        Refused::TooMany(most) => {
            let advice = search.advice();
            Listing::Failed(Failure::failed(format!("{place} holds more than {most} objects: {advice}")))
        }
    };
    each_in(&place.at.bucket, &place.at.path, MOST_OBJECTS, &refused, &mut |path, object| {
        let (folder, name) = path.split_once('/').unwrap_or(("", &path));
        // An object that is deeper than those of a backup.
        if name.contains('/') {
            return Ok(());
        }
        if !folder.is_empty() && place.is_named {
            return Ok(());
        }
        let (folder, name) = (folder.to_owned(), name.to_owned());
        let found = folders.entry(folder).or_insert_with(|| Ok(Folder::default()));
        if let Ok(known) = found
            && let Err(failure) = known.add(place, &name, object)
        {
            *found = Err(failure);
        }
        Ok(())
    })?;
    Ok(folders)
}

/// Looks up the objects of the backup in `place` by name. Its tablespaces are not known yet.
fn find_by_name(place: &Place) -> Result<Option<Backup>, Failure> {
    let mut folder = Folder::default();
    for stem in ["base", PG_WAL] {
        if let Some((name, archive)) = find_archive(place, "", stem)? {
            folder.add(place, &name, archive.object)?;
        }
    }
    folder.manifest = place.at.bucket.find(&place.key("", BACKUP_MANIFEST))?;
    Ok(folder.backup("").map(|backup| Backup { is_listed: false, ..backup }))
}

/// Looks up the archive `stem` of `folder` by the names that it can have.
fn find_archive(place: &Place, folder: &str, stem: &str) -> Result<Option<(String, ArchiveObject)>, Failure> {
    for (name, codec) in names_of(stem) {
        cancelled()?;
        if let Some(object) = place.at.bucket.find(&place.key(folder, &name))? {
            return Ok(Some((name, ArchiveObject { object, codec })));
        }
    }
    Ok(None)
}

impl Folder {
    /// Adds the object `name` if it belongs to a backup.
    fn add(&mut self, place: &Place, name: &str, object: Object) -> Result<(), Failure> {
        if name == BACKUP_MANIFEST {
            self.manifest = Some(object);
            return Ok(());
        }
        let Some((stem, codec)) = stem_of(name) else { return Ok(()) };
        if !matches!(stem, "base" | PG_WAL) && tablespace_oid(stem).is_none() {
            return Ok(());
        }
        let archive = ArchiveObject { object, codec };
        if let Some(other) = self.archives.insert(stem.to_owned(), archive) {
            let other = place.shown(&other.object.key);
            return Err(Failure::failed(format!(
                "there are both {other} and {name}: keep the one that belongs here"
            )));
        }
        if self.archives.len() > MOST_ARCHIVES {
            return Err(Failure::failed(format!("{place} holds more than {MOST_ARCHIVES} archives")));
        }
        Ok(())
    }

    /// Makes a backup from the folder; `None` without a base.tar.
    fn backup(mut self, folder: &str) -> Option<Backup> {
        let base = self.archives.remove("base")?;
        let wal = self.archives.remove(PG_WAL);
        let tablespaces =
            self.archives.into_iter().filter_map(|(stem, archive)| Some((tablespace_oid(&stem)?, archive)));
        Some(Backup {
            folder: folder.to_owned(),
            base,
            tablespaces: tablespaces.collect(),
            wal,
            manifest: self.manifest,
            is_listed: true,
        })
    }
}

impl Backup {
    /// Looks up the archives of the tablespaces `oids` if the folder was not listed.
    ///
    /// # Errors
    /// The error of the store.
    pub(crate) fn find_tablespaces(
        &mut self,
        place: &Place,
        oids: impl Iterator<Item = u32>,
    ) -> Result<(), Failure> {
        if self.is_listed {
            return Ok(());
        }
        for oid in oids.take(MOST_ARCHIVES) {
            if let Some((_, archive)) = find_archive(place, &self.folder, &oid.to_string())? {
                self.tablespaces.insert(oid, archive);
            }
        }
        Ok(())
    }

    /// Returns eight digits that change if an object in the backup changes. Two marks can be compared only if the metadata came from the
    /// same kind of request, because stores may round times differently in listings. The time counts only if there is no entity tag.
    pub(crate) fn mark(&self) -> String {
        let mut sum = Summing::new(Algorithm::Crc32c);
        for Object { key, size, modified, etag } in self.objects() {
            let modified = if etag.is_some() { &None } else { modified };
            sum.update(format!("{key}\0{size}\0{modified:?}\0{etag:?}\0").as_bytes());
        }
        sum.finish().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Reads the metadata of the objects again; `None` if an object is gone. Lists the folder if it was listed before, because a listing
    /// may return other metadata than a request for one object.
    ///
    /// # Errors
    /// The error of the store.
    pub(crate) fn reload(&self, place: &Place) -> Result<Option<Self>, Failure> {
        let mut now = self.clone();
        let mut listed = if self.is_listed { Some(self.listed(place)?) } else { None };
        let archives =
            std::iter::once(&mut now.base).chain(now.wal.as_mut()).chain(now.tablespaces.values_mut());
        for object in archives.map(|archive| &mut archive.object).chain(now.manifest.as_mut()) {
            cancelled()?;
            let found = match &mut listed {
                Some(listed) => listed.remove(&object.key),
                None => place.at.bucket.find(&object.key)?,
            };
            match found {
                Some(found) => *object = found,
                None => return Ok(None),
            }
        }
        Ok(Some(now))
    }

    /// Lists the backup's objects again, by their keys.
    fn listed(&self, place: &Place) -> Result<BTreeMap<String, Object>, Failure> {
        let folder = place.key(&self.folder, "");
        let own: BTreeSet<&str> = self.objects().map(|object| object.key.as_str()).collect();
        let mut listed = BTreeMap::new();
        let refused = |why| match why {
            Refused::Unlistable(what) => Error::Invalid(what).into(),
            Refused::TooMany(most) => Failure::failed(format!(
                "{place} now holds more than {most} objects: keep other objects out of this place"
            )),
        };
        each_in(&place.at.bucket, &folder, MOST_OBJECTS, &refused, &mut |_, object| {
            if own.contains(object.key.as_str()) {
                listed.insert(object.key.clone(), object);
            }
            Ok(())
        })?;
        Ok(listed)
    }

    fn objects(&self) -> impl Iterator<Item = &Object> {
        let archives = std::iter::once(&self.base).chain(&self.wal).chain(self.tablespaces.values());
        archives.map(|archive| &archive.object).chain(&self.manifest)
    }
}
