//! Real PostgreSQL servers: each with a folder and a port of its own on loopback, stopped when it goes out of scope.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};

use crate::user::ServerUser;

/// Where Debian's packages put PostgreSQL's programs.
pub const BIN_DIR: &str = "/usr/lib/postgresql/15/bin";

/// Where servers of the tests listen: above what needs root, below what Linux gives to outgoing connections
/// (`net.ipv4.ip_local_port_range`).
const PORTS: Range<u16> = 15_000..32_000;

/// The password of the role `replicator`, which every server here has. It must never be seen in a log, an argument or a report.
pub const REPLICATOR_PASSWORD: &str = "s3cr:et\\of the replica";

/// A folder that belongs to the server's user: a temporary one, removed at the end, or one that stays.
#[derive(Debug)]
pub struct Playground {
    folder: PathBuf,
    user: ServerUser,
    bin_dir: PathBuf,
    /// Removes the folder when it goes.
    _temporary: Option<tempfile::TempDir>,
}

impl Playground {
    /// A new folder below the system's temporary one.
    ///
    /// # Errors
    /// Those of mkdir and chown.
    pub fn new(name: &str) -> Result<Self> {
        let temporary = tempfile::Builder::new().prefix(&format!("understudy-{name}-")).tempdir()?;
        let user = ServerUser::find()?;
        user.own(temporary.path())?;
        let folder = temporary.path().to_owned();
        Ok(Self { folder, user, bin_dir: BIN_DIR.into(), _temporary: Some(temporary) })
    }

    /// A folder that stays, made where it is missing.
    ///
    /// # Errors
    /// Those of mkdir and chown.
    pub fn kept(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("mkdir {}", folder.display()))?;
        let user = ServerUser::find()?;
        user.own(folder)?;
        Ok(Self { folder: folder.to_owned(), user, bin_dir: BIN_DIR.into(), _temporary: None })
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Where the programs of the PostgreSQL are that everything in the folder is of: [`BIN_DIR`] where nothing else is said.
    pub fn bin_dir(&self) -> &Path {
        &self.bin_dir
    }

    /// Has everything that is made from now on be of the PostgreSQL whose programs are here.
    pub fn uses(&mut self, bin_dir: PathBuf) {
        self.bin_dir = bin_dir;
    }

    /// A new directory in the folder (0700), the user's.
    ///
    /// # Errors
    /// Those of mkdir and chown.
    pub fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.path(name);
        self.user.directory(&path)?;
        Ok(path)
    }

    /// The user that everything in it belongs to.
    pub fn user(&self) -> ServerUser {
        self.user
    }
}

/// A running PostgreSQL server.
#[derive(Debug)]
pub struct PostgresServer {
    datadir: PathBuf,
    port: u16,
    user: ServerUser,
    bin_dir: PathBuf,
    sockets: PathBuf,
}

impl PostgresServer {
    /// Makes a new cluster in `<playground>/<name>` with data checksums, a superuser `postgres` without a password on loopback
    /// and a role `replicator` with [`REPLICATOR_PASSWORD`] (scram), and starts it.
    ///
    /// # Errors
    /// What initdb or the server say.
    pub fn init(playground: &Playground, name: &str) -> Result<Self> {
        let user = playground.user();
        let datadir = playground.path(name);
        run(user.command(playground.bin_dir().join("initdb")).args([
            "--username=postgres",
            "--auth=trust",
            "--no-sync",
            "--data-checksums",
            "--encoding=UTF8",
            "--locale=C",
            "--pgdata",
            &datadir.display().to_string(),
        ]))?;
        user.write(
            &datadir.join("pg_hba.conf"),
            "local all postgres trust\nhost all postgres 127.0.0.1/32 trust\n\
             host replication replicator 127.0.0.1/32 scram-sha-256\nhost replication postgres 127.0.0.1/32 trust\n",
        )?;
        let server = Self::start(playground, &datadir, "wal_level = replica\nmax_wal_senders = 10\n")?;
        server.psql("CREATE EXTENSION amcheck")?;
        server.psql(&format!("CREATE ROLE replicator LOGIN REPLICATION PASSWORD '{REPLICATOR_PASSWORD}'"))?;
        Ok(server)
    }

    /// Starts a server on an existing data directory, with further settings on its command line, and waits until it takes
    /// connections.
    ///
    /// # Errors
    /// The end of the server's log, where it does not come up within a minute.
    pub fn start(playground: &Playground, datadir: &Path, settings: &str) -> Result<Self> {
        let user = playground.user();
        let port = free_port()?;
        let sockets = playground.path(&format!("sockets-{port}"));
        user.directory(&sockets)?;
        let log = playground.path(&format!("log-{port}"));
        let mut options = format!(
            "-c port={port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={} -c fsync=off -c cluster_name=c{port}",
            sockets.display()
        );
        for (name, value) in settings.lines().filter_map(|line| line.split_once('=')) {
            write!(options, " -c {}={}", name.trim(), value.trim())?;
        }
        let started = user
            .command(playground.bin_dir().join("pg_ctl"))
            .args(["start", "--wait", "--timeout=60", "--silent", "--pgdata"])
            .arg(datadir)
            .arg("--log")
            .arg(&log)
            .arg("--options")
            .arg(&options)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status()?;
        let bin_dir = playground.bin_dir().to_owned();
        let server = Self { datadir: datadir.to_owned(), port, user, bin_dir, sockets };
        ensure!(started.success(), "PostgreSQL on {} did not start:\n{}", datadir.display(), tail(&log));
        Ok(server)
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The directory that its Unix socket is in.
    pub fn sockets(&self) -> &Path {
        &self.sockets
    }

    /// The data directory.
    pub fn datadir(&self) -> &Path {
        &self.datadir
    }

    /// The connection string of the role `replicator`, without its password.
    pub fn conninfo(&self) -> String {
        format!("host=127.0.0.1 port={} user=replicator", self.port)
    }

    /// Writes a passfile with the password of `replicator`, the server user's, 0600.
    ///
    /// # Errors
    /// Those of write and chmod.
    pub fn passfile(&self, path: &Path) -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let password = REPLICATOR_PASSWORD.replace('\\', "\\\\").replace(':', "\\:");
        self.user.write(path, &format!("127.0.0.1:{}:*:replicator:{password}\n", self.port))?;
        Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?)
    }

    /// Runs SQL as `postgres` in the database `postgres`; gives what it prints, unaligned, without a header.
    ///
    /// # Errors
    /// What psql says.
    pub fn psql(&self, sql: &str) -> Result<String> {
        let output = run(self.user.command(self.bin_dir.join("psql")).args([
            "--no-psqlrc",
            "--quiet",
            "--tuples-only",
            "--no-align",
            "--set=ON_ERROR_STOP=1",
            "--host",
            &self.sockets.display().to_string(),
            "--port",
            &self.port.to_string(),
            "--username=postgres",
            "--dbname=postgres",
            "--command",
            sql,
        ]))?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Waits until a query answers `expected`, at most a minute.
    ///
    /// # Errors
    /// The last answer, where that time passes.
    pub fn wait_for(&self, sql: &str, expected: &str) -> Result<()> {
        let begun = std::time::Instant::now();
        loop {
            let answer = self.psql(sql).unwrap_or_else(|error| format!("{error:#}"));
            if answer == expected {
                return Ok(());
            }
            ensure!(begun.elapsed().as_secs() < 60, "`{sql}` still answers `{answer}`, not `{expected}`");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    /// A command of PostgreSQL's (such as `pg_basebackup`), as the server's user, with host, port and user `postgres`.
    pub fn client(&self, program: &str) -> std::process::Command {
        let mut command = self.user.command(self.bin_dir.join(program));
        command.args(["--host=127.0.0.1", "--username=postgres", &format!("--port={}", self.port)]);
        command
    }

    /// Stops it as a clean shutdown.
    ///
    /// # Errors
    /// Where pg_ctl fails.
    pub fn stop(&self) -> Result<()> {
        self.end("fast")
    }

    /// Stops it as a crash would.
    ///
    /// # Errors
    /// Where pg_ctl fails.
    pub fn crash(&self) -> Result<()> {
        self.end("immediate")
    }

    fn end(&self, mode: &str) -> Result<()> {
        run(self
            .user
            .command(self.bin_dir.join("pg_ctl"))
            .args(["stop", "--wait", "--silent", "--mode", mode, "--pgdata"])
            .arg(&self.datadir))?;
        Ok(())
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        if self.datadir.join("postmaster.pid").exists() {
            // Its folder is about to be removed; what could fail here has no one to tell.
            let _ = self.end("immediate");
        }
    }
}

/// Runs a command to its end.
///
/// # Errors
/// What it printed, where it fails.
pub fn run(command: &mut std::process::Command) -> Result<Output> {
    let output = command.output().with_context(|| format!("{:?} does not run", command.get_program()))?;
    ensure!(
        output.status.success(),
        "{:?} {}: {}{}",
        command.get_program(),
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output)
}

/// A port of 127.0.0.1 that nobody listens on, and that no other test is given while this process lives.
///
/// It lies below those that the kernel gives to outgoing connections: one of these could take it before the server does
/// that it is for. Other tests keep off because the UDP port of the same number is bound here.
///
/// # Errors
/// Where there is none.
pub fn free_port() -> Result<u16> {
    static TAKEN: Mutex<Vec<UdpSocket>> = Mutex::new(Vec::new());
    for _ in 0..1000 {
        let port = fastrand::u16(PORTS);
        let Ok(taken) = UdpSocket::bind((Ipv4Addr::LOCALHOST, port)) else { continue };
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            TAKEN.lock().unwrap_or_else(PoisonError::into_inner).push(taken);
            return Ok(port);
        }
    }
    bail!("no port of 127.0.0.1 from {} to {} is free", PORTS.start, PORTS.end)
}

/// The last lines of a file, for an error.
pub(crate) fn tail(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(20).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
