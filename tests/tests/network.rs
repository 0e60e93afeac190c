//! Methods that connect to servers, through the program: every remedy is the line that makes the call work, and the example `catalogue`
//! creates a replica.

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

/// The lines that the report of a method's attempt says would allow what was denied.
fn remedies(attempt: &Value) -> Vec<String> {
    let denials = attempt["denials"].as_array().cloned().unwrap_or_default();
    denials.iter().filter_map(|denial| denial["remedy"].as_str().map(str::to_owned)).collect()
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn every_remedy_is_the_line_that_makes_the_call_work() {
    let playground = Playground::new("remedies").unwrap();
    let tcp = ScriptedServer::tcp(|stream| stream.write_all(b"monday")).unwrap();
    let http = ScriptedServer::http(|stream, _| respond(stream, "200 OK", "", "monday")).unwrap();
    let (tcp, http) = (tcp.address(), http.address());
    let cases = [
        ("tcp", format!("{tcp}"), 1),
        // A look-up does not say which port is meant, and the name leads to a private address.
        ("tcp", format!("localhost:{}", tcp.port()), 2),
        ("http", format!("http://{http}/"), 1),
        ("http", format!("http://localhost:{}/", http.port()), 2),
    ];
    for (number, (by, address, rounds)) in cases.into_iter().enumerate() {
        let replica = ReplicaFolder::new(&playground, &format!("replica-{number}")).unwrap();
        let replica = replica.with_shared_state(&playground);
        let mut grant = String::new();
        for round in 0..=rounds {
            let section = format!(
                "[method.caller]\nno_leader = true\noptions = {{ by = \"{by}\", address = \"{address}\" }}\n\
                 [method.caller.grants]\n{grant}\n"
            );
            replica.configure("methods = [\"caller\"]\n", &section).unwrap();
            let ended = replica.create(&[]).unwrap();
            let attempt = ended.attempt("caller");
            let remedies = remedies(attempt);
            if round == rounds {
                let message = attempt["message"].to_string();
                assert!(
                    message.contains("answered: ") && message.contains("monday"),
                    "{address}: {}",
                    ended.output
                );
                assert!(remedies.is_empty(), "{address}: {attempt}");
                break;
            }
            assert_eq!(ended.attempts(), [("caller", "denied")], "{address}: {}", ended.output);
            assert_eq!(remedies.len(), 1, "{address}: {attempt}");
            assert!(ended.output.contains(&remedies[0]), "{address}: {}", ended.output);
            let line = remedies[0].strip_prefix("[method.caller.grants] ").unwrap();
            grant = line.replace(":PORT", &format!(":{}", tcp.port()));
        }
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_method_that_may_not_connect_is_told_before_anything_is_touched() {
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

/// What the catalogue says of a backup of `pg_basebackup -Ft`.
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
fn the_example_catalogue_asks_a_service_and_creates_a_replica_that_streams() {
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
    assert_eq!(service.heads().len(), 2, "it is asked for the plan, and again to create");

    // A backup that the catalogue does not have is no failure of the method: the next one is tried.
    let replica = primary.replica("other", &["catalogue", "basebackup"], "", &section("other")).unwrap();
    let ended = replica.created_by("basebackup").unwrap();
    assert_eq!(ended.attempt("catalogue")["outcome"], "not-applicable", "{}", ended.output);
}
