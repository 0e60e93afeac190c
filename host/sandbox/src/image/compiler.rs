//! What compiles components: a child of this program with bounds of its own, for whoever wrote a component decides what
//! compiling it costs, and the engine gives no promise about that.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use replica::Bytes;
use rustix::process::{Pid, Signal, kill_process_group};
use std::os::unix::process::ExitStatusExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;
use wasmtime::Engine;

use super::child::{Answer, COMPILER};
use crate::component::in_one_line;
use crate::text::printable;
use crate::thread::said;

/// What compiles components.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compiler {
    /// A process of its own for each component.
    Child {
        /// The executable that becomes it: it calls [`crate::compiler_main`] first thing, and is of the same version as this one.
        executable: PathBuf,
        /// What it may use.
        bounds: CompileBounds,
    },
    /// This process, without any bound: for components that are trusted, as in tests.
    Here,
}

impl Compiler {
    /// The executable of this process, also when its file was replaced meanwhile.
    pub fn this_executable() -> Self {
        Self::Child { executable: PathBuf::from("/proc/self/exe"), bounds: CompileBounds::default() }
    }
}

/// What one compilation may use. A component with a whole Python in it (18 MB) needs half of the memory, five seconds and
/// an image of 35 MB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompileBounds {
    /// Address space.
    pub memory: Bytes,
    /// From its start to its end, on a machine that may be busy: what it costs is bounded by `processor`.
    pub time: Duration,
    /// Processor time over all its threads, in whole seconds.
    pub processor: Duration,
    /// The machine code that it gives.
    pub image: Bytes,
}

impl Default for CompileBounds {
    fn default() -> Self {
        Self {
            memory: Bytes(1 << 30),
            time: Duration::from_secs(600),
            processor: Duration::from_secs(120),
            image: Bytes(256 << 20),
        }
    }
}

/// Bytes that are read of what the child says.
const WORDS: u64 = 8 << 10;

/// Threads of the child: each needs address space of its own.
const THREADS: usize = 4;

/// What to do with a component that costs too much.
const SMALLER: &str = "build a smaller one, such as with optimisation for size";

/// A component that was not compiled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CompileError {
    #[error("is not a component that this program takes: {0}")]
    Unfit(String),
    #[error("is truncated: {0}; copy or build it again")]
    Truncated(String),
    #[error("needs more than {0} of memory to be compiled: {SMALLER}")]
    Memory(Bytes),
    #[error("is not compiled within {} s: try again when this machine has less to do", .0.as_secs_f64())]
    Time(Duration),
    #[error("needs more than {} s of processor time to be compiled: {SMALLER}", .0.as_secs())]
    Processor(Duration),
    #[error("becomes more than {0} of machine code: {SMALLER}")]
    Image(Bytes),
    #[error("is not compiled, for the run was cancelled")]
    Cancelled,
    #[error("cannot be compiled: {0}")]
    Failed(String),
}

impl CompileError {
    /// What the engine says of a component that it does not take.
    fn refused(why: String) -> Self {
        // The parser's own words where the bytes end in the middle of something: of a value, or of a section.
        let is_short = why.contains("unexpected end")
            || (why.contains("section range") && why.contains("is out of bounds (bound ="));
        if is_short { Self::Truncated(why) } else { Self::Unfit(why) }
    }
}

impl Compiler {
    /// Compiles a component for `engine`. Blocks until it is done, fails, or `cancel` is cancelled; nothing of it is at work
    /// any more then.
    ///
    /// # Errors
    /// What is wrong with the component, or which bound it reached.
    pub(super) fn compile(
        &self,
        engine: &Engine,
        component: Vec<u8>,
        cancel: &CancellationToken,
    ) -> Result<Vec<u8>, CompileError> {
        match self {
            Self::Here => engine
                .precompile_component(&component)
                .map_err(|error| CompileError::refused(in_one_line(&error))),
            Self::Child { executable, bounds } => {
                let compile = || {
                    let failed = |error: io::Error| CompileError::Failed(error.to_string());
                    let runtime =
                        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
                    runtime.block_on(in_a_child(executable, bounds, component, cancel))
                };
                // A thread of its own, which lives as long as the child: the child's death signal comes with its end.
                std::thread::scope(|scope| match scope.spawn(compile).join() {
                    Ok(compiled) => compiled,
                    Err(panic) => Err(CompileError::Failed(said(&*panic))),
                })
            }
        }
    }
}

async fn in_a_child(
    executable: &PathBuf,
    bounds: &CompileBounds,
    component: Vec<u8>,
    cancel: &CancellationToken,
) -> Result<Vec<u8>, CompileError> {
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get().min(THREADS));
    let mut command = Command::new(executable);
    command
        .arg(COMPILER)
        .args(arguments(bounds))
        .env_clear()
        .env("RAYON_NUM_THREADS", threads.to_string())
        .current_dir("/")
        .process_group(0)
        .kill_on_drop(true)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let started = command.spawn();
    let mut child = started.map_err(|error| {
        CompileError::Failed(format!("{} cannot be started: {error}", executable.display()))
    })?;
    let (input, output, error) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let send = async {
        if let Some(mut input) = input {
            // A child that ended early says why.
            let _ = input.write_all(&component).await;
        }
        // The child's memory holds it now.
        drop(component);
    };
    let talk = async {
        let (_, image, words, status) =
            tokio::join!(send, all_of(output, bounds.image.0), all_of(error, WORDS), child.wait());
        Ok::<_, io::Error>((image?, words?, status?))
    };
    let ended = tokio::select! {
        biased;
        () = cancel.cancelled() => Err(CompileError::Cancelled),
        ended = tokio::time::timeout(bounds.time, talk) => match ended {
            Ok(ended) => ended.map_err(|error| CompileError::Failed(error.to_string())),
            Err(_) => Err(CompileError::Time(bounds.time)),
        },
    };
    match ended {
        Ok((image, words, status)) => judge(image, &words, status, bounds),
        Err(error) => {
            end(&mut child).await;
            Err(error)
        }
    }
}

/// The child's arguments after the first: who it belongs to and what it may use.
fn arguments(bounds: &CompileBounds) -> [OsString; 4] {
    let numbers =
        [u64::from(std::process::id()), bounds.memory.0, bounds.processor.as_secs(), bounds.image.0];
    numbers.map(|number| number.to_string().into())
}

/// Everything that comes out of a pipe; none where it is more than `limit` bytes.
async fn all_of(pipe: Option<impl AsyncRead + Unpin>, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(limit.saturating_add(1)).read_to_end(&mut bytes).await?;
    }
    Ok((bytes.len() as u64 <= limit).then_some(bytes))
}

/// Ends the child and whatever it started.
async fn end(child: &mut Child) {
    let group = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    if let Some(group) = group {
        // It leads its group, and is not reaped yet.
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.wait().await;
}

/// What a child's end means.
fn judge(
    image: Option<Vec<u8>>,
    words: &Option<Vec<u8>>,
    status: ExitStatus,
    bounds: &CompileBounds,
) -> Result<Vec<u8>, CompileError> {
    let Some(image) = image else { return Err(CompileError::Image(bounds.image)) };
    let words = String::from_utf8_lossy(words.as_deref().unwrap_or_default());
    let words = || printable(&words, 1000);
    // Rust's allocator says so before it aborts.
    let is_out_of_memory = words().contains("memory allocation of");
    match (status.code().map(Answer::of), status.signal().map(Signal::from_named_raw)) {
        (Some(Answer::Image), _) => Ok(image),
        (Some(Answer::Unfit), _) => Err(CompileError::refused(words())),
        (Some(Answer::TooLarge), _) => Err(CompileError::Image(bounds.image)),
        (Some(Answer::OutOfMemory), _) => Err(CompileError::Memory(bounds.memory)),
        (_, Some(Some(Signal::ABORT))) if is_out_of_memory => Err(CompileError::Memory(bounds.memory)),
        (_, Some(Some(Signal::XCPU))) => Err(CompileError::Processor(bounds.processor)),
        (Some(Answer::Failed) | None, _) => {
            Err(CompileError::Failed(format!("its compiler ended with {status}: {}", words())))
        }
    }
}
