use std::time::Duration;

use replica::CapabilityKind;
use replica::event::{Event, HostCall, Step};
use replica::{EventSink, Level};

use super::sums::{CapabilitySums, MethodSums};
use super::*;
use crate::cli::LogFormat;
use crate::render::Log;
use crate::render::audit::{Audit, audit_file};

const BEGIN: &str =
    r#"{"time":"2026-11-27T21:15:51Z","entry":"begin","version":"0.1.0","configuration":"/u.toml"}"#;
const END: &str = r#"{"time":"2026-11-27T21:15:59Z","entry":"end","result":"created"}"#;

/// Returns the line of a call that needs the capability `read`.
fn call(method: &str, object: &str, bytes: u64, answer: &str) -> String {
    format!(
        r#"{{"time":"2026-11-27T21:15:52Z","entry":"call","method":"{method}","step":"create","capability":"read","function":"filesystem.open-at","object":"{object}","calls":1,"bytes_read":{bytes},"bytes_written":0,"seconds":0.5,"answer":"{answer}"}}"#
    )
}

fn whole(lines: &[String]) -> String {
    format!("{BEGIN}\n{}{END}\n", lines.iter().map(|line| format!("{line}\n")).collect::<String>())
}

fn read(text: impl AsRef<[u8]>, limits: Limits) -> Report {
    Reading::of(text.as_ref(), limits).unwrap().report(10)
}

/// Returns the sums of the only capability of the only method.
fn only(report: &Report) -> &CapabilitySums {
    let [MethodSums { capabilities, .. }] = report.methods.as_slice() else { panic!("{report:?}") };
    let [sums] = capabilities.as_slice() else { panic!("{report:?}") };
    sums
}

#[test]
fn what_the_writer_writes_is_read_with_the_same_values() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.jsonl");
    let log = Log::new(Terminal::to(io::sink()), LogFormat::Text, Level::Info);
    let audit = Audit::begin(&audit_file(&path).unwrap(), "/u.toml", &log).unwrap();
    let calls = CapabilityKind::ALL.map(Some).into_iter().chain([None]).map(|capability| HostCall {
        step: Step::Plan,
        capability,
        function: "f",
        object: "/mnt/a\u{1b}[2J".to_owned(),
        calls: 3,
        bytes_read: u64::MAX,
        bytes_written: 7,
        duration: Duration::from_millis(250),
        answer: HostCall::OK,
    });
    calls.for_each(|call| audit.emit(Event::Called { method: "m".to_owned(), call }));
    audit.emit(Event::RunEnded { result: RunResult::RetryLater, message: None });
    let report = read(std::fs::read(&path).unwrap(), LIMITS);
    assert_eq!(report.incomplete, [""; 0]);
    assert_eq!(
        (report.result, report.configuration.as_deref()),
        (Some(RunResult::RetryLater), Some("/u.toml"))
    );
    let [method] = report.methods.as_slice() else { panic!("{report:?}") };
    assert_eq!(method.capabilities.len(), CapabilityKind::ALL.len() + 1);
    for sums in &method.capabilities {
        let [entry] = sums.objects.entries.as_slice() else { panic!("{sums:?}") };
        assert_eq!((entry.asked.function.as_str(), entry.asked.object.as_str()), ("f", "/mnt/a\u{1b}[2J"));
        assert_eq!(entry.amounts, sums.allowed);
        assert_eq!(
            (sums.allowed.calls, sums.allowed.bytes_read, sums.allowed.bytes_written),
            (3, u64::MAX, 7)
        );
        assert_eq!(sums.allowed.duration, Duration::from_millis(250));
    }
}

#[test]
fn calls_are_added_up_and_the_largest_objects_come_first() {
    let lines = [
        call("m", "/a", 5, "ok"),
        call("m", "/b", 7, "ok"),
        call("m", "/a", 5, "limit"),
        call("m", "/c", 0, "no-entry"),
        call("m", "/etc/shadow", 0, "denied"),
        call("m", "/etc/shadow", 0, "denied"),
    ];
    let report = read(whole(&lines), LIMITS);
    let sums = only(&report);
    assert_eq!((sums.allowed.calls, sums.denied, sums.allowed.bytes_read), (4, 2, 17));
    assert_eq!(sums.allowed.duration, Duration::from_secs(2));
    assert_eq!(sums.failed, [("limit".to_owned(), 1), ("no-entry".to_owned(), 1)].into());
    let objects: Vec<_> = sums.objects.entries.iter().map(|entry| entry.asked.object.as_str()).collect();
    assert_eq!(objects, ["/a", "/b", "/c"]);
    let [denied] = sums.denials.entries.as_slice() else { panic!("{sums:?}") };
    assert_eq!((denied.asked.object.as_str(), denied.amounts.calls), ("/etc/shadow", 2));
}

#[test]
fn damaged_unknown_and_cut_lines_are_counted_and_the_others_are_added() {
    let good = call("m", "/a", 1, "ok");
    let lines = [
        good.clone(),
        "\u{0}\u{0}".to_owned(),
        "{}".to_owned(),
        r#"{"time":"t","entry":"sealed","by":"x"}"#.to_owned(),
        good.replace("\"read\"", "\"teleport\""),
        good.replace("0.5", "-0.5"),
        good.clone(),
    ];
    let text = whole(&lines);
    let report = read(&text, LIMITS);
    assert_eq!(only(&report).allowed.calls, 2);
    let says = report.incomplete.join("\n");
    assert!(says.contains("2 lines cannot be read (the first: line 3)"), "{says}");
    assert!(
        says.contains("3 lines not known to this version") && says.contains("line 5: `sealed`"),
        "{says}"
    );
    assert_eq!(report.incomplete.len(), 2, "{says}");

    // The host was killed while it wrote the last line, or before it wrote it.
    let without_end = text.strip_suffix(&format!("{END}\n")).unwrap();
    let cut = &without_end[..without_end.len() - 20];
    for (text, is_cut) in [(cut, true), (without_end, false)] {
        let report = read(text, LIMITS);
        let says = report.incomplete.join("\n");
        assert_eq!(says.contains("the last line, 8, is cut off"), is_cut, "{says}");
        assert!(says.contains("the line that ends an audit is missing"), "{says}");
        assert!(says.contains("was written at 2026-11-27T21:15:52Z"), "{says}");
        assert_eq!((report.result, report.ended), (None, None));
    }
}

#[test]
fn a_line_of_any_length_is_skipped_in_bounded_memory() {
    let long = call("m", &"x".repeat(LINE_BYTES), 1, "ok");
    let report = read(whole(&[long, call("m", "/a", 1, "ok")]), LIMITS);
    assert_eq!(only(&report).allowed.calls, 1);
    assert_eq!(report.incomplete, ["1 line of more than 16384 bytes, left out (the first: line 2)"]);
}

#[test]
fn a_file_without_an_end_is_read_up_to_a_bound() {
    let limits = Limits { file_bytes: 100_000, ..LIMITS };
    let line = format!("{}\n", call("m", "/a", 1, "ok"));
    let (mut text, fit) = (format!("{BEGIN}\n"), (100_000 - BEGIN.len() - 1) / line.len());
    text.push_str(&line.repeat(2 * fit));
    let report = read(&text, limits);
    assert_eq!(only(&report).allowed.calls, fit as u64);
    let [says] = report.incomplete.as_slice() else { panic!("{report:?}") };
    assert!(says.contains("only its first 256.0 MiB were read"), "{says}");
    // One line without an end.
    let reading = Reading::of(BufReader::new(io::repeat(b'x')), limits).unwrap();
    assert!(reading.known == 0 && reading.is_too_large);
}

#[test]
fn too_many_objects_are_reduced_to_the_largest() {
    let limits = Limits { table_bytes: 100_000, ..LIMITS };
    let lines: Vec<_> = (0..5000).map(|n| call("m", &format!("/{n}"), n, "ok")).collect();
    let report = read(whole(&lines), limits);
    let sums = only(&report);
    assert_eq!((sums.allowed.calls, sums.allowed.bytes_read), (5000, (0..5000).sum()));
    let largest: Vec<_> = sums.objects.entries.iter().map(|entry| entry.amounts.bytes_read).collect();
    assert_eq!(largest, (4990..5000).rev().collect::<Vec<_>>());
    assert_eq!(sums.objects.left_out, 4990);
    assert!(report.incomplete[0].contains("too many different objects"), "{:?}", report.incomplete);
}

#[test]
fn methods_answers_and_denials_have_bounds() {
    let limits = Limits { methods: 2, denials: 3, ..LIMITS };
    let mut lines: Vec<_> = (0..5).map(|n| call(&format!("m{n}"), "/a", 1, "ok")).collect();
    lines.extend((0..10).map(|n| call("m0", &format!("/{n}"), 0, "denied")));
    lines.extend((0..100).map(|n| call("m1", "/b", 0, &format!("answer-{n:03}-{}", "x".repeat(100)))));
    let report = read(whole(&lines), limits);
    assert_eq!(report.methods.len(), 2);
    assert_eq!(report.incomplete, ["3 calls of further methods were left out"]);
    let denied = &report.methods[0].capabilities[0];
    assert_eq!((denied.denied, denied.denials.entries.len(), denied.denials.left_out), (10, 3, 7));
    let failed = &report.methods[1].capabilities[0].failed;
    assert_eq!((failed.len(), failed["other"], failed.values().sum::<u64>()), (33, 68, 100));
    assert!(failed.keys().all(|answer| answer.chars().count() <= 64), "{failed:?}");
}

#[test]
fn two_audits_in_one_file_are_added_up_and_named() {
    let one = whole(&[call("m", "/a", 1, "ok")]);
    let report = read(one.repeat(2), LIMITS);
    assert_eq!(only(&report).allowed.calls, 2);
    assert_eq!(report.incomplete, ["the file has 2 audits, and this report adds them up"]);
    let unfinished = format!("{one}{BEGIN}\n");
    assert!(read(unfinished, LIMITS).incomplete[1].contains("ends an audit is missing"));
}
