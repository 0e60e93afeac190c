//! Backups of every type in every compression, bundled or not, encrypted or not: each is restored to the same files that
//! pgBackRest makes of it, and streams.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use tests::pgbackrest::{BUNDLED, BUNDLED_ENCRYPTED, CODECS, ENCRYPTED, Kind, PLAIN, Stanza, differences};
use tests::program::fast_or_full;

/// What a backup is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Full,
    Diff,
    /// An incremental one of an incremental one.
    Incr,
}

const TYPES: [Type; 3] = [Type::Full, Type::Diff, Type::Incr];
const KINDS: [Kind; 4] = [PLAIN, ENCRYPTED, BUNDLED, BUNDLED_ENCRYPTED];

/// What is compared: a backup of one type in a repository of one kind in one compression.
type Cell = (&'static str, Kind, Type);

/// Cells in which every value of every axis comes.
const FAST: [Cell; 5] = [
    ("gz", PLAIN, Type::Incr),
    ("lz4", BUNDLED_ENCRYPTED, Type::Diff),
    ("zst", BUNDLED, Type::Incr),
    ("bz2", ENCRYPTED, Type::Full),
    ("none", BUNDLED, Type::Full),
];

/// The files that both tools write for themselves, each with the reason.
const OWN: [(&str, &str); 3] = [
    ("postgresql.auto.conf", "primary_conninfo here, restore_command there"),
    ("standby.signal", "the replica is configured as a standby, pgBackRest was told to leave it as it was"),
    ("pg_wal", "write-ahead log is restored here, and left to restore_command there"),
];

fn is_own(path: &str) -> bool {
    OWN.iter()
        .any(|(own, _)| path.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

/// A backup of this type, with changes between it and those that it is made of.
fn backup(stanza: &Stanza, number: usize, wanted: Type) -> String {
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

/// Restores a cell twice, by the program and by pgBackRest, and compares.
fn holds(stanza: &Stanza, number: usize, cell: Cell) {
    let label = backup(stanza, number, cell.2);
    // What is consistent with the backup alone is enough here, and all that was archived is enough too.
    let wal = if cell.2 == Type::Diff { "wal = \"latest\"\n" } else { "" };
    let options = format!("backup = \"{label}\"\n{wal}");
    let replica = stanza.replica(&stanza.method(&[number], "", &options)).unwrap();
    let attempt = stanza.created(&replica).unwrap_or_else(|error| panic!("{cell:?}: {error:#}"));
    assert_eq!(attempt["plan"]["backup"], label, "{cell:?}: {attempt}");
    let name = format!("theirs-{label}-{number}");
    let theirs = stanza.restore(number, &label, &name, "preserve").unwrap();
    let found = differences(&replica.datadir(), &theirs, is_own).unwrap();
    assert!(found.is_empty(), "{cell:?}: {found:#?}");
    stanza.primary.streams_to(&replica).unwrap_or_else(|error| panic!("{cell:?}: {error:#}"));
    for folder in [replica.path(""), stanza.primary.playground.path(&name)] {
        std::fs::remove_dir_all(folder).unwrap();
    }
}

/// Every cell of one compression, from one primary with a repository of each kind.
fn of_one_codec(codec: &str, cells: &[Cell]) {
    let kinds: Vec<Kind> =
        KINDS.into_iter().filter(|kind| cells.iter().any(|(_, of, _)| of == kind)).collect();
    let mut stanza = Stanza::start(&format!("pgbr-{codec}"), 8_000, &kinds, codec).unwrap();
    // The standbys of backups that are restored to their own end alone begin there.
    stanza.primary.server.psql("ALTER SYSTEM SET wal_keep_size = '8GB'").unwrap();
    stanza.primary.server.psql("SELECT pg_reload_conf()").unwrap();
    if ["gz", "zst"].contains(&codec) {
        stanza.add_tablespace("slow", 500).unwrap();
    }
    for cell in cells {
        let number = 1 + kinds.iter().position(|kind| *kind == cell.1).unwrap();
        holds(&stanza, number, *cell);
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn every_backup_is_restored_to_the_files_that_pgbackrest_makes_of_it_and_streams() {
    let whole = CODECS.into_iter().flat_map(|codec| {
        KINDS.into_iter().flat_map(move |kind| TYPES.into_iter().map(move |of| (codec, kind, of)))
    });
    let whole: Vec<Cell> = whole.collect();
    let cells = if fast_or_full(0, 1) == 0 { FAST.to_vec() } else { whole.clone() };
    let queue: Mutex<VecDeque<&str>> = Mutex::new(CODECS.into());
    let ran = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(codec) = queue.lock().unwrap().pop_front() else { return };
                    let its: Vec<Cell> = cells.iter().copied().filter(|(of, ..)| *of == codec).collect();
                    of_one_codec(codec, &its);
                    ran.fetch_add(u32::try_from(its.len()).unwrap(), Ordering::Relaxed);
                }
            });
        }
    });
    let ran = ran.into_inner();
    println!("{ran} of {} cells ran", whole.len());
    assert_eq!((ran as usize, whole.len()), (cells.len(), 60));
}
