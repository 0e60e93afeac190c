//! Native programs, each with a guard: a process of its own that ends the program's whole group when the host
//! says so or is gone. Semantics rule 27.
//!
//! ```text
//! host ── guard (session and group leader, reaper, behind Landlock) ── program ── whatever it starts
//!   └─ a socket: orders down, words up; its end means that the host is gone
//! ```
//!
//! The host dies: the guard sees the socket end and ends everything. The guard dies: the kernel kills the program (its
//! death signal), the host kills the rest of the group. Both die: the kernel kills the program, the next run ends the
//! rest by the group that the state file names; until then they hold the lock of the data directory.

mod briefly;
mod descendants;
mod guard;
mod guarded;
mod lines;
mod order;
mod output;

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
use crate::state::{ProcessStamp, State};
pub(crate) use briefly::{Briefly, NotSaid};
pub use guard::guard_main;
use guarded::{Guarded, Words};
pub use lines::LONGEST_LINE;
use order::{GO, Order, STOP, Word};
pub use output::{Line, LineUse, MOST_LINES, Stream, TAIL};
use output::{Log, Reader};

/// How long a program has between TERM and KILL. With the two seconds of rule 28 it stays below the three in which a
/// cancelled run ends.
pub const GRACE: Duration = Duration::from_millis(750);

/// How long a guard may take to stand.
const GUARD_STANDS: Duration = Duration::from_secs(10);

/// How long output is read on once nothing can write it any more.
const DRAIN: Duration = Duration::from_millis(500);

/// The descriptor under which guard and program inherit the lock of the data directory.
const LOCK: i32 = 3;

/// The `PATH` of native programs.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// A native program and how it is run.
#[derive(Clone, Debug)]
pub struct NativeProgram {
    /// Its name in the log, such as `pg_basebackup`.
    pub name: String,
    /// Its absolute path.
    pub program: PathBuf,
    /// Its arguments. They are seen by every user of the machine, so that no secret may stand in them.
    pub arguments: Vec<OsString>,
    /// Its environment besides `PATH` and `LC_ALL=C`; nothing is inherited from the host.
    pub environment: Vec<(OsString, OsString)>,
    /// The directories below which it may write; nowhere else, where the kernel has Landlock. They must exist.
    pub writable: Vec<PathBuf>,
    /// The least Landlock ABI without which it must not run; with none it runs without Landlock where there is none.
    pub require_landlock: Option<u32>,
    /// The data directory that it works on: its lock is inherited, its state file names the guard.
    pub directory: Option<Arc<DataDirectory>>,
    /// The executable that becomes the guard.
    pub guard: GuardExecutable,
    /// How long it has between TERM and KILL; [`GRACE`] fits rule 27.
    pub grace: Duration,
}

/// An executable that calls [`guard_main`] first thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardExecutable(PathBuf);

impl GuardExecutable {
    /// The executable of this process, also when its file was replaced meanwhile.
    pub fn this() -> Self {
        Self(PathBuf::from("/proc/self/exe"))
    }

    /// The executable at `path`.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// With this exit code.
    Exited(i32),
    /// By this signal.
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

/// What is told of a program that ran; by now nothing that it started is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// How it ended.
    pub status: Status,
    /// It was told to end, for the run was cancelled.
    pub stopped: bool,
    /// How many processes it left behind, which were ended.
    pub left_over: u32,
    /// The last lines of its output, oldest first; at most [`TAIL`].
    pub tail: Vec<String>,
    /// The Landlock ABI that was enforced, 0 for none.
    pub landlock: u32,
}

/// A program that did not run, or whose end was not seen. Nothing of it is left all the same.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// No guard, no program.
    #[error("the guard of {program} cannot be started: {message}")]
    Guard {
        /// The program's name.
        program: String,
        /// What went wrong.
        message: String,
    },
    /// It cannot be executed.
    #[error("{} cannot be run: {message}", path.display())]
    NotStarted {
        /// Its path.
        path: PathBuf,
        /// What the kernel said.
        message: String,
    },
    /// Somebody killed the guard, and with it the program.
    #[error("the guard of {program} was killed, and {program} with it")]
    GuardKilled {
        /// The program's name.
        program: String,
    },
    /// The state file could not be told; the program was not started.
    #[error("the state file cannot be told of {program}")]
    State {
        /// The program's name.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// The run was cancelled before the program started.
    #[error("cancelled before {program} started")]
    Cancelled {
        /// The program's name.
        program: String,
    },
    /// The system did not do something that it always does.
    #[error("{program} cannot be looked after")]
    System {
        /// The program's name.
        program: String,
        /// What it was.
        source: io::Error,
    },
}

impl NativeProgram {
    /// Runs it to its end. Each line of its output goes to `on_line`, and from there to the log. Returns only when
    /// nothing of it is alive; where `run` is cancelled it is ended. Where the future is dropped the guard ends it
    /// too, but nobody waits.
    ///
    /// # Errors
    /// [`ProcessError`]; a program that fails is an [`Ending`].
    pub async fn run(
        &self,
        run: &Run,
        mut on_line: impl FnMut(&Line) -> LineUse + Send,
    ) -> Result<Ending, ProcessError> {
        let mut guarded = self.start_guard(run).await?;
        let stamp = guarded.stamp;
        self.tell_state(move |state| state.process_started(stamp)).await?;
        let ending = self.start_program(run, &mut guarded, &mut on_line).await;
        let gone = guarded.see_off().await;
        let forgotten = self.tell_state(move |state| state.process_ended(stamp)).await;
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
        let mut words = Words::on(host).map_err(|error| refused(error.to_string()))?;
        match self.stand(run, pid, &mut words).await {
            Ok((stamp, landlock)) => {
                if landlock == 0 {
                    let message =
                        format!("this kernel has no Landlock: {} may write where its user may", self.name);
                    run.log(Level::Warn, "host", message);
                }
                Ok(Guarded { child, stamp, words, output, landlock })
            }
            Err(error) => {
                // It has started nothing yet, and may be no guard at all.
                drop(words);
                let _ = child.kill().await;
                Err(error)
            }
        }
    }

    /// Gives the guard its order and waits until it stands: its stamp, and the Landlock ABI that it enforces.
    async fn stand(
        &self,
        run: &Run,
        pid: u32,
        words: &mut Words,
    ) -> Result<(ProcessStamp, u32), ProcessError> {
        let refused = |message: String| ProcessError::Guard { program: self.name.clone(), message };
        let order = serde_json::to_string(&self.order()).map_err(|error| refused(error.to_string()))?;
        if order.len() as u64 >= order::LONGEST {
            return Err(refused(format!("its arguments are longer than {} bytes", order::LONGEST)));
        }
        let stands = async {
            match words.say(&order).await {
                // It has ended; what it may have said before says why.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                said => said?,
            }
            words.next().await
        };
        let word = tokio::select! {
            word = tokio::time::timeout(GUARD_STANDS, stands) => word,
            () = run.cancelled() => return Err(ProcessError::Cancelled { program: self.name.clone() }),
        };
        let landlock = match word {
            Ok(Ok(Some(Word::Ready { landlock }))) => landlock,
            Ok(Ok(Some(Word::Refused { message }))) => return Err(refused(message)),
            Ok(Ok(_)) => {
                return Err(refused(format!("{} does not answer as a guard", self.guard.0.display())));
            }
            Ok(Err(error)) => return Err(refused(error.to_string())),
            Err(_) => return Err(refused(format!("it did not stand within {} s", GUARD_STANDS.as_secs()))),
        };
        let stamp = ProcessStamp::of(pid)
            .and_then(|stamp| stamp.ok_or_else(|| io::ErrorKind::NotFound.into()))
            .map_err(|error| refused(format!("it cannot be seen in /proc: {error}")))?;
        Ok((stamp, landlock))
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
        }
    }

    /// The state file is told and synced apart from the runtime's thread.
    async fn tell_state(
        &self,
        tell: impl FnOnce(&State) -> io::Result<()> + Send + 'static,
    ) -> Result<(), ProcessError> {
        let Some(directory) = self.directory.clone() else { return Ok(()) };
        let told = tokio::task::spawn_blocking(move || tell(directory.state())).await;
        let told = told.unwrap_or_else(|panicked| Err(io::Error::other(panicked)));
        told.map_err(|source| ProcessError::State { program: self.name.clone(), source })
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
        guarded.words.say(GO).await.map_err(|source| self.system(source))?;
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
                    // A guard that is gone has ended the program already, which its silence tells.
                    let _ = guarded.words.say(STOP).await;
                }
                word = guarded.words.next() => break word.map_err(|source| self.system(source))?,
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
        // Nothing that could write is left, unless it left the guard's session and survived the guard.
        let _ = tokio::time::timeout(DRAIN, rest).await;
        log.tell_dropped();
        match last {
            Some(Word::Ended { status, left_over }) => {
                if left_over > 0 {
                    let message =
                        format!("{} left {left_over} processes behind, which were ended", self.name);
                    run.log(Level::Warn, "host", message);
                }
                Ok(Ending { status, stopped, left_over, tail: log.into_tail(), landlock: guarded.landlock })
            }
            Some(Word::NotStarted { message }) => {
                Err(ProcessError::NotStarted { path: self.program.clone(), message })
            }
            Some(Word::Refused { message }) => Err(self.system(io::Error::other(message))),
            Some(Word::Ready { .. }) | None => Err(ProcessError::GuardKilled { program: self.name.clone() }),
        }
    }

    fn system(&self, source: io::Error) -> ProcessError {
        ProcessError::System { program: self.name.clone(), source }
    }
}
