//! Stores that refuse requests, do not respond, or return other content than they listed.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use tests::faults::{Action, FaultProxy, ReceivedRequest};
use tests::server::run;
use tests::stores::{S3RVER, StoreServer};

use super::scene::Scene;
use super::stores::{bucket, in_files, port, upload};

/// A backup in a bucket, which the program reaches through a proxy that injects faults.
struct BackupInBucket {
    scene: Scene,
    server: StoreServer,
    backup: PathBuf,
}

impl BackupInBucket {
    fn new(name: &str) -> Self {
        let (scene, backup) = Scene::with_backup(name, &["--compress=client-gzip:1"]);
        let server = StoreServer::s3rver().unwrap();
        upload(&server, &backup, "pg/latest");
        Self { scene, server, backup }
    }

    /// Returns the configuration section that restores the backup through `proxy`, with retries for two seconds.
    fn section(&self, proxy: &FaultProxy) -> String {
        let grant = bucket(&proxy.url(), &in_files(&self.scene, S3RVER, S3RVER));
        let grant = grant.replace("retry_for = \"30s\"", "retry_for = \"2s\"");
        self.scene
            .store_section("pg/latest", &grant.replace("idle_timeout = \"5s\"", "idle_timeout = \"1s\""))
    }

    fn proxy(&self, decide: impl FnMut(&ReceivedRequest) -> Action + Send + 'static) -> FaultProxy {
        FaultProxy::start(port(&self.server), decide).unwrap()
    }

    /// Starts a proxy that applies this action to every request for the object.
    fn always(&self, object: &'static str, action: Action) -> FaultProxy {
        self.proxy(move |request| if request.target.contains(object) { action } else { Action::Forward })
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_store_that_refuses_or_does_not_answer_fails_the_attempt_with_the_name_of_the_object() {
    let stored = BackupInBucket::new("refuses");
    for object in ["base.tar.gz", "pg_wal.tar.gz", "backup_manifest"] {
        for action in [Action::Status(403), Action::Status(404), Action::Status(500), Action::Hang] {
            let proxy = stored.always(object, action);
            let begun = Instant::now();
            stored.scene.fails(&format!("{object}: {action:?}"), &stored.section(&proxy), &[object]);
            assert!(begun.elapsed().as_secs() < 30, "{object}: {action:?} took {:?}", begun.elapsed());
        }
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_listing_that_is_refused_fails_the_attempt_with_the_name_of_the_store() {
    let stored = BackupInBucket::new("listing");
    for status in [403, 500] {
        let proxy = stored.always("list-type", Action::Status(status));
        stored.scene.fails(&format!("{status}"), &stored.section(&proxy), &["s3://backups"]);
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_transient_failure_is_retried() {
    let stored = BackupInBucket::new("passes");
    for action in [Action::Status(500), Action::Status(503), Action::Hang, Action::CutAfter(1 << 20)] {
        let mut seen = std::collections::BTreeSet::new();
        let proxy = stored.proxy(move |request| {
            let first = seen.insert((request.method.clone(), request.target.clone()));
            if first { action } else { Action::Forward }
        });
        let section = stored.section(&proxy).replace("retry_for = \"2s\"", "retry_for = \"20s\"");
        stored.scene.creates(&format!("{action:?}"), &section, &stored.backup.join("backup_manifest"));
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_store_that_trickles_ends_at_the_timeout_of_the_method() {
    let stored = BackupInBucket::new("trickles");
    let proxy = stored.always("base.tar.gz", Action::Trickle(512));
    let section = stored.section(&proxy).replace("no_leader = true", "no_leader = true\ntimeout = \"4s\"");
    let begun = Instant::now();
    let ended = stored.scene.fails("trickling", &section, &[]);
    assert_eq!(ended.attempts(), [("tarball", "timed-out")], "{}", ended.output);
    assert!(begun.elapsed().as_secs() < 30, "it took {:?}", begun.elapsed());
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn an_object_that_is_removed_after_it_was_listed_is_reported() {
    let stored = BackupInBucket::new("vanishes");
    let gone = stored.server.folder();
    let listed = Arc::new(AtomicU32::new(0));
    let proxy = stored.proxy(move |request| {
        if request.target.contains("list-type") {
            listed.fetch_add(1, Ordering::Relaxed);
        }
        // The object is removed after the first listing, when the program reads it.
        if request.target.contains("pg_wal.tar.gz") && listed.load(Ordering::Relaxed) >= 1 {
            remove(&gone);
        }
        Action::Forward
    });
    stored.scene.fails("vanished", &stored.section(&proxy), &["pg_wal.tar.gz"]);
}

/// Removes pg_wal.tar.gz from the server's files.
fn remove(data: &std::path::Path) {
    run(Command::new("/usr/bin/find").arg(data).args(["-name", "*pg_wal.tar.gz*", "-delete"])).unwrap();
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn an_object_that_changes_while_it_is_read_is_reported() {
    let stored = BackupInBucket::new("changes");
    let other = stored.scene.primary.tar_backup("other", &["--compress=client-gzip:9"]).unwrap();
    let only = stored.scene.primary.backups().unwrap().join("only-base");
    std::fs::create_dir(&only).unwrap();
    std::fs::copy(other.join("base.tar.gz"), only.join("base.tar.gz")).unwrap();
    let url = stored.server.url();
    let mut cut = false;
    let server_folder = only.clone();
    let proxy = stored.proxy(move |request| {
        if request.method != "GET" || !request.target.contains("base.tar.gz") {
            return Action::Forward;
        }
        if request.is_continued && cut {
            replace_objects(&url, &server_folder);
        }
        cut = true;
        Action::CutAfter(2 << 20)
    });
    stored.scene.fails("changed", &stored.section(&proxy), &["base.tar.gz"]);
}

/// Replaces objects of the backup with the files of a folder.
fn replace_objects(url: &str, folder: &std::path::Path) {
    super::stores::upload_to(url, folder, "pg/latest");
}
