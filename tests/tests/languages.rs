//! Methods in Python and JavaScript connect to servers with the HTTP clients of their languages. They get the same denials as a method in
//! Rust, in the same words, and the line that is printed with the denial makes the request work.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tests::certificates::{Authority, ServerCertificate};
use tests::replica_folder::{Ended, ReplicaFolder};
use tests::scripted_server::{ScriptedServer, respond};
use tests::server::Playground;

const TOKEN: &str = "t0ken-of-the-service";

/// A method that requests the address in its option `address`.
#[derive(Clone, Copy)]
struct Caller {
    name: &'static str,
    /// Its other options.
    options: &'static str,
}

/// The method in Rust that connects as `urllib` does: by `wasi:sockets`, after it resolved the name.
const BY_SOCKETS: Caller = Caller { name: "caller", options: "by = \"tcp\"" };
const URLLIB: Caller = Caller { name: "caller-python", options: "by = \"urllib\"" };

/// The method in Rust that requests as `niquests` and `fetch` do: by `wasi:http`.
const BY_HTTP: Caller = Caller { name: "caller", options: "by = \"http\"" };
const NIQUESTS: Caller = Caller { name: "caller-python", options: "by = \"niquests\"" };
const RAISE: Caller = Caller { name: "caller-python", options: "by = \"raise\"" };
const FETCH: Caller = Caller { name: "caller-javascript", options: "" };

/// A folder in which several methods run one after the other, and compile once.
struct Bench {
    playground: Playground,
    replica: ReplicaFolder,
}

impl Bench {
    fn new(name: &str, component: &str) -> Self {
        let playground = Playground::new(name).unwrap();
        let replica = ReplicaFolder::new(&playground, "replica").unwrap().with_shared_state(&playground);
        replica.add_component(component).unwrap();
        Self { playground, replica }
    }

    fn call(&self, caller: Caller, address: &str, grant: &str) -> Ended {
        let Caller { name, options } = caller;
        let comma = if options.is_empty() { "" } else { ", " };
        let section = format!(
            "[method.{name}]\nno_leader = true\noptions = {{ address = \"{address}\"{comma}{options} }}\n\
             [method.{name}.grants]\n{grant}\n"
        );
        self.replica.configure(&format!("methods = [\"{name}\"]\n"), &section).unwrap();
        self.replica.create(&[]).unwrap()
    }

    /// Runs the method without a grant, and then again with the line that each denial suggests. Checks that nothing is denied after
    /// `rounds` denials, and that `rust` gets the same denial in each round.
    fn apply_every_remedy(&self, caller: Caller, rust: (Caller, &str), address: &str, rounds: u32) {
        let port = address.rsplit_once(':').unwrap().1.trim_end_matches('/');
        let mut grant = String::new();
        for _ in 0..rounds {
            let ended = self.call(caller, address, &grant);
            assert_eq!(ended.attempts(), [(caller.name, "denied")], "{address}: {}", ended.output);
            assert!(message(&ended, caller).contains("refused: "), "{}", ended.output);
            let denials = ended.denials(caller.name);
            let [("network", what, Some(remedy))] = denials[..] else {
                panic!("{address}: {denials:?}");
            };
            assert!(ended.output.contains(&format!("denied: network {what}; to allow it: {remedy}")));
            let line = remedy.strip_prefix(&format!("[method.{}.grants] ", caller.name)).unwrap();
            let in_rust = self.call(rust.0, rust.1, &grant);
            let remedy_in_rust = format!("[method.caller.grants] {line}");
            assert_eq!(in_rust.denials("caller"), [("network", what, Some(remedy_in_rust.as_str()))]);
            grant = line.replace(":PORT", &format!(":{port}"));
        }
        let ended = self.call(caller, address, &grant);
        assert!(message(&ended, caller).contains("answered: 200 monday"), "{address}: {}", ended.output);
        assert!(ended.denials(caller.name).is_empty(), "{address}: {}", ended.output);
    }

    /// Makes three requests for which the host speaks TLS. The first is denied. The second has a grant, but the server's certificate is
    /// refused. The third has a grant with `ca_file`, and the host adds the token of the grant.
    fn request_over_tls(&self, caller: Caller) {
        let authority = Authority::new(&self.playground.directory("authority").unwrap()).unwrap();
        let service = ScriptedServer::https(&authority, ServerCertificate::Right, |stream, head| {
            let is_known = head.contains(&format!("Bearer {TOKEN}\r\n"));
            respond(stream, if is_known { "200 OK" } else { "401 Unauthorized" }, "", "monday")
        })
        .unwrap();
        let (server, address) = (service.address(), format!("https://{}/", service.address()));
        let ca = self.readable(authority.certificate(), "ca.pem");
        let ended = self.call(caller, &address, "");
        assert_eq!(ended.attempts(), [(caller.name, "denied")], "{}", ended.output);
        let line = format!("[method.{}.grants] network = [\"{server}\"]", caller.name);
        let what = format!("{server} (https)");
        assert_eq!(ended.denials(caller.name), [("network", what.as_str(), Some(line.as_str()))]);

        let ended = self.call(caller, &address, &format!("network = [\"{server}\"]"));
        assert_eq!(ended.attempts(), [(caller.name, "failed")], "{}", ended.output);
        assert!(ended.output.contains("the server's certificate is refused"), "{}", ended.output);
        assert!(message(&ended, caller).contains("refused: "), "{}", ended.output);
        assert!(service.heads().is_empty(), "no request may be sent before the certificate is accepted");

        let ended = self.call(caller, &address, &self.with_token(server, &ca));
        assert!(message(&ended, caller).contains("answered: 200 monday"), "{}", ended.output);
        assert!(ended.denials(caller.name).is_empty(), "{}", ended.output);
        assert!(!ended.output.contains(TOKEN) && !ended.report.to_string().contains(TOKEN));
    }

    fn with_token(&self, server: SocketAddr, ca: &Path) -> String {
        let token = self.playground.path("token");
        self.playground.user().write(&token, TOKEN).unwrap();
        fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
        let (ca, token) = (ca.display(), token.display());
        format!("network.\"{server}\" = {{ ca_file = \"{ca}\", token = {{ file = \"{token}\" }} }}")
    }

    /// Copies a file to a place where the server's user may read it.
    fn readable(&self, file: PathBuf, name: &str) -> PathBuf {
        let copy = self.playground.path(name);
        self.playground.user().write(&copy, &fs::read_to_string(file).unwrap()).unwrap();
        copy
    }
}

/// The message with which the method's attempt failed.
fn message(ended: &Ended, caller: Caller) -> String {
    ended.attempt(caller.name)["message"].to_string()
}

fn monday() -> ScriptedServer {
    ScriptedServer::http(|stream, _| respond(stream, "200 OK", "", "monday")).unwrap()
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_method_in_python_reaches_what_is_granted_by_sockets_and_by_wasi_http() {
    let bench = Bench::new("python", URLLIB.name);
    let server = monday();
    let port = server.address().port();
    // A lookup by name needs two lines: it does not say which port is meant, and the name leads to a private address.
    for (host, rounds) in [("127.0.0.1", 1), ("localhost", 2)] {
        let (place, url) = (format!("{host}:{port}"), format!("http://{host}:{port}/"));
        bench.apply_every_remedy(URLLIB, (BY_SOCKETS, &place), &url, rounds);
        bench.apply_every_remedy(NIQUESTS, (BY_HTTP, &url), &url, rounds);
    }
    bench.request_over_tls(NIQUESTS);
    let raised = message(&bench.call(RAISE, "x", ""), RAISE);
    assert!(
        raised.contains("the method ended with: ") && raised.contains("Unexpected: no manifest at x"),
        "{raised}"
    );
    assert!(!raised.contains("unreachable"), "{raised}");
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_method_in_javascript_reaches_what_is_granted_with_fetch() {
    let bench = Bench::new("javascript", FETCH.name);
    let server = monday();
    for (host, rounds) in [("127.0.0.1", 1), ("localhost", 2)] {
        let url = format!("http://{host}:{}/", server.address().port());
        bench.apply_every_remedy(FETCH, (BY_HTTP, &url), &url, rounds);
    }
    bench.request_over_tls(FETCH);
}
