//! Runs the program with methods that connect to servers. A method without its grant is rejected, and the example `catalogue` creates a
//! replica. `grants.rs` tests that each remedy makes the denied call work.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};
use tests::certificates::{Authority, ServerCertificate};
use tests::primary::Primary;
use tests::replica_folder::ReplicaFolder;
use tests::scripted_server::{ScriptedServer, respond};
use tests::server::Playground;

const TOKEN: &str = "t0ken-of-the-catalogue";

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_method_without_its_network_grant_is_rejected_before_anything_is_touched() {
    let playground = Playground::new("unmet").unwrap();
    let replica = ReplicaFolder::new(&playground, "replica").unwrap();
    let options = "[method.catalogue]\nno_leader = true\noptions.catalogue = \"https://catalogue.test:8443/main\"\n\
                   [method.catalogue.grants]\nstores.backups = { url = \"file:///srv\" }\n";
    replica.configure("methods = [\"catalogue\"]\n", options).unwrap();
    let ended = replica.create(&[]).unwrap();
    assert_eq!(ended.code(), Some(3), "{}", ended.output);
    let says = "it connects to catalogue.test:8443 (option catalogue: ";
    let line = "[method.catalogue.grants] network = [\"catalogue.test:8443\"]";
    assert!(ended.output.contains(says) && ended.output.contains(line), "{}", ended.output);
}

/// Returns the catalogue's description of a backup that `pg_basebackup -Ft` wrote.
fn entry(primary: &Primary, backup: &Path) -> Value {
    let name = backup.file_name().unwrap().to_str().unwrap();
    let mut archives = Vec::new();
    let mut tablespaces = Vec::new();
    for file in fs::read_dir(backup).unwrap() {
        let file = file.unwrap();
        let archive = file.file_name().into_string().unwrap();
        let Some(stem) = archive.strip_suffix(".tar") else { continue };
        let path = match stem {
            "base" => String::new(),
            "pg_wal" => "pg_wal".to_owned(),
            oid => {
                tablespaces
                    .push(json!({ "oid": oid.parse::<u32>().unwrap(), "location": primary.tablespace() }));
                format!("pg_tblspc/{oid}")
            }
        };
        let size = file.metadata().unwrap().len();
        archives.push(json!({ "object": format!("{name}/{archive}"), "path": path, "size": size }));
    }
    let identifier = primary.server.psql("SELECT system_identifier FROM pg_control_system()").unwrap();
    json!({
        "name": name,
        "postgresql_major": 15,
        "system_identifier": identifier.parse::<u64>().unwrap(),
        "timeline": 1,
        "archives": archives,
        "tablespaces": tablespaces,
    })
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn the_example_catalogue_queries_a_service_and_creates_a_replica_that_streams() {
    let primary = Primary::start("catalogue", 5_000).unwrap();
    let backup = primary.tar_backup("monday", &[]).unwrap();
    let entry = entry(&primary, &backup).to_string();
    let authority = Authority::new(&primary.playground.directory("authority").unwrap()).unwrap();
    let service = ScriptedServer::https(&authority, ServerCertificate::Right, move |stream, head| {
        let is_known = head.contains(&format!("Bearer {TOKEN}\r\n"));
        match head.split(' ').nth(1) {
            _ if !is_known => respond(stream, "401 Unauthorized", "", ""),
            Some("/v1/backups/main") => {
                respond(stream, "200 OK", "Content-Type: application/json\r\n", &entry)
            }
            _ => respond(stream, "404 Not Found", "", ""),
        }
    })
    .unwrap();
    let user = primary.playground.user();
    let token = primary.playground.path("token");
    user.write(&token, TOKEN).unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    let ca = primary.playground.path("ca.pem");
    user.write(&ca, &fs::read_to_string(authority.certificate()).unwrap()).unwrap();
    let section = |path: &str| {
        format!(
            "[method.catalogue]\noptions.catalogue = \"https://{address}/v1/backups/{path}\"\n\
             [method.catalogue.grants]\nstores.backups = {{ url = \"file://{backups}\" }}\n\
             network.\"{address}\" = {{ ca_file = \"{ca}\", token = {{ file = \"{token}\" }} }}\n",
            address = service.address(),
            backups = primary.backups().unwrap().display(),
            ca = ca.display(),
            token = token.display(),
        )
    };
    let replica = primary.replica("replica", &["catalogue", "basebackup"], "", &section("main")).unwrap();
    let ended = replica.created_by("catalogue").unwrap();
    primary.verify(&replica, &backup.join("backup_manifest")).unwrap();
    primary.streams_to(&replica).unwrap();
    let grants = &ended.report["components"][0]["grants"];
    let granted = &grants[format!("network {}", service.address())];
    assert!(granted.as_str().is_some_and(|granted| granted.contains("ca_file")), "{}", ended.report);
    assert!(!ended.output.contains(TOKEN) && !ended.report.to_string().contains(TOKEN));
    assert_eq!(service.heads().len(), 2, "one request is for the plan, one for create");

    // If the catalogue has no backup, the method is not applicable, and the next method is tried.
    let replica = primary.replica("other", &["catalogue", "basebackup"], "", &section("other")).unwrap();
    let ended = replica.created_by("basebackup").unwrap();
    assert_eq!(ended.attempt("catalogue")["outcome"], "not-applicable", "{}", ended.output);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_line_for_a_server_with_settings_repeats_them_all_and_works() {
    let playground = Playground::new("server-settings").unwrap();
    let authority = Authority::new(&playground.directory("authority").unwrap()).unwrap();
    let server = ScriptedServer::https(&authority, ServerCertificate::Right, |stream, _| {
        respond(stream, "200 OK", "", "monday")
    })
    .unwrap();
    let user = playground.user();
    let (token, ca) = (playground.path("token"), playground.path("ca.pem"));
    user.write(&token, TOKEN).unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    user.write(&ca, &fs::read_to_string(authority.certificate()).unwrap()).unwrap();
    let name = format!("localhost:{}", server.address().port());
    let ended = |replica: &str, grants: &str| {
        let replica = ReplicaFolder::new(&playground, replica).unwrap().with_shared_state(&playground);
        let section = format!(
            "[method.caller]\nno_leader = true\noptions = {{ by = \"http\", address = \"https://{name}/\" }}\n\
             [method.caller.grants]\n{grants}\n"
        );
        replica.configure("methods = [\"caller\"]\n", &section).unwrap();
        replica.create(&[]).unwrap()
    };
    let settings = |private: bool| {
        let (ca, token) = (ca.display(), token.display());
        format!("bytes = \"1MiB\", ca_file = \"{ca}\", private = {private}, token = {{ file = \"{token}\" }}")
    };
    let grants = |private| format!("network = {{ \"{name}\" = {{ {} }} }}", settings(private));
    let denied = ended("denied", &grants(false));
    assert_eq!(denied.attempts(), [("caller", "denied")], "{}", denied.output);
    let lines: Vec<_> = denied.denials("caller").into_iter().filter_map(|(_, _, remedy)| remedy).collect();
    assert_eq!(lines, [format!("[method.caller.grants] {}", grants(true))]);
    let line = lines[0].strip_prefix("[method.caller.grants] ").unwrap();
    let allowed = ended("allowed", line);
    let message = allowed.attempt("caller")["message"].to_string();
    assert!(message.contains("answered: 200 ") && message.contains("monday"), "{}", allowed.output);
    assert!(server.heads()[0].contains(TOKEN));
}
