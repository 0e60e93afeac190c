//! Ends the processes that a guard leaves to the host when the guard is killed.
//!
//! While a guard runs, the host is a child subreaper (prctl(2)): the kernel gives the children of a process that has ended to its nearest
//! ancestor that is a child subreaper. So the descendants of a dead guard become children of the host, whatever groups and sessions they
//! are in, and not of the init process.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{
    Pid, Signal, WaitOptions, getpid, kill_process, kill_process_group, set_child_subreaper, waitpid,
};

use super::descendants;
use crate::state::ProcessIdentity;
use crate::state::process::{self, Process};

/// How many times the children of this process are examined before the caller waits.
const PASSES: u32 = 64;

/// The PIDs of the guards that run.
static GUARDS: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

fn guards() -> MutexGuard<'static, BTreeSet<u32>> {
    GUARDS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns whether the process with this PID is a guard that this process has started.
pub(super) fn is_guard(pid: u32) -> bool {
    guards().contains(&pid)
}

/// A running guard. This process adopts the descendants of its children only while at least one guard runs.
#[derive(Debug)]
pub(super) struct RunningGuard(u32);

impl RunningGuard {
    /// Starts a guard with `spawn`, and returns the result of `spawn`. `pid` returns the guard's PID.
    pub(super) fn start<T>(
        spawn: impl FnOnce() -> io::Result<T>,
        pid: impl FnOnce(&T) -> Option<u32>,
    ) -> io::Result<(T, Self)> {
        // The lock is held while the guard starts, so that the guard is not taken for an orphan before its PID is known.
        let mut guards = guards();
        set_child_subreaper(Some(getpid()))?;
        let started = spawn().and_then(|guard| {
            pid(&guard).map(|pid| (guard, pid)).ok_or_else(|| io::Error::other("it ended at once"))
        });
        match started {
            Ok((guard, pid)) => {
                guards.insert(pid);
                Ok((guard, Self(pid)))
            }
            Err(error) => {
                stop_adopting(&guards);
                Err(error)
            }
        }
    }
}

impl Drop for RunningGuard {
    fn drop(&mut self) {
        let mut guards = guards();
        guards.remove(&self.0);
        stop_adopting(&guards);
    }
}

fn stop_adopting(guards: &BTreeSet<u32>) {
    if guards.is_empty() {
        // This call cannot fail (prctl(2)). If it did, an adopted process would do no harm.
        let _ = set_child_subreaper(None);
    }
}

/// Kills the processes that this dead guard left to the host, and reaps those that have ended. Returns whether such a process was left.
///
/// An orphan is a child of the host that is in another session than the host, is not a guard, and did not start before the dead guard. The
/// host starts processes only in its own session, and a process cannot enter an existing session (setsid(2)). A guard and all its
/// descendants are in other sessions.
pub(super) fn kill(guard: ProcessIdentity) -> io::Result<bool> {
    let own = std::process::id();
    let session = process::stat(own)?.map(|own| own.session);
    let orphan = |pid: Pid| {
        // If there is no answer, the process has ended, or it is hidden and so belongs to another user.
        let Ok(Some(process)) = process::stat(pid.as_raw_nonzero().get().unsigned_abs()) else { return None };
        // The child may have ended since, and another process may have its PID.
        let is_orphan = process.parent == own
            && process.pid != guard.pid
            && process.started >= guard.started
            && Some(process.session) != session
            && !is_guard(process.pid);
        is_orphan.then_some(process)
    };
    for _ in 0..PASSES {
        let mut left = false;
        let mut groups = BTreeSet::new();
        for child in descendants::children()? {
            let Some(process) = orphan(child) else { continue };
            left = true;
            // Only this function waits for the child, so the child keeps its PID until then, and a zombie keeps its group. A group is
            // killed in one step, so that a process that keeps starting a successor and ending cannot escape, unless it changes its group
            // each time.
            if !process.is_dead() {
                let _ = kill_process(child, Signal::KILL);
            } else if groups.insert(process.group)
                && let Some(group) = i32::try_from(process.group).ok().and_then(Pid::from_raw)
            {
                let _ = kill_process_group(group, Signal::KILL);
            }
            let _ = waitpid(Some(child), WaitOptions::NOHANG);
        }
        // The list of children is exact only while none ends (proc_tid_children(5)).
        if !left && !any_child_is(&orphan)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Examines every process.
fn any_child_is(orphan: &dyn Fn(Pid) -> Option<Process>) -> io::Result<bool> {
    Ok(descendants::children_of_all()?.into_iter().any(|child| orphan(child).is_some()))
}
