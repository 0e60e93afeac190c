//! Tests the configuration of `examples/barman-cloud` with Barman's own backup in an S3 server that checks signatures: the configuration
//! creates a replica, and needs each of its grants. `command.rs` runs the example as a whole.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;

use serde_json::json;
use tests::barman::{Barman, Release};
use tests::primary::Primary;
use tests::replica_folder::ReplicaFolder;
use tests::stored::secret;

/// A primary whose backup Barman has uploaded, and a replica with the example's configuration.
struct Scene {
    primary: Primary,
    barman: Barman,
    replica: ReplicaFolder,
}

impl Scene {
    fn start(name: &str) -> Self {
        let primary = Primary::start(name, 1000).unwrap();
        // A replica of this backup needs all later WAL from the primary, even after another method has taken a backup.
        primary.server.psql("ALTER SYSTEM SET wal_keep_size = '1GB'").unwrap();
        primary.server.psql("SELECT pg_reload_conf()").unwrap();
        let barman = Barman::start(&primary.playground, Release::Example).unwrap();
        barman.backup(primary.server.sockets(), primary.server.port()).unwrap();
        let replica = ReplicaFolder::new(&primary.playground, "replica").unwrap();
        primary.server.passfile(&replica.path("pgpass")).unwrap();
        let scene = Self { primary, barman, replica };
        scene.configure(&[]);
        scene
    }

    /// Writes the example's configuration, in which the first text of each pair is replaced with the second.
    fn configure(&self, changes: &[(&str, &str)]) {
        let server = &self.primary.server;
        let datadir = self.replica.datadir();
        let folder = datadir.parent().unwrap();
        let text = self.barman.configuration(folder, &self.primary.tablespace(), server.port());
        let mut text = text.unwrap();
        for (from, to) in changes {
            assert!(text.contains(from), "{from} in {text}");
            text = text.replace(from, to);
        }
        let user = self.primary.playground.user();
        user.write(&self.replica.path("understudy.toml"), &text).unwrap();
    }

    /// Checks that the program fails with this message, and that nothing is left in the data directory.
    fn fails(&self, says: &str) {
        let ended = self.replica.create(&[]).unwrap();
        assert_eq!(ended.attempts(), [("barman", "failed")], "{}", ended.output);
        assert_eq!(ended.code(), Some(1), "{}", ended.output);
        let message = ended.attempt("barman")["message"].as_str().unwrap();
        assert!(message.contains("the program `barman-cloud-restore` exited with code"), "{message}");
        assert!(message.contains(says), "`{says}` is not in {message}\n{}", ended.output);
        let left = fs::read_dir(self.replica.datadir()).map(|entries| entries.count()).unwrap_or_default();
        assert_eq!(left, 0, "{}", ended.output);
    }
}

/// The change that makes `barman` the only method, so that no copy from the primary follows a failure.
const ALONE: (&str, &str) = (r#"methods = ["barman", "basebackup"]"#, r#"methods = ["barman"]"#);

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn the_examples_configuration_creates_a_replica_from_s3_that_streams() {
    let scene = Scene::start("barman");
    let ended = scene.replica.created_by("barman").unwrap();
    // The example's list has a second method, which is not tried.
    assert_eq!(ended.attempts(), [("barman", "created")]);
    let attempt = ended.attempt("barman");
    assert_eq!(attempt["plan"]["backup"], "what the program `barman-cloud-restore` restores", "{attempt}");
    assert!(attempt["denials"].as_array().is_none_or(Vec::is_empty), "{attempt}");
    for text in [&ended.output, &ended.report.to_string()] {
        assert!(!text.contains(scene.barman.secret_key()), "the secret key is shown: {text}");
    }
    scene.primary.streams_to(&scene.replica).unwrap();
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn without_one_of_its_grants_or_the_right_key_the_program_fails_in_its_own_words() {
    let scene = Scene::start("barman-grants");
    let text = fs::read_to_string(scene.replica.path("understudy.toml")).unwrap();
    let line = |begin: &str| {
        let line = text.lines().find(|line| line.starts_with(begin));
        format!("{}\n", line.unwrap_or_else(|| panic!("{begin} in {text}")))
    };
    let unreachable = "Could not connect to the endpoint URL";

    scene.configure(&[ALONE, (&line("network = "), "")]);
    scene.fails(unreachable);
    // The granted port is not the store's.
    scene.configure(&[ALONE, (&line("network = "), "network = [1]\n")]);
    scene.fails(unreachable);
    scene.configure(&[ALONE, (&line("read = "), "")]);
    scene.fails("Permission denied");

    // The variable names a key that is not granted. Then neither the variables nor the keys exist.
    let (variable, key) = (line("AWS_SECRET_ACCESS_KEY = "), line("keys.secret-key = "));
    scene.configure(&[ALONE, (&key, "")]);
    let ended = scene.replica.create(&[]).unwrap();
    assert_eq!((ended.code(), &ended.report["attempts"]), (Some(2), &json!(null)), "{}", ended.output);
    let advice = "env.AWS_SECRET_ACCESS_KEY.key` names no key of these grants: write keys.secret-key = ";
    assert!(ended.output.contains(advice), "{}", ended.output);
    let (other_variable, other_key) = (line("AWS_ACCESS_KEY_ID = "), line("keys.access-key = "));
    scene.configure(&[ALONE, (&key, ""), (&variable, ""), (&other_key, ""), (&other_variable, "")]);
    scene.fails("Unable to locate credentials");

    let playground = &scene.primary.playground;
    secret(playground, "keys/secret-key", "of-another-user-of-the-store").unwrap();
    scene.configure(&[ALONE]);
    scene.fails("SignatureDoesNotMatch");
    // With the example's own list, the second method creates the replica.
    scene.configure(&[]);
    let ended = scene.replica.created_by("basebackup").unwrap();
    assert_eq!(ended.attempts(), [("barman", "failed"), ("basebackup", "created")], "{}", ended.output);
    assert!(!ended.output.contains("of-another-user"), "the secret key is shown: {}", ended.output);

    secret(playground, "keys/secret-key", scene.barman.secret_key()).unwrap();
    scene.replica.created_by("barman").unwrap();
    scene.primary.streams_to(&scene.replica).unwrap();
}
