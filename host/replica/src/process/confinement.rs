//! The confinement of a granted program: what the process that becomes the program takes from itself just before it executes the
//! program. Everything that the program starts inherits the confinement, and nothing can take it off again.
//!
//! Landlock bounds files and ports, seccomp bounds system calls ([`syscalls`]), the kernel's resource limits bound memory and files. The
//! process has no capability and gains none (`no_new_privs`), also if it runs as root.

mod syscalls;

use std::path::PathBuf;

use foundation::landlock::{Allowed, Domain, LandlockError};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, set_capabilities, set_no_new_privs,
};
use serde::{Deserialize, Serialize};

/// The Landlock ABI from which a domain bounds the TCP ports that a program connects to (Linux 6.7).
pub const ABI_OF_PORTS: u32 = 4;

/// The Landlock ABI from which a domain keeps signals from processes outside (Linux 6.12).
pub const ABI_OF_SIGNALS: u32 = 6;

/// The Landlock ABI from which a domain bounds the truncation of files (Linux 6.2).
pub const ABI_OF_TRUNCATION: u32 = 3;

/// How many files each process of a confined program may have open.
const OPEN_FILES: u64 = 1024;

/// The least address space of a confined process, in bytes. Runtimes such as Go's reserve much more address space than they use, so the
/// address space is bounded far above the memory.
const ADDRESS_SPACE: u64 = 4 << 30;

/// By how many times the address space exceeds the memory, at least.
const ADDRESS_SPACE_FACTOR: u64 = 4;

/// What a confined program may do. Nothing else: no other file, no network, no capability.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// The files that it may execute and read: the program itself, and the interpreters of both it and its libraries. They must exist.
    pub execute: Vec<PathBuf>,
    /// The files that it may read, and the directories below which it may. They must exist.
    pub read: Vec<PathBuf>,
    /// The directories below which it may read and write. They must exist, and [`NativeProgram::writable`](super::NativeProgram)
    /// must name them too.
    pub write: Vec<PathBuf>,
    /// The TCP ports that it may connect to, at any host. Without a port it creates no socket at all.
    pub ports: Vec<u16>,
    /// How many bytes of private memory each of its processes may have.
    pub memory: u64,
    /// How many bytes each file may have that it writes; `None` for no limit.
    pub file_size: Option<u64>,
}

/// Why a process could not be confined. The program must not be executed then.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConfinementError {
    /// Landlock.
    #[error(transparent)]
    Landlock(#[from] LandlockError),
    /// A resource limit, the capabilities or `no_new_privs`.
    #[error("cannot bound {what} of the program: {source}")]
    Bound {
        /// What was to be bounded.
        what: &'static str,
        /// What the kernel said.
        source: rustix::io::Errno,
    },
    /// seccomp.
    #[error("cannot bound the system calls of the program: {0}")]
    Syscalls(#[from] syscalls::SyscallsError),
}

impl Confinement {
    /// Confines this process, which has one thread and executes the program next.
    pub(super) fn enter(&self) -> Result<(), ConfinementError> {
        let bound = |what| move |source| ConfinementError::Bound { what, source };
        set_no_new_privs(true).map_err(bound("the privileges"))?;
        self.set_limits().map_err(bound("the resources"))?;
        clear_ambient_capability_set().map_err(bound("the capabilities"))?;
        let none = CapabilitySet::empty();
        set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
            .map_err(bound("the capabilities"))?;
        // The guard has entered a domain already, and refused a kernel that is older than the operator requires.
        self.domain().enter(None)?;
        // Last, because it forbids what the steps above do.
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
        match self.file_size {
            Some(bytes) => lower(Resource::Fsize, bytes),
            None => Ok(()),
        }
    }
}

/// Lowers a limit of this process for good; a lower one stays.
fn lower(resource: Resource, most: u64) -> rustix::io::Result<()> {
    let Rlimit { current, maximum } = getrlimit(resource);
    let at_most = |limit: Option<u64>| Some(limit.map_or(most, |limit| limit.min(most)));
    setrlimit(resource, Rlimit { current: at_most(current), maximum: at_most(maximum) })
}

/// Returns, each as a sentence without its subject, what a kernel with this Landlock ABI (0 for none) does not enforce of a confinement.
/// `network`: whether the program may connect to a port.
pub fn not_enforced(abi: u32, network: bool) -> Vec<&'static str> {
    if abi == 0 {
        let files =
            "may read, write and execute every file that its user may, because this kernel has no Landlock";
        let ports = "may connect to every port, because this kernel has no Landlock";
        let signals = "may send signals to every process of its user, because this kernel has no Landlock";
        return [Some(files), network.then_some(ports), Some(signals)].into_iter().flatten().collect();
    }
    let truncation =
        "may truncate every file that its user may write, because the kernel's Landlock is older than ABI 3";
    let ports = "may connect to every port, because the kernel's Landlock is older than ABI 4";
    let signals =
        "may send signals to every process of its user, because the kernel's Landlock is older than ABI 6";
    let missing = [
        (abi < ABI_OF_TRUNCATION).then_some(truncation),
        (network && abi < ABI_OF_PORTS).then_some(ports),
        (abi < ABI_OF_SIGNALS).then_some(signals),
    ];
    missing.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_older_kernel_does_not_enforce_is_named() {
        let named = |abi, network| {
            let words = not_enforced(abi, network).into_iter().map(|sentence| {
                ["truncate", "every file", "every port", "signals"]
                    .into_iter()
                    .find(|word| sentence.contains(word))
                    .unwrap()
            });
            words.collect::<Vec<_>>()
        };
        assert_eq!(named(0, true), ["every file", "every port", "signals"]);
        assert_eq!(named(0, false), ["every file", "signals"]);
        assert_eq!(named(2, true), ["truncate", "every port", "signals"]);
        assert_eq!(named(3, true), ["every port", "signals"]);
        assert_eq!(named(4, true), ["signals"]);
        assert_eq!(named(5, false), ["signals"]);
        assert_eq!(named(6, true), [""; 0]);
    }
}
