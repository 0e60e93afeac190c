//! A seccomp filter that forbids system calls which a confined program must not make.
//!
//! A forbidden call fails with EPERM, or with ENOSYS, EOPNOTSUPP or ENOTTY if programs react to this error by using another call or doing
//! without the call. A call that is newer than this list fails with ENOSYS. A system call of another architecture (32 bit) kills the process. The
//! filter complements Landlock, which restricts only TCP sockets, and forbids calls that no restore needs and that have been used to escape
//! from sandboxes.

mod ioctls;

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter, sock_filter,
};

/// Why the filter could not be installed.
#[derive(Debug, thiserror::Error)]
pub(in crate::process) enum SyscallsError {
    /// The filter could not be built, for example because the processor architecture is not supported.
    #[error("{0}")]
    Filter(#[from] BackendError),
    /// The kernel refused the filter.
    #[error("{0}")]
    Kernel(#[from] seccompiler::Error),
}

/// Installs the filters for this thread and everything that it starts. With `network`, TCP sockets are the only sockets that can be
/// created; without it, connected pairs of sockets are. Accepting connections is forbidden in both cases.
pub(super) fn forbid(network: bool) -> Result<(), SyscallsError> {
    // There are several filters, because a filter has one error code for all calls that it lists.
    let unsupported = UNSUPPORTED.iter().map(|call| (*call, Vec::new())).collect();
    let ioctls = Rules::from([(libc::SYS_ioctl, ioctls::not_allowed()?)]);
    let filters = [
        (missing(), libc::ENOSYS),
        (unsupported, libc::EOPNOTSUPP),
        (ioctls, libc::ENOTTY),
        (forbidden(network)?, libc::EPERM),
    ];
    for (rules, answer) in filters {
        apply_filter(&filter(rules, answer)?)?;
    }
    Ok(())
}

/// The calls that a filter lists, each with its rules. A call with an empty list of rules is forbidden for all arguments.
type Rules = BTreeMap<c_long, Vec<SeccompRule>>;

fn filter(rules: Rules, answer: i32) -> Result<BpfProgram, BackendError> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    let errno = SeccompAction::Errno(answer.unsigned_abs());
    let program: BpfProgram =
        SeccompFilter::new(rules, SeccompAction::Allow, errno, architecture)?.try_into()?;
    Ok(without_unknown().into_iter().chain(program).collect())
}

/// The newest call that was considered, mseal(2) of Linux 6.10. From pidfd_send_signal(2) on, all architectures have the same numbers.
const NEWEST: u32 = 462;

/// Returns instructions that make every call with a higher number fail with ENOSYS, so that a newer kernel gives a confined program nothing
/// that was not considered. The calls of x86-64's x32 ABI are among them: they have the same architecture but bit 30 in their numbers, so
/// the filter would not recognize them (seccomp(2), "Architecture-specific details").
fn without_unknown() -> [sock_filter; 3] {
    // From linux/bpf_common.h and linux/seccomp.h: load the number of the call; if it is not greater, skip the next instruction; return
    // ENOSYS.
    const LOAD_NUMBER: u16 = 0x20;
    const JUMP_IF_GREATER: u16 = 0x25;
    const ANSWER: u16 = 0x06;
    let answer = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs();
    [
        sock_filter { code: LOAD_NUMBER, jt: 0, jf: 0, k: 0 },
        sock_filter { code: JUMP_IF_GREATER, jt: 0, jf: 1, k: NEWEST },
        sock_filter { code: ANSWER, jt: 0, jf: 0, k: answer },
    ]
}

/// Returns the calls that fail with ENOSYS.
fn missing() -> Rules {
    MISSING.iter().map(|call| (*call, Vec::new())).collect()
}

const MISSING: &[c_long] = &[
    // The flags are in memory, which a filter cannot see; the C library uses `clone` instead.
    libc::SYS_clone3,
    // The operations of io_uring are not system calls, so a filter does not see them.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // Files in memory, which the limit of private memory does not count, and which can be executed although Landlock allows no such file.
    libc::SYS_memfd_create,
    libc::SYS_memfd_secret,
    // inotify reports the names of files in directories that Landlock does not let the program read.
    #[cfg(target_arch = "x86_64")]
    libc::SYS_inotify_init,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_add_watch,
];

/// The calls that read or store data or rights outside of a file's content (extended attributes), in a file named by a path. Landlock does
/// not restrict these calls. Programs treat the error as that of a file system without such attributes. The same calls on an open file are
/// allowed.
const UNSUPPORTED: &[c_long] = &[
    libc::SYS_getxattr,
    libc::SYS_lgetxattr,
    libc::SYS_listxattr,
    libc::SYS_llistxattr,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
];

fn forbidden(network: bool) -> Result<Rules, BackendError> {
    let mut rules: Rules = ALWAYS.iter().map(|call| (*call, Vec::new())).collect();
    let namespaces = NAMESPACES.iter().map(|flag| has_bits(0, *flag)).collect::<Result<_, _>>()?;
    rules.insert(libc::SYS_clone, namespaces);
    // A pair of datagram sockets could send to any other datagram socket. In this family, the kernel treats SOCK_RAW as SOCK_DGRAM. Other
    // families, such as TIPC, have pairs to which others can send.
    let mut pairs = vec![is_not(0, libc::AF_UNIX)?];
    for kind in (0..=SOCKET_TYPE).filter(|kind| ![libc::SOCK_STREAM, libc::SOCK_SEQPACKET].contains(kind)) {
        pairs.push(masked(1, SOCKET_TYPE, kind)?);
    }
    rules.insert(libc::SYS_socketpair, pairs);
    for call in OF_A_PROCESS {
        rules.insert(*call, vec![is_not(0, 0)?]);
    }
    // The same, with the process in another argument.
    rules.insert(libc::SYS_setpriority, vec![is_not(0, PRIO_PROCESS)?, is_not(1, 0)?]);
    rules.insert(libc::SYS_ioprio_set, vec![is_not(0, IOPRIO_WHO_PROCESS)?, is_not(1, 0)?]);
    // The kernel kills the program when the guard dies, and the program must not change that.
    rules.insert(libc::SYS_prctl, vec![is(0, libc::PR_SET_PDEATHSIG)?]);
    // With these requests the program could type commands into the terminal that it may have inherited.
    rules.insert(libc::SYS_ioctl, vec![is(1, TIOCSTI)?, is(1, TIOCLINUX)?]);
    if !network {
        rules.extend([libc::SYS_socket, libc::SYS_connect].map(|call| (call, Vec::new())));
        return Ok(rules);
    }
    rules.insert(libc::SYS_socket, all_but_tcp()?);
    // TCP Fast Open connects without the call at which Landlock checks the port.
    for (call, flags) in [(libc::SYS_sendto, 3), (libc::SYS_sendmsg, 2), (libc::SYS_sendmmsg, 3)] {
        rules.insert(call, vec![has_bits(flags, libc::MSG_FASTOPEN)?]);
    }
    Ok(rules)
}

/// Returns the rules that match every `socket` call except for TCP over IPv4 or IPv6. They also match other stream protocols of these
/// families, such as MPTCP and SCTP, because Landlock does not restrict them.
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

/// The calls that act on the process in their first argument. They can also change other processes of the user, such as the host and
/// PostgreSQL, and Landlock does not restrict that. So a process may use them only on itself, as 0: a filter does not know the PID of the
/// caller.
const OF_A_PROCESS: &[c_long] = &[
    libc::SYS_prlimit64,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setattr,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setscheduler,
];

/// The bits in the second argument of `socket` that hold the socket's type. The other bits are flags.
const SOCKET_TYPE: i32 = 0xf;

/// The first argument of setpriority(2) that selects a process, not a group or a user.
const PRIO_PROCESS: i32 = 0;

/// The first argument of ioprio_set(2) that selects a process (`linux/ioprio.h`).
const IOPRIO_WHO_PROCESS: i32 = 1;

/// The requests of ioctl(2) that put text into a terminal's input (`asm-generic/ioctls.h`).
const TIOCSTI: i32 = 0x5412;
const TIOCLINUX: i32 = 0x541c;

/// The flags of `clone` that create a namespace, in which the new process could have capabilities.
const NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// The calls that are forbidden for all arguments.
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
    // Shared memory, semaphores and message queues that have no file. Another process of the same user, such as PostgreSQL, may own them.
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
    // Opening files by handle instead of by path.
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_fanotify_init,
    // Sockets to which other processes connect.
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    // The kernel's keyrings.
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
    libc::SYS_quotactl_fd,
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

/// Returns a rule that matches if the argument has this value.
fn is(argument: u8, value: i32) -> Result<SeccompRule, BackendError> {
    let equal = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, word(value))?;
    SeccompRule::new(vec![equal])
}

/// Returns a rule that matches if the argument has any other value.
fn is_not(argument: u8, value: i32) -> Result<SeccompRule, BackendError> {
    let other = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, word(value))?;
    SeccompRule::new(vec![other])
}

/// Returns a rule that matches if the argument has all of these bits.
fn has_bits(argument: u8, bits: i32) -> Result<SeccompRule, BackendError> {
    masked(argument, bits, bits)
}

/// Returns a rule that matches if the argument's bits in `mask` have this value.
fn masked(argument: u8, mask: i32, value: i32) -> Result<SeccompRule, BackendError> {
    let masked = SeccompCmpOp::MaskedEq(word(mask));
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, masked, word(value))?;
    SeccompRule::new(vec![condition])
}

/// Converts a value of C's type `int`, of which the kernel uses only the lower 32 bits of the argument.
fn word(value: i32) -> u64 {
    u64::from(value as u32)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use rustix::net::{AddressFamily, SocketType, ipproto, socket};

    use super::*;

    /// Installs the filters on a new thread and runs `work` there.
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
    fn without_network_only_pairs_of_sockets_can_be_created() {
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
        // Only the other thread is confined.
        UnixDatagram::pair().unwrap();
    }

    #[test]
    fn with_network_only_tcp_sockets_can_be_created_and_none_can_listen() {
        confined(true, || {
            for family in [AddressFamily::INET, AddressFamily::INET6] {
                // On a machine without IPv6 this fails, but not because of the filter.
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
    fn a_process_can_change_its_own_limits_but_not_those_of_another() {
        use rustix::process::{Pid, Resource, getpid, getppid, getrlimit, prlimit, setpriority_process};
        use rustix::thread::{sched_getaffinity, sched_setaffinity};
        confined(false, || {
            let limit = || getrlimit(Resource::Core);
            let processors = sched_getaffinity(None).unwrap();
            prlimit(None, Resource::Core, limit()).unwrap();
            sched_setaffinity(None, &processors).unwrap();
            for other in [getppid(), Some(getpid()), Pid::from_raw(1)] {
                assert!(is_forbidden(prlimit(other, Resource::Core, limit())), "{other:?}");
                assert!(is_forbidden(sched_setaffinity(other, &processors)), "{other:?}");
            }
            assert!(!is_forbidden(setpriority_process(None, 19)));
            assert!(is_forbidden(setpriority_process(getppid(), 19)));
        });
    }

    #[test]
    fn calls_that_take_a_pid_are_allowed_only_for_the_calling_process() {
        let rules = forbidden(false).unwrap();
        for call in OF_A_PROCESS {
            assert_eq!(rules[call], [is_not(0, 0).unwrap()], "{call}");
        }
    }

    #[test]
    fn a_program_cannot_take_its_death_signal_away_and_can_use_the_rest_of_prctl() {
        use rustix::process::{Signal, set_parent_process_death_signal};
        confined(false, || {
            for signal in [None, Some(Signal::CHILD)] {
                assert!(is_forbidden(set_parent_process_death_signal(signal)), "{signal:?}");
            }
            rustix::thread::set_name(c"other").unwrap();
        });
    }

    #[test]
    fn pairs_of_sockets_are_only_those_of_unix_that_are_connected_for_good() {
        use rustix::net::{SocketFlags, socketpair};
        confined(false, || {
            let pair = |family, kind| socketpair(family, kind, SocketFlags::CLOEXEC, None);
            for kind in [SocketType::STREAM, SocketType::SEQPACKET] {
                pair(AddressFamily::UNIX, kind).unwrap();
            }
            let raw = (0..=0xf).map(SocketType::from_raw);
            for kind in raw.filter(|kind| ![SocketType::STREAM, SocketType::SEQPACKET].contains(kind)) {
                assert!(is_forbidden(pair(AddressFamily::UNIX, kind)), "{kind:?}");
            }
            for family in (0..=45).filter(|family| *family != AddressFamily::UNIX.as_raw()) {
                for kind in [SocketType::STREAM, SocketType::RDM, SocketType::SEQPACKET] {
                    assert!(is_forbidden(pair(AddressFamily::from_raw(family), kind)), "{family} {kind:?}");
                }
            }
        });
    }

    #[test]
    fn memory_files_watches_and_attributes_by_path_fail_as_if_not_supported() {
        use rustix::fs::{
            MemfdFlags, XattrFlags, inotify, lremovexattr, lsetxattr, memfd_create, removexattr, setxattr,
        };
        use rustix::io::Errno;
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_owned();
        confined(false, move || {
            assert_eq!(memfd_create("x", MemfdFlags::CLOEXEC).unwrap_err(), Errno::NOSYS);
            assert_eq!(inotify::init(inotify::CreateFlags::CLOEXEC).unwrap_err(), Errno::NOSYS);
            let tried = [
                setxattr(&path, "user.x", b"x", XattrFlags::empty()),
                lsetxattr(&path, "user.x", b"x", XattrFlags::empty()),
                removexattr(&path, "user.x"),
                lremovexattr(&path, "user.x"),
            ];
            assert_eq!(tried, [Err(Errno::OPNOTSUPP); 4]);
        });
    }

    #[test]
    fn a_call_that_is_newer_than_the_list_does_not_exist() {
        let listed = ALWAYS.iter().chain(MISSING).chain(UNSUPPORTED).chain(OF_A_PROCESS);
        assert!(listed.copied().max().unwrap() <= c_long::from(NEWEST));
        assert_eq!(c_long::from(NEWEST), libc::SYS_mseal);
        // setxattrat, open_tree_attr, file_setattr, numbers of future calls, and getpid in the x32 ABI.
        let calls = [463, 467, 469, 470, 600, 100_000, 0x4000_0027].map(|call| call.to_string()).join(", ");
        let script = format!("for ({calls}) {{ print syscall($_, -1, 0, 0, 0, 0) == -1 ? $! + 0 : 0, ' ' }}");
        let tried = confined(true, move || std::process::Command::new("perl").args(["-e", &script]).output());
        let tried = String::from_utf8(tried.unwrap().stdout).unwrap();
        assert_eq!(tried, format!("{} ", libc::ENOSYS).repeat(7));
    }

    #[test]
    fn threads_can_be_started_and_namespaces_cannot_be_created() {
        confined(false, || {
            assert_eq!(std::thread::spawn(|| 7).join().unwrap(), 7);
            assert!(std::process::Command::new("/bin/true").status().unwrap().success());
            let unshare = std::process::Command::new("/usr/bin/unshare").args(["--user", "true"]).output();
            let error = String::from_utf8(unshare.unwrap().stderr).unwrap();
            assert!(error.contains("Operation not permitted"), "{error}");
        });
    }
}
