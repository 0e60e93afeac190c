//! The system calls that a confined program must not make, as a seccomp filter.
//!
//! A forbidden call fails with EPERM, or with ENOSYS where the C library then uses an older call whose arguments a filter can judge. A
//! call in the form of another architecture (32 bit) ends the process. The filter complements Landlock, which does not know sockets other
//! than TCP, and stops calls that no restore needs and that were ways out of sandboxes before.

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter, sock_filter,
};

/// Why the filter could not be installed.
#[derive(Debug, thiserror::Error)]
pub(in crate::process) enum SyscallsError {
    /// The filter cannot be made, such as for this processor.
    #[error("{0}")]
    Filter(#[from] BackendError),
    /// The kernel refused it.
    #[error("{0}")]
    Kernel(#[from] seccompiler::Error),
}

/// Forbids this thread, and everything that it starts, what a confined program must not do. Without `network` that is every socket
/// but pairs of connected ones; with it every socket but those of TCP, and to accept connections in either case.
pub(super) fn forbid(network: bool) -> Result<(), SyscallsError> {
    // Two filters, because a filter has one answer for the calls that it lists.
    for (rules, answer) in [(missing(), libc::ENOSYS), (forbidden(network)?, libc::EPERM)] {
        apply_filter(&filter(rules, answer)?)?;
    }
    Ok(())
}

/// The rules of the calls of a filter. A call without a rule is forbidden whatever its arguments are.
type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

fn filter(rules: Rules, answer: i32) -> Result<BpfProgram, BackendError> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    let errno = SeccompAction::Errno(answer.unsigned_abs());
    let program: BpfProgram =
        SeccompFilter::new(rules, SeccompAction::Allow, errno, architecture)?.try_into()?;
    Ok(without_x32().into_iter().chain(program).collect())
}

/// The instructions that answer ENOSYS to the calls of x86-64's x32 form, which have numbers of their own but the same architecture, so
/// that the filter would not recognise them (seccomp(2), "Architecture-specific details").
fn without_x32() -> Vec<sock_filter> {
    const X32_BIT: u32 = 0x4000_0000;
    // linux/bpf_common.h and linux/seccomp.h: load the call's number; skip the answer unless it has the bit; answer.
    const LOAD_NUMBER: u16 = 0x20;
    const JUMP_IF_GREATER_OR_EQUAL: u16 = 0x35;
    const ANSWER: u16 = 0x06;
    if !cfg!(target_arch = "x86_64") {
        return Vec::new();
    }
    let answer = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs();
    vec![
        sock_filter { code: LOAD_NUMBER, jt: 0, jf: 0, k: 0 },
        sock_filter { code: JUMP_IF_GREATER_OR_EQUAL, jt: 0, jf: 1, k: X32_BIT },
        sock_filter { code: ANSWER, jt: 0, jf: 0, k: answer },
    ]
}

/// The calls that look as if the kernel did not have them: `clone3`, whose flags a filter cannot see, in place of which the C library
/// uses `clone`; and io_uring, whose operations are no system calls.
fn missing() -> Rules {
    [libc::SYS_clone3, libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register]
        .map(|call| (call, Vec::new()))
        .into()
}

fn forbidden(network: bool) -> Result<Rules, BackendError> {
    let mut rules: Rules = ALWAYS.iter().map(|call| (*call, Vec::new())).collect();
    let namespaces = NAMESPACES.iter().map(|flag| has_bits(0, *flag)).collect::<Result<_, _>>()?;
    rules.insert(libc::SYS_clone, namespaces);
    // A pair of datagram sockets could send to any other one; the kernel takes SOCK_RAW of this family for SOCK_DGRAM.
    let datagrams = [libc::SOCK_DGRAM, libc::SOCK_RAW].map(|kind| masked(1, SOCKET_TYPE, kind));
    rules.insert(libc::SYS_socketpair, datagrams.into_iter().collect::<Result<_, _>>()?);
    // These also act on other processes of the user, such as the host, which Landlock does not judge: only a process itself is left.
    rules.insert(libc::SYS_prlimit64, vec![is_not(0, 0)?]);
    rules.insert(libc::SYS_setpriority, vec![is_not(0, PRIO_PROCESS)?, is_not(1, 0)?]);
    rules.insert(libc::SYS_ioprio_set, vec![is_not(0, IOPRIO_WHO_PROCESS)?, is_not(1, 0)?]);
    // The terminal that the program may have would take input for commands.
    rules.insert(libc::SYS_ioctl, vec![is(1, TIOCSTI)?, is(1, TIOCLINUX)?]);
    if !network {
        rules.extend([libc::SYS_socket, libc::SYS_connect].map(|call| (call, Vec::new())));
        return Ok(rules);
    }
    rules.insert(libc::SYS_socket, all_but_tcp()?);
    // TCP Fast Open connects without the call on which Landlock judges the port.
    for (call, flags) in [(libc::SYS_sendto, 3), (libc::SYS_sendmsg, 2), (libc::SYS_sendmmsg, 3)] {
        rules.insert(call, vec![has_bits(flags, libc::MSG_FASTOPEN)?]);
    }
    Ok(rules)
}

/// The rules that match every `socket` but a TCP socket of IPv4 or IPv6. Other stream protocols of these families, such as MPTCP and
/// SCTP, are not bounded by Landlock.
fn all_but_tcp() -> Result<Vec<SeccompRule>, BackendError> {
    let not = |argument, value: i32| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, word(value))
    };
    let mut rules = vec![
        SeccompRule::new(vec![not(0, libc::AF_INET)?, not(0, libc::AF_INET6)?])?,
        SeccompRule::new(vec![not(2, 0)?, not(2, libc::IPPROTO_TCP)?])?,
    ];
    for kind in (0..=SOCKET_TYPE).filter(|kind| *kind != libc::SOCK_STREAM) {
        rules.push(masked(1, SOCKET_TYPE, kind)?);
    }
    Ok(rules)
}

/// The bits of the second argument of `socket` that are the type of the socket; the others are flags.
const SOCKET_TYPE: i32 = 0xf;

/// The first argument of setpriority(2) for a process, not a group or a user.
const PRIO_PROCESS: i32 = 0;

/// The same of ioprio_set(2) (`linux/ioprio.h`).
const IOPRIO_WHO_PROCESS: i32 = 1;

/// The requests of ioctl(2) that put text into a terminal's input (`asm-generic/ioctls.h`).
const TIOCSTI: i32 = 0x5412;
const TIOCLINUX: i32 = 0x541c;

/// The flags with which a new process gets a namespace of its own, in which it has capabilities.
const NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// The calls that are forbidden whatever their arguments are.
const ALWAYS: &[c_long] = &[
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    // Memory, semaphores and queues that processes of the user share without a file, PostgreSQL's own included.
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_semget,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_semctl,
    libc::SYS_msgget,
    libc::SYS_msgsnd,
    libc::SYS_msgrcv,
    libc::SYS_msgctl,
    libc::SYS_mq_open,
    libc::SYS_mq_unlink,
    // Namespaces, mounts, roots.
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    // Files by number instead of by path.
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_fanotify_init,
    // Sockets that others connect to.
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    // Keys of the kernel.
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    // The kernel itself.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_kexec_load,
    #[cfg(not(target_arch = "riscv64"))]
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_vhangup,
    libc::SYS_personality,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

/// Returns the rule that matches if an argument has this value.
fn is(argument: u8, value: i32) -> Result<SeccompRule, BackendError> {
    let equal = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, word(value))?;
    SeccompRule::new(vec![equal])
}

/// Returns the rule that matches if an argument has another value.
fn is_not(argument: u8, value: i32) -> Result<SeccompRule, BackendError> {
    let other = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, word(value))?;
    SeccompRule::new(vec![other])
}

/// Returns the rule that matches if an argument has all these bits.
fn has_bits(argument: u8, bits: i32) -> Result<SeccompRule, BackendError> {
    masked(argument, bits, bits)
}

/// Returns the rule that matches if the bits of `mask` in an argument have this value.
fn masked(argument: u8, mask: i32, value: i32) -> Result<SeccompRule, BackendError> {
    let masked = SeccompCmpOp::MaskedEq(word(mask));
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, masked, word(value))?;
    SeccompRule::new(vec![condition])
}

/// Returns the lower 32 bits of an argument that is an `int`: the kernel looks at no others.
fn word(value: i32) -> u64 {
    u64::from(value as u32)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use rustix::net::{AddressFamily, SocketType, ipproto, socket};

    use super::*;

    /// Runs `work` on a thread that made itself obey the filter.
    fn confined<T: Send + 'static>(network: bool, work: impl FnOnce() -> T + Send + 'static) -> T {
        let confined = std::thread::spawn(move || {
            forbid(network).unwrap();
            work()
        });
        confined.join().unwrap()
    }

    fn is_forbidden<T>(result: rustix::io::Result<T>) -> bool {
        matches!(result, Err(rustix::io::Errno::PERM))
    }

    #[test]
    fn without_network_there_are_only_pairs_of_sockets() {
        confined(false, || {
            for family in
                [AddressFamily::INET, AddressFamily::INET6, AddressFamily::UNIX, AddressFamily::NETLINK]
            {
                for kind in [SocketType::STREAM, SocketType::DGRAM, SocketType::RAW] {
                    assert!(is_forbidden(socket(family, kind, None)), "{family:?} {kind:?}");
                }
            }
            UnixStream::pair().unwrap();
            assert_eq!(UnixDatagram::pair().unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        });
        // Only that thread is confined.
        UnixDatagram::pair().unwrap();
    }

    #[test]
    fn with_network_there_is_tcp_and_nobody_can_connect_to_the_program() {
        confined(true, || {
            for family in [AddressFamily::INET, AddressFamily::INET6] {
                // A machine without IPv6 has no such socket, but the filter does not forbid it.
                assert!(!is_forbidden(socket(family, SocketType::STREAM, None)));
                assert!(!is_forbidden(socket(family, SocketType::STREAM, Some(ipproto::TCP))));
                for kind in [SocketType::DGRAM, SocketType::RAW, SocketType::SEQPACKET] {
                    assert!(is_forbidden(socket(family, kind, None)), "{kind:?}");
                }
                for protocol in [ipproto::MPTCP, ipproto::SCTP, ipproto::UDP] {
                    assert!(is_forbidden(socket(family, SocketType::STREAM, Some(protocol))), "{protocol:?}");
                }
            }
            for family in
                [AddressFamily::UNIX, AddressFamily::NETLINK, AddressFamily::PACKET, AddressFamily::VSOCK]
            {
                assert!(is_forbidden(socket(family, SocketType::STREAM, None)), "{family:?}");
            }
            let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
            assert!(is_forbidden(rustix::net::listen(&socket, 1)));
            let loopback = std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 0);
            assert!(is_forbidden(rustix::net::bind(&socket, &loopback)));
        });
    }

    #[test]
    fn a_process_bounds_itself_and_no_other_one() {
        use rustix::process::{Pid, Resource, getpid, getppid, getrlimit, prlimit, setpriority_process};
        confined(false, || {
            let limit = || getrlimit(Resource::Core);
            prlimit(None, Resource::Core, limit()).unwrap();
            for other in [getppid(), Some(getpid()), Pid::from_raw(1)] {
                assert!(is_forbidden(prlimit(other, Resource::Core, limit())), "{other:?}");
            }
            assert!(!is_forbidden(setpriority_process(None, 19)));
            assert!(is_forbidden(setpriority_process(getppid(), 19)));
        });
    }

    #[test]
    fn threads_can_be_started_and_namespaces_cannot() {
        confined(false, || {
            assert_eq!(std::thread::spawn(|| 7).join().unwrap(), 7);
            assert!(std::process::Command::new("/bin/true").status().unwrap().success());
            let unshare = std::process::Command::new("/usr/bin/unshare").args(["--user", "true"]).output();
            let error = String::from_utf8(unshare.unwrap().stderr).unwrap();
            assert!(error.contains("Operation not permitted"), "{error}");
        });
    }
}
