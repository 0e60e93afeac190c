//! Tests of `basebackup` against a real primary: loop rules 3, 18 to 21 and 27.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use replica::Secret;
use replica::basebackup::{Basebackup, BasebackupOptions};
use replica::datadir::DataDirectory;
use replica::process::GuardExecutable;
use replica::seal::UNFINISHED_CONTROL_FILE;
use replica::source::{Conninfo, SourceConfig};
use replica::{
    Directories, Event, Method, Outcome, Plan, Request, Rule, Run, Source, TablespaceKey, TablespaceMap,
};
use tests::primary::Primary;
use tests::server::{BIN_DIR, Playground, PostgresServer, REPLICATOR_PASSWORD, run};
use tokio_util::sync::CancellationToken;

/// The folder of a replica that a test creates.
struct Replica {
    folder: tempfile::TempDir,
    directories: Arc<Directories>,
}

impl Replica {
    /// Creates the folder, with a WAL directory and a directory for the primary's tablespace. `key` is the tablespace's key in the map.
    fn mapped_by(key: TablespaceKey) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["data", "wal", "fast", "state", "run"] {
            let path = folder.path().join(name);
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        }
        let directories = Directories {
            datadir: folder.path().join("data"),
            wal: Some(folder.path().join("wal")),
            tablespaces: TablespaceMap::new(vec![(key, folder.path().join("fast"))]),
        };
        Self { folder, directories: Arc::new(directories) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn datadir(&self) -> &Path {
        &self.directories.datadir
    }

    async fn source(&self, primary: &Primary) -> Arc<Source> {
        let config = SourceConfig {
            conninfo: Conninfo::parse(&primary.server.conninfo()).unwrap(),
            password: Some(Secret::new(REPLICATOR_PASSWORD)),
            passfile: None,
        };
        let cancel = CancellationToken::new();
        Arc::new(Source::connect(&config, Path::new(BIN_DIR), &self.path("run"), &cancel).await.unwrap())
    }

    fn request(&self, source: Option<Arc<Source>>) -> Request {
        let directory = DataDirectory::acquire(&self.directories, &self.path("state"), true).unwrap();
        Request {
            context: None,
            keep_data: false,
            directories: self.directories.clone(),
            bin_dir: BIN_DIR.into(),
            source,
            directory: Some(Arc::new(directory)),
        }
    }

    /// Returns the entries of the data directory and of the mapped directories.
    fn contents(&self) -> Vec<PathBuf> {
        let entries = ["data", "wal", "fast"].map(|name| fs::read_dir(self.path(name)).unwrap());
        entries.into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
    }
}

fn by_location(primary: &Primary) -> Replica {
    Replica::mapped_by(TablespaceKey::Location(primary.tablespace()))
}

fn basebackup(options: &str) -> Basebackup {
    let options: BasebackupOptions = serde_json::from_str(options).unwrap();
    Basebackup::new(options, GuardExecutable::at(env!("CARGO_BIN_EXE_guard"))).pause(Duration::ZERO)
}

/// A run whose events are recorded.
struct Watched {
    run: Run,
    cancel: CancellationToken,
    events: Arc<Mutex<Vec<Event>>>,
}

fn watched(on_event: impl Fn(&Event, &CancellationToken) + Send + Sync + 'static) -> Watched {
    let events = Arc::new(Mutex::new(Vec::new()));
    let cancel = CancellationToken::new();
    let (sink, token) = (events.clone(), cancel.clone());
    let emit = move |event: Event| {
        on_event(&event, &token);
        sink.lock().unwrap().push(event);
    };
    Watched { run: Run::new("basebackup", cancel.clone(), Arc::new(emit)), cancel, events }
}

impl Watched {
    fn lines(&self, of: &str) -> Vec<String> {
        let events = self.events.lock().unwrap();
        let lines = events.iter().filter_map(|event| match event {
            Event::Log { origin, message, .. } if origin == of => Some(message.clone()),
            _ => None,
        });
        lines.collect()
    }

    /// Returns the bytes and the expected bytes of each progress event.
    fn progress(&self) -> Vec<(u64, Option<u64>)> {
        let events = self.events.lock().unwrap();
        let progress = events.iter().filter_map(|event| match event {
            Event::Progress { bytes, bytes_expected, .. } => Some((*bytes, *bytes_expected)),
            _ => None,
        });
        progress.collect()
    }
}

/// Returns the arguments of every running process.
fn arguments_of_all() -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let arguments = processes.map(|process| fs::read(process.join("cmdline")).unwrap_or_default());
    arguments.map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " ")).collect()
}

/// Returns the number of processes with `datadir` as their `--pgdata`.
fn writers(datadir: &Path) -> usize {
    let pgdata = format!("--pgdata={}", datadir.display());
    arguments_of_all().iter().filter(|arguments| arguments.contains(&pgdata)).count()
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_18_a_replica_is_copied_into_every_mapped_directory() {
    let primary = Primary::start("basebackup", 2000).unwrap();
    let replica = by_location(&primary);
    let source = replica.source(&primary).await;
    let passfile = source.passfile().unwrap().to_owned();
    let request = replica.request(Some(source));
    // A try begins with an empty directory.
    fs::write(replica.datadir().join("left over"), "").unwrap();
    let method = basebackup(r#"{"checkpoint": "fast", "verbose": true}"#);
    let watched = watched(|_, _| {});
    method.preflight(&request).await.unwrap();
    let plan = method.plan(&request, &watched.run).await.unwrap();
    let identifier = primary.server.psql("SELECT system_identifier FROM pg_control_system()").unwrap();
    assert_eq!(plan.system_identifier.map(|known| known.to_string()), Some(identifier));
    assert_eq!((plan.postgresql_major, plan.timeline), (Some(15), Some(1)));
    assert_eq!((plan.bytes, plan.builds_on_existing, &plan.tablespaces[..]), (None, false, &[][..]));
    method.create(&request, &plan, &watched.run).await.unwrap();

    assert!(!replica.datadir().join("left over").exists());
    assert_eq!(fs::read_link(replica.datadir().join("pg_wal")).unwrap(), replica.path("wal"));
    let links: Vec<_> = fs::read_dir(replica.datadir().join("pg_tblspc"))
        .unwrap()
        .map(|entry| fs::read_link(entry.unwrap().path()).unwrap())
        .collect();
    assert_eq!(links, [replica.path("fast")]);
    assert_eq!(fs::read_dir(replica.path("fast")).unwrap().count(), 1);
    // Only the seal renames pg_control to the name under which PostgreSQL finds it.
    let control_file = replica.datadir().join("global/pg_control");
    assert!(!control_file.exists());
    fs::rename(replica.datadir().join(UNFINISHED_CONTROL_FILE), control_file).unwrap();
    run(Command::new(Path::new(BIN_DIR).join("pg_verifybackup")).arg(replica.datadir())).unwrap();

    let progress = watched.progress();
    let (done, expected) = progress.last().unwrap();
    assert!(*done >= expected.unwrap() && expected.unwrap() > 1 << 20, "{progress:?}");
    assert!(progress.is_sorted());
    let lines = watched.lines("pg_basebackup");
    assert!(lines.iter().any(|line| line.contains("base backup completed")), "{lines:?}");
    assert!(!lines.iter().any(|line| line.contains(" kB (")), "progress was logged: {lines:?}");
    drop(request);
    assert!(!passfile.exists());
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_20_a_tablespace_is_mapped_by_its_name_if_the_source_reports_the_name() {
    let primary = Primary::start("basebackup", 100).unwrap();
    let replica = Replica::mapped_by(TablespaceKey::Name("fast".to_owned()));
    let conninfo = format!("host=127.0.0.1 port={} user=postgres", primary.server.port());
    let config =
        SourceConfig { conninfo: Conninfo::parse(&conninfo).unwrap(), password: None, passfile: None };
    let cancel = CancellationToken::new();
    let source = Source::connect(&config, Path::new(BIN_DIR), &replica.path("run"), &cancel).await.unwrap();
    let request = replica.request(Some(Arc::new(source)));
    let (method, watched) = (basebackup(r#"{"checkpoint": "fast"}"#), watched(|_, _| {}));
    let plan = method.plan(&request, &watched.run).await.unwrap();
    assert_eq!(plan.tablespaces[0].location, primary.tablespace());
    method.create(&request, &plan, &watched.run).await.unwrap();
    assert_eq!(fs::read_dir(replica.path("fast")).unwrap().count(), 1);
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_23_a_data_directory_that_is_a_link_is_filled_at_its_target() {
    let primary = Primary::start("basebackup", 100).unwrap();
    let mut replica = by_location(&primary);
    let link = replica.path("link");
    std::os::unix::fs::symlink(replica.path("data"), &link).unwrap();
    replica.directories = Arc::new(Directories { datadir: link.clone(), ..(*replica.directories).clone() });
    let request = replica.request(Some(replica.source(&primary).await));
    let (method, watched) = (basebackup(r#"{"checkpoint": "fast"}"#), watched(|_, _| {}));
    let plan = method.plan(&request, &watched.run).await.unwrap();
    method.create(&request, &plan, &watched.run).await.unwrap();
    assert!(replica.path("data").join("PG_VERSION").exists());
    assert!(link.symlink_metadata().unwrap().is_symlink());
}

/// Creates a folder with a `pg_basebackup` that fails until the file `allow` exists in it, and runs the real one after that.
fn failing_at_first() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("pg_basebackup");
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = --version ] && exec {BIN_DIR}/pg_basebackup --version\n\
         [ -e {folder}/allow ] && exec {BIN_DIR}/pg_basebackup \"$@\"\n\
         mkdir \"${{1#--pgdata=}}/base\"\necho 'pg_basebackup: error: injected' >&2\nexit 7\n",
        folder = folder.path().display()
    );
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_18_a_second_try_starts_in_an_empty_directory_and_can_succeed() {
    let primary = Primary::start("basebackup", 100).unwrap();
    let replica = by_location(&primary);
    let bin_dir = failing_at_first();
    let request =
        Request { bin_dir: bin_dir.path().into(), ..replica.request(Some(replica.source(&primary).await)) };
    let allow = bin_dir.path().join("allow");
    let watched = watched(move |event, _| {
        if matches!(event, Event::Log { message, .. } if message.starts_with("trying again")) {
            fs::write(&allow, "").unwrap();
        }
    });
    let method = basebackup(r#"{"checkpoint": "fast"}"#);
    let plan = method.plan(&request, &watched.run).await.unwrap();
    method.create(&request, &plan, &watched.run).await.unwrap();
    assert!(replica.datadir().join("PG_VERSION").exists());
    let logged = watched.lines("host");
    assert!(
        logged[0].contains("not compared with the map"),
        "a role that may only replicate cannot read the tablespaces: {logged:?}"
    );
    assert_eq!(
        logged[1..],
        ["pg_basebackup exited with code 7: pg_basebackup: error: injected", "trying again in 0 seconds"]
    );
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_18_basebackup_fails_after_two_tries_and_leaves_nothing() {
    let primary = Primary::start("basebackup", 1).unwrap();
    let replica = by_location(&primary);
    let bin_dir = failing_at_first();
    let request =
        Request { bin_dir: bin_dir.path().into(), ..replica.request(Some(replica.source(&primary).await)) };
    let (method, watched) = (basebackup("{}"), watched(|_, _| {}));
    let plan = method.plan(&request, &watched.run).await.unwrap();
    let failure = method.create(&request, &plan, &watched.run).await.unwrap_err();
    assert_eq!(failure.outcome, Outcome::Failed);
    assert_eq!(failure.message, "pg_basebackup exited with code 7: pg_basebackup: error: injected");
    assert_eq!(watched.lines("pg_basebackup").len(), 2);
    assert!(replica.contents().is_empty(), "{:?}", replica.contents());
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_18_the_pause_between_tries_ends_at_once_on_cancel() {
    let primary = Primary::start("basebackup", 1).unwrap();
    let replica = by_location(&primary);
    let bin_dir = failing_at_first();
    let request =
        Request { bin_dir: bin_dir.path().into(), ..replica.request(Some(replica.source(&primary).await)) };
    let cancelled_at = Arc::new(Mutex::new(None));
    let set = cancelled_at.clone();
    let watched = watched(move |event, cancel| {
        if matches!(event, Event::Log { message, .. } if message == "trying again in 600 seconds") {
            *set.lock().unwrap() = Some(Instant::now());
            cancel.cancel();
        }
    });
    let method = basebackup("{}").pause(Duration::from_secs(600));
    let plan = method.plan(&request, &watched.run).await.unwrap();
    let failure = method.create(&request, &plan, &watched.run).await.unwrap_err();
    assert_eq!(failure.outcome, Outcome::Cancelled);
    assert!(cancelled_at.lock().unwrap().unwrap().elapsed() < Duration::from_millis(250));
    assert_eq!(watched.lines("pg_basebackup").len(), 1);
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn a_source_that_has_stopped_fails_the_plan_and_nothing_is_touched() {
    let primary = Primary::start("basebackup", 1).unwrap();
    let replica = by_location(&primary);
    primary.server.stop().unwrap();
    let request = replica.request(Some(replica.source(&primary).await));
    fs::write(replica.datadir().join("old"), "").unwrap();
    let failure = basebackup("{}").plan(&request, &watched(|_, _| {}).run).await.unwrap_err();
    assert_eq!(failure.outcome, Outcome::Failed);
    assert!(failure.message.contains("Connection refused"), "{}", failure.message);
    assert!(replica.datadir().join("old").exists());
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_20_preflight_refuses_an_option_that_is_not_allowed_with_the_reason() {
    let primary = Primary::start("basebackup", 1).unwrap();
    let replica = by_location(&primary);
    let request = replica.request(Some(replica.source(&primary).await));
    for (options, said) in [
        (r#"["form=t"]"#, "`form`, which is `format`, is not allowed"),
        (r#"{"max-rate": "1"}"#, "transfer rate"),
        (r#"{"checkpoint": "now"}"#, "checkpoint"),
        (r#"{"compress": "gzip"}"#, "server-side compression"),
        (r#"{"waldir": "/elsewhere"}"#, "contradicts the configuration"),
    ] {
        let refusal = basebackup(options).preflight(&request).await.unwrap_err();
        assert_eq!(refusal.rule, Rule::BasebackupOption);
        assert!(refusal.message.contains(said), "{}", refusal.message);
    }
    let same = format!(r#"{{"waldir": "{}"}}"#, replica.path("wal").display());
    basebackup(&same).preflight(&request).await.unwrap();
    let elsewhere = Request { bin_dir: "/nowhere".into(), ..request };
    assert!(
        basebackup("{}").preflight(&elsewhere).await.unwrap_err().message.contains("/nowhere/pg_basebackup")
    );
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_04_basebackup_never_runs_without_a_source() {
    let replica = Replica::mapped_by(TablespaceKey::Oid(1));
    let request = replica.request(None);
    let refusal = basebackup("{}").preflight(&request).await.unwrap_err();
    assert_eq!(refusal.rule, Rule::Source);
    let run = watched(|_, _| {}).run;
    assert_eq!(basebackup("{}").plan(&request, &run).await.unwrap_err().outcome, Outcome::Rejected);
    assert!(basebackup("{}").create(&request, &Plan::default(), &run).await.is_err());
}

#[tokio::test]
#[ignore = "needs servers: cargo xtask test"]
async fn rule_27_a_cancelled_pg_basebackup_leaves_no_process_and_rule_03_no_argument_has_the_password() {
    let primary = Primary::start("basebackup", 20_000).unwrap();
    let replica = by_location(&primary);
    let request = replica.request(Some(replica.source(&primary).await));
    let watched = watched(|_, _| {});
    let method = basebackup(r#"{"max-rate": 32, "checkpoint": "fast"}"#);
    let plan = method.plan(&request, &watched.run).await.unwrap();
    let (datadir, fast, cancel) =
        (replica.datadir().to_owned(), replica.path("fast"), watched.cancel.clone());
    let observer = std::thread::spawn(move || {
        let _cancelled_in_any_case = cancel.clone().drop_guard();
        // pg_basebackup and its child that receives WAL.
        let deadline = Instant::now() + Duration::from_secs(30);
        while writers(&datadir) < 2 || fs::read_dir(&fast).unwrap().count() == 0 {
            assert!(Instant::now() < deadline, "pg_basebackup does not copy");
        }
        let seen: BTreeSet<String> = arguments_of_all().into_iter().collect();
        let environments: Vec<_> = fs::read_dir("/proc")
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|process| {
                let arguments = fs::read(process.join("cmdline")).unwrap_or_default();
                String::from_utf8_lossy(&arguments).contains(&format!("--pgdata={}", datadir.display()))
            })
            .map(|process| fs::read_to_string(process.join("environ")).unwrap())
            .collect();
        let when = Instant::now();
        cancel.cancel();
        (seen, environments, when)
    });
    let failure = method.create(&request, &plan, &watched.run).await.unwrap_err();
    let (seen, environments, when) = observer.join().unwrap();
    assert_eq!(failure.outcome, Outcome::Cancelled);
    assert!(when.elapsed() < Duration::from_secs(3), "{:?}", when.elapsed());
    assert_eq!(writers(replica.datadir()), 0);
    // Another test may be creating its role at this time; then psql's arguments contain the password as part of the SQL.
    let known = |arguments: &&String| !arguments.contains("CREATE ROLE");
    assert!(!seen.iter().filter(known).any(|arguments| arguments.contains(REPLICATOR_PASSWORD)), "{seen:?}");
    let mut names: Vec<_> =
        environments[0].split('\0').filter_map(|one| Some(one.split_once('=')?.0)).collect();
    names.sort_unstable();
    assert_eq!(names, ["LC_ALL", "PATH", "PGPASSFILE"]);
    assert!(!environments.concat().contains(REPLICATOR_PASSWORD));
    assert_eq!(request.directory.as_ref().unwrap().state().record().processes, []);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn rule_27_a_killed_host_leaves_no_pg_basebackup_and_no_wal_receiver() {
    let playground = Playground::new("basebackup").unwrap();
    let server = PostgresServer::init(&playground, "primary").unwrap();
    let replica = Replica::mapped_by(TablespaceKey::Oid(1));
    let mut host = Command::new(env!("CARGO_BIN_EXE_guard"))
        .args([replica.datadir(), &replica.path("state")])
        .arg(Path::new(BIN_DIR).join("pg_basebackup"))
        .arg(format!("--pgdata={}", replica.datadir().display()))
        .args(["-X", "stream", "--max-rate=32", "--checkpoint=fast", "--progress", "--no-password"])
        .arg(format!("--dbname=host=127.0.0.1 port={} user=postgres", server.port()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut said = BufReader::new(host.stdout.take().unwrap());
    said.read_line(&mut line).unwrap();
    assert!(line.starts_with("started "), "{line}");
    let deadline = Instant::now() + Duration::from_secs(30);
    // The host has the same argument as pg_basebackup and its child, so three processes are counted.
    while writers(replica.datadir()) < 3 {
        assert!(Instant::now() < deadline, "pg_basebackup has no child that receives WAL");
        std::thread::sleep(Duration::from_millis(5));
    }
    host.kill().unwrap();
    host.wait().unwrap();
    let killed = Instant::now();
    while writers(replica.datadir()) > 0 {
        assert!(killed.elapsed() < Duration::from_secs(2), "a process still writes");
        std::thread::sleep(Duration::from_millis(5));
    }
}
