//! A replica to be created: its folder, its configuration, the program run on it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::program::{component, understudy};
use crate::server::{Playground, run};
use crate::user::ServerUser;

/// A folder with everything that belongs to one replica, all the server user's: data directory, WAL directory, a place for a
/// tablespace, state, configuration. The program and the plugins lie beside it, for all replicas of a playground.
#[derive(Clone, Debug)]
pub struct ReplicaFolder {
    folder: PathBuf,
    program: PathBuf,
    plugins: PathBuf,
    bin_dir: PathBuf,
    state: PathBuf,
    user: ServerUser,
}

/// A run of the program that goes on; a test that fails before its end kills it.
#[derive(Debug)]
pub struct Running(Child);

impl Running {
    /// Its process.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// The most memory that it held so far, in bytes (`VmHWM`); none once it has ended.
    pub fn peak_memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// Those of kill.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.id().try_into()?).context("no process has the number 0")?;
        Ok(kill_process(pid, signal)?)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Mostly it has ended and was waited for; what could fail then has no one to tell.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How a run of the program ended.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// Everything that it printed, standard output and error.
    pub output: String,
    /// Its report; null where it wrote none.
    pub report: Value,
}

impl Ended {
    /// The exit code; none where a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Each attempt's method and outcome, in order.
    pub fn attempts(&self) -> Vec<(&str, &str)> {
        let attempts = self.report["attempts"].as_array().map(Vec::as_slice).unwrap_or_default();
        attempts.iter().map(|attempt| (text(attempt, "method"), text(attempt, "outcome"))).collect()
    }

    /// The report of one attempt; null where there is none of this method.
    pub fn attempt(&self, method: &str) -> &Value {
        let attempts = self.report["attempts"].as_array().map(Vec::as_slice).unwrap_or_default();
        attempts.iter().find(|attempt| attempt["method"] == method).unwrap_or(&Value::Null)
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("")
}

impl ReplicaFolder {
    /// Makes the folder, with empty places for the WAL directory and one tablespace.
    ///
    /// # Errors
    /// Those of the file system; where the program or a component is not built.
    pub fn new(playground: &Playground, name: &str) -> Result<Self> {
        let folder = playground.directory(name)?;
        let (program, plugins) = (playground.path("understudy"), playground.path("plugins"));
        let (bin_dir, state) = (playground.bin_dir().to_owned(), folder.join("state"));
        let replica = Self { folder, program, plugins, bin_dir, state, user: playground.user() };
        for directory in ["wal", "fast"] {
            replica.directory(directory)?;
        }
        // The program and the plugins are copied to where the server's user may read them, whoever owns the checkout.
        if !replica.plugins.exists() {
            // By another process: one that this process starts meanwhile would keep a file that is written here open, and
            // Linux does not run a file that somebody could still write.
            run(Command::new("/bin/cp").arg(understudy()?).arg(&replica.program))?;
            replica.user.directory(&replica.plugins)?;
            for name in ["tarball", "mirror", "pgbackrest", "hostile"] {
                let copy = replica.plugins.join(format!("{name}.wasm"));
                std::fs::copy(component(name)?, &copy)?;
                replica.user.own(&copy)?;
            }
        }
        Ok(replica)
    }

    /// With one state for all replicas of the playground, so that a component is compiled once for all.
    pub fn with_shared_state(mut self, playground: &Playground) -> Self {
        self.state = playground.path("state");
        self
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
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

    /// The data directory.
    pub fn datadir(&self) -> PathBuf {
        self.path("data")
    }

    /// Where the WAL directory goes when [`ReplicaFolder::configure`] maps it.
    pub fn wal(&self) -> PathBuf {
        self.path("wal")
    }

    /// Where a tablespace may go.
    pub fn fast(&self) -> PathBuf {
        self.path("fast")
    }

    /// Writes the configuration: the keys that every replica has, then `replica` (further lines of that section), then `sections`.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn configure(&self, replica: &str, sections: &str) -> Result<()> {
        let text = format!(
            "scope = \"demo\"\n\n[replica]\ndatadir = \"{datadir}\"\nbin_dir = \"{bin_dir}\"\nstate_dir = \"{state}\"\n\
             plugin_path = [\"{plugins}\"]\n{replica}\n\n{sections}\n",
            datadir = self.datadir().display(),
            bin_dir = self.bin_dir.display(),
            state = self.state.display(),
            plugins = self.plugins.display(),
        );
        self.user.write(&self.path("understudy.toml"), &text)
    }

    /// The lines of `[replica]` that map the WAL directory and the tablespace that was at `old` with this object identifier.
    pub fn mapped(&self, old: &Path, oid: &str) -> String {
        format!(
            "wal_dir = \"{wal}\"\ntablespaces = {{ \"{old}\" = \"{fast}\", \"{oid}\" = \"{fast}\" }}\n",
            wal = self.wal().display(),
            old = old.display(),
            fast = self.fast().display()
        )
    }

    /// `understudy <verb> --config ...` as the server's user.
    pub fn command(&self, verb: &str) -> Command {
        let mut command = self.user.command(&self.program);
        command.arg(verb).arg("--config").arg(self.path("understudy.toml")).stdin(Stdio::null());
        command
    }

    /// Starts `understudy create` with a report, its output into a file.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn spawn(&self, arguments: &[&str]) -> Result<Running> {
        let output = File::create(self.path("output"))?;
        // What an earlier run reported is not this run's report.
        if self.path("report.json").exists() {
            std::fs::remove_file(self.path("report.json"))?;
        }
        let mut command = self.command("create");
        command.arg("--report").arg(self.path("report.json")).args(arguments);
        Ok(Running(command.stdout(output.try_clone()?).stderr(output).spawn()?))
    }

    /// The same, with no more open files than `limit`, which the program cannot raise.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn spawn_with_files(&self, limit: u32, arguments: &[&str]) -> Result<Running> {
        let output = File::create(self.path("output"))?;
        if self.path("report.json").exists() {
            std::fs::remove_file(self.path("report.json"))?;
        }
        let mut command = self.user.command("/bin/sh");
        command.arg("-c").arg(format!("ulimit -n {limit} && exec \"$@\"")).arg("sh").arg(&self.program);
        command.arg("create").arg("--config").arg(self.path("understudy.toml")).stdin(Stdio::null());
        command.arg("--report").arg(self.path("report.json")).args(arguments);
        Ok(Running(command.stdout(output.try_clone()?).stderr(output).spawn()?))
    }

    /// What a started run left when it ends.
    ///
    /// # Errors
    /// Where it cannot be waited for or its report is not JSON.
    pub fn ended(&self, mut running: Running) -> Result<Ended> {
        let status = running.0.wait()?;
        let output = String::from_utf8_lossy(&std::fs::read(self.path("output"))?).into_owned();
        let report = match std::fs::read(self.path("report.json")) {
            Ok(report) => serde_json::from_slice(&report).context("the report is not JSON")?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Value::Null,
            Err(error) => return Err(error).context("the report cannot be read"),
        };
        Ok(Ended { status, output, report })
    }

    /// Runs `understudy create` to its end.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn create(&self, arguments: &[&str]) -> Result<Ended> {
        self.ended(self.spawn(arguments)?)
    }

    /// Runs `understudy create`, which must create the replica with this method as the last attempt.
    ///
    /// # Errors
    /// What it printed, where it did not.
    pub fn created_by(&self, method: &str) -> Result<Ended> {
        let ended = self.create(&[])?;
        ensure!(
            ended.code() == Some(0) && ended.attempts().last() == Some(&(method, "created")),
            "{}: {:?}\n{}",
            ended.status,
            ended.attempts(),
            ended.output
        );
        Ok(ended)
    }

    /// Whether PostgreSQL could take the directory for a whole one.
    pub fn is_sealed(&self) -> bool {
        self.datadir().join("global/pg_control").exists()
    }
}
