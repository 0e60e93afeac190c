//! Ends the processes that a dead run left running. Loop rule 26.

use std::io;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal};

use super::process::{self, Process, ProcessIdentity};
use super::record::Record;

/// How long processes may take to be gone after SIGKILL.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The pause between two polls of these processes.
const INTERVAL: Duration = Duration::from_millis(10);

impl Record {
    /// Returns whether the record was written during this boot and in this PID namespace, so that its processes can be seen here.
    pub(crate) fn is_of_this_namespace(&self) -> io::Result<bool> {
        Ok(self.boot_id == process::boot_id()? && self.pid_namespace == process::pid_namespace()?)
    }

    /// Returns whether the record was written during this boot, in another PID namespace.
    pub(crate) fn is_of_another_container(&self) -> io::Result<bool> {
        Ok(self.boot_id == process::boot_id()? && self.pid_namespace != process::pid_namespace()?)
    }

    /// Ends the native processes of the dead run that wrote this record, and everything in their groups and sessions. Waits until
    /// none of them runs, and returns how many there were.
    ///
    /// # Errors
    /// Fails if a process cannot be ended; the message names it.
    pub(crate) fn end_leftover_processes(&self) -> io::Result<usize> {
        if self.processes.is_empty() || !self.is_of_this_namespace()? {
            return Ok(0);
        }
        let deadline = Instant::now() + TIMEOUT;
        let mut first = None;
        loop {
            let running = members(&self.processes)?;
            let ended = *first.get_or_insert(running.len());
            let Some((_, one)) = running.first() else { return Ok(ended) };
            if Instant::now() >= deadline {
                let message = format!(
                    "the process {} of an earlier run is still there {} s after SIGKILL",
                    one.pid,
                    TIMEOUT.as_secs()
                );
                return Err(io::Error::new(io::ErrorKind::TimedOut, message));
            }
            kill(&running)?;
            std::thread::sleep(INTERVAL);
        }
    }
}

/// Returns the running processes in the group or session of one of these leaders, except those that started before that leader.
///
/// If the PID of a leader now belongs to a process with another start time, the kernel has reused it. The kernel does that only when
/// the whole group and session are gone, so no process of the leader is left.
fn members(leaders: &[ProcessIdentity]) -> io::Result<Vec<(ProcessIdentity, Process)>> {
    let mut live = Vec::with_capacity(leaders.len());
    for leader in leaders {
        match process::stat(leader.pid) {
            Ok(None) => live.push(*leader),
            Ok(Some(found)) if found.started == leader.started => live.push(*leader),
            Ok(Some(_)) => {}
            // The PID now belongs to a process of another user.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            Err(error) => return Err(error),
        }
    }
    let own = std::process::id();
    let mut members = Vec::new();
    process::each(&mut |process| {
        if process.is_dead() || process.pid == own {
            return Ok(());
        }
        let belongs = |leader: &&ProcessIdentity| {
            (process.group == leader.pid || process.session == leader.pid)
                && process.started >= leader.started
        };
        if let Some(leader) = live.iter().find(belongs) {
            members.push((*leader, process));
        }
        Ok(())
    })?;
    Ok(members)
}

/// Sends SIGKILL to each group as a whole, so that no process of it can start another meanwhile, and to each process that is only in
/// the session.
fn kill(running: &[(ProcessIdentity, Process)]) -> io::Result<()> {
    // From /proc: getpgrp(2) returns 0 for a group whose leader is outside the container, which rustix does not allow for.
    let own_group = process::stat(std::process::id())?.map(|own| own.group);
    for (leader, process) in running {
        let Some(pid) = i32::try_from(process.pid).ok().and_then(Pid::from_raw) else { continue };
        // The descriptor refers to one process even if its PID is reused, so the process that is checked is the one that is killed.
        let killed = pidfd_open(pid, PidfdFlags::empty()).and_then(|descriptor| {
            let same = process::stat(process.pid)
                .is_ok_and(|now| now.is_some_and(|now| now.started == process.started));
            if !same {
                return Ok(());
            }
            if process.group == leader.pid
                && let Some(group) = i32::try_from(leader.pid).ok().and_then(Pid::from_raw)
                && own_group != Some(leader.pid)
            {
                // Processes that could not be signalled are found by the next line and by the next poll.
                let _ = kill_process_group(group, Signal::KILL);
            }
            pidfd_send_signal(descriptor, Signal::KILL)
        });
        match killed {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(errno) => {
                let error = io::Error::from(errno);
                let message = format!("cannot end the process {} of an earlier run: {error}", process.pid);
                return Err(io::Error::new(error.kind(), message));
            }
        }
    }
    Ok(())
}
