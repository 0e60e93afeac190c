//! The child of a guard that becomes the program: the child confines itself and then executes the program.

use std::convert::Infallible;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use command_fds::{CommandFdExt, FdMapping};
use foundation::causes::with_causes;
use nix::sys::signal::SigSet;
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

use super::guard::standard_input;
use super::protocol::{LONGEST, Order};
use super::{Confinement, LOCK};

/// The first argument of the process that becomes the program.
pub(super) const PROGRAM: &str = "--understudy-guarded-native-program";

/// What the child of a guard needs before it executes the program: one line in JSON, in addition to its arguments.
#[derive(Serialize, Deserialize)]
pub(super) struct Preparation {
    /// The environment of the program. The child does not get it as its own environment, from which the dynamic loader would take libraries
    /// (`LD_PRELOAD`, `LD_LIBRARY_PATH`) and execute their code before the child is confined.
    environment: Vec<(OsString, OsString)>,
    confinement: Option<Confinement>,
}

impl Preparation {
    pub(super) fn of(order: &Order) -> Self {
        Self { environment: order.environment.clone(), confinement: order.confinement.clone() }
    }
}

/// Starts this executable as the child that becomes the program. Returns its PID and the socket between the two.
pub(super) fn spawn(order: &Order) -> io::Result<(Pid, UnixStream)> {
    let (report, childs) = UnixStream::pair()?;
    let mut command = Command::new("/proc/self/exe");
    command
        .arg(PROGRAM)
        .arg(std::process::id().to_string())
        .arg(&order.program)
        .args(&order.arguments)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(childs)));
    if order.confinement.is_some() {
        // A confined program does not get the lock of the data directory, because it could release the lock. The guard holds it.
        let nothing = OwnedFd::from(File::open("/dev/null")?);
        command
            .fd_mappings(vec![FdMapping { parent_fd: nothing, child_fd: LOCK }])
            .map_err(io::Error::other)?;
    }
    let child = command.spawn()?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    // The command holds the child's end of the socket, which is dropped here.
    Ok((pid.ok_or(io::ErrorKind::InvalidData)?, report))
}

/// Executes the program in this process. The kernel kills the program when the guard dies. The program inherits only the guard's group, the
/// output pipes and, unless it is confined, the lock of the data directory.
///
/// If the program cannot be executed, writes the reason to the socket, from which the guard reads it. If the guard is gone, the kernel kills
/// this process.
pub(super) fn become_program(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    match standard_input() {
        Ok(mut report) => {
            let Err(error) = execute(&report, arguments);
            let _ = report.write_all(with_causes(&error).as_bytes());
        }
        Err(error) => {
            let message = format!("its standard input cannot be duplicated: {error}");
            // Standard input is the socket itself.
            let _ = rustix::io::write(io::stdin(), message.as_bytes());
        }
    }
    ExitCode::FAILURE
}

/// Prepares this process and executes the program, so that it returns only after an error.
fn execute(report: &UnixStream, mut arguments: impl Iterator<Item = OsString>) -> io::Result<Infallible> {
    let guard = arguments.next().and_then(|pid| pid.to_str()?.parse().ok()).and_then(Pid::from_raw);
    let guard = guard.ok_or_else(|| io::Error::other("it was started without the PID of its guard"))?;
    let program = arguments.next().ok_or_else(|| io::Error::other("it was started without a program"))?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // If the guard died before the death signal was set, the kernel sends no signal.
    if rustix::process::getppid() != Some(guard) {
        return Err(io::Error::other("its parent is not its guard, which may have ended"));
    }
    // This process has inherited the guard's signal mask, which blocks TERM.
    SigSet::all().thread_unblock()?;
    let environment = confine(report)?;
    let mut command = Command::new(Path::new(&program));
    Err(command.args(arguments).env_clear().envs(environment).stdin(Stdio::null()).exec())
}

/// Reads the line from the guard, and confines this process. Returns the environment of the program.
fn confine(guard: &UnixStream) -> io::Result<Vec<(OsString, OsString)>> {
    let mut line = String::new();
    BufReader::new(guard).take(LONGEST).read_line(&mut line)?;
    let Preparation { environment, confinement } = serde_json::from_str(&line)?;
    if let Some(confinement) = confinement {
        confinement.enter().map_err(io::Error::other)?;
    }
    Ok(environment)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns why a process that is started with these arguments executes no program.
    fn refused(arguments: &[String]) -> String {
        let (report, _guard) = UnixStream::pair().unwrap();
        let arguments: Vec<OsString> = arguments.iter().map(Into::into).collect();
        // The kernel keeps the death signal for this thread only, so it does not outlive the thread.
        let executed = std::thread::spawn(move || execute(&report, arguments.into_iter()));
        let Err(error) = executed.join().unwrap();
        error.to_string()
    }

    #[test]
    fn a_process_that_no_guard_has_started_says_why_it_executes_nothing() {
        for arguments in [vec![], vec!["x".to_owned()], vec!["0".to_owned(), "/bin/true".to_owned()]] {
            assert_eq!(refused(&arguments), "it was started without the PID of its guard");
        }
        // This process is not its own parent.
        let own = std::process::id().to_string();
        assert_eq!(refused(std::slice::from_ref(&own)), "it was started without a program");
        let why = refused(&[own, "/bin/true".to_owned()]);
        assert_eq!(why, "its parent is not its guard, which may have ended");
    }
}
