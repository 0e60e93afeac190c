//! The child process that compiles one component. Its limits bound the cost of a compilation. They do not protect against faults of the
//! compiler, because the parent executes the compiler's output as native code.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::process::ExitCode;

use rustix::process::{Pid, Resource, Rlimit, Signal, getppid, set_parent_process_death_signal, setrlimit};
use wasmtime::Engine;

use super::COMPONENT_BYTES;
use crate::component::in_one_line;
use crate::engine;
use foundation::landlock::Domain;

/// The first argument of the child.
pub(super) const COMPILER: &str = "--understudy-compiler-of-a-component";

/// How the child ended, by its exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The image is on standard output.
    Image,
    /// The engine rejects the component; the reason is on standard error.
    Rejected,
    /// The image exceeds its size limit.
    TooLarge,
    /// The child ran out of memory.
    OutOfMemory,
    /// Any other failure; the reason is on standard error.
    Failed,
}

impl Answer {
    fn code(self) -> u8 {
        match self {
            Self::Image => 0,
            Self::Rejected => 10,
            Self::TooLarge => 11,
            Self::OutOfMemory => 12,
            Self::Failed => 1,
        }
    }

    pub(super) fn of(code: i32) -> Self {
        [Self::Image, Self::Rejected, Self::TooLarge, Self::OutOfMemory]
            .into_iter()
            .find(|answer| i32::from(answer.code()) == code)
            .unwrap_or(Self::Failed)
    }
}

/// Compiles a component if the first argument says that this process is a compiler's child. Otherwise returns `None`.
///
/// Must be called at the start of `main`, with `std::env::args_os()`, while the process has one thread.
pub fn compiler_main(arguments: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut arguments = arguments.into_iter().skip(1);
    if arguments.next()? != COMPILER {
        return None;
    }
    let answer = match prepare(arguments) {
        Ok(limit) => compile(limit),
        Err(error) => {
            report(&format!("cannot start the compiler: {error}"));
            Answer::Failed
        }
    };
    Some(ExitCode::from(answer.code()))
}

/// Makes the kernel kill this process when its parent ends, sets the limits, and closes every descriptor that it does not need. Returns
/// the size limit of the image.
fn prepare(mut arguments: impl Iterator<Item = OsString>) -> io::Result<u64> {
    let mut number = || arguments.next()?.to_str()?.parse::<u64>().ok();
    let numbers = (number(), number(), number(), number());
    let (Some(parent), Some(memory), Some(processor), Some(image)) = numbers else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // If the parent ended before the death signal was set, the kernel sends no signal.
    let parent = i32::try_from(parent).ok().and_then(Pid::from_raw);
    if parent.is_none() || getppid() != parent {
        return Err(io::Error::other("the parent is gone"));
    }
    close_inherited_descriptors()?;
    Domain::deny_all().enter(None).map_err(io::Error::other)?;
    let limit = |resource, limit| {
        setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) }).map_err(io::Error::from)
    };
    limit(Resource::As, memory)?;
    // The kernel treats 0 seconds as 1.
    let processor = processor.max(1);
    setrlimit(Resource::Cpu, Rlimit { current: Some(processor), maximum: Some(processor + 1) })?;
    limit(Resource::Core, 0)?;
    limit(Resource::Fsize, 0)?;
    limit(Resource::Nofile, 3)?;
    Ok(image)
}

/// Closes every descriptor above 2, because the parent may have passed on descriptors that it inherited.
fn close_inherited_descriptors() -> io::Result<()> {
    let mut open = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        open.extend(entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    for descriptor in open.into_iter().filter(|descriptor| *descriptor > 2) {
        // This fails for the descriptor of the directory stream above, which is already closed.
        let _ = nix::unistd::close(descriptor);
    }
    Ok(())
}

fn compile(limit: u64) -> Answer {
    let mut component = Vec::new();
    let read = io::stdin().lock().take(COMPONENT_BYTES + 1).read_to_end(&mut component);
    match read {
        Ok(count) if count as u64 <= COMPONENT_BYTES => {}
        Ok(_) => {
            report("it is too large");
            return Answer::Rejected;
        }
        Err(error) if error.kind() == io::ErrorKind::OutOfMemory => return Answer::OutOfMemory,
        Err(error) => {
            report(&error.to_string());
            return Answer::Failed;
        }
    }
    let image = Engine::new(&engine::config()).and_then(|engine| engine.precompile_component(&component));
    match image {
        Ok(image) if image.len() as u64 > limit => Answer::TooLarge,
        Ok(image) => match io::stdout().lock().write_all(&image) {
            Ok(()) => Answer::Image,
            Err(error) => {
                report(&error.to_string());
                Answer::Failed
            }
        },
        Err(error) if is_out_of_memory(&error) => Answer::OutOfMemory,
        Err(error) => {
            report(&in_one_line(&error));
            Answer::Rejected
        }
    }
}

fn is_out_of_memory(error: &wasmtime::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref() == Some(&rustix::io::Errno::NOMEM)
            || cause
                .downcast_ref::<io::Error>()
                .is_some_and(|cause| cause.kind() == io::ErrorKind::OutOfMemory)
    })
}

fn report(message: &str) {
    // Fails only if the parent is gone.
    let _ = writeln!(io::stderr().lock(), "{message}");
}
