//! Restores with `delta` into a directory that already contains a replica.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tests::pgbackrest::{BLOCKS, BUNDLED, Kind, PLAIN, Stanza};
use tests::replica_folder::ReplicaFolder;
use tests::tree::snapshot;

use super::bad_input::flip;

/// The paths that every run writes again, each with the reason.
const REWRITTEN: [(&str, &str); 5] = [
    ("global/pg_control", "removed before a method runs, and written by the seal"),
    ("postgresql.auto.conf", "written by the seal"),
    ("standby.signal", "written by the seal"),
    ("pg_wal", "the WAL that the backup needs may differ"),
    ("pg_tblspc", "its links are written by the seal"),
];

fn section(stanza: &Stanza, grants: &str) -> String {
    format!("{}{grants}", stanza.method(&[1], "keep_data = true\n", "delta = true\n"))
}

/// Returns the files in the data directory and its tablespaces that a run keeps if nothing has changed.
fn unchanged_files(replica: &ReplicaFolder) -> Vec<(String, u64, i128)> {
    let entries = snapshot(&replica.datadir()).unwrap();
    let is_rewritten = |path: &str| {
        REWRITTEN
            .iter()
            .any(|(own, _)| path == *own || path.starts_with(&format!("{own}/")) && *own != "pg_tblspc")
    };
    entries
        .into_iter()
        .filter(|(path, entry)| entry.content.is_some() && !is_rewritten(path))
        .map(|(path, entry)| (path, entry.inode, entry.changed))
        .collect()
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn files_that_match_are_kept_and_the_others_are_replaced_or_removed() {
    for kind in [PLAIN, BUNDLED, BLOCKS] {
        let stanza = Stanza::start("pgbr-delta", 3_000, &[kind], "lz4").unwrap();
        stanza.backup(1, "full", &[]).unwrap();
        let replica = stanza.replica(&section(&stanza, "")).unwrap();
        stanza.created(&replica).unwrap();
        let first = unchanged_files(&replica);
        assert!(first.len() > 900 && first.iter().any(|(path, ..)| path.starts_with("pg_tblspc/")));
        stanza.created(&replica).unwrap();
        let changed: Vec<_> =
            first.iter().zip(unchanged_files(&replica)).filter(|(old, new)| *old != new).collect();
        assert!(changed.is_empty(), "files were replaced although nothing had changed: {changed:?}");

        // Makes changes that a server or a person could have made.
        let file = |name: &str| replica.datadir().join(name);
        let original = snapshot(&replica.datadir()).unwrap();
        let space = fs::read_dir(file("pg_tblspc")).unwrap().next().unwrap().unwrap().file_name();
        let in_space = format!("pg_tblspc/{}", space.to_str().unwrap());
        let largest = |below: &str| {
            let of =
                original.iter().filter(|(path, entry)| path.starts_with(below) && entry.content.is_some());
            of.max_by_key(|(_, entry)| entry.content.as_ref().map(Vec::len)).unwrap().0.clone()
        };
        let (in_base, in_space_file) = (largest("base/5/"), largest(&format!("{in_space}/")));
        flip(&file(&in_base));
        flip(&file(&in_space_file));
        fs::File::options().write(true).open(file("base/1/1249")).unwrap().set_len(8192).unwrap();
        append(&file("base/1/1247"));
        fs::remove_file(file("base/1/2619")).unwrap();
        fs::remove_file(file("backup_label.old")).ok();
        fs::write(file("base/1/99999"), "left over").unwrap();
        stanza.primary.playground.user().directory(&file("base/99999")).unwrap();
        fs::write(file("base/99999/1"), "left over").unwrap();
        fs::write(file("recovery.signal"), "").unwrap();
        let victim = stanza.primary.playground.path("victim");
        fs::write(&victim, "not to be touched").unwrap();
        symlink(&victim, file("base/1/88888")).unwrap();
        fs::remove_file(file("base/1/2608")).unwrap();
        symlink(&victim, file("base/1/2608")).unwrap();

        stanza.created(&replica).unwrap();
        let now = snapshot(&replica.datadir()).unwrap();
        for path in [&in_base, &in_space_file, "base/1/1249", "base/1/1247", "base/1/2619", "base/1/2608"] {
            assert!(now[path].content == original[path].content, "{path} is not as in the backup");
        }
        for path in ["base/1/99999", "base/1/88888", "base/99999", "recovery.signal"] {
            assert!(!now.contains_key(path), "{path} was not removed");
        }
        assert!(!fs::symlink_metadata(file("base/1/2608")).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&victim).unwrap(), "not to be touched");
        let kept = unchanged_files(&replica);
        let kept: Vec<_> = first.iter().filter(|entry| kept.contains(entry)).collect();
        assert_eq!(kept.len(), first.len() - 6, "other files than the changed ones were replaced");
        stanza.primary.streams_to(&replica).unwrap();

        // The replica has run by now, and is restored from a newer backup.
        stanza.primary.server.psql("UPDATE letters SET body = 'new' WHERE id < 100").unwrap();
        let newer = stanza.backup(1, "incr", &[]).unwrap();
        assert_eq!(stanza.created(&replica).unwrap()["plan"]["backup"], newer);
        stanza.primary.streams_to(&replica).unwrap();
    }
}

fn append(file: &Path) {
    use std::io::Write;
    fs::File::options().append(true).open(file).unwrap().write_all(&[1; 8192]).unwrap();
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_run_continues_an_interrupted_one() {
    for (kind, signal) in [(PLAIN, Signal::KILL), (BUNDLED, Signal::KILL), (PLAIN, Signal::TERM)] {
        check_interrupted_run(kind, signal);
    }
}

fn check_interrupted_run(kind: Kind, signal: Signal) {
    let stanza = Stanza::start("pgbr-midway", 3_000, &[kind], "none").unwrap();
    stanza.backup(1, "full", &[]).unwrap();
    let slow = stanza.replica(&section(&stanza, "rate = \"4MiB/s\"\n")).unwrap();
    let running = slow.spawn(&[]).unwrap();
    let begun = Instant::now();
    // Files may be removed while the snapshot is taken.
    let files =
        || if slow.datadir().exists() { snapshot(&slow.datadir()).map_or(0, |files| files.len()) } else { 0 };
    while files() < 300 {
        assert!(begun.elapsed() < Duration::from_secs(120), "nothing is written");
        std::thread::sleep(Duration::from_millis(20));
    }
    running.signal(signal).unwrap();
    let ended = slow.wait_for_end(running).unwrap();
    assert_ne!(ended.code(), Some(0));
    assert!(!slow.is_sealed());
    let before = unchanged_files(&slow);
    assert!(before.len() > 100, "the written files were not kept: {}", before.len());

    let config = slow.path("understudy.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("rate = \"4MiB/s\"\n", "")).unwrap();
    stanza.created(&slow).unwrap();
    let after = unchanged_files(&slow);
    let kept = before.iter().filter(|entry| after.contains(entry)).count();
    // Files that were being written at the end are written again.
    assert!(kept * 10 >= before.len() * 8, "{kept} of {} files were kept", before.len());
    stanza.primary.streams_to(&slow).unwrap();
}
