//! Everything that descends from this process.

use std::collections::HashSet;
use std::io;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::state::process::{self, Process};

/// The running processes that descend from this one; those whose parents died descend from their reaper, which this
/// process is. Zombies do not count.
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

/// Sends `signal` to each. A number that was given to another process since is left alone: the descriptor keeps meaning
/// the process that it was opened for.
pub(super) fn signal(processes: &[Process], signal: Signal) {
    for process in processes {
        let Some(pid) = i32::try_from(process.pid).ok().and_then(Pid::from_raw) else { continue };
        let Ok(descriptor) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
        let same =
            process::stat(process.pid).is_ok_and(|now| now.is_some_and(|now| now.started == process.started));
        if same {
            // One that ended meanwhile needs no signal; whether all are gone the next look tells.
            let _ = pidfd_send_signal(&descriptor, signal);
        }
    }
}
