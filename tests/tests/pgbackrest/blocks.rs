//! Backups in which files are stored in blocks (`repo-block`), and the raw bundles without blocks that follow them, as a newer pgBackRest
//! writes them.

use std::fs;
use std::path::{Path, PathBuf};

use tests::pgbackrest::{BLOCKS, BLOCKS_ENCRYPTED, CODECS, Info, Kind, Stanza};
use tests::program::fast_or_full;
use tests::tree::differences;

use super::bad_input::section_of;
use super::matrix::{Case, Type, check_case, is_own};
use super::scene::{OldData, fails};

/// The cases of a fast run.
const FAST: [Case; 3] =
    [("zst", BLOCKS, Type::Incr), ("gz", BLOCKS_ENCRYPTED, Type::Diff), ("none", BLOCKS, Type::Full)];

fn start(name: &str, kinds: &[Kind], codec: &str) -> Stanza {
    let stanza = Stanza::start(name, 8_000, kinds, codec).unwrap();
    stanza.primary.server.psql("ALTER SYSTEM SET wal_keep_size = '8GB'").unwrap();
    stanza.primary.server.psql("SELECT pg_reload_conf()").unwrap();
    stanza
}

/// Returns the path of a backup's manifest in the first repository.
fn manifest(stanza: &Stanza, label: &str) -> PathBuf {
    stanza.backups(1, &format!("{label}/backup.manifest"))
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn every_backup_in_blocks_restores_to_the_same_files_as_pgbackrest_and_then_streams() {
    let kinds = [BLOCKS, BLOCKS_ENCRYPTED];
    let all = CODECS.into_iter().flat_map(|codec| {
        kinds.into_iter().flat_map(move |kind| {
            [Type::Full, Type::Diff, Type::Incr].into_iter().map(move |of| (codec, kind, of))
        })
    });
    let cases: Vec<Case> = if fast_or_full(0, 1) == 0 { FAST.to_vec() } else { all.collect() };
    for codec in CODECS {
        let own: Vec<Case> = cases.iter().copied().filter(|(of, ..)| *of == codec).collect();
        let kinds: Vec<Kind> =
            kinds.into_iter().filter(|kind| own.iter().any(|(_, of, _)| of == kind)).collect();
        if own.is_empty() {
            continue;
        }
        let stanza = start(&format!("pgbr-blocks-{codec}"), &kinds, codec);
        for case in own {
            let number = 1 + kinds.iter().position(|kind| *kind == case.1).unwrap();
            check_case(&stanza, number, case);
            if case.1 == BLOCKS {
                let label = stanza.labels(number).unwrap().pop().unwrap();
                let text =
                    fs::read_to_string(stanza.backups(number, &format!("{label}/backup.manifest"))).unwrap();
                assert!(text.contains("\"bim\":"), "no file of {label} is stored in blocks");
            }
        }
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn raw_bundles_of_a_backup_without_blocks_are_read() {
    let stanza = start("pgbr-raw", &[BLOCKS], "zst");
    let in_blocks = |label: &str| fs::read_to_string(manifest(&stanza, label)).unwrap().contains("\"bim\":");
    // First no file is large enough for blocks, so that the bundles of both backups are raw and have whole files only. Then the full
    // backup has files in blocks, and the incremental backup after it is taken without blocks.
    for (what, sizes) in [("whole files", &["--repo1-block-size-map=1GiB=8KiB"][..]), ("blocks", &[])] {
        let full = stanza.backup(1, "full", sizes).unwrap();
        assert_eq!(in_blocks(&full), what == "blocks", "{what}: {full}");
        stanza.primary.server.psql("UPDATE letters SET body = body || 'x' WHERE id % 97 = 0").unwrap();
        let label = stanza.backup(1, "incr", &["--no-repo1-block"]).unwrap();
        let info = Info::read(&manifest(&stanza, &label)).unwrap();
        assert_eq!(info.get("backup", "backup-bundle-raw"), Some("true"), "{what}");
        assert!(what == "blocks" || !in_blocks(&label), "a file of {label} is stored in blocks");
        let section = stanza.method(&[1], "", &format!("backup = \"{label}\"\n"));
        let replica = stanza.replica(&section).unwrap();
        stanza.created(&replica).unwrap_or_else(|error| panic!("{what}: {error:#}"));
        let theirs = stanza.restore(1, &label, &format!("theirs-{label}"), "preserve").unwrap();
        let found = differences(&replica.datadir(), &theirs, is_own).unwrap();
        assert!(found.is_empty(), "{what}: {found:#?}");
        stanza.primary.streams_to(&replica).unwrap_or_else(|error| panic!("{what}: {error:#}"));
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_flipped_byte_in_a_block_or_a_map_is_noticed_and_the_file_is_named() {
    let stanza = start("pgbr-blocks-bad", &[BLOCKS], "lz4");
    stanza.backup(1, "full", &[]).unwrap();
    stanza.primary.server.psql("UPDATE letters SET body = body || 'x' WHERE id % 97 = 0").unwrap();
    let label = stanza.backup(1, "incr", &[]).unwrap();
    let (name, bundle, offset, stored, map) = largest_in_blocks(&manifest(&stanza, &label));
    let path = stanza.backups(1, &format!("{label}/bundle/{bundle}"));
    let bytes = fs::read(&path).unwrap();
    // A byte of a super block, and the first byte of the map.
    for (what, at) in [("a block", offset + (stored - map) / 2), ("the map", offset + stored - map)] {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x55;
        fs::write(&path, damaged).unwrap();
        let file = name.strip_prefix("pg_data/").unwrap();
        fails(&stanza, what, &section_of(&stanza, &label), OldData::Emptied, &[file]);
    }
    // A bundle that ends too early.
    fs::write(&path, &bytes[..offset + stored - map]).unwrap();
    fails(&stanza, "a cut bundle", &section_of(&stanza, &label), OldData::Either, &["bundle"]);
    fs::write(&path, &bytes).unwrap();
    let replica = stanza.replica(&section_of(&stanza, &label)).unwrap();
    stanza.created(&replica).unwrap();
}

/// Returns the largest file that the backup itself has in blocks: its name, the bundle, the offset, the stored size and the size of the map.
fn largest_in_blocks(manifest: &Path) -> (String, u64, usize, usize, usize) {
    let text = fs::read_to_string(manifest).unwrap();
    let of_line = |line: &str| {
        let (name, value) = line.split_once("={")?;
        let value: serde_json::Value = serde_json::from_str(&format!("{{{value}")).ok()?;
        let number = |key: &str| value.get(key).and_then(serde_json::Value::as_u64);
        if value.get("reference").is_some() || !name.starts_with("pg_data/base/") {
            return None;
        }
        let stored = number("repo-size").or_else(|| number("size"))?;
        let (bundle, offset, map) = (number("bni")?, number("bno").unwrap_or(0), number("bim")?);
        Some((stored, (name.to_owned(), bundle, offset as usize, stored as usize, map as usize)))
    };
    let found = text.lines().filter_map(of_line).max_by_key(|(stored, _)| *stored);
    found.expect("no file is stored in blocks").1
}
