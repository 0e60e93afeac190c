//! Unpacks archives, and checks in the data directory what the host cannot check.

use std::fs::File;
use std::io::{ErrorKind, Read};

use postgres_formats::control_file::{self, Beginning, RelationFiles};
use postgres_formats::names::{
    CONTROL_FILE, PG_TBLSPC, POSTMASTER_OPTS, POSTMASTER_PID, TablespaceFolder, UNFINISHED_CONTROL_FILE,
};
use restore::unpacked::{check_files, entries};
use understudy::store::Object;
use understudy::transfer::{Chain, Unpack};
use understudy::{AtPath, Datadir, Failure, cancelled};

use crate::archive::{ArchiveObject, Archives};
use crate::chain::Link;
use crate::contents::Contents;
use crate::create::{Transfer, version_file};
use crate::manifest::{self, Archived};
use crate::names::{Holds, is_increment};
use crate::place::Place;
use crate::plan::Usable;
use crate::tree::{EMPTIED, FIRST, LEFT_OUT};

/// How many bytes of the archive of the data directory may be written in addition to the sizes in the manifest. Leaves room for files that
/// the manifest does not list, such as settings.
const SLACK: u64 = 64 << 20;

/// Returns the files in an archive of the data directory that the host reads past and does not write: those that the method has written
/// itself before ([`FIRST`]), and those that a restore leaves out, as it does for a tree. WAL comes from the archive of the server
/// (`PGDATA_EXCLUDE_LIST` in barman/postgres_plumbing.py; pg_basebackup runs with `--wal-method=none`).
fn skipped() -> Vec<String> {
    let names = FIRST.iter().chain(LEFT_OUT.iter().filter(|name| !REFUSED.contains(name)));
    names.chain(&EMPTIED).map(|name| (*name).to_owned()).collect()
}

/// Names that an archive of the data directory must not contain: files that belong in the archive of a tablespace, files of a running
/// server, and the name under which the host writes the control file.
const REFUSED: [&str; 4] = ["pg_tblspc/", POSTMASTER_PID, POSTMASTER_OPTS, UNFINISHED_CONTROL_FILE];

/// Returns the item for an archive of a backup, of which at most `limit` bytes may be written. In the archives of barman-cloud, names begin
/// with `./` (`upload_directory` in barman/cloud.py); the host removes this before it compares a name with `skip` and `refuse`.
fn item(holds: Holds, archive: &ArchiveObject, origin: u32, limit: u64) -> Unpack {
    let (path, skip, refuse) = match holds {
        Holds::Data => (String::new(), skipped(), REFUSED.map(str::to_owned).to_vec()),
        Holds::Tablespace(oid) => (format!("{PG_TBLSPC}/{oid}"), Vec::new(), Vec::new()),
    };
    Unpack { origin, object: archive.object.key.clone(), path, limit, skip, refuse }
}

/// Adds to the job the archives of a backup. With `chain`, the backup is the current link of the chain, and tablespaces that the newest
/// backup does not have are left out, because they were dropped after this backup. Returns the manifest, if there is one.
///
/// # Errors
/// The error of the host; the errors of [`manifest::archived`].
pub(crate) fn all(
    usable: &Usable,
    link: &Link,
    archives: &Archives,
    manifest: Option<&Object>,
    transfer: &mut Transfer<'_>,
    mut chain: Option<&mut Chain>,
) -> Result<Option<Archived>, Failure> {
    let is_link = chain.is_some();
    let is_restored = |oid| !is_link || usable.restores(oid);
    let read = |object| manifest::archived(transfer.place, object, link, &version_file(link), &is_restored);
    let mut listed = manifest.map(read).transpose()?;
    for (holds, archive) in archives.iter() {
        cancelled()?;
        if matches!(holds, Holds::Tablespace(oid) if !is_restored(oid)) {
            continue;
        }
        let limit = limit_of(holds, archive, listed.as_ref());
        let item = item(holds, archive, transfer.origin(archive.codec)?, limit);
        let listing = listed.as_mut().map(|listed| &mut listed.listing);
        match chain.as_deref_mut() {
            None => transfer.job.unpack(&item, listing)?,
            Some(chain) => transfer.job.unpack_link(&item, listing, chain)?,
        }
    }
    Ok(listed)
}

/// Returns how many bytes of an archive may be written.
fn limit_of(holds: Holds, archive: &ArchiveObject, listed: Option<&Archived>) -> u64 {
    let listed = listed.map_or(u64::MAX, |listed| match holds {
        Holds::Data => listed.data_bytes.saturating_add(SLACK),
        Holds::Tablespace(oid) => listed.tablespace_bytes.get(&oid).copied().unwrap_or(0),
    });
    // The files of a plain archive cannot be larger than the archive.
    if archive.codec.is_none() { listed.min(archive.object.size) } else { listed }
}

/// Checks that the data directory has what a server needs to start, and nothing that belongs elsewhere.
///
/// # Errors
/// The error names the file that is missing or wrong.
pub(crate) fn check_restored(usable: &Usable, place: &Place, datadir: &Datadir) -> Result<(), Failure> {
    let backup = &usable.newest.backup;
    let folder = place.backup(&backup.id);
    let path = datadir.place(CONTROL_FILE)?;
    let mut bytes = Vec::new();
    match File::open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(place.failed(&folder, format!("has no {CONTROL_FILE}: the backup is not whole")));
        }
        file => file.and_then(|file| file.take(control_file::SIZE + 1).read_to_end(&mut bytes)).at(&path)?,
    };
    if bytes.len() as u64 != control_file::SIZE {
        return Err(place
            .failed(&folder, format!("has a {CONTROL_FILE} that is not of {} bytes", control_file::SIZE)));
    }
    let refused = |error| place.failed(&folder, format!("has a {CONTROL_FILE} that {error}"));
    let control = Beginning::parse(&bytes).map_err(refused)?;
    if !usable.older.is_empty() {
        RelationFiles::check_default(&bytes).map_err(refused)?;
    }
    if let Some(own) = backup.system_identifier.filter(|own| *own != control.system_identifier) {
        let found = control.system_identifier;
        return Err(place.failed(
            &folder,
            format!("is from the cluster {found}, but its backup.info is from the cluster {own}"),
        ));
    }
    let has_manifest = match &usable.contents {
        // The names in a tree were checked when the tree was listed.
        Contents::Tree { .. } => return Ok(()),
        Contents::Server { manifest, .. } => manifest.is_some(),
        Contents::Cloud(_) => false,
    };
    for tablespace in &backup.tablespaces {
        let root = datadir.tablespace(tablespace.oid)?;
        for (name, is_dir) in entries(&root)? {
            let version = TablespaceFolder::parse(name.as_bytes()).and_then(|folder| folder.version.major());
            if !is_dir || version != Some(backup.major) {
                let (oid, major, name) = (tablespace.oid, backup.major, name.escape_debug());
                return Err(place.failed(
                    &folder,
                    format!("has in the archive of the tablespace {oid} a member `{name}`, which is not below a folder PG_{major}_CATALOG"),
                ));
            }
        }
        if !has_manifest {
            check_files(&root, &is_whole).map_err(|failure| within(place, &folder, failure))?;
        }
    }
    if !has_manifest {
        check_files(datadir.path(), &is_whole).map_err(|failure| within(place, &folder, failure))?;
    }
    Ok(())
}

fn within(place: &Place, folder: &str, failure: Failure) -> Failure {
    match failure {
        Failure::Failed(why) => place.failed(folder, why),
        other => other,
    }
}

/// Checks that the file `name` does not come from an incremental backup.
fn is_whole(name: &str) -> Result<(), String> {
    if is_increment(name) {
        let name = name.escape_debug();
        return Err(format!(
            "has a member `{name}` of an incremental backup, although the backup has no parent"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use postgres_formats::names::TABLESPACE_MAP;
    use understudy::store::Codec;

    use super::*;

    fn archive(codec: Option<Codec>) -> ArchiveObject {
        let object =
            Object { key: "main/base/x/data.tar".to_owned(), size: 1000, modified: None, etag: None };
        ArchiveObject { object, codec }
    }

    #[test]
    fn the_first_files_and_what_the_host_writes_are_not_unpacked() {
        let data = item(Holds::Data, &archive(None), 3, 7);
        assert_eq!(
            (data.origin, data.object.as_str(), data.path.as_str(), data.limit),
            (3, "main/base/x/data.tar", "", 7)
        );
        for name in [
            "PG_VERSION",
            "backup_label",
            TABLESPACE_MAP,
            "backup_manifest",
            "standby.signal",
            "pg_wal/",
            "pg_xlog/",
            "log/",
            "pg_log/",
        ] {
            assert!(data.skip.iter().any(|skipped| skipped == name), "{name}");
        }
        for name in ["pg_tblspc/", "postmaster.pid", "global/pg_control.understudy"] {
            assert!(data.refuse.iter().any(|refused| refused == name), "{name}");
            assert!(!data.skip.iter().any(|skipped| skipped == name), "{name}");
        }
        let tablespace = item(Holds::Tablespace(16384), &archive(None), 0, 7);
        assert_eq!((tablespace.path.as_str(), tablespace.skip.len()), ("pg_tblspc/16384", 0));
    }

    #[test]
    fn a_plain_archive_writes_no_more_than_its_size() {
        assert_eq!(limit_of(Holds::Data, &archive(None), None), 1000);
        assert_eq!(limit_of(Holds::Data, &archive(Some(Codec::Gzip)), None), u64::MAX);
    }
}
