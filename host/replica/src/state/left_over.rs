//! Ending what a dead run left running. Semantics rule 26.

use std::io;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal};

use super::process::{self, Process, ProcessStamp};
use super::record::Record;

/// How long processes may take to be gone after SIGKILL.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often they are looked at meanwhile.
const INTERVAL: Duration = Duration::from_millis(10);

impl Record {
    /// Whether its stamps are of the processes that can be seen here: written during this boot, in this process numbering.
    pub(crate) fn is_of_these_processes(&self) -> io::Result<bool> {
        Ok(self.boot_id == process::boot_id()? && self.pid_namespace == process::pid_namespace()?)
    }

    /// Whether it was written during this boot, in another process numbering.
    pub(crate) fn is_of_another_container(&self) -> io::Result<bool> {
        Ok(self.boot_id == process::boot_id()? && self.pid_namespace != process::pid_namespace()?)
    }

    /// Ends the native processes of the run that wrote this, which is dead, and everything in their groups and
    /// sessions; returns when none of them runs any more. Gives how many there were.
    ///
    /// # Errors
    /// Where one cannot be ended, which the message names.
    pub(crate) fn end_left_over_processes(&self) -> io::Result<usize> {
        if self.processes.is_empty() || !self.is_of_these_processes()? {
            return Ok(0);
        }
        let deadline = Instant::now() + PATIENCE;
        let mut first = None;
        loop {
            let running = members(&self.processes)?;
            let ended = *first.get_or_insert(running.len());
            let Some((_, one)) = running.first() else { return Ok(ended) };
            if Instant::now() >= deadline {
                let message = format!(
                    "the process {} of an earlier run is still there {} s after SIGKILL",
                    one.pid,
                    PATIENCE.as_secs()
                );
                return Err(io::Error::new(io::ErrorKind::TimedOut, message));
            }
            kill(&running)?;
            std::thread::sleep(INTERVAL);
        }
    }
}

/// The running processes that belong to one of these: in the group or session that it leads or led, and not started
/// before it. A number that leads a process with another start time was given anew, for which the kernel
/// waits until its whole group and session are gone, so that nothing of it is ours.
fn members(leaders: &[ProcessStamp]) -> io::Result<Vec<(ProcessStamp, Process)>> {
    let mut live = Vec::with_capacity(leaders.len());
    for leader in leaders {
        match process::stat(leader.pid) {
            Ok(None) => live.push(*leader),
            Ok(Some(found)) if found.started == leader.started => live.push(*leader),
            Ok(Some(_)) => {}
            // Another user's by now.
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
        let belongs = |leader: &&ProcessStamp| {
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

/// SIGKILL to each group at once, that none of it can start another meanwhile, and to what is only in its session.
fn kill(running: &[(ProcessStamp, Process)]) -> io::Result<()> {
    // From /proc: getpgrp(2) says 0 of a group that is led from outside of the container, which rustix takes for impossible.
    let own_group = process::stat(std::process::id())?.map(|own| own.group);
    for (leader, process) in running {
        let Some(pid) = i32::try_from(process.pid).ok().and_then(Pid::from_raw) else { continue };
        // The descriptor keeps meaning the process that it was opened for, so that what is looked at is what is killed.
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
                // Whether every one of it could be signalled, the next line and the next look tell.
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
