//! Finds out how a backup is stored: as a plain tree or as archives of a Barman server, or as archives of barman-cloud.

use postgres_formats::names::{BACKUP_MANIFEST, PG_VERSION};
use understudy::Failure;
use understudy::store::Object;

use crate::archive::Archives;
use crate::info::Backup;
use crate::names::{ArchiveName, ENCRYPTED};
use crate::place::Place;

/// The largest permitted number of objects in the folder of a backup that consists of archives.
pub(crate) const MOST_OBJECTS: usize = 20_000;

/// How a backup is stored.
#[derive(Clone, Debug)]
pub(crate) enum Contents {
    /// The files of the data directory in `data`, and those of each tablespace in a folder named by its OID.
    Tree {
        /// The manifest that pg_basebackup or `barman generate-manifest` wrote.
        manifest: Option<Object>,
    },
    /// The archives of pg_basebackup in `data`.
    Server {
        archives: Archives,
        /// The manifest that pg_basebackup wrote.
        manifest: Option<Object>,
    },
    /// The archives of barman-cloud.
    Cloud(Archives),
}

/// Finds out how `backup` is stored.
///
/// # Errors
/// Fails if the backup has no files, if they are encrypted, or if archives are missing. The error names the folder or the archive.
pub(crate) fn find(place: &Place, backup: &Backup) -> Result<Contents, Failure> {
    let folder = place.backup(&backup.id);
    let data = format!("{folder}/data");
    let manifest = || place.at.bucket.find(&format!("{data}/{BACKUP_MANIFEST}"));
    if let Some(encryption) = &backup.encryption {
        return Err(encrypted(place, &folder, encryption));
    }
    // The files of a tree may be many, so they are not listed for this.
    if place.at.bucket.find(&format!("{data}/{PG_VERSION}"))?.is_some() {
        return Ok(Contents::Tree { manifest: manifest()? });
    }
    let (mut server, mut cloud) = (Archives::default(), Archives::default());
    let too_many = || {
        place.failed(
            &folder,
            format!(
                "has more than {MOST_OBJECTS} files and no data/{PG_VERSION}: it is not a backup of Barman"
            ),
        )
    };
    place.at.each_in(&folder, MOST_OBJECTS, &too_many, &mut |name, object| {
        let in_data = name.strip_prefix("data/");
        if in_data.unwrap_or(&name).ends_with(ENCRYPTED) {
            return Err(encrypted(place, &object.key, "gpg"));
        }
        if name.starts_with("pgdata/") {
            return Err(place.failed(
                &folder,
                "has the layout of a Barman before 1.5.0 (pgdata), which is not restored: take a new backup",
            ));
        }
        if let Some(archive) = in_data.and_then(ArchiveName::of_server) {
            server.add(place, archive, object)?;
        } else if let Some(archive) = ArchiveName::of_cloud(&name) {
            cloud.add(place, archive, object)?;
        }
        Ok(())
    })?;
    match (server.is_empty(), cloud.is_empty()) {
        (false, false) => Err(place.failed(
            &folder,
            "has both archives of a Barman server (data/base.tar) and of barman-cloud (data.tar): keep one of them",
        )),
        (false, true) => {
            server.check(place, &data, "base", backup)?;
            Ok(Contents::Server { archives: server, manifest: manifest()? })
        }
        (true, false) => {
            cloud.check(place, &folder, "data", backup)?;
            Ok(Contents::Cloud(cloud))
        }
        (true, true) => Err(place.failed(
            &folder,
            format!("has neither data/{PG_VERSION} nor data/base.tar nor data.tar: the backup expired, was removed or was not copied whole"),
        )),
    }
}

/// Returns the failure for an encrypted backup.
fn encrypted(place: &Place, key: &str, encryption: &str) -> Failure {
    let encryption: String = encryption.escape_debug().take(60).collect();
    place.failed(
        key,
        format!(
            "is encrypted with {encryption}, which is not read: restore it with barman, or take a backup without `encryption`"
        ),
    )
}
