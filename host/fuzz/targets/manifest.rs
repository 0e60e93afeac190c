//! Fuzzes the parser of `backup_manifest`: it reads or refuses any input without a panic, and refuses a valid manifest after a change of
//! any byte.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pgdata::checksum::{Algorithm, Summing};
use pgdata::manifest;
use sha2::{Digest, Sha256};

/// Appends the checksum with which a manifest must end (PostgreSQL's `AddWALInfoToBackupManifest` and `SendBackupManifest` in
/// `backup_manifest.c`).
fn with_checksum(text: &[u8]) -> Vec<u8> {
    let sum = Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    [text, format!("\"Manifest-Checksum\": \"{sum}\"}}\n").as_bytes()].concat()
}

/// Returns the number of files that the manifest lists; `None` if the parser refuses it.
fn files(manifest: &[u8]) -> Option<u64> {
    let mut count = 0;
    let summary = manifest::read(manifest, Summing::new(Algorithm::Sha256), |_| {
        count += 1;
        Ok(())
    });
    let summary = summary.ok()?;
    assert_eq!(summary.files, count, "the callback was called for every file that the summary counts");
    Some(count)
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&place, text)) = bytes.split_first() else { return };
    files(text);
    let mut whole = with_checksum(text);
    if files(&whole).is_some() && !text.is_empty() {
        whole[usize::from(place) % text.len()] ^= 1;
        assert_eq!(files(&whole), None, "a manifest that was changed is refused");
    }
});
