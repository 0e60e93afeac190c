//! `understudy report`: what it prints for an audit, and its exit codes.

use std::io::Write;
use std::process::Stdio;

use super::*;

/// An audit of a run with two methods. Some texts have characters that a terminal would interpret.
const AUDIT: &str = r#"{"time":"2026-11-27T21:15:51.312Z","entry":"begin","version":"0.1.0","configuration":"/etc/understudy/understudy.toml"}
{"time":"2026-11-27T21:15:52.018Z","entry":"call","method":"acme","step":"plan","capability":"store","function":"store.get","object":"s3://backups/pg: acme/catalogue","calls":1,"bytes_read":2211,"bytes_written":0,"seconds":0.031,"answer":"ok"}
{"time":"2026-11-27T21:15:52.118Z","entry":"call","method":"acme","step":"plan","capability":"store","function":"store.get","object":"s3://backups/pg: acme/older","calls":1,"bytes_read":0,"bytes_written":0,"seconds":0.02,"answer":"not-found"}
{"time":"2026-11-27T21:15:53.377Z","entry":"call","method":"acme","step":"create","capability":"read","function":"filesystem.open-at","object":"/etc/pass\u001b[2Jwd\u200b","calls":1,"bytes_read":0,"bytes_written":0,"seconds":0.0,"answer":"denied"}
{"time":"2026-11-27T21:15:53.378Z","entry":"call","method":"acme","step":"create","capability":"network","function":"network","object":"udp","calls":2,"bytes_read":0,"bytes_written":0,"seconds":0.0,"answer":"denied"}
{"time":"2026-11-27T21:15:54.104Z","entry":"call","method":"pgbackrest","step":"create","capability":"store","function":"transfer.fetch","object":"s3://backups/pg: a.gz -> base/5/1259","calls":1,"bytes_read":18211,"bytes_written":114688,"seconds":0.012,"answer":"ok"}
{"time":"2026-11-27T21:15:54.204Z","entry":"call","method":"pgbackrest","step":"create","capability":"store","function":"transfer.fetch","object":"s3://backups/pg: b.gz -> base/5/16384","calls":1,"bytes_read":1073741824,"bytes_written":3221225472,"seconds":125.0,"answer":"ok"}
{"time":"2026-11-27T21:15:54.304Z","entry":"call","method":"pgbackrest","step":"create","capability":null,"function":"datadir.sync","object":"","calls":1,"bytes_read":0,"bytes_written":0,"seconds":0.5,"answer":"ok"}
{"time":"2026-11-27T21:15:59.440Z","entry":"end","result":"created"}
"#;

fn in_file(text: impl AsRef<[u8]>) -> ConfigDirectory {
    let directory = empty_config();
    std::fs::write(directory.path("audit.jsonl"), text).unwrap();
    directory
}

#[test]
fn a_person_sees_what_each_method_asked_for() {
    let output = in_file(AUDIT).run(&["report", "audit.jsonl"]);
    output.expect(0, &[]);
    assert!(!output.out().contains(['\u{1b}', '\u{200b}']), "{:?}", output.out());
    insta::assert_snapshot!("report", output.out());
}

#[test]
fn the_report_as_json_has_the_same_content() {
    let directory = in_file(AUDIT);
    let output = directory.run(&["report", "audit.jsonl", "--json"]);
    output.expect(0, &[]);
    assert_eq!(output.out().lines().count(), 1);
    let json: serde_json::Value = serde_json::from_str(&output.out()).unwrap();
    let shown = serde_json::to_string_pretty(&json).unwrap().replace('\u{200b}', "<U+200B>");
    insta::assert_snapshot!("report-json", shown);
    let one = directory.run(&["report", "audit.jsonl", "--json", "--objects", "1"]);
    let json: serde_json::Value = serde_json::from_str(&one.out()).unwrap();
    let objects = &json["methods"][1]["capabilities"][0]["objects"];
    assert_eq!((objects["entries"].as_array().unwrap().len(), &objects["left_out"]), (1, &1.into()));
}

#[test]
fn an_audit_whose_end_is_missing_is_added_up_with_exit_code_1() {
    let killed = &AUDIT[..AUDIT.len() - 100];
    let directory = in_file(killed);
    let output = directory.run(&["report", "audit.jsonl"]);
    output.expect(1, &["is cut off", "the line that ends an audit is missing"]);
    insta::assert_snapshot!("report-killed", output.out());
    // The same from standard input.
    let mut program = Command::new(env!("CARGO_BIN_EXE_understudy"))
        .args(["report", "-"])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    program.stdin.take().unwrap().write_all(killed.as_bytes()).unwrap();
    assert_eq!(ProgramOutput(program.wait_with_output().unwrap()).out(), output.out());
}

#[test]
fn a_file_that_is_not_an_audit_ends_with_2_and_nothing_on_standard_output() {
    for (text, says) in [
        ("", "audit.jsonl is not an audit: it is empty"),
        ("root:x:0:0\n", "audit.jsonl is not an audit: it has no line of an audit"),
        ("{\"exit_code\": 0, \"result\": \"created\"}\n", "audit.jsonl is not an audit"),
    ] {
        let output = in_file(text).run(&["report", "audit.jsonl"]);
        output.expect(2, &[says]);
        assert_eq!(output.out(), "", "{says}");
    }
    let directory = empty_config();
    directory.run(&["report", "missing"]).expect(2, &["cannot read missing", "No such file"]);
    directory.run(&["report", "."]).expect(2, &["cannot read .: Is a directory"]);
    directory.run(&["report"]).expect(2, &["FILE"]);
    directory.run(&["report", "--objects", "few", "audit.jsonl"]).expect(2, &["few"]);
}
