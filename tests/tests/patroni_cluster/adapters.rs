//! The examples of restore programs in a Patroni cluster: `wal-e-script`, `pgbackrest-cli` and `barman-cloud`. Each creates a member
//! with the example's own section, in which only paths and ports are replaced.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tests::barman::{Barman, Release};
use tests::patroni_cluster::{Member, PatroniCluster};
use tests::pgbackrest::PGBACKREST;
use tests::program::example;
use tests::server::run;
use tests::stored::secret;

use crate::{assert_is_replica, assert_password_not_shown, configure_methods, leader, write_letters};

/// The table in the leader's tablespace.
const PARCELS: &str = "SELECT count(*), sum(hashtext(body)) FROM parcels";

/// Returns the section of the method in an example's configuration, with its options and grants.
fn section<'t>(configuration: &'t str, method: &str) -> &'t str {
    let from = configuration.find(&format!("[method.{method}]\n")).unwrap();
    let to = configuration.find("[method.basebackup").unwrap();
    &configuration[from..to]
}

/// Creates the tablespace `fast` on the leader, and a table in it. Returns the tablespace's location.
fn add_tablespace(cluster: &PatroniCluster, leader: &Member<'_>) -> PathBuf {
    let fast = cluster.playground().directory("first/fast").unwrap();
    leader.psql(&format!("CREATE TABLESPACE fast LOCATION '{}'", fast.display())).unwrap();
    leader.psql("CREATE TABLE parcels TABLESPACE fast AS SELECT * FROM letters").unwrap();
    fast
}

/// Creates a member with only this method, and with its own directory for the leader's tablespace. Checks that the method has created
/// the member, that the leader and Patroni report that it streams, and that it has the leader's rows.
fn assert_creates<'c>(
    cluster: &'c PatroniCluster,
    leader: &Member<'_>,
    tablespace: &Path,
    method: &str,
    configure: impl FnOnce(&Member<'c>) -> String,
) -> Member<'c> {
    let mut second = cluster.member("second").unwrap();
    let fast = cluster.playground().directory("second/fast").unwrap();
    configure_methods(&second, &format!("[\"{method}\"]"), section(&configure(&second), method));
    let text = fs::read_to_string(second.path("understudy.toml")).unwrap();
    let map = format!("[replica]\ntablespaces = {{ {tablespace:?} = {fast:?} }}\n");
    second.write("understudy.toml", &text.replacen("[replica]\n", &map, 1)).unwrap();
    second.start().unwrap();
    assert_is_replica(&second, leader, &[(method, "created")]);
    assert_patroni_says_streaming(&second);
    assert_eq!(second.psql(PARCELS).unwrap(), leader.psql(PARCELS).unwrap());
    assert_password_not_shown(&second);
    second
}

/// Waits until Patroni itself reports that this member streams, as `patronictl list` shows it.
fn assert_patroni_says_streaming(member: &Member<'_>) {
    let says =
        || member.rest("GET", "/patroni", "").ok().and_then(|(_, body)| serde_json::from_str(&body).ok());
    member
        .wait_until("Patroni to report `streaming`", Duration::from_secs(30), || {
            says().is_some_and(|state: Value| state["replication_state"] == "streaming")
        })
        .unwrap();
}

/// Checks that a secret is neither in the log nor in the report.
fn assert_not_shown(member: &Member<'_>, secret: &str) {
    assert!(!member.log().contains(secret), "the log of Patroni has the secret");
    assert!(!member.report().unwrap().to_string().contains(secret), "the report has the secret");
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn patroni_gets_its_replicas_from_a_script_that_was_written_for_it() {
    let cluster = PatroniCluster::start("patroni-script").unwrap();
    let first = leader(&cluster);
    let (user, backups) = (cluster.playground().user(), cluster.backups());
    user.directory(&backups.join("batman")).unwrap();
    let mut backup = first.client("pg_basebackup");
    backup.args(["--format=tar", "--gzip", "--checkpoint=fast", "--no-sync", "--pgdata"]);
    run(backup.arg(backups.join("batman/base_1"))).unwrap();

    // The member uses the example's script and section.
    let mut second = cluster.member("second").unwrap();
    second.write("restore.sh", &example("wal-e-script/restore.sh", &[]).unwrap()).unwrap();
    fs::set_permissions(second.path("restore.sh"), Permissions::from_mode(0o700)).unwrap();
    let (script, backups) = (second.path("restore.sh").display().to_string(), backups.display().to_string());
    let words = [("/srv/wal-e-example/restore.sh", &*script), ("/srv/wal-e-example/backups", &*backups)];
    let text = example("wal-e-script/understudy.toml", &words).unwrap();
    configure_methods(&second, r#"["wal-e"]"#, section(&text, "wal-e"));
    second.start().unwrap();
    assert_is_replica(&second, &first, &[("wal-e", "created")]);
    assert_patroni_says_streaming(&second);
    assert!(second.log().contains("base_1"), "{}", second.log());
    assert_password_not_shown(&second);
}

/// The folder of the example.
const PGBACKREST_EXAMPLE: &str = "/srv/pgbackrest-cli-example";

/// Returns a file of the example `pgbackrest-cli` for a member, with the repository and its pass phrase in the folder of the cluster.
fn pgbackrest_file(cluster: &PatroniCluster, member: &Member<'_>, file: &str) -> String {
    let (folder, top) =
        (member.path("").display().to_string(), cluster.playground().path("").display().to_string());
    let words =
        [(&*format!("{PGBACKREST_EXAMPLE}/replica/"), &*folder), (&*format!("{PGBACKREST_EXAMPLE}/"), &*top)];
    example(&format!("pgbackrest-cli/{file}"), &words).unwrap()
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn patroni_gets_its_replicas_from_pgbackrests_own_program() {
    const PASS: &str = "open sesame/of+the example";
    let cluster = PatroniCluster::start("patroni-pgbackrest").unwrap();
    let playground = cluster.playground();
    for folder in ["repository", "keys"] {
        playground.directory(folder).unwrap();
    }
    secret(playground, "keys/repository.pass", PASS).unwrap();

    let mut first = cluster.member("first").unwrap();
    playground.directory("first/pgbackrest").unwrap();
    let text = pgbackrest_file(&cluster, &first, "pgbackrest.conf");
    let (text, paths) = text.split_once("\n[example]\n").unwrap();
    let text = format!(
        "{text}\nrepo1-cipher-pass={PASS}\n\n[example]\n{paths}pg1-port={}\npg1-socket-path={}\npg1-user=postgres\n",
        first.port(),
        first.path("").display()
    );
    first.write("pgbackrest.conf", &text).unwrap();
    let config = first.path("pgbackrest.conf");
    let archive = format!("{PGBACKREST} --config={} --stanza=example archive-push %p", config.display());
    let patroni = fs::read_to_string(first.path("patroni.yml")).unwrap();
    let parameters = format!("  parameters:\n    archive_mode: 'on'\n    archive_command: {archive}\n");
    assert!(patroni.contains("  parameters:\n"));
    first.write("patroni.yml", &patroni.replace("  parameters:\n", &parameters)).unwrap();
    let pgbackrest = |words: &[&str]| {
        let mut command: Command = playground.user().command(PGBACKREST);
        command.arg(format!("--config={}", config.display())).arg("--stanza=example").args(words);
        run(&mut command).unwrap();
    };
    first.start().unwrap();
    first.wait_until_leader().unwrap();
    // The stanza must exist before the first WAL segment is full, because PostgreSQL repeats a failed archive_command only after a minute.
    pgbackrest(&["stanza-create"]);
    write_letters(&first);
    let fast = add_tablespace(&cluster, &first);
    pgbackrest(&["--type=full", "backup"]);

    let second = assert_creates(&cluster, &first, &fast, "pgbackrest-cli", |second| {
        playground.directory("second/pgbackrest").unwrap();
        let text = pgbackrest_file(&cluster, second, "pgbackrest.conf");
        assert!(!text.contains("cipher-pass"), "{text}");
        second.write("pgbackrest.conf", &text).unwrap();
        pgbackrest_file(&cluster, second, "understudy.toml")
    });
    assert!(second.log().contains("restore command end: completed successfully"), "{}", second.log());
    assert_not_shown(&second, PASS);

    // Patroni and the method both keep old data, so `--delta` keeps the files that match the backup.
    second.remove_report().unwrap();
    second.reinitialize().unwrap();
    assert_is_replica(&second, &first, &[("pgbackrest-cli", "created")]);
    assert!(second.log().contains("remove invalid files/links/paths"), "{}", second.log());
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn patroni_gets_its_replicas_from_barmans_program_for_s3() {
    let cluster = PatroniCluster::start("patroni-barman").unwrap();
    let mut first = cluster.member("first").unwrap();
    first.start().unwrap();
    // Barman starts while the first member becomes the leader.
    let barman = Barman::start(cluster.playground(), Release::Example).unwrap();
    first.wait_until_leader().unwrap();
    write_letters(&first);
    let fast = add_tablespace(&cluster, &first);
    barman.backup(&first.path(""), first.port()).unwrap();
    let second = assert_creates(&cluster, &first, &fast, "barman", |second| {
        let folder = second.datadir();
        barman.configuration(folder.parent().unwrap(), &fast, first.port()).unwrap()
    });
    assert_not_shown(&second, barman.secret_key());
}
