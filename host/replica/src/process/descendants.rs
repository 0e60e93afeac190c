//! The processes that descend from this process.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::time::{Duration, Instant};

use foundation::landlock::SignalScope;
use nix::sys::signal::Signal as NixSignal;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};

use super::orphans;
use crate::state::process::{self, Process};

/// How many processes are read before `gives_up` is asked again.
const READ_AT_ONCE: usize = 8;

/// How long processes are read for a signal. While processes start and end faster than they can be read, reading them has no end.
const READ_WITHIN: Duration = Duration::from_secs(1);

/// How long [`stop_all`] takes at most.
const STOP_WITHIN: Duration = Duration::from_secs(3);

/// The descendants of this process that were found.
struct Found {
    /// Each parent is before its children. With zombies.
    family: Vec<Process>,
    /// Whether all processes of the machine were read.
    is_complete: bool,
}

/// Returns the running processes that descend from this process, without zombies. If this process is a reaper (a "child subreaper"), its
/// descendants include processes whose parent has died. Returns those that were found within [`READ_WITHIN`].
pub(super) fn running() -> io::Result<Vec<Process>> {
    let mut family = found()?.family;
    family.retain(|process| !process.is_dead());
    Ok(family)
}

/// Finds the processes of [`running`], and zombies.
fn found() -> io::Result<Found> {
    let deadline = Instant::now() + READ_WITHIN;
    family_unless(&mut || Instant::now() >= deadline)
}

/// Finds the descendants of this process. Asks `gives_up` first and after every few processes, and reads no more once the answer is true.
fn family_unless(gives_up: &mut dyn FnMut() -> bool) -> io::Result<Found> {
    let mut all = Vec::new();
    let mut given_up = false;
    let read = process::each(&mut |process| {
        given_up = all.len().is_multiple_of(READ_AT_ONCE) && gives_up();
        all.push(process);
        if given_up { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    });
    if !given_up {
        read?;
    }
    let mut children: HashMap<u32, Vec<Process>> = HashMap::new();
    for process in all {
        children.entry(process.parent).or_default().push(process);
    }
    // Each parent is removed from the map once, even if a PID that was reused meanwhile makes a cycle.
    let own = std::process::id();
    let mut family: Vec<Process> = children.remove(&own).unwrap_or_default();
    let mut next = 0;
    while let Some(parent) = family.get(next) {
        let found = children.remove(&parent.pid).unwrap_or_default();
        family.extend(found.into_iter().filter(|process| process.pid != own));
        next += 1;
    }
    Ok(Found { family, is_complete: !given_up })
}

/// What the descendants of this process are, and what they have used so far.
pub(super) struct Counted {
    /// How many threads the running descendants have together; a process has at least one. `None` if not all processes were read.
    pub(super) threads: Option<u64>,
    /// The processes whose processor time was read, including zombies. No processor time is in it twice.
    pub(super) processes: Vec<Process>,
}

/// Counts the descendants of this process. Asks `gives_up` first and after every few processes, and reads no more once the answer is true.
pub(super) fn count_unless(gives_up: &mut dyn FnMut() -> bool) -> io::Result<Counted> {
    let Found { family, is_complete } = family_unless(gives_up)?;
    let running = family.iter().filter(|process| !process.is_dead());
    let threads = running.fold(0, |sum: u64, one| sum.saturating_add(one.threads));
    let mut processes = Vec::with_capacity(family.len());
    for (number, process) in family.into_iter().enumerate() {
        if number.is_multiple_of(READ_AT_ONCE) && gives_up() {
            break;
        }
        // Reads the process again, each parent before its children. When a parent waits for a child, the child's time moves to the parent,
        // where it was read already: so it may be missing until the next count, but is never counted twice.
        match process::stat(process.pid) {
            Ok(Some(now)) if now.started == process.started => processes.push(now),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Counted { threads: is_complete.then_some(threads), processes })
}

/// Stops all descendants (SIGSTOP), even if they keep starting others: a stopped process starts none. So their number no longer grows when
/// this returns. Killing them one after the other would instead make room for new ones. Gives up after [`STOP_WITHIN`], because the caller
/// kills them in any case.
pub(super) fn stop_all() -> io::Result<()> {
    let deadline = Instant::now() + STOP_WITHIN;
    let mut stopped = HashSet::new();
    loop {
        let Found { family: mut new, is_complete } = found()?;
        new.retain(|process| !process.is_dead() && stopped.insert((process.pid, process.started)));
        // A part of the process table that was not read may have others.
        if new.is_empty() && is_complete {
            return Ok(());
        }
        signal(&new, Signal::STOP);
        if Instant::now() >= deadline {
            return Ok(());
        }
    }
}

/// Returns how many bytes the running descendants of this process have read and written so far, without the guards, which read the
/// process table all the time. If the number changes, the descendants are making progress. Processes of other users count as 0.
pub fn bytes_moved_by_descendants() -> u64 {
    let moved = |process: Process| {
        let counters = fs::read_to_string(format!("/proc/{}/io", process.pid)).unwrap_or_default();
        // proc(5): the bytes that read(2), write(2) and similar calls transferred.
        let counted = counters.lines().filter_map(|line| {
            line.strip_prefix("rchar: ").or_else(|| line.strip_prefix("wchar: "))?.parse::<u64>().ok()
        });
        counted.fold(0, u64::wrapping_add)
    };
    let mut running = running().unwrap_or_default();
    running.retain(|process| !orphans::is_guard(process.pid));
    running.into_iter().map(moved).fold(0, u64::wrapping_add)
}

/// Sends `signal` to each process. Uses a pidfd, so that another process that has reused the PID does not get the signal.
pub(super) fn signal(processes: &[Process], signal: Signal) {
    for process in processes {
        let Some(pid) = i32::try_from(process.pid).ok().and_then(Pid::from_raw) else { continue };
        let Ok(descriptor) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
        let same =
            process::stat(process.pid).is_ok_and(|now| now.is_some_and(|now| now.started == process.started));
        if same {
            // A process that has ended needs no signal. The caller polls until all processes are gone.
            let _ = pidfd_send_signal(&descriptor, signal);
        }
    }
}

/// Sends `signal` to every process in the Landlock domain of this thread and in the domains within it, except this process. This is one step
/// (kill(2) with -1), so no process can start another one and escape meanwhile. Without the proof every process of the user would get it.
pub(super) fn signal_domain(_proof: &SignalScope, signal: NixSignal) {
    // Fails if no other process is left. The caller polls until all are gone.
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(-1), signal);
}

/// Kills the children of this process as fast as it can: a child that starts another one and ends is then caught before the kernel has run
/// it. Nothing but the caller may wait for these children, so that no other process can get their PIDs.
pub(super) fn kill_children() -> io::Result<()> {
    for child in children()? {
        // A zombie needs no signal.
        let _ = kill_process(child, Signal::KILL);
    }
    Ok(())
}

/// Returns the children of this process, including zombies. The children that were started last come first, because they live longest.
pub(super) fn children() -> io::Result<Vec<Pid>> {
    let mut found = Vec::new();
    for thread in fs::read_dir("/proc/self/task")? {
        match fs::read_to_string(thread?.path().join("children")) {
            Ok(text) => found.extend(text.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok())),
            // The thread has ended.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {}
            // A kernel without CONFIG_PROC_CHILDREN, or the thread has ended.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return children_of_all(),
            Err(error) => return Err(error),
        }
    }
    Ok(found.into_iter().rev().filter_map(Pid::from_raw).collect())
}

/// Returns the same children in no particular order, by examining every process.
pub(super) fn children_of_all() -> io::Result<Vec<Pid>> {
    let own = std::process::id();
    let mut found = Vec::new();
    process::each(&mut |process| {
        let pid = i32::try_from(process.pid).ok().filter(|_| process.parent == own);
        found.extend(pid.and_then(Pid::from_raw));
        Ok(())
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reading_processes_ends_when_the_caller_gives_up() {
        let mut asked = 0;
        let counted = count_unless(&mut || {
            asked += 1;
            true
        });
        let counted = counted.unwrap();
        assert!(counted.threads.is_none() && counted.processes.is_empty());
        assert!(asked <= 2, "{asked}");
        assert!(count_unless(&mut || false).unwrap().threads.is_some());
    }

    #[test]
    fn both_ways_find_the_children_of_every_thread() {
        let mut child = std::thread::scope(|threads| {
            let spawn = || std::process::Command::new("/bin/sleep").arg("600").spawn().unwrap();
            threads.spawn(spawn).join().unwrap()
        });
        for found in [children().unwrap(), children_of_all().unwrap()] {
            assert!(found.contains(&Pid::from_child(&child)), "{found:?}");
        }
        // Not `kill_children`, which would also kill the children of other tests in this process.
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
