//! `understudy run`: a method is tried without a configuration file, against a real backup.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tests::primary::Primary;
use tests::replica_folder::ReplicaFolder;
use tests::server::{PostgresServer, run};
use tests::user::ServerUser;

/// Starts a primary without a tablespace: a map of tablespaces needs a configuration file.
fn primary(name: &str) -> Primary {
    let primary = Primary::start(name, 2_000).unwrap();
    for sql in ["ALTER TABLE parcels SET TABLESPACE pg_default", "DROP TABLESPACE fast"] {
        primary.server.psql(sql).unwrap();
    }
    primary
}

/// Returns the flags that restore this backup with the method `tarball` and make a standby of it.
fn flags(primary: &Primary, backup: &Path) -> Vec<String> {
    let path = |name: &str| primary.playground.path(name).display().to_string();
    vec![
        format!("--option=directory={}", backup.display()),
        format!("--read={}", path("backups")),
        format!("--source={}", primary.server.conninfo()),
        format!("--passfile={}", path("pgpass")),
    ]
}

fn output(command: &mut Command, flags: &[String]) -> Output {
    command.args(flags).output().unwrap()
}

#[track_caller]
fn expect(output: &Output, code: i32, parts: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for part in parts {
        assert!(text.contains(part), "{part} in {text}");
    }
}

/// Returns how two directories differ, as `diff` prints it.
fn difference(one: &Path, other: &Path) -> String {
    let output =
        Command::new("diff").args(["--recursive", "--no-dereference"]).args([one, other]).output().unwrap();
    assert!(output.status.code().is_some_and(|code| code < 2), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_backup_restored_without_a_configuration_file_streams() {
    let primary = primary("run");
    let backup = primary.tar_backup("monday", &["--compress=client-gzip:1"]).unwrap();
    let flags = flags(&primary, &backup);
    // If this process is root, the program becomes `postgres` itself in the first case.
    for (name, user) in
        [("of-this-user", ServerUser::of_this_process()), ("of-the-servers-user", primary.playground.user())]
    {
        let replica = ReplicaFolder::new(&primary.playground, name).unwrap();
        let planned = output(replica.run(user, "tarball").arg("--plan-only"), &flags);
        expect(&planned, 0, &[]);
        assert!(String::from_utf8_lossy(&planned.stdout).contains("tarball would be used"), "{planned:?}");
        assert!(!replica.datadir().exists());

        let created = output(replica.run(user, "tarball").arg("--json"), &flags);
        expect(&created, 0, &[]);
        let report: Value = serde_json::from_slice(&created.stdout).unwrap();
        assert_eq!((&report["result"], &report["exit_code"]), (&"created".into(), &0.into()));
        assert!(report["attempts"][0]["bytes"].as_u64().unwrap() > 1_000_000, "{report}");
        primary.streams_to(&replica).unwrap();

        let again = output(&mut replica.run(user, "tarball"), &flags);
        expect(&again, 3, &["must be empty, and holds a PostgreSQL", "--force"]);
        expect(&output(replica.run(user, "tarball").arg("--plan-only"), &flags), 3, &[]);
        assert!(replica.is_sealed(), "the replica was touched");
        expect(&output(replica.run(user, "tarball").arg("--force"), &flags), 0, &[]);
        primary.streams_to(&replica).unwrap();
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn the_printed_configuration_creates_the_same_tree() {
    let primary = primary("run-printed");
    let backup = primary.tar_backup("monday", &[]).unwrap();
    let replica = ReplicaFolder::new(&primary.playground, "replica").unwrap();
    let user = primary.playground.user();
    let flags = flags(&primary, &backup);
    expect(&output(&mut replica.run(user, "tarball"), &flags), 0, &[]);
    let first = replica.path("first");
    fs::rename(replica.datadir(), &first).unwrap();

    let mut printed = output(replica.run(user, "tarball").arg("--print-config"), &flags);
    expect(&printed, 0, &[]);
    // The directories of plugins come from the environment, which this configuration does not have.
    let plugins = format!("[replica]\nplugin_path = [\"{}\"]", primary.playground.path("plugins").display());
    let text = String::from_utf8(std::mem::take(&mut printed.stdout)).unwrap();
    user.write(&replica.path("understudy.toml"), &text.replace("[replica]", &plugins)).unwrap();
    replica.created_by("tarball").unwrap();
    assert_eq!(difference(&first, &replica.datadir()), "");
    primary.streams_to(&replica).unwrap();
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn without_a_source_and_without_standby_the_restored_server_starts_on_its_own() {
    let primary = primary("run-alone");
    let backup = primary.tar_backup("monday", &[]).unwrap();
    let flags = flags(&primary, &backup);
    primary.server.stop().unwrap();
    let without_source = flags[..2].to_vec();
    let replica = ReplicaFolder::new(&primary.playground, "replica").unwrap();
    expect(&output(&mut replica.run(primary.playground.user(), "tarball"), &without_source), 0, &[]);
    let server = PostgresServer::start(&primary.playground, &replica.datadir(), "").unwrap();
    assert_eq!(server.psql("SELECT pg_is_in_recovery()").unwrap(), "f");
    assert_eq!(server.psql("SELECT count(*) FROM letters").unwrap(), "2000");
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_hostile_plugin_reaches_nothing_that_no_flag_grants() {
    let primary = primary("run-hostile");
    let user = primary.playground.user();
    let replica = ReplicaFolder::new(&primary.playground, "replica").unwrap();
    let secret = replica.directory("secret").unwrap();
    user.write(&secret.join("file"), "not granted").unwrap();
    let other = replica.directory("other").unwrap();
    user.write(&other.join("victim"), "as it was").unwrap();
    let before = replica.path("before");
    run(user.command("/bin/cp").arg("--archive").arg(&other).arg(&before)).unwrap();
    let (path, directory) = (secret.join("file"), secret.display().to_string());
    for (options, code, says) in [
        (vec!["behave=read-outside".to_owned(), format!("path={}", path.display())], 1, "refused"),
        (vec!["behave=write-outside".to_owned(), format!("path={}/victim", other.display())], 1, "refused"),
        // The denial shows the flag that would allow it, and no line of a configuration file.
        (vec!["behave=transfer".to_owned(), format!("store={directory}")], 1, "to allow it: --read "),
        (vec!["behave=trap".to_owned()], 1, "hostile: trapped"),
        (vec!["behave=nothing".to_owned()], 4, "hostile: "),
        (
            vec!["behavee=trap".to_owned()],
            1,
            "--option behavee: there is no option `behavee`: did you mean `behave`?",
        ),
        (vec![], 1, "to change that: --option behave=..."),
    ] {
        let flags: Vec<_> = options.iter().map(|option| format!("--option={option}")).collect();
        let ended = output(&mut replica.run(user, "hostile"), &flags);
        expect(&ended, code, &[says, "no replica was created"]);
        let text = String::from_utf8_lossy(&ended.stderr);
        assert!(!text.contains("ESCAPED") && !text.contains("[method."), "{text}");
        let datadir = replica.datadir();
        assert!(!datadir.exists() || fs::read_dir(&datadir).unwrap().next().is_none(), "{options:?}");
        assert_eq!(difference(&before, &other), "", "{options:?}");
    }
}
