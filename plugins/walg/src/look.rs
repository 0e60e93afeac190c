//! Reads `backup_label` and the control file of a backup. Both are written to the data directory as they were read here.

use std::io::Read;

use postgres_formats::backup_label::{self, Start};
use postgres_formats::control_file::{self, Beginning, RelationFiles};
use postgres_formats::names::{BACKUP_LABEL, CONTROL_FILE};
use postgres_formats::segment::SegmentSize;
use restore::pages;
use understudy::store::{CipherFormat, Range};
use understudy::{Error, Failure, UntilCancelled, cancelled};
use ustar::{Kind, Stream};

use crate::archives::{Archive, Archives};
use crate::codec::signature;
use crate::place::Place;
use crate::plan::Link;
use crate::sentinel::Backup;

/// How many bytes at the beginning of an archive show how it is encrypted.
const SIGNATURE: u64 = 32;

/// How many members of the archive of a small file are looked at.
const MOST_MEMBERS: usize = 16;

/// `backup_label` and the control file of a backup.
#[derive(Debug)]
pub(crate) struct Looked {
    pub(crate) label: Vec<u8>,
    pub(crate) control: Vec<u8>,
    pub(crate) system_identifier: u64,
    /// The size of a WAL segment, or why it cannot be read.
    pub(crate) segment_size: Result<SegmentSize, Failure>,
    /// How files of relations are divided if their pages have checksums, `None` if they have none, or why it cannot be read.
    pub(crate) pages: Result<Option<RelationFiles>, Failure>,
}

/// Reads both files of the backup of a link, and compares them with the sentinel.
///
/// # Errors
/// Fails if a file is missing, cannot be read, or belongs to another backup.
pub(crate) fn at(place: &Place, link: &Link) -> Result<Looked, Failure> {
    let Link { backup, archives } = link;
    let control = Tar { place, archive: &archives.control };
    let bytes = control.control_file()?;
    let refused = |error| control.failed(format!("has a {CONTROL_FILE} that {error}"));
    let beginning = Beginning::parse(&bytes).map_err(refused)?;
    if backup.sentinel.parent.is_some() {
        RelationFiles::check_default(&bytes).map_err(refused)?;
    }
    if let Some(identifier) = backup.sentinel.system_identifier
        && identifier != beginning.system_identifier
    {
        let found = beginning.system_identifier;
        return Err(
            control.failed(format!("is of the cluster {found}, and the backup of the cluster {identifier}"))
        );
    }
    let segment_size = control_file::wal_segment_size(&bytes).map_err(|error| {
        control
            .failed(format!("has a {CONTROL_FILE} that {error}: set `wal = \"none\"` to restore without WAL"))
    });
    let pages = pages::of_cluster(&bytes, |why| control.failed(format!("has a {CONTROL_FILE} that {why}")));
    let label = label(place, backup, archives)?;
    let system_identifier = beginning.system_identifier;
    Ok(Looked { label, control: bytes, system_identifier, segment_size, pages })
}

/// Checks that the backup with these archives, on which a delta backup depends, is of the cluster `newest`, also if its sentinel does not
/// name the cluster.
///
/// # Errors
/// Fails if the control file is missing, cannot be read, or is of another cluster.
pub(crate) fn check_cluster(place: &Place, archives: &Archives, newest: u64) -> Result<(), Failure> {
    cancelled()?;
    let control = Tar { place, archive: &archives.control };
    let bytes = control.control_file()?;
    let beginning = Beginning::parse(&bytes)
        .map_err(|error| control.failed(format!("has a {CONTROL_FILE} that {error}")))?;
    if beginning.system_identifier != newest {
        return Err(control.failed(format!(
            "is of the cluster {}, and the delta backup that depends on it is of the cluster {newest}: choose another with \
             `backup`",
            beginning.system_identifier
        )));
    }
    Ok(())
}

/// Reads `backup_label` from its archive. In a remote backup it is the first member of the part with which the data directory begins.
fn label(place: &Place, backup: &Backup, archives: &Archives) -> Result<Vec<u8>, Failure> {
    let (tars, most): (&[Archive], usize) = match &archives.label {
        Some(label) => (std::slice::from_ref(label), MOST_MEMBERS),
        None => (&archives.parts, 1),
    };
    for archive in tars {
        cancelled()?;
        let tar = Tar { place, archive };
        let Some(bytes) = tar.member(BACKUP_LABEL, backup_label::LIMIT, most)? else { continue };
        let start =
            Start::parse(&bytes).map_err(|error| tar.failed(format!("has a {BACKUP_LABEL} that {error}")))?;
        check(backup, &start).map_err(|what| tar.failed(format!("has a {BACKUP_LABEL} {what}")))?;
        return Ok(bytes);
    }
    Err(backup.failed(format!(
        "is of a backup without {BACKUP_LABEL}: a server that starts from it would begin in the wrong place"
    )))
}

/// Checks that a `backup_label` belongs to `backup`.
fn check(backup: &Backup, start: &Start) -> Result<(), String> {
    if let Some(from) = start.incremental_from {
        return Err(format!("of an incremental backup from {from}, which WAL-G does not make"));
    }
    if start.start_lsn != backup.sentinel.start {
        return Err(format!(
            "of another backup: it begins at {}, and the sentinel says {}",
            start.start_lsn, backup.sentinel.start
        ));
    }
    if start.timeline != backup.name.timeline() {
        let (found, named) = (start.timeline, backup.name.timeline());
        return Err(format!(
            "of another backup: it is on the timeline {found}, and the backup's name says {named}"
        ));
    }
    Ok(())
}

/// An archive that is read in the component.
struct Tar<'a> {
    place: &'a Place,
    archive: &'a Archive,
}

impl Tar<'_> {
    /// Reads the control file, which is in the archive alone.
    fn control_file(&self) -> Result<Vec<u8>, Failure> {
        self.check_signature()?;
        let bytes = self.member(CONTROL_FILE, control_file::SIZE, MOST_MEMBERS)?;
        bytes
            .filter(|bytes| bytes.len() as u64 == control_file::SIZE)
            .ok_or_else(|| self.failed(format!("has no {CONTROL_FILE} of {} bytes", control_file::SIZE)))
    }

    /// Reads the file `wanted`, which is among the first `most` files and directories; `None` if it is not.
    fn member(&self, wanted: &str, limit: u64, most: usize) -> Result<Option<Vec<u8>>, Failure> {
        let pipeline = self.place.pipeline(self.archive.codec);
        let stream = self.place.at.bucket.read(&self.archive.object.key, None, pipeline.as_ref());
        let stream = stream.map_err(|error| match error {
            Error::NotFound(_) => self.failed("is missing: the backup was removed or replaced"),
            error => error.into(),
        })?;
        let mut tar = ustar::Archive::boxed(Stream(UntilCancelled::new(stream))).of_wal_g();
        for _ in 0..most {
            cancelled()?;
            let Some(member) = tar.next().map_err(|error| self.broken(error))? else { return Ok(None) };
            if member.name != wanted {
                continue;
            }
            if member.kind != Kind::File || member.size > limit {
                return Err(
                    self.failed(format!("has a {wanted} that is not a file or is larger than {limit} bytes"))
                );
            }
            let mut bytes = Vec::new();
            let read = tar.contents().read_to_end(&mut bytes);
            read.map_err(|error| self.broken(tar.error(error)))?;
            return Ok(Some(bytes));
        }
        Ok(None)
    }

    /// Fails if the archive is encrypted in another way than the options say, and names the cipher if it can be recognized.
    fn check_signature(&self) -> Result<(), Failure> {
        let range = Range { offset: 0, length: SIGNATURE.min(self.archive.object.size) };
        let mut beginning = Vec::new();
        if range.length > 0 {
            let stream = self.place.at.bucket.read(&self.archive.object.key, Some(range), None)?;
            stream.take(SIGNATURE).read_to_end(&mut beginning)?;
        }
        match (cipher_of(&beginning, self.archive), self.place.decrypts()) {
            (Some(Cipher::OpenPgp), Some(CipherFormat::Openpgp)) => Ok(()),
            // An encrypted storage of libsodium begins with random bytes, which may look like OpenPGP. Its key decides.
            (Some(Cipher::OpenPgp), Some(_)) => Ok(()),
            (Some(Cipher::OpenPgp), None) => Err(self.failed(
                "is encrypted with OpenPGP: grant the secret key as keys.NAME with kind = \"openpgp\", name it with the option `key`, and \
                 set encryption = \"openpgp\"",
            )),
            (Some(Cipher::Unread(name)), _) => {
                Err(self.failed(format!("is encrypted with {name}, which is not read: restore with WAL-G")))
            }
            (Some(Cipher::Unknown), Some(CipherFormat::Openpgp)) => {
                Err(self.failed("is not encrypted with OpenPGP, as encryption = \"openpgp\" says, or it is damaged"))
            }
            (Some(Cipher::Unknown), None) => Err(self.failed(
                "does not begin as its name says, so it is encrypted or damaged: if it is encrypted with libsodium, grant the \
                 key and name it with the option `key`; other encryption is not read",
            )),
            (Some(Cipher::Unknown) | None, _) => Ok(()),
        }
    }

    fn broken(&self, error: ustar::TarError) -> Failure {
        match error {
            ustar::TarError::Io(error) => error.into(),
            error => self.failed(error),
        }
    }

    fn failed(&self, what: impl std::fmt::Display) -> Failure {
        Failure::failed(format!("{} {what}", self.place.shown(&self.archive.object.key)))
    }
}

/// How an archive is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cipher {
    /// As an OpenPGP message.
    OpenPgp,
    /// In a format that is not read.
    Unread(&'static str),
    /// The archive does not begin as its name says. libsodium's streams begin with random bytes.
    Unknown,
}

/// Returns how an archive that begins with `beginning` is encrypted; `None` if it begins as its name says.
fn cipher_of(beginning: &[u8], archive: &Archive) -> Option<Cipher> {
    let signature = signature(archive.codec);
    let is_as_named = if archive.codec.is_none() {
        // A plain archive begins with the name of a member.
        beginning
            .first()
            .is_some_and(|byte| matches!(byte, b'/' | b'.' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z'))
    } else {
        beginning.starts_with(signature)
    };
    // WAL-G's internal/crypto/yckms/key.go and internal/crypto/envelope/enveloper/yckms/enveloper.go.
    for (magic, name) in [
        (&b"yckms"[..], "a key of Yandex Cloud KMS"),
        (b"envelope-yc-kms", "OpenPGP in an envelope of Yandex Cloud KMS"),
    ] {
        if beginning.starts_with(magic) {
            return Some(Cipher::Unread(name));
        }
    }
    if is_as_named {
        // A brotli stream has no signature.
        return None;
    }
    // The tag of a public-key encrypted session key of version 3 or 6, with an old or a new packet header (RFC 9580, 4.2 and 5.1).
    let is_session_key = match beginning {
        [0x84, _, 3 | 6, ..] | [0x85, _, _, 3 | 6, ..] => true,
        [0xc1, length, 3 | 6, ..] if *length < 192 => true,
        [0xc1, length, _, 3 | 6, ..] if (192..224).contains(length) => true,
        _ => false,
    };
    Some(if is_session_key { Cipher::OpenPgp } else { Cipher::Unknown })
}

#[cfg(test)]
mod tests {
    use understudy::store::{Codec, Object};

    use super::*;

    fn named(codec: Option<Codec>) -> Archive {
        let object = Object { key: "k".to_owned(), size: 100, modified: None, etag: None };
        Archive { name: "pg_control.tar".to_owned(), object, codec }
    }

    #[test]
    fn an_archive_that_does_not_begin_as_named_is_encrypted() {
        for (beginning, codec, cipher) in [
            (&[0x04, 0x22, 0x4d, 0x18, 0x64][..], Some(Codec::Lz4), None),
            (&[0x28, 0xb5, 0x2f, 0xfd], Some(Codec::Zstd), None),
            (&[0x1f, 0x8b, 8], Some(Codec::Gzip), None),
            (&[0x5d, 0, 0, 0x80], Some(Codec::Lzma), None),
            (&[0x8b, 3, 0x80], Some(Codec::Brotli), None),
            (b"/global/pg_control\0", None, None),
            (b"global/pg_control\0", None, None),
            (&[0x85, 1, 0x0c, 3, 9], Some(Codec::Lz4), Some(Cipher::OpenPgp)),
            (&[0xc1, 0xc0, 0x4c, 3, 9], Some(Codec::Lz4), Some(Cipher::OpenPgp)),
            (&[0xc1, 0x5e, 3, 9], None, Some(Cipher::OpenPgp)),
            (&[0xc1, 0x8d, 6, 33], None, Some(Cipher::OpenPgp)),
            (b"yckms\x01\x20", Some(Codec::Lz4), Some(Cipher::Unread("a key of Yandex Cloud KMS"))),
            (b"yckms\x01\x20", None, Some(Cipher::Unread("a key of Yandex Cloud KMS"))),
            (&[0xa7, 0x31, 0x99], Some(Codec::Lz4), Some(Cipher::Unknown)),
            (&[0xa7, 0x31, 0x99], None, Some(Cipher::Unknown)),
            (&[], Some(Codec::Lz4), Some(Cipher::Unknown)),
        ] {
            assert_eq!(cipher_of(beginning, &named(codec)), cipher, "{beginning:?} {codec:?}");
        }
    }
}
