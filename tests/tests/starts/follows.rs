//! A created replica must be able to follow its primary: standbys without a password, or with a slot that the primary does not have.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tests::primary::Primary;
use tests::replica_folder::ReplicaFolder;
use tests::server::{PostgresServer, REPLICATOR_PASSWORD};

use crate::change;

/// Returns the output of `understudy check`, which must succeed.
fn output_of_check(replica: &ReplicaFolder) -> String {
    let output = replica.command("check").output().unwrap();
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    said
}

/// Writes a private file, owned by the server's user.
fn write_private(primary: &Primary, name: &str, text: &str) -> PathBuf {
    let path = primary.playground.path(name);
    primary.playground.user().write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

/// Creates a replica with this file as `standby_passfile`; `None` removes the setting.
fn with_passfile(primary: &Primary, name: &str, passfile: Option<&Path>) -> ReplicaFolder {
    let replica = primary.replica(name, &["basebackup"], "", "").unwrap();
    let before = format!("standby_passfile = \"{}\"\n", primary.playground.path("pgpass").display());
    let line = passfile.map(|path| format!("standby_passfile = \"{}\"\n", path.display()));
    change(&replica, &before, &line.unwrap_or_default());
    replica
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_standby_without_the_password_of_its_source_is_reported_with_the_setting() {
    let primary = Primary::start("no-password", 100).unwrap();
    let pgpass = primary.playground.path("pgpass");
    let secret = write_private(&primary, "secret", REPLICATOR_PASSWORD);
    let given = format!("passfile = \"{}\"", pgpass.display());
    for (number, source) in
        [given.clone(), format!("password = {{ file = \"{}\" }}", secret.display())].iter().enumerate()
    {
        let replica = with_passfile(&primary, &format!("none-{number}"), None);
        change(&replica, &given, source);
        let remedy = "`[replica] standby_passfile = ";
        assert!(output_of_check(&replica).contains(remedy), "{source}");
        let ended = replica.created_by("basebackup").unwrap();
        assert!(ended.output.contains(remedy), "{source}\n{}", ended.output);
        assert!(!ended.output.contains(REPLICATOR_PASSWORD), "{}", ended.output);
        // The standby starts, but cannot connect.
        let standby = PostgresServer::start(&primary.playground, &replica.datadir(), "").unwrap();
        let log = primary.playground.path(&format!("log-{}", standby.port()));
        let begun = std::time::Instant::now();
        while !fs::read_to_string(&log).unwrap().contains("no password supplied") {
            assert!(begun.elapsed().as_secs() < 60, "{}", fs::read_to_string(&log).unwrap());
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }
    // A source that requires no password needs no passfile, so other passfiles do not matter.
    for (name, own) in [("trusted-none", None), ("trusted-other", Some("other.invalid:1:*:other:x\n"))] {
        let own = own.map(|line| write_private(&primary, &format!("own-of-{name}"), line));
        let replica = with_passfile(&primary, name, own.as_deref());
        let any = write_private(&primary, &format!("any-of-{name}"), "*:*:*:*:x\n");
        change(&replica, &given, &format!("passfile = \"{}\"", any.display()));
        change(&replica, "user=replicator", "user=postgres");
        assert!(!output_of_check(&replica).contains("standby_passfile"), "{name}");
        let ended = replica.created_by("basebackup").unwrap();
        assert!(!ended.output.contains("standby_passfile"), "{name}: {}", ended.output);
    }
    let replica = with_passfile(&primary, "trusted", None);
    change(&replica, &given, "");
    change(&replica, "user=replicator", "user=postgres");
    assert!(!output_of_check(&replica).contains("standby_passfile"));
    let ended = replica.created_by("basebackup").unwrap();
    assert!(!ended.output.contains("standby_passfile"), "{}", ended.output);
    primary.streams_to(&replica).unwrap();
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn the_passfile_of_a_standby_must_have_a_line_for_its_source() {
    let primary = Primary::start("no-entry", 100).unwrap();
    let port = primary.server.port();
    for (number, line) in [
        format!("127.0.0.2:{port}:*:replicator:x"),
        format!("127.0.0.1:{}:*:replicator:x", port + 1),
        format!("127.0.0.1:{port}:postgres:replicator:x"),
        format!("127.0.0.1:{port}:*:postgres:x"),
        format!("127.0.0.1:{port}:*:replicator:"),
        String::new(),
    ]
    .iter()
    .enumerate()
    {
        let passfile = write_private(&primary, &format!("pgpass-{number}"), &format!("# comment\n{line}\n"));
        let replica = with_passfile(&primary, &format!("refused-{number}"), Some(&passfile));
        for verb in ["check", "create"] {
            let output = replica.command(verb).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(2), "{line}\n{said}");
            assert!(
                said.contains(&format!("`127.0.0.1:{port}:replication:replicator:<password>`")),
                "{said}"
            );
        }
        assert!(!replica.is_sealed());
    }
    // A password that differs from the password in use is reported, and neither password is shown.
    let line = format!("127.0.0.1:{port}:*:replicator:an-old-one\n");
    let replica = with_passfile(&primary, "old", Some(&write_private(&primary, "pgpass-old", &line)));
    let told =
        format!("has another password for 127.0.0.1:{port}:replication:replicator than the one with which");
    let said = output_of_check(&replica);
    assert!(said.contains(&told), "{said}");
    let ended = replica.created_by("basebackup").unwrap();
    for said in [said, ended.output, ended.report.to_string()] {
        assert!(said.contains("has another password for"), "{said}");
        assert!(!said.contains("an-old-one") && !said.contains(REPLICATOR_PASSWORD), "{said}");
    }
    // A second host without a line in the passfile is reported.
    let replica = with_passfile(&primary, "second", Some(&primary.playground.path("pgpass")));
    change(&replica, "host=127.0.0.1 port=", "host=127.0.0.1,second.invalid port=");
    let finding = format!("it has no password for second.invalid:{port}:replication:replicator");
    assert!(output_of_check(&replica).contains(&finding));
    let ended = replica.created_by("basebackup").unwrap();
    assert!(ended.output.contains(&finding), "{}", ended.output);
    primary.streams_to(&replica).unwrap();
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_slot_that_the_source_does_not_have_is_reported() {
    let primary = Primary::start("slots", 100).unwrap();
    // The slot is the choice of a configuration file on this machine, as on Debian.
    let own = primary.playground.path("own.conf");
    primary.playground.user().write(&own, "primary_slot_name = 'missing'\n").unwrap();
    let line = format!("config_file = \"{}\"\n", own.display());
    let replica = |name: &str| primary.replica(name, &["basebackup"], &line, "").unwrap();
    let started = |replica: &ReplicaFolder| {
        let settings = format!("config_file={}\n", own.display());
        PostgresServer::start(&primary.playground, &replica.datadir(), &settings).unwrap()
    };
    let uses_slot = "SELECT active FROM pg_replication_slots WHERE slot_name = 'missing'";
    let reports = |replica: &ReplicaFolder, text: &str| {
        let ended = replica.created_by("basebackup").unwrap();
        assert!(ended.output.contains(text), "{text}\n{}", ended.output);
    };
    // This role may only replicate, and queries the slot with a replication command.
    reports(&replica("missing"), "the source has no such slot");
    let of_postgres = |name: &str| {
        let replica = replica(name);
        change(&replica, "user=replicator", "user=postgres");
        // The user postgres needs no password.
        let line = format!("standby_passfile = \"{}\"\n", primary.playground.path("pgpass").display());
        change(&replica, &line, "");
        replica
    };
    reports(&of_postgres("missing-too"), "the source has no such slot");

    // `check` reports the slot too.
    let said = output_of_check(&replica("checked"));
    assert!(said.contains("`primary_slot_name` is `missing`, and the source has no such slot"), "{said}");

    primary.server.psql("SELECT pg_create_physical_replication_slot('missing')").unwrap();
    for replica in [replica("there"), of_postgres("there-too")] {
        let ended = replica.created_by("basebackup").unwrap();
        assert!(!ended.output.contains("such slot"), "{}", ended.output);
        let standby = started(&replica);
        primary.server.wait_for(uses_slot, "t").unwrap();
        standby.stop().unwrap();
        primary.server.wait_for(uses_slot, "f").unwrap();
    }
    let first = of_postgres("first");
    first.created_by("basebackup").unwrap();
    let standby = started(&first);
    primary.server.wait_for(uses_slot, "t").unwrap();
    reports(&of_postgres("second"), "another standby uses that slot now");
    standby.stop().unwrap();
}
