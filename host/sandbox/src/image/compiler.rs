//! Compiles components in a child process with limits, because a component can be written so that its compilation takes any amount of
//! time and memory, and the engine does not bound either.

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
use crate::thread::panic_message;

/// Where components are compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compiler {
    /// In a child process for each component.
    Child {
        /// The executable of the child. It calls [`crate::compiler_main`] at the start of `main`, and has the same version as this program.
        executable: PathBuf,
        /// What the child may use.
        bounds: CompileBounds,
    },
    /// In this process, without limits. Only for trusted components, such as those in tests.
    Here,
}

impl Compiler {
    /// Returns a compiler that runs the executable of this process, even if the executable's file was replaced after this process was
    /// started.
    pub fn this_executable() -> Self {
        Self::Child { executable: PathBuf::from("/proc/self/exe"), bounds: CompileBounds::default() }
    }
}

/// What one compilation may use. A component that contains Python (18 MB) needs five seconds and half of the default memory, and becomes
/// an image of 35 MB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompileBounds {
    /// Address space.
    pub memory: Bytes,
    /// Elapsed time. It may be much longer than the processor time if the machine is busy.
    pub time: Duration,
    /// Processor time of all threads together, in whole seconds.
    pub processor: Duration,
    /// Size of the machine code.
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

/// How many bytes of the child's standard error are read.
const STDERR_BYTES: u64 = 8 << 10;

/// How many threads the child has. Each needs address space.
const THREADS: usize = 4;

/// The advice for a component whose compilation costs too much.
const SMALLER: &str = "build a smaller one, for example with optimisation for size";

/// Why a component was not compiled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CompileError {
    #[error("is not a component that this program supports: {0}")]
    Rejected(String),
    #[error("is truncated: {0}; copy or build it again")]
    Truncated(String),
    #[error("needs more than {0} of memory to be compiled: {SMALLER}")]
    Memory(Bytes),
    #[error("is not compiled within {} s: try again when this machine is less busy", .0.as_secs_f64())]
    Time(Duration),
    #[error("needs more than {} s of processor time to be compiled: {SMALLER}", .0.as_secs())]
    Processor(Duration),
    #[error("becomes more than {0} of machine code: {SMALLER}")]
    Image(Bytes),
    #[error("was not compiled, because the run was cancelled")]
    Cancelled,
    #[error("cannot be compiled: {0}")]
    Failed(String),
}

impl CompileError {
    /// Makes the error from the engine's reason for rejecting a component.
    fn rejected(why: String) -> Self {
        // The parser writes these messages if the bytes end within a value or a section.
        let is_short = why.contains("unexpected end")
            || (why.contains("section range") && why.contains("is out of bounds (bound ="));
        if is_short { Self::Truncated(why) } else { Self::Rejected(why) }
    }
}

impl Compiler {
    /// Compiles a component for `engine`. Blocks until the compilation succeeds, fails or is cancelled by `cancel`. When this function
    /// returns, the child has ended.
    ///
    /// # Errors
    /// Says what is wrong with the component, or which limit its compilation reached.
    pub(super) fn compile(
        &self,
        engine: &Engine,
        component: Vec<u8>,
        cancel: &CancellationToken,
    ) -> Result<Vec<u8>, CompileError> {
        match self {
            Self::Here => engine
                .precompile_component(&component)
                .map_err(|error| CompileError::rejected(in_one_line(&error))),
            Self::Child { executable, bounds } => {
                let compile = || {
                    let failed = |error: io::Error| CompileError::Failed(error.to_string());
                    let runtime =
                        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
                    runtime.block_on(compile_in_child(executable, bounds, component, cancel))
                };
                // The thread that starts the child must outlive it, because the kernel kills the child when that thread ends.
                std::thread::scope(|scope| match scope.spawn(compile).join() {
                    Ok(compiled) => compiled,
                    Err(panic) => Err(CompileError::Failed(panic_message(&*panic))),
                })
            }
        }
    }
}

async fn compile_in_child(
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
            // Fails if the child ended early; its standard error says why.
            let _ = input.write_all(&component).await;
        }
        // Free the memory early, because the child has its own copy now.
        drop(component);
    };
    let talk = async {
        let (_, image, stderr, status) =
            tokio::join!(send, read_all(output, bounds.image.0), read_all(error, STDERR_BYTES), child.wait());
        Ok::<_, io::Error>((image?, stderr?, status?))
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
        Ok((image, stderr, status)) => compilation_result(image, &stderr, status, bounds),
        Err(error) => {
            end(&mut child).await;
            Err(error)
        }
    }
}

/// Returns the child's arguments after the first: the process ID of the parent, and the limits.
fn arguments(bounds: &CompileBounds) -> [OsString; 4] {
    let numbers =
        [u64::from(std::process::id()), bounds.memory.0, bounds.processor.as_secs(), bounds.image.0];
    numbers.map(|number| number.to_string().into())
}

/// Reads a pipe to its end; `None` if it gives more than `limit` bytes.
async fn read_all(pipe: Option<impl AsyncRead + Unpin>, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(limit.saturating_add(1)).read_to_end(&mut bytes).await?;
    }
    Ok((bytes.len() as u64 <= limit).then_some(bytes))
}

/// Kills the process group of the child.
async fn end(child: &mut Child) {
    let group = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    if let Some(group) = group {
        // The child leads its group and was not reaped yet, so no other process can have its ID.
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.wait().await;
}

/// Determines the result of the compilation from how the child ended.
fn compilation_result(
    image: Option<Vec<u8>>,
    stderr: &Option<Vec<u8>>,
    status: ExitStatus,
    bounds: &CompileBounds,
) -> Result<Vec<u8>, CompileError> {
    let Some(image) = image else { return Err(CompileError::Image(bounds.image)) };
    let stderr = String::from_utf8_lossy(stderr.as_deref().unwrap_or_default());
    let stderr = || printable(&stderr, 1000);
    // Rust's allocator prints this message before it aborts.
    let is_out_of_memory = stderr().contains("memory allocation of");
    match (status.code().map(Answer::of), status.signal().map(Signal::from_named_raw)) {
        (Some(Answer::Image), _) => Ok(image),
        (Some(Answer::Rejected), _) => Err(CompileError::rejected(stderr())),
        (Some(Answer::TooLarge), _) => Err(CompileError::Image(bounds.image)),
        (Some(Answer::OutOfMemory), _) => Err(CompileError::Memory(bounds.memory)),
        (_, Some(Some(Signal::ABORT))) if is_out_of_memory => Err(CompileError::Memory(bounds.memory)),
        (_, Some(Some(Signal::XCPU))) => Err(CompileError::Processor(bounds.processor)),
        (Some(Answer::Failed) | None, _) => {
            Err(CompileError::Failed(format!("its compiler ended with {status}: {}", stderr())))
        }
    }
}
