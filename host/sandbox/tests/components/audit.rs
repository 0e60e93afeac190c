//! Tests the records of a component's calls to the host.

use std::fs;

use replica::event::{HostCall, Step};
use replica::{CapabilityKind, Outcome};
use sandbox::{OptionValue, Secret, StoreConfig};

use crate::stage::{Stage, redactor, text};

/// Returns the records of this function.
fn of<'c>(calls: &'c [HostCall], function: &str) -> Vec<&'c HostCall> {
    calls.iter().filter(|call| call.function == function).collect()
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn no_call_is_recorded_unless_somebody_takes_the_records() {
    let stage = Stage::hostile("ungranted");
    stage.fails(Outcome::Denied).await;
    assert_eq!(stage.calls(), []);
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn what_is_denied_is_recorded_with_the_function_and_the_object() {
    let stage = Stage::hostile("ungranted").audited();
    stage.fails(Outcome::Denied).await;
    let calls = stage.calls();
    for (function, capability, object) in [
        ("keys.named", CapabilityKind::Key, "key"),
        ("store.open", CapabilityKind::Store, "repo"),
        ("program.run", CapabilityKind::Program, r#"sh ["-c", "id"]"#),
        ("datadir.recovery-setting", CapabilityKind::Write, "restore_command"),
    ] {
        let found = of(&calls, function);
        assert_eq!(found.len(), 1, "{function}: {calls:?}");
        let HostCall { step, capability: of, object: on, answer, calls, .. } = found[0];
        assert_eq!(
            (*step, *of, on.as_str(), *answer, *calls),
            (Step::Create, Some(capability), object, "denied", 1)
        );
    }
    assert_eq!(of(&calls, "datadir.tablespace")[0].answer, "not-found");

    let stage = Stage::hostile("network").option("address", text("127.0.0.1:1")).audited();
    stage.fails(Outcome::Denied).await;
    let network =
        |call: &&HostCall| call.capability == Some(CapabilityKind::Network) && call.answer == "denied";
    assert_eq!(stage.calls().iter().filter(network).count(), 4, "{:?}", stage.calls());
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn a_file_that_is_opened_has_one_record_with_the_bytes_that_were_moved() {
    let stage = Stage::hostile("write").audited();
    stage.create().await.unwrap();
    let calls = stage.calls();
    let opened: Vec<_> =
        calls.iter().filter(|call| call.function == "filesystem.open-at" && call.answer == "ok").collect();
    let written: u64 = opened.iter().map(|call| call.bytes_written).sum();
    assert_eq!(written, 1, "{calls:?}");
    assert!(opened.iter().all(|call| call.object.starts_with('/')), "{calls:?}");

    let stage = Stage::hostile("read-outside").audited();
    let granted = stage.directory("granted");
    fs::write(granted.join("file"), vec![b'x'; 300_000]).unwrap();
    let stage = stage.path(&granted.join("file")).grant(|grants| grants.read.push(granted.clone()));
    assert!(stage.create().await.unwrap_err().message.contains("ESCAPED"), "the grant allows it");
    let calls = stage.calls();
    let opened = of(&calls, "filesystem.open-at");
    let [read] = opened.as_slice() else { panic!("{calls:?}") };
    assert_eq!((read.capability, read.answer, read.bytes_read), (Some(CapabilityKind::Read), "ok", 300_000));
    assert_eq!(read.object, granted.join("file").display().to_string());
    assert!(read.calls > 2, "the reads count: {read:?}");

    let stage = Stage::hostile("read-outside").path("/etc/passwd".as_ref()).audited();
    stage.fails(Outcome::Denied).await;
    let calls = stage.calls();
    let denied: Vec<_> = calls.iter().filter(|call| call.answer == "denied").collect();
    let [open] = denied.as_slice() else { panic!("{calls:?}") };
    assert_eq!((open.function, open.object.as_str()), ("filesystem.open-at", "/etc/passwd"));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs components: cargo xtask test"]
async fn each_item_of_a_transfer_has_a_record() {
    let stage = Stage::hostile("transfer").audited();
    let place = stage.directory("backup");
    for (name, size) in [("PG_VERSION", 3), ("base", 70_000)] {
        fs::write(place.join(name), vec![b'x'; size]).unwrap();
    }
    let url = format!("file://{}", place.display());
    let stage = stage.grant(|grants| _ = grants.stores.insert("repo".to_owned(), StoreConfig::new(url)));
    stage.create().await.unwrap();
    let calls = stage.calls();
    let mut fetched: Vec<_> = of(&calls, "transfer.fetch")
        .iter()
        .map(|call| {
            assert_eq!((call.answer, call.capability), ("ok", Some(CapabilityKind::Store)));
            (call.object.rsplit(": ").next().unwrap().to_owned(), call.bytes_read, call.bytes_written)
        })
        .collect();
    fetched.sort();
    let item = |name: &str, bytes| (format!("{name} -> {name}"), bytes, bytes);
    assert_eq!(fetched, [item("PG_VERSION", 3), item("base", 70_000)]);
    for function in ["store.open", "store.scan", "transfer.add-origin"] {
        assert_eq!(of(&calls, function).len(), 1, "{function}: {calls:?}");
    }
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn a_record_has_no_secret_and_its_object_is_cut_and_printable() {
    redactor().add(&Secret::new("audited-swordfish")).unwrap();
    let name = format!("/x\u{1b}[2J/audited-swordfish/{}", "y".repeat(3000));
    let stage = Stage::hostile("read-outside").path(name.as_ref()).audited();
    stage.fails(Outcome::Denied).await;
    let calls = stage.calls();
    assert!(calls.iter().any(|call| call.object.contains("/<secret>/yyy")), "{calls:?}");
    for call in &calls {
        assert!(!call.object.contains("swordfish"), "{call:?}");
        assert!(!call.object.chars().any(char::is_control), "{call:?}");
        assert!(call.object.chars().count() <= 1025, "{call:?}");
    }
}

#[tokio::test]
#[ignore = "needs components: cargo xtask test"]
async fn a_flood_of_calls_waits_for_the_reader_and_loses_no_record() {
    let count = 20_000;
    let stage = Stage::hostile("many-files").option("count", OptionValue::Integer(count)).audited();
    stage.fails(Outcome::Failed).await;
    let calls = stage.calls();
    assert_eq!(of(&calls, "filesystem.open-at").len(), count as usize);
}
