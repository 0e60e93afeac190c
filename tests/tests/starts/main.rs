//! A created replica must start and follow its primary. These tests create backups with configurations, pg_hba.conf rules, tablespaces
//! and labels with which PostgreSQL would not start, would start at the wrong checkpoint, or would never follow its primary.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod configuration;
mod control_file;
mod follows;
mod machine;
mod mirror;
mod own_file;
mod secrets;
mod slot;
mod tablespaces;

use std::fs;
use std::path::Path;

use tests::primary::Primary;
use tests::replica_folder::{Ended, ReplicaFolder};
use tests::server::free_port;

/// Checks that `understudy create` fails the seal with all of `messages`, and leaves no pg_control.
fn assert_fails(replica: &ReplicaFolder, method: &str, messages: &[&str]) -> Ended {
    let ended = replica.create(&[]).unwrap();
    assert_eq!(ended.attempts().last(), Some(&(method, "check-failed")), "{messages:?}\n{}", ended.output);
    assert_eq!(ended.code(), Some(4), "{}", ended.output);
    for text in messages {
        assert!(ended.output.contains(text), "{text}\n{}", ended.output);
    }
    assert!(!replica.is_sealed());
    ended
}

/// Removes `configure_standby` from the replica's configuration, as under Patroni, which configures the standby itself.
fn configure_as_under_patroni(replica: &ReplicaFolder) {
    change(replica, "configure_standby = true\n", "");
    let config = replica.path("understudy.toml");
    let text = fs::read_to_string(&config).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with("standby_passfile")).collect();
    fs::write(&config, lines.join("\n")).unwrap();
}

/// Replaces `from` in the replica's configuration.
fn change(replica: &ReplicaFolder, from: &str, to: &str) {
    let config = replica.path("understudy.toml");
    let text = fs::read_to_string(&config).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(&config, text.replacen(from, to, 1)).unwrap();
}

/// Checks that `postgres` does not start from this data directory, and returns its messages.
fn assert_refuses_to_start(primary: &Primary, datadir: &Path) -> String {
    let sockets = format!("unix_socket_directories={}", primary.playground.path("").display());
    output_of_failed_start_with(primary, datadir, &["listen_addresses=", "logging_collector=off", &sockets])
}

/// Starts `postgres` on this data directory with a free port and these settings, checks that it fails, and returns its messages.
fn output_of_failed_start_with(primary: &Primary, datadir: &Path, settings: &[&str]) -> String {
    let port = format!("port={}", free_port().unwrap());
    let output = primary
        .playground
        .user()
        .command("/usr/bin/timeout")
        .arg("60")
        .arg(primary.playground.bin_dir().join("postgres"))
        .arg("-D")
        .arg(datadir)
        .args(settings.iter().copied().chain([port.as_str()]).flat_map(|setting| ["-c", setting]))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && output.status.code() != Some(124), "{said}");
    said
}
