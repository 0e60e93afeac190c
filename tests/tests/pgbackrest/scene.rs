//! Runs that must fail: what is held against each of them.

use std::collections::BTreeSet;
use std::process::Command;

use tests::cluster::minimal_cluster;
use tests::pgbackrest::{Stanza, snapshot};
use tests::replica_folder::{Ended, ReplicaFolder};
use tests::server::run;

/// What becomes of a data directory that held somebody's old data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Old {
    /// The plan knew: nothing was touched.
    Untouched,
    /// Only the bytes themselves could tell: it was emptied, and nothing in it can be started.
    Emptied,
    /// One or the other: the plan reads a few files of the backup, and where in a bundle they are is not given.
    Either,
}

/// Everything that is in the playground besides replicas and what servers and pgBackRest change by themselves.
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

/// What lies in the folder of a replica.
fn names(replica: &ReplicaFolder) -> BTreeSet<String> {
    let entries = std::fs::read_dir(replica.path("")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Creates a replica with this section of the method and no source, which must fail, say all of this, leave old data as
/// `old` says and nothing outside. Gives what it said.
pub(crate) fn fails(stanza: &Stanza, what: &str, method: &str, old: Old, says: &[&str]) -> Ended {
    let replica = stanza.folder("", method).unwrap();
    fails_in(stanza, &replica, what, old, says)
}

/// The same in this folder of a replica.
pub(crate) fn fails_in(
    stanza: &Stanza,
    replica: &ReplicaFolder,
    what: &str,
    old: Old,
    says: &[&str],
) -> Ended {
    let datadir = replica.datadir();
    if !datadir.exists() {
        replica.directory("data").unwrap();
        minimal_cluster(7_000_000_000_000_000_001).write_whole(&datadir).unwrap();
        run(Command::new("/bin/chown").arg("-R").arg("--reference").arg(replica.wal()).arg(&datadir))
            .unwrap();
    }
    let (before, beside) = (snapshot(&datadir).unwrap(), outside(stanza));
    let places = names(replica);
    // The old data may be of another cluster than the source's; what stays does so also where it may go.
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
        old == Old::Either || touched == (old == Old::Emptied),
        "{what}: touched is {touched}: {attempt}"
    );
    match touched {
        false => assert_eq!(snapshot(&datadir).unwrap(), before, "{what}: it was touched"),
        true => assert!(!replica.is_sealed(), "{what}: pg_control is in its place"),
    }
    let after = outside(stanza);
    let changed: Vec<&String> = beside.symmetric_difference(&after).collect();
    assert!(changed.is_empty(), "{what}: written or removed outside: {changed:?}");
    let own = ["output".to_owned(), "report.json".to_owned()].into();
    let changed = &(&places ^ &names(replica)) - &own;
    assert!(changed.is_empty(), "{what}: written or removed beside the data directory: {changed:?}");
    std::fs::remove_dir_all(replica.path("")).unwrap();
    ended
}
