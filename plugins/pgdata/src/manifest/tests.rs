use std::fmt::Write;

use sha2::{Digest, Sha256};

use super::*;
use crate::checksum::Summing;

/// Returns a manifest of `files` and `ranges` with its own checksum, as PostgreSQL writes it.
fn manifest(head: &str, files: &[&str], ranges: &str) -> String {
    let mut text =
        format!("{{ {head},\n\"Files\": [\n{}\n],\n\"WAL-Ranges\": [\n{ranges}\n],\n", files.join(",\n"));
    let mut sum = String::new();
    for byte in Sha256::digest(text.as_bytes()) {
        write!(sum, "{byte:02x}").unwrap();
    }
    writeln!(text, "\"Manifest-Checksum\": \"{sum}\"}}").unwrap();
    text
}

const HEAD: &str = "\"PostgreSQL-Backup-Manifest-Version\": 1";
const RANGE: &str = "{ \"Timeline\": 1, \"Start-LSN\": \"0/2000028\", \"End-LSN\": \"0/3000100\" }";
const VERSION: &str = "{ \"Path\": \"PG_VERSION\", \"Size\": 3, \"Last-Modified\": \"2026-11-23 08:34:16 GMT\", \
    \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"8a744722\" }";

fn sha256() -> Summing {
    Summing::new(Algorithm::Sha256)
}

fn read_text(text: &str) -> Result<(Summary, Vec<File>), ManifestError> {
    let mut files = Vec::new();
    let summary = read(text.as_bytes(), sha256(), |file| {
        files.push(file);
        Ok(())
    })?;
    Ok((summary, files))
}

fn malformed(text: &str) -> String {
    match read_text(text) {
        Err(ManifestError::Malformed(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_manifest_gives_its_files_and_its_wal() {
    let encoded = "{ \"Encoded-Path\": \"c3a9\", \"Size\": 5, \"Last-Modified\": \"x\" }";
    let (summary, files) = read_text(&manifest(HEAD, &[VERSION, encoded], RANGE)).unwrap();
    assert_eq!((summary.files, summary.bytes, summary.system_identifier), (2, 8, None));
    assert_eq!(
        summary.wal_ranges,
        [WalRange { timeline: 1, start: Lsn(0x0200_0028), end: Lsn(0x0300_0100) }]
    );
    assert_eq!(summary.wal_bytes(16 << 20), Some(32 << 20));
    assert_eq!(files[0].path, "PG_VERSION");
    assert_eq!(files[0].checksum, Some((Algorithm::Crc32c, vec![0x8a, 0x74, 0x47, 0x22])));
    assert_eq!((files[1].path.as_str(), files[1].size, &files[1].checksum), ("\u{e9}", 5, &None));
}

#[test]
fn version_2_names_the_cluster() {
    let head = "\"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": 7575000000000000001";
    let (summary, _) = read_text(&manifest(head, &[VERSION], RANGE)).unwrap();
    assert_eq!(summary.system_identifier, Some(7_575_000_000_000_000_001));
}

#[test]
fn a_changed_manifest_is_refused() {
    let text = manifest(HEAD, &[VERSION], RANGE);
    for (from, to) in [("\"Size\": 3", "\"Size\": 4"), ("8a744722", "8a744723"), ("PG_VERSION", "PG_VERSIOM")]
    {
        assert!(matches!(read_text(&text.replace(from, to)), Err(ManifestError::Checksum)), "{to}");
    }
}

#[test]
fn a_truncated_manifest_is_refused_wherever_it_ends() {
    let text = manifest(HEAD, &[VERSION], RANGE);
    for length in 0..text.len() {
        assert!(read_text(&text[..length]).is_err(), "{length}");
    }
    assert!(read_text(&format!("{text}{{}}")).is_err());
}

#[test]
fn the_error_names_an_unknown_field() {
    for (file, what) in [
        ("{ \"Path\": \"a\", \"Size\": 1, \"Sise\": 2 }", "Sise"),
        ("{ \"Path\": \"a\", \"Size\": -1 }", "-1"),
        ("{ \"Path\": \"a\" }", "Size"),
        ("{ \"Size\": 1 }", "path"),
        ("{ \"Path\": \"a\", \"Encoded-Path\": \"61\", \"Size\": 1 }", "path"),
        ("{ \"Encoded-Path\": \"ff\", \"Size\": 1 }", "not UTF-8"),
        ("{ \"Encoded-Path\": \"f\", \"Size\": 1 }", "not hexadecimal"),
        ("{ \"Path\": \"a\", \"Size\": 1, \"Checksum-Algorithm\": \"MD5\", \"Checksum\": \"00\" }", "MD5"),
        (
            "{ \"Path\": \"a\", \"Size\": 1, \"Checksum-Algorithm\": \"SHA256\", \"Checksum\": \"00\" }",
            "no SHA256",
        ),
        ("{ \"Path\": \"a\", \"Size\": 1, \"Checksum\": \"00000000\" }", "without its algorithm"),
    ] {
        let why = malformed(&manifest(HEAD, &[file], RANGE));
        assert!(why.contains(what), "{why}");
    }
    assert!(malformed(&manifest(&format!("{HEAD}, \"Extra\": 1"), &[VERSION], RANGE)).contains("Extra"));
    assert!(
        malformed(&manifest("\"PostgreSQL-Backup-Manifest-Version\": 3", &[], RANGE)).contains("version 3")
    );
}

#[test]
fn a_path_that_is_too_long_is_refused() {
    let path = format!("{{ \"Path\": \"{}\", \"Size\": 1 }}", "x".repeat(LONGEST_PATH + 1));
    assert!(malformed(&manifest(HEAD, &[&path], RANGE)).contains("bytes"));
}

#[test]
fn too_many_wal_ranges_are_refused() {
    let ranges = vec![RANGE; MOST_WAL_RANGES + 1].join(",\n");
    assert!(malformed(&manifest(HEAD, &[VERSION], &ranges)).contains("too many"));
    let backwards = RANGE.replace("0/3000100", "0/1000000");
    assert!(malformed(&manifest(HEAD, &[VERSION], &backwards)).contains("before it begins"));
}

#[test]
fn an_endless_manifest_is_read_up_to_the_limit() {
    let endless = (&b"{ \"PostgreSQL-Backup-Manifest-Version\": 1,"[..]).chain(io::repeat(b' '));
    assert!(matches!(read_up_to(1 << 20, endless, sha256(), |_| Ok(())), Err(ManifestError::TooLarge)));
    let text = manifest(HEAD, &[VERSION], RANGE);
    let length = text.len() as u64;
    assert!(matches!(
        read_up_to(length - 1, text.as_bytes(), sha256(), |_| Ok(())),
        Err(ManifestError::TooLarge)
    ));
    assert!(read_up_to(length, text.as_bytes(), sha256(), |_| Ok(())).is_ok());
}

#[test]
fn an_error_of_the_callback_ends_the_read() {
    let text = manifest(HEAD, &[VERSION], RANGE);
    let stopped = read(text.as_bytes(), sha256(), |_| Err(io::Error::other("enough")));
    assert!(matches!(stopped, Err(ManifestError::Io(error)) if error.to_string() == "enough"));
}
