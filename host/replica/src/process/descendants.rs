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
    running: Vec<Process>,
    /// Whether all processes of the machine were read.
    is_complete: bool,
}

/// Returns the running processes that descend from this process, without zombies. If this process is a reaper (a "child subreaper"), its
/// descendants include processes whose parent has died. Returns those that were found within [`READ_WITHIN`].
pub(super) fn running() -> io::Result<Vec<Process>> {
    Ok(found()?.running)
}

/// Finds the processes of [`running`].
fn found() -> io::Result<Found> {
    let deadline = Instant::now() + READ_WITHIN;
    running_unless(&mut || Instant::now() >= deadline)
}

/// Finds the processes of [`running`]. Asks `gives_up` first and after every few processes, and reads no more once the answer is true.
fn running_unless(gives_up: &mut dyn FnMut() -> bool) -> io::Result<Found> {
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
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for process in &all {
        children.entry(process.parent).or_default().push(process.pid);
    }
    // Each parent is removed from the map once, even if a PID that was reused while the processes were read makes a cycle.
    let mut family: HashSet<u32> = HashSet::new();
    let mut parents = vec![std::process::id()];
    while let Some(parent) = parents.pop() {
        let found = children.remove(&parent).unwrap_or_default();
        family.extend(&found);
        parents.extend(found);
    }
    family.remove(&std::process::id());
    all.retain(|process| family.contains(&process.pid) && !process.is_dead());
    Ok(Found { running: all, is_complete: !given_up })
}

/// Returns how many threads the running descendants have together; a process has at least one. Asks `gives_up` first and after every few
/// processes, and returns `None` if the answer is true.
pub(super) fn threads_unless(gives_up: &mut dyn FnMut() -> bool) -> io::Result<Option<u64>> {
    let Found { running, is_complete } = running_unless(gives_up)?;
    let sum = running.iter().fold(0, |sum: u64, one| sum.saturating_add(one.threads));
    Ok(is_complete.then_some(sum))
}

/// Stops all descendants (SIGSTOP), even if they keep starting others: a stopped process starts none. So their number no longer grows when
/// this returns. Killing them one after the other would instead make room for new ones. Gives up after [`STOP_WITHIN`], because the caller
/// kills them in any case.
pub(super) fn stop_all() -> io::Result<()> {
    let deadline = Instant::now() + STOP_WITHIN;
    let mut stopped = HashSet::new();
    loop {
        let Found { running: mut new, is_complete } = found()?;
        new.retain(|process| stopped.insert((process.pid, process.started)));
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
/// (kill(2) with -1), so no process can escape by starting another one before it gets the signal. Without the proof every process of the
/// user would get it.
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
        let counted = threads_unless(&mut || {
            asked += 1;
            true
        });
        assert_eq!((counted.unwrap(), asked), (None, 1));
        assert!(threads_unless(&mut || false).unwrap().is_some());
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
