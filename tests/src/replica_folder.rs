//! The folder of a replica that a test creates: the configuration of the replica, and runs of the program with that configuration.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::program::{component, understudy};
use crate::server::{Playground, run};
use crate::user::ServerUser;

/// A folder, owned by the server's user, with everything that belongs to one replica: data directory, WAL directory, tablespace
/// directory, state, configuration. All replicas in a playground share the program and the plugins, which are in the playground itself.
#[derive(Clone, Debug)]
pub struct ReplicaFolder {
    folder: PathBuf,
    program: PathBuf,
    plugins: PathBuf,
    bin_dir: PathBuf,
    state: PathBuf,
    user: ServerUser,
}

/// A running program. Dropping the value kills it, for example if the test fails.
#[derive(Debug)]
pub struct RunningProgram(Child);

impl RunningProgram {
    /// Returns the process number.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Returns the peak memory so far in bytes (`VmHWM`); `None` if the program has ended.
    pub fn peak_memory(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
    }

    /// Sends a signal to the program.
    ///
    /// # Errors
    /// Fails if kill fails.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.id().try_into()?).context("no process has the number 0")?;
        Ok(kill_process(pid, signal)?)
    }
}

impl Drop for RunningProgram {
    fn drop(&mut self) {
        // The program may have ended already, and a destructor cannot report a failure.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How a run of the program ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit status.
    pub status: ExitStatus,
    /// The standard output and standard error.
    pub output: String,
    /// The report; null if the run did not write a report.
    pub report: Value,
}

impl Ended {
    /// Returns the exit code; `None` if a signal ended the program.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Returns the method and the outcome of each attempt, in order.
    pub fn attempts(&self) -> Vec<(&str, &str)> {
        let attempts = self.report["attempts"].as_array().map(Vec::as_slice).unwrap_or_default();
        attempts.iter().map(|attempt| (text(attempt, "method"), text(attempt, "outcome"))).collect()
    }

    /// Returns the report on the method's attempt; null if the method was not tried.
    pub fn attempt(&self, method: &str) -> &Value {
        let attempts = self.report["attempts"].as_array().map(Vec::as_slice).unwrap_or_default();
        attempts.iter().find(|attempt| attempt["method"] == method).unwrap_or(&Value::Null)
    }

    /// Returns each denial of the method's attempt: the capability, what was denied, and the line that would allow it, if there is one.
    pub fn denials(&self, method: &str) -> Vec<(&str, &str, Option<&str>)> {
        let denials = self.attempt(method)["denials"].as_array().map(Vec::as_slice).unwrap_or_default();
        let denial = |denial| (text(denial, "capability"), text(denial, "what"), denial["remedy"].as_str());
        denials.iter().map(denial).collect()
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("")
}

impl ReplicaFolder {
    /// Creates the folder, with empty directories for the WAL and one tablespace.
    ///
    /// # Errors
    /// Fails if a file or directory cannot be created, or if the program or a component is not built.
    pub fn new(playground: &Playground, name: &str) -> Result<Self> {
        let folder = playground.directory(name)?;
        let (program, plugins) = (playground.path("understudy"), playground.path("plugins"));
        let (bin_dir, state) = (playground.bin_dir().to_owned(), folder.join("state"));
        let replica = Self { folder, program, plugins, bin_dir, state, user: playground.user() };
        for directory in ["wal", "fast"] {
            replica.directory(directory)?;
        }
        // The server's user may not be able to read the checkout, so the program and the plugins are copied.
        if !replica.plugins.exists() {
            // A separate process copies the program. If this process copied it, a child forked at the same time would inherit the
            // open descriptor, and Linux does not execute a file that is open for writing (ETXTBSY).
            run(Command::new("/bin/cp").arg(understudy()?).arg(&replica.program))?;
            replica.user.directory(&replica.plugins)?;
            for name in [
                "tarball",
                "mirror",
                "pgbackrest",
                "walg",
                "barman",
                "command",
                "hostile",
                "caller",
                "catalogue",
            ] {
                replica.add_component(name)?;
            }
        }
        Ok(replica)
    }

    /// Copies a further component to the plugins of the playground.
    ///
    /// # Errors
    /// Fails if the component is not built or cannot be copied.
    pub fn add_component(&self, name: &str) -> Result<()> {
        let copy = self.plugins.join(format!("{name}.wasm"));
        std::fs::copy(component(name)?, &copy)?;
        self.user.own(&copy)
    }

    /// Uses one state directory for all replicas of the playground, so that a component is compiled only once.
    pub fn with_shared_state(mut self, playground: &Playground) -> Self {
        self.state = playground.path("state");
        self
    }

    /// Returns a path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
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

    /// Returns the data directory.
    pub fn datadir(&self) -> PathBuf {
        self.path("data")
    }

    /// Returns the directory to which [`ReplicaFolder::mapping_lines`] maps the WAL.
    pub fn wal(&self) -> PathBuf {
        self.path("wal")
    }

    /// Returns the directory to which [`ReplicaFolder::mapping_lines`] maps a tablespace.
    pub fn fast(&self) -> PathBuf {
        self.path("fast")
    }

    /// Writes the configuration: the keys that every replica has, `replica` as further lines for `[replica]`, and `sections`.
    ///
    /// # Errors
    /// Fails if a file or directory cannot be created.
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

    /// Returns the lines for `[replica]` that map the WAL directory, and the tablespace at `old` with this object identifier.
    pub fn mapping_lines(&self, old: &Path, oid: &str) -> String {
        format!(
            "wal_dir = \"{wal}\"\ntablespaces = {{ \"{old}\" = \"{fast}\", \"{oid}\" = \"{fast}\" }}\n",
            wal = self.wal().display(),
            old = old.display(),
            fast = self.fast().display()
        )
    }

    /// Returns the command `understudy <verb> --config ...`, run as the server's user.
    pub fn command(&self, verb: &str) -> Command {
        let mut command = self.user.command(&self.program);
        command.arg(verb).arg("--config").arg(self.path("understudy.toml")).stdin(Stdio::null());
        command
    }

    /// Returns the command `understudy run <plugin>` into the data directory, run as this user.
    pub fn run(&self, user: ServerUser, plugin: &str) -> Command {
        let mut command = user.command(&self.program);
        command.env("UNDERSTUDY_PLUGIN_PATH", &self.plugins).stdin(Stdio::null());
        command.arg("run").arg(plugin).arg("--into").arg(self.datadir());
        command.arg("--bin-dir").arg(&self.bin_dir).arg("--state-dir").arg(&self.state);
        command
    }

    /// Starts `understudy create` with a report. Its output is written to a file.
    ///
    /// # Errors
    /// Fails if the program does not start.
    pub fn spawn(&self, arguments: &[&str]) -> Result<RunningProgram> {
        let output = File::create(self.path("output"))?;
        // The report of an earlier run must not be mistaken for the report of this run.
        if self.path("report.json").exists() {
            std::fs::remove_file(self.path("report.json"))?;
        }
        let mut command = self.command("create");
        command.arg("--report").arg(self.path("report.json")).args(arguments);
        Ok(RunningProgram(command.stdout(output.try_clone()?).stderr(output).spawn()?))
    }

    /// Starts the program as [`ReplicaFolder::spawn`] does, with `limit` as the hard limit for open files.
    ///
    /// # Errors
    /// Fails if the program does not start.
    pub fn spawn_with_files(&self, limit: u32, arguments: &[&str]) -> Result<RunningProgram> {
        let output = File::create(self.path("output"))?;
        if self.path("report.json").exists() {
            std::fs::remove_file(self.path("report.json"))?;
        }
        let mut command = self.user.command("/bin/sh");
        command.arg("-c").arg(format!("ulimit -n {limit} && exec \"$@\"")).arg("sh").arg(&self.program);
        command.arg("create").arg("--config").arg(self.path("understudy.toml")).stdin(Stdio::null());
        command.arg("--report").arg(self.path("report.json")).args(arguments);
        Ok(RunningProgram(command.stdout(output.try_clone()?).stderr(output).spawn()?))
    }

    /// Waits for the end of a run, and returns its status, output and report.
    ///
    /// # Errors
    /// Fails if waiting for the process fails, or if the report is not JSON.
    pub fn wait_for_end(&self, mut running: RunningProgram) -> Result<Ended> {
        let status = running.0.wait()?;
        let output = String::from_utf8_lossy(&std::fs::read(self.path("output"))?).into_owned();
        let report = match std::fs::read(self.path("report.json")) {
            Ok(report) => serde_json::from_slice(&report).context("the report is not JSON")?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Value::Null,
            Err(error) => return Err(error).context("the report cannot be read"),
        };
        Ok(Ended { status, output, report })
    }

    /// Runs `understudy create`, and waits until it ends.
    ///
    /// # Errors
    /// Fails if the program does not start.
    pub fn create(&self, arguments: &[&str]) -> Result<Ended> {
        self.wait_for_end(self.spawn(arguments)?)
    }

    /// Runs `understudy create`, which must create the replica with this method.
    ///
    /// # Errors
    /// Fails with the output if the run did not create the replica with this method.
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

    /// Returns whether the data directory has a pg_control, without which PostgreSQL does not start.
    pub fn is_sealed(&self) -> bool {
        self.datadir().join("global/pg_control").exists()
    }
}
