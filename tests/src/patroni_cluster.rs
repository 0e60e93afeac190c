//! A real Patroni cluster on loopback: etcd and members, configured from `examples/patroni`, in one playground. Dropping the
//! cluster ends all of its processes.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;
use tempfile::TempDir;

use crate::patroni::ensure_patroni;
use crate::program::{component, example, understudy};
use crate::python::PYTHON;
use crate::server::{BIN_DIR, Playground, REPLICATOR_PASSWORD, free_port, run, tail};

/// The timeout of every wait in this module that does not name a timeout.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `holds` returns true, at most for this time.
fn wait_until(what: &str, at_most: Duration, mut holds: impl FnMut() -> bool) -> Result<()> {
    let begun = Instant::now();
    while !holds() {
        ensure!(begun.elapsed() < at_most, "waited {at_most:?} for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// A running program in its own process group. Dropping the value kills the group.
#[derive(Debug)]
struct Daemon(Child);

impl Daemon {
    /// Starts a program and appends its output to `log`.
    fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let log = File::options().append(true).create(true).open(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("{:?} does not start", command.get_program()))?;
        Ok(Self(child))
    }

    fn pid(&self) -> Option<Pid> {
        Pid::from_raw(self.0.id().try_into().ok()?)
    }

    fn is_running(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(pid) = self.pid() {
            // The group may have ended already.
            let _gone = kill_process_group(pid, Signal::KILL);
        }
        let _status = self.0.wait();
    }
}

/// Creates a folder, in memory if the machine has /dev/shm. etcd waits for the disk at every write. If that takes longer than
/// `retry_timeout`, the leader gives up its lock and stops its server.
fn in_memory() -> Result<TempDir> {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() };
    folder.context("make a folder for etcd")
}

/// A folder that the server's user may read, with a running etcd, Understudy, its plugins and Patroni.
#[derive(Debug)]
pub struct PatroniCluster {
    // Fields are dropped in this order: etcd must end before its folder is removed.
    _etcd: Daemon,
    _etcd_data: TempDir,
    etcd_port: u16,
    playground: Playground,
}

impl PatroniCluster {
    /// Creates the folder and starts etcd.
    ///
    /// # Errors
    /// Fails if a program is not built or not installed, or if etcd does not start.
    pub fn start(name: &str) -> Result<Self> {
        let playground = Playground::new(name)?;
        let user = playground.user();
        std::fs::copy(understudy()?, playground.path("understudy")).context("copy the program")?;
        let plugins = playground.directory("plugins")?;
        for name in ["tarball", "command", "hostile"] {
            let copy = plugins.join(format!("{name}.wasm"));
            std::fs::copy(component(name)?, &copy)?;
            user.own(&copy)?;
        }
        playground.directory("backups")?;
        copy_patroni(&playground)?;

        let (etcd_port, peers) = (free_port()?, free_port()?);
        let (clients, peers) = (format!("http://127.0.0.1:{etcd_port}"), format!("http://127.0.0.1:{peers}"));
        let log = playground.path("etcd.log");
        let data = in_memory()?;
        user.own(data.path())?;
        let etcd = Daemon::start(
            user.command("etcd")
                .arg("--data-dir")
                .arg(data.path())
                .args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients])
                .args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers])
                .args(["--initial-cluster", &format!("default={peers}"), "--logger", "zap"]),
            &log,
        )
        .context("cannot start etcd, which is in Debian's package etcd-server")?;
        let cluster = Self { _etcd: etcd, _etcd_data: data, etcd_port, playground };
        wait_until("etcd to take requests", PATIENCE, || {
            http(cluster.etcd_port, "GET", "/health", "").is_ok_and(|(status, _)| status == 200)
        })
        .with_context(|| tail(&log))?;
        Ok(cluster)
    }

    /// Returns the folder of the cluster.
    pub fn playground(&self) -> &Playground {
        &self.playground
    }

    /// Returns the directory with the backups, to which the plugins are granted access.
    pub fn backups(&self) -> PathBuf {
        self.playground.path("backups")
    }

    /// Creates a member, configured from the files in `examples/patroni` with its own paths and ports. Does not start the member.
    ///
    /// # Errors
    /// Fails if a file or directory cannot be created.
    pub fn member(&self, name: &str) -> Result<Member<'_>> {
        let folder = self.playground.directory(name)?;
        let (port, rest_port) = (free_port()?, free_port()?);
        let member = Member { cluster: self, name: name.to_owned(), folder, port, rest_port, patroni: None };
        for file in ["patroni.yml", "understudy.toml"] {
            member.write(file, &member.example(file)?)?;
        }
        Ok(member)
    }

    /// Returns a command that runs Patroni's Python with these arguments as the server's user.
    fn python(&self, arguments: &[&str]) -> Command {
        let mut command = self.playground.user().command(PYTHON);
        command
            .env("PYTHONPATH", self.playground.path("site-packages"))
            .env("HOME", self.playground.path(""))
            .args(arguments);
        command
    }

    /// Runs `patronictl` for this cluster and returns its output.
    ///
    /// # Errors
    /// Fails if `patronictl` fails.
    pub fn patronictl(&self, member: &Member<'_>, arguments: &[&str]) -> Result<String> {
        let config = member.path("patroni.yml");
        let mut command = self.python(&["-c", "from patroni.ctl import ctl; ctl()", "-c"]);
        let output = run(command.arg(config).args(arguments))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Returns every process whose command line or program names the folder of `member`, except the member's Patroni.
    pub fn processes_of(&self, member: &Member<'_>) -> Vec<String> {
        processes(&member.folder.display().to_string())
            .into_iter()
            .filter(|(pid, _)| member.patroni_pid() != Some(*pid))
            .map(|(pid, command)| format!("{pid}: {command}"))
            .collect()
    }
}

/// Copies the packages of the virtual environment to a folder that the server's user may read, regardless of who owns the checkout.
fn copy_patroni(playground: &Playground) -> Result<()> {
    let libraries = ensure_patroni()?;
    let libraries =
        libraries.ancestors().nth(2).context("the virtual environment has no bin/python")?.join("lib");
    let version =
        std::fs::read_dir(&libraries)?.next().context("the virtual environment has no Python")??;
    run(Command::new("cp")
        .arg("--recursive")
        .arg(version.path().join("site-packages"))
        .arg(playground.path("site-packages")))?;
    Ok(())
}

/// Returns every process whose command line or program names `what`, with its command line.
fn processes(what: &str) -> Vec<(u32, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process may end during the search.
        let Ok(command) = std::fs::read(entry.path().join("cmdline")) else { continue };
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let program = std::fs::read_link(entry.path().join("exe")).unwrap_or_default();
        if command.contains(what) || program.to_string_lossy().contains(what) {
            found.push((pid, command));
        }
    }
    found
}

/// One member: a folder with its configuration, a PostgreSQL server, and the Patroni that manages the server. Dropping the value ends
/// both processes.
#[derive(Debug)]
pub struct Member<'c> {
    cluster: &'c PatroniCluster,
    name: String,
    folder: PathBuf,
    port: u16,
    rest_port: u16,
    patroni: Option<Daemon>,
}

impl Member<'_> {
    /// Returns a path in the member's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Returns the data directory.
    pub fn datadir(&self) -> PathBuf {
        self.path("data")
    }

    /// Returns the port of the PostgreSQL server.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns a file from the example with this member's paths, ports and passwords.
    ///
    /// # Errors
    /// Fails if the file no longer has the words that must be replaced.
    pub fn example(&self, file: &str) -> Result<String> {
        let top = self.cluster.playground.path("").display().to_string();
        let top = top.trim_end_matches('/');
        let words: &[(&str, &str)] = &[
            ("/srv/patroni-example/second", &self.folder.display().to_string()),
            ("/srv/patroni-example", top),
            ("name: second", &format!("name: {}", self.name)),
            ("127.0.0.1:12379", &format!("127.0.0.1:{}", self.cluster.etcd_port)),
            ("127.0.0.1:15432", &format!("127.0.0.1:{}", self.port)),
            ("127.0.0.1:18012", &format!("127.0.0.1:{}", self.rest_port)),
            ("change-me-replicator", REPLICATOR_PASSWORD),
            // These are Patroni's defaults. With shorter times the leader could lose its lock when other tests keep the machine busy.
            ("retry_timeout: 5", "retry_timeout: 10"),
            ("ttl: 20", "ttl: 30"),
        ];
        let wanted = if file == "patroni.yml" { words } else { words.get(..2).unwrap_or_default() };
        example(&format!("patroni/{file}"), wanted)
    }

    /// Writes a file in the member's folder.
    ///
    /// # Errors
    /// Fails if a file or directory cannot be created.
    pub fn write(&self, file: &str, text: &str) -> Result<()> {
        self.cluster.playground.user().write(&self.path(file), text)
    }

    /// Starts the member's Patroni.
    ///
    /// # Errors
    /// Fails if Patroni does not start.
    pub fn start(&mut self) -> Result<()> {
        let config = self.path("patroni.yml").display().to_string();
        let mut command = self.cluster.python(&["-m", "patroni", &config]);
        self.patroni = Some(Daemon::start(&mut command, &self.path("patroni.log"))?);
        Ok(())
    }

    fn patroni_pid(&self) -> Option<u32> {
        self.patroni.as_ref().map(|patroni| patroni.0.id())
    }

    /// Sends SIGTERM to the member's Patroni, as a service manager would, and waits until Patroni has ended.
    ///
    /// # Errors
    /// Fails with the end of the log if Patroni does not end within 30 seconds.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut patroni) = self.patroni.take() else { return Ok(()) };
        if let Some(pid) = patroni.pid() {
            kill_process(pid, Signal::TERM)?;
        }
        wait_until("Patroni to end", Duration::from_secs(30), || !patroni.is_running())
            .with_context(|| self.log_tail())
    }

    /// Kills the process group of the member's Patroni, which includes the program that Patroni started to create a replica.
    pub fn kill(&mut self) {
        drop(self.patroni.take());
    }

    /// Kills only the Patroni process, as systemd does with `KillMode=process` in Patroni's unit.
    ///
    /// # Errors
    /// Fails if kill fails.
    pub fn kill_only_patroni(&mut self) -> Result<()> {
        let Some(mut patroni) = self.patroni.take() else { return Ok(()) };
        if let Some(pid) = patroni.pid() {
            kill_process(pid, Signal::KILL)?;
        }
        patroni.0.wait()?;
        // Dropping the value would kill the rest of the group.
        std::mem::forget(patroni);
        Ok(())
    }

    /// Returns the log of the member's Patroni, PostgreSQL and Understudy.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.path("patroni.log")).unwrap_or_default()).into_owned()
    }

    fn log_tail(&self) -> String {
        format!("the log of {} ends:\n{}", self.name, tail(&self.path("patroni.log")))
    }

    /// Waits until `holds` returns true, at most for this time.
    ///
    /// # Errors
    /// Fails with `what` and the end of the log at the timeout.
    pub fn wait_until(&self, what: &str, at_most: Duration, holds: impl FnMut() -> bool) -> Result<()> {
        wait_until(what, at_most, holds).with_context(|| self.log_tail())
    }

    /// Waits until the log contains `text` after byte `from`.
    ///
    /// # Errors
    /// Fails with the end of the log at the timeout.
    pub fn wait_for_log(&self, text: &str, from: usize) -> Result<()> {
        self.wait_until(&format!("`{text}` in the log"), PATIENCE, || {
            self.log().get(from..).is_some_and(|log| log.contains(text))
        })
    }

    /// Sends a request to Patroni's REST API, and returns the status and the body.
    ///
    /// # Errors
    /// Fails if there is no response.
    pub fn rest(&self, method: &str, path: &str, body: &str) -> Result<(u16, String)> {
        http(self.rest_port, method, path, body)
    }

    /// Requests a reinitialization. Repeats the request while Patroni refuses it because Patroni is busy.
    ///
    /// # Errors
    /// Fails with Patroni's last response at the timeout.
    pub fn reinitialize(&self) -> Result<()> {
        let mut answer = String::new();
        self.wait_until("Patroni to take POST /reinitialize", PATIENCE, || {
            match self.rest("POST", "/reinitialize", "{}") {
                Ok((200, _)) => true,
                other => {
                    answer = format!("{other:?}");
                    false
                }
            }
        })
        .context(answer)
    }

    /// Requests a reinitialization with Patroni's `force`, which cancels a running reinitialization.
    ///
    /// # Errors
    /// Fails with Patroni's response if Patroni refuses the request.
    pub fn reinitialize_by_force(&self) -> Result<()> {
        let (status, answer) = self.rest("POST", "/reinitialize", "{\"force\": true}")?;
        ensure!(status == 200, "POST /reinitialize: {status} {answer}");
        Ok(())
    }

    /// Waits until this member is the running leader.
    ///
    /// # Errors
    /// Fails with the end of the log at the timeout.
    pub fn wait_until_leader(&self) -> Result<()> {
        self.wait_until("the leader", PATIENCE, || {
            self.rest("GET", "/leader", "").is_ok_and(|(status, _)| status == 200)
        })
    }

    /// Waits until Patroni reports a healthy replica and the leader streams WAL to this member.
    ///
    /// # Errors
    /// Fails with the end of the log at the timeout.
    pub fn wait_until_streaming(&self, leader: &Member<'_>) -> Result<()> {
        let states =
            format!("SELECT state FROM pg_stat_replication WHERE application_name = '{}'", self.name);
        self.wait_until("the replica to stream", PATIENCE, || {
            self.rest("GET", "/replica", "").is_ok_and(|(status, _)| status == 200)
                && leader.psql(&states).is_ok_and(|state| state == "streaming")
        })
    }

    /// Runs SQL as `postgres`.
    ///
    /// # Errors
    /// Fails if psql fails.
    pub fn psql(&self, sql: &str) -> Result<String> {
        let mut psql = self.client("psql");
        psql.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--dbname=postgres"]);
        let output = run(psql.args(["--set=ON_ERROR_STOP=1", "--command", sql]))?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Returns a command that runs a PostgreSQL client program, connected to this server.
    pub fn client(&self, program: &str) -> Command {
        let mut command = self.cluster.playground.user().command(Path::new(BIN_DIR).join(program));
        command
            .arg("--host")
            .arg(&self.folder)
            .args(["--username=postgres", &format!("--port={}", self.port)]);
        command
    }

    /// Removes the report of the last run, so that a test can wait for the next one.
    ///
    /// # Errors
    /// Fails if the report exists and cannot be removed.
    pub fn remove_report(&self) -> Result<()> {
        match std::fs::remove_file(self.path("report.json")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Waits for the report of a run, and returns the report.
    ///
    /// # Errors
    /// Fails if there is no report at the timeout, or if the report is not JSON.
    pub fn report(&self) -> Result<Value> {
        let path = self.path("report.json");
        self.wait_until("the report", PATIENCE, || path.exists())?;
        serde_json::from_slice(&std::fs::read(&path)?).context("the report is not JSON")
    }

    /// Returns whether the data directory has a pg_control, without which PostgreSQL does not start.
    pub fn is_sealed(&self) -> bool {
        self.datadir().join("global/pg_control").exists()
    }

    /// Returns whether pg_basebackup is writing a new data directory.
    pub fn is_being_copied(&self) -> bool {
        !self.is_sealed() && self.datadir().join("backup_label").exists()
    }

    /// Returns the command lines of all processes that name the member's folder. These include the member's Understudy.
    pub fn command_lines(&self) -> Vec<String> {
        processes(&self.folder.display().to_string()).into_iter().map(|(_, command)| command).collect()
    }
}

impl Drop for Member<'_> {
    fn drop(&mut self) {
        self.kill();
        // The postmaster that Patroni started has its own session and is still running.
        if self.datadir().join("postmaster.pid").exists() {
            let mut stop = self.cluster.playground.user().command(Path::new(BIN_DIR).join("pg_ctl"));
            stop.args(["stop", "--wait", "--silent", "--mode=immediate", "--pgdata"]).arg(self.datadir());
            // A destructor cannot report a failure.
            let _ended = stop.stderr(Stdio::null()).status();
        }
    }
}

/// Sends a request to a port of 127.0.0.1, and returns the status and the body.
fn http(port: u16, method: &str, path: &str, body: &str) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        bail!("port {port} answered `{answer}`");
    };
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.with_context(|| format!("port {port} answered `{head}`"))?, body.to_owned()))
}
