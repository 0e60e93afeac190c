//! Runs the helper program `intruder`, which tries to escape from its confinement, and prepares its targets.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use tests::user::ServerUser;

use crate::stage::Stage;

/// Every attempt that the helper makes.
const ATTEMPTS: &[&str] = &[
    "shadow",
    "key",
    "list",
    "write",
    "overwrite",
    "truncate",
    "mkdir",
    "link out",
    "hard link",
    "rename",
    "root",
    "etc",
    "memory of the parent",
    "attribute",
    "attribute of a link",
    "watch",
    "remove",
    "start a program",
    "start a shell",
    "ptrace",
    "limits of another",
    "processors of another",
    "death signal",
    "file in memory",
    "signal",
    "environment of another",
    "command of another",
    "tcp",
    "tcp listener",
    "udp",
    "unix",
    "abstract",
    "datagram",
    "root's user",
    "chown",
];

/// Attempts that fail for an ordinary user even without confinement. The parent process may belong to another user.
const OF_ROOT: [&str; 4] = ["shadow", "memory of the parent", "root's user", "chown"];

/// The path of the built helper.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_intruder");

/// The targets of the helper's attempts. All of them exist, and the helper's user may access them.
pub(crate) struct Targets {
    arguments: Vec<String>,
    victim: Child,
    _listeners: (TcpListener, UdpSocket, UnixListener, UnixDatagram, UnixListener),
}

impl Drop for Targets {
    fn drop(&mut self) {
        let _ended_already = self.victim.kill();
        let _status = self.victim.wait();
    }
}

impl Targets {
    /// Creates the targets in `folder` for this user.
    pub(crate) fn new(folder: &Path, user: ServerUser) -> Self {
        let (key, outside) = (folder.join("key"), folder.join("outside"));
        user.write(&key, "swordfish").unwrap();
        user.directory(&outside).unwrap();
        user.write(&outside.join("victim"), "old").unwrap();
        let victim = user.command("/bin/sleep").arg("600").stdin(Stdio::null()).spawn().unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (path, name) = (folder.join("socket"), format!("understudy-{}", victim.id()));
        let stream = UnixListener::bind(&path).unwrap();
        let datagram = UnixDatagram::bind(folder.join("socket.datagram")).unwrap();
        for socket in [&path, &folder.join("socket.datagram")] {
            user.own(socket).unwrap();
        }
        let hidden = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let arguments = vec![
            "all".to_owned(),
            key.display().to_string(),
            outside.display().to_string(),
            "/bin/true".to_owned(),
            victim.id().to_string(),
            tcp.local_addr().unwrap().to_string(),
            udp.local_addr().unwrap().to_string(),
            path.display().to_string(),
            name,
        ];
        Self { arguments, victim, _listeners: (tcp, udp, stream, datagram, hidden) }
    }

    pub(crate) fn arguments(&self) -> &[String] {
        &self.arguments
    }

    pub(crate) fn outside(&self) -> PathBuf {
        PathBuf::from(&self.arguments[2])
    }
}

/// Checks that the helper made every attempt, and that every attempt was refused.
pub(crate) fn assert_refused(output: &str) {
    for attempt in ATTEMPTS {
        assert!(output.contains(&format!("{attempt}: refused: ")), "{attempt} in\n{output}");
    }
    assert!(!output.contains("ESCAPED"), "{output}");
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn without_confinement_every_attempt_of_the_intruder_succeeds() {
    let stage = Stage::new("intruder-free");
    let user = stage.playground.user();
    let targets = Targets::new(&stage.replica.path(""), user);
    let program = stage.copy(PROGRAM);
    let output = user.command(program).args(targets.arguments()).output().unwrap();
    let output = String::from_utf8(output.stdout).unwrap();
    for attempt in ATTEMPTS.iter().filter(|attempt| !OF_ROOT.contains(attempt)) {
        assert!(output.contains(&format!("{attempt}: ESCAPED")), "{attempt} in\n{output}");
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn an_intruder_that_a_component_runs_as_the_servers_user_is_stopped() {
    let stage = Stage::new("intruder-user");
    let targets = Targets::new(&stage.replica.path(""), stage.playground.user());
    let program = stage.copy(PROGRAM);
    for network in ["", ", network = [1]"] {
        let grant =
            format!("programs.tool = {{ path = {program:?}, args = {:?}{network} }}", targets.arguments());
        stage.configure("", &format!("arguments = {:?}\n", targets.arguments()), &grant);
        assert_refused(&stage.works());
        assert_eq!(fs::read_to_string(targets.outside().join("victim")).unwrap(), "old");
        assert_eq!(fs::read_dir(targets.outside()).unwrap().count(), 1);
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_program_can_connect_only_to_a_granted_port() {
    let stage = Stage::new("intruder-port");
    let program = stage.copy(PROGRAM);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let connect = |network: &str| {
        let arguments = format!("[\"connect\", \"{address}\"]");
        let grant = format!("programs.tool = {{ path = {program:?}, args = {arguments}{network} }}");
        stage.configure("", &format!("arguments = {arguments}\n"), &grant);
        stage.attempt()
    };
    let (outcome, message) = connect(&format!(", network = [{}]", address.port()));
    assert_eq!(outcome, "check-failed", "{message}");
    listener.set_nonblocking(true).unwrap();
    listener.accept().unwrap();
    for network in ["", ", network = [1]"] {
        let (outcome, message) = connect(network);
        assert_eq!(outcome, "failed", "{message}");
        assert!(message.contains("ermission denied") || message.contains("not permitted"), "{message}");
        assert!(listener.accept().is_err());
    }
}

/// Runs the helper with these arguments, and returns the outcome and the message of the attempt.
pub(crate) fn ended(stage: &Stage, arguments: [&str; 2], keys: &str) -> (String, String) {
    let program = stage.replica.path("copy");
    let program = if program.exists() { program } else { stage.copy(PROGRAM) };
    let grant = format!("programs.tool = {{ path = {program:?}, args = {arguments:?}{keys} }}");
    stage.configure("", &format!("arguments = {arguments:?}\n"), &grant);
    stage.attempt()
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn memory_and_open_files_of_a_program_are_bounded() {
    let stage = Stage::new("intruder-bounds");
    assert_eq!(ended(&stage, ["memory", "50000000"], ", memory = \"100MiB\"").0, "check-failed");
    let (outcome, message) = ended(&stage, ["memory", "150000000"], ", memory = \"100MiB\"");
    assert!(outcome == "failed" && message.contains("no memory"), "{outcome}: {message}");
    assert_eq!(ended(&stage, ["files", "1000"], "").0, "check-failed");
    let (outcome, message) = ended(&stage, ["files", "1100"], "");
    assert!(outcome == "failed" && message.contains("Too many open files"), "{outcome}: {message}");
}
