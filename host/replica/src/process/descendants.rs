//! The processes that descend from this process.

use std::collections::HashSet;
use std::fs;
use std::io;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::state::process::{self, Process};

/// Returns the running processes that descend from this process, without zombies. If this process is their reaper, a process whose parent
/// died has become its child.
pub(super) fn running() -> io::Result<Vec<Process>> {
    let mut all = Vec::new();
    process::each(&mut |process| {
        all.push(process);
        Ok(())
    })?;
    let mut family = HashSet::from([std::process::id()]);
    loop {
        let before = family.len();
        let children: Vec<u32> = all
            .iter()
            .filter(|process| family.contains(&process.parent))
            .map(|process| process.pid)
            .collect();
        family.extend(children);
        if family.len() == before {
            break;
        }
    }
    family.remove(&std::process::id());
    all.retain(|process| family.contains(&process.pid) && !process.is_dead());
    Ok(all)
}

/// Returns how many bytes the processes that descend from this one have read and written so far, as far as they still run. A number that
/// changes means that they are at work. Processes of other users count as 0.
pub fn bytes_moved_by_descendants() -> u64 {
    let moved = |process: Process| {
        let counters = fs::read_to_string(format!("/proc/{}/io", process.pid)).unwrap_or_default();
        // proc(5): bytes of read(2) and write(2) and their relatives.
        let counted = counters.lines().filter_map(|line| {
            line.strip_prefix("rchar: ").or_else(|| line.strip_prefix("wchar: "))?.parse::<u64>().ok()
        });
        counted.fold(0, u64::wrapping_add)
    };
    running().unwrap_or_default().into_iter().map(moved).fold(0, u64::wrapping_add)
}

/// Sends `signal` to each process, but not to another process that has reused its PID: a pidfd refers to the same process even if the PID
/// is reused.
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
