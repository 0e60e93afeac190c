//! The processor time of a program with everything that it started.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use crate::state::process::{self, Process};

/// How many processes are looked up before `gives_up` is asked again.
const READ_AT_ONCE: usize = 8;

/// The processor time of a program. Two sums are kept, neither of which is ever too large, and the larger one counts.
///
/// The first sum is the kernel's: the time of each process, and the time of the children that it has waited for. The kernel forgets the
/// time of a child whose parent ignores the end of its children (wait(2), `SIGCHLD`). The second sum remembers the time that each process
/// had when it was last seen. It lacks processes that started and ended between two counts.
#[derive(Debug, Default)]
pub(super) struct CpuCount {
    /// The time of each process at the last count, by its PID and its start.
    seen: HashMap<(u32, u64), Duration>,
    /// The time of the processes that are gone, when they were last seen.
    gone: Duration,
    /// The larger sum. Does not become smaller.
    total: Duration,
}

impl CpuCount {
    /// Returns the processor time so far.
    pub(super) fn total(&self) -> Duration {
        self.total
    }

    /// Adds a count of processes. `reaped` is the time of those that the guard had waited for before it read `processes`, each parent
    /// before its children. Looks up the processes that are missing now until `gives_up`, which is asked after every few processes. The
    /// time of the rest is forgotten.
    pub(super) fn add(
        &mut self,
        reaped: Duration,
        processes: &[Process],
        gives_up: &mut dyn FnMut() -> bool,
    ) -> io::Result<()> {
        let kept = processes.iter().map(|process| process.cpu.saturating_add(process.cpu_of_children));
        let by_kernel = kept.fold(reaped, Duration::saturating_add);
        let key = |process: &Process| (process.pid, process.started);
        let now = processes.iter().map(|process| (key(process), process.cpu)).collect();
        let mut missing = std::mem::replace(&mut self.seen, now);
        missing.retain(|process, _| !self.seen.contains_key(process));
        for (number, (process, time)) in missing.into_iter().enumerate() {
            if number.is_multiple_of(READ_AT_ONCE) && gives_up() {
                break;
            }
            // A process that ran is missing if its parent ended during the count, or if the count was ended.
            match process::stat(process.0)?.filter(|now| key(now) == process) {
                Some(now) => drop(self.seen.insert(process, now.cpu)),
                None => self.gone = self.gone.saturating_add(time),
            }
        }
        let by_sight = self.seen.values().copied().fold(self.gone, Duration::saturating_add);
        self.total = self.total.max(by_kernel).max(by_sight);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a process that does not exist, with these times in seconds.
    fn process(pid: u32, cpu: u64, of_children: u64) -> Process {
        let mut process = process::stat(std::process::id()).unwrap().unwrap();
        // PIDs are smaller than 2^22.
        process.pid = (1 << 22) + pid;
        (process.cpu, process.cpu_of_children) = (Duration::from_secs(cpu), Duration::from_secs(of_children));
        process
    }

    fn after(counts: &[(u64, &[Process])]) -> u64 {
        let mut count = CpuCount::default();
        for (reaped, processes) in counts {
            count.add(Duration::from_secs(*reaped), processes, &mut || false).unwrap();
        }
        count.total().as_secs()
    }

    #[test]
    fn a_child_counts_while_it_runs_and_after_its_parent_or_the_guard_has_waited_for_it() {
        assert_eq!(after(&[(0, &[process(1, 2, 0), process(2, 3, 0)])]), 5);
        let parent_waited: &[Process] = &[process(1, 2, 3)];
        assert_eq!(after(&[(0, &[process(1, 2, 0), process(2, 3, 0)]), (0, parent_waited)]), 5);
        assert_eq!(after(&[(0, &[process(1, 2, 0), process(2, 3, 0)]), (5, &[])]), 5);
    }

    #[test]
    fn a_child_that_nobody_waits_for_counts_as_it_was_last_seen() {
        let forgotten: &[Process] = &[process(1, 2, 0)];
        assert_eq!(after(&[(0, &[process(1, 2, 0), process(2, 3, 0)]), (0, forgotten)]), 5);
        let next: &[Process] = &[process(1, 2, 0), process(3, 4, 0)];
        assert_eq!(after(&[(0, &[process(1, 2, 0), process(2, 3, 0)]), (0, forgotten), (0, next)]), 9);
    }

    #[test]
    fn a_process_that_a_count_has_missed_is_not_counted_twice() {
        let own = process::stat(std::process::id()).unwrap().unwrap();
        let mut count = CpuCount::default();
        let seen = std::slice::from_ref(&own);
        for processes in [seen, &[], seen, &[]] {
            count.add(Duration::ZERO, processes, &mut || false).unwrap();
        }
        let now = process::stat(own.pid).unwrap().unwrap();
        assert!(count.total() <= now.cpu.saturating_add(now.cpu_of_children), "{count:?}");
        // When the time is over, the rest is forgotten.
        let seconds = Duration::from_secs(2);
        let mut count = CpuCount::default();
        count.add(Duration::ZERO, &[process(1, 2, 0)], &mut || true).unwrap();
        count.add(Duration::ZERO, &[], &mut || true).unwrap();
        assert_eq!((count.total(), count.gone, count.seen.len()), (seconds, Duration::ZERO, 0));
    }
}
