//! A replica that is there already is brought in line with the backup.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tests::pgbackrest::{BUNDLED, Kind, PLAIN, Stanza, snapshot};
use tests::replica_folder::ReplicaFolder;

use super::bad_input::flip;

/// What the host or the method writes anew in every run, each with the reason.
const ANEW: [(&str, &str); 5] = [
    ("global/pg_control", "absent while anything is done, and put in place at the end"),
    ("postgresql.auto.conf", "the seal's"),
    ("standby.signal", "the seal's"),
    ("pg_wal", "the log that the backup needs may differ"),
    ("pg_tblspc", "links are the seal's"),
];

fn section(stanza: &Stanza, grants: &str) -> String {
    format!("{}{grants}", stanza.method(&[1], "keep_data = true\n", "delta = true\n"))
}

/// Everything of the data directory and its tablespaces that a run without changes leaves alone.
fn lasting(replica: &ReplicaFolder) -> Vec<(String, u64, i128)> {
    let entries = snapshot(&replica.datadir()).unwrap();
    let anew = |path: &str| {
        ANEW.iter()
            .any(|(own, _)| path == *own || path.starts_with(&format!("{own}/")) && *own != "pg_tblspc")
    };
    entries
        .into_iter()
        .filter(|(path, entry)| entry.content.is_some() && !anew(path))
        .map(|(path, entry)| (path, entry.inode, entry.changed))
        .collect()
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn what_matches_is_left_alone_and_the_rest_is_brought_in_line() {
    for kind in [PLAIN, BUNDLED] {
        let stanza = Stanza::start("pgbr-delta", 3_000, &[kind], "lz4").unwrap();
        stanza.backup(1, "full", &[]).unwrap();
        let replica = stanza.replica(&section(&stanza, "")).unwrap();
        stanza.created(&replica).unwrap();
        let first = lasting(&replica);
        assert!(first.len() > 900 && first.iter().any(|(path, ..)| path.starts_with("pg_tblspc/")));
        stanza.created(&replica).unwrap();
        let changed: Vec<_> = first.iter().zip(lasting(&replica)).filter(|(old, new)| *old != new).collect();
        assert!(changed.is_empty(), "nothing had changed: {changed:?}");

        // What a server and people could have left.
        let file = |name: &str| replica.datadir().join(name);
        let whole = snapshot(&replica.datadir()).unwrap();
        let space = fs::read_dir(file("pg_tblspc")).unwrap().next().unwrap().unwrap().file_name();
        let in_space = format!("pg_tblspc/{}", space.to_str().unwrap());
        let largest = |below: &str| {
            let of = whole.iter().filter(|(path, entry)| path.starts_with(below) && entry.content.is_some());
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
            assert!(now[path].content == whole[path].content, "{path} is as in the backup");
        }
        for path in ["base/1/99999", "base/1/88888", "base/99999", "recovery.signal"] {
            assert!(!now.contains_key(path), "{path} is gone");
        }
        assert!(!fs::symlink_metadata(file("base/1/2608")).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&victim).unwrap(), "not to be touched");
        let kept = lasting(&replica);
        let kept: Vec<_> = first.iter().filter(|entry| kept.contains(entry)).collect();
        assert_eq!(kept.len(), first.len() - 6, "all but what was changed is kept");
        stanza.primary.streams_to(&replica).unwrap();

        // A replica that ran, and a newer backup.
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
fn a_run_that_was_ended_midway_is_continued() {
    for (kind, signal) in [(PLAIN, Signal::KILL), (BUNDLED, Signal::KILL), (PLAIN, Signal::TERM)] {
        interrupted(kind, signal);
    }
}

fn interrupted(kind: Kind, signal: Signal) {
    let stanza = Stanza::start("pgbr-midway", 3_000, &[kind], "none").unwrap();
    stanza.backup(1, "full", &[]).unwrap();
    let slow = stanza.replica(&section(&stanza, "rate = \"4MiB/s\"\n")).unwrap();
    let running = slow.spawn(&[]).unwrap();
    let begun = Instant::now();
    // Files come and go while it is looked at.
    let files =
        || if slow.datadir().exists() { snapshot(&slow.datadir()).map_or(0, |files| files.len()) } else { 0 };
    while files() < 300 {
        assert!(begun.elapsed() < Duration::from_secs(120), "nothing is written");
        std::thread::sleep(Duration::from_millis(20));
    }
    running.signal(signal).unwrap();
    let ended = slow.ended(running).unwrap();
    assert_ne!(ended.code(), Some(0));
    assert!(!slow.is_sealed());
    let before = lasting(&slow);
    assert!(before.len() > 100, "what was written is kept: {}", before.len());

    let config = slow.path("understudy.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("rate = \"4MiB/s\"\n", "")).unwrap();
    stanza.created(&slow).unwrap();
    let after = lasting(&slow);
    let kept = before.iter().filter(|entry| after.contains(entry)).count();
    // What was at work when it ended is written again.
    assert!(kept * 10 >= before.len() * 8, "{kept} of {} files were kept", before.len());
    stanza.primary.streams_to(&slow).unwrap();
}
