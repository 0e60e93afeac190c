//! Reads `backup_manifest`. Its files are compared by the host: those of archives by a listing, those of a tree by the digest of each fetch.

use std::collections::BTreeMap;

use pgdata::manifest::{File, Index, IndexError, Summary};
use postgres_formats::names::{BACKUP_LABEL, PG_TBLSPC, PG_VERSION, POSTGRESQL_AUTO_CONF, tablespace_oid};
use restore::manifest::{digest, read};
use restore::missing::{self, COUNTED, some_of};
use understudy::Failure;
use understudy::digests::{Digest, Hasher};
use understudy::store::Object;
use understudy::transfer::{self, Listing};

use crate::chain::Link;
use crate::names::is_increment;
use crate::place::Place;
use crate::tree::{EMPTIED, LEFT_OUT, is_left_out};

/// Reads the manifest of `link` and checks that it belongs to this backup.
///
/// # Errors
/// Fails if the manifest cannot be read, is damaged, or belongs to another backup.
pub(crate) fn summary(place: &Place, object: &Object, link: &Link) -> Result<Summary, Failure> {
    let is_full = link.backup.parent.is_none();
    let summary = read(&place.at, object, &mut |file| match is_full && is_increment(&file.path) {
        true => Err(place.failed(
            &object.key,
            format!(
                "lists `{}` of an incremental backup, although the backup has no parent",
                file.path.escape_debug()
            ),
        )),
        false => Ok(()),
    })?;
    check(place, object, link, &summary)?;
    Ok(summary)
}

fn check(place: &Place, object: &Object, link: &Link, summary: &Summary) -> Result<(), Failure> {
    let backup = &link.backup;
    // A manifest that `barman generate-manifest` wrote has neither ranges nor a system identifier.
    if !summary.wal_ranges.is_empty() && !summary.wal_ranges.iter().any(|range| range.start == backup.begin) {
        return Err(place.failed(
            &object.key,
            format!("belongs to another backup: none of its WAL ranges begins at {}", backup.begin),
        ));
    }
    match (summary.system_identifier, backup.system_identifier) {
        (Some(listed), Some(own)) if listed != own => Err(place.failed(
            &object.key,
            format!("is from the cluster {listed}, but the backup is from the cluster {own}"),
        )),
        _ => Ok(()),
    }
}

/// The files that are written first, as a manifest lists them.
#[derive(Debug, Default)]
struct First {
    listed: Vec<(String, u64, Option<Digest>)>,
}

impl First {
    fn note(&mut self, file: &File) {
        if [PG_VERSION, BACKUP_LABEL].contains(&file.path.as_str()) {
            let digest = file.checksum.clone().map(digest);
            self.listed.push((file.path.clone(), file.size, digest));
        }
    }

    /// Checks that `version` and `label` are the files that the manifest lists.
    fn check(&self, place: &Place, object: &Object, version: &[u8], label: &[u8]) -> Result<(), Failure> {
        for (name, content) in [(PG_VERSION, version), (BACKUP_LABEL, label)] {
            let same = self.listed.iter().any(|(listed, size, digest)| {
                listed == name
                    && *size == content.len() as u64
                    && digest.as_ref().is_none_or(|digest| {
                        let mut hasher = Hasher::new(digest.algorithm);
                        hasher.update(content);
                        hasher.finish() == digest.value
                    })
            });
            if !same {
                return Err(place
                    .failed(&object.key, format!("does not list the {name} that the backup.info implies")));
            }
        }
        Ok(())
    }
}

/// The manifest of archives, with its files in a listing of the host.
#[derive(Debug)]
pub(crate) struct Archived {
    pub(crate) listing: Listing,
    object: Object,
    /// How many bytes the archive of the data directory contains, and that of each tablespace.
    pub(crate) data_bytes: u64,
    pub(crate) tablespace_bytes: BTreeMap<u32, u64>,
}

/// Reads the manifest of archives. Files of tablespaces for which `is_restored` returns false are not listed.
///
/// # Errors
/// The errors of [`summary`]. Also fails if the manifest lists a file twice, or another `PG_VERSION` or `backup_label` than the backup has.
pub(crate) fn archived(
    place: &Place,
    object: &Object,
    link: &Link,
    version: &[u8],
    is_restored: &dyn Fn(u32) -> bool,
) -> Result<Archived, Failure> {
    let mut listing = Listing::new();
    let (mut first, mut data_bytes, mut tablespace_bytes) = (First::default(), 0_u64, BTreeMap::new());
    let refused = |error: understudy::Error| match Failure::from(error) {
        Failure::Failed(why) => place.failed(&object.key, why),
        other => other,
    };
    let tolerated: Vec<_> = EMPTIED.iter().chain(&LEFT_OUT).chain(&[POSTGRESQL_AUTO_CONF]).copied().collect();
    listing.tolerate(&tolerated).map_err(refused)?;
    let summary = read(&place.at, object, &mut |file| {
        first.note(&file);
        let bytes = match tablespace_of(&file.path) {
            Some(oid) if !is_restored(oid) => return Ok(()),
            Some(oid) => tablespace_bytes.entry(oid).or_default(),
            None => &mut data_bytes,
        };
        *bytes = bytes.saturating_add(file.size);
        if is_left_out(&file.path) || file.path == POSTGRESQL_AUTO_CONF {
            return Ok(());
        }
        let digest = file.checksum.map(digest);
        listing.add(transfer::Listed { path: file.path, size: file.size, digest }).map_err(refused)
    })?;
    check(place, object, link, &summary)?;
    first.check(place, object, version, &link.label.original)?;
    Ok(Archived { listing, object: object.clone(), data_bytes, tablespace_bytes })
}

impl Archived {
    /// Checks after unpacking that every listed file was in the archives.
    ///
    /// # Errors
    /// Fails if files are missing. The failure names the first few of them.
    pub(crate) fn check_complete(&mut self, place: &Place) -> Result<(), Failure> {
        match missing::of_listing(&mut self.listing)? {
            None => Ok(()),
            Some(some) => {
                Err(place.failed(&self.object.key, format!("lists {some}, which the archives lack")))
            }
        }
    }
}

/// The manifest of a tree.
#[derive(Debug)]
pub(crate) struct Plain {
    index: Index,
    object: Object,
    /// Whether the manifest lists files of tablespaces. One that `barman generate-manifest` wrote does not: it lists only the files in
    /// `data` (barman/backup_manifest.py).
    has_tablespaces: bool,
}

/// Reads the manifest of a tree.
///
/// # Errors
/// The errors of [`archived`].
pub(crate) fn plain(place: &Place, object: &Object, link: &Link, version: &[u8]) -> Result<Plain, Failure> {
    let (mut index, mut first, mut has_tablespaces) = (Index::default(), First::default(), false);
    let refused = |error: IndexError| place.failed(&object.key, format!("cannot be used: {error}"));
    let summary = read(&place.at, object, &mut |file| {
        first.note(&file);
        has_tablespaces |= tablespace_of(&file.path).is_some();
        index.add(&file).map_err(refused)
    })?;
    index.sort().map_err(refused)?;
    check(place, object, link, &summary)?;
    first.check(place, object, version, &link.label.original)?;
    for name in [PG_VERSION, BACKUP_LABEL] {
        index.see(name).map_err(refused)?;
    }
    Ok(Plain { index, object: object.clone(), has_tablespaces })
}

impl Plain {
    /// Returns whether the manifest covers the files of tablespaces.
    pub(crate) fn has_tablespaces(&self) -> bool {
        self.has_tablespaces
    }

    /// Returns the digest of the file `name` in the data directory, which has `size` bytes in the tree; `None` if the manifest does not
    /// cover the file.
    ///
    /// # Errors
    /// Fails if the manifest lists the file with another size, or does not list it.
    pub(crate) fn digest_of(
        &mut self,
        place: &Place,
        name: &str,
        size: u64,
    ) -> Result<Option<Digest>, Failure> {
        let is_covered = self.has_tablespaces || tablespace_of(name).is_none();
        let entry = match self.index.see(name) {
            // ALTER SYSTEM may change this file, and pg_verifybackup does not compare it.
            _ if name == POSTGRESQL_AUTO_CONF => return Ok(None),
            Err(IndexError::NotListed(_)) if !is_covered => return Ok(None),
            entry => entry.map_err(|error| {
                place.failed(&self.object.key, format!("does not fit the files: {error}"))
            })?,
        };
        if entry.size != size {
            let (listed, name) = (entry.size, name.escape_debug());
            return Err(place.failed(
                &self.object.key,
                format!("lists `{name}` with {listed} bytes, but the file has {size}"),
            ));
        }
        Ok(entry.checksum.map(|(algorithm, value)| digest((algorithm, value.to_vec()))))
    }

    /// Checks that every listed file was in the tree.
    ///
    /// # Errors
    /// Fails if files are missing. The failure names the first few of them.
    pub(crate) fn check_complete(&self, place: &Place) -> Result<(), Failure> {
        let is_missing = |name: &&str| !is_left_out(name) && *name != POSTGRESQL_AUTO_CONF;
        match some_of(self.index.unseen().filter(is_missing).take(COUNTED as usize)) {
            None => Ok(()),
            Some(some) => {
                Err(place.failed(&self.object.key, format!("lists {some}, which the backup lacks")))
            }
        }
    }
}

/// Returns the OID of the tablespace that contains the file; `None` if the file is in the data directory.
pub(crate) fn tablespace_of(path: &str) -> Option<u32> {
    let rest = path.strip_prefix(PG_TBLSPC)?.strip_prefix('/')?;
    rest.split('/').next().and_then(tablespace_oid)
}
