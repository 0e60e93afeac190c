//! The guard: a small process between the host and a native program. The guard reaps the program and its descendants, and leads their
//! session and group. It ends all descendants when the host requests that or has ended, or when the program has ended (rule 27).

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal as NixSignal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions};

use super::count::{Found, ProcessCount};
use super::memory_shortage::Score;
use super::program::{PROGRAM, Preparation, become_program, spawn};
use super::protocol::{GO, GuardMessage, LONGEST, Order};
use super::{Exceeded, LOCK, Status, descendants};
use foundation::causes::with_causes;
use foundation::descriptors::keep_from_programs_from;
use foundation::landlock::{Allowed, Domain, SignalScope};

/// The first argument of a guard.
pub(super) const GUARD: &str = "--understudy-guard-of-a-native-program";

/// The pause between two checks whether processes that are being ended still exist.
const INTERVAL: Duration = Duration::from_millis(10);

/// How long the child may take to execute the program. It opens the granted paths before that.
const STARTS_WITHIN: Duration = Duration::from_mins(1);

/// How many times the guard kills the processes, which may have started others meanwhile, before it waits for [`INTERVAL`].
const PASSES: u32 = 64;

/// How long a count of running processes may take. While they start and end faster than they can be read, a count has no end.
const COUNT_WITHIN: Duration = Duration::from_secs(1);

/// How long a count may take if there may be too many processes and signals are not restricted to the domain, so that the processes are not
/// stopped meanwhile.
const COUNT_QUICKLY_WITHIN: Duration = Duration::from_millis(100);

/// The most children that are reaped before the guard does anything else: processes may end as fast as the guard can reap them.
const REAPED_AT_ONCE: u32 = 1000;

/// Runs as a guard if the first argument is the hidden argument for that; otherwise returns `None`. Call this before anything else in
/// `main`, with `std::env::args_os()`, while the process has one thread.
pub fn guard_main(arguments: impl IntoIterator<Item = OsString>) -> Option<ExitCode> {
    let mut arguments = arguments.into_iter().skip(1);
    let first = arguments.next()?;
    if first != GUARD && first != PROGRAM {
        return None;
    }
    // The host already keeps programs from inheriting its descriptors. This call covers a descriptor that the host missed.
    keep_from_programs_from(LOCK + 1);
    Some(if first == GUARD { guard() } else { become_program(arguments) })
}

fn guard() -> ExitCode {
    let host = match standard_input() {
        Ok(host) => host,
        Err(_) => return ExitCode::FAILURE,
    };
    match Guard::set_up(&host).and_then(|guard| guard.serve()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let message = with_causes(&error);
            // Sending fails if the host is gone.
            let _ = send(&host, &GuardMessage::Refused { message });
            ExitCode::FAILURE
        }
    }
}

/// Returns standard input, which is a socket, as a descriptor that programs do not inherit.
pub(super) fn standard_input() -> io::Result<UnixStream> {
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
    /// The proof that a signal of this process reaches only its descendants; `None` if the kernel does not ensure that.
    scope: Option<SignalScope>,
}

impl<'a> Guard<'a> {
    /// Makes this process a guard: makes it the session leader and a reaper, and blocks its signals.
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
        Ok(Self { host, lines: BufReader::new(host), signals, scope: None })
    }

    fn serve(mut self) -> io::Result<()> {
        let order: Order = serde_json::from_str(&self.line()?)?;
        let score = order.confinement.as_ref().and_then(|_| Score::open());
        let domain = Domain::read_only().with_network().with("/dev/null", Allowed::Write);
        let domain = order.writable.iter().fold(domain, |domain, path| domain.with(path, Allowed::Change));
        // This domain restricts signals, whether or not the program gets a domain of its own.
        let (landlock, scope) = domain.enter_and_prove(order.require_landlock).map_err(io::Error::other)?;
        self.scope = scope;
        send(self.host, &GuardMessage::Ready { landlock })?;
        if self.line()? != GO {
            return Ok(());
        }
        let mut counted = ProcessCount::of(order.confinement.as_ref());
        // The program may use up the memory of the machine. The guard, which ends the program, must outlive it.
        let started = match score {
            Some(mut score) => score.while_first(|| self.start(&order)),
            None => self.start(&order),
        };
        let (program, started) = match started {
            Ok(started) => started,
            Err(error) => {
                self.end_all(None, Some(order.grace), &mut counted)?;
                return send(self.host, &GuardMessage::NotStarted { message: with_causes(&error) });
            }
        };
        let seen = match started {
            Started::Executed => self.watch(program, &mut counted)?,
            Started::MustEnd => Seen::MustEnd,
        };
        let status = if let Seen::Ended(status) = seen { Some(status) } else { None };
        let exceeded = if let Seen::Exceeded(bound) = seen { Some(bound) } else { None };
        if exceeded.is_some() && self.scope.is_none() {
            descendants::stop_all()?;
        }
        let grace = if exceeded.is_some() { None } else { Some(order.grace) };
        let (status, leftover_processes) = self.end_all(Some((program, status)), grace, &mut counted)?;
        let status = status.ok_or_else(|| io::Error::other("the program's end was not seen"))?;
        let used = counted.used()?;
        // The kernel, or the program itself, may have ended the program between two counts.
        let exceeded = exceeded.or_else(|| counted.exceeds_cpu(used.cpu).then_some(Exceeded::Cpu));
        send(self.host, &GuardMessage::Ended { status, leftover_processes, exceeded, used })
    }

    /// Reads the next line from the host, without its end; empty if the host is gone.
    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        (&mut self.lines).take(LONGEST).read_line(&mut line)?;
        Ok(line.trim_end_matches('\n').to_owned())
    }

    /// Starts this executable as a child, which sets the death signal, confines itself and then executes the program. Returns when the child
    /// has executed the program, which closes the child's end of a socket, or must be ended before that. Fails with the error that the
    /// child sends over that socket if it cannot execute the program.
    fn start(&mut self, order: &Order) -> io::Result<(Pid, Started)> {
        let (child, mut report) = spawn(order)?;
        let mut preparation = serde_json::to_vec(&Preparation::of(order))?;
        preparation.push(b'\n');
        report.set_write_timeout(Some(STARTS_WITHIN))?;
        // This fails if the child has ended. Its message is read below.
        let _ = report.write_all(&preparation);
        report.set_nonblocking(true)?;
        let deadline = Instant::now() + STARTS_WITHIN;
        let mut error = Vec::new();
        loop {
            let mut part = [0; 4096];
            match report.read(&mut part) {
                Ok(0) if error.is_empty() => return Ok((child, Started::Executed)),
                Ok(0) => return Err(io::Error::other(String::from_utf8_lossy(&error).into_owned())),
                Ok(read) => error.extend_from_slice(&part[..read]),
                Err(failed) if failed.kind() == io::ErrorKind::WouldBlock => {}
                Err(failed) if failed.kind() == io::ErrorKind::Interrupted => continue,
                Err(failed) => return Err(failed),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let seconds = STARTS_WITHIN.as_secs();
                return Err(io::Error::other(format!(
                    "it was not executed within {seconds} seconds: a file system that it needs may not answer"
                )));
            }
            // The child may hang, for example on a file system whose server does not answer.
            let woken = self.wait(Some(left), Some(report.as_fd()), true)?;
            if woken.host || woken.signal {
                return Ok((child, Started::MustEnd));
            }
        }
    }

    /// Waits until the program has ended or must be ended. Counts its processes meanwhile.
    fn watch(&mut self, program: Pid, counted: &mut ProcessCount) -> io::Result<Seen> {
        loop {
            let reaped = reap(Some(program))?;
            if let Some(status) = reaped.status {
                return Ok(Seen::Ended(status));
            }
            let must_count = counted.is_due();
            if must_count && let Some(seen) = self.count(program, counted)? {
                return Ok(seen);
            }
            // The program may have ended during the count. The host and signals are obeyed in any case: while processes start and end all the
            // time, there is always something to reap and to count.
            let pause = if must_count || reaped.more { Some(Duration::ZERO) } else { counted.pause() };
            let woken = self.wait(pause, None, true)?;
            if woken.host || woken.signal {
                return Ok(Seen::MustEnd);
            }
        }
    }

    /// Counts the processes of the program. Returns why it need not be watched any more, if it need not.
    fn count(&mut self, program: Pid, counted: &mut ProcessCount) -> io::Result<Option<Seen>> {
        let deadline = Instant::now() + COUNT_WITHIN;
        if self.scope.is_none() {
            let mut woken = Ok(false);
            let found = counted.count(&mut |_| {
                // The host and signals are obeyed although the count may have no end.
                woken = self.must_end();
                !matches!(woken, Ok(false)) || Instant::now() >= deadline
            })?;
            return Ok(match (woken?, found) {
                (true, _) => Some(Seen::MustEnd),
                (false, Found::Exceeded(bound)) => Some(Seen::Exceeded(bound)),
                (false, Found::Within) => None,
                (false, Found::Unknown) => {
                    counted.may_exceed().then_some(Seen::Exceeded(Exceeded::Processes))
                }
            });
        }
        let mut gives_up = |counted: &ProcessCount| counted.may_exceed() || Instant::now() >= deadline;
        if !counted.may_exceed() {
            match counted.count(&mut gives_up)? {
                Found::Exceeded(bound) => return Ok(Some(Seen::Exceeded(bound))),
                Found::Within => return Ok(None),
                Found::Unknown => {}
            }
        }
        if let Some(scope) = &self.scope {
            descendants::signal_domain(scope, NixSignal::SIGSTOP);
        }
        // After a failure the guard ends, and nobody would let the stopped processes go on.
        if let Some(status) = reap_all(program).inspect_err(|_| self.kill_domain())? {
            return Ok(Some(Seen::Ended(status)));
        }
        let exceeded = self.count_stopped(counted).inspect_err(|_| self.kill_domain())?;
        Ok(exceeded.map(Seen::Exceeded))
    }

    /// Returns the bound that the processes exceed, if they exceed one. Stops them meanwhile if signals are restricted to the domain: stopped
    /// processes leave the processor to this process, start no others and do not end. They stay stopped if they exceed a bound, or after an
    /// error.
    fn count_stopped(&self, counted: &mut ProcessCount) -> io::Result<Option<Exceeded>> {
        let Some(scope) = &self.scope else {
            let deadline = Instant::now() + COUNT_QUICKLY_WITHIN;
            return Ok(match counted.count(&mut |_| Instant::now() >= deadline)? {
                Found::Exceeded(bound) => Some(bound),
                Found::Unknown => Some(Exceeded::Processes),
                Found::Within => None,
            });
        };
        descendants::signal_domain(scope, NixSignal::SIGSTOP);
        if let Found::Exceeded(bound) = counted.count(&mut |_| false)? {
            return Ok(Some(bound));
        }
        descendants::signal_domain(scope, NixSignal::SIGCONT);
        Ok(None)
    }

    fn kill_domain(&self) {
        if let Some(scope) = &self.scope {
            descendants::signal_domain(scope, NixSignal::SIGKILL);
        }
    }

    /// Returns whether the host or a signal says that the program must end, without waiting for either.
    fn must_end(&mut self) -> io::Result<bool> {
        let woken = self.wait(Some(Duration::ZERO), None, true)?;
        Ok(woken.host || woken.signal)
    }

    /// Ends all descendants of this process: sends TERM and, after `grace`, sends KILL until none is left; without `grace`, or if they become
    /// too many meanwhile, sends KILL at once. Returns the program's status, and how many processes the program had left running if it ended
    /// by itself.
    fn end_all(
        &mut self,
        program: Option<(Pid, Option<Status>)>,
        grace: Option<Duration>,
        counted: &mut ProcessCount,
    ) -> io::Result<(Option<Status>, u32)> {
        let (program, mut status) = program.map_or((None, None), |(program, status)| (Some(program), status));
        let ended_itself = status.is_some();
        let mut leftover_processes = 0;
        let mut signalled = grace.is_none();
        let mut passes = 0_u32;
        let deadline = Instant::now() + grace.unwrap_or_default();
        loop {
            let reaped = reap(program)?;
            status = status.or(reaped.status);
            if reaped.none_left {
                return Ok((status, leftover_processes));
            }
            let mut pause = if reaped.more { Duration::ZERO } else { INTERVAL };
            if !signalled {
                if ended_itself {
                    leftover_processes = self.count_leftover();
                }
                self.terminate_all()?;
                signalled = true;
            } else if Instant::now() >= deadline
                // Other programs may have started the threads by which there may be too many, so they are counted. They must be ended even
                // if they cannot be counted.
                || (counted.may_exceed() && !matches!(self.count_stopped(counted), Ok(None)))
            {
                pause = pause.min(self.kill_all(passes)?);
                passes = passes.wrapping_add(1);
            }
            // The host sends nothing more, and its end must not keep the poll from waiting.
            self.wait(Some(pause), None, false)?;
        }
    }

    /// Counts the running descendants of this process.
    fn count_leftover(&self) -> u32 {
        if let Some(scope) = &self.scope {
            // They must not take the processor from this process while it counts.
            descendants::signal_domain(scope, NixSignal::SIGSTOP);
        }
        // They must be ended even if they cannot be counted.
        descendants::running().map_or(0, |running| u32::try_from(running.len()).unwrap_or(u32::MAX))
    }

    /// Sends TERM to every descendant of this process.
    fn terminate_all(&self) -> io::Result<()> {
        // A stopped process handles no other signal until it is continued.
        if let Some(scope) = &self.scope {
            descendants::signal_domain(scope, NixSignal::SIGTERM);
            descendants::signal_domain(scope, NixSignal::SIGCONT);
            return Ok(());
        }
        let running = descendants::running()?;
        descendants::signal(&running, Signal::TERM);
        descendants::signal(&running, Signal::CONT);
        Ok(())
    }

    /// Kills every descendant of this process. If signals are not restricted to the domain, a process that is forking may be missed, so the
    /// caller must repeat this until none is left. Returns how long the caller may wait until then.
    fn kill_all(&self, pass: u32) -> io::Result<Duration> {
        if let Some(scope) = &self.scope {
            descendants::signal_domain(scope, NixSignal::SIGKILL);
            return Ok(INTERVAL);
        }
        // The processes that a killed process has started become children of this process, which is their reaper.
        descendants::kill_children()?;
        if !pass.is_multiple_of(PASSES) {
            return Ok(Duration::ZERO);
        }
        descendants::signal(&descendants::running()?, Signal::KILL);
        Ok(INTERVAL)
    }

    /// Waits for a signal, for something to read from `report` and, with `for_host`, for a line from the host or the end of the host.
    fn wait(
        &mut self,
        timeout: Option<Duration>,
        report: Option<BorrowedFd<'_>>,
        for_host: bool,
    ) -> io::Result<WakeUp> {
        let timeout = match timeout {
            None => PollTimeout::NONE,
            Some(timeout) => PollTimeout::try_from(timeout).unwrap_or(PollTimeout::ZERO),
        };
        // A line that is already in the buffer does not make the socket readable.
        let has_line = !self.lines.buffer().is_empty();
        let host = self.host.as_fd();
        let signals = self.signals.as_fd();
        let mut watched =
            [signals, report.unwrap_or(signals), host].map(|watched| PollFd::new(watched, PollFlags::POLLIN));
        let count = if for_host { 3 } else { 2 };
        match poll(&mut watched[..count], if has_line && for_host { PollTimeout::ZERO } else { timeout }) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let host = has_line || watched[2].revents().is_some_and(|events| !events.is_empty());
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

/// How the start of the program went on.
enum Started {
    /// The child has executed the program, or has ended.
    Executed,
    /// The host or a signal says that the child must end, which has not executed the program.
    MustEnd,
}

/// Why the guard need not wait for the program any more.
enum Seen {
    /// The program has ended.
    Ended(Status),
    /// The host or a signal says that it must end.
    MustEnd,
    /// The program exceeds this bound.
    Exceeded(Exceeded),
}

/// The event that ended a wait, other than the end of a child.
struct WakeUp {
    /// The host sent a line or is gone: the program must end.
    host: bool,
    /// A signal requests the end of the guard.
    signal: bool,
}

/// The result of reaping.
struct Reaped {
    /// How the program ended.
    status: Option<Status>,
    /// This process has no children any more, and therefore no descendants.
    none_left: bool,
    /// More children may have ended.
    more: bool,
}

/// Reaps every child that has ended. Returns how the program ended, if it did.
fn reap_all(program: Pid) -> io::Result<Option<Status>> {
    loop {
        let reaped = reap(Some(program))?;
        if reaped.status.is_some() || !reaped.more {
            return Ok(reaped.status);
        }
    }
}

fn reap(program: Option<Pid>) -> io::Result<Reaped> {
    let mut reaped = Reaped { status: None, none_left: false, more: false };
    for _ in 0..REAPED_AT_ONCE {
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
    reaped.more = true;
    Ok(reaped)
}
