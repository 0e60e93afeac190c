//! Stores that fail: they refuse, do not answer, or give something else than they listed.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use tests::faults::{Asked, Fate, Faults};
use tests::server::run;
use tests::stores::{S3RVER, StoreServer};

use super::scene::Scene;
use super::stores::{bucket, in_files, port, upload};

/// A backup in a bucket, and what is between it and the program.
struct Distant {
    scene: Scene,
    server: StoreServer,
    backup: PathBuf,
}

impl Distant {
    fn new(name: &str) -> Self {
        let (scene, backup) = Scene::with_backup(name, &["--compress=client-gzip:1"]);
        let server = StoreServer::s3rver().unwrap();
        upload(&server, &backup, "pg/latest");
        Self { scene, server, backup }
    }

    /// The section that restores it past `faults`, giving up after two seconds.
    fn section(&self, faults: &Faults) -> String {
        let grant = bucket(&faults.url(), &in_files(&self.scene, S3RVER, S3RVER));
        let grant = grant.replace("retry_for = \"30s\"", "retry_for = \"2s\"");
        self.scene.in_store("pg/latest", &grant.replace("idle_timeout = \"5s\"", "idle_timeout = \"1s\""))
    }

    fn faults(&self, judge: impl FnMut(&Asked) -> Fate + Send + 'static) -> Faults {
        Faults::before(port(&self.server), judge).unwrap()
    }

    /// With every request for this object meeting this fate.
    fn always(&self, object: &'static str, fate: Fate) -> Faults {
        self.faults(move |asked| if asked.target.contains(object) { fate } else { Fate::Passed })
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_store_that_refuses_or_does_not_answer_fails_the_attempt_with_the_name_of_the_object() {
    let distant = Distant::new("refuses");
    for object in ["base.tar.gz", "pg_wal.tar.gz", "backup_manifest"] {
        for fate in [Fate::Refused(403), Fate::Refused(404), Fate::Refused(500), Fate::NeverAnswered] {
            let faults = distant.always(object, fate);
            let begun = Instant::now();
            distant.scene.fails(&format!("{object}: {fate:?}"), &distant.section(&faults), &[object]);
            assert!(begun.elapsed().as_secs() < 30, "{object}: {fate:?} took {:?}", begun.elapsed());
        }
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_listing_that_is_refused_fails_the_attempt_with_the_name_of_the_store() {
    let distant = Distant::new("listing");
    for status in [403, 500] {
        let faults = distant.always("list-type", Fate::Refused(status));
        distant.scene.fails(&format!("{status}"), &distant.section(&faults), &["s3://backups"]);
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_failure_that_passes_is_retried() {
    let distant = Distant::new("passes");
    for fate in [Fate::Refused(500), Fate::Refused(503), Fate::NeverAnswered, Fate::CutAfter(1 << 20)] {
        let mut asked_before = std::collections::BTreeSet::new();
        let faults = distant.faults(move |asked| {
            let first = asked_before.insert((asked.method.clone(), asked.target.clone()));
            if first { fate } else { Fate::Passed }
        });
        let section = distant.section(&faults).replace("retry_for = \"2s\"", "retry_for = \"20s\"");
        distant.scene.creates(&format!("{fate:?}"), &section, &distant.backup.join("backup_manifest"));
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_store_that_trickles_ends_with_the_methods_own_limit_of_time() {
    let distant = Distant::new("trickles");
    let faults = distant.always("base.tar.gz", Fate::Trickling(512));
    let section = distant.section(&faults).replace("no_leader = true", "no_leader = true\ntimeout = \"4s\"");
    let begun = Instant::now();
    let ended = distant.scene.fails("trickling", &section, &[]);
    assert_eq!(ended.attempts(), [("tarball", "timed-out")], "{}", ended.output);
    assert!(begun.elapsed().as_secs() < 30, "it took {:?}", begun.elapsed());
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn an_object_that_vanishes_after_it_was_listed_is_told() {
    let distant = Distant::new("vanishes");
    let gone = distant.server.folder();
    let listed = Arc::new(AtomicU32::new(0));
    let faults = distant.faults(move |asked| {
        if asked.target.contains("list-type") {
            listed.fetch_add(1, Ordering::Relaxed);
        }
        // The plan has listed and read; when the restore lists again and reads, it is gone.
        if asked.target.contains("pg_wal.tar.gz") && listed.load(Ordering::Relaxed) >= 1 {
            remove(&gone);
        }
        Fate::Passed
    });
    distant.scene.fails("vanished", &distant.section(&faults), &["pg_wal.tar.gz"]);
}

/// Takes pg_wal.tar.gz out of what the server keeps.
fn remove(data: &std::path::Path) {
    run(Command::new("/usr/bin/find").arg(data).args(["-name", "*pg_wal.tar.gz*", "-delete"])).unwrap();
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn an_object_that_changes_while_it_is_read_is_told() {
    let distant = Distant::new("changes");
    let other = distant.scene.primary.tar_backup("other", &["--compress=client-gzip:9"]).unwrap();
    let only = distant.scene.primary.backups().unwrap().join("only-base");
    std::fs::create_dir(&only).unwrap();
    std::fs::copy(other.join("base.tar.gz"), only.join("base.tar.gz")).unwrap();
    let url = distant.server.url();
    let mut cut = false;
    let server_folder = only.clone();
    let faults = distant.faults(move |asked| {
        if asked.method != "GET" || !asked.target.contains("base.tar.gz") {
            return Fate::Passed;
        }
        if asked.is_continued && cut {
            put_again(&url, &server_folder);
        }
        cut = true;
        Fate::CutAfter(2 << 20)
    });
    distant.scene.fails("changed", &distant.section(&faults), &["base.tar.gz"]);
}

/// Puts the files of a folder in place of those of the backup.
fn put_again(url: &str, folder: &std::path::Path) {
    super::stores::upload_to(url, folder, "pg/latest");
}
