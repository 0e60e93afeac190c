//! Native programs, each with a guard: a process of its own that ends the program's whole group when the host requests it
//! or has ended. Semantics rule 27.
//!
//! ```text
//! host ── guard (session and group leader, reaper, behind Landlock) ── program ── its descendants
//!   └─ a socket: orders to the guard, messages to the host; the guard sees its end when the host has ended
//! ```
//!
//! If the host dies, the guard sees the end of the socket and ends everything. If the guard dies, the kernel kills the program (its
//! death signal) and the host kills the rest of the group. If both die, the kernel kills the program, and the next run ends the
//! rest of the group, which the state file names; until then these processes hold the lock of the data directory.

mod bounded;
mod confinement;
mod descendants;
mod guard;
mod guarded;
mod lines;
mod output;
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
use tokio::process::Command;

use crate::Run;
use crate::datadir::DataDirectory;
use crate::event::Level;
use crate::state::{ProcessIdentity, State};
pub(crate) use bounded::{BoundedProgram, BoundedProgramError};
pub use confinement::{ABI_OF_PORTS, ABI_OF_SIGNALS, ABI_OF_TRUNCATION, Confinement, not_enforced};
pub use descendants::bytes_moved_by_descendants;
pub use guard::guard_main;
use guarded::{GuardSocket, Guarded};
pub use lines::{LONGEST_KEPT_LINE, LONGEST_LINE};
pub use output::{Line, LineUse, MOST_LINES, Stream, TAIL};
use output::{Log, Reader};
use protocol::{GO, GuardMessage, Order, STOP};

/// How long a program has between TERM and KILL. Together with the two seconds in rule 28, this stays below the three seconds in which a
/// cancelled run must end.
pub const GRACE: Duration = Duration::from_millis(750);

/// How long a guard may take until it is ready.
const GUARD_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the rest of the output is read after the program and its descendants have ended.
const DRAIN: Duration = Duration::from_millis(500);

/// The descriptor under which guard and program inherit the lock of the data directory.
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
    /// The environment besides `PATH` and `LC_ALL=C`; nothing is inherited from the host.
    pub environment: Vec<(OsString, OsString)>,
    /// The directories below which the program may write; if the kernel has Landlock, it may write nowhere else. The directories must
    /// exist.
    pub writable: Vec<PathBuf>,
    /// The least Landlock ABI with which the program may run. With `None`, the program also runs on a kernel without Landlock.
    pub require_landlock: Option<u32>,
    /// The data directory that the program works on: the program inherits its lock, and its state file names the guard.
    pub directory: Option<Arc<DataDirectory>>,
    /// The executable that becomes the guard.
    pub guard: GuardExecutable,
    /// How long the program has between TERM and KILL; [`GRACE`] fits rule 27.
    pub grace: Duration,
    /// What the program may do at most; with `None` it reads, executes and connects as its user may.
    pub confinement: Option<Confinement>,
}

/// An executable that calls [`guard_main`] before anything else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardExecutable(PathBuf);

impl GuardExecutable {
    /// Returns the executable of this process, also if its file was replaced since.
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

/// How a program ended. None of the processes that it started is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// How the program ended.
    pub status: Status,
    /// Whether the program was ended because the run was cancelled.
    pub stopped: bool,
    /// How many processes the program left behind, all of which were ended.
    pub leftover_processes: u32,
    /// The last lines of its output, oldest first; at most [`TAIL`].
    pub tail: Vec<String>,
    /// The Landlock ABI that was enforced, 0 for none.
    pub landlock: u32,
}

/// Why a program did not run, or why its end was not observed. In either case none of its processes is left.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The guard could not be started, and so the program was not.
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
    /// The guard was killed from outside, and with it the program.
    #[error("the guard of {program} was killed, and {program} with it")]
    GuardKilled {
        /// The program's name.
        program: String,
    },
    /// The state file could not be written; the program was not started.
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
    /// A system call failed that always succeeds otherwise.
    #[error("cannot supervise {program}")]
    System {
        /// The program's name.
        program: String,
        /// The error of the system call.
        source: io::Error,
    },
}

impl NativeProgram {
    /// Runs the program to its end. Each line of its output goes to `on_line`, and from there to the log. Ends the program if `run` is
    /// cancelled. Returns only when none of its processes is alive. If the future is dropped, the guard ends the program, but
    /// nothing waits for its end.
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
        let mut child = Command::from(command)
            .spawn()
            .map_err(|error| refused(format!("{}: {error}", self.guard.0.display())))?;
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
                Ok(Guarded { child, identity, socket, output, landlock })
            }
            Err(error) => {
                // The guard has started nothing yet, and may be another program.
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
                // The guard has ended; its last message says why.
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

    /// Writes to the state file outside the runtime's threads.
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
                    // A guard that is gone has ended the program already; the loop then sees the end of the socket.
                    let _ = guarded.socket.send(STOP).await;
                }
                message = guarded.socket.receive() => break message.map_err(|source| self.system(source))?,
            }
        };
        if last.is_none() {
            guarded.end_group().await.map_err(|source| self.system(source))?;
        }
        let rest = async {
            while output.is_open() || error.is_open() {
                tokio::select! {
                    lines = output.read(), if output.is_open() => log.take(lines),
                    lines = error.read(), if error.is_open() => log.take(lines),
                }
            }
        };
        // No process is left that could write, unless one left the guard's session and survived the guard.
        let _ = tokio::time::timeout(DRAIN, rest).await;
        log.report_dropped();
        match last {
            Some(GuardMessage::Ended { status, leftover_processes }) => {
                if leftover_processes > 0 {
                    let message =
                        format!("{} left {leftover_processes} processes behind, which were ended", self.name);
                    run.log(Level::Warn, "host", message);
                }
                Ok(Ending {
                    status,
                    stopped,
                    leftover_processes,
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
