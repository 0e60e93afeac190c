//! A primary, its backup in the directories of a replica, and calls to the seal.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use replica::Rule;
use replica::datadir::DataDirectory;
use replica::outcome::Finding;
use replica::seal::{EndState, SealError, Standby, seal};
use replica::source::{Conninfo, SourceConfig};
use replica::{Directories, Plan, Request, SealRequests, Source, TablespaceKey, TablespaceMap};
use tests::primary::Primary;
use tests::server::{BIN_DIR, Playground, PostgresServer, free_port, run};
use tokio_util::sync::CancellationToken;

/// The environment variable with the folder that a child run of this program must seal.
pub(crate) const SEAL_ONLY: &str = "UNDERSTUDY_TEST_SEALS";

/// Runs `test` as the server's user. `name` is the name of the test.
pub(crate) fn as_server_user(name: &str, test: fn()) {
    if !rustix::process::geteuid().is_root() {
        return test();
    }
    let playground = Playground::new("seal").unwrap();
    let output = rerun(&playground, name).output().unwrap();
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Returns a command that runs one test of this program as the server's user. The command runs a copy of the program, because that user
/// may not be able to read the build folder.
pub(crate) fn rerun(playground: &Playground, name: &str) -> Command {
    let program = playground.path("tests");
    if !program.exists() {
        // A separate process copies the file. If this process copied it, a child forked at the same time would inherit the open
        // descriptor, and Linux does not execute a file that is open for writing (ETXTBSY).
        run(Command::new("/bin/cp").arg(std::env::current_exe().unwrap()).arg(&program)).unwrap();
    }
    let mut command = playground.user().command(&program);
    command.args(["--exact", name, "--nocapture", "--include-ignored"]);
    command
}

/// A primary and the directories of a replica: a data directory, a WAL directory, and a directory for the tablespace `fast`.
pub(crate) struct Scene {
    pub(crate) primary: Primary,
    pub(crate) root: PathBuf,
    pub(crate) directories: Arc<Directories>,
}

/// The arguments for the seal, which a test may change.
pub(crate) struct SealInput {
    pub(crate) bin_dir: PathBuf,
    pub(crate) source: Option<Arc<Source>>,
    pub(crate) plan: Plan,
    pub(crate) filled: SealRequests,
    pub(crate) end: EndState,
}

impl Scene {
    pub(crate) fn new(name: &str) -> Self {
        let primary = Primary::start(name, 100).unwrap();
        let root = primary.playground.directory("replica").unwrap();
        let fast = primary.tablespace();
        let directories = directories(&root, fast);
        Self { primary, root, directories }
    }

    /// Creates the scene, and fills the directories with a backup by pg_basebackup.
    pub(crate) fn with_basebackup(name: &str) -> Self {
        let scene = Self::new(name);
        scene.basebackup(&scene.primary.server);
        scene
    }

    pub(crate) fn basebackup(&self, from: &PostgresServer) {
        for place in ["main", "wal", "fast"] {
            let _ = fs::remove_dir_all(self.at(place));
            fs::create_dir(self.at(place)).unwrap();
            fs::set_permissions(self.at(place), fs::Permissions::from_mode(0o700)).unwrap();
        }
        run(from
            .client("pg_basebackup")
            .args(["--format=plain", "--checkpoint=fast", "--no-sync", "--wal-method=stream", "--pgdata"])
            .arg(self.main())
            .arg("--waldir")
            .arg(self.at("wal"))
            .arg(format!(
                "--tablespace-mapping={}={}",
                self.primary.tablespace().display(),
                self.at("fast").display()
            )))
        .unwrap();
    }

    /// Creates the scene with an unpacked tar backup: no links, a tablespace_map, the WAL in its mapped directory.
    pub(crate) fn with_tar_backup(name: &str) -> Self {
        let scene = Self::new(name);
        let backup = scene.primary.tar_backup("tar", &["--no-manifest"]).unwrap();
        let unpack = |tar: &Path, to: &Path| {
            fs::create_dir_all(to).unwrap();
            run(Command::new("/bin/tar").arg("--extract").arg("--file").arg(tar).arg("--directory").arg(to))
                .unwrap();
        };
        for entry in fs::read_dir(&backup).unwrap() {
            let tar = entry.unwrap().path();
            match tar.file_name().unwrap().to_str().unwrap() {
                "base.tar" => unpack(&tar, &scene.main()),
                "pg_wal.tar" => unpack(&tar, &scene.at("wal")),
                _ => unpack(&tar, &scene.at("fast")),
            }
        }
        // A mapped WAL directory with content is accepted only if it contains this folder. A real run accepts it while it is empty.
        fs::create_dir_all(scene.at("wal/archive_status")).unwrap();
        scene
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(crate) fn main(&self) -> PathBuf {
        self.at("main")
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.main().join(name), text).unwrap();
    }

    pub(crate) fn append(&self, name: &str, text: &str) {
        let before = fs::read_to_string(self.main().join(name)).unwrap_or_default();
        self.write(name, &(before + text));
    }

    pub(crate) fn given(&self) -> SealInput {
        SealInput {
            bin_dir: BIN_DIR.into(),
            source: Some(Arc::new(self.source(&self.primary.server))),
            plan: Plan::default(),
            filled: SealRequests::default(),
            end: EndState {
                configure_standby: Some(Standby {
                    conninfo: self.primary.server.conninfo(),
                    passfile: Some(self.primary.playground.path("pgpass")),
                }),
                ..EndState::default()
            },
        }
    }

    pub(crate) fn source(&self, server: &PostgresServer) -> Source {
        let passfile = self.primary.playground.path(&format!("pgpass-{}", server.port()));
        server.passfile(&passfile).unwrap();
        let config = SourceConfig {
            conninfo: Conninfo::parse(&server.conninfo()).unwrap(),
            password: None,
            passfile: Some(passfile),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let secrets = self.primary.playground.path("secrets");
        let source = runtime
            .block_on(Source::connect(&config, Path::new(BIN_DIR), &secrets, &CancellationToken::new()))
            .unwrap();
        assert!(source.facts.is_ok(), "{:?}", source.facts);
        source
    }

    pub(crate) fn seal(&self, change: impl FnOnce(&mut SealInput)) -> Result<Vec<Finding>, SealError> {
        let mut given = self.given();
        change(&mut given);
        run_seal(&self.directories, &self.primary.playground.path("state"), given)
    }

    /// Checks that the seal fails this check, and that PostgreSQL does not start from the directory.
    pub(crate) fn fails(&self, check: &str, message: &str, change: impl FnOnce(&mut SealInput)) {
        let failed = self.seal(change).unwrap_err();
        assert_eq!(failed.check.map(Rule::word), Some(check), "{failed}");
        assert!(failed.message.contains(message), "{failed}");
        self.assert_does_not_start();
    }

    pub(crate) fn assert_does_not_start(&self) {
        assert!(!self.main().join("global/pg_control").exists());
        let output = self
            .primary
            .playground
            .user()
            .command("/usr/bin/timeout")
            .arg("20")
            .arg(Path::new(BIN_DIR).join("postgres"))
            .arg("-D")
            .arg(self.main())
            .args([
                "-c",
                "listen_addresses=",
                "-c",
                &format!("unix_socket_directories={}", self.root.display()),
            ])
            .args(["-c", &format!("port={}", free_port().unwrap())])
            .output()
            .unwrap();
        assert!(!output.status.success());
        let said = String::from_utf8_lossy(&output.stderr);
        // PostgreSQL may stop before it reads pg_control, because of an error in its configuration or directory.
        assert!(!said.contains("ready to accept") && !said.contains("entering standby"), "{said}");
    }

    /// Starts the replica, and waits until it has replayed new rows of the primary in both tablespaces.
    pub(crate) fn streams(&self) -> PostgresServer {
        let standby = PostgresServer::start(&self.primary.playground, &self.main(), "").unwrap();
        standby.wait_for("SELECT pg_is_in_recovery()", "t").unwrap();
        self.primary
            .server
            .psql("INSERT INTO letters VALUES (-1, 'new'); INSERT INTO parcels VALUES (-1, 'new')")
            .unwrap();
        for table in ["letters", "parcels"] {
            standby.wait_for(&format!("SELECT body FROM {table} WHERE id = -1"), "new").unwrap();
        }
        standby
    }

    pub(crate) fn mode(&self, name: &str) -> u32 {
        fs::metadata(self.main().join(name)).unwrap().mode() & 0o777
    }
}

pub(crate) fn directories(root: &Path, fast: PathBuf) -> Arc<Directories> {
    Arc::new(Directories {
        datadir: root.join("main"),
        wal: Some(root.join("wal")),
        tablespaces: TablespaceMap::new(vec![(TablespaceKey::Location(fast), root.join("fast"))]),
    })
}

pub(crate) fn run_seal(
    directories: &Arc<Directories>,
    state_dir: &Path,
    given: SealInput,
) -> Result<Vec<Finding>, SealError> {
    let directory = Arc::new(DataDirectory::acquire(directories, state_dir, true).unwrap());
    let request = Request {
        context: None,
        keep_data: false,
        directories: directories.clone(),
        bin_dir: given.bin_dir,
        source: given.source,
        directory: Some(directory.clone()),
    };
    let sealed =
        seal(&directory, &request, &given.plan, &given.filled, &given.end, &CancellationToken::new());
    sealed.map(|sealed| sealed.findings)
}

pub(crate) fn has_finding(findings: &[Finding], text: &str) -> bool {
    findings.iter().any(|finding| finding.message.contains(text))
}
