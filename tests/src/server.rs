//! Real PostgreSQL servers, each with its own folder and its own port on loopback. Dropping a server stops it.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};

use crate::user::ServerUser;

/// The directory where Debian's packages install PostgreSQL's programs.
pub const BIN_DIR: &str = "/usr/lib/postgresql/15/bin";

/// The ports for the tests' servers. They are above the ports that need root, and below the ports that Linux uses for outgoing
/// connections (`net.ipv4.ip_local_port_range`).
const PORTS: Range<u16> = 15_000..32_000;

/// The password of the role `replicator` on every server in these tests. The password must not appear in a log, an argument or a
/// report.
pub const REPLICATOR_PASSWORD: &str = "s3cr:et\\of the replica";

/// A folder that the server's user owns. The folder is either temporary, and removed at the end, or persistent.
#[derive(Debug)]
pub struct Playground {
    folder: PathBuf,
    user: ServerUser,
    bin_dir: PathBuf,
    /// Removes the folder when the playground is dropped.
    _temporary: Option<tempfile::TempDir>,
}

impl Playground {
    /// Creates a folder below the system's temporary directory.
    ///
    /// # Errors
    /// Fails if mkdir or chown fails.
    pub fn new(name: &str) -> Result<Self> {
        let temporary = tempfile::Builder::new().prefix(&format!("understudy-{name}-")).tempdir()?;
        let user = ServerUser::find()?;
        user.own(temporary.path())?;
        let folder = temporary.path().to_owned();
        Ok(Self { folder, user, bin_dir: BIN_DIR.into(), _temporary: Some(temporary) })
    }

    /// Uses a persistent folder. Creates the folder if it is missing.
    ///
    /// # Errors
    /// Fails if mkdir or chown fails.
    pub fn persistent(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("mkdir {}", folder.display()))?;
        let user = ServerUser::find()?;
        user.own(folder)?;
        Ok(Self { folder: folder.to_owned(), user, bin_dir: BIN_DIR.into(), _temporary: None })
    }

    /// Returns a path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Returns the directory with the PostgreSQL programs that the servers and replicas in this folder use. The default is [`BIN_DIR`].
    pub fn bin_dir(&self) -> &Path {
        &self.bin_dir
    }

    /// Makes all servers and replicas that are created from now on use the PostgreSQL programs in `bin_dir`.
    pub fn set_bin_dir(&mut self, bin_dir: PathBuf) {
        self.bin_dir = bin_dir;
    }

    /// Creates a directory (0700) in the folder, owned by the server's user.
    ///
    /// # Errors
    /// Fails if mkdir or chown fails.
    pub fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.path(name);
        self.user.directory(&path)?;
        Ok(path)
    }

    /// Returns the user that owns everything in the folder.
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
    /// Creates a cluster in `<playground>/<name>`, and starts the server. The cluster has data checksums, a superuser `postgres` without
    /// a password, and a role `replicator` with [`REPLICATOR_PASSWORD`] (scram).
    ///
    /// # Errors
    /// Fails if initdb, pg_ctl or psql fails.
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
        // Before PostgreSQL 14, the default of `password_encryption` is md5.
        server.psql(&format!(
            "SET password_encryption = 'scram-sha-256'; CREATE ROLE replicator LOGIN REPLICATION PASSWORD '{REPLICATOR_PASSWORD}'"
        ))?;
        Ok(server)
    }

    /// Starts a server on an existing data directory, with further settings on its command line, and waits until the server accepts
    /// connections.
    ///
    /// # Errors
    /// Fails with the end of the server's log if the server does not accept connections within a minute.
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

    /// Returns the port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the directory of the server's Unix socket.
    pub fn sockets(&self) -> &Path {
        &self.sockets
    }

    /// Returns the data directory.
    pub fn datadir(&self) -> &Path {
        &self.datadir
    }

    /// Returns the connection string of the role `replicator`, without its password.
    pub fn conninfo(&self) -> String {
        format!("host=127.0.0.1 port={} user=replicator", self.port)
    }

    /// Writes a passfile (0600) with the password of `replicator`, owned by the server's user.
    ///
    /// # Errors
    /// Fails if the file cannot be written or its mode cannot be changed.
    pub fn passfile(&self, path: &Path) -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let password = REPLICATOR_PASSWORD.replace('\\', "\\\\").replace(':', "\\:");
        self.user.write(path, &format!("127.0.0.1:{}:*:replicator:{password}\n", self.port))?;
        Ok(std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?)
    }

    /// Runs SQL as `postgres` in the database `postgres`, and returns psql's output, unaligned and without a header.
    ///
    /// # Errors
    /// Fails if psql fails.
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

    /// Waits until the result of a query is `expected`, at most a minute.
    ///
    /// # Errors
    /// Fails with the last result at the timeout.
    pub fn wait_for(&self, sql: &str, expected: &str) -> Result<()> {
        let begun = std::time::Instant::now();
        loop {
            let answer = self.psql(sql).unwrap_or_else(|error| format!("{error:#}"));
            if answer == expected {
                return Ok(());
            }
            ensure!(begun.elapsed().as_secs() < 60, "`{sql}` still returns `{answer}`, not `{expected}`");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    /// Returns a command that runs a PostgreSQL client program, such as `pg_basebackup`, as the server's user. The command has the
    /// server's host and port, and the user `postgres`.
    pub fn client(&self, program: &str) -> std::process::Command {
        let mut command = self.user.command(self.bin_dir.join(program));
        command.args(["--host=127.0.0.1", "--username=postgres", &format!("--port={}", self.port)]);
        command
    }

    /// Stops the server with a clean shutdown.
    ///
    /// # Errors
    /// Fails if pg_ctl fails.
    pub fn stop(&self) -> Result<()> {
        self.end("fast")
    }

    /// Stops the server with `pg_ctl --mode=immediate`, as after a crash.
    ///
    /// # Errors
    /// Fails if pg_ctl fails.
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
            // A destructor cannot report a failure, and the folder is about to be removed.
            let _ = self.end("immediate");
        }
    }
}

/// Runs a command and returns its output.
///
/// # Errors
/// Fails with the output if the command does not start or fails.
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

/// Returns a free port of 127.0.0.1. No other test gets the same port while this process lives.
///
/// The port is below the ports that the kernel uses for outgoing connections, because an outgoing connection could take the port before
/// the server does. This function also binds the UDP port with the same number, so that no other test chooses this port.
///
/// # Errors
/// Fails if no port is free.
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

/// Returns the last lines of a file, for an error message.
pub(crate) fn tail(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(20).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
