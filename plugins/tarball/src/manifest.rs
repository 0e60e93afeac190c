//! Reads a backup's manifest as a stream, and passes its files to the host as the listing that the host compares with while it unpacks.

use std::collections::BTreeMap;

use pgdata::manifest::{File, Summary};
use postgres_formats::backup_label::Start;
use postgres_formats::names::{POSTGRESQL_AUTO_CONF, RECOVERY_SIGNAL, STANDBY_SIGNAL};
use restore::manifest::{digest, read};
use restore::missing;
use understudy::digests::{Digest, Hasher};
use understudy::store::Object;
use understudy::transfer::Listing;
use understudy::{Failure, transfer};

use crate::backup::Backup;
use crate::names::{VERSION, is_whole};
use crate::place::Place;

/// Files that are not checked, as in pg_verifybackup (`ignore_list` in pg_verifybackup.c): WAL, because a manifest lists no WAL file but
/// may list `archive_status` with `-X fetch`, and files that pg_basebackup changes after the manifest was made (`-R`).
const NOT_COMPARED: [&str; 4] = ["pg_wal/", POSTGRESQL_AUTO_CONF, STANDBY_SIGNAL, RECOVERY_SIGNAL];

/// The manifest, with its files in the listing of the host.
#[derive(Debug)]
pub(crate) struct Manifest {
    pub(crate) summary: Summary,
    pub(crate) listing: Listing,
    /// The size and the digest of PG_VERSION, which is not unpacked from the archives.
    version: Option<(u64, Option<Digest>)>,
    /// How many bytes base.tar contains, without WAL.
    pub(crate) base_bytes: u64,
    /// How many bytes the archive of each tablespace contains.
    pub(crate) tablespace_bytes: BTreeMap<u32, u64>,
}

/// A manifest without its files.
#[derive(Debug)]
pub(crate) struct Overview {
    pub(crate) summary: Summary,
    /// Whether a file has no checksum, as with `--manifest-checksums=NONE`.
    pub(crate) lacks_checksums: bool,
}

/// Reads the manifest of the backup with this label, without its files.
///
/// # Errors
/// Fails if the manifest cannot be read, is damaged or belongs to another backup, or lists a file that the backup may not have.
pub(crate) fn overview(
    place: &Place,
    backup: &Backup,
    object: &Object,
    label: &Start,
) -> Result<Overview, Failure> {
    let mut lacks_checksums = false;
    let summary = read(&place.at, object, &mut |file| {
        lacks_checksums |= file.checksum.is_none();
        if label.incremental_from.is_none() {
            is_whole(&file.path)
                .map_err(|why| Failure::failed(format!("{}: {why}", place.shown(&object.key))))?;
        }
        Ok(())
    })?;
    let begins_here = summary.wal_ranges.iter().any(|range| range.start == label.start_lsn);
    if !summary.wal_ranges.is_empty() && !begins_here {
        let (manifest, start) = (place.shown(&object.key), label.start_lsn);
        let base = place.shown(&backup.base.object.key);
        return Err(Failure::failed(format!(
            "{manifest} belongs to another backup: none of its WAL ranges begins at {start}, where the backup in {base} begins"
        )));
    }
    Ok(Overview { summary, lacks_checksums })
}

/// Reads the manifest and passes its files to the host. Files of tablespaces for which `has_tablespace` is false are left out.
///
/// # Errors
/// Fails if the manifest cannot be read or is damaged. Also fails if the manifest lists a file twice, or a file outside the data directory.
pub(crate) fn listing(
    place: &Place,
    object: &Object,
    has_tablespace: &dyn Fn(u32) -> bool,
) -> Result<Manifest, Failure> {
    let (mut listing, mut base_bytes, mut tablespace_bytes) = (Listing::new(), 0_u64, BTreeMap::new());
    let mut version = None;
    let shown = place.shown(&object.key);
    let refused = |error: understudy::Error| match Failure::from(error) {
        Failure::Failed(why) => Failure::failed(format!("{shown}: {why}")),
        other => other,
    };
    listing.tolerate(&NOT_COMPARED).map_err(refused)?;
    listing.tolerate(&[VERSION]).map_err(refused)?;
    let summary = read(&place.at, object, &mut |file| {
        let File { path, size, checksum } = file;
        let tablespace =
            path.strip_prefix("pg_tblspc/").and_then(|rest| rest.split('/').next()?.parse().ok());
        if tablespace.is_some_and(|oid| !has_tablespace(oid)) {
            return Ok(());
        }
        let bytes = match tablespace {
            Some(oid) => tablespace_bytes.entry(oid).or_default(),
            None => &mut base_bytes,
        };
        *bytes = bytes.saturating_add(size);
        if is_not_compared(&path) {
            return Ok(());
        }
        let digest = checksum.map(digest);
        if path == VERSION {
            if version.replace((size, digest)).is_some() {
                return Err(Failure::failed(format!("{shown}: lists {VERSION} twice")));
            }
            return Ok(());
        }
        listing.add(transfer::Listed { path, size, digest }).map_err(refused)
    })?;
    Ok(Manifest { summary, listing, version, base_bytes, tablespace_bytes })
}

impl Manifest {
    /// Checks that PG_VERSION is as the manifest lists it.
    ///
    /// # Errors
    /// Fails if PG_VERSION differs, or if the manifest does not list PG_VERSION.
    pub(crate) fn check_version(
        &self,
        place: &Place,
        object: &Object,
        content: &[u8],
    ) -> Result<(), Failure> {
        let same = self.version.as_ref().is_some_and(|(size, digest)| {
            *size == content.len() as u64
                && digest.as_ref().is_none_or(|digest| {
                    let mut hasher = Hasher::new(digest.algorithm);
                    hasher.update(content);
                    hasher.finish() == digest.value
                })
        });
        if same {
            return Ok(());
        }
        let shown = place.shown(&object.key);
        Err(Failure::failed(format!("{shown}: its {VERSION} is not that of the archive or of the source")))
    }

    /// Checks after unpacking that every listed file was in the archives.
    ///
    /// # Errors
    /// Fails if files are missing. The failure names the first few of them.
    pub(crate) fn check_complete(&mut self, place: &Place, object: &Object) -> Result<(), Failure> {
        match missing::of_listing(&mut self.listing)? {
            None => Ok(()),
            Some(some) => {
                let shown = place.shown(&object.key);
                Err(Failure::failed(format!("{shown}: in the archives {some} is missing")))
            }
        }
    }
}

fn is_not_compared(path: &str) -> bool {
    NOT_COMPARED.iter().any(|name| if name.ends_with('/') { path.starts_with(name) } else { path == *name })
}
