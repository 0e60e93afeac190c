//! Behaviour that operators rely on when a problem occurs: outcomes, timeouts, warnings and reports.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tests::primary::Primary;
use tests::replica_folder::ReplicaFolder;
use tests::server::{Playground, PostgresServer, run};

fn wait_until(what: &str, at_most: Duration, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < at_most, "waited {at_most:?} for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Replaces `from` in the replica's configuration.
fn rewrite(replica: &ReplicaFolder, from: &str, to: &str) {
    let path = replica.path("understudy.toml");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{from} in {text}");
    fs::write(path, text.replace(from, to)).unwrap();
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn errors_of_the_source_that_only_a_person_can_correct_are_not_retry_later() {
    let primary = Primary::start("lasting", 10).unwrap();
    let server = &primary.server;
    server.psql("CREATE ROLE plain LOGIN PASSWORD 'plain'").unwrap();
    let folder = |name: &str, conninfo: &str, passfile: &str| {
        let replica = ReplicaFolder::new(&primary.playground, name).unwrap();
        let source = format!("[source]\nconninfo = \"{conninfo}\"\n{passfile}");
        replica.configure("methods = [\"basebackup\"]\n", &source).unwrap();
        replica
    };
    let port = server.port();
    let at = |user: &str| format!("host=127.0.0.1 port={port} user={user}");
    for (name, conninfo, says) in [
        ("wrong", format!("{} password=wrong", at("replicator")), "password authentication failed"),
        ("none", at("replicator"), "no password supplied"),
        ("unknown", format!("{} password=x", at("nobody-here")), "nobody-here"),
        ("plain", format!("{} password=plain", at("plain")), "FATAL"),
        ("ssl", format!("{} password=x sslmode=require", at("replicator")), "SSL"),
    ] {
        let replica = folder(name, &conninfo, "");
        let ended = replica.create(&[]).unwrap();
        assert_eq!(ended.code(), Some(1), "{name}: {}", ended.output);
        assert_eq!(ended.attempts(), [("basebackup", "failed")], "{name}: {}", ended.output);
        assert!(ended.output.contains(says), "{name}: {}", ended.output);
    }

    // libpq ignores a passfile that other users may read, even if PGPASSFILE names it.
    let replica = folder("readable", &at("replicator"), "");
    let passfile = replica.path("pgpass");
    server.passfile(&passfile).unwrap();
    fs::set_permissions(&passfile, Permissions::from_mode(0o644)).unwrap();
    let mut check = replica.command("check");
    let output = check.env("PGPASSFILE", &passfile).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("mode 0644") && said.contains("chmod 0600"), "{said}");

    // A failure that may pass without intervention is retry-later.
    let replica = folder("refused", "host=127.0.0.1 port=1 user=replicator", "");
    let ended = replica.create(&[]).unwrap();
    assert_eq!((ended.code(), ended.attempts()), (Some(75), vec![("basebackup", "retry-later")]));
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_strict_check_fails_unless_every_method_can_be_used() {
    let primary = Primary::start("strict", 10).unwrap();
    let absent = primary.backups().unwrap().join("absent");
    let section = primary.tarball(&absent);
    let replica = primary.replica("replica", &["tarball", "basebackup"], "", &section).unwrap();
    let code = |arguments: &[&str]| replica.command("check").args(arguments).status().unwrap().code();
    assert_eq!(code(&[]), Some(0));
    assert_eq!(code(&["--strict"]), Some(1));
    primary.tar_backup("absent", &[]).unwrap();
    assert_eq!(code(&["--strict"]), Some(0));
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn the_next_method_is_tried_after_a_timeout_of_a_hanging_plan_or_of_a_stalled_create() {
    let primary = Primary::start("stalls", 10).unwrap();
    for (name, limits, when, says) in [
        ("plan-loops", "plan_timeout = \"1s\"", "plan", "plan_timeout"),
        ("create-loops", "stall_timeout = \"1s\"", "create", "stall_timeout"),
    ] {
        for behave in ["loop", "sleep"] {
            let section = format!("{}when = \"{when}\"\n", primary.hostile(behave, limits));
            let replica = primary
                .replica(&format!("{name}-{behave}"), &["hostile", "basebackup"], "", &section)
                .unwrap();
            let ended = replica.created_by("basebackup").unwrap();
            let attempt = ended.attempt("hostile");
            assert_eq!(attempt["outcome"], "timed-out", "{attempt}");
            assert!(attempt["message"].as_str().unwrap().contains(says), "{attempt}");
        }
    }
    // A method that keeps moving bytes is not stalled, even if it takes longer than `stall_timeout`.
    let backup = primary.tar_backup("backup", &[]).unwrap();
    let section = primary
        .tarball(&backup)
        .replace("grants = { ", "stall_timeout = \"3s\"\ngrants = { rate = \"4MiB/s\", ");
    let replica = primary.replica("slow", &["tarball"], "", &section).unwrap();
    replica.created_by("tarball").unwrap();
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_limit_that_a_method_reaches_is_named_and_the_report_has_what_was_used_of_it() {
    let playground = Playground::new("limits").unwrap();
    for (behave, more, outcome, says, (key, limit)) in [
        ("loop", "cpu = \"300ms\"", "timed-out", "`cpu`", ("cpu_seconds", 0.3)),
        ("handles", "grants.open_files = 40", "failed", "`open_files` in its grants", ("open_files", 40.0)),
        (
            "log-flood",
            "grants.log = { bytes = \"4KiB\" }",
            "failed",
            "`log` in its grants",
            ("log_bytes", 4096.0),
        ),
    ] {
        let replica = ReplicaFolder::new(&playground, behave).unwrap().with_shared_state(&playground);
        let section = format!(
            "[method.hostile]\nno_leader = true\n{more}\n[method.hostile.options]\nbehave = \"{behave}\"\ncount = 1000\n"
        );
        replica.configure("methods = [\"hostile\"]\n", &section).unwrap();
        let ended = replica.create(&[]).unwrap();
        assert_eq!((ended.code(), ended.attempts()), (Some(1), vec![("hostile", outcome)]), "{behave}");
        assert!(ended.output.contains(says), "{behave}: {}", ended.output);
        let usage = &ended.attempt("hostile")["usage"];
        assert_eq!(usage[key]["limit"].as_f64(), Some(limit), "{behave}: {usage}");
        let used = usage[key]["used"].as_f64().unwrap();
        // A line of the log that does not fit is dropped as a whole. Processor time is measured from time to time.
        assert!(used > 0.9 * limit && (used <= limit || behave == "loop"), "{behave}: {usage}");
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_method_that_needs_the_parameters_fails_its_plan_with_no_params() {
    let primary = Primary::start("no-params", 10).unwrap();
    let backup = primary.tar_backup("backup", &[]).unwrap();
    let section = primary.tarball(&backup).replace("options", "no_params = true\noptions");
    let replica = primary.replica("replica", &["tarball"], "", &section).unwrap();
    let check = replica.command("check").output().unwrap();
    let said = String::from_utf8_lossy(&check.stdout);
    assert_eq!(check.status.code(), Some(1), "{said}");
    assert!(said.contains("no_params"), "{said}");
    let ended = replica.create(&[]).unwrap();
    assert_eq!((ended.code(), ended.attempts()), (Some(1), vec![("tarball", "failed")]));
    assert_eq!(ended.attempt("tarball")["touched"], false, "{}", ended.output);
}

/// Starts a run from a shell within a shell, as with a wrapper script. Kills the outer shell, and checks that the run ends.
fn check_that_run_ends_with_its_parent(primary: &Primary, name: &str, setting: &str, arguments: &str) {
    let replica =
        primary.replica(name, &["hostile", "basebackup"], setting, &primary.hostile("sleep", "")).unwrap();
    let create = replica.command("create");
    let words = create.get_args().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ");
    let report = replica.path("report.json");
    let run = format!("{} {words} --report {} {arguments}", create.get_program().display(), report.display());
    let wrapped =
        format!("/bin/sh -c '{run} --log-level debug 2>{}; exit 7'; exit 8", replica.path("log").display());
    let mut shell: Command = primary.playground.user().command("/bin/sh");
    let mut shell = shell.arg("-c").arg(&wrapped).stdout(Stdio::null()).spawn().unwrap();
    let log = || fs::read_to_string(replica.path("log")).unwrap_or_default();
    wait_until("the method to be at work", Duration::from_secs(60), || log().contains("step create"));
    kill_process(Pid::from_child(&shell), Signal::KILL).unwrap();
    shell.wait().unwrap();
    wait_until("the run to end", Duration::from_secs(5), || report.exists());
    let report: Value = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
    assert_eq!((&report["exit_code"], &report["result"]), (&json!(143), &json!("terminated")), "{}", log());
    assert_eq!(report["attempts"][0]["outcome"], "cancelled", "{report}");
    assert!(report["message"].as_str().unwrap().contains("the process that started it"), "{report}");
    assert!(log().contains("(sh) that started this run is gone: cancelling"), "{}", log());
    assert_eq!(fs::read_dir(replica.datadir()).unwrap().count(), 0, "the contents were not removed");
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_run_ends_with_its_parent_if_configured_or_started_by_patroni() {
    let primary = Primary::start("orphan", 10).unwrap();
    check_that_run_ends_with_its_parent(&primary, "configured", "end_with_parent = true\n", "");
    check_that_run_ends_with_its_parent(&primary, "patroni", "", "--role=replica");
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn the_report_has_the_configuration_the_versions_and_the_grants_but_no_secret() {
    let primary = Primary::start("about", 10).unwrap();
    let backup = primary.tar_backup("backup", &[]).unwrap();
    let replica = primary.replica("replica", &["tarball"], "", &primary.tarball(&backup)).unwrap();
    let ended = replica.created_by("tarball").unwrap();
    // Standard output and standard error are the same file. Nothing follows the sentence about the result.
    let last = ended.output.lines().last().unwrap();
    let says = format!("created the replica in {} with tarball in ", replica.datadir().display());
    assert!(last.starts_with(&says), "{}", ended.output);
    let report = ended.report;
    assert_eq!(report["configuration"], replica.path("understudy.toml").to_str().unwrap());
    assert_eq!(report["server_version"].as_u64().unwrap() / 10_000, 15);
    let component = &report["components"][0];
    assert_eq!((&component["method"], &component["name"]), (&json!("tarball"), &json!("tarball")));
    assert!(component["path"].as_str().unwrap().ends_with("/tarball.wasm"));
    assert!(component["digest"].as_str().unwrap().starts_with("sha256:"));
    let mut inspect = primary.playground.user().command(replica.command("inspect").get_program());
    let inspected = run(inspect.args(["inspect", "--json", component["path"].as_str().unwrap()])).unwrap();
    let inspected: Value = serde_json::from_slice(&inspected.stdout).unwrap();
    for (named, told) in [("version", &inspected["description"]["version"]), ("digest", &inspected["digest"])]
    {
        assert!(told.is_string() && component[named] == *told, "{named} {told}: {component}");
    }
    assert!(component["grants"]["memory"].as_str().unwrap().starts_with("256"), "{component}");
    let read = format!("read {}", primary.backups().unwrap().display());
    assert!(component["grants"][&read].is_string(), "{component}");
    assert!(!report.to_string().contains(tests::server::REPLICATOR_PASSWORD));
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn pg_basebackup_runs_with_pg_version_in_place_from_the_beginning() {
    let primary = Primary::start("version-first", 20_000).unwrap();
    let replica = primary.replica("replica", &["basebackup"], "", "").unwrap();
    rewrite(&replica, "checkpoint = \"fast\"", "checkpoint = \"fast\"\nmax-rate = \"8M\"");
    let running = replica.spawn(&[]).unwrap();
    let has = |name: &str| replica.datadir().join(name).exists();
    wait_until("PG_VERSION", Duration::from_secs(30), || has("PG_VERSION"));
    assert!(!has("global/pg_control"), "PG_VERSION was written at the end only");
    let ended = replica.wait_for_end(running).unwrap();
    assert_eq!(ended.code(), Some(0), "{}", ended.output);
    primary.verify(&replica, &replica.datadir().join("backup_manifest")).unwrap();
    primary.streams_to(&replica).unwrap();
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_report_replaces_only_a_report_and_is_refused_inside_directories_of_the_run() {
    let primary = Primary::start("report", 10).unwrap();
    let replica = primary.replica("replica", &["basebackup"], "", "").unwrap();
    let user = primary.playground.user();
    user.write(&replica.path("thesis.txt"), "years of work").unwrap();
    let refused = |report: &std::path::Path, says: &str| {
        let output = replica.command("create").arg("--report").arg(report).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(says) && said.contains("nothing was touched"), "{says}: {said}");
        assert!(!replica.datadir().exists() && !replica.path("state").exists(), "{said}");
    };
    std::os::unix::fs::symlink(replica.path("absent"), replica.path("link")).unwrap();
    for name in ["thesis.txt", "link", "understudy.toml"] {
        refused(&replica.path(name), "only an earlier report or an empty file is replaced");
    }
    for (directory, what) in [
        ("data", "the data directory"),
        ("wal", "a mapped place"),
        ("fast", "a mapped place"),
        ("state", "the state directory"),
    ] {
        refused(&replica.path(directory).join("report.json"), &format!("would lie in {what}"));
    }
    refused(&replica.path("missing/report.json"), "cannot write the report");
    assert_eq!(fs::read_to_string(replica.path("thesis.txt")).unwrap(), "years of work");
    assert!(!replica.path("absent").exists());
    let report = replica.path("kept.json");
    for _ in 0..2 {
        let output = replica.command("create").arg("--report").arg(&report).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let report: Value = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
    assert_eq!(report["attempts"][0]["outcome"], "created", "{report}");
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn an_existing_replication_slot_is_used_and_an_unusable_one_is_refused() {
    let primary = Primary::start("slot", 10).unwrap();
    let server = &primary.server;
    let create = "checkpoint = \"fast\"\ncreate-slot = true\nslot = \"one\"";
    let slots = || server.psql("SELECT string_agg(slot_name, ',') FROM pg_replication_slots").unwrap();
    // The first role may only replicate and cannot read the catalog; the second can.
    for (name, user) in [("replicates", "user=replicator"), ("reads", "user=postgres")] {
        let replica = primary.replica(name, &["basebackup"], "", "").unwrap();
        rewrite(&replica, "checkpoint = \"fast\"", create);
        rewrite(&replica, "user=replicator", user);
        let first = replica.created_by("basebackup").unwrap();
        assert_eq!(slots(), "one");
        assert!(!first.output.contains("exists at the source already"), "{}", first.output);
        let again = replica.created_by("basebackup").unwrap();
        assert!(
            again
                .output
                .contains("the replication slot `one` exists at the source already: pg_basebackup uses it"),
            "{}",
            again.output
        );
        // The standby streams from the slot.
        primary.streams_to(&replica).unwrap();
        server.wait_for("SELECT active FROM pg_replication_slots WHERE slot_name = 'one'", "f").unwrap();
        server.psql("SELECT pg_drop_replication_slot('one')").unwrap();
    }

    // The first try creates the slot and fails; the second uses the slot.
    let replica = primary.replica("tries", &["basebackup"], "", "").unwrap();
    rewrite(&replica, "checkpoint = \"fast\"", create);
    let bin_dir = primary.playground.directory("fails-once").unwrap();
    for entry in fs::read_dir(primary.playground.bin_dir()).unwrap() {
        let path = entry.unwrap().path();
        std::os::unix::fs::symlink(&path, bin_dir.join(path.file_name().unwrap())).unwrap();
    }
    let real = primary.playground.bin_dir().join("pg_basebackup");
    let script = format!(
        "#!/bin/sh\n{0} \"$@\" || exit\ncase \" $* \" in *' --create-slot '*) case \"$1\" in --pgdata=*) exit 7 ;; esac ;; esac\n",
        real.display()
    );
    fs::remove_file(bin_dir.join("pg_basebackup")).unwrap();
    primary.playground.user().write(&bin_dir.join("pg_basebackup"), &script).unwrap();
    fs::set_permissions(bin_dir.join("pg_basebackup"), Permissions::from_mode(0o755)).unwrap();
    rewrite(&replica, primary.playground.bin_dir().to_str().unwrap(), bin_dir.to_str().unwrap());
    let ended = replica.created_by("basebackup").unwrap();
    assert!(ended.output.contains("exited with code 7"), "{}", ended.output);
    assert!(ended.output.contains("exists at the source already"), "{}", ended.output);

    // Another client uses the slot.
    let replica = primary.replica("in-use", &["basebackup"], "", "").unwrap();
    rewrite(&replica, "checkpoint = \"fast\"", create);
    rewrite(&replica, "user=replicator", "user=postgres");
    let received = primary.playground.directory("received").unwrap();
    let mut receiver = server.client("pg_receivewal");
    let mut receiver = receiver.arg("--slot=one").arg("--directory").arg(&received).spawn().unwrap();
    server.wait_for("SELECT active FROM pg_replication_slots WHERE slot_name = 'one'", "t").unwrap();
    let refused = |replica: &ReplicaFolder, says: &str| {
        let checked = replica.command("check").output().unwrap();
        let said = String::from_utf8_lossy(&checked.stdout).into_owned();
        assert!(said.contains(says), "{says}: {said}");
        let ended = replica.create(&[]).unwrap();
        assert_eq!(ended.attempts(), [("basebackup", "rejected")], "{}", ended.output);
        assert!(ended.output.contains(says), "{says}: {}", ended.output);
        assert_eq!(ended.attempt("basebackup")["touched"], false, "{}", ended.output);
    };
    refused(&replica, "it is in use");
    receiver.kill().unwrap();
    receiver.wait().unwrap();

    // The slot is logical, such as a subscriber's.
    server.stop().unwrap();
    let settings = "wal_level = logical\nmax_wal_senders = 10\n";
    let logical = PostgresServer::start(&primary.playground, server.datadir(), settings).unwrap();
    logical.psql("SELECT pg_create_logical_replication_slot('two', 'pgoutput')").unwrap();
    let port = |server: &PostgresServer| format!("port={}", server.port());
    rewrite(&replica, &port(server), &port(&logical));
    rewrite(&replica, "slot = \"one\"", "slot = \"two\"");
    refused(&replica, "it is a logical slot");
    rewrite(&replica, "slot = \"two\"", "no-slot = true");
    refused(&replica, "contradict each other");
    logical.psql("SELECT pg_drop_replication_slot('two')").unwrap();
    logical.stop().unwrap();
}
