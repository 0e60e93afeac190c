//! Checks where the server will listen: `listen_addresses`, `unix_socket_directories` and `port`, as `PostmasterMain` in `postmaster.c` and
//! `StreamServerPort` in `pqcomm.c` use them. The server starts if it can listen on one of the addresses. It does not start if it cannot
//! create its lock file in one of the socket directories.

use std::io::{self, ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};
use rustix::process::{Pid, test_kill_process};

use super::super::problem::{Problem, shown, shown_within};
use super::ask::Server;
use super::{Verdicts, lists, writes};
use crate::regular_file;

/// How many addresses and how many directories are checked: the server has at most this many sockets (`MAXLISTEN`).
const MOST: usize = 64;

/// How long the resolution of all names may take.
const TIMEOUT: Duration = Duration::from_secs(15);

/// How long the path of a socket may be, in bytes (`UNIXSOCK_PATH_BUFLEN` less its NUL).
const LONGEST_SOCKET: usize = 107;

/// The most characters of a list of addresses or directories that are reported.
const SHOWN: usize = 1000;

/// Whether the server could listen.
#[derive(Debug, PartialEq, Eq)]
enum Listens {
    Yes,
    /// The address belongs to this machine, and another process listens there now.
    NotNow,
    /// The address belongs to this machine, and only root may listen at the port.
    NotAllowed,
    /// The name cannot be resolved now, for this reason.
    Unknown(String),
    No(String),
}

/// Checks every address and every socket directory.
pub(super) fn check(server: &Server<'_>, verdicts: &mut Verdicts<'_>) -> Result<(), Problem> {
    let Ok(port) = u16::try_from(server.number("port")?) else { return Ok(()) };
    let has_addresses = addresses(server, port, verdicts)?;
    let has_sockets = sockets(server, port, verdicts)?;
    if !has_addresses && !has_sockets {
        verdicts.missing(format!(
            "`listen_addresses` and `unix_socket_directories` are both empty: PostgreSQL does not start if it listens nowhere; set one \
             of them {}",
            server.remedy("listen_addresses")
        ))?;
    }
    Ok(())
}

/// Checks the addresses. Returns whether there is an address.
fn addresses(server: &Server<'_>, port: u16, verdicts: &mut Verdicts<'_>) -> Result<bool, Problem> {
    const NAME: &str = "listen_addresses";
    let value = server.setting(NAME)?;
    let Some(names) = list(server, NAME, &value, lists::names(&value), verdicts)? else { return Ok(true) };
    let until = Instant::now() + TIMEOUT;
    let (mut listens, mut faults, mut taken) = (false, Vec::new(), Vec::new());
    let (mut unknown, mut not_allowed) = (false, false);
    for name in names.iter().take(MOST) {
        let shown = shown(name.as_bytes());
        match listens_at(name, port, until) {
            Listens::Yes => listens = true,
            Listens::NotNow => {
                listens = true;
                taken.push(format!("`{shown}`"));
            }
            Listens::NotAllowed => not_allowed = true,
            Listens::Unknown(why) => {
                unknown = true;
                faults.push(format!("`{shown}` ({why})"));
            }
            Listens::No(why) => faults.push(format!("`{shown}` ({why})")),
        }
    }
    if !taken.is_empty() {
        verdicts.report_unless_patroni_sets_it(format!(
            "`port` is {port} ({}), and another process listens there now on {}: PostgreSQL does not start if it can listen on none of \
             its addresses; stop that process first, or set another `port`",
            server.place("port"),
            shown_within(taken.join(", ").as_bytes(), SHOWN)
        ));
    }
    if not_allowed {
        let what = format!(
            "`port` is {port} ({}), and port {port} needs root: set `port` above 1023 {}",
            server.place("port"),
            server.remedy("port")
        );
        if listens {
            verdicts.report_unless_patroni_sets_it(what);
        } else {
            verdicts.missing_unless_patroni_sets_it(what)?;
        }
    }
    if faults.is_empty() || not_allowed {
        return Ok(!names.is_empty());
    }
    let what = format!(
        "`{NAME}` is `{}` ({}), and PostgreSQL cannot listen here on {}",
        shown_within(value.as_bytes(), SHOWN),
        server.place(NAME),
        shown_within(faults.join(", ").as_bytes(), SHOWN)
    );
    if listens {
        verdicts.report_unless_patroni_sets_it(format!("{what}: it starts, and listens only on the others"));
    } else if unknown {
        verdicts.report_unless_patroni_sets_it(format!("{what}: it does not start if that stays so"));
    } else {
        verdicts.missing_unless_patroni_sets_it(format!(
            "{what}: it does not start if it can listen on none of them. Set `{NAME}` to addresses of this machine, or to `*`, {}",
            server.remedy(NAME)
        ))?;
    }
    Ok(true)
}

/// Returns the elements of a list; `None` if the server refuses the list, which is reported.
fn list(
    server: &Server<'_>,
    name: &str,
    value: &str,
    elements: Option<Vec<String>>,
    verdicts: &mut Verdicts<'_>,
) -> Result<Option<Vec<String>>, Problem> {
    if elements.is_none() {
        verdicts.missing(format!(
            "`{name}` is `{}` ({}), which is not a list that PostgreSQL can read, and it does not start. Write it as `'one, another'` \
             {}",
            shown(value.as_bytes()),
            server.place(name),
            server.remedy(name)
        ))?;
    }
    Ok(elements)
}

/// Returns whether the server can listen at a name. If the name has several addresses, one usable address is enough.
fn listens_at(name: &str, port: u16, until: Instant) -> Listens {
    let addresses = match name {
        "*" => vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)]
            .into_iter()
            .map(|address| SocketAddr::new(address, 0))
            .collect(),
        name => match resolve(name, until) {
            Ok(addresses) => addresses,
            Err(unknown) => return unknown,
        },
    };
    let mut listens = Listens::No("it has no address".to_owned());
    for address in addresses.into_iter().take(MOST) {
        match try_to_bind(address, port) {
            Listens::Yes if listens != Listens::NotNow => listens = Listens::Yes,
            Listens::NotNow => listens = Listens::NotNow,
            Listens::NotAllowed if matches!(listens, Listens::No(_)) => listens = Listens::NotAllowed,
            Listens::No(why) if matches!(listens, Listens::No(_)) => listens = Listens::No(why),
            _ => {}
        }
    }
    listens
}

/// Returns whether a socket can be bound to an address, with a port that the kernel chooses and with the server's port. The socket never
/// listens.
fn try_to_bind(mut address: SocketAddr, port: u16) -> Listens {
    // The options are those of the server.
    let bind = |address: SocketAddr| -> io::Result<()> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        if address.is_ipv6() {
            sockopt::set_ipv6_v6only(&socket, true)?;
        }
        Ok(net::bind(&socket, &address)?)
    };
    address.set_port(0);
    if let Err(error) = bind(address) {
        return Listens::No(why(&error));
    }
    address.set_port(port);
    match bind(address) {
        Ok(()) => Listens::Yes,
        Err(error) if error.kind() == ErrorKind::AddrInUse => Listens::NotNow,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Listens::NotAllowed,
        Err(error) => Listens::No(format!("port {port}: {}", why(&error))),
    }
}

fn why(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::AddrNotAvailable => "no address of this machine".to_owned(),
        _ => error.to_string(),
    }
}

/// Resolves a name with the system's resolver. A call of the resolver cannot be cancelled, so another thread makes it.
fn resolve(name: &str, until: Instant) -> Result<Vec<SocketAddr>, Listens> {
    let (answer, answered) = mpsc::channel();
    let query = name.to_owned();
    let resolver = std::thread::Builder::new().name("resolver".to_owned()).spawn(move || {
        // The receiver may have timed out.
        let _ = answer.send((query.as_str(), 0).to_socket_addrs().map(Iterator::collect));
    });
    if let Err(error) = resolver {
        return Err(Listens::Unknown(error.to_string()));
    }
    match answered.recv_timeout(until.saturating_duration_since(Instant::now())) {
        Ok(Ok(addresses)) => Ok(addresses),
        Ok(Err(error)) => {
            let error = error.to_string();
            let passes = error.contains("Temporary failure");
            Err(if passes { Listens::Unknown(error) } else { Listens::No(error) })
        }
        Err(_) => Err(Listens::Unknown(format!("not resolved within {} s", TIMEOUT.as_secs()))),
    }
}

/// Checks the socket directories. Returns whether there is a socket directory.
fn sockets(server: &Server<'_>, port: u16, verdicts: &mut Verdicts<'_>) -> Result<bool, Problem> {
    const NAME: &str = "unix_socket_directories";
    let value = server.setting(NAME)?;
    let Some(directories) = list(server, NAME, &value, lists::paths(&value), verdicts)? else {
        return Ok(true);
    };
    let mut too_long = Vec::new();
    for directory in directories.iter().take(MOST) {
        let name = format!("{directory}/.s.PGSQL.{port}");
        let shown = shown(directory.as_bytes());
        if name.len() > LONGEST_SOCKET {
            too_long.push(format!("`{shown}`"));
            continue;
        }
        if directory.starts_with('@') && server.replica.major >= 14 {
            // An abstract socket has no file.
            continue;
        }
        let path = server.replica.places.path.join(directory);
        if server.replica.is_restored_later(&path) {
            continue;
        }
        if let Some(fault) = writes::directory_fault(&path) {
            let what = format!("`{NAME}` names `{shown}` ({}), {fault}", server.place(NAME));
            if writes::is_made_at_the_start(&path) {
                verdicts.report_unless_patroni_sets_it(format!(
                    "{what}: PostgreSQL starts only if its service creates the directory first"
                ));
            } else {
                verdicts.missing_unless_patroni_sets_it(format!(
                    "{what}: PostgreSQL does not start if it cannot create a socket in each of these directories. Create it, or set \
                     `{NAME}` {}",
                    server.remedy(NAME)
                ))?;
            }
            continue;
        }
        let lock = path.join(format!(".s.PGSQL.{port}.lock"));
        if belongs_to_running_process(&lock) {
            verdicts.report_unless_patroni_sets_it(format!(
                "`{}` belongs to a running server, or cannot be read: PostgreSQL does not start on `port` {port} while it exists",
                shown_within(lock.as_os_str().as_encoded_bytes(), SHOWN)
            ));
        }
    }
    if !too_long.is_empty() {
        let what = format!(
            "`{NAME}` ({}) has paths of sockets longer than {LONGEST_SOCKET} bytes: {}",
            server.place(NAME),
            shown_within(too_long.join(", ").as_bytes(), SHOWN)
        );
        if too_long.len() < directories.len().min(MOST) {
            verdicts.report(format!("{what}: PostgreSQL starts without them"));
        } else {
            verdicts.missing_unless_patroni_sets_it(format!(
                "{what}: PostgreSQL does not start if it can use none of them. Set `{NAME}` {}",
                server.remedy(NAME)
            ))?;
        }
    }
    Ok(!directories.is_empty())
}

/// Returns whether the process that a lock file names runs, or the file cannot be read (`CreateLockFile` in `miscinit.c`). The server
/// removes the file if the process does not run, or belongs to another user.
fn belongs_to_running_process(lock: &Path) -> bool {
    let mut first = String::new();
    match regular_file::open(lock).and_then(|file| file.take(32).read_to_string(&mut first)) {
        Err(error) => error.kind() != ErrorKind::NotFound,
        Ok(_) => first
            .lines()
            .next()
            .and_then(|line| line.trim().trim_start_matches('-').parse::<i32>().ok())
            .and_then(Pid::from_raw)
            .is_some_and(|process| !matches!(test_kill_process(process), Err(Errno::SRCH | Errno::PERM))),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::TcpListener;

    use rustix::thread::CapabilitySet;

    use super::*;

    /// Takes from this thread the right to listen at ports below 1024, which root has and other users do not have.
    pub(in super::super) fn without_low_ports() {
        let first = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
        assert_eq!(first.trim(), "1024", "this test needs a machine on which only root listens at port 80");
        let mut sets = rustix::thread::capabilities(None).unwrap();
        sets.effective.remove(CapabilitySet::NET_BIND_SERVICE);
        rustix::thread::set_capabilities(None, sets).unwrap();
    }

    fn soon() -> Instant {
        Instant::now() + TIMEOUT
    }

    #[test]
    fn an_address_of_another_machine_is_distinguished_from_one_of_this_machine() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        for name in ["127.0.0.1", "*", "localhost", "0.0.0.0"] {
            assert_eq!(listens_at(name, free, soon()), Listens::Yes, "{name}");
        }
        // Addresses from the networks for documentation (RFC 5737 and 3849).
        for name in ["192.0.2.1", "2001:db8::1"] {
            assert!(matches!(listens_at(name, free, soon()), Listens::No(_)), "{name}");
        }
        for name in ["no-such-host.invalid", "[::1]", ""] {
            let listens = listens_at(name, free, soon());
            assert!(matches!(listens, Listens::No(_) | Listens::Unknown(_)), "{name}: {listens:?}");
        }
    }

    #[test]
    fn a_port_in_use_is_not_a_fault_of_the_address() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        assert_eq!(listens_at("127.0.0.1", port, soon()), Listens::NotNow);
        drop(taken);
        assert_eq!(listens_at("127.0.0.1", port, soon()), Listens::Yes);
    }

    #[test]
    fn a_lock_file_counts_while_its_server_runs() {
        let place = tempfile::tempdir().unwrap();
        let lock = place.path().join("lock");
        assert!(!belongs_to_running_process(&lock));
        for (content, held) in
            [(format!("{}\n", std::process::id()), true), ("4194305\n".into(), false), ("".into(), false)]
        {
            std::fs::write(&lock, &content).unwrap();
            assert_eq!(belongs_to_running_process(&lock), held, "{content}");
        }
        // Only root may send signals to a process of root: so for any other user, init is not a server that this user could have started.
        std::fs::write(&lock, "1\n").unwrap();
        assert_eq!(belongs_to_running_process(&lock), rustix::process::geteuid().is_root());
    }

    #[test]
    fn an_address_of_ipv6_is_free_while_another_process_listens_on_all_of_ipv4() {
        let taken = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        assert_eq!(listens_at("::", port, soon()), Listens::Yes);
        assert_eq!(listens_at("0.0.0.0", port, soon()), Listens::NotNow);
        assert_eq!(listens_at("*", port, soon()), Listens::NotNow);
    }

    #[test]
    fn a_port_that_only_root_may_use_is_told_from_one_in_use() {
        // This needs another thread, because capabilities belong to a thread.
        std::thread::spawn(|| {
            without_low_ports();
            for name in ["127.0.0.1", "*"] {
                assert_eq!(listens_at(name, 80, soon()), Listens::NotAllowed, "{name}");
            }
        })
        .join()
        .unwrap();
    }
}
