//! Checks of runs that must fail.

use std::collections::BTreeSet;
use std::process::Command;

use tests::cluster::minimal_cluster;
use tests::pgbackrest::Stanza;
use tests::replica_folder::{Ended, ReplicaFolder};
use tests::server::run;
use tests::tree::snapshot;

/// What must happen to old data in the data directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OldData {
    /// The plan noticed the problem, so nothing was touched.
    Untouched,
    /// The problem was noticed only during the restore: the directory was emptied, and nothing in it can be started.
    Emptied,
    /// Both are possible: the plan reads a few files of the backup, and these may be in the damaged part of a bundle.
    Either,
}

/// Returns all files in the playground except the replicas and the files that servers and pgBackRest change by themselves.
fn outside(stanza: &Stanza) -> BTreeSet<String> {
    let root = stanza.primary.playground.path("");
    let mut find = Command::new("/usr/bin/find");
    find.arg(&root).arg("(");
    for name in ["replica-*", "state", "primary", "*-disks", "repositories", "pgbackrest", "log-*"] {
        find.args(["-name", name, "-o"]);
    }
    find.args(["-false", ")", "-prune", "-o", "-printf", "%p %y %s\n"]);
    let text = String::from_utf8(run(&mut find).unwrap().stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// Returns the names in a replica's folder.
fn names(replica: &ReplicaFolder) -> BTreeSet<String> {
    let entries = std::fs::read_dir(replica.path("")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Runs the program with this section for the method and without a source. Checks that the run fails with these messages, treats old
/// data as `old` says, and writes nothing outside the replica's folder. Returns the result of the run.
pub(crate) fn fails(stanza: &Stanza, what: &str, method: &str, old: OldData, says: &[&str]) -> Ended {
    let replica = stanza.folder("", method).unwrap();
    fails_in(stanza, &replica, what, old, says)
}

/// Runs and checks the program in an existing replica's folder.
pub(crate) fn fails_in(
    stanza: &Stanza,
    replica: &ReplicaFolder,
    what: &str,
    old: OldData,
    says: &[&str],
) -> Ended {
    let datadir = replica.datadir();
    if !datadir.exists() {
        replica.directory("data").unwrap();
        minimal_cluster(7_000_000_000_000_000_001).write_complete(&datadir).unwrap();
        run(Command::new("/bin/chown").arg("-R").arg("--reference").arg(replica.wal()).arg(&datadir))
            .unwrap();
    }
    let (before, beside) = (snapshot(&datadir).unwrap(), outside(stanza));
    let names_before = names(replica);
    // The old data is of another cluster, so --force is needed. It must stay unchanged even with --force if nothing is touched.
    let ended = replica.create(&["--force"]).unwrap();
    let attempt = ended.attempt("pgbackrest").to_string();
    println!("{what}: {}", ended.attempt("pgbackrest")["message"]);
    assert!(
        matches!(ended.code(), Some(1 | 3 | 4 | 75)),
        "{what}: {:?}\n{attempt}\n{}",
        ended.status,
        ended.output
    );
    for word in says {
        assert!(attempt.contains(word), "{what}: `{word}` is not in {attempt}\n{}", ended.output);
    }
    let touched = ended.attempt("pgbackrest")["touched"] == true;
    assert!(
        old == OldData::Either || touched == (old == OldData::Emptied),
        "{what}: touched is {touched}: {attempt}"
    );
    match touched {
        false => assert_eq!(snapshot(&datadir).unwrap(), before, "{what}: it was touched"),
        true => assert!(!replica.is_sealed(), "{what}: there is a pg_control"),
    }
    let after = outside(stanza);
    let changed: Vec<&String> = beside.symmetric_difference(&after).collect();
    assert!(changed.is_empty(), "{what}: written or removed outside: {changed:?}");
    let own = ["output".to_owned(), "report.json".to_owned()].into();
    let changed = &(&names_before ^ &names(replica)) - &own;
    assert!(changed.is_empty(), "{what}: written or removed beside the data directory: {changed:?}");
    std::fs::remove_dir_all(replica.path("")).unwrap();
    ended
}
