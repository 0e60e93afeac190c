//! Repositories in real store servers, and failures of these servers.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use tests::faults::{Action, FaultProxy};
use tests::pgbackrest::{BUNDLED, BUNDLED_ENCRYPTED, ENCRYPTED, Info, PASS, PLAIN, STANZA, Stanza, section};
use tests::program::fast_or_full;
use tests::server::run;
use tests::stored::{ALL_LOCATIONS, BackupLocation, Grant};
use tests::stores::{S3RVER, StoreServer, ensure_servers};

use super::scene::{OldData, fails, fails_in};

/// The prefix of the repository in the bucket `backups`.
const PREFIX: &str = "of/demo";

/// Uploads every file below a folder to the bucket, with Amazon's own client.
fn upload(server: &StoreServer, folder: &Path) {
    const PUT: &str = "import sys, os, boto3\n\
        s3 = boto3.client('s3', endpoint_url=sys.argv[1], aws_access_key_id=sys.argv[4], aws_secret_access_key=sys.argv[4], region_name='us-east-1')\n\
        for folder, _, names in os.walk(sys.argv[2]):\n    \
            for name in names:\n        \
                path = os.path.join(folder, name)\n        \
                if not os.path.islink(path):\n            \
                    with open(path, 'rb') as body:\n                \
                        s3.put_object(Bucket='backups', Key=sys.argv[3] + '/' + os.path.relpath(path, sys.argv[2]), Body=body)\n";
    let python = ensure_servers().unwrap().join("venv/bin/python");
    run(Command::new(python).args(["-c", PUT, &server.url()]).arg(folder).args([PREFIX, S3RVER])).unwrap();
}

/// Returns the section that restores from the bucket at `endpoint` with this secret key. `pass` is the file with the passphrase.
fn in_bucket(stanza: &Stanza, endpoint: &str, secret: &str, pass: &Path) -> String {
    let playground = &stanza.primary.playground;
    let mut credentials = Vec::new();
    for (name, value) in [("access_key_id", secret), ("secret_access_key", secret)] {
        let path = playground.path(&format!("secrets/{name}"));
        playground.user().write(&path, value).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        credentials.push(format!("{name} = {{ file = \"{}\" }}", path.display()));
    }
    let grants = format!(
        "keys.repo = {{ file = \"{}\" }}\n[method.pgbackrest.grants.stores.repo]\nurl = \"s3://backups/{PREFIX}\"\n\
         region = \"us-east-1\"\nendpoint = \"{endpoint}\"\nallow_http = true\nretry_for = \"30s\"\nidle_timeout = \"5s\"\n\
         credentials = {{ {} }}\n",
        pass.display(),
        credentials.join(", ")
    );
    section("", "wal = \"latest\"", &grants)
}

fn port(server: &StoreServer) -> u16 {
    server.url().rsplit(':').next().unwrap().parse().unwrap()
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_replica_is_restored_from_an_encrypted_repository_in_s3_whose_server_is_restarted_meanwhile() {
    for kind in [ENCRYPTED, BUNDLED_ENCRYPTED] {
        let stanza = Stanza::start("pgbr-s3", 2_000, &[kind], "zst").unwrap();
        stanza.backup(1, "full", &[]).unwrap();
        stanza.primary.server.psql("INSERT INTO letters VALUES (-5, 'later')").unwrap();
        stanza.backup(1, "incr", &[]).unwrap();
        stanza.switch_wal().unwrap();
        let mut server = StoreServer::s3rver().unwrap();
        upload(&server, &stanza.repository(1));
        let (sender, receiver) = mpsc::channel();
        let mut reads = 0;
        let object = if kind.bundle { "/bundle/" } else { "/pg_data/base/" };
        let proxy = FaultProxy::start(port(&server), move |request| {
            if request.method != "GET" || !request.target.contains(object) {
                return Action::Forward;
            }
            reads += 1;
            let _ = sender.send(reads);
            // The first responses fail, so that the restore is not complete when the server is stopped.
            match reads {
                1 => Action::CutAfter(700),
                2 => Action::Status(503),
                _ => Action::Forward,
            }
        })
        .unwrap();
        let pass = stanza.primary.playground.path("secrets/repository.pass");
        let replica = stanza.replica(&in_bucket(&stanza, &proxy.url(), S3RVER, &pass)).unwrap();
        let running = replica.spawn(&[]).unwrap();
        let patience = Duration::from_secs(60);
        receiver.recv_timeout(patience).expect("no file was requested");
        server.kill().unwrap();
        let _ =
            receiver.recv_timeout(patience).expect("the program did not retry while the server was stopped");
        server.restart().unwrap();
        let ended = replica.wait_for_end(running).unwrap();
        assert_eq!(ended.code(), Some(0), "{}", ended.output);
        stanza.primary.streams_to(&replica).unwrap();
    }
}

/// Returns the section that restores from a location with this grant. Web servers cannot be listed, so with them the source must have
/// the WAL.
fn section_for(location: BackupLocation, store: &str) -> String {
    let wal = if location.can_be_listed() { "wal = \"latest\"" } else { "wal = \"none\"" };
    section("", wal, &format!("[method.pgbackrest.grants.stores.repo]\n{store}"))
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_replica_is_restored_from_a_repository_in_every_kind_of_store() {
    // The kinds that differ most come first. S3 from s3rver has its own test.
    let mut locations = vec![BackupLocation::Azurite, BackupLocation::Google, BackupLocation::Web];
    locations.extend(
        ALL_LOCATIONS.iter().filter(|location| !locations.contains(location)).copied().collect::<Vec<_>>(),
    );
    let locations = &locations[..fast_or_full(3, 8) as usize];
    let kinds = &[PLAIN, BUNDLED][..fast_or_full(1, 2) as usize];
    for kind in kinds {
        let stanza = Stanza::start("pgbr-everywhere", 500, &[*kind], "gz").unwrap();
        stanza.backup(1, "full", &[]).unwrap();
        stanza.primary.server.psql("INSERT INTO letters VALUES (-5, 'later')").unwrap();
        stanza.backup(1, "incr", &[]).unwrap();
        stanza.switch_wal().unwrap();
        for location in locations.iter().copied() {
            let stored = location.with(&stanza.repository(1), &stanza.primary.playground).unwrap();
            // This method reads a directory only as a store with a file:// URL.
            let Grant::Store(store) = &stored.grant else { continue };
            let replica = stanza.replica(&section_for(location, store)).unwrap();
            stanza.created(&replica).unwrap_or_else(|error| panic!("{location:?}: {error:#}"));
            stanza.primary.streams_to(&replica).unwrap_or_else(|error| panic!("{location:?}: {error:#}"));
            // A store that cannot be listed is reported.
            if location == BackupLocation::Web {
                let method = section_for(location, store).replace("wal = \"none\"", "wal = \"consistent\"");
                let old = OldData::Untouched;
                fails(
                    &stanza,
                    &format!("{STANZA} of {location:?}"),
                    &method,
                    old,
                    &["cannot be listed", "wal"],
                );
            }
        }
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn wrong_keys_of_store_and_repository_are_reported_and_not_shown() {
    const WRONG: &str = "never-to-be-seen/0123+4567";
    let stanza = Stanza::start("pgbr-s3-denied", 100, &[ENCRYPTED], "gz").unwrap();
    stanza.backup(1, "full", &[]).unwrap();
    let server = StoreServer::s3rver().unwrap();
    upload(&server, &stanza.repository(1));
    let pass = stanza.primary.playground.path("secrets/repository.pass");
    let denied = fails(
        &stanza,
        "a wrong secret of the store",
        &in_bucket(&stanza, &server.url(), WRONG, &pass),
        OldData::Untouched,
        &["denied"],
    );
    let other = stanza.primary.playground.path("secrets/other.pass");
    stanza.primary.playground.user().write(&other, WRONG).unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o600)).unwrap();
    let replica = stanza.folder("", &in_bucket(&stanza, &server.url(), S3RVER, &other)).unwrap();
    let wrong = fails_in(&stanza, &replica, "a wrong pass phrase", OldData::Untouched, &["pass phrase"]);
    for ended in [denied, wrong] {
        for text in [&ended.output, &ended.report.to_string()] {
            assert!(!text.contains(WRONG) && !text.contains(PASS), "{text}");
        }
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_name_that_is_too_long_for_a_bucket_is_reported_before_anything_is_touched() {
    let stanza = Stanza::start("pgbr-s3-name", 100, &[PLAIN], "gz").unwrap();
    let full = stanza.backup(1, "full", &[]).unwrap();
    let manifest = stanza.backups(1, &format!("{full}/backup.manifest"));
    let mut info = Info::read(&manifest).unwrap();
    let line = info.get("target:file", "pg_data/PG_VERSION").unwrap().to_owned();
    info.add("target:file", &format!("pg_data/{}/file", vec!["d".repeat(200); 5].join("/")), &line);
    info.write(&manifest, stanza.primary.playground.user()).unwrap();
    let server = StoreServer::s3rver().unwrap();
    upload(&server, &stanza.repository(1));
    let pass = stanza.primary.playground.path("secrets/repository.pass");
    let section = in_bucket(&stanza, &server.url(), S3RVER, &pass).replace("wal = \"latest\"", "");
    fails(&stanza, "a long name", &section, OldData::Untouched, &["cannot have", "accepts 1024"]);
}
