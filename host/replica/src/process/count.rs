//! The count of a confined program's processes, and what they used.

use std::fs;
use std::io;
use std::time::{Duration, Instant};

use nix::sys::resource::{Usage, UsageWho, getrusage};

use super::cpu_count::CpuCount;
use super::{Confinement, Exceeded, Resources, descendants};

/// The shortest pause between two counts of the processes of a confined program.
const COUNT: Duration = Duration::from_millis(50);

/// The pause between two counts is at least this many times the processor time of a count, because a machine may have thousands of
/// processes and a count reads all of them.
const COUNT_SHARE: u32 = 10;

/// How many threads are counted quickly, even if they compete for the processor.
const QUICK: u64 = 256;

/// The count of a confined program's processes. The processes of other programs are not counted.
pub(super) struct ProcessCount {
    /// How many threads there may be; `None` if they are not counted.
    most: Option<u64>,
    /// How much processor time they may use; `None` if there is no limit.
    most_cpu: Option<Duration>,
    cpu: CpuCount,
    next: Instant,
    /// The highest count so far.
    peak: u64,
    /// How many threads the program had at the last count, and how many the machine had then.
    last: (u64, u64),
}

impl ProcessCount {
    pub(super) fn of(confinement: Option<&Confinement>) -> Self {
        let most = confinement.map(|confinement| confinement.processes);
        // The program itself, which may end before the first count.
        let program = u64::from(most.is_some());
        let machine = threads_of_the_machine().unwrap_or(u64::MAX);
        Self {
            most,
            most_cpu: confinement.and_then(|confinement| confinement.cpu),
            cpu: CpuCount::default(),
            next: Instant::now(),
            peak: program,
            last: (program, machine),
        }
    }

    /// Returns whether it is time to count.
    pub(super) fn is_due(&self) -> bool {
        self.most.is_some() && Instant::now() >= self.next
    }

    /// Returns whether the program may have too many threads, with ended processes that nobody has waited for, and more than can be counted
    /// quickly. Judges by the number of all threads of the machine, which one small file has, and so is fast however many there are.
    pub(super) fn may_exceed(&self) -> bool {
        let (Some(most), Ok(now)) = (self.most, threads_of_the_machine()) else { return false };
        let (program, machine) = self.last;
        program.saturating_add(now.saturating_sub(machine)) > most.max(QUICK)
    }

    /// Counts the processes and their processor time. Asks `gives_up` first and after every few processes, and ends the count if the answer
    /// is true: while processes start and end faster than they can be read, a count has no end.
    pub(super) fn count(&mut self, gives_up: &mut dyn FnMut(&Self) -> bool) -> io::Result<Found> {
        let began = processor_time(&getrusage(UsageWho::RUSAGE_SELF)?);
        // This is read before the processes, so that the time of a process which is reaped meanwhile is not counted twice.
        let reaped = processor_time(&getrusage(UsageWho::RUSAGE_CHILDREN)?);
        let counted = descendants::count_unless(&mut || gives_up(self))?;
        // If the count was ended, adds the part that was read.
        let mut cpu = std::mem::take(&mut self.cpu);
        let added = cpu.add(reaped, &counted.processes, &mut || gives_up(self));
        self.cpu = cpu;
        added?;
        // This is processor time and not elapsed time: elapsed time is longest while many processes compete for the processor, and then the
        // next count must come soon.
        let took = processor_time(&getrusage(UsageWho::RUSAGE_SELF)?).saturating_sub(began);
        self.next = Instant::now() + COUNT.max(took.saturating_mul(COUNT_SHARE));
        let uses_too_much = self.exceeds_cpu(self.cpu.total());
        let Some(threads) = counted.threads else {
            return Ok(if uses_too_much { Found::Exceeded(Exceeded::Cpu) } else { Found::Unknown });
        };
        self.peak = self.peak.max(threads);
        self.last = (threads, threads_of_the_machine().unwrap_or(u64::MAX));
        Ok(if self.most.is_some_and(|most| threads > most) {
            Found::Exceeded(Exceeded::Processes)
        } else if uses_too_much {
            Found::Exceeded(Exceeded::Cpu)
        } else {
            Found::Within
        })
    }

    /// Returns whether this is more processor time than the program may use.
    pub(super) fn exceeds_cpu(&self, used: Duration) -> bool {
        self.most_cpu.is_some_and(|most| used > most)
    }

    /// Returns how long to wait until the next count; `None` if there is none.
    pub(super) fn pause(&self) -> Option<Duration> {
        // Adds a millisecond, because poll uses whole milliseconds and must not return too early.
        let until = |_| self.next.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        self.most.map(until)
    }

    /// Returns what the descendants of this process used, all of which have ended and were waited for.
    pub(super) fn used(&self) -> io::Result<Resources> {
        /// getrusage(2): the unit of the largest memory, and that of writes.
        const MEMORY_UNIT: u64 = 1024;
        const WRITE_UNIT: u64 = 512;
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
        Ok(Resources {
            cpu: processor_time(&usage).max(self.cpu.total()),
            memory: usage.max_rss().unsigned_abs().saturating_mul(MEMORY_UNIT),
            written: usage.block_writes().unsigned_abs().saturating_mul(WRITE_UNIT),
            processes: self.peak,
        })
    }
}

/// The result of a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The count was ended before all processes were read.
    Unknown,
    /// The program is within its bounds.
    Within,
    /// The program is not within this bound.
    Exceeded(Exceeded),
}

/// Returns how many threads the machine has, with those that have ended and are not waited for (proc_loadavg(5)).
fn threads_of_the_machine() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/loadavg")?;
    let total = text.split_ascii_whitespace().nth(3).and_then(|field| field.split_once('/')?.1.parse().ok());
    total.ok_or_else(|| io::Error::other("/proc/loadavg has no number of threads"))
}

/// Returns the time in the program's own code and in the kernel.
fn processor_time(usage: &Usage) -> Duration {
    let time = |value: nix::sys::time::TimeVal| {
        let (seconds, micros) = (value.tv_sec().unsigned_abs(), value.tv_usec().unsigned_abs());
        Duration::from_secs(seconds) + Duration::from_micros(micros)
    };
    time(usage.user_time()) + time(usage.system_time())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threads_of_the_machine_are_at_least_those_of_this_process() {
        let own = fs::read_dir("/proc/self/task").unwrap().count() as u64;
        assert!(threads_of_the_machine().unwrap() >= own);
    }

    #[test]
    fn a_count_that_was_given_up_is_not_repeated_at_once_and_says_nothing() {
        let mut counted = ProcessCount {
            most: Some(1),
            most_cpu: None,
            cpu: CpuCount::default(),
            next: Instant::now(),
            peak: 1,
            last: (1, threads_of_the_machine().unwrap()),
        };
        assert!(counted.is_due());
        assert_eq!(counted.count(&mut |_| true).unwrap(), Found::Unknown);
        assert!(!counted.is_due() && counted.peak == 1);
        assert_ne!(counted.count(&mut |_| false).unwrap(), Found::Unknown);
    }
}
