//! Backups of every type with every compression, bundled or not, encrypted or not. Each restore must produce the same files as
//! pgBackRest's, and the replica must then stream.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use tests::control_file::{NO_CHECKPOINT, checkpoint};
use tests::pgbackrest::{BUNDLED, BUNDLED_ENCRYPTED, CODECS, ENCRYPTED, Kind, PLAIN, Stanza};
use tests::program::fast_or_full;
use tests::tree::{differences, is_one_of};

/// The type of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Full,
    Diff,
    /// An incremental backup that is based on another incremental backup.
    Incr,
}

const TYPES: [Type; 3] = [Type::Full, Type::Diff, Type::Incr];
const KINDS: [Kind; 4] = [PLAIN, ENCRYPTED, BUNDLED, BUNDLED_ENCRYPTED];

/// A test case: a compression, a kind of repository and a backup type.
pub(crate) type Case = (&'static str, Kind, Type);

/// The cases of a fast run. They cover every compression, every kind of repository and every backup type.
const FAST: [Case; 5] = [
    ("gz", PLAIN, Type::Incr),
    ("lz4", BUNDLED_ENCRYPTED, Type::Diff),
    ("zst", BUNDLED, Type::Incr),
    ("bz2", ENCRYPTED, Type::Full),
    ("none", BUNDLED, Type::Full),
];

/// The files that each tool writes differently, each with the reason.
const OWN: [(&str, &str); 3] = [
    ("postgresql.auto.conf", "Understudy writes primary_conninfo, pgBackRest writes restore_command"),
    ("standby.signal", "Understudy configures a standby, pgBackRest runs with --type=preserve"),
    ("pg_wal", "Understudy restores WAL, pgBackRest leaves WAL to restore_command"),
];

pub(crate) fn is_own(path: &str) -> bool {
    is_one_of(path, &OWN)
}

/// Takes a backup of this type and the backups that it depends on, changing the database before each of them.
pub(crate) fn backup(stanza: &Stanza, number: usize, wanted: Type) -> String {
    let change = |step: u32| {
        for sql in [
            format!("UPDATE letters SET body = body || '{step}' WHERE id % 97 = 0"),
            format!("CREATE TABLE step_{number}_{step} (id bigint PRIMARY KEY, body text)"),
            format!("CREATE TABLE empty_{number}_{step} ()"),
        ] {
            stanza.primary.server.psql(&sql).unwrap();
        }
    };
    change(0);
    let mut label = stanza.backup(number, "full", &[]).unwrap();
    let steps: &[&str] = match wanted {
        Type::Full => &[],
        Type::Diff => &["diff"],
        Type::Incr => &["incr", "incr"],
    };
    for (step, kind) in (1..).zip(steps) {
        change(step);
        stanza.primary.server.psql(&format!("DROP TABLE step_{number}_{}", step - 1)).unwrap();
        label = stanza.backup(number, kind, &[]).unwrap();
    }
    for step in 0..=steps.len() {
        let tables = format!("DROP TABLE IF EXISTS step_{number}_{step}, empty_{number}_{step}");
        stanza.primary.server.psql(&tables).unwrap();
    }
    label
}

/// Restores a backup with the program and with pgBackRest, and compares the results.
pub(crate) fn check_case(stanza: &Stanza, number: usize, case: Case) {
    let label = backup(stanza, number, case.2);
    // Differential backups are restored with all archived WAL, the others only with the WAL that the backup needs.
    let wal = if case.2 == Type::Diff { "wal = \"latest\"\n" } else { "" };
    let options = format!("backup = \"{label}\"\n{wal}");
    let replica = stanza.replica(&stanza.method(&[number], "", &options)).unwrap();
    let attempt = stanza.created(&replica).unwrap_or_else(|error| panic!("{case:?}: {error:#}"));
    assert_eq!(attempt["plan"]["backup"], label, "{case:?}: {attempt}");
    let name = format!("theirs-{label}-{number}");
    let theirs = stanza.restore(number, &label, &name, "preserve").unwrap();
    let found = differences(&replica.datadir(), &theirs, is_own).unwrap();
    assert!(found.is_empty(), "{case:?}: {found:#?}");
    let control_file = std::fs::read(replica.datadir().join("global/pg_control")).unwrap();
    assert_eq!(checkpoint(&control_file).unwrap(), NO_CHECKPOINT, "{case:?}");
    stanza.primary.streams_to(&replica).unwrap_or_else(|error| panic!("{case:?}: {error:#}"));
    for folder in [replica.path(""), stanza.primary.playground.path(&name)] {
        std::fs::remove_dir_all(folder).unwrap();
    }
}

/// Checks all cases with one compression. One primary archives into a repository of each kind.
fn check_codec(codec: &str, cases: &[Case]) {
    let kinds: Vec<Kind> =
        KINDS.into_iter().filter(|kind| cases.iter().any(|(_, of, _)| of == kind)).collect();
    let mut stanza = Stanza::start(&format!("pgbr-{codec}"), 8_000, &kinds, codec).unwrap();
    // A replica restored only to the end of its backup starts streaming there, so the primary must keep the WAL from that point.
    stanza.primary.server.psql("ALTER SYSTEM SET wal_keep_size = '8GB'").unwrap();
    stanza.primary.server.psql("SELECT pg_reload_conf()").unwrap();
    if ["gz", "zst"].contains(&codec) {
        stanza.add_tablespace("slow", 500).unwrap();
    }
    for case in cases {
        let number = 1 + kinds.iter().position(|kind| *kind == case.1).unwrap();
        check_case(&stanza, number, *case);
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn every_backup_restores_to_the_same_files_as_pgbackrest_and_then_streams() {
    let all = CODECS.into_iter().flat_map(|codec| {
        KINDS.into_iter().flat_map(move |kind| TYPES.into_iter().map(move |of| (codec, kind, of)))
    });
    let all: Vec<Case> = all.collect();
    let cases = if fast_or_full(0, 1) == 0 { FAST.to_vec() } else { all.clone() };
    let queue: Mutex<VecDeque<&str>> = Mutex::new(CODECS.into());
    let ran = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(codec) = queue.lock().unwrap().pop_front() else { return };
                    let own: Vec<Case> = cases.iter().copied().filter(|(of, ..)| *of == codec).collect();
                    check_codec(codec, &own);
                    ran.fetch_add(u32::try_from(own.len()).unwrap(), Ordering::Relaxed);
                }
            });
        }
    });
    let ran = ran.into_inner();
    println!("{ran} of {} cases ran", all.len());
    assert_eq!((ran as usize, all.len()), (cases.len(), 60));
}
