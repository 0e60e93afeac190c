//! The operator's own configuration file, outside the data directory, as on Debian.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use tests::primary::Primary;
use tests::releases::playground;
use tests::replica_folder::ReplicaFolder;
use tests::server::{PostgresServer, run};

use crate::assert_fails;
use crate::configuration::ServerFiles;

/// A configuration file outside the data directory, and replicas whose servers read this file.
struct OwnFile<'a> {
    primary: &'a Primary,
    path: PathBuf,
}

impl<'a> OwnFile<'a> {
    fn of(primary: &'a Primary) -> Self {
        Self { primary, path: primary.playground.path("own.conf") }
    }

    fn write(&self, text: &str) {
        self.primary.playground.user().write(&self.path, text).unwrap();
    }

    fn replica(&self, name: &str) -> ReplicaFolder {
        let line = format!("config_file = \"{}\"\n", self.path.display());
        self.primary.replica(name, &["basebackup"], &line, "").unwrap()
    }

    /// Starts the replica with the file, and waits until it streams.
    fn streams(&self, replica: &ReplicaFolder) {
        let settings = format!("config_file={}\n", self.path.display());
        let standby = PostgresServer::start(&self.primary.playground, &replica.datadir(), &settings).unwrap();
        standby.wait_for("SELECT status FROM pg_stat_wal_receiver", "streaming").unwrap();
        assert_eq!(standby.psql("SELECT pg_is_in_recovery()").unwrap(), "t");
        standby.stop().unwrap();
    }
}

/// Creates a certificate whose key has the passphrase `opensesame`.
fn certificate(primary: &Primary) {
    let mut openssl = primary.playground.user().command("/usr/bin/openssl");
    openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-days", "2", "-subj", "/CN=x"]);
    openssl.args(["-passout", "pass:opensesame", "-keyout"]).arg(primary.playground.path("server.key"));
    run(openssl.arg("-out").arg(primary.playground.path("server.crt"))).unwrap();
}

/// The TLS settings for the certificate whose key has a passphrase.
fn tls(primary: &Primary, further: &str) -> String {
    format!(
        "ssl = on\nssl_cert_file = '{}'\nssl_key_file = '{}'\n{further}",
        primary.playground.path("server.crt").display(),
        primary.playground.path("server.key").display()
    )
}

fn follows_whatever_the_file_says_about_recovery(primary: &Primary, further: &[(String, &[&str])]) {
    let own = OwnFile::of(primary);
    // As on Debian, no configuration file is in the data directory.
    let main = primary.server.datadir().join("postgresql.conf");
    fs::rename(&main, primary.playground.path("away.conf")).unwrap();
    let cases = [
        (
            "recovery_target = 'immediate'\nrecovery_target_action = 'promote'\n".to_owned(),
            &["`recovery_target` is `immediate`", "`recovery_target_action` is `promote`", "own.conf"][..],
        ),
        (
            "recovery_target_name = 'x'\nrecovery_target_action = 'shutdown'\n".to_owned(),
            &["`recovery_target_name` is `x`"],
        ),
        ("recovery_target_timeline = '9'\n".to_owned(), &["`recovery_target_timeline` is `9`"]),
        ("recovery_min_apply_delay = '1s'\n".to_owned(), &["`recovery_min_apply_delay` is 1000 ms"]),
    ];
    for (number, (lines, told)) in cases.iter().chain(further).enumerate() {
        own.write(lines);
        let replica = own.replica(&format!("recovery-{number}"));
        let ended = replica.created_by("basebackup").unwrap();
        for text in *told {
            assert!(ended.output.contains(text), "{text}\n{}", ended.output);
        }
        assert!(!ended.output.contains("only a configuration that"), "{}", ended.output);
        own.streams(&replica);
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_standby_of_15_follows_whatever_a_file_outside_says_about_recovery() {
    let primary = Primary::start("own-15", 100).unwrap();
    let trigger = primary.playground.path("trigger");
    primary.playground.user().write(&trigger, "").unwrap();
    let line = format!("promote_trigger_file = '{}'\n", trigger.display());
    follows_whatever_the_file_says_about_recovery(&primary, &[(line, &["`promote_trigger_file` is"])]);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_standby_of_18_follows_whatever_a_file_outside_says_about_recovery() {
    let primary = Primary::start_in(playground("own-18", 18).unwrap(), 100).unwrap();
    follows_whatever_the_file_says_about_recovery(&primary, &[]);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn restored_lines_that_replace_those_of_a_file_outside_are_reported() {
    let primary = Primary::start("own-replaced", 100).unwrap();
    let own = OwnFile::of(&primary);
    own.write("logging_collector = on\nlog_directory = 'mine'\n");
    let auto = primary.server.datadir().join("postgresql.auto.conf");
    let lines = "listen_addresses = '*'\npassword_encryption = md5\nssl_ca_file = 'evil.crt'\n";
    primary.playground.user().write(&auto, lines).unwrap();
    let replica = own.replica("lax");
    let ended = replica.created_by("basebackup").unwrap();
    for text in [
        "`listen_addresses` is `*` (line 1), `password_encryption` is `md5` (line 2)",
        "`ssl_ca_file` is `evil.crt`, which may have come with the backup",
        "`log_directory` is `mine`",
    ] {
        assert!(ended.output.contains(text), "{text}\n{}", ended.output);
    }
    own.streams(&replica);
    let lines = format!("config_file = \"{}\"\nconfig = \"refuse-commands\"\n", own.path.display());
    let strict = primary.replica("strict", &["basebackup"], &lines, "").unwrap();
    assert_fails(&strict, "basebackup", &["`ssl_ca_file` is `evil.crt`"]);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_mistake_in_a_file_outside_is_found_before_the_old_cluster_is_removed() {
    let primary = Primary::start("own-mistakes", 100).unwrap();
    let own = OwnFile::of(&primary);
    own.write("");
    let replica = own.replica("replica");
    replica.created_by("basebackup").unwrap();
    let logs = primary.playground.directory("logs").unwrap();
    let user = primary.playground.user();
    user.write(&logs.join("x.csv"), "").unwrap();
    fs::set_permissions(logs.join("x.csv"), fs::Permissions::from_mode(0o400)).unwrap();
    let fake = primary.playground.path("fake.so");
    user.write(&fake, "no library\n").unwrap();
    certificate(&primary);
    let logs = logs.display();
    let of_logs = |name: &str| {
        format!(
            "logging_collector = on\nlog_destination = csvlog\nlog_directory = '{logs}'\nlog_filename = '{name}'\n"
        )
    };
    let (sub, csv) = (of_logs("sub/x.log"), of_logs("x.log"));
    let library = format!("shared_preload_libraries = '{}'\n", fake.display());
    let passphrase = tls(&primary, "");
    for (lines, told) in [
        (sub.as_str(), "logs/sub`"),
        (&csv, "logs/x.csv`"),
        (&library, "is not a shared library"),
        (&passphrase, "`ssl_passphrase_command` is empty"),
        ("port = many\n", "\"port\""),
        ("nonsense_setting = 1\n", "nonsense_setting"),
        ("listen_addresses = '192.0.2.1'\n", "`listen_addresses` is `192.0.2.1`"),
        ("unix_socket_directories = '/nonexistent/sockets'\n", "`/nonexistent/sockets`"),
        (
            "logging_collector = on\nlog_directory = '/nonexistent/log'\n",
            "`log_directory` is `/nonexistent/log`",
        ),
        ("ssl = on\nssl_cert_file = '/nonexistent/crt'\n", "`ssl_cert_file` is `/nonexistent/crt`"),
        ("shared_preload_libraries = 'no_such'\n", "`no_such`, which is not installed"),
        ("include '/nonexistent/x.conf'\n", "/nonexistent/x.conf"),
        ("hba_file = '/nonexistent/pg_hba.conf'\n", "`/nonexistent/pg_hba.conf`"),
        ("data_directory = '/nonexistent/data'\n", "`/nonexistent/data`"),
    ] {
        own.write(lines);
        let output = replica.command("check").output().unwrap();
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(told), "{told}\n{said}");
        let ended = replica.create(&[]).unwrap();
        assert_eq!(ended.attempts(), [("basebackup", "rejected")], "{told}\n{}", ended.output);
        assert!(ended.output.contains(told), "{told}\n{}", ended.output);
        assert!(replica.is_sealed(), "{told}");
    }
    // A file that includes restored files can be checked only after these are restored.
    let include = format!("include '{}'\n", replica.datadir().join("nowhere.conf").display());
    own.write(&include);
    assert!(replica.command("check").output().unwrap().status.success());

    fs::remove_file(&own.path).unwrap();
    for verb in ["check", "create"] {
        let output = replica.command(verb).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("understudy.toml:") && said.contains("`replica.config_file` names"), "{said}");
    }
    assert!(replica.is_sealed());
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_key_with_a_passphrase_command_does_not_fail_the_check_of_access_rules() {
    let primary = Primary::start("own-passphrase", 100).unwrap();
    certificate(&primary);
    ServerFiles::of(&primary).append("", "hostssl all all 127.0.0.1/32 md5\n");
    let own = OwnFile::of(&primary);
    own.write(&tls(&primary, "ssl_passphrase_command = 'echo opensesame'\n"));
    let replica = own.replica("replica");
    let ended = replica.created_by("basebackup").unwrap();
    assert!(!ended.output.contains("SSL is disabled"), "{}", ended.output);
    own.streams(&replica);
}
