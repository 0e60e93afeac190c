//! Queries a real source without showing its secrets: loop rules 3 and 30.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use replica::Secret;
use replica::Source;
use replica::source::{Conninfo, Fork, PassFile, SourceConfig};
use tests::server::{BIN_DIR, Playground, PostgresServer, REPLICATOR_PASSWORD, run};
use tokio_util::sync::CancellationToken;

fn config(conninfo: &str) -> SourceConfig {
    SourceConfig { conninfo: Conninfo::parse(conninfo).unwrap(), password: None, passfile: None }
}

fn with_password(conninfo: &str) -> SourceConfig {
    SourceConfig { password: Some(Secret::new(REPLICATOR_PASSWORD)), ..config(conninfo) }
}

async fn connect(config: &SourceConfig, folder: &Path) -> Source {
    let cancel = CancellationToken::new();
    Source::connect(config, Path::new(BIN_DIR), &folder.join("run"), &cancel).await.unwrap()
}

fn escaped_password() -> String {
    REPLICATOR_PASSWORD.replace('\\', "\\\\").replace(':', "\\:")
}

/// Returns the arguments and the environment of every running psql whose arguments or environment contain `word`.
fn psql_with(word: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap() {
        let process = entry.unwrap().path();
        let read = |file: &str| {
            let bytes = fs::read(process.join(file)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).replace('\0', "\n")
        };
        let (arguments, environment) = (read("cmdline"), read("environ"));
        if arguments.contains("/psql\n") && (arguments.contains(word) || environment.contains(word)) {
            found.push((arguments, environment));
        }
    }
    found
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_03_a_password_reaches_the_source_from_every_setting() {
    let playground = Playground::new("source").unwrap();
    let server = PostgresServer::init(&playground, "primary").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let conninfo = server.conninfo();
    let quoted = REPLICATOR_PASSWORD.replace('\\', "\\\\").replace('\'', "\\'");
    let encoded = REPLICATOR_PASSWORD.replace(':', "%3A").replace('\\', "%5C").replace(' ', "%20");
    let uri = format!("postgresql://replicator:{encoded}@127.0.0.1:{}", server.port());
    let given = folder.path().join("pgpass");
    fs::write(&given, format!("*:*:replication:replicator:{}\n", escaped_password())).unwrap();
    fs::set_permissions(&given, fs::Permissions::from_mode(0o600)).unwrap();
    let by_passfile = SourceConfig { passfile: Some(given.clone()), ..config(&conninfo) };
    let identifier = server.psql("SELECT system_identifier FROM pg_control_system()").unwrap();
    for config in [
        config(&format!("{conninfo} password='{quoted}'")),
        config(&uri),
        with_password(&conninfo),
        with_password(&format!("{conninfo} password=wrong passfile=/nowhere")),
        by_passfile,
        config(&format!("{conninfo} passfile={}", given.display())),
    ] {
        let source = connect(&config, folder.path()).await;
        let facts = source.facts.as_ref().unwrap();
        assert_eq!(facts.system_identifier.to_string(), identifier);
        assert_eq!(facts.server_version / 10_000, 15);
        assert_eq!((facts.timeline, &facts.history[..]), (1, &[][..]));
        assert!(facts.wal_position.0 > 0);
        assert_eq!(facts.tablespaces, None, "a replication role may not connect to a database");
        assert!(!format!("{source:?}").contains(REPLICATOR_PASSWORD));
        assert!(!source.connstring.contains("password"));
    }
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_03_the_passfile_of_a_run_is_private_and_removed_and_a_given_passfile_is_used_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let conninfo = "host=127.0.0.1,localhost port=1 user=replicator";
    let source = connect(&with_password(conninfo), folder.path()).await;
    let Some(PassFile::Made(path)) = &source.passfile else { panic!("{:?}", source.passfile) };
    let path = path.to_path_buf();
    let password = escaped_password();
    assert_eq!(
        fs::read_to_string(&path).unwrap(),
        format!("127.0.0.1:1:*:replicator:{password}\nlocalhost:1:*:replicator:{password}\n")
    );
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o7777, 0o700);
    let second = connect(&with_password(conninfo), folder.path()).await;
    assert_ne!(second.passfile(), Some(path.as_path()), "two runs share a passfile");
    drop(source);
    assert!(!path.exists());
    let given = SourceConfig { passfile: Some("/etc/pgpass".into()), ..config(conninfo) };
    let source = connect(&given, folder.path()).await;
    assert_eq!(source.passfile(), Some(Path::new("/etc/pgpass")));
    assert_eq!(source.connstring, "user=replicator host=127.0.0.1,localhost port=1");
    assert_eq!(source.environment(), [("PGPASSFILE".into(), "/etc/pgpass".into())]);
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn the_error_of_an_unreachable_source_has_the_cause_without_the_password() {
    let playground = Playground::new("source").unwrap();
    let server = PostgresServer::init(&playground, "primary").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let wrong = SourceConfig { password: Some(Secret::new("hunter2")), ..config(&server.conninfo()) };
    let said = connect(&wrong, folder.path()).await.facts.unwrap_err().message;
    assert!(said.contains("password authentication failed") && !said.contains("hunter2"), "{said}");
    let said = connect(&config(&server.conninfo()), folder.path()).await.facts.unwrap_err().message;
    assert!(said.contains("no password supplied"), "{said}");
    let closed = config("host=127.0.0.1 port=1 user=replicator");
    let said = connect(&closed, folder.path()).await.facts.unwrap_err().message;
    assert!(said.contains("127.0.0.1") && said.contains("Connection refused"), "{said}");
    let cancel = CancellationToken::new();
    let source = Source::connect(&closed, Path::new("/nowhere"), folder.path(), &cancel).await.unwrap();
    assert!(source.facts.unwrap_err().message.contains("bin_dir"));
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_30_the_facts_of_a_promoted_source_have_its_timeline_history() {
    let playground = Playground::new("source").unwrap();
    let first = PostgresServer::init(&playground, "primary").unwrap();
    let datadir = first.datadir().to_owned();
    first.stop().unwrap();
    drop(first);
    playground.user().write(&datadir.join("standby.signal"), "").unwrap();
    let server = PostgresServer::start(&playground, &datadir, "max_wal_senders = 10\n").unwrap();
    server.psql("SELECT pg_promote()").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let source = connect(&with_password(&server.conninfo()), folder.path()).await;
    let facts = source.facts.as_ref().unwrap();
    let history = fs::read_to_string(datadir.join("pg_wal/00000002.history")).unwrap();
    let at = history.split_ascii_whitespace().nth(1).unwrap().parse().unwrap();
    assert_eq!((facts.timeline, &facts.history[..]), (2, &[Fork { timeline: 1, at }][..]));
    assert!(facts.contains(1, Some(at)) && !facts.contains(3, None));
    let again = source.ask_again(Path::new(BIN_DIR), &CancellationToken::new()).await.unwrap();
    assert_eq!((again.timeline, &again.history), (2, &facts.history));
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn tablespaces_are_known_if_the_role_may_connect_to_a_database() {
    let playground = Playground::new("source").unwrap();
    let server = PostgresServer::init(&playground, "primary").unwrap();
    let location = playground.directory("a tablespace").unwrap();
    server.psql(&format!("CREATE TABLESPACE \"fast|disks\" LOCATION '{}'", location.display())).unwrap();
    let oid = server.psql("SELECT oid FROM pg_tablespace WHERE spcname LIKE 'fast%'").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let superuser = format!("host=127.0.0.1 port={} user=postgres", server.port());
    for conninfo in [superuser.clone(), format!("{superuser} dbname=template1")] {
        let facts = connect(&config(&conninfo), folder.path()).await.facts.unwrap();
        let [tablespace] = &facts.tablespaces.unwrap()[..] else { panic!("not one tablespace") };
        assert_eq!(tablespace.oid.to_string(), oid);
        assert_eq!(tablespace.name.as_deref(), Some("fast|disks"));
        assert_eq!(tablespace.location, location);
    }
    let none = connect(&config(&format!("{superuser} dbname=nowhere")), folder.path()).await.facts.unwrap();
    assert_eq!(none.tablespaces, None);
}

/// Returns a server that accepts connections and never responds, and its connection string.
fn silent_server() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let conninfo = format!("host=127.0.0.1 port={} user=replicator", listener.local_addr().unwrap().port());
    (listener, conninfo)
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn querying_a_source_that_does_not_answer_ends_after_fifteen_seconds() {
    let (_listener, conninfo) = silent_server();
    let folder = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    let source = connect(&config(&format!("{conninfo} connect_timeout=600")), folder.path()).await;
    let took = begun.elapsed();
    assert_eq!(source.facts.unwrap_err().message, "the source did not answer within 15 s");
    assert!((15..17).contains(&took.as_secs()), "{took:?}");
    let begun = Instant::now();
    let said = connect(&config(&conninfo), folder.path()).await.facts.unwrap_err().message;
    assert!(said.contains("timeout expired"), "{said}");
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn output_and_errors_of_a_source_are_limited_in_size() {
    let folder = tempfile::tempdir().unwrap();
    let bin_dir = folder.path().join("bin");
    fs::create_dir(&bin_dir).unwrap();
    let cancel = CancellationToken::new();
    for (script, said, longest) in [
        ("head -c 5000000 /dev/zero", "the source answered with more than 1048576 bytes", 100),
        ("head -c 5000000 /dev/zero | tr '\\0' x >&2; exit 2", "the source could not be asked: xxx", 2100),
        ("echo $PGPASSFILE >&2; sed 's/.*://' $PGPASSFILE >&2; exit 2", "<secret>", 2100),
    ] {
        fs::write(bin_dir.join("psql"), format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(bin_dir.join("psql"), fs::Permissions::from_mode(0o755)).unwrap();
        let config = config("host=h user=u password=hunter2");
        let source = Source::connect(&config, &bin_dir, &folder.path().join("run"), &cancel).await.unwrap();
        let message = source.facts.unwrap_err().message;
        assert!(message.contains(said) && message.len() < longest, "{message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_03_psql_has_no_password_in_its_arguments_and_no_other_environment() {
    let (_listener, conninfo) = silent_server();
    let folder = tempfile::tempdir().unwrap();
    let runs = folder.path().join("run");
    let secret = "hunter2-in-no-argument";
    let config = config(&format!("{conninfo} password={secret} sslpassword={secret}"));
    let cancel = CancellationToken::new();
    let word = runs.display().to_string();
    let looks = async {
        let found = loop {
            let found = tokio::task::spawn_blocking({
                let word = word.clone();
                move || psql_with(&word)
            });
            if let [found] = &found.await.unwrap()[..] {
                break found.clone();
            }
        };
        let when = Instant::now();
        cancel.cancel();
        (found, when)
    };
    let (source, ((arguments, environment), when)) =
        tokio::join!(Source::connect(&config, Path::new(BIN_DIR), &runs, &cancel), looks);
    assert!(when.elapsed() < Duration::from_millis(250), "{:?}", when.elapsed());
    assert!(!arguments.contains(secret) && !environment.contains(secret), "{arguments}\n{environment}");
    let mut names: Vec<_> = environment.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    names.sort_unstable();
    assert_eq!(names, ["LC_ALL", "PATH", "PGPASSFILE", "PGSERVICEFILE"]);
    let source = source.unwrap();
    assert!(source.facts.as_ref().unwrap_err().message.contains("cancelled"));
    assert!(!source.native_connstring().contains(secret));
    drop(source);
    assert_eq!(fs::read_dir(&runs).unwrap().count(), 0, "files of the run are left");
}

/// Creates a client certificate with an encrypted key, and a server certificate with an unencrypted key.
fn certificates(playground: &Playground, folder: &Path, password: &str) -> [PathBuf; 4] {
    let files = ["server.crt", "server.key"].map(|name| playground.path(name));
    let [certificate, key] = ["client.crt", "client.key"].map(|name| folder.join(name));
    let make = |certificate: &Path, key: &Path, protection: &[&str]| {
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-newkey", "rsa:2048", "-days", "1", "-subj", "/CN=test", "-out"]);
        run(command.arg(certificate).arg("-keyout").arg(key).args(protection)).unwrap();
        fs::set_permissions(key, fs::Permissions::from_mode(0o600)).unwrap();
    };
    make(&files[0], &files[1], &["-nodes"]);
    files.iter().for_each(|file| playground.user().own(file).unwrap());
    make(&certificate, &key, &["-passout", &format!("pass:{password}")]);
    let [server_certificate, server_key] = files;
    [server_certificate, server_key, certificate, key]
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_03_the_password_of_a_client_key_reaches_the_source_by_a_service_file() {
    let playground = Playground::new("source").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let password = "key word";
    let [server_certificate, server_key, certificate, key] =
        certificates(&playground, folder.path(), password);
    let plain = PostgresServer::init(&playground, "primary").unwrap();
    let datadir = plain.datadir().to_owned();
    drop(plain);
    let settings = format!(
        "ssl = on\nssl_cert_file = {}\nssl_key_file = {}\n",
        server_certificate.display(),
        server_key.display()
    );
    let server = PostgresServer::start(&playground, &datadir, &settings).unwrap();
    let conninfo = |password: &str| {
        let (certificate, key) = (certificate.display(), key.display());
        let tls = format!("sslmode=require sslcert={certificate} sslkey={key} sslpassword='{password}'");
        config(&format!("host=127.0.0.1 port={} user=postgres {tls}", server.port()))
    };
    let source = connect(&conninfo(password), folder.path()).await;
    source.facts.as_ref().unwrap();
    assert!(!source.native_connstring().contains("sslpassword"), "{}", source.native_connstring());
    assert!(!source.connstring.contains("service"), "{}", source.connstring);
    let backup = folder.path().join("backup");
    let mut pg_basebackup = Command::new(Path::new(BIN_DIR).join("pg_basebackup"));
    pg_basebackup.arg("--dbname").arg(source.native_connstring()).arg("--pgdata").arg(&backup);
    run(pg_basebackup.args(["--checkpoint=fast", "--no-sync"]).envs(source.environment())).unwrap();
    let said = connect(&conninfo("hunter2"), folder.path()).await.facts.unwrap_err().message;
    assert!(said.contains("could not load private key file") && !said.contains("hunter2"), "{said}");
}
