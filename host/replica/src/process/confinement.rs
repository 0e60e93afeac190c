//! The confinement of a granted program: the restrictions that a process puts on itself just before it executes the program. Everything
//! that the program starts inherits the confinement, and nothing can lift it.
//!
//! Landlock restricts files and ports, seccomp restricts system calls ([`syscalls`]), and the kernel's resource limits bound memory and
//! files. The process has no capabilities and cannot gain any (`no_new_privs`), even if it runs as root.

mod syscalls;

use std::path::PathBuf;
use std::time::Duration;

pub use foundation::landlock::ABI_OF_SIGNALS;
use foundation::landlock::{Allowed, Domain, LandlockError};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, set_capabilities, set_no_new_privs,
};
use serde::{Deserialize, Serialize};

/// The first Landlock ABI that can restrict the TCP ports to which a program connects (Linux 6.7).
pub const ABI_OF_PORTS: u32 = 4;

/// The first Landlock ABI that can restrict the truncation of files (Linux 6.2).
pub const ABI_OF_TRUNCATION: u32 = 3;

/// How many files each process of a confined program may have open.
const OPEN_FILES: u64 = 1024;

/// The minimum for the address space limit of a confined process, in bytes. Runtimes such as Go's reserve much more address space than they
/// use, so this limit is far higher than the memory limit.
const ADDRESS_SPACE: u64 = 4 << 30;

/// The address space limit is at least this many times the memory limit.
const ADDRESS_SPACE_FACTOR: u64 = 4;

/// What a confined program may do. It may use no other files, no other network ports, and no capabilities.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// The files that it may execute and read: the program, its interpreter, and the dynamic loader. They must exist.
    pub execute: Vec<PathBuf>,
    /// The files and directories that it may read; a directory includes everything below it. They must exist.
    pub read: Vec<PathBuf>,
    /// The directories below which it may read and write. They must exist, and [`NativeProgram::writable`](super::NativeProgram)
    /// must name them too.
    pub write: Vec<PathBuf>,
    /// The TCP ports to which it may connect, on any host. If the list is empty, it may not create any socket.
    pub ports: Vec<u16>,
    /// How many threads the program and everything that it starts may have together; each process has at least one. The guard counts them
    /// repeatedly and ends the program if there are more, because the kernel has such a limit only for all processes of a user together.
    pub processes: u64,
    /// How much processor time the program and everything that it starts may use together; `None` if there is no limit. The guard adds it
    /// up repeatedly and ends the program if it used more. The kernel ends each process that alone uses more.
    pub cpu: Option<Duration>,
    /// How many bytes of private memory each of its processes may have.
    pub memory: u64,
    /// The largest size of a file that the program writes, in bytes; `None` if there is no limit.
    pub file_size: Option<u64>,
}

/// Why a process could not be confined. The program must not be executed then.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConfinementError {
    /// The Landlock domain could not be entered.
    #[error(transparent)]
    Landlock(#[from] LandlockError),
    /// A resource limit, the capabilities or `no_new_privs` could not be set.
    #[error("cannot bound {what} of the program: {source}")]
    Bound {
        /// What could not be restricted.
        what: &'static str,
        /// The kernel's error.
        source: rustix::io::Errno,
    },
    /// The seccomp filters could not be installed.
    #[error("cannot bound the system calls of the program: {0}")]
    Syscalls(#[from] syscalls::SyscallsError),
}

impl Confinement {
    /// Confines this process. The process must have only one thread, and must execute the program next.
    pub(super) fn enter(&self) -> Result<(), ConfinementError> {
        let bound = |what| move |source| ConfinementError::Bound { what, source };
        set_no_new_privs(true).map_err(bound("the privileges"))?;
        self.set_limits().map_err(bound("the resources"))?;
        clear_ambient_capability_set().map_err(bound("the capabilities"))?;
        let none = CapabilitySet::empty();
        set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
            .map_err(bound("the capabilities"))?;
        // The guard has already entered a domain. It would have refused a kernel older than the operator requires.
        self.domain().enter(None)?;
        // This step must be last, because it forbids the system calls of the steps above.
        syscalls::forbid(!self.ports.is_empty())?;
        Ok(())
    }

    fn domain(&self) -> Domain {
        let domain = Domain::deny_all().with("/dev/null", Allowed::Read).with("/dev/null", Allowed::Write);
        let domain = self.execute.iter().fold(domain, |domain, path| domain.with(path, Allowed::Execute));
        let domain = self.read.iter().fold(domain, |domain, path| domain.with(path, Allowed::Read));
        let domain = self.write.iter().fold(domain, |domain, path| domain.with(path, Allowed::Change));
        self.ports.iter().fold(domain, |domain, port| domain.with_connections_to(*port))
    }

    fn set_limits(&self) -> rustix::io::Result<()> {
        let address_space = self.memory.saturating_mul(ADDRESS_SPACE_FACTOR).max(ADDRESS_SPACE);
        lower(Resource::Data, self.memory)?;
        lower(Resource::As, address_space)?;
        lower(Resource::Nofile, OPEN_FILES)?;
        lower(Resource::Core, 0)?;
        if let Some(cpu) = self.cpu {
            // The limit has whole seconds. It is above the limit of the sum, so that the guard ends all processes before the kernel ends one.
            lower(Resource::Cpu, cpu.as_secs().saturating_add(2))?;
        }
        match self.file_size {
            Some(bytes) => lower(Resource::Fsize, bytes),
            None => Ok(()),
        }
    }
}

/// Lowers the soft and the hard limit of this process. Keeps limits that are lower already.
fn lower(resource: Resource, most: u64) -> rustix::io::Result<()> {
    let Rlimit { current, maximum } = getrlimit(resource);
    let at_most = |limit: Option<u64>| Some(limit.map_or(most, |limit| limit.min(most)));
    setrlimit(resource, Rlimit { current: at_most(current), maximum: at_most(maximum) })
}

/// The restriction that no kernel enforces, as a sentence without its subject, which is the program.
pub const NEVER_ENFORCED: &str = "may change the mode, group and times of every file that its user owns, and see the names, sizes and \
     link targets of files everywhere, because Landlock does not restrict this";

/// Returns the parts of a confinement that a kernel with this Landlock ABI (0 for none) does not enforce. Each is a sentence without its
/// subject, which is the program. `network` is whether the program may connect to any port.
pub fn not_enforced(abi: u32, network: bool) -> Vec<&'static str> {
    if abi == 0 {
        let files =
            "may read, write and execute every file that its user may, because this kernel has no Landlock";
        let ports = "may connect to every port, because this kernel has no Landlock";
        let signals = "may send signals to every process of its user, because this kernel has no Landlock";
        let end = "may outlive its end if it starts processes faster than they are found, because this kernel has no Landlock";
        return [Some(files), network.then_some(ports), Some(signals), Some(end)]
            .into_iter()
            .flatten()
            .collect();
    }
    let truncation =
        "may truncate every file that its user may write, because the kernel's Landlock is older than ABI 3";
    let ports = "may connect to every port, because the kernel's Landlock is older than ABI 4";
    let signals =
        "may send signals to every process of its user, because the kernel's Landlock is older than ABI 6";
    let end = "may outlive its end if it starts processes faster than they are found, because the kernel's Landlock is older than ABI 6";
    let missing = [
        (abi < ABI_OF_TRUNCATION).then_some(truncation),
        (network && abi < ABI_OF_PORTS).then_some(ports),
        (abi < ABI_OF_SIGNALS).then_some(signals),
        (abi < ABI_OF_SIGNALS).then_some(end),
    ];
    missing.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_that_an_older_kernel_does_not_enforce_are_named() {
        let named = |abi, network| {
            let words = not_enforced(abi, network).into_iter().map(|sentence| {
                ["truncate", "every file", "every port", "signals", "outlive"]
                    .into_iter()
                    .find(|word| sentence.contains(word))
                    .unwrap()
            });
            words.collect::<Vec<_>>()
        };
        assert_eq!(named(0, true), ["every file", "every port", "signals", "outlive"]);
        assert_eq!(named(0, false), ["every file", "signals", "outlive"]);
        assert_eq!(named(2, true), ["truncate", "every port", "signals", "outlive"]);
        assert_eq!(named(3, true), ["every port", "signals", "outlive"]);
        assert_eq!(named(4, true), ["signals", "outlive"]);
        assert_eq!(named(5, false), ["signals", "outlive"]);
        assert_eq!(named(6, true), [""; 0]);
    }
}
