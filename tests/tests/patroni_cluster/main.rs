//! Understudy as the replica creation method of a real Patroni with a real etcd, configured from the files in `examples/patroni`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod adapters;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::patroni_cluster::{Member, PatroniCluster};
use tests::program::project;
use tests::server::{BIN_DIR, REPLICATOR_PASSWORD, run};

/// A query that returns the same result on two members if both have the same rows.
const CONTENT: &str = "SELECT count(*), sum(hashtext(body)) FROM letters";

/// Starts a first member, which becomes the leader, creates some rows and takes a tar backup.
fn leader(cluster: &PatroniCluster) -> Member<'_> {
    let mut first = cluster.member("first").unwrap();
    first.start().unwrap();
    first.wait_until_leader().unwrap();
    write_letters(&first);
    let mut backup = first.client("pg_basebackup");
    backup.args(["--format=tar", "--checkpoint=fast", "--no-sync", "--pgdata"]);
    run(backup.arg(cluster.backups().join("latest"))).unwrap();
    first
}

/// Creates a table with some rows on the leader.
fn write_letters(leader: &Member<'_>) {
    let rows = "SELECT n AS id, repeat(md5(n::text), 14) AS body FROM generate_series(1, 20000) n";
    leader.psql(&format!("CREATE TABLE letters AS {rows}")).unwrap();
}

/// Checks that the last of these attempts created the member, and that the member streams from the leader and has the leader's rows.
fn assert_is_replica(member: &Member<'_>, leader: &Member<'_>, attempts: &[(&str, &str)]) {
    let report = member.report().unwrap();
    assert_eq!(attempts_of(&report), attempts, "{}", member.log());
    assert_eq!(report["exit_code"], json!(0));
    member.wait_until_streaming(leader).unwrap();
    let mut content = String::new();
    leader
        .wait_until("the leader to take a row", Duration::from_secs(30), || {
            let written = leader.psql("INSERT INTO letters VALUES (-1, 'written now')");
            written.and_then(|_| leader.psql(CONTENT)).map(|now| content = now).is_ok()
        })
        .unwrap();
    member
        .wait_until("the replica to hold the leader's rows", Duration::from_secs(30), || {
            member.psql(CONTENT).is_ok_and(|here| here == content)
        })
        .unwrap();
}

/// Returns the method and the outcome of each attempt.
fn attempts_of(report: &Value) -> Vec<(&str, &str)> {
    let word = |attempt: &'_ Value, key: &str| attempt[key].as_str().map(str::len).unwrap_or_default();
    let attempts = report["attempts"].as_array().unwrap();
    assert!(attempts.iter().all(|attempt| word(attempt, "method") > 0 && word(attempt, "outcome") > 0));
    attempts.iter().map(|a| (a["method"].as_str().unwrap(), a["outcome"].as_str().unwrap())).collect()
}

/// Checks that the password is neither in the log nor in the report.
fn assert_password_not_shown(member: &Member<'_>) {
    assert!(!member.log().contains(REPLICATOR_PASSWORD));
    assert!(!std::fs::read_to_string(member.path("report.json")).unwrap().contains(REPLICATOR_PASSWORD));
    let parts: Vec<&str> = REPLICATOR_PASSWORD.split('\\').collect();
    assert!(parts.iter().all(|part| !member.log().contains(part)), "a part of the password is in the log");
}

/// Checks that PostgreSQL refuses to start from the member's data directory.
fn assert_does_not_start(cluster: &PatroniCluster, member: &Member<'_>) {
    let user = cluster.playground().user();
    let mut single = user.command(Path::new(BIN_DIR).join("postgres"));
    single.args(["--single", "-D"]).arg(member.datadir()).args([
        "-c",
        "unix_socket_directories=",
        "postgres",
    ]);
    let started = single.stdin(std::process::Stdio::null()).output().unwrap();
    assert!(!started.status.success(), "it starts: {}", String::from_utf8_lossy(&started.stderr));
}

/// Writes the example's `understudy.toml` with other methods, for runs that will fail or be interrupted.
fn configure_methods(member: &Member<'_>, methods: &str, sections: &str) {
    let text = member.example("understudy.toml").unwrap();
    let (ours, theirs) = (r#"methods = ["tarball", "basebackup"]"#, format!("methods = {methods}"));
    assert!(text.contains(ours));
    member.write("understudy.toml", &format!("{}\n{sections}\n", text.replace(ours, &theirs))).unwrap();
}

/// Configures the component `hostile` with this behaviour as the only method.
fn configure_hostile(member: &Member<'_>, behave: &str) {
    configure_methods(
        member,
        r#"["hostile"]"#,
        &format!("[method.hostile]\nno_leader = true\noptions = {{ behave = \"{behave}\" }}"),
    );
}

/// Configures a copy from the leader that would take a minute.
fn configure_slow_basebackup(member: &Member<'_>) {
    // The last section of the example has basebackup's options, so the line is added to them.
    configure_methods(member, r#"["basebackup"]"#, "max-rate = \"512k\"");
}

fn configure_as_in_the_example(member: &Member<'_>) {
    member.write("understudy.toml", &member.example("understudy.toml").unwrap()).unwrap();
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn patroni_gets_its_replicas_from_a_backup_and_if_there_is_none_from_the_leader() {
    let cluster = PatroniCluster::start("patroni").unwrap();
    let first = leader(&cluster);

    let mut second = cluster.member("second").unwrap();
    second.start().unwrap();
    assert_is_replica(&second, &first, &[("tarball", "created")]);
    assert!(second.log().contains("replica has been created using understudy"));
    let report = second.report().unwrap();
    assert_eq!(report["scope"], json!("batman"), "Patroni's --scope is not used");
    assert_eq!(report["datadir"], json!(second.datadir()), "Patroni's --datadir is not used");
    assert_password_not_shown(&second);
    let ours = std::fs::read_to_string(second.datadir().join("postgresql.auto.conf")).unwrap();
    assert!(!ours.contains("primary_conninfo"), "only Patroni may write primary_conninfo: {ours}");

    std::fs::rename(cluster.backups().join("latest"), cluster.backups().join("elsewhere")).unwrap();
    let mut third = cluster.member("third").unwrap();
    third.start().unwrap();
    assert_is_replica(&third, &first, &[("tarball", "not-applicable"), ("basebackup", "created")]);
    assert_password_not_shown(&third);

    std::fs::rename(cluster.backups().join("elsewhere"), cluster.backups().join("latest")).unwrap();
    let foreign = second.datadir().join("base/of-the-old-data");
    std::fs::write(&foreign, "").unwrap();
    second.remove_report().unwrap();
    let output = cluster.patronictl(&second, &["reinit", "batman", "second", "--force"]).unwrap();
    assert!(output.contains("Success"), "{output}");
    assert_is_replica(&second, &first, &[("tarball", "created")]);
    assert!(!foreign.exists(), "Understudy did not empty the directory that Patroni left as it was");
    assert!(second.log().contains("Leaving data directory uncleaned"), "{}", second.log());
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_run_that_patroni_interrupts_leaves_no_process_and_no_directory_from_which_postgresql_starts() {
    let cluster = PatroniCluster::start("patroni-interrupts").unwrap();
    let first = leader(&cluster);
    let mut second = cluster.member("second").unwrap();
    second.start().unwrap();
    assert_is_replica(&second, &first, &[("tarball", "created")]);

    // Another reinitialize request with force cancels the run while a plugin works.
    configure_hostile(&second, "sleep");
    second.remove_report().unwrap();
    second.reinitialize().unwrap();
    second.wait_until("the plugin to be at work", Duration::from_secs(30), || !second.is_sealed()).unwrap();
    assert_command_lines(&second);
    configure_as_in_the_example(&second);
    second.reinitialize_by_force().unwrap();
    second
        .wait_until("the first run to end", Duration::from_secs(30), || {
            second.log().contains("exited with code=143")
        })
        .unwrap();
    second
        .wait_until("the report of the second run", Duration::from_secs(30), || {
            second.report().is_ok_and(|report| report["exit_code"] == json!(0))
        })
        .unwrap();
    assert_is_replica(&second, &first, &[("tarball", "created")]);

    // Patroni is stopped during a copy from the leader.
    configure_slow_basebackup(&second);
    second.remove_report().unwrap();
    second.reinitialize().unwrap();
    second
        .wait_until("pg_basebackup to write", Duration::from_secs(30), || second.is_being_copied())
        .unwrap();
    let begun = Instant::now();
    second.stop().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10), "Patroni had to kill the run: {:?}", begun.elapsed());
    assert_eq!(cluster.processes_of(&second), Vec::<String>::new());
    assert_eq!(second.report().unwrap()["exit_code"], json!(143));
    assert_does_not_start(&cluster, &second);
    configure_as_in_the_example(&second);
    second.remove_report().unwrap();
    second.start().unwrap();
    assert_is_replica(&second, &first, &[("tarball", "created")]);

    // Every process is killed during a copy from the leader, as in a power failure.
    configure_slow_basebackup(&second);
    second.reinitialize().unwrap();
    second
        .wait_until("pg_basebackup to write", Duration::from_secs(30), || second.is_being_copied())
        .unwrap();
    second.kill();
    second
        .wait_until("every process to end", Duration::from_secs(5), || {
            cluster.processes_of(&second).is_empty()
        })
        .unwrap_or_else(|error| panic!("{error}: {:?}", cluster.processes_of(&second)));
    assert_does_not_start(&cluster, &second);
    configure_as_in_the_example(&second);
    second.remove_report().unwrap();
    let seen = second.log().len();
    second.start().unwrap();
    second.wait_for_log("consider doing reinitialize", seen).unwrap();
    second.reinitialize().unwrap();
    assert_is_replica(&second, &first, &[("tarball", "created")]);
}

/// Checks that Patroni's parameters are in Understudy's command line, and that no command line has the password.
fn assert_command_lines(member: &Member<'_>) {
    let lines = member.command_lines();
    let create = lines.iter().find(|line| line.contains("/understudy create ")).unwrap();
    for passed in
        ["--keep_data=True", "--no_leader=True", "--scope=batman", "--role=replica", "user=replicator"]
    {
        assert!(create.contains(passed), "{passed}: {create}");
    }
    assert!(create.contains(&format!("--datadir={}", member.datadir().display())), "{create}");
    assert!(create.contains("--connstring=") && create.contains("host=127.0.0.1"), "{create}");
    assert!(lines.iter().all(|line| !line.contains(REPLICATOR_PASSWORD)), "{lines:?}");
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn after_patroni_alone_is_killed_during_a_run_the_next_patroni_gets_a_complete_replica() {
    let cluster = PatroniCluster::start("patroni-killed").unwrap();
    let first = leader(&cluster);
    let mut second = cluster.member("second").unwrap();

    // The run ends when the Patroni that started it does.
    configure_slow_basebackup(&second);
    second.start().unwrap();
    second
        .wait_until("pg_basebackup to write", Duration::from_secs(60), || second.is_being_copied())
        .unwrap();
    second.kill_only_patroni().unwrap();
    assert_eq!(second.report().unwrap()["exit_code"], json!(143), "{}", second.log());
    second
        .wait_until("every process to end", Duration::from_secs(5), || {
            cluster.processes_of(&second).is_empty()
        })
        .unwrap();
    configure_as_in_the_example(&second);
    second.remove_report().unwrap();
    second.start().unwrap();
    assert_is_replica(&second, &first, &[("tarball", "created")]);

    // With `end_with_parent = false` the run goes on, and PG_VERSION exists when the next Patroni looks at the directory.
    let mut third = cluster.member("third").unwrap();
    configure_methods(&third, r#"["basebackup"]"#, "max-rate = \"4M\"");
    let text = std::fs::read_to_string(third.path("understudy.toml")).unwrap();
    third
        .write("understudy.toml", &text.replace("[replica]\n", "[replica]\nend_with_parent = false\n"))
        .unwrap();
    third.start().unwrap();
    let version = third.datadir().join("PG_VERSION");
    third
        .wait_until("PG_VERSION", Duration::from_secs(60), || third.is_being_copied() && version.exists())
        .unwrap();
    third.kill_only_patroni().unwrap();
    third.start().unwrap();
    assert_is_replica(&third, &first, &[("basebackup", "created")]);
    assert!(!third.log().contains("crash recovery in a single user mode"), "{}", third.log());
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn after_a_failure_patroni_empties_the_directory_and_starts_over_by_itself() {
    let cluster = PatroniCluster::start("patroni-failure").unwrap();
    let first = leader(&cluster);
    let mut second = cluster.member("second").unwrap();
    configure_hostile(&second, "fail");
    second.start().unwrap();
    second.wait_for_log("exited with code=1", 0).unwrap();
    second.wait_for_log("failed to bootstrap from leader 'first'", 0).unwrap();
    assert!(!second.log().contains("consider doing reinitialize"));
    assert_eq!(attempts_of(&second.report().unwrap()), [("hostile", "failed")]);
    configure_as_in_the_example(&second);
    second.wait_until_streaming(&first).unwrap();
    assert_is_replica(&second, &first, &[("tarball", "created")]);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn the_example_runs_unchanged() {
    // Installs Patroni if it is missing, as the example would.
    tests::patroni::ensure_patroni().unwrap();
    let mut example = Command::new(project().join("examples/patroni/run.sh"));
    example.env("UNDERSTUDY", tests::program::understudy().unwrap());
    let output = run(&mut example).unwrap();
    let output = String::from_utf8_lossy(&output.stdout);
    assert!(output.contains("replica has been created using understudy"), "{output}");
    assert!(output.contains("tarball created"), "{output}");
    assert!(output.contains("second streaming"), "{output}");
    assert!(!output.contains("change-me-replicator"), "{output}");
    let folder = output.trim_end().rsplit(' ').next().unwrap();
    assert!(folder.starts_with("/tmp/patroni-example-") && !Path::new(folder).exists(), "{output}");
}
