//! The guard: a small process between the host and a native program. It is the program's reaper, leads its session and
//! group, and ends all its descendants when the host requests it or has ended, or when the program has ended.
//! Semantics rule 27.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal as NixSignal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions};

use super::protocol::{GO, GuardMessage, LONGEST, Order};
use super::{Status, descendants};
use foundation::landlock::{Allowed, Domain};

/// The first argument of a guard.
pub(super) const GUARD: &str = "--understudy-guard-of-a-native-program";

/// The first argument of the process that becomes the program.
pub(super) const PROGRAM: &str = "--understudy-guarded-native-program";

/// How often processes that are being ended are polled.
const INTERVAL: Duration = Duration::from_millis(10);

/// Runs as a guard if the hidden first argument says so; returns `None` otherwise. Call this before anything else in `main`, with
/// `std::env::args_os()`, while the process has one thread.
pub fn guard_main(arguments: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut arguments = arguments.into_iter().skip(1);
    let first = arguments.next()?;
    if first == GUARD {
        Some(guard())
    } else if first == PROGRAM {
        Some(become_program(arguments))
    } else {
        None
    }
}

fn guard() -> ExitCode {
    let host = match standard_input() {
        Ok(host) => host,
        Err(_) => return ExitCode::FAILURE,
    };
    match Guard::set_up(&host).and_then(|guard| guard.serve()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let message = error.to_string();
            // If the host is gone, sending fails too.
            let _ = send(&host, &GuardMessage::Refused { message });
            ExitCode::FAILURE
        }
    }
}

/// Returns standard input, which is a socket, as a descriptor that no program inherits.
fn standard_input() -> io::Result<UnixStream> {
    Ok(UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?))
}

fn send(mut host: &UnixStream, message: &GuardMessage) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    host.write_all(&line)
}

struct Guard<'a> {
    host: &'a UnixStream,
    lines: BufReader<&'a UnixStream>,
    signals: SignalFd,
}

impl<'a> Guard<'a> {
    /// Makes this process a guard: session leader, reaper, with its signals blocked.
    fn set_up(host: &'a UnixStream) -> io::Result<Self> {
        // Fails if the process already leads a group, because the host started it as the leader.
        let _ = rustix::process::setsid();
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        rustix::process::umask(Mode::RWXG | Mode::RWXO);
        let mut signals = SigSet::empty();
        for signal in [
            NixSignal::SIGCHLD,
            NixSignal::SIGTERM,
            NixSignal::SIGINT,
            NixSignal::SIGHUP,
            NixSignal::SIGQUIT,
            NixSignal::SIGUSR1,
            NixSignal::SIGUSR2,
            NixSignal::SIGALRM,
            NixSignal::SIGTSTP,
            NixSignal::SIGTTIN,
            NixSignal::SIGTTOU,
        ] {
            signals.add(signal);
        }
        signals.thread_block()?;
        let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self { host, lines: BufReader::new(host), signals })
    }

    fn serve(mut self) -> io::Result<()> {
        let order: Order = serde_json::from_str(&self.line()?)?;
        let domain = Domain::read_only().with_network().with("/dev/null", Allowed::Write);
        let domain = order.writable.iter().fold(domain, |domain, path| domain.with(path, Allowed::Change));
        let landlock = domain.enter(order.require_landlock).map_err(io::Error::other)?;
        send(self.host, &GuardMessage::Ready { landlock })?;
        if self.line()? != GO {
            return Ok(());
        }
        let program = match start(&order) {
            Ok(program) => program,
            Err(error) => {
                self.end_all(None, order.grace)?;
                return send(self.host, &GuardMessage::NotStarted { message: error.to_string() });
            }
        };
        let status = self.watch(program)?;
        let (status, leftover_processes) = self.end_all(Some((program, status)), order.grace)?;
        let status = status.ok_or_else(|| io::Error::other("the program's end was not seen"))?;
        send(self.host, &GuardMessage::Ended { status, leftover_processes })
    }

    /// Reads the next line from the host, without its end; empty if the host is gone.
    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        (&mut self.lines).take(LONGEST).read_line(&mut line)?;
        Ok(line.trim_end_matches('\n').to_owned())
    }

    /// Waits until the program has ended, and returns its status, or must be ended, and returns `None`.
    fn watch(&mut self, program: Pid) -> io::Result<Option<Status>> {
        loop {
            if let Some(status) = reap(Some(program))?.status {
                return Ok(Some(status));
            }
            let seen = self.wait(None)?;
            if seen.host || seen.signal {
                return Ok(None);
            }
        }
    }

    /// Ends all descendants of this process: sends TERM, and after `grace` KILL until none is left. Returns the program's status, and
    /// how many processes the program had left behind if it ended by itself.
    fn end_all(
        &mut self,
        program: Option<(Pid, Option<Status>)>,
        grace: Duration,
    ) -> io::Result<(Option<Status>, u32)> {
        let (program, mut status) = program.map_or((None, None), |(program, status)| (Some(program), status));
        let ended_itself = status.is_some();
        let mut leftover_processes = 0;
        let mut signalled = false;
        let deadline = Instant::now() + grace;
        loop {
            let reaped = reap(program)?;
            status = status.or(reaped.status);
            if reaped.none_left {
                return Ok((status, leftover_processes));
            }
            if !signalled {
                let running = descendants::running()?;
                if ended_itself {
                    leftover_processes = u32::try_from(running.len()).unwrap_or(u32::MAX);
                }
                descendants::signal(&running, Signal::TERM);
                // A stopped process handles no other signal until it is continued.
                descendants::signal(&running, Signal::CONT);
                signalled = true;
            } else if Instant::now() >= deadline {
                // Repeated in each pass, because a process that is forking may have been missed.
                descendants::signal(&descendants::running()?, Signal::KILL);
            }
            self.wait(Some(INTERVAL))?;
        }
    }

    /// Waits for a line from the host, its end, or a signal.
    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<WakeUp> {
        let ending = timeout.is_some();
        let timeout = match timeout {
            None => PollTimeout::NONE,
            Some(timeout) => PollTimeout::try_from(timeout).unwrap_or(PollTimeout::ZERO),
        };
        // A line that was read ahead is not in the socket any more.
        let has_line = !self.lines.buffer().is_empty();
        let host = self.host.as_fd();
        let signals = self.signals.as_fd();
        let mut watched = [PollFd::new(signals, PollFlags::POLLIN), PollFd::new(host, PollFlags::POLLIN)];
        // Once the processes are being ended the host sends nothing more, and its end must not keep the poll from waiting.
        let count = if ending { 1 } else { 2 };
        match poll(&mut watched[..count], if has_line && !ending { PollTimeout::ZERO } else { timeout }) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let host = has_line || watched[1].revents().is_some_and(|events| !events.is_empty());
        let mut signal = false;
        while let Some(received) = self.signals.read_signal()? {
            signal |= matches!(
                i32::try_from(received.ssi_signo).map(NixSignal::try_from),
                Ok(Ok(NixSignal::SIGTERM | NixSignal::SIGINT | NixSignal::SIGHUP | NixSignal::SIGQUIT))
            );
        }
        Ok(WakeUp { host, signal })
    }
}

/// The event that ended a wait, other than the end of a child.
struct WakeUp {
    /// The host sent a line or is gone: the program must end.
    host: bool,
    /// A signal requests that the guard itself ends.
    signal: bool,
}

/// The result of reaping.
struct Reaped {
    /// How the program ended.
    status: Option<Status>,
    /// This process has no children any more, and so no descendants.
    none_left: bool,
}

fn reap(program: Option<Pid>) -> io::Result<Reaped> {
    let mut reaped = Reaped { status: None, none_left: false };
    loop {
        // Not `waitpid(None, ..)`, which waits only for children in the group of this process.
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if Some(pid) == program => {
                reaped.status = match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => Some(Status::Exited(code)),
                    (None, Some(signal)) => Some(Status::Signalled(signal)),
                    (None, None) => None,
                };
            }
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return Ok(reaped),
            Err(Errno::CHILD) => {
                reaped.none_left = true;
                return Ok(reaped);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Starts the program through this executable, which sets the death signal and then becomes the program. Returns when the child has become
/// the program or has failed: its end of a socket closes, or carries the error.
fn start(order: &Order) -> io::Result<Pid> {
    let (mut report, childs) = UnixStream::pair()?;
    let mut command = Command::new("/proc/self/exe");
    command
        .arg(PROGRAM)
        .arg(std::process::id().to_string())
        .arg(&order.program)
        .args(&order.arguments)
        .env_clear()
        .envs(order.environment.iter().map(|(name, value)| (name, value)))
        .current_dir("/")
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(childs)));
    let child = command.spawn()?;
    // The command holds the child's end of the socket.
    drop(command);
    let mut error = String::new();
    report.read_to_string(&mut error)?;
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    match pid {
        Some(pid) if error.is_empty() => Ok(pid),
        _ => Err(io::Error::other(error)),
    }
}

/// Becomes the program, which dies with the guard and inherits only its group, the lock and the output.
fn become_program(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let Ok(mut report) = standard_input() else { return ExitCode::FAILURE };
    let guard = arguments.next().and_then(|pid| pid.to_str()?.parse().ok()).and_then(Pid::from_raw);
    let Some(program) = arguments.next() else { return ExitCode::FAILURE };
    let prepared = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    // The kernel sends no signal for a guard that died before the signal was set.
    if guard.is_none() || rustix::process::getppid() != guard {
        return ExitCode::FAILURE;
    }
    // The guard's signal mask, which blocks TERM, is inherited.
    let prepared =
        prepared.map_err(io::Error::from).and(SigSet::all().thread_unblock().map_err(io::Error::from));
    let error = match prepared {
        Ok(()) => Command::new(Path::new(&program)).args(arguments).stdin(Stdio::null()).exec(),
        Err(error) => error,
    };
    // The guard reads the error. If it is gone, the kernel kills this process.
    let _ = write!(report, "{error}");
    ExitCode::FAILURE
}
