//! Each capability: denied without its grant, and allowed by exactly the line that the program prints.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use replica::CapabilityKind;
use serde_json::Value;
use tests::replica_folder::{Ended, ReplicaFolder};
use tests::server::Playground;

/// A call that needs a capability.
struct Row {
    capability: CapabilityKind,
    /// The behaviour of the component `hostile`, and its further options.
    behave: &'static str,
    options: String,
    /// What is granted in any case, as lines of `[method.hostile.grants]`.
    granted: String,
    /// The function that the component calls, as the audit names it, and the object.
    function: &'static str,
    object: String,
    /// What the operator has to fill in: a part of the printed line, and what to write in its place.
    fill_in: Option<(&'static str, String)>,
}

/// Every capability that can be granted. The others are in [`ELSEWHERE`] and [`NEVER`].
fn table(playground: &Playground) -> Vec<Row> {
    let backup = playground.directory("backup").unwrap();
    playground.user().write(&backup.join("PG_VERSION"), "15\n").unwrap();
    let key = playground.path("key");
    playground.user().write(&key, "open sesame").unwrap();
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    let (place, url) = (backup.display().to_string(), format!("file://{}", backup.display()));
    vec![
        Row {
            capability: CapabilityKind::Read,
            behave: "transfer",
            options: format!("store = \"{place}\"\n"),
            granted: String::new(),
            function: "store.open",
            object: place,
            fill_in: None,
        },
        Row {
            capability: CapabilityKind::Store,
            behave: "transfer",
            options: String::new(),
            granted: String::new(),
            function: "store.open",
            object: "repo".to_owned(),
            fill_in: Some(("...", url.clone())),
        },
        Row {
            capability: CapabilityKind::Key,
            behave: "ungranted",
            options: String::new(),
            granted: format!("stores.repo = {{ url = \"{url}\" }}\n"),
            function: "keys.named",
            object: "key".to_owned(),
            fill_in: Some(("/path", key.display().to_string())),
        },
        Row {
            capability: CapabilityKind::Program,
            behave: "run-program",
            options: "program = \"true\"\n".to_owned(),
            granted: String::new(),
            function: "program.run",
            object: "true".to_owned(),
            fill_in: None,
        },
    ]
}

/// The capabilities with tests of their own: those of `network` are in `host/sandbox/tests/components`, and a variable that is not
/// granted is no denial.
const ELSEWHERE: [CapabilityKind; 2] = [CapabilityKind::Network, CapabilityKind::Environment];

/// The capability that every method has, as far as it goes: no line allows more.
const NEVER: CapabilityKind = CapabilityKind::Write;

/// The head of the grants, as printed lines name it.
const GRANTS: &str = "[method.hostile.grants]";

fn config(row: &Row, grants: &str) -> String {
    format!(
        "[method.hostile]\nno_leader = true\n\n[method.hostile.options]\nbehave = \"{}\"\n{}\n{GRANTS}\n{grants}",
        row.behave, row.options
    )
}

/// Applies a printed line to the grants. A key that is granted already is replaced, because the line repeats what was granted.
fn apply(grants: &str, line: &str) -> String {
    let setting = line.strip_prefix(GRANTS).unwrap_or_else(|| panic!("{line}")).trim();
    let (key, _) = setting.split_once(" = ").unwrap_or_else(|| panic!("{line}"));
    let others = grants.lines().filter(|line| !line.starts_with(&format!("{key} =")));
    others.chain([setting]).map(|line| format!("{line}\n")).collect()
}

/// Runs the program. Returns how it ended, and the answers to the calls of this function with this object.
fn run(playground: &Playground, name: &str, section: &str, row: &Row) -> (Ended, Vec<String>) {
    let replica = ReplicaFolder::new(playground, name).unwrap().with_shared_state(playground);
    replica.configure("methods = [\"hostile\"]\n", section).unwrap();
    let audit = replica.path("audit");
    let ended = replica.create(&["--audit", audit.to_str().unwrap()]).unwrap();
    let answers = if audit.exists() { answers(&audit, row) } else { Vec::new() };
    (ended, answers)
}

fn answers(audit: &Path, row: &Row) -> Vec<String> {
    let text = fs::read_to_string(audit).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let called =
        lines.filter(|line| line["function"] == row.function && line["object"] == row.object.as_str());
    called.map(|line| line["answer"].as_str().unwrap().to_owned()).collect()
}

/// Returns the denials of the attempt that need this capability: what was denied, and the printed line.
fn denials(ended: &Ended, capability: CapabilityKind) -> Vec<(String, Option<String>)> {
    let denials = ended.attempt("hostile")["denials"].as_array().cloned().unwrap_or_default();
    let of = denials.iter().filter(|denial| denial["capability"] == capability.word());
    of.map(|denial| {
        let text = |key: &str| denial[key].as_str().map(str::to_owned);
        (text("what").unwrap(), text("remedy"))
    })
    .collect()
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn each_grant_is_denied_when_absent_and_the_printed_line_makes_it_work() {
    let playground = Playground::new("grants").unwrap();
    let table = table(&playground);
    for kind in CapabilityKind::ALL {
        let rows = table.iter().filter(|row| row.capability == kind).count();
        let elsewhere = ELSEWHERE.iter().filter(|of| **of == kind).count();
        assert_eq!(rows.min(1) + elsewhere + usize::from(kind == NEVER), 1, "{kind} is in one of the lists");
    }
    for row in &table {
        let kind = row.capability;
        let (ended, answers) = run(&playground, &format!("{kind}-absent"), &config(row, &row.granted), row);
        assert_eq!(ended.attempts(), [("hostile", "denied")], "{kind}: {}", ended.output);
        assert_eq!(answers, ["denied"], "{kind}: {}", ended.output);
        let denied = denials(&ended, kind);
        let [(what, Some(line))] = denied.as_slice() else { panic!("{kind}: {denied:?}") };
        assert!(what.contains(&row.object), "{kind}: {what}");
        assert!(ended.output.contains(&format!("to allow it: {line}")), "{kind}: {}", ended.output);

        let applied = match &row.fill_in {
            Some((part, by)) => line.replace(part, by),
            None => line.clone(),
        };
        let grants = apply(&row.granted, &applied);
        let (ended, answers) = run(&playground, &format!("{kind}-granted"), &config(row, &grants), row);
        assert_eq!(answers, ["ok"], "{kind} with {grants}: {}", ended.output);
        assert_eq!(denials(&ended, kind), [], "{kind}: {}", ended.output);
    }
}

#[test]
#[ignore = "needs servers: cargo xtask test"]
fn no_line_allows_to_write_outside_the_data_directory() {
    let playground = Playground::new("outside").unwrap();
    let row = Row {
        capability: NEVER,
        behave: "write-outside",
        options: format!("path = \"{}\"\n", playground.path("outside").display()),
        granted: String::new(),
        function: "filesystem.open-at",
        object: playground.path("outside").display().to_string(),
        fill_in: None,
    };
    let (ended, answers) = run(&playground, "write", &config(&row, ""), &row);
    assert_eq!(answers, ["denied"], "{}", ended.output);
    assert_eq!(denials(&ended, NEVER), [(row.object, None)], "{}", ended.output);
    assert!(!playground.path("outside").exists());
}
