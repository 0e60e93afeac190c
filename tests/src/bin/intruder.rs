//! A program that tries what a confined program must not do.
//!
//! `intruder all KEY_FILE OUTSIDE PROGRAM PID TCP UDP SOCKET ABSTRACT` prints for each attempt one line, `NAME: refused: WHY` or
//! `NAME: ESCAPED`. KEY_FILE is a secret file of the same user, OUTSIDE a directory that this user may write, PROGRAM another program, PID
//! another process of the user, and the others are addresses at which a test listens. `intruder memory BYTES`
//! allocates this much memory, `intruder files NUMBER` opens this many files, `intruder connect ADDRESS` makes one TCP connection, and
//! `intruder threads NUMBER` starts this many threads and never ends.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "its output is what a test reads")]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{chown, symlink};
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use nix::sys::ptrace;
use nix::unistd::{Pid, Uid};
use rustix::fs::inotify;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<_> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["all", key, outside, program, pid, tcp, udp, socket, name] => {
            let pid = Pid::from_raw(pid.parse()?);
            tell("shadow", fs::read("/etc/shadow").map(drop));
            tell("key", fs::read(key).map(drop));
            files(Path::new(key), Path::new(outside));
            processes(program, pid);
            sockets(tcp, udp, socket, name);
            privileges(Path::new(outside));
        }
        ["memory", bytes] => {
            let mut taken: Vec<u8> = Vec::new();
            let bytes = bytes.parse()?;
            taken.try_reserve_exact(bytes).context("no memory")?;
            taken.resize(bytes, 1);
            println!("took {}", std::hint::black_box(taken).len());
        }
        ["files", number] => {
            let opened: io::Result<Vec<_>> = (0..number.parse()?).map(|_| File::open("/dev/null")).collect();
            println!("opened {}", opened?.len());
        }
        ["threads", number] => {
            for _ in 0..number.parse()? {
                std::thread::Builder::new().spawn(wait_for_ever)?;
            }
            wait_for_ever();
        }
        ["connect", address] => {
            TcpStream::connect(address)?.write_all(b"hello")?;
            println!("connected");
        }
        _ => bail!("unknown arguments {words:?}"),
    }
    Ok(())
}

fn wait_for_ever() {
    loop {
        std::thread::park();
    }
}

fn tell(name: &str, attempt: Result<(), impl std::fmt::Display>) {
    match attempt {
        Ok(()) => println!("{name}: ESCAPED"),
        Err(why) => println!("{name}: refused: {why}"),
    }
}

fn files(key: &Path, outside: &Path) {
    let victim = outside.join("victim");
    tell("list", fs::read_dir(outside).map(drop));
    tell("write", fs::write(outside.join("new"), "x"));
    tell("overwrite", OpenOptions::new().write(true).open(&victim).map(drop));
    tell("truncate", OpenOptions::new().write(true).truncate(true).open(&victim).map(drop));
    tell("mkdir", fs::create_dir(outside.join("folder")));
    tell("link out", symlink(key, outside.join("link")));
    tell("hard link", fs::hard_link(&victim, outside.join("hard")));
    tell(
        "rename",
        fs::rename(&victim, outside.join("renamed"))
            .and_then(|()| fs::rename(outside.join("renamed"), &victim)),
    );
    tell("root", fs::read_dir("/").map(drop));
    tell("etc", fs::read_dir("/etc").map(drop));
    tell(
        "memory of the parent",
        fs::read(format!("/proc/{}/environ", std::os::unix::process::parent_id())).map(drop),
    );
    let name = "user.intruder";
    tell("names of attributes", rustix::fs::listxattr(&victim, &mut [0_u8; 256]).map(drop));
    tell("names of attributes of a link", rustix::fs::llistxattr(&victim, &mut [0_u8; 256]).map(drop));
    tell("attribute", rustix::fs::setxattr(&victim, name, b"x", rustix::fs::XattrFlags::empty()));
    tell("attribute of a link", rustix::fs::lsetxattr(&victim, name, b"x", rustix::fs::XattrFlags::empty()));
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC)
        .and_then(|watch| inotify::add_watch(watch, outside, inotify::WatchFlags::CREATE));
    tell("watch", watch.map(drop));
    tell("remove", fs::remove_file(&victim));
}

fn processes(program: &str, pid: Pid) {
    tell("start a program", Command::new(program).output().map(drop));
    tell("start a shell", Command::new("/usr/bin/bash").args(["-c", ":"]).output().map(drop));
    tell(
        "ptrace",
        ptrace::attach(pid)
            .and_then(|()| nix::sys::wait::waitpid(pid, None))
            .and_then(|_| ptrace::detach(pid, None)),
    );
    let limit = rustix::process::getrlimit(rustix::process::Resource::Core);
    let other = rustix::process::Pid::from_raw(pid.as_raw());
    tell(
        "limits of another",
        rustix::process::prlimit(other, rustix::process::Resource::Core, limit).map(drop),
    );
    let processors = rustix::thread::sched_getaffinity(other);
    tell(
        "processors of another",
        processors.and_then(|processors| rustix::thread::sched_setaffinity(other, &processors)),
    );
    tell("death signal", rustix::process::set_parent_process_death_signal(None));
    tell("file in memory", rustix::fs::memfd_create("intruder", rustix::fs::MemfdFlags::CLOEXEC).map(drop));
    tell("signal", nix::sys::signal::kill(pid, None));
    tell("environment of another", fs::read(format!("/proc/{pid}/environ")).map(drop));
    tell("command of another", fs::read(format!("/proc/{pid}/cmdline")).map(drop));
}

fn sockets(tcp: &str, udp: &str, socket: &str, name: &str) {
    tell("tcp", TcpStream::connect(tcp).map(drop));
    tell("tcp listener", TcpListener::bind("127.0.0.1:0").map(drop));
    let sent = UdpSocket::bind("127.0.0.1:0").and_then(|own| own.send_to(b"x", udp));
    tell("udp", sent.map(drop));
    tell("unix", UnixStream::connect(socket).map(drop));
    let address = SocketAddr::from_abstract_name(name);
    tell("abstract", address.and_then(|address| UnixStream::connect_addr(&address)).map(drop));
    let sent = UnixDatagram::pair().and_then(|(own, _)| own.send_to(b"x", format!("{socket}.datagram")));
    tell("datagram", sent.map(drop));
}

fn privileges(outside: &Path) {
    tell(
        "root's user",
        nix::unistd::setuid(Uid::from_raw(0)).and_then(|()| {
            // For root, the call above always succeeds, so this also tries to become another user.
            nix::unistd::seteuid(Uid::from_raw(1)).and_then(|()| nix::unistd::seteuid(Uid::from_raw(0)))
        }),
    );
    tell("chown", chown(outside, Some(1), None).and_then(|()| chown(outside, Some(0), None)));
}
