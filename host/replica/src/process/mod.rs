//! Runs native programs. Each has a guard, a separate process that ends the program and all its descendants when the host requests that or
//! has ended (rule 27).
//!
//! ```text
//! host ── guard (session and group leader, reaper, behind Landlock) ── program ── its descendants
//!   └─ a socket: orders to the guard, messages to the host; it closes when the host ends
//! ```
//!
//! If the host dies, the socket closes and the guard ends all processes. If the guard dies, the kernel kills the program (with the death
//! signal), and the host adopts and kills the rest, in whatever groups and sessions they are. If both die, the kernel kills the program,
//! and the next run kills the rest of the group and session, which the state file names. Until then these processes hold the lock of the
//! data directory. Processes that have left the session then live on within their confinement.

mod bounded;
mod confinement;
mod count;
mod cpu_count;
mod descendants;
mod guard;
mod guarded;
mod lines;
mod memory_shortage;
mod orphans;
mod output;
mod program;
mod protocol;

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};

use crate::Run;
use crate::datadir::DataDirectory;
use crate::event::Level;
use crate::state::{ProcessIdentity, State};
pub(crate) use bounded::{BoundedProgram, BoundedProgramError};
pub use confinement::{
    ABI_OF_PORTS, ABI_OF_SIGNALS, ABI_OF_TRUNCATION, Confinement, NEVER_ENFORCED, not_enforced,
};
pub use descendants::bytes_moved_by_descendants;
pub use guard::guard_main;
use guarded::{GuardSocket, Guarded};
pub use lines::{LONGEST_KEPT_LINE, LONGEST_LINE};
use orphans::RunningGuard;
pub use output::{Line, LineUse, MOST_LINES, Stream, TAIL};
use output::{Log, Reader};
use protocol::{GO, GuardMessage, Order, STOP};

/// How long a program has between TERM and KILL. Together with the two seconds in rule 28, this stays below the three seconds in which a
/// cancelled run must end.
pub const GRACE: Duration = Duration::from_millis(750);

/// How long to wait until a guard is ready.
const GUARD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to read the rest of the output after the program and its descendants have ended.
const DRAIN: Duration = Duration::from_millis(500);

/// The file descriptor with which guard and program inherit the lock of the data directory.
const LOCK: i32 = 3;

/// The `PATH` of native programs.
pub const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// A native program and how it is run.
#[derive(Clone, Debug)]
pub struct NativeProgram {
    /// The name of the program in the log, such as `pg_basebackup`.
    pub name: String,
    /// The absolute path of the program.
    pub program: PathBuf,
    /// The arguments. Every user of the machine can see them, so they must not contain a secret.
    pub arguments: Vec<OsString>,
    /// The environment in addition to `PATH` and `LC_ALL=C`. The program inherits no variables from the host.
    pub environment: Vec<(OsString, OsString)>,
    /// The directories below which the program may write. They must exist. If the kernel has Landlock, the program cannot write anywhere
    /// else.
    pub writable: Vec<PathBuf>,
    /// The lowest Landlock ABI with which the program may run. With `None`, the program also runs on a kernel without Landlock.
    pub require_landlock: Option<u32>,
    /// The data directory that the program works on. The program inherits the lock of the directory, and the state file names the guard.
    pub directory: Option<Arc<DataDirectory>>,
    /// The executable that becomes the guard.
    pub guard: GuardExecutable,
    /// How long the program has between TERM and KILL. Use [`GRACE`] to comply with rule 27.
    pub grace: Duration,
    /// Restricts what the program may do. With `None`, it may read, execute and connect to everything that its user may.
    pub confinement: Option<Confinement>,
}

/// An executable that calls [`guard_main`] before anything else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardExecutable(PathBuf);

impl GuardExecutable {
    /// Returns the executable of this process, even if its file was replaced meanwhile.
    pub fn this() -> Self {
        Self(PathBuf::from("/proc/self/exe"))
    }

    /// Returns the executable at `path`.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// The program exited with this code.
    Exited(i32),
    /// The program was killed by this signal.
    Signalled(i32),
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exited with code {code}"),
            Self::Signalled(signal) => write!(f, "was ended by signal {signal}"),
        }
    }
}

/// What a program and everything that it started used. A process counts only if its parent waited for it (getrusage(2)); its processor time
/// also counts as far as the guard saw it while the process ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Processor time.
    pub cpu: Duration,
    /// The memory of the largest process in bytes, including mapped files. A process begins as a copy of this executable, so the value is
    /// never less than what such a copy needs.
    pub memory: u64,
    /// How many bytes were written to files, as the kernel counts them; the kernel does not count file systems in memory.
    pub written: u64,
    /// The highest count of threads, at least one for each process; 0 for a program without confinement, whose processes are not counted.
    pub processes: u64,
}

/// A bound of the confinement that a program can exceed between two counts of its guard, which then ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exceeded {
    /// The program had more processes and threads at once than [`Confinement::processes`].
    Processes,
    /// The program and everything that it started used more processor time than [`Confinement::cpu`]. Also if the program ended by itself
    /// before the guard noticed.
    Cpu,
}

/// How a program ended. All processes that it started have ended too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// How the program ended.
    pub status: Status,
    /// Whether the program was ended because the run was cancelled.
    pub stopped: bool,
    /// How many processes the program left behind, all of which were ended.
    pub leftover_processes: u32,
    /// The bound of its confinement that the program exceeded; `None` if it exceeded none.
    pub exceeded: Option<Exceeded>,
    /// What the program and everything that it started used.
    pub used: Resources,
    /// The last lines of its output, oldest first; at most [`TAIL`].
    pub tail: Vec<String>,
    /// The Landlock ABI that was enforced, 0 for none.
    pub landlock: u32,
}

/// Why a program did not run, or why its end was not observed. In either case all of its processes have ended.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The guard could not be started, so the program was not started either.
    #[error("the guard of {program} cannot be started: {message}")]
    Guard {
        /// The program's name.
        program: String,
        /// Why the guard could not be started.
        message: String,
    },
    /// The program cannot be executed.
    #[error("{} cannot be run: {message}", path.display())]
    NotStarted {
        /// The path.
        path: PathBuf,
        /// The error from the kernel.
        message: String,
    },
    /// Another process killed the guard, and the kernel then killed the program.
    #[error("the guard of {program} was killed, and {program} with it")]
    GuardKilled {
        /// The program's name.
        program: String,
    },
    /// The state file could not be written, so the program was not started.
    #[error("cannot record {program} in the state file")]
    State {
        /// The program's name.
        program: String,
        /// Why the file could not be written.
        source: io::Error,
    },
    /// The run was cancelled before the program started.
    #[error("cancelled before {program} started")]
    Cancelled {
        /// The program's name.
        program: String,
    },
    /// A system call failed unexpectedly.
    #[error("cannot supervise {program}")]
    System {
        /// The program's name.
        program: String,
        /// The error of the system call.
        source: io::Error,
    },
}

impl NativeProgram {
    /// Runs the program to its end. Passes each line of its output to `on_line`, which decides whether the line is logged. Ends the
    /// program if `run` is cancelled. Returns when all of its processes have ended. If the future is dropped, the guard ends the program,
    /// but nobody waits for that.
    ///
    /// # Errors
    /// Fails with a [`ProcessError`]. If the program itself fails, returns an [`Ending`].
    pub async fn run(
        &self,
        run: &Run,
        mut on_line: impl FnMut(&Line) -> LineUse + Send,
    ) -> Result<Ending, ProcessError> {
        let mut guarded = self.start_guard(run).await?;
        let identity = guarded.identity;
        self.update_state(move |state| state.process_started(identity)).await?;
        let ending = self.start_program(run, &mut guarded, &mut on_line).await;
        let gone = guarded.wait_until_gone().await;
        let forgotten = self.update_state(move |state| state.process_ended(identity)).await;
        let ending = ending?;
        gone.map_err(|source| self.system(source))?;
        forgotten?;
        Ok(ending)
    }

    async fn start_guard(&self, run: &Run) -> Result<Guarded, ProcessError> {
        let refused = |message: String| ProcessError::Guard { program: self.name.clone(), message };
        let (host, guards) =
            std::os::unix::net::UnixStream::pair().map_err(|error| refused(error.to_string()))?;
        let mut command = std::process::Command::new(&self.guard.0);
        command.arg(guard::GUARD).env_clear().current_dir("/");
        command.stdin(OwnedFd::from(guards)).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(directory) = &self.directory {
            let lock = directory.lock().try_clone_to_owned().map_err(|error| refused(error.to_string()))?;
            let mapping = vec![FdMapping { parent_fd: lock, child_fd: LOCK }];
            command.fd_mappings(mapping).map_err(|error| refused(error.to_string()))?;
        }
        let mut command = Command::from(command);
        let (mut child, running) = RunningGuard::start(|| command.spawn(), Child::id)
            .map_err(|error| refused(format!("{}: {error}", self.guard.0.display())))?;
        // This closes the guard's end of the socket, and the copy of the lock.
        drop(command);
        let pid = child.id().ok_or_else(|| refused("it ended at once".to_owned()))?;
        let output = (child.stdout.take(), child.stderr.take());
        let mut socket = GuardSocket::on(host).map_err(|error| refused(error.to_string()))?;
        match self.set_up(run, pid, &mut socket).await {
            Ok((identity, landlock)) => {
                if landlock == 0 {
                    let may = if self.confinement.is_some() { "read and write" } else { "write" };
                    let message =
                        format!("this kernel has no Landlock: {} may {may} where its user may", self.name);
                    run.log(Level::Warn, "host", message);
                }
                Ok(Guarded { child, identity, socket, output, landlock, _running: running })
            }
            Err(error) => {
                // The guard has not started a program yet, and may not be a guard at all.
                drop(socket);
                let _ = child.kill().await;
                Err(error)
            }
        }
    }

    /// Sends the guard its order and waits until it is ready. Returns its identity and the Landlock ABI that it enforces.
    async fn set_up(
        &self,
        run: &Run,
        pid: u32,
        socket: &mut GuardSocket,
    ) -> Result<(ProcessIdentity, u32), ProcessError> {
        let refused = |message: String| ProcessError::Guard { program: self.name.clone(), message };
        let order = serde_json::to_string(&self.order()).map_err(|error| refused(error.to_string()))?;
        if order.len() as u64 >= protocol::LONGEST {
            return Err(refused(format!("its arguments are longer than {} bytes", protocol::LONGEST)));
        }
        let ready = async {
            match socket.send(&order).await {
                // The guard has ended, and its last message contains the reason.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                sent => sent?,
            }
            socket.receive().await
        };
        let received = tokio::select! {
            message = tokio::time::timeout(GUARD_TIMEOUT, ready) => message,
            () = run.cancelled() => return Err(ProcessError::Cancelled { program: self.name.clone() }),
        };
        let landlock = match received {
            Ok(Ok(Some(GuardMessage::Ready { landlock }))) => landlock,
            Ok(Ok(Some(GuardMessage::Refused { message }))) => return Err(refused(message)),
            Ok(Ok(_)) => {
                return Err(refused(format!("{} does not answer as a guard", self.guard.0.display())));
            }
            Ok(Err(error)) => return Err(refused(error.to_string())),
            Err(_) => return Err(refused(format!("it was not ready within {} s", GUARD_TIMEOUT.as_secs()))),
        };
        let identity = ProcessIdentity::of(pid)
            .and_then(|identity| identity.ok_or_else(|| io::ErrorKind::NotFound.into()))
            .map_err(|error| refused(format!("it cannot be found in /proc: {error}")))?;
        Ok((identity, landlock))
    }

    fn order(&self) -> Order {
        Order {
            program: self.program.clone().into(),
            arguments: self.arguments.clone(),
            environment: [("PATH", PATH), ("LC_ALL", "C")]
                .map(|(name, value)| (name.into(), value.into()))
                .into_iter()
                .chain(self.environment.iter().cloned())
                .collect(),
            writable: self.writable.iter().map(|path| path.clone().into()).collect(),
            require_landlock: self.require_landlock,
            grace: self.grace,
            confinement: self.confinement.clone(),
        }
    }

    /// Writes to the state file on a thread that may block.
    async fn update_state(
        &self,
        update: impl FnOnce(&State) -> io::Result<()> + Send + 'static,
    ) -> Result<(), ProcessError> {
        let Some(directory) = self.directory.clone() else { return Ok(()) };
        let updated = tokio::task::spawn_blocking(move || update(directory.state())).await;
        let updated = updated.unwrap_or_else(|panicked| Err(io::Error::other(panicked)));
        updated.map_err(|source| ProcessError::State { program: self.name.clone(), source })
    }

    async fn start_program(
        &self,
        run: &Run,
        guarded: &mut Guarded,
        on_line: &mut (dyn FnMut(&Line) -> LineUse + Send),
    ) -> Result<Ending, ProcessError> {
        if run.is_cancelled() {
            return Err(ProcessError::Cancelled { program: self.name.clone() });
        }
        guarded.socket.send(GO).await.map_err(|source| self.system(source))?;
        let mut log = Log::of(run, &self.name, on_line);
        let (mut output, mut error) = (
            Reader::of(guarded.output.0.take(), Stream::Output),
            Reader::of(guarded.output.1.take(), Stream::Error),
        );
        let mut stopped = false;
        let last = loop {
            tokio::select! {
                lines = output.read(), if output.is_open() => log.take(lines),
                lines = error.read(), if error.is_open() => log.take(lines),
                () = run.cancelled(), if !stopped => {
                    stopped = true;
                    // If the guard is gone, sending fails. The program has ended then, and the loop receives the end of the socket.
                    let _ = guarded.socket.send(STOP).await;
                }
                message = guarded.socket.receive() => break message.map_err(|source| self.system(source))?,
            }
        };
        // If the guard has seen the end of all processes, its last message is `Ended`.
        if !matches!(last, Some(GuardMessage::Ended { .. })) {
            guarded.end_orphans().await.map_err(|source| self.system(source))?;
        }
        let rest = async {
            while output.is_open() || error.is_open() {
                tokio::select! {
                    lines = output.read(), if output.is_open() => log.take(lines),
                    lines = error.read(), if error.is_open() => log.take(lines),
                }
            }
        };
        // No process can write to the pipes any more.
        let _ = tokio::time::timeout(DRAIN, rest).await;
        log.report_dropped();
        match last {
            Some(GuardMessage::Ended { status, leftover_processes, exceeded, used }) => {
                if leftover_processes > 0 {
                    let message =
                        format!("{} left {leftover_processes} processes behind, which were ended", self.name);
                    run.log(Level::Warn, "host", message);
                }
                Ok(Ending {
                    status,
                    stopped,
                    leftover_processes,
                    exceeded,
                    used,
                    tail: log.into_tail(),
                    landlock: guarded.landlock,
                })
            }
            Some(GuardMessage::NotStarted { message }) => {
                Err(ProcessError::NotStarted { path: self.program.clone(), message })
            }
            Some(GuardMessage::Refused { message }) => Err(self.system(io::Error::other(message))),
            Some(GuardMessage::Ready { .. }) | None => {
                Err(ProcessError::GuardKilled { program: self.name.clone() })
            }
        }
    }

    fn system(&self, source: io::Error) -> ProcessError {
        ProcessError::System { program: self.name.clone(), source }
    }
}
