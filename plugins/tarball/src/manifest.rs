//! What a backup's manifest says about its files: read as a stream, and given to the host as the listing that it compares
//! with while it unpacks.

use std::collections::BTreeMap;
use std::io;

use pgdata::checksum::{Algorithm as Listed, Digesting};
use pgdata::manifest::{File, LIMIT, ManifestError, Summary};
use postgres_formats::names::{POSTGRESQL_AUTO_CONF, RECOVERY_SIGNAL, STANDBY_SIGNAL};
use understudy::digests::{Algorithm, Digest, Hasher};
use understudy::store::Object;
use understudy::transfer::Listing;
use understudy::{Failure, UntilCancelled, transfer};

use crate::names::{VERSION, is_whole};
use crate::place::Place;

/// What pg_verifybackup leaves out as well (`ignore_list` in pg_verifybackup.c): WAL, of which a manifest lists at most the
/// `archive_status` of `-X fetch`, and what pg_basebackup itself changes after the manifest was made (`-R`).
const NOT_COMPARED: [&str; 4] = ["pg_wal/", POSTGRESQL_AUTO_CONF, STANDBY_SIGNAL, RECOVERY_SIGNAL];

/// What is missing is named up to so many.
const NAMED: usize = 3;

/// And counted up to so many.
const COUNTED: u32 = 1000;

/// The manifest on its way to the host.
#[derive(Debug)]
pub(crate) struct Manifest {
    pub(crate) summary: Summary,
    pub(crate) listing: Listing,
    /// What it says of PG_VERSION, which does not come from the archives.
    version: Option<(u64, Option<Digest>)>,
    /// How many bytes base.tar brings, WAL apart.
    pub(crate) base_bytes: u64,
    /// How many bytes the archive of each tablespace brings.
    pub(crate) tablespace_bytes: BTreeMap<u32, u64>,
}

/// Reads the manifest for what it says in sum.
///
/// # Errors
/// Where it cannot be read or believed.
pub(crate) fn summary(place: &Place, object: &Object) -> Result<Summary, Failure> {
    read(place, object, |file| is_whole(&file.path).map_err(|why| Failure::failed(why).into()))
}

/// Reads the manifest and gives its files to the host.
///
/// # Errors
/// As [`summary`], and where it lists a file twice or one that does not lie below a data directory.
pub(crate) fn listing(place: &Place, object: &Object) -> Result<Manifest, Failure> {
    let (mut listing, mut base_bytes, mut tablespace_bytes) = (Listing::new(), 0_u64, BTreeMap::new());
    let mut version = None;
    let shown = place.shown(&object.key);
    let refused = |error: understudy::Error| match Failure::from(error) {
        Failure::Failed(why) => Failure::failed(format!("{shown}: {why}")),
        other => other,
    };
    listing.tolerate(&NOT_COMPARED).map_err(refused)?;
    listing.tolerate(&[VERSION]).map_err(refused)?;
    let summary = read(place, object, |file| {
        let File { path, size, checksum } = file;
        let bytes =
            match path.strip_prefix("pg_tblspc/").and_then(|rest| rest.split('/').next()?.parse().ok()) {
                Some(oid) => tablespace_bytes.entry(oid).or_default(),
                None => &mut base_bytes,
            };
        *bytes = bytes.saturating_add(size);
        if is_not_compared(&path) {
            return Ok(());
        }
        let digest = checksum.map(|(algorithm, value)| Digest { algorithm: algorithm_of(algorithm), value });
        if path == VERSION {
            if version.replace((size, digest)).is_some() {
                return Err(Failure::failed(format!("{shown}: lists {VERSION} twice")).into());
            }
            return Ok(());
        }
        Ok(listing.add(transfer::Listed { path, size, digest }).map_err(refused)?)
    })?;
    Ok(Manifest { summary, listing, version, base_bytes, tablespace_bytes })
}

impl Manifest {
    /// Whether PG_VERSION is as the manifest says.
    ///
    /// # Errors
    /// Where it is not, or the manifest has none.
    pub(crate) fn has_version(&self, place: &Place, object: &Object, content: &[u8]) -> Result<(), Failure> {
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

    /// Once everything is unpacked: whether every file came.
    ///
    /// # Errors
    /// Where files of the manifest did not come; names the first few.
    pub(crate) fn all_came(&mut self, place: &Place, object: &Object) -> Result<(), Failure> {
        let missing = self.listing.missing(COUNTED)?;
        if missing.is_empty() {
            return Ok(());
        }
        let named = missing.len().min(NAMED);
        let and = match missing.len() - named {
            0 => String::new(),
            more if missing.len() == COUNTED as usize => format!(" and {more} or more others"),
            more => format!(" and {more} more"),
        };
        let (shown, named) = (place.shown(&object.key), missing[..named].join("`, `"));
        Err(Failure::failed(format!("{shown}: in the archives `{named}`{and} is missing")))
    }
}

fn is_not_compared(path: &str) -> bool {
    NOT_COMPARED.iter().any(|name| if name.ends_with('/') { path.starts_with(name) } else { path == *name })
}

fn algorithm_of(listed: Listed) -> Algorithm {
    match listed {
        Listed::Crc32c => Algorithm::Crc32c,
        Listed::Sha224 => Algorithm::Sha224,
        Listed::Sha256 => Algorithm::Sha256,
        Listed::Sha384 => Algorithm::Sha384,
        Listed::Sha512 => Algorithm::Sha512,
    }
}

/// The host's, which is many times as fast as any in here.
struct HostHasher(Hasher);

impl Digesting for HostHasher {
    fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(self) -> Vec<u8> {
        self.0.finish()
    }
}

fn read(
    place: &Place,
    object: &Object,
    each: impl FnMut(File) -> io::Result<()>,
) -> Result<Summary, Failure> {
    let shown = place.shown(&object.key);
    if object.size > LIMIT {
        return Err(Failure::failed(format!("{shown} {}", ManifestError::TooLarge)));
    }
    let stream = UntilCancelled::new(place.bucket.read(&object.key, None, None)?);
    let sha256 = HostHasher(Hasher::new(Algorithm::Sha256));
    pgdata::manifest::read(stream, sha256, each).map_err(|error| match error {
        ManifestError::Io(error) => match Failure::from(error) {
            Failure::Failed(why) => Failure::failed(format!("{shown}: {why}")),
            other => other,
        },
        error => Failure::failed(format!("{shown} {error}")),
    })
}
