//! "What is reported as created starts and follows": configurations, rules of access, tablespaces and labels from which PostgreSQL would not
//! start, would start from the wrong place, or would never follow, each made on purpose and met by the program.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod configuration;
mod control_file;
mod follows;
mod machine;
mod mirror;
mod secrets;
mod tablespaces;

use std::fs;
use std::path::Path;

use tests::primary::Primary;
use tests::replica_folder::{Ended, ReplicaFolder};
use tests::server::free_port;

/// `understudy create` fails the check `start` of this method and tells all of `told`; PostgreSQL finds no pg_control.
fn fails(replica: &ReplicaFolder, method: &str, told: &[&str]) -> Ended {
    let ended = replica.create(&[]).unwrap();
    assert_eq!(ended.attempts().last(), Some(&(method, "check-failed")), "{told:?}\n{}", ended.output);
    assert_eq!(ended.code(), Some(4), "{}", ended.output);
    for text in told {
        assert!(ended.output.contains(text), "{text}\n{}", ended.output);
    }
    assert!(!replica.is_sealed());
    ended
}

/// The same replica as under Patroni, which finishes the directory itself.
fn without_configure_standby(replica: &ReplicaFolder) {
    change(replica, "configure_standby = true\n", "");
    let config = replica.path("understudy.toml");
    let text = fs::read_to_string(&config).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("standby_passfile")).collect();
    fs::write(&config, lines.join("\n")).unwrap();
}

/// Changes the replica's configuration, which has `from` once.
fn change(replica: &ReplicaFolder, from: &str, to: &str) {
    let config = replica.path("understudy.toml");
    let text = fs::read_to_string(&config).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(&config, text.replacen(from, to, 1)).unwrap();
}

/// What `postgres` says on this data directory, which it does not start from.
fn refuses_to_start(primary: &Primary, datadir: &Path) -> String {
    let output = primary
        .playground
        .user()
        .command("/usr/bin/timeout")
        .arg("60")
        .arg(primary.playground.bin_dir().join("postgres"))
        .arg("-D")
        .arg(datadir)
        .args(["-c", "listen_addresses=", "-c", "logging_collector=off"])
        .arg("-c")
        .arg(format!("unix_socket_directories={}", primary.playground.path("").display()))
        .arg("-c")
        .arg(format!("port={}", free_port().unwrap()))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && output.status.code() != Some(124), "{said}");
    said
}
