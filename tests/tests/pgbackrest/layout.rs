//! Unusual layouts of repositories and clusters: raw bundles, relative links and very long paths. Also the order in which files are
//! written.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use tests::pgbackrest::{BUNDLED, BUNDLED_ENCRYPTED, Info, PLAIN, Stanza};
use tests::server::run;
use tests::tree::differences;

use super::bad_input::section_of;
use super::matrix::is_own;

/// pgBackRest options that enable block incremental backup only for files of at least a gigabyte, so that no file is stored in blocks.
const NO_BLOCKS: [&str; 3] = ["--beta", "--repo1-block", "--repo1-block-size-map=1GiB=1MiB"];

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn raw_bundles_without_blocks_restore_to_the_same_files_as_pgbackrest() {
    for (kind, codecs) in [(BUNDLED, &["gz", "zst"][..]), (BUNDLED_ENCRYPTED, &["gz", "lz4", "bz2"][..])] {
        let mut stanza = Stanza::start("pgbr-raw", 1_000, &[kind], "none").unwrap();
        for codec in codecs {
            stanza.compress(codec).unwrap();
            let full = stanza.backup(1, "full", &NO_BLOCKS).unwrap();
            stanza.primary.server.psql("UPDATE letters SET body = body || 'x' WHERE id % 97 = 0").unwrap();
            // This backup has no blocks either, and refers to bundles in the full backup.
            let incr = stanza.backup(1, "incr", &[]).unwrap();
            for label in [&full, &incr] {
                if !kind.encrypted {
                    let manifest = stanza.backups(1, &format!("{label}/backup.manifest"));
                    let text = fs::read_to_string(&manifest).unwrap();
                    assert!(!text.contains("\"bim\""), "{codec}: blocks");
                    let manifest = Info::read(&manifest).unwrap();
                    assert_eq!(manifest.get("backup", "backup-bundle-raw"), Some("true"), "{codec}");
                }
                let replica = stanza.replica(&section_of(&stanza, label)).unwrap();
                stanza.created(&replica).unwrap_or_else(|error| panic!("{codec} {label}: {error:#}"));
                let theirs = stanza.restore(1, label, &format!("theirs-{label}"), "preserve").unwrap();
                let found = differences(&replica.datadir(), &theirs, is_own).unwrap();
                assert!(found.is_empty(), "{codec} {label}: {found:#?}");
            }
        }
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_tablespace_behind_a_relative_link_is_restored_as_mapped() {
    let stanza = Stanza::start("pgbr-relative", 100, &[PLAIN], "gz").unwrap();
    let datadir = stanza.primary.server.datadir().to_owned();
    let space = stanza.tablespaces[0].clone();
    stanza.primary.server.stop().unwrap();
    let link = datadir.join("pg_tblspc").join(&space.oid);
    let relative = Path::new("../..").join(space.path.strip_prefix(datadir.parent().unwrap()).unwrap());
    fs::remove_file(&link).unwrap();
    symlink(&relative, &link).unwrap();
    let stanza = stanza.restarted().unwrap();
    let full = stanza.backup(1, "full", &[]).unwrap();
    let manifest = Info::read(&stanza.backups(1, &format!("{full}/backup.manifest"))).unwrap();
    let target = manifest.get("backup:target", &format!("pg_tblspc/{}", space.oid)).unwrap();
    assert!(target.contains(&format!("\"path\":\"{}\"", relative.display())), "{target}");
    // The map names the tablespace by its absolute path.
    let replica = stanza.replica(&section_of(&stanza, &full)).unwrap();
    let attempt = stanza.created(&replica).unwrap();
    let location = attempt["plan"]["tablespaces"][0]["location"].as_str().unwrap_or_default();
    assert_eq!(Path::new(location), space.path, "{attempt}");
    let restored = fs::read_link(replica.datadir().join("pg_tblspc").join(&space.oid)).unwrap();
    assert_eq!(restored, replica.path(&space.oid));
    stanza.primary.streams_to(&replica).unwrap();
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_path_that_is_too_long_for_a_bucket_is_restored_from_a_directory() {
    let stanza = Stanza::start("pgbr-deep", 100, &[PLAIN], "gz").unwrap();
    let deep = vec!["d".repeat(200); 8].join("/");
    let folder = stanza.primary.server.datadir().join("deep").join(&deep);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("file"), "deep").unwrap();
    let top = stanza.primary.server.datadir().join("deep");
    run(Command::new("/bin/chown")
        .args(["-R", "--reference"])
        .arg(stanza.primary.server.datadir())
        .arg(&top))
    .unwrap();
    run(Command::new("/bin/chmod").args(["-R", "u=rwX,go="]).arg(&top)).unwrap();
    let full = stanza.backup(1, "full", &[]).unwrap();
    let replica = stanza.replica(&section_of(&stanza, &full)).unwrap();
    stanza.created(&replica).unwrap();
    assert_eq!(fs::read(replica.datadir().join("deep").join(&deep).join("file")).unwrap(), b"deep");
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn pg_version_is_written_before_anything_else_is_fetched() {
    let stanza = Stanza::start("pgbr-first", 100, &[PLAIN], "gz").unwrap();
    let full = stanza.backup(1, "full", &[]).unwrap();
    let options = format!("backup = \"{full}\"\ndelta = true\n");
    let replica = stanza.replica(&stanza.method(&[1], "keep_data = true\n", &options)).unwrap();
    fs::remove_file(stanza.backups(1, &format!("{full}/pg_data/backup_label.gz"))).unwrap();
    let ended = replica.create(&[]).unwrap();
    let attempt = ended.attempt("pgbackrest");
    assert_eq!(ended.code(), Some(1), "{attempt}\n{}", ended.output);
    assert!(attempt["message"].as_str().unwrap().contains("backup_label"), "{attempt}");
    assert_eq!(fs::read(replica.datadir().join("PG_VERSION")).unwrap(), b"15\n");
    for later in ["backup_label", "base/1", "global/1262"] {
        assert!(!replica.datadir().join(later).exists(), "{later}");
    }
}
