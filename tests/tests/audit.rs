//! Checks `--audit FILE` and the reported usage of an attempt in runs of the whole program.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tests::pgbackrest::{ENCRYPTED, PASS, Stanza};
use tests::program::understudy;
use tests::replica_folder::{Ended, ReplicaFolder};
use tests::scripted_server::{ScriptedServer, respond};
use tests::server::Playground;

/// Reads every line of an audit. Checks that the line of each call has exactly the fields that the manual describes, and some fields of the
/// other lines.
fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.ends_with('\n'));
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = lines.len() - 1;
    for (number, line) in lines.iter().enumerate() {
        let expected = match number {
            0 => "begin",
            _ if number == last => "end",
            _ => "call",
        };
        assert_eq!(line["entry"], expected, "{line}");
        assert!(line["time"].as_str().unwrap().ends_with('Z'), "{line}");
        if expected == "call" {
            check_call(line);
        }
    }
    assert!(lines[0]["version"].is_string() && lines[0]["configuration"].is_string(), "{}", lines[0]);
    assert!(lines[last]["result"].is_string(), "{}", lines[last]);
    lines
}

fn check_call(line: &Value) {
    let text = |key: &str| line[key].as_str().unwrap_or_else(|| panic!("{key} of {line}"));
    let number = |key: &str| line[key].as_u64().unwrap_or_else(|| panic!("{key} of {line}"));
    assert!(["plan", "create"].contains(&text("step")), "{line}");
    let capabilities = ["read", "write", "store", "key", "network", "program", "environment"];
    assert!(line["capability"].is_null() || capabilities.contains(&text("capability")), "{line}");
    assert!(
        !text("method").is_empty() && !text("function").is_empty() && !text("answer").is_empty(),
        "{line}"
    );
    assert!(text("object").chars().count() <= 1025, "{line}");
    assert!(number("calls") >= 1, "{line}");
    let _ = (number("bytes_read"), number("bytes_written"));
    assert!(line["seconds"].as_f64().unwrap() >= 0.0, "{line}");
    assert_eq!(line.as_object().unwrap().len(), 12, "a field that the manual does not have: {line}");
}

/// Returns the lines with this function and this answer.
fn calls<'l>(lines: &'l [Value], function: &str, answer: &str) -> Vec<&'l Value> {
    lines.iter().filter(|line| line["function"] == function && line["answer"] == answer).collect()
}

fn sum(lines: &[&Value], key: &str) -> u64 {
    lines.iter().map(|line| line[key].as_u64().unwrap()).sum()
}

/// Runs the program with an audit, and returns how it ended and the lines of the audit.
fn audited(replica: &ReplicaFolder) -> (Ended, Vec<Value>) {
    let path = replica.path("audit.jsonl");
    let ended = replica.create(&["--audit", path.to_str().unwrap()]).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let lines = lines(&path);
    assert_eq!(lines[lines.len() - 1]["result"], ended.report["result"], "{}", ended.output);
    (ended, lines)
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn the_audit_of_a_pgbackrest_run_is_readable_and_agrees_with_the_usage() {
    let stanza = Stanza::start("audit", 100, &[ENCRYPTED], "gz").unwrap();
    stanza.backup(1, "full", &[]).unwrap();
    let replica = stanza.replica(&stanza.method(&[1], "", "")).unwrap();
    let (ended, lines) = audited(&replica);
    assert_eq!(ended.code(), Some(0), "{}", ended.output);
    let text = fs::read_to_string(replica.path("audit.jsonl")).unwrap();
    assert!(!text.contains(PASS), "a pass phrase is in the audit");
    let attempt = ended.attempt("pgbackrest");
    let fetched = calls(&lines, "transfer.fetch", "ok");
    assert!(fetched.len() > 500, "{}", fetched.len());
    assert_eq!(fetched.len() as u64, attempt["files"].as_u64().unwrap(), "{attempt}");
    assert_eq!(sum(&fetched, "bytes_written"), attempt["bytes"].as_u64().unwrap(), "{attempt}");
    assert!(!calls(&lines, "keys.named", "ok").is_empty());
    assert!(lines.iter().any(|line| line["step"] == "plan" && line["function"] == "store.open"));
    let answers = lines.iter().filter(|line| line["answer"] == "denied").count();
    assert_eq!(answers, 0, "nothing was denied");

    let usage = &attempt["usage"];
    let used = |key: &str| usage[key]["used"].as_u64().unwrap_or_else(|| panic!("{key} of {usage}"));
    // The usage also includes what the method read itself.
    assert!(used("read_bytes") >= sum(&fetched, "bytes_read"), "{usage}");
    assert!(used("requests") > 0 && used("workers") > 0 && used("open_files") > 0, "{usage}");
    assert!(used("written_bytes") >= attempt["bytes"].as_u64().unwrap(), "{usage}");
    assert!(
        used("memory_bytes") > 0 && used("memory_bytes") < usage["memory_bytes"]["limit"].as_u64().unwrap()
    );
    assert_eq!(usage["cpu_seconds"]["limit"], 14_400.0);
    assert!(usage["cpu_seconds"]["used"].as_f64().unwrap() > 0.0, "{usage}");
    assert!(usage["wall_seconds"]["used"].as_f64().unwrap() > 0.0, "{usage}");
    assert!(ended.output.contains("pgbackrest: used: time "), "{}", ended.output);
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn the_audit_has_every_request_of_a_hostile_component() {
    let playground = Playground::new("audit-hostile").unwrap();
    for (behave, more, answers) in [
        (
            "ungranted",
            "",
            &[("store.open", "denied"), ("keys.named", "denied"), ("program.run", "denied")][..],
        ),
        ("read-outside", "path = \"/etc/shadow\"\n", &[("filesystem.open-at", "denied")]),
        ("write-outside", "path = \"/etc/understudy-was-here\"\n", &[("filesystem.open-at", "denied")]),
        ("write", "", &[("filesystem.open-at", "ok")]),
        (
            "traverse",
            "path = \"/etc/passwd\"\n",
            &[("filesystem.symlink-at", "ok"), ("filesystem.open-at", "denied")],
        ),
        ("network", "", &[("network", "denied")]),
        ("shout", "", &[]),
    ] {
        let replica = ReplicaFolder::new(&playground, behave).unwrap().with_shared_state(&playground);
        let method = format!(
            "[method.hostile]\nno_leader = true\n[method.hostile.options]\nbehave = \"{behave}\"\n{more}"
        );
        replica.configure("methods = [\"hostile\"]\n", &method).unwrap();
        let (ended, lines) = audited(&replica);
        for (function, answer) in answers {
            assert!(
                !calls(&lines, function, answer).is_empty(),
                "{behave}: {function} {answer} in {lines:#?}"
            );
        }
        // If the report has a denial, the audit has at least one.
        let denials = ended.attempt("hostile")["denials"].as_array().unwrap().len();
        let denied = lines.iter().filter(|line| line["answer"] == "denied").count();
        assert!(denied >= denials.min(1), "{behave}: {denials} denials, {denied} lines");
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn allowed_connections_requests_and_look_ups_are_in_the_audit_with_their_bytes() {
    let playground = Playground::new("audit-network").unwrap();
    let tcp = ScriptedServer::tcp(|stream| {
        stream.read_exact(&mut [0; 5])?;
        stream.write_all(b"monday")
    });
    let tcp = tcp.unwrap();
    let http = ScriptedServer::http(|stream, _| respond(stream, "200 OK", "", "monday")).unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (tcp, at, nobody) = (tcp.address().to_string(), http.address().to_string(), closed.to_string());
    let response = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nmonday".len() as u64;
    let localhost = "{ \"localhost:1\" = { private = true } }".to_owned();
    let list = |server: &str| format!("[\"{server}\"]");
    let (connect, handle) = ("tcp.start-connect", "outgoing-handler.handle");
    let url = |server: &str| format!("http://{server}/x?y=z");
    let get = |server: &str| format!("GET {}", url(server));
    let cases = [
        ("tcp", tcp.clone(), list(&tcp), (connect, tcp.clone(), "ok"), Some([6, 5])),
        // How much a request sends depends on its headers, which the server has seen.
        ("http", url(&at), list(&at), (handle, get(&at), "ok"), None),
        (
            "lookup",
            "localhost".to_owned(),
            localhost,
            ("ip-name-lookup.resolve-addresses", "localhost".to_owned(), "ok"),
            Some([0, 0]),
        ),
        ("tcp", nobody.clone(), list(&nobody), (connect, nobody.clone(), "connection-refused"), Some([0, 0])),
        ("http", url(&nobody), list(&nobody), (handle, get(&nobody), "connection-refused"), Some([0, 0])),
    ];
    for (number, (by, address, network, (function, object, answer), bytes)) in cases.into_iter().enumerate() {
        let replica = ReplicaFolder::new(&playground, &format!("replica-{number}")).unwrap();
        let replica = replica.with_shared_state(&playground);
        let section = format!(
            "[method.caller]\nno_leader = true\ngrants.network = {network}\n\
             options = {{ by = \"{by}\", address = \"{address}\", say = \"{}\" }}\n",
            if by == "tcp" { "hello" } else { "" }
        );
        replica.configure("methods = [\"caller\"]\n", &section).unwrap();
        let (ended, lines) = audited(&replica);
        let found = calls(&lines, function, answer);
        let [line] = found.as_slice() else { panic!("{by} {address}: {lines:#?} {}", ended.output) };
        assert_eq!((&line["capability"], &line["object"]), (&"network".into(), &object.into()), "{line}");
        let moved = ["bytes_read", "bytes_written"].map(|key| line[key].as_u64().unwrap());
        match bytes {
            Some(bytes) => assert_eq!(moved, bytes, "{line}"),
            None => {
                let head = http.heads().last().unwrap().len() as u64;
                assert_eq!(moved[0], response, "{line}");
                // A request that does not state the length of its body may end with an empty chunk.
                assert!((head..=head + 5).contains(&moved[1]), "{head}: {line}");
            }
        }
        assert!(lines.iter().all(|line| line["answer"] != "denied"), "{lines:#?}");
        let usage = &ended.attempt("caller")["usage"]["network_bytes"];
        assert_eq!(usage["used"].as_u64(), Some(moved.iter().sum()), "{usage}");
        assert_eq!(usage["limit"].as_u64(), Some(1 << 30), "{usage}");
    }
}

/// Runs `understudy report` for the audit of a replica's last run. Returns the text for a person and the JSON.
fn report(replica: &ReplicaFolder, code: i32) -> (String, Value) {
    let run = |more: &[&str]| {
        let output = Command::new(understudy().unwrap())
            .arg("report")
            .arg(replica.path("audit.jsonl"))
            .args(more)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    (run(&[]), serde_json::from_str(&run(&["--json"])).unwrap())
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn the_report_adds_up_the_audit_of_a_run_that_was_denied_something_and_of_one_that_was_killed() {
    let playground = Playground::new("audit-report").unwrap();
    let replica = ReplicaFolder::new(&playground, "replica").unwrap().with_shared_state(&playground);
    let method = "[method.hostile]\nno_leader = true\n[method.hostile.options]\nbehave = \"traverse\"\npath = \"/etc/passwd\"\n";
    replica.configure("methods = [\"hostile\"]\n", method).unwrap();
    let (_, lines) = audited(&replica);
    let (text, json) = report(&replica, 0);
    let last = &lines[lines.len() - 1];
    assert_eq!((&json["result"], &json["ended"]), (&last["result"], &last["time"]), "{json}");
    assert_eq!(
        (&json["began"], &json["incomplete"]),
        (&lines[0]["time"], &Value::Array(Vec::new())),
        "{json}"
    );
    let groups = json["methods"][0]["capabilities"].as_array().unwrap();
    let total = |of: &dyn Fn(&Value) -> u64| groups.iter().map(of).sum::<u64>();
    let denied: Vec<_> = lines.iter().filter(|line| line["answer"] == "denied").collect();
    let allowed: Vec<_> =
        lines.iter().filter(|line| line["entry"] == "call" && line["answer"] != "denied").collect();
    assert!(!denied.is_empty() && !allowed.is_empty(), "{lines:#?}");
    assert_eq!(total(&|group| group["denied"].as_u64().unwrap()), sum(&denied, "calls"), "{json}");
    for key in ["calls", "bytes_read", "bytes_written"] {
        assert_eq!(
            total(&|group| group["allowed"][key].as_u64().unwrap()),
            sum(&allowed, key),
            "{key}: {json}"
        );
    }
    for line in denied {
        let asked = [&line["function"], &line["object"]].map(|value| value.as_str().unwrap());
        assert!(text.contains(&asked.join(" ")), "{asked:?} in {text}");
    }

    // The program is killed: the audit has no last line, and the line before it is cut off.
    let path = replica.path("audit.jsonl");
    let whole = fs::read_to_string(&path).unwrap();
    let last = whole.trim_end().rfind('\n').unwrap();
    fs::write(&path, &whole[..last - 10]).unwrap();
    let (text, json) = report(&replica, 1);
    assert!(json["result"].is_null() && json["incomplete"].as_array().unwrap().len() == 2, "{json}");
    assert!(text.contains("is cut off") && text.contains("ends an audit is missing"), "{text}");
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn what_a_method_can_read_of_its_environment_is_in_the_audit_without_the_values() {
    let playground = Playground::new("audit-environment").unwrap();
    let replica = ReplicaFolder::new(&playground, "replica").unwrap();
    let section = "[method.hostile]\nno_leader = true\noptions = { behave = \"variable\", variable = \"REGION\" }\n\
                   grants.environment = { LANG = \"C\", REGION = \"atlantis\" }\n";
    replica.configure("methods = [\"hostile\"]\n", section).unwrap();
    let (ended, lines) = audited(&replica);
    let read: Vec<_> = lines.iter().filter(|line| line["capability"] == "environment").collect();
    assert!(!read.is_empty(), "{lines:#?} {}", ended.output);
    for line in read {
        assert_eq!(
            (&line["function"], &line["answer"]),
            (&"environment.get-environment".into(), &"ok".into())
        );
        assert_eq!((&line["object"], &line["bytes_read"]), (&"LANG, REGION".into(), &19.into()), "{line}");
    }
    let text = fs::read_to_string(replica.path("audit.jsonl")).unwrap();
    assert!(!text.contains("atlantis"), "{text}");
}
