//! The demo: a real primary, a real backup of this primary, and three runs that show a restore, a fallback and a denial.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::program::project;
use tests::replica_folder::ReplicaFolder;
use tests::server::{Playground, PostgresServer, run as run_command};

use crate::say;

/// The number of rows in the primary's tables. Each row has half a kilobyte.
const ROWS: u32 = 400_000;

/// Runs the demo in a temporary folder. Stops every server and removes the folder at the end.
pub(crate) fn run() -> Result<()> {
    say("building the program");
    // The tests' dependencies are built too, so that `cargo xtask test` need not compile wasmtime again with other features.
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--package", "understudy", "--package", "sandbox", "--all-targets"])
        .current_dir(project())
        .status()?;
    ensure!(built.success(), "the program does not build");
    let demo = Demo::new()?;
    demo.restore_from_the_backup()?;
    demo.fall_back_to_basebackup()?;
    demo.deny_a_file_without_a_grant()?;
    say("done; servers stopped, folders removed");
    Ok(())
}

/// A primary and its backup.
struct Demo {
    primary: PostgresServer,
    playground: Playground,
    backups: PathBuf,
    empty: PathBuf,
    fast_oid: String,
}

impl Demo {
    fn new() -> Result<Self> {
        let playground = Playground::new("demo")?;
        say("starting a primary with two tables, one of them in a tablespace of its own");
        let primary = PostgresServer::init(&playground, "primary")?;
        let fast = playground.directory("fast-disks")?;
        primary.psql(&format!("CREATE TABLESPACE fast LOCATION '{}'", fast.display()))?;
        primary.psql("CREATE TABLE letters (id bigint PRIMARY KEY, body text)")?;
        primary.psql("CREATE TABLE parcels (id bigint PRIMARY KEY, body text) TABLESPACE fast")?;
        for table in ["letters", "parcels"] {
            primary.psql(&format!(
                "INSERT INTO {table} SELECT n, repeat(md5(n::text), 14) FROM generate_series(1, {}) n",
                ROWS / 2
            ))?;
        }
        let size = primary.psql("SELECT pg_size_pretty(sum(pg_database_size(oid))) FROM pg_database")?;
        primary.passfile(&playground.path("pgpass"))?;

        say(&format!("taking a tar backup of its {size} with pg_basebackup --format=tar --gzip"));
        let backups = playground.directory("backups")?;
        run_command(
            primary
                .client("pg_basebackup")
                .args([
                    "--format=tar",
                    "--compress=client-gzip:1",
                    "--checkpoint=fast",
                    "--no-sync",
                    "--pgdata",
                ])
                .arg(backups.join("latest")),
        )?;
        let empty = playground.directory("no-backup-here")?;
        let fast_oid = primary.psql("SELECT oid FROM pg_tablespace WHERE spcname = 'fast'")?;
        Ok(Self { primary, playground, backups, empty, fast_oid })
    }

    fn restore_from_the_backup(&self) -> Result<()> {
        say("creating a replica: a method that finds nothing, then the backup, then pg_basebackup");
        let replica = self.replica("first", r#"["yesterday", "tarball", "basebackup"]"#)?;
        create(&replica, 0, &[("yesterday", "not-applicable"), ("tarball", "created")])?;
        self.start_and_stream(&replica)
    }

    fn fall_back_to_basebackup(&self) -> Result<()> {
        say("the backup is gone; the same list again");
        std::fs::rename(self.backups.join("latest"), self.playground.path("moved-away"))?;
        let replica = self.replica("second", r#"["yesterday", "tarball", "basebackup"]"#)?;
        let expected =
            [("yesterday", "not-applicable"), ("tarball", "not-applicable"), ("basebackup", "created")];
        create(&replica, 0, &expected)?;
        self.start_and_stream(&replica)
    }

    fn deny_a_file_without_a_grant(&self) -> Result<()> {
        say("a plugin that reads a file that it was not granted");
        let replica = self.replica("third", r#"["curious"]"#)?;
        let report = create(&replica, 1, &[("curious", "denied")])?;
        let denials = report["attempts"][0]["denials"].as_array().cloned().unwrap_or_default();
        let denied = |denial: &&Value| denial["what"].as_str().unwrap_or("").contains("pgpass");
        let denial = denials.iter().find(denied).context("the denial is missing from the report")?;
        println!("    denied: {} {}", denial["capability"], denial["what"]);
        match denial["remedy"].as_str().unwrap_or_default() {
            "" => {
                println!("    no setting allows it: only directories can be granted, and this is a file")
            }
            line => println!("    the setting that would allow it: {line}"),
        }
        Ok(())
    }

    /// Creates a replica's folder with this name, and writes its configuration.
    fn replica(&self, name: &str, methods: &str) -> Result<ReplicaFolder> {
        let replica = ReplicaFolder::new(&self.playground, name)?;
        let passfile = self.playground.path("pgpass");
        let passfile = passfile.display();
        replica.configure(
            &format!(
                "methods = {methods}\nconfigure_standby = true\nstandby_passfile = \"{passfile}\"\n{}",
                replica.mapping_lines(&self.playground.path("fast-disks"), &self.fast_oid)
            ),
            &format!(
                r#"[source]
conninfo = "{conninfo}"
passfile = "{passfile}"

[method.yesterday]
plugin = "../plugins/tarball.wasm"
options = {{ directory = "{empty}" }}
grants = {{ read = ["{empty}"] }}

[method.tarball]
options = {{ directory = "{backups}/latest" }}
grants = {{ read = ["{backups}"] }}

[method.basebackup.options]
checkpoint = "fast"

[method.curious]
plugin = "../plugins/hostile.wasm"
options = {{ behave = "read-outside", path = "{passfile}" }}"#,
                conninfo = self.primary.conninfo(),
                empty = self.empty.display(),
                backups = self.backups.display(),
            ),
        )?;
        Ok(replica)
    }

    /// Starts the replica, and shows that the replica streams.
    fn start_and_stream(&self, replica: &ReplicaFolder) -> Result<()> {
        let server = PostgresServer::start(&self.playground, &replica.datadir(), "hot_standby = on")?;
        let name = format!("c{}", server.port());
        let streaming = format!("SELECT state FROM pg_stat_replication WHERE application_name = '{name}'");
        self.primary.wait_for(&streaming, "streaming")?;
        let columns = "application_name, state, sent_lsn, replay_lsn";
        let row = self
            .primary
            .psql(&format!("SELECT {columns} FROM pg_stat_replication WHERE application_name = '{name}'"))?;
        println!("    pg_stat_replication: {row}");
        let id = server.port();
        self.primary.psql(&format!("INSERT INTO parcels VALUES (-{id}, 'written now')"))?;
        server.wait_for(&format!("SELECT body FROM parcels WHERE id = -{id}"), "written now")?;
        println!("    a row written now has arrived");
        let sum = "SELECT count(*), sum(hashtext(body)) FROM letters";
        let (here, there) = (server.psql(sum)?, self.primary.psql(sum)?);
        ensure!(here == there, "the replica holds {here}, the primary {there}");
        println!("    both hold the same rows: {here}");
        server.stop()
    }
}

/// Runs `understudy create`, prints its output and the attempts from its report, and checks both.
fn create(replica: &ReplicaFolder, code: i32, expected: &[(&str, &str)]) -> Result<Value> {
    println!("    $ understudy create --config understudy.toml --report report.json");
    let ended = replica.create(&[])?;
    for line in ended.output.lines() {
        println!("    | {line}");
    }
    ensure!(ended.code() == Some(code), "understudy ended with {}, expected exit code {code}", ended.status);
    ensure!(ended.attempts() == expected, "the report says {:?}, expected {expected:?}", ended.attempts());
    println!("    the report: {:?}", ended.attempts());
    Ok(ended.report)
}
