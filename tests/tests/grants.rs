//! Each capability is denied without its grant, and the line that the program prints as a remedy allows it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use replica::CapabilityKind;
use serde_json::Value;
use tests::remedies::apply;
use tests::replica_folder::{Ended, ReplicaFolder};
use tests::scripted_server::{ScriptedServer, respond};
use tests::server::Playground;

/// A call that needs a capability.
struct Row {
    /// The name of the row, for the folder of its runs.
    name: &'static str,
    capability: CapabilityKind,
    /// The component, and its options.
    method: &'static str,
    options: String,
    /// The grants that the method has in every run, as lines of `[method.METHOD.grants]`.
    granted: String,
    /// The function that the component calls, as the audit names it, and the object.
    function: &'static str,
    object: String,
    /// A text that the denial contains.
    named: String,
    /// How the attempt ends without the grant.
    without: Without,
    /// How many lines have to be applied, one after another, until the call is allowed.
    lines: usize,
    /// The part of the printed line that the operator must fill in, and what the test writes in its place.
    fill_in: Option<(&'static str, String)>,
}

/// How an attempt without the grant ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Without {
    /// The call is denied.
    Denied,
    /// The method needs the grant, so it is not tried.
    Rejected,
}

impl Row {
    /// Returns a row for the component `hostile` with this behaviour and further options.
    fn hostile(
        capability: CapabilityKind,
        behave: &str,
        options: &str,
        call: (&'static str, String),
    ) -> Self {
        let (function, object) = call;
        Self {
            name: capability.word(),
            capability,
            method: "hostile",
            options: format!("behave = \"{behave}\"\n{options}"),
            granted: String::new(),
            function,
            named: object.clone(),
            object,
            without: Without::Denied,
            lines: 1,
            fill_in: None,
        }
    }

    /// Returns a row for the component `caller`, which connects in this way.
    fn caller(name: &'static str, by: &str, address: &str, call: (&'static str, String)) -> Self {
        let options = format!("by = \"{by}\"\naddress = \"{address}\"\n");
        let row = Self::hostile(CapabilityKind::Network, "", "", call);
        Self { name, method: "caller", options, ..row }
    }
}

/// The servers to which the network rows connect.
struct Servers {
    tcp: ScriptedServer,
    http: ScriptedServer,
}

/// Returns rows for every capability that can be granted: all except [`NEVER`].
fn table(playground: &Playground, servers: &Servers) -> Vec<Row> {
    let backup = playground.directory("backup").unwrap();
    playground.user().write(&backup.join("PG_VERSION"), "15\n").unwrap();
    let key = playground.path("key");
    playground.user().write(&key, "open sesame").unwrap();
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    let (place, url) = (backup.display().to_string(), format!("file://{}", backup.display()));
    let mut rows = vec![
        Row::hostile(
            CapabilityKind::Read,
            "transfer",
            &format!("store = \"{place}\"\n"),
            ("store.open", place),
        ),
        Row {
            fill_in: Some(("...", url.clone())),
            ..Row::hostile(CapabilityKind::Store, "transfer", "", ("store.open", "repo".to_owned()))
        },
        Row {
            granted: format!("stores.repo = {{ url = \"{url}\" }}\n"),
            fill_in: Some(("/path", key.display().to_string())),
            ..Row::hostile(CapabilityKind::Key, "ungranted", "", ("keys.named", "key".to_owned()))
        },
        Row {
            named: "true".to_owned(),
            ..Row::hostile(
                CapabilityKind::Program,
                "run-program",
                "program = \"true\"\n",
                ("program.run", "true []".to_owned()),
            )
        },
        Row {
            // The component does not see a variable without a grant, so nothing is denied. Instead, its description says that it needs one.
            without: Without::Rejected,
            fill_in: Some(("...", "eu".to_owned())),
            ..Row::hostile(
                CapabilityKind::Environment,
                "variable",
                "variable = \"BACKUP_REGION\"\n",
                ("environment.get-environment", "BACKUP_REGION".to_owned()),
            )
        },
    ];
    let (tcp, http) = (servers.tcp.address(), servers.http.address());
    let connect = "tcp.start-connect";
    rows.push(Row::caller("tcp", "tcp", &tcp.to_string(), (connect, tcp.to_string())));
    // A lookup does not say which port is meant, so the operator fills it in. The private address of the name needs a second line.
    let look_up = ("ip-name-lookup.resolve-addresses", "localhost".to_owned());
    rows.push(Row {
        lines: 2,
        fill_in: Some((":PORT", format!(":{}", tcp.port()))),
        ..Row::caller("tcp-by-name", "tcp", &format!("localhost:{}", tcp.port()), look_up)
    });
    let request = |address: &str| ("outgoing-handler.handle", format!("GET {address}"));
    let address = format!("http://{http}/");
    rows.push(Row { named: http.to_string(), ..Row::caller("http", "http", &address, request(&address)) });
    let address = format!("http://localhost:{}/", http.port());
    rows.push(Row {
        lines: 2,
        named: format!("localhost:{}", http.port()),
        ..Row::caller("http-by-name", "http", &address, request(&address))
    });
    rows
}

/// The capability that every method has, and that no line can extend.
const NEVER: CapabilityKind = CapabilityKind::Write;

fn config(row: &Row, grants: &str) -> String {
    let (method, options) = (row.method, &row.options);
    format!(
        "[method.{method}]\nno_leader = true\n\n[method.{method}.options]\n{options}\n[method.{method}.grants]\n{grants}"
    )
}

/// Runs the program. Returns how it ended, and the answers to the calls of this function with this object.
fn run(playground: &Playground, name: &str, row: &Row, grants: &str) -> (Ended, Vec<String>) {
    let replica = ReplicaFolder::new(playground, name).unwrap().with_shared_state(playground);
    replica.configure(&format!("methods = [\"{}\"]\n", row.method), &config(row, grants)).unwrap();
    let audit = replica.path("audit");
    let ended = replica.create(&["--audit", audit.to_str().unwrap()]).unwrap();
    let answers = if audit.exists() { answers(&audit, row) } else { Vec::new() };
    (ended, answers)
}

fn answers(audit: &Path, row: &Row) -> Vec<String> {
    let text = fs::read_to_string(audit).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    // For a program, the object also says how the program ended.
    let is_object = |object: &str| {
        object.strip_prefix(&row.object).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    };
    let called = lines
        .filter(|line| line["function"] == row.function && line["object"].as_str().is_some_and(is_object));
    called
        .map(|line| {
            assert_eq!(line["capability"], row.capability.word(), "{line}");
            line["answer"].as_str().unwrap().to_owned()
        })
        .collect()
}

/// Returns the denials of this capability in the attempt: what was denied, and the printed line.
fn denials<'e>(ended: &'e Ended, row: &Row) -> Vec<(&'e str, Option<&'e str>)> {
    let denials = ended.denials(row.method).into_iter();
    let of = denials.filter(|(capability, _, _)| *capability == row.capability.word());
    of.map(|(_, what, line)| (what, line)).collect()
}

/// Checks that the call is denied, or the method rejected, and returns the printed line that would allow it.
fn printed_line(row: &Row, ended: &Ended, answers: &[String]) -> String {
    let (name, output) = (row.name, &ended.output);
    match row.without {
        Without::Denied => {
            assert_eq!(ended.attempts(), [(row.method, "denied")], "{name}: {output}");
            assert_eq!(answers, ["denied"], "{name}: {output}");
            let denied = denials(ended, row);
            let [(what, Some(line))] = denied.as_slice() else { panic!("{name}: {denied:?}") };
            assert!(what.contains(&row.named), "{name}: {what}");
            assert!(output.contains(&format!("to allow it: {line}")), "{name}: {output}");
            (*line).to_owned()
        }
        Without::Rejected => {
            assert_eq!(ended.attempts(), [(row.method, "rejected")], "{name}: {output}");
            assert_eq!(answers, [""; 0], "{name}: {output}");
            let attempt = ended.attempt(row.method);
            assert!(attempt["message"].to_string().contains(&row.named), "{name}: {output}");
            let line = attempt["remedy"].as_str().unwrap_or_else(|| panic!("{name}: {attempt}"));
            assert!(output.contains(&format!("to change that: {line}")), "{name}: {output}");
            line.to_owned()
        }
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn each_capability_is_denied_without_its_grant_and_the_printed_line_allows_it() {
    let playground = Playground::new("grants").unwrap();
    let servers = Servers {
        tcp: ScriptedServer::tcp(|stream| stream.write_all(b"monday")).unwrap(),
        http: ScriptedServer::http(|stream, _| respond(stream, "200 OK", "", "monday")).unwrap(),
    };
    let table = table(&playground, &servers);
    for kind in CapabilityKind::ALL {
        let has_row = table.iter().any(|row| row.capability == kind);
        assert_ne!(has_row, kind == NEVER, "{kind} has a row, or no line allows it");
    }
    for row in &table {
        let mut grants = row.granted.clone();
        for round in 0..row.lines {
            let (ended, answers) = run(&playground, &format!("{}-{round}", row.name), row, &grants);
            let line = printed_line(row, &ended, &answers);
            let line = match &row.fill_in {
                Some((part, by)) => line.replace(part, by),
                None => line,
            };
            grants = apply(row.method, &grants, &line).unwrap();
        }
        let (ended, answers) = run(&playground, &format!("{}-granted", row.name), row, &grants);
        let is_allowed = !answers.is_empty() && answers.iter().all(|answer| answer == "ok");
        assert!(is_allowed, "{} with {grants}: {answers:?} {}", row.name, ended.output);
        assert_eq!(denials(&ended, row), [], "{}: {}", row.name, ended.output);
        if row.method == "caller" {
            let message = ended.attempt(row.method)["message"].to_string();
            assert!(message.contains("answered: ") && message.contains("monday"), "{}: {message}", row.name);
        }
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_denied_write_outside_the_data_directory_has_no_remedy() {
    let playground = Playground::new("outside").unwrap();
    let outside = playground.path("outside").display().to_string();
    let call = ("filesystem.open-at", outside.clone());
    let row = Row::hostile(NEVER, "write-outside", &format!("path = \"{outside}\"\n"), call);
    let (ended, answers) = run(&playground, "write", &row, "");
    assert_eq!(answers, ["denied"], "{}", ended.output);
    assert_eq!(denials(&ended, &row), [(outside.as_str(), None)], "{}", ended.output);
    assert!(!playground.path("outside").exists());
}
