//! The names that Barman gives to backups and archives.

use postgres_formats::names::{PG_TBLSPC, tablespace_oid};
use understudy::store::{Codec, Pipeline};

/// Returns whether `text` is the ID of a backup, such as `20261126T043406` (`is_backup_id` in barman/utils.py).
pub(crate) fn is_backup_id(text: &str) -> bool {
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    text.len() == 15
        && text.split_once('T').is_some_and(|(day, time)| day.len() == 8 && is_digits(day) && is_digits(time))
}

/// The endings of compressed files, and the compression of each (`ALLOWED_COMPRESSIONS` in barman/cloud.py, and the file extensions in
/// barman/compression.py).
const COMPRESSED: [(&str, Codec); 6] = [
    (".gz", Codec::Gzip),
    (".bz2", Codec::Bzip2),
    (".xz", Codec::Xz),
    (".snappy", Codec::Snappy),
    (".zst", Codec::Zstd),
    (".lz4", Codec::Lz4),
];

/// The ending of a file that gpg encrypted (barman/encryption.py).
pub(crate) const ENCRYPTED: &str = ".gpg";

/// How the name of a file begins that has only some pages of a relation.
const INCREMENTAL: &str = "INCREMENTAL.";

/// The first bytes of compressed files (`MAGIC` in barman/compression.py). A Barman server keeps compressed WAL without an ending.
const MAGIC: [(&[u8], Codec); 6] = [
    (b"\x1f\x8b\x08", Codec::Gzip),
    (b"BZh", Codec::Bzip2),
    (b"\xfd7zXZ\x00", Codec::Xz),
    (b"\xff\x06\x00\x00sNaPpY", Codec::Snappy),
    (b"(\xb5/\xfd", Codec::Zstd),
    (b"\x04\x22\x4d\x18", Codec::Lz4),
];

/// How many bytes at the beginning of a file suffice to recognize its compression.
pub(crate) const MAGIC_LENGTH: u64 = 16;

/// Splits off the ending of a compressed file. The codec is `None` if the name has no such ending.
pub(crate) fn split_codec(name: &str) -> (&str, Option<Codec>) {
    let found = COMPRESSED.into_iter().find_map(|(ending, codec)| Some((name.strip_suffix(ending)?, codec)));
    found.map_or((name, None), |(stem, codec)| (stem, Some(codec)))
}

/// Returns every ending that a file can have, and the compression of each.
pub(crate) fn endings() -> impl Iterator<Item = (&'static str, Option<Codec>)> {
    let compressed = COMPRESSED.into_iter().map(|(ending, codec)| (ending, Some(codec)));
    std::iter::once(("", None)).chain(compressed)
}

/// Returns the compression of a file that begins with these bytes; `None` if it is not compressed in a way that Barman knows.
pub(crate) fn codec_of(beginning: &[u8]) -> Option<Codec> {
    MAGIC.into_iter().find_map(|(magic, codec)| beginning.starts_with(magic).then_some(codec))
}

/// Returns whether a file that begins with these bytes is encrypted with OpenPGP for a public key: it begins with the packet of an
/// encrypted session key (RFC 4880, sections 4.2 and 5.1).
pub(crate) fn is_encrypted(beginning: &[u8]) -> bool {
    // The old format has the tag in bits 2 to 5, and the new format in bits 0 to 5. 1 is the tag of the session key.
    beginning.first().is_some_and(|first| matches!(first, 0x84..=0x86 | 0xC1))
}

/// Returns the pipeline for a codec; `None` if the bytes are stored as they are.
pub(crate) fn pipeline(codec: Option<Codec>) -> Option<Pipeline> {
    codec.map(|codec| Pipeline::new().decompress(codec))
}

/// What an archive contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Holds {
    /// The data directory.
    Data,
    /// The tablespace with this OID.
    Tablespace(u32),
}

/// The name of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ArchiveName {
    pub(crate) holds: Holds,
    /// The number of the part, from 0 on. Only barman-cloud splits archives.
    pub(crate) part: u32,
    pub(crate) codec: Option<Codec>,
}

impl ArchiveName {
    /// Parses the name of an archive that a Barman server keeps in `data`: `base.tar` or `OID.tar`, plain or compressed. `None` for any
    /// other name.
    pub(crate) fn of_server(name: &str) -> Option<Self> {
        let (name, codec) = split_codec(name);
        let holds = match name.strip_suffix(".tar")? {
            "base" => Holds::Data,
            stem => Holds::Tablespace(tablespace_oid(stem)?),
        };
        Some(Self { holds, part: 0, codec })
    }

    /// Parses the name of an archive of barman-cloud: `data.tar` or `OID.tar`, or a later part such as `data_0001.tar`, plain or
    /// compressed (`_build_dest_name` in barman/cloud.py). `None` for any other name.
    pub(crate) fn of_cloud(name: &str) -> Option<Self> {
        let (name, codec) = split_codec(name);
        let stem = name.strip_suffix(".tar")?;
        let (stem, part) = match stem.split_once('_') {
            None => (stem, 0),
            Some((stem, number)) => {
                let part = number.parse::<u32>().ok().filter(|part| *part > 0)?;
                (format!("{part:04}") == number).then_some(())?;
                (stem, part)
            }
        };
        let holds = match stem {
            "data" => Holds::Data,
            stem => Holds::Tablespace(tablespace_oid(stem)?),
        };
        Some(Self { holds, part, codec })
    }
}

/// Returns whether a file with this name comes from an incremental backup of PostgreSQL 17.
pub(crate) fn is_increment(name: &str) -> bool {
    name.rsplit('/').next().is_some_and(|last| last.starts_with(INCREMENTAL))
}

/// Returns whether PostgreSQL writes an increment with this name: there are increments of relations alone, whose names begin with a number
/// (`GetFileBackupMethod` in PostgreSQL's basebackup_incremental.c).
pub(crate) fn is_increment_of_relation(name: &str) -> bool {
    let Some((folder, last)) = name.rsplit_once('/') else { return false };
    let is_of_relations =
        folder.split('/').next().is_some_and(|top| ["base", "global", PG_TBLSPC].contains(&top));
    let relation = last.strip_prefix(INCREMENTAL);
    is_of_relations && relation.is_some_and(|name| name.starts_with(|first: char| first.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_ids_of_barman_are_ids() {
        assert!(is_backup_id("20261126T043406"));
        for text in [
            "",
            "latest",
            "20261126T04340",
            "20261126T0434061",
            "2026112T6043406",
            "20261126t043406",
            "2026112éT43406",
        ] {
            assert!(!is_backup_id(text), "{text}");
        }
    }

    #[test]
    fn archives_are_named_by_what_they_hold_and_their_part() {
        let cloud = |name| ArchiveName::of_cloud(name).map(|name| (name.holds, name.part, name.codec));
        assert_eq!(cloud("data.tar"), Some((Holds::Data, 0, None)));
        assert_eq!(cloud("data_0001.tar.gz"), Some((Holds::Data, 1, Some(Codec::Gzip))));
        assert_eq!(cloud("data_12345.tar.snappy"), Some((Holds::Data, 12345, Some(Codec::Snappy))));
        assert_eq!(cloud("16384_0002.tar.bz2"), Some((Holds::Tablespace(16384), 2, Some(Codec::Bzip2))));
        assert_eq!(cloud("16384.tar.xz"), Some((Holds::Tablespace(16384), 0, Some(Codec::Xz))));
        for name in [
            "data",
            "data.tar.gpg",
            "data.tar.gz.tmp",
            "base.tar",
            "data_0000.tar",
            "data_1.tar",
            "data_00001.tar",
            "data_-001.tar",
            "data_0001_0002.tar",
            "data_+001.tar",
            "016384.tar",
            "backup.info",
            "data_99999999999.tar",
            ".tar",
        ] {
            assert_eq!(cloud(name), None, "{name}");
        }
        let server = |name| ArchiveName::of_server(name).map(|name| (name.holds, name.part, name.codec));
        assert_eq!(server("base.tar.zst"), Some((Holds::Data, 0, Some(Codec::Zstd))));
        assert_eq!(server("16384.tar.lz4"), Some((Holds::Tablespace(16384), 0, Some(Codec::Lz4))));
        for name in ["data.tar", "base_0001.tar", "pg_wal.tar", "base.tar.gz.gpg", "0.tar"] {
            assert_eq!(server(name), None, "{name}");
        }
    }

    #[test]
    fn only_relations_have_increments() {
        for name in
            ["base/5/INCREMENTAL.1259", "global/INCREMENTAL.1260_vm.1", "pg_tblspc/9/PG_17_1/5/INCREMENTAL.1"]
        {
            assert!(is_increment(name) && is_increment_of_relation(name), "{name}");
        }
        for name in [
            "INCREMENTAL.PG_VERSION",
            "global/INCREMENTAL.pg_control",
            "pg_xact/INCREMENTAL.0000",
            "base/5/INCREMENTAL.",
        ] {
            assert!(is_increment(name) && !is_increment_of_relation(name), "{name}");
        }
        for name in ["base/5/1259", "base/INCREMENTAL.1/1259", "base/5/xINCREMENTAL.1"] {
            assert!(!is_increment(name) && !is_increment_of_relation(name), "{name}");
        }
    }

    #[test]
    fn compression_is_recognized_by_the_first_bytes() {
        assert_eq!(codec_of(b"\x1f\x8b\x08\x00rest"), Some(Codec::Gzip));
        assert_eq!(codec_of(b"\x28\xb5\x2f\xfd"), Some(Codec::Zstd));
        assert_eq!(codec_of(b"\xff\x06\x00\x00sNaPpY"), Some(Codec::Snappy));
        // The first page of a segment of PostgreSQL 15.
        assert_eq!(codec_of(b"\x10\xd1\x07\x00"), None);
        assert_eq!(codec_of(b"\x1f\x8b"), None);
        assert!(is_encrypted(b"\x85\x01\x8c\x03") && is_encrypted(b"\xc1\xc0"));
        assert!(!is_encrypted(b"\x10\xd1\x07\x00") && !is_encrypted(b""));
    }
}
