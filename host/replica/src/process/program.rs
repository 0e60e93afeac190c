//! The child of a guard that becomes the program: the child confines itself and then executes the program.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use command_fds::{CommandFdExt, FdMapping};
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
pub(super) fn become_program(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let Ok(mut report) = standard_input() else { return ExitCode::FAILURE };
    let guard = arguments.next().and_then(|pid| pid.to_str()?.parse().ok()).and_then(Pid::from_raw);
    let Some(program) = arguments.next() else { return ExitCode::FAILURE };
    let prepared = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    // If the guard died before the death signal was set, the kernel sends no signal.
    if guard.is_none() || rustix::process::getppid() != guard {
        return ExitCode::FAILURE;
    }
    // This process has inherited the guard's signal mask, which blocks TERM.
    let prepared =
        prepared.map_err(io::Error::from).and(SigSet::all().thread_unblock().map_err(io::Error::from));
    let error = match prepared.and_then(|()| confine(&report)) {
        Ok(environment) => {
            let mut command = Command::new(Path::new(&program));
            command.args(arguments).env_clear().envs(environment).stdin(Stdio::null()).exec()
        }
        Err(error) => error,
    };
    // The guard reads the error. If the guard is gone, the kernel kills this process.
    let _ = write!(report, "{error}");
    ExitCode::FAILURE
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
