//! Processes, read from `/proc/<pid>/stat` (proc(5)).

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A process, so that the next run can recognise it: its PID may be reused, but not with the same start time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// The PID of the process, which leads its own process group.
    pub pid: u32,
    /// The start time of the process in clock ticks since boot: field 22 of `/proc/<pid>/stat`.
    pub started: u64,
}

impl ProcessIdentity {
    /// Returns the identity of a running process or a zombie; `None` if there is no process with this PID.
    ///
    /// # Errors
    /// Fails if `/proc` cannot be read.
    pub fn of(pid: u32) -> io::Result<Option<Self>> {
        Ok(stat(pid)?.map(|process| Self { pid, started: process.started }))
    }

    /// Returns the identity of this process.
    ///
    /// # Errors
    /// Fails if `/proc` cannot be read.
    pub fn of_this_process() -> io::Result<Self> {
        Self::of(std::process::id())?.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                "this process is not in /proc: mount a /proc of this PID namespace",
            )
        })
    }

    /// Returns whether the process still runs; a zombie does not.
    ///
    /// # Errors
    /// Fails if `/proc` cannot be read.
    pub fn is_running(&self) -> io::Result<bool> {
        Ok(stat(self.pid)?.is_some_and(|process| process.started == self.started && !process.is_dead()))
    }
}

/// The fields of `/proc/<pid>/stat` that are used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// The name of its program, at most 15 bytes.
    pub(crate) name: Vec<u8>,
    /// The state as one letter: `R`, `S`, `Z`, ...
    state: u8,
    pub(crate) parent: u32,
    pub(crate) group: u32,
    pub(crate) session: u32,
    /// How many threads the process has, at least 1.
    pub(crate) threads: u64,
    pub(crate) started: u64,
    /// The processor time of its threads, including those that have ended.
    pub(crate) cpu: Duration,
    /// The processor time of the children that it has waited for, and of the children that these had waited for.
    pub(crate) cpu_of_children: Duration,
}

/// The clock ticks of the times in `/proc/<pid>/stat` (`USER_HZ` in the kernel, the same on all its architectures but Alpha).
const TICKS_PER_SECOND: u64 = 100;

impl Process {
    /// Returns whether the process is a zombie, which has no open files and no working directory.
    pub(crate) fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// Reads one process; `None` if there is no process with this PID.
pub(crate) fn stat(pid: u32) -> io::Result<Option<Process>> {
    let path = format!("/proc/{pid}/stat");
    match fs::read(&path) {
        Ok(text) => parse(pid, &text).map(Some).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{path} does not have the format of proc(5)"))
        }),
        // ESRCH: it ended between opening and reading.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => Ok(None),
        Err(error) => Err(io::Error::new(error.kind(), format!("cannot read {path}: {error}"))),
    }
}

/// Calls `visit` with every process that can be seen; /proc may hide other users' processes (hidepid).
pub(crate) fn each(visit: &mut dyn FnMut(Process) -> io::Result<()>) -> io::Result<()> {
    let entries = fs::read_dir("/proc")
        .map_err(|error| io::Error::new(error.kind(), format!("cannot read /proc: {error}")))?;
    for entry in entries {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        match stat(pid) {
            Ok(Some(process)) => visit(process)?,
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Parses `/proc/<pid>/stat`. The name, in parentheses, may itself hold blanks and parentheses.
fn parse(pid: u32, text: &[u8]) -> Option<Process> {
    let open = text.iter().position(|byte| *byte == b'(')?;
    let close = text.iter().rposition(|byte| *byte == b')')?;
    let name = text.get(open + 1..close)?.to_vec();
    let fields: Vec<&str> =
        std::str::from_utf8(text.get(close + 1..)?).ok()?.split_ascii_whitespace().collect();
    // The first field after the name is number 3.
    let field = |number: usize| fields.get(number - 3).copied();
    // A process that is just being reaped has -1 for group and session (do_task_stat in the kernel's fs/proc/array.c). 0 means none.
    let leader =
        |number: usize| field(number)?.parse::<i32>().ok().map(|pid| u32::try_from(pid).unwrap_or(0));
    let time = |user: usize, kernel: usize| {
        let ticks = |number: usize| field(number)?.parse::<i64>().ok().map(i64::unsigned_abs);
        let ticks = ticks(user)?.saturating_add(ticks(kernel)?);
        Some(Duration::from_millis(ticks.saturating_mul(1000 / TICKS_PER_SECOND)))
    };
    Some(Process {
        pid,
        name,
        state: *field(3)?.as_bytes().first()?,
        parent: field(4)?.parse().ok()?,
        group: leader(5)?,
        session: leader(6)?,
        threads: field(20)?.parse().ok()?,
        started: field(22)?.parse().ok()?,
        cpu: time(14, 15)?,
        cpu_of_children: time(16, 17)?,
    })
}

/// Returns the kernel's identifier of this boot.
pub(crate) fn boot_id() -> io::Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = fs::read_to_string(path)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot read {path}: {error}")))?;
    Ok(text.trim().to_owned())
}

/// Returns an identifier of the PID namespace of this process: its inode and the start time of its first process. The kernel reuses
/// the inode of a namespace that is gone, such as when a container is started again; the start time distinguishes the two.
pub(crate) fn pid_namespace() -> io::Result<String> {
    let path = "/proc/self/ns/pid";
    let inode = fs::metadata(path)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot examine {path}: {error}")))?
        .ino();
    // With hidepid the first process may be hidden; then only the inode identifies the namespace.
    let first = match stat(1) {
        Ok(process) => process.map_or(0, |process| process.started),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => 0,
        Err(error) => return Err(error),
    };
    Ok(format!("{inode}-{first}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_chooses_its_name_and_still_cannot_forge_its_fields() {
        let forged = b"7 (a) R 1 1 1) S 1 42 43 0 -1 4194304 0 0 0 0 7 3 200 50 20 0 5 0 123456 0 0";
        let process = parse(7, forged).unwrap();
        assert_eq!((process.state, process.group, process.session, process.started), (b'S', 42, 43, 123_456));
        assert_eq!((process.name, process.threads), (b"a) R 1 1 1".to_vec(), 5));
        let times = [process.cpu, process.cpu_of_children].map(|time| time.as_millis());
        assert_eq!(times, [100, 2500]);
    }

    #[test]
    fn a_process_that_is_being_reaped_belongs_to_no_group() {
        let reaped = b"7 (a) X 0 -1 -1 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 0 0 123456 0 0";
        let process = parse(7, reaped).unwrap();
        assert_eq!((process.group, process.session, process.is_dead()), (0, 0, true));
    }

    #[test]
    fn a_malformed_line_is_not_parsed() {
        for text in [&b""[..], b"7", b"7 (a", b"7 (a) S", b")(", b"7 (a) S 1 x 1"] {
            assert_eq!(parse(7, text), None);
        }
    }

    #[test]
    fn this_process_runs_and_one_with_another_start_does_not() {
        let own = ProcessIdentity::of_this_process().unwrap();
        assert!(own.is_running().unwrap());
        assert!(!ProcessIdentity { started: own.started + 1, ..own }.is_running().unwrap());
        assert_eq!(ProcessIdentity::of(u32::MAX).unwrap(), None);
    }
}
