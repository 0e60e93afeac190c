//! Tests a program's output: a program that prints endlessly can still be ended, and no part of a secret stays in the output.

use std::fs;

use serde_json::Value;

use crate::stage::Stage;

/// A program that prints lines without end.
const FLOOD: &str = "while :; do echo y; done";

/// Runs `create` with an audit, and returns the line about the program.
fn audited(stage: &Stage) -> Value {
    let path = stage.replica.path("audit.jsonl");
    let ended = stage.replica.create(&["--audit", path.to_str().unwrap()]).unwrap();
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{error}: {}", ended.output));
    let mut lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.find(|line| line["function"] == "program.run").unwrap_or_else(|| panic!("{text}"))
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_program_that_prints_without_end_is_ended_at_its_timeout_all_the_same() {
    let stage = Stage::new("programs-flood");
    let script = stage.script("tool", FLOOD);
    stage.tool("", &script, ", timeout = \"1s\"");
    let line = audited(&stage);
    assert_eq!(line["answer"], "limit", "{line}");
    assert_eq!(line["object"], "tool [] was ended after 1s (timeout)");
    let seconds = line["seconds"].as_f64().unwrap();
    assert!((1.0..2.5).contains(&seconds), "{line}");
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn a_program_that_prints_without_end_is_ended_when_too_little_space_is_free() {
    let stage = Stage::new("programs-flood-full");
    let script = stage.script("tool", FLOOD);
    let grants = format!("disk = {{ keep_free = \"1000000TiB\" }}\nprograms.tool = {{ path = {script:?} }}");
    stage.configure("", "", &grants);
    let line = audited(&stage);
    assert_eq!(line["answer"], "limit", "{line}");
    assert_eq!(line["object"], "tool [] was ended because the disk is full (disk.keep_free)");
    assert!(line["seconds"].as_f64().unwrap() < 2.0, "{line}");
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn the_audit_has_the_arguments_of_a_program_and_how_it_ended_and_no_secret() {
    let stage = Stage::new("programs-audit");
    let key = stage.replica.path("key");
    fs::write(&key, "swordfish-of-the-sea\n").unwrap();
    stage.own(&key, 0o600);
    let keys = format!("keys.repo = {{ file = {key:?} }}\n");
    let script = stage.script("tool", "[ \"$1\" = kill ] && kill -KILL $$; exit 3");
    for (argument, object) in [
        ("a \"b\"", r#"tool ["a \"b\""] exited with code 3"#),
        ("kill", r#"tool ["kill"] was ended by signal 9"#),
        ("--password=swordfish-of-the-sea", r#"tool ["--password=<secret>"] exited with code 3"#),
    ] {
        let grants = format!(
            "{keys}programs.tool = {{ path = {script:?}, args = [\"{{text}}\", \"--{{text}}\"], env = {{ A = {{ key = \"repo\" }} }} }}"
        );
        let grants = match argument.strip_prefix("--") {
            Some(_) => grants.replace("\"{text}\", ", ""),
            None => grants.replace(", \"--{text}\"", ""),
        };
        stage.configure("", &format!("arguments = [{argument:?}]"), &grants);
        let line = audited(&stage);
        assert_eq!((&line["object"], &line["answer"]), (&Value::from(object), &Value::from("ok")), "{line}");
    }
    let grants = format!("programs.tool = {{ path = {script:?}, args = [\"{{text}}\"] }}");
    stage.configure("", &format!("arguments = [\"{}\"]", "x".repeat(4000)), &grants);
    let line = audited(&stage);
    let object = line["object"].as_str().unwrap();
    assert!(object.chars().count() <= 1025 && object.ends_with("x… exited with code 3"), "{line}");
}
