//! Makes the items for the files of a plain tree.

use postgres_formats::control_file::Release;
use postgres_formats::names::{PG_TBLSPC, TablespaceFolder};
use postgres_formats::version::Version;
use understudy::store::Object;
use understudy::transfer::{Fetch, Unless};
use understudy::{Datadir, Failure, cancelled, log};

use crate::chain::Link;
use crate::create::version_file;
use crate::info::Backup;
use crate::manifest::{self, tablespace_of};
use crate::place::Place;
use crate::tree::{DIRECTORIES, walk};

/// Calls `add` with an item for every file of the tree of `link` that is restored, except for those that are written first. The items have
/// the names, sizes and digests of the stored files, so that a file of an incremental backup is `INCREMENTAL.NAME`. Files of tablespaces
/// for which `is_restored` returns false have no item. Returns how many files the tree has, with those without an item.
///
/// # Errors
/// Fails if the tree cannot be listed, has a file that does not belong there, or does not fit its manifest; the errors of `add`.
pub(crate) fn of_tree(
    place: &Place,
    link: &Link,
    manifest: Option<&Object>,
    origin: u32,
    is_restored: &dyn Fn(u32) -> bool,
    add: &mut dyn FnMut(Fetch) -> Result<(), Failure>,
) -> Result<u64, Failure> {
    let backup = &link.backup;
    let mut files = 0_u64;
    let mut listed = match manifest {
        Some(object) => Some(manifest::plain(place, object, link, &version_file(link))?),
        None => None,
    };
    if !backup.tablespaces.is_empty()
        && let (Some(listed), Some(object)) = (&listed, manifest)
        && !listed.has_tablespaces()
    {
        log::warn!(
            "{} lists no file of a tablespace: these files are not compared with it",
            place.shown(&object.key)
        );
    }
    walk(place, backup, &mut |name, object| {
        files += 1;
        let digest = match &mut listed {
            Some(listed) => listed.digest_of(place, &name, object.size)?,
            None => None,
        };
        if tablespace_of(&name).is_some_and(|oid| !is_restored(oid)) {
            return Ok(());
        }
        add(Fetch {
            origin,
            object: object.key,
            range: None,
            path: name,
            at: None,
            size: object.size,
            digest,
            mode: None,
            mtime: None,
            unless: Unless::Always,
        })
    })?;
    listed.map_or(Ok(()), |listed| listed.check_complete(place))?;
    Ok(files)
}

/// Creates the directories that a listing may not have because they are empty. The files of the tree are checked for tablespaces that are
/// missing by [`walk`].
///
/// # Errors
/// Fails if a directory cannot be created.
pub(crate) fn directories(backup: &Backup, datadir: &Datadir) -> Result<(), Failure> {
    for name in DIRECTORIES {
        datadir.create_dir(name)?;
    }
    // Without the folder of its version, no table can be created in a tablespace.
    if let Some(release) = Release::of_major(backup.major)
        && let Some(version) = Version::parse(backup.major.to_string().as_bytes())
    {
        let folder = TablespaceFolder { version, catalog: release.catalog };
        for tablespace in &backup.tablespaces {
            cancelled()?;
            datadir.create_dir(&format!("{PG_TBLSPC}/{}/{folder}", tablespace.oid))?;
        }
    }
    Ok(())
}
