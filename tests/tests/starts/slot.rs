//! The replication slot from which `pg_basebackup` receives WAL.

use std::fs;

use tests::primary::Primary;
use tests::replica_folder::ReplicaFolder;
use tests::server::PostgresServer;

use crate::change;

/// Creates a replica with these `pg_basebackup` options, in addition to the option `checkpoint`.
fn with_options(primary: &Primary, name: &str, replica: &str, options: &str) -> ReplicaFolder {
    let replica = primary.replica(name, &["basebackup"], replica, "").unwrap();
    change(&replica, "checkpoint = \"fast\"\n", &format!("checkpoint = \"fast\"\n{options}\n"));
    replica
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_slot_that_pg_basebackup_cannot_use_is_refused_before_anything_is_emptied() {
    let primary = Primary::start("slot-refused", 100).unwrap();
    let replica = with_options(&primary, "replica", "", "slot = \"nosuch\"");
    let config = fs::read_to_string(replica.path("understudy.toml")).unwrap();
    fs::write(replica.path("understudy.toml"), config.replace("slot = \"nosuch\"\n", "")).unwrap();
    replica.created_by("basebackup").unwrap();

    fs::write(replica.path("understudy.toml"), config).unwrap();
    let output = replica.command("check").output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("the source has no replication slot `nosuch`"), "{said}");
    let ended = replica.create(&[]).unwrap();
    assert_eq!(ended.attempts(), [("basebackup", "rejected")], "{}", ended.output);
    assert!(replica.is_sealed(), "{}", ended.output);

    primary.server.psql("SELECT pg_create_physical_replication_slot('nosuch')").unwrap();
    replica.created_by("basebackup").unwrap();
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_standby_follows_by_the_slot_that_pg_basebackup_used() {
    let primary = Primary::start("slot-used", 100).unwrap();
    primary.server.psql("SELECT pg_create_physical_replication_slot('existing')").unwrap();
    for (slot, options) in
        [("created", "create-slot = true\nslot = \"created\""), ("existing", "slot = \"existing\"")]
    {
        let replica = with_options(&primary, slot, "", options);
        let ended = replica.created_by("basebackup").unwrap();
        assert!(
            ended.output.contains(&format!("`primary_slot_name` was set to `{slot}`")),
            "{}",
            ended.output
        );
        let standby = PostgresServer::start(&primary.playground, &replica.datadir(), "").unwrap();
        let active = format!("SELECT active FROM pg_replication_slots WHERE slot_name = '{slot}'");
        primary.server.wait_for(&active, "t").unwrap();
        standby.stop().unwrap();
    }
    // The operator's own file names another slot, and the standby keeps using that slot.
    primary.server.psql("SELECT pg_create_physical_replication_slot('own')").unwrap();
    let file = primary.playground.path("own.conf");
    primary.playground.user().write(&file, "primary_slot_name = 'own'\n").unwrap();
    let line = format!("config_file = \"{}\"\n", file.display());
    let replica = with_options(&primary, "own", &line, "create-slot = true\nslot = \"beside\"");
    let ended = replica.created_by("basebackup").unwrap();
    assert!(ended.output.contains("pg_basebackup used the slot `beside`"), "{}", ended.output);
    let auto = fs::read_to_string(replica.datadir().join("postgresql.auto.conf")).unwrap();
    assert!(!auto.contains("primary_slot_name"), "{auto}");
}
